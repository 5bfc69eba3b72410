import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import { Type } from '@sinclair/typebox'
import type { Message, MultimqttOptions } from '../lib/index.ts'
import { createApp, inbox } from './helpers/app.ts'
import { mosquittoCtrl, mosquittoPub, mosquittoSub } from './helpers/mosquitto-clients.ts'
import {
  certificates, mosquittoMissing, passwordFile, startMosquitto, type Mosquitto
} from './helpers/mosquitto.ts'

const skip = mosquittoMissing
const ca = readFileSync(certificates.ca)

/** How our side reaches the broker; mosquitto_pub and mosquitto_sub always use the plain listener. */
const transports: Record<string, (broker: Mosquitto) => MultimqttOptions> = {
  plain: ({ ports }) => ({ url: `mqtt://127.0.0.1:${ports.plain}`, prefix: 'site' }),
  tls: ({ ports }) => ({ url: `mqtts://localhost:${ports.tls}/site`, tls: { ca } }),
  'mutual tls': ({ ports }) => ({
    protocol: 'mqtts',
    host: 'localhost',
    port: ports.tls,
    prefix: 'site',
    tls: { ca: [ca], cert: readFileSync(certificates.clientCert), key: readFileSync(certificates.clientKey) }
  }),
  websocket: ({ ports }) => ({ url: `ws://127.0.0.1:${ports.websocket}/mqtt`, prefix: 'site' })
}

