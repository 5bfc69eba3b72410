import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import multimqtt from '../lib/index.ts'

const fastify = Fastify({ logger: true })
await fastify.register(multimqtt, { url: process.env['MQTT_URL'] ?? 'mqtt://127.0.0.1', prefix: 'greenhouse' })

const reading = fastify.mqtt.topic('sensor/<int:id>/reading', {
  payload: Type.Object({ celsius: Type.Number() })
}, async function logReading ({ params, payload }) {
  this.log.info(`sensor ${params.id} says ${payload.celsius.toFixed(1)} °C`)    // number, number
})
if (process.env['EXAMPLE_ONCE'] === '1') reading.onMessage(() => { void fastify.close() })

fastify.get('/', async () => fastify.mqtt.topicFor('logReading', { id: 42 }))     // 'sensor/42/reading'

await fastify.listen({ port: Number(process.env['PORT'] ?? 3000) })             // connects before it listens
await reading.publish({ id: 7 }, { celsius: 21.5 })   // {"celsius":21.5} to greenhouse/sensor/7/reading
