import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { suite, test, type TestContext } from 'node:test'
import { Type } from '@sinclair/typebox'
import { connectAsync } from 'mqtt'
import { generate, parser } from 'mqtt-packet'
import type { Message, MultimqttOptions } from '../lib/index.ts'
import { createApp, inbox } from './helpers/app.ts'
import { onEnd } from './helpers/cleanup.ts'
import { deferred } from './helpers/deadline.ts'
import { collectGarbage, usedBytes } from './helpers/memory.ts'
import { listen } from './helpers/ports.ts'
import { startScriptedBroker, type ScriptedBroker } from './helpers/scripted-broker.ts'
import { openUnguarded } from './helpers/unguarded.ts'

/** The acknowledgements that have come to the broker. */
function acksOf (broker: ScriptedBroker): string[] {
  return broker.received.flatMap((packet) => {
    if (packet.cmd !== 'puback' && packet.cmd !== 'pubrec' && packet.cmd !== 'pubcomp') return []
    const { cmd, messageId, reasonCode = 0 } = packet
    return `${cmd} ${messageId}${reasonCode === 0 ? '' : ` 0x${reasonCode.toString(16)}`}`
  })
}

/** An application on a scripted broker. `acks()` has all that was sent before it was asked. */
async function start (t: TestContext, options: MultimqttOptions = {}) {
  const broker = await startScriptedBroker(t, {
    connack: ({ clean }) => ({ sessionPresent: !clean && broker.connections.length > 1 })
  })
  const app = await createApp(t, { url: broker.url, reconnect: { minDelay: 1, maxDelay: 1 }, ...options })
  const { fastify } = app
  const acks = async () => {
    await fastify.mqtt.publish('sync', '', { qos: 1 })
    return acksOf(broker)
  }
  return { ...app, broker, acks }
}

