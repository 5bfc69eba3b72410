import type { PublishProperties, QoS } from '../../types/message.ts'
import { errors } from '../errors.ts'
import { maxFieldBytes, maxRemainingLength, propertiesProblem, textProblem } from '../guard.ts'
import { isRecord } from '../values.ts'
import { isFailure, type Failure } from './failures.ts'
import { bytesRoom, textRoom, type FrameBody, type FrameWriter } from './frames.ts'

/**
 * Version of what the processes of a group say to each other. Counted up with every change, of frames or of
 * what they mean: two versions never talk to each other. Only `hello` stays as it is for ever.
 */
export const protocolVersion = 1

/** Bytes of a frame: as much as the largest PUBLISH, and what its properties take more as JSON. */
export const maxFrameBytes = maxRemainingLength + 1_048_576
/** Bytes of a frame of somebody who has not yet shown that he knows the key. */
export const maxGreetingBytes = 256

export const nonceBytes = 16
export const proofBytes = 32

/** A PUBLISH that another process sends for us. */
export interface ForwardedPublish {
  /** The absolute topic name. */
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  readonly properties: PublishProperties | undefined
  /** That of the codec, which the owner sends where its connection has properties. */
  readonly contentType?: string | undefined
}

/** What an operation takes, and what it answers: a value that has JSON, and bytes. */
export interface Parcel {
  readonly data: unknown
  readonly bytes: Buffer
}

/**
 * What goes over the socket between the owner of a group and a member. Operations are forwarded, not packets,
 * so that whoever awaits the answer gets it.
 *
 * - `hello`, `proof`: the greeting of both sides, see handshake.ts
 * - `beat`: a sign of life, where nothing else was sent
 * - `publish`, `call`: a member asks for an operation; `cancel`: it no longer waits for it
 * - `done`, `reply`, `failed`: the owner's answer; `declined`: the owner has not done it, and will not
 * - `state`: how the owner's connection is, first as the answer to the greeting and then whenever it changes
 * - `leaving`: the owner closes, and takes no more operations
 */
export type Frame =
  | { readonly type: 'hello', readonly version: number, readonly heartbeatMs: number, readonly nonce: Buffer }
  | { readonly type: 'proof', readonly proof: Buffer }
  | { readonly type: 'beat' }
  | PublishFrame
  | CallFrame
  | { readonly type: 'cancel', readonly id: number }
  | { readonly type: 'done', readonly id: number }
  | { readonly type: 'reply', readonly id: number, readonly parcel: Parcel }
  | { readonly type: 'failed', readonly id: number, readonly failure: Failure }
  | { readonly type: 'declined', readonly id: number }
  | { readonly type: 'state', readonly state: unknown }
  | { readonly type: 'leaving' }

export interface PublishFrame {
  readonly type: 'publish'
  readonly id: number
  readonly timeoutMs: number
  /** False if no `cancel` will come. */
  readonly isAbortable: boolean
  readonly publish: ForwardedPublish
}

export interface CallFrame {
  readonly type: 'call'
  readonly id: number
  readonly timeoutMs: number
  readonly isAbortable: boolean
  /** Which operation. */
  readonly name: string
  readonly parcel: Parcel
}

const types = {
  hello: 1,
  proof: 2,
  beat: 3,
  publish: 4,
  call: 5,
  cancel: 6,
  done: 7,
  reply: 8,
  failed: 9,
  declined: 10,
  state: 11,
  leaving: 12
} as const satisfies Record<Frame['type'], number>

/** The first bytes of every connection: FMMQ. */
const magic = 0x46_4d_4d_51
const retainBit = 0b100
const propertiesBit = 0b1000
const abortableBit = 0b1_0000
const contentTypeBit = 0b10_0000

/**
 * Appends a frame to what will be written.
 *
 * @throws `FST_MQTT_BROKER_LIMIT` for what is too large; TypeError for data that has no JSON. Then nothing is
 * appended.
 */
