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
export function decodeText (bytes: Buffer): string {
  if (!isUtf8(bytes)) throw new errors.FST_MQTT_PAYLOAD_DECODE('text', 'it is no valid UTF-8')
  return bytes.toString()
}

/** @throws `FST_MQTT_PAYLOAD_DECODE` */
export function decodeJson (bytes: Buffer, rules: PoisoningRules): unknown {
  const text = decodeText(bytes)
  try {
    return parseSecurely(text, rules)
  } catch (error) {
    throw new errors.FST_MQTT_PAYLOAD_DECODE('JSON', syntaxProblem(error))
  }
}

/** Without the error itself, whose message quotes the payload, which may carry secrets. */
function syntaxProblem (error: unknown): string {
  const message = describeError(error)
  if (message.includes('forbidden prototype property')) return 'it has a __proto__ or constructor.prototype key'
  const position = /at position \d+/.exec(message)?.[0]
  return position === undefined ? 'it breaks off, or is malformed' : `it is malformed ${position}`
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
