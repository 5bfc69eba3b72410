import assert from 'node:assert/strict'
import { AsyncLocalStorage } from 'node:async_hooks'
import { suite, test, type TestContext } from 'node:test'
import { Type } from '@sinclair/typebox'
import fc from 'fast-check'
import { errorCode } from '../lib/errors.ts'
import type { Message, Topic } from '../lib/index.ts'
import { createMemoryBroker } from '../lib/testing/index.ts'
import { createApp, inbox } from './helpers/app.ts'
import { mosquittoMissing, startMosquitto } from './helpers/mosquitto.ts'

// What an application sees of a broker: the same on the memory broker and on Mosquitto, by one switch.
const brokers: Record<string, { skip: string | false, url: (t: TestContext) => Promise<string> }> = {
  'the memory broker': { skip: false, url: async () => createMemoryBroker().url },
  Mosquitto: { skip: mosquittoMissing, url: async (t) => (await startMosquitto(t)).url }
}

for (const [name, { skip, url: start }] of Object.entries(brokers)) {
  suite(`an application on ${name}`, { skip }, () => {
    test('receives what it publishes, with prefix, params, payload and properties', async (t) => {
      const { fastify } = await createApp(t, { url: `${await start(t)}/site` })
      const seen = inbox<Message<{ id: number }, { on: boolean }>>()
      const lamp = fastify.mqtt.topic('lamp/<int:id>', {
        qos: 2, payload: Type.Object({ on: Type.Boolean() })
      }, seen.put)
      await fastify.ready()
      assert.deepEqual(fastify.mqtt.health().subscriptions.granted, [{ filter: 'site/lamp/+', qos: 2 }])
      await lamp.publish({ id: 7 }, { on: true }, { qos: 1, properties: { userProperties: { a: 'b' } } })
      const message = await seen.next()
      const { params, payload, absoluteTopic, qos, retain } = message
      assert.deepEqual([params.id, payload.on, absoluteTopic, qos, retain], [7, true, 'site/lamp/7', 1, false])
      assert.equal(message.properties.contentType, 'application/json')
      assert.deepEqual({ ...message.properties.userProperties }, { a: 'b' })
    })

    test('gets the lower of the two qualities of service', async (t) => {
      const { fastify } = await createApp(t, { url: await start(t) })
      const seen = inbox<number>()
      fastify.mqtt.topic('low', (message) => seen.put(message.qos))
      fastify.mqtt.topic('high', { qos: 2 }, (message) => seen.put(message.qos))
      await fastify.ready()
      await fastify.mqtt.publish('low', '', { qos: 2 })
      assert.equal(await seen.next(), 0)
      await fastify.mqtt.publish('high', '', { qos: 1 })
      assert.equal(await seen.next(), 1)
    })

    test('gets retained messages when it subscribes and wants them, none that was cleared', async (t) => {
      const { fastify } = await createApp(t, { url: await start(t) })
      await fastify.ready()
      for (const topic of ['kept/a', 'kept/b', 'kept/c']) {
        await fastify.mqtt.publish(topic, topic, { retain: true, qos: 1 })
      }
      await fastify.mqtt.publish('kept/b', '', { retain: true, qos: 1 })
      await fastify.mqtt.publish('kept/c', 'newer', { retain: true, qos: 1 })
      const seen = inbox<[string, boolean]>()
      fastify.mqtt.topic('kept/+', { qos: 1 }, (message) => seen.put([message.text(), message.retain]))
      fastify.mqtt.topic('kept/#', { retainHandling: 2 }, (message) => {
        if (message.retain) assert.fail('not wanted')
      })
      await fastify.mqtt.connect()
      const got = [await seen.next(), await seen.next()].sort()
      assert.deepEqual(got, [['kept/a', true], ['newer', true]])
      await fastify.mqtt.publish('kept/a', 'live', { retain: true })
      assert.deepEqual(await seen.next(), ['live', false])
    })

    test('sees the retain flag as it was published if it asks for that', async (t) => {
      const { fastify } = await createApp(t, { url: await start(t) })
      const seen = inbox<boolean>()
      fastify.mqtt.topic('a', { retainAsPublished: true }, (message) => seen.put(message.retain))
      await fastify.ready()
      await fastify.mqtt.publish('a', 'x', { retain: true })
      assert.equal(await seen.next(), true)
    })

    test('does not get its own messages back with noLocal', async (t) => {
      const url = await start(t)
      const [{ fastify: one }, { fastify: two }] = [await createApp(t, { url }), await createApp(t, { url })]
      const seen = inbox<string>()
      one.mqtt.topic('a', { noLocal: true, qos: 1 }, (message) => seen.put(message.text()))
      await Promise.all([one.ready(), two.ready()])
      await one.mqtt.publish('a', 'own', { qos: 1 })
      await two.mqtt.publish('a', 'other', { qos: 1 })
      assert.equal(await seen.next(), 'other')
    })

    test('shares the messages of a group with another, each comes once', async (t) => {
      const url = await start(t)
      const seen = inbox<string>()
      const apps = []
      for (const label of ['one', 'two']) {
        const { fastify } = await createApp(t, { url: `${url}/p` })
        fastify.mqtt.topic('$share/group/job/<int:n>', { qos: 1 }, ({ params }) => seen.put(`${label} ${params.n}`))
        await fastify.ready()
        apps.push(fastify)
      }
      for (let n = 0; n < 6; n++) await apps[0]?.mqtt.publish(`job/${n}`, '', { qos: 1 })
      const got = []
      for (let n = 0; n < 6; n++) got.push((await seen.next()).split(' '))
      assert.deepEqual(got.map(([, n]) => Number(n)).sort(), [0, 1, 2, 3, 4, 5])
      assert.deepEqual(new Set(got.map(([label]) => label)), new Set(['one', 'two']))
    })

    for (const [protocolVersion, copies] of [[5, 'one for each subscription'], [4, 'the first one']] as const) {
      test(`gets of several copies of a message ${copies} on MQTT ${protocolVersion}`, async (t) => {
        const url = await start(t)
        const { fastify } = await createApp(t, { url, protocolVersion })
        const { fastify: publisher } = await createApp(t, { url })
        const seen = inbox<string>()
        const ended = inbox<string>()
        const put = ({ qos }: { qos: number }) => seen.put(String(qos))
        fastify.mqtt.topic('#', () => {})
        fastify.mqtt.topic('$share/g/a/b', () => {})
        fastify.mqtt.topic('a/+', { qos: 1 }, put)
        fastify.mqtt.topic('+/c', () => {})
        fastify.mqtt.topic('b/#', { qos: 1 }, put)
        fastify.mqtt.topic('end', { qos: 1 }, ({ topic }) => ended.put(topic))
        await Promise.all([fastify.ready(), publisher.ready()])
        const { received } = fastify.mqtt.health().messages
        await publisher.mqtt.publish('a/b', '', { qos: 1 })
        await publisher.mqtt.publish('b/c', '', { qos: 1 })
        await publisher.mqtt.publish('end', '', { qos: 1 })
        await ended.next()
        await fastify.mqtt.idle()
        // Of a/b, b/c and end.
        assert.equal(fastify.mqtt.health().messages.received - received, protocolVersion === 5 ? 8 : 3)
        // Each handler has the copy that came for its subscription.
        assert.deepEqual(seen.all, ['1', '1'])
      })
    }

    test('gets copies in the order of the filters: a level before +, before #, and # of the parent before it', async (t) => {
      const { fastify } = await createApp(t, { url: await start(t), order: 'none' })
      const seen = inbox<string>()
      for (const filter of ['#', '+/#', '+', 'a', 'a/#', '$share/g/a']) {
        fastify.mqtt.topic(filter, () => seen.put(filter))
      }
      await fastify.ready()
      await fastify.mqtt.publish('a')
      const order = []
      for (let copies = 0; copies < 6; copies++) order.push(await seen.next())
      assert.deepEqual(order, ['a/#', 'a', '+/#', '+', '#', '$share/g/a'])
    })

    test('has a new session when its connection is renewed', async (t) => {
      const url = await start(t)
      const { fastify, logged } = await createApp(t, { url, inbox: { maxUnacked: 1 } })
      const { fastify: publisher } = await createApp(t, { url })
      const seen = inbox<string>()
      let release = () => {}
      const held = new Promise<void>((resolve) => { release = resolve })
      fastify.mqtt.topic('kept', { retainHandling: 1 }, (message) => seen.put(message.text()))
      fastify.mqtt.topic('a/+', { qos: 1 }, async () => { await held })
      await publisher.ready()
      await publisher.mqtt.publish('kept', 'x', { retain: true, qos: 1 })
      await fastify.ready()
      assert.equal(await seen.next(), 'x')
      for (const n of [1, 2]) await publisher.mqtt.publish(`a/${n}`, '', { qos: 1 })
      await logged(/more than 1 messages wait for their handlers/)
      await logged(/connected to .* again after/)
      release()
      assert.equal(await seen.next(), 'x')
    })

    test('speaks MQTT 3.1.1 if that is what it is told to', async (t) => {
      const url = await start(t)
      const { fastify } = await createApp(t, { url, protocolVersion: 4 })
      const { fastify: publisher } = await createApp(t, { url })
      const seen = inbox<object>()
      fastify.mqtt.topic('a', (message) => seen.put(message.properties))
      await Promise.all([fastify.ready(), publisher.ready()])
      assert.equal(fastify.mqtt.health().protocolVersion, 4)
      const properties = { contentType: 'text/plain' }
      await publisher.mqtt.publish('a', 'x', { properties })
      assert.deepEqual(await seen.next(), {})
      await assert.rejects(fastify.mqtt.publish('a', 'x', { properties }), { code: 'FST_MQTT_NEEDS_MQTT5' })
      assert.throws(() => fastify.mqtt.topic('b', { noLocal: true }, () => {}), { code: 'FST_MQTT_TOPIC_OPTIONS' })
    })

    test('gets a retained message with what is left of its time, and none when that is over', async (t) => {
      const { fastify } = await createApp(t, { url: await start(t) })
      await fastify.ready()
      const keep = async (topic: string, messageExpiryInterval: number) => {
        await fastify.mqtt.publish(topic, 'x', { retain: true, qos: 1, properties: { messageExpiryInterval } })
      }
      await keep('kept/short', 1)
      await keep('kept/long', 100)
      await keep('kept/zero', 0)
      // All retained messages that a new subscription gets: the last one comes after them.
      const retained = async () => {
        const seen = inbox<[string, number | undefined]>()
        const put = (message: Message) => seen.put([message.topic, message.properties.messageExpiryInterval])
        const topic = fastify.mqtt.topic('kept/+', put)
        await fastify.mqtt.connect()
        await fastify.mqtt.publish('kept/end', '')
        while ((await seen.next())[0] !== 'kept/end');
        topic.remove()
        await fastify.mqtt.connect()
        return seen.all.filter(([name]) => name !== 'kept/end').toSorted()
      }
      let all = await retained()
      while (all.length > 2) all = await retained()
      assert.deepEqual(all.map(([name]) => name), ['kept/long', 'kept/zero'])
      const left = all[0]?.[1] ?? 0
      assert.ok(left > 0 && left < 100, `${left} s`)
      assert.equal(all[1]?.[1], undefined)
    })

    test('handles a message outside of what its publisher was doing', async (t) => {
      const { fastify } = await createApp(t, { url: await start(t) })
      const storage = new AsyncLocalStorage<string>()
      const seen = inbox<string>()
      fastify.mqtt.topic('a', () => seen.put(storage.getStore() ?? 'nothing'))
      await fastify.ready()
      await storage.run('of the publisher', () => fastify.mqtt.publish('a', ''))
      assert.equal(await seen.next(), 'nothing')
    })

    test('gets no topic that begins with $ through a wildcard in front, nor what it has unsubscribed', async (t) => {
      const { fastify } = await createApp(t, { url: await start(t) })
      const seen = inbox<string>()
      fastify.mqtt.topic('+/x', (message) => seen.put(message.topic))
      const gone = fastify.mqtt.topic('gone', (message) => seen.put(message.topic))
      await fastify.ready()
      gone.remove()
      await fastify.mqtt.connect()
      await fastify.mqtt.publish('$own/x', '', { absolute: true })
      await fastify.mqtt.publish('gone', '')
      await fastify.mqtt.publish('a/x', '')
      assert.equal(await seen.next(), 'a/x')
    })
  })
}

