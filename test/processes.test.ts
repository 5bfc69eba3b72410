import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs, {
  chmodSync, chownSync, existsSync, lstatSync, lutimesSync, mkdirSync, mkdtempSync, readdirSync, rmSync,
  statSync, symlinkSync, utimesSync, writeFileSync
} from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import net, { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { errors } from '../lib/errors.ts'
import { groupSessionExpiry, resolveProcesses } from '../lib/options/processes.ts'
import { Channel, type ChannelEnd, type ChannelSettings } from '../lib/processes/channel.ts'
import { directoryOf, ensureDirectory, groupKey, socketName } from '../lib/processes/directory.ts'
import { Election, type Seat } from '../lib/processes/election.ts'
import { errorOf, failureOf, type Failure } from '../lib/processes/failures.ts'
import { FrameSplitter, FrameWriter } from '../lib/processes/frames.ts'
import {
  joinGroup, type Group, type GroupHooks, type GroupSettings, type Role
} from '../lib/processes/group.ts'
import {
  decode, encode, maxFrameBytes, maxGreetingBytes, nonceBytes, proofBytes, protocolVersion,
  type ForwardedPublish, type Frame, type Parcel
} from '../lib/processes/protocol.ts'
import { Relay, type Patience, type Route, type Task } from '../lib/processes/relay.ts'
import { workerHint, workersWarning, type Hints } from '../lib/processes/workers.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { deferred, within } from './helpers/deadline.ts'
import { Mailbox } from './helpers/mailbox.ts'

const refused = { code: 'FST_MQTT_PEER_REFUSED' }

function temporaryDirectory (owner: Owner): string {
  const path = mkdtempSync(join(tmpdir(), 'multimqtt-test-'))
  onEnd(owner, () => rmSync(path, { recursive: true, force: true }))
  return path
}

/** All bytes of some frames. */
function written (frames: readonly Frame[]): Buffer {
  const writer = new FrameWriter()
  for (const frame of frames) encode(writer, frame)
  return Buffer.concat(writer.take())
}

/** What a reader makes of bytes that come in pieces. */
function readIn (pieces: readonly Buffer[], maxBytes = maxFrameBytes): Frame[] {
  const frames: Frame[] = []
  const splitter = new FrameSplitter(maxBytes, (body) => frames.push(decode(body)))
  for (const piece of pieces) splitter.push(piece)
  return frames
}

/** Cuts bytes at any places. */
function cut (bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b)
  return [0, ...at].map((begin, index) => bytes.subarray(begin, at[index] ?? bytes.length))
}

/** Of usual objects, some of whose keys may be missing. */
function record<T> (model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T>
function record<T, K extends keyof T> (
  model: { [K in keyof T]: fc.Arbitrary<T[K]> }, requiredKeys: K[]
): fc.Arbitrary<Partial<T> & Pick<T, K>>
function record<T, K extends keyof T> (model: { [K in keyof T]: fc.Arbitrary<T[K]> }, requiredKeys?: K[]) {
  return requiredKeys === undefined
    ? fc.record(model, { noNullPrototype: true })
    : fc.record(model, { noNullPrototype: true, requiredKeys })
}

const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 50 })
  .filter((value) => /^[^\p{Cc}\p{Noncharacter_Code_Point}+#]+$/u.test(value) && value.isWellFormed())
const bytes = fc.oneof(
  { weight: 5, arbitrary: fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array)) },
  { weight: 1, arbitrary: fc.constantFrom(4_095, 4_096, 70_000).map((size) => Buffer.alloc(size, size)) }
)
const id = fc.integer({ min: 0, max: 0xffff_ffff })
const json = fc.jsonValue().map((value) => JSON.parse(JSON.stringify(value)) as unknown)
const properties = record({
  payloadFormatIndicator: fc.boolean(),
  messageExpiryInterval: id,
  responseTopic: text,
  correlationData: fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array)),
  contentType: text,
  userProperties: fc.dictionary(text, fc.oneof(text, fc.array(text, { minLength: 1 })), {
    noNullPrototype: true
  })
}, [])
const timeoutMs = fc.integer({ min: 1, max: 2 ** 31 - 1 })
const failure = record({
  code: fc.oneof(text, fc.nat()),
  message: text,
  statusCode: fc.nat({ max: 599 }),
  reasonCode: fc.nat({ max: 255 })
}, ['code', 'message'])
const frame: fc.Arbitrary<Frame> = fc.oneof(
  record({
    type: fc.constant('publish' as const),
    id,
    timeoutMs,
    isAbortable: fc.boolean(),
    publish: record({
      topic: text,
      payload: bytes,
      qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
      retain: fc.boolean(),
      properties: fc.option(properties, { nil: undefined }),
      contentType: fc.option(text, { nil: undefined })
    })
  }),
  record({
    type: fc.constant('call' as const),
    id,
    timeoutMs,
    isAbortable: fc.boolean(),
    name: text,
    parcel: record({ data: json, bytes })
  }),
  record({ type: fc.constant('reply' as const), id, parcel: record({ data: json, bytes }) }),
  record({ type: fc.constant('failed' as const), id, failure }),
  record({ type: fc.constant('state' as const), state: json }),
  record({ type: fc.constantFrom('done' as const, 'cancel' as const, 'declined' as const), id }),
  record({ type: fc.constantFrom('beat' as const, 'leaving' as const) }),
  record({
    type: fc.constant('hello' as const),
    version: fc.nat({ max: 65_535 }),
    heartbeatMs: id,
    nonce: fc.uint8Array({ minLength: nonceBytes, maxLength: nonceBytes }).map((array) => Buffer.from(array))
  }),
  record({
    type: fc.constant('proof' as const),
    proof: fc.uint8Array({ minLength: proofBytes, maxLength: proofBytes }).map((array) => Buffer.from(array))
  })
)

describe('frames', () => {
  test('any frames, cut anywhere, come out as they went in', () => {
    const places = fc.array(fc.nat(), { maxLength: 30 })
    fc.assert(fc.property(fc.array(frame, { maxLength: 20 }), places, (frames, at) => {
      assert.deepEqual(readIn(cut(written(frames), at)), frames)
    }))
  })

  test('bytes that come one by one are put together', () => {
    const frames: Frame[] = [{ type: 'beat' }, { type: 'state', state: { status: 'ready' } }, { type: 'done', id: 7 }]
    const all = written(frames)
    assert.deepEqual(readIn([...all].map((byte) => Buffer.from([byte]))), frames)
  })

  test('any bytes are either frames or FST_MQTT_PEER_REFUSED', () => {
    fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 100 })), (pieces) => {
      try {
        readIn(pieces.map((piece) => Buffer.from(piece)))
      } catch (error) {
        assert.ok(error instanceof errors.FST_MQTT_PEER_REFUSED, String(error))
      }
    }), { numRuns: 500 })
  })

  test('frames with any byte changed are either frames or FST_MQTT_PEER_REFUSED', () => {
    const some = fc.array(frame, { minLength: 1, maxLength: 5 })
    fc.assert(fc.property(some, fc.nat(), fc.nat(), (frames, place, value) => {
      const all = written(frames)
      all[place % Math.min(all.length, 300)] = value
      try {
        readIn([all])
      } catch (error) {
        assert.ok(error instanceof errors.FST_MQTT_PEER_REFUSED, String(error))
      }
    }), { numRuns: 1_000 })
  })

  test('a frame that says it is too long is refused before it is waited for', () => {
    assert.throws(() => readIn([Buffer.from('7fffffff04', 'hex')]), refused)
    assert.throws(() => readIn([Buffer.from('00000101', 'hex')], maxGreetingBytes), refused)
    assert.deepEqual(readIn([Buffer.from('00000100', 'hex')], maxGreetingBytes), [])
  })

  // The beginning of a publish, up to its flags.
  const publishHead = '0000000100000001'
  const malformed: Record<string, string> = {
    'no type at all': '00000000',
    'an unknown type': framed(99),
    'a done without its id': framed(7, 'aabb'),
    'a beat that goes on': framed(3, '00'),
    'a publish with QoS 3': framed(4, publishHead, '03', '000161'),
    'a publish whose topic goes beyond its end': framed(4, publishHead, '00', 'ffff61'),
    'properties that are a list': framed(4, publishHead, '08', '000161', withLength('[]')),
    'properties that no broker takes': framed(4, publishHead, '08', '000161', withLength('{"responseTopic":"#"}')),
    'properties that are no JSON': framed(4, publishHead, '08', '000161', withLength('{')),
    'a content type that no broker takes': framed(4, publishHead, '20', '000161', '000100'),
    'a failure that is text': framed(9, '00000001', hexOf('"no"')),
    'a failure whose cause has no code': framed(9, '00000001',
      hexOf('{"code":"A","message":"b","cause":{"message":"c"}}')),
    'a greeting of somebody else': framed(1, hexOf('GET / HTTP/1.1\r\nHost: localhost'))
  }
  for (const [what, hex] of Object.entries(malformed)) {
    test(`${what} is FST_MQTT_PEER_REFUSED`, () => {
      assert.throws(() => readIn([Buffer.from(hex, 'hex')]), refused)
    })
  }

  test('what is too large is refused by whoever would send it, and nothing of it is sent', () => {
    const writer = new FrameWriter()
    // As large as it says, but without the memory.
    const payload = Object.defineProperty(Buffer.alloc(0), 'length', { value: maxFrameBytes })
    const publish = { topic: 'a', payload, qos: 0, retain: false, properties: undefined } as const
    const options = { type: 'publish', id: 1, timeoutMs: 1, isAbortable: false } as const
    const limit = { code: 'FST_MQTT_BROKER_LIMIT' }
    assert.throws(() => encode(writer, { ...options, publish }), limit)
    const small = { ...publish, payload: Buffer.alloc(0) }
    assert.throws(() => encode(writer, { ...options, publish: { ...small, topic: 'ä'.repeat(33_000) } }), limit)
    assert.throws(() => encode(writer, { ...options, publish: { ...small, contentType: 'ä'.repeat(33_000) } }), limit)
    assert.throws(() => encode(writer, { type: 'reply', id: 1, parcel: { data: 1n, bytes: payload } }), TypeError)
    assert.equal(writer.size, 0)
    encode(writer, { ...options, publish: { ...small, topic: 'ä'.repeat(32_767) } })
    assert.ok(writer.size > 65_534)
  })

  test('a payload is a copy of what was read, which can go', () => {
    const publish = { topic: 't', payload: Buffer.from('abc'), qos: 1, retain: false, properties: undefined } as const
    const all = written([{ type: 'publish', id: 1, timeoutMs: 1, isAbortable: false, publish }])
    const [read] = readIn([all])
    all.fill(0)
    assert.ok(read?.type === 'publish')
    assert.equal(read.publish.payload.toString(), 'abc')
  })
})

