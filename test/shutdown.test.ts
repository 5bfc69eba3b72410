import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Packet } from 'mqtt-packet'
import type { MultimqttOptions } from '../lib/index.ts'
import { createApp, inbox, type TestApp } from './helpers/app.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { deferred, within } from './helpers/deadline.ts'
import { closedPort } from './helpers/ports.ts'
import { startProxy } from './helpers/proxy.ts'
import { startScriptedBroker, startSilentServer, type ScriptedBroker } from './helpers/scripted-broker.ts'

const run = promisify(execFile)

/** Far above what a close may take (drain, flush and DISCONNECT: 2.5 s), far below a hang. */
const ceilingMs = 10_000

test('close: an idle connection ends with DISCONNECT, and a second close is the same', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.ready()
  await within(fastify.close(), ceilingMs, 'close')
  await broker.next('disconnect')
  assert.equal(fastify.mqtt.status, 'closed')
  await fastify.mqtt.close()
  await assert.rejects(fastify.mqtt.publish('a', 'b'), { code: 'FST_MQTT_CLOSED' })
  await assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CLOSED' })
})

test('close: handlers that run are waited for, no message is taken in, and they may still publish', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, drainTimeout: 5_000 })
  const started = inbox<string>()
  const release = deferred<void>()
  fastify.mqtt.topic('t', async (message) => {
    started.put(message.text())
    await release.promise
    await fastify.mqtt.publish('done', message.text(), { qos: 1 })
  })
  await fastify.ready()
  broker.publish({ topic: 't', payload: '1' })
  await started.next()
  const closing = fastify.close()
  while (fastify.mqtt.status !== 'draining') await new Promise((resolve) => setImmediate(resolve))
  broker.publish({ topic: 't', payload: '2' })
  // A round trip, after which the second message has arrived.
  await fastify.mqtt.publish('marker', '', { qos: 1 })
  release.resolve()
  await within(closing, ceilingMs, 'close')
  assert.deepEqual(started.all, ['1'])
  assert.deepEqual(broker.received.flatMap((packet) => packet.cmd === 'publish' ? packet.topic : []), ['marker', 'done'])
  assert.equal(broker.received.at(-1)?.cmd, 'disconnect')
})

test('close: a handler that never ends is not waited for beyond drainTimeout', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, drainTimeout: 50 })
  const started = inbox<string>()
  fastify.mqtt.topic('t', async (message) => {
    started.put(message.topic)
    await new Promise(() => {})
  })
  await fastify.ready()
  broker.publish({ topic: 't' })
  await started.next()
  await within(fastify.close(), ceilingMs, 'close')
})

test('close: a pluginTimeout that is shorter than drainTimeout is respected', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, drainTimeout: 60_000 }, { pluginTimeout: 4_000 })
  const started = inbox<string>()
  fastify.mqtt.topic('t', async (message) => {
    started.put(message.topic)
    await new Promise(() => {})
  })
  await fastify.ready()
  broker.publish({ topic: 't' })
  await started.next()
  await within(fastify.close(), ceilingMs, 'close')
})

test('close: a publish that is never acknowledged is settled', async (t) => {
  const broker = await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd === 'publish' })
  const { fastify } = await createApp(t, { url: broker.url, drainTimeout: 50 })
  await fastify.ready()
  const publishing = assert.rejects(fastify.mqtt.publish('a', 'b', { qos: 1 }), { code: 'FST_MQTT_CLOSED' })
  await broker.next('publish')
  await within(fastify.close(), ceilingMs, 'close')
  await publishing
})

test('close: a publish that is acknowledged late is waited for', async (t) => {
  const broker = await startScriptedBroker(t, {
    onPacket: (packet, connection) => {
      if (packet.cmd !== 'publish') return false
      setTimeout(() => connection.send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: 0 }), 50)
      return true
    }
  })
  const { fastify } = await createApp(t, { url: broker.url, drainTimeout: 5_000 })
  await fastify.ready()
  const publishing = fastify.mqtt.publish('a', 'b', { qos: 1 })
  await within(fastify.close(), ceilingMs, 'close')
  await publishing
})

test('close: works when never started', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  await within(fastify.close(), ceilingMs, 'close')
  assert.equal(fastify.mqtt.status, 'closed')
})

test('close: works after a failed start', async (t) => {
  const { fastify } = await createApp(t, { url: `mqtt://127.0.0.1:${await closedPort()}`, connectTimeout: 50 })
  await assert.rejects(async () => await fastify.ready())
  await within(fastify.close(), ceilingMs, 'close')
})

interface State {
  readonly url: string
  readonly options?: MultimqttOptions
  /** Resolves when the application, which is ready, may publish. */
  readonly prepare?: (app: TestApp) => unknown
  /** Resolves when the state is reached. */
  readonly reach?: (app: TestApp) => unknown
  /** What becomes of the publishes; default: they are given up. */
  readonly outcome?: 'fulfilled'
  /** The one that hears of the end. */
  readonly broker?: ScriptedBroker
}

