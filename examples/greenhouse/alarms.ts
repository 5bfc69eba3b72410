import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'

const Alarm = Type.Object({ text: Type.String({ minLength: 1, maxLength: 200 }) })
const Summary = Type.Object({ active: Type.Array(Type.String()) })

/** Alarms of all other plugins, which raise them by the name of the topic. Three topics. */
export async function alarms (fastify: FastifyInstance): Promise<void> {
  const { alarms: active } = fastify.greenhouse
  const summary = fastify.mqtt.topic('summary', { name: 'alarmSummary', qos: 1, payload: Summary })
  const tell = async () => {
    await summary.publish({ active: [...active.keys()].sort() }, { retain: true })
  }

  fastify.mqtt.topic('raised/<name>', { name: 'alarm', qos: 1, payload: Alarm }, async ({ params, payload }) => {
    if (active.get(params.name) === payload.text) return
    active.set(params.name, payload.text)
    await tell()
  })
  fastify.mqtt.topic('acknowledged/<name>', { qos: 1 }, async ({ params }) => {
    if (active.delete(params.name)) await tell()
  })
}
