import assert from 'node:assert/strict'
import { randomInt, randomUUID } from 'node:crypto'
import { suite, test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Type } from '@sinclair/typebox'
import type { AnyMessage, Message, MultimqttOptions } from '../lib/index.ts'
import { createApp, createFastify, inbox } from './helpers/app.ts'
import { deferred, within } from './helpers/deadline.ts'
import { mosquittoMissing, startMosquitto, type Mosquitto } from './helpers/mosquitto.ts'
import multimqtt from '../lib/index.ts'

const ceilingMs = 60_000

function keptSession (): MultimqttOptions {
  return { session: { expiry: 3_600 }, clientId: `kept-${randomUUID()}` }
}

/** Publishes from elsewhere. */
async function createDevice (t: TestContext, broker: Mosquitto, options: MultimqttOptions = {}) {
  const { fastify } = await createApp(t, { url: broker.url, ...options })
  await fastify.ready()
  return fastify.mqtt
}

/** What the broker still has for the session, up to a message that is published now. */
async function leftOver (t: TestContext, broker: Mosquitto, session: MultimqttOptions): Promise<string[]> {
  const { fastify } = await createApp(t, { url: broker.url, ...session })
  const seen = inbox<string>()
  fastify.mqtt.topic('#', { qos: 2 }, (message) => seen.put(`${message.topic} ${message.text()}`))
  await fastify.ready()
  await fastify.mqtt.publish('end', '', { qos: 2 })
  const left: string[] = []
  for (let next = await seen.next(); next !== 'end '; next = await seen.next()) left.push(next)
  await fastify.close()
  return left
}

suite('failures, on Mosquitto', { skip: mosquittoMissing, concurrency: 4 }, () => {
  for (const version of [5, 4] as const) {
    for (const qos of [1, 2] as const) {
      test(`MQTT ${version}, QoS ${qos}: whatever fails, the next is handled, and nothing un-acked remains`, async (t) => {
        const broker = await startMosquitto(t)
        const session = { ...keptSession(), protocolVersion: version }
        const device = await createDevice(t, broker, { protocolVersion: version })
        const { fastify } = await createApp(t, { url: broker.url, ...session })
        const errors: string[] = []
        fastify.mqtt.addHook('onError', (error, { topic }) => { errors.push(`${topic}: ${(error as Error).message}`) })
        const handled = inbox<string>()
        const letters = inbox<AnyMessage>()
        const called = inbox<string>()
        let [runs, calls] = [0, 0]
        const retry = { limit: 2, delay: 10 }
        const fails = async ({ text }: Message) => {
          if (text !== undefined) throw new Error('always')
        }
        const goodOr = (handler: (message: Message) => unknown) => async (message: Message) => {
          if (message.text() === 'good') return handled.put(message.topic)
          return await handler(message)
        }
        fastify.mqtt.topic('always', { qos, retry }, goodOr(fails))
        fastify.mqtt.topic('twice', { qos, retry }, goodOr((message) => {
          if (++runs < 3) throw new Error(`failure ${runs}`)
          handled.put(`${message.topic} ${message.text()}`)
        }))
        fastify.mqtt.topic('letter', { qos, retry, deadLetter: 'dead/letter' }, goodOr(fails))
        fastify.mqtt.topic('stubborn', {
          qos,
          async deadLetter (message, { attempts }) {
            if (++calls < 2) throw new Error('the target is full')
            called.put(`${message.topic} ${message.text()} after ${attempts}`)
          }
        }, goodOr(fails))
        fastify.mqtt.topic('dead/letter', { qos }, letters.put)
        await fastify.ready()
        const topics = ['always', 'twice', 'letter', 'stubborn']
        for (const topic of topics) for (const payload of ['bad', 'good']) await device.publish(topic, payload, { qos })

        const letter = await letters.next()
        assert.deepEqual([letter.text(), letter.qos, letter.retain], ['bad', qos, false])
        if (version === 5) {
          assert.deepEqual({ ...letter.properties.userProperties }, {
            'dead-letter-code': 'UNKNOWN',
            'dead-letter-message': 'always',
            'dead-letter-topic': 'letter',
            'dead-letter-attempts': '3'
          })
        }
        assert.equal(await called.next(), 'stubborn bad after 1')
        const seen = [1, 2, 3, 4, 5].map(() => handled.next())
        assert.deepEqual((await Promise.all(seen)).sort(), ['always', 'letter', 'stubborn', 'twice', 'twice bad'])
        await fastify.mqtt.idle()
        assert.deepEqual(errors.filter((line) => line.startsWith('always')), Array(3).fill('always: always'))
        assert.deepEqual(errors.filter((line) => line.startsWith('twice')), ['twice: failure 1', 'twice: failure 2'])
        assert.match(errors.filter((line) => line.startsWith('stubborn'))[1] ?? '', /\(the target is full\): it is tried again/)
        const { retried, deadLettered, unacked, running, waiting } = fastify.mqtt.stats()
        assert.deepEqual(
          { retried, deadLettered, unacked, running, waiting },
          { retried: 6, deadLettered: 2, unacked: 0, running: 0, waiting: 0 })
        await fastify.close()
        assert.equal(letters.all.length, 1)
        assert.deepEqual(await leftOver(t, broker, session), [])
      })
    }
  }

  test('with the close a retry is given up: the message comes again to the next process', async (t) => {
    const broker = await startMosquitto(t)
    const session = keptSession()
    const { fastify, logged } = await createApp(t, { url: broker.url, ...session })
    fastify.mqtt.topic('t', { qos: 1, retry: { limit: 1, delay: 60_000 } }, async () => { throw new Error('no') })
    await fastify.ready()
    await fastify.mqtt.publish('t', 'again', { qos: 1 })
    await logged(/an MQTT message was not handled/)
    const begin = performance.now()
    await fastify.close()
    assert.ok(performance.now() - begin < 5_000)
    assert.deepEqual(await leftOver(t, broker, session), ['t again'])
  })
})

