import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import type { Message } from '../lib/index.ts'
import { createApp, inbox } from './helpers/app.ts'
import { createDispatcher, incoming } from './helpers/dispatcher.ts'
import { startScriptedBroker } from './helpers/scripted-broker.ts'

test('handlers: run in the order of registration, over all topics that match', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<number>()
  const topic = fastify.mqtt.topic('a/+', () => seen.put(0))
  for (let index = 1; index < 5; index++) topic.onMessage(() => seen.put(index))
  fastify.mqtt.topic('a/<x>', () => seen.put(5))
  fastify.mqtt.topic('a/b', () => seen.put(6))
  fastify.mqtt.topic('#', () => seen.put(7))
  await fastify.ready()
  broker.publish({ topic: 'a/b' })
  for (let index = 0; index < 8; index++) assert.equal(await seen.next(), index)
})

test('handlers: the same function added twice is called twice, and removed once', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<string>()
  const handler = (message: Message) => seen.put(message.topic)
  const topic = fastify.mqtt.topic('a', handler)
  const remove = topic.onMessage(handler)
  fastify.mqtt.topic('end', handler)
  await fastify.ready()
  broker.publish({ topic: 'a' })
  broker.publish({ topic: 'end' })
  assert.deepEqual([await seen.next(), await seen.next(), await seen.next()], ['a', 'a', 'end'])
  remove()
  broker.publish({ topic: 'a' })
  broker.publish({ topic: 'end' })
  assert.deepEqual([await seen.next(), await seen.next()], ['a', 'end'])
})

test('handlers: none sees what another changes', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<unknown>()
  const schema = Type.Object({ list: Type.Array(Type.Number()) })
  const spoil = (message: Message<{ x: string }, { list: number[] }>) => {
    message.payload.list.push(2)
    message.raw.fill(0)
    message.properties.contentType = 'spoilt'
    assert.throws(() => { message.params.x = 'spoilt' }, TypeError)
  }
  const look = (message: Message<{ x: string }, { list: number[] }>) => {
    seen.put([message.payload, message.params.x, message.text(), message.properties.contentType])
  }
  fastify.mqtt.topic('a/<x>', { payload: schema }, spoil).onMessage(look)
  fastify.mqtt.topic('a/<x>', { payload: schema }, look)
  await fastify.ready()
  broker.publish({ topic: 'a/b', payload: '{"list":[1]}', properties: { contentType: 'application/json' } })
  const untouched = [{ list: [1] }, 'b', '{"list":[1]}', 'application/json']
  assert.deepEqual(await seen.next(), untouched)
  assert.deepEqual(await seen.next(), untouched)
})

test('handlers: values of own converters are made anew for each handler and message', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, {
    url: broker.url,
    converters: {
      day: { parse: (text) => new Date(text), format: (day) => (day as Date).toISOString().slice(0, 10) }
    }
  })
  const seen = inbox<number>()
  const handler = (message: { params: Record<string, unknown> }) => {
    const day = message.params['day'] as Date
    seen.put(day.getUTCFullYear())
    day.setUTCFullYear(1900)
  }
  const pattern: string = 'log/<day:day>'
  const topic = fastify.mqtt.topic(pattern, handler)
  topic.onMessage(handler)
  assert.equal(topic.topicFor({ day: new Date(0) } as never), 'log/1970-01-01')
  await fastify.ready()
  for (let index = 0; index < 2; index++) broker.publish({ topic: 'log/2026-11-22' })
  for (let index = 0; index < 4; index++) assert.equal(await seen.next(), 2026)
})

for (const { name, fail } of [
  { name: 'throws', fail: () => { throw new Error('broken') } },
  { name: 'rejects', fail: async () => { throw new Error('broken') } },
  { name: 'throws no Error', fail: () => { throw 'broken' } } // eslint-disable-line no-throw-literal -- the case
]) {
  test(`failures: a handler that ${name} is logged once, the next message is handled`, async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify, lines } = await createApp(t, { url: broker.url })
    const seen = inbox<string>()
    fastify.mqtt.topic('bad', { qos: 1 }, fail)
    fastify.mqtt.topic('good', (message) => seen.put(message.topic))
    await fastify.ready()
    broker.publish({ topic: 'bad', qos: 1 })
    broker.publish({ topic: 'good' })
    await seen.next()
    await fastify.mqtt.idle()
    const failures = lines.filter(({ msg }) => msg === 'an MQTT message was not handled')
    assert.deepEqual(failures.map(({ pattern, topic }) => [pattern, topic]), [['bad', 'bad']])
    assert.match(JSON.stringify(failures[0]?.err), /broken/)
    assert.equal(fastify.mqtt.health().messages.failed, 1)
  })
}

