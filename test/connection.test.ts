import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { suite, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import type { ClientOptions } from '../types/options.ts'
import { errors } from '../lib/errors.ts'
import { BackOff } from '../lib/session/back-off.ts'
import type { ConnectionSettings } from '../lib/session/connection.ts'
import { noLimits } from '../lib/session/link.ts'
import { isBlame, isRefusal, reasonCodeOf, reasonText } from '../lib/session/reason-codes.ts'
import {
  asConnectionError, connackRefusal, disconnection, isTakeover, refusalClass, type RefusalClass
} from '../lib/session/refusals.ts'
import { malformed } from '../lib/wire/malformed.ts'
import { createApp } from './helpers/app.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { createConnection, type TestConnection } from './helpers/connection.ts'
import { deferred, within } from './helpers/deadline.ts'
import { closedPort, listen } from './helpers/ports.ts'
import { startScriptedBroker, startSilentServer } from './helpers/scripted-broker.ts'

function timers (): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
}

suite('Connection: credentials', () => {
  test('are asked for before each CONNECT, at once or later, and may change', async (t) => {
    for (const isAsync of [false, true]) {
      const broker = await startScriptedBroker(t)
      let asked = 0
      const { connection, next } = createConnection(t, broker.port, {
        credentials () {
          const login = { username: `user ${++asked}`, password: `password ${asked}` }
          return isAsync ? turn().then(() => login) : login
        }
      })
      connection.open()
      for (const attempt of [1, 2, 3]) {
        const { username, password, clientId } = await broker.next('connect')
        assert.deepEqual([username, password?.toString()], [`user ${attempt}`, `password ${attempt}`])
        assert.equal(clientId, 'the-client')
        await next('ready')
        assert.equal(asked, attempt)
        connection.renew(new errors.FST_MQTT_CONNECTION('again'))
      }
    }
  })

  test('a user name that is no longer given is no longer sent', async (t) => {
    const broker = await startScriptedBroker(t)
    const logins = [
      { username: 'u', password: 'p' }, { username: 'u', password: undefined },
      { username: undefined, password: undefined }
    ]
    const { connection, next } = createConnection(t, broker.port, {
      credentials: () => logins.shift() ?? assert.fail('asked too often')
    })
    connection.open()
    for (const [name, secret] of [['u', 'p'], ['u', undefined], [undefined, undefined]]) {
      const { username, password } = await broker.next('connect')
      assert.deepEqual([username, password?.toString()], [name, secret])
      await next('ready')
      if (logins.length > 0) connection.renew(new errors.FST_MQTT_CONNECTION('again'))
    }
  })

  test('that throw, reject, or never come fail the attempt with a code, and the next one asks again', async (t) => {
    const broker = await startScriptedBroker(t)
    const answers = [
      () => { throw new Error('thrown') }, async () => { throw new Error('rejected') },
      async () => await new Promise<never>(() => {}), () => ({ username: 'u', password: 'p' })
    ]
    const { connection, next } = createConnection(t, broker.port, {
      connectTimeoutMs: 50, credentials: () => (answers.shift() ?? assert.fail('asked too often'))()
    })
    connection.open()
    for (const says of [/^thrown$/, /^rejected$/, /^no answer within 50 ms$/]) {
      const { cause, wasUp } = await next('down')
      assert.deepEqual([cause.code, wasUp], ['FST_MQTT_CREDENTIALS', false])
      assert.match((cause.cause as Error).message, says)
      assert.equal(connection.lastError, cause)
    }
    await next('ready')
    assert.equal((await broker.next('connect')).username, 'u')
    assert.equal(broker.connections.length, 1)
  })

  test('that come after their time are not used', async (t) => {
    const broker = await startScriptedBroker(t)
    const late = deferred<{ username: string, password: string }>()
    let asked = 0
    const { connection, next } = createConnection(t, broker.port, {
      connectTimeoutMs: 50,
      credentials: () => ++asked === 1 ? late.promise : { username: 'second', password: 'p' }
    })
    connection.open()
    await next('down')
    late.resolve({ username: 'first', password: 'p' })
    await next('ready')
    assert.deepEqual(broker.received.map((packet) => packet.cmd === 'connect' && packet.username), ['second'])
  })

  test('are asked for anew when the version is negotiated', async (t) => {
    const broker = await startScriptedBroker(t, {
      connack: ({ protocolVersion }) => protocolVersion === 5 ? { reasonCode: 0x84 } : {}
    })
    let asked = 0
    const { connection, next } = createConnection(t, broker.port, {
      protocolVersion: 'auto', credentials: () => ({ username: `user ${++asked}`, password: 'p' })
    })
    connection.open()
    await next('ready')
    const tries = broker.received.map((packet) => packet.cmd === 'connect' && [packet.protocolVersion, packet.username])
    assert.deepEqual(tries, [[5, 'user 1'], [4, 'user 2']])
    assert.deepEqual([connection.version, connection.nextVersion, connection.attempts], [4, 4, 2])
    // And it stays with 4.
    connection.renew(new errors.FST_MQTT_CONNECTION('again'))
    await next('ready')
    const last = broker.received.at(-1)
    assert.equal(last?.cmd === 'connect' && last.protocolVersion, 4)
  })
})

