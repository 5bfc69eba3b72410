import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { Type } from '@sinclair/typebox'
import type { MultimqttOptions } from '../lib/index.ts'
import { createApp, inbox, type TestApp } from './helpers/app.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { deferred, within } from './helpers/deadline.ts'
import { closedPort } from './helpers/ports.ts'
import { startProxy } from './helpers/proxy.ts'
import { startScriptedBroker, startSilentServer } from './helpers/scripted-broker.ts'

function group (owner: Owner) {
  const dir = mkdtempSync(join(tmpdir(), 'mm-'))
  onEnd(owner, () => rmSync(dir, { recursive: true, force: true }))
  return { dir, processes: { mode: 'single', group: 'g', dir, heartbeat: 50, ownerTimeout: 5_000 } } as const
}

test('group: a member knows the version of the owner, and refuses what it cannot send', async (t) => {
  const broker = await startScriptedBroker(t)
  const { processes } = group(t)
  const options = { url: broker.url, protocolVersion: 4, processes } as const
  const owner = await createApp(t, options)
  await owner.fastify.ready()
  const member = await createApp(t, options)
  await member.fastify.ready()
  assert.deepEqual([owner.fastify.mqtt.role, member.fastify.mqtt.role], ['owner', 'member'])
  await assert.rejects(member.fastify.mqtt.publish('a', 'x', { properties: { contentType: 'y' } }), {
    code: 'FST_MQTT_NEEDS_MQTT5'
  })
  await member.fastify.mqtt.publish('a', 'x', { qos: 1 })
  assert.equal(broker.connections.length, 1)
})

test('group: a directory that others can write to is trouble, in the log and in health(), until it is mended', async (t) => {
  const broker = await startScriptedBroker(t)
  const { dir, processes } = group(t)
  const owner = await createApp(t, { url: broker.url, processes })
  await owner.fastify.ready()
  const member = await createApp(t, { url: broker.url, processes })
  await member.fastify.ready()
  const [name = ''] = readdirSync(dir)
  chmodSync(join(dir, name), 0o777)
  await owner.fastify.close()
  await member.logged(/the group 'g' is in trouble/)
  assert.equal(member.fastify.mqtt.health().lastError?.code, 'FST_MQTT_GROUP_DIRECTORY')
  chmodSync(join(dir, name), 0o700)
  await member.logged(/this process is the owner of the group 'g'/)
})

test('group: closing ends a start that waits', async (t) => {
  const server = await startSilentServer(t)
  const { processes } = group(t)
  const { fastify } = await createApp(t, { url: server.url, processes, start: 'manual' })
  await fastify.ready()
  const connecting = assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CLOSED' })
  await fastify.close()
  await connecting
})

/** What keeps a member from an answer, and the owner whose trouble it is. */
const troubles: Readonly<Record<string, (t: Owner) => Promise<{
  readonly options: MultimqttOptions
  readonly reach?: (owner: TestApp, dir: string) => unknown
}>>> = {
  'nothing is acknowledged': async (t) => {
    const broker = await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd === 'publish' })
    return { options: { url: broker.url } }
  },
  'the owner is offline': async (t) => {
    const broker = await startScriptedBroker(t)
    const reach = async ({ logged }: TestApp) => {
      await broker.close()
      await logged(/^lost the connection/)
    }
    return { options: { url: broker.url }, reach }
  },
  'the owner connects to a blackhole': async (t) => {
    const { url } = await startSilentServer(t)
    return { options: { url, start: 'background' } }
  },
  'the owner has a half-open peer': async (t) => {
    const broker = await startScriptedBroker(t)
    const proxy = await startProxy(t, broker.port)
    return { options: { url: proxy.url }, reach: () => proxy.hold() }
  },
  'there is no owner, and cannot be one': async (t) => {
    const broker = await startScriptedBroker(t)
    const reach = async ({ fastify }: TestApp, dir: string) => {
      chmodSync(join(dir, readdirSync(dir)[0] ?? ''), 0o777)
      await fastify.close()
    }
    return { options: { url: broker.url }, reach }
  }
}