test('createMemoryBroker: tells what was published, and plays a device', async (t) => {
  const broker = createMemoryBroker()
  const { fastify } = await createApp(t, { url: `${broker.url}/site` })
  fastify.mqtt.topic('ask/<int:n>', async ({ params }) => {
    await fastify.mqtt.publish(`answer/${params.n}`, { twice: params.n * 2 }, { qos: 1, retain: true })
  })
  await fastify.ready()
  assert.equal(fastify.mqtt.health().broker, broker.url)
  assert.equal(fastify.mqtt.health().protocolVersion, 5)
  broker.publish('site/ask/21')
  const answer = await broker.next()
  assert.deepEqual([answer.topic, answer.json(), answer.text(), answer.qos, answer.retain],
    ['site/answer/21', { twice: 42 }, '{"twice":42}', 1, true])
  assert.deepEqual([...broker.retained], [['site/answer/21', Buffer.from('{"twice":42}')]])
  await fastify.mqtt.publish('x', '')
  assert.equal((await broker.next()).topic, 'site/x')
  assert.equal(broker.published.length, 2)
  await assert.rejects(broker.next(10), { message: 'nothing was published within 10 ms' })
  await fastify.mqtt.publish('late', '')
  assert.equal((await broker.next()).topic, 'site/late')
  assert.throws(() => broker.publish('a/+'), { code: 'FST_MQTT_TOPIC_NAME' })
})

