import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { suite, test, type TestContext } from 'node:test'
import { inspect, promisify } from 'node:util'
import { connectAsync } from 'mqtt'
import { prepareCommand } from '../lib/dynsec/checks.ts'
import { commands } from '../lib/dynsec/commands.ts'
import type { Message, MultimqttOptions } from '../lib/index.ts'
import type { DynsecAcl, DynsecCommand, DynsecCommandName } from '../types/dynsec-commands.ts'
import type { Dynsec, DynsecError } from '../types/dynsec.ts'
import { createApp, inbox } from './helpers/app.ts'
import { blocksOf, runBlock } from './helpers/blocks.ts'
import { onEnd } from './helpers/cleanup.ts'
import { deferred, within } from './helpers/deadline.ts'
import { createAdmin, type AdminOptions, type MqttLink } from './helpers/dynsec-admin.ts'
import { codes, refusals, type Refusal } from './helpers/dynsec-contract.ts'
import { connectDevice } from './helpers/dynsec-device.ts'
import { mosquittoCtrl } from './helpers/mosquitto-clients.ts'
import { mosquittoMissing, startMosquitto, type Mosquitto } from './helpers/mosquitto.ts'
import { freePorts } from './helpers/ports.ts'
import { dynsecPluginPath, endWithUs, programPath, root } from './helpers/programs.ts'
import { startProxy } from './helpers/proxy.ts'

const skip = { skip: mosquittoMissing }
const notAuthorized = 135
const administrativeAction = 152

/** A broker of its own, and its administrator. */
async function start (t: TestContext, options: Partial<AdminOptions> = {}) {
  const broker = await startMosquitto(t)
  const admin = await createAdmin(t, { port: broker.ports.dynsec, ...options })
  return { broker, port: broker.ports.dynsec, ...admin }
}

