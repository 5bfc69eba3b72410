import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { suite, test } from 'node:test'
import { createServer as createTlsServer } from 'node:tls'
import type { FastifyBaseLogger } from 'fastify'
import fc from 'fast-check'
import type { MultimqttOptions, Status } from '../lib/index.ts'
import { BrokerSession } from '../lib/broker-session.ts'
import { ConnectionLog } from '../lib/connection-log.ts'
import { ConnectionState } from '../lib/connection-state.ts'
import { describeTrouble } from '../lib/connection-trouble.ts'
import { errors } from '../lib/errors.ts'
import { resolveOptions } from '../lib/options/settings.ts'
import { BackOff } from '../lib/session/back-off.ts'
import { noLimits, type Link, type LinkEvents } from '../lib/session/link.ts'
import { Rivals } from '../lib/session/rivals.ts'
import { connackRefusal, disconnection, hangUp } from '../lib/session/refusals.ts'
import { createApp, inbox, type TestApp } from './helpers/app.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { deferred } from './helpers/deadline.ts'
import { certificates } from './helpers/mosquitto.ts'
import { closedPort, listen } from './helpers/ports.ts'
import { startProxy } from './helpers/proxy.ts'
import { startScriptedBroker, type ScriptedBroker } from './helpers/scripted-broker.ts'

// The parts

interface Line { readonly level: string, readonly text: string }

/** A log in memory. */
function createLog (): { log: FastifyBaseLogger, lines: Line[] } {
  const lines: Line[] = []
  const write = (level: string) => (...given: unknown[]) => {
    lines.push({ level, text: String(given.at(-1)) })
  }
  const log = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') }
  return { log: log as unknown as FastifyBaseLogger, lines }
}

function createState () {
  const { log, lines } = createLog()
  return { state: new ConnectionState(new ConnectionLog(log, 'mqtt://b:1')), lines }
}

function standing (attempts: number, version: 4 | 5 = 5, nextVersion = version) {
  return { attempts, version, nextVersion }
}

const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })

suite('ConnectionState', () => {
  test('goes through the life of a connection with one line for each change', () => {
    const { state, lines } = createState()
    const seen: Status[] = [state.status]
    const then = (change: () => void) => {
      change()
      seen.push(state.status)
    }
    then(() => state.open())
    then(() => state.down('refused', refused, false, standing(1)))
    then(() => state.down('refused', refused, false, standing(2)))
    then(() => state.up(standing(3)))
    then(() => state.down('cut', refused, true, standing(3)))
    then(() => state.up(standing(4, 4)))
    then(() => state.drain())
    then(() => state.close())
    assert.deepEqual(seen, ['idle', 'connecting', 'connecting', 'connecting', 'ready', 'offline', 'ready', 'draining', 'closed'])
    assert.deepEqual(lines.map(({ level, text }) => `${level}: ${text.replace(/\d+\.\d s/, 'a while')}`), [
      'debug: connecting to mqtt://b:1',
      'warn: could not connect to mqtt://b:1, trying again: refused',
      'debug: could not connect to mqtt://b:1, trying again: refused',
      'info: connected to mqtt://b:1 with MQTT 5 (attempt 3)',
      'warn: lost the connection to mqtt://b:1, connecting again: cut',
      'info: connected to mqtt://b:1 with MQTT 3.1.1 again after a while',
      'debug: closing the connection to mqtt://b:1',
      'info: disconnected from mqtt://b:1'
    ])
  })

  test('whatever happens in whatever order, it is in one of six states, and each change is a line', () => {
    const events = {
      open: (state: ConnectionState) => state.open(),
      up: (state: ConnectionState) => state.up(standing(1)),
      lost: (state: ConnectionState) => state.down('lost', refused, true, standing(1)),
      fail: (state: ConnectionState) => state.fail(),
      drain: (state: ConnectionState) => state.drain(),
      close: (state: ConnectionState) => state.close()
    }
    const allowed = new Set([
      'idle connecting', 'connecting ready', 'ready offline', 'offline ready', 'connecting closed', 'ready closed',
      'offline closed', 'closed connecting', 'draining closed', 'idle draining', 'connecting draining',
      'ready draining', 'offline draining'
    ])
    const names = Object.keys(events) as (keyof typeof events)[]
    fc.assert(fc.property(fc.array(fc.constantFrom(...names)), (sequence) => {
      const { state, lines } = createState()
      for (const name of sequence) {
        const [before, told] = [state.status, lines.length]
        events[name](state)
        const hasChanged = state.status !== before
        assert.ok(!hasChanged || allowed.has(`${before} ${state.status}`), `${before} ${name} ${state.status}`)
        assert.equal(lines.length, told + (hasChanged ? 1 : 0))
      }
    }))
  })

  test('an outage tells each complaint once, ten of them, and the next one tells them anew', () => {
    const { state, lines } = createState()
    state.open()
    const told = () => lines.filter(({ level, text }) => level !== 'debug' && /could not/.test(text)).length
    const complain = (number: number) => state.down(`trouble ${number}`, refused, false, standing(1))
    for (let round = 0; round < 3; round++) for (let number = 0; number < 4; number++) complain(number)
    assert.equal(told(), 4)
    for (let number = 0; number < 40; number++) complain(number)
    assert.equal(told(), 10)
    state.up(standing(60))
    state.down('cut', refused, true, standing(60))
    complain(1)
    assert.equal(told(), 11)
  })

  test('what needs somebody to change something is an error, the rest a warning; no news is at level debug', () => {
    const { state, lines } = createState()
    state.open()
    state.down('no', connackRefusal(0x87, undefined), false, standing(1))
    state.down('busy', connackRefusal(0x89, undefined), false, standing(2))
    state.down('v', new Error('closed'), false, standing(3, 5, 4))
    state.down('v', new Error('closed'), false, standing(5, 5, 4))
    state.up(standing(6))
    state.down('taken', disconnection(0x8e, undefined), true, standing(6))
    assert.deepEqual(lines.slice(1).map(({ level, text }) => `${level}: ${text}`), [
      'error: could not connect to mqtt://b:1: no',
      'warn: could not connect to mqtt://b:1, trying again: busy',
      'info: mqtt://b:1 did not accept MQTT 5, trying 3.1.1',
      'debug: mqtt://b:1 did not accept MQTT 5, trying 3.1.1',
      'info: connected to mqtt://b:1 with MQTT 5 (attempt 6)',
      'error: lost the connection to mqtt://b:1, connecting again: taken'
    ])
  })

  test('a start that failed, and a close without a connection, are no news', () => {
    const { state, lines } = createState()
    state.open()
    state.fail()
    state.open()
    state.drain()
    state.close()
    assert.deepEqual(lines, [
      'connecting to mqtt://b:1', 'gave up connecting to mqtt://b:1', 'connecting to mqtt://b:1',
      'closing the connection to mqtt://b:1', 'closed without a connection to mqtt://b:1'
    ].map((text) => ({ level: 'debug', text })))
  })
})

