import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'

const Bed = Type.Object({ bed: Type.Integer({ minimum: 1, maximum: 12 }) })
const Percent = Type.Object({ percent: Type.Number({ minimum: 0, maximum: 100 }) })
const Litres = Type.Object({ litres: Type.Number({ minimum: 0 }) })
const Open = Type.Object({ seconds: Type.Integer({ minimum: 1, maximum: 600 }) })

/** Water for twelve beds. Five topics. */
export async function irrigation (fastify: FastifyInstance): Promise<void> {
  const { greenhouse: state } = fastify
  const valve = fastify.mqtt.topic('bed/<int:bed>/valve/open', { name: 'valve', qos: 2, params: Bed, payload: Open })
  const refill = fastify.mqtt.topic('tank/refill', { name: 'refill', qos: 1 })

  fastify.mqtt.topic('bed/<int:bed>/moisture', { qos: 1, params: Bed, payload: Percent }, async (message) => {
    const { params: { bed }, payload: { percent } } = message
    state.moisture.set(bed, percent)
    if (percent >= 30 || state.tank <= 0) return
    await valve.publish({ bed }, { seconds: Math.ceil(30 - percent) * 10 })
  })
  fastify.mqtt.topic('tank/level', { qos: 1, payload: Litres }, async ({ payload: { litres } }) => {
    state.tank = litres
    if (litres < 100) await refill.publish('', { qos: 1 })
    if (litres === 0) {
      const alarm = fastify.mqtt.topicFor('alarm', { name: 'tank' })
      await fastify.mqtt.publish(alarm, { text: 'the tank is empty' }, { qos: 1 })
    }
  })
  fastify.mqtt.topic('bed/<int:bed>/leak', { qos: 1, params: Bed }, async ({ params }) => {
    const alarm = fastify.mqtt.topicFor('alarm', { name: `leak-${params.bed}` })
    await fastify.mqtt.publish(alarm, { text: `bed ${params.bed} leaks` }, { qos: 1 })
  })
}