suite('Connection: ends', () => {
  test('close() and open() in every state: what was under way has no effect, and no timer is left', async (t) => {
    const accepting = await startScriptedBroker(t)
    const silent = await startSilentServer(t)
    const refused = await closedPort()
    const never = new Promise<never>(() => {})
    type State = readonly [string, number, Partial<ConnectionSettings>, (one: TestConnection) => unknown]
    const slow = { reconnect: { minDelayMs: 9_000, maxDelayMs: 9_000 } }
    const states: readonly State[] = [
      ['never opened', accepting.port, {}, ({ connection }) => connection.close(50)],
      ['just opened', accepting.port, {}, ({ connection }) => connection.open()],
      ['waiting for credentials', accepting.port, { credentials: () => never }, ({ connection }) => {
        connection.open()
        return turn()
      }],
      ['dialing', accepting.port, {}, ({ connection }) => {
        connection.open()
        return Promise.resolve()
      }],
      ['waiting for CONNACK', silent.port, {}, async ({ connection }) => {
        connection.open()
        while (silent.connections() === 0) await turn()
      }],
      ['waiting for the next attempt', refused, slow, async ({ connection, next }) => {
        connection.open()
        await next('down')
      }],
      ['up', accepting.port, {}, async ({ connection, next }) => {
        connection.open()
        await next('ready')
      }],
      ['up, and the raw client ends', accepting.port, {}, async ({ connection, next }) => {
        connection.open()
        await next('ready')
        connection.client?.end()
      }]
    ]
    for (const [name, port, given, reach] of states) {
      const one = createConnection(t, port, given)
      const before = timers()
      await reach(one)
      const { client } = one.connection
      const { connection } = one
      const closing = [connection.close(200), connection.close(200)]
      await within(Promise.all(closing), 1_000, `close when ${name}`)
      const { isOpen, isUp } = connection
      assert.deepEqual([isOpen, isUp, connection.client], [false, false, undefined], name)
      // MQTT.js has one of its own for a moment, when it has read its empty store.
      const deadline = performance.now() + 100
      while (timers() > before && performance.now() < deadline) await turn()
      assert.ok(timers() <= before, `a timer is left after close when ${name}`)
      assert.equal(client?.connected ?? false, false)
      const seen = one.all.length
      await turn()
      assert.equal(one.all.length, seen, name)
    }
    assert.equal(accepting.connections.filter(({ socket }) => !socket.destroyed).length, 0)
  })

  test('opened again after close(), in every order, there is one connection', async (t) => {
    const broker = await startScriptedBroker(t)
    const gate = deferred<{ username: string, password: string }>()
    let asked = 0
    const { connection, next, all } = createConnection(t, broker.port, {
      credentials: () => ++asked === 1 ? gate.promise : { username: 'second', password: 'p' }
    })
    connection.open()
    const closing = connection.close(100)
    connection.open()
    connection.open()
    gate.resolve({ username: 'first', password: 'p' })
    await closing
    await next('ready')
    for (let round = 0; round < 3; round++) {
      const ended = connection.close(500)
      connection.open()
      await ended
      await next('ready')
    }
    const names = broker.received.flatMap((packet) => packet.cmd === 'connect' ? [packet.username] : [])
    assert.deepEqual(names, ['second', 'second', 'second', 'second'])
    assert.equal(all.filter(({ kind }) => kind === 'down').length, 0)
    await turn()
    assert.equal(broker.connections.filter(({ socket }) => !socket.destroyed).length, 1)
  })

  test('an attempt that is not answered ends with a code after connectTimeout, as does a dead peer after keepalive', async (t) => {
    const silent = await startSilentServer(t)
    const first = createConnection(t, silent.port, { connectTimeoutMs: 50 })
    first.connection.open()
    const { cause } = await first.next('down')
    assert.deepEqual([cause.code, cause.message], ['FST_MQTT_CONNECTION', 'connack timeout'])

    const mute = await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd !== 'connect' })
    const second = createConnection(t, mute.port, { keepaliveSeconds: 1 })
    second.connection.open()
    await second.next('ready')
    const { cause: death, wasUp } = await second.next('down')
    assert.deepEqual([death.code, death.message, wasUp], ['FST_MQTT_CONNECTION', 'Keepalive timeout', true])
    await second.next('ready')
  })

  test('paused, it lives on over several keepalives, and what came meanwhile is there afterwards', async (t) => {
    const broker = await startScriptedBroker(t)
    const { connection, next, all } = createConnection(t, broker.port, { keepaliveSeconds: 1 })
    connection.open()
    await next('ready')
    connection.pause()
    for (let number = 0; number < 50; number++) broker.publish({ topic: `n/${number}` })
    for (let pings = 0; pings < 2; pings++) await broker.next('pingreq')
    assert.deepEqual(all.map(({ kind }) => kind), ['up', 'ready'])
    connection.resume()
    for (let number = 0; number < 50; number++) assert.equal((await next('message')).topic, `n/${number}`)
    assert.equal(broker.connections.length, 1)
  })

  test('a DISCONNECT after which the broker leaves the socket open ends the connection', async (t) => {
    const broker = await startScriptedBroker(t)
    const { connection, next } = createConnection(t, broker.port)
    connection.open()
    await next('ready')
    broker.connections[0]?.send({ cmd: 'disconnect', reasonCode: 0x8b, properties: { reasonString: 'at night' } })
    const { cause } = await next('down')
    assert.equal(cause.message, 'the broker ended the connection: Server shutting down (0x8b): at night')
    await next('ready')
    assert.equal(broker.connections.length, 2)
  })

  test('1,000 connections leave no listener and no timer behind', async (t) => {
    const broker = await startScriptedBroker(t)
    const { connection, next } = createConnection(t, broker.port)
    connection.open()
    await next('ready')
    const { client } = connection
    assert.ok(client !== undefined)
    const listeners = () => client.eventNames().map((name) => [name, client.listenerCount(name)])
    const before = listeners()
    const resources = timers()
    for (let count = 0; count < 1_000; count++) {
      connection.renew(new errors.FST_MQTT_CONNECTION('again'))
      await next('ready')
    }
    assert.deepEqual(listeners(), before)
    assert.equal(connection.client, client)
    assert.ok(timers() <= resources + 1)
    assert.equal(broker.connections.length, 1_001)
  })

  test('without a connection nothing can be sent, and that is an error', async (t) => {
    const { connection } = createConnection(t, await closedPort())
    const publish = { topic: 'a', payload: Buffer.of(), qos: 0, retain: false, properties: undefined } as const
    const sends = [() => connection.sendPublish(publish, 0, false), () => connection.sendAck(4, 1, 0)]
    for (const send of sends) assert.throws(send, { code: 'FST_MQTT_OFFLINE' })
    connection.open()
    for (const send of sends) assert.throws(send, { code: 'FST_MQTT_OFFLINE' })
    connection.pause()
    connection.resume()
    connection.renew(new errors.FST_MQTT_CONNECTION('again'))
    assert.deepEqual([connection.isWritable, connection.rttMs], [false, 0])
  })

  test('a session that was not asked for is none', async (t) => {
    const broker = await startScriptedBroker(t, { connack: { sessionPresent: true } })
    for (const [sessionExpirySeconds, isPresent] of [[0, false], [60, true]] as const) {
      const { connection, next } = createConnection(t, broker.port, { sessionExpirySeconds })
      connection.open()
      assert.equal((await next('up')).isSessionPresent, isPresent)
      await next('ready')
      await connection.close(100)
    }
  })

  test('what the broker says about itself holds for this connection only', async (t) => {
    const limits = { receiveMaximum: 3, maximumQoS: 1, retainAvailable: false, maximumPacketSize: 99 }
    let properties: object | undefined = limits
    const broker = await startScriptedBroker(t, {
      connack: () => properties === undefined ? {} : { properties }
    })
    const { connection, next } = createConnection(t, broker.port)
    connection.open()
    await next('ready')
    assert.deepEqual(connection.limits, { ...noLimits, ...limits })
    assert.ok(connection.rttMs > 0)
    properties = undefined
    connection.renew(new errors.FST_MQTT_CONNECTION('again'))
    await next('down')
    await next('ready')
    assert.deepEqual(connection.limits, noLimits)
  })

  test('rubbish from the broker is a coded error and a new connection, at any time', async (t) => {
    const broker = await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd === 'connect' })
    const { connection, next } = createConnection(t, broker.port)
    connection.open()
    let isUp = false
    await fc.assert(fc.asyncProperty(
      fc.uint8Array({ minLength: 1, maxLength: 60 }), fc.boolean(), async (bytes, isAfterConnack) => {
        await broker.next('connect')
        const peer = broker.connections.at(-1)
        if (isAfterConnack) peer?.send({ cmd: 'connack', sessionPresent: false, reasonCode: 0 })
        isUp ||= isAfterConnack
        peer?.sendBytes(Buffer.from(bytes))
        peer?.socket.end()
        const { cause, wasUp } = await next('down')
        assert.match(cause.code ?? '', /^FST_MQTT_(MALFORMED|CONNECTION)$/)
        assert.equal(wasUp, isAfterConnack)
        assert.equal(isBlame(cause), false)
      }), { numRuns: 200 })
    assert.equal(connection.everUp, isUp)
  })

  test('a server of another protocol is named as such', async (t) => {
    const server = createServer((socket) => {
      socket.on('error', () => {}).once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    })
    const port = await listen(server)
    onEnd(t, async () => { await once(server.close(), 'close') })
    const { connection, next } = createConnection(t, port)
    connection.open()
    const { cause } = await next('down')
    assert.deepEqual([cause.code, refusalClass(cause)], ['FST_MQTT_MALFORMED', 'fatal'])
  })
})

