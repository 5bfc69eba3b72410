import { once, type EventEmitter } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import fastify from 'fastify'
import { connect } from 'mqtt'
import { multimqtt } from '../lib/index.ts'
import { Meter } from './meter.ts'
import { payloadText, topicName } from './traffic.ts'

/** What a publisher process is told, as its only argument, in JSON. */
export interface PublishTask {
  readonly publisher: 'raw' | 'plugin'
  readonly qos: 0 | 1
  /** Messages that may wait for their end at the same time. 1: each is awaited. */
  readonly window: number
  readonly messages: number
  readonly version: 4 | 5
  readonly port: number
}

type Publish = (topic: string, payload: string, done: (error?: unknown) => void) => void

const task = JSON.parse(process.argv[2] ?? '') as PublishTask
const meter = new Meter(task.messages)
const topics = Array.from({ length: 1_000 }, (_, index) => topicName(index, { topics: 1_000 }))
const payloads = Array.from({ length: 1_000 }, (_, index) => payloadText(index))
process.on('disconnect', () => process.exit())

const latenciesUs: number[] = []
const end = await (task.publisher === 'raw' ? runRaw() : runPlugin())
const measurement = await meter.done
await end()
const p50 = latenciesUs.sort((a, b) => a - b)[latenciesUs.length >> 1]
process.send?.({ ...measurement, p50 }, () => process.exit())

async function runRaw (): Promise<() => Promise<void>> {
  const { port, version } = task
  const client = connect({ host: '127.0.0.1', port, protocolVersion: version, reconnectPeriod: 0 })
  await once(client as unknown as EventEmitter, 'connect')
  const { qos } = task
  await run((topic, payload, done) => { client.publish(topic, payload, { qos }, done) })
  return async () => { await client.endAsync() }
}

async function runPlugin (): Promise<() => Promise<void>> {
  const app = fastify()
  await app.register(multimqtt, { host: '127.0.0.1', port: task.port, protocolVersion: task.version })
  await app.ready()
  const { qos } = task
  await run((topic, payload, done) => {
    void app.mqtt.publish(topic, payload, { qos }).then(() => done(), done)
  })
  return async () => { await app.close() }
}

/** Publishes as fast as the window allows; the event loop turns at least once in 1,000 messages. */
async function run (publish: Publish): Promise<void> {
  let pending = 0
  let wake: (() => void) | undefined
  let sentAt = 0
  const done = (error?: unknown) => {
    if (error != null) throw error
    if (task.window === 1) latenciesUs.push((performance.now() - sentAt) * 1_000)
    pending--
    meter.count()
    wake?.()
  }
  for (let sent = 0; sent < task.messages; sent++) {
    if (pending >= task.window) await new Promise<void>((resolve) => { wake = resolve })
    wake = undefined
    pending++
    sentAt = performance.now()
    publish(topics[sent % 1_000] ?? '', payloads[sent % 1_000] ?? '', done)
    if (sent % 1_000 === 999) await turn()
  }
}
