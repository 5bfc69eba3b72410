import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { suite, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { generate, parser, writeToStream, type Packet } from 'mqtt-packet'
import type { OutgoingPublish } from '../lib/session/link.ts'
import { packetType, type AckType } from '../lib/wire/frames.ts'
import { ownPackets } from '../lib/wire/own-packets.ts'
import { dial, type Target } from '../lib/wire/transport.ts'
import { Wire, type WireEvents } from '../lib/wire/wire.ts'
import { WriteBuffer } from '../lib/wire/write-buffer.ts'
import { deferred, within } from './helpers/deadline.ts'
import { FakeSocket } from './helpers/fake-socket.ts'

type Version = 4 | 5

const KiB = 1024

/** What mqtt-packet makes of the bytes; fails if they are not whole packets. */
function parsed (bytes: Buffer, protocolVersion: Version): Packet[] {
  const packets: Packet[] = []
  const other = parser({ protocolVersion })
  other.on('packet', (packet) => packets.push(packet))
  other.on('error', (error) => assert.fail(error))
  assert.equal(other.parse(bytes), 0, 'the last packet is not whole')
  return packets
}

function bytesOf (packet: object, protocolVersion: Version = 5): Buffer {
  return generate(packet as Packet, { protocolVersion })
}

const connack = { cmd: 'connack', sessionPresent: false, returnCode: 0, reasonCode: 0 }

interface OpenWire {
  readonly wire: Wire
  readonly socket: FakeSocket
  /** What the wire told, in order. */
  readonly told: unknown[]
  /** The numbers of the writes that are done. */
  readonly written: number[]
  readonly errors: (Error & { code?: string })[]
  /** The packets that MQTT.js got. */
  readonly heard: () => Packet[]
  /** The packets that the broker got. */
  readonly sent: () => Packet[]
}

/** A wire on a fake socket, whose connection is accepted unless told otherwise. */
async function openWire (
  { version = 5, isSlow = false, isAccepted = true, maxBytes = 1_000_000, dialed }: {
    version?: Version, isSlow?: boolean, isAccepted?: boolean, maxBytes?: number, dialed?: Promise<Duplex>
  } = {}
): Promise<OpenWire> {
  const socket = new FakeSocket(isSlow)
  const told: unknown[] = []
  const written: number[] = []
  const errors: Error[] = []
  const chunks: Buffer[] = []
  const events: WireEvents = {
    onConnack: () => told.push('connack'),
    onRefusal: ({ cmd, reasonCode }) => told.push(['refusal', cmd, reasonCode]),
    onPublish: ({ topic }) => told.push(['publish', topic]),
    onAck: (...ack) => told.push(['ack', ...ack]),
    onWritten: (sequence) => written.push(sequence),
    onDrain: () => told.push('drain'),
    onForeignPublish: (send) => { told.push('foreign'); send() },
    onForeignDone: () => told.push('foreign done'),
    onUnsendable: () => told.push('unsendable')
  }
  const wire = new Wire(dialed ?? socket, { version, maxBytes }, events)
  wire.on('error', (error) => errors.push(error))
  wire.on('data', (chunk: Buffer) => chunks.push(chunk))
  if (isAccepted && dialed === undefined) socket.receive(bytesOf(connack, version))
  // Now it flows.
  await turn()
  told.length = chunks.length = 0
  return {
    wire,
    socket,
    told,
    written,
    errors,
    heard: () => parsed(Buffer.concat(chunks), version),
    sent: () => parsed(socket.bytes, version)
  }
}

/** As `once`, which would reject with the error. */
async function closed (wire: Wire): Promise<void> {
  if (!wire.closed) await new Promise<void>((resolve) => { wire.once('close', resolve) })
  await turn()
}

/** What MQTT.js writes now is with the wire after this turn, and with the socket after the next. */
async function sentOff (): Promise<void> {
  await turn()
  await turn()
}

function message (topic: string, size = 0, qos: 0 | 1 | 2 = 1): OutgoingPublish {
  return { topic, payload: Buffer.alloc(size, topic), qos, retain: false, properties: undefined }
}

function topicsOf (packets: readonly Packet[]): string[] {
  return packets.flatMap((packet) => packet.cmd === 'publish' ? packet.topic : [])
}

suite('WriteBuffer', () => {
  type Operation =
    | { kind: 'commit', size: number }
    | { kind: 'write', size: number }
    | { kind: 'take', count: number }
    | { kind: 'turn' }

  const borders = [16, 32, 64].map((size) => size * KiB).flatMap((size) => [size - 1, size, size + 1])
    .concat(1, 100 * KiB)
  const size = fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: 1, max: 300 }) },
    { weight: 2, arbitrary: fc.integer({ min: 300, max: 20 * KiB }) },
    { weight: 2, arbitrary: fc.constantFrom(...borders) }
  )
  const operation: fc.Arbitrary<Operation> = fc.oneof(
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('commit' as const), size }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('write' as const), size }) },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('take' as const), count: fc.integer({ min: 1, max: 4 }) })
    },
    { weight: 2, arbitrary: fc.constant({ kind: 'turn' as const }) }
  )

  /** Does what it is told with a socket that holds what it was given, and says what has become of it. */
  async function run (operations: readonly Operation[], opensAt: number) {
    const socket = new FakeSocket(true)
    let written = 0
    const buffer = new WriteBuffer((sequence) => {
      assert.equal(sequence, written + 1, 'each write is told, in order')
      written = sequence
      for (const one of pieces.filter(({ number }) => number <= sequence)) {
        assert.ok(one.end <= socket.bytes.length, 'told before the socket was done with it')
      }
    })
    const pieces: { number: number, end: number }[] = []
    const wanted: Buffer[] = []
    let fill = 0
    let total = 0
    const note = (bytes: Buffer, number: number) => {
      wanted.push(bytes)
      pieces.push({ number, end: total += bytes.length })
    }
    for (const [index, one] of operations.entries()) {
      if (index === opensAt) buffer.open(socket)
      if (one.kind === 'turn') {
        await turn()
      } else if (one.kind === 'take') {
        for (let left = one.count; left > 0; left--) socket.complete()
      } else {
        const bytes = Buffer.alloc(one.size, ++fill)
        if (one.kind === 'write') {
          note(Buffer.from(bytes), buffer.write(bytes))
        } else {
          const offset = buffer.reserve(one.size)
          assert.ok(offset + one.size <= buffer.target.length)
          bytes.copy(buffer.target, offset)
          note(bytes, buffer.commit(offset + one.size))
        }
      }
    }
    if (opensAt >= operations.length) buffer.open(socket)
    await turn()
    while (socket.complete()) await turn()
    return { socket, written, pieces, wanted: Buffer.concat(wanted) }
  }

  test('what is written arrives byte for byte, though the socket holds it, and each write is told', async () => {
    await fc.assert(fc.asyncProperty(
      fc.array(operation, { maxLength: 60 }), fc.oneof(fc.constant(0), fc.nat(60)),
      async (operations, opensAt) => {
        const { socket, written, pieces, wanted } = await run(operations, opensAt)
        assert.ok(socket.bytes.equals(wanted))
        assert.equal(written, Math.max(0, ...pieces.map(({ number }) => number)))
      }), { numRuns: 150 })
  })

  test('a size at each border of the buffer, before and after one at each other border', async () => {
    for (const first of borders) {
      for (const second of borders) {
        for (const [one, other] of [['commit', 'write'], ['write', 'commit'], ['commit', 'commit']] as const) {
          const { socket, wanted, written, pieces } = await run([
            { kind: 'commit', size: 7 }, { kind: one, size: first },
            { kind: other, size: second }, { kind: 'commit', size: 3 }
          ], 0)
          assert.ok(socket.bytes.equals(wanted), `${one} ${first}, ${other} ${second}`)
          assert.equal(written, pieces.at(-1)?.number)
        }
      }
    }
  })

  test('one turn is one write, and more than 32 KiB are written before it ends', async () => {
    const socket = new FakeSocket()
    const buffer = new WriteBuffer(() => {})
    buffer.open(socket)
    for (let left = 50; left > 0; left--) buffer.write(Buffer.alloc(100))
    assert.equal(socket.taken.length, 0)
    await turn()
    assert.deepEqual(socket.taken.map(({ length }) => length), [5_000])
    for (let left = 4; left > 0; left--) buffer.write(Buffer.alloc(10 * KiB))
    assert.deepEqual(socket.taken.map(({ length }) => length), [5_000, 40 * KiB])
  })

  test('a peer that does not read holds what was written to it, not a buffer for each turn', async () => {
    const socket = new FakeSocket(true)
    const buffer = new WriteBuffer(() => {})
    buffer.open(socket)
    let turns = 0
    for (; !buffer.isBlocked && turns < 10_000; turns++) {
      buffer.write(Buffer.alloc(200))
      await turn()
    }
    assert.equal(turns, Math.ceil(256 * KiB / 200))
    // The socket of Node.js has them in its own list.
    const held = new Set<ArrayBufferLike>()
    while (socket.held.length > 0) {
      held.add((socket.held[0] as { chunk: Buffer }).chunk.buffer)
      socket.complete()
    }
    assert.ok(held.size <= 6, `${held.size} buffers of 64 KiB for 256 KiB`)
    assert.equal(buffer.isBlocked, false)
  })

  test('a buffer that was made larger is not kept', async () => {
    const socket = new FakeSocket()
    const buffer = new WriteBuffer(() => {})
    buffer.open(socket)
    buffer.commit(buffer.reserve(300 * KiB) + 300 * KiB)
    assert.equal(socket.bytes.length, 300 * KiB)
    buffer.reserve(1)
    assert.equal(buffer.target.length, 64 * KiB)
  })

  test('after the end nothing is written', async () => {
    const socket = new FakeSocket()
    const buffer = new WriteBuffer(() => {})
    buffer.open(socket)
    buffer.write(Buffer.from('first'))
    buffer.end()
    buffer.write(Buffer.from('late'))
    buffer.write(Buffer.alloc(20 * KiB))
    await turn()
    assert.equal(socket.bytes.toString(), 'first')
    assert.equal(socket.writableFinished, true)
  })
})