function framed (type: number, ...body: readonly string[]): string {
  const hex = type.toString(16).padStart(2, '0') + body.join('')
  return (hex.length / 2).toString(16).padStart(8, '0') + hex
}

function withLength (json: string): string {
  return Buffer.byteLength(json).toString(16).padStart(8, '0') + hexOf(json)
}

function hexOf (text: string): string {
  return Buffer.from(text).toString('hex')
}

describe('failures', () => {
  const there = (error: unknown) => errorOf(JSON.parse(JSON.stringify(failureOf(error))) as Failure)

  test('an error of the plugin is the same error in the other process', () => {
    const cause = Object.assign(new Error('Not authorized'), { code: 135 })
    const error = there(new errors.FST_MQTT_PUBLISH_REFUSED('a/b', 'not authorized', { cause }))
    assert.ok(error instanceof errors.FST_MQTT_PUBLISH_REFUSED)
    assert.ok(error instanceof Error)
    const { code, statusCode, message } = error
    assert.deepEqual({ code, statusCode, message }, {
      code: 'FST_MQTT_PUBLISH_REFUSED',
      statusCode: 502,
      message: "The broker refused the message to 'a/b': not authorized"
    })
    assert.match(error.stack ?? '', /refused the message to 'a\/b': not authorized/)
    assert.deepEqual({ ...(error.cause as object) }, { code: 135 })
  })

  test('other errors keep code, message and status code; what is no error is its text', () => {
    const error = there(Object.assign(new Error('full'), { code: 'ENOSPC', statusCode: 507 }))
    assert.deepEqual({ ...error, message: error.message }, { code: 'ENOSPC', statusCode: 507, message: 'full' })
    assert.equal(there('no').message, 'no')
    assert.deepEqual({ ...there(new Error('x')) }, { code: 'UNKNOWN' })
    const refusal = there(Object.assign(new errors.FST_MQTT_CONNECTION('no'), { reasonCode: 0x86 }))
    assert.ok(refusal instanceof errors.FST_MQTT_CONNECTION)
    assert.equal('reasonCode' in refusal && refusal.reasonCode, 0x86)
    assert.equal(there(Object.assign(new Error('x'), { code: 'constructor' })).constructor, Error)
  })

  test('a chain of causes ends, also one that is a circle', () => {
    const circle = new Error('circle')
    circle.cause = circle
    const error = there(circle)
    assert.equal(((error.cause as Error).cause as Error).cause, undefined)
  })
})

const key = Buffer.alloc(32, 7)
const channelSettings: ChannelSettings = { side: 'member', key, heartbeatMs: 20, silenceMs: 5_000 }
/** Far above what is awaited here, far below a hang. */
const ceilingMs = 5_000

/** One end of a connection, and all that it tells. */
interface End {
  readonly channel: Channel
  readonly socket: Socket
  readonly frames: Mailbox<Frame>
  readonly opened: Mailbox<true>
  readonly ended: Mailbox<ChannelEnd>
}

/** Two sockets that are connected, from the side that listens and the other one. */
async function socketPair (owner: Owner): Promise<{ server: Socket, client: Socket, path: string }> {
  const path = join(temporaryDirectory(owner), 's')
  const listener = createServer()
  listener.listen(path)
  onEnd(owner, () => listener.close())
  await once(listener, 'listening')
  const client = connect(path)
  const [server] = await once(listener, 'connection') as [Socket]
  onEnd(owner, () => {
    server.destroy()
    client.destroy()
  })
  return { server, client, path }
}

function endOf (owner: Owner, socket: Socket, settings: Partial<ChannelSettings> = {}): End {
  const frames = new Mailbox<Frame>()
  const opened = new Mailbox<true>()
  const ended = new Mailbox<ChannelEnd>()
  const channel = new Channel(socket, { ...channelSettings, ...settings }, {
    onOpen: () => opened.put(true),
    onFrame: (frame) => frames.put(frame),
    onEnd: (end) => ended.put(end)
  })
  onEnd(owner, async () => await channel.close(100))
  return { channel, socket, frames, opened, ended }
}

async function channelPair (
  owner: Owner, ofOwner: Partial<ChannelSettings> = {}, ofMember: Partial<ChannelSettings> = {}
): Promise<{ owner: End, member: End }> {
  const { server, client } = await socketPair(owner)
  return {
    owner: endOf(owner, server, { side: 'owner', ...ofOwner }),
    member: endOf(owner, client, ofMember)
  }
}

const any = () => true
const ended = async ({ ended }: End): Promise<ChannelEnd> => await ended.take(any, 'end of the channel')

describe('channel', () => {
  test('two who know the key talk to each other, with one write for each turn of the loop', async (t) => {
    const { owner, member } = await channelPair(t, { heartbeatMs: 10_000 }, { heartbeatMs: 10_000 })
    await Promise.all([owner.opened.take(any, 'opening'), member.opened.take(any, 'opening')])
    const writes = t.mock.method(member.socket, 'write')
    for (let id = 0; id < 1_000; id++) member.channel.send({ type: 'done', id })
    for (let id = 0; id < 1_000; id++) {
      assert.deepEqual(await owner.frames.take(any, 'frame'), { type: 'done', id })
    }
    assert.equal(writes.mock.callCount(), 1)
    owner.channel.send({ type: 'state', state: 'ready' })
    assert.deepEqual(await member.frames.take(any, 'frame'), { type: 'state', state: 'ready' })
  })

  test('a megabyte goes out before the turn is over, and arrives whole', async (t) => {
    const { owner, member } = await channelPair(t)
    await member.opened.take(any, 'opening')
    const parcel = { data: null, bytes: Buffer.alloc(1_000_000, 5) }
    member.channel.send({ type: 'reply', id: 1, parcel })
    assert.ok(member.socket.bytesWritten > 1_000_000)
    assert.deepEqual(await owner.frames.take(any, 'frame'), { type: 'reply', id: 1, parcel })
  })

  test('who does not know the key is refused, and learns nothing', async (t) => {
    const { owner, member } = await channelPair(t, {}, { key: Buffer.alloc(32, 8) })
    for (const end of [await ended(owner), await ended(member)]) {
      assert.equal(end.reason, 'refused')
      assert.match(String(end.error), /does not know the key/)
    }
  })

  test('who answers with what we have said is refused', async (t) => {
    const { server, client } = await socketPair(t)
    client.pipe(client)
    const { error } = await ended(endOf(t, server, { side: 'owner' }))
    assert.match(String(error), /does not know the key/)
  })

  test('another version is FST_MQTT_PEER_VERSION, which names both', async (t) => {
    const { server, client } = await socketPair(t)
    // It may have more to say in its greeting.
    const greeting = written([{ type: 'hello', version: 9, heartbeatMs: 1, nonce: Buffer.alloc(nonceBytes) }])
    greeting.writeUInt32BE(greeting.length - 4 + 8)
    client.write(Buffer.concat([greeting, Buffer.alloc(8)]))
    const { reason, error } = await ended(endOf(t, server, { side: 'owner' }))
    assert.equal(reason, 'refused')
    assert.ok(error instanceof errors.FST_MQTT_PEER_VERSION)
    assert.match(error.message, new RegExp(`version 9 .* this one version ${protocolVersion}: run one version`))
  })

  const hostile: Record<string, Buffer> = {
    'a browser': Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'),
    'who skips the greeting': written([{ type: 'cancel', id: 1 }]),
    'who greets twice': written([1, 2].map(() =>
      ({ type: 'hello', version: protocolVersion, heartbeatMs: 1, nonce: Buffer.alloc(nonceBytes) }))),
    'who proves before he greets': written([{ type: 'proof', proof: Buffer.alloc(proofBytes) }]),
    'who greets at length': Buffer.from('0000010101', 'hex')
  }
  for (const [who, words] of Object.entries(hostile)) {
    test(`${who} is refused`, async (t) => {
      const { server, client } = await socketPair(t)
      client.write(words)
      const { reason, error } = await ended(endOf(t, server, { side: 'owner' }))
      assert.equal(reason, 'refused')
      assert.ok(error instanceof errors.FST_MQTT_PEER_REFUSED)
      await once(client.resume(), 'close')
    })
  }

  test('who goes on after a frame that makes no sense is not heard', async (t) => {
    const { owner, member } = await channelPair(t)
    await Promise.all([owner.opened.take(any, 'opening'), member.opened.take(any, 'opening')])
    member.socket.write(Buffer.concat([
      written([{ type: 'done', id: 1 }]), Buffer.from('0000000163', 'hex'), written([{ type: 'done', id: 2 }])
    ]))
    assert.equal((await ended(owner)).reason, 'refused')
    owner.channel.send({ type: 'done', id: 3 })
    assert.deepEqual(await owner.frames.take(any, 'frame'), { type: 'done', id: 1 })
    await assert.rejects(owner.frames.take(any, 'frame', 50))
  })

  test('who gives no sign of life is silent, before the greeting and after it', async (t) => {
    const { server, client } = await socketPair(t)
    client.resume()
    const silent = await ended(endOf(t, server, { side: 'owner', silenceMs: 60 }))
    assert.deepEqual(silent, { reason: 'silent', error: undefined, wasOpen: false })

    const { owner, member } = await channelPair(t, { silenceMs: 80 })
    await Promise.all([owner.opened.take(any, 'opening'), member.opened.take(any, 'opening')])
    // As if its process were stopped.
    t.mock.method(member.socket, 'write', () => true)
    assert.deepEqual(await ended(owner), { reason: 'silent', error: undefined, wasOpen: true })
  })

  test('who says that he beats slowly is waited for', async (t) => {
    const { owner, member } = await channelPair(t, { silenceMs: 40, heartbeatMs: 10 }, { heartbeatMs: 100 })
    await member.opened.take(any, 'opening')
    await assert.rejects(owner.ended.take(any, 'end', 400), /no end within/)
  })

  test('who was busy himself does not take the others for silent', async (t) => {
    const { owner, member } = await channelPair(t, { silenceMs: 80 }, { silenceMs: 80 })
    await member.opened.take(any, 'opening')
    for (let round = 0; round < 3; round++) {
      const until = performance.now() + 300
      while (performance.now() < until);
      await new Promise(setImmediate)
    }
    member.channel.send({ type: 'done', id: 1 })
    assert.deepEqual(await owner.frames.take(any, 'frame'), { type: 'done', id: 1 })
  })

  test('who does not read the answers has no more requests read', async (t) => {
    const { owner, member } = await channelPair(t)
    await Promise.all([owner.opened.take(any, 'opening'), member.opened.take(any, 'opening')])
    member.socket.pause()
    const parcel = { data: null, bytes: Buffer.alloc(3_000_000) }
    owner.channel.send({ type: 'reply', id: 1, parcel })
    member.channel.send({ type: 'done', id: 1 })
    await owner.frames.take(any, 'frame')
    assert.equal(owner.socket.isPaused(), true)
    member.socket.resume()
    await member.frames.take(any, 'frame')
    member.channel.send({ type: 'done', id: 2 })
    await owner.frames.take(any, 'frame')
  })

  test('close: what has been sent arrives, and the end is no event for who closes', async (t) => {
    const { owner, member } = await channelPair(t)
    await member.opened.take(any, 'opening')
    member.channel.send({ type: 'done', id: 1 })
    await member.channel.close(1_000)
    member.channel.send({ type: 'done', id: 2 })
    await member.channel.close(1_000)
    assert.deepEqual(await owner.frames.take(any, 'frame'), { type: 'done', id: 1 })
    assert.deepEqual(await ended(owner), { reason: 'closed', error: undefined, wasOpen: true })
    await assert.rejects(member.ended.take(any, 'end', 20))
  })

  test('close: who does not read is not waited for beyond the time', async (t) => {
    const { owner, member } = await channelPair(t)
    await member.opened.take(any, 'opening')
    owner.socket.pause()
    member.channel.send({ type: 'reply', id: 1, parcel: { data: null, bytes: Buffer.alloc(5_000_000) } })
    await within(member.channel.close(50), ceilingMs, 'close')
    assert.equal(member.socket.destroyed, true)
  })
})

