import type { DynsecCapabilities } from '../../types/dynsec.ts'
import type { WireCommand } from './checks.ts'

/** Where the plugin of the broker takes commands, and where it answers. */
export const requestTopic = '$CONTROL/dynamic-security/v1'
export const responseTopic = '$CONTROL/dynamic-security/v1/response'

/**
 * What the commands need of whoever reaches the broker. All of it is plain data, so that the connection may
 * be in another process.
 */
export interface Exchange {
  /**
   * The verified way to the plugin: made when it is first needed, and anew after each loss of the connection.
   *
   * @throws rejects with `FST_MQTT_OFFLINE`, `FST_MQTT_CLOSED`, `FST_MQTT_DYNSEC_ABORTED`,
   *   `FST_MQTT_DYNSEC_NOT_AUTHORIZED`, `FST_MQTT_DYNSEC_PLUGIN_ABSENT`, `FST_MQTT_DYNSEC_NO_ANSWER`
   */
  session (options: SessionOptions): Promise<Session>
  /**
   * Sends commands as one message, once.
   *
   * @returns what came of each
   * @throws rejects as `session`, if nothing was sent
   */
  send (commands: readonly WireCommand[], options: SendOptions): Promise<readonly Answer[]>
}

export interface SessionOptions {
  /** Of the caller; the way itself has the time of the settings. */
  readonly timeoutMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export interface SendOptions {
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** What is known of the way to the plugin. */
export interface Session {
  readonly capabilities: DynsecCapabilities
  readonly self: Self
  /** What the broker takes, in bytes; Infinity where it said nothing. */
  readonly maximumPacketSize: number
  /** What a small question takes. */
  readonly roundTripMs: number
}

/**
 * The account that administers, with its groups, and the roles of both. Who changes any of them ends the
 * connection, so that this is true as long as it lasts.
 */
export interface Self {
  readonly username: string | undefined
  readonly groups: readonly string[]
  readonly roles: readonly string[]
}

/** What came of one command. */
export type Answer =
  | { readonly kind: 'done', readonly data?: unknown }
  | { readonly kind: 'refused', readonly error: string }
  | { readonly kind: 'missing', readonly why: Missing }

/**
 * Why there is no answer: the connection was lost or closed, it took too long, the caller gave up, a later
 * message was answered before, the message was answered but not this command, there is no plugin.
 */
export type Missing = 'lost' | 'closed' | 'late' | 'aborted' | 'overtaken' | 'skipped' | 'absent'
