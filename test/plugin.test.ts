import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { Type } from '@sinclair/typebox'
import type { Message } from '../lib/index.ts'
import { createApp, createFastify, inbox } from './helpers/app.ts'
import { within } from './helpers/deadline.ts'
import { closedPort } from './helpers/ports.ts'
import { startScriptedBroker, startSilentServer } from './helpers/scripted-broker.ts'
import multimqtt from '../lib/index.ts'

/** That a promise settles in time, and rejects with a coded error if it does. */
async function settled (promise: Promise<void>): Promise<void> {
  const outcome = promise.catch((error: { code?: string }) => assert.match(error.code ?? String(error), /^FST_MQTT_/))
  await within(outcome, 5_000, 'settled promise')
}

test('start: ready() resolves when connected with every subscription answered, in one packet', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify, lines } = await createApp(t, { url: `${broker.url}/site` })
  fastify.mqtt.topic('a/<int:id>', { qos: 1 }, () => {})
  fastify.mqtt.topic('b/#', { qos: 1 }, () => {})
  fastify.mqtt.topic('c', { qos: 2 }, () => {})
  assert.equal(fastify.mqtt.status, 'idle')
  await fastify.ready()
  assert.equal(fastify.mqtt.status, 'ready')
  assert.deepEqual(fastify.mqtt.health().subscriptions, {
    granted: [{ filter: 'site/a/+', qos: 1 }, { filter: 'site/b/#', qos: 1 }, { filter: 'site/c', qos: 2 }],
    refused: [],
    pending: []
  })
  assert.equal(fastify.mqtt.health().ok, true)
  // One packet for each quality of service.
  assert.equal(broker.received.filter(({ cmd }) => cmd === 'subscribe').length, 2)
  assert.ok(lines.some(({ msg }) => /^connected to mqtt:\/\/127\.0\.0\.1:\d+ with MQTT 5$/.test(msg)))
})

test('start: the CONNECT has the client id, the keepalive, user and password of the options', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, {
    url: `mqtt://us%40er:p%3Ass@127.0.0.1:${broker.port}`, clientId: 'cid', keepalive: 7
  })
  await fastify.ready()
  const connect = await broker.next('connect')
  assert.equal(connect.clientId, 'cid')
  assert.equal(connect.keepalive, 7)
  assert.equal(connect.username, 'us@er')
  assert.equal(connect.password?.toString(), 'p:ss')
  assert.equal(connect.protocolVersion, 5)
})

test('start: by default the client id is random, in what every 3.1.1 server accepts', async (t) => {
  const broker = await startScriptedBroker(t)
  const ids = new Set<string>()
  for (let index = 0; index < 2; index++) {
    const { fastify } = await createApp(t, { url: broker.url })
    await fastify.ready()
    ids.add((await broker.next('connect')).clientId)
  }
  assert.equal(ids.size, 2)
  for (const id of ids) assert.match(id, /^[0-9a-zA-Z]{1,23}$/)
})

test('start: connect() twice and ready() are one CONNECT', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, start: 'manual' })
  await fastify.ready()
  assert.equal(broker.connections.length, 0)
  await Promise.all([fastify.mqtt.connect(), fastify.mqtt.connect()])
  await fastify.mqtt.connect()
  assert.equal(broker.connections.length, 1)
})

test('start: in the background ready() waits for nothing, and the broker may come later', async (t) => {
  const port = await closedPort()
  const { fastify, logged } = await createApp(t, { url: `mqtt://127.0.0.1:${port}`, start: 'background' })
  const messages = inbox<Message>()
  fastify.mqtt.topic('later', messages.put)
  await fastify.ready()
  assert.equal(fastify.mqtt.status, 'connecting')
  await logged(/could not connect to mqtt:/)
  const early = ([0, 1, 2] as const).map((qos) => settled(fastify.mqtt.publish('early', 'x', { qos })))
  assert.equal(fastify.mqtt.health().lastError?.code, 'ECONNREFUSED')
  const broker = await startScriptedBroker(t, { port })
  await fastify.mqtt.connect()
  broker.publish({ topic: 'later', payload: 'x' })
  assert.equal((await messages.next()).text(), 'x')
  await Promise.all(early)
})

