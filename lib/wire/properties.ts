import type { PublishProperties } from '../../types/message.ts'
import { variableByteSize } from '../guard.ts'
import { faultCode, malformed } from './malformed.ts'
import { readUint16, readUint32, readVariable, writeBytes, writeText, writeUint32 } from './fields.ts'

/** The properties of a received PUBLISH in the form of mqtt-packet. */
export interface DecodedProperties {
  payloadFormatIndicator?: boolean
  messageExpiryInterval?: number
  responseTopic?: string
  correlationData?: Buffer
  contentType?: string
  userProperties?: Record<string, string | string[]>
  /** One as a number, several as an array. */
  subscriptionIdentifier?: number | number[]
}

const propertyId = {
  payloadFormatIndicator: 1,
  messageExpiryInterval: 2,
  contentType: 3,
  responseTopic: 8,
  correlationData: 9,
  subscriptionIdentifier: 11,
  reasonString: 31,
  topicAlias: 35,
  userProperty: 38
} as const

// How a value is written; those of a fixed width are that width.
const byte = 1
const uint16 = 2
const uint32 = 4
/** A length of two bytes and what it counts: text or binary data. */
const counted = 5
const pair = 6
const variable = 7

/** How each property of a packet is written, by its identifier; 0 where it has none [MQTT 5 §2.2.2.2]. */
export type PropertyTable = Uint8Array

/** For the packets that MQTT.js decodes, and checks itself for what they may have. */
export const everyProperty = tableOf({
  [byte]: [1, 23, 25, 36, 37, 40, 41, 42],
  [uint16]: [19, 33, 34, 35],
  [uint32]: [2, 17, 24, 39],
  [counted]: [3, 8, 9, 18, 21, 22, 26, 28, 31],
  [variable]: [11],
  [pair]: [38]
})

/** Without the topic alias: a broker may use one only if it was offered some. */
export const publishProperties = tableOf({
  [byte]: [propertyId.payloadFormatIndicator],
  [uint32]: [propertyId.messageExpiryInterval],
  [counted]: [propertyId.contentType, propertyId.responseTopic, propertyId.correlationData],
  [variable]: [propertyId.subscriptionIdentifier],
  [pair]: [propertyId.userProperty]
})

/** PUBACK, PUBREC, PUBREL and PUBCOMP. */
export const ackProperties = tableOf({
  [counted]: [propertyId.reasonString],
  [pair]: [propertyId.userProperty]
})

function tableOf (idsOf: Readonly<Record<number, readonly number[]>>): PropertyTable {
  const table = new Uint8Array(256)
  for (const [kind, ids] of Object.entries(idsOf)) {
    for (const id of ids) table[id] = Number(kind)
  }
  return table
}

/** What a PUBLISH without properties has, too. */
export const noIds: readonly number[] = Object.freeze([])

/**
 * Walks properties without decoding them.
 *
 * @returns the subscription identifiers among them
 * @throws `FST_MQTT_MALFORMED` if they do not fit, or are not those of the packet
 */
export function checkProperties (
  bytes: Buffer, start: number, end: number, table: PropertyTable, packet: string
): readonly number[] {
  let ids: number[] | undefined
  let seen = 0
  let seenHigh = 0
  for (let at = start; at < end;) {
    const id = bytes[at++] as number
    const kind = table[id] as number
    if (kind === 0) throw foreignProperty(id, packet)
    if (id !== propertyId.userProperty && id !== propertyId.subscriptionIdentifier) {
      const bit = 1 << (id & 31)
      if (((id < 32 ? seen : seenHigh) & bit) !== 0) {
        throw malformed(`${packet} has property ${id} twice`, faultCode.protocolError)
      }
      if (id < 32) seen |= bit
      else seenHigh |= bit
    }
    const next = valueEnd(bytes, at, end, kind)
    if (next > end) throw malformed(`property ${id} of ${packet} ends after the properties`)
    if (id === propertyId.payloadFormatIndicator && (bytes[at] as number) > 1) {
      throw malformed(`the payload format indicator of ${packet} is neither 0 nor 1`, faultCode.protocolError)
    }
    if (id === propertyId.subscriptionIdentifier) {
      const value = readVariable(bytes, at, end)
      if (value === 0) throw malformed(`${packet} has the subscription identifier 0`, faultCode.protocolError)
      if (ids === undefined) ids = [value]
      else ids.push(value)
    }
    at = next
  }
  return ids ?? noIds
}

