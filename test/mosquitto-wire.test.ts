import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import type { MultimqttOptions } from '../lib/index.ts'
import { createApp, type TestApp } from './helpers/app.ts'
import type { Owner } from './helpers/cleanup.ts'
import { startGateway } from './helpers/gateway.ts'
import { mosquittoSub } from './helpers/mosquitto-clients.ts'
import { certificates, mosquittoMissing, startMosquitto, type Mosquitto } from './helpers/mosquitto.ts'
import { startProxy, type Proxy } from './helpers/proxy.ts'

/** More than its default of 1,000 may wait, so that what is lost is lost by us. */
const unlimited = { lines: ['max_queued_messages 0'] }
const reconnect = { minDelay: 1, maxDelay: 1 }
const ca = readFileSync(certificates.ca)

/** Ready, with the client that MQTT.js made. */
async function ready (owner: Owner, options: MultimqttOptions) {
  const app = await createApp(owner, options)
  await app.fastify.ready()
  const { client } = app.fastify.mqtt
  assert.ok(client !== undefined)
  return { ...app, client }
}

function losses ({ lines }: TestApp): number {
  return lines.filter(({ msg }) => /lost the connection/.test(msg)).length
}

suite('the raw client, on Mosquitto', { skip: mosquittoMissing }, () => {
  for (const version of [5, 4] as const) {
    test(`MQTT ${version}: 300 of its messages beside 300 of ours, of every QoS, keep to the window`, async (t) => {
      // On MQTT 3.1.1 it has a window for QoS 2 as well, and no way to say so.
      const lines = version === 5 ? unlimited.lines : [...unlimited.lines, 'max_inflight_messages 0']
      const broker = await startMosquitto(t, { lines })
      const { fastify, client, ...app } = await ready(t, { url: broker.url, protocolVersion: version })
      const observer = mosquittoSub(t, broker, { topics: ['n/#'], qos: 1 })
      await observer.ready
      const numbers = Array.from({ length: 300 }, (_, index) => index)
      await Promise.all(numbers.flatMap((number) => {
        const qos = number % 3 as 0 | 1 | 2
        return [
          client.publishAsync(`n/theirs/${number}`, 'x', { qos }),
          fastify.mqtt.publish(`n/ours/${number}`, 'x', { qos })
        ]
      }))
      const seen = []
      while (seen.length < 600) seen.push((await observer.next()).topic)
      assert.equal(new Set(seen).size, 600)
      // At more than its 20 Mosquitto would have ended the connection.
      assert.equal(losses({ fastify, ...app }), 0)
      // And all identifiers are free again.
      await Promise.all(Array.from({ length: 1_100 }, () => client.publishAsync('n/more', '', { qos: 1 })))
    })
  }

  test('a filter of 65,536 bytes between 50 messages costs one connection, and none of them', async (t) => {
    const broker = await startMosquitto(t, unlimited)
    const { fastify, client, ...app } = await ready(t, { url: broker.url, reconnect })
    const observer = mosquittoSub(t, broker, { topics: ['n/#'], qos: 1 })
    await observer.ready
    const publish = (number: number) => fastify.mqtt.publish(`n/${number}`, 'x'.repeat(500), { qos: 1 })
    const before = Array.from({ length: 25 }, (_, index) => publish(index))
    const subscribed = assert.rejects(client.subscribeAsync('x'.repeat(65_536)), /Message removed/)
    const after = Array.from({ length: 25 }, (_, index) => publish(25 + index))
    await Promise.all([...before, ...after, subscribed])
    const topics = new Set<string>()
    while (topics.size < 50) topics.add((await observer.next()).topic)
    assert.equal(losses({ fastify, ...app }), 1)
  })

  test('a message that is too large for the broker is refused to it, and it is not deaf then', async (t) => {
    const broker = await startMosquitto(t, { lines: ['message_size_limit 1000'] })
    const { fastify, client, ...app } = await ready(t, { url: broker.url })
    await assert.rejects(client.publishAsync('a', 'x'.repeat(2_000), { qos: 1 }), /Publish error/)
    await assert.rejects(client.publishAsync('a', 'x'.repeat(2_000), { qos: 2 }), /Publish error/)
    await assert.rejects(fastify.mqtt.publish('a', 'x'.repeat(2_000), { qos: 1 }), {
      code: 'FST_MQTT_PUBLISH_REFUSED', message: /Packet too large/
    })
    const [granted] = await client.subscribeAsync('a')
    assert.equal(granted?.qos, 0)
    await client.publishAsync('a', 'small', { qos: 1 })
    await client.unsubscribeAsync('a')
    assert.equal(losses({ fastify, ...app }), 0)
  })

  test('a subscription of its own is heard by its listeners, beside ours', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify, client } = await ready(t, { url: broker.url })
    await client.subscribeAsync('raw/#', { qos: 2 })
    const heard: string[] = []
    const all = new Promise<void>((resolve) => {
      client.on('message', (topic, payload, { qos }) => {
        if (heard.push(`${topic} ${payload.toString()} ${qos}`) === 3) resolve()
      })
    })
    for (const qos of [0, 1, 2] as const) await fastify.mqtt.publish(`raw/${qos}`, 'x', { qos })
    await all
    assert.deepEqual(heard, ['raw/0 x 0', 'raw/1 x 1', 'raw/2 x 2'])
  })

  test('its own QoS 1 messages survive a cut among ours', async (t) => {
    const broker = await startMosquitto(t, unlimited)
    const proxy = await startProxy(t, broker.ports.plain)
    const { fastify, client, ...app } = await ready(t, { url: proxy.url, reconnect })
    const observer = mosquittoSub(t, broker, { topics: ['n/#'], qos: 1 })
    await observer.ready
    proxy.cutAfter(3_000)
    const numbers = Array.from({ length: 60 }, (_, index) => index)
    await Promise.all(numbers.flatMap((number) => [
      client.publishAsync(`n/theirs/${number}`, 'x'.repeat(100), { qos: 1 }),
      fastify.mqtt.publish(`n/ours/${number}`, 'x'.repeat(100), { qos: 1 })
    ]))
    const topics = new Set<string>()
    while (topics.size < 120) topics.add((await observer.next()).topic)
    assert.equal(losses({ fastify, ...app }), 1)
  })
})