suite('order and limits, on Mosquitto', { skip: mosquittoMissing, concurrency: 4 }, () => {
  for (const [qos, concurrency] of [[0, 20], [1, 20], [0, 5]] as const) {
    const parallel = Math.min(10, concurrency)
    test(`QoS ${qos}: of 1,000 messages over 10 topics each topic in order, ${parallel} in parallel`, async (t) => {
      const broker = await startMosquitto(t, { lines: ['max_inflight_messages 0', 'max_queued_messages 0'] })
      const device = await createDevice(t, broker)
      const { fastify } = await createApp(t, { url: broker.url, concurrency })
      const seen = new Map<number, number[]>()
      let [running, most, count] = [0, 0, 0]
      const end = deferred<void>()
      fastify.mqtt.topic('t/<int:n>', { qos, payload: Type.Number() }, async ({ params, payload }) => {
        most = Math.max(most, ++running)
        seen.set(params.n, [...seen.get(params.n) ?? [], payload])
        await sleep(randomInt(4))
        running--
        if (++count === 1_000) end.resolve()
      })
      await fastify.ready()
      await Promise.all(Array.from({ length: 1_000 }, (_, index) => device.publish(`t/${index % 10}`, index, { qos })))
      await within(end.promise, ceilingMs, 'end of 1,000 messages')
      for (let n = 0; n < 10; n++) {
        assert.deepEqual(seen.get(n), Array.from({ length: 100 }, (_, index) => index * 10 + n))
      }
      assert.equal(most, parallel)
      assert.equal(fastify.mqtt.stats().dropped, 0)
    })
  }

  for (const [qos, frozenOnes] of [[0, 100], [1, 10], [2, 10]] as const) {
    test(`QoS ${qos}: a frozen handler holds only its own topic name`, async (t) => {
      const broker = await startMosquitto(t, { lines: ['set_tcp_nodelay true'] })
      const device = await createDevice(t, broker)
      const session = keptSession()
      const { fastify } = await createApp(t, { url: broker.url, ...session })
      const seen = inbox<string>()
      const frozen = deferred<void>()
      fastify.mqtt.topic('t/+', { qos }, (message) => {
        seen.put(`${message.topic} ${message.text()}`)
        return message.topic === 't/frozen' ? frozen.promise : undefined
      })
      await fastify.ready()
      for (let index = 0; index < 100; index++) {
        // Less than the window of Mosquitto, 20: what is not acknowledged fills it.
        if (index < frozenOnes) await device.publish('t/frozen', String(index), { qos })
        await device.publish('t/live', String(index), { qos })
      }
      assert.equal(await seen.next(), 't/frozen 0')
      for (let index = 0; index < 100; index++) assert.equal(await seen.next(), `t/live ${index}`)
      assert.deepEqual([fastify.mqtt.stats().running, fastify.mqtt.stats().waiting], [1, frozenOnes - 1])
      frozen.resolve()
      for (let index = 1; index < frozenOnes; index++) assert.equal(await seen.next(), `t/frozen ${index}`)
      await fastify.mqtt.idle()
      assert.equal(fastify.mqtt.stats().unacked, 0)
      await fastify.close()
      assert.deepEqual(await leftOver(t, broker, session), [])
    })
  }

  test('handlers that publish to their own connection and await the broker do not wait for each other', async (t) => {
    // One round trip after the other: with Nagle's algorithm each would take 40 ms.
    const broker = await startMosquitto(t, { lines: ['set_tcp_nodelay true'] })
    const { fastify } = await createApp(t, { url: broker.url, concurrency: 1, inbox: { maxUnacked: 5_000 } })
    const seen = inbox<string>()
    fastify.mqtt.topic('in/+', { qos: 1 }, async ({ topic }) => {
      await fastify.mqtt.publish(topic.replace('in', 'out'), '', { qos: 2 })
    })
    fastify.mqtt.topic('out/+', { qos: 2 }, ({ topic }) => seen.put(topic))
    await fastify.ready()
    await Promise.all(Array.from({ length: 200 }, (_, n) => fastify.mqtt.publish(`in/${n}`, '', { qos: 1 })))
    for (let n = 0; n < 200; n++) assert.equal(await seen.next(), `out/${n}`)
  })

  test('with QoS 0 more than the inbox takes is dropped, counted, and warned of', async (t) => {
    const broker = await startMosquitto(t)
    const device = await createDevice(t, broker)
    const { fastify, logged } = await createApp(t, { url: broker.url, inbox: { maxMessages: 10 } })
    const seen = inbox<number>()
    const frozen = deferred<void>()
    fastify.mqtt.topic('t', async (message) => {
      seen.put(Number(message.text()))
      await frozen.promise
    })
    const last = inbox<string>()
    fastify.mqtt.topic('last', ({ topic }) => last.put(topic))
    await fastify.ready()
    for (let index = 0; index < 100; index++) await device.publish('t', String(index))
    await device.publish('last')
    await last.next()
    await logged(/MQTT messages were dropped: more wait for handlers than inbox.maxMessages or maxBytes allow/)
    assert.equal(fastify.mqtt.health().messages.dropped, 89)
    frozen.resolve()
    const expected = [0, ...Array.from({ length: 10 }, (_, index) => 90 + index)]
    for (const index of expected) assert.equal(await seen.next(), index)
  })
})

