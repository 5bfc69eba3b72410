import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import Fastify from 'fastify'
import { connectAsync, type IPublishPacket } from 'mqtt'
import { errorCode } from '../../lib/errors.ts'
import type { MultimqttOptions } from '../../lib/index.ts'
import { declareApp, type Handled } from '../fixtures/contract-app.ts'
import { onEnd } from './cleanup.ts'
import { Mailbox } from './mailbox.ts'
import { startMosquitto } from './mosquitto.ts'
import { endWithUs } from './programs.ts'

const peerScript = fileURLToPath(new URL('../fixtures/contract-peer.js', import.meta.url))

/** What the process under test is. */
export type Part = 'each' | 'owner' | 'member'

interface PeerMessage {
  readonly handled?: Handled
  readonly role?: string
}

/**
 * What an application relies on, whatever its process is: judged in the process under test, with another
 * process that runs the same app. Only who handles differs.
 */
export function processesContract (part: Part, skip: string | false): void {
  test(`an app, ${part === 'each' ? "with processes 'each'" : `as ${part} of its group`}`, { skip }, async (t) => {
    const handlers: Record<Part, readonly string[]> = { each: ['here', 'there'], owner: ['here'], member: ['there'] }
    const handled = new Mailbox<Handled & { readonly by: string }>()
    const all: string[] = []
    const arrived = new Mailbox<IPublishPacket>()
    const events = new Mailbox<string>()

    const put = (by: string, message: Handled) => {
      all.push(`${by} ${message.number}`)
      handled.put({ ...message, by })
    }
    const handledBy = async (by: string, number: number) => {
      const { topic, payload } = await handled.take((one) => one.by === by && one.number === number, `${number} handled ${by}`)
      return [topic, payload]
    }
    const arrivedAt = (topic: string) => arrived.take((packet) => packet.topic === topic, topic)
    const codeOf = async (publish: Promise<void>) => {
      return await publish.then(() => 'acknowledged', (error: unknown) => errorCode(error))
    }

    const broker = await startMosquitto(t, {
      lines: ['persistence true', 'persistence_location {{dir}}/',
        'listener {{extra}} 127.0.0.1', 'allow_anonymous true', 'acl_file {{dir}}/acl'],
      files: { acl: 'topic readwrite site/#\n' }
    })
    const dir = mkdtempSync(join(tmpdir(), 'multimqtt-contract-'))
    onEnd(t, () => rmSync(dir, { recursive: true, force: true }))
    const options: MultimqttOptions = {
      url: `mqtt://127.0.0.1:${broker.ports.extra}/site`,
      processes: part === 'each' ? 'each' : { mode: 'single', group: 'contract', dir, heartbeat: 250, ownerTimeout: 1_500 }
    }
    const startPeer = async () => {
      const peer = fork(peerScript, [JSON.stringify(options)])
      endWithUs(peer)
      onEnd(t, () => { peer.kill('SIGKILL') })
      const roles = new Mailbox<string>()
      peer.on('message', (message: PeerMessage) => {
        if (message.handled !== undefined) put('there', message.handled)
        if (message.role !== undefined) roles.put(message.role)
      })
      return await roles.take(() => true, 'the start of the peer', 20_000)
    }
    const fastify = Fastify()
    const startHere = async () => {
      onEnd(t, () => fastify.close())
      await declareApp(fastify, options, (message) => put('here', message))
      fastify.mqtt.addHook('onConnect', () => events.put('onConnect'))
      fastify.mqtt.addHook('onDisconnect', () => events.put('onDisconnect'))
      await fastify.ready()
    }
    const observer = await connectAsync(`mqtt://127.0.0.1:${broker.ports.extra}`, {
      protocolVersion: 5, clientId: 'observer', clean: false, reconnectPeriod: 20, properties: { sessionExpiryInterval: 600 }
    })
    observer.on('error', () => {}).on('message', (_topic, _payload, packet) => arrived.put(packet))
    onEnd(t, () => observer.endAsync(true))
    await observer.subscribeAsync('site/#', { qos: 2, rap: true })
    if (part === 'member') assert.equal(await startPeer(), 'owner')
    await startHere()
    if (part !== 'member') assert.equal(await startPeer(), part === 'each' ? 'each' : 'member')
    assert.equal(fastify.mqtt.role, part === 'each' ? undefined : part)

    for (const qos of [0, 1, 2] as const) {
      await t.test(`publishes with QoS ${qos}: bytes, flags and properties arrive`, async () => {
        const payload = Buffer.from([0, 255, 10])
        await fastify.mqtt.publish(`out/${qos}`, payload, {
          qos, retain: true, properties: { responseTopic: 'answer', userProperties: { a: ['1', '2'] }, messageExpiryInterval: 60 }
        })
        const got = await arrivedAt(`site/out/${qos}`)
        assert.deepEqual([got.payload, got.qos, got.retain], [payload, qos, true])
        const { responseTopic, userProperties } = got.properties ?? {}
        assert.deepEqual([responseTopic, { ...userProperties }], ['answer', { a: ['1', '2'] }])
      })
    }

    await t.test('publishes in order', async () => {
      const numbers = Array.from({ length: 200 }, (_, number) => number)
      await Promise.all(numbers.map((number) => fastify.mqtt.publish('ordered', number, { qos: 1 })))
      for (const number of numbers) assert.equal((await arrivedAt('site/ordered')).payload.toString(), String(number))
    })

    await t.test('a publish that the broker refuses rejects with its reason', async () => {
      const refused = fastify.mqtt.publish('elsewhere', 'x', { qos: 1, absolute: true })
      await assert.rejects(refused, (error: Error & { code: string, statusCode: number }) => {
        assert.match(error.message, /^The broker refused the message to 'elsewhere': .*not authorized/i)
        assert.deepEqual([error.code, error.statusCode], ['FST_MQTT_PUBLISH_REFUSED', 502])
        return true
      })
    })

    await t.test('a publish that cannot be sent rejects at once', async () => {
      assert.deepEqual(await Promise.all([
        codeOf(fastify.mqtt.publish('a/+', 'x')),
        codeOf(fastify.mqtt.publish('a', 'x', { qos: 3 as 2 })),
        codeOf(fastify.mqtt.publish('a', 'x', { qos: 1, signal: AbortSignal.abort() })),
        codeOf(fastify.mqtt.publish('a', 'x', { qos: 1, properties: { topicAlias: 1 } as object }))
      ]), ['FST_MQTT_TOPIC_NAME', 'FST_MQTT_PUBLISH_OPTIONS', 'FST_MQTT_ABORTED', 'FST_MQTT_PUBLISH_OPTIONS'])
    })

    await t.test('hooks of publishes run in the process that publishes, once', async () => {
      await assert.rejects(fastify.mqtt.publish('refused by hook', 'x'), /^Error: not this one$/)
      await fastify.mqtt.publish('reading/9', 'x', { qos: 1 })
      for (const by of handlers[part]) {
        assert.deepEqual(await handledBy(by, 9), ['reading/9', { by: 'the hook', was: 'x' }])
      }
    })

    await t.test('a message is handled once by each process that has a connection, and by no other', async () => {
      await observer.publishAsync('site/reading/1', '{"celsius":20}', { qos: 1 })
      for (const by of handlers[part]) assert.deepEqual(await handledBy(by, 1), ['reading/1', { celsius: 20 }])
      // What was handled twice, or elsewhere, was so before this one.
      await observer.publishAsync('site/reading/2', '1', { qos: 1 })
      for (const by of handlers[part]) await handledBy(by, 2)
      assert.deepEqual(all.filter((one) => one.endsWith(' 1')).sort(), handlers[part].map((by) => `${by} 1`))
    })

    await t.test('status and health tell how the connection is', async () => {
      const { messages, attempts, ...health } = fastify.mqtt.health()
      assert.deepEqual([fastify.mqtt.status, attempts >= 1, typeof messages.received], ['ready', true, 'number'])
      assert.deepEqual(health, {
        ok: true,
        status: 'ready',
        broker: `mqtt://127.0.0.1:${broker.ports.extra}`,
        protocolVersion: 5,
        lastError: undefined,
        subscriptions: { granted: [{ filter: 'site/reading/+', qos: 1 }], refused: [], pending: [] }
      })
    })

    await t.test('the broker goes and comes: hooks, status, what waits and what does not', async () => {
      await events.take((name) => name === 'onConnect', 'onConnect')
      await broker.stop()
      await events.take((name) => name === 'onDisconnect', 'onDisconnect')
      assert.deepEqual([fastify.mqtt.status, fastify.mqtt.health().ok], ['offline', false])
      const waiting = fastify.mqtt.publish('waited', 'x', { qos: 1, retain: true })
      assert.equal(await codeOf(fastify.mqtt.publish('waited', 'x', { qos: 0 })), 'FST_MQTT_OFFLINE')
      assert.equal(fastify.mqtt.stats().outbox.messages, 1)
      assert.equal(await codeOf(fastify.mqtt.publish('waited', 'x', { qos: 1, timeout: 50 })), 'FST_MQTT_PUBLISH_TIMEOUT')
      await broker.start()
      await events.take((name) => name === 'onConnect', 'onConnect again')
      await waiting
      // The observer may have come back later.
      await observer.subscribeAsync('site/waited', { qos: 1 })
      await arrivedAt('site/waited')
      assert.equal(fastify.mqtt.status, 'ready')
      assert.equal(fastify.mqtt.stats().outbox.messages, 0)
    })

    await t.test('after close nothing waits', async () => {
      await fastify.close()
      assert.equal(await codeOf(fastify.mqtt.publish('out/late', 'x', { qos: 1 })), 'FST_MQTT_CLOSED')
      assert.deepEqual([fastify.mqtt.status, fastify.mqtt.role], ['closed', undefined])
    })
  })
}
