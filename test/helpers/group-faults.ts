import assert from 'node:assert/strict'
import type { MultimqttOptions } from '../../lib/index.ts'
import type { Owner } from './cleanup.ts'
import { within } from './deadline.ts'
import { GroupRun, Load, type GroupWorker, type Kind, type Outcome } from './group.ts'
import { startMosquitto, type Mosquitto } from './mosquitto.ts'

/** What a Mosquitto sends without an acknowledgement, and so what may come again after a fault. */
export const window = 20
/** That of the workers: see fixtures/group-worker.ts. */
export const ownerTimeoutMs = 1_500
/** What a fault may take until messages are handled again, on a quiet machine. */
export const goalsMs = { death: 500, silence: ownerTimeoutMs + 1_000 } as const
const messagesPerSecond = 300
/** Beyond it something hangs: five times of that, for a machine that is not quiet. */
const ceilingsMs = { death: 5 * goalsMs.death, silence: 5 * goalsMs.silence } as const

/** Workers under load, one of which has the connection. */
export interface Scene {
  readonly broker: Mosquitto
  readonly run: GroupRun
  readonly load: Load
}

/** Something that goes wrong in a group. */
export interface GroupFault {
  readonly name: string
  /** How many workers it takes. */
  readonly size: number
  /** How many windows of messages may come twice: one for each time that somebody takes over. */
  readonly windows: number
  /** What another worker has to notice before it takes over. */
  readonly noticed?: keyof typeof goalsMs
  /** How many workers crash by it; default 0. */
  readonly crashes?: number
  /** Of which kinds a group is that it happens to; default: one kind after the other. */
  readonly groups?: 'of threads' | 'of all kinds'
  /** @returns the milliseconds until another worker has begun to handle messages, where one takes over */
  run (scene: Scene): Promise<number | undefined>
}

export const kinds = ['fork', 'cluster', 'thread'] as const satisfies readonly Kind[]

/** The groups that a fault happens to, and what their workers are. */
export function groupsFor ({ size, groups }: GroupFault): ReadonlyMap<string, readonly Kind[]> {
  if (groups === 'of all kinds') return new Map([['all kinds', kinds]])
  const some = groups === 'of threads' ? ['thread'] as const : kinds
  return new Map(some.map((kind) => [kind, Array.from({ length: size }, () => kind)]))
}

/** A broker that drops nothing of what waits for the group, and to whose sessions a restart is none. */
export async function startKeepingBroker (
  owner: Owner, lines: readonly string[] = [], files: Readonly<Record<string, string>> = {}
): Promise<Mosquitto> {
  // Not 0, for no limit: with it Mosquitto 2.0.11 closes the connection after a publish that it refuses.
  const keeping = ['max_queued_messages 100000', 'persistence true', 'persistence_location {{dir}}/']
  return await startMosquitto(owner, { lines: [...keeping, `max_inflight_messages ${window}`, ...lines], files })
}

export async function startScene (
  owner: Owner, workers: readonly Kind[], options: MultimqttOptions = {}
): Promise<Scene> {
  const broker = await startKeepingBroker(owner)
  const run = new GroupRun(owner, broker, { publishEveryMs: 20, options })
  const load = await Load.start(owner, broker, run)
  await run.startAll(workers)
  load.begin(messagesPerSecond)
  await load.more(100)
  return { broker, run, load }
}

/** What became of all, and of those it happened to. */
export interface End extends Outcome {
  readonly crashed: number
  readonly sockets: number
}

/** Everything that was published, and a clean end of all who are left, after which nothing of them is. */
export async function endScene ({ run, load }: Scene): Promise<End> {
  const outcome = await load.stop()
  await run.leave()
  const crashed = run.workers.filter(({ hasCrashed }) => hasCrashed).length
  return { ...outcome, crashed, sockets: run.sockets.length }
}

