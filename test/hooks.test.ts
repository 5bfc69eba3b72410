import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import multimqtt, { type AnyMessage, type HookName, type MqttHooks } from '../lib/index.ts'
import { createApp, createFastify, inbox, type TestApp } from './helpers/app.ts'
import { deferred } from './helpers/deadline.ts'
import { startScriptedBroker } from './helpers/scripted-broker.ts'

declare module 'fastify' {
  interface FastifyInstance {
    ofChild: string
  }
}

const manual = { start: 'manual' } as const
const failure = 'an MQTT message was not handled'
const failures = ({ lines }: TestApp) => lines.filter(({ msg }) => msg === failure)

/** Hooks that write down their names, on both sides of an application: HTTP routes and topics. */
function trace (fastify: FastifyInstance, trail: string[], label: string): void {
  fastify.addHook('onRequest', async () => { trail.push(`${label} first`) })
  fastify.addHook('preValidation', async () => { trail.push(`${label} preValidation`) })
  fastify.addHook('preHandler', async () => { trail.push(`${label} preHandler`) })
  fastify.addHook('onResponse', async () => { trail.push(`${label} last`) })
  fastify.mqtt.addHook('onMessage', async () => { trail.push(`${label} first`) })
  fastify.mqtt.addHook('preValidation', async () => { trail.push(`${label} preValidation`) })
  fastify.mqtt.addHook('preHandler', async () => { trail.push(`${label} preHandler`) })
  fastify.mqtt.addHook('onSettled', async () => { trail.push(`${label} last`) })
}

/** What a request and a message leave in the trail. */
async function both (fastify: FastifyInstance, trail: string[], path: string): Promise<[string[], string[]]> {
  const response = await fastify.inject({ method: 'POST', url: `/${path}`, payload: { n: 1 } })
  assert.ok(response.statusCode < 500)
  const http = trail.splice(0)
  await fastify.mqtt.inject({ topic: path, payload: { n: 1 } })
  return [http, trail.splice(0)]
}

test('hooks: run in the order of the life cycle, those of the scope before those of the topic, as for routes', async (t) => {
  const { fastify } = await createApp(t, manual)
  const trail: string[] = []
  trace(fastify, trail, 'scope')
  const own = (name: string) => async () => { trail.push(`own ${name}`) }
  const schema = Type.Object({ n: Type.Number() })
  fastify.post('/a', {
    schema: { body: schema },
    onRequest: own('first'),
    preValidation: [own('preValidation'), own('second')],
    preHandler: own('preHandler'),
    onResponse: own('last')
  }, async () => { trail.push('handler') })
  fastify.mqtt.topic('a', {
    payload: schema,
    onMessage: own('first'),
    preValidation: [own('preValidation'), own('second')],
    preHandler: own('preHandler'),
    onSettled: own('last')
  }, async () => { trail.push('handler') })
  await fastify.ready()
  const [http, mqtt] = await both(fastify, trail, 'a')
  assert.deepEqual(mqtt, [
    'scope first', 'own first', 'scope preValidation', 'own preValidation', 'own second', 'scope preHandler',
    'own preHandler', 'handler', 'scope last', 'own last'
  ])
  assert.deepEqual(http, mqtt)
})