suite('ownPackets', () => {
  /** As MQTT.js writes them: piece by piece. */
  function chunksOf (...packets: object[]): Buffer[] {
    const chunks: Buffer[] = []
    for (const packet of packets) {
      const stream = {
        write: (chunk: string | Buffer) => chunks.push(Buffer.from(chunk as string)) > 0,
        cork () {},
        uncork () {}
      }
      writeToStream(packet as Packet, stream as unknown as Duplex, { protocolVersion: 5 })
    }
    return chunks
  }

  const publish = {
    cmd: 'publish', topic: 'a/b', payload: Buffer.alloc(70_000, 'x'), qos: 2, messageId: 7, retain: false, dup: false
  }
  const packets = [
    {
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 5,
      clean: true,
      clientId: 'c',
      keepalive: 1,
      username: 'u',
      password: 'p'
    },
    { cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'a', qos: 1 }, { topic: 'b', qos: 0 }] },
    { cmd: 'pingreq' },
    publish,
    { ...publish, qos: 0, payload: '' },
    { cmd: 'pubrel', messageId: 7, reasonCode: 0 },
    { cmd: 'disconnect', reasonCode: 0 }
  ]

  test('gives whole packets, with the identifier of a message that is answered', () => {
    const own = ownPackets(chunksOf(...packets))
    assert.deepEqual(own?.map(({ type, publishId }) => [type, publishId]),
      [[1, 0], [8, 0], [12, 0], [3, 7], [3, 0], [6, 0], [14, 0]])
    assert.deepEqual(own.map(({ packet }) => packet), packets.map((one) => Buffer.concat(chunksOf(one))))
  })

  test('gives nothing if a packet ends early, also if others follow that fill it up', () => {
    for (const packet of packets.filter(({ cmd }) => cmd !== 'pingreq' && cmd !== 'disconnect')) {
      const chunks = chunksOf(packet).filter(({ length }) => length > 0)
      for (let count = 1; count < chunks.length; count++) {
        assert.equal(ownPackets(chunks.slice(0, count)), undefined)
        assert.equal(ownPackets([...chunks.slice(0, count), ...chunksOf(publish)]), undefined)
        assert.equal(ownPackets([...chunksOf({ cmd: 'pingreq' }), ...chunks.slice(0, count)]), undefined)
      }
    }
    assert.equal(ownPackets([Buffer.of(0x30, 0xff, 0xff, 0xff, 0xff, 1)]), undefined)
  })
})