suite('acknowledgement', () => {
  test("'after', the default: when the handler is done", async (t) => {
    const { fastify, broker, acks } = await start(t)
    const running = new Map([1, 2].map((qos) => [qos, deferred<void>()]))
    for (const qos of [1, 2] as const) {
      fastify.mqtt.topic(`${qos}`, { qos }, async () => await running.get(qos)?.promise)
    }
    await fastify.ready()
    for (const qos of [1, 2] as const) broker.publish({ topic: `${qos}`, qos })
    assert.deepEqual(await acks(), [])
    running.get(1)?.resolve()
    running.get(2)?.resolve()
    await broker.next('pubcomp')
    assert.deepEqual(acksOf(broker), ['puback 1', 'pubrec 2', 'pubcomp 2'])
  })

  for (const [what, handler] of [
    ['throws', () => { throw new Error('no') }], ['rejects', async () => { throw new Error('no') }]
  ] as const) {
    test(`'after': one that ${what} is told first, and then acknowledged`, async (t) => {
      const { fastify, broker, acks } = await start(t)
      const told = deferred<void>()
      fastify.mqtt.setErrorHandler(async () => await told.promise)
      fastify.mqtt.topic('a', { qos: 1 }, handler)
      await fastify.ready()
      broker.publish({ topic: 'a', qos: 1 })
      assert.deepEqual(await acks(), [])
      told.resolve()
      await broker.next('puback')
    })
  }

  test("'before': at once, while the handler runs", async (t) => {
    const { fastify, broker } = await start(t)
    const running = deferred<void>()
    fastify.mqtt.topic('a', { qos: 1, ack: 'before' }, async () => await running.promise)
    await fastify.ready()
    broker.publish({ topic: 'a', qos: 1 })
    await broker.next('puback')
    running.resolve()
  })

  test("'manual': by message.ack(), once, with a reason code on MQTT 5", async (t) => {
    const { fastify, broker, acks } = await start(t)
    const seen = inbox<Message>()
    fastify.mqtt.topic('a', { qos: 2, ack: 'manual' }, seen.put)
    await fastify.ready()
    for (const qos of [1, 1, 2, 0] as const) broker.publish({ topic: 'a', qos })
    const messages = [await seen.next(), await seen.next(), await seen.next(), await seen.next()]
    assert.deepEqual(await acks(), [])
    messages[0]?.ack()
    messages[0]?.ack(0x83)
    messages[1]?.ack(0x97)
    messages[2]?.ack(0x80)
    messages[3]?.ack()
    assert.deepEqual(await acks(), ['puback 1', 'puback 2 0x97', 'pubrec 3 0x80'])
    for (const code of [1, 127, 256, -1, 128.5, Infinity]) {
      assert.throws(() => messages[0]?.ack(code), { code: 'FST_MQTT_ACK_CODE' })
    }
  })

  test("'manual': MQTT 3.1.1 can only take a message", async (t) => {
    const { fastify, broker } = await start(t, { protocolVersion: 4 })
    fastify.mqtt.topic('a', { qos: 2, ack: 'manual' }, (message) => message.ack(0x83))
    await fastify.ready()
    for (const qos of [1, 2] as const) broker.publish({ topic: 'a', qos })
    await broker.next('pubcomp')
    assert.deepEqual(acksOf(broker), ['puback 1', 'pubrec 2', 'pubcomp 2'])
  })

  test("message.ack() is for topics with ack: 'manual'", async (t) => {
    const { fastify, broker, logged } = await start(t)
    fastify.mqtt.topic('a', { qos: 1 }, (message) => message.ack())
    await fastify.ready()
    broker.publish({ topic: 'a', qos: 1 })
    assert.equal((await logged(/was not handled/)).err?.code, 'FST_MQTT_ACK_NOT_MANUAL')
    await broker.next('puback')
  })

  test("'manual': not given in time after the handler, it is a failure and given", async (t) => {
    const { fastify, broker, logged, acks } = await start(t)
    const running = deferred<void>()
    fastify.mqtt.topic('a', { qos: 1, ack: 'manual', ackTimeout: 50 }, async () => await running.promise)
    await fastify.ready()
    broker.publish({ topic: 'a', qos: 1 })
    assert.deepEqual(await acks(), [])
    running.resolve()
    const { err } = await logged(/was not handled/)
    assert.equal(err?.code, 'FST_MQTT_ACK_TIMEOUT')
    assert.match(err?.message ?? '', /'a' with ack: 'manual' has not called message.ack\(\) within 50 ms/)
    await broker.next('puback')
  })

  for (const [what, options, handler] of [
    ['fails', {}, () => { throw new Error('no') }],
    ['is skipped by a hook', { onMessage: (message: Message) => message.skip() }, () => assert.fail('never')],
    ['is refused by its schema', { payload: Type.Object({ x: Type.Number() }) }, () => assert.fail('never')]
  ] as const) {
    test(`'manual': what ${what} is acknowledged without its handler`, async (t) => {
      const { fastify, broker } = await start(t)
      fastify.mqtt.topic('a', { qos: 1, ack: 'manual', ...options }, handler)
      await fastify.ready()
      broker.publish({ topic: 'a', qos: 1, payload: '{}' })
      await broker.next('puback')
    })
  }

  test('of several topics the strictest wins: when all are done', async (t) => {
    const { fastify, broker, acks } = await start(t)
    const after = deferred<void>()
    const before = deferred<void>()
    const manual = inbox<Message>()
    fastify.mqtt.topic('+/x', { qos: 1, ack: 'before' }, async () => await before.promise)
    fastify.mqtt.topic('a/+', { qos: 1 }, async () => await after.promise)
    fastify.mqtt.topic('a/x', { qos: 1, ack: 'manual' }, manual.put).onMessage(manual.put)
    await fastify.ready()
    broker.publish({ topic: 'a/x', qos: 1 })
    const messages = [await manual.next(), await manual.next()]
    messages[0]?.ack()
    after.resolve()
    assert.deepEqual(await acks(), [])
    messages[1]?.ack(0x83)
    await broker.next('puback')
    assert.deepEqual(acksOf(broker), ['puback 1 0x83'])
    before.resolve()
  })

  test('what no topic takes, or takes as it is, is acknowledged', async (t) => {
    const { fastify, broker, acks } = await start(t, { maxPayload: 10 })
    fastify.mqtt.topic('int/<int:n>', { qos: 1 }, () => assert.fail('never'))
    fastify.mqtt.topic('json', { qos: 1, payload: Type.Number() }, () => assert.fail('never'))
    fastify.mqtt.topic('bytes', { qos: 1 }, () => assert.fail('never'))
    await fastify.ready()
    broker.publish({ topic: 'unknown', qos: 1 })
    broker.publish({ topic: 'int/x', qos: 1 })
    broker.publish({ topic: 'json', qos: 1, payload: '{' })
    broker.publish({ topic: 'bytes', qos: 1, payload: 'x'.repeat(11) })
    for (let count = 0; count < 4; count++) await broker.next('puback')
    assert.deepEqual(await acks(), ['puback 1', 'puback 2', 'puback 3', 'puback 4'])
  })

  test('before the application is ready nothing is handled, nor acknowledged', async (t) => {
    const { fastify, broker } = await start(t)
    const seen = inbox<string>()
    fastify.mqtt.topic('a', { qos: 1 }, (message) => seen.put(message.text()))
    fastify.addHook('onReady', async () => {
      broker.publish({ topic: 'a', qos: 1, payload: 'early' })
      await fastify.mqtt.publish('sync', '', { qos: 1 })
      assert.deepEqual([seen.all, acksOf(broker)], [[], []])
    })
    await fastify.ready()
    assert.equal(await seen.next(), 'early')
    await broker.next('puback')
  })

  test('at the end: what is done in time is acknowledged, and what comes meanwhile is not', async (t) => {
    const { fastify, broker } = await start(t)
    const running = deferred<void>()
    const seen = inbox<string>()
    fastify.mqtt.topic('<which>', { qos: 1 }, async (message) => {
      seen.put(message.params.which)
      await running.promise
    })
    await fastify.ready()
    broker.publish({ topic: 'first', qos: 1 })
    await seen.next()
    const closed = fastify.close()
    broker.publish({ topic: 'second', qos: 1 })
    running.resolve()
    await closed
    await broker.next('disconnect')
    assert.deepEqual([acksOf(broker), seen.all], [['puback 1'], ['first']])
  })

  test('at the end: what is not done in time is not acknowledged, ever', async (t) => {
    const { fastify, broker } = await start(t, { drainTimeout: 50 })
    const running = deferred<void>()
    const seen = inbox<string>()
    fastify.mqtt.topic('a', { qos: 1 }, async (message) => {
      seen.put(message.topic)
      await running.promise
    })
    await fastify.ready()
    broker.publish({ topic: 'a', qos: 1 })
    await seen.next()
    await fastify.close()
    running.resolve()
    await broker.next('disconnect')
    assert.deepEqual(acksOf(broker), [])
  })

  test('with more than inbox.maxUnacked the connection is renewed, and the broker keeps them', async (t) => {
    const { fastify, broker, logged } = await start(t, {
      inbox: { maxUnacked: 2 }, session: { expiry: 60 }, clientId: 'c', protocolVersion: 5
    })
    const running = deferred<void>()
    const seen = inbox<number>()
    fastify.mqtt.topic('n/<int:n>', { qos: 1 }, async (message) => {
      seen.put(message.params.n)
      await running.promise
    })
    await fastify.ready()
    for (const n of [1, 2, 3]) broker.publish({ topic: `n/${n}`, qos: 1 })
    await logged(/more than 2 messages wait for their handlers: the connection is renewed/)
    await broker.next('connect')
    await broker.next('connect')
    assert.deepEqual(acksOf(broker), [])
    for (const n of [1, 2, 3]) broker.connections[1]?.send({ ...publishPacket(`n/${n}`), messageId: n, dup: true })
    running.resolve()
    for (let count = 0; count < 3; count++) await broker.next('puback')
    assert.deepEqual([acksOf(broker), seen.all], [['puback 1', 'puback 2', 'puback 3'], [1, 2, 3]])
  })
})

