import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { generate, parser, type IPublishPacket, type Packet } from 'mqtt-packet'
import { errors } from '../lib/errors.ts'
import { publishSize } from '../lib/guard.ts'
import {
  encodeAck, encodedHeadBytes, encodePublish, encodePublishHead, packetType, Splitter,
  type AckType, type FrameSink, type PublishFrame, type PublishToEncode
} from '../lib/wire/frames.ts'
import { LowIds, PacketIds } from '../lib/wire/ids.ts'
import type { MalformedError } from '../lib/wire/malformed.ts'

type Version = 4 | 5

/** What a splitter handed on, as plain data. */
type Handed =
  | { publish: object }
  | { ack: AckType, packetId: number, reasonCode: number }
  | { control: string, type: number }

const maxVariable = 268_435_455
const maxPacketBytes = maxVariable + 5

class Recorder implements FrameSink {
  readonly handed: Handed[] = []
  readonly frames: PublishFrame[] = []

  onPublish (frame: PublishFrame): void {
    this.frames.push(frame)
    this.handed.push({ publish: plain(frame) })
  }

  onAck (ack: AckType, packetId: number, reasonCode: number): void {
    this.handed.push({ ack, packetId, reasonCode })
  }

  onControl (frame: Buffer, type: number): void {
    this.handed.push({ control: frame.toString('hex'), type })
  }
}

function plain (frame: PublishFrame): object {
  const { topic, payload, qos, retain, dup, messageId, properties, subscriptionIds } = frame
  // A copy, which stays as it is now.
  return { topic, payload: Buffer.from(payload), qos, retain, dup, messageId, properties, subscriptionIds }
}

interface Outcome {
  readonly handed: readonly Handed[]
  /** The message of the error that ended it, and its reason code. */
  readonly error: readonly [string, number] | undefined
  readonly splitter: Splitter
}

/** Pushes the chunks as long as that goes well; fails on any error but FST_MQTT_MALFORMED. */
function split (chunks: Iterable<Buffer>, version: Version, maxBytes = maxPacketBytes): Outcome {
  const recorder = new Recorder()
  const splitter = new Splitter(recorder, { version, maxBytes })
  let error: readonly [string, number] | undefined
  for (const chunk of chunks) {
    try {
      splitter.push(chunk)
    } catch (thrown) {
      error = asMalformed(thrown)
      break
    }
  }
  return { handed: recorder.handed, error, splitter }
}

function asMalformed (thrown: unknown): readonly [string, number] {
  assert.ok(thrown instanceof errors.FST_MQTT_MALFORMED, String(thrown))
  return [thrown.message, (thrown as MalformedError).reasonCode]
}

/** Cuts bytes into pieces of these sizes, in turn. */
function * cut (bytes: Buffer, sizes: readonly number[]): Generator<Buffer> {
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length] ?? 1
    yield bytes.subarray(at, at + size)
    at += size
  }
}

/** What mqtt-packet makes of the bytes: the other opinion on what they mean. */
function parsed (bytes: Buffer, protocolVersion: Version): Packet[] {
  const packets: Packet[] = []
  const other = parser({ protocolVersion })
  other.on('packet', (packet) => packets.push(packet))
  other.on('error', (error) => assert.fail(error))
  assert.equal(other.parse(bytes), 0)
  return packets
}

const ackTypes = { puback: 4, pubrec: 5, pubrel: 6, pubcomp: 7 } as const

/** How a splitter has to hand on what mqtt-packet understood. */
function expected (bytes: Buffer, version: Version): Handed {
  const [packet] = parsed(bytes, version)
  assert.ok(packet !== undefined)
  if (packet.cmd === 'publish') {
    const { topic, payload, qos, retain, dup, messageId = 0, properties } = packet
    const subscriptionIds = [properties?.subscriptionIdentifier ?? []].flat()
    return { publish: { topic, payload, qos, retain, dup, messageId, properties, subscriptionIds } }
  }
  if (packet.cmd in ackTypes) {
    const { cmd, messageId = 0, reasonCode = 0 } = packet as { cmd: keyof typeof ackTypes } & typeof packet
    return { ack: ackTypes[cmd], packetId: messageId, reasonCode }
  }
  return { control: bytes.toString('hex'), type: packetType[packet.cmd] }
}

