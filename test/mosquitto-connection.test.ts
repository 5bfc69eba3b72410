import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import multimqtt, { type MultimqttOptions } from '../lib/index.ts'
import { createApp, createFastify, inbox, type TestApp } from './helpers/app.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { mosquittoCtrl, mosquittoPub, mosquittoSub } from './helpers/mosquitto-clients.ts'
import {
  certificates, mosquittoMissing, passwordFile, startMosquitto
} from './helpers/mosquitto.ts'
import { endWithUs } from './helpers/programs.ts'
import { startProxy } from './helpers/proxy.ts'

const skip = mosquittoMissing
const ca = readFileSync(certificates.ca)
/** Short waits, so that a test need not wait for long ones. */
const reconnect = { minDelay: 20, maxDelay: 100 }

const presence = { topic: 'me', online: 'here', offline: 'gone' }

async function text (observer: ReturnType<typeof mosquittoSub>): Promise<string> {
  return (await observer.next()).payload.toString()
}

function ownerOf (owner: Owner): MultimqttOptions {
  const dir = mkdtempSync(join(tmpdir(), 'mm-'))
  onEnd(owner, () => rmSync(dir, { recursive: true, force: true }))
  return { processes: { mode: 'single', group: 'g', dir } }
}

/** There is an owner already. */
async function memberOf (owner: Owner, url: string): Promise<MultimqttOptions> {
  const options = ownerOf(owner)
  const { fastify } = await createApp(owner, { url, ...options })
  await fastify.ready()
  return options
}

/** The plugin in a process of its own, connected. */
async function startProcess (
  owner: Owner, options: MultimqttOptions
): Promise<{ kill: () => Promise<void> }> {
  const script = fileURLToPath(new URL('fixtures/present.js', import.meta.url))
  const child = spawn(process.execPath, [script, JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  endWithUs(child)
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'close')
    child.kill('SIGKILL')
    await ended
  }
  onEnd(owner, kill)
  await once(child.stdout, 'data')
  return { kill }
}

