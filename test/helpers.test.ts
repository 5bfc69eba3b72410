import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { test } from 'node:test'
import mqtt from 'mqtt'
import { within } from './helpers/deadline.ts'
import { mosquittoCtrl, mosquittoPub, mosquittoSub } from './helpers/mosquitto-clients.ts'
import { certificates, mosquittoMissing, passwordFile, startMosquitto } from './helpers/mosquitto.ts'
import { closedPort } from './helpers/ports.ts'
import { startProxy } from './helpers/proxy.ts'
import { startScriptedBroker, startSilentServer } from './helpers/scripted-broker.ts'
import { onEnd, type Owner } from './helpers/cleanup.ts'

const skip = mosquittoMissing
const binary = Buffer.from([0x00, 0x0a, 0xff, 0x20, 0x61])

async function connect (owner: Owner, url: string, options: mqtt.IClientOptions = {}) {
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0, protocolVersion: 5, ...options }, false)
  client.on('error', () => {})
  onEnd(owner, () => client.endAsync(true))
  return client
}

/** Unlike `once` of node:events, this minds no 'error': a reset makes one before 'close'. */
async function closing (client: mqtt.MqttClient): Promise<void> {
  await within(new Promise<void>((resolve) => client.once('close', resolve)), 5_000, 'close')
}

test('startMosquitto: all four listeners take clients', { skip }, async (t) => {
  const broker = await startMosquitto(t)
  const { ports } = broker
  await connect(t, broker.url)
  await connect(t, `ws://127.0.0.1:${ports.websocket}`)
  await mosquittoPub(broker, { tls: true, topic: 'a', message: 'over TLS', qos: 1 })
  await connect(t, `mqtt://127.0.0.1:${ports.dynsec}`, { username: 'admin', password: 'admin-password' })
})

for (const version of [4, 5] as const) {
  test(`mosquittoPub and mosquittoSub: binary round trip with MQTT version ${version}`, { skip }, async (t) => {
    const broker = await startMosquitto(t)
    const subscriber = mosquittoSub(t, broker, { topics: ['a/#', 'b'], qos: 2, version, count: 3 })
    await subscriber.ready
    await mosquittoPub(broker, { topic: 'a/with blank', message: binary, qos: 2, version })
    assert.deepEqual(await subscriber.next(), { topic: 'a/with blank', payload: binary, qos: 2, retain: false })

    await mosquittoPub(broker, { topic: 'b', message: '', version })
    await mosquittoPub(broker, { topic: 'b', message: 'text', qos: 1, retain: true, version })
    const rest = []
    for await (const message of subscriber) rest.push(message)
    assert.deepEqual(rest, [
      { topic: 'b', payload: Buffer.alloc(0), qos: 0, retain: false },
      { topic: 'b', payload: Buffer.from('text'), qos: 1, retain: false }
    ])
  })
}

test('startMosquitto: comes back on the same ports while clients are connected', { skip }, async (t) => {
  const broker = await startMosquitto(t)
  for (const url of [broker.url, `ws://127.0.0.1:${broker.ports.websocket}`]) {
    const client = await connect(t, url)
    const closed = closing(client)
    await broker.stop('SIGKILL')
    await closed
    await broker.start()
  }
  await connect(t, broker.url)
  await connect(t, `ws://127.0.0.1:${broker.ports.websocket}`)
})

test('startMosquitto: an extra listener with passwords, rules and client certificates', { skip }, async (t) => {
  const broker = await startMosquitto(t, {
    lines: [
      'listener {{extra}} 127.0.0.1', 'allow_anonymous false',
      'password_file {{dir}}/passwords', 'acl_file {{dir}}/rules',
      'cafile {{certs}}/ca.crt', 'certfile {{certs}}/server.crt', 'keyfile {{certs}}/server.key',
      'require_certificate true'
    ],
    files: { passwords: passwordFile({ ann: 'secret' }), rules: 'user ann\ntopic readwrite open\n' }
  })
  const port = broker.ports.extra
  const ann = { port, tls: 'mutual', username: 'ann', password: 'secret' } as const
  await mosquittoPub(broker, { ...ann, topic: 'open', message: 'x', qos: 1 })
  await assert.rejects(mosquittoPub(broker, { ...ann, topic: 'shut', message: 'x', qos: 1 }), /Not authorized/)
  await assert.rejects(mosquittoPub(broker, { ...ann, password: 'wrong', topic: 'open', message: 'x' }))
  await assert.rejects(mosquittoPub(broker, { ...ann, tls: true, topic: 'open', message: 'x' }))
  await mosquittoSub(t, broker, { ...ann, topics: ['open'] }).ready
})

test('startMosquitto: a mistaken line rejects with what the broker says', { skip }, async (t) => {
  await assert.rejects(startMosquitto(t, { lines: ['no_such_option 1'] }), /no_such_option/)
})