const presence = { topic: 'me', online: 'here', offline: 'gone' }

/** Whose connection it is, and what the broker is to say if it ends without a word. */
const connections: Readonly<Record<string, (owner: Owner) => MultimqttOptions>> = {
  'a connection of its own': () => ({}),
  'with presence': () => ({ presence }),
  'the owner of a group': (owner) => ({ processes: groupFor(owner) }),
  'the owner of a group with presence': (owner) => ({ processes: groupFor(owner), presence }),
  'the owner of a group with a will': (owner) => ({ processes: groupFor(owner), will: { topic: 'last', payload: 'words' } })
}

function groupFor (owner: Owner) {
  const dir = mkdtempSync(join(tmpdir(), 'mm-'))
  onEnd(owner, () => rmSync(dir, { recursive: true, force: true }))
  return { mode: 'single', group: 'g', dir, heartbeat: 50, ownerTimeout: 5_000 } as const
}

/** A broker that acknowledges who is there, and nothing else. */
async function startMuteBroker (owner: Owner): Promise<ScriptedBroker> {
  const onPacket = (packet: Packet) => packet.cmd === 'publish' && packet.topic !== presence.topic
  return await startScriptedBroker(owner, { onPacket })
}

/** The last words of a client: a DISCONNECT with another reason than 0 would publish the will. */
function lastWords ({ received }: ScriptedBroker): string[] {
  return received.flatMap((packet) => {
    if (packet.cmd === 'disconnect') return [`DISCONNECT ${packet.reasonCode ?? 0}`]
    return packet.cmd === 'publish' && packet.topic === presence.topic ? [packet.payload.toString()] : []
  })
}

const waiting: MultimqttOptions = { start: 'background', reconnect: { minDelay: 60_000, maxDelay: 60_000 } }

