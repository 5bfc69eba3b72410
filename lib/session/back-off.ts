export interface BackOffSettings {
  readonly minDelayMs: number
  readonly maxDelayMs: number
}

/** A connection that lived so long was a good one. */
const stableMs = 10_000
/** After what a message of ours has ended, to find out which; so often in a row. */
const soonMs = 20
const maxSoon = 60

/**
 * - `usual`: it may go well the next time
 * - `slow`: somebody has to change something first: the longest wait after three attempts
 * - `contested`: the same, and a connection has to live longer than a rival may wait, to be a good one
 * - `soon`: as long as that is reasonable
 */
export type Pace = 'usual' | 'slow' | 'contested' | 'soon'

/**
 * The waits between attempts: random ones below a limit that doubles (full jitter), so that a thousand
 * clients of one broker do not come back at the same moment.
 */
export class BackOff {
  readonly #settings: BackOffSettings
  readonly #random: () => number
  readonly #now: () => number
  #failures = 0
  #soon = 0
  #upSince: number | undefined

  constructor (settings: BackOffSettings, random = Math.random, now = () => performance.now()) {
    this.#settings = settings
    this.#random = random
    this.#now = now
  }

  onUp (): void {
    this.#upSince = this.#now()
  }

  /** Milliseconds until the next attempt. */
  next (pace: Pace): number {
    const { minDelayMs, maxDelayMs } = this.#settings
    const neededMs = pace === 'contested' ? Math.max(stableMs, 2 * maxDelayMs) : stableMs
    const isStable = this.#upSince !== undefined && this.#now() - this.#upSince >= neededMs
    if (isStable) this.#failures = this.#soon = 0
    this.#upSince = undefined
    if (pace === 'soon' && this.#soon++ < maxSoon) return this.#random() * soonMs
    const limit = Math.min(maxDelayMs, minDelayMs * 2 ** this.#failures)
    this.#failures += pace === 'slow' || pace === 'contested' ? 3 : 1
    return this.#random() * limit
  }
}
