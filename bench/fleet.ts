import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import mqtt, { type MqttClient } from 'mqtt'
import type { Owner } from '../test/helpers/cleanup.ts'
import { startMosquitto, type Mosquitto } from '../test/helpers/mosquitto.ts'
import { freePorts } from '../test/helpers/ports.ts'
import { endWithUs } from '../test/helpers/programs.ts'
import type { FleetSettings } from './fleet-app.ts'
import { table } from './report.ts'

const app = fileURLToPath(new URL('fleet-app.js', import.meta.url))
const run = promisify(execFile)
const size = 4
const startMs = 120_000
const window = 20

/** Workers under a process manager, for which messages are published all the time. */
interface Manager {
  start (): Promise<void>
  /** Faults, in order. */
  readonly faults: readonly (readonly [name: string, run: () => Promise<void>])[]
  stop (): Promise<void>
}

/**
 * What a group loses under real process managers, which npx and npm fetch: PM2 in cluster mode, where the
 * owner is killed and all are reloaded, and Watt on Node.js 24, where the owner's thread throws.
 */
export async function benchFleet (): Promise<void> {
  const rows = [...await measure('PM2', pm2), ...await measure('Watt', watt)]
  console.log(table(['', 'sent', 'lost', 'twice', 'acked but lost', 'failed', 'connections', 'longest pause'], rows))
}

async function measure (name: string, createManager: (fleet: Fleet) => Manager): Promise<string[][]> {
  const tasks: (() => unknown)[] = []
  const owner: Owner = { after: (task) => { tasks.push(task as () => unknown) } }
  try {
    const broker = await startMosquitto(owner, {
      lines: ['max_queued_messages 100000', `max_inflight_messages ${window}`]
    })
    const [port = 0] = await freePorts(1)
    const fleet = await Fleet.start(broker, port)
    owner.after(() => fleet.close())
    const manager = createManager(fleet)
    owner.after(() => manager.stop())
    await manager.start()
    await fleet.settled()
    fleet.begin()
    const rows: string[][] = []
    for (const [fault, cause] of manager.faults) {
      await fleet.more(300)
      const since = Date.now()
      const { owner: former } = fleet
      await cause()
      await until(() => fleet.owner.journal !== former.journal, 'another owner')
      await fleet.settled()
      await fleet.more(300)
      const pause = `${fleet.longestPauseMs(since)} ms`
      rows.push([`${name}: ${fault}`, ...await fleet.count(), pause])
    }
    return rows
  } finally {
    for (const task of tasks.reverse()) await task()
  }
}

/** The load, and what the journals of the workers say. */
class Fleet {
  readonly broker: Mosquitto
  readonly settings: FleetSettings
  readonly dir: string
  readonly #client: MqttClient
  readonly #received = new Set<string>()
  #sent = 0
  #acked = 0
  #timer: NodeJS.Timeout | undefined

