// A process of `bench processes`: the owner of a group, or who publishes. Its part comes as its argument.
import Fastify, { type FastifyInstance } from 'fastify'
import mqtt from 'mqtt'
import multimqtt from '../lib/index.ts'
import { joinGroup, type GroupHooks } from '../lib/processes/group.ts'
import { Meter, type Measurement } from './meter.ts'

/** How and how much is published. */
export interface Publishing {
  /**
   * - `MQTT.js`: by a connection of its own, without the plugin
   * - `wire`: by a connection of its own, with the plugin
   * - `group`: by the owner of its group, with the plugin in both
   * - `owner alone`: to an owner that acknowledges at once, without the rest of the plugin
   */
  readonly by: 'MQTT.js' | 'wire' | 'group' | 'owner alone'
  readonly messages: number
  readonly payloadBytes: number
  /** How many may wait for their acknowledgement. */
  readonly outstanding: number
}

interface Target {
  readonly port: number
  readonly dir: string
  readonly hasBroker: boolean
}

export type Part =
  | Target & { readonly part: 'owner' }
  | Target & { readonly part: 'publisher', readonly publishing: Publishing }

export type PublisherOutcome = Measurement

type Publish = (payload: Buffer) => Promise<unknown>

const topic = 'site/7/device/42/reading'
const groupSettings = {
  group: 'bench',
  identity: [],
  heartbeatMs: 500,
  ownerTimeoutMs: 5_000,
  drainTimeoutMs: 1_000,
  maxMessages: 10_000,
  maxBytes: 2 ** 26
}

/** Of a process that has no connection. */
const bystander: GroupHooks = {
  becomeOwner: () => {},
  resign: async () => {},
  state: () => ({}),
  onRole: () => {},
  onState: () => {},
  onTrouble: fail,
  publish: async () => {},
  call: async (_name, parcel) => parcel
}

const part = JSON.parse(process.argv[2] ?? '') as Part
process.on('disconnect', () => process.exit())

if (part.part === 'owner') {
  await own(part)
} else {
  const publish = await publisherOf(part.publishing.by, part)
  process.send?.(await run(part.publishing, publish), () => process.exit())
}

async function own (target: Target): Promise<void> {
  const role = target.hasBroker
    ? (await app(target, 'single')).mqtt.role
    : await joinGroup({ ...groupSettings, dir: target.dir }, bystander).joined()
  if (role !== 'owner') throw new Error('there is another owner')
  process.send?.('owner')
}

async function publisherOf (by: Publishing['by'], target: Target): Promise<Publish> {
  if (by === 'MQTT.js') {
    const client = await mqtt.connectAsync({ host: '127.0.0.1', port: target.port, protocolVersion: 5 })
    return async (payload) => await client.publishAsync(topic, payload, { qos: 1 })
  }
  if (by === 'owner alone') return await byOwnerAlone(target)
  const fastify = await app(target, by === 'wire' ? 'each' : 'single')
  if (by === 'group' && fastify.mqtt.role !== 'member') throw new Error('the publisher has become the owner')
  return (payload) => fastify.mqtt.publish(topic, payload, { qos: 1 })
}

async function byOwnerAlone ({ dir }: Target): Promise<Publish> {
  const group = joinGroup({ ...groupSettings, dir }, bystander)
  if (await group.joined() !== 'member') throw new Error('the publisher has become the owner')
  const patience = { timeoutMs: 30_000, signal: undefined }
  const options = { qos: 1, retain: false, properties: undefined } as const
  return (payload) => group.publish({ topic, payload, ...options }, patience)
}

async function app ({ port, dir }: Target, mode: 'each' | 'single'): Promise<FastifyInstance> {
  const fastify = Fastify()
  const processes = mode === 'each' ? 'each' : { mode, group: 'bench', dir } as const
  await fastify.register(multimqtt, { url: `mqtt://127.0.0.1:${port}`, protocolVersion: 5, processes })
  await fastify.ready()
  return fastify
}

async function run (publishing: Publishing, publish: Publish): Promise<Measurement> {
  const { messages, payloadBytes, outstanding } = publishing
  const meter = new Meter(messages)
  const payload = Buffer.alloc(payloadBytes, 'x')
  let sent = 0
  const next = () => {
    if (sent === messages) return
    sent++
    publish(payload).then(settled, fail)
  }
  const settled = () => {
    meter.count()
    next()
  }
  for (let waiting = 0; waiting < outstanding; waiting++) next()
  return await meter.done
}

function fail (error: unknown): void {
  console.error(error)
  process.exit(1)
}
