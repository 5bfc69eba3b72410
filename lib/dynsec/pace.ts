/** The broker does nothing else while it executes a message: nobody should wait for long. */
const targetMs = 100

/**
 * How many commands go into the next message of a batch: what the broker is expected to execute within 100
 * ms, and at most the limit, with which it begins. Mosquitto 2.0 writes its whole configuration after each
 * command, which takes 10 ms for a thousand clients.
 */
export class Pace {
  readonly #limit: number
  readonly #roundTripMs: number
  #size: number

  /** @param roundTripMs what the way there and back takes of any message */
  constructor (limit: number, roundTripMs: number) {
    this.#limit = limit
    this.#roundTripMs = roundTripMs
    this.#size = limit
  }

  get size (): number {
    return this.#size
  }

  /** Takes in how long a message took. */
  note (commands: number, tookMs: number): void {
    const perCommandMs = Math.max(tookMs - this.#roundTripMs, 0) / commands
    // Not by leaps: what one message takes says little of the next.
    const wanted = Math.min(Math.floor(targetMs / perCommandMs), commands * 2)
    this.#size = Math.max(1, Math.min(wanted, this.#limit))
  }
}
