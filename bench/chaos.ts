import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import mqtt, { type IClientOptions } from 'mqtt'
import multimqtt, { type MultimqttOptions } from '../lib/index.ts'
import { onEnd, type Owner } from '../test/helpers/cleanup.ts'
import { mosquittoMissing, startMosquitto, type Mosquitto } from '../test/helpers/mosquitto.ts'
import { startProxy, type Proxy } from '../test/helpers/proxy.ts'
import { countRoundTrips } from '../test/helpers/round-trips.ts'
import { openUnguarded } from '../test/helpers/unguarded.ts'
import { grouped, table } from './report.ts'

type Version = 4 | 5

/** What a row needs of a client: ours, and MQTT.js alone. */
interface Client {
  /** Resolves with the first connection. */
  readonly connected: Promise<void>
  isConnected (): boolean
  publish (topic: string, qos: 1 | 2): Promise<unknown>
}

interface Setting {
  readonly url: string
  readonly version: Version
  readonly isKept: boolean
}

type Open = (owner: Owner, setting: Setting) => Promise<Client>

const clients: Readonly<Record<string, Open>> = { plugin: openPlugin, 'MQTT.js': openRaw }
const unbounded = ['max_inflight_messages 0', 'max_queued_messages 0']
/** Milliseconds after which what has not settled will not. */
const patienceMs = 8_000

/**
 * What is left of what was published when connections are cut, the broker is away, or one message is a
 * poison: the plugin, and MQTT.js alone in the same place. Through a proxy to a real Mosquitto.
 */
export async function benchChaos (): Promise<void> {
  if (mosquittoMissing !== false) {
    console.log(mosquittoMissing)
    return
  }
  await printCuts()
  await printOffline()
  await printPoison()
}

async function printCuts (): Promise<void> {
  const rows: string[][] = []
  for (const version of [5, 4] as const) {
    for (const [qos, isKept] of [[1, false], [1, true], [2, true], [2, false]] as const) {
      for (const [name, open] of Object.entries(clients)) {
        rows.push([name, versionName(version), `${qos}`, isKept ? 'kept' : 'clean',
          ...await inRow(async (owner) => await cutSixTimes(owner, open, version, qos, isKept))])
      }
    }
  }
  console.log('2,000 publishes, about two a millisecond, six cuts, 1 ms in each direction:\n')
  console.log(table(['', 'MQTT', 'QoS', 'session', 'delivered', 'resolved', 'rejected', 'pending', 'twice',
    'resolved and lost', 'in order'], rows))
}

async function cutSixTimes (
  owner: Owner, open: Open, version: Version, qos: 1 | 2, isKept: boolean
): Promise<string[]> {
  const broker = await startMosquitto(owner, { lines: unbounded })
  const observer = await observe(owner, broker)
  const proxy = await startProxy(owner, broker.ports.plain, { delayMs: 1 })
  const client = await open(owner, { url: proxy.url, version, isKept })
  await client.connected
  const ends: ('resolved' | 'rejected' | 'pending')[] = []
  const publishing: Promise<unknown>[] = []
  let cuts = 0
  for (let n = 0; n < 2_000; n++) {
    ends.push('pending')
    publishing.push(client.publish(`n/${n}`, qos).then(
      () => { ends[n] = 'resolved' }, () => { ends[n] = 'rejected' }))
    if (n % 2 === 1) await sleep(1)
    if (n > 250 * (cuts + 1) && cuts < 6 && client.isConnected()) {
      cuts++
      proxy.cut()
    }
  }
  await Promise.race([Promise.all(publishing), sleep(patienceMs, undefined, { ref: false })])
  const seen = await observer.seen()
  const delivered = new Set(seen)
  const count = (end: string) => `${ends.filter((one) => one === end).length}`
  return [
    `${delivered.size}`, count('resolved'), count('rejected'), count('pending'), `${seen.length - delivered.size}`,
    `${ends.filter((end, n) => end === 'resolved' && !delivered.has(n)).length}`, isAscending(delivered) ? 'yes' : 'no'
  ]
}

async function printOffline (): Promise<void> {
  const rows: string[][] = []
  for (const [count, delayMs, version, window] of [
    [70_000, 0, 5, undefined], [1_000, 2, 5, 20], [1_000, 2, 5, undefined], [1_000, 2, 4, undefined]
  ] as const) {
    for (const [name, open] of Object.entries(clients)) {
      rows.push([name, versionName(version), grouped(count), `${delayMs}`, `${window ?? 'none'}`,
        ...await inRow(async (owner) => await waitForBroker(owner, open, version, count, delayMs, window))])
    }
  }
  console.log('\nPublished with QoS 1 while the broker is away:\n')
  console.log(table(['', 'MQTT', 'messages', 'ms each way', 'window', 'delivered', 'not settled', 'ms to connect',
    'ms to the last', 'round trips'], rows))
}