  private constructor (broker: Mosquitto, dir: string, port: number, client: MqttClient) {
    this.broker = broker
    this.dir = dir
    this.settings = { url: broker.url, dir, port }
    this.#client = client
    client.on('message', (topic) => this.#received.add(topic.slice('out/'.length)))
  }

  static async start (broker: Mosquitto, port: number): Promise<Fleet> {
    const client = await mqtt.connectAsync(broker.url, { protocolVersion: 5 })
    const fleet = new Fleet(broker, mkdtempSync(join(tmpdir(), 'multimqtt-fleet-')), port, client)
    await client.subscribeAsync('out/#', { qos: 1 })
    return fleet
  }

  begin (): void {
    this.#timer = setInterval(() => {
      const number = ++this.#sent
      this.#client.publish(`in/${number}`, 'x', { qos: 1 }, (error) => { if (!error) this.#acked++ })
    }, 5)
  }

  /** Resolves when one is the owner and all others are members. */
  async settled (): Promise<void> {
    await until(() => {
      const roles = [...this.#roles().values()]
      return roles.filter((role) => role === 'owner').length === 1 && roles.filter((role) => role === 'member').length >= size - 1
    }, 'an owner and its members')
  }

  async more (count: number): Promise<void> {
    const goal = this.#acked + count
    await until(() => this.#acked >= goal, 'messages')
  }

  /** The longest time in which nothing was handled, since then. */
  longestPauseMs (since: number): number {
    const times = this.#lines('done').map(({ words: [, , time] }) => Number(time)).filter((time) => time >= since)
      .sort((one, other) => one - other)
    return Math.max(...times.map((time, index) => time - (times[index - 1] ?? since)))
  }

  get owner (): { readonly journal: string, readonly pid: number } {
    const last = this.#lines('role').filter(({ words: [, role] }) => role === 'owner')
      .sort((a, b) => Number(a.words[3]) - Number(b.words[3])).at(-1)
    return { journal: last?.journal ?? '', pid: Number(last?.words[2]) }
  }

  publish (topic: string): void {
    this.#client.publish(topic, '')
  }

  /** Waits for what is on its way, and counts. */
  async count (): Promise<string[]> {
    clearInterval(this.#timer)
    const isDone = () => this.#acked === this.#sent && this.#lost() === 0
    await until(isDone, 'all messages', 20_000).catch(() => {})
    const begun = this.#lines('begun').map(({ words: [, number] }) => number)
    // They go on: what is acknowledged by now has to arrive.
    const acked = this.#lines('acked').map(({ words: [, id] }) => id ?? '')
    const missing = () => acked.filter((id) => !this.#received.has(id)).length
    await until(() => missing() === 0, 'what the workers have published', 20_000).catch(() => {})
    const connections = this.broker.log().match(/New client connected from \S+ as fleet-/g)?.length ?? 0
    const figures = [
      this.#sent, this.#lost(), begun.length - new Set(begun).size,
      missing(), this.#lines('failed').length, connections
    ]
    this.begin()
    return figures.map(String)
  }

  async close (): Promise<void> {
    clearInterval(this.#timer)
    await this.#client.endAsync(true)
    rmSync(this.dir, { recursive: true, force: true })
  }

  #lost (): number {
    return this.#sent - new Set(this.#lines('done').map(({ words: [, number] }) => number)).size
  }

  /** The last role of each worker that lives. */
  #roles (): Map<string, string> {
    const alive = this.#lines('role').filter(({ words: [, , pid] }) => isAlive(Number(pid)))
    return new Map(alive.map(({ journal, words: [, role = ''] }) => [journal, role]))
  }

  #lines (word: string): { readonly journal: string, readonly words: readonly string[] }[] {
    return readdirSync(this.dir).filter((name) => name.endsWith('.journal')).flatMap((journal) =>
      readFileSync(join(this.dir, journal), 'utf8').split('\n').map((line) => ({ journal, words: line.split(' ') })))
      .filter(({ words: [first] }) => first === word)
  }
}

function pm2 (fleet: Fleet): Manager {
  const env = { ...process.env, FLEET: JSON.stringify(fleet.settings), PM2_HOME: join(fleet.dir, 'pm2') }
  const call = async (...args: string[]) => { await run('npx', ['--yes', '--package=pm2@6', 'pm2', ...args], { env }) }
  return {
    start: async () => await call('start', app, '-i', String(size), '--name', 'fleet'),
    faults: [
      ['kill -9 of the owner', async () => { process.kill(fleet.owner.pid, 'SIGKILL') }],
      ['reload', async () => await call('reload', 'fleet')]
    ],
    stop: async () => await call('kill')
  }
}

function watt (fleet: Fleet): Manager {
  const root = join(fleet.dir, 'watt')
  let child: ChildProcess | undefined
  return {
    start: async () => {
      writeWattApp(root)
      await run('npm', ['install', '--no-audit', '--no-fund', 'wattpm@3', '@platformatic/node@3'], { cwd: root })
      const { port, ...others } = fleet.settings
      const env = { ...process.env, FLEET: JSON.stringify(others), PORT: String(port) }
      child = spawn('npx', ['--yes', '--package=node@24', 'node', 'node_modules/wattpm/bin/cli.js', 'start'], {
        cwd: root, env, stdio: ['ignore', 'inherit', 'inherit'], detached: true
      })
      endWithUs(child)
    },
    faults: [['the thread of the owner throws', async () => fleet.publish('crash')]],
    stop: async () => {
      const group = -(child?.pid ?? NaN)
      if (Number.isNaN(group)) return
      process.kill(group, 'SIGTERM')
      await until(() => !isAlive(group), 'end of Watt')
    }
  }
}

function writeWattApp (root: string): void {
  const web = join(root, 'web', 'app')
  mkdirSync(web, { recursive: true })
  const write = (path: string, content: unknown) => writeFileSync(path, JSON.stringify(content))
  write(join(root, 'package.json'), { private: true, type: 'module' })
  write(join(root, 'watt.json'), {
    $schema: 'https://schemas.platformatic.dev/wattpm/3.67.0.json',
    server: { hostname: '127.0.0.1', port: '{PORT}' },
    logger: { level: 'error' },
    autoload: { path: 'web' },
    entrypoint: 'app',
    workers: size
  })
  write(join(web, 'package.json'), { name: 'app', private: true, type: 'module', main: 'index.js' })
  write(join(web, 'watt.json'), { $schema: 'https://schemas.platformatic.dev/@platformatic/node/3.67.0.json' })
  writeFileSync(join(web, 'index.js'), `export { create } from ${JSON.stringify(app)}\n`)
}

async function until (isSo: () => boolean, what: string, timeoutMs = startMs): Promise<void> {
  const end = Date.now() + timeoutMs
  while (!isSo()) {
    if (Date.now() > end) throw new Error(`no ${what} within ${timeoutMs} ms`)
    await setTimeout(20)
  }
}

function isAlive (pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
