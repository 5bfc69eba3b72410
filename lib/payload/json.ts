import { isUtf8 } from 'node:buffer'
import parseSecurely from 'secure-json-parse'
import { describeError, errors } from '../errors.ts'
import { kindOf } from '../values.ts'

/** What Fastify does with `__proto__` and `constructor` keys, from `fastify.initialConfig`. */
export interface PoisoningRules {
  readonly protoAction: 'error' | 'remove' | 'ignore'
  readonly constructorAction: 'error' | 'remove' | 'ignore'
}

/** @throws `FST_MQTT_PAYLOAD_DECODE` */
export function decodeText (bytes: Uint8Array): string {
  if (!isUtf8(bytes)) throw new errors.FST_MQTT_PAYLOAD_DECODE('text', 'it is no valid UTF-8')
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString()
}

/** @throws `FST_MQTT_PAYLOAD_DECODE` */
export function decodeJson (bytes: Uint8Array, rules: PoisoningRules): unknown {
  const text = decodeText(bytes)
  try {
    return parseSecurely(text, rules)
  } catch (error) {
    throw new errors.FST_MQTT_PAYLOAD_DECODE('JSON', describeError(error), { cause: error })
  }
}

/** @throws `FST_MQTT_PAYLOAD_ENCODE` */
export function encodeJson (payload: unknown): string {
  let text: string | undefined
  try {
    text = JSON.stringify(payload)
  } catch (error) {
    throw new errors.FST_MQTT_PAYLOAD_ENCODE('JSON', describeError(error), { cause: error })
  }
  if (text === undefined) throw new errors.FST_MQTT_PAYLOAD_ENCODE('JSON', `${kindOf(payload)} has no JSON`)
  return text
}
