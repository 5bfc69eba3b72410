import { once, type EventEmitter } from 'node:events'
import fastify from 'fastify'
import { connect, type MqttClient } from 'mqtt'
import { multimqtt } from '../lib/index.ts'
import { Meter, type Measurement } from './meter.ts'
import { devices, readingSchema, requestTopic, type Traffic } from './traffic.ts'

/** What a consumer process is told, as its only argument, in JSON. */
export interface Task extends Traffic {
  readonly consumer: Consumer
  readonly version: 4 | 5
  readonly port: number
  /** The client identifier of a session in which the messages wait already; else they are asked for. */
  readonly session?: string
}

/**
 * `raw-count` is MQTT.js with its defaults that counts, `raw-json` the same with JSON.parse; `plugin-full` is
 * the plugin with one handler, two typed params and a payload schema, `plugin-late` the same with an
 * asynchronous handler, `plugin-10000` has 10,000 handlers;
 * `plugin-hooks-1` is `plugin-full` with one empty synchronous hook, and so on.
 */
export type Consumer = 'raw-count' | 'raw-json' | 'plugin-full' | 'plugin-late' | 'plugin-10000' | `plugin-hooks-${number}`

/** What a consumer process answers. */
export interface Outcome extends Measurement {
  readonly delivered: number
}

/** Milliseconds for what is still on its way when the feed has ended the connection. */
const lingerMs = 5_000

const task = JSON.parse(process.argv[2] ?? '') as Task
const meter = new Meter(task.messages)
process.on('disconnect', () => process.exit())

if (task.consumer === 'raw-count') {
  await runRaw(() => meter.count())
} else if (task.consumer === 'raw-json') {
  await runRaw((payload) => {
    const reading = JSON.parse(payload.toString()) as { celsius: number }
    if (reading.celsius > 0) meter.count()
  })
} else {
  await runPlugin(task.consumer)
}

async function runRaw (onPayload: (payload: Buffer) => void): Promise<void> {
  const { session } = task
  const client = connect({
    host: '127.0.0.1',
    port: task.port,
    protocolVersion: task.version,
    reconnectPeriod: 0,
    ...(session !== undefined && { clientId: session, clean: false })
  })
  client.on('message', (_topic, payload) => onPayload(payload))
  await once(emitterOf(client), 'connect')
  if (session !== undefined) {
    await report()
    return
  }
  await client.subscribeAsync('site/#', { qos: task.qos })
  const closed = once(emitterOf(client), 'close')
  await client.publishAsync(requestTopic, JSON.stringify(task))
  await closed
  await report()
}

async function runPlugin (consumer: Exclude<Consumer, 'raw-count' | 'raw-json'>): Promise<void> {
  const app = fastify()
  const { session } = task
  await app.register(multimqtt, {
    host: '127.0.0.1',
    port: task.port,
    protocolVersion: task.version,
    ...(session !== undefined && { clientId: session, session: { expiry: 3_600 } })
  })
  const hooks = Number(/hooks-(\d+)/.exec(consumer)?.[1] ?? 0)
  for (let hook = 0; hook < hooks; hook++) app.mqtt.addHook('preHandler', () => {})
  const { qos } = task
  if (consumer === 'plugin-late') {
    app.mqtt.topic('site/<int:site>/device/<int:device>/reading', { qos, payload: readingSchema }, async (message) => {
      await undefined
      if (message.payload.celsius > 0 && message.params.device + message.params.site >= 0) meter.count()
    })
  } else if (consumer !== 'plugin-10000') {
    app.mqtt.topic('site/<int:site>/device/<int:device>/reading', { qos, payload: readingSchema }, (message) => {
      if (message.payload.celsius > 0 && message.params.device + message.params.site >= 0) meter.count()
    })
  } else {
    for (let device = 0; device < devices; device++) {
      // The type of params is read from a literal pattern, which this is not.
      app.mqtt.topic(`site/<int:site>/device/${device}/reading`, { qos, payload: readingSchema }, (message) => {
        if (message.payload.celsius > 0 && typeof message.params['site'] === 'number') meter.count()
      })
    }
  }
  await app.ready()
  if (session !== undefined) {
    await report()
    return
  }
  const { client } = app.mqtt
  if (client === undefined) throw new Error('ready without a client')
  const closed = once(emitterOf(client), 'close')
  await app.mqtt.publish(requestTopic, task)
  await closed
  await report()
  await app.close()
}

// MQTT.js declares an emitter of its own without all the members; what it is at run time is Node's.
function emitterOf (client: MqttClient): EventEmitter {
  return client as unknown as EventEmitter
}

/** The connection is closed, so that nothing more can come than what was read from it. */
async function report (): Promise<void> {
  const measurement = await Promise.race([meter.done, once(AbortSignal.timeout(lingerMs), 'abort')])
  // A turn for messages that nobody asked for, which would be counted as well.
  await new Promise((resolve) => setImmediate(resolve))
  const outcome: Outcome = Array.isArray(measurement)
    ? { cpuUs: NaN, rate: NaN, delivered: meter.delivered }
    : { ...measurement, delivered: meter.delivered }
  process.send?.(outcome, () => process.exit())
}
