// A contract is a topic that is written down once. Two services share it; neither knows the other's code.
import { Type } from '@sinclair/typebox'
import Fastify, { type FastifyInstance } from 'fastify'
import multimqtt, { defineTopic } from '../lib/index.ts'

// The contract: a file that both services import.

const boilerState = defineTopic('boiler/<int:id>/state', {
  name: 'boilerState',
  qos: 1,
  params: Type.Object({ id: Type.Integer({ minimum: 1, maximum: 8 }) }),
  payload: Type.Object({ bar: Type.Number(), burning: Type.Boolean() })
})

// In an application: declare module 'fastify-multimqtt'. It makes topicFor('boilerState', …) typed.
declare module '../lib/index.ts' {
  interface MqttTopics { boilerState: typeof boilerState }
}

async function buildService (): Promise<FastifyInstance> {
  const fastify = Fastify()
  await fastify.register(multimqtt, { url: process.env['MQTT_URL'] ?? 'mqtt://127.0.0.1', prefix: 'contracts' })
  return fastify
}

// One service watches.

const watcher = await buildService()
const watched = new Promise<void>((resolve) => {
  watcher.mqtt.topic(boilerState, ({ params, payload }) => {
    console.log(`boiler ${params.id}: ${payload.bar} bar, ${payload.burning ? 'burning' : 'off'}`)
    resolve()
  })
})
await watcher.ready()

// The other one publishes.

const boilers = await buildService()
const state = boilers.mqtt.topic(boilerState)
await boilers.ready()
console.log(`publishing to ${boilers.mqtt.topicFor('boilerState', { id: 3 }, { absolute: true })}`)
await state.publish({ id: 3 }, { bar: 1.5, burning: true })

// What does not keep the contract is not sent.
await state.publish({ id: 3 }, { bar: Number.NaN, burning: true }).catch((error: Error) => {
  console.log(error.message)
})

await watched
await boilers.close()
await watcher.close()