suite('every command, on Mosquitto 2.0.11', skip, () => {
  test('succeeds, does what it says, and answers what its type says', async (t) => {
    const { dynsec } = await start(t)
    const client = { username: 'u', roles: [], groups: [] }
    const entry = { acltype: 'subscribePattern', topic: 'a/#', allow: true, priority: 2 } as const
    const steps: readonly [DynsecCommandName, () => Promise<unknown>, expected: unknown][] = [
      ['getDefaultACLAccess', () => dynsec.defaults.get(),
        { publishClientSend: false, publishClientReceive: true, subscribe: false, unsubscribe: true }],
      ['setDefaultACLAccess', () => dynsec.defaults.set({ publishClientReceive: false }), undefined],
      ['getDefaultACLAccess', async () => (await dynsec.defaults.get()).publishClientReceive, false],
      ['createClient', () => dynsec.raw('createClient', { username: 'u', password: 'p', clientid: 'c', textname: 'U', textdescription: 'a\nb' }), undefined],
      ['getClient', () => dynsec.clients.get('u'), { ...client, clientid: 'c', textname: 'U', textdescription: 'a\nb' }],
      ['modifyClient', () => dynsec.clients.modify('u', { textname: 'V', textdescription: '', clientid: '', password: 'q' }), undefined],
      ['getClient', async () => (await dynsec.clients.get('u')).textname, 'V'],
      ['setClientId', () => dynsec.clients.setId('u', 'd'), undefined],
      ['getClient', async () => (await dynsec.clients.get('u')).clientid, 'd'],
      ['setClientId', () => dynsec.clients.setId('u', undefined), undefined],
      ['getClient', async () => (await dynsec.clients.get('u')).clientid, undefined],
      ['setClientPassword', () => dynsec.clients.setPassword('u', 'r'), undefined],
      ['disableClient', () => dynsec.clients.disable('u'), undefined],
      ['getClient', async () => (await dynsec.clients.get('u')).disabled, true],
      ['enableClient', () => dynsec.clients.enable('u'), undefined],
      ['getClient', async () => (await dynsec.clients.get('u')).disabled, undefined],
      ['createRole', () => dynsec.roles.create({ rolename: 'r', textname: 'R', acls: [entry] }), undefined],
      ['getRole', () => dynsec.roles.get('r'), { rolename: 'r', textname: 'R', acls: [entry] }],
      ['addRoleACL', () => dynsec.roles.addAcl('r', { acltype: 'publishClientSend', topic: 'b', allow: false }), undefined],
      ['getRole', async () => (await dynsec.roles.get('r')).acls,
        [{ acltype: 'publishClientSend', topic: 'b', allow: false, priority: 0 }, entry]],
      ['removeRoleACL', () => dynsec.roles.removeAcl('r', entry), undefined],
      ['modifyRole', () => dynsec.roles.modify('r', { acls: [], textname: 'S' }), undefined],
      ['getRole', () => dynsec.roles.get('r'), { rolename: 'r', textname: 'S', acls: [] }],
      ['addClientRole', () => dynsec.clients.addRole('u', 'r', { priority: 4 }), undefined],
      ['createGroup', () => dynsec.groups.create({ groupname: 'g', textname: 'G', textdescription: 'x' }), undefined],
      ['addGroupRole', () => dynsec.groups.addRole('g', 'r', { priority: 5 }), undefined],
      ['addGroupClient', () => dynsec.groups.addClient('g', 'u', { priority: 6 }), undefined],
      ['getClient', async () => (await dynsec.clients.get('u')).groups, [{ groupname: 'g', priority: 6 }]],
      ['getGroup', () => dynsec.groups.get('g'), {
        groupname: 'g', textname: 'G', textdescription: 'x', clients: [{ username: 'u' }], roles: [{ rolename: 'r', priority: 5 }]
      }],
      ['modifyGroup', () => dynsec.groups.modify('g', { textname: 'H' }), undefined],
      ['setAnonymousGroup', () => dynsec.groups.setAnonymous('g'), undefined],
      ['getAnonymousGroup', () => dynsec.groups.getAnonymous(), 'g'],
      ['listClients', () => dynsec.clients.list(), ['admin', 'u']],
      ['listClients', () => dynsec.clients.list({ count: 1, offset: 1 }), ['u']],
      ['listClients', async () => (await dynsec.clients.list({ verbose: true }))[1]?.roles, [{ rolename: 'r', priority: 4 }]],
      ['listGroups', () => dynsec.groups.list(), ['g']],
      ['listGroups', async () => (await dynsec.groups.list({ verbose: true }))[0]?.textname, 'H'],
      ['listRoles', () => dynsec.roles.list(), ['admin', 'r']],
      ['listRoles', async () => (await dynsec.roles.list({ verbose: true, offset: 1 })), [{ rolename: 'r', textname: 'S', acls: [] }]],
      ['removeGroupRole', () => dynsec.groups.removeRole('g', 'r'), undefined],
      ['removeGroupClient', () => dynsec.groups.removeClient('g', 'u'), undefined],
      ['removeClientRole', () => dynsec.clients.removeRole('u', 'r'), undefined],
      ['createGroup', () => dynsec.groups.create({ groupname: 'h', roles: ['r'] }), undefined],
      ['deleteGroup', () => dynsec.groups.delete('h'), undefined],
      ['deleteRole', () => dynsec.roles.delete('r'), undefined],
      ['deleteClient', () => dynsec.clients.delete('u'), undefined],
      ['listClients', () => dynsec.raw('listClients'), { totalCount: 1, clients: ['admin'] }]
    ]
    for (const [command, step, expected] of steps) assert.deepEqual(await step(), expected, command)

    const walked = new Set(steps.map(([command]) => command))
    assert.deepEqual(Object.keys(commands).filter((name) => !walked.has(name as DynsecCommandName)), ['getDetails'])
    assert.equal(walked.size, 31)
  })

  test('is refused in each way that its sources have, typed and coded', async (t) => {
    const { broker, dynsec } = await start(t)
    await dynsec.roles.create({ rolename: 'r', acls: [{ acltype: 'publishClientSend', topic: 'there', allow: true }] })
    await dynsec.groups.create({ groupname: 'g', roles: ['r'] })
    await dynsec.clients.create({ username: 'u', roles: ['r'], groups: ['g'] })
    const before = await dynsec.snapshot()

    const count = { checked: 0, unchecked: 0 }
    for (const [command, list] of Object.entries(refusals) as [DynsecCommandName, readonly Refusal[]][]) {
      for (const [answer, fields] of list) {
        const isChecked = passesOurChecks(command, fields)
        count[isChecked ? 'checked' : 'unchecked']++
        const call = isChecked
          ? dynsec.raw(command, fields as never)
          : dynsec.raw(command, fields, { unchecked: true })
        const isAssigned = command === 'addClientRole' && answer === 'Internal error'
        const expected = isAssigned ? 'ALREADY_EXISTS' : codes[answer] ?? 'INVALID'
        await assert.rejects(call, (error: DynsecError) => {
          assert.deepEqual([error.brokerMessage, error.code, error.command], [answer, `FST_MQTT_DYNSEC_${expected}`, command])
          return true
        }, `${command}: ${answer}`)
      }
    }
    assert.deepEqual(count, { checked: 37, unchecked: 95 })
    assert.deepEqual(await dynsec.snapshot(), before)
    assert.doesNotMatch(broker.log(), /terminating|Segmentation/)
  })

  test('in a message that is no good: the answers are known, and disturb nobody', async (t) => {
    const { dynsec, port } = await start(t)
    const other = await createAdmin(t, { port })
    const heard: string[] = []
    await other.link.subscribe('$CONTROL/dynamic-security/v1/response', (payload) => { heard.push(payload.toString()) })
    const send = async (text: string) => await other.link.publish('$CONTROL/dynamic-security/v1', Buffer.from(text), { qos: 1 })
    const envelopes: readonly [string, string][] = [
      ['nonsense', 'Payload not valid JSON'], ['', 'Payload not valid JSON'], ['{}', 'Invalid/missing commands'],
      ['{"commands":[5]}', 'Command not an object'], ['{"commands":[{"command":5}]}', 'Missing command'],
      ['{"commands":[{"command":"listRoles","correlationData":5}]}', 'Invalid correlationData data type.']
    ]
    for (const [text, answer] of envelopes) {
      const reads = [dynsec.roles.get('admin'), dynsec.roles.list()]
      await send(text)
      const [role, roles] = await Promise.all(reads)
      assert.deepEqual([(role as { rolename: string }).rolename, roles], ['admin', ['admin']])
      // Answered in order: once this one is there, so is the other.
      await other.dynsec.roles.list()
      assert.ok(heard.some((reply) => reply.includes(`"error":"${answer}"`)), `${text}: ${answer}`)
    }
  })
})