test('params: text that does not convert is no match, and is counted', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify, logged } = await createApp(t, { url: broker.url })
  const seen = inbox<number>()
  fastify.mqtt.topic('number/<int:number>', (message) => seen.put(message.params.number))
  await fastify.ready()
  broker.publish({ topic: 'number/abc' })
  broker.publish({ topic: 'number/2' })
  assert.equal(await seen.next(), 2)
  await logged(/no topic matches/)
  const { received, unmatched, failed } = fastify.mqtt.health().messages
  assert.deepEqual({ received, unmatched, failed }, { received: 2, unmatched: 1, failed: 0 })
})

test('params: what the schema refuses is a validation error, and reaches no handler', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify, logged } = await createApp(t, { url: broker.url })
  const seen = inbox<number>()
  fastify.mqtt.topic('n/<int:n>', { params: Type.Object({ n: Type.Integer({ minimum: 1 }) }) },
    (message) => seen.put(message.params.n))
  await fastify.ready()
  for (const n of [0, 0, 1]) broker.publish({ topic: `n/${n}` })
  assert.equal(await seen.next(), 1)
  const { err } = await logged(/was not handled/)
  assert.equal(err?.code, 'FST_MQTT_PARAMS_INVALID')
  assert.match(err?.message ?? '', /'n\/<int:n>': \/n: .*greater or equal to 1, got a number/)
  assert.equal(fastify.mqtt.health().messages.failed, 2)
})

for (const { name, payload, code, message } of [
  { name: 'no JSON', payload: '{"celsius":', code: 'FST_MQTT_PAYLOAD_DECODE', message: /is no JSON/ },
  { name: 'a wrong type', payload: '{"celsius":"hot"}', code: 'FST_MQTT_PAYLOAD_INVALID', message: /\/celsius: .*number, got a string/ },
  { name: 'a __proto__ key', payload: '{"celsius":1,"__proto__":{}}', code: 'FST_MQTT_PAYLOAD_DECODE', message: /has a __proto__/ },
  { name: 'nothing', payload: '', code: 'FST_MQTT_PAYLOAD_INVALID', message: /got undefined/ },
  { name: 'no UTF-8', payload: Buffer.from([0xff]), code: 'FST_MQTT_PAYLOAD_DECODE', message: /UTF-8/ },
  { name: 'too many bytes', payload: Buffer.alloc(101, ' '), code: 'FST_MQTT_PAYLOAD_TOO_LARGE', message: /101 bytes, maxPayload allows 100/ }
]) {
  test(`payloads: ${name} is logged once for all handlers of a topic, and reaches none`, async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify, lines } = await createApp(t, { url: broker.url, maxPayload: 100 })
    const seen = inbox<number>()
    const put = ({ payload }: Message<object, { celsius: number }>) => seen.put(payload.celsius)
    const topic = fastify.mqtt.topic('t', { payload: Type.Object({ celsius: Type.Number() }) }, put)
    topic.onMessage(put)
    await fastify.ready()
    broker.publish({ topic: 't', payload })
    broker.publish({ topic: 't', payload: '{"celsius":20.5}' })
    assert.deepEqual([await seen.next(), await seen.next()], [20.5, 20.5])
    const failures = lines.filter(({ msg }) => msg === 'an MQTT message was not handled')
    assert.equal(failures.length, 1)
    assert.equal(failures[0]?.err?.code, code)
    assert.match(failures[0]?.err?.message ?? '', message)
  })
}

