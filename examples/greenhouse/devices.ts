import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import { deviceOf } from './state.ts'

const Online = Type.Object({ online: Type.Boolean() })
const Firmware = Type.Object({ version: Type.Number({ exclusiveMinimum: 0 }) })

/** The boards that all of that hangs on. Five topics. */
export async function devices (fastify: FastifyInstance): Promise<void> {
  const { greenhouse: state } = fastify
  const restart = fastify.mqtt.topic('<id>/restart', { name: 'restart', qos: 1 })

  fastify.mqtt.topic('<id>/online', { qos: 1, payload: Online }, ({ params, payload }) => {
    deviceOf(state, params.id).isOnline = payload.online
  })
  fastify.mqtt.topic('<id>/firmware', { payload: Firmware }, ({ params, payload }) => {
    deviceOf(state, params.id).firmware = payload.version
  })
  fastify.mqtt.topic('<id>/log/<path:source>', { payload: Type.String(), codec: 'text' }, ({ params, payload }) => {
    deviceOf(state, params.id).log.push(`${params.source}: ${payload}`)
  })
  // Who asks says where the answer goes [MQTT 5 §4.10].
  fastify.mqtt.topic('<id>/time', async ({ properties }) => {
    const { responseTopic, correlationData } = properties
    if (responseTopic === undefined) return
    const now = { seconds: Math.floor(Date.now() / 1_000) }
    await fastify.mqtt.publish(responseTopic, now, { absolute: true, properties: { correlationData } })
  })

  fastify.post<{ Params: { id: string } }>('/:id/restart', async ({ params }, reply) => {
    if (!deviceOf(state, params.id).isOnline) return await reply.code(409).send({ error: 'it is offline' })
    await restart.publish({ id: params.id }, '')
    return await reply.code(202).send({ sentTo: restart.topicFor({ id: params.id }) })
  })
}
