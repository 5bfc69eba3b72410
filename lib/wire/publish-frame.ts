import type { QoS } from '../../types/message.ts'
import { variableByteSize } from '../guard.ts'
import { readUint16, readVariable } from './fields.ts'
import { faultCode, malformed } from './malformed.ts'
import { checkProperties, decodeProperties, noIds, publishProperties, type DecodedProperties } from './properties.ts'
import type { TopicName, TopicTable } from './topic-names.ts'

/** A PUBLISH that came in. Its bytes are part of what was read from the socket, until `detach()`. */
export class PublishFrame {
  readonly name: TopicName
  /** The packet identifier; 0 with QoS 0. */
  readonly messageId: number
  /** The identifiers of the subscriptions for which this copy came. */
  readonly subscriptionIds: readonly number[]
  /** The first byte of its header. */
  readonly #first: number
  #bytes: Buffer
  #propertiesAt: number
  #payloadAt: number
  #end: number
  #keepers: number
  /** Whether it is detached, or will be when the turn ends. */
  #state: 'attached' | 'listed' | 'detached'
  #payload: Buffer | undefined
  #properties: DecodedProperties | undefined

  constructor (
    first: number,
    name: TopicName,
    messageId: number,
    subscriptionIds: readonly number[],
    bytes: Buffer,
    propertiesAt: number,
    payloadAt: number,
    end: number
  ) {
    this.name = name
    this.messageId = messageId
    this.subscriptionIds = subscriptionIds
    this.#first = first
    this.#bytes = bytes
    this.#propertiesAt = propertiesAt
    this.#payloadAt = payloadAt
    this.#end = end
    this.#keepers = 0
    this.#state = 'attached'
    this.#payload = undefined
    this.#properties = undefined
  }

  get topic (): string {
    return this.name.text
  }

  get qos (): QoS {
    return (this.#first >> 1 & 3) as QoS
  }

  get retain (): boolean {
    return (this.#first & 1) !== 0
  }

  get dup (): boolean {
    return (this.#first & 8) !== 0
  }

  get payload (): Buffer {
    return (this.#payload ??= this.#bytes.subarray(this.#payloadAt, this.#end))
  }

  /** Of the payload, in bytes. */
  get size (): number {
    return this.#end - this.#payloadAt
  }

  /** The payload as text, with U+FFFD where it is no UTF-8. */
  utf8 (): string {
    // By no name: to look it up costs as much as to decode a short text.
    return toString.call(this.#bytes, undefined, this.#payloadAt, this.#end)
  }

  /** The properties in the form of mqtt-packet, decoded when first asked for; undefined if there are none. */
  get properties (): object | undefined {
    if (this.#propertiesAt === this.#payloadAt) return undefined
    return (this.#properties ??= decodeProperties(this.#bytes, this.#propertiesAt, this.#payloadAt))
  }

  /** Somebody needs it also later. If that is beyond this turn of the event loop, it is detached. */
  keep (): void {
    if (++this.#keepers > 1 || this.#state === 'detached') return
    this.#state = 'listed'
    listed++
    if (kept.push(this) === 1 && !isScheduled) {
      isScheduled = true
      setImmediate(detachKept)
    }
  }

  /** One of those who keep it needs it no more. */
  drop (): void {
    if (--this.#keepers > 0 || this.#state !== 'listed') return
    this.#state = 'attached'
    // In one turn there may be thousands of them, which would all grow old here.
    if (--listed === 0) kept.length = 0
  }

  /** The turn in which it was kept ends. */
  onTurnEnd (): void {
    if (this.#state !== 'listed') return
    this.#state = 'attached'
    this.detach()
  }

  /**
   * Copies what is still needed, so that what was read with it can be collected. `payload` is another Buffer
   * then: one that was taken before still holds on to the old bytes.
   */
  detach (): void {
    const size = this.#end - this.#propertiesAt
    // A message that fills what it lies in would free less than its copy takes. So does one that was cut over
    // several reads, which lies in bytes of its own.
    if (this.#state === 'detached' || size * 2 > this.#bytes.buffer.byteLength) return
    this.#state = 'detached'
    const bytes = Buffer.allocUnsafe(size)
    this.#bytes.copy(bytes, 0, this.#propertiesAt, this.#end)
    this.#bytes = bytes
    this.#payloadAt -= this.#propertiesAt
    this.#propertiesAt = 0
    this.#end = size
    this.#payload = this.#payloadAt === 0 ? this.#bytes : undefined
  }
}

// The engine does not inline what it finds in a prototype with so many members.
const { toString } = Buffer.prototype

/** What is looked at when the turn ends: most is through by then, and its copy would be for nothing. */
const kept: PublishFrame[] = []
/** How many of them are still kept. */
let listed = 0
let isScheduled = false

function detachKept (): void {
  isScheduled = false
  listed = 0
  for (const frame of kept.splice(0)) frame.onTurnEnd()
}

/**
 * Decodes a PUBLISH whose first byte has been checked, and whose body lies from `body` to `end`.
 *
 * @throws `FST_MQTT_MALFORMED`
 */
export function decodePublish (
  bytes: Buffer, first: number, body: number, end: number, version: 4 | 5, names: TopicTable
): PublishFrame {
  const topicAt = body + 2
  const topicEnd = topicAt > end ? Infinity : topicAt + readUint16(bytes, body)
  if (topicEnd > end) throw malformed('the topic of PUBLISH ends after the packet')
  const name = names.at(bytes, topicAt, topicEnd)
  let at = topicEnd
  let messageId = 0
  if ((first & 0b0110) !== 0) {
    at += 2
    if (at > end) throw malformed('PUBLISH ends in its packet identifier')
    messageId = readUint16(bytes, topicEnd)
    if (messageId === 0) throw malformed('PUBLISH has the packet identifier 0', faultCode.protocolError)
  }
  let payloadAt = at
  let ids = noIds
  if (version === 5) {
    const length = readVariable(bytes, at, end)
    at += variableByteSize(length)
    payloadAt = at + length
    if (payloadAt > end) throw malformed('the properties of PUBLISH end after the packet')
    if (length > 0) ids = checkProperties(bytes, at, payloadAt, publishProperties, 'PUBLISH')
  }
  if (topicAt === topicEnd) throw malformed('PUBLISH has no topic', faultCode.protocolError)
  return new PublishFrame(first, name, messageId, ids, bytes, at, payloadAt, end)
}