const states: Readonly<Record<string, (t: Owner) => Promise<State>>> = {
  idle: async (t) => {
    const broker = await startScriptedBroker(t)
    return { url: broker.url, outcome: 'fulfilled', broker }
  },
  'in flight, never acknowledged': async (t) => {
    const broker = await startMuteBroker(t)
    return { url: broker.url, broker }
  },
  'never connected': async () => ({ url: 'mqtt://127.0.0.1:1', options: { start: 'manual' } }),
  'offline with a queue, between attempts': async () => ({
    url: `mqtt://127.0.0.1:${await closedPort()}`,
    options: waiting,
    reach: ({ logged }) => logged(/could not connect/)
  }),
  'connecting to a blackhole': async (t) => {
    const silent = await startSilentServer(t)
    const reach = async () => {
      while (silent.connections() === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    return { url: silent.url, options: waiting, reach }
  },
  'a half-open peer': async (t) => {
    const broker = await startScriptedBroker(t)
    const proxy = await startProxy(t, broker.port)
    return { url: proxy.url, prepare: () => proxy.hold() }
  },
  'in credentials()': async (t) => {
    const broker = await startScriptedBroker(t)
    const asked = deferred<void>()
    const credentials = async () => {
      asked.resolve()
      return await new Promise<never>(() => {})
    }
    return { url: broker.url, options: { ...waiting, credentials }, reach: () => asked.promise }
  },
  'during a reconnect': async (t) => {
    const broker = await startMuteBroker(t)
    const reach = async ({ logged }: TestApp) => {
      // The pause is a random one: it could be over at once.
      await broker.close()
      await logged(/lost the connection/)
    }
    return { url: broker.url, options: { ...waiting, start: 'wait' }, reach }
  },
  'handlers that run for ever': async (t) => {
    const broker = await startScriptedBroker(t)
    const prepare = async ({ fastify }: TestApp) => {
      broker.publish({ topic: 'slow', qos: 1 })
      while (fastify.mqtt.stats().running === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    return { url: broker.url, prepare, outcome: 'fulfilled', broker }
  },
  'after a listen() that failed': async (t) => {
    const broker = await startMuteBroker(t)
    const reach = async ({ fastify }: TestApp) => {
      await assert.rejects(fastify.listen({ host: '127.0.0.1', port: broker.port }), { code: 'EADDRINUSE' })
      assert.equal(fastify.mqtt.status, 'ready')
    }
    return { url: broker.url, reach, broker }
  }
}

for (const [whose, optionsFor] of Object.entries(connections)) {
  suite(`close, ${whose}: ends in bounded time without a will, and settles everything`, { concurrency: 4 }, () => {
    for (const [name, create] of Object.entries(states)) {
      test(name, async (t) => {
        const { url, options, prepare, reach, outcome, broker } = await create(t)
        const own = optionsFor(t)
        // Long enough for the answer of a broker on a busy machine.
        const app = await createApp(t, { url, drainTimeout: 500, ...options, ...own })
        const { fastify } = app
        const { mqtt } = fastify
        mqtt.topic('slow', { qos: 1 }, () => new Promise(() => {}))
        await fastify.ready()
        const isWaiting = options?.start === 'background'
        const connecting = isWaiting ? [mqtt.connect()] : []
        await prepare?.(app)
        const publishing = ([1, 2, 2] as const).map((qos) => mqtt.publish('a', 'b', { qos }))
        const outcomes = Promise.allSettled([...connecting, ...publishing])
        await reach?.(app)
        const draining = app.logged(/^closing the connection/)
        await within(Promise.all([mqtt.close(), mqtt.close(), fastify.close()]), ceilingMs, 'close')
        await draining
        const codes = (await outcomes).map((one) =>
          one.status === 'rejected' ? (one.reason as { code: string }).code : one.status)
        const expected = publishing.map(() => outcome ?? 'FST_MQTT_CLOSED')
        assert.deepEqual(codes, [...connecting.map(() => 'FST_MQTT_CLOSED'), ...expected])
        const { ok, status } = mqtt.health()
        assert.deepEqual([ok, status, mqtt.role], [false, 'closed', undefined])
        await assert.rejects(mqtt.publish('a', 'b'), { code: 'FST_MQTT_CLOSED' })
        await assert.rejects(mqtt.connect(), { code: 'FST_MQTT_CLOSED' })
        if (broker !== undefined) {
          const words = own.presence === undefined ? [] : ['here', 'gone']
          assert.deepEqual(lastWords(broker), [...words, 'DISCONNECT 0'])
        }
        if (typeof own.processes === 'object') {
          const left = readdirSync(own.processes.dir ?? '', { recursive: true, encoding: 'utf8' })
          assert.deepEqual(left.filter((path) => path.endsWith('.sock')), [])
        }
      })
    }
  })
}

suite('close: at the start, and at the end of what may be waited for', () => {
  test('before the application is ready: nothing is connected, and neither close() nor ready() rejects', async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify } = await createApp(t, { url: broker.url })
    const starting = fastify.ready()
    await within(fastify.close(), ceilingMs, 'close')
    await starting
    assert.equal(fastify.mqtt.status, 'closed')
    assert.equal(broker.connections.length, 0)
  })

  test('while the application waits for a blackhole: when the start has failed', async (t) => {
    const silent = await startSilentServer(t)
    const { fastify, logged } = await createApp(t, { url: silent.url, connectTimeout: 200 })
    const starting = assert.rejects(async () => { await fastify.ready() }, { code: 'FST_MQTT_CONNECT_FAILED' })
    await logged(/^connecting to/)
    await within(fastify.close(), ceilingMs, 'close')
    await starting
    assert.equal(fastify.mqtt.status, 'closed')
  })

  test('after a listen() that failed: with DISCONNECT', async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify } = await createApp(t, { url: broker.url })
    await assert.rejects(fastify.listen({ host: '127.0.0.1', port: broker.port }), { code: 'EADDRINUSE' })
    assert.equal(fastify.mqtt.status, 'ready')
    await within(fastify.close(), ceilingMs, 'close')
    await broker.next('disconnect')
    assert.equal(fastify.mqtt.status, 'closed')
  })

  test('a pluginTimeout that is shorter than drainTimeout holds for what waits to be sent, too', async (t) => {
    const broker = await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd === 'publish' })
    const options = { url: broker.url, drainTimeout: 60_000 }
    const { fastify } = await createApp(t, options, { pluginTimeout: 4_000 })
    await fastify.ready()
    const publishing = assert.rejects(fastify.mqtt.publish('a', 'b', { qos: 1 }), { code: 'FST_MQTT_CLOSED' })
    await within(fastify.close(), ceilingMs, 'close')
    await publishing
    await broker.next('disconnect')
  })

  test('a broker that comes back while it is closed is still given what waits', async (t) => {
    const port = await closedPort()
    const { fastify, logged } = await createApp(t, {
      url: `mqtt://127.0.0.1:${port}`,
      start: 'background',
      drainTimeout: 5_000,
      reconnect: { minDelay: 1, maxDelay: 1 }
    })
    await fastify.ready()
    const publishing = fastify.mqtt.publish('a', 'b', { qos: 1 })
    const closing = fastify.close()
    await logged(/^closing the connection/)
    const broker = await startScriptedBroker(t, { port })
    await within(closing, ceilingMs, 'close')
    await publishing
    await broker.next('disconnect')
    assert.equal(broker.connections.length, 1)
  })
})