/** From the app to the broker through a proxy that cuts. */
type Way = (owner: Owner, broker: Mosquitto) => Promise<[Proxy, MultimqttOptions]>
const ways: Readonly<Record<string, Way>> = {
  async tcp (owner, { ports }) {
    const proxy = await startProxy(owner, ports.plain)
    return [proxy, { url: proxy.url }]
  },
  async tls (owner, { ports }) {
    const proxy = await startProxy(owner, ports.tls)
    return [proxy, { url: `mqtts://localhost:${proxy.port}`, tls: { ca } }]
  },
  async ws (owner, { ports }) {
    const proxy = await startProxy(owner, (await startGateway(owner, ports.plain, { protocol: 'ws' })).port)
    return [proxy, { url: `ws://localhost:${proxy.port}/mqtt` }]
  },
  async wss (owner, { ports }) {
    const proxy = await startProxy(owner, (await startGateway(owner, ports.plain, { protocol: 'wss' })).port)
    return [proxy, { url: `wss://localhost:${proxy.port}/mqtt`, tls: { ca } }]
  }
}

suite('transports, on Mosquitto', { skip: mosquittoMissing }, () => {
  for (const [name, wayTo] of Object.entries(ways)) {
    for (const version of [5, 4] as const) {
      test(`${name}, MQTT ${version}: a cut in the middle of 3 MB leaves nothing open`, async (t) => {
        const broker = await startMosquitto(t, unlimited)
        const [proxy, options] = await wayTo(t, broker)
        const { fastify, client, ...app } = await ready(t, {
          ...options, protocolVersion: version, reconnect
        })
        const observer = mosquittoSub(t, broker, { topics: ['n/#'], qos: 1 })
        await observer.ready
        const told: unknown[] = []
        client.on('error', (error) => told.push(error))
        proxy.cutAfter(1_500_000)
        // 3 MB: three of 300 KB, which go uncopied, and 2,100 of 1 KB.
        const sizes = Array.from({ length: 2_103 }, (_, index) => index % 701 === 0 ? 300_000 : 1_000)
        const outcomes = await Promise.allSettled(sizes.map((size, number) =>
          fastify.mqtt.publish(`n/${number}`, Buffer.alloc(size, number), { qos: number % 3 as 0 | 1 | 2 })))
        const wanted = new Set<string>()
        for (const [number, outcome] of outcomes.entries()) {
          if (outcome.status === 'fulfilled') {
            if (number % 3 !== 0) wanted.add(`n/${number}`)
            continue
          }
          const { code } = outcome.reason as { code: string }
          // Of a clean session nobody can say more; QoS 0 is not sent again.
          assert.ok(number % 3 !== 1, `QoS 1 was rejected: ${code}`)
          assert.match(code, /^FST_MQTT_(DELIVERY_UNKNOWN|OFFLINE)$/)
        }
        assert.ok(wanted.size >= 701, `${wanted.size} were taken`)
        assert.ok(outcomes.some(({ status }) => status === 'rejected'))
        while (wanted.size > 0) wanted.delete((await observer.next()).topic)
        assert.equal(losses({ fastify, ...app }), 1)
        assert.ok(told.length <= 1, `${told.length} errors`)
        assert.equal(fastify.mqtt.status, 'ready')
      })
    }
  }
})
