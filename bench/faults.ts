import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import Fastify from 'fastify'
import { multimqtt } from '../lib/index.ts'
import { mosquittoCtrl } from '../test/helpers/mosquitto-clients.ts'
import { mosquittoMissing, startMosquitto, type Mosquitto } from '../test/helpers/mosquitto.ts'
import { startProxy, type Proxy } from '../test/helpers/proxy.ts'
import type { FaultyAppReport, FaultyAppTask } from './faulty-app.ts'
import { Pace } from './pace.ts'
import { endProcess, program } from './programs.ts'
import { grouped, median, table } from './report.ts'

/** Messages a second, in each direction, with QoS 1. */
const rate = 200
const hopelessEach = 1_000
/** For what is under way when the faults are over. */
const settleMs = 90_000

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' } } })
const minutes = Number(values.minutes)
if (!(minutes > 0)) throw new Error(`--minutes has to be a number above 0, not ${values.minutes}`)
if (mosquittoMissing !== false) throw new Error(mosquittoMissing)

/** How often each message came, by its number. */
class Tally {
  readonly #counts: number[] = []
  repeated = 0
  disordered = 0
  readonly #latest: number[] = []

  /** @param key of messages whose order counts */
  add (number: number, key?: number): void {
    const count = (this.#counts[number] ?? 0) + 1
    this.#counts[number] = count
    if (count > 1) {
      this.repeated++
    } else if (key !== undefined) {
      if (number < (this.#latest[key] ?? 0)) this.disordered++
      else this.#latest[key] = number
    }
  }

  has (number: number): boolean {
    return this.#counts[number] !== undefined
  }

  get numbers (): number[] {
    return Object.keys(this.#counts).map(Number)
  }
}

const tallies = {
  toApp: { confirmed: new Tally(), arrived: new Tally() },
  fromApp: { confirmed: new Tally(), arrived: new Tally() }
}
const dead = new Tally()
const faults: Record<string, number> = {}
const heaps: { atMs: number, bytes: number }[] = []
let guardRestorals: number[] = []
let last: FaultyAppReport | undefined

const tasks: (() => unknown)[] = []
const owner = { after: (task: () => unknown) => { tasks.push(task) } } as Parameters<typeof startMosquitto>[0]
const begin = performance.now()
console.log(`# faults\n\nNode.js ${process.version}, load ${loadavg()[0]?.toFixed(1)} before, ${minutes} minutes\n`)
try {
  process.exitCode = await run() ? 0 : 1
} finally {
  for (const task of tasks.reverse()) await task()
}

async function run (): Promise<boolean> {
  const broker = await startMosquitto(owner, {
    lines: ['persistence true', 'persistence_location {{dir}}/', 'max_queued_messages 0']
  })
  await permit(broker)
  const { dynsec } = broker.ports
  const proxies = { app: await startProxy(owner, dynsec), device: await startProxy(owner, dynsec) }
  const app = startFaultyApp(proxies.app)
  const device = await startDevice(proxies.device)
  const end = begin + minutes * 60_000
  while (performance.now() < end) {
    await pause(500 + Math.random() * 4_000)
    await makeFault(broker, proxies)
  }
  mend(proxies)
  device.pace.stop()
  app.send('pause')
  await settled(device)
  const exit = once(app, 'exit', { signal: AbortSignal.timeout(30_000) })
  app.send('close')
  const [code] = await exit as [number | null]
  await device.close()
  return report(device, code)
}

/** The accounts of the two, by the dynamic security plugin. */
async function permit (broker: Mosquitto): Promise<void> {
  for (const name of ['app', 'device']) {
    await control(broker, 'createClient', name, '-p', 'secret')
    await control(broker, 'createRole', name)
    await control(broker, 'addRoleACL', name, 'publishClientSend', '#', 'allow')
    await control(broker, 'addRoleACL', name, 'unsubscribePattern', '#', 'allow')
  }
  await control(broker, 'addRoleACL', 'app', 'subscribePattern', 'work/#', 'allow')
  await control(broker, 'addRoleACL', 'app', 'subscribePattern', 'guarded/#', 'allow')
  await control(broker, 'addRoleACL', 'device', 'subscribePattern', 'back/#', 'allow')
  for (const name of ['app', 'device']) await control(broker, 'addClientRole', name, name)
}

async function control (broker: Mosquitto, ...command: string[]): Promise<void> {
  await mosquittoCtrl(broker, 'dynsec', ...command)
}

function startFaultyApp (proxy: Proxy): ChildProcess {
  const task: FaultyAppTask = { url: `mqtt://app:secret@127.0.0.1:${proxy.port}`, rate, hopelessEach }
  const child = fork(program('faulty-app.js'), [JSON.stringify(task)], { execArgv: ['--expose-gc'] })
  tasks.push(() => endProcess(child))
  child.on('message', (told: FaultyAppReport) => {
    last = told
    for (const number of told.handled) tallies.toApp.arrived.add(number, number % 10)
    for (const number of told.dead) dead.add(number)
    for (const number of told.confirmed) tallies.fromApp.confirmed.add(number)
    heaps.push({ atMs: performance.now() - begin, bytes: told.heapBytes })
  })
  return child
}

interface Device {
  readonly pace: Pace
  readonly refused: Record<string, number>
  readonly published: () => number
  readonly pending: () => number
  readonly close: () => Promise<void>
}

/** What the application talks to, in this process. */
async function startDevice (proxy: Proxy): Promise<Device> {
  const fastify = Fastify()
  await fastify.register(multimqtt, {
    url: `mqtt://device:secret@127.0.0.1:${proxy.port}`,
    clientId: 'device',
    session: { expiry: 3_600 },
    keepalive: 2,
    reconnect: { minDelay: 50, maxDelay: 1_000 },
    publishTimeout: 600_000,
    outbox: { maxMessages: 100_000 }
  })
  fastify.mqtt.topic('back/<int:key>', { qos: 1 }, (message) => {
    tallies.fromApp.arrived.add(Number(message.text()), message.params.key)
  })
  await fastify.ready()
  // Both have their session before the first message.
  while (last?.isGuardGranted !== true) await pause(50)
  const refused: Record<string, number> = {}
  let [published, pending] = [0, 0]
  const pace = new Pace(rate, (number) => {
    published++
    pending++
    fastify.mqtt.publish(`work/${number % 10}`, String(number), { qos: 1 }).then(() => {
      pending--
      tallies.toApp.confirmed.add(number)
    }, (error: Error & { code?: string }) => {
      pending--
      refused[error.code ?? error.message] = (refused[error.code ?? error.message] ?? 0) + 1
    })
  })
  return { pace, refused, published: () => published, pending: () => pending, close: () => fastify.close() }
}

// Faults

type Proxies = Readonly<Record<'app' | 'device', Proxy>>

async function makeFault (broker: Mosquitto, proxies: Proxies): Promise<void> {
  const proxy = Math.random() < 0.7 ? proxies.app : proxies.device
  const kinds: Record<string, () => Promise<void> | void> = {
    cut: () => proxy.cut(),
    'cut in the middle of a packet': () => {
      proxy.cutAfter(Math.ceil(Math.random() * 3_000), Math.random() < 0.5 ? 'up' : 'down')
    },
    'half-open': () => hold(proxy, Math.random() * 6_000),
    'refused for a while': () => refuse(proxy, Math.random() * 3_000),
    'restart of the broker': () => restart(broker, Math.random() * 2_000),
    'permission taken, and given back': () => takePermission(broker)
  }
  const odds = {
    cut: 8,
    'cut in the middle of a packet': 6,
    'half-open': 2,
    'refused for a while': 2,
    'restart of the broker': 2,
    'permission taken, and given back': 1
  }
  const lots = Object.entries(odds).flatMap(([kind, count]) => Array<string>(count).fill(kind))
  const kind = lots[Math.floor(Math.random() * lots.length)] ?? ''
  faults[kind] = (faults[kind] ?? 0) + 1
  await kinds[kind]?.()
}

async function hold (proxy: Proxy, ms: number): Promise<void> {
  proxy.hold()
  await pause(ms)
  // Some links come back, others are gone.
  if (Math.random() < 0.5) proxy.cut()
  proxy.resume()
}

async function refuse (proxy: Proxy, ms: number): Promise<void> {
  proxy.refuse(true)
  proxy.cut()
  await pause(ms)
  proxy.refuse(false)
}

/** With a signal at which it saves what it has acknowledged. */
async function restart (broker: Mosquitto, ms: number): Promise<void> {
  await broker.stop('SIGTERM')
  await pause(ms)
  await broker.start()
}

async function takePermission (broker: Mosquitto): Promise<void> {
  await control(broker, 'removeRoleACL', 'app', 'subscribePattern', 'guarded/#')
  await until(() => last?.isGuardGranted === false && last.status === 'ready', 'refusal')
  await control(broker, 'addRoleACL', 'app', 'subscribePattern', 'guarded/#', 'allow')
  const since = performance.now()
  await until(() => last?.isGuardGranted === true, 'grant')
  guardRestorals = [...guardRestorals, performance.now() - since]
}

function mend (proxies: Proxies): void {
  for (const proxy of Object.values(proxies)) {
    proxy.refuse(false)
    proxy.resume()
    // One that is armed would end a connection later.
    proxy.cutAfter(Infinity)
  }
}

async function settled (device: Device): Promise<void> {
  const isDone = () =>
    device.pending() === 0 && last?.pending === 0 && last.unacked === 0 && last.running === 0 &&
    lostOf(tallies.toApp, dead).length === 0 && lostOf(tallies.fromApp).length === 0
  await until(isDone, 'settling', settleMs).catch(() => {})
}

async function until (condition: () => boolean, what: string, timeoutMs = 90_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`no ${what} within ${timeoutMs} ms`)
    await pause(50)
  }
}

async function pause (ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms))
}