suite('Wire: sending', () => {
  type Step =
    | { kind: 'ours', size: number }
    | { kind: 'ack' }
    | { kind: 'theirs', filters: number }
    | { kind: 'foreign', size: number }
    | { kind: 'turn' }
  const size = fc.oneof(fc.nat(300), fc.constantFrom(16 * KiB - 20, 16 * KiB, 40 * KiB, 64 * KiB, 70 * KiB))
  const step: fc.Arbitrary<Step> = fc.oneof(
    fc.record({ kind: fc.constant('ours' as const), size }),
    fc.constant({ kind: 'ack' as const }),
    fc.record({ kind: fc.constant('theirs' as const), filters: fc.integer({ min: 1, max: 30 }) }),
    fc.record({ kind: fc.constant('foreign' as const), size }),
    fc.constant({ kind: 'turn' as const })
  )

  test('packets of MQTT.js pass whole and in order among ours', async () => {
    await fc.assert(fc.asyncProperty(
      fc.array(step, { maxLength: 30 }), fc.constantFrom<Version>(4, 5), fc.boolean(),
      async (steps, version, isSlow) => {
        const { wire, socket, errors } = await openWire({ version, isSlow })
        const ours: string[] = []
        const theirs: string[] = []
        const write = (packet: object) => {
          writeToStream(packet as Packet, wire, { protocolVersion: version })
        }
        for (const [number, one] of steps.entries()) {
          if (one.kind === 'ours') {
            ours.push(`publish ours/${number} ${one.size}`)
            wire.publish(message(`ours/${number}`, one.size), 2_000 + number, false)
          } else if (one.kind === 'ack') {
            ours.push(`puback ${number}`)
            wire.ack(packetType.puback, number + 1, 0)
          } else if (one.kind === 'theirs') {
            const topics = Array.from({ length: one.filters }, (_, index) => `theirs/${number}/${index}`)
            theirs.push(`subscribe ${topics.join(' ')}`)
            const subscriptions = topics.map((topic) => ({ topic, qos: 1 }))
            write({ cmd: 'subscribe', messageId: number + 1, subscriptions })
          } else if (one.kind === 'foreign') {
            theirs.push(`publish theirs/${number} ${one.size}`)
            write({ cmd: 'publish', topic: `theirs/${number}`, payload: Buffer.alloc(one.size), qos: 1, messageId: number + 1 })
          } else {
            await sentOff()
            socket.complete()
          }
        }
        await sentOff()
        while (socket.complete()) await sentOff()
        const sent = parsed(socket.bytes, version).map((packet) => {
          if (packet.cmd === 'publish') return `publish ${packet.topic} ${packet.payload.length}`
          if (packet.cmd === 'subscribe') return `subscribe ${packet.subscriptions.map(({ topic }) => topic).join(' ')}`
          return `${packet.cmd} ${(packet.messageId ?? 0) - 1}`
        })
        assert.deepEqual(sent.filter((one) => !one.includes('theirs')), ours)
        assert.deepEqual(sent.filter((one) => one.includes('theirs')), theirs)
        assert.deepEqual(errors, [])
      }), { numRuns: 100 })
  })

  test('900 acknowledgements of one turn are one write', async () => {
    const { wire, socket, sent } = await openWire()
    for (let id = 1; id <= 900; id++) wire.ack(packetType.puback, id, 0)
    await sentOff()
    assert.equal(socket.taken.length, 1)
    const ids = Array.from({ length: 900 }, (_, index) => index + 1)
    assert.deepEqual(sent().map(({ messageId }) => messageId), ids)
  })

  test('onWritten tells the number of each write when the socket is done with it', async () => {
    const { wire, socket, written } = await openWire({ isSlow: true })
    const small = wire.publish(message('a', 10, 0), 0, false)
    assert.equal(wire.publish(message('b', 10, 0), 0, false), small)
    const large = wire.publish(message('c', 16 * KiB, 0), 0, false)
    // The head is part of the write before.
    assert.equal(large, small + 1)
    const next = wire.publish(message('d', 10, 0), 0, false)
    assert.equal(next, large + 1)
    await sentOff()
    assert.deepEqual(written, [])
    for (const number of [small, large, next]) {
      socket.complete()
      await sentOff()
      assert.deepEqual(written.splice(0), [number])
    }
  })

  test('a peer that does not read makes it unwritable, and writable again with onDrain', async () => {
    const { wire, socket, told, sent } = await openWire({ isSlow: true })
    let count = 0
    while (wire.isWritable) wire.publish(message(`n/${count++}`, 10 * KiB, 0), 0, false)
    assert.ok(count >= 25 && count <= 33, `${count} messages of 10 KiB`)
    await sentOff()
    while (socket.complete()) {
      if (socket.held.length > 0) assert.equal(told.includes('drain'), false)
    }
    await sentOff()
    assert.equal(told.filter((one) => one === 'drain').length, 1)
    assert.equal(wire.isWritable, true)
    assert.equal(topicsOf(sent()).length, count)
  })

  test('a filter of 65,536 bytes throws nothing at whoever subscribes, ends the wire, and tears nothing of ours', async () => {
    const { wire, told, errors, sent } = await openWire()
    for (let number = 0; number < 25; number++) wire.publish(message(`n/${number}`, 100), 2_000 + number, false)
    writeToStream({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'x'.repeat(65_536), qos: 0 }] } as Packet, wire,
      { protocolVersion: 5 })
    assert.deepEqual(told, ['unsendable'])
    wire.publish(message('late'), 3_000, false)
    await closed(wire)
    assert.deepEqual(errors.map(({ code, message }) => [code, message]),
      [['FST_MQTT_CONNECTION', 'MQTT.js has written only a part of a packet']])
    await sentOff()
    assert.deepEqual(sent(), [])
  })

  test('half a packet ends the wire with a coded error, and none of it is sent', async () => {
    for (const writes of [[bytesOf({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'a', qos: 0 }] }).subarray(0, 5)],
      [Buffer.of(0x82, 9), Buffer.of(0, 1)]]) {
      const { wire, socket, errors, told } = await openWire()
      wire.cork()
      for (const bytes of writes) wire.write(bytes)
      wire.uncork()
      await closed(wire)
      assert.equal(errors[0]?.code, 'FST_MQTT_CONNECTION')
      assert.equal(socket.destroyed, true)
      assert.equal(socket.bytes.length, 0)
      assert.deepEqual(told, [])
    }
  })
})