const uid = process.getuid?.() ?? 0
const directoryError = (message: RegExp) => ({ code: 'FST_MQTT_GROUP_DIRECTORY', message })

describe('directory', () => {
  const machine = { platform: 'linux', uid: 1000, runtimeDir: undefined, tmpdir: '/tmp' }
  const meeting = { group: 'orders', identity: ['mqtt://127.0.0.1:1883', 'user', 'prefix'], dir: undefined }

  test('its path is one for each user, group and broker, and tells none of them', () => {
    const path = directoryOf(meeting, machine)
    assert.match(path, /^\/tmp\/multimqtt-[0-9a-f]{12}$/)
    const others = [
      directoryOf({ ...meeting, group: 'other' }, machine),
      directoryOf({ ...meeting, identity: ['mqtt://127.0.0.1:1883', 'user', 'other'] }, machine),
      directoryOf({ ...meeting, identity: ['mqtt://127.0.0.1:1883', 'userprefix'] }, machine),
      directoryOf(meeting, { ...machine, uid: 1001 })
    ]
    assert.equal(new Set([path, ...others]).size, 5)
    assert.equal(directoryOf({ ...meeting }, machine), path)
  })

  test('dir comes first, then a XDG_RUNTIME_DIR that is ours, then the temporary files', (t) => {
    const runtimeDir = temporaryDirectory(t)
    const baseOf = (path: string) => path.slice(0, path.lastIndexOf('/multimqtt-'))
    assert.equal(baseOf(directoryOf({ ...meeting, dir: '/run/app' }, { ...machine, uid, runtimeDir })), '/run/app')
    assert.equal(baseOf(directoryOf(meeting, { ...machine, uid, runtimeDir })), runtimeDir)
    // After su it names the directory of another user.
    assert.equal(baseOf(directoryOf(meeting, { ...machine, uid: uid + 1, runtimeDir })), '/tmp')
    assert.equal(baseOf(directoryOf(meeting, { ...machine, uid, runtimeDir: join(runtimeDir, 'gone') })), '/tmp')
    assert.equal(baseOf(directoryOf(meeting, { ...machine, uid, runtimeDir: 'relative' })), '/tmp')
    const current = directoryOf(meeting)
    assert.match(current, /multimqtt-[0-9a-f]{12}$/)
  })

  test('a path that is too long for a socket is an error, not a socket elsewhere', () => {
    const dir = `/tmp/${'a'.repeat(60)}`
    assert.throws(() => directoryOf({ ...meeting, dir }, machine),
      directoryError(/has \d+ bytes, systems allow 103: set processes.dir to a directory with a shorter path$/))
    // What macOS has for temporary files fits.
    const tmpdir = '/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T'
    assert.ok(directoryOf(meeting, { ...machine, platform: 'darwin', tmpdir }).startsWith(tmpdir))
  })

  test('where there are no Unix sockets it says so', () => {
    const windows = { platform: 'win32', uid: undefined, runtimeDir: undefined, tmpdir: 'C:\\Temp' }
    assert.throws(() => directoryOf(meeting, windows), directoryError(/not used on win32: choose mode 'each'/))
  })

  test('it is made for us alone, whatever the umask is, and found again', (t) => {
    const path = join(temporaryDirectory(t), 'group')
    const umask = process.umask(0o277)
    try {
      ensureDirectory(path)
    } finally {
      process.umask(umask)
    }
    assert.equal(statSync(path).mode & 0o777, 0o700)
    ensureDirectory(path)
  })

  test('one that is not ours alone is refused, with what to do', (t) => {
    const base = temporaryDirectory(t)
    const advice = 'Remove it, or set processes.dir to a directory that only this user can write to$'
    const refuses = (name: string, message: string) => {
      assert.throws(() => ensureDirectory(join(base, name)), directoryError(new RegExp(`${message}\\. ${advice}`)))
    }
    mkdirSync(join(base, 'open'))
    for (const mode of [0o777, 0o750, 0o711, 0o1700 | 0o004]) {
      chmodSync(join(base, 'open'), mode)
      refuses('open', 'its mode is 7\\d\\d, not 700, so that others may use it')
    }
    mkdirSync(join(base, 'elsewhere'), { mode: 0o700 })
    symlinkSync(join(base, 'elsewhere'), join(base, 'link'))
    refuses('link', 'it is a symbolic link')
    writeFileSync(join(base, 'file'), '')
    refuses('file', 'it is no directory')
  })

  test('one of another user is refused', { skip: uid === 0 ? false : 'only root can give a directory away' }, (t) => {
    const path = join(temporaryDirectory(t), 'group')
    mkdirSync(path, { mode: 0o700 })
    chownSync(path, 65_534, 65_534)
    assert.throws(() => ensureDirectory(path),
      directoryError(/it belongs to the user 65534, this process runs as 0\. Remove it, or set processes.dir/))
  })

  test('where none can be made, the error says why and what to do', (t) => {
    const base = temporaryDirectory(t)
    writeFileSync(join(base, 'file'), '')
    const advice = /Set processes.dir to a directory that exists and that this user can write to$/
    for (const path of ['/sys/kernel/group', join(base, 'missing', 'group'), join(base, 'file', 'group')]) {
      assert.throws(() => ensureDirectory(path), directoryError(advice), path)
    }
  })

  test('the key is one for all, and there from the first moment on', async (t) => {
    const base = temporaryDirectory(t)
    const key = groupKey(base)
    assert.equal(key.length, 32)
    assert.deepEqual(groupKey(base), key)
    assert.equal(statSync(join(base, 'key')).mode & 0o777, 0o600)
    assert.deepEqual(readdirSync(base), ['key'])
    assert.notDeepEqual(groupKey(temporaryDirectory(t)), key)
  })

  test('of two who make a key at once one is first, and both have his', (t) => {
    const base = temporaryDirectory(t)
    const { linkSync } = fs
    const link = t.mock.method(fs, 'linkSync', (draft: string, path: string) => {
      writeFileSync(path, Buffer.alloc(32, 9), { mode: 0o600 })
      linkSync(draft, path)
    })
    syncBuiltinESMExports()
    const key = groupKey(base)
    link.mock.mockImplementation(() => { throw new Error('EPERM: no links here') })
    const other = temporaryDirectory(t)
    assert.throws(() => groupKey(other), directoryError(/no links here/))
    t.mock.restoreAll()
    syncBuiltinESMExports()
    assert.deepEqual(key, Buffer.alloc(32, 9))
    assert.deepEqual([readdirSync(base), readdirSync(other)], [['key'], []])
  })

  test('a key that others may know, or that is none, is refused', (t) => {
    const base = temporaryDirectory(t)
    const path = join(base, 'key')
    const notOurs = directoryError(/'.*key' is no key of ours: remove it while no process of the group runs/)
    writeFileSync(path, Buffer.alloc(32), { mode: 0o644 })
    assert.throws(() => groupKey(base), notOurs)
    rmSync(path)
    writeFileSync(path, Buffer.alloc(5), { mode: 0o600 })
    assert.throws(() => groupKey(base), notOurs)
    rmSync(path)
    writeFileSync(join(base, 'elsewhere'), Buffer.alloc(32), { mode: 0o600 })
    symlinkSync(join(base, 'elsewhere'), path)
    assert.throws(() => groupKey(base), directoryError(/ELOOP/))
  })
})