suite('describeTrouble', () => {
  function describe (cause: Error, protocol: 'mqtt' | 'mqtts' = 'mqtt', wasEverUp = false): string {
    const address = { protocol, host: 'b', port: 1, path: '', text: 'x' }
    return describeTrouble(cause, wasEverUp, { address, clientId: 'me', connectTimeoutMs: 5_000, keepaliveSeconds: 60 })
  }
  const coded = (code: string, message: string) => Object.assign(new Error(message), { code })
  const ssl = '805CCB34A77F0000:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:../deps/x.c:350:\n'

  for (const [cause, says, protocol, wasEverUp] of [
    [new errors.FST_MQTT_CONNECTION('connack timeout'), 'no answer within 5000 ms'],
    [new errors.FST_MQTT_CONNECTION('Keepalive timeout'),
      'no sign of life from the broker, with a keepalive of 60 s', 'mqtt', true],
    [disconnection(0x8e, undefined),
      "the broker ended the connection: Session taken over (0x8e): another client has connected with the clientId 'me'",
      'mqtt', true],
    [connackRefusal(0x87, undefined), 'Connection refused: Not authorized (0x87)'],
    [coded('EPROTO', `write EPROTO ${ssl}`), 'TLS failed: wrong version number (does that port speak TLS?)', 'mqtts'],
    [coded('ECONNRESET', 'read ECONNRESET'), 'read ECONNRESET (does that port speak TLS?)', 'mqtts'],
    [coded('ECONNRESET', 'read ECONNRESET'),
      'read ECONNRESET (is that an MQTT broker, and its port for mqtt://?)'],
    [coded('ECONNRESET', 'read ECONNRESET'), 'read ECONNRESET', 'mqtts', true],
    [coded('SELF_SIGNED_CERT_IN_CHAIN', 'self-signed certificate in certificate chain'),
      'self-signed certificate in certificate chain (is its authority in tls.ca?)', 'mqtts'],
    [coded('ECONNREFUSED', 'connect ECONNREFUSED b:1'), 'connect ECONNREFUSED b:1'],
    [new errors.FST_MQTT_CREDENTIALS({ cause: new Error('no answer within 300 ms') }),
      'The option credentials has failed, so that there is nothing to connect with: no answer within 300 ms'],
    [new AggregateError([new Error('one'), new Error('two')]), 'one, two']
  ] as const) {
    test(says, () => assert.equal(describe(cause, protocol, wasEverUp), says))
  }
})

/** A connection that comes and goes as it is told, and whose filters are answered when it is told. */
class FakeLink implements Link {
  readonly client = undefined
  version: 4 | 5 = 5
  readonly nextVersion = 5
  readonly limits = noLimits
  readonly rttMs = 0
  readonly isWritable = true
  readonly attempts = 1
  readonly lastError = undefined
  isOpen = true
  isUp = false
  everUp = false
  answers = false
  readonly subscribed: string[] = []
  readonly #events: LinkEvents

