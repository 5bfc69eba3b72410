import { fork, type ChildProcess } from 'node:child_process'
import cluster, { type Worker as ClusterWorker } from 'node:cluster'
import { once } from 'node:events'
import { appendFileSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import mqtt, { type MqttClient } from 'mqtt'
import type { Command, Report, Told, View, WorkerOptions } from '../fixtures/group-worker.ts'
import { onEnd, type Owner } from './cleanup.ts'
import { within } from './deadline.ts'
import { Mailbox } from './mailbox.ts'
import type { Mosquitto } from './mosquitto.ts'
import { endWithUs } from './programs.ts'

const script = fileURLToPath(new URL('../fixtures/group-worker.js', import.meta.url))
const startTimeoutMs = 20_000
const leaveTimeoutMs = 5_000
/** For what was published last to be acknowledged. */
const publishMs = 5_000

/** How workers come to be. */
export type Kind = 'fork' | 'cluster' | 'thread'

/** How a publish was rejected. */
export interface Refusal {
  readonly code: string
  readonly message: string
}

/** A process or thread of the group. */
export interface GroupWorker {
  readonly name: string
  readonly kind: Kind
  /** Undefined for a thread. */
  readonly pid: number | undefined
  readonly reports: Mailbox<Report>
  readonly role: string | undefined
  /** All roles that it has had in this group. */
  readonly roles: readonly string[]
  readonly hasEnded: boolean
  /** It was killed, or has crashed. */
  readonly hasDied: boolean
  /** It has thrown, or ended otherwise, without having been told to. */
  readonly hasCrashed: boolean
  tell (command: Command): void
  /** `kill -9`; a thread is terminated. */
  kill (): Promise<void>
  /** Resolves with the answer to a publish: undefined if it was acknowledged. */
  publish (topic: string, qos: 0 | 1 | 2): Promise<Refusal | undefined>
  /** The next report of a type. */
  next (type: Report['type'], timeoutMs?: number): Promise<Report>
  look (): Promise<View>
  /** Closes its application. The process or thread is free for another group then. */
  leave (): Promise<void>
  /** Closes its application. Resolves with the exit code when the process or thread has ended by itself. */
  end (): Promise<number | null>
}

interface Handle {
  readonly pid: number | undefined
  readonly ended: Promise<number | null>
  tell (command: Command): void
  kill (): void
  onReport (listener: (report: Told) => void): void
}

/** A process or thread, which is of one group after the other: to start one costs more than most tests. */
class Program {
  readonly kind: Kind
  readonly handle: Handle
  hasEnded = false
  readonly started: Promise<void>
  #turn = 0
  #onReport: (report: Report) => void = () => {}

  constructor (kind: Kind) {
    this.kind = kind
    this.handle = starters[kind]()
    void this.handle.ended.then(() => { this.hasEnded = true })
    const started = new Promise<void>((resolve) => this.handle.onReport((report) => {
      if (report.type === 'started') resolve()
      // What comes late is about a group that it is no longer of.
      else if (report.turn === this.#turn) this.#onReport(report)
    }))
    this.started = within(started, startTimeoutMs, `start of a ${kind}`)
    programs.add(this)
  }

  join (options: WorkerOptions, onReport: (report: Report) => void): void {
    this.#onReport = onReport
    this.handle.tell({ do: 'join', turn: ++this.#turn, options })
  }

  async kill (): Promise<void> {
    programs.delete(this)
    if (this.hasEnded) return
    this.handle.kill()
    await this.handle.ended
  }
}

const programs = new Set<Program>()
const idle = new Set<Program>()

function takeProgram (kind: Kind): Program {
  const [free] = [...idle].filter((program) => program.kind === kind && !program.hasEnded)
  if (free === undefined) return new Program(kind)
  idle.delete(free)
  return free
}

/** Ends all processes and threads that were started for groups: at the end of whoever had them started. */
export async function endPrograms (): Promise<void> {
  idle.clear()
  await Promise.all([...programs].map(async (program) => await program.kill()))
}

/** Workers of one group on one broker, a load for them, and what became of it. */
export class GroupRun {
  readonly dir: string
  readonly workers: GroupWorker[] = []
  readonly #owner: Owner
  readonly #broker: Mosquitto
  readonly #settings: Partial<WorkerOptions>

  constructor (owner: Owner, broker: Mosquitto, settings: Partial<WorkerOptions> = {}) {
    this.#owner = owner
    this.#broker = broker
    this.#settings = settings
    this.dir = mkdtempSync(join(tmpdir(), 'multimqtt-group-'))
    onEnd(owner, () => rmSync(this.dir, { recursive: true, force: true }))
  }

  /** Starts a worker, which takes part at once. */
  async start (kind: Kind, settings: Partial<WorkerOptions> = {}): Promise<GroupWorker> {
    const name = `w${this.workers.length}`
    const options: WorkerOptions = {
      name,
      url: this.#broker.url,
      dir: this.dir,
      journal: join(this.dir, `${name}.journal`),
      handlerMs: 20,
      publishEveryMs: 0,
      ...this.#settings,
      ...settings
    }
    writeFileSync(options.journal, '')
    const worker = new StartedWorker(name, takeProgram(kind))
    this.workers.push(worker)
    onEnd(this.#owner, async () => await worker.leave())
    await worker.join(options)
    return worker
  }

  /** Starts a worker of each kind, and waits until the owner is connected and the others are with it. */
  async startAll (kinds: readonly Kind[]): Promise<GroupWorker[]> {
    const workers = await Promise.all(kinds.map(async (kind) => await this.start(kind)))
    await this.settled()
    return workers
  }

  /** Everybody leaves; nobody is left behind in the private directory then. */
  async leave (): Promise<void> {
    await Promise.all(this.alive.map(async (worker) => await worker.leave()))
  }

  /** Resolves with the owner when one is connected and all others are its members. */
  async settled (timeoutMs = startTimeoutMs): Promise<GroupWorker> {
    await within(this.#settled(), timeoutMs, 'owner with members')
    return this.owner
  }

  get alive (): GroupWorker[] {
    return this.workers.filter(({ hasEnded }) => !hasEnded)
  }

  get owner (): GroupWorker {
    const [owner] = this.alive.filter(({ role }) => role === 'owner')
    if (owner === undefined) throw new Error('there is no owner')
    return owner
  }

  /** Writes down what this process has done, which is of the group too. */
  note (line: string): void {
    appendFileSync(join(this.dir, 'here.journal'), `${line}\n`)
  }

  /** Lines that a worker, or all, have written. */
  lines (word: string, worker?: GroupWorker): string[][] {
    const all = readdirSync(this.dir).filter((name) => name.endsWith('.journal'))
    const names = worker === undefined ? all : [`${worker.name}.journal`]
    return names.flatMap((name) => readFileSync(join(this.dir, name), 'utf8').split('\n'))
      .map((line) => line.split(' ')).filter(([first]) => first === word)
  }

  /** Sockets that are in the private directory now. */
  get sockets (): string[] {
    return readdirSync(this.dir, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.sock'))
  }

  async #settled (): Promise<void> {
    const isSettled = () => this.alive.filter(({ role }) => role === 'owner').length === 1 &&
      this.alive.every(({ role }) => role !== undefined)
    while (!isSettled()) await tick()
    while (!(this.owner as StartedWorker).isUp) await tick()
  }
}

class StartedWorker implements GroupWorker {
  readonly name: string
  readonly pid: number | undefined
  readonly reports = new Mailbox<Report>()
  role: string | undefined
  readonly roles: string[] = []
  /** The last connection of this worker was completed. */
  isUp = false
  readonly #program: Program
  #hasLeft = false
  #isKilled = false
  #isEnding = false
  #lastId = 0

  constructor (name: string, program: Program) {
    this.name = name
    this.pid = program.handle.pid
    this.#program = program
  }

  get kind (): Kind {
    return this.#program.kind
  }

  get hasEnded (): boolean {
    return this.#isKilled || this.#hasLeft || this.#program.hasEnded
  }

  get hasDied (): boolean {
    return this.#isKilled || this.hasCrashed
  }

  get hasCrashed (): boolean {
    return this.#program.hasEnded && !this.#isEnding && !this.#isKilled
  }

  async join (options: WorkerOptions): Promise<void> {
    await this.#program.started
    this.#program.join(options, (report) => {
      if (report.type === 'role') {
        this.role = report.role
        if (report.role !== undefined) this.roles.push(report.role)
        this.isUp = false
      }
      if (report.type === 'up') this.isUp = true
      this.reports.put(report)
    })
  }

  async next (type: Report['type'], timeoutMs?: number): Promise<Report> {
    return await this.reports.take((report) => report.type === type, `${type} of ${this.name}`, timeoutMs)
  }

  tell (command: Command): void {
    this.#program.handle.tell(command)
  }

  async kill (): Promise<void> {
    this.#isKilled = true
    await this.#program.kill()
  }

  async publish (topic: string, qos: 0 | 1 | 2): Promise<Refusal | undefined> {
    const id = ++this.#lastId
    this.tell({ do: 'publish', id, topic, qos })
    const answer = await this.reports.take(
      (report) => report.type === 'published' && report.id === id, `answer to ${this.name}`, 15_000)
    if (answer.type !== 'published' || answer.code === undefined) return undefined
    return { code: answer.code, message: answer.message }
  }

  async look (): Promise<View> {
    this.tell({ do: 'look' })
    const answer = await this.next('view')
    if (answer.type !== 'view') throw new Error('not a view')
    return answer.view
  }

  async leave (): Promise<void> {
    if (this.hasEnded) return
    this.#isEnding = true
    this.tell({ do: 'leave' })
    try {
      await this.next('left', leaveTimeoutMs)
      this.#hasLeft = true
      idle.add(this.#program)
    } catch {
      await this.kill()
    }
  }

  async end (): Promise<number | null> {
    this.#isEnding = true
    this.tell({ do: 'end' })
    return await within(this.#program.handle.ended, 10_000, `end of ${this.name}`)
  }
}

const starters: Record<Kind, () => Handle> = {
  fork: () => processHandle(fork(script, { execArgv: [] })),
  cluster: () => {
    cluster.setupPrimary({ exec: script, execArgv: [] })
    return clusterHandle(cluster.fork())
  },
  thread: () => threadHandle(new Worker(script))
}

function processHandle (child: ChildProcess): Handle {
  endWithUs(child)
  return {
    pid: child.pid,
    ended: exitCode(child),
    tell: (command) => { child.send(command) },
    kill: () => { child.kill('SIGKILL') },
    onReport: (listener) => child.on('message', (report) => listener(report as Told))
  }
}

function clusterHandle (worker: ClusterWorker): Handle {
  return {
    ...processHandle(worker.process),
    ended: exitCode(worker),
    onReport: (listener) => worker.on('message', (report) => listener(report as Told))
  }
}

function threadHandle (worker: Worker): Handle {
  // One that throws.
  worker.on('error', () => {})
  return {
    pid: undefined,
    ended: new Promise((resolve) => worker.once('exit', resolve)),
    tell: (command) => worker.postMessage(command),
    kill: () => { void worker.terminate() },
    onReport: (listener) => worker.on('message', listener)
  }
}

async function exitCode (ending: ChildProcess | ClusterWorker): Promise<number | null> {
  const [code] = await once(ending as ChildProcess, 'exit') as [number | null]
  return code
}

/** What was published to the group and by it, and what became of that. */
export interface Outcome {
  /** To the group and by it, and acknowledged. */
  readonly sent: number
  /** Acknowledged to whoever published to the group, but never handled to the end. */
  readonly lost: number
  /** Times that a handler began with what another had begun with, and the broker had been sent once. */
  readonly duplicates: number
  /** Acknowledged to whoever published by the group, but never delivered. */
  readonly lostByGroup: number
  /** Publishes by the group that were rejected. */
  readonly failedByGroup: number
  /** Publishes by those of the group who have not died whose promise has not settled. */
  readonly hanging: number
}

/** A client beside the group: publishes numbered messages to it, and receives what it publishes. */
export class Load {
  readonly #run: GroupRun
  readonly #client: MqttClient
  readonly #received = new Set<string>()
  /** What this client has sent again itself, because the connection was lost before its PUBACK. */
  readonly #repeated = new Set<string>()
  readonly #acked = new Set<string>()
  #sent = 0
  #timer: NodeJS.Timeout | undefined

  private constructor (run: GroupRun, client: MqttClient) {
    this.#run = run
    this.#client = client
    client.on('packetsend', (packet) => {
      if (packet.cmd === 'publish' && packet.dup) this.#repeated.add(packet.topic.slice('in/'.length))
    })
    client.on('message', (topic) => this.#received.add(topic.slice('out/'.length)))
  }

  /** Receives from now on: before anything is published. */
  static async start (owner: Owner, broker: Mosquitto, run: GroupRun): Promise<Load> {
    const client = await mqtt.connectAsync(broker.url, {
      clientId: 'load', clean: false, protocolVersion: 5, properties: { sessionExpiryInterval: 3_600 }, reconnectPeriod: 20
    })
    client.on('error', () => {})
    onEnd(owner, async () => await client.endAsync(true))
    const load = new Load(run, client)
    await client.subscribeAsync('out/#', { qos: 1 })
    onEnd(owner, () => clearInterval(load.#timer))
    return load
  }

  /** Publishes to the group, so many messages a second; before, somebody must have subscribed. */
  begin (rate: number): void {
    this.#timer = setInterval(() => this.#publish(), 1_000 / rate)
    for (const worker of this.#run.alive) worker.tell({ do: 'go on' })
  }

  /** Resolves when so many more have been acknowledged. */
  async more (count: number): Promise<void> {
    const goal = this.#acked.size + count
    await within((async () => { while (this.#acked.size < goal) await tick() })(), 30_000, `${count} more messages`)
  }

  /** Ends the load, waits until all has arrived, but not for ever, and counts. It can begin again. */
  async stop (timeoutMs = 20_000): Promise<Outcome> {
    clearInterval(this.#timer)
    for (const worker of this.#run.alive) worker.tell({ do: 'be quiet' })
    // MQTT.js forgets what it has not sent when a connection is lost while it sends what was left by another.
    const publishedBy = Date.now() + publishMs
    while (Date.now() < publishedBy && this.#acked.size < this.#sent) await tick(20)
    const until = Date.now() + timeoutMs
    while (Date.now() < until && !this.#isAllThere()) await tick(20)
    return this.#count()
  }

  #publish (): void {
    const number = ++this.#sent
    this.#client.publish(`in/${number}`, 'x', { qos: 1 }, (error) => {
      if (!error) this.#acked.add(String(number))
    })
  }

  #isAllThere (): boolean {
    const { lost, lostByGroup, hanging } = this.#count()
    return lost === 0 && lostByGroup === 0 && hanging === 0
  }

  #count (): Outcome {
    const begun = this.#run.lines('begun').map(([, number = '']) => number)
      .filter((number) => !this.#repeated.has(number))
    const done = new Set(this.#run.lines('done').map(([, number]) => number))
    const acked = this.#run.lines('acked').map(([, id]) => id ?? '')
    const survivors = this.#run.workers.filter(({ hasDied }) => !hasDied)
    const countOf = (word: string) => survivors.flatMap((worker) => this.#run.lines(word, worker)).length
    return {
      sent: this.#acked.size + acked.length,
      lost: [...this.#acked].filter((number) => !done.has(number)).length,
      duplicates: begun.length - new Set(begun).size,
      lostByGroup: acked.filter((id) => !this.#received.has(id)).length,
      failedByGroup: this.#run.lines('failed').length,
      hanging: countOf('asked') - countOf('acked') - countOf('failed')
    }
  }
}

/** A turn of the loop in which others get on as well. */
async function tick (delayMs = 5): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, delayMs))
}
