import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import Fastify, { type FastifyInstance } from 'fastify'
import multimqtt from '../../lib/index.ts'
import { logToNarrator, type Narrator } from './narrator.ts'

/** What the application needs to know. */
export interface AppOptions {
  readonly url: string
  readonly protocolVersion: 'auto' | 4
  readonly prefix: string
  readonly narrator: Narrator
}

/** What the plugins share. */
interface Greenhouse {
  readonly narrator: Narrator
  /** The fans that said that they run. */
  readonly running: Set<number>
}

/** An ordinary Fastify application: MQTT topics stand beside HTTP routes, in plugins. */
export async function buildApp (options: AppOptions): Promise<FastifyInstance> {
  const { url, protocolVersion, prefix, narrator } = options
  const app = Fastify({ logger: { level: 'debug', stream: logToNarrator(narrator, prefix) } })
  const greenhouse = { narrator, running: new Set<number>() }
  await app.register(multimqtt, { url, protocolVersion, prefix })
  await app.register(sensors, { topicPrefix: 'sensor', greenhouse })
  await app.register(fans, { topicPrefix: 'fan', prefix: '/fans', greenhouse })
  return app
}

const tooWarm = 28
const coolEnough = 23

const sensors: FastifyPluginAsyncTypebox<{ greenhouse: Greenhouse }> = async (fastify, { greenhouse }) => {
  const { narrator, running } = greenhouse

  fastify.mqtt.topic('<int:id>/reading', {
    payload: Type.Object({ celsius: Type.Number({ minimum: -50, maximum: 90 }) })
  }, async ({ topic, params, payload }) => {
    narrator.tell('app', '←', topic, `params.id is ${params.id}, payload.celsius is ${payload.celsius}`)
    if (payload.celsius > tooWarm && !running.has(1)) await switchFan(true)
    if (payload.celsius < coolEnough && running.has(1)) await switchFan(false)
  })

  // The topic is another plugin's: its name is enough.
  async function switchFan (on: boolean): Promise<void> {
    const topic = fastify.mqtt.topicFor('fanCommand', { id: 1 })
    narrator.tell('app', '→', topic, JSON.stringify({ on }))
    await fastify.mqtt.publish(topic, { on }, { qos: 1 })
  }
}

/** Of the body of a request as well as of the payload of a message. */
const Command = Type.Object({ on: Type.Boolean() })
const FanParams = Type.Object({ id: Type.Integer({ minimum: 1 }) })

const fans: FastifyPluginAsyncTypebox<{ greenhouse: Greenhouse }> = async (fastify, { greenhouse }) => {
  const { narrator, running } = greenhouse
  const command = fastify.mqtt.topic('<int:id>/set', {
    name: 'fanCommand', qos: 1, params: FanParams, payload: Command
  })

  fastify.mqtt.topic('<int:id>/state', {
    payload: Type.Object({ on: Type.Boolean(), rpm: Type.Number() })
  }, ({ topic, params, payload }) => {
    if (payload.on) running.add(params.id)
    else running.delete(params.id)
    narrator.tell('app', '←', topic, `fan ${params.id} ${payload.on ? `runs with ${payload.rpm} rpm` : 'stands still'}`)
  })

  fastify.get('/:id/topic', { schema: { params: FanParams } }, async ({ params }) => ({
    topic: fastify.mqtt.topicFor('fanCommand', params),
    absolute: fastify.mqtt.topicFor('fanCommand', params, { absolute: true })
  }))

  fastify.post('/:id', { schema: { params: FanParams, body: Command } }, async ({ params, body }, reply) => {
    narrator.tell('app', '→', command.topicFor(params), JSON.stringify(body))
    await command.publish(params, body)
    return await reply.code(202).send({ published: command.topicFor(params) })
  })
}