function passesOurChecks (command: string, fields: unknown): boolean {
  try {
    prepareCommand(command, fields, '')
    return true
  } catch {
    return false
  }
}

/** How often the plugin has executed this, by its own log. */
function executed (broker: Mosquitto, pattern: RegExp): number {
  return broker.log().split('\n').filter((line) => line.startsWith('dynsec: ') && pattern.test(line)).length
}

suite('many commands, on Mosquitto', skip, () => {
  test('two administrators ask for 400 roles at once: 0 wrong answers', async (t) => {
    const { dynsec, port } = await start(t)
    const other = (await createAdmin(t, { port })).dynsec
    const names = Array.from({ length: 20 }, (_, index) => `role-${index}`)
    await dynsec.batch(names.map((rolename) => ({ command: 'createRole' as const, rolename, textname: `text of ${rolename}` })))
    const ask = async (admin: Dynsec, index: number) => {
      const rolename = names[(index * 7) % names.length] ?? ''
      const role = await admin.roles.get(rolename)
      return role.rolename === rolename && role.textname === `text of ${rolename}`
    }
    const answers = await Promise.all([dynsec, other].flatMap((admin, offset) =>
      Array.from({ length: 400 }, (_, index) => ask(admin, index + offset))))
    assert.deepEqual([answers.length, answers.filter((isRight) => !isRight).length], [800, 0])
  })

  test('1,000 in one batch: answered in order, and nobody else waits for more than 500 ms', async (t) => {
    const { broker, dynsec } = await start(t)
    const line = await startPingPong(t, broker)
    const batch = dynsec.batch(Array.from({ length: 500 }, (_, index): DynsecCommand[] => [
      { command: 'createClient', username: `client-${index}`, password: `password-${index}`, textname: String(index) },
      { command: 'getClient', username: `client-${index}` }
    ]).flat())
    const settled = await batch
    const { longestMs, count } = await line.stop()
    const answers = settled.map((one) => one.status === 'fulfilled' ? one.value : one.reason)
    const texts = answers.filter((_, index) => index % 2 === 1)
      .map((answer) => answer !== undefined && 'client' in answer ? answer.client.textname : answer)
    assert.deepEqual(texts, Array.from({ length: 500 }, (_, index) => String(index)))
    assert.equal(settled.filter(({ status }) => status === 'fulfilled').length, 1_000)
    t.diagnostic(`another client waited for at most ${longestMs.toFixed(0)} ms, in ${count} round trips`)
    assert.ok(longestMs < 500, `${longestMs} ms`)
    assert.ok(count > 25)
  })
})

/** A client that publishes to itself without a pause, on the listener that has no plugin. */
async function startPingPong (t: TestContext, broker: Mosquitto) {
  const client = await connectAsync(broker.url)
  onEnd(t, () => client.end(true))
  await client.subscribeAsync('ping')
  let [longestMs, count, since, isOver] = [0, 0, performance.now(), false]
  const stopped = deferred<{ longestMs: number, count: number }>()
  const ping = () => {
    since = performance.now()
    client.publish('ping', '')
  }
  client.on('message', () => {
    longestMs = Math.max(longestMs, performance.now() - since)
    count++
    if (isOver) stopped.resolve({ longestMs, count })
    else ping()
  })
  ping()
  return {
    stop: async () => {
      isOver = true
      return await within(stopped.promise, 5_000, 'last round trip')
    }
  }
}

