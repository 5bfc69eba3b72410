import type { Message, MessageProperties, QoS } from '../../types/message.ts'
import type { Codec } from '../../types/topic.ts'
import { errors } from '../errors.ts'
import { decodePayload, type Encoded } from '../payload/codecs.ts'
import { textOf } from '../payload/json.ts'
import type { TopicMemo } from '../router/topic-cache.ts'
import type { Params } from '../topic/params.ts'
import { describe } from '../values.ts'
import type { AckMode, ManualAck } from './receipt.ts'

/** A PUBLISH as it came in. */
export interface Incoming {
  readonly topic: string
  /** What is known of the topic. */
  readonly name?: TopicMemo
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
  /** Of the payload, in bytes; and it as text, with U+FFFD where it is no UTF-8. Cheaper than the payload. */
  readonly size?: number
  utf8? (): string
  /** It is needed later, too: beyond this turn of the event loop it gets bytes of its own. */
  keep? (): void
  /** One of those who keep it needs it no more. */
  drop? (): void
}

/** What a message takes of the limits: its topic name and its payload, in bytes. */
export function weightOf (incoming: Incoming): number {
  return incoming.topic.length + (incoming.size ?? incoming.payload.length)
}

/** What a message knows of the topic that it is for. */
export interface Recipient {
  readonly pattern: string
  readonly server: Message['server']
  readonly log: Message['log']
  readonly json: Codec
  readonly ack: AckMode
}

/** One message for one handler. A class of one shape: an object spread would cost 2 µs a message. */
export class ReceivedMessage implements Message<Params, unknown>, Encoded {
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

  constructor (
    incoming: Incoming, recipient: Recipient, topic: string, params: Params, manualAck?: ManualAck
  ) {
    this.topic = topic
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

  /** Of the payload, in bytes. */
  get size (): number {
    return this.#raw?.length ?? this.#incoming.size ?? this.#incoming.payload.length
  }

  /** The payload as text, with U+FFFD where it is no UTF-8. */
  utf8 (): string {
    return this.#raw === undefined && this.#incoming.utf8 !== undefined
      ? this.#incoming.utf8()
      : this.bytes.toString()
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
    return textOf(this)
  }

  json (): unknown {
    return decodePayload(this.#recipient.json, this)
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