test('start: in the background connect() gives up waiting, and trying goes on', async (t) => {
  const port = await closedPort()
  const { fastify } = await createApp(t, {
    url: `mqtt://127.0.0.1:${port}`, start: 'background', connectTimeout: 100
  })
  await fastify.ready()
  await assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CONNECT_FAILED' })
  assert.equal(fastify.mqtt.status, 'connecting')
})

test('start: a manual connect() that failed can be tried again', async (t) => {
  const port = await closedPort()
  const { fastify } = await createApp(t, {
    url: `mqtt://127.0.0.1:${port}`, start: 'manual', connectTimeout: 200
  })
  await fastify.ready()
  await assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CONNECT_FAILED' })
  assert.equal(fastify.mqtt.status, 'closed')
  await startScriptedBroker(t, { port })
  await fastify.mqtt.connect()
  assert.equal(fastify.mqtt.status, 'ready')
})

test('start: connectTimeout has to stay below the pluginTimeout', async (t) => {
  const { fastify } = createFastify(t, { pluginTimeout: 3_000 })
  await assert.rejects(async () => await fastify.register(multimqtt, { connectTimeout: 2_500 }), {
    code: 'FST_MQTT_OPTIONS_INVALID',
    message: "Invalid option 'connectTimeout': it has to stay 1000 ms below Fastify's pluginTimeout (3000 ms), not 2500"
  })
})

for (const { name, start, cause } of [
  { name: 'a closed port', start: async () => await closedPort(), cause: /ECONNREFUSED/ },
  {
    name: 'a blackhole',
    start: async (t: Parameters<typeof startSilentServer>[0]) => (await startSilentServer(t)).port,
    cause: /no answer|connack timeout/
  },
  {
    name: 'a refusal',
    start: async (t: Parameters<typeof startSilentServer>[0]) =>
      (await startScriptedBroker(t, {
        connack: ({ protocolVersion }) => ({ reasonCode: protocolVersion === 5 ? 135 : 5 })
      })).port,
    cause: /Not authorized/
  },
  {
    name: 'a broker that hangs up',
    start: async (t: Parameters<typeof startSilentServer>[0]) =>
      (await startScriptedBroker(t, {
        onPacket: (_packet, connection) => {
          connection.destroy()
          return true
        }
      })).port,
    cause: /closed the connection before it answered/
  },
  {
    name: 'a broker that never answers a SUBSCRIBE',
    start: async (t: Parameters<typeof startSilentServer>[0]) =>
      (await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd === 'subscribe' })).port,
    cause: /did not answer the subscriptions some\/topic/
  }
]) {
  test(`start: ${name} ends ready() with broker, attempts and cause, and without the password`, async (t) => {
    const port = await start(t)
    const { fastify, lines } = await createApp(t, {
      url: `mqtt://somebody:secret-password@127.0.0.1:${port}`, connectTimeout: 400
    })
    fastify.mqtt.topic('some/topic', () => {})
    await assert.rejects(async () => await fastify.ready(), (error: Error & { code: string }) => {
      assert.equal(error.code, 'FST_MQTT_CONNECT_FAILED')
      assert.match(error.message,
        new RegExp(`^Could not connect to mqtt://127\\.0\\.0\\.1:${port} within 400 ms \\(\\d+ attempts?\\): `))
      assert.match(error.message, cause)
      assert.doesNotMatch(inspect(error, { depth: 10 }) + JSON.stringify(lines), /secret-password/)
      return true
    })
    // What has failed is taken down; to wait for that is the same as to close.
    await fastify.mqtt.close()
    assert.equal(fastify.mqtt.status, 'closed')
  })
}

test('version: 5 is spoken where the broker accepts it', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  assert.equal(fastify.mqtt.health().protocolVersion, 5)
})

