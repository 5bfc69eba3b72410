import { errors } from '../errors.ts'
import { encodeJson } from './json.ts'

/**
 * The bytes of a payload that has no schema: strings and bytes as they are, `undefined` is the empty message,
 * anything else is JSON.
 *
 * @throws `FST_MQTT_PAYLOAD_ENCODE`
 */
export function bytesOf (payload: unknown): Buffer {
  if (payload === undefined) return empty
  return asBytes(payload) ?? Buffer.from(encodeJson(payload))
}

/**
 * Text and bytes of any kind as a Buffer on the same memory; undefined for other values.
 *
 * @throws `FST_MQTT_PAYLOAD_ENCODE` for text that would silently become another
 */
export function asBytes (value: unknown): Buffer | undefined {
  if (typeof value === 'string') {
    if (value.isWellFormed()) return Buffer.from(value)
    throw new errors.FST_MQTT_PAYLOAD_ENCODE('text', 'it has a lone surrogate, which is no Unicode')
  }
  if (Buffer.isBuffer(value)) return value
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) return Buffer.from(value)
  return undefined
}

const empty = Buffer.alloc(0)
