import { errors } from '../errors.ts'
import type { Job } from './job.ts'

export interface AllowanceSettings {
  /** Of the broker, for messages. */
  readonly broker: string
  /** How many may wait, and how many bytes of topic and payload they may have together. */
  readonly maxMessages: number
  readonly maxBytes: number
  readonly overflow: 'reject' | 'drop-oldest' | 'drop-newest'
}

/** Bounds what waits in the outbox, by count and by bytes. */
export class Allowance {
  readonly #settings: AllowanceSettings
  #messages = 0
  #bytes = 0
  #dropped = 0

  constructor (settings: AllowanceSettings) {
    this.#settings = settings
  }

  get counters (): { messages: number, bytes: number, dropped: number } {
    return { messages: this.#messages, bytes: this.#bytes, dropped: this.#dropped }
  }

  /**
   * Takes a job in, if there is room or room can be made.
   *
   * @param oldestOf finds the one that has to go first; undefined if none can
   * @returns false if there is none: the job is settled
   */
  admit (job: Job, oldestOf: () => Job | undefined): boolean {
    const { overflow } = this.#settings
    if (overflow === 'drop-oldest') this.#makeRoomFor(job, oldestOf)
    if (this.#isTooMuch(job)) {
      if (overflow !== 'reject') this.#dropped++
      job.settle(this.#full())
      return false
    }
    job.isCounted = true
    this.#messages++
    this.#bytes += job.bytes
    return true
  }

  release (job: Job): void {
    job.isCounted = false
    this.#messages--
    this.#bytes -= job.bytes
  }

  #makeRoomFor (job: Job, oldestOf: () => Job | undefined): void {
    // What could never have room is not worth what waits.
    if (job.bytes > this.#settings.maxBytes) return
    while (this.#isTooMuch(job)) {
      const oldest = oldestOf()
      if (oldest === undefined) return
      this.#dropped++
      oldest.settle(this.#full())
    }
  }

  #isTooMuch (job: Job): boolean {
    return this.#messages >= this.#settings.maxMessages || this.#bytes + job.bytes > this.#settings.maxBytes
  }

  #full (): Error {
    const { broker, maxMessages, maxBytes } = this.#settings
    return new errors.FST_MQTT_OUTBOX_FULL(
      `what waits for ${broker} may be ${maxMessages} messages with ${maxBytes} bytes`)
  }
}