suite('on Mosquitto', { skip, concurrency: 2 }, () => {
  suite('a connection', { concurrency: 3 }, () => {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      test(`survives ${signal} and a start of the broker, with what is published meanwhile`, async (t) => {
        const broker = await startMosquitto(t)
        const { fastify, logged } = await createApp(t, {
          url: broker.url, clientId: 'me', session: { expiry: 600 }, reconnect
        })
        const seen = inbox<string>()
        fastify.mqtt.topic('t', { qos: 1 }, (message) => seen.put(message.text()))
        await fastify.ready()
        for (const round of ['first', 'second']) {
          await broker.stop(signal)
          assert.match((await logged(/^lost the connection to .*, connecting again: /)).msg, /closed|ECONNRESET/)
          const { ok, status } = fastify.mqtt.health()
          assert.deepEqual([ok, status], [false, 'offline'])
          const publishing = fastify.mqtt.publish('t', round, { qos: 1 })
          await assert.rejects(fastify.mqtt.publish('t', 'lost'), { code: 'FST_MQTT_OFFLINE' })
          const { attempts } = fastify.mqtt.health()
          await logged(/^could not connect to .*ECONNREFUSED/)
          await broker.start()
          await publishing
          await logged(/^connected to .* again after /)
          assert.ok(fastify.mqtt.health().attempts - attempts < 100)
          // Its session is gone with the broker: it may come before the filter is subscribed again.
          await fastify.mqtt.connect()
          await fastify.mqtt.publish('t', `${round} again`, { qos: 1 })
          while (await seen.next() !== `${round} again`);
          assert.deepEqual([fastify.mqtt.status, fastify.mqtt.health().ok], ['ready', true])
        }
      })
    }

    for (const start of ['wait', 'background', 'manual'] as const) {
      test(`start '${start}': a broker that is absent is waited for as that says`, async (t) => {
        const broker = await startMosquitto(t)
        await broker.stop()
        const { fastify, logged } = await createApp(t, { url: broker.url, start, reconnect })
        fastify.mqtt.topic('t', () => {})
        const isReady = fastify.ready().then(() => true)
        if (start !== 'wait') assert.equal(await isReady, true)
        if (start === 'manual') assert.equal(fastify.mqtt.status, 'idle')
        const connected = start === 'manual' ? fastify.mqtt.connect() : isReady
        await logged(/^could not connect to .*, trying again: connect ECONNREFUSED/)
        assert.equal(fastify.mqtt.status, 'connecting')
        await broker.start()
        await connected
        await fastify.mqtt.connect()
        assert.deepEqual([fastify.mqtt.status, fastify.mqtt.health().ok], ['ready', true])
      })
    }

    test('TLS spoken to the plain port, and the reverse: the error says where to look', async (t) => {
      const { ports } = await startMosquitto(t)
      const cases = [
        [{ url: `mqtts://localhost:${ports.plain}`, tls: { ca } }, /does that port speak TLS\?/],
        [{ url: `mqtt://localhost:${ports.tls}` }, /is that an MQTT broker, and its port for mqtt:\/\/\?/],
        [{ url: `mqtt://localhost:${ports.websocket}` }, /is that an MQTT broker, and its port for mqtt:\/\/\?/],
        [{ url: `ws://localhost:${ports.plain}` }, /is that an MQTT broker, and its port for ws:\/\/\?/],
        [{ url: `mqtts://localhost:${ports.tls}` }, /is its authority in tls.ca\?/]
      ] as const
      await Promise.all(cases.map(async ([options, says]) => {
        const { fastify, lines } = await createApp(t, { ...options, connectTimeout: 1_500 })
        await assert.rejects(async () => { await fastify.ready() }, { code: 'FST_MQTT_CONNECT_FAILED', message: says })
        const [line] = lines.filter(({ msg }) => msg.startsWith('could not connect'))
        assert.match(line?.msg ?? '', says)
      }))
    })

    for (const protocolVersion of [5, 4] as const) {
      test(`a wrong password is told, and the right one of credentials() lets in, MQTT ${protocolVersion}`, async (t) => {
        const broker = await startMosquitto(t, {
          lines: ['listener {{extra}} 127.0.0.1', 'allow_anonymous false', 'password_file {{dir}}/passwords'],
          files: { passwords: passwordFile({ ann: 'right' }) }
        })
        let password = 'wrong'
        const { fastify, logged } = await createApp(t, {
          url: `mqtt://127.0.0.1:${broker.ports.extra}`,
          start: 'background',
          protocolVersion,
          reconnect,
          credentials: async () => ({ username: 'ann', password })
        })
        await fastify.ready()
        await logged(/^could not connect to [^ ]+: Connection refused: Not authorized \(0x87\)$/)
        assert.match(fastify.mqtt.health().lastError?.message ?? '', /Not authorized/)
        password = 'right'
        await fastify.mqtt.connect()
        assert.equal(fastify.mqtt.status, 'ready')
      })

      test(`two with one client identifier: both say so, without a rush, MQTT ${protocolVersion}`, async (t) => {
        const broker = await startMosquitto(t)
        const options: MultimqttOptions = {
          url: broker.url,
          clientId: 'twin',
          start: 'background',
          protocolVersion,
          reconnect: { minDelay: 50, maxDelay: 1_000 }
        }
        const twins = await Promise.all([createApp(t, options), createApp(t, options)])
        await Promise.all(twins.map(({ fastify }) => fastify.ready()))
        await Promise.all(twins.map(({ logged }) => logged(/another client connected with the clientId 'twin'\?$/)))
        const count = () => twins.reduce((sum, { fastify }) => sum + fastify.mqtt.health().attempts, 0)
        // Three lives and deaths of each, give or take.
        assert.ok(count() < 20, `${count()} attempts`)
        const before = count()
        await new Promise((resolve) => setTimeout(resolve, 1_000))
        assert.ok(count() - before < 10, `${count() - before} attempts in a second`)
        const [one, other] = twins
        await other?.fastify.close()
        await one?.fastify.mqtt.connect()
        assert.equal(one?.fastify.mqtt.status, 'ready')
      })
    }

    test('a half-open link is found out on both sides; it recovers, and presence tells the story', async (t) => {
      const broker = await startMosquitto(t)
      const proxy = await startProxy(t, broker.ports.plain)
      const observer = mosquittoSub(t, broker, { topics: ['me'] })
      await observer.ready
      const { fastify, logged } = await createApp(t, { url: proxy.url, keepalive: 1, presence, reconnect })
      await fastify.ready()
      assert.equal(await text(observer), 'here')
      proxy.hold()
      await logged(/^lost the connection to .*: no sign of life from the broker, with a keepalive of 1 s$/)
      assert.equal(fastify.mqtt.status, 'offline')
      // The broker publishes the will.
      assert.equal(await text(observer), 'gone')
      proxy.cut()
      proxy.resume()
      await logged(/^connected to .* again after /)
      assert.equal(await text(observer), 'here')
      assert.equal(fastify.mqtt.status, 'ready')
    })
  })

  suite('presence and will', { concurrency: 3 }, () => {
    for (const protocolVersion of [5, 4] as const) {
      test(`kill -9 is offline by the will, close() is offline without it, MQTT ${protocolVersion}`, async (t) => {
        const broker = await startMosquitto(t)
        const observer = mosquittoSub(t, broker, { topics: ['#'] })
        await observer.ready
        const { kill } = await startProcess(t, { url: broker.url, protocolVersion, presence })
        assert.equal(await text(observer), 'here')
        await kill()
        assert.equal(await text(observer), 'gone')
        // It is what whoever comes later finds.
        const late = mosquittoSub(t, broker, { topics: ['me'] })
        const { payload, retain } = await late.next()
        assert.deepEqual([payload.toString(), retain], ['gone', true])

        const { fastify } = await createApp(t, { url: broker.url, protocolVersion, presence })
        await fastify.ready()
        assert.equal(await text(observer), 'here')
        await fastify.close()
        assert.equal(await text(observer), 'gone')

        const willing = await createApp(t, {
          url: broker.url, protocolVersion, will: { topic: 'last', payload: 'words', qos: 1 }
        })
        await willing.fastify.ready()
        await willing.fastify.close()
        await mosquittoPub(broker, { topic: 'marker', message: '' })
        // Nothing in between: neither a second 'gone' nor the will.
        assert.equal((await observer.next()).topic, 'marker')
      })
    }

    test('is here again after a cut, and after a restart of the broker', async (t) => {
      const broker = await startMosquitto(t)
      const proxy = await startProxy(t, broker.ports.plain)
      const observer = mosquittoSub(t, broker, { topics: ['me'] })
      await observer.ready
      const { fastify, logged } = await createApp(t, { url: proxy.url, presence, reconnect })
      await fastify.ready()
      assert.equal(await text(observer), 'here')
      proxy.cut()
      assert.deepEqual([await text(observer), await text(observer)], ['gone', 'here'])
      await logged(/^connected to .* again/)
      await broker.stop()
      await broker.start()
      await logged(/^connected to .* again/)
      const late = mosquittoSub(t, broker, { topics: ['me'] })
      assert.equal(await text(late), 'here')
    })

    test('the delay of a will: who comes back in time was never gone', async (t) => {
      const broker = await startMosquitto(t)
      const proxy = await startProxy(t, broker.ports.plain)
      const observer = mosquittoSub(t, broker, { topics: ['last', 'marker'] })
      await observer.ready
      const { fastify, logged } = await createApp(t, {
        url: proxy.url,
        clientId: 'me',
        session: { expiry: 60 },
        will: { topic: 'last', payload: 'words', qos: 1, delay: 1, properties: { contentType: 'text/plain' } },
        reconnect
      })
      await fastify.ready()
      proxy.cut()
      await logged(/^connected to .* again/)
      // The broker looks for wills that are due once a second: this is later than the delay of the first.
      await new Promise((resolve) => setTimeout(resolve, 2_500))
      await fastify.mqtt.publish('marker', '')
      assert.equal((await observer.next()).topic, 'marker')
      proxy.refuse(true)
      proxy.cut()
      const { topic, payload } = await observer.next()
      assert.deepEqual([topic, payload.toString()], ['last', 'words'])
      assert.equal(fastify.mqtt.status, 'offline')
    })
  })

  suite('start and close', { concurrency: 3 }, () => {
    test('what is retained and what is queued for the session comes after every onReady', async (t) => {
      const broker = await startMosquitto(t)
      const options = { url: broker.url, clientId: 'me', session: { expiry: 60 } }
      const earlier = await createApp(t, options)
      earlier.fastify.mqtt.topic('queued/#', { qos: 1 }, () => {})
      await earlier.fastify.ready()
      await earlier.fastify.close()
      await mosquittoPub(broker, { topic: 'retained/1', message: 'r', retain: true })
      for (const number of [1, 2, 3]) await mosquittoPub(broker, { topic: `queued/${number}`, message: 'q', qos: 1 })

      const order: string[] = []
      const { fastify } = await createApp(t, options)
      const seen = inbox<string>()
      const note = (message: { topic: string }) => {
        order.push(message.topic)
        seen.put(message.topic)
      }
      fastify.mqtt.topic('queued/#', { qos: 1 }, note)
      fastify.mqtt.topic('retained/#', note)
      await fastify.register(async (child) => {
        child.addHook('onReady', async () => {
          // Two round trips: all that the broker had for this session has arrived.
          await child.mqtt.publish('from/onReady', '', { qos: 1 })
          await child.mqtt.publish('from/onReady', '', { qos: 1 })
          order.push('onReady')
        })
        await child.register(async (grandchild) => {
          grandchild.addHook('onReady', async () => { order.push('onReady below') })
        })
      })
      await fastify.ready()
      for (let count = 0; count < 4; count++) await seen.next()
      assert.deepEqual(order.slice(0, 2), ['onReady', 'onReady below'])
      assert.deepEqual(order.slice(2).sort(), ['queued/1', 'queued/2', 'queued/3', 'retained/1'])
      assert.deepEqual(order.filter((topic) => topic.startsWith('queued')), ['queued/1', 'queued/2', 'queued/3'])
    })

    for (const [whose, optionsOf] of [
      ['MQTT 5', () => ({ protocolVersion: 5 } as const)], ['MQTT 3.1.1', () => ({ protocolVersion: 4 } as const)],
      ['the owner of a group', ownerOf], ['a member of a group', memberOf]
    ] as const) {
      test(`publish() works in onReady and onClose of every plugin: ${whose}`, async (t) => {
        const broker = await startMosquitto(t)
        const observer = mosquittoSub(t, broker, { topics: ['from/#'], qos: 1 })
        await observer.ready
        const { fastify } = createFastify(t)
        await fastify.register(multimqtt, { url: broker.url, ...await optionsOf(t, broker.url) })
        const publishFrom = (app: TestApp['fastify'], name: string) => {
          app.addHook('onReady', async () => { await app.mqtt.publish(`from/${name}/onReady`, '', { qos: 1 }) })
          app.addHook('onClose', async () => { await app.mqtt.publish(`from/${name}/onClose`, '', { qos: 1 }) })
        }
        publishFrom(fastify, 'root')
        await fastify.register(async (child) => {
          publishFrom(child, 'child')
          await child.register(async (grandchild) => publishFrom(grandchild, 'grandchild'))
        })
        await fastify.ready()
        await fastify.close()
        const topics = new Set<string>()
        for (let count = 0; count < 6; count++) topics.add((await observer.next()).topic)
        const names = ['root', 'child', 'grandchild'].flatMap((name) => [`from/${name}/onReady`, `from/${name}/onClose`])
        assert.deepEqual(topics, new Set(names))
      })
    }
  })

  suite('what the predecessor did wrong', { concurrency: 3 }, () => {
    test('SEED-01: after a cut with a clean session every filter is subscribed again, and messages arrive', async (t) => {
      const broker = await startMosquitto(t)
      const proxy = await startProxy(t, broker.ports.plain)
      const { fastify, logged } = await createApp(t, { url: proxy.url, reconnect })
      const seen = inbox<string>()
      fastify.mqtt.topic('a/+', { qos: 1 }, (message) => seen.put(message.topic))
      fastify.mqtt.topic('b', { qos: 1 }, (message) => seen.put(message.topic))
      await fastify.ready()
      for (let round = 0; round < 2; round++) {
        proxy.cut()
        await logged(/^connected to .* again/)
        await fastify.mqtt.connect()
        for (const topic of ['a/1', 'b']) {
          await mosquittoPub(broker, { topic, message: '' })
          assert.equal(await seen.next(), topic)
        }
      }
    })

    for (const protocolVersion of [5, 4] as const) {
      test(`SEED-04: a refused filter is no granted one, and the app is not ok, MQTT ${protocolVersion}`, async (t) => {
        const broker = await startMosquitto(t)
        for (const command of [
          ['createClient', 'ann', '-p', 'secret'], ['createRole', 'r'],
          ['addRoleACL', 'r', 'subscribePattern', 'allowed/#', 'allow'], ['addClientRole', 'ann', 'r']
        ]) await mosquittoCtrl(broker, 'dynsec', ...command)
        const { fastify, logged } = await createApp(t, {
          url: `mqtt://ann:secret@127.0.0.1:${broker.ports.dynsec}`, protocolVersion
        })
        fastify.mqtt.topic('forbidden', () => {})
        fastify.mqtt.topic('allowed/+', () => {})
        await fastify.ready()
        await logged(/^subscription to 'forbidden' was refused: /)
        const { ok, status, subscriptions: { granted, refused, pending } } = fastify.mqtt.health()
        assert.deepEqual([ok, status, pending], [false, 'ready', []])
        assert.deepEqual(granted.map(({ filter }) => filter), ['allowed/+'])
        assert.deepEqual(refused.map(({ filter, reasonCode }) => [filter, reasonCode]),
          [['forbidden', protocolVersion === 5 ? 0x87 : 0x80]])
      })
    }

    test('SEED-15: a handler that throws on QoS 1 is told, the message is acknowledged, the next one is handled', async (t) => {
      const broker = await startMosquitto(t)
      const options = { url: broker.url, clientId: 'me', session: { expiry: 60 } }
      const { fastify } = await createApp(t, options)
      const failures = inbox<string>()
      const seen = inbox<string>()
      fastify.mqtt.addHook('onError', (error, message) => failures.put(`${message.text()} ${String(error)}`))
      fastify.mqtt.topic('t', { qos: 1 }, (message) => {
        if (message.text() === 'bad') throw new Error('boom')
        seen.put(message.text())
      })
      await fastify.ready()
      for (const message of ['bad', 'good']) await mosquittoPub(broker, { topic: 't', message, qos: 1 })
      assert.equal(await failures.next(), 'bad Error: boom')
      assert.equal(await seen.next(), 'good')
      assert.equal(fastify.mqtt.status, 'ready')
      await fastify.close()
      // The broker keeps nothing for this session.
      const again = await createApp(t, options)
      const left = inbox<string>()
      again.fastify.mqtt.topic('t', { qos: 1 }, (message) => left.put(message.text()))
      await again.fastify.ready()
      await mosquittoPub(broker, { topic: 't', message: 'marker', qos: 1 })
      assert.equal(await left.next(), 'marker')
    })

    test('SEED-19: a publish while disconnected settles: QoS 0 as an error, QoS 1 and 2 by the broker later', async (t) => {
      const broker = await startMosquitto(t)
      const { fastify, logged } = await createApp(t, { url: broker.url, reconnect })
      await fastify.ready()
      await broker.stop()
      await logged(/^lost the connection/)
      await assert.rejects(fastify.mqtt.publish('a', '0'), { code: 'FST_MQTT_OFFLINE', statusCode: 503 })
      const publishing = [1, 2].map((qos) => fastify.mqtt.publish('a', String(qos), { qos: qos as 1 | 2, retain: true }))
      assert.equal(fastify.mqtt.stats().outbox.messages, 2)
      await broker.start()
      await Promise.all(publishing)
      assert.equal(fastify.mqtt.stats().outbox.messages, 0)
      const late = mosquittoSub(t, broker, { topics: ['a'] })
      assert.equal(await text(late), '2')
    })

    for (const protocolVersion of [5, 4] as const) {
      test(`SEED-27: filters that overlap, a copy for each: each topic is handled once, MQTT ${protocolVersion}`, async (t) => {
        const broker = await startMosquitto(t, { lines: ['allow_duplicate_messages true'] })
        const { fastify } = await createApp(t, { url: broker.url, protocolVersion })
        const seen = inbox<string>()
        fastify.mqtt.topic('a/#', { qos: 1 }, (message) => seen.put(`# ${message.text()}`))
        fastify.mqtt.topic('a/+', { qos: 1 }, (message) => seen.put(`+ ${message.text()}`))
        await fastify.ready()
        for (const message of ['1', '2', 'end']) await mosquittoPub(broker, { topic: 'a/b', message, qos: 1 })
        while (!seen.all.includes('# end') || !seen.all.includes('+ end')) await seen.next()
        // All copies of what came before are here.
        await fastify.mqtt.publish('round/trip', '', { qos: 1 })
        assert.deepEqual([...seen.all].sort(), ['# 1', '# 2', '# end', '+ 1', '+ 2', '+ end'])
      })
    }
  })
})