suite('Wire: receiving', () => {
  test('CONNACK is told before MQTT.js has it', async () => {
    const { wire, socket, told } = await openWire({ isAccepted: false })
    wire.on('data', () => told.push('MQTT.js has it'))
    socket.receive(bytesOf(connack))
    assert.deepEqual(told, ['connack', 'MQTT.js has it'])
    assert.ok(wire.rttMs >= 0)
  })

  test('PUBLISH and acknowledgements of ours never come to MQTT.js, all else does, however cut', async () => {
    const stream = [
      connack, { cmd: 'publish', topic: 'a', payload: 'x', qos: 0 }, { cmd: 'suback', messageId: 1, granted: [0] },
      { cmd: 'puback', messageId: 1_025, reasonCode: 0 }, { cmd: 'pingresp' }, { cmd: 'pubrec', messageId: 1_025, reasonCode: 0 },
      { cmd: 'unsuback', messageId: 2, granted: [0] }, { cmd: 'pubrel', messageId: 1, reasonCode: 0 },
      { cmd: 'publish', topic: 'b', payload: 'x', qos: 2, messageId: 3 }, { cmd: 'pubcomp', messageId: 65_535, reasonCode: 0 }
    ]
    const bytes = Buffer.concat(stream.map((packet) => bytesOf(packet)))
    for (const size of [1, 2, 3, 7, bytes.length]) {
      const { socket, told, heard, errors } = await openWire({ isAccepted: false })
      for (let at = 0; at < bytes.length; at += size) socket.receive(bytes.subarray(at, at + size))
      assert.deepEqual(told, ['connack', ['publish', 'a'], ['ack', 4, 1_025, 0], ['ack', 5, 1_025, 0], ['ack', 6, 1, 0],
        ['publish', 'b'], ['ack', 7, 65_535, 0]])
      assert.deepEqual(heard().map(({ cmd }) => cmd), ['connack', 'suback', 'pingresp', 'unsuback'])
      assert.deepEqual(errors, [])
    }
  })

  test("acknowledgements of MQTT.js's own messages go to it, and count only for what it has sent here", async () => {
    const { wire, socket, told, heard } = await openWire()
    const foreign = (messageId: number) => {
      writeToStream({ cmd: 'publish', topic: 'a', payload: '', qos: 1, messageId } as Packet, wire, { protocolVersion: 5 })
    }
    for (const id of [1, 2, 3, 1_024]) foreign(id)
    await sentOff()
    assert.deepEqual(told.splice(0), Array(4).fill('foreign'))
    for (const packet of [
      { cmd: 'puback', messageId: 1, reasonCode: 0 }, { cmd: 'puback', messageId: 1, reasonCode: 0 },
      { cmd: 'pubrec', messageId: 2, reasonCode: 0 }, { cmd: 'pubcomp', messageId: 2, reasonCode: 0 },
      { cmd: 'pubrec', messageId: 3, reasonCode: 0x80 },
      // Sent on an earlier connection, and never here.
      { cmd: 'pubcomp', messageId: 9, reasonCode: 0 }, { cmd: 'puback', messageId: 1_024, reasonCode: 0 }
    ]) socket.receive(bytesOf(packet))
    assert.deepEqual(told, Array(4).fill('foreign done'))
    assert.equal(heard().length, 7)
  })

  test('reason codes that MQTT.js does not know come to it as ones that it does', async () => {
    for (const [type, code, as] of [
      [4, 0x95, 0x80], [4, 0x10, 0x10], [4, 0x97, 0x97], [4, 0x99, 0x99], [5, 0x95, 0x80],
      [7, 0x92, 0x92], [7, 0x95, 0x92]
    ] as const) {
      const { socket, heard } = await openWire()
      socket.receive(Buffer.of(type << 4, 3, 0, 5, code))
      // As MQTT.js parses it: fails on what it would be deaf after.
      const [packet] = heard()
      assert.equal(packet !== undefined && 'reasonCode' in packet ? packet.reasonCode : undefined, as)
      assert.equal(packet?.messageId, 5)
    }
  })

  test('a refused connection is told and ends, and MQTT.js hears only the end', async () => {
    for (const [version, bytes, reasonCode] of [
      [5, bytesOf({ ...connack, reasonCode: 0x87 }), 0x87], [5, Buffer.of(0x20, 2, 0, 1), 1],
      [4, Buffer.of(0x20, 2, 0, 5), undefined]
    ] as const) {
      const { wire, socket, told, heard, errors } = await openWire({ version, isAccepted: false })
      socket.receive(bytes)
      await closed(wire)
      assert.deepEqual(told, [['refusal', 'connack', reasonCode]])
      assert.deepEqual([heard(), errors, socket.destroyed], [[], [], true])
    }
  })

  test('DISCONNECT is told, goes to MQTT.js, and ends the wire, also if the broker does not', async () => {
    const { wire, socket, told, heard, errors } = await openWire()
    socket.receive(Buffer.concat([
      bytesOf({ cmd: 'disconnect', reasonCode: 0x8e }), bytesOf({ cmd: 'publish', topic: 'late', payload: '', qos: 0 })
    ]))
    await closed(wire)
    assert.deepEqual(told, [['refusal', 'disconnect', 0x8e]])
    assert.deepEqual([heard().map(({ cmd }) => cmd), errors], [['disconnect'], []])
  })

  test('the end of the peer ends the wire, without an error', async () => {
    const { wire, socket, errors } = await openWire()
    socket.push(null)
    await closed(wire)
    assert.deepEqual(errors, [])
  })

  // What comes, on which version, before or after CONNACK, and what the broker is told about it.
  const refused: readonly (readonly [string, Version, boolean, Buffer, number | undefined])[] = [
    ['PUBLISH before CONNACK', 5, false, bytesOf({ cmd: 'publish', topic: 'a', payload: '', qos: 0 }), undefined],
    ['PUBLISH before CONNACK', 4, false, bytesOf({ cmd: 'publish', topic: 'a', payload: '', qos: 0 }, 4), undefined],
    ['a second CONNACK', 5, true, bytesOf(connack), 0x82],
    ['a second CONNACK', 4, true, bytesOf(connack, 4), undefined],
    ['CONNACK that allows no message in flight', 5, false, Buffer.of(0x20, 6, 0, 0, 3, 33, 0, 0), undefined],
    ['CONNACK that allows no packet', 5, false, Buffer.of(0x20, 8, 0, 0, 5, 39, 0, 0, 0, 0), undefined],
    ['SUBACK with flags', 5, true, Buffer.of(0x91, 4, 0, 1, 0, 0), 0x81],
    ['SUBACK with a code that there is not', 5, true, Buffer.of(0x90, 4, 0, 1, 0, 0x7f), 0x82],
    ['SUBACK of one byte', 5, true, Buffer.of(0x90, 1, 0), 0x81],
    ['SUBACK of one byte', 4, true, Buffer.of(0x90, 1, 0), undefined],
    ['SUBACK without codes', 5, true, Buffer.of(0x90, 3, 0, 1, 0), 0x81],
    ['UNSUBACK with a code that there is not', 5, true, Buffer.of(0xb0, 4, 0, 1, 0, 0x7f), 0x82],
    ['PUBACK without an identifier', 5, true, Buffer.of(0x40, 0), 0x81],
    ['PINGRESP with a body', 5, true, Buffer.of(0xd0, 1, 0), 0x81],
    ['DISCONNECT with a code that there is not', 5, true, Buffer.of(0xe0, 1, 0x7f), 0x82],
    ['DISCONNECT', 4, true, Buffer.of(0xe0, 0), undefined],
    ['PUBLISH with QoS 3', 5, true, Buffer.of(0x36, 5, 0, 1, 97, 0, 1), 0x81],
    ['PUBLISH with a topic alias', 5, true, Buffer.of(0x30, 7, 0, 1, 97, 3, 35, 0, 1), 0x94],
    ['a packet that is too large', 5, true, Buffer.of(0x30, 0xff, 0xff, 0x7f), 0x95],
    ['a length of five bytes', 5, true, Buffer.of(0x30, 0xff, 0xff, 0xff, 0xff, 1), 0x81],
    ['a packet of clients', 5, true, Buffer.of(0xc0, 0), 0x82],
    ['HTTP', 5, false, Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), undefined]
  ]
  for (const [name, version, isAccepted, bytes, reasonCode] of refused) {
    test(`MQTT ${version}: ${name} ends the wire with a coded error${reasonCode ? `, which the broker is told as ${reasonCode}` : ''}`, async () => {
      const { wire, socket, ...seen } = await openWire({ version, isAccepted, maxBytes: 100_000 })
      socket.receive(bytes)
      await closed(wire)
      assert.deepEqual(seen.errors.map(({ code }) => code), ['FST_MQTT_MALFORMED'])
      assert.deepEqual([seen.told, seen.heard()], [[], []])
      const said = seen.sent().map((packet) => packet.cmd === 'disconnect' ? packet.reasonCode : packet.cmd)
      assert.deepEqual(said, reasonCode === undefined ? [] : [reasonCode])
      assert.equal(socket.destroyed, true)
    })
  }

  test('what somebody throws who is told of a packet is not blamed on the broker', async () => {
    for (const [thrown, code, says] of [
      [new Error('boom'), 'FST_MQTT_CONNECTION', 'boom'], ['text', 'FST_MQTT_CONNECTION', 'text'],
      [Object.assign(new Error('boom'), { code: 'ITS_OWN' }), 'ITS_OWN', 'boom']
    ] as const) {
      const { wire, socket, errors, sent, told } = await openWire()
      wire.on('data', () => { throw thrown })
      socket.receive(bytesOf({ cmd: 'pingresp' }))
      await closed(wire)
      assert.deepEqual(errors.map((error) => [error.code, error.message]), [[code, says]])
      const [goodbye] = sent()
      assert.equal(goodbye?.cmd === 'disconnect' ? goodbye.reasonCode : undefined, 0x83)
      assert.deepEqual(told, [])
    }
  })

  test('random bytes end it with a coded error, or are waited for: nothing is thrown, nothing is left', async () => {
    const packet = fc.constantFrom(
      { cmd: 'publish', topic: 'a/b', payload: 'x', qos: 1, messageId: 7, properties: { contentType: 'y' } },
      { cmd: 'suback', messageId: 1, granted: [0, 0x80] }, { cmd: 'pingresp' }, { cmd: 'unsuback', messageId: 2, granted: [0] },
      { cmd: 'puback', messageId: 3, reasonCode: 0 }, { cmd: 'pubcomp', messageId: 2_000, reasonCode: 0x92 },
      { cmd: 'auth', reasonCode: 0x18, properties: { authenticationMethod: 'x' } },
      { cmd: 'disconnect', reasonCode: 0x8e, properties: { reasonString: 'r', userProperties: { a: 'b' } } },
      { ...connack, properties: { receiveMaximum: 20, serverKeepAlive: 7, userProperties: { a: 'b' } } }
    )
    const bent = fc.tuple(
      fc.array(packet, { minLength: 1, maxLength: 4 }),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }),
      fc.constantFrom<Version>(4, 5)
    ).map(([packets, changes, version]) => {
      const bytes = Buffer.concat(packets.map((one) => bytesOf(one, one.cmd === 'auth' ? 5 : version)))
      for (const [at, byte] of changes) bytes[at % bytes.length] = byte
      return bytes
    })
    const noise = fc.uint8Array({ minLength: 1, maxLength: 80 }).map((bytes) => Buffer.from(bytes))
    await fc.assert(fc.asyncProperty(
      fc.oneof(noise, bent), fc.constantFrom<Version>(4, 5), fc.boolean(), fc.integer({ min: 1, max: 50 }),
      async (bytes, version, isAccepted, size) => {
        const { wire, socket, errors } = await openWire({ version, isAccepted, maxBytes: 10_000 })
        const ended = closed(wire)
        for (let at = 0; at < bytes.length; at += size) socket.receive(bytes.subarray(at, at + size))
        // Whatever it waits for does not come.
        socket.push(null)
        await ended
        assert.ok(errors.length <= 1)
        for (const { code } of errors) assert.match(code ?? '', /^FST_MQTT_(MALFORMED|CONNECTION)$/)
        assert.equal(socket.destroyed, true)
      }), { numRuns: 1_500 })
  })
})