// Without a leading mark, or one that a decoder might drop: '\uFEFF' is a character like others in MQTT.
const text = fc.string({ unit: 'binary', maxLength: 12 })
const topic = fc.oneof(
  fc.string({ unit: fc.constantFrom('a', 'b', '/', '$', '0'), minLength: 1, maxLength: 40 }),
  text.map((name) => name.replaceAll(/[+#\0]/g, '/') + 'ä'),
  fc.constantFrom('\uFFFD', '\uFEFFa', 'a\uFFFD/b')
)
const subscriptionId = fc.integer({ min: 1, max: maxVariable })
const packetId = fc.integer({ min: 1, max: 65_535 })
const payload = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc.nat(400).map((size) => new Uint8Array(size).fill(0xaa))
).map((bytes) => Buffer.from(bytes))

/** In the order in which we write them, so that the bytes can be compared. */
const properties = fc.record({
  payloadFormatIndicator: fc.boolean(),
  messageExpiryInterval: fc.nat(0xffff_ffff),
  contentType: text,
  responseTopic: topic,
  correlationData: payload,
  userProperties: fc.dictionary(
    fc.oneof(text, fc.constantFrom('__proto__', 'constructor', 'length')),
    // mqtt-packet forgets an empty text that is followed by another.
    fc.oneof(text, fc.array(text.filter((value) => value !== ''), { minLength: 2, maxLength: 3 })),
    { minKeys: 1, maxKeys: 4 })
}, { requiredKeys: [] })

const publish: fc.Arbitrary<PublishToEncode> = fc.record({
  topic,
  payload,
  qos: fc.constantFrom<0 | 1 | 2>(0, 1, 2),
  retain: fc.boolean(),
  properties: fc.option(properties, { nil: undefined })
})

/** As mqtt-packet writes it. */
function written (
  message: PublishToEncode, messageId: number, dup: boolean, protocolVersion: Version
): Buffer {
  const packet = { cmd: 'publish', ...message, dup: dup && message.qos > 0, messageId }
  return generate(packet as IPublishPacket, { protocolVersion })
}

/** A packet that a broker may send, as mqtt-packet writes it. */
function anyPacket (version: Version): fc.Arbitrary<Buffer> {
  const packets = version === 4 ? simplePackets : [...simplePackets, ...packets5]
  return fc.oneof(
    fc.tuple(publish, packetId, fc.boolean()).map((one) => written(...one, version)),
    fc.oneof(...packets).map((packet) => generate(packet as Packet, { protocolVersion: version })))
}

const simplePackets: readonly fc.Arbitrary<object>[] = [
  fc.record({ cmd: fc.constantFrom(...Object.keys(ackTypes)), messageId: packetId }),
  fc.record({
    cmd: fc.constant('suback'),
    messageId: packetId,
    granted: fc.array(fc.constantFrom(0, 1, 2, 0x80), { minLength: 1, maxLength: 5 })
  }),
  fc.record({ cmd: fc.constant('unsuback'), messageId: packetId, granted: fc.constant([0]) }),
  fc.constant({ cmd: 'pingresp' }),
  fc.constant({ cmd: 'connack', sessionPresent: true, returnCode: 0, reasonCode: 0 })
]

const packets5: readonly fc.Arbitrary<object>[] = [
  fc.record({
    cmd: fc.constantFrom('puback', 'pubrec'),
    messageId: packetId,
    reasonCode: fc.constantFrom(0, 0x10, 0x87),
    properties: fc.constant({ reasonString: 'because', userProperties: { a: 'b' } })
  }),
  fc.record({
    cmd: fc.constant('connack'),
    sessionPresent: fc.boolean(),
    reasonCode: fc.constant(0),
    properties: fc.constant({
      sessionExpiryInterval: 1,
      receiveMaximum: 20,
      maximumQoS: 1,
      retainAvailable: false,
      maximumPacketSize: 1_000,
      assignedClientIdentifier: 'x',
      serverKeepAlive: 60,
      sharedSubscriptionAvailable: true
    })
  }),
  fc.constant({ cmd: 'disconnect', reasonCode: 0x8e, properties: { reasonString: 'taken over' } }),
  fc.constant({ cmd: 'auth', reasonCode: 0x18, properties: { authenticationMethod: 'x' } }),
  fc.tuple(publish, packetId, fc.array(subscriptionId, { minLength: 1, maxLength: 3 }))
    .map(([message, messageId, ids]) => ({
      cmd: 'publish', ...message, messageId, properties: { ...message.properties, subscriptionIdentifier: ids }
    }))
]

const chunkSizes = fc.oneof(
  fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 5 }),
  fc.array(fc.integer({ min: 1, max: 3_000 }), { minLength: 1, maxLength: 5 }))