test('createMemoryBroker: a cut connection comes back, subscribed again', async (t) => {
  const broker = createMemoryBroker()
  const { fastify, logged } = await createApp(t, { url: broker.url })
  const seen = inbox<string>()
  fastify.mqtt.topic('a', (message) => seen.put(message.text()))
  await fastify.ready()
  await logged(/connected to memory:/)
  broker.disconnect()
  await logged(/lost the connection to memory:/)
  await logged(/connected to memory:/)
  await fastify.mqtt.connect()
  broker.publish('a', 'again')
  assert.equal(await seen.next(), 'again')
  broker.close()
  await logged(/lost the connection/)
  assert.equal(fastify.mqtt.status, 'offline')
})

test('createMemoryBroker: what was published is out of reach of its publisher and its receivers', async (t) => {
  const broker = createMemoryBroker()
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<Message>()
  fastify.mqtt.topic('a', seen.put)
  await fastify.ready()
  const payload = Buffer.from('payload')
  const correlationData = Buffer.from('data')
  broker.publish('a', payload, { retain: true, qos: 1, properties: { correlationData, contentType: undefined } })
  payload.fill(0)
  correlationData.fill(0)
  const message = await seen.next()
  assert.deepEqual([message.text(), message.properties], ['payload', { correlationData: Buffer.from('data') }])
  message.raw.fill(0)
  assert.equal(broker.retained.get('a')?.toString(), 'payload')

  const userProperties = { n: '1' }
  await fastify.mqtt.publish('b', payload.fill('1'), { properties: { userProperties } })
  payload.fill('2')
  userProperties.n = '2'
  const [published] = broker.published
  assert.deepEqual([published?.text(), published?.properties], ['1111111', { userProperties: { n: '1' } }])
})