test('hooks: are inherited downwards, not by siblings, with the context of the topic as `this`, as for routes', async (t) => {
  const { fastify } = await createApp(t, manual)
  const trail: string[] = []
  trace(fastify, trail, 'root')
  const contexts: unknown[] = []
  const see = function (this: FastifyInstance) { contexts.push(this) }
  fastify.addHook('preHandler', async function () { see.call(this) })
  fastify.mqtt.addHook('preHandler', see)
  let child: FastifyInstance | undefined
  await fastify.register(async (instance) => {
    child = instance
    instance.decorate('ofChild', 'decorated')
    trace(instance, trail, 'child')
    instance.post('/child', async function () { trail.push(this.ofChild) })
    instance.mqtt.topic('child', async function () { trail.push(this.ofChild) })
  })
  await fastify.register(async (sibling) => {
    trace(sibling, trail, 'sibling')
    sibling.post('/sibling', async () => { trail.push('handler') })
    sibling.mqtt.topic('sibling', async () => { trail.push('handler') })
  })
  fastify.post('/root', async () => { trail.push('handler') })
  fastify.mqtt.topic('root', async () => { trail.push('handler') })
  await fastify.ready()
  for (const [path, expected] of [
    ['child', [
      'root first', 'child first', 'root preValidation', 'child preValidation', 'root preHandler', 'child preHandler',
      'decorated', 'root last', 'child last'
    ]],
    ['sibling', [
      'root first', 'sibling first', 'root preValidation', 'sibling preValidation', 'root preHandler',
      'sibling preHandler', 'handler', 'root last', 'sibling last'
    ]],
    ['root', ['root first', 'root preValidation', 'root preHandler', 'handler', 'root last']]
  ] as const) {
    const [http, mqtt] = await both(fastify, trail, path)
    assert.deepEqual(mqtt, expected)
    assert.deepEqual(http, mqtt)
  }
  assert.equal(fastify.hasDecorator('ofChild'), false)
  assert.ok(contexts[0] === child && contexts[1] === child)
  assert.ok(contexts[4] === fastify && contexts[5] === fastify)
})

test('hooks: those that are added after a topic, or above it later, hold for it too, as for routes', async (t) => {
  const { fastify } = await createApp(t, manual)
  const trail: string[] = []
  fastify.post('/a', async () => { trail.push('handler') })
  fastify.mqtt.topic('a', async () => { trail.push('handler') })
  await fastify.register(async (child) => {
    child.post('/b', async () => { trail.push('handler') })
    child.mqtt.topic('b', async () => { trail.push('handler') })
  })
  fastify.addHook('preHandler', async () => { trail.push('late') })
  fastify.mqtt.addHook('preHandler', async () => { trail.push('late') })
  await fastify.ready()
  for (const path of ['a', 'b']) {
    const [http, mqtt] = await both(fastify, trail, path)
    assert.deepEqual(mqtt, ['late', 'handler'])
    assert.deepEqual(http, mqtt)
  }
})

test('hooks: none can be added to an application that is ready, as for routes', async (t) => {
  const { fastify } = await createApp(t, manual)
  await fastify.ready()
  await new Promise((resolve) => setImmediate(resolve))
  assert.throws(() => fastify.addHook('preHandler', async () => {}), { code: 'FST_ERR_INSTANCE_ALREADY_LISTENING' })
  assert.throws(() => fastify.mqtt.addHook('preHandler', async () => {}), { code: 'FST_MQTT_HOOK_TOO_LATE' })
  assert.throws(() => fastify.mqtt.setErrorHandler(() => {}), { code: 'FST_MQTT_HOOK_TOO_LATE' })
})

test('hooks: unknown names and what is no function are errors that say so', async (t) => {
  const { fastify } = await createApp(t, manual)
  assert.throws(() => fastify.mqtt.addHook('onRequest' as HookName, () => {}), {
    code: 'FST_MQTT_HOOK_INVALID', message: /no hook 'onRequest', there are onMessage, preValidation/
  })
  assert.throws(() => fastify.mqtt.addHook('preHandler', 7 as never), { code: 'FST_MQTT_HOOK_INVALID' })
  assert.throws(() => fastify.mqtt.setErrorHandler('x' as never), { code: 'FST_MQTT_HOOK_INVALID' })
  assert.throws(() => fastify.mqtt.topic('a', { preHandler: [() => {}, 7 as never] }), {
    code: 'FST_MQTT_TOPIC_OPTIONS', message: /preHandler has to be a function or a list of functions, not a number/
  })
})

