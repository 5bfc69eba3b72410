import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { Type } from '@sinclair/typebox'
import { errors, type Message } from '../lib/index.ts'
import { Codecs } from '../lib/payload/codecs.ts'
import { defined } from '../lib/values.ts'
import { createApp, inbox } from './helpers/app.ts'
import { deferred } from './helpers/deadline.ts'
import { createDispatcher, incoming, TestReceipt } from './helpers/dispatcher.ts'
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

test('messages: log is a child of the instance that names pattern, topic and message, made when it is asked for', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify, logged } = await createApp(t, { url: `${broker.url}/p` })
  const silent = inbox<string>()
  fastify.mqtt.topic('silent', (message) => silent.put(message.topic))
  fastify.mqtt.topic('a/<x>', { qos: 1 }, (message) => {
    assert.equal(message.log, message.log)
    message.log.info('hello')
  })
  await fastify.ready()
  const child = t.mock.method(fastify.log, 'child')
  broker.publish({ topic: 'p/silent' })
  await silent.next()
  assert.equal(child.mock.callCount(), 0)
  for (const [qos, expected] of [[0, undefined], [1, 1]] as const) {
    broker.publish({ topic: 'p/a/b', qos })
    const { pattern, topic, messageId } = await logged(/^hello$/)
    assert.deepEqual([pattern, topic, messageId], ['a/<x>', 'a/b', expected])
  }
  assert.equal(child.mock.callCount(), 2)
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

/** A turn of the event loop, which setImmediate is also when setTimeout is mocked. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Lets time pass, and what comes of it happen. */
async function pass (t: TestContext, ms: number): Promise<void> {
  t.mock.timers.tick(ms)
  await turn()
}

test('retry: runs the failed handler alone again, after growing pauses, each time with a message of its own', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { dispatcher, topic, failures } = createDispatcher()
  dispatcher.open()
  const seen: string[] = []
  let runs = 0
  const receipt = new TestReceipt()
  topic('t', [
    (message) => {
      seen.push(message.text())
      message.raw.fill('x')
      if (++runs < 4) throw new Error(`failure ${runs}`)
    },
    () => { seen.push('other') }
  ], { retry: { limit: 3, delayMs: 100, factor: 2 } })
  dispatcher.receive(incoming('t', 'm', 1), receipt)
  await turn()
  assert.deepEqual(seen, ['m', 'other'])
  for (const [pause, count] of [[99, 2], [1, 3], [199, 3], [1, 4], [399, 4]] as const) {
    await pass(t, pause)
    assert.equal(seen.length, count)
    assert.equal(receipt.isSettled, false)
  }
  assert.deepEqual(failures.map(String), ['Error: failure 1', 'Error: failure 2', 'Error: failure 3'])
  await pass(t, 1)
  assert.deepEqual(seen, ['m', 'other', 'm', 'm', 'm'])
  assert.equal(receipt.isSettled, true)
  const { retried, failed, running, waiting } = dispatcher.stats
  assert.deepEqual({ retried, failed, running, waiting }, { retried: 3, failed: 3, running: 0, waiting: 0 })
})

test('retry: a handler that was removed meanwhile is not run again', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { dispatcher, topic } = createDispatcher()
  dispatcher.open()
  let runs = 0
  const route = topic('t', () => {
    runs++
    throw new Error('always')
  }, { retry: { limit: 5, delayMs: 10, factor: 1 } }) as { handlers: unknown }
  const receipt = new TestReceipt()
  dispatcher.receive(incoming('t', '', 1), receipt)
  await turn()
  route.handlers = []
  await pass(t, 10)
  assert.deepEqual([runs, receipt.isSettled, dispatcher.stats.waiting], [1, true, 0])
})

test('retry: what fails for good is acknowledged, and the next message is handled', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { dispatcher, topic, failures } = createDispatcher()
  dispatcher.open()
  const seen: string[] = []
  topic('t', async (message) => {
    seen.push(message.text())
    if (message.text() === 'bad') throw new Error('always')
  }, { retry: { limit: 2, delayMs: 10, factor: 1 } })
  const [bad, good] = [new TestReceipt(), new TestReceipt()]
  dispatcher.receive(incoming('t', 'bad', 1), bad)
  dispatcher.receive(incoming('t', 'good', 2), good)
  await turn()
  for (let count = 0; count < 2; count++) {
    assert.deepEqual([bad.isSettled, good.isSettled], [false, false])
    await pass(t, 10)
  }
  assert.deepEqual(seen, ['bad', 'bad', 'bad', 'good'])
  assert.deepEqual([bad.isSettled, good.isSettled, failures.length], [true, true, 3])
})