for (const version of [4, 5] as const) {
  test(`splitter: any split of any stream gives what mqtt-packet reads, MQTT version ${version}`, () => {
    fc.assert(fc.property(fc.array(anyPacket(version), { maxLength: 8 }), chunkSizes, (packets, sizes) => {
      const { handed, error, splitter } = split(cut(Buffer.concat(packets), sizes), version)
      assert.equal(error, undefined)
      assert.deepEqual(handed, packets.map((bytes) => expected(bytes, version)))
      assert.equal(splitter.pendingBytes, 0)
    }), { numRuns: 500 })
  })

  test(`encodePublish: writes what mqtt-packet writes, byte by byte, MQTT version ${version}`, () => {
    fc.assert(fc.property(publish, packetId, fc.boolean(), fc.nat(20), (message, id, dup, offset) => {
      const wanted = written(message, id, dup, version)
      const head = wanted.length - message.payload.length
      const target = Buffer.alloc(offset + wanted.length + 10, 0xee)

      const end = encodePublish(target, offset, message, id, dup, version)
      assert.deepEqual(target.subarray(offset, end), wanted)
      assert.deepEqual(target.subarray(end), Buffer.alloc(10, 0xee))
      assert.equal(encodePublishHead(Buffer.alloc(head), 0, message, id, dup, version), head)
      assert.ok(head <= encodedHeadBytes(message, version))
      const { payload, qos, properties } = message
      assert.equal(publishSize(message.topic, payload.length, qos, properties, version), wanted.length)
    }), { numRuns: 500 })
  })

  test(`splitter: random bytes give packets or FST_MQTT_MALFORMED, however cut, MQTT version ${version}`, () => {
    // Bytes of real packets with some changed go deeper than noise does.
    const bent = fc.tuple(
      fc.array(anyPacket(version), { minLength: 1, maxLength: 3 }).map((packets) => Buffer.concat(packets)),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 })
    ).map(([bytes, changes]) => {
      for (const [at, byte] of changes) bytes[at % bytes.length] = byte
      return bytes
    })
    const noise = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes))
    fc.assert(fc.property(fc.oneof(noise, bent), chunkSizes, (bytes, sizes) => {
      const whole = split([bytes], version, 10_000)
      const inPieces = split(cut(bytes, sizes), version, 10_000)
      assert.deepEqual(inPieces.handed, whole.handed)
      assert.deepEqual(inPieces.error, whole.error)
      assert.equal(inPieces.splitter.pendingBytes, whole.splitter.pendingBytes)
      assert.ok(whole.splitter.pendingBytes <= (whole.error === undefined ? bytes.length : 0))
    }), { numRuns: 2_000 })
  })

  test(`frames: each number of length bytes is written and read, MQTT version ${version}`, () => {
    for (const remaining of [127, 128, 16_383, 16_384, 2_097_151, 2_097_152]) {
      const payload = Buffer.alloc(remaining - (version === 5 ? 6 : 5), 1)
      const message: PublishToEncode = { topic: 'a', payload, qos: 1, retain: false, properties: undefined }
      const wanted = written(message, 65_535, true, version)
      const target = Buffer.alloc(wanted.length)
      assert.equal(encodePublish(target, 0, message, 65_535, true, version), wanted.length)
      assert.ok(target.equals(wanted))
      // Cut within the header, after it, and before the last byte.
      for (const size of [1, 2, 3, 4, 5, 6, wanted.length - 1, wanted.length]) {
        const { handed, error } = split([wanted.subarray(0, size), wanted.subarray(size)], version)
        assert.equal(error, undefined)
        assert.deepEqual(handed, [expected(wanted, version)])
      }
    }
  })

  test(`encodeAck: writes what mqtt-packet reads, MQTT version ${version}`, () => {
    for (const [cmd, type] of Object.entries(ackTypes)) {
      for (const reasonCode of [0, type < 6 ? 0x87 : 0x92]) {
        const target = Buffer.alloc(10)
        const end = encodeAck(target, 3, type, 0xabcd, reasonCode, version)
        const [packet] = parsed(target.subarray(3, end), version)
        assert.equal(packet?.cmd, cmd)
        assert.equal(packet.messageId, 0xabcd)
        const written = version === 5 ? reasonCode : undefined
        assert.equal('reasonCode' in packet ? packet.reasonCode : undefined, written)
        assert.equal(end - 3, version === 5 && reasonCode !== 0 ? 5 : 4)
        assert.deepEqual(split([target.subarray(3, end)], version).handed,
          [{ ack: type, packetId: 0xabcd, reasonCode: written ?? 0 }])
      }
    }
  })
}

const hello: PublishToEncode =
  { topic: 'a/b', payload: Buffer.from('hello'), qos: 1, retain: false, properties: { contentType: 'x' } }

/** The bytes of a PUBLISH. */
function encoded (message: PublishToEncode, version: Version = 5): Buffer {
  const target = Buffer.alloc(encodedHeadBytes(message, version) + message.payload.length)
  return target.subarray(0, encodePublish(target, 0, message, 2_000, false, version))
}

test('encoders: refuse a buffer without room, and write nothing', () => {
  const size = encoded(hello).length
  for (const room of [0, 1, size - 'hello'.length - 1]) {
    const target = Buffer.alloc(room)
    assert.throws(() => encodePublishHead(target, 0, hello, 2_000, false, 5), RangeError)
    assert.throws(() => encodePublish(target, 0, hello, 2_000, false, 5), RangeError)
    assert.deepEqual(target, Buffer.alloc(room))
  }
  assert.throws(() => encodePublish(Buffer.alloc(size - 1), 0, hello, 2_000, false, 5), RangeError)
  assert.throws(() => encodeAck(Buffer.alloc(9), 5, 4, 1, 0x80, 5), RangeError)
  assert.throws(() => encodeAck(Buffer.alloc(9), 6, 4, 1, 0, 5), RangeError)
  assert.equal(encodeAck(Buffer.alloc(9), 5, 4, 1, 0, 5), 9)
})

test('encodePublish: properties without a value are not written', () => {
  const none = encoded({ ...hello, properties: undefined })
  assert.deepEqual(encoded({ ...hello, properties: {} }), none)
  assert.deepEqual(encoded({ ...hello, properties: { userProperties: {}, contentType: undefined } }), none)
})

test('encodePublish: never sets DUP with QoS 0', () => {
  const target = Buffer.alloc(100)
  const end = encodePublish(target, 0, { ...hello, qos: 0 }, 0, true, 4)
  assert.equal(split([target.subarray(0, end)], 4).error, undefined)
})