export function encode (writer: FrameWriter, frame: Frame): void {
  switch (frame.type) {
    case 'publish': return encodePublish(writer, frame)
    case 'call': return encodeCall(writer, frame)
    case 'reply': return encodeReply(writer, frame.id, frame.parcel)
    case 'hello':
      return writer.begin(types.hello, 10 + nonceBytes).uint32(magic).uint16(frame.version)
        .uint32(frame.heartbeatMs).bytes(frame.nonce).end()
    case 'proof': return writer.begin(types.proof, proofBytes).bytes(frame.proof).end()
    case 'cancel':
    case 'done':
    case 'declined': return writer.begin(types[frame.type], 4).uint32(frame.id).end()
    case 'beat':
    case 'leaving': return writer.begin(types[frame.type], 0).end()
    case 'failed': {
      const json = jsonOf(frame.failure)
      return writer.begin(types.failed, 4 + bytesRoom(json)).uint32(frame.id).bytes(json).end()
    }
    case 'state': {
      const json = jsonOf(frame.state)
      return writer.begin(types.state, bytesRoom(json)).bytes(json).end()
    }
  }
}

function encodePublish (writer: FrameWriter, { id, timeoutMs, isAbortable, publish }: PublishFrame): void {
  const { topic, payload, qos, retain, properties, contentType } = publish
  const json = properties === undefined ? undefined : propertiesJson(properties)
  const flags = qos | (retain ? retainBit : 0) | (json === undefined ? 0 : propertiesBit) |
    (isAbortable ? abortableBit : 0) | (contentType === undefined ? 0 : contentTypeBit)
  assertFits(topic, payload.length + (json?.length ?? 0))
  if (contentType !== undefined) assertFits(contentType, 0)
  const room = 9 + textRoom(topic) + (contentType === undefined ? 0 : textRoom(contentType)) +
    (json === undefined ? 0 : 4 + bytesRoom(json)) + bytesRoom(payload)
  writer.begin(types.publish, room).uint32(id).uint32(timeoutMs).uint8(flags).text(topic)
  if (contentType !== undefined) writer.text(contentType)
  if (json !== undefined) writer.uint32(json.length).bytes(json)
  writer.bytes(payload).end()
}

function encodeCall (writer: FrameWriter, { id, timeoutMs, isAbortable, name, parcel }: CallFrame): void {
  const json = jsonOf(parcel.data)
  assertFits(name, json.length + parcel.bytes.length)
  writer.begin(types.call, 13 + textRoom(name) + bytesRoom(json) + bytesRoom(parcel.bytes))
    .uint32(id).uint32(timeoutMs).uint8(isAbortable ? abortableBit : 0).text(name)
    .uint32(json.length).bytes(json).bytes(parcel.bytes).end()
}

function encodeReply (writer: FrameWriter, id: number, { data, bytes }: Parcel): void {
  const json = jsonOf(data)
  assertFits('', json.length + bytes.length)
  writer.begin(types.reply, 8 + bytesRoom(json) + bytesRoom(bytes))
    .uint32(id).uint32(json.length).bytes(json).bytes(bytes).end()
}

// The other side would end the connection for more, and be sent it again on the next.
function assertFits (text: string, bytes: number): void {
  if (text.length * 3 > maxFieldBytes && Buffer.byteLength(text) > maxFieldBytes) {
    throw new errors.FST_MQTT_BROKER_LIMIT(`a topic name or content type has at most ${maxFieldBytes} bytes`)
  }
  const most = maxFrameBytes - maxFieldBytes - maxGreetingBytes
  if (bytes > most) throw new errors.FST_MQTT_BROKER_LIMIT(`it has ${bytes} bytes, the largest message has ${most}`)
}

/** @throws `FST_MQTT_PEER_REFUSED` for what is no frame */
export function decode (body: FrameBody): Frame {
  const type = body.uint8()
  const frame = decodeBody(type, body)
  if (type !== types.hello && body.left > 0) throw malformed('a frame that does not end where it ought to')
  return frame
}