for (const { name, options } of [
  { name: 'reason 1', options: { connack: { reasonCode: 1, returnCode: 1 } } },
  { name: 'reason 0x84', options: { connack: { reasonCode: 0x84 } } },
  { name: 'a close before CONNACK', options: { close: true } }
]) {
  test(`version: 4 is tried after ${name}, and kept when accepted`, async (t) => {
    const broker = await startScriptedBroker(t, {
      connack: ({ protocolVersion }) => protocolVersion === 5 ? options.connack ?? {} : {},
      onPacket: (packet, connection) => {
        if (packet.cmd !== 'connect' || packet.protocolVersion === 4 || options.close !== true) return false
        connection.destroy()
        return true
      }
    })
    const { fastify, logged } = await createApp(t, { url: broker.url })
    await fastify.ready()
    assert.equal(fastify.mqtt.health().protocolVersion, 4)
    broker.connections.at(-1)?.destroy()
    await logged(/lost the connection/)
    await logged(/connected to .* MQTT 3\.1\.1/)
    await logged(/connected to .* MQTT 3\.1\.1/)
    assert.deepEqual(broker.connections.map(({ connect }) => connect?.protocolVersion), [5, 4, 4])
  })
}

test('version: 4 that is not accepted either is followed by 5', async (t) => {
  let attempts = 0
  const broker = await startScriptedBroker(t, { connack: () => ++attempts < 3 ? { reasonCode: 1 } : {} })
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  assert.deepEqual(broker.connections.map(({ connect }) => connect?.protocolVersion), [5, 4, 5])
})

test('version: once 5 was accepted 4 is never tried', async (t) => {
  let refuse = false
  const broker = await startScriptedBroker(t, { connack: () => refuse ? { reasonCode: 1 } : {} })
  const { fastify, logged } = await createApp(t, { url: broker.url })
  await fastify.ready()
  refuse = true
  broker.connections.at(-1)?.destroy()
  await logged(/could not connect/)
  refuse = false
  await logged(/connected to/)
  await logged(/connected to/)
  assert.deepEqual(broker.connections.map(({ connect }) => connect?.protocolVersion), [5, 5, 5])
})

test('version: 5 that is forced is not replaced', async (t) => {
  const broker = await startScriptedBroker(t, { connack: { reasonCode: 1 } })
  const { fastify } = await createApp(t, { url: broker.url, protocolVersion: 5, connectTimeout: 200 })
  await assert.rejects(async () => await fastify.ready(), /Unacceptable protocol version/)
  assert.ok(broker.connections.every(({ connect }) => connect?.protocolVersion === 5))
})

test('refusals: an unknown code of CONNACK is an error with that code, and is tried again', async (t) => {
  let attempts = 0
  const broker = await startScriptedBroker(t, { connack: () => ++attempts === 1 ? { reasonCode: 6 } : {} })
  const { fastify, logged } = await createApp(t, { url: broker.url, protocolVersion: 4 })
  await fastify.ready()
  const line = await logged(/could not connect/)
  assert.match(line.err?.message ?? '', /Connection refused/)
  assert.equal(fastify.mqtt.status, 'ready')
})

test('refusals: a refused filter is logged and in health(), and costs no other filter and not the start', async (t) => {
  const broker = await startScriptedBroker(t, { grants: (filter, qos) => filter === 'no' ? 0x87 : qos })
  const { fastify, logged } = await createApp(t, { url: broker.url })
  const messages = inbox<Message>()
  fastify.mqtt.topic('yes', messages.put)
  fastify.mqtt.topic('no', messages.put)
  await fastify.ready()
  const line = await logged(/subscription to 'no' was refused: not authorized/)
  assert.equal(line['reasonCode'], 0x87)
  const { ok, subscriptions } = fastify.mqtt.health()
  assert.equal(ok, false)
  assert.deepEqual(subscriptions, {
    granted: [{ filter: 'yes', qos: 0 }],
    refused: [{ filter: 'no', reasonCode: 0x87, reason: 'not authorized' }],
    pending: []
  })
  // After a reconnect, which makes MQTT.js by itself deaf on both.
  broker.connections.at(-1)?.destroy()
  await logged(/subscription to 'no' was refused/)
  broker.publish({ topic: 'yes', payload: 'still' })
  assert.equal((await messages.next()).text(), 'still')
})

