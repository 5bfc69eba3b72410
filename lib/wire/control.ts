import { variableByteSize } from '../guard.ts'
import { readUint16, readVariable } from './fields.ts'
import { faultCode, malformed } from './malformed.ts'
import { packetName, packetType, type AckType } from './packets.ts'
import { ackProperties, checkProperties, everyProperty, type PropertyTable } from './properties.ts'

/** The reason codes below 0x80 of each acknowledgement; from there on each says that it failed. */
const successCodes: Readonly<Record<AckType, readonly number[]>> = {
  [packetType.puback]: [0x00, 0x10],
  [packetType.pubrec]: [0x00, 0x10],
  [packetType.pubrel]: [0x00],
  [packetType.pubcomp]: [0x00]
}

/**
 * Checks the body of an acknowledgement, which lies from `body` to `end` [MQTT 5 §3.4 to §3.7].
 *
 * @returns its reason code
 * @throws `FST_MQTT_MALFORMED`
 */
export function checkAck (bytes: Buffer, type: AckType, body: number, end: number, version: 4 | 5): number {
  const length = end - body
  if (length < 2 || (length > 2 && version === 4)) throw wrongLength(type, length)
  checkPacketId(bytes, type, body)
  if (length === 2) return 0
  const reasonCode = bytes[body + 2] as number
  // Brokers send codes that the tables have not: Mosquitto a PUBACK with 0x95, too large. As a plain failure
  // it fails one message, as a malformed packet it would come again after each reconnect.
  if (reasonCode < 0x80 && !successCodes[type].includes(reasonCode)) {
    throw malformed(`${packetName(type)} has the reason code ${reasonCode}`)
  }
  if (length > 3) checkLastProperties(bytes, body + 3, end, ackProperties, packetName(type))
  return reasonCode
}

/**
 * Checks the lengths in a packet that MQTT.js decodes, since its parser reads beyond them; the values are
 * left to it.
 *
 * @throws `FST_MQTT_MALFORMED`
 */
export function checkControl (bytes: Buffer, type: number, body: number, end: number, version: 4 | 5): void {
  const length = end - body
  switch (type) {
    case packetType.connack:
      return checkConnack(bytes, body, end, version)
    case packetType.suback:
      return checkGrants(bytes, type, body, end, version)
    case packetType.unsuback:
      if (version === 4 && length !== 2) throw wrongLength(type, length)
      return checkGrants(bytes, type, body, end, version)
    case packetType.pingresp:
      if (length !== 0) throw wrongLength(type, length)
      return
    default:
      // DISCONNECT and AUTH of MQTT 5: nothing, a reason code, or that and properties.
      if (length > 1) checkLastProperties(bytes, body + 1, end, everyProperty, packetName(type))
  }
}

function checkConnack (bytes: Buffer, body: number, end: number, version: 4 | 5): void {
  const length = end - body
  // A broker that does not know MQTT 5 refuses it with the CONNACK of 3.1.1.
  const isOldRefusal = length === 2 && bytes[body + 1] !== 0
  const fits = version === 4 ? length === 2 : length > 2 || isOldRefusal
  if (!fits) throw wrongLength(packetType.connack, length)
  if ((bytes[body] as number) > 1) throw malformed('CONNACK has flags other than session present')
  if (length > 2) checkLastProperties(bytes, body + 2, end, everyProperty, 'CONNACK')
}

function checkGrants (bytes: Buffer, type: number, body: number, end: number, version: 4 | 5): void {
  if (end - body < 2) throw wrongLength(type, end - body)
  checkPacketId(bytes, type, body)
  const at = version === 5
    ? checkPropertySection(bytes, body + 2, end, everyProperty, packetName(type))
    : body + 2
  const hasCodes = type === packetType.suback || version === 5
  if (hasCodes && at === end) throw malformed(`${packetName(type)} has no reason code`)
}

// [MQTT-2.2.1-3]
function checkPacketId (bytes: Buffer, type: number, at: number): void {
  if (readUint16(bytes, at) === 0) {
    throw malformed(`${packetName(type)} has the packet identifier 0`, faultCode.protocolError)
  }
}

/** Checks properties after which the packet ends. */
function checkLastProperties (
  bytes: Buffer, at: number, end: number, table: PropertyTable, packet: string
): void {
  if (checkPropertySection(bytes, at, end, table, packet) !== end) {
    throw malformed(`the properties of ${packet} end before the packet`)
  }
}

/** Checks properties with their length; returns the offset after them. */
function checkPropertySection (
  bytes: Buffer, at: number, end: number, table: PropertyTable, packet: string
): number {
  const length = readVariable(bytes, at, end)
  const start = at + variableByteSize(length)
  if (start + length > end) throw malformed(`the properties of ${packet} end after the packet`)
  checkProperties(bytes, start, start + length, table, packet)
  return start + length
}

function wrongLength (type: number, length: number): Error {
  return malformed(`${packetName(type)} has a body of ${length} bytes`)
}
