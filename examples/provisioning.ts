// Devices are provisioned by HTTP: each gets an account of its own, with a password that is shown once, and
// one right: to publish its own readings. Needs Mosquitto with its dynamic security plugin: docker compose up
import { randomBytes } from 'node:crypto'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import multimqtt from '../lib/index.ts'

const url = process.env['MQTT_URL'] ?? 'mqtt://admin:admin-password@127.0.0.1:1884'
// What becomes part of a topic and of a name is checked where it comes in.
const Device = Type.Object({ id: Type.String({ pattern: '^[a-z0-9]{1,32}$' }) })

const fastify = Fastify().withTypeProvider<TypeBoxTypeProvider>()
await fastify.register(multimqtt, { url, prefix: 'provisioning', dynsec: true })

const reading = fastify.mqtt.topic('device/<id>/reading', {
  name: 'reading', qos: 1, payload: Type.Object({ celsius: Type.Number() })
})
reading.onMessage(({ params, payload }) => console.log(`device ${params.id} says ${payload.celsius} °C`))

fastify.post('/devices', { schema: { body: Device } }, async ({ body: { id } }, reply) => {
  const username = `device-${id}`
  const password = randomBytes(24).toString('base64url')
  const { dynsec } = fastify.mqtt
  await dynsec.roles.create({
    rolename: username,
    acls: [{ acltype: 'publishClientSend', topic: reading.topicFor({ id }), allow: true }]
  }, { ifExists: 'ignore' })
  // Answers 409 by itself if there is such a device.
  await dynsec.clients.create({ username, password, roles: [username] })
  const topic = reading.topicFor({ id }, { absolute: true })
  return await reply.code(201).send({ username, password, topic })
})

fastify.delete('/devices/:id', { schema: { params: Device } }, async ({ params: { id } }, reply) => {
  const { dynsec } = fastify.mqtt
  await dynsec.clients.delete(`device-${id}`)
  await dynsec.roles.delete(`device-${id}`, { ifMissing: 'ignore' })
  return await reply.code(204).send()
})

const address = await fastify.listen({ host: '127.0.0.1', port: Number(process.env['PORT'] ?? 3000) })
console.log(`Try: curl -X POST ${address}/devices -H 'content-type: application/json' -d '{"id":"7"}'`)

if (process.env['EXAMPLE_ONCE'] === '1') {
  const headers = { 'content-type': 'application/json' }
  const provision = () => fetch(`${address}/devices`, { method: 'POST', headers, body: '{"id":"7"}' })
  const created = await provision()
  const { username, password, topic } = await created.json() as Record<'username' | 'password' | 'topic', string>
  console.log(`${created.status} ${username} may publish to ${topic}`)
  console.log(`${(await provision()).status} when it is there already`)

  // The device: an application of its own, with the account that it was given.
  const device = Fastify()
  await device.register(multimqtt, { url, username, password })
  await device.ready()
  const received = new Promise<void>((resolve) => reading.onMessage(() => resolve()))
  await device.mqtt.publish(topic, { celsius: 21.5 }, { qos: 1 })
  await received
  await device.mqtt.publish('provisioning/device/8/reading', { celsius: 0 }, { qos: 1 })
    .catch((error: Error) => console.log(error.message))
  await device.close()

  const deleted = await fetch(`${address}/devices/7`, { method: 'DELETE' })
  console.log(`${deleted.status} and it is gone`)
  await fastify.close()
}
