import type { QoS } from './message.ts'

/** A registered topic, as `fastify.mqtt.topics()` lists it. */
export interface ListedTopic {
  /** As given, without prefixes. */
  readonly pattern: string
  /** As subscribed: with prefixes, `+` and `#`. */
  readonly filter: string
  readonly name: string | undefined
  readonly qos: QoS
  readonly absolute: boolean
  /** The `topicPrefix` of the scope. */
  readonly topicPrefix: string
  /** How many handlers it has; without any it is not subscribed. */
  readonly handlers: number
  readonly params: readonly { readonly name: string, readonly converter: string }[]
  /** The schemas that were given. */
  readonly schemas: { readonly params: unknown, readonly payload: unknown }
  /**
   * The patterns of other topics with another filter that one message can match too: on some brokers such a
   * message comes once for each filter.
   */
  readonly overlaps: readonly string[]
}
