// The application of `bench fleet`, a worker of PM2 or Watt: notes what it has handled and published.
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { threadId } from 'node:worker_threads'
import Fastify, { type FastifyInstance } from 'fastify'
import multimqtt from '../lib/index.ts'

/** Where things are: the environment variable FLEET. */
export interface FleetSettings {
  readonly url: string
  /** For the group and the journals. */
  readonly dir: string
  /** PM2 runs a script; Watt calls `create`. */
  readonly port?: number
}

const settings = JSON.parse(process.env['FLEET'] ?? '{}') as FleetSettings
const { url, dir, port } = settings
const name = `${process.pid}-${threadId}`

/** The application, to be started by Watt. */
export async function create (): Promise<FastifyInstance> {
  const note = (line: string) => appendFileSync(join(dir, `${name}.journal`), `${line}\n`)
  const fastify = Fastify()
  await fastify.register(multimqtt, { url, processes: { mode: 'single', group: 'fleet', dir } })
  fastify.mqtt.topic('in/<number>', { qos: 1, order: 'none' }, async ({ params: { number } }) => {
    note(`begun ${number}`)
    await setTimeout(20)
    note(`done ${number} ${Date.now()}`)
  })
  fastify.mqtt.topic('crash', () => { setImmediate(() => { throw new Error('told to') }) })
  fastify.mqtt.addHook('onRole', (role) => note(`role ${role ?? 'none'} ${process.pid} ${Date.now()}`))
  let published = 0
  const publishing = setInterval(() => {
    const id = `${name}-${++published}`
    fastify.mqtt.publish(`out/${id}`, 'x', { qos: 1 }).then(() => note(`acked ${id}`), () => note(`failed ${id}`))
  }, 20)
  fastify.addHook('preClose', async () => clearInterval(publishing))
  fastify.get('/', async () => fastify.mqtt.health())
  return fastify
}

if (port !== undefined) {
  const fastify = await create()
  process.on('SIGINT', () => { void fastify.close().then(() => process.exit()) })
  await fastify.listen({ port })
}
