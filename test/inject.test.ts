import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import multimqtt from '../lib/index.ts'
import { createApp, createFastify } from './helpers/app.ts'
import { startScriptedBroker } from './helpers/scripted-broker.ts'

test('inject: brings a message through router, params, codecs and validation to the handlers, without a broker', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual', prefix: 'site' })
  fastify.mqtt.topic('sensor/<int:id>', { name: 'sensor', payload: Type.Object({ celsius: Type.Number() }) },
    async (message) => `${message.params.id} ${message.payload.celsius} ${message.absoluteTopic}`)
  fastify.mqtt.topic('#', (message) => message.text())
  const result = await fastify.mqtt.inject({ topic: 'sensor/7', payload: { celsius: 20.5 }, qos: 1, retain: true })
  assert.equal(result.matched, 2)
  assert.equal(result.acknowledged, true)
  const [typed, raw] = result.handlers
  assert.deepEqual([typed?.name, typed?.pattern, typed?.params, typed?.outcome, typed?.returned],
    ['sensor', 'sensor/<int:id>', { id: 7 }, 'handled', '7 20.5 site/sensor/7'])
  assert.deepEqual([raw?.name, raw?.pattern, raw?.returned], [undefined, '#', '{"celsius":20.5}'])
  assert.ok((typed?.durationMs ?? -1) >= 0)
})

test('inject: a failure is in the result, and rejects nothing', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  fastify.mqtt.topic('n', { payload: Type.Number() }, () => {})
  const { handlers: [end] } = await fastify.mqtt.inject({ topic: 'n', payload: Buffer.from('{"broken') })
  assert.equal(end?.outcome, 'failed')
  assert.equal((end.error as { code: string }).code, 'FST_MQTT_PAYLOAD_DECODE')
})

test('inject: a topic that nobody has matches nothing, and is told as unmatched', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  const unmatched: string[] = []
  fastify.mqtt.addHook('onUnmatched', (message) => { unmatched.push(message.topic) })
  const result = await fastify.mqtt.inject({ topic: 'nobody' })
  assert.deepEqual(result, { matched: 0, handlers: [], published: [], acknowledged: true })
  assert.deepEqual(unmatched, ['nobody'])
})

test('inject: what is published meanwhile is caught for it alone, 100 at once, and nothing is sent', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: `${broker.url}/p` })
  const answer = fastify.mqtt.topic('answer/<int:n>', { payload: Type.Object({ n: Type.Integer() }) })
  fastify.mqtt.topic('ask/<int:n>', { qos: 1 }, async ({ params: { n } }) => {
    await new Promise((resolve) => setImmediate(resolve))
    await fastify.mqtt.publish('raw', Buffer.from([n]), { qos: 2, retain: true })
    await new Promise((resolve) => setImmediate(resolve))
    await answer.publish({ n }, { n })
  })
  await fastify.ready()
  const numbers = Array.from({ length: 100 }, (_, index) => index)
  const results = await Promise.all(numbers.map((n) => fastify.mqtt.inject({ topic: `ask/${n}` })))
  for (const [n, { published }] of results.entries()) {
    assert.deepEqual(published.map(({ topic, qos, retain }) => [topic, qos, retain]),
      [['p/raw', 2, true], [`p/answer/${n}`, 0, false]])
    assert.deepEqual(published[0]?.payload, Buffer.from([n]))
    assert.deepEqual(published[1]?.json(), { n })
    assert.equal(published[1]?.text(), `{"n":${n}}`)
    assert.equal(published[1]?.properties.contentType, 'application/json')
  }
  // Outside of an injection a publish is a publish again.
  await fastify.mqtt.publish('real', '', { qos: 1 })
  assert.deepEqual(broker.received.flatMap((packet) => packet.cmd === 'publish' ? packet.topic : []), ['p/real'])
})

