import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import type { Server } from 'node:net'
import { networkInterfaces } from 'node:os'
import { suite, test } from 'node:test'
import { errors } from '../lib/errors.ts'
import { refusalClass } from '../lib/session/refusals.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'
import { createConnection, type TestConnection } from './helpers/connection.ts'
import { startGateway, type GatewayOptions } from './helpers/gateway.ts'
import { certificates } from './helpers/mosquitto.ts'
import { closedPort, listen } from './helpers/ports.ts'
import { startScriptedBroker, startSilentServer } from './helpers/scripted-broker.ts'

type Protocol = NonNullable<GatewayOptions['protocol']>

const ca = readFileSync(certificates.ca)
const otherCa = readFileSync(certificates.clientCert)

const hasIpv6 = Object.values(networkInterfaces()).flat().some((one) => one?.address === '::1')
const noIpv6 = hasIpv6 ? false : 'this machine has no ::1'

interface Way {
  readonly protocol: Protocol
  readonly port: number
  readonly host?: string
  readonly tls?: object
  readonly wsOptions?: object
}

function connectionTo (owner: Owner, { protocol, port, host = 'localhost', tls = {}, wsOptions }: Way): TestConnection {
  return createConnection(owner, port, {
    address: { protocol, host, port, path: '/mqtt', text: `${protocol}://${host}:${port}` },
    tls,
    client: wsOptions === undefined ? {} : { wsOptions }
  })
}