test('hooks: a message has its payload from preHandler on', async (t) => {
  const { fastify } = await createApp(t, manual)
  const seen: unknown[] = []
  const look = (message: AnyMessage) => { seen.push(message.payload, message.raw.toString()) }
  fastify.mqtt.topic('a', {
    payload: Type.Number(), onMessage: look, preValidation: look, preHandler: look
  }, () => {})
  await fastify.mqtt.inject({ topic: 'a', payload: '7' })
  assert.deepEqual(seen, [undefined, '7', undefined, '7', 7, '7'])
})

for (const name of ['onMessage', 'preValidation', 'preHandler'] as const) {
  test(`hooks: skip() in ${name} ends the way of a message there, without an error`, async (t) => {
    const app = await createApp(t, manual)
    const { fastify } = app
    const trail: string[] = []
    fastify.mqtt.addHook(name, async (message: AnyMessage) => {
      trail.push(name)
      message.skip()
    })
    fastify.mqtt.addHook(name, async () => { trail.push('never') })
    fastify.mqtt.addHook('onSettled', async (_message, { outcome, error }) => { trail.push(`${outcome} ${String(error)}`) })
    fastify.mqtt.topic('a', async () => { trail.push('never') })
    const { handlers } = await fastify.mqtt.inject({ topic: 'a' })
    assert.deepEqual(trail, [name, 'skipped undefined'])
    assert.deepEqual(handlers.map(({ outcome }) => outcome), ['skipped'])
    assert.deepEqual(failures(app), [])
  })
}

const httpNames = { onMessage: 'onRequest', preValidation: 'preValidation', preHandler: 'preHandler' } as const
const stations = ['onMessage', 'preValidation', 'preHandler'] as const
for (const [index, name] of stations.entries()) {
  for (const way of ['ends it early', 'throws'] as const) {
    test(`hooks: what follows a ${name} that ${way}, as for routes`, async (t) => {
      const { fastify } = await createApp(t, manual)
      const http: string[] = []
      const mqtt: string[] = []
      fastify.setErrorHandler(async () => { http.push('error handler') })
      fastify.mqtt.setErrorHandler(async () => { mqtt.push('error handler') })
      for (const station of stations) {
        const isHere = station === name
        fastify.addHook(httpNames[station] as 'preHandler', async (_request, reply) => {
          http.push(station)
          if (isHere && way === 'throws') throw new Error('broken')
          return isHere ? await reply.send('early') : undefined
        })
        fastify.mqtt.addHook(station, async (message: AnyMessage) => {
          mqtt.push(station)
          if (isHere && way === 'throws') throw new Error('broken')
          if (isHere) message.skip()
        })
      }
      fastify.addHook('onResponse', async () => { http.push('last') })
      fastify.mqtt.addHook('onSettled', async () => { mqtt.push('last') })
      fastify.get('/a', async () => { http.push('handler') })
      fastify.mqtt.topic('a', async () => { mqtt.push('handler') })
      await fastify.ready()
      await fastify.inject('/a')
      await fastify.mqtt.inject({ topic: 'a' })
      assert.deepEqual(mqtt, [...stations.slice(0, index + 1), ...way === 'throws' ? ['error handler'] : [], 'last'])
      assert.deepEqual(http, mqtt)
    })
  }
}