  constructor (events: LinkEvents) { this.#events = events }
  rise (isSessionPresent = false): void {
    this.isUp = this.everUp = true
    this.#events.onUp(isSessionPresent)
    this.#events.onReady()
  }

  fall (cause: Error = refused): void {
    this.isUp = false
    this.#events.onDown(cause, true)
  }

  async subscribe (filters: readonly string[]): Promise<number[]> {
    this.subscribed.push(...filters)
    return this.answers ? filters.map(() => 0) : await new Promise(() => {})
  }

  open (): void {}
  sendPublish (): number { return 1 }
  sendAck (): void {}
  async unsubscribe (): Promise<void> {}
  pause (): void {}
  resume (): void {}
  renew (): void {}
  async close (): Promise<void> {}
}

test('BrokerSession: connections that are lost before their filters are answered leave no wait behind', async () => {
  const answered = deferred<void>()
  let changes = 0
  const links: FakeLink[] = []
  const session = new BrokerSession(resolveOptions({}, { pluginTimeoutMs: 10_000, bodyLimit: 1 }), {
    log: createLog().log,
    deliver () {},
    onReady () {},
    onDown () {},
    onChange: () => {
      changes++
      if (session.health.subscriptions.granted.length > 0) answered.resolve()
    },
    link: (_settings, events) => {
      const link = new FakeLink(events)
      links.push(link)
      return link
    }
  })
  session.book.want('t', { qos: 0, noLocal: false, retainAsPublished: false, retainHandling: 0 })
  const [link] = links
  assert.ok(link !== undefined)
  for (let count = 0; count < 100; count++) {
    link.rise()
    await new Promise((resolve) => setImmediate(resolve))
    link.fall()
  }
  assert.equal(changes, 100)
  link.answers = true
  link.rise()
  await answered.promise
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(changes, 101)
  await session.close(0)
})

test('BrokerSession: nothing is taken for granted in a session that another process has had, or that the broker has closed', async () => {
  const links: FakeLink[] = []
  const session = new BrokerSession(resolveOptions({}, { pluginTimeoutMs: 10_000, bodyLimit: 1 }), {
    log: createLog().log,
    deliver () {},
    onReady () {},
    onDown () {},
    link: (_settings, events) => {
      const link = new FakeLink(events)
      links.push(link)
      return link
    }
  })
  const [link] = links
  assert.ok(link !== undefined)
  link.answers = true
  // Where a SUBSCRIBE brings the retained messages again, it is not sent without need.
  link.version = 4
  session.book.want('t', { qos: 0, noLocal: false, retainAsPublished: false, retainHandling: 0 })
  const rise = async () => {
    link.rise(true)
    await session.book.answered()
    return link.subscribed.splice(0)
  }
  assert.deepEqual(await rise(), ['t'])
  link.fall()
  assert.deepEqual(await rise(), [])
  link.fall(hangUp('the connection was closed'))
  assert.deepEqual(await rise(), ['t'])
  await session.suspend()
  assert.deepEqual(await rise(), ['t'])
  await session.close(0)
})

test('BrokerSession: a start that failed though it was connected leaves nothing that counts on the connection', async () => {
  const links: FakeLink[] = []
  const settings = resolveOptions({ connectTimeout: 20 }, { pluginTimeoutMs: 10_000, bodyLimit: 1 })
  const session = new BrokerSession(settings, {
    log: createLog().log,
    deliver () {},
    onReady () {},
    onDown () {},
    link: (_settings, events) => {
      const link = new FakeLink(events)
      link.isOpen = false
      links.push(link)
      return link
    }
  })
  session.book.want('t', { qos: 0, noLocal: false, retainAsPublished: false, retainHandling: 0 })
  const seen: boolean[] = []
  session.watch((isUp) => { seen.push(isUp) })
  const starting = session.start()
  links[0]?.rise()
  await assert.rejects(starting, { code: 'FST_MQTT_CONNECT_FAILED', message: /did not answer the subscriptions t$/ })
  assert.deepEqual([session.status, session.isReady, seen], ['closed', false, [true, false]])
})

suite('Rivals', () => {
  function create () {
    let now = 0
    const rivals = new Rivals('me', 30_000, () => now)
    /** A connection that lives so long. */
    const live = (ms: number, end?: Error) => {
      rivals.onUp()
      now += ms
      return rivals.onEnd(end)
    }
    return { rivals, live }
  }
  const reset = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })

  test('three connections that end soon, without a reason, are suspicious, and the suspicion says so', () => {
    const { rivals, live } = create()
    assert.deepEqual([live(500), live(9_000)], [undefined, undefined])
    assert.equal(rivals.areSuspected, false)
    assert.match(live(100)?.message ?? '', /does not say why: is another client connected with the clientId 'me'\?$/)
    assert.equal(rivals.areSuspected, true)
  })

  test('a reset says neither that there is one nor that there is none', () => {
    const { rivals, live } = create()
    for (let count = 0; count < 9; count++) assert.equal(live(100, reset), reset)
    assert.equal(rivals.areSuspected, false)
    live(100)
    live(100, reset)
    live(100)
    live(100, reset)
    assert.equal(rivals.areSuspected, false)
    live(100)
    assert.equal(rivals.areSuspected, true)
    live(100, reset)
    assert.equal(rivals.areSuspected, true)
  })

  test('one that lives, one that ends with a reason, or an attempt that fails clears it', () => {
    for (const clear of [
      (live: (ms: number, end?: Error) => unknown) => { live(10_000) },
      (live: (ms: number, end?: Error) => unknown) => { live(100, new Error('Keepalive timeout')) },
      (_live: unknown, rivals: Rivals) => rivals.onFailure()
    ]) {
      const { rivals, live } = create()
      live(100)
      live(100)
      clear(live, rivals)
      assert.equal(live(100), undefined)
      assert.equal(live(100), undefined)
      assert.notEqual(live(100), undefined)
    }
  })

