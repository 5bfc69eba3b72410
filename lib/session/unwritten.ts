import { asError, describeError, errors } from '../errors.ts'
import { Timed, type Deadlines } from './deadlines.ts'
import { Job, type JobHost } from './job.ts'
import type { BrokerLimits, OutgoingPublish } from './link.ts'
import { assertBrokerAccepts } from './publish.ts'

/** What messages are written to. */
export interface WritePort {
  readonly version: 4 | 5
  readonly limits: BrokerLimits
  sendPublish (publish: OutgoingPublish, packetId: number, isDup: boolean): number
}

/**
 * What cannot be written harms only itself: otherwise it would end the connection, and each that comes after.
 *
 * @returns the number of the write
 * @throws `FST_MQTT_PUBLISH_REFUSED`
 */
export function writePublish (
  port: WritePort, publish: OutgoingPublish, packetId: number, isAgain: boolean
): number {
  try {
    return port.sendPublish(publish, packetId, isAgain)
  } catch (cause) {
    const problem = `it cannot be written: ${describeError(cause)}`
    throw new errors.FST_MQTT_PUBLISH_REFUSED(publish.topic, problem, { cause })
  }
}

/** Jobs of one write that have the same patience. */
class Batch extends Timed {
  readonly sequence: number
  readonly timeoutMs: number
  readonly jobs: Job[] = []
  /** That of one of its jobs, for all that nobody gives up by a signal. */
  promise: Promise<void> | undefined = undefined

  constructor (sequence: number, timeoutMs: number) {
    super()
    this.sequence = sequence
    this.timeoutMs = timeoutMs
  }

  onOverdue (): void {
    for (const job of this.jobs) job.onOverdue()
  }
}

/**
 * What is with the socket and not yet with the operating system: messages with QoS 0. A write has one
 * deadline, not each of its messages.
 */
export class Unwritten {
  readonly #port: WritePort
  readonly #deadlines: Deadlines
  readonly #host: JobHost
  #batches: Batch[] = []
  #last: Batch | undefined

  constructor (port: WritePort, deadlines: Deadlines, host: JobHost) {
    this.#port = port
    this.#host = host
    this.#deadlines = deadlines
  }

  add (sequence: number, job: Job): void {
    this.#batchOf(sequence, job.timeoutMs).jobs.push(job)
  }

  /**
   * Writes a message that is given up with the others of its write only. They share a promise: one for each
   * would cost more than all the rest.
   */
  write (publish: OutgoingPublish, timeoutMs: number): Promise<void> {
    try {
      assertBrokerAccepts(publish, this.#port)
      const sequence = writePublish(this.#port, publish, 0, false)
      const batch = this.#batchOf(sequence, timeoutMs)
      return (batch.promise ??= new Promise((resolve, reject) => {
        batch.jobs.push(new Job(publish, timeoutMs, this.#host, resolve, reject))
      }))
    } catch (error) {
      return Promise.reject(asError(error))
    }
  }

  #batchOf (sequence: number, timeoutMs: number): Batch {
    const last = this.#last
    if (last !== undefined && last.sequence === sequence && last.timeoutMs === timeoutMs) return last
    const batch = new Batch(sequence, timeoutMs)
    this.#last = batch
    this.#batches.push(batch)
    this.#deadlines.add(batch)
    return batch
  }

  /** All writes up to this one are done. */
  settle (sequence: number): void {
    const done = this.#batches.filter((batch) => batch.sequence <= sequence)
    if (done.length === this.#batches.length) this.#last = undefined
    this.#batches = this.#batches.filter((batch) => batch.sequence > sequence)
    this.#end(done)
  }

  reject (errorOf: () => Error): void {
    const all = this.#batches
    this.#batches = []
    this.#last = undefined
    this.#end(all, errorOf)
  }

  #end (batches: readonly Batch[], errorOf?: () => Error): void {
    for (const batch of batches) {
      this.#deadlines.delete(batch)
      for (const job of batch.jobs) job.settle(errorOf?.())
    }
  }
}