function publishPacket (topic: string) {
  return { cmd: 'publish', topic, qos: 1, dup: false, retain: false, payload: '' } as const
}

suite('what ends the connection', { concurrency: true }, () => {
  /** A broker that ends the connection when it reads a poison, and keeps sessions. */
  async function startPoisonable (t: TestContext) {
    const taken: string[] = []
    const broker = await startScriptedBroker(t, {
      connack: ({ clean }) => ({ sessionPresent: !clean && broker.connections.length > 1 }),
      onPacket: (packet, connection) => {
        if (packet.cmd !== 'publish' || connection.socket.destroyed) return connection.socket.destroyed
        if (packet.topic.startsWith('poison')) {
          if (connection.connect?.protocolVersion === 5) connection.send({ cmd: 'disconnect', reasonCode: 0x90 })
          connection.socket.destroySoon()
          connection.destroy()
          return true
        }
        taken.push(packet.topic)
        return false
      }
    })
    return { broker, taken }
  }

  for (const version of [5, 4] as const) {
    for (const [count, ...poisons] of [[30, 7], [30, 7, 8], [30, 0, 29], [1_000, 500], [1, 0]] as const) {
      test(`MQTT ${version}: ${poisons.length} among ${count} (${poisons.join()}): the others are taken`, async (t) => {
        const { broker, taken } = await startPoisonable(t)
        const expiry = count === 30 ? 60 : 0
        const { up, publish, connections } = openUnguarded(t, broker.port, { version, expiry })
        await up
        const isPoison = (n: number) => (poisons as readonly number[]).includes(n)
        const topics = Array.from({ length: count }, (_, n) => `${isPoison(n) ? 'poison' : 'good'}/${n}`)
        const ends = await Promise.allSettled(topics.map((topic) => publish(topic)))
        const refused = ends.flatMap((end, n) => end.status === 'rejected' ? [[n, end.reason.code]] : [])
        assert.deepEqual(refused, poisons.map((n) => [n, 'FST_MQTT_PUBLISH_REFUSED']))
        assert.deepEqual([...new Set(taken)].sort(), topics.filter((topic) => topic.startsWith('good')).sort())
        const most = version === 5 ? 10 : 15 * poisons.length + 5
        assert.ok(connections() <= most, `${connections()} connections`)
      })
    }
  }

  test('QoS 0 ends it again and again: the good ones beside it are not blamed', async (t) => {
    const { broker, taken } = await startPoisonable(t)
    const { up, publish } = openUnguarded(t, broker.port)
    await up
    const good: Promise<void>[] = []
    for (let n = 0; n < 30; n++) {
      good.push(publish(`good/${n}`))
      publish('poison', { qos: 0 }).catch(() => {})
      await new Promise<void>((resolve) => { setTimeout(resolve, 5) })
    }
    await Promise.all(good)
    assert.equal(new Set(taken).size, 30)
  })

  test('larger than the broker takes, on MQTT 5: refused by PUBACK, the connection lives', async (t) => {
    const broker = await startScriptedBroker(t, {
      onPacket: (packet, connection) => {
        if (packet.cmd !== 'publish' || packet.payload.length < 1_000) return false
        const { messageId = 0 } = packet
        // No packet writer knows this reason code.
        connection.sendBytes(Buffer.of(0x40, 3, messageId >> 8, messageId & 0xff, 0x95))
        return true
      }
    })
    const { fastify } = await createApp(t, { url: broker.url })
    await fastify.ready()
    const large = fastify.mqtt.publish('a', Buffer.alloc(1_000), { qos: 1 })
    const small = fastify.mqtt.publish('a', 'x', { qos: 1 })
    await assert.rejects(large, { code: 'FST_MQTT_PUBLISH_REFUSED', message: /Packet too large \(0x95\)/ })
    await small
    assert.equal(broker.connections.length, 1)
  })
})