  test('once suspected, a life is long only beyond what both may wait', () => {
    const { rivals, live } = create()
    for (let count = 0; count < 3; count++) live(100)
    live(59_000)
    assert.equal(rivals.areSuspected, true)
    assert.equal(live(60_000), undefined)
    assert.equal(rivals.areSuspected, false)
  })

  test('where the broker says it, it is known at once', () => {
    const { rivals, live } = create()
    const taken = disconnection(0x8e, undefined)
    assert.equal(live(3_600_000, taken), taken)
    assert.equal(rivals.areSuspected, true)
  })

  test('BackOff: contested connections have to live longer than a rival waits, to count as good ones', () => {
    let now = 0
    const backOff = new BackOff({ minDelayMs: 250, maxDelayMs: 30_000 }, () => 1, () => now)
    const waits = [20_000, 20_000, 20_000, 59_000, 60_000].map((ms) => {
      backOff.onUp()
      now += ms
      return backOff.next('contested')
    })
    assert.deepEqual(waits, [250, 2_000, 16_000, 30_000, 250])
  })
})

// Faults

const [warn, error] = [40, 50]
const ca = readFileSync(certificates.ca)

/** What an application finds where it looks for its broker, until it is mended. */
interface Fault {
  readonly port: number
  /** Puts a broker there that works. */
  readonly mend: () => Promise<ScriptedBroker>
}

interface FaultCase {
  readonly name: string
  readonly serve: (owner: Owner) => Promise<Fault>
  /** In the log and in `health()`. */
  readonly says: RegExp
  readonly code: string
  readonly level: number
  readonly options?: (port: number) => MultimqttOptions
}

/** A server of any protocol, to be replaced by a broker on the same port. */
async function faultOf (owner: Owner, server: Server): Promise<Fault> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => sockets.add(socket.on('error', () => {})))
  const port = await listen(server)
  const stop = async () => {
    if (!server.listening) return
    const closed = once(server.close(), 'close')
    for (const socket of sockets) socket.destroy()
    await closed
  }
  onEnd(owner, stop)
  const mend = async () => {
    await stop()
    return await startScriptedBroker(owner, { port })
  }
  return { port, mend }
}

/** A broker that refuses until it is mended. */
async function refusal (owner: Owner, reasonCode: number): Promise<Fault> {
  let connack: object = { reasonCode }
  const broker = await startScriptedBroker(owner, { connack: () => connack })
  const mend = async () => {
    connack = {}
    return broker
  }
  return { port: broker.port, mend }
}

/** A broker behind TLS, with a certificate for another host until it is mended. */
async function otherHost (owner: Owner): Promise<Fault> {
  const broker = await startScriptedBroker(owner)
  const server = tlsServer('other-host', broker.port)
  const { port } = await faultOf(owner, server)
  const mend = async () => {
    server.setSecureContext(keyPair('server'))
    return broker
  }
  return { port, mend }
}

function keyPair (name: 'server' | 'other-host'): { cert: Buffer, key: Buffer } {
  const folder = dirname(certificates.ca)
  return { cert: readFileSync(join(folder, `${name}.crt`)), key: readFileSync(join(folder, `${name}.key`)) }
}

function tlsServer (name: 'server' | 'other-host', brokerPort: number) {
  return createTlsServer(keyPair(name), (socket) => {
    const broker = connect(brokerPort, '127.0.0.1')
    socket.on('error', () => broker.destroy()).pipe(broker.on('error', () => socket.destroy())).pipe(socket)
  })
}

const secure = (port: number): MultimqttOptions => ({ url: `mqtts://localhost:${port}`, tls: { ca } })

