import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import { inspect } from 'node:util'
import { FormatRegistry, Type } from '@sinclair/typebox'
import multimqtt, { defineTopic, type TopicContract } from '../lib/index.ts'
import { createApp, createFastify, inbox } from './helpers/app.ts'
import { certificates, mosquittoMissing, startMosquitto } from './helpers/mosquitto.ts'
import { closedPort } from './helpers/ports.ts'
import { startScriptedBroker } from './helpers/scripted-broker.ts'

test('a schema whose check throws refuses the message, and the next one is handled', async (t) => {
  FormatRegistry.Set('explosive', () => { throw new Error('boom') })
  const broker = await startScriptedBroker(t)
  const { fastify, logged } = await createApp(t, { url: broker.url })
  const seen = inbox<string>()
  const explosive = Type.String({ format: 'explosive' })
  fastify.mqtt.topic('params/<id>', { params: Type.Object({ id: explosive }) }, () => assert.fail('never'))
  const payload = fastify.mqtt.topic('payload', { payload: explosive }, () => assert.fail('never'))
  fastify.mqtt.topic('good', (message) => seen.put(message.topic))
  await fastify.ready()
  for (const topic of ['params/1', 'payload', 'good']) broker.publish({ topic, payload: '"x"' })
  assert.equal(await seen.next(), 'good')
  assert.equal((await logged(/was not handled/)).err?.code, 'FST_MQTT_PARAMS_INVALID')
  assert.equal((await logged(/was not handled/)).err?.code, 'FST_MQTT_PAYLOAD_INVALID')
  await assert.rejects(payload.publish('x'), { code: 'FST_MQTT_PAYLOAD_INVALID' })
})

test('an UNSUBSCRIBE or SUBSCRIBE that is never answered costs no other filter', async (t) => {
  const broker = await startScriptedBroker(t, {
    onPacket: (packet) => packet.cmd === 'unsubscribe' ||
      (packet.cmd === 'subscribe' && packet.subscriptions.some(({ topic }) => topic === 'mute'))
  })
  const { fastify, logged } = await createApp(t, { url: broker.url, connectTimeout: 300 })
  const seen = inbox<string>()
  const first = fastify.mqtt.topic('first', () => {})
  await fastify.ready()
  first.remove()
  await broker.next('unsubscribe')
  fastify.mqtt.topic('mute', { qos: 1 }, () => {})
  fastify.mqtt.topic('heard', (message) => seen.put(message.topic))
  await logged(/subscription to 'mute' was refused: no answer within 300 ms/)
  assert.deepEqual(fastify.mqtt.health().subscriptions.granted, [{ filter: 'heard', qos: 0 }])
  broker.publish({ topic: 'heard' })
  assert.equal(await seen.next(), 'heard')
})

test('SUBSCRIBE and UNSUBSCRIBE keep to the packet size of the broker', async (t) => {
  const broker = await startScriptedBroker(t, { connack: { properties: { maximumPacketSize: 100 } } })
  const { fastify, logged } = await createApp(t, { url: broker.url })
  const topics = Array.from({ length: 20 }, (_, index) => fastify.mqtt.topic(`some/longer/topic/${index}`, () => {}))
  fastify.mqtt.topic(`too/long/${'x'.repeat(100)}` as string, () => {})
  await fastify.ready()
  await logged(/was refused: it is larger than the packets that the broker accepts/)
  for (const topic of topics) topic.remove()
  for (let left = 20; left > 0;) left -= (await broker.next('unsubscribe')).unsubscriptions.length
  const filters = {
    subscribe: broker.received.flatMap((packet) =>
      packet.cmd === 'subscribe' ? [packet.subscriptions.map(({ topic }) => topic)] : []),
    unsubscribe: broker.received.flatMap((packet) => packet.cmd === 'unsubscribe' ? [packet.unsubscriptions] : [])
  }
  for (const cmd of ['subscribe', 'unsubscribe'] as const) {
    assert.equal(filters[cmd].flat().length, 20)
    // The least that these filters take: a length and the text.
    for (const packet of filters[cmd]) {
      const size = packet.reduce((sum, filter) => sum + filter.length + 2, 0)
      assert.ok(size <= 100, `${cmd} of ${size} bytes`)
    }
  }
})