test('subscribing: the qualities of service and the options of MQTT 5 are on the wire', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  fastify.mqtt.topic('one', { qos: 1, noLocal: true }, () => {})
  fastify.mqtt.route({ topic: 'two', qos: 2, retainAsPublished: true, retainHandling: 2, handler: () => {} })
  await fastify.ready()
  const subscriptions = broker.received.flatMap((packet) => packet.cmd === 'subscribe' ? packet.subscriptions : [])
  assert.deepEqual(subscriptions, [
    { topic: 'one', qos: 1, nl: true, rap: false, rh: 0 },
    { topic: 'two', qos: 2, nl: false, rap: true, rh: 2 }
  ])
})

test('subscribing: on a forced 3.1.1 connection an option of MQTT 5 is an error at registration', async (t) => {
  const { fastify } = await createApp(t, { protocolVersion: 4, start: 'manual' })
  assert.throws(() => fastify.mqtt.topic('a', { noLocal: true }, () => {}), {
    code: 'FST_MQTT_TOPIC_OPTIONS', message: /need MQTT 5, the option protocolVersion is 4/
  })
})

test('subscribing: where 3.1.1 was negotiated such a filter counts as refused', async (t) => {
  const broker = await startScriptedBroker(t, {
    connack: ({ protocolVersion }) => protocolVersion === 5 ? { reasonCode: 0x84 } : {}
  })
  const { fastify, logged } = await createApp(t, { url: broker.url })
  fastify.mqtt.topic('a', { noLocal: true }, () => {})
  await fastify.ready()
  await logged(/subscription to 'a' was refused: noLocal, .* need MQTT 5/)
  assert.equal(fastify.mqtt.health().ok, false)
})

test('subscribing: patterns with one filter share one SUBSCRIBE, and each topic has its own params', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<unknown>()
  fastify.mqtt.topic('n/<int:a>', { qos: 0 }, (message) => seen.put(message.params))
  fastify.mqtt.topic('n/<str:b>', { qos: 2 }, (message) => seen.put(message.params))
  await fastify.ready()
  const subscriptions = broker.received.flatMap((packet) => packet.cmd === 'subscribe' ? packet.subscriptions : [])
  assert.deepEqual(subscriptions.map(({ topic, qos }) => [topic, qos]), [['n/+', 2]])
  broker.publish({ topic: 'n/7' })
  assert.deepEqual(await seen.next(), { a: 7 })
  assert.deepEqual(await seen.next(), { b: '7' })
})

test('subscribing: topics can be added and removed while connected, also by a handler', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<string>()
  fastify.mqtt.topic('first', () => {
    fastify.mqtt.topic('second', (message) => seen.put(message.topic))
  })
  await fastify.ready()
  await broker.next('subscribe')
  broker.publish({ topic: 'first' })
  assert.equal((await broker.next('subscribe')).subscriptions[0]?.topic, 'second')
  broker.publish({ topic: 'second' })
  assert.equal(await seen.next(), 'second')
})

test('subscribing: the last handler that goes takes the subscription with it', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<string>()
  const topic = fastify.mqtt.topic('t')
  const removeFirst = topic.onMessage(() => seen.put('first'))
  const removeSecond = topic.onMessage(() => seen.put('second'))
  await fastify.ready()
  removeFirst()
  broker.publish({ topic: 't' })
  assert.equal(await seen.next(), 'second')
  removeSecond()
  assert.deepEqual((await broker.next('unsubscribe')).unsubscriptions, ['t'])
  assert.deepEqual(fastify.mqtt.health().subscriptions.granted, [])
})

