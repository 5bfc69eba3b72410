import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createApp } from './helpers/app.ts'
import { startScriptedBroker } from './helpers/scripted-broker.ts'

const responses = '$CONTROL/dynamic-security/v1/response'

test('dynsec: without the option it is a coded error', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  assert.throws(() => fastify.mqtt.dynsec, { code: 'FST_MQTT_DYNSEC_NOT_ENABLED' })
})

test('dynsec: a broker of 3.1.1 that never answers is told from one that is away, and asked anew', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, protocolVersion: 4, dynsec: { timeout: 50 } })
  await fastify.ready()
  for (const attempt of [1, 2]) {
    await assert.rejects(fastify.mqtt.dynsec.roles.get('a'), {
      code: 'FST_MQTT_DYNSEC_NO_ANSWER', message: /which MQTT 3.1.1 cannot tell/
    }, `attempt ${attempt}`)
    assert.deepEqual((await broker.next('unsubscribe')).unsubscriptions, [responses])
  }
})

test('dynsec: a connection lost before the subscription is answered, and before the command is', async (t) => {
  let losses: string[] = ['subscribe', 'publish']
  const broker = await startScriptedBroker(t, {
    onPacket (packet, connection) {
      if (packet.cmd !== losses[0]) return false
      losses = losses.slice(1)
      connection.destroy()
      return true
    }
  })
  const { fastify } = await createApp(t, {
    url: broker.url, dynsec: { timeout: 2_000 }, reconnect: { minDelay: 1, maxDelay: 1 }
  })
  await fastify.ready()
  await assert.rejects(fastify.mqtt.dynsec.roles.get('a'), { code: 'FST_MQTT_OFFLINE' })
  await fastify.mqtt.connect()
  await assert.rejects(fastify.mqtt.dynsec.roles.get('a'), { code: 'FST_MQTT_OFFLINE' })
  assert.deepEqual(losses, [])
})
