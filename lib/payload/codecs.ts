import type { Codec } from '../../types/topic.ts'
import { describeError, errors } from '../errors.ts'
import { kindOf } from '../values.ts'
import { asBytes } from './bytes.ts'
import { decodeText, encodeJson, parseJson, textOf, type PoisoningRules, type TextSource } from './json.ts'

/** The codecs of a connection: found by name or by content type. */
export class Codecs {
  readonly json: Codec
  readonly #byName = new Map<string, Codec>()
  readonly #byContentType = new Map<string, Codec>()

  constructor (rules: PoisoningRules, own: readonly Codec[] = []) {
    this.json = new TextCodec('application/json', encodeJson, (text) => parseJson(text, rules))
    this.#add('json', this.json)
    this.#add('text', textCodec)
    this.#add('binary', binaryCodec)
    for (const codec of own) this.#add(codec.contentType, codec)
  }

  /** By `'json'`, `'text'`, `'binary'` or the content type of a codec of the application's own. */
  named (name: string): Codec | undefined {
    return this.#byName.get(name)
  }

  /** What `named` knows, for messages. */
  get names (): string[] {
    return [...this.#byName.keys()]
  }

  /** For the content type of a received message, without its parameters such as `charset`. */
  forContentType (contentType: string | undefined): Codec | undefined {
    if (contentType === undefined) return undefined
    return this.#byContentType.get(bare(contentType))
  }

  #add (name: string, codec: Codec): void {
    this.#byName.set(name, codec)
    this.#byContentType.set(bare(codec.contentType), codec)
  }
}

/** A content type without its parameters, such as `charset`. */
function bare (contentType: string): string {
  return contentType.replace(/;.*/s, '').trim().toLowerCase()
}

/** A payload that comes in. */
export interface Encoded extends TextSource {
  /** Bytes that nobody else has, which a codec may keep. */
  readonly raw: Buffer
}

/** @throws `FST_MQTT_PAYLOAD_DECODE`, whatever the codec throws */
export function decodePayload (codec: Codec, payload: Encoded): unknown {
  return codec instanceof TextCodec ? codec.parse(textOf(payload)) : decodeWith(codec, payload.raw)
}

/** @throws `FST_MQTT_PAYLOAD_DECODE`, whatever the codec throws: also a RangeError of one that recurses */
export function decodeWith (codec: Codec, bytes: Buffer): unknown {
  try {
    return codec.decode(bytes)
  } catch (error) {
    if (error instanceof errors.FST_MQTT_PAYLOAD_DECODE) throw error
    throw new errors.FST_MQTT_PAYLOAD_DECODE(codec.contentType, describeError(error), { cause: error })
  }
}

/** @throws `FST_MQTT_PAYLOAD_ENCODE`, whatever the codec throws or returns */
export function encodeWith (codec: Codec, payload: unknown): Buffer {
  try {
    const encoded: unknown = codec.encode(payload)
    const bytes = asBytes(encoded)
    if (bytes !== undefined) return bytes
    throw new TypeError(`the codec has to return text or bytes, not ${kindOf(encoded)}`)
  } catch (error) {
    if (error instanceof errors.FST_MQTT_PAYLOAD_ENCODE) throw error
    throw new errors.FST_MQTT_PAYLOAD_ENCODE(codec.contentType, describeError(error), { cause: error })
  }
}

/** One that is about text: what it gives has nothing of the bytes in it. */
class TextCodec implements Codec {
  readonly contentType: string
  readonly encode: (payload: unknown) => string
  /** @throws `FST_MQTT_PAYLOAD_DECODE` */
  readonly parse: (text: string) => unknown

  constructor (contentType: string, encode: TextCodec['encode'], parse: TextCodec['parse']) {
    this.contentType = contentType
    this.encode = encode
    this.parse = parse
  }

  decode (bytes: Buffer): unknown {
    return this.parse(decodeText(bytes))
  }
}

function encodeText (payload: unknown): string {
  if (typeof payload === 'string') return payload
  throw new TypeError(`it has to be a string, not ${kindOf(payload)}`)
}

const textCodec = new TextCodec('text/plain', encodeText, (text) => text)

const binaryCodec: Codec = {
  contentType: 'application/octet-stream',
  encode (payload) {
    const bytes = typeof payload === 'string' ? undefined : asBytes(payload)
    if (bytes !== undefined) return bytes
    throw new TypeError(`it has to be a Buffer, an ArrayBuffer or a view on one, not ${kindOf(payload)}`)
  },
  decode: (bytes) => bytes
}
