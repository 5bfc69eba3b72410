import type { FastifyBaseLogger, FastifyInstance } from 'fastify'

/** Quality of service: 0 at most once, 1 at least once, 2 exactly once [MQTT 5 §4.3]. */
export type QoS = 0 | 1 | 2

/**
 * The properties of a PUBLISH [MQTT 5 §3.3.2.3]. They need MQTT 5: on a 3.1.1 connection a publish with any
 * of them is refused with `FST_MQTT_NEEDS_MQTT5`, and received messages have none.
 */
export interface PublishProperties {
  /** `true` says that the payload is UTF-8 text. */
  payloadFormatIndicator?: boolean | undefined
  /** Seconds after which the broker drops the message if it could not deliver it. */
  messageExpiryInterval?: number | undefined
  /** A topic name on which an answer is awaited. */
  responseTopic?: string | undefined
  /** At most 65,535 bytes that an answer has to repeat. */
  correlationData?: Uint8Array | undefined
  /** For example `application/json`. */
  contentType?: string | undefined
  /** Free pairs of text; a name may come more than once. */
  userProperties?: Readonly<Record<string, string | readonly string[]>> | undefined
}

/** The properties that came with a message. */
export interface MessageProperties extends PublishProperties {
  correlationData?: Buffer | undefined
  /** The identifiers of the subscriptions for which the broker sent this copy. */
  subscriptionIdentifiers?: readonly number[] | undefined
}

/**
 * One received message as one handler sees it. Each handler has its own: what it changes reaches no other.
 *
 * @typeParam Params what the placeholders of the topic pattern gave
 * @typeParam Payload what the payload schema describes; without a schema the Buffer
 */
export interface Message<Params = Record<string, unknown>, Payload = Buffer> {
  /** The topic name without the global prefix; with it if the topic was registered as `absolute`. */
  readonly topic: string
  /** The topic name as it was on the wire. */
  readonly absoluteTopic: string
  /** The values of the placeholders, converted and checked. Frozen. */
  readonly params: Params
  /** Decoded and checked by the payload schema; without a schema the bytes as they came. */
  readonly payload: Payload
  /** The bytes as they came. */
  readonly raw: Buffer
  readonly qos: QoS
  /** True if the broker had kept the message from before the subscription. */
  readonly retain: boolean
  /** True if the broker may have delivered this message before. */
  readonly dup: boolean
  /** What came with the message on MQTT 5; empty on 3.1.1. */
  readonly properties: MessageProperties
  /** The Fastify instance that registered the handler, as `this` is. */
  readonly server: FastifyInstance
  /** A child logger of that instance that names the topic; made on first use. */
  readonly log: FastifyBaseLogger
  /** For hooks: ends the way of the message here, without an error. No later hook and no handler has it. */
  skip (): void
  /**
   * With `ack: 'manual'`: this handler is done with the message. The second time it does nothing, as with
   * QoS 0.
   *
   * @param reasonCode 0, or from 0x80 on to refuse the message, which only MQTT 5 can tell the broker
   * @throws `FST_MQTT_ACK_NOT_MANUAL`, `FST_MQTT_ACK_CODE`
   */
  ack (reasonCode?: number): void
  /** The payload as text. @throws `FST_MQTT_PAYLOAD_DECODE` if it is no UTF-8 */
  text (): string
  /** The payload as JSON, parsed with Fastify's poisoning rules. @throws `FST_MQTT_PAYLOAD_DECODE` */
  json (): unknown
}