export const groupFaults: readonly GroupFault[] = [
  {
    name: 'the owner is killed',
    size: 3,
    windows: 1,
    noticed: 'death',
    run: async (scene) => await takeover(scene, 'death', async (owner) => await owner.kill())
  },
  {
    name: 'five owners in a row are killed, and replaced by new workers',
    size: 3,
    windows: 5,
    noticed: 'death',
    groups: 'of all kinds',
    async run (scene) {
      const { run } = scene
      const times: number[] = []
      for (let kills = 0; kills < 5; kills++) {
        const successor = run.start(run.owner.kind)
        times.push(await takeover(scene, 'death', async (owner) => await owner.kill()))
        await successor
        await run.settled()
      }
      return Math.max(...times)
    }
  },
  {
    name: 'the owner closes, and its process ends by itself',
    size: 3,
    windows: 1,
    noticed: 'death',
    run: async (scene) => await takeover(scene, 'death', async (owner) => {
      assert.equal(await owner.end(), 0)
    })
  },
  {
    name: 'the owner throws',
    size: 3,
    windows: 1,
    noticed: 'death',
    // A process would write a stack; to the others it is as if it were killed.
    groups: 'of threads',
    crashes: 1,
    run: async (scene) => await takeover(scene, 'death', (owner) => owner.tell({ do: 'throw' }))
  },
  {
    name: 'the owner is stopped, is replaced, and a member when it goes on',
    // So that it is known who follows.
    size: 2,
    windows: 3,
    noticed: 'silence',
    async run (scene) {
      const { run, load } = scene
      const { owner } = run
      const release = stop(owner)
      const afterMs = await handlingAgain(scene, 'silence', owner, Date.now())
      await load.more(100)
      release()
      await owner.reports.take((report) => report.type === 'role' && report.role === 'member', 'membership')
      await run.settled()
      await load.more(100)
      // Fit to be the owner again.
      await run.owner.kill()
      assert.equal(await run.settled(), owner)
      return afterMs
    }
  },
  {
    name: 'a member is killed: nobody else notices',
    size: 3,
    windows: 0,
    async run ({ run, load }) {
      const { owner } = run
      await aMember(run).kill()
      await load.more(100)
      assert.equal(run.owner, owner)
      return undefined
    }
  },
  {
    name: 'a member is stopped, and a member again when it goes on',
    size: 2,
    windows: 0,
    async run ({ run, load }) {
      const { owner } = run
      const member = aMember(run)
      const release = stop(member)
      // Longer than the owner waits for it.
      await load.more(messagesPerSecond * 2)
      release()
      await load.more(50)
      await run.settled()
      await member.publish('out/again', 1)
      assert.equal(run.owner, owner)
      return undefined
    }
  },
  {
    name: 'the broker restarts: the owner stays, all hear of it, and it connects again',
    size: 3,
    windows: 1,
    async run ({ broker, run }) {
      const { owner } = run
      for (const worker of run.alive) await worker.next('onConnect')
      await broker.stop()
      for (const worker of run.alive) {
        await worker.next('onDisconnect')
        assert.equal((await worker.look()).status, 'offline')
      }
      await broker.start()
      for (const worker of run.alive) await worker.next('onConnect')
      assert.equal(run.owner, owner)
      return undefined
    }
  },
  {
    name: 'the broker is killed: the owner stays, and what is published meanwhile waits',
    size: 3,
    windows: 1,
    async run ({ broker, run, load }) {
      const { owner } = run
      // What it has not saved is lost by it, not by the group: nothing is on its way now.
      await load.stop()
      await Promise.all(run.alive.map(async (worker) => await worker.publish(`out/${worker.name}/last`, 1)))
      assertNothingLost(await load.stop(), 0)
      await broker.save()
      await broker.stop('SIGKILL')
      for (const worker of run.alive) await worker.next('onDisconnect')
      load.begin(messagesPerSecond)
      const answers = run.alive.map(async (worker) => await worker.publish(`out/${worker.name}/meanwhile`, 1))
      await broker.start()
      assert.deepEqual(await Promise.all(answers), run.alive.map(() => undefined))
      assert.equal(run.owner, owner)
      return undefined
    }
  },
  {
    name: 'the broker is down and the owner is killed: nothing is lost when the broker is back',
    size: 3,
    windows: 2,
    async run ({ broker, run }) {
      await broker.stop()
      await run.owner.kill()
      while (run.alive.every(({ role }) => role !== 'owner')) await tick()
      await broker.start()
      await run.settled()
      return undefined
    }
  }
]

/** @param windows how many windows of messages may have come twice */
export function assertNothingLost (outcome: Outcome, windows: number): void {
  const { lost, lostByGroup, failedByGroup, hanging, duplicates } = outcome
  const nothing = { lost: 0, lostByGroup: 0, failedByGroup: 0, hanging: 0 }
  assert.deepEqual({ lost, lostByGroup, failedByGroup, hanging }, nothing)
  assert.ok(duplicates <= windows * window, `${duplicates} duplicates`)
}

/** Ends the owner in some way. @returns the milliseconds until another one has begun to handle messages */
export async function takeover (
  scene: Scene, noticed: keyof typeof ceilingsMs, end: (owner: GroupWorker) => unknown
): Promise<number> {
  const { owner } = scene.run
  const since = Date.now()
  const [afterMs] = await Promise.all([handlingAgain(scene, noticed, owner, since), end(owner)])
  return afterMs
}

async function handlingAgain (
  { run }: Scene, noticed: keyof typeof ceilingsMs, former: GroupWorker, since: number
): Promise<number> {
  const others = run.workers.filter((worker) => worker !== former)
  const first = () => others.flatMap((worker) => run.lines('begun', worker)).map(([, , time]) => Number(time))
    .filter((time) => time >= since).sort((one, other) => one - other)[0]
  const waiting = (async () => {
    while (first() === undefined) await tick()
  })()
  await within(waiting, ceilingsMs[noticed], 'handling by another worker')
  return (first() ?? 0) - since
}

/** As one that swaps, or is in a debugger. @returns what lets it go on; a thread does so by itself */
function stop (worker: GroupWorker): () => void {
  const { pid } = worker
  if (pid === undefined) {
    worker.tell({ do: 'block', ms: ownerTimeoutMs + 1_000 })
    return () => {}
  }
  process.kill(pid, 'SIGSTOP')
  return () => process.kill(pid, 'SIGCONT')
}

function aMember (run: GroupRun): GroupWorker {
  const [member] = run.alive.filter(({ role }) => role === 'member')
  if (member === undefined) throw new Error('there is no member')
  return member
}

/** A turn of the loop in which others get on as well. */
async function tick (): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 5))
}
