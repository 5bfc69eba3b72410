import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { createApp, inbox } from './helpers/app.ts'
import { deferred, within } from './helpers/deadline.ts'
import { closedPort } from './helpers/ports.ts'
import { startProxy } from './helpers/proxy.ts'
import { startScriptedBroker, startSilentServer } from './helpers/scripted-broker.ts'

const run = promisify(execFile)

/** Far above what a close may take (drain, flush and DISCONNECT: 2.5 s), far below a hang. */
const ceilingMs = 10_000

test('close: an idle connection ends with DISCONNECT, and a second close is the same', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  await within(fastify.close(), ceilingMs, 'close')
  await broker.next('disconnect')
  assert.equal(fastify.mqtt.status, 'closed')
  await fastify.mqtt.close()
  await assert.rejects(fastify.mqtt.publish('a', 'b'), { code: 'FST_MQTT_CLOSED' })
  await assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CLOSED' })
})

test('close: handlers that run are waited for, no message is taken in, and they may still publish', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, drainTimeout: 5_000 })
  const started = inbox<string>()
  const release = deferred<void>()
  fastify.mqtt.topic('t', async (message) => {
    started.put(message.text())
    await release.promise
    await fastify.mqtt.publish('done', message.text(), { qos: 1 })
  })
  await fastify.ready()
  broker.publish({ topic: 't', payload: '1' })
  await started.next()
  const closing = fastify.close()
  while (fastify.mqtt.status !== 'draining') await new Promise((resolve) => setImmediate(resolve))
  broker.publish({ topic: 't', payload: '2' })
  // A round trip, after which the second message has arrived.
  await fastify.mqtt.publish('marker', '', { qos: 1 })
  release.resolve()
  await within(closing, ceilingMs, 'close')
  assert.deepEqual(started.all, ['1'])
  assert.deepEqual(broker.received.flatMap((packet) => packet.cmd === 'publish' ? packet.topic : []), ['marker', 'done'])
  assert.equal(broker.received.at(-1)?.cmd, 'disconnect')
})

test('close: a handler that never ends is not waited for beyond drainTimeout', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, drainTimeout: 50 })
  const started = inbox<string>()
  fastify.mqtt.topic('t', async (message) => {
    started.put(message.topic)
    await new Promise(() => {})
  })
  await fastify.ready()
  broker.publish({ topic: 't' })
  await started.next()
  await within(fastify.close(), ceilingMs, 'close')
})

test('close: a pluginTimeout that is shorter than drainTimeout is respected', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, drainTimeout: 60_000 }, { pluginTimeout: 1_500 })
  const started = inbox<string>()
  fastify.mqtt.topic('t', async (message) => {
    started.put(message.topic)
    await new Promise(() => {})
  })
  await fastify.ready()
  broker.publish({ topic: 't' })
  await started.next()
  await within(fastify.close(), ceilingMs, 'close')
})

test('close: a publish that is never acknowledged is settled', async (t) => {
  const broker = await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd === 'publish' })
  const { fastify } = await createApp(t, { url: broker.url, drainTimeout: 50 })
  await fastify.ready()
  const publishing = assert.rejects(fastify.mqtt.publish('a', 'b', { qos: 1 }), { code: 'FST_MQTT_CLOSED' })
  await broker.next('publish')
  await within(fastify.close(), ceilingMs, 'close')
  await publishing
})

test('close: a publish that is acknowledged late is waited for', async (t) => {
  const broker = await startScriptedBroker(t, {
    onPacket: (packet, connection) => {
      if (packet.cmd !== 'publish') return false
      setTimeout(() => connection.send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: 0 }), 50)
      return true
    }
  })
  const { fastify } = await createApp(t, { url: broker.url, drainTimeout: 5_000 })
  await fastify.ready()
  const publishing = fastify.mqtt.publish('a', 'b', { qos: 1 })
  await within(fastify.close(), ceilingMs, 'close')
  await publishing
})

test('close: works when never started', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  await within(fastify.close(), ceilingMs, 'close')
  assert.equal(fastify.mqtt.status, 'closed')
})

test('close: works after a failed start', async (t) => {
  const { fastify } = await createApp(t, { url: `mqtt://127.0.0.1:${await closedPort()}`, connectTimeout: 50 })
  await assert.rejects(async () => await fastify.ready())
  await within(fastify.close(), ceilingMs, 'close')
})

test('close: works while offline, and while connecting to a blackhole', async (t) => {
  const silent = await startSilentServer(t)
  for (const port of [await closedPort(), silent.port]) {
    const { fastify } = await createApp(t, { url: `mqtt://127.0.0.1:${port}`, start: 'background' })
    await fastify.ready()
    const connecting = assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CLOSED' })
    await within(fastify.close(), ceilingMs, 'close')
    await connecting
  }
})

test('close: works with a half-open peer', async (t) => {
  const broker = await startScriptedBroker(t)
  const proxy = await startProxy(t, broker.port)
  const { fastify } = await createApp(t, { url: proxy.url, drainTimeout: 50 })
  await fastify.ready()
  proxy.hold()
  const publishing = assert.rejects(fastify.mqtt.publish('a', 'b', { qos: 2 }), { code: 'FST_MQTT_CLOSED' })
  await within(fastify.close(), ceilingMs, 'close')
  await publishing
})

test('close: publish() works in onClose of a child and in a request that is still answered', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.register(async (child) => {
    child.addHook('onClose', async () => { await child.mqtt.publish('from/onClose', '', { qos: 1 }) })
  })
  await fastify.ready()
  await within(fastify.close(), ceilingMs, 'close')
  assert.equal((await broker.next('publish')).topic, 'from/onClose')
})

for (const scenario of ['closed-port', 'blackhole', 'refused', 'closed', 'reconnecting', 'idle']) {
  test(`exit: nothing keeps the process alive (${scenario})`, async (t) => {
    const broker = await startScriptedBroker(t)
    const refusing = await startScriptedBroker(t, { connack: { reasonCode: 135 } })
    const silent = await startSilentServer(t)
    const ports: Record<string, number> = {
      'closed-port': await closedPort(),
      blackhole: silent.port,
      refused: refusing.port,
      closed: broker.port,
      reconnecting: broker.port,
      idle: broker.port
    }
    const script = join(fileURLToPath(import.meta.url), '..', 'fixtures', 'exit.js')
    const programArguments = [script, String(ports[scenario]), scenario]
    const { stdout } = await run(process.execPath, programArguments, { timeout: ceilingMs * 2 })
    assert.match(stdout, ports[scenario] === broker.port ? /closed/ : /FST_MQTT_CONNECT_FAILED/)
  })
}
