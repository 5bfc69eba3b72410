import type { Message, MessageProperties, QoS } from '../../types/message.ts'
import type { Codec } from '../../types/topic.ts'
import { errors } from '../errors.ts'
import { decodeWith } from '../payload/codecs.ts'
import { decodeText } from '../payload/json.ts'
import type { Params } from '../topic/params.ts'
import { withoutPrefix } from '../topic/prefix.ts'
import { describe } from '../values.ts'
import type { AckMode, ManualAck } from './receipt.ts'

/** A PUBLISH as it came in. */
export interface Incoming {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  readonly dup: boolean
  /** In the form of mqtt-packet. */
  readonly properties?: object | undefined
  /** The packet identifier; 0 or undefined with QoS 0. */
  readonly messageId?: number | undefined
  /** The subscriptions that this copy came for, where the broker says so. */
  readonly subscriptionIds?: readonly number[] | undefined
  /** Gives the message bytes of its own, so that what was read from the socket with it can be collected. */
  detach? (): void
}

/** What a message knows of the topic that it is for. */
export interface Recipient {
  readonly pattern: string
  /** What is taken off the topic name; empty for absolute topics. */
  readonly prefix: string
  readonly server: Message['server']
  readonly log: Message['log']
  readonly json: Codec
  readonly ack: AckMode
}

/** One message for one handler. A class of one shape: an object spread would cost 2 µs a message. */
export class ReceivedMessage implements Message<Params, unknown> {
  readonly topic: string
  readonly absoluteTopic: string
  readonly params: Params
  /** Undefined until it has been decoded. */
  payload: unknown
  readonly qos: QoS
  readonly retain: boolean
  readonly dup: boolean
  readonly #incoming: Incoming
  readonly #recipient: Recipient
  readonly #manualAck: ManualAck | undefined
  #raw: Buffer | undefined
  #properties: MessageProperties | undefined
  #log: Message['log'] | undefined
  #isSkipped = false

  constructor (incoming: Incoming, recipient: Recipient, params: Params, manualAck?: ManualAck) {
    this.topic = withoutPrefix(recipient.prefix, incoming.topic)
    this.absoluteTopic = incoming.topic
    this.params = params
    this.payload = undefined
    this.qos = incoming.qos
    this.retain = incoming.retain
    this.dup = incoming.dup
    this.#incoming = incoming
    this.#recipient = recipient
    this.#manualAck = manualAck
  }

  /** Bytes that nobody else has, copied when first asked for. */
  get raw (): Buffer {
    return (this.#raw ??= Buffer.from(this.#incoming.payload))
  }

  /** The same to read only: perhaps shared with other handlers. */
  get bytes (): Buffer {
    return this.#raw ?? this.#incoming.payload
  }

  get properties (): MessageProperties {
    return (this.#properties ??= copyProperties(this.#incoming.properties ?? {}))
  }

  get server (): Message['server'] {
    return this.#recipient.server
  }

  // A child logger costs 200 ns: only messages that are logged pay for it.
  get log (): Message['log'] {
    return (this.#log ??= this.#recipient.log.child({
      pattern: this.#recipient.pattern, topic: this.topic, ...idOf(this.#incoming)
    }))
  }

  skip (): void {
    this.#isSkipped = true
  }

  /** True once a hook has called `skip()`. */
  get isSkipped (): boolean {
    return this.#isSkipped
  }

  ack (reasonCode = 0): void {
    if (this.#recipient.ack !== 'manual') throw new errors.FST_MQTT_ACK_NOT_MANUAL(this.#recipient.pattern)
    const isRefusal = Number.isInteger(reasonCode) && reasonCode >= 0x80 && reasonCode <= 0xff
    if (reasonCode !== 0 && !isRefusal) throw new errors.FST_MQTT_ACK_CODE(describe(reasonCode))
    this.#manualAck?.give(reasonCode)
  }

  text (): string {
    return decodeText(this.bytes)
  }

  json (): unknown {
    return decodeWith(this.#recipient.json, this.bytes)
  }
}

function idOf ({ messageId }: Incoming): { messageId?: number } {
  return messageId === undefined || messageId === 0 ? {} : { messageId }
}

/** What mqtt-packet decodes: one subscription identifier is a number, several are an array. */
interface PacketProperties extends MessageProperties {
  subscriptionIdentifier?: number | number[] | undefined
}

/** The handler's own copy. */
export function copyProperties (properties: PacketProperties): MessageProperties {
  const { subscriptionIdentifier, correlationData, userProperties, ...others } = properties
  const copy: MessageProperties = { ...others }
  if (correlationData !== undefined) copy.correlationData = Buffer.from(correlationData)
  if (userProperties !== undefined) copy.userProperties = structuredClone(userProperties)
  if (subscriptionIdentifier !== undefined) {
    copy.subscriptionIdentifiers = [subscriptionIdentifier].flat()
  }
  return copy
}
