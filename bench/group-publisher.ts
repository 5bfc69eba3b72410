// A process of `bench processes`: the owner of a group, or who publishes. Its part comes as its argument.
import mqtt from 'mqtt'
import { joinGroup, type GroupHooks } from '../lib/processes/group.ts'
import { Meter, type Measurement } from './meter.ts'

/** How and how much is published. */
export interface Publishing {
  /** A connection of its own, or the owner of a group, with a broker or without one. */
  readonly by: 'connection' | 'group' | 'owner alone'
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
  const publish = part.publishing.by === 'connection' ? await byConnection(part) : await byGroup(part)
  process.send?.(await run(part.publishing, publish), () => process.exit())
}

async function own ({ port, dir, hasBroker }: Target): Promise<void> {
  const client = hasBroker ? await connected(port) : undefined
  const group = joinGroup({ ...groupSettings, dir }, {
    ...bystander,
    publish: async ({ topic, payload, qos }) => { await client?.publishAsync(topic, payload, { qos }) }
  })
  await group.joined()
  process.send?.('owner')
}

async function byConnection ({ port }: Target): Promise<Publish> {
  const client = await connected(port)
  return async (payload) => await client.publishAsync(topic, payload, { qos: 1 })
}

async function byGroup ({ dir }: Target): Promise<Publish> {
  const group = joinGroup({ ...groupSettings, dir }, bystander)
  if (await group.joined() !== 'member') throw new Error('the publisher has become the owner')
  const patience = { timeoutMs: 30_000, signal: undefined }
  return (payload) => {
    return group.publish({ topic, payload, qos: 1, retain: false, properties: undefined }, patience)
  }
}

async function connected (port: number): Promise<mqtt.MqttClient> {
  return await mqtt.connectAsync({ host: '127.0.0.1', port, protocolVersion: 5 })
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