// A failure: where it happens, and what its error is.
const broken = new Error('broken')
const places: Record<string, (fastify: FastifyInstance, fail: () => unknown) => void> = {
  handler: (fastify, fail) => { fastify.mqtt.topic('a', fail) },
  onMessage: (fastify, fail) => { fastify.mqtt.topic('a', { onMessage: fail }, () => {}) },
  preValidation: (fastify, fail) => { fastify.mqtt.topic('a', { preValidation: fail }, () => {}) },
  preHandler: (fastify, fail) => { fastify.mqtt.topic('a', { preHandler: fail }, () => {}) }
}
const ways: Record<string, () => unknown> = {
  throws: () => { throw broken },
  rejects: async () => { throw broken },
  'throws no Error': () => { throw 'broken' } // eslint-disable-line no-throw-literal -- the case
}
for (const [place, register] of Object.entries(places)) {
  for (const [way, fail] of Object.entries(ways)) {
    test(`failures: a ${place} that ${way} is in the log once, or in onError once, and the next message is handled`, async (t) => {
      for (const withHook of [false, true]) {
        const app = await createApp(t, manual)
        const { fastify } = app
        const seen: unknown[] = []
        let isBad = true
        register(fastify, () => isBad ? fail() : undefined)
        if (withHook) fastify.mqtt.addHook('onError', async (error, message) => { seen.push([error, message.topic]) })
        const { handlers: [end] } = await fastify.mqtt.inject({ topic: 'a' })
        const error = way === 'throws no Error' ? 'broken' : broken
        assert.equal(end?.outcome, 'failed')
        assert.equal(end.error, error)
        assert.deepEqual(seen, withHook ? [[error, 'a']] : [])
        assert.equal(failures(app).length, withHook ? 0 : 1)
        assert.equal(fastify.mqtt.health().messages.failed, 1)
        isBad = false
        const { handlers: [next] } = await fastify.mqtt.inject({ topic: 'a' })
        assert.equal(next?.outcome, 'handled')
      }
    })
  }
}

test('failures: the error handler of the scope has them first, then those above, then onError, as for routes', async (t) => {
  const app = await createApp(t, manual)
  const { fastify } = app
  const trail: string[] = []
  const text = (error: unknown) => error instanceof Error ? error.message : String(error)
  fastify.mqtt.setErrorHandler(async (error) => {
    trail.push(`root: ${text(error)}`)
    if (text(error) === 'passed on') throw new Error('given up')
  })
  fastify.setErrorHandler(async (error) => { trail.push(`root: ${text(error)}`) })
  fastify.mqtt.addHook('onError', function (error) { trail.push(`onError: ${text(error)}`) })
  await fastify.register(async (child) => {
    const handler = async (error: unknown) => {
      trail.push(`child: ${text(error)}`)
      if (text(error) !== 'mine') throw new Error('passed on')
    }
    child.setErrorHandler(handler)
    child.mqtt.setErrorHandler(handler)
    for (const name of ['mine', 'other']) {
      child.get(`/${name}`, async () => { throw new Error(name) })
      child.mqtt.topic(name, async () => { throw new Error(name) })
    }
  })
  fastify.mqtt.topic('root', async () => { throw new Error('at the root') })
  await fastify.ready()
  await fastify.inject('/mine')
  await fastify.mqtt.inject({ topic: 'mine' })
  assert.deepEqual(trail.splice(0), ['child: mine', 'child: mine'])
  await fastify.inject('/other')
  const http = trail.splice(0)
  await fastify.mqtt.inject({ topic: 'other' })
  const mqtt = trail.splice(0)
  assert.deepEqual(http, ['child: other', 'root: passed on'])
  assert.deepEqual(mqtt, ['child: other', 'root: passed on', 'onError: given up'])
  await fastify.mqtt.inject({ topic: 'root' })
  assert.deepEqual(trail, ['root: at the root'])
  assert.deepEqual(failures(app), [])
})

test('failures: an onError that throws, an onSettled that throws, each in the log once', async (t) => {
  const app = await createApp(t, manual)
  const { fastify } = app
  fastify.mqtt.addHook('onError', async () => { throw new Error('onError itself') })
  fastify.mqtt.topic('bad', () => { throw broken })
  fastify.mqtt.topic('good', { onSettled: () => { throw new Error('onSettled itself') } }, () => 'returned')
  await fastify.mqtt.inject({ topic: 'bad' })
  const { handlers: [end] } = await fastify.mqtt.inject({ topic: 'good' })
  assert.deepEqual([end?.outcome, end?.returned], ['handled', 'returned'])
  assert.deepEqual(failures(app).map(({ err }) => err?.message), ['onError itself', 'onSettled itself'])
})

