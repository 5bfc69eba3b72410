/** What one process spent. */
export interface Measurement {
  /** Microseconds of CPU time of the whole process, also of its garbage collector's threads, per message. */
  readonly cpuUs: number
  /** Messages per second. */
  readonly rate: number
}

/** The part of the messages that is not measured: until then code is compiled and caches fill. */
const warmUp = 0.2

/** Counts messages, and measures from the end of the warm-up to the last one. */
export class Meter {
  readonly done: Promise<Measurement>
  readonly #first: number
  readonly #last: number
  #finish: (measurement: Measurement) => void = () => {}
  #delivered = 0
  #begin = { cpu: process.cpuUsage(), timeMs: 0 }

  constructor (messages: number) {
    this.#first = Math.floor(messages * warmUp)
    this.#last = messages
    this.done = new Promise((resolve) => { this.#finish = resolve })
  }

  get delivered (): number {
    return this.#delivered
  }

  count (): void {
    this.#delivered++
    if (this.#delivered === this.#first) {
      this.#begin = { cpu: process.cpuUsage(), timeMs: performance.now() }
    } else if (this.#delivered === this.#last) {
      const { user, system } = process.cpuUsage(this.#begin.cpu)
      const messages = this.#last - this.#first
      this.#finish({
        cpuUs: (user + system) / messages,
        rate: messages / (performance.now() - this.#begin.timeMs) * 1_000
      })
    }
  }
}