suite('memory', () => {
  const mib = 2 ** 20

  /** Accepts clients, and reads what they send as it is told. */
  async function startSlowPeer (t: TestContext) {
    const sockets: Socket[] = []
    const topics: string[] = []
    const server = createServer((socket) => {
      sockets.push(socket)
      const packets = parser({ protocolVersion: 5 })
      packets.on('packet', (packet) => {
        if (packet.cmd === 'publish') topics.push(packet.topic)
        if (packet.cmd !== 'connect') return
        socket.write(generate({ cmd: 'connack', reasonCode: 0, sessionPresent: false }, { protocolVersion: 5 }))
        socket.pause()
      })
      socket.on('data', (bytes: Buffer) => packets.parse(bytes)).on('error', () => {})
    })
    const port = await listen(server)
    onEnd(t, async () => {
      const closed = once(server.close(), 'close')
      for (const socket of sockets) socket.destroy()
      await closed
    })
    return { port, topics, socket: () => sockets[0] as Socket }
  }

  for (const qos of [0, 1] as const) {
    test(`a peer that does not read, QoS ${qos}: what is taken in is bounded, and the rest refused`, async (t) => {
      const peer = await startSlowPeer(t)
      const { fastify } = await createApp(t, {
        url: `mqtt://127.0.0.1:${peer.port}`, outbox: { maxBytes: 2 * mib, maxMessages: 1_000 }, drainTimeout: 20
      })
      await fastify.ready()
      const before = await usedBytes()
      const ends = { ok: 0, full: 0, other: 0 }
      const all: Promise<unknown>[] = []
      const count = 8_000
      const fail = ({ code }: { code: string }) => { ends[code === 'FST_MQTT_OUTBOX_FULL' ? 'full' : 'other']++ }
      // 32 MiB, of which the operating system takes some.
      for (let n = 0; n < count; n++) {
        all.push(fastify.mqtt.publish(`n/${n}`, Buffer.alloc(4_096), { qos }).then(() => ends.ok++, fail))
        if (n % 50 === 0) await turn()
      }
      const grown = await usedBytes() - before
      t.diagnostic(`${ends.full} refused, ${(grown / mib).toFixed(1)} MiB more`)
      assert.ok(ends.full > 4_000, `${ends.full} refused`)
      // The outbox, what the socket has, and the promises of the test.
      assert.ok(grown < 2 * mib + 6 * mib, `${grown} bytes more`)
      const accepted = count - ends.full
      peer.socket().resume()
      if (qos === 1) {
        // Never acknowledged: only what the outbox holds was sent.
        await fastify.close()
      } else {
        while (ends.ok < accepted) await turn()
        await fastify.close()
        assert.equal(peer.topics.length, accepted)
        assert.deepEqual(peer.topics, [...new Set(peer.topics)])
      }
      await Promise.all(all)
      assert.equal(ends.ok + ends.full + ends.other, count)
    })
  }

  for (const qos of [0, 1] as const) {
    test(`a peer that does not read, QoS ${qos}: MQTT.js alone keeps all that it is given`, async (t) => {
      const peer = await startSlowPeer(t)
      const client = await connectAsync(`mqtt://127.0.0.1:${peer.port}`, { protocolVersion: 5 })
      onEnd(t, () => client.end(true))
      const before = await usedBytes()
      for (let n = 0; n < 8_000; n++) {
        client.publish(`n/${n}`, Buffer.alloc(4_096), { qos })
        if (n % 50 === 0) await turn()
      }
      const grown = await usedBytes() - before
      t.diagnostic(`${(grown / mib).toFixed(1)} MiB more`)
      // Of 32 MiB; above it is held to 8.
      assert.ok(grown > 20 * mib, `${grown} bytes more`)
    })
  }

  test('five times more QoS 0 than the peer reads: what is taken in is bounded all the time', async (t) => {
    const peer = await startSlowPeer(t)
    const { fastify } = await createApp(t, {
      url: `mqtt://127.0.0.1:${peer.port}`, outbox: { maxBytes: 2 * mib, overflow: 'drop-oldest' }, drainTimeout: 20
    })
    await fastify.ready()
    let most = 0
    let settled = 0
    let published = 0
    const before = await usedBytes()
    const socket = peer.socket()
    socket.removeAllListeners('data')
    const settle = () => { settled++ }
    for (let round = 0; round < 60; round++) {
      for (let n = 0; n < 100; n++) {
        published++
        fastify.mqtt.publish('n', Buffer.alloc(4_096)).then(settle, settle)
      }
      for (let left = 80_000; left > 0;) {
        const bytes = socket.read() as Buffer | null
        if (bytes === null) break
        left -= bytes.length
      }
      await turn()
      if (round % 20 === 19) most = Math.max(most, await usedBytes() - before)
    }
    t.diagnostic(`at most ${(most / mib).toFixed(1)} MiB more, ${published} published`)
    assert.ok(most < 2 * mib + 6 * mib, `${most} bytes more`)
    await fastify.close()
    await turn()
    assert.equal(settled, published)
  })

  test('five times more QoS 0 than the handlers take: what waits for them is bounded, the rest counted', async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify } = await createApp(t, {
      url: broker.url, concurrency: 10, inbox: { maxMessages: 200, maxBytes: mib }
    })
    const count = 8_000
    let handled = 0
    fastify.mqtt.topic('n/<int:n>', async () => {
      // Ten handlers, and as many messages a turn as fifty would take.
      await turn()
      handled++
    })
    await fastify.ready()
    const before = await usedBytes()
    let most = 0
    for (let n = 0; n < count; n++) {
      broker.publish({ topic: `n/${n}`, payload: Buffer.alloc(4_096) })
      if (n % 50 === 49) await turn()
      if (n % 2_000 === 1_999) most = Math.max(most, await usedBytes() - before)
    }
    const { dropped } = fastify.mqtt.stats()
    while (fastify.mqtt.stats().received < count || fastify.mqtt.stats().waiting > 0) await turn()
    await fastify.mqtt.idle()
    t.diagnostic(`${dropped} dropped, at most ${(most / mib).toFixed(1)} MiB more`)
    assert.equal(handled + fastify.mqtt.stats().dropped, count)
    assert.ok(dropped > count / 2, `${dropped} dropped`)
    // What waits, the packets that the broker has noted, and what is between the two.
    assert.ok(most < mib + 7 * mib, `${most} bytes more`)
  })

  test('messages that an application keeps are what they were, whatever is read after them', async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify } = await createApp(t, { url: broker.url })
    const kept: { n: number, raw: Buffer }[] = []
    fastify.mqtt.topic('n/<int:n>', (message) => {
      // Its bytes are not looked at yet.
      kept.push({ n: message.params.n, get raw () { return message.raw } })
    })
    await fastify.ready()
    const usual = [3, 40, 150, 1_100, 9_000, 40_000] as const
    const sizes = Array.from({ length: 600 }, (_, index) => usual[index * 7_919 % 11 % 6] ?? 0)
    const packets = sizes.map((size, n) => generate(
      { ...publishPacket(`n/${n}`), qos: 0, payload: Buffer.alloc(size, n) }, { protocolVersion: 5 }))
    // So many at once, and then a turn for them to be read.
    for (let at = 0, count = 1; at < packets.length; at += count, count = count % 25 + 1) {
      broker.connections[0]?.sendBytes(Buffer.concat(packets.slice(at, at + count)))
      await turn()
    }
    while (kept.length < sizes.length) await turn()
    for (const [index, size] of sizes.entries()) {
      assert.equal(kept[index]?.n, index)
      assert.ok(kept[index]?.raw.equals(Buffer.alloc(size, index)), `message ${index}, of ${size} bytes`)
    }
  })

  for (const [what, options, qos] of [
    ['a handler that runs', {}, 1],
    ['a handler that runs, QoS 0', {}, 0],
    ['an acknowledgement that is not given', { ack: 'manual' }, 1],
    ['a PUBREL that does not come', {}, 2]
  ] as const) {
    test(`a message that waits for ${what} does not hold on to what was read with it`, async (t) => {
      const broker = await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd === 'pubrec' })
      const { fastify } = await createApp(t, { url: broker.url })
      const running = deferred<void>()
      const isAtOnce = qos === 2 || 'ack' in options
      fastify.mqtt.topic('small', { qos: 2, ...options }, () => isAtOnce ? undefined : running.promise)
      await fastify.ready()
      const read = new Promise<WeakRef<ArrayBufferLike>>((resolve) => {
        fastify.mqtt.client?.on('message', (topic, payload) => {
          if (topic === 'bulk') resolve(new WeakRef(payload.buffer))
        })
      })
      const packets = [
        { ...publishPacket('small'), qos, ...(qos === 0 ? {} : { messageId: 1 }), payload: 'kept' },
        { ...publishPacket('bulk'), qos: 0, payload: Buffer.alloc(30_000) }
      ] as const
      const bytes = packets.map((packet) => generate(packet, { protocolVersion: 5 }))
      broker.connections[0]?.sendBytes(Buffer.concat(bytes))
      const chunk = await read
      await collectGarbage()
      assert.ok(chunk.deref() === undefined, 'it is still there')
      running.resolve()
    })
  }
})

async function turn (): Promise<void> {
  await new Promise<void>((resolve) => { setImmediate(resolve) })
}