test('inject: catches what is published on other connections too, for each injection by itself', async (t) => {
  const { fastify } = createFastify(t)
  await fastify.register(multimqtt, { start: 'manual', prefix: 'p' })
  await fastify.register(multimqtt, { start: 'manual', prefix: 'o', namespace: 'other' })
  const { other } = fastify.mqtt as unknown as { other: FastifyInstance['mqtt'] }
  fastify.mqtt.topic('to/<n>', async ({ params }) => {
    await other.publish('b', params.n)
    await fastify.mqtt.publish('c', params.n)
  })
  other.topic('to/<n>', async ({ params }) => { await fastify.mqtt.publish('d', params.n) })
  const results = await Promise.all([
    fastify.mqtt.inject({ topic: 'to/1' }), other.inject({ topic: 'to/2' }), fastify.mqtt.inject({ topic: 'to/3' })
  ])
  assert.deepEqual(
    results.map(({ published }) => published.map((one) => [one.namespace, one.topic, one.text()])), [
      [['other', 'o/b', '1'], [undefined, 'p/c', '1']],
      [[undefined, 'p/d', '2']],
      [['other', 'o/b', '3'], [undefined, 'p/c', '3']]
    ])
})

test('inject: what was published is out of reach of its publisher', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  const bytes = Buffer.from('1')
  const userProperties = { n: '1' }
  fastify.mqtt.topic('a', async () => {
    await fastify.mqtt.publish('b', bytes, { properties: { userProperties, correlationData: bytes } })
    bytes.write('2')
    userProperties.n = '2'
  })
  const { published: [one] } = await fastify.mqtt.inject({ topic: 'a' })
  assert.deepEqual([one?.text(), one?.payload.toString()], ['1', '1'])
  assert.equal(one?.properties.userProperties?.['n'], '1')
  assert.equal(one.properties.correlationData?.toString(), '1')
})

test('inject: a bad publish fails within an injection as it does without one', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  fastify.mqtt.topic('a', async () => { await fastify.mqtt.publish('a/+', 'x') })
  const { handlers: [end] } = await fastify.mqtt.inject({ topic: 'a' })
  assert.equal((end?.error as { code: string }).code, 'FST_MQTT_TOPIC_NAME')
})

test("inject: with start: 'wait' it needs an application that is ready, and says so", async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  fastify.mqtt.topic('a', () => 'ok')
  await assert.rejects(fastify.mqtt.inject({ topic: 'a' }), {
    code: 'FST_MQTT_INJECT_NOT_READY', message: /await fastify\.ready\(\) first, or register with start: 'manual'/
  })
  await fastify.ready()
  const { handlers: [end] } = await fastify.mqtt.inject({ topic: 'a' })
  assert.equal(end?.returned, 'ok')
})

test('inject: makes an application ready that needs no broker for it', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  const order: string[] = []
  fastify.addHook('onReady', async () => { order.push('ready') })
  fastify.mqtt.topic('a', () => { order.push('message') })
  await fastify.mqtt.inject({ topic: 'a' })
  assert.deepEqual(order, ['ready', 'message'])
})

test('inject: absolute topics, properties, and what it cannot take', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual', prefix: 'p' })
  fastify.mqtt.topic('$SYS/#', { absolute: true }, (message) => message.properties.contentType)
  const { handlers: [end] } = await fastify.mqtt.inject({
    topic: '$SYS/x', absolute: true, properties: { contentType: 'text/x' }
  })
  assert.equal(end?.returned, 'text/x')
  for (const [options, code] of [
    [{ topic: '$SYS/x' }, 'FST_MQTT_TOPIC_OUTSIDE_PREFIX'],
    [{ topic: 'a/+' }, 'FST_MQTT_TOPIC_NAME'],
    [{}, 'FST_MQTT_TOPIC_NAME'],
    [{ topic: 'a', qos: 3 }, 'FST_MQTT_PUBLISH_OPTIONS'],
    [{ topic: 'a', quality: 3 }, 'FST_MQTT_PUBLISH_OPTIONS'],
    [{ topic: 'a', payload: () => {} }, 'FST_MQTT_PAYLOAD_ENCODE'],
    ['a', 'FST_MQTT_PUBLISH_OPTIONS']
  ] as const) {
    await assert.rejects(fastify.mqtt.inject(options as { topic: string }), { code })
  }
  await fastify.close()
  await assert.rejects(fastify.mqtt.inject({ topic: 'a' }), { code: 'FST_MQTT_CLOSED' })
})