const faults: readonly FaultCase[] = [
  {
    name: 'nobody listens',
    serve: async (owner) => {
      const port = await closedPort()
      return { port, mend: () => startScriptedBroker(owner, { port }) }
    },
    says: /connect ECONNREFUSED 127\.0\.0\.1:\d+$/,
    code: 'ECONNREFUSED',
    level: warn
  },
  {
    name: 'a blackhole',
    serve: (owner) => faultOf(owner, createServer()),
    says: /no answer within 500 ms$/,
    code: 'FST_MQTT_CONNECTION',
    level: warn,
    options: () => ({ connectTimeout: 500 })
  },
  {
    name: 'a server that accepts and closes',
    serve: (owner) => faultOf(owner, createServer((socket) => socket.destroy())),
    says: /(closed the connection before it answered|ECONNRESET) \(is that an MQTT broker, and its port for mqtt:/,
    code: 'FST_MQTT_CONNECTION|ECONNRESET',
    level: warn
  },
  {
    name: 'a server that reads the CONNECT and closes',
    serve: (owner) => faultOf(owner, createServer((socket) => socket.once('data', () => socket.end()))),
    says: /the broker closed the connection before it answered \(is that an MQTT broker, and its port for mqtt:/,
    code: 'FST_MQTT_CONNECTION',
    level: warn
  },
  {
    name: 'an HTTP server',
    serve: (owner) => faultOf(owner, createHttpServer()),
    says: /sent what MQTT does not allow: .* \(is that an MQTT broker, and its port for mqtt:/,
    code: 'FST_MQTT_MALFORMED',
    level: error
  },
  {
    name: 'a port of TLS, spoken plain',
    serve: (owner) => faultOf(owner, tlsServer('server', 1)),
    says: /\(is that an MQTT broker, and its port for mqtt:\/\/\?\)$/,
    code: 'FST_MQTT_MALFORMED|FST_MQTT_CONNECTION|ECONNRESET',
    level: warn
  },
  {
    name: 'a plain port, spoken with TLS',
    serve: async (owner) => {
      const fault = await faultOf(owner, createServer((socket) => socket.once('data', () => socket.end('x'.repeat(99)))))
      const mend = async () => {
        const broker = await fault.mend()
        await broker.close()
        const behind = await startScriptedBroker(owner)
        await listenFor(owner, tlsServer('server', behind.port), fault.port)
        return behind
      }
      return { ...fault, mend }
    },
    says: /\(does that port speak TLS\?\)$/,
    code: 'EPROTO|ERR_SSL_WRONG_VERSION_NUMBER|ERR_SSL_PACKET_LENGTH_TOO_LONG',
    level: error,
    options: secure
  },
  {
    name: 'a certificate for another host',
    serve: otherHost,
    says: /Hostname\/IP does not match certificate's altnames/,
    code: 'ERR_TLS_CERT_ALTNAME_INVALID',
    level: error,
    options: secure
  },
  {
    name: 'a broker that is busy',
    serve: (owner) => refusal(owner, 0x89),
    says: /Connection refused: Server busy \(0x89\)$/,
    code: 'FST_MQTT_CONNECTION',
    level: warn
  },
  {
    name: 'a broker of 3.1.1 that is unavailable',
    serve: (owner) => refusal(owner, 3),
    says: /Connection refused: Server unavailable \(0x88\)$/,
    code: 'FST_MQTT_CONNECTION',
    level: warn,
    options: () => ({ protocolVersion: 4 })
  },
  {
    name: 'a broker that does not let this user in',
    serve: (owner) => refusal(owner, 0x87),
    says: /Connection refused: Not authorized \(0x87\)$/,
    code: 'FST_MQTT_CONNECTION',
    level: error
  },
  {
    name: 'a broker that does not take this client identifier',
    serve: (owner) => refusal(owner, 0x85),
    says: /Connection refused: Client identifier not valid \(0x85\)$/,
    code: 'FST_MQTT_CONNECTION',
    level: error
  }
]

suite('a broker that cannot be reached', { concurrency: true }, () => {
  for (const { name, serve, says, code, level, options } of faults) {
    test(`${name}: the state, the error and the log say it, there is no rush, and it recovers`, async (t) => {
      const { port, mend } = await serve(t)
      const { fastify, logged, lines } = await createApp(t, {
        url: `mqtt://127.0.0.1:${port}`,
        start: 'background',
        reconnect: { minDelay: 200, maxDelay: 400 },
        ...options?.(port)
      })
      const seen = inbox<string>()
      fastify.mqtt.topic('t', (message) => seen.put(message.text()))
      await fastify.ready()

      const line = await logged(/^could not connect to mqtts?:/)
      assert.match(line.msg, says)
      assert.equal(line.level, level)
      assert.match(line.err?.code ?? '', new RegExp(`^(?:${code})$`))
      const { ok, status, lastError, protocolVersion } = fastify.mqtt.health()
      assert.deepEqual([ok, status, protocolVersion], [false, 'connecting', undefined])
      assert.match(lastError?.message ?? '', says)
      assert.match(lastError?.code ?? '', new RegExp(`^(?:${code})$`))

      const before = fastify.mqtt.health().attempts
      await new Promise((resolve) => setTimeout(resolve, 1_000))
      const attempts = fastify.mqtt.health().attempts - before
      assert.ok(attempts >= 1 && attempts < 40, `${attempts} attempts in a second`)
      const told = lines.filter(({ msg, level }) => level >= warn && msg.startsWith('could not connect'))
      assert.ok(told.length <= 2, `${told.length} lines about one outage`)

      const broker = await mend()
      await logged(/^connected to mqtts?:/)
      await broker.next('subscribe')
      assert.equal(fastify.mqtt.status, 'ready')
      broker.publish({ topic: 't', payload: 'x' })
      assert.equal(await seen.next(), 'x')
      assert.equal(fastify.mqtt.health().ok, true)
    })
  }
})

async function listenFor (owner: Owner, server: Server, port: number): Promise<void> {
  await listen(server, port)
  onEnd(owner, () => { server.close() })
}

// Starts

suite('start', () => {
  for (const [name, options, connack] of [
    ['a client identifier that is not valid', {}, { reasonCode: 0x85 }],
    ['the same on 3.1.1', { protocolVersion: 4 }, { returnCode: 2, reasonCode: 2 }],
    ['a wrong password', {}, { reasonCode: 0x87 }],
    ['a wrong password on 3.1.1', { protocolVersion: 4 }, { returnCode: 4, reasonCode: 4 }]
  ] as const) {
    test(`'wait' ends at once with ${name}, where each other attempt would end the same`, async (t) => {
      const broker = await startScriptedBroker(t, { connack })
      const { fastify, logged } = await createApp(t, { url: broker.url, ...options })
      await assert.rejects(async () => { await fastify.ready() }, {
        code: 'FST_MQTT_CONNECT_FAILED', message: /\(1 attempt\): Connection refused: [A-Z][a-z ]+\(0x8[567]\)$/
      })
      assert.equal(broker.connections.length, 1)
      assert.equal(fastify.mqtt.status, 'closed')
      await logged(/^gave up connecting to/)
    })
  }

  test("'wait' waits for what passes: a broker that is busy, and one that comes late", async (t) => {
    let refusals = 2
    const broker = await startScriptedBroker(t, { connack: () => refusals-- > 0 ? { reasonCode: 0x89 } : {} })
    const { fastify } = await createApp(t, { url: broker.url })
    await fastify.ready()
    assert.deepEqual([fastify.mqtt.status, fastify.mqtt.health().attempts], ['ready', 3])

    const port = await closedPort()
    const late = await createApp(t, { url: `mqtt://127.0.0.1:${port}` })
    const starting = late.fastify.ready()
    await late.logged(/could not connect/)
    await startScriptedBroker(t, { port })
    await starting
    assert.equal(late.fastify.mqtt.status, 'ready')
  })

  test("'wait' asks credentials() again: the wrong password, then the right one", async (t) => {
    const broker = await startScriptedBroker(t, {
      connack: ({ password }) => password?.toString() === 'right' ? {} : { reasonCode: 0x87 }
    })
    const passwords = ['wrong', 'wrong', 'right']
    const { fastify, logged } = await createApp(t, {
      url: broker.url, credentials: async () => ({ username: 'u', password: passwords.shift() })
    })
    await fastify.ready()
    assert.equal((await logged(/could not connect.*Not authorized/)).level, error)
    await logged(/connected to .* \(attempt 3\)$/)
    assert.equal(fastify.mqtt.status, 'ready')
  })

  test('connect() that finds a blackhole says so in health(), and the next one succeeds', async (t) => {
    const fault = await faultOf(t, createServer())
    const { fastify } = await createApp(t, {
      url: `mqtt://127.0.0.1:${fault.port}`, start: 'manual', connectTimeout: 100
    })
    await assert.rejects(fastify.mqtt.connect(), { code: 'FST_MQTT_CONNECT_FAILED', message: /no answer/ })
    const { status, lastError } = fastify.mqtt.health()
    assert.deepEqual([status, lastError?.code], ['closed', 'FST_MQTT_CONNECT_FAILED'])
    await fault.mend()
    await fastify.mqtt.connect()
    assert.equal(fastify.mqtt.status, 'ready')
  })

  test('credentials() that throw, and that give what can be none, are told without what they gave', async (t) => {
    const broker = await startScriptedBroker(t)
    const unreadable = Object.defineProperty(new Error(), 'message', { get () { throw new Error('no message') } })
    const answers: (() => unknown)[] = [
      () => { throw new Error('the vault is closed') }, () => { throw unreadable }, () => 'secret-text', () => ({ username: 'u', password: ['secret'] }),
      () => ({ username: 'u', password: 'p' })
    ]
    const { fastify, logged, lines } = await createApp(t, {
      url: broker.url,
      start: 'background',
      reconnect: { minDelay: 1, maxDelay: 1 },
      credentials: (() => answers.shift()?.()) as () => { username: string }
    })
    await fastify.ready()
    const line = await logged(/^could not connect to .*, trying again: The option credentials has failed/)
    assert.equal(line.err?.code, 'FST_MQTT_CREDENTIALS')
    await logged(/^connected to/)
    const text = JSON.stringify(lines)
    for (const says of [
      /Error, whose message is not repeated.*broker-session\.test/, /what was thrown cannot be read/,
      /it has to give an object with username and password, not a string/, /password: it has to be a string, not an array/
    ]) assert.match(text, says)
    assert.doesNotMatch(text, /the vault is closed|secret-text/)
  })
})

// Events

suite('hooks of the connection', () => {
  test('onConnect and onDisconnect come in the order of the events, one after the other', async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify } = await createApp(t, { url: broker.url, reconnect: { minDelay: 1, maxDelay: 1 } })
    const events = inbox<string>()
    const gate = deferred<void>()
    let isFirst = true
    fastify.mqtt.addHook('onConnect', async function () {
      assert.equal(this, fastify)
      events.put(`connect begins ${fastify.mqtt.status}`)
      if (isFirst) await gate.promise
      isFirst = false
      events.put('connect ends')
    })
    fastify.mqtt.addHook('onConnect', () => events.put('second hook'))
    fastify.mqtt.addHook('onDisconnect', async (cause) => events.put(`disconnect: ${cause.message}`))
    await fastify.ready()
    await events.next()
    broker.connections[0]?.destroy()
    // It is lost and made again while the first hook is running.
    await broker.next('connect')
    await broker.next('connect')
    gate.resolve()
    const expected = [
      'connect begins ready', 'connect ends', 'second hook', 'disconnect: the connection was closed',
      'connect begins ready', 'connect ends', 'second hook'
    ]
    while (events.all.length < expected.length) await events.next()
    assert.deepEqual(events.all, expected)
  })

  test('onDisconnect is told of each attempt that failed; a hook that throws is logged, and the next one runs', async (t) => {
    const port = await closedPort()
    const { fastify, logged } = await createApp(t, {
      url: `mqtt://127.0.0.1:${port}`, start: 'background', reconnect: { minDelay: 1, maxDelay: 1 }
    })
    const causes = inbox<Error>()
    fastify.mqtt.addHook('onDisconnect', () => { throw new Error('boom') })
    fastify.mqtt.addHook('onDisconnect', (cause) => causes.put(cause))
    await fastify.ready()
    for (let count = 0; count < 3; count++) assert.match((await causes.next()).message, /ECONNREFUSED/)
    assert.match((await logged(/the MQTT hook onDisconnect failed/)).err?.message ?? '', /boom/)
  })
})

// Connections that end

/** An application that is connected, and tells why its connections end. */
async function startApp (
  owner: Owner, options: MultimqttOptions
): Promise<TestApp & { causes: ReturnType<typeof inbox<Error>> }> {
  const app = await createApp(owner, options)
  const causes = inbox<Error>()
  app.fastify.mqtt.addHook('onDisconnect', (cause) => causes.put(cause))
  await app.fastify.ready()
  return { ...app, causes }
}

suite('a connection that ends', () => {
  test('half-open: it is found out by the keepalive, is offline, and recovers with what was published', async (t) => {
    const broker = await startScriptedBroker(t)
    const proxy = await startProxy(t, broker.port)
    const { fastify, logged } = await startApp(t, {
      url: proxy.url, keepalive: 1, reconnect: { minDelay: 1, maxDelay: 1 }
    })
    proxy.hold()
    const publishing = fastify.mqtt.publish('a', 'kept', { qos: 1 })
    const line = await logged(/^lost the connection to .*: no sign of life from the broker, with a keepalive of 1 s$/)
    assert.equal(line.level, warn)
    const { ok, status, lastError } = fastify.mqtt.health()
    assert.deepEqual([ok, status, lastError], [false, 'offline', {
      code: 'FST_MQTT_CONNECTION', message: 'no sign of life from the broker, with a keepalive of 1 s'
    }])
    proxy.cut()
    proxy.resume()
    await publishing
    await logged(/^connected to .* again after [\d.]+ s/)
    assert.equal(fastify.mqtt.status, 'ready')
  })

  test('taken over, as MQTT 5 says it: the log names the client identifier, and there is no war', async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify, logged, causes } = await startApp(t, { url: broker.url, clientId: 'twin' })
    for (let count = 0; count < 2; count++) {
      broker.connections.at(-1)?.send({ cmd: 'disconnect', reasonCode: 0x8e })
      const line = await logged(/^lost the connection to .*Session taken over \(0x8e\): another client .* clientId 'twin'$/)
      assert.equal(line.level, error)
      assert.match((await causes.next()).message, /Session taken over/)
      assert.match(fastify.mqtt.health().lastError?.message ?? '', /another client has connected with the clientId 'twin'/)
      if (count === 0) await broker.next('connect')
      await broker.next('connect')
    }
  })

  test('taken over without a word: after three times in a row the log says what it may be', async (t) => {
    let kicks = 0
    const broker = await startScriptedBroker(t, {
      onPacket (packet, { socket }) {
        if (packet.cmd !== 'subscribe' || kicks++ === 4) return false
        socket.end()
        return true
      }
    })
    const { fastify, logged, lines } = await createApp(t, {
      url: broker.url, clientId: 'twin', start: 'background', reconnect: { minDelay: 1, maxDelay: 50 }
    })
    fastify.mqtt.topic('t', () => {})
    await fastify.ready()
    const { err } = await logged(/^lost the connection to .*is another client connected with the clientId 'twin'\?$/)
    assert.equal(err?.code, 'FST_MQTT_CONNECTION')
    const lost = lines.filter(({ msg }) => msg.startsWith('lost the connection'))
    assert.deepEqual(lost.map(({ msg }) => /another client/.test(msg)), [false, false, true])
    await fastify.mqtt.connect()
    assert.equal(fastify.mqtt.health().ok, true)
  })
})

