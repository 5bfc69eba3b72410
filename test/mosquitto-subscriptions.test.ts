import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { suite, test, type TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { connect as mqttConnect } from 'mqtt'
import { createApp, inbox } from './helpers/app.ts'
import { onEnd } from './helpers/cleanup.ts'
import { openLiveBook, type LiveBook } from './helpers/live-book.ts'
import { mosquittoCtrl, mosquittoPub } from './helpers/mosquitto-clients.ts'
import { mosquittoMissing, startMosquitto, type Mosquitto } from './helpers/mosquitto.ts'
import { startProxy } from './helpers/proxy.ts'
import { subscribeOptions as options } from './helpers/subscribe-port.ts'

/** A broker with a user `ann`, who may publish everything and subscribe to some. */
async function startWithPermissions (t: TestContext, ...filters: readonly string[]): Promise<Mosquitto> {
  const broker = await startMosquitto(t)
  for (const command of [
    ['createRole', 'reader'],
    ['addRoleACL', 'reader', 'publishClientSend', '#', 'allow'],
    ...filters.map((filter) => ['addRoleACL', 'reader', 'subscribePattern', filter, 'allow']),
    ['createClient', 'ann', '-p', 'secret'],
    ['addClientRole', 'ann', 'reader']
  ]) await mosquittoCtrl(broker, 'dynsec', ...command)
  return broker
}

/** Ends no connection. mosquitto_ctrl 2.0.11 has the command, and it does nothing. */
async function allowByDefault (broker: Mosquitto, acltype: string): Promise<void> {
  await mosquittoPub(broker, {
    port: broker.ports.dynsec,
    username: 'admin',
    password: 'admin-password',
    topic: '$CONTROL/dynamic-security/v1',
    message: JSON.stringify({ commands: [{ command: 'setDefaultACLAccess', acls: [{ acltype, allow: true }] }] }),
    qos: 1
  })
}

/** Publishes to each topic, and expects exactly those messages. */
async function hears (
  live: LiveBook, broker: Mosquitto, port: number, topics: readonly string[]
): Promise<void> {
  for (const topic of topics) {
    const message = randomUUID()
    await mosquittoPub(broker, { port, username: 'ann', password: 'secret', topic, message, qos: 1 })
    const { topic: heard, text } = await live.nextMessage()
    assert.deepEqual([heard, text], [topic, message])
  }
}

suite('subscriptions at Mosquitto', { skip: mosquittoMissing }, () => {
  for (const [version, sessionOf, session] of [
    [5, undefined, 'no session'], [5, 'kept', 'a kept session'], [4, undefined, 'no session']
  ] as const) {
    test(`MQTT ${version}, ${session}: what is refused costs no other filter, and comes back by itself`, async (t) => {
      const broker = await startWithPermissions(t, 'one', 'two')
      const proxy = await startProxy(t, broker.ports.dynsec)
      const port = broker.ports.dynsec
      const live = openLiveBook(t, { url: `mqtt://ann:secret@127.0.0.1:${proxy.port}`, version, sessionOf })
      const { book } = live
      // QoS 0: an acknowledgement that is cut off would bring a message again.
      for (const filter of ['one', 'two', 'three']) book.want(filter, options())
      await book.answered()
      const reasonCode = version === 5 ? 0x87 : 0x80
      const state = () => ({
        granted: book.granted.map(({ filter }) => filter),
        refused: book.refused.map(({ filter, reasonCode }) => `${filter} ${reasonCode}`),
        pending: book.pending
      })
      assert.deepEqual(state(), { granted: ['one', 'two'], refused: [`three ${reasonCode}`], pending: [] })
      await hears(live, broker, port, ['one', 'two'])

      // Taken away, by which the broker ends the connection.
      let connected = live.connected()
      await mosquittoCtrl(broker, 'dynsec', 'removeRoleACL', 'reader', 'subscribePattern', 'two')
      assert.equal(await connected, sessionOf !== undefined)
      await book.answered()
      const isRefused = { granted: ['one'], refused: [`two ${reasonCode}`, `three ${reasonCode}`], pending: [] }
      assert.deepEqual(state(), isRefused)
      await hears(live, broker, port, ['one'])

      connected = live.connected()
      proxy.cut()
      await connected
      await book.answered()
      assert.deepEqual(state(), isRefused)
      await hears(live, broker, port, ['one'])

      // Given back, by which the broker ends the connection again, and the other without that.
      await mosquittoCtrl(broker, 'dynsec', 'addRoleACL', 'reader', 'subscribePattern', 'two', 'allow')
      await live.next('restored two')
      await hears(live, broker, port, ['one', 'two'])
      await allowByDefault(broker, 'subscribe')
      await live.next('restored three')
      assert.deepEqual(state(), { granted: ['one', 'two', 'three'], refused: [], pending: [] })
      await hears(live, broker, port, ['one', 'two', 'three'])
      assert.deepEqual(live.told, ['refused three', 'refused two', 'restored two', 'restored three'])
    })
  }

  for (const [version, session, what] of [
    [5, { session: { expiry: 60 }, clientId: 'kept' }, 'a kept session'],
    [4, { session: { expiry: 60 }, clientId: 'kept' }, 'a kept session'], [4, {}, 'no session']
  ] as const) {
    test(`MQTT ${version}, ${what}: an application shows and tells what is refused, and hears it again`, async (t) => {
      const broker = await startWithPermissions(t, 'one', 'two')
      const proxy = await startProxy(t, broker.ports.dynsec)
      const { fastify, lines, logged } = await createApp(t, {
        url: `mqtt://ann:secret@127.0.0.1:${proxy.port}`, protocolVersion: version, ...session
      })
      const seen = inbox<string>()
      for (const topic of ['one', 'two', 'three'] as const) {
        fastify.mqtt.topic(topic, (message) => seen.put(`${topic} ${message.text()}`))
      }
      await fastify.ready()
      const health = (): unknown => {
        const { ok, subscriptions: { granted, refused } } = fastify.mqtt.health()
        const filtersOf = (all: readonly { filter: string }[]) => all.map(({ filter }) => filter)
        return { ok, granted: filtersOf(granted), refused: filtersOf(refused) }
      }
      const hears = async (...topics: readonly string[]) => {
        for (const topic of topics) {
          await fastify.mqtt.publish(topic, 'x', { qos: 1 })
          assert.equal(await seen.next(), `${topic} x`)
        }
      }
      assert.deepEqual(health(), { ok: false, granted: ['one', 'two'], refused: ['three'] })
      await hears('one', 'two')

      await mosquittoCtrl(broker, 'dynsec', 'removeRoleACL', 'reader', 'subscribePattern', 'two')
      await logged(/'two' was refused: /)
      await logged(/connected to .* again after/)
      await fastify.mqtt.connect()
      assert.deepEqual(health(), { ok: false, granted: ['one'], refused: ['two', 'three'] })
      await hears('one')

      proxy.cut()
      await logged(/connected to .* again after/)
      await fastify.mqtt.connect()
      assert.deepEqual(health(), { ok: false, granted: ['one'], refused: ['two', 'three'] })
      await hears('one')

      await mosquittoCtrl(broker, 'dynsec', 'addRoleACL', 'reader', 'subscribePattern', 'two', 'allow')
      await logged(/'two' is granted now/)
      await allowByDefault(broker, 'subscribe')
      await logged(/'three' is granted now/)
      assert.deepEqual(health(), { ok: true, granted: ['one', 'two', 'three'], refused: [] })
      await hears('one', 'two', 'three')
      assert.equal(lines.filter(({ msg, level }) => msg.includes('was refused') && level === 50).length, 2)
      assert.equal(seen.all.length, 7)
    })
  }

  for (const version of [5, 4] as const) {
    test(`MQTT ${version}: MQTT.js alone is deaf on all three after the reconnect, and says nothing`, async (t) => {
      const broker = await startWithPermissions(t, 'one', 'two')
      const port = broker.ports.dynsec
      const proxy = await startProxy(t, port)
      const errors: string[] = []
      const client = mqttConnect(`mqtt://ann:secret@127.0.0.1:${proxy.port}`, {
        protocolVersion: version, reconnectPeriod: 20
      })
      onEnd(t, async () => { await client.endAsync(true) })
      // Of the cut itself it tells.
      client.on('error', ({ message }) => { if (!message.includes('ECONNRESET')) errors.push(message) })
      const seen = inbox<string>()
      client.on('message', (topic, payload) => seen.put(`${topic} ${payload.toString()}`))
      const connected = () => new Promise((resolve) => client.once('connect', resolve))
      await connected()
      await new Promise((resolve) => { client.subscribe(['one', 'two', 'three'], resolve) })
      const others = ['one', 'two']
      const publish = async (message: string) => {
        for (const topic of others) {
          await mosquittoPub(broker, { port, username: 'ann', password: 'secret', topic, message, qos: 1 })
        }
      }
      await publish('before')
      assert.deepEqual([await seen.next(), await seen.next()], ['one before', 'two before'])
      const again = connected()
      proxy.cut()
      await again
      // What it does by itself comes before this.
      await client.publishAsync('marker', '', { qos: 1 })
      await publish('after')
      await client.publishAsync('marker', '', { qos: 1 })
      assert.deepEqual([seen.all, errors], [['one before', 'two before'], []])
    })
  }

  for (const version of [4, 5] as const) {
    test(`MQTT ${version}: what was lost on its way or added since is live on the kept session`, async (t) => {
      const broker = await startMosquitto(t)
      const port = broker.ports.plain
      const proxy = await startProxy(t, port)
      for (const topic of ['before', 'lost', 'added']) {
        await mosquittoPub(broker, { topic, message: `retained ${topic}`, qos: 1, retain: true })
      }
      const live = openLiveBook(t, { url: proxy.url, version, sessionOf: 'kept' })
      const { book } = live
      book.want('before', options())
      await book.answered()
      assert.equal((await live.nextMessage()).text, 'retained before')

      proxy.drop('up')
      book.want('lost', options())
      await turn()
      assert.deepEqual(live.sent.at(-1), ['lost'])
      let connected = live.connected()
      proxy.drop(false)
      proxy.cut()
      assert.equal(await connected, true)
      await book.answered()
      assert.equal((await live.nextMessage()).text, 'retained lost')

      connected = live.connected()
      proxy.refuse(true)
      proxy.cut()
      book.want('added', options())
      proxy.refuse(false)
      assert.equal(await connected, true)
      await book.answered()
      assert.equal((await live.nextMessage()).text, 'retained added')
      await hears(live, broker, port, ['before', 'lost', 'added'])
      assert.equal(book.granted.length, 3)
    })

    test(`MQTT ${version}: a session without subscriptions, kept from an earlier process, gets all`, async (t) => {
      const broker = await startMosquitto(t)
      const earlier = openLiveBook(t, { url: broker.url, version, sessionOf: 'kept' })
      assert.equal(await earlier.connected(), false)
      earlier.end()
      const live = openLiveBook(t, { url: broker.url, version, sessionOf: 'kept' })
      live.book.want('a', options())
      assert.equal(await live.connected(), true)
      await live.book.answered()
      await hears(live, broker, broker.ports.plain, ['a'])
    })
  }

  test('MQTT 5: each copy of a message tells by which of the overlapping subscriptions it came', async (t) => {
    const broker = await startMosquitto(t)
    const live = openLiveBook(t, { url: broker.url, version: 5 })
    const filters = ['c/d', 'c/+', 'c/#', '$share/g/c/d']
    for (const filter of ['alone', ...filters]) live.book.want(filter, options({ qos: 1 }))
    await live.book.answered()
    await mosquittoPub(broker, { topic: 'c/d', message: 'x', qos: 1 })
    const seen = []
    for (const _ of filters) seen.push(...(await live.nextMessage()).filters)
    assert.deepEqual(seen.sort(), [...filters].sort())
    await mosquittoPub(broker, { topic: 'alone', message: 'x', qos: 1 })
    assert.deepEqual((await live.nextMessage()).filters, [])
  })
})