test('close: publish() works in onClose of a child and in a request that is still answered', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url })
  await fastify.register(async (child) => {
    child.addHook('onClose', async () => { await child.mqtt.publish('from/onClose', '', { qos: 1 }) })
  })
  await fastify.ready()
  await within(fastify.close(), ceilingMs, 'close')
  assert.equal((await broker.next('publish')).topic, 'from/onClose')
})

/** What a process of `fixtures/exit.ts` finds, and what it prints. */
interface Exit {
  readonly port: (servers: Servers, isInGroup: boolean) => number
  readonly prints: RegExp
}

type Servers = Awaited<ReturnType<typeof startServers>>

/** One of each kind, for all processes. */
async function startServers (owner: Owner) {
  const published: string[] = []
  const broker = await startScriptedBroker(owner, {
    onPacket (packet, connection) {
      if (packet.cmd === 'publish') published.push(packet.topic)
      if (packet.cmd !== 'subscribe') return
      const message = { cmd: 'publish', topic: 'slow', payload: '', qos: 0, dup: false, retain: false } as const
      setImmediate(() => connection.send(message))
    }
  })
  const refusing = await startScriptedBroker(owner, { connack: { reasonCode: 135 } })
  const mute = await startScriptedBroker(owner, { onPacket: ({ cmd }) => cmd === 'publish' })
  const silent = await startSilentServer(owner)
  const [halfOpen, halfOpenForGroup] = [await startHalfOpen(owner), await startHalfOpen(owner)]
  const links = { halfOpen, halfOpenForGroup, silent, closedPort: await closedPort() }
  return { broker, published, refusing, mute, ...links }
}

/** A broker whose link dies with the first message. */
async function startHalfOpen (owner: Owner): Promise<{ readonly port: number }> {
  const broker = await startScriptedBroker(owner, {
    onPacket: ({ cmd }) => {
      if (cmd !== 'publish') return false
      proxy.hold()
      return true
    }
  })
  const proxy = await startProxy(owner, broker.port)
  return proxy
}

const unsettled = /FST_MQTT_CLOSED\nFST_MQTT_CLOSED\nclosed\n$/
const exits: Readonly<Record<string, Exit>> = {
  'closed-port': { port: (servers) => servers.closedPort, prints: /^FST_MQTT_CONNECT_FAILED\n$/ },
  blackhole: { port: ({ silent }) => silent.port, prints: /^FST_MQTT_CONNECT_FAILED\n$/ },
  refused: { port: ({ refusing }) => refusing.port, prints: /^FST_MQTT_CONNECT_FAILED\n$/ },
  closed: { port: ({ broker }) => broker.port, prints: /^closed\n$/ },
  idle: { port: ({ broker }) => broker.port, prints: /^closed\n$/ },
  'never acknowledged': { port: ({ mute }) => mute.port, prints: unsettled },
  'half-open': {
    port: ({ halfOpen, halfOpenForGroup }, isInGroup) => (isInGroup ? halfOpenForGroup : halfOpen).port,
    prints: unsettled
  },
  reconnecting: { port: ({ broker }) => broker.port, prints: /^closed\n$/ },
  'between attempts': { port: (servers) => servers.closedPort, prints: /^closed\n$/ },
  'offline with a queue': { port: (servers) => servers.closedPort, prints: unsettled },
  'connecting to a blackhole': { port: ({ silent }) => silent.port, prints: /^closed\n$/ },
  'in credentials()': { port: ({ broker }) => broker.port, prints: /^closed\n$/ },
  'never connected': { port: ({ broker }) => broker.port, prints: /^closed\n$/ },
  'handlers running': { port: ({ broker }) => broker.port, prints: /^closed\n$/ },
  'listen() that failed': { port: ({ broker }) => broker.port, prints: /^EADDRINUSE\nclosed\n$/ },
  twice: { port: ({ broker }) => broker.port, prints: /^closed\n$/ }
}

suite('exit: nothing keeps the process alive', { concurrency: 4 }, () => {
  let servers: Servers
  const owned: (() => unknown)[] = []
  before(async () => {
    servers = await startServers({ after: (task) => { owned.push(task as () => unknown) } })
  })
  after(async () => { for (const task of owned) await task() })

  for (const isInGroup of [false, true]) {
    for (const [scenario, { port, prints }] of Object.entries(exits)) {
      test(isInGroup ? `the owner of a group with presence: ${scenario}` : scenario, async (t) => {
        const script = join(fileURLToPath(import.meta.url), '..', 'fixtures', 'exit.js')
        const directory = isInGroup ? [groupFor(t).dir] : []
        const programArguments = [script, String(port(servers, isInGroup)), scenario, ...directory]
        const { stdout, stderr } = await run(process.execPath, programArguments, { timeout: ceilingMs * 2 })
        assert.match(stdout, prints)
        assert.equal(stderr, '')
        if (scenario === 'handlers running') assert.ok(servers.published.splice(0).includes('from/handler'))
      })
    }
  }
})
