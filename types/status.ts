import type { QoS } from './message.ts'

/**
 * - `idle`: `connect()` has not been called
 * - `connecting`: never connected so far
 * - `ready`: connected
 * - `offline`: the connection was lost; it is tried again
 * - `draining`: closing, handlers still run
 * - `closed`: ended, or the start failed
 */
export type Status = 'idle' | 'connecting' | 'ready' | 'offline' | 'draining' | 'closed'

/** A filter that the broker accepted. */
export interface GrantedFilter {
  readonly filter: string
  /** What the broker grants, which may be less than what was asked for. */
  readonly qos: QoS
}

/** A filter that the broker, or its protocol version, refused. */
export interface RefusedFilter {
  readonly filter: string
  /** From the SUBACK: 0x80 on MQTT 3.1.1; see MQTT 5 §3.9.3. Undefined if the filter was not sent. */
  readonly reasonCode: number | undefined
  readonly reason: string
}

/** Plain data for readiness routes and monitoring. */
export interface Health {
  /** True if connected with every subscription granted. */
  readonly ok: boolean
  readonly status: Status
  /** Protocol, host and port; never user or password. */
  readonly broker: string
  /** What the connection speaks; undefined before the first one. */
  readonly protocolVersion: 4 | 5 | undefined
  /** Attempts to connect so far. */
  readonly attempts: number
  /** Why the last attempt or connection ended. */
  readonly lastError: { readonly code: string, readonly message: string } | undefined
  readonly subscriptions: {
    readonly granted: readonly GrantedFilter[]
    readonly refused: readonly RefusedFilter[]
    /** Filters that are not answered yet. */
    readonly pending: readonly string[]
  }
  /** Counters since the start. */
  readonly messages: {
    readonly received: number
    /** No topic matched. */
    readonly unmatched: number
    /** Failed in decoding, validation or a handler. */
    readonly failed: number
    /** With QoS 0: more waited for handlers than the option `inbox` allows. */
    readonly dropped: number
  }
}

/** Plain numbers for metrics. */
export interface Stats {
  /** Messages since the start, as the others down to `deadLettered`. */
  readonly received: number
  /** No topic matched. */
  readonly unmatched: number
  /** Failures in decoding, validation, hooks and handlers; each attempt counts. */
  readonly failed: number
  /** With QoS 0: more waited for handlers than the option `inbox` allows. */
  readonly dropped: number
  /** Attempts of handlers after the first. */
  readonly retried: number
  /** Taken by the dead letter target of their topic. */
  readonly deadLettered: number
  /** Handlers that run now. */
  readonly running: number
  /** What waits for a handler now: once for each topic that a message matched. */
  readonly waiting: number
  /** Messages with QoS 1 and 2 that are not acknowledged. */
  readonly unacked: number
  /** What waits to be sent, and what gave way to others since the start. */
  readonly outbox: { readonly messages: number, readonly bytes: number, readonly dropped: number }
}
