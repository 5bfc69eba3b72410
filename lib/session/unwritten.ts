import { Timed, type Deadlines } from './deadlines.ts'
import type { Job } from './job.ts'

/** Jobs of one write that have the same patience. */
class Batch extends Timed {
  readonly sequence: number
  readonly timeoutMs: number
  readonly jobs: Job[] = []

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
  readonly #deadlines: Deadlines
  #batches: Batch[] = []
  #last: Batch | undefined

  constructor (deadlines: Deadlines) {
    this.#deadlines = deadlines
  }

  add (sequence: number, job: Job): void {
    let batch = this.#last
    if (batch === undefined || batch.sequence !== sequence || batch.timeoutMs !== job.timeoutMs) {
      this.#last = batch = new Batch(sequence, job.timeoutMs)
      this.#batches.push(batch)
      this.#deadlines.add(batch)
    }
    batch.jobs.push(job)
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