suite('Connection: the raw client', () => {
  async function ready (owner: Owner) {
    const broker = await startScriptedBroker(owner)
    const one = createConnection(owner, broker.port)
    one.connection.open()
    await one.next('ready')
    const { client } = one.connection
    assert.ok(client !== undefined)
    return { ...one, broker, client }
  }

  for (const verb of ['connect', 'reconnect', 'end', 'end with force'] as const) {
    test(`${verb}() of the raw client makes one new connection, and no more after it`, async (t) => {
      const { broker, client, next, connection, all } = await ready(t)
      if (verb === 'connect') client.connect()
      else if (verb === 'reconnect') client.reconnect()
      else await client.endAsync(verb === 'end with force')
      const { wasUp } = await next('down')
      assert.equal(wasUp, true)
      await next('ready')
      // Each of the two would have ended the other: a round trip later nothing has happened.
      await client.subscribeAsync('a')
      await new Promise((resolve) => setTimeout(resolve, 20))
      await client.subscribeAsync('b')
      assert.equal(connection.isUp, true)
      assert.deepEqual(all.map(({ kind }) => kind), ['up', 'ready', 'down', 'up', 'ready'])
      assert.equal(broker.connections.filter(({ socket }) => !socket.destroyed).length, 1)
      assert.equal(client, connection.client)
    })
  }

  test('connect() of the raw client in a wait takes the place of the next attempt', async (t) => {
    const port = await closedPort()
    const { connection, next, all } = createConnection(t, port, {
      reconnect: { minDelayMs: 60_000, maxDelayMs: 60_000 }
    })
    connection.open()
    await next('down')
    await startScriptedBroker(t, { port })
    connection.client?.connect()
    await next('ready')
    assert.deepEqual(all.map(({ kind }) => kind), ['down', 'up', 'ready'])
  })

  test('a raw client that outlives close() cannot connect', async (t) => {
    const { broker, client, connection } = await ready(t)
    await connection.close(200)
    for (const verb of ['connect', 'reconnect'] as const) {
      const failed = deferred<Error>()
      client.once('error', failed.resolve)
      client[verb]()
      assert.ok(await failed.promise instanceof errors.FST_MQTT_CLOSED)
    }
    assert.equal(broker.connections.length, 1)
  })

  test('a raw client that is closed while the connection comes down does not come back', async (t) => {
    const { connection, next } = await ready(t)
    const { client } = connection
    const closing = connection.close(0)
    client?.emit('close')
    await closing
    await assert.rejects(within(next('down'), 20, 'news'), /no news/)
  })

  test('its own errors are not the cause of an end that comes later', async (t) => {
    const { client, connection, next, broker } = await ready(t)
    client.emit('error', new Error('client disconnecting'))
    broker.connections[0]?.destroy()
    const { cause } = await next('down')
    assert.equal(cause.message, 'the connection was closed')
    assert.equal(connection.lastError, cause)
  })

  test("'message' has what MQTT.js would give, and costs nothing where nobody listens", async (t) => {
    const { broker, client, next } = await ready(t)
    const emitted: unknown[] = []
    const emit = client.emit.bind(client) as (...args: unknown[]) => boolean
    client.emit = ((...args: unknown[]) => {
      if (args[0] === 'message') emitted.push(args[1])
      return emit(...args)
    }) as typeof client.emit
    broker.publish({ topic: 'unheard' })
    await next('message')
    const got: unknown[] = []
    client.on('message', (topic, payload, packet) => got.push([topic, payload, packet]))
    const properties = { contentType: 'x', userProperties: Object.assign(Object.create(null), { a: 'b' }) }
    broker.publish({ topic: 'zero', payload: 'p' })
    broker.publish({ topic: 'one', payload: 'p', qos: 1, retain: true, properties })
    await next('message')
    await next('message')
    await turn()
    const common = { cmd: 'publish', dup: false }
    const payload = Buffer.from('p')
    assert.deepEqual(got, [
      ['zero', payload, { ...common, topic: 'zero', payload, qos: 0, retain: false }],
      ['one', payload, { ...common, topic: 'one', payload, qos: 1, retain: true, messageId: 1, properties }]
    ])
    assert.deepEqual(emitted, ['zero', 'one'])
  })

  test("'message': a listener that a message brings hears those of the next turn", async (t) => {
    const { broker, client, next } = await ready(t)
    const heard: string[] = []
    client.once('message', () => client.on('message', (topic) => heard.push(topic)))
    broker.publish({ topic: 'a' })
    await next('message')
    await turn()
    broker.publish({ topic: 'b' })
    await next('message')
    await turn()
    assert.deepEqual(heard, ['b'])
  })

  test("a listener of 'message' that throws is the application's trouble, not the connection's", async (t) => {
    const { broker, client, next, connection } = await ready(t)
    const { promise, resolve } = deferred<Error>()
    process.setUncaughtExceptionCaptureCallback(resolve)
    try {
      client.once('message', () => { throw new Error('boom') })
      broker.publish({ topic: 'a' })
      broker.publish({ topic: 'b' })
      assert.equal((await within(promise, 1_000, 'exception')).message, 'boom')
    } finally {
      process.setUncaughtExceptionCaptureCallback(null)
    }
    assert.deepEqual([(await next('message')).topic, (await next('message')).topic], ['a', 'b'])
    assert.equal(connection.isUp, true)
  })

  test('what MQTT.js cannot encode costs one connection, its callback gets an error, and it does not come again', async (t) => {
    const { broker, client, next, all } = await ready(t)
    const long = 'x'.repeat(65_536)
    const attempts = [
      () => client.subscribeAsync(long), () => client.unsubscribeAsync(long),
      () => client.publishAsync(long, 'x', { qos: 1 }),
      () => client.publishAsync('a', 'x', { qos: 2, properties: { contentType: long } })
    ]
    for (const attempt of attempts) {
      const rejected = assert.rejects(attempt(), /Message removed/)
      await rejected
      const { cause } = await next('down')
      assert.equal(cause.code, 'FST_MQTT_CONNECTION')
      await next('ready')
      await client.publishAsync('good', 'x', { qos: 1 })
    }
    assert.equal(all.filter(({ kind }) => kind === 'down').length, attempts.length)
    const topics = broker.received.flatMap((packet) => packet.cmd === 'publish' ? packet.topic : [])
    assert.deepEqual(topics, attempts.map(() => 'good'))
  })
})