test('subscribing: remove() of one of two topics with a filter leaves the other', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<string>()
  const gone = fastify.mqtt.topic('t', { name: 'gone' }, () => seen.put('gone'))
  fastify.mqtt.topic('t', { name: 'stays' }, () => seen.put('stays'))
  await fastify.ready()
  gone.remove()
  gone.remove()
  assert.throws(() => fastify.mqtt.topicFor('gone'), { code: 'FST_MQTT_TOPIC_UNKNOWN' })
  broker.publish({ topic: 't' })
  assert.equal(await seen.next(), 'stays')
  assert.equal(broker.received.some(({ cmd }) => cmd === 'unsubscribe'), false)
})

test('subscribing: conflicting options of one filter are an error that leaves nothing behind', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  fastify.mqtt.topic('a/<x>', { noLocal: true }, () => {})
  assert.throws(() => fastify.mqtt.topic('a/+', { name: 'other' }, () => {}), {
    code: 'FST_MQTT_TOPIC_CONFLICT', message: /'a\/\+' .* noLocal is true, not false/
  })
  assert.throws(() => fastify.mqtt.topicFor('other'), { code: 'FST_MQTT_TOPIC_UNKNOWN' })
})

test('gate: messages wait until every onReady is done, also those of plugins below', async (t) => {
  const broker = await startScriptedBroker(t, {
    onPacket: (packet) => {
      if (packet.cmd === 'subscribe') setImmediate(() => broker.publish({ topic: 'retained', retain: true }))
    }
  })
  const order: string[] = []
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<string>()
  fastify.mqtt.topic('retained', () => {
    order.push('message')
    seen.put('message')
  })
  await fastify.register(async (child) => {
    child.addHook('onReady', async () => {
      // A round trip: the message that the broker sent before has certainly arrived.
      await child.mqtt.publish('sent/in/onReady', '', { qos: 1 })
      order.push('onReady')
    })
  })
  await fastify.ready()
  await seen.next()
  assert.deepEqual(order, ['onReady', 'message'])
})

test('reconnect: a connection that is lost comes back with all its subscriptions', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify, logged } = await createApp(t, { url: broker.url })
  const messages = inbox<Message>()
  fastify.mqtt.topic('a', messages.put)
  fastify.mqtt.topic('b/+', { qos: 1 }, messages.put)
  await fastify.ready()
  const port = broker.port
  await broker.close()
  await logged(/lost the connection to/)
  assert.equal(fastify.mqtt.status, 'offline')
  const offline = settled(fastify.mqtt.publish('x', 'y', { qos: 1 }))
  const again = await startScriptedBroker(t, { port })
  await again.next('subscribe')
  await again.next('subscribe')
  again.publish({ topic: 'a', payload: '1' })
  again.publish({ topic: 'b/c', payload: '2', qos: 1 })
  assert.equal((await messages.next()).text(), '1')
  assert.equal((await messages.next()).text(), '2')
  await offline
})

test('publishing: before the start settles, at the latest by its timeout', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  await settled(fastify.mqtt.publish('a', 'b', { timeout: 50 }))
  await settled(fastify.mqtt.publish('a', 'b', { qos: 1, timeout: 50 }))
})

