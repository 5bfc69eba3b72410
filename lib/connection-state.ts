import type { Status } from '../types/status.ts'
import type { ConnectionLog, Standing } from './connection-log.ts'

/**
 * What may follow what; all else is no change: a connection that drains may come and go, and drains.
 *
 * ```
 * idle ─► connecting ─► ready ⇄ offline     each of these ─► draining ─► closed
 *             ▲ │         │
 *             │ └─────────┴─► closed        a start that failed can be tried again
 *             └──────────────────┘
 * ```
 */
const following: Readonly<Record<Status, readonly Status[]>> = {
  idle: ['connecting', 'draining'],
  connecting: ['ready', 'draining', 'closed'],
  ready: ['offline', 'draining', 'closed'],
  // Lost before its first subscriptions were answered.
  offline: ['ready', 'draining', 'closed'],
  draining: ['closed'],
  closed: ['connecting']
}

/** The state of a connection: the one place where it changes, with one line in the log for each change. */
export class ConnectionState {
  readonly #log: ConnectionLog
  #status: Status = 'idle'

  constructor (log: ConnectionLog) {
    this.#log = log
  }

  get status (): Status {
    return this.#status
  }

  /** It is tried until it succeeds, or is ended. */
  open (): void {
    if (this.#enter('connecting')) this.#log.onConnecting()
  }

  up (standing: Standing): void {
    if (this.#enter('ready')) this.#log.onReady(standing)
  }

  /** A connection ended, or an attempt failed. */
  down (trouble: string, cause: Error, wasUp: boolean, standing: Standing): void {
    if (!wasUp) this.#log.onFailedAttempt(trouble, cause, standing)
    else if (this.#enter('offline')) this.#log.onLost(trouble, cause)
  }

  /** The start is given up, and may be tried again. */
  fail (): void {
    if (this.#enter('closed')) this.#log.onGivenUp()
  }

  drain (): void {
    if (this.#enter('draining')) this.#log.onDraining()
  }

  close (): void {
    if (this.#enter('closed')) this.#log.onClosed()
  }

  #enter (status: Status): boolean {
    if (!following[this.#status].includes(status)) return false
    this.#status = status
    return true
  }
}