suite('a full life, on Mosquitto', skip, () => {
  for (const isAbsolute of [false, true]) {
    test(`with ${isAbsolute ? 'absolute topics' : 'the prefix'}: who may do what is what the entries say`, async (t) => {
      const { dynsec, port } = await start(t, { prefix: 'site' })
      const before = await dynsec.snapshot()
      const acl = (acltype: DynsecAcl['acltype'], topic: string): DynsecAcl =>
        ({ acltype, topic, allow: true, ...isAbsolute ? { absolute: true } : {} })
      const onWire = (topic: string) => isAbsolute ? topic : `site/${topic}`

      await dynsec.roles.create({
        rolename: 'sensor',
        acls: [
          acl('publishClientSend', 'sensor/+/reading'), acl('subscribeLiteral', 'command/+'),
          acl('publishClientReceive', 'command/+')
        ]
      })
      await dynsec.roles.create({ rolename: 'commander', acls: [acl('publishClientSend', 'command/#')] })
      await dynsec.groups.create({ groupname: 'staff', roles: [['commander', 1]] })
      await dynsec.clients.create({ username: 'dev', password: 'one', roles: ['sensor'] })
      await dynsec.clients.create({ username: 'boss', password: 'boss', groups: ['staff'] })
      const logIn = (password: string) => connectDevice(t, { port, username: 'dev', password })
      const refused = async (password: string) =>
        await assert.rejects(logIn(password), { reasonCode: notAuthorized })

      // Logs in, and may do exactly that.
      await refused('wrong')
      let device = await logIn('one')
      const publishes = await Promise.all(['sensor/7/reading', 'sensor/reading', 'command/x', 'other'].map((topic) =>
        device.publish(onWire(topic))))
      assert.deepEqual(publishes.map((code) => code < 128), [true, false, false, false])
      assert.equal(await device.publish(isAbsolute ? 'site/sensor/7/reading' : 'sensor/7/reading'), notAuthorized)
      assert.equal(await device.subscribe(onWire('command/#')), notAuthorized)
      assert.equal(await device.subscribe(onWire('command/x')), notAuthorized)
      assert.equal(await device.subscribe(onWire('command/+')), 1)
      const boss = await connectDevice(t, { port, username: 'boss', password: 'boss' })
      assert.equal(await boss.publish(onWire('command/x'), 'go'), 0)
      assert.deepEqual(await device.next(), [onWire('command/x'), 'go'])

      // A change ends the connection: on MQTT 5 with a reason.
      await dynsec.clients.setPassword('dev', 'two')
      assert.equal(await device.disconnected, administrativeAction)
      await refused('one')
      device = await logIn('two')
      await dynsec.roles.addAcl('sensor', acl('publishClientSend', 'other'))
      assert.equal(await device.disconnected, administrativeAction)
      device = await logIn('two')
      assert.ok(await device.publish(onWire('other')) < 128)
      await dynsec.roles.removeAcl('sensor', acl('publishClientSend', 'other'))
      assert.equal(await device.disconnected, administrativeAction)
      device = await logIn('two')
      assert.equal(await device.publish(onWire('other')), notAuthorized)
      await dynsec.clients.kick('dev')
      assert.equal(await device.disconnected, administrativeAction)
      device = await logIn('two')
      await dynsec.clients.disable('dev')
      assert.equal(await device.disconnected, administrativeAction)
      await refused('two')
      await dynsec.clients.enable('dev')
      device = await logIn('two')
      await dynsec.clients.removeRole('dev', 'sensor')
      assert.equal(await device.disconnected, administrativeAction)
      device = await logIn('two')
      assert.equal(await device.publish(onWire('sensor/7/reading')), notAuthorized)

      // And back to where it began.
      await dynsec.roles.delete('commander')
      assert.equal(await boss.disconnected, administrativeAction)
      await dynsec.groups.delete('staff')
      await dynsec.clients.delete('dev')
      assert.equal(await device.disconnected, administrativeAction)
      await refused('two')
      await dynsec.clients.delete('boss')
      await dynsec.roles.delete('sensor')
      assert.deepEqual(await dynsec.snapshot(), before)
    })
  }

  test('on MQTT 3.1.1 the connection just closes; a client id that is set lets no other in', async (t) => {
    const { dynsec, port } = await start(t, { version: 4 })
    await dynsec.clients.create({ username: 'dev', password: 'p', clientid: 'the-one' })
    await assert.rejects(connectDevice(t, { port, username: 'dev', password: 'p', version: 4, clientId: 'another' }), { reasonCode: 5 })
    const device = await connectDevice(t, { port, username: 'dev', password: 'p', version: 4, clientId: 'the-one' })
    await dynsec.clients.delete('dev')
    assert.equal(await device.disconnected, undefined)
  })

  test('mosquitto_ctrl sees what was made here, and what it made is seen here', async (t) => {
    const { broker, dynsec } = await start(t, { prefix: 'site' })
    await dynsec.roles.create({ rolename: 'r', acls: [{ acltype: 'publishClientSend', topic: 'a/#', allow: true, priority: 3 }] })
    assert.match(await mosquittoCtrl(broker, 'dynsec', 'getRole', 'r'), /publishClientSend +: allow : site\/a\/# \(priority: 3\)/)
    await mosquittoCtrl(broker, 'dynsec', 'addRoleACL', 'r', 'subscribeLiteral', '$share/g/site/b', 'deny')
    assert.deepEqual((await dynsec.roles.get('r')).acls[1],
      { acltype: 'subscribeLiteral', topic: '$share/g/b', allow: false, priority: 0 })
  })
})

suite('when it cannot be, on Mosquitto', skip, () => {
  const control = '$CONTROL/dynamic-security/v1'
  const rights = {
    publish: { acltype: 'publishClientSend', topic: control, allow: true, absolute: true },
    subscribe: { acltype: 'subscribeLiteral', topic: `${control}/response`, allow: true, absolute: true },
    receive: { acltype: 'publishClientReceive', topic: `${control}/response`, allow: true, absolute: true }
  } as const

  for (const version of [5, 4] as const) {
    test(`a right is missing, with MQTT ${version}: an error that says which, as far as the broker tells`, async (t) => {
      const { dynsec, port } = await start(t)
      const outcome = async (...missing: (keyof typeof rights)[]) => {
        const username = `without-${missing.join('-')}`
        const acls = Object.entries(rights).filter(([name]) => !(missing as string[]).includes(name))
          .map(([, acl]) => acl)
        await dynsec.roles.create({ rolename: username, acls })
        await dynsec.clients.create({ username, password: 'p', roles: [username] })
        const admin = await createAdmin(t, { port, username, password: 'p', version, timeoutMs: 500 })
        const since = performance.now()
        const [error] = await admin.dynsec.clients.create({ username: 'by-a-nobody' }).then(() => [], (reason: DynsecError) => [reason])
        assert.ok(performance.now() - since < 3_000)
        return error === undefined ? 'done' : `${error.code.replace('FST_MQTT_DYNSEC_', '')} ${/may not (\w+)/.exec(error.message)?.[1]}`
      }
      assert.equal(await outcome('subscribe'), 'NOT_AUTHORIZED subscribe')
      assert.equal(await outcome('publish'), version === 5 ? 'NOT_AUTHORIZED publish' : 'NO_ANSWER receive')
      assert.equal(await outcome('receive'), 'NO_ANSWER receive')
      assert.deepEqual((await dynsec.clients.list()).includes('by-a-nobody'), false)
      assert.equal(await outcome(), 'done')
    })
  }

  test('there is no plugin: NO_ANSWER, after the time that is set', async (t) => {
    const broker = await startMosquitto(t)
    const { dynsec } = await createAdmin(t, { port: broker.ports.plain, timeoutMs: 200 })
    const since = performance.now()
    await assert.rejects(dynsec.roles.list(), { code: 'FST_MQTT_DYNSEC_NO_ANSWER', statusCode: 504 })
    const passed = performance.now() - since
    assert.ok(passed >= 199 && passed < 2_000, `${passed} ms`)
  })

  test('the connection is lost before the answer: OUTCOME_UNKNOWN, executed once', async (t) => {
    const broker = await startMosquitto(t)
    const proxy = await startProxy(t, broker.ports.dynsec)
    const { dynsec, link } = await createAdmin(t, { port: proxy.port, reconnectMs: 20 })
    await dynsec.capabilities()
    proxy.drop('down')
    const created = dynsec.clients.create({ username: 'once', password: 'p' })
    const pending = dynsec.groups.list()
    await broker.logged(/createClient \| username=once/)
    const back = once(link, 'up')
    proxy.refuse(true)
    proxy.drop(false)
    proxy.cut()
    await assert.rejects(created, { code: 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN', command: 'createClient' })
    await assert.rejects(pending, { code: 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN', command: 'listGroups' })
    await assert.rejects(dynsec.clients.create({ username: 'offline' }), { code: 'FST_MQTT_OFFLINE' })
    proxy.refuse(false)
    await back
    assert.deepEqual(await dynsec.clients.list(), ['admin', 'once'])
    assert.equal(executed(broker, /createClient/), 1)
  })

  // Bytes of some messages of ten commands, or of some of their answers.
  for (const [direction, bytes] of [['up', 5_000], ['down', 4_000]] as const) {
    test(`the connection is lost in the middle of a batch, on the way ${direction}: each command is told apart`, async (t) => {
      const broker = await startMosquitto(t)
      const proxy = await startProxy(t, broker.ports.dynsec)
      const { dynsec, link } = await createAdmin(t, { port: proxy.port, reconnectMs: 20, chunk: 10 })
      await dynsec.capabilities()
      const back = once(link, 'up')
      proxy.cutAfter(bytes, direction)
      const settled = await dynsec.batch(createRoles(100))
      const codes = settled.map((one) => one.status === 'rejected' ? one.reason.code : one.status)
      await back
      const roles = new Set(await dynsec.roles.list())
      for (const [index, code] of codes.entries()) {
        const isThere = roles.has(`role-${index}`)
        if (code === 'fulfilled') assert.ok(isThere, String(index))
        else if (code === 'FST_MQTT_DYNSEC_NOT_SENT') assert.ok(!isThere, String(index))
        else assert.deepEqual([code, isThere], ['FST_MQTT_DYNSEC_OUTCOME_UNKNOWN', direction === 'down'])
      }
      const count = (wanted: string) => codes.filter((code) => code === wanted).length
      assert.deepEqual([count('fulfilled') > 0, count('FST_MQTT_DYNSEC_OUTCOME_UNKNOWN'), count('FST_MQTT_DYNSEC_NOT_SENT') > 0], [true, 10, true])
      assert.equal(executed(broker, /createRole/), roles.size - 1)
    })
  }

  test('the answer is too large for us: REPLY_LOST long before the time is over, and life goes on', async (t) => {
    const broker = await startMosquitto(t)
    const port = broker.ports.dynsec
    const admin = await createAdmin(t, { port })
    await admin.dynsec.batch(createRoles(100))
    const { dynsec } = await createAdmin(t, { port, maximumPacketSize: 1_000, timeoutMs: 4_000 })
    const since = performance.now()
    await assert.rejects(dynsec.roles.list(), { code: 'FST_MQTT_DYNSEC_REPLY_LOST', command: 'listRoles' })
    assert.ok(performance.now() - since < 3_900)
    assert.deepEqual(await dynsec.roles.list({ count: 2, offset: 1 }), ['role-0', 'role-1'])
    const [list, role] = await Promise.allSettled([dynsec.roles.list(), dynsec.roles.get('role-1')])
    assert.deepEqual([list.status, role.status], ['rejected', 'fulfilled'])
  })

  test('the own account: SELF and nothing happens; with allowSelf once, and the answer is lost', async (t) => {
    const { broker, dynsec, link } = await start(t, { reconnectMs: 20 })
    const groups = { groupname: 'admins', roles: ['by-group'] }
    await dynsec.roles.create({ rolename: 'by-group' })
    await dynsec.groups.create(groups)
    const back = once(link, 'up')
    await assert.rejects(dynsec.groups.addClient('admins', 'admin', { allowSelf: true }), {
      code: 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN', command: 'addGroupClient'
    })
    await back
    assert.equal(executed(broker, /addGroupClient/), 1)
    assert.deepEqual((await dynsec.clients.get('admin')).groups, [{ groupname: 'admins' }])
    const acl = { acltype: 'publishClientSend', topic: 'a', allow: true } as const
    for (const call of [
      () => dynsec.clients.delete('admin'), () => dynsec.clients.setPassword('admin', 'x'),
      () => dynsec.roles.delete('admin'), () => dynsec.roles.addAcl('by-group', acl), () => dynsec.groups.delete('admins')
    ]) await assert.rejects(call(), { code: 'FST_MQTT_DYNSEC_SELF' })
    const again = once(link, 'up')
    await assert.rejects(dynsec.roles.addAcl('by-group', acl, { allowSelf: true }), { code: 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN' })
    await again
    assert.deepEqual((await dynsec.roles.get('by-group')).acls, [{ ...acl, priority: 0 }])
    assert.deepEqual([executed(broker, /addRoleACL/), executed(broker, /delete|setClientPassword/)], [1, 0])
  })

  test('a name with U+0000, which the broker would take for another: refused, nothing happens', async (t) => {
    const { broker, dynsec } = await start(t)
    await assert.rejects(dynsec.clients.disable('admin\0x'), { code: 'FST_MQTT_DYNSEC_INVALID' })
    assert.equal(executed(broker, /disableClient/), 0)
  })

  test('the anonymous group: FORBIDDEN, and the broker lives', async (t) => {
    const { broker, dynsec } = await start(t)
    await dynsec.groups.create({ groupname: 'nobody' })
    await dynsec.groups.setAnonymous('nobody')
    await assert.rejects(dynsec.groups.delete('nobody'), { code: 'FST_MQTT_DYNSEC_FORBIDDEN' })
    assert.deepEqual([await dynsec.groups.list(), executed(broker, /deleteGroup/)], [['nobody'], 0])
  })

  test('roles that another tool gave within createClient and createGroup: no trace is left of a deleted one', async (t) => {
    const { dynsec } = await start(t)
    await dynsec.roles.create({ rolename: 'inline' })
    await dynsec.raw('createClient', { username: 'u', roles: [{ rolename: 'inline' }] }, { unchecked: true })
    await dynsec.raw('createGroup', { groupname: 'g', roles: [{ rolename: 'inline' }] }, { unchecked: true })
    await dynsec.roles.delete('inline')
    assert.deepEqual([(await dynsec.clients.get('u')).roles, (await dynsec.groups.get('g')).roles], [[], []])
    await dynsec.clients.delete('u')
    await dynsec.groups.delete('g')
  })

  test('creating a client that exists, with roles, gives it none', async (t) => {
    const { dynsec, port } = await start(t)
    await dynsec.roles.create({ rolename: 'r' })
    await dynsec.clients.create({ username: 'taken', password: 'p' })
    const device = await connectDevice(t, { port, username: 'taken', password: 'p' })
    await assert.rejects(dynsec.clients.create({ username: 'taken', password: 'q', roles: ['r'] }), {
      code: 'FST_MQTT_DYNSEC_ALREADY_EXISTS', statusCode: 409
    })
    await dynsec.clients.create({ username: 'taken', roles: ['r'] }, { ifExists: 'ignore' })
    assert.deepEqual((await dynsec.clients.get('taken')).roles, [])
    // Nor is it disconnected.
    assert.equal(await device.publish('x'), notAuthorized)
  })
})

suite('over the connections of the plugin, on Mosquitto', skip, () => {
  const accounts: Readonly<Record<string, (port: number) => MultimqttOptions>> = {
    "the plugin's own": (port) => ({ url: `mqtt://admin:admin-password@127.0.0.1:${port}/site`, dynsec: true }),
    "the administrator's": (port) => ({
      url: `mqtt://app:app-password@127.0.0.1:${port}/site`,
      dynsec: { connection: { username: 'admin', password: 'admin-password' } }
    })
  }

  for (const [whose, optionsFor] of Object.entries(accounts)) {
    for (const protocolVersion of [5, 4] as const) {
      test(`${whose}, MQTT ${protocolVersion}: a device is provisioned; what a cut leaves open is told, executed once; no secret is shown`, async (t) => {
        const { broker, dynsec: setUp } = await start(t)
        await setUp.roles.create({ rolename: 'app' })
        await setUp.clients.create({ username: 'app', password: 'app-password', roles: ['app'] })
        const proxy = await startProxy(t, broker.ports.dynsec)
        const { fastify, lines } = await createApp(t, {
          ...optionsFor(proxy.port), protocolVersion, reconnect: { minDelay: 1, maxDelay: 20 }
        })
        await fastify.ready()
        assert.equal(proxy.accepted(), whose === "the plugin's own" ? 1 : 2)
        const { dynsec } = fastify.mqtt
        await dynsec.roles.create({ rolename: 'r', acls: [{ acltype: 'publishClientSend', topic: 'a/+', allow: true }] })
        await dynsec.clients.create({ username: 'u', password: 'canary-1', roles: ['r'] })
        const device = await connectDevice(t, { port: broker.ports.dynsec, username: 'u', password: 'canary-1' })
        assert.ok(await device.publish('site/a/b') < 128)
        assert.equal(await device.publish('site/b'), notAuthorized)

        proxy.drop('down')
        const created = dynsec.clients.create({ username: 'once', password: 'canary-2' })
        await broker.logged(/createClient \| username=once/)
        proxy.drop(false)
        proxy.cut()
        const errors: unknown[] = []
        const isUnknown = (error: { code?: string }) => {
          errors.push(error)
          return error.code === 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN'
        }
        await assert.rejects(created, isUnknown)
        const isOffline = ({ code }: { code?: string }) => code === 'FST_MQTT_OFFLINE'
        const back = async (): Promise<string[]> => {
          try {
            return await dynsec.clients.list()
          } catch (error) {
            assert.ok(isOffline(error as { code: string }), String(error))
            await new Promise((resolve) => setImmediate(resolve))
            return await back()
          }
        }
        assert.deepEqual(await back(), ['admin', 'app', 'once', 'u'])
        assert.equal(executed(broker, /createClient \| username=once/), 1)

        proxy.drop('down')
        const last = assert.rejects(dynsec.clients.setPassword('u', 'canary-3'), { code: 'FST_MQTT_CLOSED' })
        await broker.logged(/setClientPassword/)
        await fastify.close()
        await last
        const shown = [
          ...[...errors, fastify.mqtt, dynsec].map((thing) => inspect(thing, { depth: 9, showHidden: true })),
          ...[...lines, fastify.mqtt.health()].map((data) => JSON.stringify(data)),
          broker.log()
        ]
        assert.deepEqual(shown.filter((text) => /canary|admin-password|app-password/.test(text)), [])
      })
    }
  }
})

for (const protocolVersion of [5, 4] as const) {
  test(`MQTT ${protocolVersion}: a topic for the answers themselves, before, while and after they are needed here`, skip, async (t) => {
    const broker = await startMosquitto(t)
    const { fastify } = await createApp(t, {
      url: `mqtt://admin:admin-password@127.0.0.1:${broker.ports.dynsec}`,
      protocolVersion,
      dynsec: { timeout: 1_000 }
    })
    const heard = inbox<string>()
    const answers = '$CONTROL/dynamic-security/v1/response'
    const put = (message: Message) => heard.put(message.text())
    const listen = () => fastify.mqtt.topic(answers, { absolute: true, qos: 1 }, put)
    const topic = listen()
    await fastify.ready()
    const { roles } = fastify.mqtt.dynsec
    const isHeard = async (pattern: RegExp): Promise<unknown> =>
      pattern.test(await heard.next()) || await isHeard(pattern)
    assert.deepEqual(await roles.list(), ['admin'])
    await isHeard(/listRoles/)
    topic.remove()
    await fastify.mqtt.connect()
    assert.equal((await roles.get('admin')).rolename, 'admin')
    const again = listen()
    await fastify.mqtt.connect()
    assert.equal((await roles.list({ verbose: true })).length, 1)
    await isHeard(/listRoles/)
    assert.equal(heard.all.some((text) => text.includes('getRole"')), false)
    again.remove()
    assert.deepEqual(await roles.list(), ['admin'])
  })
}

suite('what Flask-MultiMQTT promises of dynamic security, on Mosquitto', skip, () => {
  test('SEED-56: a client with two roles is there as a whole, or an error says why not and nothing is', async (t) => {
    const { dynsec } = await start(t)
    await dynsec.createRole('one')
    await assert.rejects(dynsec.addClient('dev', 'p', { roles: ['one', 'two'] }), {
      code: 'FST_MQTT_DYNSEC_NOT_FOUND', message: "The broker refused addClientRole 'dev' 'two': Role not found"
    })
    assert.deepEqual(await dynsec.clients.list(), ['admin'])
    await dynsec.createRole('two')
    await dynsec.addClient('dev', 'p', { clientid: 'c', roles: ['one', ['two', 5]] })
    assert.deepEqual(await dynsec.clients.get('dev'), {
      username: 'dev', clientid: 'c', roles: [{ rolename: 'two', priority: 5 }, { rolename: 'one' }], groups: []
    })
  })

  test('SEED-57: topics of the system by absolute, never by chance; slashes stay', async (t) => {
    const { dynsec, port } = await start(t, { prefix: 'site' })
    const onWire = (await createAdmin(t, { port })).dynsec
    await dynsec.createRole('r')
    await assert.rejects(dynsec.addRoleAcl('r', 'publishClientSend', '$CONTROL/dynamic-security/#', true), {
      code: 'FST_MQTT_TOPIC_OUTSIDE_PREFIX'
    })
    await dynsec.addRoleAcl('r', 'publishClientSend', '$CONTROL/dynamic-security/#', true, 0, { absolute: true })
    await dynsec.addRoleAcl('r', 'publishClientSend', '/a/', true)
    assert.deepEqual((await onWire.roles.get('r')).acls.map(({ topic }) => topic), ['$CONTROL/dynamic-security/#', 'site//a/'])
    await dynsec.removeRoleAcl('r', 'publishClientSend', '/a/')
    await dynsec.removeRoleAcl('r', 'publishClientSend', '$CONTROL/dynamic-security/#', { absolute: true })
    assert.deepEqual((await onWire.roles.get('r')).acls, [])
  })

  test('SEED-58: disconnected or denied is an error, at once or in bounded time', async (t) => {
    const { dynsec, port, link } = await start(t)
    await dynsec.clients.create({ username: 'nobody', password: 'p' })
    const nobody = await createAdmin(t, { port, username: 'nobody', password: 'p' })
    await assert.rejects(nobody.dynsec.createRole('r'), { code: 'FST_MQTT_DYNSEC_NOT_AUTHORIZED' })
    await link.client.endAsync(true)
    await assert.rejects(dynsec.createRole('r'), { code: 'FST_MQTT_OFFLINE' })
  })

  test('the six helpers: a device is provisioned and taken back', async (t) => {
    const { dynsec, port } = await start(t, { prefix: 'site' })
    await dynsec.createRole('sensor')
    await dynsec.addRoleAcl('sensor', 'publishClientSend', 'sensor/+', true)
    await dynsec.addRoleAcl('sensor', 'publishClientSend', 'sensor/9', false, 5)
    await dynsec.addClient('dev', 'p', { roles: [['sensor', 3]] })
    const device = await connectDevice(t, { port, username: 'dev', password: 'p' })
    assert.ok(await device.publish('site/sensor/7') < 128)
    assert.equal(await device.publish('site/sensor/9'), notAuthorized)
    await dynsec.removeRoleAcl('sensor', 'publishClientSend', 'sensor/9')
    assert.equal(await device.disconnected, administrativeAction)
    assert.ok(await (await connectDevice(t, { port, username: 'dev', password: 'p' })).publish('site/sensor/9') < 128)
    await dynsec.deleteClient('dev')
    await dynsec.deleteRole('sensor')
    assert.deepEqual([await dynsec.clients.list(), await dynsec.roles.list()], [['admin'], ['admin']])
  })
})

test('secrets: no password in the log of the broker, nor on any topic that others can read', skip, async (t) => {
  const { broker, dynsec, port } = await start(t)
  const secret = 'canary-in-the-password'
  await dynsec.clients.create({ username: 'spy', password: 'spy', roles: ['admin'] })
  const spy = await connectDevice(t, { port, username: 'spy', password: 'spy' })
  const heard: string[] = []
  assert.deepEqual([await spy.subscribe('$CONTROL/#'), await spy.subscribe('#')], [1, 1])
  await dynsec.clients.create({ username: 'u', password: secret, textname: 'the last' })
  await dynsec.clients.setPassword('u', `${secret}-2`)
  await dynsec.clients.modify('u', { password: `${secret}-3` })
  await assert.rejects(dynsec.clients.create({ username: 'u', password: secret }))
  await dynsec.raw('createClient', { username: 'u', password: secret, textname: 5 }, { unchecked: true }).catch(() => {})
  await dynsec.clients.get('u')
  for (let reply = ''; !reply.includes('the last'); heard.push(reply)) [, reply] = await spy.next()
  assert.ok(heard.length >= 6)
  assert.deepEqual([broker.log(), ...heard].filter((text) => text.includes('canary')), [])
})

function createRoles (count: number): DynsecCommand[] {
  return Array.from({ length: count }, (_, index) => ({ command: 'createRole', rolename: `role-${index}` }))
}

test('docs/dynsec.md: the steps from an empty Mosquitto to a provisioned device', skip, async (t) => {
  const page = readFileSync(join(root, 'docs/dynsec.md'), 'utf8')
  const [server = '', device = ''] = [...page.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block)
  const directory = mkdtempSync(join(tmpdir(), 'multimqtt-dynsec-'))
  onEnd(t, () => rmSync(directory, { recursive: true, force: true }))
  const [port = 0] = await freePorts(1)
  const script = server
    .replace('1884', String(port))
    // What holds only for Debian, and for an ordinary user.
    .replace('$(dpkg -L mosquitto | grep dynamic_security.so)', dynsecPluginPath() ?? '')
    .replace('END\n/usr', `${process.getuid?.() === 0 ? 'user root\n' : ''}END\nexec /usr`)
    .replace('/usr/sbin/mosquitto', programPath('mosquitto') ?? '')
  const child = spawn('sh', ['-c', script], { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] })
  endWithUs(child)
  onEnd(t, () => child.kill('SIGKILL'))
  const said = createInterface(child.stderr)
  await within(new Promise<void>((resolve) => {
    said.on('line', (line) => { if (/mosquitto version \S+ running/.test(line)) resolve() })
  }), 5_000, 'start of the broker')

  const program = blocksOf('docs/dynsec.md').find(({ text }) => text.includes('admin:admin-password@127.0.0.1:1884/site'))
  assert.ok(program !== undefined)
  await runBlock(t, { ...program, text: program.text.replace('1884', String(port)) })
  const complaint = async (command: string) =>
    (await promisify(execFile)('sh', ['-c', `${command.trim().replace('1884', String(port))} || true`])).stderr
  assert.equal(await complaint(device), '')
  assert.match(await complaint(device.replace('sensor/7', 'sensor/8')), /not authorized/i)
  assert.match(await complaint(device.replace('-P secret', '-P wrong')), /not authorized/i)
})

/** The next time that a link comes up. */
function once (link: MqttLink, event: 'up'): Promise<void> {
  return within(new Promise((resolve) => {
    const stop = link.onChange((isUp) => {
      if (!isUp) return
      stop()
      resolve()
    })
  }), 5_000, event)
}