/** What a broker must not send, what the error says about it, and with which reason code. */
const malformedFrames: [
  what: string, versions: readonly Version[], hex: string, problem: string, reasonCode?: number
][] = [
  ['packet type 0', [4, 5], '00 00', 'there is no packet type 0'],
  ['CONNECT from a server', [4, 5], '10 00', 'a server sends no CONNECT', 0x82],
  ['SUBSCRIBE from a server', [4, 5], '82 00', 'a server sends no SUBSCRIBE', 0x82],
  ['UNSUBSCRIBE from a server', [4, 5], 'a2 00', 'a server sends no UNSUBSCRIBE', 0x82],
  ['PINGREQ from a server', [4, 5], 'c0 00', 'a server sends no PINGREQ', 0x82],
  ['DISCONNECT of a 3.1.1 server', [4], 'e0 00', 'a server sends no DISCONNECT', 0x82],
  ['AUTH on 3.1.1', [4], 'f0 00', 'a server sends no AUTH', 0x82],
  ['the first byte of an HTTP answer', [4, 5], '48 54', 'PUBACK has the flags 8, not 0'],
  ['a length of five bytes', [4, 5], '30 80 80 80 80 01', 'the length of a packet has more than four bytes'],
  ['a length with more bytes than it needs', [5], '30 88 00 0001 61 00 00000000', 'the length of a packet has more bytes than it needs'],
  ['flags of CONNACK', [4, 5], '21 02 00 00', 'CONNACK has the flags 1, not 0'],
  ['flags of PUBACK', [4, 5], '42 02 00 01', 'PUBACK has the flags 2, not 0'],
  ['flags of PUBREC', [4, 5], '52 02 00 01', 'PUBREC has the flags 2, not 0'],
  ['PUBREL without its flags', [4, 5], '60 02 00 01', 'PUBREL has the flags 0, not 2'],
  ['other flags of PUBREL', [4, 5], '66 02 00 01', 'PUBREL has the flags 6, not 2'],
  ['flags of PUBCOMP', [4, 5], '72 02 00 01', 'PUBCOMP has the flags 2, not 0'],
  ['flags of SUBACK', [4, 5], '92 03 00 01 00', 'SUBACK has the flags 2, not 0'],
  ['flags of UNSUBACK', [4, 5], 'b2 02 00 01', 'UNSUBACK has the flags 2, not 0'],
  ['flags of PINGRESP', [4, 5], 'd1 00', 'PINGRESP has the flags 1, not 0'],
  ['flags of DISCONNECT', [5], 'e1 00', 'DISCONNECT has the flags 1, not 0'],
  ['flags of AUTH', [5], 'f1 00', 'AUTH has the flags 1, not 0'],

  ['QoS 3', [4, 5], '36 07 0001 61 0001 00 00', 'PUBLISH has QoS 3'],
  ['DUP with QoS 0', [4, 5], '38 05 0001 61 00 00', 'PUBLISH has DUP with QoS 0'],
  ['an empty PUBLISH', [4, 5], '30 00', 'the topic of PUBLISH ends after the packet'],
  ['a PUBLISH of one byte', [4, 5], '30 01 00', 'the topic of PUBLISH ends after the packet'],
  ['a topic longer than its packet', [4, 5], '30 04 0003 61 00', 'the topic of PUBLISH ends after the packet'],
  ['no topic', [4, 5], '30 03 0000 00', 'PUBLISH has no topic', 0x82],
  ['+ in a topic', [4, 5], '30 06 0003 61 2f 2b 00', 'the topic of PUBLISH has a wildcard'],
  ['# in a topic', [4, 5], '30 04 0001 23 00', 'the topic of PUBLISH has a wildcard'],
  ['NUL in a topic', [4, 5], '30 05 0002 61 00 00', 'the topic of PUBLISH has a NUL'],
  ['a lone continuation byte in a topic', [4, 5], '30 05 0002 61 bf 00', 'the topic of PUBLISH is no UTF-8'],
  ['an overlong form of a slash in a topic', [4, 5], '30 05 0002 c0 af 00', 'the topic of PUBLISH is no UTF-8'],
  ['a surrogate in a topic', [4, 5], '30 06 0003 ed a0 80 00', 'the topic of PUBLISH is no UTF-8'],
  ['a topic cut within a character', [4, 5], '30 04 0001 c3 00', 'the topic of PUBLISH is no UTF-8'],
  ['an invalid topic that has U+FFFD too', [4, 5], '30 07 0004 ef bf bd ff 00', 'the topic of PUBLISH is no UTF-8'],
  ['no packet identifier with QoS 1', [4, 5], '32 03 0001 61', 'PUBLISH ends in its packet identifier'],
  ['half a packet identifier with QoS 2', [4, 5], '34 04 0001 61 00', 'PUBLISH ends in its packet identifier'],
  ['the packet identifier 0 with QoS 1', [4, 5], '32 06 0001 61 0000 00', 'PUBLISH has the packet identifier 0', 0x82],
  ['a PUBLISH without the length of its properties', [5], '30 03 0001 61', 'a variable byte integer ends after its packet'],
  ['properties longer than their PUBLISH', [5], '30 06 0001 61 03 01 00', 'the properties of PUBLISH end after the packet'],
  ['a length of properties that does not end', [5], '30 05 0001 61 ff ff', 'a variable byte integer ends after its packet'],
  ['a length of properties with five bytes', [5], '30 08 0001 61 80 80 80 80 00', 'a variable byte integer has more than four bytes'],
  ['a length of properties with more bytes than it needs', [5], '30 05 0001 61 80 00', 'a variable byte integer has more bytes than it needs'],
  ['property 0', [5], '30 06 0001 61 02 00 00', 'PUBLISH has no property 0'],
  ['a property that there is not', [5], '30 06 0001 61 02 7f 00', 'PUBLISH has no property 127'],
  ['a property of another packet', [5], '30 09 0001 61 05 11 00000001', 'PUBLISH has no property 17'],
  ['a payload format indicator of 2', [5], '30 06 0001 61 02 01 02', 'the payload format indicator of PUBLISH is neither 0 nor 1', 0x82],
  ['a payload format indicator twice', [5], '30 08 0001 61 04 01 00 01 00', 'PUBLISH has property 1 twice', 0x82],
  ['a payload format indicator without a value', [5], '30 05 0001 61 01 01', 'property 1 of PUBLISH ends after the properties'],
  ['a message expiry interval twice', [5], '30 0e 0001 61 0a 02 00000001 02 00000001', 'PUBLISH has property 2 twice', 0x82],
  ['half a message expiry interval', [5], '30 07 0001 61 03 02 0000', 'property 2 of PUBLISH ends after the properties'],
  ['a content type twice', [5], '30 0c 0001 61 08 03 0001 61 03 0001 61', 'PUBLISH has property 3 twice', 0x82],
  ['a content type longer than the properties', [5], '30 09 0001 61 04 03 0002 61 62', 'property 3 of PUBLISH ends after the properties'],
  ['a response topic without its length', [5], '30 06 0001 61 02 08 00', 'property 8 of PUBLISH ends after the properties'],
  ['correlation data twice', [5], '30 0a 0001 61 06 09 0000 09 0000', 'PUBLISH has property 9 twice', 0x82],
  ['correlation data longer than the properties', [5], '30 07 0001 61 03 09 ffff', 'property 9 of PUBLISH ends after the properties'],
  ['the subscription identifier 0', [5], '30 06 0001 61 02 0b 00', 'PUBLISH has the subscription identifier 0', 0x82],
  ['a subscription identifier that does not end', [5], '30 06 0001 61 02 0b ff 01', 'a variable byte integer ends after its packet'],
  ['a subscription identifier of five bytes', [5], '30 0a 0001 61 06 0b 80 80 80 80 01', 'a variable byte integer has more than four bytes'],
  ['a topic alias', [5], '30 07 0001 61 03 23 0001', 'PUBLISH has a topic alias, and none was offered', 0x94],
  ['a topic alias in place of a topic', [5], '30 06 0000 03 23 0001', 'PUBLISH has a topic alias, and none was offered', 0x94],
  ['a user property without a value', [5], '30 08 0001 61 04 26 0001 61', 'property 38 of PUBLISH ends after the properties'],
  ['a user property without a name', [5], '30 06 0001 61 02 26 00', 'property 38 of PUBLISH ends after the properties'],
  ['the value of a user property longer than the properties', [5], '30 0a 0001 61 06 26 0001 61 0001 62', 'property 38 of PUBLISH ends after the properties'],

  ['an empty PUBACK', [4, 5], '40 00', 'PUBACK has a body of 0 bytes'],
  ['half a packet identifier in PUBACK', [4, 5], '40 01 00', 'PUBACK has a body of 1 bytes'],
  ['the packet identifier 0 in PUBACK', [4, 5], '40 02 0000', 'PUBACK has the packet identifier 0', 0x82],
  ['the packet identifier 0 in PUBREL', [4, 5], '62 02 0000', 'PUBREL has the packet identifier 0', 0x82],
  ['a reason code on 3.1.1', [4], '40 03 0001 00', 'PUBACK has a body of 3 bytes'],
  ['a PUBACK with a reason code of SUBACK', [5], '40 03 0001 01', 'PUBACK has the reason code 1'],
  ['a PUBREC with a reason code of AUTH', [5], '50 03 0001 18', 'PUBREC has the reason code 24'],
  ['a PUBREL that no subscriber matched', [5], '62 03 0001 10', 'PUBREL has the reason code 16'],
  ['a PUBCOMP that no subscriber matched', [5], '70 03 0001 10', 'PUBCOMP has the reason code 16'],
  ['properties longer than their PUBACK', [5], '40 04 0001 00 01', 'the properties of PUBACK end after the packet'],
  ['a PUBACK longer than its properties', [5], '40 05 0001 00 00 00', 'the properties of PUBACK end before the packet'],
  ['a property of PUBLISH in PUBREC', [5], '50 06 0001 00 02 01 00', 'PUBREC has no property 1'],
  ['a reason string twice in PUBCOMP', [5], '70 0a 0001 00 06 1f 0000 1f 0000', 'PUBCOMP has property 31 twice', 0x82],

  ['an empty CONNACK', [4, 5], '20 00', 'CONNACK has a body of 0 bytes'],
  ['a CONNACK of one byte', [4, 5], '20 01 00', 'CONNACK has a body of 1 bytes'],
  ['an accepting CONNACK of 3.1.1 on 5', [5], '20 02 00 00', 'CONNACK has a body of 2 bytes'],
  ['a CONNACK of 5 on 3.1.1', [4], '20 03 00 00 00', 'CONNACK has a body of 3 bytes'],
  ['flags in CONNACK other than session present', [4, 5], '20 02 02 01', 'CONNACK has flags other than session present'],
  ['properties longer than their CONNACK', [5], '20 04 00 00 02 24', 'the properties of CONNACK end after the packet'],
  ['a CONNACK longer than its properties', [5], '20 04 00 00 00 00', 'the properties of CONNACK end before the packet'],
  ['a property of CONNACK cut short', [5], '20 05 00 00 02 21 00', 'property 33 of CONNACK ends after the properties'],
  ['a receive maximum twice', [5], '20 09 00 00 06 21 0001 21 0002', 'CONNACK has property 33 twice', 0x82],
  ['an empty SUBACK', [4, 5], '90 00', 'SUBACK has a body of 0 bytes'],
  ['half a packet identifier in SUBACK', [4, 5], '90 01 00', 'SUBACK has a body of 1 bytes'],
  ['a SUBACK without a reason code', [4], '90 02 0001', 'SUBACK has no reason code'],
  ['a SUBACK without properties', [5], '90 02 0001', 'a variable byte integer ends after its packet'],
  ['a SUBACK of MQTT 5 without a reason code', [5], '90 03 0001 00', 'SUBACK has no reason code'],
  ['properties longer than their SUBACK', [5], '90 04 0001 02 00', 'the properties of SUBACK end after the packet'],
  ['the packet identifier 0 in SUBACK', [4, 5], '90 04 0000 00 00', 'SUBACK has the packet identifier 0', 0x82],
  ['half a packet identifier in UNSUBACK', [4, 5], 'b0 01 00', 'UNSUBACK has a body of 1 bytes'],
  ['an UNSUBACK with a reason code on 3.1.1', [4], 'b0 03 0001 00', 'UNSUBACK has a body of 3 bytes'],
  ['an UNSUBACK of MQTT 5 without a reason code', [5], 'b0 03 0001 00', 'UNSUBACK has no reason code'],
  ['the packet identifier 0 in UNSUBACK', [4], 'b0 02 0000', 'UNSUBACK has the packet identifier 0', 0x82],
  ['a PINGRESP with a body', [4, 5], 'd0 01 00', 'PINGRESP has a body of 1 bytes'],
  ['properties longer than their DISCONNECT', [5], 'e0 02 8e 01', 'the properties of DISCONNECT end after the packet'],
  ['a DISCONNECT longer than its properties', [5], 'e0 03 8e 00 00', 'the properties of DISCONNECT end before the packet'],
  ['properties longer than their AUTH', [5], 'f0 02 18 05', 'the properties of AUTH end after the packet']
]

