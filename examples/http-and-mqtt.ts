// HTTP on one side, MQTT on the other: a route answers with what MQTT brought, another one publishes. The
// same schema checks the body of the request and the payload of the message.
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Type, type Static } from '@sinclair/typebox'
import Fastify from 'fastify'
import multimqtt from '../lib/index.ts'

const Light = Type.Object({ on: Type.Boolean() })
const LightParams = Type.Object({ room: Type.String() })

const fastify = Fastify().withTypeProvider<TypeBoxTypeProvider>()
await fastify.register(multimqtt, {
  url: process.env['MQTT_URL'] ?? 'mqtt://127.0.0.1',
  prefix: 'http-and-mqtt'
})

const lights = new Map<string, Static<typeof Light>>()
const command = fastify.mqtt.topic('light/<room>/set', { name: 'command', qos: 1, payload: Light })
fastify.mqtt.topic('light/<room>', { payload: Light }, ({ params, payload }) => {
  lights.set(params.room, payload)
})

fastify.get('/lights', async () => Object.fromEntries(lights))
fastify.post('/lights/:room', { schema: { params: LightParams, body: Light } }, async (request, reply) => {
  await command.publish(request.params, request.body)
  return await reply.code(202).send({ sentTo: command.topicFor(request.params) })
})
fastify.get('/health', async (_request, reply) => {
  const { ok, status } = fastify.mqtt.health()
  return await reply.code(ok ? 200 : 503).send({ ok, status })
})

// A light that obeys. Usually it is a device of its own.
fastify.mqtt.topic('light/<room>/set', { qos: 1, payload: Light }, async ({ params, payload }) => {
  await fastify.mqtt.publish(`light/${params.room}`, payload, { qos: 1 })
})

const address = await fastify.listen({ host: '127.0.0.1', port: Number(process.env['PORT'] ?? 3000) })
console.log(`Try: curl -X POST ${address}/lights/kitchen -H 'content-type: application/json' -d '{"on":true}'`)

if (process.env['EXAMPLE_ONCE'] === '1') {
  const reported = new Promise<void>((resolve) => { fastify.mqtt.topic('light/kitchen', () => resolve()) })
  const headers = { 'content-type': 'application/json' }
  const sent = await fetch(`${address}/lights/kitchen`, { method: 'POST', headers, body: '{"on":true}' })
  console.log(sent.status, await sent.text())
  await reported
  console.log(await (await fetch(`${address}/lights`)).text())
  console.log(await (await fetch(`${address}/health`)).text())
  await fastify.close()
}