test('publishing: bad input is refused before the wire, and the next publish works', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: `${broker.url}/p` })
  await fastify.ready()
  const circular: Record<string, unknown> = {}
  circular['self'] = circular
  for (const [topic, payload, options, code] of [
    ['a/+', 'x', {}, 'FST_MQTT_TOPIC_NAME'],
    ['a/#', 'x', { qos: 1 }, 'FST_MQTT_TOPIC_NAME'],
    ['', 'x', {}, 'FST_MQTT_TOPIC_NAME'],
    [7, 'x', {}, 'FST_MQTT_TOPIC_NAME'],
    ['a\0', 'x', {}, 'FST_MQTT_TOPIC_NAME'],
    ['x'.repeat(65_535), 'x', {}, 'FST_MQTT_TOPIC_NAME'],
    ['$SYS/x', 'x', {}, 'FST_MQTT_TOPIC_OUTSIDE_PREFIX'],
    ['a', () => {}, {}, 'FST_MQTT_PAYLOAD_ENCODE'],
    ['a', circular, {}, 'FST_MQTT_PAYLOAD_ENCODE'],
    ['a', 10n, {}, 'FST_MQTT_PAYLOAD_ENCODE'],
    ['a', 'x', { qos: 3 }, 'FST_MQTT_PUBLISH_OPTIONS'],
    ['a', 'x', { retain: 1 }, 'FST_MQTT_PUBLISH_OPTIONS'],
    ['a', 'x', { ttl: 1 }, 'FST_MQTT_PUBLISH_OPTIONS'],
    ['a', 'x', null, 'FST_MQTT_PUBLISH_OPTIONS'],
    ['a', 'x', { properties: { messageExpiryInterval: -1 } }, 'FST_MQTT_PUBLISH_OPTIONS'],
    ['a', 'x', { properties: { userProperties: { a: null } } }, 'FST_MQTT_PUBLISH_OPTIONS']
  ] as const) {
    await assert.rejects(fastify.mqtt.publish(topic as string, payload, options as object), { code })
  }
  await fastify.mqtt.publish('good', 'x', { qos: 1, properties: { userProperties: {} } })
  assert.equal((await broker.next('publish')).topic, 'p/good')
  assert.equal(broker.connections.length, 1)
})

test('publishing: strings and bytes go as they are, nothing is the empty message, the rest is JSON', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  const bytes = new Uint8Array([0, 255])
  for (const [payload, expected] of [
    ['text', Buffer.from('text')], [undefined, Buffer.alloc(0)], [bytes, Buffer.from([0, 255])],
    [bytes.buffer, Buffer.from([0, 255])], [new DataView(bytes.buffer, 1), Buffer.from([255])],
    [42, Buffer.from('42')], [false, Buffer.from('false')], [null, Buffer.from('null')],
    [[1, 'a'], Buffer.from('[1,"a"]')], [{ a: NaN }, Buffer.from('{"a":null}')]
  ] as const) {
    await fastify.mqtt.publish('p', payload)
    assert.deepEqual((await broker.next('publish')).payload, expected)
  }
})

test('publishing: options and properties are on the wire, and those of the caller are not changed', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  const options = Object.freeze({
    qos: 2,
    retain: true,
    properties: Object.freeze({
      messageExpiryInterval: 5,
      contentType: 'text/x',
      responseTopic: 'answer',
      correlationData: new Uint8Array([1]),
      userProperties: Object.freeze({ a: ['1', '2'], b: '3' })
    })
  } as const)
  await fastify.mqtt.publish('p', 'x', options)
  const { qos, retain, properties } = await broker.next('publish')
  assert.equal(qos, 2)
  assert.equal(retain, true)
  assert.deepEqual({ ...properties, userProperties: { ...properties?.userProperties } }, {
    messageExpiryInterval: 5,
    contentType: 'text/x',
    responseTopic: 'answer',
    correlationData: Buffer.from([1]),
    userProperties: { a: ['1', '2'], b: '3' }
  })
})

test('publishing: properties need MQTT 5', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, protocolVersion: 4 })
  await fastify.ready()
  await assert.rejects(fastify.mqtt.publish('a', 'b', { properties: { contentType: 'x' } }), {
    code: 'FST_MQTT_NEEDS_MQTT5', message: 'Properties of a publish need MQTT 5, this connection speaks MQTT 3.1.1'
  })
})

