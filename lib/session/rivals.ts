import { hangUp, isReset, isTakeover } from './refusals.ts'

/** A connection that lives longer was not ended by a rival that waits for its turn. */
const briefMs = 10_000
/** So many brief ones in a row are no accident. */
const suspiciousCount = 3

/**
 * Finds out whether another client has the same identifier. Of two the broker keeps the later one, so that
 * both would throw each other out for ever, as fast as they can. MQTT 5 has a reason for it, which not all
 * brokers give (Mosquitto before 2.1 does not), nor can any on 3.1.1: there it shows in connections that end
 * without a word soon after they were made.
 */
export class Rivals {
  readonly #clientId: string
  readonly #longestWaitMs: number
  readonly #now: () => number
  #upSince = 0
  #briefs = 0

  /** @param longestWaitMs between attempts, also those of the rival */
  constructor (clientId: string, longestWaitMs: number, now = () => performance.now()) {
    this.#clientId = clientId
    this.#longestWaitMs = longestWaitMs
    this.#now = now
  }

  get areSuspected (): boolean {
    return this.#briefs >= suspiciousCount
  }

  onUp (): void {
    this.#upSince = this.#now()
  }

  /** An attempt failed: no rival does that. */
  onFailure (): void {
    this.#briefs = 0
  }

  /**
   * A connection ended that had been accepted.
   *
   * @param error why; undefined if nobody has said it
   * @returns why, with the suspicion if there is one
   */
  onEnd (error: Error | undefined): Error | undefined {
    if (error !== undefined && isTakeover(error)) {
      this.#briefs = suspiciousCount
      return error
    }
    // Both wait longer and longer, and live as long as the other waits.
    const limitMs = this.areSuspected ? Math.max(briefMs, 2 * this.#longestWaitMs) : briefMs
    const isBrief = this.#now() - this.#upSince < limitMs
    // A reset is no evidence: brokers make one where something is unread, and bad networks all the time.
    if (isBrief && error !== undefined && isReset(error)) return error
    this.#briefs = isBrief && error === undefined ? this.#briefs + 1 : 0
    if (!this.areSuspected) return error
    return hangUp(
      'the broker closes the connection again and again soon after it was made, and does not say why: ' +
      `is another client connected with the clientId '${this.#clientId}'?`)
  }
}