// What pino cannot read, or what nobody expects.
const unreadable: Record<string, unknown> = {
  'a frozen error': Object.freeze(new Error('frozen')),
  'an error without a message that can be read': { get message () { throw new Error('no') } },
  'a proxy that refuses everything': new Proxy(new Error('x'), { get () { throw new Error('no') } }),
  undefined,
  null: null,
  'a symbol': Symbol('x'),
  'an object without a prototype': Object.create(null)
}
for (const [what, thrown] of Object.entries(unreadable)) {
  test(`failures: ${what}, thrown by a handler and again by the error handler, is in the log once`, async (t) => {
    const app = await createApp(t, manual)
    const { fastify } = app
    fastify.mqtt.topic('a', () => { throw thrown })
    fastify.mqtt.topic('b', () => 'handled')
    fastify.mqtt.setErrorHandler(async () => { throw thrown })
    fastify.mqtt.addHook('onUnmatched', () => { throw thrown })
    const { handlers: [end] } = await fastify.mqtt.inject({ topic: 'a' })
    assert.equal(end?.outcome, 'failed')
    assert.equal(failures(app).length, 1)
    if (what === 'a frozen error') assert.equal(failures(app)[0]?.err?.message, 'frozen')
    await fastify.mqtt.inject({ topic: 'nobody' })
    await app.logged(/the MQTT hook onUnmatched failed/)
    const { handlers: [next] } = await fastify.mqtt.inject({ topic: 'b' })
    assert.equal(next?.returned, 'handled')
  })
}

test('hooks: what they return may be any thenable, also a broken one', async (t) => {
  const { fastify } = await createApp(t, manual)
  const thenable = (then: (resolve: (value: unknown) => void) => void) => ({ then })
  fastify.mqtt.topic('a', { preHandler: () => thenable(() => { throw broken }) }, () => 'never')
  fastify.mqtt.topic('b', () => ({ get then () { throw broken } }))
  fastify.mqtt.topic('c', { onMessage: () => thenable((resolve) => { resolve('x') }) },
    () => thenable((resolve) => { resolve(7) }))
  class Lazy extends Promise<number> {
    static override get [Symbol.species] () { return Promise }
    // @ts-expect-error -- what some query builders do: it begins when somebody waits for it
    override then (resolve: (value: number) => void) { resolve(8) }
  }
  fastify.mqtt.topic('d', () => new Lazy(() => {}))
  fastify.mqtt.topic('e', () => Object.assign(thenable((resolve) => { resolve(9) }), { constructor: Promise }))
  fastify.mqtt.topic('f', () => Object.defineProperty(Promise.resolve(1), 'constructor', {
    get () { throw broken }
  }))
  const ends = []
  for (const topic of ['a', 'b', 'c', 'd', 'e', 'f']) {
    const { handlers: [end] } = await fastify.mqtt.inject({ topic })
    ends.push([end?.outcome, end?.error ?? end?.returned])
  }
  assert.deepEqual(ends, [
    ['failed', broken], ['failed', broken], ['handled', 7], ['handled', 8], ['handled', 9], ['failed', broken]
  ])
})

test('failures: what the schema refuses is told once for all handlers of a topic', async (t) => {
  const { fastify } = await createApp(t, manual)
  const seen: string[] = []
  fastify.mqtt.addHook('onError', async (error) => { seen.push((error as { code: string }).code) })
  fastify.mqtt.addHook('preValidation', async () => {})
  const params = Type.Object({ n: Type.Integer({ minimum: 1 }) })
  const topic = fastify.mqtt.topic('t/<int:n>', { params, payload: Type.Number() }, () => assert.fail('never'))
  topic.onMessage(() => assert.fail('never'))
  for (const [name, payload] of [['t/1', 'x'], ['t/0', '1']] as const) {
    const { handlers } = await fastify.mqtt.inject({ topic: name, payload })
    assert.deepEqual(handlers.map(({ outcome }) => outcome), ['failed', 'failed'])
  }
  assert.deepEqual(seen, ['FST_MQTT_PAYLOAD_DECODE', 'FST_MQTT_PARAMS_INVALID'])
})