describe('election', () => {
  /** Somebody who may become the owner; his socket is a file that is there. */
  class Candidate {
    readonly election: Election
    readonly socketPath: string
    seat: Seat | undefined
    /** The term of the owner that he has found dead. */
    lastTerm: number | undefined

    constructor (directory: string) {
      this.election = new Election(directory)
      this.socketPath = join(directory, socketName())
      writeFileSync(this.socketPath, '')
    }

    claim (lastTerm = this.election.current()?.term ?? 0): boolean {
      this.seat = this.election.claim(lastTerm, this.socketPath)
      return this.seat !== undefined
    }

    get isOwner (): boolean {
      return this.seat !== undefined && this.election.isHeld(this.seat)
    }

    die (): void {
      rmSync(this.socketPath)
      this.seat = undefined
    }
  }

  test('the first who claims is the owner, and all find him', (t) => {
    const directory = temporaryDirectory(t)
    const [first, second] = [new Candidate(directory), new Candidate(directory)]
    assert.equal(second.election.current(), undefined)
    assert.ok(first.claim(0))
    assert.ok(!second.claim(0))
    assert.deepEqual(second.election.current(), { term: 1, socketPath: first.socketPath })
  })

  test('who was stopped between finding the owner dead and taking over comes too late', (t) => {
    const directory = temporaryDirectory(t)
    const [late, ...others] = Array.from({ length: 4 }, () => new Candidate(directory))
    assert.ok(late !== undefined)
    for (const other of others) {
      assert.ok(other.claim())
      other.die()
    }
    const owner = new Candidate(directory)
    assert.ok(owner.claim())
    // Terms 1 to 4 have been, and the links of all but the last are gone.
    assert.ok(!late.claim(0))
    assert.ok(!late.claim(3))
    assert.ok(owner.isOwner)
  })

  test('an owner whose seat was taken, or whose socket is gone, is none any more', (t) => {
    const directory = temporaryDirectory(t)
    const [first, second] = [new Candidate(directory), new Candidate(directory)]
    assert.ok(first.claim())
    // As from one that gives no sign of life.
    assert.ok(second.claim())
    assert.deepEqual([first.isOwner, second.isOwner], [false, true])
    rmSync(second.socketPath)
    assert.equal(second.isOwner, false)
  })

  test('at no time are there two owners, whatever candidates do and when', (t) => {
    const actions = fc.array(fc.record({
      who: fc.nat({ max: 3 }), does: fc.constantFrom('look', 'claim', 'die', 'freeze')
    }), { maxLength: 40 })
    const base = temporaryDirectory(t)
    fc.assert(fc.property(actions, (steps) => {
      const directory = mkdtempSync(join(base, 'race-'))
      const candidates = Array.from({ length: 4 }, () => new Candidate(directory))
      for (const { who, does } of steps) {
        const candidate = candidates[who] as Candidate
        const current = candidate.election.current()
        if (does === 'look') {
          // Found dead: there is nobody, or the socket is gone.
          const isDead = current === undefined || !existsSync(current.socketPath)
          candidate.lastTerm = isDead ? current?.term ?? 0 : undefined
        } else if (does === 'freeze' && current !== undefined) {
          // The owner gives no sign of life, and is taken for dead.
          candidate.lastTerm = current.term
        } else if (does === 'claim' && candidate.lastTerm !== undefined && !candidate.isOwner) {
          candidate.claim(candidate.lastTerm)
          candidate.lastTerm = undefined
        } else if (does === 'die' && existsSync(candidate.socketPath)) {
          candidate.die()
          candidates[who] = new Candidate(directory)
        }
        assert.ok(candidates.filter(({ isOwner }) => isOwner).length <= 1)
      }
    }), { numRuns: 60 })
  })

  test('what others have left is tidied up, what is of use is not', (t) => {
    const directory = temporaryDirectory(t)
    const former = new Candidate(directory)
    const owner = new Candidate(directory)
    const fresh = new Candidate(directory)
    assert.ok(former.claim())
    const longAgo = new Date(Date.now() - 120_000)
    for (const name of ['4711.00000000.sock', 'key.0123', 'key', 'notes.txt']) {
      writeFileSync(join(directory, name), '')
      utimesSync(join(directory, name), longAgo, longAgo)
    }
    utimesSync(owner.socketPath, longAgo, longAgo)
    symlinkSync('x', join(directory, 'owner.x'))
    assert.ok(owner.claim())
    const left = [former, owner, fresh].map(({ socketPath }) => basename(socketPath))
    assert.deepEqual(readdirSync(directory).sort(), [...left, 'key', 'notes.txt', 'owner.2', 'owner.x'].sort())
  })

  test('the socket of an owner that was found dead is removed by its successor, that of a silent one is not', (t) => {
    const directory = temporaryDirectory(t)
    const [first, second, third] = Array.from({ length: 3 }, () => new Candidate(directory))
    assert.ok(first && second && third)
    assert.ok(first.claim())
    assert.ok(second.election.claim(1, second.socketPath) !== undefined)
    assert.ok(existsSync(first.socketPath))
    assert.ok(third.election.claim(2, third.socketPath, second.socketPath) !== undefined)
    const left = [first, third].map(({ socketPath }) => basename(socketPath))
    assert.deepEqual(socketsIn(directory), left.sort())
  })

  test('refresh: nothing of it looks forgotten to programs that clean up', (t) => {
    const directory = temporaryDirectory(t)
    groupKey(directory)
    const owner = new Candidate(directory)
    assert.ok(owner.claim() && owner.seat !== undefined)
    const longAgo = new Date(0)
    for (const name of readdirSync(directory)) {
      lutimesSync(join(directory, name), longAgo, longAgo)
    }
    assert.deepEqual(ages(directory), Array.from({ length: 3 }, () => longAgo.getTime()))
    owner.election.refresh(owner.seat)
    assert.ok(ages(directory).every((time) => time > Date.now() - 60_000))
  })

  test('who has tidied up between two looks does not make the second one fail', (t) => {
    const directory = temporaryDirectory(t)
    const owner = new Candidate(directory)
    assert.ok(owner.claim())
    const { readlinkSync } = fs
    t.mock.method(fs, 'readlinkSync', (path: string) => {
      // Another owner between the list of the directory and this.
      if (path.endsWith('owner.1')) new Candidate(directory).claim(1)
      return readlinkSync(path)
    })
    syncBuiltinESMExports()
    const { term } = owner.election.current() ?? {}
    t.mock.restoreAll()
    syncBuiltinESMExports()
    assert.equal(term, 2)

    assert.throws(() => new Election(join(directory, 'gone')).current(), { code: 'ENOENT' })
    writeFileSync(join(directory, 'owner.7'), 'no link')
    assert.throws(() => owner.election.current(), { code: 'EINVAL' })
  })
})

function ages (directory: string): number[] {
  return readdirSync(directory).map((name) => lstatSync(join(directory, name)).mtimeMs)
}

/** A way to an owner that answers when the test says so. */
class ScriptedRoute implements Route {
  readonly sent: { task: Task, timeoutMs: number }[] = []
  readonly cancelled: number[] = []
  failure: Error | undefined

  send (task: Task, timeoutMs: number): void {
    if (this.failure !== undefined) throw this.failure
    this.sent.push({ task, timeoutMs })
  }

  cancel (task: Task): void {
    this.cancelled.push(task.id)
  }

  get ids (): number[] {
    return this.sent.map(({ task }) => task.id)
  }
}

const patience = { timeoutMs: 60_000, signal: undefined }
const publishOf = (qos: 0 | 1 | 2, text = 'x') =>
  ({ topic: 't', payload: Buffer.from(text), qos, retain: false, properties: undefined })
const nothing = { data: null, bytes: Buffer.alloc(0) }