function foreignProperty (id: number, packet: string): Error {
  if (id === propertyId.topicAlias) {
    return malformed(`${packet} has a topic alias, and none was offered`, faultCode.topicAlias)
  }
  return malformed(`${packet} has no property ${id}`)
}

/** Where a value ends; beyond `end` if it does not fit, whatever a length that is cut seems to be. */
function valueEnd (bytes: Buffer, at: number, end: number, kind: number): number {
  if (kind === variable) return at + variableByteSize(readVariable(bytes, at, end))
  if (kind < counted) return at + kind
  const next = at + 2 + readUint16(bytes, at)
  return kind === counted ? next : next + 2 + readUint16(bytes, next)
}

/** Decodes properties of a PUBLISH that `checkProperties` has accepted. */
export function decodeProperties (bytes: Buffer, start: number, end: number): DecodedProperties {
  const properties: DecodedProperties = {}
  for (let at = start; at < end;) {
    const id = bytes[at++] as number
    const kind = publishProperties[id] as number
    decodeProperty(properties, id, bytes, at)
    at = valueEnd(bytes, at, end, kind)
  }
  return properties
}

function decodeProperty (properties: DecodedProperties, id: number, bytes: Buffer, at: number): void {
  switch (id) {
    case propertyId.payloadFormatIndicator:
      properties.payloadFormatIndicator = bytes[at] === 1
      break
    case propertyId.messageExpiryInterval:
      properties.messageExpiryInterval = readUint32(bytes, at)
      break
    case propertyId.contentType:
      properties.contentType = readText(bytes, at)
      break
    case propertyId.responseTopic:
      properties.responseTopic = readText(bytes, at)
      break
    case propertyId.correlationData:
      // A copy, so that who keeps it does not keep all that was read with it.
      properties.correlationData = Buffer.from(bytes.subarray(at + 2, at + 2 + readUint16(bytes, at)))
      break
    case propertyId.subscriptionIdentifier:
      properties.subscriptionIdentifier =
        appended(properties.subscriptionIdentifier, readVariable(bytes, at, bytes.length))
      break
    default:
      decodeUserProperty(properties.userProperties ??= Object.create(null), bytes, at)
  }
}

function decodeUserProperty (pairs: Record<string, string | string[]>, bytes: Buffer, at: number): void {
  const name = readText(bytes, at)
  pairs[name] = appended(pairs[name], readText(bytes, at + 2 + readUint16(bytes, at)))
}

/** The form of mqtt-packet for what may come more than once. */
function appended<T> (before: T | T[] | undefined, value: T): T | T[] {
  if (before === undefined) return value
  if (!Array.isArray(before)) return [before, value]
  before.push(value)
  return before
}

// Ill-formed UTF-8 is replaced, not refused: some brokers hand it on unchecked, and anyone who may publish
// could cut the connection with it.
function readText (bytes: Buffer, at: number): string {
  return bytes.toString('utf8', at + 2, at + 2 + readUint16(bytes, at))
}

/**
 * Writes the properties of a PUBLISH, without their length.
 *
 * @returns the offset after them
 */
export function writeProperties (target: Buffer, offset: number, properties: PublishProperties): number {
  const { payloadFormatIndicator, messageExpiryInterval, contentType, responseTopic, correlationData } =
    properties
  let at = offset
  if (payloadFormatIndicator !== undefined) {
    target[at++] = propertyId.payloadFormatIndicator
    target[at++] = payloadFormatIndicator ? 1 : 0
  }
  if (messageExpiryInterval !== undefined) {
    target[at++] = propertyId.messageExpiryInterval
    at = writeUint32(target, at, messageExpiryInterval)
  }
  if (contentType !== undefined) {
    target[at++] = propertyId.contentType
    at = writeText(target, at, contentType)
  }
  if (responseTopic !== undefined) {
    target[at++] = propertyId.responseTopic
    at = writeText(target, at, responseTopic)
  }
  if (correlationData !== undefined) {
    target[at++] = propertyId.correlationData
    at = writeBytes(target, at, correlationData)
  }
  return writeUserProperties(target, at, properties)
}

function writeUserProperties (
  target: Buffer, offset: number, { userProperties }: PublishProperties
): number {
  let at = offset
  for (const [name, entry] of Object.entries(userProperties ?? {})) {
    for (const text of typeof entry === 'string' ? [entry] : entry) {
      target[at++] = propertyId.userProperty
      at = writeText(target, writeText(target, at, name), text)
    }
  }
  return at
}