for (const [what, versions, hex, problem, reasonCode = 0x81] of malformedFrames) {
  for (const version of versions) {
    test(`splitter: refuses ${what}, MQTT version ${version}`, () => {
      const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex')
      const before = encoded({ ...hello, properties: undefined }, version)
      const stream = Buffer.concat([before, bytes])
      for (const chunks of [[stream], cut(stream, [1]), cut(stream, [before.length, 1])]) {
        const { handed, error, splitter } = split(chunks, version)
        assert.deepEqual(error, [`The broker sent what MQTT does not allow: ${problem}`, reasonCode])
        // What came before it has been handed on, and nothing follows.
        assert.deepEqual(handed, [expected(before, version)])
        assert.equal(splitter.pendingBytes, 0)
        assert.throws(() => splitter.push(before), ({ message }: Error) => message === error[0])
        assert.equal(handed.length, 1)
      }
    })
  }
}

const accepted: [why: string, version: Version, hex: string, handed: Handed][] = [
  ['the reason code 0x95 of Mosquitto in PUBACK', 5, '40 03 0001 95', { ack: 4, packetId: 1, reasonCode: 0x95 }],
  ['a reason code of no table in PUBREC', 5, '50 03 0001 9a', { ack: 5, packetId: 1, reasonCode: 0x9a }],
  ['a failed PUBREL', 5, '62 03 0001 92', { ack: 6, packetId: 1, reasonCode: 0x92 }],
  ['a failed PUBCOMP', 5, '70 03 0001 92', { ack: 7, packetId: 1, reasonCode: 0x92 }],
  ['that no subscriber matched', 5, '40 03 ffff 10', { ack: 4, packetId: 0xffff, reasonCode: 0x10 }],
  ['an acknowledgement with a length of no properties', 5, '40 04 0001 87 00', { ack: 4, packetId: 1, reasonCode: 0x87 }],
  ['the refusal of a broker that does not know MQTT 5', 5, '20 02 00 01', { control: '20020001', type: 2 }],
  ['a DISCONNECT without a reason code', 5, 'e0 00', { control: 'e000', type: 14 }],
  ['a DISCONNECT without properties', 5, 'e0 01 8e', { control: 'e0018e', type: 14 }],
  ['an AUTH without a body', 5, 'f0 00', { control: 'f000', type: 15 }],
  ['an UNSUBACK of 3.1.1', 4, 'b0 02 0001', { control: 'b0020001', type: 11 }],
  ['a length with a byte more on 3.1.1, which does not forbid it', 4, '40 82 00 0001', { ack: 4, packetId: 1, reasonCode: 0 }]
]