describe('relay', () => {
  function relayWith (owner: Owner, limits: { maxMessages?: number, maxBytes?: number } = {}) {
    const relay = new Relay({ maxMessages: 1_000, maxBytes: 1_000_000, ...limits })
    onEnd(owner, () => relay.close())
    const route = new ScriptedRoute()
    return { relay, route }
  }

  test('what is asked goes to the owner, and settles as it answers', async (t) => {
    const { relay, route } = relayWith(t)
    relay.attach(route)
    const done = relay.publish(publishOf(1), patience)
    const failed = relay.publish(publishOf(0), patience)
    const reply = relay.call('ask', nothing, patience)
    assert.deepEqual(route.sent.map(({ timeoutMs }) => timeoutMs), [60_000, 60_000, 60_000])
    const [first = 0, second = 0, third = 0] = route.ids
    relay.answer(third, { type: 'reply', parcel: { data: 1, bytes: Buffer.from('b') } })
    relay.answer(second, { type: 'failed', error: new errors.FST_MQTT_OFFLINE('x') })
    relay.answer(first, { type: 'done' })
    relay.answer(first, { type: 'done' })
    assert.equal(await done, undefined)
    await assert.rejects(failed, { code: 'FST_MQTT_OFFLINE' })
    assert.deepEqual(await reply, { data: 1, bytes: Buffer.from('b') })
  })

  test('without an owner QoS 1 and 2 and calls wait, in order, and QoS 0 is offline', async (t) => {
    const { relay, route } = relayWith(t)
    const waiting = [relay.publish(publishOf(1), patience), relay.call('a', nothing, patience), relay.publish(publishOf(2), patience)]
    await assert.rejects(relay.publish(publishOf(0), patience), {
      code: 'FST_MQTT_OFFLINE', message: 'Not connected to the owner of the group: the message was not sent'
    })
    relay.attach(route)
    assert.deepEqual(route.sent.map(({ task }) => task.operation.type), ['publish', 'call', 'publish'])
    assert.ok(route.sent.every(({ timeoutMs }) => timeoutMs > 50_000 && timeoutMs <= 60_000))
    for (const id of route.ids) relay.answer(id, { type: 'done' })
    await Promise.all(waiting)
  })

  test('when the owner dies QoS 1 goes to the next one, of all else nobody knows', async (t) => {
    const { relay, route } = relayWith(t)
    relay.attach(route)
    const first = relay.publish(publishOf(1, '1'), patience)
    const others = [relay.publish(publishOf(0), patience), relay.publish(publishOf(2), patience), relay.call('a', nothing, patience)]
    const second = relay.publish(publishOf(1, '2'), patience)
    relay.detach()
    for (const other of others) await assert.rejects(other, { code: 'FST_MQTT_DELIVERY_UNKNOWN' })
    const third = relay.publish(publishOf(1, '3'), patience)
    const next = new ScriptedRoute()
    relay.attach(next)
    const texts = next.sent.map(({ task: { operation } }) => operation.type === 'publish' && operation.publish.payload.toString())
    assert.deepEqual(texts, ['1', '2', '3'])
    for (const id of next.ids) relay.answer(id, { type: 'done' })
    await Promise.all([first, second, third])
  })

  test('an owner that leaves gets nothing more; what it declines goes to the next one', async (t) => {
    const { relay, route } = relayWith(t)
    relay.attach(route)
    const all = [relay.publish(publishOf(1), patience), relay.publish(publishOf(2), patience), relay.call('a', nothing, patience)]
    const unsent = relay.publish(publishOf(0), patience)
    for (const id of route.ids) relay.answer(id, { type: 'declined' })
    await assert.rejects(unsent, { code: 'FST_MQTT_OFFLINE' })
    relay.hold()
    all.push(relay.publish(publishOf(1), patience))
    await assert.rejects(relay.publish(publishOf(0), patience), { code: 'FST_MQTT_OFFLINE' })
    assert.equal(route.sent.length, 4)
    relay.detach()
    const next = new ScriptedRoute()
    relay.attach(next)
    assert.equal(next.sent.length, 4)
    for (const id of next.ids) relay.answer(id, { type: 'done' })
    await Promise.all(all)
  })

  test('each has its own time, and the owner is told when nobody waits any more', async (t) => {
    const { relay, route } = relayWith(t)
    relay.attach(route)
    const order: number[] = []
    const times = [90, 30, 60].map(async (timeoutMs) => {
      await assert.rejects(relay.publish(publishOf(1), { timeoutMs, signal: undefined }), {
        code: 'FST_MQTT_PUBLISH_TIMEOUT', message: `The broker did not acknowledge the message within ${timeoutMs} ms`
      })
      order.push(timeoutMs)
    })
    const lasting = relay.publish(publishOf(1), patience)
    await Promise.all(times)
    assert.deepEqual(order, [30, 60, 90])
    const [first, second, third, fourth = 0] = route.ids
    assert.deepEqual(route.cancelled, [second, third, first])
    relay.answer(fourth, { type: 'done' })
    await lasting
    relay.detach()
    await assert.rejects(relay.publish(publishOf(1), { timeoutMs: 10, signal: undefined }), { code: 'FST_MQTT_PUBLISH_TIMEOUT' })
    assert.equal(route.cancelled.length, 3)
    relay.close()
  })

  test('a signal ends the wait, before it begins and later', async (t) => {
    const { relay, route } = relayWith(t)
    relay.attach(route)
    const controller = new AbortController()
    const options = { timeoutMs: 60_000, signal: controller.signal }
    const publish = relay.publish(publishOf(1), options)
    const settled = relay.publish(publishOf(1), options)
    const [first, second = 0] = route.ids
    relay.answer(second, { type: 'done' })
    await settled
    const reason = new Error('enough')
    controller.abort(reason)
    await assert.rejects(publish, { code: 'FST_MQTT_ABORTED', cause: reason })
    await assert.rejects(relay.call('a', nothing, options), { code: 'FST_MQTT_ABORTED', cause: reason })
    assert.deepEqual(route.cancelled, [first])
  })

  test('one signal for many is no leak, and ends all that wait', async (t) => {
    const { relay, route } = relayWith(t)
    relay.attach(route)
    const warnings = t.mock.method(process, 'emitWarning', () => {})
    const controller = new AbortController()
    const options = { timeoutMs: 60_000, signal: controller.signal }
    const publishes = Array.from({ length: 30 }, async () => await relay.publish(publishOf(1), options))
    for (const id of route.ids.slice(20)) relay.answer(id, { type: 'done' })
    await Promise.all(publishes.slice(20))
    controller.abort()
    for (const publish of publishes.slice(0, 20)) await assert.rejects(publish, { code: 'FST_MQTT_ABORTED' })
    assert.equal(route.cancelled.length, 20)
    assert.equal(warnings.mock.callCount(), 0)
  })

  test('no more than maxMessages and maxBytes wait', async (t) => {
    const few = relayWith(t, { maxMessages: 2 })
    few.relay.attach(few.route)
    const two = [few.relay.publish(publishOf(1), patience), few.relay.publish(publishOf(0), patience)]
    await assert.rejects(few.relay.publish(publishOf(1), patience), {
      code: 'FST_MQTT_OUTBOX_FULL', message: 'No more can wait to be sent: 2 messages wait already, which is the most'
    })
    for (const id of few.route.ids) few.relay.answer(id, { type: 'done' })
    await Promise.all(two)
    const small = relayWith(t, { maxBytes: 1_000 })
    const waiting = small.relay.publish(publishOf(1, 'x'.repeat(800)), patience)
    await assert.rejects(small.relay.publish(publishOf(1, 'x'.repeat(200)), patience), {
      code: 'FST_MQTT_OUTBOX_FULL', message: /1130 bytes would wait, the most is 1000/
    })
    small.relay.attach(small.route)
    small.relay.answer(1, { type: 'done' })
    await waiting
    const next = small.relay.publish(publishOf(1, 'x'.repeat(800)), patience)
    small.relay.answer(2, { type: 'done' })
    await next
  })

  test('what cannot be sent is rejected, and does not hold up the others', async (t) => {
    const { relay, route } = relayWith(t)
    const bad = relay.call('a', nothing, patience)
    route.failure = new TypeError('a BigInt')
    relay.attach(route)
    await assert.rejects(bad, TypeError)
    route.failure = undefined
    const good = relay.call('a', nothing, patience)
    relay.answer(2, { type: 'reply', parcel: nothing })
    await good
  })

  test('flush waits until all are settled, or its time is over; close settles the rest', async (t) => {
    const { relay, route } = relayWith(t)
    relay.attach(route)
    await relay.flush(60_000)
    const publish = relay.publish(publishOf(1), patience)
    await relay.flush(10)
    const flushed = relay.flush(60_000)
    relay.answer(1, { type: 'done' })
    await Promise.all([publish, flushed])
    const last = relay.publish(publishOf(1), patience)
    relay.close()
    await assert.rejects(last, { code: 'FST_MQTT_CLOSED' })
    await assert.rejects(relay.publish(publishOf(1), patience), { code: 'FST_MQTT_CLOSED' })
  })
})

/** An engine that tells what it is told, and whose broker is the test. */
class FakeEngine implements GroupHooks {
  readonly name: string
  readonly told = new Mailbox<string>()
  readonly troubles = new Mailbox<Error>()
  readonly roles: (Role | undefined)[] = []
  readonly published: string[] = []
  readonly contentTypes: (string | undefined)[] = []
  readonly signals: (AbortSignal | undefined)[] = []
  /** What the broker answers. */
  answer: () => Promise<void> = async () => {}
  onResign: () => Promise<void> = async () => {}
  status = 'ready'
  group: Group | undefined

  constructor (name: string) {
    this.name = name
  }

  becomeOwner (): void {
    this.told.put('becomeOwner')
  }

  async resign (reason: string): Promise<void> {
    this.told.put(`resign ${reason}`)
    await this.onResign()
  }

  state (): unknown {
    return { from: this.name, status: this.status }
  }

  onRole (role: Role | undefined): void {
    this.roles.push(role)
    this.told.put(`role ${role}`)
  }

  onState (state: unknown): void {
    this.told.put(`state ${JSON.stringify(state)}`)
  }

  onTrouble (error: Error): void {
    this.troubles.put(error)
  }

  async publish ({ payload, contentType }: ForwardedPublish, { signal }: Patience): Promise<void> {
    this.published.push(payload.toString())
    this.contentTypes.push(contentType)
    this.signals.push(signal)
    await this.answer()
  }

  async call (name: string, { data, bytes }: Parcel): Promise<Parcel> {
    if (name === 'fail') throw new errors.FST_MQTT_OFFLINE('x')
    return { data: { by: this.name, name, data }, bytes }
  }

  async hears (what: string): Promise<void> {
    await this.told.take((told) => told === what, what)
  }
}

interface Participant {
  readonly group: Group
  readonly engine: FakeEngine
}

const groupSettings = {
  group: 'test',
  identity: ['mqtt://127.0.0.1'],
  heartbeatMs: 50,
  ownerTimeoutMs: 2_000,
  drainTimeoutMs: 500,
  maxMessages: 1_000,
  maxBytes: 1_000_000
}