test('failures: a flood of them is ten lines a second, and a count', async (t) => {
  const app = await createApp(t, manual)
  const { fastify } = app
  fastify.mqtt.topic('a', () => { throw broken })
  fastify.mqtt.topic('b', () => { throw broken })
  t.mock.timers.enable({ apis: ['Date'], now: 1_000_000 })
  for (let index = 0; index < 15; index++) await fastify.mqtt.inject({ topic: 'a' })
  await fastify.mqtt.inject({ topic: 'b' })
  assert.equal(failures(app).length, 11)
  t.mock.timers.setTime(1_001_000)
  await fastify.mqtt.inject({ topic: 'a' })
  assert.equal(failures(app).at(-1)?.['suppressed'], 5)
  assert.equal(fastify.mqtt.health().messages.failed, 17)
})

test('logLevel: is that of what message.log and the failures of the topic write', async (t) => {
  const { fastify, lines } = await createApp(t, manual)
  fastify.mqtt.topic('quiet', { logLevel: 'fatal' }, (message) => {
    message.log.error('not written')
    throw broken
  })
  fastify.mqtt.topic('loud', { logLevel: 'error' }, (message) => {
    message.log.info('not written')
    message.log.error('written')
  })
  await fastify.mqtt.inject({ topic: 'quiet' })
  await fastify.mqtt.inject({ topic: 'loud' })
  const texts = lines.map(({ msg }) => msg)
  assert.deepEqual(texts.filter((text) => text === 'written' || text === 'not written' || text === failure), ['written'])
})

test('logLevel: one that the logger does not know is an error that says so', async (t) => {
  const { fastify } = await createApp(t, manual)
  assert.throws(() => fastify.mqtt.topic('a', { name: 'a', logLevel: 'loud' }, () => {}), {
    code: 'FST_MQTT_TOPIC_OPTIONS', message: "Invalid options of topic 'a': logLevel: unknown level loud"
  })
  fastify.mqtt.topic('a', { name: 'a', logLevel: 'trace' }, () => {})
})

test('onTopic: sees what is registered after it in its scope and below, as onRoute does, and may object', async (t) => {
  const { fastify } = await createApp(t, { ...manual, prefix: 'p' })
  const seen: unknown[] = []
  const routes: unknown[] = []
  fastify.mqtt.topic('before', () => {})
  fastify.get('/before', async () => {})
  fastify.mqtt.addHook('onTopic', (topic) => {
    if (topic.pattern === 'bad') throw new Error('not here')
    seen.push(topic)
  })
  fastify.addHook('onRoute', ({ url, method }) => { if (method === 'GET') routes.push(url) })
  fastify.mqtt.topic('a', { name: 'first' }, () => {})
  fastify.get('/a', async () => {})
  await fastify.register(async (child) => {
    child.mqtt.topic('b/<x>', function second () {})
    child.get('/b', async () => {})
  }, { topicPrefix: 'low', prefix: '/low' })
  assert.throws(() => fastify.mqtt.topic('bad', { name: 'bad' }, () => {}), /not here/)
  assert.throws(() => fastify.mqtt.topicFor('bad'), { code: 'FST_MQTT_TOPIC_UNKNOWN' })
  assert.deepEqual(seen, [
    { pattern: 'a', filter: 'p/a', name: 'first', topicPrefix: '' },
    { pattern: 'b/<x>', filter: 'p/low/b/+', name: 'second', topicPrefix: 'low' }
  ])
  assert.deepEqual(routes, ['/a', '/low/b'])
})

test('onTopic: an async one refuses the topic, whatever becomes of its promise', async (t) => {
  const { fastify } = await createApp(t, manual)
  fastify.mqtt.addHook('onTopic', async () => { throw broken })
  assert.throws(() => fastify.mqtt.topic('a', { name: 'a' }, () => {}), {
    code: 'FST_MQTT_HOOK_INVALID', message: /onTopic cannot be async/
  })
  assert.deepEqual(fastify.mqtt.topics(), [])
})