test('retry: a pause takes no slot, and holds only the messages of its own topic name', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { dispatcher, topic } = createDispatcher({}, { concurrency: 1 })
  dispatcher.open()
  const seen: string[] = []
  topic('t/+', (message) => {
    seen.push(message.topic)
    if (message.topic === 't/bad' && seen.length < 3) throw new Error('once')
  }, { retry: { limit: 1, delayMs: 10, factor: 1 } })
  for (const name of ['t/bad', 't/bad', 't/good']) dispatcher.receive(incoming(name))
  await turn()
  assert.deepEqual(seen, ['t/bad', 't/good'])
  assert.deepEqual([dispatcher.stats.running, dispatcher.stats.waiting], [0, 2])
  await pass(t, 10)
  assert.deepEqual(seen, ['t/bad', 't/good', 't/bad', 't/bad'])
})

test('retry: what decoding and schemas refuse is not tried again', async () => {
  const { dispatcher, topic, failures, letters } = createDispatcher()
  dispatcher.open()
  const handler = () => assert.fail('it was refused')
  topic('t', [handler, handler], {
    retry: { limit: 3, delayMs: 1, factor: 1 },
    deadLetter: 'dead',
    payload: { codec: new Codecs({ protoAction: 'error', constructorAction: 'error' }).json, check: () => undefined }
  })
  const receipt = new TestReceipt()
  dispatcher.receive(incoming('t', 'no JSON', 1), receipt)
  await dispatcher.idle()
  assert.deepEqual([failures.length, letters.length, dispatcher.stats.retried], [1, 1, 0])
  assert.equal(receipt.isSettled, true)
})

test('retry: one that waits gives way when more comes than the inbox takes, and lets the next one run', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { dispatcher, topic, letters } = createDispatcher({ maxMessages: 1 })
  dispatcher.open()
  const seen: string[] = []
  topic('t', (message) => {
    seen.push(message.text())
    if (message.text() === '1') throw new Error('always')
  }, { retry: { limit: 9, delayMs: 10, factor: 1 }, deadLetter: 'dead' })
  dispatcher.receive(incoming('t', '1'))
  await turn()
  dispatcher.receive(incoming('t', '2'))
  await dispatcher.idle()
  assert.deepEqual([seen, letters, dispatcher.stats.dropped], [['1', '2'], [], 1])
})

test('retry: with the close it is given up, and the message stays unacknowledged', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { dispatcher, topic, letters } = createDispatcher()
  dispatcher.open()
  let runs = 0
  const fail = async () => {
    runs++
    await turn()
    throw new Error('always')
  }
  topic('t/+', fail, { retry: { limit: 9, delayMs: 10, factor: 1 }, deadLetter: 'dead' })
  topic('m', fail, { retry: { limit: 9, delayMs: 10, factor: 1 }, ack: 'manual' })
  const receipts = [new TestReceipt(), new TestReceipt(), new TestReceipt()]
  dispatcher.receive(incoming('t/a', '', 1), receipts[0])
  dispatcher.receive(incoming('m', '', 2), receipts[1])
  await turn()
  await turn()
  dispatcher.receive(incoming('t/b', '', 3), receipts[2])
  dispatcher.stop()
  // One of them ran when it was stopped.
  await dispatcher.idle()
  await pass(t, 1_000)
  assert.equal(runs, 3)
  assert.deepEqual(receipts.map(({ isSettled }) => isSettled), [false, false, false])
  assert.deepEqual(letters, [])
})

test("retry: with ack: 'manual' each attempt can acknowledge; the last failure does it by itself", async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { dispatcher, topic } = createDispatcher()
  dispatcher.open()
  let runs = 0
  topic('t/+', (message) => {
    runs++
    if (message.topic === 't/acked' && runs === 2) return message.ack()
    throw new Error('failed')
  }, { retry: { limit: 1, delayMs: 10, factor: 1 }, ack: 'manual' })
  for (const name of ['t/acked', 't/failed']) {
    runs = 0
    const receipt = new TestReceipt()
    dispatcher.receive(incoming(name, '', 1), receipt)
    await turn()
    assert.equal(receipt.isSettled, false)
    await pass(t, 10)
    assert.deepEqual([runs, receipt.isSettled], [2, true])
  }
})

const letter = {
  'dead-letter-code': 'UNKNOWN', 'dead-letter-message': 'no use', 'dead-letter-topic': 't/x', 'dead-letter-attempts': '2'
}