// Figures

/** What was acknowledged to its publisher and never came. */
function lostOf ({ confirmed, arrived }: { confirmed: Tally, arrived: Tally }, other?: Tally): number[] {
  return confirmed.numbers.filter((number) => !arrived.has(number) && other?.has(number) !== true)
}

type Direction = typeof tallies.toApp

/** Of an application that has told nothing. */
const nothing = { published: NaN, pending: NaN, refused: {} }

function row (
  name: string, { confirmed, arrived }: Direction, lost: readonly number[],
  { published, pending, refused }: { published: number, pending: number, refused: object }
): string[] {
  return [
    name, grouped(published), grouped(confirmed.numbers.length), JSON.stringify(refused), String(pending),
    grouped(arrived.numbers.length), grouped(arrived.repeated), grouped(arrived.disordered),
    grouped(lost.length)
  ]
}

/** @returns whether all is as it was promised */
function report (device: Device, exitCode: number | null): boolean {
  const lost = { toApp: lostOf(tallies.toApp, dead), fromApp: lostOf(tallies.fromApp) }
  const sent = { published: device.published(), pending: device.pending(), refused: device.refused }
  console.log(table(
    ['QoS 1', 'published', 'acknowledged', 'rejected', 'pending', 'handled', 'again', 'out of order', 'lost'],
    [
      row('to the application', tallies.toApp, lost.toApp, sent),
      row('from the application', tallies.fromApp, lost.fromApp, last ?? nothing)
    ]))
  for (const [direction, numbers] of Object.entries(lost)) {
    if (numbers.length > 0) console.log(`lost ${direction}: ${numbers.slice(0, 50).join(', ')}`)
  }
  console.log(`\n${table(['fault', 'count'], Object.entries(faults).map(([name, count]) => [name, String(count)]))}`)
  const [early, late] = heapMegabytes()
  console.log(`\n${table(['the application', ''], [
    ['dead letters (planned: one of each 1,000)', `${dead.numbers.length}, ${dead.repeated} again`],
    ['attempts to connect', grouped(last?.attempts ?? NaN)],
    ['retries of handlers', grouped(last?.retried ?? NaN)],
    ['heap after gc, median of the first and of the last third', `${early.toFixed(1)} MB, ${late.toFixed(1)} MB`],
    ['rss at the end', `${((last?.rssBytes ?? NaN) / 1e6).toFixed(0)} MB`],
    ['permission back until granted', guardRestorals.map((ms) => `${(ms / 1_000).toFixed(1)} s`).join(', ')],
    ['status at the end, exit code', `${last?.status}, ${exitCode}`]
  ])}`)
  console.log(`\n${table(['log lines from warn on', 'count'],
    Object.entries(last?.lines ?? {}).map(([line, times]) => [line, String(times)]))}`)
  console.log(`\nload ${loadavg()[0]?.toFixed(1)} after, ${((performance.now() - begin) / 1_000).toFixed(0)} s`)
  const isFlat = late < early * 1.1 + 1
  const failures = lost.toApp.length + lost.fromApp.length + device.pending() + (last?.pending ?? 1)
  return failures === 0 && isFlat && exitCode === 0
}

/** Of the first and of the last third, without the time in which caches fill and code is compiled. */
function heapMegabytes (): [number, number] {
  const warm = heaps.filter(({ atMs }) => atMs > 20_000).map(({ bytes }) => bytes / 1e6)
  const count = Math.ceil(warm.length / 3)
  return [median(warm.slice(0, count)), median(warm.slice(-count))]
}