for (const [why, version, hex, wanted] of accepted) {
  test(`splitter: accepts ${why}`, () => {
    const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex')
    for (const chunks of [[bytes], cut(bytes, [1])]) {
      const { handed, error } = split(chunks, version)
      assert.equal(error, undefined)
      assert.deepEqual(handed, [wanted])
    }
  })
}

/** The one PUBLISH in these bytes. */
function frameIn (bytes: Buffer, version: Version = 5): PublishFrame {
  const recorder = new Recorder()
  new Splitter(recorder, { version, maxBytes: maxPacketBytes }).push(bytes)
  const [frame] = recorder.frames
  assert.ok(frame !== undefined)
  return frame
}

test('splitter: ill-formed UTF-8 in a property is replaced: any publisher could cut the connection with it', () => {
  const { properties } = frameIn(Buffer.from('30080001610403000 1ff'.replace(' ', ''), 'hex'))
  assert.deepEqual(properties, { contentType: '\uFFFD' })
})

test('splitter: keeps an empty user property before others of its name', () => {
  const message = { ...hello, properties: { userProperties: { a: ['', 'b', ''] } } }
  assert.deepEqual({ ...(frameIn(encoded(message)).properties as typeof message.properties).userProperties },
    { a: ['', 'b', ''] })
})