suite('the option client', () => {
  for (const name of [
    'customHandleAcks', 'incomingStore', 'outgoingStore', 'messageIdProvider', 'resubscribe', 'queueQoSZero',
    'reconnectPeriod', 'manualConnect', 'properties', 'will', 'clean', 'protocolVersion', 'transformWsUrl', 'servers'
  ]) {
    test(`refuses ${name}, which would have no effect or break ours`, async (t) => {
      await assert.rejects(createApp(t, { start: 'manual', client: { [name]: undefined } as ClientOptions }), {
        code: 'FST_MQTT_OPTIONS_INVALID', message: new RegExp(`'client.${name}': there is no such option`)
      })
    })
  }
})

suite('BackOff', () => {
  const settings = { minDelayMs: 100, maxDelayMs: 1_000 }

  test('waits a random time below a limit that doubles up to the longest', () => {
    for (const random of [0, 0.5, 0.999]) {
      const backOff = new BackOff(settings, () => random, () => 0)
      const waits = Array.from({ length: 6 }, () => backOff.next('usual'))
      assert.deepEqual(waits, [100, 200, 400, 800, 1_000, 1_000].map((limit) => limit * random))
    }
  })

  test('begins anew after 10 s of connection, and not after less', () => {
    for (const [seconds, wait] of [[9.999, 800], [10, 100]] as const) {
      let now = 0
      const backOff = new BackOff(settings, () => 1, () => now)
      for (let count = 0; count < 3; count++) backOff.next('usual')
      backOff.onUp()
      now += seconds * 1_000
      assert.equal(backOff.next('usual'), wait)
      // The time of that connection counts once.
      now += 60_000
      assert.equal(backOff.next('usual'), Math.min(wait * 2, 1_000))
    }
  })

  test('slow: comes to the longest wait within three attempts', () => {
    const backOff = new BackOff({ minDelayMs: 250, maxDelayMs: 30_000 }, () => 1, () => 0)
    assert.deepEqual([1, 2, 3, 4].map(() => backOff.next('slow')), [250, 2_000, 16_000, 30_000])
  })

  test('soon: waits 20 ms at most, without counting, but not for ever', () => {
    const backOff = new BackOff(settings, () => 1, () => 0)
    for (let count = 0; count < 60; count++) assert.equal(backOff.next('soon'), 20)
    assert.deepEqual([backOff.next('soon'), backOff.next('soon')], [100, 200])
  })

  test('has no limit to how often it can fail', () => {
    const backOff = new BackOff(settings, () => 1, () => 0)
    for (let count = 0; count < 3_000; count++) backOff.next('usual')
    assert.equal(backOff.next('usual'), 1_000)
  })
})

