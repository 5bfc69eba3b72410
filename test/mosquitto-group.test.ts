import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { errorCode } from '../lib/errors.ts'
import { createApp } from './helpers/app.ts'
import { onEnd } from './helpers/cleanup.ts'
import {
  assertNothingLost, endScene, groupFaults, groupsFor, kinds, startKeepingBroker, startScene, takeover
} from './helpers/group-faults.ts'
import { endPrograms, GroupRun, Load } from './helpers/group.ts'
import { mosquittoPub, mosquittoSub } from './helpers/mosquitto-clients.ts'
import { mosquittoMissing, startMosquitto, type Mosquitto } from './helpers/mosquitto.ts'
import { processesContract } from './helpers/processes-contract.ts'

const skip = mosquittoMissing
after(endPrograms)

// Mostly they wait.
suite('processes that are one presence, on Mosquitto', { skip, concurrency: 4 }, () => {
  for (const fault of groupFaults) {
    for (const [group, workers] of groupsFor(fault)) {
      test(`${group}: ${fault.name}`, async (t) => {
        const scene = await startScene(t, workers)
        const afterMs = await fault.run(scene)
        await scene.load.more(100)
        const outcome = await endScene(scene)
        t.diagnostic(JSON.stringify({ afterMs, ...outcome }))
        assert.equal(afterMs === undefined, fault.noticed === undefined)
        assertNothingLost(outcome, fault.windows)
        assert.deepEqual([outcome.crashed, outcome.sockets], [fault.crashes ?? 0, 0])
      })
    }
  }

  test('on MQTT 3.1.1 the owner is killed, and nothing is lost either', async (t) => {
    const scene = await startScene(t, kinds, { protocolVersion: 4 })
    const afterMs = await takeover(scene, 'death', async (owner) => await owner.kill())
    await scene.load.more(100)
    const outcome = await endScene(scene)
    t.diagnostic(JSON.stringify({ afterMs, ...outcome }))
    assertNothingLost(outcome, 1)
    assert.match(scene.broker.log(), /as fixture-[0-9a-f]{8} \(p2, c0,/)
  })

  test('the owner is stopped, and a member that waits for it closes: its process ends, and its publishes settle', async (t) => {
    const run = new GroupRun(t, await startKeepingBroker(t))
    const workers = await run.startAll(['fork', 'cluster'])
    const { owner } = run
    const [member] = workers.filter((worker) => worker !== owner)
    const { pid } = owner
    assert.ok(member !== undefined && pid !== undefined)
    // Its start would wait for the owner, and be waited for: the member would be the owner in the end.
    await member.next('up')
    process.kill(pid, 'SIGSTOP')
    const publishing = Promise.all(([1, 2] as const).map(async (qos) => (await member.publish('a', qos))?.code))
    const exitCode = await member.end()
    process.kill(pid, 'SIGCONT')
    assert.deepEqual([exitCode, await publishing], [0, ['FST_MQTT_CLOSED', 'FST_MQTT_CLOSED']])
    assert.equal(await owner.end(), 0)
  })

  test('eight workers of all kinds start at once, on a stale link and without one: exactly one owner', async (t) => {
    const broker = await startKeepingBroker(t)
    const mixed = [...kinds, ...kinds, 'fork', 'thread'] as const
    for (let round = 0; round < 5; round++) {
      const run = new GroupRun(t, broker)
      const roles = async () => (await run.startAll(mixed)).flatMap((worker) => worker.roles).sort()
      const oneOwner = [...Array.from({ length: 7 }, () => 'member'), 'owner']
      assert.deepEqual(await roles(), oneOwner, `without a link, round ${round}`)
      // What it leaves is found by the next ones.
      if (round === 0) await run.owner.kill()
      await run.leave()
      assert.deepEqual(await roles(), oneOwner, `on a stale link, round ${round}`)
      await run.leave()
      assert.deepEqual(run.sockets, [])
    }
  })

  test('four workers are one connection; each message is handled once, each publish answered', async (t) => {
    const acl = ['listener {{extra}} 127.0.0.1', 'allow_anonymous true', 'acl_file {{dir}}/acl']
    const broker = await startKeepingBroker(t, acl, { acl: 'topic readwrite in/#\ntopic readwrite out/#\n' })
    const run = new GroupRun(t, broker, { url: `mqtt://127.0.0.1:${broker.ports.extra}`, publishEveryMs: 10 })
    const load = await Load.start(t, broker, run)
    const workers = await run.startAll(['fork', 'cluster', 'thread', 'fork'])
    load.begin(200)
    const refused = {
      code: 'FST_MQTT_PUBLISH_REFUSED', message: "The broker refused the message to 'forbidden': Not authorized (0x87)"
    }
    for (const worker of workers) {
      const answers = [worker.publish('out/by-all', 1), worker.publish('out/by-all', 0), worker.publish('forbidden', 1)]
      assert.deepEqual(await Promise.all(answers), [undefined, undefined, refused])
      const { role, status, health } = await worker.look()
      assert.deepEqual([role, status, health.ok], [worker === run.owner ? 'owner' : 'member', 'ready', true])
      assert.deepEqual(health.subscriptions, { granted: [{ filter: 'in/+', qos: 1 }], refused: [], pending: [] })
    }
    await load.more(200)
    assertNothingLost(await load.stop(), 0)
    assert.equal(connectionsOf(broker, 'fixture'), 1)
  })

  test('SEED-60: a process that has connected, and those that it has forked, are one connection', async (t) => {
    const broker = await startKeepingBroker(t)
    const run = new GroupRun(t, broker, { publishEveryMs: 10 })
    const load = await Load.start(t, broker, run)
    const { fastify } = await createApp(t, {
      url: broker.url, processes: { mode: 'single', group: 'fixture', dir: run.dir, heartbeat: 250, ownerTimeout: 1_500 }
    })
    fastify.mqtt.topic('in/<number>', { qos: 1 }, ({ params: { number } }) => {
      run.note(`begun ${number} ${Date.now()}`)
      run.note(`done ${number}`)
    })
    await fastify.ready()
    // As a primary does with its workers: what it has imported and opened is there when they begin.
    const workers = await Promise.all(['cluster', 'cluster'].map(async () => await run.start('cluster')))
    for (const worker of workers) await worker.next('up')
    assert.deepEqual([fastify.mqtt.role, ...workers.map(({ role }) => role)], ['owner', 'member', 'member'])
    load.begin(200)
    await load.more(50)
    for (const worker of workers) assert.equal(await worker.publish('out/by-a-worker', 1), undefined)
    await fastify.mqtt.publish('out/by-the-primary', '', { qos: 1 })
    assert.equal(connectionsOf(broker, 'fixture'), 1)
    assert.deepEqual(workers.flatMap((worker) => run.lines('begun', worker)), [])

    await fastify.close()
    const owner = await run.settled()
    await load.more(50)
    assertNothingLost(await load.stop(), 1)
    assert.ok(run.lines('done', owner).length > 0)
    assert.equal(connectionsOf(broker, 'fixture'), 2)
  })

  test('SEED-07: connect() called twice, in two processes and two threads, is one CONNECT', async (t) => {
    const broker = await startKeepingBroker(t)
    const run = new GroupRun(t, broker, { options: { start: 'manual' } })
    const workers = await Promise.all((['fork', 'fork', 'thread', 'thread'] as const).map(async (kind) => await run.start(kind)))
    for (const worker of workers) await worker.next('up')
    assert.equal(connectionsOf(broker, 'fixture'), 0)
    for (const worker of workers) {
      worker.tell({ do: 'connect' })
      worker.tell({ do: 'connect' })
    }
    await Promise.all(workers.flatMap((worker) => [worker.next('connected'), worker.next('connected')]))
    for (const worker of workers) worker.tell({ do: 'connect' })
    for (const worker of workers) await worker.next('connected')
    assert.deepEqual(workers.map(({ role }) => role).sort(), ['member', 'member', 'member', 'owner'])
    assert.equal(connectionsOf(broker, 'fixture'), 1)
  })

  test('SEED-17: sites with a URI and prefix each are groups of their own, across processes', async (t) => {
    const broker = await startKeepingBroker(t)
    const observer = mosquittoSub(t, broker, { topics: ['#'] })
    await observer.ready
    const run = new GroupRun(t, broker)
    const sites = ['site1', 'site2', 'site1', 'site2', 'site1', 'site2'] as const
    const workers = await Promise.all(sites.map(async (site, index) =>
      ({ site, worker: await run.start(kinds[index >> 1] ?? 'fork', { url: `${broker.url}/${site}` }) })))
    for (const { worker } of workers) await worker.next('up')
    for (const site of ['site1', 'site2']) {
      const roles = workers.filter((one) => one.site === site).map(({ worker: { role } }) => role).sort()
      assert.deepEqual(roles, ['member', 'member', 'owner'])
    }
    assert.equal(connectionsOf(broker, 'fixture'), 2)
    for (const { site, worker } of workers) {
      assert.equal(await worker.publish('x', 1), undefined)
      assert.equal((await observer.next()).topic, `${site}/x`)
    }
    // And what comes for one is handled there, once.
    for (const site of ['site1', 'site2']) await mosquittoPub(broker, { topic: `${site}/in/1`, message: '', qos: 1 })
    while (run.lines('done').length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    const handlers = workers.filter(({ worker }) => run.lines('begun', worker).length > 0)
    assert.deepEqual(handlers.map(({ site, worker }) => `${site} ${worker.role}`).sort(), ['site1 owner', 'site2 owner'])
  })

  test('a process of another user cannot reach the group', {
    skip: skip || (process.getuid?.() === 0 ? false : 'only root can become another user')
  }, async (t) => {
    const broker = await startKeepingBroker(t)
    const run = new GroupRun(t, broker)
    // Whatever the modes of socket and directories above are.
    chmodSync(run.dir, 0o777)
    await run.startAll(['fork'])
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
    const broker = await startKeepingBroker(t)
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
    const broker = await startKeepingBroker(t)
    const run = new GroupRun(t, broker, { options: { presence: { topic: 'presence', online: 'on', offline: 'off' } } })
    await run.startAll(['fork', 'fork'])
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

  test('a start that failed can be tried again', async (t) => {
    const broker = await startKeepingBroker(t)
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

  test('an administrator with an account of its own is one connection beside that of the group', async (t) => {
    const broker = await startMosquitto(t)
    const dir = temporaryDirectory(t)
    const apps = await inOrder([1, 2, 3], async () => {
      const { fastify } = await createApp(t, {
        url: broker.url,
        dynsec: { connection: { port: broker.ports.dynsec, username: 'admin', password: 'admin-password' } },
        processes: { mode: 'single', group: 'app', dir, heartbeat: 250, ownerTimeout: 1_500 }
      })
      await fastify.ready()
      return fastify
    })
    await Promise.all(apps.map(async ({ mqtt: { dynsec } }, index) => await dynsec.roles.create({ rolename: `role-${index}` })))
    const [first, second, third] = apps
    assert.ok(first && second && third)
    assert.deepEqual((await third.mqtt.dynsec.roles.list()).sort(), ['admin', 'role-0', 'role-1', 'role-2'])
    const clients = () => broker.log().match(/(?<=New client connected from \S+ as )\S+(?=-[0-9a-f]{8} )/g)
    assert.deepEqual(clients()?.sort(), ['app', 'app.dynsec'])
    await first.close()
    await Promise.all([second, third].map(async ({ mqtt: { dynsec } }) => await dynsec.roles.get('role-0')))
    assert.deepEqual(clients()?.sort(), ['app', 'app', 'app.dynsec', 'app.dynsec'])
  })

  test('several workers with a connection each are warned of, once', async (t) => {
    const broker = await startKeepingBroker(t)
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

/** How often somebody has connected by a client identifier that begins so. */
function connectionsOf (broker: Mosquitto, group: string): number {
  return broker.log().match(new RegExp(`New client connected from \\S+ as ${group}-`, 'g'))?.length ?? 0
}

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
