import { errors } from '../errors.ts'
import type { Place } from '../queue.ts'
import { aborted, listen, unlisten, type Abortable } from './aborts.ts'
import { Timed } from './deadlines.ts'
import type { OutgoingPublish } from './link.ts'

/** When a publish is given up. */
export interface Patience {
  readonly timeoutMs: number
  readonly signal: AbortSignal | undefined
}

/** What a job needs of the outbox that it is in. */
export interface JobHost {
  onCreated (): void
  /** The job has settled, once. */
  onSettled (job: Job): void
}

/**
 * - `queued`: not sent, or sent in a session that is lost
 * - `sent`: PUBLISH is sent
 * - `released`: with QoS 2: PUBREC came, PUBREL is sent
 */
export type JobState = 'queued' | 'sent' | 'released'

/** One publish on its way, which settles once. */
export class Job extends Timed implements Abortable {
  publish: OutgoingPublish
  readonly timeoutMs: number
  readonly bytes: number
  state: JobState = 'queued'
  isSettled = false
  /** 0 while it has none. */
  packetId = 0
  /** Counts those that were sent. */
  place = 0
  /** The connection that it was last sent on, and the one whose limits it was checked against. */
  connection = 0
  checkedOn = 0
  /** The one on which PUBREC came. */
  releasedOn = 0
  /** How many connections ended while it waited for its acknowledgement. */
  drops = 0
  /** How many connections ended right after it was sent alone. */
  loneDeaths = 0
  isQuarantined = false
  sentAt = 0
  next: Job | undefined
  previous: Job | undefined
  isListed = false
  /** Whether it takes part in the limits of the outbox. */
  isCounted = false
  readonly #host: JobHost
  readonly #resolve: () => void
  readonly #reject: (error: Error) => void
  #signal: AbortSignal | undefined
  #listening: Place<Abortable> | undefined

  constructor (
    publish: OutgoingPublish,
    timeoutMs: number,
    host: JobHost,
    resolve: () => void,
    reject: (error: Error) => void
  ) {
    super()
    this.publish = publish
    this.timeoutMs = timeoutMs
    this.bytes = publish.payload.length + publish.topic.length
    this.#host = host
    this.#resolve = resolve
    this.#reject = reject
    host.onCreated()
  }

  listen (signal: AbortSignal): void {
    this.#signal = signal
    this.#listening = listen(signal, this)
  }

  onAbort (signal: AbortSignal): void {
    this.#giveUp(aborted(signal))
  }

  onOverdue (): void {
    this.#giveUp(new errors.FST_MQTT_PUBLISH_TIMEOUT(this.timeoutMs))
  }

  /** In flight it is kept until the broker answers, if it ever does: but not what would be sent again. */
  #giveUp (error: Error): void {
    this.settle(error)
    this.publish = { ...this.publish, payload: noBytes, properties: undefined }
  }

  settle (error?: Error): void {
    if (this.isSettled) return
    this.isSettled = true
    if (this.#signal !== undefined && this.#listening !== undefined) unlisten(this.#signal, this.#listening)
    if (error === undefined) this.#resolve()
    else this.#reject(error)
    this.#host.onSettled(this)
  }
}

const noBytes = Buffer.alloc(0)

/** The one that waits for longer. */
export function older (one: Job | undefined, other: Job | undefined): Job | undefined {
  if (one === undefined || other === undefined) return one ?? other
  return one.dueAt - one.timeoutMs <= other.dueAt - other.timeoutMs ? one : other
}

/** Jobs in order, from which any can be taken at once. */
export class JobQueue {
  #first: Job | undefined
  #last: Job | undefined

  get first (): Job | undefined {
    return this.#first
  }

  push (job: Job): void {
    job.isListed = true
    job.previous = this.#last
    job.next = undefined
    if (this.#last === undefined) this.#first = job
    else this.#last.next = job
    this.#last = job
  }

  /** Puts jobs before all others, in their order. */
  unshift (jobs: readonly Job[]): void {
    for (const job of [...jobs].reverse()) {
      job.isListed = true
      job.previous = undefined
      job.next = this.#first
      if (this.#first === undefined) this.#last = job
      else this.#first.previous = job
      this.#first = job
    }
  }

  shift (): Job | undefined {
    const job = this.#first
    if (job !== undefined) this.delete(job)
    return job
  }

  delete (job: Job): void {
    if (!job.isListed) return
    job.isListed = false
    if (job.previous === undefined) this.#first = job.next
    else job.previous.next = job.next
    if (job.next === undefined) this.#last = job.previous
    else job.next.previous = job.previous
    job.next = job.previous = undefined
  }

  /** Empties it. */
  drain (): Job[] {
    const jobs: Job[] = []
    for (let job = this.shift(); job !== undefined; job = this.shift()) jobs.push(job)
    return jobs
  }
}
