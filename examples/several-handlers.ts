// Several handlers for one topic, several topics for one message, and a handler that is removed.
import Fastify from 'fastify'
import multimqtt from '../lib/index.ts'

const fastify = Fastify()
await fastify.register(multimqtt, {
  url: process.env['MQTT_URL'] ?? 'mqtt://127.0.0.1',
  prefix: 'several-handlers'
})

// Without a schema the payload is a Buffer; text() and json() read it.
const doors = fastify.mqtt.topic('door/<name>')
const stopLooking = doors.onMessage(({ params }) => {
  console.log(`the first door is the ${params.name} one`)
  stopLooking()
})
doors.onMessage((message) => { console.log(`door ${message.params.name} is ${message.text()}`) })

// Another topic that matches the same messages. Topics run in the order of their registration.
fastify.mqtt.topic('door/+', ({ topic }) => { console.log(`something happened at ${topic}`) })

// Ends the program, for it has nothing else to do.
fastify.mqtt.topic('end', () => { void fastify.close() })

await fastify.ready()
await fastify.mqtt.publish('door/front', 'open', { qos: 1 })
await fastify.mqtt.publish('door/back', 'closed', { qos: 1 })
await fastify.mqtt.publish('end', undefined, { qos: 1 })