suite('group: a member closes in bounded time, and settles everything', { concurrency: true }, () => {
  for (const [trouble, create] of Object.entries(troubles)) {
    for (const [what, drainTimeout, pluginTimeout] of [
      ['drainTimeout', 50, 10_000], ['a pluginTimeout that is shorter than drainTimeout', 60_000, 4_000]
    ] as const) {
      test(`${trouble}, within ${what}`, async (t) => {
        const { dir, processes } = group(t)
        const { options, reach } = await create(t)
        const [owner, member] = await Promise.all(['owner', 'member'].map(async () =>
          await createApp(t, { ...options, drainTimeout, processes }, { pluginTimeout })))
        assert.ok(owner !== undefined && member !== undefined)
        await owner.fastify.ready()
        await owner.logged(/is the owner/)
        await member.fastify.ready()
        await member.logged(/is a member/)
        await reach?.(owner, dir)
        const publishing = ([1, 2, 2] as const).map((qos) => member.fastify.mqtt.publish('a', 'b', { qos }))
        const outcomes = Promise.allSettled(publishing)
        await within(Promise.all([member.fastify.mqtt.close(), member.fastify.close()]), 10_000, 'close of the member')
        for (const one of await outcomes) {
          assert.equal(one.status === 'rejected' && (one.reason as { code: string }).code, 'FST_MQTT_CLOSED')
        }
        assert.deepEqual([member.fastify.mqtt.status, member.fastify.mqtt.role], ['closed', undefined])
        await within(owner.fastify.close(), 10_000, 'close of the owner')
      })
    }
  }
})

test('group: the hooks of a member come in the order of the events, one after the other, and not for its own end', async (t) => {
  const broker = await startScriptedBroker(t)
  const { processes } = group(t)
  const reconnect = { minDelay: 1, maxDelay: 1 }
  const owner = await createApp(t, { url: broker.url, reconnect, processes })
  await owner.fastify.ready()
  const member = await createApp(t, { url: broker.url, reconnect, processes })
  const events = inbox<string>()
  const roles: string[] = []
  const gate = deferred<void>()
  member.fastify.mqtt.addHook('onRole', async (role) => {
    roles.push(`${role} begins`)
    await new Promise((resolve) => setTimeout(resolve, role === 'member' ? 20 : 0))
    roles.push(`${role} ends`)
  })
  member.fastify.mqtt.addHook('onConnect', async () => {
    events.put('connect begins')
    await gate.promise
    events.put('connect ends')
  })
  member.fastify.mqtt.addHook('onDisconnect', (cause) => events.put(`disconnect: ${cause.message}`))
  await member.fastify.ready()
  while (!events.all.includes('connect begins')) await events.next()
  broker.connections[0]?.destroy()
  await owner.logged(/^connected to .* again/)
  // A round trip: the member has heard of both.
  await member.fastify.mqtt.publish('a', '', { qos: 1 })
  gate.resolve()
  const connected = ['connect begins', 'connect ends']
  const expected = [...connected, 'disconnect: the connection was closed', ...connected]
  while (events.all.length < expected.length) await events.next()
  assert.deepEqual(events.all, expected)
  await member.fastify.close()
  while (roles.at(-1) !== 'undefined ends') await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(events.all, expected)
  assert.deepEqual(roles, ['member begins', 'member ends', 'undefined begins', 'undefined ends'])
  await member.logged(/^left the group 'g'$/)
  assert.doesNotMatch(JSON.stringify(member.lines), /no owner/)
})

test('group: a start that no other attempt would help ends at once, and names the cause', async (t) => {
  const broker = await startScriptedBroker(t, { connack: { reasonCode: 0x87 } })
  const { processes } = group(t)
  const { fastify } = await createApp(t, { url: broker.url, processes })
  await assert.rejects(async () => { await fastify.ready() }, {
    code: 'FST_MQTT_CONNECT_FAILED', message: /\(1 attempt\): Connection refused: Not authorized \(0x87\)$/
  })
  assert.equal(broker.connections.length, 1)
  assert.equal(fastify.mqtt.status, 'closed')
})

test('group: a start that no other attempt would help ends at once in every process, each with the reason', async (t) => {
  const broker = await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd === 'connect' })
  const { processes } = group(t)
  const options = { url: broker.url, processes, connectTimeout: 60_000 } as const
  const apps = await Promise.all([1, 2, 3].map(async () => await createApp(t, options, { pluginTimeout: 0 })))
  const starts = apps.map(async ({ fastify }) => {
    try {
      await fastify.ready()
      return undefined
    } catch (error) {
      return error as Error & { code: string, cause: Error & { code: string, reasonCode: number } }
    }
  })
  await Promise.all(apps.map(({ logged }) => logged(/is (?:the owner|a member) of/)))
  await broker.next('connect')
  broker.connections[0]?.send({ cmd: 'connack', sessionPresent: false, reasonCode: 0x86 })
  for (const error of await within(Promise.all(starts), 5_000, 'end of the starts')) {
    assert.equal(error?.code, 'FST_MQTT_CONNECT_FAILED')
    assert.match(error.message, /\(1 attempt\): Connection refused: Bad user name or password \(0x86\)$/)
    assert.deepEqual([error.cause.code, error.cause.message, error.cause.reasonCode],
      ['FST_MQTT_CONNECTION', 'Connection refused: Bad user name or password (0x86)', 0x86])
  }
  assert.equal(broker.connections.length, 1)
})