test('payloads: without a schema the bytes as they are, text and JSON on demand', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<Message>()
  fastify.mqtt.topic('t', seen.put)
  await fastify.ready()
  broker.publish({ topic: 't', payload: '{"data":[1]}', retain: true })
  const message = await seen.next()
  assert.ok(Buffer.isBuffer(message.payload))
  assert.deepEqual(message.json(), { data: [1] })
  assert.equal(message.text(), '{"data":[1]}')
  assert.equal(message.retain, true)
  assert.equal(message.qos, 0)
  assert.equal(message.dup, false)
  assert.deepEqual(message.properties, {})
  broker.publish({ topic: 't', payload: Buffer.from([0xff, 0xfe, 1]) })
  const binary = await seen.next()
  assert.deepEqual(binary.payload, Buffer.from([0xff, 0xfe, 1]))
  assert.throws(() => binary.text(), { code: 'FST_MQTT_PAYLOAD_DECODE' })
  assert.throws(() => binary.json(), { code: 'FST_MQTT_PAYLOAD_DECODE' })
})

test('payloads: a known content type chooses the codec, an unknown one is left to the topic', async (t) => {
  const broker = await startScriptedBroker(t)
  const upper = {
    contentType: 'text/upper',
    encode: (value: unknown) => String(value).toUpperCase(),
    decode: (bytes: Buffer) => bytes.toString().toLowerCase()
  }
  const { fastify } = await createApp(t, { url: broker.url, codecs: [upper] })
  const seen = inbox<string>()
  const topic = fastify.mqtt.topic('t', { payload: Type.String(), codec: 'text/upper' }, (message) => seen.put(message.payload))
  await fastify.ready()
  for (const [contentType, payload] of [
    [undefined, 'HELLO'], ['application/unknown', 'HELLO'], ['application/json; charset=utf-8', '"hello"'], ['text/plain', 'hello']
  ] as const) {
    broker.publish({ topic: 't', payload, ...(contentType === undefined ? {} : { properties: { contentType } }) })
    assert.equal(await seen.next(), 'hello')
  }
  await topic.publish('hello')
  const packet = await broker.next('publish')
  assert.equal(packet.payload.toString(), 'HELLO')
  assert.equal(packet.properties?.contentType, 'text/upper')
})

test('messages: all properties of MQTT 5 are there', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<Message>()
  fastify.mqtt.topic('t', seen.put)
  await fastify.ready()
  broker.publish({
    topic: 't',
    properties: {
      payloadFormatIndicator: true,
      messageExpiryInterval: 9,
      responseTopic: 'answer',
      correlationData: Buffer.from('id'),
      contentType: 'x/y',
      userProperties: { a: ['1', '2'], b: '3' },
      subscriptionIdentifier: 7
    }
  })
  const { properties } = await seen.next()
  assert.deepEqual({ ...properties, userProperties: { ...properties.userProperties } }, {
    payloadFormatIndicator: true,
    messageExpiryInterval: 9,
    responseTopic: 'answer',
    correlationData: Buffer.from('id'),
    contentType: 'x/y',
    userProperties: { a: ['1', '2'], b: '3' },
    subscriptionIdentifiers: [7]
  })
})

test('messages: the prefix is taken off on a level boundary only', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: `${broker.url}/site1` })
  const seen = inbox<[string, string]>()
  fastify.mqtt.topic('#', ({ topic, absoluteTopic }) => seen.put([topic, absoluteTopic]))
  fastify.mqtt.topic('sensors/#', { absolute: true }, ({ topic, absoluteTopic }) => seen.put([topic, absoluteTopic]))
  await fastify.ready()
  for (const topic of ['site1/sensors/kitchen', 'sensors/kitchen/temp', 'site1']) broker.publish({ topic })
  assert.deepEqual(await seen.next(), ['sensors/kitchen', 'site1/sensors/kitchen'])
  assert.deepEqual(await seen.next(), ['sensors/kitchen/temp', 'sensors/kitchen/temp'])
  assert.deepEqual(await seen.next(), ['', 'site1'])
})

test('messages: log is a child of the instance that names pattern and topic', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify, logged } = await createApp(t, { url: `${broker.url}/p` })
  fastify.mqtt.topic('a/<x>', (message) => {
    assert.equal(message.log, message.log)
    message.log.info('hello')
  })
  await fastify.ready()
  broker.publish({ topic: 'p/a/b' })
  const { pattern, topic } = await logged(/^hello$/)
  assert.deepEqual([pattern, topic], ['a/<x>', 'a/b'])
})