suite('on Mosquitto', { skip }, () => {
  for (const [transport, optionsFor] of Object.entries(transports)) {
    for (const version of [5, 4] as const) {
      test(`real input over ${transport} with MQTT ${version}: what mosquitto_pub sends arrives as it is`, async (t) => {
        const broker = await startMosquitto(t)
        const { fastify } = await createApp(t, { ...optionsFor(broker), protocolVersion: version })
        const seen = inbox<Message<{ path: string }>>()
        await mosquittoPub(broker, { topic: 'site/in/kept', message: 'retained', retain: true, version })
        fastify.mqtt.topic('in/<path:path>', { qos: 2 }, seen.put)
        await fastify.ready()
        const kept = await seen.next()
        assert.deepEqual([kept.params.path, kept.text(), kept.retain], ['kept', 'retained', true])
        const binary = Buffer.from(Array.from({ length: 256 }, (_, index) => index))
        for (const [topic, message] of [
          ['text', 'plain text'], ['json', '{"celsius":20.5,"data":[1]}'], ['binary', binary], ['empty', ''],
          ['größe/温度/😀', 'ünï😀'], ['a b/c.d//e', 'spaces, dots and empty levels'], ['large', Buffer.alloc(12_000, 'x')]
        ] as const) {
          for (const qos of [0, 1, 2] as const) {
            await mosquittoPub(broker, { topic: `site/in/${topic}`, message, qos, version })
            const received = await seen.next()
            assert.equal(received.params.path, topic)
            assert.equal(received.absoluteTopic, `site/in/${topic}`)
            assert.deepEqual(received.raw, Buffer.from(message))
            assert.equal(received.qos, qos)
            assert.equal(received.retain, false)
          }
        }
      })

      test(`real input over ${transport} with MQTT ${version}: mosquitto_sub observes what is published`, async (t) => {
        const broker = await startMosquitto(t)
        const { fastify } = await createApp(t, { ...optionsFor(broker), protocolVersion: version })
        const observer = mosquittoSub(t, broker, { topics: ['site/out/#'], qos: 2, version })
        await Promise.all([observer.ready, fastify.ready()])
        const lamp = fastify.mqtt.topic('out/lamp/<int:id>', { qos: 1, payload: Type.Object({ on: Type.Boolean() }) })
        await lamp.publish({ id: 7 }, { on: true })
        const observed = await observer.next()
        assert.deepEqual([observed.topic, observed.payload.toString(), observed.qos],
          ['site/out/lamp/7', '{"on":true}', 1])
        for (const [topic, payload] of [
          ['text', 'ünï😀'], ['binary', Buffer.from([0, 255, 10, 13])], ['größe/温度', { hello: 'world' }]
        ] as const) {
          for (const qos of [0, 1, 2] as const) {
            await fastify.mqtt.publish(`out/${topic}`, payload, { qos })
            const { topic: name, payload: bytes, qos: level } = await observer.next()
            const expected = typeof payload === 'string' || Buffer.isBuffer(payload) ? payload : JSON.stringify(payload)
            assert.deepEqual([name, bytes, level], [`site/out/${topic}`, Buffer.from(expected), qos])
          }
        }
        await fastify.mqtt.publish('out/kept', 'yes', { retain: true, qos: 1 })
        await observer.next()
        const late = mosquittoSub(t, broker, { topics: ['site/out/kept'], version })
        const retained = await late.next()
        assert.deepEqual([retained.payload.toString(), retained.retain], ['yes', true])
      })
    }
  }

  test('TLS: a certificate for another host name is refused, with the cause in the error', async (t) => {
    const broker = await startMosquitto(t, {
      lines: [
        'listener {{extra}} 127.0.0.1', 'allow_anonymous true', 'cafile {{certs}}/ca.crt',
        'certfile {{certs}}/other-host.crt', 'keyfile {{certs}}/other-host.key'
      ]
    })
    const { fastify } = await createApp(t, {
      url: `mqtts://localhost:${broker.ports.extra}`, tls: { ca }, connectTimeout: 700
    })
    await assert.rejects(async () => await fastify.ready(), {
      code: 'FST_MQTT_CONNECT_FAILED', message: /Hostname\/IP does not match certificate's altnames/
    })
  })

  test('TLS: an unknown authority is refused, unless rejectUnauthorized is false, which is warned of', async (t) => {
    const broker = await startMosquitto(t)
    const url = `mqtts://localhost:${broker.ports.tls}`
    const strict = await createApp(t, { url, connectTimeout: 700 })
    await assert.rejects(async () => await strict.fastify.ready(), {
      code: 'FST_MQTT_CONNECT_FAILED', message: /unable to (verify|get)|self.signed/
    })
    const careless = await createApp(t, { url, tls: { rejectUnauthorized: false } })
    await careless.logged(/rejectUnauthorized is false: anyone can pretend to be mqtts:\/\/localhost/)
    await careless.fastify.ready()
  })

  test('start: a wrong password ends ready() with the reason, the right one connects', async (t) => {
    const broker = await startMosquitto(t, {
      lines: ['listener {{extra}} 127.0.0.1', 'allow_anonymous false', 'password_file {{dir}}/passwords'],
      files: { passwords: passwordFile({ ann: 'right' }) }
    })
    const url = (password: string) => `mqtt://ann:${password}@127.0.0.1:${broker.ports.extra}`
    for (const protocolVersion of [4, 5] as const) {
      const wrong = await createApp(t, { url: url('wrong'), protocolVersion, connectTimeout: 700 })
      await assert.rejects(async () => await wrong.fastify.ready(), {
        code: 'FST_MQTT_CONNECT_FAILED', message: /Connection refused: Not authorized/
      })
    }
    const { fastify } = await createApp(t, { url: url('right') })
    await fastify.ready()
  })

  test('reconnect: a broker that is killed and started again under the app is subscribed again', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify, logged } = await createApp(t, { url: broker.url })
    const seen = inbox<string>()
    fastify.mqtt.topic('a/<x>', { qos: 1 }, (message) => seen.put(message.text()))
    fastify.mqtt.topic('b', (message) => seen.put(message.text()))
    await fastify.ready()
    await logged(/connected to/)
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      await broker.stop(signal)
      await logged(/lost the connection/)
      assert.equal(fastify.mqtt.status, 'offline')
      await broker.start()
      await logged(/connected to/)
      // An acknowledged publish of our own follows the subscriptions on the same connection.
      await fastify.mqtt.publish('marker', '', { qos: 1 })
      await mosquittoPub(broker, { topic: 'a/1', message: `a ${signal}`, qos: 1 })
      await mosquittoPub(broker, { topic: 'b', message: `b ${signal}` })
      assert.deepEqual([await seen.next(), await seen.next()], [`a ${signal}`, `b ${signal}`])
    }
  })

  test('subscribing: noLocal keeps our own messages away', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify } = await createApp(t, { url: broker.url })
    const seen = inbox<string>()
    fastify.mqtt.topic('t', { noLocal: true }, (message) => seen.put(message.text()))
    await fastify.ready()
    await fastify.mqtt.publish('t', 'ours', { qos: 1 })
    await mosquittoPub(broker, { topic: 't', message: 'theirs' })
    assert.equal(await seen.next(), 'theirs')
    assert.equal(seen.all.length, 1)
  })

  test('subscribing: a shared subscription brings each message to one of two applications', async (t) => {
    const broker = await startMosquitto(t)
    const seen = inbox<string>()
    const apps = await Promise.all(['one', 'two'].map(async (name) => {
      const { fastify } = await createApp(t, { url: `${broker.url}/p` })
      fastify.mqtt.topic('$share/group/t/<int:n>', { qos: 1 }, (message) => seen.put(`${name} ${message.topic}`))
      await fastify.ready()
      return fastify
    }))
    assert.deepEqual(apps.map(({ mqtt }) => mqtt.health().subscriptions.granted[0]?.filter),
      ['$share/group/p/t/+', '$share/group/p/t/+'])
    const numbers = Array.from({ length: 10 }, (_, index) => index)
    for (const n of numbers) await mosquittoPub(broker, { topic: `p/t/${n}`, message: '', qos: 1 })
    const got = []
    for (const _ of numbers) got.push(await seen.next())
    assert.deepEqual(got.map((line) => line.split(' ')[1]).sort(), numbers.map((n) => `t/${n}`))
    assert.equal(new Set(got.map((line) => line.split(' ')[0])).size, 2)
  })

  test('subscribing: a filter that the dynamic security plugin refuses is told, the others work', async (t) => {
    const broker = await startMosquitto(t)
    for (const command of [
      ['createRole', 'reader'], ['addRoleACL', 'reader', 'subscribePattern', 'allowed/#', 'allow', '1'],
      ['addRoleACL', 'reader', 'publishClientSend', 'allowed/#', 'allow', '1'],
      ['createClient', 'ann', '-p', 'secret'], ['addClientRole', 'ann', 'reader']
    ]) await mosquittoCtrl(broker, 'dynsec', ...command)
    for (const [version, reasonCode] of [[5, 0x87], [4, 0x80]] as const) {
      const { fastify, logged } = await createApp(t, {
        url: `mqtt://ann:secret@127.0.0.1:${broker.ports.dynsec}`, protocolVersion: version
      })
      const seen = inbox<string>()
      fastify.mqtt.topic('forbidden/#', () => {})
      fastify.mqtt.topic('allowed/#', (message) => seen.put(message.text()))
      await fastify.ready()
      const line = await logged(/subscription to 'forbidden\/#' was refused/)
      assert.equal(line['reasonCode'], reasonCode)
      const { ok, subscriptions: { granted, refused } } = fastify.mqtt.health()
      assert.equal(ok, false)
      assert.deepEqual(granted, [{ filter: 'allowed/#', qos: 0 }])
      assert.deepEqual(refused.map((one) => one.filter), ['forbidden/#'])
      await fastify.mqtt.publish('allowed/x', 'hello', { qos: 1 })
      assert.equal(await seen.next(), 'hello')
    }
  })

  test('publishing: a message that the permissions forbid is refused where the protocol can say so', async (t) => {
    const broker = await startMosquitto(t)
    const { fastify } = await createApp(t, { url: `mqtt://admin:admin-password@127.0.0.1:${broker.ports.dynsec}` })
    await fastify.ready()
    await assert.rejects(fastify.mqtt.publish('forbidden', 'x', { qos: 1 }), {
      code: 'FST_MQTT_PUBLISH_REFUSED', message: /to 'forbidden': .*Not authorized/
    })
  })
})