test('group: who comes when the broker refuses the owner does not wait; who was there waits with it', async (t) => {
  let reasonCode = 0
  const broker = await startScriptedBroker(t, { connack: () => ({ reasonCode }) })
  const { processes } = group(t)
  const reconnect = { minDelay: 1, maxDelay: 20 }
  const options = { url: broker.url, processes, connectTimeout: 60_000, reconnect } as const
  const [owner, member, late] = await Promise.all([1, 2, 3].map(async () =>
    await createApp(t, options, { pluginTimeout: 0 })))
  assert.ok(owner && member && late)
  await owner.fastify.ready()
  await member.fastify.ready()
  reasonCode = 0x87
  broker.connections[0]?.destroy()
  await owner.logged(/^could not connect/)
  await assert.rejects(within((async () => { await late.fastify.ready() })(), 5_000, 'end of the start'), {
    code: 'FST_MQTT_CONNECT_FAILED', message: /Connection refused: Not authorized \(0x87\)$/
  })
  const again = member.fastify.mqtt.connect()
  reasonCode = 0
  await again
  assert.deepEqual([owner, member].map(({ fastify: { mqtt } }) => mqtt.status), ['ready', 'ready'])
})

test('group: a handler that ends while the owner steps down acknowledges nothing, and harms nobody', async (t) => {
  const broker = await startScriptedBroker(t)
  const { dir, processes } = group(t)
  const { fastify, logged } = await createApp(t, { url: broker.url, processes })
  const [begun, release] = [deferred<void>(), deferred<void>()]
  fastify.mqtt.topic('t', { qos: 1 }, async () => {
    begun.resolve()
    await release.promise
  })
  // Before the connection has ended.
  fastify.mqtt.addHook('onRole', (role) => { if (role === undefined) release.resolve() })
  await fastify.ready()
  broker.publish({ topic: 't', qos: 1 })
  await begun.promise
  symlinkSync('1.00000000.sock', join(dir, readdirSync(dir)[0] ?? '', 'owner.2'))
  await logged(/has no owner for now/)
  await logged(/is the owner/)
  await logged(/is the owner/)
  assert.deepEqual(broker.received.filter(({ cmd }) => cmd === 'puback'), [])
})

test('group: closing while a failed start ends settles what waits', async (t) => {
  // It does not end the connection either, which takes its time then.
  const broker = await startScriptedBroker(t, {
    onPacket: ({ cmd }) => cmd === 'subscribe' || cmd === 'publish' || cmd === 'disconnect'
  })
  const { processes } = group(t)
  const options = { url: broker.url, processes, start: 'manual', connectTimeout: 200 } as const
  const { fastify, logged } = await createApp(t, options)
  fastify.mqtt.topic('t', () => {})
  await fastify.ready()
  const connecting = assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CONNECT_FAILED' })
  const publishing = fastify.mqtt.publish('a', 'x', { qos: 1 })
  await logged(/^gave up connecting/)
  await within(Promise.all([
    fastify.close(), connecting, assert.rejects(publishing, { code: 'FST_MQTT_CLOSED' })
  ]), 5_000, 'close')
})

test('group: what was published by a process that never takes part rejects when it closes', async (t) => {
  const broker = await startScriptedBroker(t)
  const { processes } = group(t)
  const { fastify } = await createApp(t, { url: broker.url, processes, start: 'manual' })
  await fastify.ready()
  const publishing = fastify.mqtt.publish('never', 'x', { qos: 1 })
  assert.equal(fastify.mqtt.stats().outbox.messages, 1)
  await Promise.all([fastify.close(), assert.rejects(publishing, { code: 'FST_MQTT_CLOSED' })])
})

test('group: what waits when a start fails is sent when the next one succeeds', async (t) => {
  const connacks = [{ reasonCode: 0x86 }, { reasonCode: 0 }]
  const broker = await startScriptedBroker(t, { connack: () => connacks.shift() ?? {} })
  const { processes } = group(t)
  const { fastify } = await createApp(t, { url: broker.url, processes, start: 'manual' })
  await fastify.ready()
  const early = fastify.mqtt.publish('early', 'x', { qos: 1 })
  const connecting = fastify.mqtt.connect()
  const meanwhile = fastify.mqtt.publish('meanwhile', 'x', { qos: 1 })
  await assert.rejects(connecting, { code: 'FST_MQTT_CONNECT_FAILED' })
  assert.equal(fastify.mqtt.status, 'closed')
  await fastify.mqtt.connect()
  await within(Promise.all([early, meanwhile]), 5_000, 'delivery')
})