test('deadLetter: a topic has the payload as it came, with the QoS and properties of the message, and the reason', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { dispatcher, topic, letters } = createDispatcher()
  dispatcher.open()
  // Two handlers that fail are one message that has failed.
  const fail = () => { throw new Error('no use') }
  topic('t/+', [fail, fail], { retry: { limit: 1, delayMs: 10, factor: 1 }, deadLetter: 'dead' })
  const properties = {
    contentType: 'text/plain',
    messageExpiryInterval: 5,
    subscriptionIdentifier: 7,
    userProperties: { a: ['1', '2'], 'dead-letter-code': 'old' }
  }
  const receipt = new TestReceipt()
  dispatcher.receive({ ...incoming('t/x', 'bytes', 1), qos: 2, properties }, receipt)
  await turn()
  await pass(t, 10)
  assert.equal(receipt.isSettled, true)
  assert.equal(dispatcher.stats.deadLettered, 1)
  const [{ properties: sent = {}, ...others } = assert.fail('no letter'), ...more] = letters
  assert.deepEqual(more, [])
  assert.deepEqual(others, { topic: 'dead', payload: Buffer.from('bytes'), qos: 2 })
  assert.deepEqual(defined(sent), { contentType: 'text/plain', userProperties: { a: ['1', '2'], ...letter } })
})

for (const { name, thrown, code, message } of [
  { name: 'one of ours', thrown: new errors.FST_MQTT_OFFLINE('here'), code: 'FST_MQTT_OFFLINE', message: 'Not connected to here: the message was not sent' },
  { name: 'a string with what no packet may have', thrown: 'a\0b\ud800', code: 'UNKNOWN', message: 'a b\ufffd' },
  { name: 'something that cannot be read', thrown: Object.create(null), code: 'UNKNOWN', message: 'unreadable' },
  { name: 'a very long one', thrown: new Error('x'.repeat(5_000)), code: 'UNKNOWN', message: 'x'.repeat(1_000) }
]) {
  test(`deadLetter: the reason is told of ${name}; what a packet may not have is left out`, async () => {
    const { dispatcher, topic, letters } = createDispatcher()
    dispatcher.open()
    topic('t/+', () => { throw thrown }, { deadLetter: 'dead' })
    dispatcher.receive({ ...incoming('t/x'), properties: { contentType: 'a\0' } })
    await dispatcher.idle()
    assert.deepEqual(letters[0]?.properties, {
      userProperties: { ...letter, 'dead-letter-code': code, 'dead-letter-message': message, 'dead-letter-attempts': '1' }
    })
  })
}

test('deadLetter: a function has the message with its bytes, and why; another message goes on meanwhile', async () => {
  const { dispatcher, topic } = createDispatcher()
  dispatcher.open()
  const error = new Error('no use')
  const taken = deferred<void>()
  const calls: unknown[] = []
  const seen: string[] = []
  const server = {} as Message['server']
  topic('t/+', (message) => {
    seen.push(message.text())
    if (message.text() === 'bad') throw error
  }, {
    server,
    async deadLetter (message, reason) {
      calls.push([this, message.topic, message.payload, reason])
      await taken.promise
    }
  })
  const receipt = new TestReceipt()
  dispatcher.receive(incoming('t/x', 'bad', 1), receipt)
  dispatcher.receive(incoming('t/x', 'good'))
  await turn()
  assert.deepEqual(calls, [[server, 't/x', Buffer.from('bad'), { error, attempts: 1 }]])
  assert.deepEqual(seen, ['bad', 'good'])
  assert.deepEqual([receipt.isSettled, dispatcher.stats.running], [false, 1])
  taken.resolve()
  await dispatcher.idle()
  assert.deepEqual([receipt.isSettled, dispatcher.stats.deadLettered], [true, 1])
})

test('deadLetter: a target that fails is told and tried again with growing pauses; at last it is given up', async (t) => {
  // With the clock, by which the lines of the log are limited.
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  const { dispatcher, topic, failures } = createDispatcher()
  dispatcher.open()
  let calls = 0
  topic('t', () => { throw new Error('no use') }, {
    deadLetter () {
      calls++
      throw new Error('full')
    }
  })
  const receipt = new TestReceipt()
  dispatcher.receive(incoming('t', '', 1), receipt)
  await turn()
  for (const pause of [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]) {
    const before = calls
    await pass(t, pause - 1)
    assert.deepEqual([calls, receipt.isSettled], [before, false])
    await pass(t, 1)
    assert.equal(calls, before + 1)
  }
  assert.deepEqual([calls, receipt.isSettled, dispatcher.stats.deadLettered], [10, true, 0])
  assert.equal(failures.length, 11)
  const [, first, last] = [failures[0], failures[1], failures.at(-1)] as (Error & { code?: string })[]
  assert.equal(first?.code, 'FST_MQTT_DEAD_LETTER')
  assert.match(first?.message ?? '', /target of 't' has failed \(full\): it is tried again in 500 ms/)
  assert.match(last?.message ?? '', /\(full\): it is given up/)
  assert.deepEqual([dispatcher.stats.running, dispatcher.stats.waiting], [0, 0])
})

