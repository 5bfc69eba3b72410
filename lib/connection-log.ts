import type { FastifyBaseLogger } from 'fastify'
import type { GrantedFilter, RefusedFilter } from '../types/status.ts'
import { describeError } from './errors.ts'

/** How a connection stands, for its log lines. */
interface Standing {
  readonly version: 4 | 5
  readonly nextVersion: 4 | 5
  readonly attempts: number
}

/** The log lines of a connection: one for each change, and an outage is one line, not one a second. */
export class ConnectionLog {
  readonly #log: FastifyBaseLogger
  readonly #broker: string
  #lastComplaint: string | undefined

  constructor (log: FastifyBaseLogger, broker: string) {
    this.#log = log
    this.#broker = broker
  }

  onReady ({ version, attempts }: Standing): void {
    this.#lastComplaint = undefined
    this.#log.info(`connected to ${this.#broker} with MQTT ${version === 5 ? '5' : '3.1.1'}` +
      (attempts === 1 ? '' : ` (attempt ${attempts})`))
  }

  onDown (cause: Error, wasUp: boolean, { version, nextVersion }: Standing): void {
    if (wasUp) {
      this.#log.warn({ err: cause }, `lost the connection to ${this.#broker}, connecting again`)
      return
    }
    if (version === 5 && nextVersion === 4) {
      this.#log.info(`${this.#broker} did not accept MQTT 5, trying 3.1.1`)
      return
    }
    const complaint = describeError(cause)
    const level = complaint === this.#lastComplaint ? 'debug' : 'warn'
    this.#lastComplaint = complaint
    this.#log[level]({ err: cause }, `could not connect to ${this.#broker}, trying again`)
  }

  onRefused ({ filter, reasonCode, reason }: RefusedFilter): void {
    this.#log.error({ filter, reasonCode }, `subscription to '${filter}' was refused: ${reason}`)
  }

  onStillRefused ({ filter, reasonCode, reason }: RefusedFilter): void {
    this.#log.debug({ filter, reasonCode }, `subscription to '${filter}' was refused again: ${reason}`)
  }

  onRestored ({ filter, qos }: GrantedFilter): void {
    this.#log.info({ filter, qos }, `subscription to '${filter}' is granted now`)
  }

  onExcess (unacked: number, maxUnacked: number): void {
    this.#log.warn({ unacked }, `more than ${maxUnacked} messages wait for their handlers: the connection is ` +
      'renewed, so that the broker keeps them')
  }

  onClosed (): void {
    this.#log.debug(`disconnected from ${this.#broker}`)
  }
}