test('splitter: the packet of the largest size is taken, one byte more is refused by its header alone', () => {
  for (const version of [4, 5] as const) {
    const bytes = encoded(hello, version)
    assert.equal(split([bytes], version, bytes.length).error, undefined)
    const limit = bytes.length - 1
    const [message = '', reasonCode] = split([bytes.subarray(0, 2)], version, limit).error ?? []
    assert.equal(reasonCode, 0x95)
    assert.match(message, new RegExp(`a packet has ${bytes.length} bytes, at most ${limit} are accepted`))
    // The protocol's own maximum, and its last size that has four length bytes.
    assert.equal(split([Buffer.from('30ffffff7f', 'hex')], version).error, undefined)
    assert.equal(split([Buffer.from('30ffffff7f', 'hex')], version, maxPacketBytes - 1).error?.[1], 0x95)
    assert.equal(split([Buffer.from('30ffffffff7f', 'hex')], version).error?.[1], 0x81)
  }
})

test('splitter: pendingBytes is what came of a packet that is not whole', () => {
  const bytes = encoded(hello)
  const recorder = new Recorder()
  const splitter = new Splitter(recorder, { version: 5, maxBytes: 1_000 })
  splitter.push(Buffer.alloc(0))
  assert.equal(splitter.pendingBytes, 0)
  for (let size = 1; size < bytes.length; size++) {
    splitter.push(bytes.subarray(size - 1, size))
    splitter.push(Buffer.alloc(0))
    assert.equal(splitter.pendingBytes, size)
  }
  splitter.push(Buffer.concat([bytes.subarray(-1), bytes, bytes.subarray(0, 3)]))
  assert.equal(recorder.handed.length, 2)
  assert.equal(splitter.pendingBytes, 3)
})

test('splitter: what the sink throws is thrown by push, and ends it', () => {
  const refusal = new Error('no')
  let calls = 0
  const refuse = () => {
    calls++
    throw refusal
  }
  const sink = { onPublish: refuse, onAck: refuse, onControl: refuse }
  const splitter = new Splitter(sink, { version: 5, maxBytes: 1_000 })
  const chunk = Buffer.concat([encoded(hello), encoded(hello)])
  assert.throws(() => splitter.push(chunk), refusal)
  assert.throws(() => splitter.push(chunk), refusal)
  assert.equal(calls, 1)
})

test('splitter: 16 MiB in chunks of 64 KiB are joined once, and neighbours kept', () => {
  const payload = Buffer.alloc(16 * 1024 * 1024)
  for (let at = 0; at < payload.length; at += 4_099) payload[at] = at % 251
  const stream = Buffer.concat([encoded(hello), encoded({ ...hello, payload }), encoded(hello)])
  const recorder = new Recorder()
  const splitter = new Splitter(recorder, { version: 5, maxBytes: maxPacketBytes })
  for (const chunk of cut(stream, [65_536])) splitter.push(chunk)
  const [first, large, last] = recorder.frames
  assert.ok(large !== undefined)
  assert.equal(recorder.frames.length, 3)
  assert.ok(large.payload.equals(payload))
  assert.deepEqual(first?.payload, hello.payload)
  assert.deepEqual(last?.payload, hello.payload)
  // It lies alone in its bytes, so that detaching it copies nothing.
  const { buffer } = large.payload
  assert.ok(buffer.byteLength < payload.length + 100)
  large.detach()
  assert.equal(large.payload.buffer, buffer)
})

test('splitter: a packet that comes byte by byte takes memory and time in proportion to its bytes', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const payload = Buffer.alloc(600_000, 'abc')
  const stream = encoded({ ...hello, payload })
  const recorder = new Recorder()
  const splitter = new Splitter(recorder, { version: 5, maxBytes: maxPacketBytes })
  collect()
  const heapBefore = process.memoryUsage().heapUsed
  const begin = performance.now()
  for (const chunk of cut(stream.subarray(0, -1), [1])) splitter.push(chunk)
  // A quarter of a second. Joined at each byte it would be a quarter of a minute.
  assert.ok(performance.now() - begin < 5_000)
  collect()
  // As 600,000 Buffers it would be 60 MB.
  const grown = process.memoryUsage().heapUsed - heapBefore
  assert.ok(grown < 3_000_000, `${grown} bytes`)
  splitter.push(stream.subarray(-1))
  assert.ok(recorder.frames[0]?.payload.equals(payload))
})

test('detach: leaves the message as it is, and lets go of what was read with it', () => {
  const properties = {
    contentType: 'text/plain',
    correlationData: Buffer.from('c'),
    userProperties: Object.assign(Object.create(null), { a: ['b', 'c'] }) as Record<string, string[]>
  }
  for (const given of [properties, undefined]) {
    for (const version of [4, 5] as const) {
      const bytes = encoded({ ...hello, properties: given }, version)
      const chunk = Buffer.concat([bytes, Buffer.alloc(65_536 - bytes.length)]).subarray(0, bytes.length)
      const untouched = plain(frameIn(chunk, version))
      const frame = frameIn(chunk, version)
      assert.equal(frameIn(chunk, version).payload.buffer, chunk.buffer)

      frame.detach()
      assert.notEqual(frame.payload.buffer, chunk.buffer)
      const { payload } = frame
      frame.detach()
      assert.equal(frame.payload, payload)
      chunk.fill(0)
      assert.deepEqual(plain(frame), untouched)
      assert.deepEqual(frame.properties, version === 5 ? given : undefined)
    }
  }
})