test('onPublish: may change payload and options of what its scope publishes, or refuse it', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  let child: FastifyInstance | undefined
  await fastify.register(async (instance) => {
    child = instance
    instance.mqtt.addHook('onPublish', async function (message) {
      assert.equal(this, instance)
      if (message.topic === 'refused') throw new Error('not this one')
      message.options = { ...message.options, properties: { userProperties: { trace: 'on' } } }
      message.payload = `${String(message.payload)}!`
    })
  })
  await fastify.ready()
  assert.ok(child)
  const topic = child.mqtt.topic('typed/<int:n>', { payload: Type.String(), codec: 'text' })
  await child.mqtt.publish('raw', 'x')
  await topic.publish({ n: 1 }, 'y')
  await fastify.mqtt.publish('above', 'z')
  await assert.rejects(child.mqtt.publish('refused', 'x'), /not this one/)
  const got = [await broker.next('publish'), await broker.next('publish'), await broker.next('publish')]
  assert.deepEqual(got.map(({ topic: name, payload, properties }) =>
    [name, payload.toString(), { ...properties?.userProperties }]), [
    ['raw', 'x!', { trace: 'on' }], ['typed/1', 'y!', { trace: 'on' }], ['above', 'z', {}]
  ])
})

test('SEED-54, SEED-59: onUnmatched, onConnect, onDisconnect: whatever the scope, with its context; a failure is logged', async (t) => {
  let refusals = 1
  const broker = await startScriptedBroker(t, { connack: () => refusals-- > 0 ? { reasonCode: 0x88 } : {} })
  const { fastify, logged } = await createApp(t, { url: `${broker.url}/p` })
  const seen = inbox<string>()
  await fastify.register(async (child) => {
    child.decorate('ofChild', 'decorated')
    child.mqtt.addHook('onConnect', function () { seen.put(`connect ${this.ofChild}`) })
    child.mqtt.addHook('onDisconnect', async function (cause) { seen.put(`disconnect ${cause.message}`) })
    child.mqtt.addHook('onUnmatched', function (message) { seen.put(`unmatched ${message.topic} ${message.text()}`) })
    child.mqtt.addHook('onUnmatched', async () => { throw new Error('broken') })
    child.mqtt.addHook('onUnmatched', async () => { seen.put('the next one') })
  })
  fastify.mqtt.topic('n/<int:n>', () => {})
  await fastify.ready()
  // A refused CONNACK is no connect.
  assert.match(await seen.next(), /^disconnect Connection refused: Server unavailable/)
  assert.equal(await seen.next(), 'connect decorated')
  broker.publish({ topic: 'p/n/x', payload: 'text' })
  assert.equal(await seen.next(), 'unmatched n/x text')
  await logged(/the MQTT hook onUnmatched failed/)
  assert.equal(await seen.next(), 'the next one')
  broker.connections.at(-1)?.destroy()
  assert.match(await seen.next(), /^disconnect the connection was closed/)
  assert.equal(await seen.next(), 'connect decorated')
})

test('onUnmatched: no more calls run at once than messages may wait in the inbox, the others are counted', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, inbox: { maxMessages: 2 } })
  const seen = inbox<string>()
  const gate = deferred<void>()
  fastify.mqtt.addHook('onUnmatched', async ({ topic }) => {
    seen.put(topic)
    await gate.promise
  })
  fastify.mqtt.topic('end', ({ topic }) => seen.put(topic))
  await fastify.ready()
  for (const topic of ['1', '2', '3', '4', 'end']) broker.publish({ topic })
  while (await seen.next() !== 'end');
  assert.deepEqual([seen.all, fastify.mqtt.stats().unmatched], [['1', '2', 'end'], 4])
  gate.resolve()
  await new Promise((resolve) => setImmediate(resolve))
  broker.publish({ topic: '5' })
  assert.equal(await seen.next(), '5')
})