test('one copy for all overlapping subscriptions, of which one has no identifier yet, is for the topics of both', async (t) => {
  let first = 0
  const broker = await startScriptedBroker(t, {
    onPacket: (packet, connection) => {
      if (packet.cmd !== 'subscribe') return false
      const [filter] = packet.subscriptions.map(({ topic }) => topic)
      // Answered late, so that the wider one overtakes its renewal.
      if (filter === 'a/+' && first === 0) {
        first = packet.messageId ?? 0
        return true
      }
      if (filter !== 'a/#') return false
      for (const messageId of [first, packet.messageId ?? 0]) connection.send({ cmd: 'suback', messageId, granted: [1] })
      const { subscriptionIdentifier = 0 } = packet.properties ?? {}
      connection.send({
        cmd: 'publish',
        topic: 'a/b',
        payload: '',
        qos: 1,
        messageId: 1,
        dup: false,
        retain: false,
        properties: { subscriptionIdentifier }
      })
      return true
    }
  })
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  const seen = inbox<string>()
  for (const filter of ['a/+', 'a/#'] as const) {
    fastify.mqtt.topic(filter, { qos: 1 }, () => seen.put(filter))
    await broker.next('subscribe')
  }
  await broker.next('puback')
  assert.deepEqual([...seen.all].sort(), ['a/#', 'a/+'])
  // From then on each has its own.
  await fastify.mqtt.connect()
  const identifiers = broker.received.flatMap((packet) =>
    packet.cmd === 'subscribe' ? packet.properties?.subscriptionIdentifier ?? 0 : [])
  assert.equal(new Set(identifiers).size, 3)
  broker.publish({ topic: 'a/b', qos: 1, properties: { subscriptionIdentifier: identifiers.at(-1) ?? 0 } })
  await broker.next('puback')
  assert.deepEqual([...seen.all].sort(), ['a/#', 'a/+', 'a/+'])
})

test('no more messages are in flight than the broker takes, the others wait and go in order', async (t) => {
  let unanswered: number[] = []
  let highest = 0
  const broker = await startScriptedBroker(t, {
    connack: { properties: { receiveMaximum: 3 } },
    onPacket: (packet, connection) => {
      if (packet.cmd !== 'publish' || packet.qos === 0) return false
      unanswered.push(packet.messageId ?? 0)
      highest = Math.max(highest, unanswered.length)
      setImmediate(() => {
        for (const messageId of unanswered) connection.send({ cmd: 'puback', messageId, reasonCode: 0 })
        unanswered = []
      })
      return true
    }
  })
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  const signal = AbortSignal.abort()
  const numbers = Array.from({ length: 20 }, (_, index) => index)
  const publishing = numbers.map((n) => fastify.mqtt.publish(`n/${n}`, '', { qos: 1 }))
  const abort = new AbortController()
  const given = assert.rejects(fastify.mqtt.publish('given/up', '', { qos: 1, signal: abort.signal }), {
    code: 'FST_MQTT_ABORTED'
  })
  await assert.rejects(fastify.mqtt.publish('aborted', '', { qos: 1, signal }), { code: 'FST_MQTT_ABORTED' })
  abort.abort()
  await fastify.mqtt.publish('urgent', '')
  await Promise.all([...publishing, given])
  const topics = broker.received.flatMap((packet) => packet.cmd === 'publish' ? packet.topic : [])
  assert.deepEqual(topics.filter((topic) => topic !== 'urgent'), numbers.map((n) => `n/${n}`))
  assert.ok(topics.indexOf('urgent') < topics.length - 1, 'QoS 0 does not wait')
  assert.equal(highest, 3)
})

test('a start that fails elsewhere leaves no connection behind', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = createFastify(t)
  await fastify.register(multimqtt, { url: broker.url })
  await fastify.register(multimqtt, {
    namespace: 'other', url: `mqtt://127.0.0.1:${await closedPort()}`, connectTimeout: 100
  })
  const disconnected = broker.next('disconnect')
  await assert.rejects(async () => await fastify.ready(), { code: 'FST_MQTT_CONNECT_FAILED' })
  await disconnected
  await fastify.mqtt.close()
  assert.equal(fastify.mqtt.status, 'closed')
})

test('the params schema holds for topic names that are made, too', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  const topic = fastify.mqtt.topic('s/<int:id>', {
    name: 'sensor', params: Type.Object({ id: Type.Integer({ minimum: 1 }) })
  })
  const expected = { code: 'FST_MQTT_TOPIC_PARAM', message: /'s\/<int:id>': \/id: .*greater or equal to 1/ }
  assert.equal(topic.topicFor({ id: 1 }), 's/1')
  assert.throws(() => topic.topicFor({ id: -5 }), expected)
  assert.throws(() => fastify.mqtt.topicFor('sensor', { id: -5 }), expected)
  await assert.rejects(topic.publish({ id: -5 }, 'x'), expected)
})

