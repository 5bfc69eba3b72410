import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'

const State = Type.Object({ open: Type.Boolean() })
const Lock = Type.Object({ locked: Type.Boolean() })
const Count = Type.Object({ inside: Type.Integer({ minimum: 0 }) })

/** Doors, locks and badges. Five topics. */
export async function doors (fastify: FastifyInstance): Promise<void> {
  const { greenhouse: state } = fastify
  const known = new Set<string>()
  const lock = fastify.mqtt.topic('<id>/lock/set', { name: 'lock', qos: 1, payload: Lock })
  const count = fastify.mqtt.topic('visitors', { name: 'visitors', qos: 1, payload: Count })

  fastify.mqtt.topic('badge/issued/<uuid:card>', { qos: 1 }, ({ params }) => { known.add(params.card) })
  // A badge that nobody issued opens nothing: neither does one that is no UUID, which does not even match.
  fastify.mqtt.topic('<id>/badge/<uuid:card>', { qos: 1 }, async ({ params: { id, card } }) => {
    if (!known.has(card)) return
    state.visitors++
    await lock.publish({ id }, { locked: false })
    await count.publish({ inside: state.visitors }, { retain: true })
  })
  fastify.mqtt.topic('<id>/state', { payload: State }, async ({ params: { id }, payload }) => {
    if (!payload.open) await lock.publish({ id }, { locked: true })
  })
}
