import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test, type TestContext } from 'node:test'
import type { IPublishPacket } from 'mqtt-packet'
import { Administration } from '../lib/administration.ts'
import { errors, type Message } from '../lib/index.ts'
import { createApp, inbox } from './helpers/app.ts'
import { onEnd } from './helpers/cleanup.ts'
import { startScriptedBroker, startSilentServer, type ScriptedConnection } from './helpers/scripted-broker.ts'

const responses = '$CONTROL/dynamic-security/v1/response'

test('dynsec: without the option it is a coded error', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  assert.throws(() => fastify.mqtt.dynsec, { code: 'FST_MQTT_DYNSEC_NOT_ENABLED' })
})

test("dynsec: the plugin's connection and the administrator's have the time of the start together", async (t) => {
  const broker = await startScriptedBroker(t, {
    onPacket ({ cmd }, connection) {
      if (cmd !== 'connect') return
      // Late, but in time.
      setTimeout(() => connection.send({ cmd: 'connack', reasonCode: 0, sessionPresent: false }), 1_000)
      return true
    }
  })
  const silent = await startSilentServer(t)
  const { fastify } = await createApp(t, {
    url: broker.url, connectTimeout: 1_500, dynsec: { connection: { url: silent.url, username: 'admin', password: 'p' } }
  }, { pluginTimeout: 2_500 })
  // Two times 1.5 s Fastify would not have waited for.
  await assert.rejects(async () => { await fastify.ready() }, {
    code: 'FST_MQTT_CONNECT_FAILED', message: new RegExp(`127.0.0.1:${silent.port}`)
  })
  // And nothing of it stays.
  while (silent.connections() > 0) await new Promise((resolve) => setImmediate(resolve))
})

test('dynsec: a broker of 3.1.1 that never answers is told from one that is away, and asked anew', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, protocolVersion: 4, dynsec: { timeout: 50 } })
  await fastify.ready()
  for (const attempt of [1, 2]) {
    await assert.rejects(fastify.mqtt.dynsec.roles.get('a'), {
      code: 'FST_MQTT_DYNSEC_NO_ANSWER', message: /which MQTT 3.1.1 cannot tell/
    }, `attempt ${attempt}`)
    assert.deepEqual((await broker.next('unsubscribe')).unsubscriptions, [responses])
  }
})

test('dynsec: what the plugin does not answer takes no subscription from a topic for the answers', async (t) => {
  const broker = await startScriptedBroker(t)
  const { fastify } = await createApp(t, { url: broker.url, dynsec: { timeout: 50 } })
  const seen = inbox<string>()
  const put = (message: Message) => seen.put(message.text())
  const topic = fastify.mqtt.topic(responses, { absolute: true, qos: 1 }, put)
  await fastify.ready()
  await assert.rejects(fastify.mqtt.dynsec.roles.get('a'), { code: 'FST_MQTT_DYNSEC_NO_ANSWER' })
  const asked = broker.received.filter(({ cmd }) => cmd === 'subscribe' || cmd === 'unsubscribe')
  assert.deepEqual(asked.map(({ cmd }) => cmd), ['subscribe'])
  broker.publish({ topic: responses, payload: 'of another' })
  assert.equal(await seen.next(), 'of another')
  topic.remove()
  assert.deepEqual((await broker.next('unsubscribe')).unsubscriptions, [responses])
})

test('dynsec: a topic for the answers that ends takes no subscription from who needs them here', async (t) => {
  const broker = await startScriptedBroker(t, {
    onPacket (packet) {
      if (packet.cmd !== 'publish') return
      type Sent = { commands: { correlationData: string }[] }
      const { commands } = JSON.parse(packet.payload.toString()) as Sent
      const answers = commands.map(({ correlationData }) =>
        ({ correlationData, error: 'Unknown command' }))
      broker.publish({ topic: responses, payload: JSON.stringify({ responses: answers }) })
    }
  })
  const { fastify } = await createApp(t, { url: broker.url, dynsec: { timeout: 1_000 } })
  await fastify.ready()
  await fastify.mqtt.dynsec.capabilities()
  const topic = fastify.mqtt.topic(responses, { absolute: true, qos: 1 }, () => {})
  await fastify.mqtt.connect()
  topic.remove()
  const asked = [await broker.next('subscribe'), await broker.next('subscribe'), await broker.next('subscribe')]
  assert.deepEqual(asked.map(({ subscriptions: [first] }) => [first?.topic, first?.qos]), [
    [responses, 0], [responses, 1], [responses, 0]
  ])
  await assert.rejects(fastify.mqtt.dynsec.roles.get('a'), { code: 'FST_MQTT_DYNSEC_UNSUPPORTED' })
  // Where nobody here needs them any more, it ends.
  const other = fastify.mqtt.topic('other', () => {})
  await fastify.mqtt.connect()
  other.remove()
  assert.deepEqual((await broker.next('unsubscribe')).unsubscriptions, ['other'])
})

