// An application of a usual size: six plugins with thirty topics, HTTP routes beside them. How it is tested,
// without a broker and on a real one, stands in test/example-app.test.ts.
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import multimqtt, { type MultimqttOptions } from '../../lib/index.ts'
import { alarms } from './alarms.ts'
import { climate } from './climate.ts'
import { devices } from './devices.ts'
import { doors } from './doors.ts'
import { irrigation } from './irrigation.ts'
import { lighting } from './lighting.ts'
import { createState, type State } from './state.ts'

declare module 'fastify' {
  interface FastifyInstance { greenhouse: State }
}

/** The application, not started. Where its broker is comes from outside: that is all a test has to change. */
export async function createGreenhouse (
  mqtt: MultimqttOptions, options: FastifyServerOptions = {}
): Promise<FastifyInstance> {
  const fastify = Fastify(options)
  fastify.decorate('greenhouse', createState())
  await fastify.register(multimqtt, mqtt)
  // What a device sends wrongly is counted against the device kind, and ends no connection.
  fastify.mqtt.setErrorHandler((error, message) => {
    const [scope = ''] = message.topic.split('/')
    fastify.greenhouse.rejected.set(scope, (fastify.greenhouse.rejected.get(scope) ?? 0) + 1)
    message.log.warn({ err: error }, 'a message was rejected')
  })
  await fastify.register(alarms, { topicPrefix: 'alarm' })
  await fastify.register(climate, { topicPrefix: 'climate', prefix: '/zones' })
  await fastify.register(irrigation, { topicPrefix: 'irrigation' })
  await fastify.register(lighting, { topicPrefix: 'light', prefix: '/lamps' })
  await fastify.register(doors, { topicPrefix: 'door' })
  await fastify.register(devices, { topicPrefix: 'device', prefix: '/devices' })
  fastify.get('/state', async () => fastify.greenhouse.summary())
  fastify.get('/health', async (_request, reply) => {
    const { ok, status } = fastify.mqtt.health()
    return await reply.code(ok ? 200 : 503).send({ ok, status })
  })
  return fastify
}