suite('Wire: pausing', () => {
  const pingreq = (wire: Wire) => { writeToStream({ cmd: 'pingreq' }, wire) }

  test('a ping is answered here and goes out all the same; what comes waits', async () => {
    const { wire, socket, told, heard, sent } = await openWire()
    wire.pauseReading()
    assert.equal(socket.isPaused(), true)
    pingreq(wire)
    await sentOff()
    assert.deepEqual(heard().map(({ cmd }) => cmd), ['pingresp'])
    assert.deepEqual(sent().map(({ cmd }) => cmd), ['pingreq'])
    socket.receive(bytesOf({ cmd: 'publish', topic: 'a', payload: '', qos: 0 }))
    socket.receive(bytesOf({ cmd: 'pingresp' }))
    await sentOff()
    assert.deepEqual(told, [])
    wire.resumeReading()
    await sentOff()
    assert.deepEqual(told, [['publish', 'a']])
    assert.deepEqual(heard().map(({ cmd }) => cmd), ['pingresp', 'pingresp'])
  })

  test('a ping that was on its way already is answered', async () => {
    const { wire, heard } = await openWire()
    pingreq(wire)
    await sentOff()
    assert.deepEqual(heard(), [])
    wire.pauseReading()
    assert.deepEqual(heard().map(({ cmd }) => cmd), ['pingresp'])
    wire.pauseReading()
    assert.equal(heard().length, 1)
  })

  test('whatever comes is a sign of life, once for each ping', async () => {
    const { wire, socket, heard } = await openWire()
    const publish = bytesOf({ cmd: 'publish', topic: 'a', payload: 'long', qos: 0 })
    socket.receive(publish)
    assert.deepEqual(heard(), [])
    pingreq(wire)
    await sentOff()
    // Also a part of a packet.
    socket.receive(publish.subarray(0, 3))
    assert.deepEqual(heard().map(({ cmd }) => cmd), ['pingresp'])
    socket.receive(publish.subarray(3))
    assert.equal(heard().length, 1)
  })

  test('it can be paused before there is a socket, and after the end', async () => {
    const { promise, resolve } = deferred<Duplex>()
    const { wire, errors } = await openWire({ dialed: promise })
    wire.pauseReading()
    const socket = new FakeSocket()
    resolve(socket)
    await sentOff()
    assert.equal(socket.isPaused(), true)
    wire.destroy()
    await closed(wire)
    wire.resumeReading()
    pingreq(wire)
    await sentOff()
    assert.deepEqual(errors, [])
  })
})