test('the dynamic security listener refuses strangers and obeys the administrator', { skip }, async (t) => {
  const broker = await startMosquitto(t)
  const { dynsec } = broker.ports
  await assert.rejects(mosquittoPub(broker, { port: dynsec, topic: 'a', message: 'x' }), /[Nn]ot authori[sz]ed/)
  await mosquittoCtrl(broker, 'dynsec', 'createClient', 'ann', '-p', 'secret')
  assert.match(await mosquittoCtrl(broker, 'dynsec', 'listClients'), /^admin\nann$/m)
  const ann = { port: dynsec, username: 'ann', password: 'secret' }
  await assert.rejects(mosquittoSub(t, broker, { ...ann, topics: ['a'] }).ready, /refused|denied/)
})

test('startMosquitto: leaves no folder behind', { skip }, async (t) => {
  let directory = ''
  await t.test('a test with a broker', async (t) => { directory = (await startMosquitto(t)).directory })
  assert.equal(existsSync(directory), false)
  assert.ok(existsSync(certificates.ca))
})

test('startProxy: hold stops both ways, resume lets all through, cut ends it', async (t) => {
  const broker = await startScriptedBroker(t)
  const proxy = await startProxy(t, broker.port, { delayMs: 1 })
  const client = await connect(t, proxy.url)
  assert.equal(proxy.connections(), 1)

  proxy.hold()
  const published = client.publishAsync('a', 'held', { qos: 1 })
  await assert.rejects(within(published, 50, 'answer'), /no answer within/)
  assert.equal(broker.received.some(({ cmd }) => cmd === 'publish'), false)
  proxy.resume()
  await published

  const closed = closing(client)
  proxy.cut()
  await closed
  assert.equal(proxy.connections(), 0)
})

test('startProxy: cutAfter lets exactly so many bytes pass', async (t) => {
  const broker = await startScriptedBroker(t)
  const proxy = await startProxy(t, broker.port)
  const client = await connect(t, proxy.url)
  const socket = broker.connections[0]?.socket
  const before = socket?.bytesRead ?? 0

  proxy.cutAfter(5)
  const closed = closing(client)
  client.publish('a', 'longer than five bytes')
  await closed
  // Not once() of node:events, which rejects if the reset is seen as an error first.
  if (socket && !socket.closed) await new Promise((resolve) => socket.once('close', resolve))
  assert.equal((socket?.bytesRead ?? 0) - before, 5)
})

test('startProxy: refuse resets new connections, drop loses one direction', async (t) => {
  const broker = await startScriptedBroker(t)
  const proxy = await startProxy(t, broker.port)
  proxy.refuse(true)
  await assert.rejects(connect(t, proxy.url))
  proxy.refuse(false)
  const client = await connect(t, proxy.url)

  proxy.drop('down')
  client.on('message', () => assert.fail('this message was to be lost'))
  broker.publish({ topic: 'a', payload: 'lost', qos: 1 })
  client.publish('a', 'up', { qos: 1 }, () => {})
  assert.equal((await broker.next('publish')).topic, 'a')
})

for (const protocolVersion of [4, 5] as const) {
  test(`startScriptedBroker: refuses one of two filters with MQTT version ${protocolVersion}`, async (t) => {
    const refusal = protocolVersion === 5 ? 135 : 128
    const broker = await startScriptedBroker(t, { grants: (filter, qos) => filter === 'b' ? refusal : qos })
    const client = await connect(t, broker.url, { protocolVersion })
    await client.subscribeAsync({ a: { qos: 2 }, b: { qos: 1 } }).catch(() => {})
    assert.deepEqual((await broker.next('subscribe')).subscriptions.map(({ topic }) => topic), ['a', 'b'])

    const arrived = new Promise<[string, Buffer]>((resolve) => {
      client.once('message', (topic, payload) => resolve([topic, payload]))
    })
    broker.publish({ topic: 'a', payload: binary, qos: 2 })
    assert.deepEqual(await within(arrived, 5_000, 'message'), ['a', binary])
    await broker.next('pubcomp')
    for (const qos of [0, 1, 2] as const) await client.publishAsync('a', 'x', { qos })
    await client.unsubscribeAsync('a')
    await client.endAsync()
    await broker.next('disconnect')
  })

  test(`startScriptedBroker: refuses a CONNECT of MQTT version ${protocolVersion}`, async (t) => {
    const broker = await startScriptedBroker(t, { connack: { reasonCode: protocolVersion === 5 ? 135 : 5 } })
    await assert.rejects(connect(t, broker.url, { protocolVersion }), /Not authorized/)
  })
}

test('startSilentServer takes a connection and says nothing, closedPort refuses one', async (t) => {
  const silent = await startSilentServer(t)
  await assert.rejects(connect(t, silent.url, { connectTimeout: 50 }), /timeout/i)
  await assert.rejects(once(connectTcp(await closedPort(), '127.0.0.1'), 'connect'), { code: 'ECONNREFUSED' })
})
