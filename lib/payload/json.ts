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
  return textOf({ bytes, utf8: () => bytes.toString() })
}

/** Bytes that may have a shorter way to their text than to be a Buffer first. */
export interface TextSource {
  readonly bytes: Buffer
  /** With U+FFFD where they are no UTF-8. */
  utf8 (): string
}

/** @throws `FST_MQTT_PAYLOAD_DECODE` */
export function textOf (source: TextSource): string {
  const text = source.utf8()
  // U+FFFD may be what was sent: only then the bytes are looked at.
  if (text.includes('\uFFFD') && !isUtf8(source.bytes)) {
    throw new errors.FST_MQTT_PAYLOAD_DECODE('text', 'it is no valid UTF-8')
  }
  return text
}

/** @throws `FST_MQTT_PAYLOAD_DECODE` */
export function decodeJson (bytes: Buffer, rules: PoisoningRules): unknown {
  return parseJson(decodeText(bytes), rules)
}

/** @throws `FST_MQTT_PAYLOAD_DECODE` */
export function parseJson (text: string, rules: PoisoningRules): unknown {
  try {
    return isHarmless(text) ? JSON.parse(text) : parseSecurely(text, rules)
  } catch (error) {
    throw new errors.FST_MQTT_PAYLOAD_DECODE('JSON', syntaxProblem(error))
  }
}

/**
 * Whether nothing in it could be a forbidden key, neither `__proto__` nor the `prototype` of a `constructor`,
 * not even by an escape. Most payloads are, and to look for these with the parser's own patterns takes half
 * as long as to parse them.
 */
function isHarmless (text: string): boolean {
  return !text.includes('proto') && !text.includes('\\') && text.charCodeAt(0) !== byteOrderMark
}

const byteOrderMark = 0xfeff

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