suite('transports', () => {
  for (const protocol of ['mqtt', 'mqtts', 'ws', 'wss'] as const) {
    test(`${protocol}: messages of every size pass both ways, in pieces and together`, async (t) => {
      const broker = await startScriptedBroker(t)
      const { port } = await startGateway(t, broker.port, { protocol })
      const tls = protocol === 'mqtts' || protocol === 'wss' ? { ca } : {}
      const { connection, next } = connectionTo(t, { protocol, port, tls })
      connection.open()
      await next('ready')
      assert.ok(connection.rttMs > 0)
      const sizes = [0, 1, 100, 16_383, 16_384, 70_000, 300_000, 5]
      for (const [index, size] of sizes.entries()) {
        const payload = Buffer.alloc(size, index)
        connection.sendPublish({ topic: `n/${index}`, payload, qos: 0, retain: false, properties: undefined }, 0, false)
      }
      for (const [index, size] of sizes.entries()) {
        const { topic, payload } = await broker.next('publish')
        assert.equal(topic, `n/${index}`)
        assert.ok(Buffer.alloc(size, index).equals(payload as Buffer))
      }
      for (const size of [0, 1, 9_000]) broker.publish({ topic: `size/${size}`, payload: Buffer.alloc(size) })
      for (const size of [0, 1, 9_000]) assert.equal((await next('message')).topic, `size/${size}`)
      assert.deepEqual(await connection.subscribe(['a'], {
        qos: 1, noLocal: false, retainAsPublished: false, retainHandling: 0
      }), [1])
      await connection.unsubscribe(['a'])
      const disconnected = broker.next('disconnect')
      await connection.close(1_000)
      await disconnected
    })
  }

  for (const protocol of ['mqtts', 'wss'] as const) {
    const refusals: readonly (readonly [string, Partial<Way>, boolean, string])[] = [
      ['an authority that is not ours', {}, false, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
      ['another authority', { tls: { ca: otherCa } }, false, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
      ['a certificate for another host', { tls: { ca } }, true, 'ERR_TLS_CERT_ALTNAME_INVALID'],
      ['another host by its address', { tls: { ca }, host: '127.0.0.1' }, true, 'ERR_TLS_CERT_ALTNAME_INVALID'],
      ['a name that is not on the certificate', { tls: { ca, servername: 'broker.example' } }, false,
        'ERR_TLS_CERT_ALTNAME_INVALID'],
      ['options for ws that turn it off', { wsOptions: { rejectUnauthorized: false } }, false,
        'UNABLE_TO_VERIFY_LEAF_SIGNATURE']
    ]
    for (const [name, way, isOtherHost, code] of refusals) {
      test(`${protocol}: ${name} is refused, once an attempt, and never sees CONNECT`, async (t) => {
        const broker = await startScriptedBroker(t)
        const gateway = await startGateway(t, broker.port, { protocol, isOtherHost })
        const { connection, next, all } = connectionTo(t, { protocol, port: gateway.port, ...way })
        connection.open()
        await next('down')
        const told: unknown[] = []
        connection.client?.on('error', (error) => told.push('code' in error && error.code))
        for (let attempt = 0; attempt < 2; attempt++) {
          const { cause } = await next('down')
          assert.deepEqual([cause.code, refusalClass(cause)], [code, 'slow'])
        }
        await connection.close(100)
        assert.deepEqual(told, [code, code])
        assert.deepEqual([all.length, gateway.received(), broker.connections.length], [3, 0, 0])
      })
    }

    test(`${protocol}: what ought to be right is, by name, by address, and without verification`, async (t) => {
      const broker = await startScriptedBroker(t)
      const right = (await startGateway(t, broker.port, { protocol })).port
      const other = (await startGateway(t, broker.port, { protocol, isOtherHost: true })).port
      for (const way of [
        { port: right, tls: { ca } }, { port: right, tls: { ca }, host: '127.0.0.1' },
        { port: other, tls: { ca, servername: 'broker.example' } }, { port: other, tls: { rejectUnauthorized: false } }
      ]) {
        const { connection, next } = connectionTo(t, { protocol, ...way })
        connection.open()
        await next('ready')
        await connection.close(1_000)
      }
    })
  }

  test('an environment that turns verification off has no effect', async (t) => {
    const broker = await startScriptedBroker(t)
    const before = process.env['NODE_TLS_REJECT_UNAUTHORIZED']
    const { port } = await startGateway(t, broker.port, { protocol: 'mqtts' })
    const silenced = process.emitWarning
    onEnd(t, () => {
      process.emitWarning = silenced
      if (before === undefined) delete process.env['NODE_TLS_REJECT_UNAUTHORIZED']
      else process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = before
    })
    process.emitWarning = () => {}
    process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0'
    const { connection, next } = connectionTo(t, { protocol: 'mqtts', port })
    connection.open()
    assert.equal((await next('down')).cause.code, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE')
  })

  type Start = (owner: Owner) => Promise<{ port: number }>
  const strangers: readonly (readonly [string, Protocol, Start, RegExp, string])[] = [
    ['a web server', 'ws', startWebServer, /^FST_MQTT_CONNECTION$/, 'Unexpected server response: 200'],
    ['a WebSocket without MQTT', 'ws', startOtherWebSocket, /^FST_MQTT_CONNECTION$/, 'Server sent no subprotocol'],
    ['a web server', 'mqtt', startWebServer, /^FST_MQTT_MALFORMED$/, ''],
    ['a server without TLS', 'mqtts', startWebServer, /^(ERR_SSL_WRONG_VERSION_NUMBER|EPROTO|ERR_SSL_)/, ''],
    ['a server without TLS', 'wss', startWebServer, /^(ERR_SSL_WRONG_VERSION_NUMBER|EPROTO|ERR_SSL_)/, ''],
    ['a server with TLS', 'mqtt', startTls, /^(FST_MQTT_CONNECTION|FST_MQTT_MALFORMED|ECONNRESET|EPIPE)$/, ''],
    ['nobody', 'mqtts', async () => ({ port: await closedPort() }), /^ECONNREFUSED$/, ''],
    ['nobody', 'wss', async () => ({ port: await closedPort() }), /^ECONNREFUSED$/, '']
  ]
  for (const [name, protocol, start, code, says] of strangers) {
    test(`${protocol} to ${name} fails with a code, once an attempt`, async (t) => {
      const { port } = await start(t)
      const { connection, next } = connectionTo(t, { protocol, port, tls: { ca } })
      connection.open()
      for (let attempt = 0; attempt < 2; attempt++) {
        const { cause, wasUp } = await next('down')
        assert.match(cause.code ?? '', code)
        assert.ok(cause.message.includes(says), cause.message)
        assert.equal(wasUp, false)
      }
    })
  }

  for (const protocol of ['mqtts', 'ws', 'wss'] as const) {
    test(`${protocol} to a server that says nothing ends in time, also by close() while it is tried`, async (t) => {
      const silent = await startSilentServer(t)
      const { connection, next } = createConnection(t, silent.port, {
        connectTimeoutMs: 100,
        address: { protocol, host: 'localhost', port: silent.port, path: '/', text: '' },
        reconnect: { minDelayMs: 1, maxDelayMs: 1 }
      })
      connection.open()
      const { cause } = await next('down')
      assert.deepEqual([cause.code, cause.message], ['FST_MQTT_CONNECTION', 'connack timeout'])
      while (silent.connections() === 0) await new Promise((resolve) => setImmediate(resolve))
      await connection.close(100)
      while (silent.connections() > 0) await new Promise((resolve) => setImmediate(resolve))
    })
  }

  test('what a broker must not send is told to it in a DISCONNECT, over every transport', async (t) => {
    const broker = await startScriptedBroker(t)
    for (const protocol of ['mqtt', 'mqtts', 'ws', 'wss'] as const) {
      const { port } = await startGateway(t, broker.port, { protocol })
      const tls = protocol === 'mqtts' || protocol === 'wss' ? { ca } : {}
      const { connection, next } = connectionTo(t, { protocol, port, tls })
      connection.open()
      await next('ready')
      broker.connections.at(-1)?.sendBytes(Buffer.of(0xd0, 1, 0))
      assert.equal((await broker.next('disconnect')).reasonCode, 0x81)
      assert.ok((await next('down')).cause instanceof errors.FST_MQTT_MALFORMED)
      await connection.close(100)
    }
  })

  test('an IPv6 address is one for every transport', { skip: noIpv6 }, async (t) => {
    const broker = await startScriptedBroker(t)
    for (const protocol of ['mqtt', 'mqtts', 'ws', 'wss'] as const) {
      const { port } = await startGateway(t, broker.port, { protocol, host: '::1' })
      const tls = protocol === 'mqtts' || protocol === 'wss' ? { ca } : {}
      const { connection, next } = connectionTo(t, { protocol, port, host: '::1', tls })
      connection.open()
      await next('ready')
      await connection.close(1_000)
    }
  })
})

async function listening (owner: Owner, server: Server): Promise<{ port: number }> {
  const port = await listen(server)
  onEnd(owner, async () => { await once(server.close(), 'close') })
  return { port }
}

async function startWebServer (owner: Owner): Promise<{ port: number }> {
  const server = createHttpServer((_request, response) => response.end('<html>'))
  server.on('upgrade', (_request, socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'))
  return await listening(owner, server)
}

async function startOtherWebSocket (owner: Owner): Promise<{ port: number }> {
  const silent = await startSilentServer(owner)
  return await startGateway(owner, silent.port, { protocol: 'ws', subprotocol: false })
}

async function startTls (owner: Owner): Promise<{ port: number }> {
  const silent = await startSilentServer(owner)
  return await startGateway(owner, silent.port, { protocol: 'mqtts' })
}