test('publishing: what CONNACK does not allow is refused here', async (t) => {
  const broker = await startScriptedBroker(t, {
    connack: { properties: { maximumQoS: 1, retainAvailable: false, maximumPacketSize: 100 } }
  })
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  await assert.rejects(fastify.mqtt.publish('a', 'b', { qos: 2 }), {
    code: 'FST_MQTT_BROKER_LIMIT', message: /qos is 2, the highest is 1/
  })
  await assert.rejects(fastify.mqtt.publish('a', 'b', { retain: true }), { code: 'FST_MQTT_BROKER_LIMIT' })
  await assert.rejects(fastify.mqtt.publish('a', 'b'.repeat(95)), {
    code: 'FST_MQTT_BROKER_LIMIT', message: /the packet has 101 bytes, the largest is 100/
  })
  await fastify.mqtt.publish('a', 'b'.repeat(94))
  assert.equal((await broker.next('publish')).payload.length, 94)
})

test('publishing: a refusal in PUBACK is an error that names the reason', async (t) => {
  const broker = await startScriptedBroker(t, {
    onPacket: (packet, connection) => {
      if (packet.cmd !== 'publish') return false
      connection.send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: 0x87 })
      return true
    }
  })
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  await assert.rejects(fastify.mqtt.publish('a', 'b', { qos: 1 }), {
    code: 'FST_MQTT_PUBLISH_REFUSED', message: /to 'a': .*Not authorized/
  })
})

test('publishing: settles by its timeout, by its signal and after a lost connection', async (t) => {
  const broker = await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd === 'publish' })
  const { fastify, logged } = await createApp(t, { url: broker.url })
  await fastify.ready()
  await assert.rejects(fastify.mqtt.publish('a', 'b', { qos: 1, timeout: 50 }), { code: 'FST_MQTT_PUBLISH_TIMEOUT' })
  const abort = new AbortController()
  const aborted = fastify.mqtt.publish('a', 'b', { qos: 1, signal: abort.signal })
  await broker.next('publish')
  abort.abort(new Error('why'))
  await assert.rejects(aborted, (error: Error & { code: string }) =>
    error.code === 'FST_MQTT_ABORTED' && (error.cause as Error).message === 'why')
  await assert.rejects(fastify.mqtt.publish('a', 'b', { signal: AbortSignal.abort() }), { code: 'FST_MQTT_ABORTED' })
  const lost = settled(fastify.mqtt.publish('lost', 'b', { qos: 2, timeout: 2_000 }))
  await broker.next('publish')
  await broker.next('publish')
  broker.connections.at(-1)?.destroy()
  await lost
  await logged(/connected to/)
  await logged(/connected to/)
  await assert.rejects(fastify.mqtt.publish('after', 'b', { qos: 1, timeout: 50 }), { code: 'FST_MQTT_PUBLISH_TIMEOUT' })
  // Nothing that was given up is sent again.
  const sent = broker.received.flatMap((packet) => packet.cmd === 'publish' ? packet.topic : [])
  assert.deepEqual(sent.filter((topic) => topic !== 'lost'), ['a', 'a', 'after'])
})

test('publishing: Topic.publish encodes and validates by the schema', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: `${broker.url}/p` })
  await fastify.ready()
  const text = fastify.mqtt.topic('lamp/<int:id>', { qos: 1, payload: Type.String() })
  await text.publish({ id: 1 }, 'on')
  const packet = await broker.next('publish')
  assert.equal(packet.topic, 'p/lamp/1')
  assert.equal(packet.qos, 1)
  assert.equal(packet.payload.toString(), '"on"')
  assert.equal(packet.properties?.contentType, 'application/json')
  const number = fastify.mqtt.topic('number', { payload: Type.Number() })
  await assert.rejects(number.publish(NaN), { code: 'FST_MQTT_PAYLOAD_INVALID', statusCode: 400 })
  await assert.rejects(number.publish('1' as unknown as number), {
    code: 'FST_MQTT_PAYLOAD_INVALID', message: /expected number/i
  })
  const optional = fastify.mqtt.topic('optional', { payload: Type.Union([Type.Number(), Type.Undefined()]) })
  await optional.publish(undefined)
  assert.equal((await broker.next('publish')).payload.length, 0)
  await assert.rejects(text.publish({ id: 1.5 }, 'x'), { code: 'FST_MQTT_TOPIC_PARAM' })
  const wild = fastify.mqtt.topic('wild/+')
  await assert.rejects(wild.publish('x'), { code: 'FST_MQTT_TOPIC_WILDCARD' })
})

