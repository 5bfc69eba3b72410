import { once, type EventEmitter } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type IClientOptions, type MqttClient } from 'mqtt'
import { consume } from './consume.ts'
import type { Outcome } from './consumer.ts'
import { endProcess, startBroker } from './programs.ts'
import { grouped, median, range, table } from './report.ts'
import { payloadText, topicName } from './traffic.ts'

const rounds = 5
const messages = 200_000
const topics = 1_000
const session = 'bench'
/** Publishes that are awaited together. */
const batch = 5_000

/** The most that the plugin may cost, as a multiple of MQTT.js alone. */
const goals = new Map([[20, 0.6], [1_000, 0.35]])
const consumers = ['raw-count', 'plugin-late'] as const

/**
 * CPU time per message of a consumer whose messages wait for it in its session, with QoS 1, in a Mosquitto:
 * what it sends when it is connected, it sends as fast as it is acknowledged.
 */
export async function benchDrain (): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'multimqtt-bench-'))
  try {
    const rows: string[][] = []
    for (const [window, goal] of goals) rows.push(...await drain(directory, window, goal))
    console.log(`120 bytes of JSON, ${grouped(messages)} messages a process; medians of ${rounds} rounds.\n`)
    console.log(table(
      ['window', 'variant', 'CPU µs/message', 'range', 'messages/s', 'as a multiple', 'range', 'goal'], rows))
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

async function drain (directory: string, window: number, goal: number): Promise<string[][]> {
  const broker = await startBroker(directory, window)
  try {
    const outcomes = new Map<string, Outcome[]>(consumers.map((consumer) => [consumer, []]))
    for (let round = 0; round < rounds; round++) {
      for (const consumer of consumers) {
        await fill(broker.port)
        const { port } = broker
        outcomes.get(consumer)?.push(
          await consume({ consumer, version: 4, port, session, messages, topics, qos: 1, window }))
      }
    }
    const cpu = (consumer: string) => (outcomes.get(consumer) ?? []).map(({ cpuUs }) => cpuUs)
    const others = cpu('raw-count')
    return consumers.map((consumer) => {
      const ratios = cpu(consumer).map((value, round) => value / (others[round] ?? NaN))
      const isOurs = consumer !== 'raw-count'
      return [
        grouped(window),
        consumer,
        median(cpu(consumer)).toFixed(2),
        range(cpu(consumer)),
        grouped(median((outcomes.get(consumer) ?? []).map(({ rate }) => rate))),
        ...isOurs ? [median(ratios).toFixed(2), range(ratios), `≤ ${goal}`] : ['', '', '']
      ]
    })
  } finally {
    await endProcess(broker.child)
  }
}

/** A new session with all the messages, and nobody connected. */
async function fill (port: number): Promise<void> {
  await (await open(port, { clientId: session, clean: true })).endAsync()
  const subscriber = await open(port, { clientId: session, clean: false })
  await subscriber.subscribeAsync('site/#', { qos: 1 })
  await subscriber.endAsync()
  const publisher = await open(port)
  for (let sent = 0; sent < messages; sent += batch) {
    await Promise.all(Array.from({ length: batch }, async (_, index) => await publisher.publishAsync(
      topicName((sent + index) * 617 % topics, { topics }), payloadText(sent + index), { qos: 1 })))
  }
  await publisher.endAsync()
}

async function open (port: number, options: IClientOptions = {}): Promise<MqttClient> {
  const client = connect({ host: '127.0.0.1', port, protocolVersion: 4, reconnectPeriod: 0, ...options })
  // MQTT.js declares an emitter of its own without all the members; what it is at run time is Node's.
  await once(client as unknown as EventEmitter, 'connect')
  return client
}