suite('Wire: dialing', () => {
  test('what was written before there was a socket is sent first, and told', async () => {
    const { promise, resolve } = deferred<Duplex>()
    const { wire, written } = await openWire({ dialed: promise })
    assert.equal(wire.isWritable, false)
    writeToStream({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 5, clean: true, clientId: 'c', keepalive: 1 }, wire)
    await sentOff()
    const number = wire.publish(message('a', 16 * KiB, 0), 0, false)
    await sentOff()
    assert.deepEqual(written, [])
    const socket = new FakeSocket()
    resolve(socket)
    await sentOff()
    assert.deepEqual(parsed(socket.bytes, 5).map(({ cmd }) => cmd), ['connect', 'publish'])
    assert.equal(written.at(-1), number)
    assert.equal(wire.isWritable, true)
  })

  test('a dial that rejects is the error of the wire, with a code', async () => {
    for (const [error, code] of [
      [new Error('Unexpected server response: 200'), 'FST_MQTT_CONNECTION'],
      [Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }), 'ECONNREFUSED']
    ] as const) {
      const { wire, errors, told } = await openWire({ dialed: Promise.reject(error) })
      await closed(wire)
      assert.deepEqual(errors.map((one) => [one.code, one.message]), [[code, error.message]])
      assert.deepEqual(told, [])
    }
  })

  test('a dial that throws rejects', async () => {
    const target: Target = { protocol: 'mqtt', host: 'localhost', port: 70_000, path: '', tls: {}, wsOptions: {} }
    for (const protocol of ['mqtt', 'mqtts'] as const) {
      await assert.rejects(async () => await dial({ ...target, protocol }), { code: 'ERR_SOCKET_BAD_PORT' })
    }
    await assert.rejects(async () => await dial({ ...target, port: 80, protocol: 'ws', path: '/#x' }), /fragment/)
  })

  test('a socket that comes after the end is destroyed, and its error is nobody\'s', async () => {
    const { promise, resolve } = deferred<Duplex>()
    const { wire, errors } = await openWire({ dialed: promise })
    wire.destroy()
    const socket = new FakeSocket()
    resolve(socket)
    await sentOff()
    assert.equal(socket.destroyed, true)
    socket.emit('error', new Error('late'))
    const late = deferred<Duplex>()
    const other = await openWire({ dialed: late.promise })
    other.wire.destroy()
    late.reject(new Error('late'))
    await sentOff()
    assert.deepEqual([errors, other.errors], [[], []])
  })

  test('the error of a socket is that of the wire, with a code, once', async () => {
    const { wire, socket, errors } = await openWire()
    socket.destroy(new Error('Unexpected server response: 200'))
    await closed(wire)
    assert.deepEqual(errors.map(({ code }) => code), ['FST_MQTT_CONNECTION'])
  })
})

