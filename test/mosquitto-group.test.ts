import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { errorCode } from '../lib/errors.ts'
import { createApp } from './helpers/app.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { within } from './helpers/deadline.ts'
import { GroupRun, Load, type GroupWorker, type Kind, type Outcome } from './helpers/group.ts'
import { mosquittoSub } from './helpers/mosquitto-clients.ts'
import { mosquittoMissing, startMosquitto, type Mosquitto } from './helpers/mosquitto.ts'
import { processesContract } from './helpers/processes-contract.ts'

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

// Mostly they wait.
suite('processes that are one presence, on Mosquitto', { skip, concurrency: 4 }, () => {
  for (const kind of ['fork', 'cluster', 'thread'] as const) {
    test(`${kind}: the owner is killed under load: nothing is lost, another takes over`, async (t) => {
      const { run, load } = await startRun(t, kind, 3)
      const { owner } = run
      const since = Date.now()
      await owner.kill()
      const afterMs = await handlingAgain(run, owner, since)
      await load.more(100)
      await judge(t, load, 1, `handling again after ${afterMs} ms, `)
    })

    test(`${kind}: the owner closes under load: nothing is lost, and no socket is left`, async (t) => {
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

  test('five owners in a row are killed, and replaced by new processes', async (t) => {
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

  test('a member is killed: nobody else notices', async (t) => {
    const { run, load } = await startRun(t, 'fork', 3)
    const { owner } = run
    const [member] = run.alive.filter((worker) => worker !== owner)
    await member?.kill()
    await load.more(100)
    assert.equal(run.owner, owner)
    await judge(t, load, 0)
  })

  test('the owner is stopped, is replaced, and is a member when it goes on', async (t) => {
    // Of two, so that it is known who follows.
    const { run, load } = await startRun(t, 'fork', 2)
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
    // Fit to be the owner again.
    await run.owner.kill()
    assert.equal(await run.settled(), owner)
    await load.more(100)
    await judge(t, load, 3, `handling again after ${afterMs} ms, `)
  })

  test('the owner is stopped, and a member that waits for it closes: its process ends, and its publishes settle', async (t) => {
    const broker = await startBroker(t)
    const run = new GroupRun(t, broker)
    await run.startAll('fork', 2)
    const { owner: { pid = 0 } } = run
    const [member] = run.alive.filter((worker) => worker !== run.owner)
    assert.ok(member !== undefined)
    process.kill(pid, 'SIGSTOP')
    const publishing = Promise.all([member.publish('a', 1), member.publish('a', 2)])
    const exitCode = await within(member.end(), 10_000, 'end of the member')
    process.kill(pid, 'SIGCONT')
    assert.deepEqual([exitCode, await publishing], [0, ['FST_MQTT_CLOSED', 'FST_MQTT_CLOSED']])
    assert.equal(await run.owner.end(), 0)
  })

  test('a member is stopped, and is a member again when it goes on', async (t) => {
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

  test('a thread that blocks its loop for too long is replaced', async (t) => {
    const { run, load } = await startRun(t, 'thread', 3)
    const { owner } = run
    const since = Date.now()
    owner.tell({ do: 'block', ms: 3_500 })
    const afterMs = await handlingAgain(run, owner, since, afterSilenceMs)
    await owner.reports.take((report) => report.type === 'role' && report.role === 'member', 'membership')
    await load.more(100)
    await judge(t, load, 2, `handling again after ${afterMs} ms, `)
  })

  test('a thread that throws is replaced', async (t) => {
    const { run, load } = await startRun(t, 'thread', 3)
    const { owner } = run
    const since = Date.now()
    owner.tell({ do: 'throw' })
    const afterMs = await handlingAgain(run, owner, since)
    await load.more(100)
    await judge(t, load, 1, `handling again after ${afterMs} ms, `)
  })

  test('the broker restarts: the owner stays, and connects again', async (t) => {
    const { broker, run, load } = await startRun(t, 'fork', 3)
    const { owner } = run
    for (const worker of run.alive) await worker.next('onConnect')
    await broker.stop()
    for (const worker of run.alive) {
      await worker.next('onDisconnect')
      assert.deepEqual((await worker.look()).status, 'offline')
    }
    await broker.start()
    for (const worker of run.alive) await worker.next('onConnect')
    await load.more(100)
    assert.equal(run.owner, owner)
    await judge(t, load)
  })

  test('the broker is down and the owner is killed: nothing is lost when the broker is back', async (t) => {
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

  test('eight processes start at once, on a stale link and without one: exactly one owner', async (t) => {
    const broker = await startBroker(t)
    const run = new GroupRun(t, broker, { dir: '' })
    const workers = await Promise.all(Array.from({ length: 8 }, async () => await run.start('fork')))
    for (let round = 0; round < 5; round++) {
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

  test('four workers are one connection; each message is handled once, each publish answered', async (t) => {
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
    for (const worker of workers) {
      const { role, status, health } = await worker.look()
      assert.deepEqual([role, status, health.ok], [worker === run.owner ? 'owner' : 'member', 'ready', true])
      assert.deepEqual(health.subscriptions, { granted: [{ filter: 'in/+', qos: 1 }], refused: [], pending: [] })
    }
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

  test('a start that fails leaves the group, and nothing behind', async (t) => {
    const broker = await startBroker(t)
    const run = new GroupRun(t, broker, { options: { connectTimeout: 300 } })
    await broker.stop()
    const workers = await Promise.all(['fork', 'fork'].map(async () => await run.start('fork')))
    for (const worker of workers) {
      const failure = await worker.reports.take(({ type }) => type === 'failed to join', 'a failed start')
      assert.equal('code' in failure && failure.code, 'FST_MQTT_CONNECT_FAILED')
    }
    while (run.sockets.length > 0) await new Promise((resolve) => setTimeout(resolve, 5))
    for (const worker of workers) assert.equal(await worker.end(), 0)
  })

  test('presence is that of the group: online again when another has taken over', async (t) => {
    const broker = await startBroker(t)
    const run = new GroupRun(t, broker, { options: { presence: { topic: 'presence', online: 'on', offline: 'off' } } })
    await run.startAll('fork', 2)
    const observer = mosquittoSub(t, broker, { topics: ['presence'] })
    await observer.ready
    const next = async () => (await observer.next()).payload.toString()
    assert.equal(await next(), 'on')
    await run.owner.kill()
    assert.deepEqual([await next(), await next()], ['off', 'on'])
    await run.start('fork')
    await run.settled()
    assert.equal(await run.owner.end(), 0)
    assert.deepEqual([await next(), await next()], ['off', 'on'])
    await run.settled()
    assert.equal(await run.owner.end(), 0)
    assert.equal(await next(), 'off')
  })

  test('two workers that connect more than once are one connection', async (t) => {
    const broker = await startBroker(t)
    const dir = temporaryDirectory(t)
    const apps = await Promise.all([1, 2].map(async () => (await createApp(t, {
      url: broker.url, start: 'manual', processes: { mode: 'single', group: 'manual', dir }
    })).fastify))
    await Promise.all(apps.map((fastify) => fastify.ready()))
    assert.deepEqual(apps.map(({ mqtt }) => mqtt.status), ['idle', 'idle'])
    await Promise.all(apps.flatMap(({ mqtt }) => [mqtt.connect(), mqtt.connect()]))
    await Promise.all(apps.map(({ mqtt }) => mqtt.connect()))
    assert.deepEqual(apps.map(({ mqtt }) => mqtt.role).sort(), ['member', 'owner'])
    assert.equal(broker.log().match(/New client connected from \S+ as manual-/g)?.length, 1)
  })

  test('a start that failed can be tried again', async (t) => {
    const broker = await startBroker(t)
    await broker.stop()
    const { fastify } = await createApp(t, {
      url: broker.url, start: 'manual', connectTimeout: 200, processes: { mode: 'single', group: 'again', dir: temporaryDirectory(t) }
    })
    await fastify.ready()
    await assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CONNECT_FAILED' })
    assert.deepEqual([fastify.mqtt.status, fastify.mqtt.role], ['closed', undefined])
    await broker.start()
    await fastify.mqtt.connect()
    assert.deepEqual([fastify.mqtt.status, fastify.mqtt.role], ['ready', 'owner'])
    await fastify.mqtt.publish('a', 'x', { qos: 1 })
  })

  test('the same group name with another prefix or URI is another group, with its own presence', async (t) => {
    const broker = await startBroker(t)
    const dir = temporaryDirectory(t)
    const observer = mosquittoSub(t, broker, { topics: ['#'] })
    await observer.ready
    const sites = await Promise.all(['site1', 'site1', 'site2', 'site2'].map(async (site) => {
      const { fastify } = await createApp(t, { url: `${broker.url}/${site}`, processes: { mode: 'single', group: 'same', dir } })
      await fastify.ready()
      return { site, fastify }
    }))
    assert.deepEqual(sites.map(({ fastify }) => fastify.mqtt.role).sort(), ['member', 'member', 'owner', 'owner'])
    for (const { site, fastify } of sites) {
      await fastify.mqtt.publish('x', site, { qos: 1 })
      const { topic, payload } = await observer.next()
      assert.deepEqual([topic, payload.toString()], [`${site}/x`, site])
    }
  })

  test('dynamic security is administered from every process, over the one connection', async (t) => {
    const broker = await startMosquitto(t)
    const dir = temporaryDirectory(t)
    const [owner, member] = await inOrder([1, 2], async () => {
      const { fastify } = await createApp(t, {
        url: `mqtt://admin:admin-password@127.0.0.1:${broker.ports.dynsec}`,
        dynsec: true,
        processes: { mode: 'single', group: 'admin', dir, heartbeat: 250, ownerTimeout: 1_500 }
      })
      await fastify.ready()
      return fastify
    })
    assert.ok(owner && member)
    assert.deepEqual([owner.mqtt.role, member.mqtt.role], ['owner', 'member'])
    await member.mqtt.dynsec.roles.create({ rolename: 'sensor' })
    await member.mqtt.dynsec.clients.create({ username: 'sensor-7', password: 'p', roles: ['sensor'] })
    assert.deepEqual((await owner.mqtt.dynsec.clients.get('sensor-7')).roles, await member.mqtt.dynsec.clients.get('sensor-7').then(({ roles }) => roles))
    const refusals = await Promise.all([owner, member].map(async ({ mqtt: { dynsec } }) => {
      const said = async (promise: Promise<unknown>) => await promise.then(() => 'nothing', (error: Error) => `${errorCode(error)} ${error.message}`)
      return [
        await said(dynsec.clients.create({ username: 'sensor-7', password: 'p' })),
        await said(dynsec.clients.get('nobody')),
        await said(dynsec.clients.delete('admin'))
      ]
    }))
    assert.deepEqual(refusals[0], refusals[1])
    assert.deepEqual(refusals[1]?.map((one) => one.split(' ')[0]),
      ['FST_MQTT_DYNSEC_ALREADY_EXISTS', 'FST_MQTT_DYNSEC_NOT_FOUND', 'FST_MQTT_DYNSEC_SELF'])
    await owner.close()
    await member.mqtt.dynsec.clients.delete('sensor-7')
    assert.equal(member.mqtt.role, 'owner')
  })

  test('several workers with a connection each are warned of, once', async (t) => {
    const broker = await startBroker(t)
    process.env['NODE_APP_INSTANCE'] = '1'
    t.after(() => { delete process.env['NODE_APP_INSTANCE'] })
    const warnings: string[] = []
    for (const processes of ['each', undefined, undefined] as const) {
      const { fastify, lines } = await createApp(t, { url: broker.url, processes })
      await fastify.ready()
      warnings.push(...lines.filter(({ level }) => level === 40).map(({ msg }) => msg))
    }
    assert.equal(warnings.length, 1)
    assert.match(warnings[0] ?? '', /^this process is instance 1 of PM2, so there may be several workers/)
  })
})

for (const part of ['each', 'owner', 'member'] as const) processesContract(part, skip)

function temporaryDirectory (t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'multimqtt-group-'))
  onEnd(t, () => rmSync(dir, { recursive: true, force: true }))
  return dir
}

async function inOrder<T, U> (items: readonly T[], task: (item: T) => Promise<U>): Promise<U[]> {
  const results: U[] = []
  for (const item of items) results.push(await task(item))
  return results
}