test('detach: properties that were read before hold on to nothing', () => {
  const bytes = encoded({ ...hello, properties: { correlationData: Buffer.from('c') } })
  const chunk = Buffer.concat([bytes, Buffer.alloc(65_536)]).subarray(0, bytes.length)
  const frame = frameIn(chunk)
  const { correlationData } = frame.properties as { correlationData: Buffer }
  assert.notEqual(correlationData.buffer, chunk.buffer)
  frame.detach()
  assert.equal((frame.properties as { correlationData: Buffer }).correlationData, correlationData)
})

test('detach: an empty message lets go, too', () => {
  const bytes = encoded({ ...hello, payload: Buffer.alloc(0), properties: undefined })
  const chunk = Buffer.concat([bytes, Buffer.alloc(65_536)]).subarray(0, bytes.length)
  const frame = frameIn(chunk)
  frame.detach()
  assert.notEqual(frame.payload.buffer, chunk.buffer)
  assert.equal(frame.payload.length, 0)
})

test('keep: what is needed beyond the turn is detached, what is dropped before is not', async () => {
  const bytes = encoded({ ...hello, properties: undefined }, 4)
  const chunk = Buffer.concat([bytes, Buffer.alloc(65_536)]).subarray(0, bytes.length)
  const [twice, dropped, late] = [frameIn(chunk, 4), frameIn(chunk, 4), frameIn(chunk, 4)]
  for (const frame of [twice, twice, dropped]) frame.keep()
  for (const frame of [twice, dropped]) frame.drop()
  assert.equal(twice.payload.buffer, chunk.buffer)
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual([twice, dropped].map(({ payload }) => payload.buffer === chunk.buffer), [false, true])
  assert.deepEqual(twice.payload, hello.payload)
  late.keep()
  await new Promise((resolve) => setImmediate(resolve))
  assert.notEqual(late.payload.buffer, chunk.buffer)
})

test('topic names: those that share a place, and those with the same length, are told apart', () => {
  const topics = [
    ...Array.from({ length: 20_000 }, (_, index) => `a/${index % 5_000}/b`), 'é', 'ab', 'ÿ/1', 'Ã¿/1', 'a'.repeat(128),
    'a'.repeat(129), '\u{1F321}', 'b'.repeat(128)
  ]
  for (const topic of [...topics, ...topics.toReversed()]) {
    assert.equal(frameIn(encoded({ ...hello, topic })).topic, topic)
  }
})

test('LowIds: gives each of 1 to 1024 once, then null, then what was freed', () => {
  const ids = new LowIds()
  assert.equal(ids.getLastAllocated(), null)
  const given = Array.from({ length: 1_024 }, () => ids.allocate())
  assert.deepEqual(new Set(given), new Set(Array.from({ length: 1_024 }, (_, index) => index + 1)))
  assert.equal(ids.getLastAllocated(), given.at(-1))
  assert.equal(ids.allocate(), null)
  ids.deallocate(500)
  assert.equal(ids.allocate(), 500)
  assert.equal(ids.getLastAllocated(), 500)
  assert.equal(ids.allocate(), null)
})

test('LowIds: does not give again at once what was freed last', () => {
  const ids = new LowIds()
  const first = ids.allocate()
  assert.ok(first !== null)
  ids.deallocate(first)
  assert.notEqual(ids.allocate(), first)
})

test('LowIds: register takes a free one of its own only; clear frees all', () => {
  const ids = new LowIds()
  assert.deepEqual([1, 1_024].map((id) => ids.register(id)), [true, true])
  assert.deepEqual([1, 1_024, 0, 1_025, 1.5].filter((id) => ids.register(id)), [])
  const given = Array.from({ length: 1_022 }, () => ids.allocate())
  assert.ok(!given.includes(1) && !given.includes(1_024) && !given.includes(null))
  assert.equal(ids.allocate(), null)
  ids.clear()
  assert.equal(new Set(Array.from({ length: 1_024 }, () => ids.allocate())).size, 1_024)
})

test('PacketIds: gives each of 1025 to 65535 in turn from a random start', () => {
  const starts = new Set<number | undefined>()
  for (let run = 0; run < 20; run++) starts.add(new PacketIds(() => false).next())
  assert.ok(starts.size > 15)

  const ids = new PacketIds(() => false)
  const given = Array.from({ length: 65_535 - 1_024 }, () => ids.next() ?? 0)
  assert.equal(new Set(given).size, given.length)
  assert.equal(given.reduce((low, id) => Math.min(low, id)), 1_025)
  assert.equal(given.reduce((high, id) => Math.max(high, id)), 65_535)
  assert.equal(ids.next(), given[0])
})

test('PacketIds: skips those in use, and gives undefined if all are', () => {
  const inUse = new Set<number>()
  const ids = new PacketIds((id) => inUse.has(id))
  for (let id = 1_025; id <= 65_535; id++) inUse.add(id)
  assert.equal(ids.next(), undefined)
  inUse.delete(40_000)
  assert.equal(ids.next(), 40_000)
  assert.equal(ids.next(), 40_000)
  inUse.add(40_000)
  assert.equal(ids.next(), undefined)
})