test('deadLetter: a broker that is away is waited for, however long', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let attempts = 0
  const { dispatcher, topic } = createDispatcher({}, {
    async publish () {
      attempts++
      if (attempts <= 50) throw new errors.FST_MQTT_PUBLISH_TIMEOUT(1)
    }
  })
  dispatcher.open()
  topic('t', () => { throw new Error('no use') }, { deadLetter: 'dead' })
  const receipt = new TestReceipt()
  dispatcher.receive(incoming('t', '', 1), receipt)
  await turn()
  for (let count = 0; count < 50; count++) {
    assert.equal(receipt.isSettled, false)
    await pass(t, 30_000)
  }
  assert.deepEqual([attempts, receipt.isSettled, dispatcher.stats.deadLettered], [51, true, 1])
})

test('deadLetter: of QoS 0, letters that wait give way as other messages do; with the close all are given up', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { dispatcher, topic } = createDispatcher({ maxMessages: 1 })
  dispatcher.open()
  topic('t', () => { throw new Error('no use') }, { deadLetter: async () => { throw new Error('full') } })
  const receipt = new TestReceipt()
  dispatcher.receive(incoming('t'))
  dispatcher.receive(incoming('t'))
  dispatcher.receive(incoming('t', '', 1), receipt)
  await turn()
  assert.deepEqual([dispatcher.stats.dropped, dispatcher.stats.waiting], [1, 2])
  dispatcher.stop()
  await dispatcher.idle()
  assert.equal(receipt.isSettled, false)
})

test("deadLetter: with ack: 'manual' a message that was not acknowledged in time is one, too", async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { dispatcher, topic, letters } = createDispatcher({}, { concurrency: 1 })
  dispatcher.open()
  const end = deferred<void>()
  topic('t', () => {}, { deadLetter: 'dead', ack: 'manual', ackTimeoutMs: 10 })
  topic('busy', () => end.promise)
  const receipt = new TestReceipt()
  dispatcher.receive(incoming('t', '', 1), receipt)
  dispatcher.receive(incoming('busy'))
  await pass(t, 10)
  assert.deepEqual([letters.length, receipt.isSettled], [0, false])
  end.resolve()
  await dispatcher.idle()
  assert.equal(letters[0]?.properties.userProperties?.['dead-letter-code'], 'FST_MQTT_ACK_TIMEOUT')
  assert.equal(receipt.isSettled, true)
})

test("deadLetter: with ack: 'before' nothing is acknowledged twice", async () => {
  const { dispatcher, topic, letters } = createDispatcher()
  dispatcher.open()
  topic('t', async () => { throw new Error('no use') }, { deadLetter: 'dead', ack: 'before' })
  let releases = 0
  dispatcher.receive(incoming('t', '', 1), { hold () { releases-- }, release () { releases++ } })
  assert.equal(releases, 1)
  await dispatcher.idle()
  assert.deepEqual([letters.length, releases], [1, 1])
})

test('intercept: passes hooks, the gate, the rules and the close; topics that match have the message too', async () => {
  const { dispatcher, topic } = createDispatcher()
  const seen: string[] = []
  const remove = dispatcher.intercept('reply/+', ({ topic }) => seen.push(`intercepted ${topic}`))
  topic('#', (message) => {
    seen.push(message.topic)
  })
  const receipts = [new TestReceipt(), new TestReceipt(), new TestReceipt()]
  dispatcher.receive(incoming('reply/1', '', 1), receipts[0])
  assert.deepEqual([seen, receipts[0]?.isSettled], [['intercepted reply/1'], false])
  dispatcher.open()
  assert.deepEqual([seen, receipts[0]?.isSettled], [['intercepted reply/1', 'reply/1'], true])
  dispatcher.stop()
  dispatcher.receive(incoming('reply/2', '', 2), receipts[1])
  assert.deepEqual([seen.slice(2), receipts[1]?.isSettled], [['intercepted reply/2'], false])
  remove()
  dispatcher.receive(incoming('reply/3', '', 3), receipts[2])
  assert.equal(seen.length, 3)
})