suite('what the log says of subscriptions and messages', () => {
  test('a filter that is refused again for the same reason is at level debug, its grant at info', async (t) => {
    let asked = 0
    const broker = await startScriptedBroker(t, { grants: (_filter, qos) => ++asked < 3 ? 0x87 : qos })
    const { fastify, logged } = await createApp(t, { url: broker.url })
    fastify.mqtt.topic('t', () => {})
    await fastify.ready()
    const levels = []
    for (const says of ['was refused: not authorized', 'was refused again: not authorized', 'is granted now']) {
      const { level, msg } = await logged(/^subscription to 't' /)
      assert.equal(msg, `subscription to 't' ${says}`)
      levels.push(level)
      // As a new connection does it, and the retry later.
      if (asked < 3) broker.connections.at(-1)?.destroy()
    }
    assert.deepEqual(levels, [error, 20, 30])
  })

  test('more messages than may wait for their handlers: the connection is renewed, and the log says why', async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify, logged } = await createApp(t, {
      url: broker.url, inbox: { maxUnacked: 2 }, reconnect: { minDelay: 1, maxDelay: 1 }
    })
    const release = deferred<void>()
    fastify.mqtt.topic('t', { qos: 1 }, () => release.promise)
    await fastify.ready()
    for (const payload of ['1', '2', '3']) broker.publish({ topic: 't', payload, qos: 1 })
    const line = await logged(/^more than 2 messages wait for their handlers: the connection is renewed, so that/)
    assert.deepEqual([line.level, line['unacked']], [warn, 3])
    await logged(/^lost the connection to .*: 3 messages wait to be acknowledged$/)
    await logged(/^connected to .* again/)
    release.resolve()
  })
})

