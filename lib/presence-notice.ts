import type { FastifyBaseLogger } from 'fastify'
import { logAt } from './diagnostics.ts'
import type { Presence } from './options/will.ts'
import type { Patience } from './session/job.ts'
import type { OutgoingPublish } from './session/link.ts'

/** What a notice needs of the connection. */
export interface PresencePort {
  publish (publish: OutgoingPublish, patience: Patience): Promise<void>
}

/** Says whether this client is there; the broker says the rest, by the will. */
export class PresenceNotice {
  readonly #presence: Presence
  readonly #port: PresencePort
  readonly #log: FastifyBaseLogger
  /** An 'online' that is not acknowledged: it is sent again by itself. */
  #isOnItsWay = false
  #isEnding = false

  constructor (presence: Presence, port: PresencePort, log: FastifyBaseLogger) {
    this.#presence = presence
    this.#port = port
    this.#log = log
  }

  /** Not after `part()`. */
  async arrive (timeoutMs: number): Promise<void> {
    if (this.#isOnItsWay || this.#isEnding) return
    this.#isOnItsWay = true
    await this.#say('online', timeoutMs)
    this.#isOnItsWay = false
  }

  /** @returns false if the broker has not taken it */
  async part (timeoutMs: number): Promise<boolean> {
    this.#isEnding = true
    return await this.#say('offline', timeoutMs)
  }

  async #say (state: 'online' | 'offline', timeoutMs: number): Promise<boolean> {
    const { topic, qos } = this.#presence
    const publish = { topic, payload: this.#presence[state], qos, retain: true, properties: undefined }
    try {
      await this.#port.publish(publish, { timeoutMs: Math.max(1, timeoutMs), signal: undefined })
      return true
    } catch (error) {
      // At the end the will says it.
      if (!this.#isEnding) logAt(this.#log, 'warn', error, { topic }, `the presence '${state}' was not published`)
      return false
    }
  }
}