test('intercept: a message that is for nobody else is acknowledged at once, and counts for nothing; what throws is logged', () => {
  const { dispatcher, failures } = createDispatcher({}, { onUnmatched: () => assert.fail('it was taken') })
  let taken = 0
  dispatcher.intercept('$CONTROL/dynamic-security/v1/response', () => {
    taken++
    throw new Error('no reply')
  })
  for (const step of [() => {}, () => dispatcher.open(), () => dispatcher.stop()]) {
    step()
    const receipt = new TestReceipt()
    dispatcher.receive(incoming('$CONTROL/dynamic-security/v1/response', '{}', 1), receipt)
    assert.equal(receipt.isSettled, true)
  }
  assert.deepEqual([taken, failures.map(String)], [3, Array(3).fill('Error: no reply')])
  assert.equal(dispatcher.stats.received, 0)
})

test('overlapping filters: a copy is for the topics whose subscriptions it names, and for all if it names none', () => {
  const filters = new Map([[1, 'a/#'], [2, 'a/+']])
  const { dispatcher, topic } = createDispatcher({}, {
    isFor: (filter, ids) => ids.some((id) => filters.get(id) === filter)
  })
  dispatcher.open()
  const seen: string[] = []
  topic('a/#', () => { seen.push('a/#') })
  topic('a/<x>', () => { seen.push('a/<x>') })
  topic('a/<int:x>', () => { seen.push('a/<int:x>') })
  dispatcher.intercept('a/#', () => { seen.push('reply') })
  for (const [ids, expected] of [
    [[1], ['reply', 'a/#']],
    [[2], ['a/<x>', 'a/<int:x>']],
    [[2, 1], ['reply', 'a/#', 'a/<x>', 'a/<int:x>']],
    [[], ['reply', 'a/#', 'a/<x>', 'a/<int:x>']]
  ] as const) {
    seen.length = 0
    dispatcher.receive({ ...incoming('a/1'), subscriptionIds: ids })
    assert.deepEqual(seen, expected)
  }
})

test('inject: waits for retries and the dead letter, and for nothing else', async () => {
  const { dispatcher, topic, letters } = createDispatcher({}, { concurrency: 1 })
  dispatcher.open()
  const frozen = deferred<void>()
  topic('busy', () => frozen.promise)
  let runs = 0
  topic('t', [
    async () => {
      await turn()
      return 'slow'
    },
    () => {
      if (++runs < 3) throw new Error('not yet')
      return 'third'
    },
    () => { throw new Error('never') }
  ], { retry: { limit: 2, delayMs: 1, factor: 1 }, deadLetter: 'dead' })
  dispatcher.receive(incoming('busy'))
  const receipt = new TestReceipt()
  const { matched, ends } = await dispatcher.inject(incoming('t', '', 1), receipt)
  assert.equal(matched, 1)
  assert.deepEqual(ends.map(({ outcome, returned }) => [outcome, returned]), [
    ['handled', 'slow'], ['handled', 'third'], ['failed', undefined]
  ])
  assert.deepEqual([letters.length, receipt.isSettled, dispatcher.stats.retried], [1, true, 4])
  frozen.resolve()
  await dispatcher.idle()
})

test('inject: is given up with the close, and tells what it has', async () => {
  const { dispatcher, topic } = createDispatcher()
  dispatcher.open()
  topic('t', () => { throw new Error('never') }, { retry: { limit: 9, delayMs: 60_000, factor: 1 } })
  const receipt = new TestReceipt()
  const injected = dispatcher.inject(incoming('t', '', 1), receipt)
  await turn()
  dispatcher.stop()
  assert.deepEqual((await injected).ends.map(({ outcome }) => outcome), ['failed'])
  assert.equal(receipt.isSettled, false)
})

test('deadLetter: one that the topic receives itself, and one that is too deep with its prefix, are refused', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual', prefix: Array(150).fill('p').join('/') })
  assert.throws(() => fastify.mqtt.topic('a/#', { deadLetter: 'a/dead' }, () => {}), {
    code: 'FST_MQTT_TOPIC_OPTIONS', message: /which this topic receives itself/
  })
  assert.throws(() => fastify.mqtt.topic('b', { deadLetter: Array(100).fill('d').join('/') }, () => {}), {
    code: 'FST_MQTT_TOPIC_OPTIONS', message: /deadLetter: with its prefix/
  })
})