test('a contract keeps its settings in route(), and where they are given as undefined', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  const contract: TopicContract = defineTopic('c/<x>', { name: 'contract', qos: 2 }) as unknown as TopicContract
  fastify.mqtt.topic(contract, { qos: undefined, name: undefined }, () => {}).remove()
  const topic = fastify.mqtt.topic(contract, { qos: undefined, name: undefined }, () => {})
  assert.deepEqual(fastify.mqtt.topics().map(({ name, qos }) => [name, qos]), [['contract', 2]])
  topic.remove()
  fastify.mqtt.route({ topic: contract as unknown as 'c/<x>', handler: () => {} })
  assert.deepEqual(fastify.mqtt.topics().map(({ name, qos }) => [name, qos]), [['contract', 2]])
  assert.throws(() => (fastify.mqtt.topic as (...args: unknown[]) => unknown).call(fastify.mqtt, 'a', () => {}, {}), {
    code: 'FST_MQTT_TOPIC_OPTIONS', message: /options come before the handler/
  })
})

test("the broker's own reason for ending a connection is in the log and in health()", async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify, logged } = await createApp(t, { url: broker.url })
  await fastify.ready()
  broker.connections.at(-1)?.send({ cmd: 'disconnect', reasonCode: 0x8e })
  broker.connections.at(-1)?.socket.end()
  const { err } = await logged(/lost the connection/)
  assert.match(err?.message ?? '', /^the broker ended the connection: Session taken over \(0x8e\)$/)
  assert.match(fastify.mqtt.health().lastError?.message ?? '', /Session taken over/)
})

test('version: a reset before CONNACK is a refusal of MQTT 5 as a close is', async (t) => {
  const broker = await startScriptedBroker(t, {
    onPacket: (packet, connection) => {
      if (packet.cmd !== 'connect' || packet.protocolVersion === 4) return false
      connection.socket.resetAndDestroy()
      return true
    }
  })
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  assert.equal(fastify.mqtt.health().protocolVersion, 4)
})

test('a WebSocket to an IPv6 address is tried as such', async (t) => {
  const { fastify } = await createApp(t, { url: `ws://[::1]:${await closedPort()}/mqtt`, connectTimeout: 2_000 })
  await assert.rejects(async () => await fastify.ready(), {
    code: 'FST_MQTT_CONNECT_FAILED',
    message: /^Could not connect to ws:\/\/\[::1\]:\d+ .*(ECONNREFUSED|EADDRNOTAVAIL|EAFNOSUPPORT)/
  })
})

test('close() during connect() ends the socket before it resolves, and a second start has causes of its own', async (t) => {
  const port = await closedPort()
  const { fastify } = await createApp(t, { url: `mqtt://127.0.0.1:${port}`, start: 'manual', connectTimeout: 100 })
  await assert.rejects(fastify.mqtt.connect(), /ECONNREFUSED/)
  await startScriptedBroker(t, { port, onPacket: () => true })
  await assert.rejects(fastify.mqtt.connect(), /\(1 attempt\): no answer/)
})

suite('on Mosquitto', { skip: mosquittoMissing }, () => {
  test('60 messages of QoS 2 at once are all taken, at its receive maximum of 20', async (t) => {
    const broker = await startMosquitto(t, { lines: ['max_queued_messages 0'] })
    const { fastify } = await createApp(t, { url: broker.url })
    await fastify.ready()
    await Promise.all(Array.from({ length: 60 }, (_, n) => fastify.mqtt.publish(`n/${n}`, '', { qos: 2 })))
  })

  test('neither the client nor its options show the key or the passphrase', async (t) => {
    const broker = await startMosquitto(t)
    const key = readFileSync(certificates.clientKey, 'utf8')
    const secret = key.split('\n')[2] ?? ''
    assert.ok(secret.length > 10)
    const { fastify } = await createApp(t, {
      url: `mqtts://localhost:${broker.ports.tls}`,
      tls: {
        ca: readFileSync(certificates.ca),
        cert: readFileSync(certificates.clientCert),
        key,
        passphrase: 'canary-phrase'
      }
    })
    await fastify.ready()
    const { options } = fastify.mqtt.client ?? {}
    const shown = inspect(options, { depth: 9, showHidden: true }) + JSON.stringify(options)
    assert.equal(shown.includes(secret) || shown.includes('canary-phrase'), false)
  })
})