test('createMemoryBroker: a device that publishes with bad options is an error', () => {
  const broker = createMemoryBroker()
  for (const options of [
    { qos: 3 }, { retain: 'yes' }, { absolute: true }, { properties: { contentTyp: 'x' } },
    { properties: { messageExpiryInterval: -1 } }, 7
  ]) {
    assert.throws(() => broker.publish('a', '', options as object), { code: 'FST_MQTT_PUBLISH_OPTIONS' })
  }
  assert.throws(() => broker.publish('a', () => {}), { code: 'FST_MQTT_PAYLOAD_ENCODE' })
  assert.deepEqual([...broker.retained], [])
})

test('createMemoryBroker: nothing can be connected to one that is closed', async (t) => {
  const broker = createMemoryBroker()
  const { fastify, logged } = await createApp(t, { url: broker.url, connectTimeout: 50 })
  broker.close()
  await assert.rejects(async () => { await fastify.ready() }, {
    code: 'FST_MQTT_CONNECT_FAILED', message: /memory:.* within 50 ms \(1 attempt\): the memory broker was closed/
  })
  await logged(/could not connect to memory:/)
})

test('createMemoryBroker: a name that there is not, or not any more, is an error that says where names come from', async (t) => {
  const broker = createMemoryBroker()
  broker.close()
  for (const url of ['memory://nobody', broker.url]) {
    await assert.rejects(createApp(t, { url }), {
      code: 'FST_MQTT_OPTIONS_INVALID', message: /no memory broker memory:.*createMemoryBroker\(\) of fastify-multimqtt\/testing/
    })
  }
})

test('createMemoryBroker: an application that closes leaves it', async (t) => {
  const broker = createMemoryBroker()
  const { fastify } = await createApp(t, { url: broker.url })
  const seen: string[] = []
  fastify.mqtt.topic('a', (message) => { seen.push(message.topic) })
  await fastify.ready()
  await fastify.close()
  broker.publish('a')
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(seen, [])
  assert.equal(fastify.mqtt.status, 'closed')
})

