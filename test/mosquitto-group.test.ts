import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmodSync, mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { GroupRun, Load, type GroupWorker, type Kind, type Outcome } from './helpers/group.ts'
import { within } from './helpers/deadline.ts'
import { mosquittoMissing, startMosquitto, type Mosquitto } from './helpers/mosquitto.ts'
import type { Owner } from './helpers/cleanup.ts'

const skip = mosquittoMissing
/** What a Mosquitto sends without an acknowledgement, and so what may come again after a fault. */
const window = 20
/** Five times what is allowed on a quiet machine; the diagnostics tell what it was. */
const afterDeathMs = 2_500
const afterSilenceMs = 5 * (1_500 + 1_000)

async function startBroker (t: Owner, lines: readonly string[] = [], files = {}): Promise<Mosquitto> {
  // Nothing that waits for the group is dropped by the broker, and a restart is none to its sessions.
  // Not 0, for no limit: with it Mosquitto 2.0.11 closes the connection after a publish that it refuses.
  const keeping = ['max_queued_messages 100000', 'persistence true', 'persistence_location {{dir}}/']
  return await startMosquitto(t, { lines: [...keeping, `max_inflight_messages ${window}`, ...lines], files })
}

/** Workers under load, one of which has the connection. */
async function startRun (t: Owner, kind: Kind, size: number, { rate = 200, publishEveryMs = 10 } = {}) {
  const broker = await startBroker(t)
  const run = new GroupRun(t, broker, { publishEveryMs })
  const load = await Load.start(t, broker, run)
  await run.startAll(kind, size)
  load.begin(rate)
  await load.more(100)
  return { broker, run, load }
}

/** Milliseconds from a moment to the first message that another worker than the former owner has handled. */
async function handlingAgain (
  run: GroupRun, former: GroupWorker, since: number, ceilingMs = afterDeathMs
): Promise<number> {
  const others = run.workers.filter((worker) => worker !== former)
  const first = () => others.flatMap((worker) => run.lines('done', worker)).map(([, , time]) => Number(time))
    .filter((time) => time >= since).sort((a, b) => a - b)[0]
  const waiting = (async () => {
    while (first() === undefined) await new Promise((resolve) => setTimeout(resolve, 5))
  })()
  await within(waiting, ceilingMs, 'handling by another worker')
  return (first() ?? 0) - since
}

function assertNothingLost ({ lost, lostByGroup, failedByGroup, duplicates }: Outcome, faults = 1): void {
  assert.deepEqual({ lost, lostByGroup, failedByGroup }, { lost: 0, lostByGroup: 0, failedByGroup: 0 })
  assert.ok(duplicates <= faults * window, `${duplicates} duplicates`)
}

/** What became of all, told before it is judged. */
async function judge (t: TestContext, load: Load, faults = 1, told = ''): Promise<void> {
  const outcome = await load.stop()
  t.diagnostic(`${told}${JSON.stringify(outcome)}`)
  assertNothingLost(outcome, faults)
}

for (const kind of ['fork', 'cluster', 'thread'] as const) {
  test(`${kind}: the owner is killed under load: nothing is lost, another takes over`, { skip }, async (t) => {
    const { run, load } = await startRun(t, kind, 3)
    const { owner } = run
    const since = Date.now()
    await owner.kill()
    const afterMs = await handlingAgain(run, owner, since)
    await load.more(100)
    await judge(t, load, 1, `handling again after ${afterMs} ms, `)
  })

  test(`${kind}: the owner closes under load: nothing is lost, and no socket is left`, { skip }, async (t) => {
    const { run, load } = await startRun(t, kind, 3)
    const { owner } = run
    const since = Date.now()
    const [code, afterMs] = await Promise.all([owner.end(), handlingAgain(run, owner, since)])
    assert.equal(code, 0)
    await load.more(100)
    await judge(t, load, 1, `handling again after ${afterMs} ms, `)
    for (const worker of run.alive) assert.equal(await worker.end(), 0)
    assert.deepEqual(run.sockets, [])
  })
}

test('five owners in a row are killed, and replaced by new processes', { skip }, async (t) => {
  const { run, load } = await startRun(t, 'fork', 3)
  for (let kills = 0; kills < 5; kills++) {
    const { owner } = run
    await owner.kill()
    await run.start('fork')
    await run.settled()
    await load.more(20)
  }
  await judge(t, load, 5)
})

test('a member is killed: nobody else notices', { skip }, async (t) => {
  const { run, load } = await startRun(t, 'fork', 3)
  const { owner } = run
  const [member] = run.alive.filter((worker) => worker !== owner)
  await member?.kill()
  await load.more(100)
  assert.equal(run.owner, owner)
  await judge(t, load, 0)
})

test('the owner is stopped, is replaced, and is a member when it goes on', { skip }, async (t) => {
  const { run, load } = await startRun(t, 'fork', 3)
  const { owner } = run
  const { pid = 0 } = owner
  const since = Date.now()
  process.kill(pid, 'SIGSTOP')
  const afterMs = await handlingAgain(run, owner, since, afterSilenceMs)
  await load.more(100)
  process.kill(pid, 'SIGCONT')
  await owner.reports.take((report) => report.type === 'role' && report.role === 'member', 'membership')
  await run.settled()
  await load.more(100)
  await judge(t, load, 2, `handling again after ${afterMs} ms, `)
})