function joins (owner: Owner, dir: string, settings: Partial<GroupSettings> = {}): Participant {
  const engine = new FakeEngine(`process ${++participants}`)
  const group = joinGroup({ ...groupSettings, dir, ...settings }, engine)
  onEnd(owner, async () => await within(group.close(), ceilingMs, 'close'))
  return { group, engine }
}

let participants = 0

/** Two of a group, the owner first. */
async function inOrder (first: Participant, second: Participant): Promise<[Participant, Participant]> {
  while (first.group.role !== 'owner' && second.group.role !== 'owner') await new Promise(setImmediate)
  return first.group.role === 'owner' ? [first, second] : [second, first]
}

/** Some processes of one group, the owner first. */
async function groupOf (owner: Owner, size: number, settings: Partial<GroupSettings> = {}) {
  const dir = temporaryDirectory(owner)
  const all: Participant[] = []
  for (let index = 0; index < size; index++) {
    all.push(joins(owner, dir, settings))
    await within(Promise.all(all.map(({ group }) => group.joined())), ceilingMs, 'roles')
  }
  return { dir, directory: join(dir, readdirSync(dir)[0] ?? ''), all }
}

const socketsIn = (directory: string) => readdirSync(directory).filter((name) => name.endsWith('.sock')).sort()

/** A socket on which the owner of the first term listens, or something that pretends to be it. */
async function impostor (owner: Owner, onConnection: (socket: Socket, key: Buffer) => void) {
  const dir = temporaryDirectory(owner)
  const directory = directoryOf({ ...groupSettings, dir })
  ensureDirectory(directory)
  const key = groupKey(directory)
  const path = join(directory, socketName())
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}))
    onConnection(socket, key)
  })
  server.listen(path)
  await once(server, 'listening')
  symlinkSync(basename(path), join(directory, 'owner.1'))
  const close = () => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  onEnd(owner, close)
  return { dir, directory, close }
}

// Mostly they wait, and they change nothing that others see.
describe('group: what takes its time', { concurrency: true }, () => {
  test('an owner that accepts, but says nothing, is replaced', async (t) => {
    const { dir } = await impostor(t, () => {})
    const { group } = joins(t, dir, { ownerTimeoutMs: 200 })
    assert.equal(await within(group.joined(), ceilingMs, 'role'), 'owner')
  })

  test('an owner that says nothing any more is replaced, and what it has not answered is sent again', async (t) => {
    const { dir } = await impostor(t, (socket, key) => {
      const channel = new Channel(socket, { side: 'owner', key, heartbeatMs: 50, silenceMs: 60_000 }, {
        onOpen: () => channel.send({ type: 'state', state: null }),
        // As if its process were stopped.
        onFrame: () => t.mock.method(socket, 'write', () => true),
        onEnd: () => {}
      })
    })
    const { group, engine } = joins(t, dir, { ownerTimeoutMs: 200 })
    assert.equal(await within(group.joined(), ceilingMs, 'role'), 'member')
    await within(group.publish(publishOf(1, 'again'), patience), ceilingMs, 'delivery')
    assert.deepEqual(engine.roles, ['member', undefined, 'owner'])
    assert.deepEqual(engine.published, ['again'])
  })

  test('an owner of another version is told of once, and replaced when it has gone', async (t) => {
    const greeting = written([{ type: 'hello', version: 9, heartbeatMs: 50, nonce: Buffer.alloc(nonceBytes) }])
    const { dir, close } = await impostor(t, (socket) => socket.write(greeting))
    const { group, engine } = joins(t, dir)
    const trouble = await engine.troubles.take(any, 'trouble')
    assert.ok(trouble instanceof errors.FST_MQTT_PEER_VERSION)
    assert.equal(group.trouble, trouble)
    const publish = group.publish(publishOf(1, 'waits'), patience)
    await assert.rejects(engine.troubles.take(any, 'second trouble', 1_500))
    close()
    await within(publish, ceilingMs, 'delivery')
    assert.equal(group.role, 'owner')
    assert.equal(group.trouble, undefined)
  })

  test('an owner that makes no sense is told of, and tried again', async (t) => {
    const connections = new Mailbox<true>()
    const { dir, close } = await impostor(t, (socket, key) => {
      connections.put(true)
      const channel = new Channel(socket, { side: 'owner', key, heartbeatMs: 50, silenceMs: 60_000 }, {
        onOpen: () => channel.send({ type: 'cancel', id: 1 }), onFrame: () => {}, onEnd: () => {}
      })
    })
    const { group, engine } = joins(t, dir)
    const { message } = await engine.troubles.take(any, 'trouble')
    assert.match(message, /'cancel' was not expected/)
    await connections.take(any, 'connection')
    await connections.take(any, 'second connection')
    close()
    assert.equal(await within(group.joined(), ceilingMs, 'role'), 'owner')
  })

  test('an owner that takes a member in and throws it out again is not asked without a pause', async (t) => {
    const connections = new Mailbox<true>()
    let count = 0
    const { dir, close } = await impostor(t, (socket, key) => {
      count++
      connections.put(true)
      const channel = new Channel(socket, { side: 'owner', key, heartbeatMs: 50, silenceMs: 60_000 }, {
        onOpen: () => channel.send({ type: 'state', state: null }), onFrame: () => socket.destroy(), onEnd: () => {}
      })
    })
    const { group } = joins(t, dir)
    const publish = group.publish(publishOf(1, 'poison to that one'), patience)
    for (let times = 0; times < 6; times++) await connections.take(any, 'connection')
    const since = performance.now()
    for (let times = 0; times < 2; times++) await connections.take(any, 'connection')
    assert.ok(performance.now() - since > 500, `${count} connections, two of them within ${performance.now() - since} ms`)
    close()
    await within(publish, ceilingMs, 'delivery')
  })

  test('close: an engine that fails to let go, or never does, holds nothing up', async (t) => {
    const { directory, all: [owner, next, last] } = await groupOf(t, 3, { drainTimeoutMs: 20 })
    assert.ok(owner && next && last)
    owner.engine.onResign = async () => { throw new Error('no') }
    await within(owner.group.close(), ceilingMs, 'close')
    assert.match((await owner.engine.troubles.take(any, 'trouble')).message, /no/)
    const [second, third] = await inOrder(next, last)
    second.engine.onResign = async () => await new Promise<void>(() => {})
    await within(second.group.close(), ceilingMs, 'close')
    await within(third.group.publish(publishOf(1), patience), ceilingMs, 'delivery')
    await third.group.close()
    assert.deepEqual(socketsIn(directory), [])
  })

  test('close: at once while there is no owner, and nobody becomes one then', async (t) => {
    const { dir, directory } = await impostor(t, () => {})
    const { group, engine } = joins(t, dir)
    const publish = group.publish(publishOf(1), { timeoutMs: 60_000, signal: undefined })
    const joined = group.joined()
    await within(Promise.all([
      group.close(), assert.rejects(publish, { code: 'FST_MQTT_CLOSED' }), assert.rejects(joined, { code: 'FST_MQTT_CLOSED' })
    ]), ceilingMs, 'close')
    assert.deepEqual(engine.roles, [])
    const empty = temporaryDirectory(t)
    const second = joins(t, empty)
    await within(second.group.close(), ceilingMs, 'close')
    assert.deepEqual(second.engine.roles, [])
    assert.deepEqual(socketsIn(directoryOf({ ...groupSettings, dir: empty })), [])
    assert.equal(socketsIn(directory).length, 1)
  })

  test('close: while it waits after a failure', async (t) => {
    const { dir } = await impostor(t, (socket) => socket.write('no greeting at all'))
    const { group, engine } = joins(t, dir)
    await engine.troubles.take(any, 'trouble')
    const begin = performance.now()
    await group.close()
    assert.ok(performance.now() - begin < 500)
  })
})