test('createMemoryBroker: a subscription under way when the connection is cut is made again', async (t) => {
  const broker = createMemoryBroker()
  const { fastify } = await createApp(t, { url: broker.url })
  const seen = inbox<string>()
  await fastify.ready()
  fastify.mqtt.topic('a', (message) => seen.put(message.topic))
  fastify.mqtt.topic('b', () => {}).remove()
  await Promise.resolve()
  broker.disconnect()
  await fastify.mqtt.connect()
  broker.publish('a')
  assert.equal(await seen.next(), 'a')
})

// Filters that overlap in every way, and topic names that they match, or just do not.
const filters = ['a', 'a/b', 'a/+', '+/b', 'a/#', '#', '+', '+/+', '/', '+/', '/+', 'b/#', 'a//b', 'a/+/b'] as const
const names = ['a', 'a/b', 'b', 'b/a', '/', 'a/', '/b', 'a//b', 'a/a/b', 'b/', 'c'] as const
const qos = fc.constantFrom(0, 1, 2)
const app = fc.nat(1)
const kinds = {
  subscribe: fc.record({
    kind: fc.constant('subscribe' as const),
    app,
    filter: fc.constantFrom(...filters),
    options: fc.record({ qos, noLocal: fc.boolean(), retainAsPublished: fc.boolean(), retainHandling: qos })
  }),
  remove: fc.record({ kind: fc.constant('remove' as const), app, nth: fc.nat(9) }),
  publish: fc.record({
    kind: fc.constant('publish' as const),
    app,
    name: fc.constantFrom(...names),
    payload: fc.constantFrom('', 'x', 'y'),
    options: fc.record({ qos, retain: fc.boolean() })
  })
}
const step = fc.oneof(
  { weight: 4, arbitrary: kinds.subscribe },
  { weight: 1, arbitrary: kinds.remove },
  { weight: 5, arbitrary: kinds.publish }
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

/** What two applications receive after each step, in no order: that of retained messages is nobody's. */
async function play (t: TestContext, url: string, steps: readonly Step[]): Promise<string[]> {
  const received: string[][] = []
  const ended = inbox<string>()
  const apps = await Promise.all([0, 1].map(async (index) => {
    const { fastify } = await createApp(t, { url, order: 'none' })
    fastify.mqtt.topic('the/end/of/<n>', { qos: 2 }, ({ params }) => ended.put(`${index} ${params.n}`))
    await fastify.ready()
    return { fastify, topics: [] as Topic[] }
  }))
  // What was published before, by either, has arrived when the last word of both has.
  const settle = async () => {
    for (const n of [0, 1]) {
      await apps[n]?.fastify.mqtt.publish(`the/end/of/${n}`, '', { qos: 2 })
      await ended.next()
      await ended.next()
    }
    for (const { fastify } of apps) await fastify.mqtt.idle()
  }
  for (const [index, step] of steps.entries()) {
    const { fastify, topics } = apps[step.app] ?? assert.fail()
    const got: string[] = []
    received.push(got)
    if (step.kind === 'publish') {
      await fastify.mqtt.publish(step.name, step.payload, step.options)
    } else if (step.kind === 'remove') {
      topics.splice(step.nth % Math.max(1, topics.length), 1)[0]?.remove()
    } else {
      try {
        topics.push(fastify.mqtt.topic(step.filter, step.options, ({ topic, qos, retain, ...message }) => {
          const text = [step.app, index, topic, message.payload, qos, retain].join(' ')
          if (!topic.startsWith('the/end')) received.at(-1)?.push(text)
        }) as Topic)
      } catch (error) {
        got.push(errorCode(error))
      }
    }
    await fastify.mqtt.connect()
    await settle()
  }
  for (const { fastify } of apps) await fastify.close()
  return received.map((got) => got.sort().join(', '))
}

test('createMemoryBroker: random subscriptions and messages bring what they bring on Mosquitto', {
  skip: mosquittoMissing
}, async (t) => {
  const broker = await startMosquitto(t)
  let run = 0
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 8, maxLength: 14 }), async (steps) => {
    const prefix = `run${run++}`
    const memory = createMemoryBroker()
    const [ours, theirs] = [memory.url, broker.url].map((url) => play(t, `${url}/${prefix}`, steps))
    assert.deepEqual(await ours, await theirs)
    memory.close()
  }), { numRuns: 15 })
})