test('a member is stopped, and is a member again when it goes on', { skip }, async (t) => {
  const { run, load } = await startRun(t, 'fork', 2)
  const { owner } = run
  const [{ pid = 0 } = {}] = run.alive.filter((worker) => worker !== owner)
  process.kill(pid, 'SIGSTOP')
  // Longer than the owner waits for it.
  await load.more(500)
  process.kill(pid, 'SIGCONT')
  await load.more(50)
  await run.settled()
  assert.equal(run.owner, owner)
  await judge(t, load, 0)
})

test('a thread that blocks its loop for too long is replaced', { skip }, async (t) => {
  const { run, load } = await startRun(t, 'thread', 3)
  const { owner } = run
  const since = Date.now()
  owner.tell({ do: 'block', ms: 3_500 })
  const afterMs = await handlingAgain(run, owner, since, afterSilenceMs)
  await owner.reports.take((report) => report.type === 'role' && report.role === 'member', 'membership')
  await load.more(100)
  await judge(t, load, 2, `handling again after ${afterMs} ms, `)
})

test('a thread that throws is replaced', { skip }, async (t) => {
  const { run, load } = await startRun(t, 'thread', 3)
  const { owner } = run
  const since = Date.now()
  owner.tell({ do: 'throw' })
  const afterMs = await handlingAgain(run, owner, since)
  await load.more(100)
  await judge(t, load, 1, `handling again after ${afterMs} ms, `)
})

test('the broker restarts: the owner stays, and connects again', { skip }, async (t) => {
  const { broker, run, load } = await startRun(t, 'fork', 3)
  const { owner } = run
  await broker.stop()
  await broker.start()
  await load.more(100)
  assert.equal(run.owner, owner)
  await judge(t, load)
})

test('the broker is down and the owner is killed: nothing is lost when the broker is back', { skip }, async (t) => {
  const { broker, run, load } = await startRun(t, 'fork', 3)
  const { owner } = run
  await broker.stop()
  await owner.kill()
  while (run.alive.every(({ role }) => role !== 'owner')) await new Promise((resolve) => setTimeout(resolve, 5))
  await broker.start()
  await run.settled()
  await load.more(100)
  await judge(t, load, 2)
})

test('eight processes start at once, on a stale link and without one: exactly one owner', { skip }, async (t) => {
  const broker = await startBroker(t)
  const run = new GroupRun(t, broker, { dir: '' })
  const workers = await Promise.all(Array.from({ length: 8 }, async () => await run.start('fork')))
  for (let round = 0; round < 10; round++) {
    // Every other round in a directory with the link of an owner that has gone.
    const dir = mkdtempSync(join(run.dir, 'd'))
    for (const half of ['fresh', 'stale']) {
      for (const worker of workers) worker.tell({ do: 'join', dir })
      await run.settled()
      assert.equal(workers.filter(({ role }) => role === 'owner').length, 1, half)
      for (const worker of workers) worker.tell({ do: 'leave' })
      await Promise.all(workers.map(({ reports }) => reports.take(({ type }) => type === 'left', 'leaving')))
    }
  }
  assert.deepEqual(run.sockets, [])
})

test('four workers are one connection; each message is handled once, each publish answered', { skip }, async (t) => {
  const acl = ['listener {{extra}} 127.0.0.1', 'allow_anonymous true', 'acl_file {{dir}}/acl']
  const broker = await startBroker(t, acl, { acl: 'topic readwrite in/#\ntopic readwrite out/#\n' })
  const run = new GroupRun(t, broker, { url: `mqtt://127.0.0.1:${broker.ports.extra}` })
  const load = await Load.start(t, broker, run)
  const since = broker.log().length
  const workers = await run.startAll('fork', 4)
  load.begin(200)
  const answers = await Promise.all(workers.flatMap((worker) => [
    worker.publish('out/by-all', 1), worker.publish('out/by-all', 0), worker.publish('forbidden', 1)
  ]))
  assert.deepEqual(answers, workers.flatMap(() => [undefined, undefined, 'FST_MQTT_PUBLISH_REFUSED']))
  await load.more(200)
  await judge(t, load, 0)
  const connections = broker.log().slice(since).match(/New client connected from \S+ as fixture-/g)
  assert.equal(connections?.length, 1)
})

test('a process of another user cannot reach the group', {
  skip: skip || (process.getuid?.() === 0 ? false : 'only root can become another user')
}, async (t) => {
  const broker = await startBroker(t)
  const run = new GroupRun(t, broker)
  // Whatever the modes of socket and directories above are.
  chmodSync(run.dir, 0o777)
  await run.startAll('fork', 1)
  const [socket = ''] = run.sockets
  const path = join(run.dir, socket)
  chmodSync(path, 0o777)
  const script = `
    process.setgid(65534); process.setuid(65534)
    require('net').connect(${JSON.stringify(path)})
      .on('connect', () => console.log('connected')).on('error', ({ code }) => console.log(code))`
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', script])
  assert.equal(stdout.trim(), 'EACCES')
})
