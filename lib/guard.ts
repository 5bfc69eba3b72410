import type { PublishProperties } from '../types/message.ts'
import { describe, isRecord, kindOf } from './values.ts'

// What stands here keeps bytes from the wire that a broker answers by closing the connection: MQTT.js checks
// nothing itself, and resends such a message after every reconnect (MQTT.js#1402). Each function returns the
// problem as half a sentence that says what would be accepted, or undefined.

/** The longest string or binary field, in bytes [MQTT-1.5.4]. */
export const maxFieldBytes = 65_535
/** The levels that Mosquitto accepts; it closes the connection beyond. */
export const maxTopicLevels = 200
/** The largest value of a Variable Byte Integer, and so of a packet's remaining length [MQTT 5 §1.5.5]. */
export const maxRemainingLength = 268_435_455

// [MQTT-1.5.4-1] forbids surrogates, [MQTT-1.5.4-2] NUL; brokers may close on control and noncharacters, and
// do.
const unsafeCharacter = /[\p{Cc}\p{Noncharacter_Code_Point}]/u
const maxUint32 = 0xffff_ffff

/** Whether text may stand in a UTF-8 string of a packet. */
export function textProblem (text: unknown): string | undefined {
  if (typeof text !== 'string') return `it has to be a string, not ${kindOf(text)}`
  if (!text.isWellFormed()) return 'it has a lone surrogate, which is no Unicode'
  const unsafe = unsafeCharacter.exec(text)?.[0].codePointAt(0)
  if (unsafe !== undefined) {
    return `it has the character U+${unsafe.toString(16).toUpperCase().padStart(4, '0')}, which brokers refuse: ` +
      'no control characters and noncharacters'
  }
  // Three bytes a UTF-16 unit at most: the usual text needs no counting.
  if (text.length * 3 > maxFieldBytes && Buffer.byteLength(text) > maxFieldBytes) {
    return `it has ${Buffer.byteLength(text)} bytes, at most ${maxFieldBytes} are allowed`
  }
  return undefined
}

/** Whether a topic name can be published to [MQTT 5 §4.7]. */
export function topicNameProblem (topic: unknown): string | undefined {
  const problem = textProblem(topic) ?? levelsProblem(topic as string)
  if (problem !== undefined) return problem
  const name = topic as string
  if (name.includes('+') || name.includes('#')) return 'a topic name has no wildcards + and #'
  if (name === '$share' || name.startsWith('$share/')) return '$share is for subscriptions'
  return undefined
}

