import { isUtf8 } from 'node:buffer'
import { malformed } from './malformed.ts'

const slotBits = 13
const maxBytes = 128

/**
 * Topic names as they came lately. Most names come again and again: to find one by its bytes costs less than
 * to make a string of them, and the router finds the same string sooner than an equal one.
 */
const names = new Array<string>(2 ** slotBits).fill('')

/**
 * The topic name between two offsets.
 *
 * @throws `FST_MQTT_MALFORMED`
 */
export function topicName (bytes: Buffer, start: number, end: number): string {
  if (end - start > maxBytes) return decodeTopic(bytes, start, end)
  const slot = slotOf(bytes, start, end)
  const known = names[slot] as string
  if (isAt(bytes, start, end, known)) return known
  const name = decodeTopic(bytes, start, end)
  names[slot] = name
  return name
}

function slotOf (bytes: Buffer, start: number, end: number): number {
  let hash = 0
  for (let at = start; at < end; at++) hash = (hash << 5 | hash >>> 27) ^ (bytes[at] as number)
  return Math.imul(hash, 0x9e3779b1) >>> 32 - slotBits
}

/** Only a name of ASCII is as long as its bytes, and made of the same numbers. */
function isAt (bytes: Buffer, start: number, end: number, name: string): boolean {
  const { length } = name
  if (length !== end - start) return false
  for (let index = 0; index < length; index++) {
    if (name.charCodeAt(index) !== bytes[start + index]) return false
  }
  return true
}

function decodeTopic (bytes: Buffer, start: number, end: number): string {
  let bits = 0
  for (let at = start; at < end; at++) {
    const byte = bytes[at] as number
    if (byte === plus || byte === hash || byte === 0) {
      throw malformed(`the topic of PUBLISH has ${byte === 0 ? 'a NUL' : 'a wildcard'}`)
    }
    bits |= byte
  }
  // ASCII needs no decoder.
  if (bits < 0x80) return bytes.toString('latin1', start, end)
  const topic = bytes.toString('utf8', start, end)
  if (topic.includes('\uFFFD') && !isUtf8(bytes.subarray(start, end))) {
    throw malformed('the topic of PUBLISH is no UTF-8')
  }
  return topic
}

const plus = 0x2b
const hash = 0x23