test('topic(): what it cannot take is an error that says so', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  const topic = fastify.mqtt.topic as unknown as (...args: unknown[]) => unknown
  const route = fastify.mqtt.route as unknown as (...args: unknown[]) => unknown
  for (const [args, code] of [
    [[7], 'FST_MQTT_TOPIC_PATTERN'],
    [['a', 7], 'FST_MQTT_TOPIC_OPTIONS'],
    [['a', {}, 7], 'FST_MQTT_TOPIC_OPTIONS'],
    [['a', { qqos: 1 }], 'FST_MQTT_TOPIC_OPTIONS'],
    [['a', { qos: 7 }], 'FST_MQTT_TOPIC_OPTIONS'],
    [['a', { codec: 'xml', payload: Type.String() }], 'FST_MQTT_TOPIC_OPTIONS'],
    [['a', { codec: 'text' }], 'FST_MQTT_TOPIC_OPTIONS'],
    [['$SYS/#'], 'FST_MQTT_TOPIC_OUTSIDE_PREFIX'],
    [['a', { payload: {} }], 'FST_MQTT_SCHEMA_INVALID'],
    [['$share/g/a', { noLocal: true }], 'FST_MQTT_TOPIC_OPTIONS']
  ] as const) {
    assert.throws(() => topic.call(fastify.mqtt, ...args), { code }, inspect(args))
  }
  assert.throws(() => route.call(fastify.mqtt, 'a'), { code: 'FST_MQTT_TOPIC_OPTIONS' })
  assert.throws(() => route.call(fastify.mqtt, {}), { code: 'FST_MQTT_TOPIC_PATTERN' })
  const registered = fastify.mqtt.topic('a')
  assert.throws(() => registered.onMessage('x' as never), { code: 'FST_MQTT_TOPIC_OPTIONS' })
  assert.throws(() => registered.topicFor({ absolut: true } as never), { code: 'FST_MQTT_TOPIC_PARAM' })
})

test('names: of the option, of the handler function, or none; ambiguous only when looked up', async (t) => {
  const { fastify } = await createApp(t, { prefix: 'p', start: 'manual' })
  fastify.mqtt.topic('a/<int:id>', async function reading () {})
  assert.equal(fastify.mqtt.topicFor('reading', { id: 42 }), 'a/42')
  assert.equal(fastify.mqtt.topicFor('reading', { id: 42 }, { absolute: true }), 'p/a/42')
  fastify.mqtt.topic('b/<int:id>', async function reading () {})
  assert.throws(() => fastify.mqtt.topicFor('reading', { id: 1 }), {
    code: 'FST_MQTT_TOPIC_NAME_AMBIGUOUS', message: /a\/<int:id>, b\/<int:id>/
  })
  fastify.mqtt.topic('c', { name: 'reading' })
  assert.equal(fastify.mqtt.topicFor('reading'), 'c')
  assert.throws(() => fastify.mqtt.topic('d', { name: 'reading' }), { code: 'FST_MQTT_TOPIC_NAME_TAKEN' })
  assert.equal(fastify.mqtt.route({ topic: 'e', handler: () => {} }).name, undefined)
})

test('secrets: no password where a person or a logger looks', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify, lines } = await createApp(t, { url: `mqtt://somebody:secret-password@127.0.0.1:${broker.port}` })
  await fastify.ready()
  const shown = [
    inspect(fastify.mqtt, { depth: 10, showHidden: true }), JSON.stringify(fastify.mqtt),
    JSON.stringify(fastify.mqtt.health()), JSON.stringify(lines),
    inspect(fastify.mqtt.client?.options), JSON.stringify(fastify.mqtt.client?.options)
  ].join('\n')
  assert.doesNotMatch(shown, /secret-password/)
})