/** Whether a topic filter can be subscribed [MQTT 5 §4.7, §4.8.2]. */
export function topicFilterProblem (filter: unknown): string | undefined {
  const problem = textProblem(filter) ?? levelsProblem(filter as string)
  if (problem !== undefined) return problem
  const levels = (filter as string).split('/')
  if (levels[0] === '$share') {
    if (levels.length < 3 || levels[1] === '' || (levels.length === 3 && levels[2] === '')) {
      return 'a shared subscription is $share/<group>/<filter>'
    }
    if (/[+#]/.test(levels[1] ?? '')) return 'the group of a shared subscription has no wildcards'
  }
  for (const [index, level] of levels.entries()) {
    if (level === '+' || (level === '#' && index === levels.length - 1)) continue
    if (level === '#') return "'#' must be the last level"
    if (/[+#]/.test(level)) return `a wildcard must be a whole level, '${level}' is not`
  }
  return undefined
}

/** Whether a value may fill one level of a topic name, or several if it is a path. */
export function levelProblem (text: unknown, isPath = false): string | undefined {
  if (text === '') return 'it is empty'
  const problem = textProblem(text)
  if (problem !== undefined) return problem
  const forbidden = (isPath ? /[+#]/ : /[/+#]/).exec(text as string)?.[0]
  return forbidden === undefined ? undefined : `it has a ${forbidden}`
}

/** Whether the properties of a publish can be encoded [MQTT 5 §3.3.2.3]. */
export function propertiesProblem (properties: unknown): string | undefined {
  if (!isRecord(properties)) return `properties have to be an object, not ${kindOf(properties)}`
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue
    if (!Object.hasOwn(propertyChecks, name)) {
      return `there is no property '${name}': there are ${Object.keys(propertyChecks).join(', ')}`
    }
    const problem = propertyChecks[name as keyof PublishProperties](value)
    if (problem !== undefined) return `property '${name}': ${problem}`
  }
  return undefined
}

const propertyChecks: Record<keyof PublishProperties, (value: unknown) => string | undefined> = {
  payloadFormatIndicator: (value) =>
    typeof value === 'boolean' ? undefined : `it has to be a boolean, not ${kindOf(value)}`,
  messageExpiryInterval: (value) =>
    Number.isInteger(value) && (value as number) >= 0 && (value as number) <= maxUint32
      ? undefined
      : `it has to be a whole number of seconds from 0 to ${maxUint32}, not ${describe(value)}`,
  // A client that answers to a wildcard or an empty topic would be cut off itself.
  responseTopic: topicNameProblem,
  correlationData: (value) => {
    if (!(value instanceof Uint8Array)) return `it has to be a Buffer or Uint8Array, not ${kindOf(value)}`
    return value.byteLength > maxFieldBytes
      ? `it has ${value.byteLength} bytes, at most ${maxFieldBytes} are allowed`
      : undefined
  },
  contentType: textProblem,
  userProperties: userPropertiesProblem
}

function userPropertiesProblem (value: unknown): string | undefined {
  if (!isRecord(value)) return `it has to be an object, not ${kindOf(value)}`
  for (const [name, entry] of Object.entries(value)) {
    const nameProblem = textProblem(name)
    if (nameProblem !== undefined) return `name ${describe(name)}: ${nameProblem}`
    // mqtt-packet would write nothing at all, and the publish never settle.
    if (Array.isArray(entry) && entry.length === 0) return `'${name}': the list is empty`
    for (const text of Array.isArray(entry) ? entry : [entry]) {
      const problem = textProblem(text)
      if (problem !== undefined) return `'${name}': ${problem}`
    }
  }
  return undefined
}

/** Whether something is a quality of service. */
export function qosProblem (qos: unknown): string | undefined {
  return qos === 0 || qos === 1 || qos === 2 ? undefined : `qos has to be 0, 1 or 2, not ${describe(qos)}`
}

/** Whether something is a time to wait, which Node.js can measure. */
export function millisecondsProblem (timeout: unknown): string | undefined {
  return Number.isInteger(timeout) && (timeout as number) > 0 && (timeout as number) < 2 ** 31
    ? undefined
    : `timeout has to be a whole number of milliseconds from 1 to 2147483647, not ${describe(timeout)}`
}

/** What a PUBLISH takes on the wire, in bytes [MQTT 5 §3.3]. */
export function publishSize (
  topic: string, payloadBytes: number, qos: number, properties: PublishProperties | undefined, version: 4 | 5
): number {
  const propertyBytes = version === 5 ? propertiesSize(properties ?? {}) : 0
  const remaining = 2 + Buffer.byteLength(topic) + (qos > 0 ? 2 : 0) + payloadBytes +
    (version === 5 ? variableByteSize(propertyBytes) + propertyBytes : 0)
  return 1 + variableByteSize(remaining) + remaining
}

/** What the properties of a PUBLISH take, without their length. */
export function propertiesSize (properties: PublishProperties): number {
  let size = 0
  if (properties.payloadFormatIndicator !== undefined) size += 2
  if (properties.messageExpiryInterval !== undefined) size += 5
  if (properties.responseTopic !== undefined) size += 3 + Buffer.byteLength(properties.responseTopic)
  if (properties.correlationData !== undefined) size += 3 + properties.correlationData.byteLength
  if (properties.contentType !== undefined) size += 3 + Buffer.byteLength(properties.contentType)
  for (const [name, entry] of Object.entries(properties.userProperties ?? {})) {
    for (const text of typeof entry === 'string' ? [entry] : entry) {
      size += 5 + Buffer.byteLength(name) + Buffer.byteLength(text)
    }
  }
  return size
}

/** What a Variable Byte Integer takes [MQTT 5 §1.5.5]. */
export function variableByteSize (value: number): number {
  return value < 128 ? 1 : value < 16_384 ? 2 : value < 2_097_152 ? 3 : 4
}

function levelsProblem (topic: string): string | undefined {
  if (topic === '') return 'it is empty'
  let levels = 1
  for (let slash = topic.indexOf('/'); slash !== -1; slash = topic.indexOf('/', slash + 1)) levels++
  return levels > maxTopicLevels ? `it has ${levels} levels, brokers accept ${maxTopicLevels}` : undefined
}
