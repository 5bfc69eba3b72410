import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import { zoneOf } from './state.ts'

const Celsius = Type.Object({ celsius: Type.Number({ minimum: -60, maximum: 90 }) })
const Percent = Type.Object({ percent: Type.Number({ minimum: 0, maximum: 100 }) })
const Parts = Type.Object({ ppm: Type.Integer({ minimum: 0 }) })
const Switch = Type.Object({ on: Type.Boolean() })
const Name = Type.Object({ zone: Type.String({ pattern: '^[a-z]+$' }) })

/** Temperature, air and heating of each zone. Seven topics. */
export async function climate (fastify: FastifyInstance): Promise<void> {
  const { greenhouse: state } = fastify
  fastify.decorate('hysteresis', 1)

  const heater = fastify.mqtt.topic('<zone>/heater/set', { name: 'heater', qos: 1, payload: Switch })
  const fan = fastify.mqtt.topic('<zone>/fan/set', { name: 'fan', qos: 1, payload: Switch })
  const target = fastify.mqtt.topic('<zone>/target', { qos: 1, params: Name, payload: Celsius }, (message) => {
    zoneOf(state, message.params.zone).target = message.payload.celsius
  })
  fastify.mqtt.topic('<zone>/temperature', { qos: 1, params: Name, payload: Celsius }, async (message) => {
    const { params: { zone }, payload: { celsius } } = message
    const known = zoneOf(state, zone)
    known.celsius = celsius
    const hysteresis = message.server.getDecorator<number>('hysteresis')
    if (celsius < known.target - hysteresis) await heater.publish({ zone }, { on: true })
    if (celsius > known.target + hysteresis) await heater.publish({ zone }, { on: false })
    if (celsius > 40) {
      const alarm = fastify.mqtt.topicFor('alarm', { name: `heat-${zone}` })
      await fastify.mqtt.publish(alarm, { text: `${celsius} °C in ${zone}` }, { qos: 1 })
    }
  })
  fastify.mqtt.topic('<zone>/humidity', { payload: Percent }, async ({ params: { zone }, payload }) => {
    zoneOf(state, zone).humidity = payload.percent
    await fan.publish({ zone }, { on: payload.percent > 85 })
  })
  fastify.mqtt.topic('<zone>/co2', { payload: Parts }, ({ params, payload }) => {
    zoneOf(state, params.zone).co2 = payload.ppm
  })
  fastify.mqtt.topic('<zone>/window', { payload: Switch }, async ({ params: { zone }, payload }) => {
    if (payload.on) await heater.publish({ zone }, { on: false })
  })

  fastify.get<{ Params: { zone: string } }>('/:zone', async ({ params }) => zoneOf(state, params.zone))
  fastify.put<{ Params: { zone: string }, Body: { celsius: number } }>('/:zone/target',
    { schema: { body: Celsius } },
    async ({ params, body }, reply) => {
      await target.publish({ zone: params.zone }, body, { retain: true })
      const sentTo = target.topicFor({ zone: params.zone }, { absolute: true })
      return await reply.code(202).send({ sentTo })
    })
}