for (const [version, refusal, reason] of [
  [5, { reasonCode: 0x87 }, /Not authorized/], [4, { returnCode: 5, reasonCode: 5 }, /Not authorized/]
] as const) {
  test(`SEED-05: MQTT ${version}: a connection that is refused runs onDisconnect with the reason, and no onConnect`, async (t) => {
    const broker = await startScriptedBroker(t, { connack: () => refusal })
    const { fastify } = await createApp(t, {
      url: broker.url, protocolVersion: version, start: 'background', reconnect: { minDelay: 1, maxDelay: 1 }
    })
    const seen = inbox<string>()
    fastify.mqtt.addHook('onConnect', () => seen.put('connect'))
    fastify.mqtt.addHook('onDisconnect', ({ message }) => seen.put(message))
    await fastify.ready()
    for (let attempts = 0; attempts < 3; attempts++) assert.match(await seen.next(), reason)
    const { lastError } = fastify.mqtt.health()
    assert.match(lastError?.message ?? '', reason)
    assert.equal(seen.all.includes('connect'), false)
  })
}

test('namespaces: have hooks, error handlers and topics of their own', async (t) => {
  const { fastify } = createFastify(t)
  await fastify.register(multimqtt, manual)
  await fastify.register(multimqtt, { ...manual, namespace: 'other' })
  const other = (instance: FastifyInstance) => (instance.mqtt as unknown as { other: FastifyInstance['mqtt'] }).other
  const trail: string[] = []
  const registered: string[] = []
  fastify.mqtt.addHook('onTopic', ({ pattern }) => { registered.push(`default ${pattern}`) })
  other(fastify).addHook('onTopic', ({ pattern }) => { registered.push(`other ${pattern}`) })
  fastify.mqtt.addHook('onUnmatched', ({ topic }) => { trail.push(`default has no ${topic}`) })
  other(fastify).addHook('onUnmatched', ({ topic }) => { trail.push(`other has no ${topic}`) })
  fastify.mqtt.addHook('preHandler', async () => { trail.push('default') })
  other(fastify).addHook('preHandler', async () => { trail.push('other') })
  other(fastify).setErrorHandler(async () => { trail.push('handled by other') })
  await fastify.register(async (child) => {
    child.mqtt.topic('a', () => {})
    other(child).topic('a', () => { throw broken })
    other(child).topic('b', () => {})
  })
  assert.deepEqual(registered, ['default a', 'other a', 'other b'])
  assert.deepEqual(fastify.mqtt.topics().map(({ pattern }) => pattern), ['a'])
  assert.deepEqual(other(fastify).topics().map(({ pattern }) => pattern), ['a', 'b'])
  await fastify.mqtt.inject({ topic: 'a' })
  await other(fastify).inject({ topic: 'a' })
  assert.deepEqual(trail, ['default', 'other', 'handled by other'])
  trail.length = 0
  assert.equal((await fastify.mqtt.inject({ topic: 'b' })).matched, 0)
  assert.equal((await other(fastify).inject({ topic: 'c' })).matched, 0)
  assert.deepEqual(trail, ['default has no b', 'other has no c'])
})

test('hooks: synchronous ones keep a message synchronous', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  const trail: string[] = []
  const seen = inbox<string>()
  fastify.mqtt.addHook('preHandler', (message) => { trail.push(`hook ${message.topic}`) })
  fastify.mqtt.topic('+', (message) => {
    trail.push(`handler ${message.topic}`)
    seen.put(message.topic)
  })
  await fastify.ready()
  broker.publish({ topic: 'a' })
  broker.publish({ topic: 'b' })
  await seen.next()
  await seen.next()
  await fastify.mqtt.idle()
  assert.deepEqual(trail, ['hook a', 'handler a', 'hook b', 'handler b'])
})

test('types: every hook can be added by name', async (t) => {
  const { fastify } = await createApp(t, manual)
  const hooks: Partial<MqttHooks> = { onMessage: () => {}, onConnect: () => {} }
  assert.equal(fastify.mqtt.addHook('onMessage', hooks.onMessage ?? (() => {})), fastify.mqtt)
})
