// What the engine relies on in MQTT.js, all of it public. A new version on which one of these fails breaks
// the seam (lib/wire/wire.ts, lib/session/connection.ts): it must not be accepted before the seam fits it.
// MULTIMQTT_MQTTJS=<package, or folder with node_modules> node --test build/test/mqttjs-contract.test.js
import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import { suite, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { IClientOptions, MqttClient, StreamBuilder } from 'mqtt'
import { generate, parser, type Packet } from 'mqtt-packet'
import { LowIds } from '../lib/wire/ids.ts'
import { ownPackets } from '../lib/wire/own-packets.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { loadMqttJs } from './helpers/mqttjs.ts'

const mqttjs = await loadMqttJs()

/** What MQTT.js gets for a connection: notes each write, and answers what the test says. */
class Stream extends Duplex {
  /** The chunks of each write. */
  readonly writes: Buffer[][] = []
  isEnded = false

  constructor () {
    super({ autoDestroy: false })
  }

  get sent (): Packet[] {
    const packets: Packet[] = []
    const other = parser({ protocolVersion: 5 })
    other.on('packet', (packet) => packets.push(packet))
    other.on('error', (error) => assert.fail(error))
    assert.equal(other.parse(Buffer.concat(this.writes.flat())), 0)
    return packets
  }

  answer (packet: object, protocolVersion = 5): void {
    this.push(generate(packet as Packet, { protocolVersion }))
  }

  override _read (): void {}

  override _write (chunk: Buffer, _encoding: string, done: () => void): void {
    this.writes.push([chunk])
    done()
  }

  override _writev (chunks: { chunk: Buffer }[], done: () => void): void {
    this.writes.push(chunks.map(({ chunk }) => chunk))
    done()
  }

  override _final (done: () => void): void {
    this.isEnded = true
    done()
  }
}

interface Attempt {
  readonly client: MqttClient
  readonly streams: readonly Stream[]
  readonly builtFor: readonly unknown[]
  readonly ids: LowIds
  readonly told: string[]
  readonly errors: Error[]
  /** The newest stream. */
  stream (): Stream
}

/** A client as the connection makes it; the end of the test ends it. */
function createClient (owner: Owner, options: IClientOptions = {}): Attempt {
  const streams: Stream[] = []
  const builtFor: unknown[] = []
  const told: string[] = []
  const errors: Error[] = []
  const ids = new LowIds()
  const builder = (client: unknown) => {
    const stream = new Stream()
    streams.push(stream)
    builtFor.push(client)
    return stream
  }
  const client = new mqttjs.MqttClient(builder as unknown as StreamBuilder, {
    log: () => {},
    clientId: 'c',
    protocolVersion: 5,
    keepalive: 60,
    connectTimeout: 5_000,
    clean: true,
    reconnectPeriod: 0,
    resubscribe: false,
    queueQoSZero: false,
    manualConnect: true,
    messageIdProvider: ids,
    ...options
  })
  client.on('error', (error) => errors.push(error))
  for (const name of ['connect', 'close', 'end', 'reconnect', 'offline'] as const) {
    client.on(name, () => told.push(name))
  }
  onEnd(owner, async () => {
    if (streams.length > 0) client.end(true)
    // Before the next test takes the timers away.
    await turn()
  })
  const stream = () => streams.at(-1) ?? assert.fail('the builder was not called')
  return { client, streams, builtFor, ids, told, errors, stream }
}

async function connected (owner: Owner, options?: IClientOptions): Promise<Attempt> {
  const one = createClient(owner, options)
  one.client.connect()
  one.stream().answer({ cmd: 'connack', sessionPresent: false, reasonCode: 0 })
  await until(() => one.told.includes('connect'))
  one.told.length = 0
  return one
}

async function until (isDone: () => boolean): Promise<void> {
  for (let turns = 0; turns < 100 && !isDone(); turns++) await turn()
  assert.ok(isDone(), 'it does not come')
}

function names (packets: readonly Packet[]): string[] {
  return packets.map(({ cmd }) => cmd)
}

suite(`MQTT.js ${mqttjs.version}`, () => {
  test('the constructor does not connect, and connect() calls the builder once, with the client', async (t) => {
    const { client, streams, builtFor, told } = createClient(t)
    await turn()
    assert.equal(streams.length, 0)
    assert.equal(client.stream, undefined)
    client.connect()
    assert.deepEqual([streams.length, builtFor], [1, [client]])
    assert.equal(client.stream, streams[0])
    await turn()
    assert.deepEqual(names((streams[0] as Stream).sent), ['connect'])
    assert.deepEqual(told, [])
  })

  test('each write has whole packets, and no chunk has bytes of two', async (t) => {
    const { client, stream } = await connected(t, {
      username: 'u',
      password: 'p',
      will: { topic: 'w', payload: Buffer.from('gone'), qos: 1, retain: true, properties: { willDelayInterval: 1 } },
      properties: { sessionExpiryInterval: 9 }
    })
    const properties = { contentType: 'x', userProperties: { a: 'b' } }
    const filters = Array.from({ length: 100 }, (_, index) => `filter/${index}`)
    client.subscribe(filters, { qos: 1, nl: true, properties: { subscriptionIdentifier: 7 } })
    client.unsubscribe(filters)
    for (const qos of [0, 1, 2] as const) {
      for (const size of [0, 10, 70_000]) {
        client.publish(`t/${qos}/${size}`, Buffer.alloc(size), { qos, properties })
      }
    }
    await turn()
    client.subscribe('alone')
    await turn()
    client.publish('alone', 'x')
    await turn()
    stream().answer({ cmd: 'pubrec', messageId: 6, reasonCode: 0 })
    await turn()
    const seen = stream().writes.flatMap((chunks) => {
      const packets = ownPackets(chunks)
      assert.ok(packets !== undefined, 'a write ends within a packet, or a chunk holds parts of two')
      return packets.map(({ packet }) => packet)
    })
    assert.deepEqual(Buffer.concat(seen), Buffer.concat(stream().writes.flat()))
    assert.deepEqual(names(stream().sent), ['connect', 'subscribe', 'unsubscribe', ...Array(9).fill('publish'), 'subscribe',
      'publish', 'pubrel'])
  })

  test('the options are read at each connect(), also a password that cannot be seen', async (t) => {
    const { client, streams, stream } = createClient(t)
    for (const [number, version] of [[1, 5], [2, 4], [3, 5]] as const) {
      client.options.protocolVersion = version
      client.options.username = `user ${number}`
      Object.defineProperty(client.options, 'password', {
        get: () => `password ${number}`, enumerable: false, configurable: true
      })
      client.connect()
      await turn()
      const [connect] = stream().sent
      assert.ok(connect?.cmd === 'connect')
      const { protocolVersion, username, password, clientId } = connect
      assert.deepEqual([protocolVersion, username, password?.toString(), clientId],
        [version, `user ${number}`, `password ${number}`, 'c'])
      // And what comes is read in this version.
      stream().answer({ cmd: 'connack', sessionPresent: false, returnCode: 0, reasonCode: 0 }, version)
      await until(() => client.connected)
      const granted = client.subscribeAsync('a')
      stream().answer({ cmd: 'suback', messageId: number, granted: [1] }, version)
      assert.equal((await granted)[0]?.qos, 1)
      client.stream.destroy()
      await turn()
    }
    assert.equal(streams.length, 3)
  })

  test("'connect' comes with CONNACK, 'packetsend' before each packet, 'close' after each stream", async (t) => {
    const { client, stream, told } = createClient(t)
    const sending: (readonly [string, number | undefined, number])[] = []
    client.on('packetsend', ({ cmd, messageId }) => sending.push([cmd, messageId, stream().writableLength]))
    client.connect()
    await turn()
    assert.equal(client.connected, false)
    const seen: Packet[] = []
    client.once('connect', (packet) => seen.push(packet))
    stream().answer({ cmd: 'connack', sessionPresent: true, reasonCode: 0, properties: { receiveMaximum: 7 } })
    await until(() => seen.length > 0)
    assert.equal(seen[0]?.cmd === 'connack' && seen[0].sessionPresent, true)
    assert.deepEqual([client.connected, told], [true, ['connect']])
    client.subscribe('a')
    assert.deepEqual(sending, [['connect', undefined, 0], ['subscribe', 1, 0]])
    for (let round = 0; round < 2; round++) {
      client.stream.destroy()
      await turn()
      assert.equal(client.connected, false)
      client.connect()
    }
    assert.deepEqual(told, ['connect', 'close', 'close'])
  })

  test('it never connects by itself: not after a refusal, a close, an error, nor a timeout', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
    const ends: Readonly<Record<string, (one: Attempt) => void>> = {
      close: ({ stream }) => { stream().destroy() },
      error: ({ stream }) => { stream().destroy(Object.assign(new Error('reset'), { code: 'ECONNRESET' })) },
      refusal: ({ stream }) => { stream().answer({ cmd: 'connack', reasonCode: 0x87, sessionPresent: false }) },
      timeout: () => { t.mock.timers.tick(5_000) },
      'end()': ({ client }) => { client.end() },
      'end(true)': ({ client }) => { client.end(true) }
    }
    for (const [name, end] of Object.entries(ends)) {
      const one = createClient(t)
      one.client.connect()
      end(one)
      await turn()
      one.stream().destroy()
      await turn()
      t.mock.timers.tick(10 * 60_000)
      await turn()
      assert.equal(one.streams.length, 1, name)
      assert.ok(!one.told.includes('reconnect'), name)
    }
  })

  test('connect() works again after every end, and a stream that is replaced emits its own close', async (t) => {
    const { client, streams, stream, told } = await connected(t)
    for (const end of [() => client.stream.destroy(), () => client.end(true), () => {}]) {
      end()
      await turn()
      await turn()
      told.length = 0
      client.connect()
      stream().answer({ cmd: 'connack', sessionPresent: false, reasonCode: 0 })
      await until(() => told.includes('connect'))
      assert.equal(client.connected, true)
      assert.equal(client.disconnecting, false)
    }
    assert.equal(streams.length, 4)
    told.length = 0
    streams[2]?.destroy()
    await turn()
    assert.deepEqual(told, ['close'])
  })

  test('a timeout, no answer to a ping, and end(true) destroy the stream', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
    // Already when the error is told: the end that it is the cause of has begun.
    const listen = ({ client, stream, told }: Attempt) =>
      client.on('error', ({ message }) => told.push(`${message}: ${stream().destroyed}`))
    const late = createClient(t)
    listen(late)
    late.client.connect()
    t.mock.timers.tick(4_999)
    assert.equal(late.stream().destroyed, false)
    t.mock.timers.tick(1)
    assert.deepEqual(late.told, ['connack timeout: true'])

    const dead = await connected(t)
    listen(dead)
    t.mock.timers.tick(60_000)
    await turn()
    assert.deepEqual(names(dead.stream().sent), ['connect', 'pingreq'])
    dead.stream().answer({ cmd: 'pingresp' })
    await turn()
    t.mock.timers.tick(60_000)
    await turn()
    assert.deepEqual(names(dead.stream().sent), ['connect', 'pingreq', 'pingreq'])
    assert.equal(dead.stream().destroyed, false)
    t.mock.timers.tick(30_000)
    assert.deepEqual(dead.told, ['Keepalive timeout: true'])

    const forced = await connected(t)
    forced.client.end(true)
    assert.equal(forced.stream().destroyed, true)
  })

  test('end(true) calls back in every state, and leaves no timer', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
    const states: Readonly<Record<string, () => Promise<Attempt>>> = {
      async connecting () {
        const one = createClient(t)
        one.client.connect()
        return one
      },
      connected: async () => await connected(t),
      async 'unanswered' () {
        const one = await connected(t)
        one.client.publish('a', 'x', { qos: 2 })
        one.client.subscribe('a', () => {})
        return one
      },
      async closed () {
        const one = await connected(t)
        one.stream().destroy()
        await turn()
        return one
      },
      async 'destroyed just now' () {
        const one = await connected(t)
        one.stream().destroy()
        return one
      }
    }
    for (const [name, reach] of Object.entries(states)) {
      const { client, stream, errors, streams } = await reach()
      const called: string[] = []
      client.end(true, () => called.push(name))
      await until(() => called.length > 0)
      await turn()
      t.mock.timers.tick(10 * 60_000)
      await turn()
      assert.deepEqual([errors, streams.length, stream().destroyed], [[], 1, true], name)
      assert.equal(client.connected, false, name)
    }
  })

  test('end() sends DISCONNECT, and then ends the stream, whose close is its end', async (t) => {
    const { client, stream, told } = await connected(t)
    client.end(() => told.push('called back'))
    await until(() => stream().isEnded)
    assert.deepEqual([names(stream().sent), told], [['connect', 'disconnect'], []])
    stream().destroy()
    await until(() => told.length === 3)
    assert.deepEqual(told, ['close', 'end', 'called back'])
  })

  test('packet identifiers come from the provider, go back to it, and are all free on a new connection', async (t) => {
    const { client, ids, stream } = await connected(t)
    const used = () => stream().sent.flatMap(({ messageId }) => messageId ?? [])
    client.subscribe('a')
    client.unsubscribe('a')
    for (const qos of [0, 1, 2] as const) client.publish('a', 'x', { qos })
    await turn()
    assert.deepEqual(used().filter((id) => id !== 0), [1, 2, 3, 4])
    for (const packet of [
      { cmd: 'suback', messageId: 1, granted: [0] }, { cmd: 'unsuback', messageId: 2, granted: [0] },
      { cmd: 'puback', messageId: 3, reasonCode: 0 }, { cmd: 'pubrec', messageId: 4, reasonCode: 0 },
      { cmd: 'pubcomp', messageId: 4, reasonCode: 0 }
    ]) stream().answer(packet)
    await turn()
    for (const id of [1, 2, 3, 4]) assert.equal(ids.register(id), true, `${id} is free`)
    client.stream.destroy()
    await turn()
    client.connect()
    stream().answer({ cmd: 'connack', sessionPresent: false, reasonCode: 0 })
    await turn()
    for (const id of [1, 2, 3, 4]) assert.equal(ids.register(id), true, `${id} is free again`)
  })

  test('what answers nothing is ignored, and what comes later is heard', async (t) => {
    const { client, stream, errors } = await connected(t)
    for (const packet of [
      { cmd: 'puback', messageId: 900, reasonCode: 0 }, { cmd: 'pubrec', messageId: 901, reasonCode: 0 },
      { cmd: 'pubcomp', messageId: 902, reasonCode: 0x92 }, { cmd: 'suback', messageId: 903, granted: [0] },
      { cmd: 'unsuback', messageId: 904, granted: [0] }, { cmd: 'pingresp' }
    ]) stream().answer(packet)
    await turn()
    assert.deepEqual([errors, stream().destroyed, names(stream().sent)], [[], false, ['connect']])
    const granted = client.subscribeAsync('a')
    stream().answer({ cmd: 'suback', messageId: 1, granted: [0] })
    assert.equal((await granted).length, 1)
  })

  test('the callback of subscribe has the SUBACK, also when filters are refused', async (t) => {
    const { client, stream } = await connected(t)
    for (const [number, codes] of [[1, [0, 1, 2]], [2, [0, 0x87, 0x80]], [3, [0x91]]] as const) {
      const filters = codes.map((code) => `f/${code}`)
      const answered = new Promise<{ error: unknown, granted: unknown }>((resolve) => {
        client.subscribe([...filters], { qos: 2 }, (error, _granted, packet) => {
          resolve({ error, granted: (packet as { granted?: unknown } | undefined)?.granted })
        })
      })
      stream().answer({ cmd: 'suback', messageId: number, granted: [...codes] })
      const { error, granted } = await answered
      assert.deepEqual(granted, codes)
      assert.equal(error instanceof Error, codes.some((code) => code >= 0x80))
    }
  })

  test('what was asked and not answered fails when the stream closes', async (t) => {
    const { client, stream } = await connected(t)
    const failures = [client.subscribeAsync('a'), client.unsubscribeAsync('a')].map((one) => assert.rejects(one))
    await turn()
    stream().destroy()
    await Promise.all(failures)
  })

  test('a message with QoS 1 and 2 is answered, or sent again with its identifier on the next stream', async (t) => {
    const { client, stream, told } = await connected(t)
    const one = client.publishAsync('one', 'x', { qos: 1 })
    const two = client.publishAsync('two', 'x', { qos: 2 })
    await turn()
    stream().answer({ cmd: 'pubrec', messageId: 2, reasonCode: 0 })
    await turn()
    assert.deepEqual(names(stream().sent), ['connect', 'publish', 'publish', 'pubrel'])
    client.stream.destroy()
    await turn()
    client.connect()
    stream().answer({ cmd: 'connack', sessionPresent: true, reasonCode: 0 })
    const again = async (count: number) => {
      await until(() => stream().sent.length >= count)
      const { cmd, messageId } = stream().sent.at(-1) as Packet
      return [cmd, messageId]
    }
    assert.deepEqual(await again(2), ['publish', 1])
    stream().answer({ cmd: 'puback', messageId: 1, reasonCode: 0 })
    assert.deepEqual(await again(3), ['pubrel', 2])
    stream().answer({ cmd: 'pubcomp', messageId: 2, reasonCode: 0 })
    await Promise.all([one, two])
    await until(() => told.includes('connect'))
  })

  test('a message that was removed fails its callback, and is not sent again', async (t) => {
    const { client, stream, told } = await connected(t)
    const failed = assert.rejects(client.publishAsync('a', 'x', { qos: 1 }))
    client.removeOutgoingMessage(1)
    await failed
    client.stream.destroy()
    await turn()
    client.connect()
    stream().answer({ cmd: 'connack', sessionPresent: false, reasonCode: 0 })
    await until(() => told.includes('connect'))
    await turn()
    assert.deepEqual(names(stream().sent), ['connect'])
  })

  test('an error of the stream is told once if it has a code, and listeners do not grow', async (t) => {
    const { client, stream, errors } = createClient(t)
    const count = () => client.eventNames().reduce((sum, name) => sum + client.listenerCount(name), 0)
    let before = 0
    for (let round = 0; round < 20; round++) {
      client.connect()
      stream().answer({ cmd: 'connack', sessionPresent: false, reasonCode: 0 })
      await turn()
      await turn()
      stream().destroy(Object.assign(new Error('reset'), { code: 'ECONNRESET' }))
      await turn()
      assert.equal(errors.length, round + 1)
      if (round === 0) before = count()
    }
    assert.equal(count(), before)
  })

  test("'message' is an event that anyone may emit", async (t) => {
    const { client } = createClient(t)
    assert.equal(client.listenerCount('message'), 0)
    const heard: unknown[] = []
    client.on('message', (...all) => heard.push(all))
    const packet = { cmd: 'publish', topic: 'a', payload: Buffer.of(1), qos: 0, retain: false, dup: false } as const
    client.emit('message', 'a', packet.payload, packet)
    assert.deepEqual(heard, [['a', packet.payload, packet]])
  })
})