const overlaps = [
  { what: 'covers', filters: ['#', '<x>/temperature', '1/temperature'], copies: 1 },
  { what: 'crosses', filters: ['+/temperature', '1/+'], copies: 2 }
] as const

suite('overlapping filters, on Mosquitto', { skip: mosquittoMissing, concurrency: 2 }, () => {
  for (const allowed of [true, false]) {
    for (const version of [5, 4] as const) {
      test(`allow_duplicate_messages ${allowed}, MQTT ${version}: each topic has a message once`, async (t) => {
        const broker = await startMosquitto(t, { lines: [`allow_duplicate_messages ${allowed}`] })
        const device = await createDevice(t, broker)
        for (const { what, filters, copies } of overlaps) {
          for (const kind of ['retained', 'live'] as const) {
            const prefix = `${what}/${kind}`
            const send = async (n: number) => {
              const options = { qos: 2, retain: kind === 'retained' } as const
              await device.publish(`${prefix}/1/temperature`, String(n), options)
            }
            if (kind === 'retained') await send(0)
            const { fastify } = await createApp(t, { url: broker.url, protocolVersion: version, prefix })
            const seen: string[] = []
            const end = deferred<void>()
            for (const [qos, filter] of filters.entries()) {
              fastify.mqtt.topic(filter as string, { qos: qos as 0 | 1 | 2 }, (message) => {
                if (message.topic !== 'end') seen.push(`${filter} ${message.text()}`)
              })
            }
            fastify.mqtt.topic('end', { qos: 2 }, () => end.resolve())
            await fastify.ready()
            assert.deepEqual(fastify.mqtt.health().subscriptions.granted.length, filters.length + 1)
            // Twice the same is two messages.
            const sent = kind === 'live' ? [1, 1, 2] : [0]
            if (kind === 'live') for (const n of sent) await send(n)
            await device.publish(`${prefix}/end`, '', { qos: 2 })
            await within(end.promise, 5_000, 'end')
            await fastify.close()
            // Nothing tells the copies apart on 3.1.1: those of filters that cross may repeat.
            const isRepeated = version === 4 && (kind === 'retained' || allowed)
            const each = sent.flatMap((n) => Array<number>(isRepeated ? copies : 1).fill(n))
            const expected = filters.flatMap((filter) => each.map((n) => `${filter} ${n}`))
            assert.deepEqual(seen.sort(), expected.sort(), prefix)
          }
        }
      })
    }
  }

  test('MQTT 5, a topic and the same one shared: each once; one that is added later: no copy is handled twice', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify } = await createApp(t, { url: broker.url })
    const seen = inbox<string>()
    const add = (filter: string) => fastify.mqtt.topic(filter, { qos: 1 }, (message) => seen.put(`${filter} ${message.text()}`))
    add('job/+')
    add('$share/workers/job/+')
    await fastify.ready()
    await fastify.mqtt.publish('job/1', 'a', { qos: 1 })
    assert.deepEqual([await seen.next(), await seen.next()].sort(), ['$share/workers/job/+ a', 'job/+ a'])
    add('job/#')
    await fastify.mqtt.connect()
    await fastify.mqtt.publish('job/1', 'b', { qos: 1 })
    const three = [await seen.next(), await seen.next(), await seen.next()]
    assert.deepEqual(three.sort(), ['$share/workers/job/+ b', 'job/# b', 'job/+ b'])
    await fastify.mqtt.publish('job/1', 'c', { qos: 1 })
    assert.deepEqual(new Set([await seen.next(), await seen.next(), await seen.next()]), new Set(three.map((one) => one.replace(' b', ' c'))))
    assert.equal(seen.all.length, 8)
  })
})