async function waitForBroker (
  owner: Owner, open: Open, version: Version, count: number, delayMs: number, window: number | undefined
): Promise<string[]> {
  const broker = await startMosquitto(owner, { lines: window === undefined ? unbounded : ['max_queued_messages 0'] })
  const observer = await observe(owner, broker)
  const trips = countRoundTrips(version)
  const proxy: Proxy = await startProxy(owner, broker.ports.plain, { delayMs, tap: trips.tap })
  proxy.refuse(true)
  const client = await open(owner, { url: proxy.url, version, isKept: true })
  let settled = 0
  const settle = () => { settled++ }
  const publishing = Array.from({ length: count }, (_, n) => client.publish(`n/${n}`, 1).then(settle, settle))
  const accepted = proxy.nextConnection()
  proxy.refuse(false)
  await accepted
  const begin = performance.now()
  const since = () => Math.round(performance.now() - begin)
  const connected = client.connected.then(since)
  const last = await Promise.race([
    Promise.all(publishing).then(() => `${since()}`), sleep(2 * patienceMs, 'never', { ref: false })
  ])
  const seen = await observer.seen()
  return [
    grouped(new Set(seen).size), grouped(count - settled), `${await connected}`, last, grouped(trips.count())
  ]
}

async function printPoison (): Promise<void> {
  const rows: string[][] = []
  for (const version of [5, 4] as const) {
    for (const name of Object.keys(clients)) {
      const ends = await inRow(async (owner) => await sendPoison(owner, name, version))
      rows.push([name, versionName(version), ...ends])
    }
  }
  console.log('\nOne message to a/+ among 30 (the plugin without its guard, which would refuse it), after 3 s:\n')
  console.log(table(['', 'MQTT', 'delivered', 'resolved', 'rejected', 'pending', 'connections'], rows))
}

async function sendPoison (owner: Owner, name: string, version: Version): Promise<string[]> {
  const broker = await startMosquitto(owner, { lines: unbounded })
  const observer = await observe(owner, broker)
  const proxy = await startProxy(owner, broker.ports.plain)
  const raw = name === 'plugin' ? undefined : await openRaw(owner, { url: proxy.url, version, isKept: true })
  const ours = raw === undefined ? openUnguarded(owner, proxy.port, { version, expiry: 60 }) : undefined
  await (raw?.connected ?? ours?.up)
  const ends = { resolved: 0, rejected: 0 }
  for (let n = 0; n < 30; n++) {
    const topic = n === 15 ? 'a/+' : `n/${n}`
    void (raw?.publish(topic, 1) ?? ours?.publish(topic))?.then(() => ends.resolved++, () => ends.rejected++)
  }
  await sleep(3_000)
  const { resolved, rejected } = ends
  const delivered = new Set(await observer.seen()).size
  return [delivered, resolved, rejected, 30 - resolved - rejected, proxy.accepted()].map(String)
}

async function openPlugin (owner: Owner, { url, version, isKept }: Setting): Promise<Client> {
  const fastify = Fastify()
  const options: MultimqttOptions = {
    url,
    protocolVersion: version,
    start: 'background',
    reconnect: { minDelay: 5, maxDelay: 20 },
    outbox: { maxMessages: 70_000, maxBytes: 2 ** 26 },
    ...(isKept ? { clientId: randomUUID(), session: { expiry: 3_600 } } : {})
  }
  await fastify.register(multimqtt, options)
  onEnd(owner, () => fastify.close())
  const connected = new Promise<void>((resolve) => { fastify.mqtt.addHook('onConnect', () => resolve()) })
  await fastify.ready()
  return {
    connected,
    isConnected: () => fastify.mqtt.status === 'ready',
    publish: (topic, qos) => fastify.mqtt.publish(topic, '', { qos })
  }
}

async function openRaw (owner: Owner, { url, version, isKept }: Setting): Promise<Client> {
  const options: IClientOptions = {
    protocolVersion: version,
    reconnectPeriod: 20,
    ...(isKept ? { clean: false, clientId: randomUUID() } : {}),
    ...(isKept && version === 5 ? { properties: { sessionExpiryInterval: 3_600 } } : {})
  }
  const client = mqtt.connect(url, options)
  client.on('error', () => {})
  onEnd(owner, () => { client.end(true) })
  return {
    connected: new Promise<void>((resolve) => { client.once('connect', () => resolve()) }),
    isConnected: () => client.connected,
    publish: (topic, qos) => client.publishAsync(topic, '', { qos })
  }
}

/** Notes what arrives at the broker on n/+, by a connection that nothing happens to. */
async function observe (owner: Owner, broker: Mosquitto) {
  const client = await mqtt.connectAsync(broker.url, { protocolVersion: 4 })
  onEnd(owner, () => { client.end(true) })
  const seen: number[] = []
  let end = () => {}
  client.on('message', (topic) => {
    if (topic === 'end') end()
    else seen.push(Number(topic.slice(2)))
  })
  await client.subscribeAsync(['n/+', 'end'], { qos: 2 })
  return {
    async seen () {
      const ended = new Promise<void>((resolve) => { end = resolve })
      await client.publishAsync('end', '', { qos: 2 })
      await ended
      return seen
    }
  }
}

/** Everything that a row has started ends with it. */
async function inRow<T> (work: (owner: Owner) => Promise<T>): Promise<T> {
  const tasks: (() => unknown)[] = []
  try {
    return await work({ after: (task) => { tasks.push(task as () => unknown) } })
  } finally {
    for (const task of tasks) await task()
  }
}

function versionName (version: Version): string {
  return version === 5 ? '5' : '3.1.1'
}

function isAscending (numbers: Iterable<number>): boolean {
  const all = [...numbers]
  return all.every((number, index) => index === 0 || number > (all[index - 1] ?? 0))
}
