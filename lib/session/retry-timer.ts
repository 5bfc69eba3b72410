/** How long to wait before something is tried again. */
export interface RetryDelays {
  readonly minDelayMs: number
  readonly maxDelayMs: number
  /** Default: `Math.random`. */
  readonly random?: (() => number) | undefined
}

/**
 * Says when to try again: after a time between nothing and a limit that doubles from attempt to attempt
 * ("full jitter"), so that many who were refused at once do not come back at once.
 */
export class RetryTimer {
  readonly #delays: RetryDelays
  readonly #onDue: () => void
  #attempts = 0
  #timer: NodeJS.Timeout | undefined

  constructor (delays: RetryDelays, onDue: () => void) {
    this.#delays = delays
    this.#onDue = onDue
  }

  /** Plans an attempt, unless one is planned. */
  plan (): void {
    if (this.#timer !== undefined) return
    const { minDelayMs, maxDelayMs, random = Math.random } = this.#delays
    const limitMs = Math.min(maxDelayMs, minDelayMs * 2 ** this.#attempts++)
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#onDue()
    }, random() * limitMs)
  }

  /** Forgets the plan, and how often it was tried. */
  reset (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#attempts = 0
  }
}