suite('Wire: ending', () => {
  test('goodbye: DISCONNECT is the last that is sent, and nothing is heard after it', async () => {
    const { wire, socket, told, errors, sent } = await openWire()
    wire.publish(message('a'), 2_000, false)
    const gone = wire.goodbye(5_000)
    wire.ack(packetType.puback, 1, 0)
    wire.publish(message('large', 20 * KiB), 2_001, false)
    writeToStream({ cmd: 'pingreq' }, wire)
    socket.receive(bytesOf({ cmd: 'publish', topic: 'late', payload: '', qos: 1, messageId: 1 }))
    await sentOff()
    assert.deepEqual(sent().map(({ cmd }) => cmd), ['publish', 'disconnect'])
    assert.equal(socket.writableFinished, true)
    socket.push(null)
    await within(gone, 1_000, 'goodbye')
    assert.deepEqual([told, errors], [[], []])
    await wire.goodbye(5_000)
  })

  test('goodbye: a peer that does not answer, or take anything, is not waited for beyond the time', async () => {
    for (const isSlow of [true, false]) {
      const { wire, socket, errors } = await openWire({ isSlow })
      wire.publish(message('a', 300 * KiB), 2_000, false)
      await within(wire.goodbye(20), 1_000, 'goodbye')
      assert.deepEqual([socket.destroyed, errors], [true, []])
    }
  })

  test('goodbye: the end of the peer is seen though reading was paused', async () => {
    const { wire, socket, told } = await openWire()
    wire.pauseReading()
    socket.receive(bytesOf({ cmd: 'publish', topic: 'unread', payload: '', qos: 0 }))
    socket.push(null)
    await within(wire.goodbye(60_000), 1_000, 'goodbye')
    assert.deepEqual(told, [])
  })

  test('goodbye without a socket ends at once', async () => {
    const { wire, errors } = await openWire({ dialed: deferred<Duplex>().promise })
    await within(wire.goodbye(60_000), 1_000, 'goodbye')
    assert.deepEqual(errors, [])
  })

  test('the end that MQTT.js makes is bounded as well', async () => {
    const { wire, socket, sent } = await openWire()
    writeToStream({ cmd: 'disconnect', reasonCode: 0 }, wire, { protocolVersion: 5 })
    await sentOff()
    wire.end()
    await within(closed(wire), 3_000, 'close')
    assert.deepEqual([sent().map(({ cmd }) => cmd), socket.destroyed], [['disconnect'], true])
  })

  test('an error of MQTT.js about what it cannot encode gets a code, which MQTT.js needs to tell it', async () => {
    const { wire, errors, told } = await openWire()
    writeToStream({ cmd: 'connect', clientId: 'c', keepalive: 70_000 } as Packet, wire)
    assert.deepEqual(told, ['unsendable'])
    await closed(wire)
    assert.deepEqual(errors.map(({ code }) => code), ['FST_MQTT_CONNECTION'])
  })

  test('whatever is asked of it after the end has no effect', async () => {
    const { wire, socket, told, errors } = await openWire()
    wire.destroy()
    await closed(wire)
    wire.publish(message('a'), 2_000, false)
    wire.ack(packetType.pubrec as AckType, 1, 0)
    wire.pauseReading()
    await sentOff()
    socket.emit('data', bytesOf({ cmd: 'publish', topic: 'late', payload: '', qos: 0 }))
    assert.deepEqual([told, errors, socket.bytes.length], [[], [], 0])
  })
})
