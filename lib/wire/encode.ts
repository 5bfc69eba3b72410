import type { PublishProperties, QoS } from '../../types/message.ts'
import { propertiesSize, variableByteSize } from '../guard.ts'
import { writeUint16, writeVariable } from './fields.ts'
import { packetType, type AckType } from './packets.ts'
import { writeProperties } from './properties.ts'

/** A PUBLISH to be written, checked by the guard. */
export interface PublishToEncode {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  readonly properties: PublishProperties | undefined
}

/**
 * Writes a PUBLISH.
 *
 * @param packetId any number with QoS 0
 * @returns the offset after it
 * @throws RangeError if it does not fit: `encodedHeadBytes` and the payload always do
 */
export function encodePublish (
  target: Buffer, offset: number, publish: PublishToEncode, packetId: number, dup: boolean, version: 4 | 5
): number {
  const at = encodePublishHead(target, offset, publish, packetId, dup, version)
  target.set(publish.payload, at)
  return at + publish.payload.length
}

/** Writes a PUBLISH without its payload, which has to follow. Otherwise as `encodePublish`. */
export function encodePublishHead (
  target: Buffer, offset: number, publish: PublishToEncode, packetId: number, dup: boolean, version: 4 | 5
): number {
  const { topic, payload, qos, retain, properties } = publish
  const topicBytes = Buffer.byteLength(topic)
  const propertyBytes = version === 5 && properties !== undefined ? propertiesSize(properties) : 0
  const remaining = 2 + topicBytes + (qos > 0 ? 2 : 0) + payload.length +
    (version === 5 ? variableByteSize(propertyBytes) + propertyBytes : 0)
  const end = offset + 1 + variableByteSize(remaining) + remaining - payload.length
  // Writing beyond it would do nothing, and tear the stream. What has no size at all is refused, too.
  if (!(end <= target.length)) throw new RangeError('the buffer has no room for the head of a PUBLISH')
  target[offset] = packetType.publish << 4 | (dup && qos > 0 ? 8 : 0) | qos << 1 | (retain ? 1 : 0)
  let at = writeVariable(target, offset + 1, remaining)
  at = writeUint16(target, at, topicBytes)
  target.write(topic, at)
  at += topicBytes
  if (qos > 0) at = writeUint16(target, at, packetId)
  if (version === 5) at = writeVariable(target, at, propertyBytes)
  if (propertyBytes > 0) writeProperties(target, at, properties ?? {})
  return end
}

/** What the head of a PUBLISH takes at most. */
export function encodedHeadBytes ({ topic, properties }: PublishToEncode, version: 4 | 5): number {
  // A UTF-16 unit takes three bytes at most. The rest: a fixed header of five, two for the topic's length and
  // the identifier each, four for the length of the properties.
  const propertyBytes = version === 5 && properties !== undefined ? propertiesSize(properties) : 0
  return 13 + topic.length * 3 + propertyBytes
}

/** What an acknowledgement takes at most. */
export const maxAckBytes = 5

/**
 * Writes a PUBACK, PUBREC, PUBREL or PUBCOMP.
 *
 * @param reasonCode not written on 3.1.1, which has none
 * @returns the offset after it
 * @throws RangeError if it does not fit
 */
export function encodeAck (
  target: Buffer, offset: number, type: AckType, packetId: number, reasonCode: number, version: 4 | 5
): number {
  const hasReason = reasonCode !== 0 && version === 5
  if (offset + (hasReason ? maxAckBytes : maxAckBytes - 1) > target.length) {
    throw new RangeError('the buffer has no room for an acknowledgement')
  }
  target[offset] = type << 4 | (type === packetType.pubrel ? 2 : 0)
  target[offset + 1] = hasReason ? 3 : 2
  const at = writeUint16(target, offset + 2, packetId)
  if (!hasReason) return at
  target[at] = reasonCode
  return at + 1
}