test('group: processes that would connect by different client identifiers are told so, once', async (t) => {
  const broker = await startScriptedBroker(t)
  const { processes } = group(t)
  const [owner, like, unlike] = await Promise.all([{}, {}, { clientId: 'mine' }].map(async (options) =>
    await createApp(t, { url: broker.url, processes, ...options })))
  assert.ok(owner && like && unlike)
  for (const { fastify } of [owner, like, unlike]) await fastify.ready()
  const { level, err } = await unlike.logged(/in trouble/)
  assert.deepEqual([level, err?.code], [50, 'FST_MQTT_GROUP_CLIENT_ID'])
  assert.match(err?.message ?? '', /is connected as 'g-[0-9a-f]{8}', this process would be as 'mine'/)
  broker.connections[0]?.destroy()
  await owner.logged(/^connected to .* again/)
  // A round trip: both have heard of it.
  await Promise.all([like, unlike].map(async ({ fastify }) => await fastify.mqtt.publish('a', '', { qos: 1 })))
  const errorsOf = ({ lines }: TestApp) => lines.filter((line) => line.level >= 50).length
  assert.deepEqual([owner, like, unlike].map(errorsOf), [0, 0, 1])
})

test('group: a start that failed though it was connected says so, and what waits is sent by the next one', async (t) => {
  let answers = false
  const broker = await startScriptedBroker(t, {
    onPacket: ({ cmd }) => !answers && (cmd === 'subscribe' || cmd === 'publish')
  })
  const { processes } = group(t)
  const { fastify, lines, logged } = await createApp(t, { url: broker.url, processes, start: 'manual', connectTimeout: 2_000 })
  fastify.mqtt.topic('t', () => {})
  await fastify.ready()
  const starting = assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CONNECT_FAILED', message: /did not answer/ })
  await broker.next('subscribe')
  const publishing = fastify.mqtt.publish('a', 'early', { qos: 1 })
  await starting
  await broker.next('disconnect')
  await logged(/^gave up connecting/)
  assert.doesNotMatch(JSON.stringify(lines), /another process/)
  answers = true
  await fastify.mqtt.connect()
  await Promise.all([publishing, fastify.mqtt.publish('a', 'late', { qos: 1 })])
  const published = broker.received.flatMap((packet) => packet.cmd === 'publish' ? packet.payload.toString() : [])
  assert.deepEqual(published, ['early', 'early', 'late'])
  assert.deepEqual([fastify.mqtt.status, fastify.mqtt.role], ['ready', 'owner'])
})

test('group: what is published before the process takes part waits, and goes by the owner then', async (t) => {
  const broker = await startScriptedBroker(t)
  const { processes } = group(t)
  const owner = await createApp(t, { url: broker.url, processes })
  await owner.fastify.ready()
  const { fastify } = await createApp(t, { url: broker.url, processes, start: 'manual' })
  const abort = new AbortController()
  const publishing = ([1, 2] as const).map((qos) => fastify.mqtt.publish('early', String(qos), { qos }))
  const aborted = assert.rejects(fastify.mqtt.publish('early', 'never', { qos: 1, signal: abort.signal }), {
    code: 'FST_MQTT_ABORTED'
  })
  await assert.rejects(fastify.mqtt.publish('early', '0'), { code: 'FST_MQTT_OFFLINE' })
  await assert.rejects(fastify.mqtt.publish('early', 'never', { qos: 1, timeout: 10 }), { code: 'FST_MQTT_PUBLISH_TIMEOUT' })
  abort.abort()
  await aborted
  assert.equal(fastify.mqtt.stats().outbox.messages, 2)
  await fastify.mqtt.connect()
  await within(Promise.all(publishing), 5_000, 'acknowledgement')
  assert.equal(fastify.mqtt.role, 'member')
  const published = broker.received.flatMap((packet) => packet.cmd === 'publish' ? packet.payload.toString() : [])
  assert.deepEqual(published, ['1', '2'])
  assert.equal(fastify.mqtt.stats().outbox.messages, 0)
})

test('group: a typed message waits in a member for a broker of 3.1.1, which has no content type', async (t) => {
  const port = await closedPort()
  const { processes } = group(t)
  const options = {
    url: `mqtt://127.0.0.1:${port}`, processes, start: 'background', reconnect: { minDelay: 1, maxDelay: 20 }
  } as const
  const owner = await createApp(t, options)
  await owner.fastify.ready()
  await owner.logged(/is the owner/)
  const member = await createApp(t, options)
  const topic = member.fastify.mqtt.topic('typed', { qos: 1, payload: Type.Integer() })
  await member.fastify.ready()
  await member.logged(/is a member/)
  const publishing = topic.publish(1)
  const refused = assert.rejects(topic.publish(2, { properties: { userProperties: { a: 'b' } } }), {
    code: 'FST_MQTT_NEEDS_MQTT5'
  })
  const broker = await startScriptedBroker(t, {
    port, connack: ({ protocolVersion }) => protocolVersion === 4 ? {} : { reasonCode: 0x84 }
  })
  await within(Promise.all([publishing, refused]), 5_000, 'acknowledgement')
  assert.equal((await broker.next('publish')).payload.toString(), '1')
})