// Presence

suite('presence', () => {
  const presence = { topic: 'me', online: 'here', offline: 'gone' }

  function publishes (broker: ScriptedBroker): string[] {
    return broker.received.flatMap((packet) => {
      if (packet.cmd === 'subscribe') return ['SUBSCRIBE']
      if (packet.cmd === 'disconnect') return ['DISCONNECT']
      return packet.cmd === 'publish' ? [`${packet.topic} ${packet.payload.toString()} ${packet.qos} ${packet.retain}`] : []
    })
  }

  test('is the will, and is said once the subscriptions are answered, after each connect, and at the end', async (t) => {
    const broker = await startScriptedBroker(t)
    const { fastify } = await createApp(t, {
      url: `${broker.url}/p`, presence, reconnect: { minDelay: 1, maxDelay: 1 }
    })
    fastify.mqtt.topic('t', () => {})
    await fastify.ready()
    const { will } = await broker.next('connect')
    assert.deepEqual([will?.topic, will?.payload.toString(), will?.qos, will?.retain], ['p/me', 'gone', 1, true])
    await broker.next('publish')
    broker.connections.at(-1)?.destroy()
    await broker.next('publish')
    await fastify.close()
    assert.deepEqual(publishes(broker), [
      'SUBSCRIBE', 'p/me here 1 true', 'SUBSCRIBE', 'p/me here 1 true', 'p/me gone 1 true', 'DISCONNECT'
    ])
  })

  test("where the broker does not take 'offline', it says it itself: there is no DISCONNECT", async (t) => {
    const broker = await startScriptedBroker(t, {
      onPacket: (packet) => packet.cmd === 'publish' && packet.payload.toString() === 'gone'
    })
    const { fastify } = await createApp(t, { url: broker.url, presence, drainTimeout: 30 })
    await fastify.ready()
    const [connection] = broker.connections
    assert.ok(connection !== undefined)
    const ended = once(connection.socket, 'close')
    await fastify.close()
    await ended
    assert.deepEqual(publishes(broker), ['me here 1 true', 'me gone 1 true'])
  })

  test("that cannot be said is a warning, and 'online' on its way is not said twice", async (t) => {
    let isSilent = true
    const broker = await startScriptedBroker(t, {
      onPacket: (packet, connection) => {
        if (packet.cmd !== 'publish') return false
        if (!isSilent) connection.send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: 0x87 })
        return true
      }
    })
    const { fastify, logged } = await createApp(t, {
      url: broker.url, presence, reconnect: { minDelay: 1, maxDelay: 1 }
    })
    await fastify.ready()
    await broker.next('publish')
    broker.connections.at(-1)?.destroy()
    isSilent = false
    const { err, level } = await logged(/^the presence 'online' was not published$/)
    assert.deepEqual([err?.code, level], ['FST_MQTT_PUBLISH_REFUSED', warn])
    await broker.next('publish')
    assert.deepEqual(publishes(broker), ['me here 1 true', 'me here 1 true'])
  })

  test("of a connection that comes back during the close nobody reads 'here' for ever", async (t) => {
    const port = await closedPort()
    const url = `mqtt://127.0.0.1:${port}`
    const first = await startScriptedBroker(t, { port, onPacket: ({ cmd }) => cmd === 'publish' })
    const { fastify, logged } = await createApp(t, {
      url, presence, drainTimeout: 5_000, reconnect: { minDelay: 1, maxDelay: 1 }
    })
    await fastify.ready()
    await first.next('publish')
    await first.close()
    await logged(/^lost the connection/)
    const closing = fastify.close()
    await logged(/^closing the connection/)
    const second = await startScriptedBroker(t, { port })
    await closing
    assert.deepEqual(publishes(second), ['me here 1 true', 'me gone 1 true', 'DISCONNECT'])
  })

  test('a connection that is lost before its subscriptions are answered is not announced', async (t) => {
    let isSilent = true
    const broker = await startScriptedBroker(t, { onPacket: ({ cmd }) => cmd === 'subscribe' && isSilent })
    const { fastify } = await createApp(t, {
      url: broker.url, presence, start: 'background', reconnect: { minDelay: 1, maxDelay: 1 }
    })
    fastify.mqtt.topic('t', () => {})
    await fastify.ready()
    await broker.next('subscribe')
    isSilent = false
    broker.connections.at(-1)?.destroy()
    await broker.next('publish')
    await fastify.close()
    assert.deepEqual(publishes(broker), ['SUBSCRIBE', 'SUBSCRIBE', 'me here 1 true', 'me gone 1 true', 'DISCONNECT'])
  })
})
