import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { FastifyInstance } from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import multimqtt, { type Mqtt } from '../lib/index.ts'
import { createApp, createFastify, inbox } from './helpers/app.ts'
import { startScriptedBroker } from './helpers/scripted-broker.ts'

declare module 'fastify' {
  interface FastifyInstance {
    floorName: string
  }
}

function namespaceOf (fastify: FastifyInstance, name: string): Mqtt {
  return (fastify.mqtt as unknown as Record<string, Mqtt>)[name] as Mqtt
}

test('scopes: siblings have their own `this`, decorator and topicPrefix; names are app-wide', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: `${broker.url}/site` })
  const seen = inbox<string>()
  for (const floor of ['floor1', 'floor2']) {
    await fastify.register(async (child) => {
      child.decorate('floorName', `the ${floor}`)
      child.mqtt.topic('room/<name>', { name: `room on ${floor}` }, function (message) {
        assert.equal(message.server, this)
        assert.equal(this, child)
        seen.put(`${this.floorName}: ${message.topic} ${message.params.name}`)
      })
    }, { topicPrefix: floor })
  }
  await fastify.ready()
  assert.equal(fastify.hasDecorator('floorName'), false)
  assert.deepEqual(fastify.mqtt.health().subscriptions.granted.map(({ filter }) => filter),
    ['site/floor1/room/+', 'site/floor2/room/+'])
  broker.publish({ topic: 'site/floor2/room/blue' })
  assert.equal(await seen.next(), 'the floor2: floor2/room/blue blue')
  broker.publish({ topic: 'site/floor1/room/red' })
  assert.equal(await seen.next(), 'the floor1: floor1/room/red red')
  assert.equal(fastify.mqtt.topicFor('room on floor1', { name: 'red' }), 'floor1/room/red')
  assert.equal(fastify.mqtt.topicFor('room on floor2', { name: 'red' }, { absolute: true }), 'site/floor2/room/red')
})

test('scopes: topicPrefix is nested, kept out of absolute topics and raw publishes, put after the share group', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: `${broker.url}/site` })
  const filters: string[] = []
  await fastify.register(async (outer) => {
    await outer.register(async (inner) => {
      filters.push(
        inner.mqtt.topic('a').filter,
        inner.mqtt.topic('$share/g/t/+').filter,
        inner.mqtt.topic('$SYS/#', { absolute: true }).filter)
      inner.addHook('onReady', async () => { await inner.mqtt.publish('raw', '') })
    }, { topicPrefix: 'two/' })
  }, { topicPrefix: 'one' })
  await fastify.ready()
  assert.deepEqual(filters, ['site/one/two/a', '$share/g/site/one/two/t/+', '$SYS/#'])
  assert.equal((await broker.next('publish')).topic, 'site/raw')
})

test('scopes: a plugin wrapped by fastify-plugin shares the context of its parent', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  await fastify.register(fastifyPlugin(async (same) => {
    assert.equal(same.mqtt, fastify.mqtt)
  }))
  await fastify.register(async (child) => {
    assert.notEqual(child.mqtt, fastify.mqtt)
  })
})

test('scopes: a context that is older than the plugin has its own fastify.mqtt, as those below it have', async (t) => {
  const { fastify } = createFastify(t)
  const contexts: FastifyInstance[] = []
  fastify.register(async (child) => {
    contexts.push(child)
    child.decorate('floorName', 'the child')
    child.register(async (grandchild) => { contexts.push(grandchild) })
    child.addHook('onReady', async function () {
      this.mqtt.addHook('preHandler', function () { trail.push(`hook of ${this.floorName}`) })
      this.mqtt.topic('a', function () { trail.push(`handler of ${this.floorName}`) })
    })
  })
  const trail: string[] = []
  fastify.register(multimqtt, { start: 'manual' })
  fastify.after(() => { fastify.mqtt.topic('root', () => { trail.push('handler of the root') }) })
  await fastify.ready()
  const [child, grandchild] = contexts
  const all = [fastify.mqtt, child?.mqtt, grandchild?.mqtt]
  assert.equal(new Set(all).size, 3)
  assert.deepEqual([fastify.mqtt, child?.mqtt, grandchild?.mqtt], all)
  for (const topic of ['a', 'root']) await fastify.mqtt.inject({ topic })
  assert.deepEqual(trail, ['hook of the child', 'handler of the child', 'handler of the root'])
})

test('scopes: a proxy of the instance has its fastify.mqtt', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  assert.equal(new Proxy(fastify, {}).mqtt, fastify.mqtt)
})

for (const topicPrefix of ['a/+', 'a/#', '$SYS', 'a/<x>', 7]) {
  test(`scopes: the topicPrefix ${topicPrefix} is an error`, async (t) => {
    const { fastify } = await createApp(t, { start: 'manual' })
    await assert.rejects(async () => {
      await fastify.register(async () => {}, { topicPrefix: topicPrefix as string })
    }, { code: 'FST_MQTT_OPTIONS_INVALID' })
  })
}

