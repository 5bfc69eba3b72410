import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'

const Lamp = Type.Object({ id: Type.Integer({ minimum: 1 }) })
const Switch = Type.Object({ on: Type.Boolean() })
const Scene = Type.Union([Type.Literal('day'), Type.Literal('night')])

/** Lamps, scenes and the sun. Five topics. */
export async function lighting (fastify: FastifyInstance): Promise<void> {
  const { greenhouse: state } = fastify
  const lamp = fastify.mqtt.topic('lamp/<int:id>/set', { name: 'lamp', qos: 1, params: Lamp, payload: Switch })
  const active = fastify.mqtt.topic('scene', { name: 'scene', qos: 1, payload: Scene, codec: 'text' })

  fastify.mqtt.topic('lamp/<int:id>/state', { qos: 1, params: Lamp, payload: Switch }, ({ params, payload }) => {
    state.lamps.set(params.id, payload.on)
  })
  fastify.mqtt.topic('scene/set', { qos: 1, payload: Scene, codec: 'text' }, async ({ payload }) => {
    state.scene = payload
    await Promise.all([...state.lamps.keys()].map((id) => lamp.publish({ id }, { on: payload === 'night' })))
    await active.publish(payload, { retain: true })
  })
  fastify.mqtt.topic('sun', { payload: Type.Object({ lux: Type.Number() }) }, async ({ payload }) => {
    const scene = payload.lux < 50 ? 'night' : 'day'
    if (scene !== state.scene) await fastify.mqtt.publish('light/scene/set', scene, { qos: 1 })
  })

  fastify.post<{ Params: { id: number }, Body: { on: boolean } }>('/:id',
    { schema: { params: Lamp, body: Switch } },
    async ({ params, body }, reply) => {
      await lamp.publish(params, body)
      return await reply.code(202).send({ sentTo: lamp.topicFor(params) })
    })
}