describe('group', () => {
  test('the first becomes the owner and connects, the others are members and see its state', async (t) => {
    const { all: [first, second, third] } = await groupOf(t, 3)
    assert.ok(first && second && third)
    assert.deepEqual([first, second, third].map(({ group }) => group.role), ['owner', 'member', 'member'])
    await first.engine.hears('becomeOwner')
    assert.deepEqual(second.group.state, { from: first.engine.name, status: 'ready' })
    assert.deepEqual(first.group.state, second.group.state)
    assert.equal(first.group.clientId, second.group.clientId)
    assert.match(first.group.clientId, /^test-[0-9a-f]{8}$/)
    first.engine.status = 'offline'
    first.group.stateChanged()
    first.group.stateChanged()
    await third.engine.hears(`state ${JSON.stringify({ from: first.engine.name, status: 'offline' })}`)
    first.engine.status = 'ready'
    // Without a word from the engine: with the next sign of life.
    await third.engine.hears(`state ${JSON.stringify({ from: first.engine.name, status: 'ready' })}`)
    second.group.stateChanged()
    assert.ok(first.group.holdsOwnership() && !second.group.holdsOwnership())
  })

  for (const stale of [false, true]) {
    test(`of eight that start at once ${stale ? 'on a stale link ' : ''}exactly one is the owner`, async (t) => {
      const dir = temporaryDirectory(t)
      if (stale) {
        const former = joins(t, dir)
        await former.group.joined()
        await former.group.close()
      }
      const all = Array.from({ length: 8 }, () => joins(t, dir))
      await Promise.all(all.map(({ group }) => within(group.joined(), ceilingMs, 'role')))
      assert.equal(all.filter(({ group }) => group.role === 'owner').length, 1)
      assert.ok(all.every(({ engine }) => engine.roles.length === 1), 'nobody has changed its role')
    })
  }

  test('what a member publishes is published by the owner, whose answer it gets', async (t) => {
    const { all: [owner, member] } = await groupOf(t, 2)
    assert.ok(owner && member)
    await member.group.publish(publishOf(1, 'a'), patience)
    await owner.group.publish(publishOf(0, 'b'), patience)
    assert.deepEqual(owner.engine.published, ['a', 'b'])
    assert.deepEqual(owner.engine.signals, [undefined, undefined])
    owner.engine.answer = async () => { throw new errors.FST_MQTT_PUBLISH_REFUSED('t', 'not authorized') }
    for (const { group } of [owner, member]) {
      await assert.rejects(group.publish(publishOf(1), patience), (error: Error) => {
        assert.ok(error instanceof errors.FST_MQTT_PUBLISH_REFUSED)
        return error.message === "The broker refused the message to 't': not authorized"
      })
    }
  })

  test('calls are answered by the owner, in every process', async (t) => {
    const { all: [owner, member] } = await groupOf(t, 2)
    assert.ok(owner && member)
    const parcel = { data: { a: [1] }, bytes: Buffer.from('b') }
    for (const { group } of [owner, member]) {
      assert.deepEqual(await group.call('dynsec', parcel, patience), {
        data: { by: owner.engine.name, name: 'dynsec', data: { a: [1] } }, bytes: Buffer.from('b')
      })
      await assert.rejects(group.call('fail', parcel, patience), { code: 'FST_MQTT_OFFLINE' })
    }
    t.mock.method(owner.engine, 'call', async () => ({ data: 1n, bytes: parcel.bytes }))
    await assert.rejects(member.group.call('a', parcel, patience), /BigInt/)
  })

  test('a signal in a member is a signal in the owner', async (t) => {
    const { all: [owner, member] } = await groupOf(t, 2)
    assert.ok(owner && member)
    const [began, aborted] = [deferred<void>(), deferred<void>()]
    owner.engine.answer = async () => {
      began.resolve()
      await new Promise<void>(() => owner.engine.signals[0]?.addEventListener('abort', () => aborted.resolve()))
    }
    const controller = new AbortController()
    const publish = member.group.publish(publishOf(1), { timeoutMs: 60_000, signal: controller.signal })
    await within(began.promise, ceilingMs, 'publish')
    controller.abort()
    await assert.rejects(publish, { code: 'FST_MQTT_ABORTED' })
    await within(aborted.promise, ceilingMs, 'abort')
  })

  test('when the owner closes another takes over, and what was published meanwhile is delivered', async (t) => {
    const { directory, all: [owner, ...members] } = await groupOf(t, 3)
    const [member, other] = members
    assert.ok(owner && member && other)
    const release = deferred<void>()
    owner.engine.onResign = async () => await release.promise
    const closing = owner.group.close()
    await owner.engine.hears('resign closing')
    assert.equal(owner.group.holdsOwnership(), true)
    // The members have been told, and wait for the next owner.
    const waiting = member.group.publish(publishOf(1, 'meanwhile'), patience)
    await assert.rejects(async () => {
      for (;;) await member.group.publish(publishOf(0), patience)
    }, { code: 'FST_MQTT_OFFLINE' })
    release.resolve()
    await within(closing, ceilingMs, 'close')
    await within(waiting, ceilingMs, 'delivery')
    const [next] = members.filter(({ group }) => group.role === 'owner')
    assert.ok(next?.engine.published.includes('meanwhile'))
    assert.equal(owner.group.role, undefined)
    assert.equal(socketsIn(directory).length, 1)
  })

  test('what the end of the owner cuts off goes to the next one; what the broker refuses does not', async (t) => {
    const { all: [owner, member] } = await groupOf(t, 2)
    assert.ok(owner && member)
    const [cut, refuse] = [deferred<void>(), deferred<void>()]
    owner.engine.answer = async () => await (owner.engine.published.length === 1 ? cut : refuse).promise
    const first = member.group.publish(publishOf(1, 'cut off'), patience)
    const second = member.group.publish(publishOf(1, 'refused'), patience)
    owner.engine.onResign = async () => {
      refuse.reject(new errors.FST_MQTT_PUBLISH_REFUSED('t', 'quota exceeded'))
      cut.reject(new errors.FST_MQTT_CLOSED('x'))
    }
    while (owner.engine.published.length < 2) await new Promise(setImmediate)
    const refusal = assert.rejects(second, { code: 'FST_MQTT_PUBLISH_REFUSED' })
    await owner.group.close()
    await refusal
    await within(first, ceilingMs, 'delivery')
    assert.deepEqual(member.engine.published, ['cut off'])
  })

  test('a member that joins while the owner leaves waits for the next one', async (t) => {
    const { dir, all: [owner] } = await groupOf(t, 1)
    assert.ok(owner)
    const release = deferred<void>()
    owner.engine.onResign = async () => await release.promise
    const closing = owner.group.close()
    const member = joins(t, dir)
    assert.equal(await member.group.joined(), 'member')
    const publish = member.group.publish(publishOf(1, 'late'), patience)
    await new Promise(setImmediate)
    release.resolve()
    await Promise.all([closing, publish])
    assert.deepEqual([owner.engine.published, member.engine.published], [[], ['late']])
  })

  test('an owner whose seat was taken steps down, and its publishes go by the new one', async (t) => {
    const slow = { heartbeatMs: 10_000, ownerTimeoutMs: 60_000 }
    const { directory, all: [owner, member] } = await groupOf(t, 2, slow)
    assert.ok(owner && member)
    const [never, done] = [deferred<void>(), deferred<void>()]
    owner.engine.answer = async () => await never.promise
    const twice = owner.group.publish({ ...publishOf(1, 'again'), contentType: 'a/b' }, patience)
    const later = owner.group.publish(publishOf(1, 'answered'), patience)
    const unknown = owner.group.publish(publishOf(2), patience)
    const call = t.mock.method(owner.engine, 'call', async () => {
      await done.promise
      return nothing
    })
    const called = owner.group.call('a', nothing, patience)
    owner.engine.onResign = async () => never.reject(new Error('disconnected'))
    // Somebody takes it over, and dies before he has done anything.
    symlinkSync('1.00000000.sock', join(directory, 'owner.2'))
    assert.equal(owner.group.holdsOwnership(), false)
    assert.equal(owner.group.holdsOwnership(), false)
    await owner.engine.hears('resign lost')
    owner.engine.answer = async () => {}
    await assert.rejects(unknown, { code: 'FST_MQTT_DELIVERY_UNKNOWN' })
    await assert.rejects(called, { code: 'FST_MQTT_DELIVERY_UNKNOWN' })
    done.resolve()
    assert.equal(call.mock.callCount(), 1)
    await within(Promise.all([twice, later]), ceilingMs, 'delivery')
    assert.deepEqual([owner.group.role, member.group.role].sort(), ['member', 'owner'])
    assert.equal(new Election(directory).current()?.term, 3)
    // As it was asked for, in whichever of the two it was done.
    const { engine } = owner.group.role === 'owner' ? owner : member
    assert.deepEqual(engine.contentTypes, [
      ...engine === owner.engine ? ['a/b', undefined, undefined] : [], 'a/b', undefined
    ])
  })

  test('an owner that dies while it is greeted is looked for again at once', async (t) => {
    let connections = 0
    const { dir, close } = await impostor(t, (socket) => {
      socket.destroy()
      if (++connections === 3) close()
    })
    const { group, engine } = joins(t, dir)
    assert.equal(await within(group.joined(), 1_000, 'role'), 'owner')
    assert.equal(connections, 3)
    await assert.rejects(engine.troubles.take(any, 'trouble', 10))
  })

  test('who says to the owner what makes no sense is cut off, and the others are not disturbed', async (t) => {
    const { directory, all: [owner, member] } = await groupOf(t, 2)
    assert.ok(owner && member)
    const path = new Election(directory).current()?.socketPath ?? ''
    const strangers = ['GET / HTTP/1.1\r\n\r\n', '\xff'.repeat(1_000)].map((words) => {
      const socket = connect(path)
      socket.on('error', () => {}).resume().write(words, 'latin1')
      return once(socket, 'close')
    })
    await within(Promise.all(strangers), ceilingMs, 'close')
    const { code } = await owner.engine.troubles.take(any, 'trouble') as Error & { code: string }
    assert.equal(code, 'FST_MQTT_PEER_REFUSED')
    const known = endOf(t, connect(path), { key: groupKey(directory) })
    await known.opened.take(any, 'opening')
    known.channel.send({ type: 'leaving' })
    assert.equal((await ended(known)).reason, 'closed')
    await member.group.publish(publishOf(1), patience)
    assert.deepEqual(member.engine.roles, ['member'])
  })

  test('an owner whose directory was removed goes on, and gives way to whoever makes a new one', async (t) => {
    const { dir, directory, all: [owner, member] } = await groupOf(t, 2)
    assert.ok(owner && member)
    rmSync(directory, { recursive: true })
    const { code } = await owner.engine.troubles.take(any, 'trouble') as Error & { code: string }
    assert.equal(code, 'FST_MQTT_GROUP_DIRECTORY')
    await member.group.publish(publishOf(1), patience)
    const third = joins(t, dir)
    assert.equal(await within(third.group.joined(), ceilingMs, 'role'), 'owner')
    await owner.engine.hears('resign lost')
    await owner.engine.hears('role member')
    await within(member.group.publish(publishOf(1, 'to the third'), patience), ceilingMs, 'delivery')
    assert.deepEqual(third.engine.published, ['to the third'])
  })

  test('a directory that is not ours alone is an error at once', (t) => {
    const dir = temporaryDirectory(t)
    mkdirSync(directoryOf({ ...groupSettings, dir }), { mode: 0o755 })
    assert.throws(() => joins(t, dir), directoryError(/its mode is 755/))
  })

  for (const [what, failing] of [['socket', 'chmodSync'], ['link', 'symlinkSync']] as const) {
    test(`a ${what} that cannot be made is told of, and tried again`, async (t) => {
      const failure = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
      const { directory, dir } = await impostor(t, (socket) => socket.destroy())
      rmSync(join(directory, 'owner.1'))
      t.mock.method(fs, failing, () => { throw failure })
      syncBuiltinESMExports()
      const { group, engine } = joins(t, dir)
      const trouble = await engine.troubles.take(any, 'trouble')
      t.mock.restoreAll()
      syncBuiltinESMExports()
      assert.equal((trouble as { code?: string }).code, 'FST_MQTT_GROUP_DIRECTORY')
      assert.equal(trouble.cause, failure)
      assert.equal(await within(group.joined(), ceilingMs, 'role'), 'owner')
      assert.equal(socketsIn(directory).length, 2)
    })
  }

  test('whatever the umask is, nobody else can open the directory, the socket or the key', async (t) => {
    const umask = process.umask(0)
    t.after(() => process.umask(umask))
    const { directory } = await groupOf(t, 1)
    const modes = [directory, ...[...socketsIn(directory), 'key'].map((name) => join(directory, name))]
      .map((path) => (statSync(path).mode & 0o777).toString(8))
    assert.deepEqual(modes, ['700', '600', '600'])
  })

  test('every hour the owner shows that its files are in use', async (t) => {
    const { directory, all: [owner] } = await groupOf(t, 1)
    assert.ok(owner)
    for (const name of readdirSync(directory)) lutimesSync(join(directory, name), 0, 0)
    const { now } = Date
    t.mock.method(Date, 'now', () => now() + 3_600_000)
    while (ages(directory).some((time) => time === 0)) await new Promise(setImmediate)
    rmSync(join(directory, 'key'))
    t.mock.method(Date, 'now', () => now() + 8_000_000)
    const { cause } = await owner.engine.troubles.take(any, 'trouble')
    assert.equal((cause as { code?: string }).code, 'ENOENT')
    assert.equal(owner.group.role, 'owner')
  })

  test('an owner that is out of file handles says so, and goes on', async (t) => {
    const servers: Server[] = []
    const { createServer } = net
    const create = t.mock.method(net, 'createServer', () => {
      servers.push(createServer())
      return servers.at(-1)
    })
    syncBuiltinESMExports()
    const { all: [owner, member] } = await groupOf(t, 2)
    create.mock.restore()
    syncBuiltinESMExports()
    assert.ok(owner && member)
    // As from the system, which refuses to accept a connection: each time that one comes.
    const refusal = Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' })
    for (let times = 0; times < 3; times++) servers[0]?.emit('error', refusal)
    const trouble = await owner.engine.troubles.take(any, 'trouble')
    assert.deepEqual([trouble.cause, /EMFILE\. Too many files are open/.test(trouble.message)], [refusal, true])
    await assert.rejects(owner.engine.troubles.take(any, 'second trouble', 10))
    await member.group.publish(publishOf(1, 'later'), patience)
    assert.deepEqual(owner.engine.published, ['later'])
  })

  test('close: an owner that is about to leave does not step down as well', async (t) => {
    const { directory, all: [owner] } = await groupOf(t, 1)
    assert.ok(owner)
    owner.engine.onResign = async () => {
      symlinkSync('1.00000000.sock', join(directory, 'owner.2'))
      assert.equal(owner.group.holdsOwnership(), false)
    }
    await within(owner.group.close(), ceilingMs, 'close')
    await owner.engine.hears('resign closing')
    await assert.rejects(owner.engine.told.take((told) => told.startsWith('resign'), 'second resign', 10))
  })

  test('close: a member waits for the answers, at most drainTimeout, and every promise settles', async (t) => {
    const { all: [owner, member] } = await groupOf(t, 2, { drainTimeoutMs: 2_000 })
    assert.ok(owner && member)
    const release = deferred<void>()
    owner.engine.answer = async () => await release.promise
    const publish = member.group.publish(publishOf(1), patience)
    while (owner.engine.published.length < 1) await new Promise(setImmediate)
    const closing = member.group.close()
    release.resolve()
    await Promise.all([publish, closing, member.group.close()])
    await assert.rejects(member.group.publish(publishOf(1), patience), { code: 'FST_MQTT_CLOSED' })
    await assert.rejects(member.group.joined(), { code: 'FST_MQTT_CLOSED' })
    assert.equal(owner.group.role, 'owner')
  })
})