suite('start and close, on Mosquitto', { skip: mosquittoMissing }, () => {
  test('retained and queued messages come after every onReady, in which plugins can publish; as in their onClose', async (t) => {
    const broker = await startMosquitto(t)
    const device = await createDevice(t, broker)
    const session = keptSession()
    const register = async (...topics: string[]) => {
      const app = createFastify(t)
      await app.fastify.register(multimqtt, { url: broker.url, ...session })
      const steps: string[] = []
      const handle = (message: Message) => { steps.push(`handles ${message.topic}`) }
      await app.fastify.register(async (child) => {
        for (const topic of topics) child.mqtt.topic(topic, { qos: 1 }, handle)
        child.addHook('onReady', async () => {
          await child.mqtt.publish('from/child', 'ready', { qos: 1 })
          steps.push('child is ready')
        })
        child.addHook('onClose', async () => { await child.mqtt.publish('from/child', 'closed', { qos: 1 }) })
      })
      app.fastify.addHook('onReady', async () => {
        steps.push('root begins')
        // Long enough for everything that the broker has to arrive.
        await app.fastify.mqtt.publish('from/root', 'ready', { qos: 2 })
        steps.push('root is ready')
      })
      return { ...app, steps }
    }
    const fromPlugins = inbox<string>()
    device.topic('from/+', { qos: 2 }, (message) => fromPlugins.put(`${message.topic} ${message.text()}`))
    await device.connect()

    const first = await register('queued')
    await first.fastify.ready()
    await first.fastify.close()
    await device.publish('queued', '', { qos: 1 })
    await device.publish('retained', 'x', { qos: 1, retain: true })

    const { fastify, steps } = await register('queued', 'retained')
    await fastify.ready()
    while (steps.length < 5) await sleep(1)
    assert.deepEqual(steps.slice(0, 3).sort(), ['child is ready', 'root begins', 'root is ready'])
    assert.deepEqual(steps.slice(3).sort(), ['handles queued', 'handles retained'])
    await fastify.close()
    const published = [1, 2, 3, 4, 5, 6].map(() => fromPlugins.next())
    assert.deepEqual((await Promise.all(published)).sort(), [
      'from/child closed', 'from/child closed', 'from/child ready', 'from/child ready', 'from/root ready', 'from/root ready'
    ])
  })
})
