// Two connections in one application: what the machines say on the site's broker is passed on to an archive.
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import multimqtt, { type Mqtt } from '../lib/index.ts'

// In an application: declare module 'fastify-multimqtt'
declare module '../lib/index.ts' {
  interface MqttInstances { archive: Mqtt }
}

const site = process.env['MQTT_URL'] ?? 'mqtt://127.0.0.1'
const archive = process.env['ARCHIVE_MQTT_URL'] ?? site
const Power = Type.Object({ watts: Type.Number() })

const fastify = Fastify()
await fastify.register(multimqtt, { url: site, prefix: 'site' })
await fastify.register(multimqtt, { namespace: 'archive', url: archive, prefix: 'archive' })

const power = fastify.mqtt.topic('machine/<id>/power', { payload: Power }, async ({ params, payload }) => {
  console.log(`site: machine ${params.id} takes ${payload.watts} W`)
  await fastify.mqtt.archive.publish(`power/${params.id}`, payload, { qos: 1 })
})

fastify.mqtt.archive.topic('power/<id>', { payload: Power }, ({ absoluteTopic, payload }) => {
  console.log(`archive: ${absoluteTopic} ${payload.watts}`)
  // After one message this program has shown all it can.
  void fastify.close()
})

await fastify.ready()
await power.publish({ id: 'press' }, { watts: 1200 })