test('namespaces: each is a connection with its own broker, prefix and topics', async (t) => {
  const [one, two] = [await startScriptedBroker(t), await startScriptedBroker(t)]
  const { fastify } = await createApp(t, { url: `${one.url}/site1` })
  await fastify.register(multimqtt, { url: `${two.url}/site2`, namespace: 'telemetry' })
  const telemetry = namespaceOf(fastify, 'telemetry')
  const seen = inbox<string>()
  fastify.mqtt.topic('x', (message) => seen.put(`default ${message.topic}`))
  telemetry.topic('x', (message) => seen.put(`telemetry ${message.topic}`))
  await fastify.ready()
  await telemetry.publish('y', 'z')
  assert.equal((await two.next('publish')).topic, 'site2/y')
  assert.equal(one.received.some(({ cmd }) => cmd === 'publish'), false)
  two.publish({ topic: 'site2/x' })
  assert.equal(await seen.next(), 'telemetry x')
  one.publish({ topic: 'site1/x' })
  assert.equal(await seen.next(), 'default x')
})

test('namespaces: without a default connection its members say what to use instead', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = createFastify(t)
  await fastify.register(multimqtt, { url: broker.url, namespace: 'telemetry' })
  const message = /fastify\.mqtt\.\w+ needs the default connection, .* namespaces telemetry/
  const expected = { code: 'FST_MQTT_NO_DEFAULT', message }
  assert.throws(() => fastify.mqtt.topic('a'), expected)
  assert.throws(() => fastify.mqtt.topicFor('a'), expected)
  assert.throws(() => fastify.mqtt.status, expected)
  assert.throws(() => fastify.mqtt.health(), expected)
  assert.throws(() => fastify.mqtt.client, expected)
  await assert.rejects(fastify.mqtt.publish('a'), expected)
  await assert.rejects(fastify.mqtt.connect(), expected)
  await assert.rejects(fastify.mqtt.close(), expected)
  await assert.rejects(fastify.mqtt.idle(), expected)
  await fastify.ready()
  assert.equal(namespaceOf(fastify, 'telemetry').status, 'ready')
})

test('namespaces: one that is registered in a child does not leak to the root or to siblings', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  await fastify.register(async (child) => {
    await child.register(multimqtt, { namespace: 'mine', start: 'manual' })
    assert.ok('mine' in child.mqtt)
    await child.register(async (grandchild) => {
      assert.equal(namespaceOf(grandchild, 'mine').status, 'idle')
      assert.notEqual(namespaceOf(grandchild, 'mine'), namespaceOf(child, 'mine'))
    })
  })
  await fastify.register(async (sibling) => {
    assert.equal('mine' in sibling.mqtt, false)
    await sibling.register(multimqtt, { namespace: 'mine', start: 'manual' })
  })
  assert.equal('mine' in fastify.mqtt, false)
})

test('namespaces: one that is registered later is there for the contexts that are already below', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  let child: FastifyInstance | undefined
  await fastify.register(async (instance) => { child = instance }, { topicPrefix: 'low' })
  await fastify.register(multimqtt, { namespace: 'late', prefix: 'p', start: 'manual' })
  assert.ok(child)
  assert.equal(namespaceOf(child, 'late').topic('a').filter, 'p/low/a')
})

test('namespaces: handlers of a namespace run with the context that registered them', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = createFastify(t)
  await fastify.register(multimqtt, { url: broker.url, namespace: 'telemetry' })
  const seen = inbox<boolean>()
  await fastify.register(async (child) => {
    namespaceOf(child, 'telemetry').topic('x', function () { seen.put(this === child) })
  })
  await fastify.ready()
  broker.publish({ topic: 'x' })
  assert.equal(await seen.next(), true)
})

test('registration: the same connection twice, or a namespace that is a member, is an error', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  await assert.rejects(async () => await fastify.register(multimqtt, {}), {
    code: 'FST_MQTT_ALREADY_REGISTERED', message: /The default connection is already registered here/
  })
})

for (const { namespace, message } of [
  { namespace: 'publish', message: /'publish' is a member of fastify\.mqtt/ },
  { namespace: 'twice', message: /The namespace 'twice' is already registered here/ },
  { namespace: 'no name', message: /Invalid option 'namespace'/ }
]) {
  test(`registration: the namespace '${namespace}' is refused`, async (t) => {
    const { fastify } = await createApp(t, { namespace: 'twice', start: 'manual' })
    await assert.rejects(async () => await fastify.register(multimqtt, { namespace, start: 'manual' }), { message })
  })
}

test('registration: bad options leave a second registration unharmed', async (t) => {
  const broker = await startScriptedBroker(t)
  const first = createFastify(t).fastify
  await assert.rejects(async () => await first.register(multimqtt, { url: 'mqtt://127.0.0.1:99999' }), {
    code: 'FST_MQTT_OPTIONS_INVALID'
  })
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  assert.equal(fastify.mqtt.status, 'ready')
})