suite('refusals', () => {
  // Of the CONNACK of MQTT 3.1.1.
  for (const [code, reasonCode, text, kind] of [
    [1, 0x84, 'Unacceptable protocol version', 'fatal'], [2, 0x85, 'Client identifier not valid', 'fatal'],
    [3, 0x88, 'Server unavailable', 'transient'], [4, 0x86, 'Bad user name or password', 'slow'],
    [5, 0x87, 'Not authorized', 'slow']
  ] as const) {
    test(`MQTT 3.1.1: CONNACK ${code} is ${text}, ${kind}`, () => {
      const error = connackRefusal(code, undefined)
      assert.equal(error.message, `Connection refused: ${text} (0x${reasonCode.toString(16)})`)
      assert.deepEqual([reasonCodeOf(error), refusalClass(error)], [reasonCode, kind])
    })
  }

  // Of the CONNACK of MQTT 5 [MQTT 5 §3.2.2.2].
  const classes: Readonly<Record<RefusalClass, readonly number[]>> = {
    transient: [0x80, 0x83, 0x88, 0x89, 0x97, 0x9c, 0x9d, 0x9f],
    slow: [0x86, 0x87, 0x8a],
    fatal: [0x81, 0x82, 0x84, 0x85, 0x8c, 0x90, 0x95, 0x99, 0x9a, 0x9b]
  }
  for (const [kind, codes] of Object.entries(classes)) {
    for (const code of codes) {
      test(`MQTT 5: CONNACK 0x${code.toString(16)} is ${kind}, and says why`, () => {
        const error = connackRefusal(code, 'because')
        assert.equal(refusalClass(error), kind)
        assert.match(error.message, /^Connection refused: [A-Z][A-Za-z ]+ \(0x[89][0-9a-f]\): because$/)
        assert.equal((error as { code?: string }).code, 'FST_MQTT_CONNECTION')
      })
    }
  }

  // The DISCONNECT codes of a server [MQTT 5 §3.14.2.1], and whether a packet of ours is to blame.
  const blamed = [0x81, 0x82, 0x90, 0x95, 0x99]
  const disconnects = [
    0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98,
    0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2
  ]
  test('MQTT 5: each DISCONNECT has a text, and five blame a packet of ours', () => {
    for (const code of disconnects) {
      const error = disconnection(code, undefined)
      assert.match(error.message, /^the broker ended the connection: [A-Z][A-Za-z ]+ \(0x[0-9a-f]{2}\)$/)
      assert.equal(isBlame(error), blamed.includes(code))
      assert.equal(isTakeover(error), code === 0x8e)
      assert.equal(isRefusal(code), true)
    }
    assert.equal(disconnection(0, 'r').message, 'the broker ended the connection: 0x00: r')
    assert.equal(refusalClass(disconnection(0x98, undefined)), 'slow')
    assert.equal(refusalClass(disconnection(0x8e, undefined)), 'slow')
    assert.equal(reasonText(0xfe), '0xfe')
  })

  test('what the broker sends wrongly is no evidence against our messages', () => {
    for (const code of blamed) assert.equal(isBlame(malformed('x', code)), false)
    assert.equal(isBlame(new Error('other')), false)
  })

  test('errors of TLS that do not go away are slow, those of the network transient', () => {
    for (const [kind, codes] of [
      ['slow', [
        'ERR_TLS_CERT_ALTNAME_INVALID', 'CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID', 'CERT_REVOKED',
        'CERT_CHAIN_TOO_LONG', 'DEPTH_ZERO_SELF_SIGNED_CERT', 'SELF_SIGNED_CERT_IN_CHAIN',
        'UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'CRL_HAS_EXPIRED',
        'ERROR_IN_CERT_NOT_AFTER_FIELD', 'INVALID_CA', 'INVALID_PURPOSE', 'PATH_LENGTH_EXCEEDED',
        'HOSTNAME_MISMATCH', 'EPROTO', 'ERR_SSL_WRONG_VERSION_NUMBER',
        'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED'
      ]],
      ['transient', [
        'ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH',
        'FST_MQTT_CONNECTION', 'FST_MQTT_CREDENTIALS', 'EPROTOTYPE', 7
      ]]
    ] as const) {
      for (const code of codes) {
        assert.equal(refusalClass(Object.assign(new Error('x'), { code })), kind, String(code))
      }
    }
  })

  test('an error of MQTT.js gets a code, unless it has one', () => {
    const own = Object.assign(new Error('x'), { code: 'ECONNRESET' })
    assert.equal(asConnectionError(own), own)
    for (const error of [new Error('Keepalive timeout'), Object.assign(new Error('Auth'), { code: 130 })]) {
      const { code, message, cause } = asConnectionError(error) as Error & { code: string }
      assert.deepEqual([code, message, cause], ['FST_MQTT_CONNECTION', error.message, error])
    }
  })
})