test('idle: waits for handlers, and ends with a coded error where one does not, as one that waits for itself', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  let end = (): void => {}
  const ended = new Promise<void>((resolve) => { end = resolve })
  fastify.mqtt.topic('long', () => ended)
  fastify.mqtt.topic('itself', async () => {
    await Promise.resolve()
    await fastify.mqtt.idle({ timeout: 10 })
  })
  const { handlers: [itself] } = await fastify.mqtt.inject({ topic: 'itself' })
  const expected = {
    code: 'FST_MQTT_IDLE_TIMEOUT', message: /After 10 ms handlers are still running \(1\): a handler that awaits idle\(\)/
  }
  await assert.rejects(Promise.reject(itself?.error), expected)
  const long = fastify.mqtt.inject({ topic: 'long' })
  await assert.rejects(fastify.mqtt.idle({ timeout: 10 }), expected)
  const idle = fastify.mqtt.idle()
  end()
  await Promise.all([idle, long])
  for (const options of [{ timeout: 0 }, { timeout: '1' }, { timeOut: 1 }, 7]) {
    await assert.rejects(fastify.mqtt.idle(options as object), { code: 'FST_MQTT_OPTIONS_INVALID' })
  }
})

test('gate: what comes before the application is ready is kept by the limits of the inbox', () => {
  const { dispatcher, warnings } = createDispatcher({ maxMessages: 3 })
  for (let index = 0; index < 5; index++) dispatcher.receive(incoming(`t/${index}`))
  const receipt = { hold () {}, release () {} }
  for (let index = 0; index < 5; index++) dispatcher.receive({ ...incoming('q'), qos: 1 }, receipt)
  assert.equal(dispatcher.stats.dropped, 2)
  assert.equal(dispatcher.stats.waiting, 8)
  assert.deepEqual(warnings, [{ dropped: 1 }])
  dispatcher.open()
  dispatcher.open()
  const { received, unmatched, waiting } = dispatcher.stats
  assert.deepEqual({ received, unmatched, waiting }, { received: 10, unmatched: 8, waiting: 0 })
})

test('payloads: 2 MB of JSON need a maxPayload of that size', async (t) => {
  const broker = await startScriptedBroker(t)
  const payload = JSON.stringify({ text: 'x'.repeat(2_000_000) })
  for (const maxPayload of [undefined, 3_000_000]) {
    const { fastify, lines } = await createApp(t, { url: broker.url, maxPayload })
    const seen = inbox<number>()
    fastify.mqtt.topic('t', { payload: Type.Object({ text: Type.String() }) }, (message) => seen.put(message.payload.text.length))
    await fastify.ready()
    broker.publish({ topic: 't', payload })
    broker.publish({ topic: 't', payload: '{"text":"short"}' })
    assert.equal(await seen.next(), maxPayload === undefined ? 5 : 2_000_000)
    const codes = lines.flatMap(({ err }) => err?.code ?? [])
    assert.deepEqual(codes, maxPayload === undefined ? ['FST_MQTT_PAYLOAD_TOO_LARGE'] : [])
  }
})

test('payloads: a handler that never reads its payload is called for valid ones only', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<string>()
  fastify.mqtt.topic('t/<x>', { payload: Type.Number() }, (message) => seen.put(message.params.x))
  await fastify.ready()
  for (const [x, payload] of [['a', 'no'], ['b', '"1"'], ['c', ''], ['d', '1']] as const) {
    broker.publish({ topic: `t/${x}`, payload })
  }
  assert.equal(await seen.next(), 'd')
  assert.equal(seen.all.length, 1)
})

test('payloads: an empty message is undefined, where the schema accepts that', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<unknown>()
  fastify.mqtt.topic('t', { payload: Type.Union([Type.Number(), Type.Undefined()]) }, (message) => {
    seen.put(message.payload === undefined ? 'empty' : message.payload)
  })
  await fastify.ready()
  broker.publish({ topic: 't', payload: '' })
  broker.publish({ topic: 't', payload: '7' })
  assert.equal(await seen.next(), 'empty')
  assert.equal(await seen.next(), 7)
})