test('dynsec: a connection lost before the subscription is answered, and before the command is', async (t) => {
  let losses: string[] = ['subscribe', 'publish']
  const broker = await startScriptedBroker(t, {
    onPacket (packet, connection) {
      if (packet.cmd !== losses[0]) return false
      losses = losses.slice(1)
      connection.destroy()
      return true
    }
  })
  const { fastify } = await createApp(t, {
    url: broker.url, dynsec: { timeout: 2_000 }, reconnect: { minDelay: 1, maxDelay: 1 }
  })
  await fastify.ready()
  await assert.rejects(fastify.mqtt.dynsec.roles.get('a'), { code: 'FST_MQTT_OFFLINE' })
  await fastify.mqtt.connect()
  await assert.rejects(fastify.mqtt.dynsec.roles.get('a'), { code: 'FST_MQTT_OFFLINE' })
  assert.deepEqual(losses, [])
})

suite('dynsec: in a member of a group', () => {
  const control = '$CONTROL/dynamic-security/v1'

  interface Command {
    readonly command: string
    readonly correlationData: string
  }

  /** Commands to the plugin, in the order in which they came. */
  function commandsIn (packets: readonly { cmd: string }[]): string[] {
    return packets.filter((packet): packet is IPublishPacket => packet.cmd === 'publish')
      .filter(({ topic }) => topic === control).flatMap(({ payload }) => commandsOf(payload))
      .map(({ command }) => command)
  }

  function commandsOf (payload: string | Buffer): Command[] {
    return (JSON.parse(payload.toString()) as { commands: Command[] }).commands
  }

  /** An owner and a member of its group, on a broker whose plugin says nothing more after `createRole`. */
  async function startPair (t: TestContext) {
    const mute = new WeakSet<ScriptedConnection>()
    const plugin = { isSilent: false }
    const broker = await startScriptedBroker(t, {
      onPacket (packet, connection) {
        if (packet.cmd !== 'publish' || packet.topic !== control) return
        const commands = commandsOf(packet.payload)
        if (commands.some(({ command }) => command === 'createRole')) mute.add(connection)
        if (plugin.isSilent || mute.has(connection)) return
        const answers = commands.map(({ command, correlationData }) => ({ command, correlationData, error: 'Unknown command' }))
        broker.publish({ topic: responses, payload: JSON.stringify({ responses: answers }) })
      }
    })
    const dir = mkdtempSync(join(tmpdir(), 'mm-'))
    onEnd(t, () => rmSync(dir, { recursive: true, force: true }))
    const start = async () => {
      const { fastify } = await createApp(t, {
        url: broker.url,
        dynsec: { timeout: 300 },
        processes: { mode: 'single', group: 'g', dir, heartbeat: 100, ownerTimeout: 5_000 },
        reconnect: { minDelay: 1, maxDelay: 1 }
      })
      await fastify.ready()
      return fastify
    }
    const owner = await start()
    const member = await start()
    assert.deepEqual([owner.mqtt.role, member.mqtt.role], ['owner', 'member'])
    const role = { rolename: 'r' }
    const sent = async (command = 'createRole') => {
      let commands: readonly string[] = []
      while (!commands.includes(command)) commands = commandsIn([await broker.next('publish')])
    }
    const executed = () => commandsIn(broker.received).filter((command) => command === 'createRole').length
    return { broker, plugin, owner, member, role, sent, executed }
  }

  test('an answer that does not come is TIMEOUT, after the same time as in the owner', async (t) => {
    const { owner, member, role, executed } = await startPair(t)
    for (const { mqtt } of [member, owner]) {
      const since = performance.now()
      await assert.rejects(mqtt.dynsec.roles.create(role), {
        code: 'FST_MQTT_DYNSEC_TIMEOUT', command: 'createRole', message: /within 325 ms/
      })
      const passed = performance.now() - since
      assert.ok(passed >= 324 && passed < 1_500, `${passed} ms`)
    }
    assert.equal(executed(), 2)
  })

  test('a signal that is aborted after it was sent: ABORTED, at once, which says so', async (t) => {
    const { member, role, sent } = await startPair(t)
    const controller = new AbortController()
    const created = member.mqtt.dynsec.roles.create(role, { signal: controller.signal, timeout: 10_000 })
    await sent()
    controller.abort(new Error('enough'))
    await assert.rejects(created, {
      code: 'FST_MQTT_DYNSEC_ABORTED', message: /may or may not have been executed/, cause: new Error('enough')
    })
  })

  test('the connection of the owner is lost: OUTCOME_UNKNOWN, and it is not sent again', async (t) => {
    const { broker, member, role, sent, executed } = await startPair(t)
    const created = member.mqtt.dynsec.roles.create(role, { timeout: 10_000 })
    await sent()
    broker.connections[0]?.destroy()
    await assert.rejects(created, { code: 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN', command: 'createRole' })
    await broker.next('connect')
    while (member.mqtt.status !== 'ready') await new Promise((resolve) => setImmediate(resolve))
    await member.mqtt.dynsec.capabilities()
    assert.equal(executed(), 1)
  })

  test('the owner closes: OUTCOME_UNKNOWN, and the member, which owns now, does not send it again', async (t) => {
    const { owner, member, role, sent, executed } = await startPair(t)
    const settling = member.mqtt.dynsec.batch([{ command: 'createRole', ...role }], { timeout: 10_000 })
    await sent()
    await owner.close()
    const [settled] = await settling
    assert.equal(settled.status === 'rejected' && settled.reason.code, 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN')
    await member.mqtt.connect()
    await member.mqtt.dynsec.capabilities()
    assert.deepEqual([member.mqtt.role, executed()], ['owner', 1])
  })

  test('the member itself closes: CLOSED', async (t) => {
    const { member, role, sent } = await startPair(t)
    const created = assert.rejects(member.mqtt.dynsec.roles.create(role, { timeout: 10_000 }), { code: 'FST_MQTT_CLOSED' })
    await sent()
    await member.close()
    await created
  })

  test('while the way to the plugin is being made nothing was sent, and the errors say so', async (t) => {
    const { broker, plugin, owner, member, role, sent, executed } = await startPair(t)
    plugin.isSilent = true
    const create = (options = {}) => member.mqtt.dynsec.roles.create(role, options)
    await assert.rejects(create(), { code: 'FST_MQTT_DYNSEC_NO_ANSWER' })
    await sent('getDetails')
    const controller = new AbortController()
    const aborted = create({ signal: controller.signal })
    await sent('getDetails')
    controller.abort(new Error('enough'))
    await assert.rejects(aborted, { code: 'FST_MQTT_DYNSEC_ABORTED', message: /nothing was sent/ })
    const offline = { code: 'FST_MQTT_OFFLINE' }
    const cut = create()
    broker.connections.at(-1)?.destroy()
    await assert.rejects(cut, offline)
    while (member.mqtt.status !== 'ready') await new Promise((resolve) => setImmediate(resolve))
    const closed = create()
    await sent('getDetails')
    await owner.close()
    await assert.rejects(closed, offline)
    assert.equal(executed(), 0)
  })

  test('an owner that says nothing at all is NO_ANSWER before, and TIMEOUT after it may have been sent', async () => {
    let calls: string[] = []
    const group = {
      serve () {},
      async call (name: string) {
        calls = [...calls, name]
        if (calls.length % 3 !== 2) throw new errors.FST_MQTT_PUBLISH_TIMEOUT(50)
        return { capabilities: {}, self: { groups: [], roles: [] }, maximumPacketSize: null, roundTripMs: 1 }
      }
    }
    const own = { watch: () => () => {} }
    const { dynsec } = new Administration('', { timeoutMs: 50, chunk: undefined }, {
      settings: { address: { text: 'mqtt://broker' } }, own, dispatcher: {}, group
    } as unknown as ConstructorParameters<typeof Administration>[2])
    await assert.rejects(dynsec.roles.create({ rolename: 'r' }), {
      code: 'FST_MQTT_DYNSEC_NO_ANSWER', message: /within 150 ms.*the process that has the connection/
    })
    await assert.rejects(dynsec.roles.create({ rolename: 'r' }), { code: 'FST_MQTT_DYNSEC_TIMEOUT' })
    assert.deepEqual(calls, ['dynsec.session', 'dynsec.session', 'dynsec.send'])
  })
})
