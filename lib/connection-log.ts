import type { FastifyBaseLogger } from 'fastify'
import type { GrantedFilter, RefusedFilter } from '../types/status.ts'
import { logAt } from './diagnostics.ts'
import { refusalClass } from './session/refusals.ts'

/** How a connection stands, for its log lines. */
export interface Standing {
  readonly version: 4 | 5
  readonly nextVersion: 4 | 5
  readonly attempts: number
}

/** Different complaints of one outage that are told; the others are for those who look closer. */
const maxComplaints = 10

/** The log lines of a connection: one for each change, and an outage is a few lines, not one a second. */
export class ConnectionLog {
  readonly #log: FastifyBaseLogger
  readonly #broker: string
  /** What was told of this outage. */
  readonly #complaints = new Set<string>()
  #lostAt: number | undefined
  #earlierAttempts = 0
  #isUp = false

  constructor (log: FastifyBaseLogger, broker: string) {
    this.#log = log
    this.#broker = broker
  }

  onConnecting (): void {
    this.#earlierAttempts = 0
    this.#complaints.clear()
    this.#log.debug(`connecting to ${this.#broker}`)
  }

  onReady ({ version, attempts }: Standing): void {
    const count = attempts - this.#earlierAttempts
    const pause = this.#lostAt === undefined ? '' : ` again after ${seconds(performance.now() - this.#lostAt)}`
    this.#log.info(`connected to ${this.#broker} with MQTT ${version === 5 ? '5' : '3.1.1'}${pause}` +
      (count === 1 ? '' : ` (attempt ${count})`))
    this.#isUp = true
    this.#earlierAttempts = attempts
    this.#lostAt = undefined
    this.#complaints.clear()
  }

  onLost (trouble: string, cause: Error): void {
    this.#isUp = false
    this.#lostAt = performance.now()
    logAt(this.#log, levelOf(cause), cause, {}, `lost the connection to ${this.#broker}, connecting again: ${trouble}`)
  }

  onFailedAttempt (trouble: string, cause: Error, { version, nextVersion }: Standing): void {
    if (version === 5 && nextVersion === 4) {
      const line = `${this.#broker} did not accept MQTT 5, trying 3.1.1`
      this.#log[this.#isNews(line) ? 'info' : 'debug'](line)
      return
    }
    const level = levelOf(cause)
    logAt(this.#log, this.#isNews(trouble) ? level : 'debug', cause, {},
      `could not connect to ${this.#broker}${level === 'warn' ? ', trying again' : ''}: ${trouble}`)
  }

  /** Not above debug: whoever has started it gets an error that says why. */
  onGivenUp (): void {
    this.#isUp = false
    this.#log.debug(`gave up connecting to ${this.#broker}`)
  }

  onDraining (): void {
    this.#log.debug(`closing the connection to ${this.#broker}`)
  }

  onClosed (): void {
    if (this.#isUp) this.#log.info(`disconnected from ${this.#broker}`)
    else this.#log.debug(`closed without a connection to ${this.#broker}`)
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

  #isNews (complaint: string): boolean {
    if (this.#complaints.has(complaint) || this.#complaints.size === maxComplaints) return false
    this.#complaints.add(complaint)
    return true
  }
}

/** An error where somebody has to change something first. */
function levelOf (cause: Error): 'warn' | 'error' {
  return refusalClass(cause) === 'transient' ? 'warn' : 'error'
}

function seconds (ms: number): string {
  return ms < 10_000 ? `${(ms / 1_000).toFixed(1)} s` : `${Math.round(ms / 1_000)} s`
}