describe('workers', () => {
  const alone = { isClusterWorker: false, isMainThread: true, env: {}, platformatic: undefined }
  const pm2 = { NODE_APP_INSTANCE: '0', pm_id: '3', exec_mode: 'fork_mode', instances: '1' }
  const cases: [string, Partial<Hints>, string | undefined][] = [
    ['a process on its own', {}, undefined],
    ['node:cluster', { isClusterWorker: true }, 'a worker of node:cluster'],
    ['a worker thread', { isMainThread: false }, 'a worker thread'],
    ['Watt', { isMainThread: false, platformatic: { workerId: 0 } }, 'a worker of Watt'],
    ['Watt with one worker', { isMainThread: false, platformatic: {} }, 'a worker thread'],
    ['PM2 with one process', { env: pm2 }, undefined],
    ['PM2, the first of two in fork mode', { env: { ...pm2, instances: '2' } }, 'instance 0 of PM2'],
    ['PM2, another one in fork mode', { env: { ...pm2, NODE_APP_INSTANCE: '1' } }, 'instance 1 of PM2'],
    ['PM2 in cluster mode', { isClusterWorker: true, env: { ...pm2, exec_mode: 'cluster_mode' } }, 'instance 0 of PM2'],
    ['PM2 without an instance variable', { env: { pm_id: '3' } }, 'instance 3 of PM2']
  ]
  for (const [what, hints, hint] of cases) {
    test(`${what}: ${hint ?? 'nothing to warn of'}`, () => {
      assert.equal(workerHint({ ...alone, ...hints }), hint)
    })
  }

  test('this process is looked at by default', () => {
    const platformatic = globalThis as { platformatic?: unknown }
    platformatic.platformatic = { workerId: 1 }
    assert.equal(workerHint(), 'a worker of Watt')
    delete platformatic.platformatic
  })

  test('the warning says what happens and what to do, and names a fixed client id', () => {
    assert.equal(workersWarning('a worker thread', undefined),
      'this process is a worker thread, so there may be several workers: each of them has a connection of its ' +
      "own, and handles every message. Set processes: { mode: 'single', group: '…' } to share one connection, " +
      "or processes: 'each' to mean this")
    assert.match(workersWarning('a worker thread', 'gateway'), /all of them connect as 'gateway', .* cut each other off/)
  })
})

describe('the option processes', () => {
  const resolve = (given: unknown) => resolveProcesses(given as Parameters<typeof resolveProcesses>[0])

  test("it is 'each', or a group with defaults for all else", () => {
    assert.deepEqual([resolve(undefined), resolve('each')], [{ mode: 'each' }, { mode: 'each' }])
    assert.deepEqual(resolve({ mode: 'single', group: 'orders' }), {
      mode: 'single', group: 'orders', dir: undefined, heartbeatMs: 500, ownerTimeoutMs: 5_000
    })
    const given = { mode: 'single', group: 'a.B_c-9', handle: 'owner', dir: '/run/app', heartbeat: 250, ownerTimeout: 1_500 }
    assert.deepEqual(resolve(given), {
      mode: 'single', group: 'a.B_c-9', dir: '/run/app', heartbeatMs: 250, ownerTimeoutMs: 1_500
    })
    const nothing = { handle: undefined, dir: undefined, heartbeat: undefined, ownerTimeout: undefined }
    assert.deepEqual(resolve({ mode: 'single', group: 'a', ...nothing }), resolve({ mode: 'single', group: 'a' }))
  })

  const group = 'expected the name that all processes which share the connection have in common'
  const cases: [unknown, string][] = [
    ['single', "'processes': expected 'each' or an object with mode and group, not 'single'"],
    [null, "'processes': expected 'each' or an object with mode and group, not null"],
    [{ mode: 'single' }, `'processes.group': ${group}`],
    [{ mode: 'single', group: '' }, `'processes.group': ${group}`],
    [{ mode: 'single', group: 'a/b' }, `'processes.group': ${group}`],
    [{ mode: 'single', group: 'a'.repeat(65) }, `'processes.group': ${group}`],
    [{ group: 'a' }, "'processes.mode': expected 'single', not undefined"],
    [{ mode: 'shared', group: 'a' }, "'processes.mode': expected 'single', not 'shared'"],
    [{ mode: 'single', group: 'a', handle: 'spread' }, "'processes.handle': expected 'owner', not 'spread'"],
    [{ mode: 'single', group: 'a', dir: '' }, "'processes.dir': expected the path of a directory, not ''"],
    [{ mode: 'single', group: 'a', heartbeat: 5 }, "'processes.heartbeat': expected a whole number of milliseconds"],
    [{ mode: 'single', group: 'a', ownerTimeout: 1.5 }, "'processes.ownerTimeout': expected a whole number"],
    [{ mode: 'single', group: 'a', ownerTimeout: 1_499 },
      "'processes.ownerTimeout': it has to be at least three heartbeats, 1500 ms, not 1499"],
    [{ mode: 'single', group: 'a', election: 'broker' },
      "'processes.election': there is no such option, there are mode, group, handle, dir, heartbeat, ownerTimeout"]
  ]
  for (const [given, message] of cases) {
    test(`${JSON.stringify(given)} is refused: ${message.slice(0, 60)}`, () => {
      assert.throws(() => resolve(given), (error: Error & { code?: string }) =>
        error.code === 'FST_MQTT_OPTIONS_INVALID' && error.message.startsWith(`Invalid option ${message}`))
    })
  }

  test('a group has a session that the broker keeps', () => {
    assert.deepEqual([groupSessionExpiry(undefined), groupSessionExpiry(60)], [3_600, 60])
    assert.throws(() => groupSessionExpiry(0), {
      code: 'FST_MQTT_OPTIONS_INVALID', message: /^Invalid option 'session.expiry': with processes: .* it cannot be 0: /
    })
  })
})