function decodeBody (type: number, body: FrameBody): Frame {
  switch (type) {
    case types.publish: return decodePublish(body)
    case types.done: return { type: 'done', id: body.uint32() }
    case types.cancel: return { type: 'cancel', id: body.uint32() }
    case types.declined: return { type: 'declined', id: body.uint32() }
    case types.failed: return { type: 'failed', id: body.uint32(), failure: failureIn(body.rest()) }
    case types.call: return decodeCall(body)
    case types.reply: return { type: 'reply', id: body.uint32(), parcel: parcelIn(body) }
    case types.state: return { type: 'state', state: parseJson(body.rest()) }
    case types.beat: return { type: 'beat' }
    case types.leaving: return { type: 'leaving' }
    case types.hello: return decodeHello(body)
    case types.proof: return { type: 'proof', proof: body.bytes(proofBytes) }
    default: throw malformed(`a frame of the unknown type ${type}`)
  }
}

/** Another version may have more to say here, and it is for the greeting to see that it is another. */
function decodeHello (body: FrameBody): Frame {
  if (body.uint32() !== magic) throw malformed('a greeting that is not ours')
  return { type: 'hello', version: body.uint16(), heartbeatMs: body.uint32(), nonce: Buffer.from(body.bytes(nonceBytes)) }
}

function decodePublish (body: FrameBody): PublishFrame {
  const id = body.uint32()
  const timeoutMs = body.uint32()
  const flags = body.uint8()
  const qos = flags & 0b11
  if (qos === 3) throw malformed('a publish with QoS 3')
  return {
    type: 'publish',
    id,
    timeoutMs,
    isAbortable: (flags & abortableBit) !== 0,
    publish: {
      topic: body.text(),
      qos: qos as QoS,
      retain: (flags & retainBit) !== 0,
      contentType: (flags & contentTypeBit) === 0 ? undefined : contentTypeIn(body.text()),
      properties: (flags & propertiesBit) === 0 ? undefined : propertiesIn(body.bytes(body.uint32())),
      payload: body.keepRest()
    }
  }
}

function decodeCall (body: FrameBody): CallFrame {
  return {
    type: 'call',
    id: body.uint32(),
    timeoutMs: body.uint32(),
    isAbortable: (body.uint8() & abortableBit) !== 0,
    name: body.text(),
    parcel: parcelIn(body)
  }
}

function parcelIn (body: FrameBody): Parcel {
  return { data: parseJson(body.bytes(body.uint32())), bytes: body.keepRest() }
}

function failureIn (json: Buffer): Failure {
  const failure = parseJson(json)
  if (!isFailure(failure)) throw malformed('a failure without a code and a message')
  return failure
}

function propertiesJson ({ correlationData, ...others }: PublishProperties): Buffer {
  return jsonOf(correlationData === undefined
    ? others
    : { ...others, correlationData: Buffer.from(correlationData).toString('base64') })
}

function propertiesIn (json: Buffer): PublishProperties {
  const properties = parseJson(json)
  if (!isRecord(properties)) throw malformed('properties that are no object')
  const { correlationData } = properties
  if (typeof correlationData === 'string') properties['correlationData'] = Buffer.from(correlationData, 'base64')
  const problem = propertiesProblem(properties)
  if (problem !== undefined) throw malformed(`properties that cannot be sent: ${problem}`)
  return properties
}

function contentTypeIn (text: string): string {
  const problem = textProblem(text)
  if (problem !== undefined) throw malformed(`a content type that cannot be sent: ${problem}`)
  return text
}

// What is undefined is not there on the other side: null, and for properties nothing.
function jsonOf (value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value === undefined ? null : value))
}

function parseJson (json: Buffer): unknown {
  try {
    return JSON.parse(json.toString())
  } catch (error) {
    throw new errors.FST_MQTT_PEER_REFUSED('text that is no JSON', { cause: error })
  }
}

function malformed (problem: string): Error {
  return new errors.FST_MQTT_PEER_REFUSED(problem)
}

/** What is said of a frame that the other side does not send, or not now. */
export function unexpected (frame: Frame): Error {
  return malformed(`'${frame.type}' was not expected`)
}
