import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomInt, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { suite, test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { connect, connectAsync } from 'mqtt'
import type { Message, MultimqttOptions } from '../lib/index.ts'
import type { Patience } from '../lib/session/job.ts'
import type { PublishProperties, QoS } from '../types/message.ts'
import {
  badOptions, badPayloads, badProperties, badTopicOptions, badTopics, badTopicTypes
} from './fixtures/bad-input.ts'
import { createApp, inbox } from './helpers/app.ts'
import { onEnd } from './helpers/cleanup.ts'
import { deferred, within } from './helpers/deadline.ts'
import { mosquittoMissing, startMosquitto, type Mosquitto } from './helpers/mosquitto.ts'
import { endWithUs } from './helpers/programs.ts'
import { startProxy } from './helpers/proxy.ts'
import { countRoundTrips } from './helpers/round-trips.ts'
import { openUnguarded, type Unguarded } from './helpers/unguarded.ts'

/** QoS 2 of Mosquitto 2.0.11 stalls with bounds of its own; what it drops would look like our loss. */
const unbounded = ['max_inflight_messages 0', 'max_queued_messages 0']
const reconnect = { minDelay: 5, maxDelay: 20 }
const ceilingMs = 60_000

function keptSession (): MultimqttOptions {
  return { session: { expiry: 3_600 }, clientId: `kept-${randomUUID()}` }
}

/** Notes what arrives at a broker on n/<int:n>, in order, by a connection that nothing happens to. */
async function observe (t: TestContext, broker: Mosquitto) {
  const { fastify } = await createApp(t, { url: broker.url })
  const seen: number[] = []
  const end = deferred<void>()
  fastify.mqtt.topic('n/<int:n>', { qos: 2 }, ({ params }) => { seen.push(params.n) })
  fastify.mqtt.topic('end', { qos: 2 }, () => end.resolve())
  await fastify.ready()
  return {
    seen,
    /** All that the broker has taken by now has arrived when this resolves. */
    async arrived () {
      await fastify.mqtt.publish('end', '', { qos: 2 })
      await within(end.promise, ceilingMs, 'end')
    },
    /** How many there are, without those that came twice, which follow the first. */
    firsts: () => [...new Set(seen)]
  }
}

/** 'ok', or the code of the error. */
async function endOf (publishing: Promise<void>): Promise<string> {
  return await publishing.then(() => 'ok', ({ code }: { code: string }) => code)
}

function isAscending (numbers: readonly number[]): boolean {
  return numbers.every((number, index) => index === 0 || number > (numbers[index - 1] ?? 0))
}

suite('publishing over cuts, on Mosquitto', { skip: mosquittoMissing, concurrency: 4 }, () => {
  for (const version of [5, 4] as const) {
    for (const [qos, session] of [[1, 'clean'], [1, 'kept'], [2, 'kept'], [2, 'clean']] as const) {
      test(`MQTT ${version}, QoS ${qos}, a ${session} session: 2,000 over six cuts`, async (t) => {
        const broker = await startMosquitto(t, { lines: unbounded })
        const { seen, arrived, firsts } = await observe(t, broker)
        const proxy = await startProxy(t, broker.ports.plain, { delayMs: 1 })
        const { fastify } = await createApp(t, {
          url: proxy.url, protocolVersion: version, reconnect, ...(session === 'kept' ? keptSession() : {})
        })
        await fastify.ready()
        const publishing: Promise<string>[] = []
        let cuts = 0
        for (let n = 0; n < 2_000; n++) {
          publishing.push(endOf(fastify.mqtt.publish(`n/${n}`, '', { qos })))
          if (n % 2 === 1) await sleep(1)
          if (n > 250 * (cuts + 1) && cuts < 6 && fastify.mqtt.status === 'ready') {
            proxy.cut()
            cuts++
          }
        }
        assert.equal(cuts, 6)
        const ends = await within(Promise.all(publishing), ceilingMs, 'end of every publish')
        await arrived()
        const refused = ends.filter((end) => end !== 'ok')
        const delivered = new Set(seen)
        t.diagnostic(`${delivered.size} delivered, ${refused.length} rejected, ${seen.length - delivered.size} twice`)
        assert.ok(isAscending(firsts()), 'first deliveries are in order')
        if (qos === 2) assert.equal(seen.length, delivered.size, 'none came twice')
        if (qos === 1 || session === 'kept') {
          assert.equal(delivered.size, 2_000)
          assert.deepEqual(refused, [])
        } else {
          const lost = ends.flatMap((end, n) => end === 'ok' && !delivered.has(n) ? [n] : [])
          assert.deepEqual(lost, [], 'none that resolved is lost')
          assert.deepEqual(new Set(refused), new Set(['FST_MQTT_DELIVERY_UNKNOWN']))
        }
      })
    }
  }

  for (const [version, session] of [[5, 'clean'], [5, 'kept'], [4, 'clean'], [4, 'kept']] as const) {
    test(`MQTT ${version}, a ${session} session: the broker is started again in the midst of 600`, async (t) => {
      const persistent = ['persistence true', 'persistence_location {{dir}}/']
      const broker = await startMosquitto(t, { lines: [...unbounded, ...persistent] })
      const { fastify } = await createApp(t, {
        url: broker.url, protocolVersion: version, reconnect, ...(session === 'kept' ? keptSession() : {})
      })
      await fastify.ready()
      const publishing: Promise<string>[] = []
      let restarted: Promise<void> | undefined
      for (let n = 0; n < 600; n++) {
        const qos = n % 2 === 0 && session === 'kept' ? 2 : 1
        publishing.push(endOf(fastify.mqtt.publish(`n/${n}`, '1', { qos, retain: true })))
        if (n % 2 === 1) await sleep(1)
        if (n === 300) restarted = broker.stop().then(() => broker.start())
      }
      await restarted
      const ends = await within(Promise.all(publishing), ceilingMs, 'end of every publish')
      assert.deepEqual(new Set(ends), new Set(['ok']))
      assert.ok(fastify.mqtt.health().attempts > 1)
      // What the broker has taken it has kept.
      const { firsts, arrived } = await observe(t, broker)
      await arrived()
      assert.equal(firsts().length, 600)
    })
  }

  for (const [version, isCut] of [[5, false], [4, true]] as const) {
    test(`MQTT ${version}: 70,000 that waited for the broker${isCut ? ', and a cut with every identifier in use' : ''}`, async (t) => {
      const broker = await startMosquitto(t, { lines: unbounded })
      const { seen, arrived, firsts } = await observe(t, broker)
      const proxy = await startProxy(t, broker.ports.plain)
      proxy.refuse(true)
      const { fastify } = await createApp(t, {
        url: proxy.url,
        protocolVersion: version,
        start: 'background',
        reconnect,
        publishTimeout: ceilingMs,
        outbox: { maxMessages: 70_000, maxBytes: 2 ** 26 },
        ...keptSession()
      })
      await fastify.ready()
      const publishing = Array.from({ length: 70_000 }, (_, n) => fastify.mqtt.publish(`n/${n}`, '', { qos: 1 }))
      // PUBLISH takes 11 bytes: all identifiers are in use long before this.
      if (isCut) proxy.cutAfter(600_000)
      proxy.refuse(false)
      await within(Promise.all(publishing), ceilingMs, 'end of every publish')
      await arrived()
      assert.deepEqual([firsts().length, isAscending(firsts())], [70_000, true])
      if (isCut) assert.ok(proxy.accepted() > 1, 'it was cut')
      else assert.equal(seen.length, 70_000)
    })
  }

  for (const [version, window] of [[5, 20], [5, 1_000], [4, 1_000]] as const) {
    test(`MQTT ${version}, window ${window}: 1,000 that waited go in ${Math.ceil(1_000 / window)} round trips`, async (t) => {
      const broker = await startMosquitto(t, { lines: window === 20 ? [] : unbounded })
      const trips = countRoundTrips(version)
      const proxy = await startProxy(t, broker.ports.plain, { delayMs: 2, tap: trips.tap })
      proxy.refuse(true)
      const { fastify } = await createApp(t, {
        url: proxy.url, protocolVersion: version, start: 'background', reconnect
      })
      let acknowledged = 0
      const connected = new Promise<number>((resolve) => {
        fastify.mqtt.addHook('onConnect', () => resolve(acknowledged))
      })
      await fastify.ready()
      const publishing = Array.from({ length: 1_000 }, async (_, n) => {
        await fastify.mqtt.publish(`n/${n}`, '', { qos: 1 })
        acknowledged++
      })
      proxy.refuse(false)
      assert.equal(await connected, 0, 'connecting waits for none of them')
      await Promise.all(publishing)
      const least = Math.ceil(1_000 / window)
      t.diagnostic(`${trips.count()} round trips`)
      assert.ok(trips.count() >= least && trips.count() <= least * 1.2, `${trips.count()} round trips`)
    })
  }
})

/** Runs a program with handlers that never end, and kills it. @returns the topics whose handlers ran */
async function killedWhileRunning (
  program: string, args: readonly string[], publish: () => Promise<number>
): Promise<string[]> {
  const path = fileURLToPath(new URL(`fixtures/${program}`, import.meta.url))
  const child = spawn(process.execPath, [path, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  endWithUs(child)
  const exited = once(child, 'exit')
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const said = async () => (await within(lines.next(), 20_000, 'line of the process')).value as string
  assert.equal(await said(), 'ready')
  const running: string[] = []
  for (let left = await publish(); left > 0; left--) running.push(await said())
  child.kill('SIGKILL')
  await exited
  return running
}

suite('handling over cuts, on Mosquitto', { skip: mosquittoMissing, concurrency: 4 }, () => {
  for (const version of [5, 4] as const) {
    test(`MQTT ${version}: killed with eight handlers running of each QoS, eight of eight come again`, async (t) => {
      const broker = await startMosquitto(t, { lines: unbounded })
      const clientId = `killed-${randomUUID()}`
      const { fastify: publisher } = await createApp(t, { url: broker.url })
      await publisher.ready()
      const topics = Array.from({ length: 8 }, (_, n) => [`q1/${n}`, `q2/${n}`] as const).flat()
      const running = await killedWhileRunning('hanging.js', [broker.url, clientId, `${version}`], async () => {
        for (const topic of topics) {
          await publisher.mqtt.publish(topic, '', { qos: topic.startsWith('q1') ? 1 : 2 })
        }
        return topics.length
      })

      const seen = inbox<Message>()
      const session = { expiry: 3_600 }
      const options: MultimqttOptions = { url: broker.url, clientId, protocolVersion: version, session }
      const { fastify } = await createApp(t, options)
      for (const qos of [1, 2] as const) fastify.mqtt.topic(`q${qos}/<int:n>`, { qos }, seen.put)
      await fastify.ready()
      const again = []
      for (const _ of topics) again.push(await seen.next())
      assert.deepEqual(again.map(({ topic }) => topic).sort(), running.sort())
      assert.deepEqual(running, topics.slice().sort())
      assert.ok(again.every(({ dup }) => dup))
      // Now they are acknowledged, and come no more.
      await fastify.close()
      const { fastify: next } = await createApp(t, options)
      for (const qos of [1, 2] as const) next.mqtt.topic(`q${qos}/<int:n>`, { qos }, () => assert.fail('again'))
      const end = deferred<void>()
      next.mqtt.topic('end', { qos: 2 }, () => end.resolve())
      await next.ready()
      await publisher.mqtt.publish('end', '', { qos: 2 })
      await end.promise
      assert.equal(seen.all.length, 16)
    })

    test(`MQTT ${version}: killed with eight handlers running of each QoS, MQTT.js alone has told the broker that all is done`, async (t) => {
      const broker = await startMosquitto(t, { lines: unbounded })
      const clientId = `killed-${randomUUID()}`
      const publisher = await connectAsync(broker.url)
      onEnd(t, () => publisher.end(true))
      await killedWhileRunning('hanging-mqttjs.js', [broker.url, clientId, `${version}`], async () => {
        const numbers = [0, 1, 2, 3, 4, 5, 6, 7]
        for (const n of numbers) {
          await publisher.publishAsync(`q1/${n}`, '', { qos: 1 })
          await publisher.publishAsync(`q2/${n}`, '', { qos: 2 })
        }
        return 2 * numbers.length
      })
      const again: string[] = []
      const end = deferred<void>()
      const next = connect(broker.url, {
        clientId,
        protocolVersion: version,
        clean: false,
        ...(version === 4 ? {} : { properties: { sessionExpiryInterval: 3_600 } })
      })
      onEnd(t, () => next.end(true))
      next.on('message', (topic) => { topic === 'q2/end' ? end.resolve() : again.push(topic) })
      await new Promise<void>((resolve) => next.once('connect', () => resolve()))
      await publisher.publishAsync('q2/end', '', { qos: 2 })
      await within(end.promise, ceilingMs, 'end')
      t.diagnostic(`${again.length} of 16 come again`)
      assert.ok(again.length <= 2, `${again.join()} come again`)
    })

    test(`MQTT ${version}: 200 messages whose handlers wait for two publishes each, and hold all slots`, async (t) => {
      // With its own bounds: 20 messages that are not acknowledged.
      const broker = await startMosquitto(t)
      const { fastify, lines } = await createApp(t, {
        url: broker.url, protocolVersion: version, keepalive: 2
      })
      const { fastify: publisher } = await createApp(t, { url: broker.url })
      let started = 0
      let handled = 0
      const all = deferred<void>()
      const longest = sleep(3_500)
      fastify.mqtt.topic('job/<int:n>', { qos: 1 }, async ({ params }) => {
        if (++started <= 20) await longest
        for (const part of [1, 2]) await fastify.mqtt.publish(`done/${params.n}/${part}`, '', { qos: 1 })
        if (++handled === 200) all.resolve()
      })
      await Promise.all([fastify.ready(), publisher.ready()])
      const jobs = Array.from({ length: 200 }, (_, n) => `job/${n}`)
      await Promise.all(jobs.map((topic) => publisher.mqtt.publish(topic, '', { qos: 1 })))
      await within(all.promise, ceilingMs, 'end of every handler')
      assert.deepEqual([started, handled, fastify.mqtt.health().attempts], [200, 200, 1])
      assert.deepEqual(lines.filter(({ msg }) => /lost the connection|not handled/.test(msg)), [])
    })

    test(`MQTT ${version}: 200 messages whose handlers wait for two publishes each, MQTT.js alone is deadlocked`, async (t) => {
      const broker = await startMosquitto(t)
      const options = { protocolVersion: version, keepalive: 2, reconnectPeriod: 0 }
      const client = await connectAsync(broker.url, options)
      const publisher = await connectAsync(broker.url)
      onEnd(t, () => { for (const one of [client, publisher]) one.end(true) })
      const trouble = new Promise<Error>((resolve) => client.once('error', resolve))
      let [started, handled] = [0, 0]
      // All that it has to acknowledge a message after its handler.
      client.handleMessage = ({ topic }, done) => {
        started++
        const parts = [1, 2].map((part) => client.publishAsync(`done/${topic}/${part}`, '', { qos: 1 }))
        Promise.all(parts).then(() => { handled++ }, () => {}).finally(() => done())
      }
      await client.subscribeAsync('job/+', { qos: 1 })
      const jobs = Array.from({ length: 200 }, (_, n) => `job/${n}`)
      await Promise.all(jobs.map((topic) => publisher.publishAsync(topic, '', { qos: 1 })))
      const error = await within(trouble, ceilingMs, 'end of the connection')
      t.diagnostic(`${handled} of 200 handled, ${started} started, and then: ${error.message}`)
      assert.match(error.message, /keepalive/i)
      assert.ok(handled < 20, `${handled} handled`)
    })

    for (const qos of [1, 2] as const) {
      test(`MQTT ${version}, QoS ${qos}: seven cuts under running handlers, 300 of 300 handled${qos === 2 ? ', none twice' : ''}`, async (t) => {
        const broker = await startMosquitto(t, { lines: unbounded })
        const proxy = await startProxy(t, broker.ports.plain)
        const { fastify } = await createApp(t, {
          url: proxy.url, protocolVersion: version, reconnect, ...keptSession()
        })
        const { fastify: publisher } = await createApp(t, { url: broker.url })
        const started: number[] = []
        const ended = new Set<number>()
        const all = deferred<void>()
        let cuts = 0
        fastify.mqtt.topic('n/<int:n>', { qos }, async ({ params }) => {
          started.push(params.n)
          if (started.length > 35 * (cuts + 1) && cuts < 7) {
            cuts++
            proxy.cut()
          }
          await sleep(randomInt(20, 120))
          ended.add(params.n)
          if (ended.size === 300) all.resolve()
        })
        await Promise.all([fastify.ready(), publisher.ready()])
        for (let n = 0; n < 300; n++) {
          await publisher.mqtt.publish(`n/${n}`, '', { qos })
          if (n % 3 === 0) await sleep(1)
        }
        await within(all.promise, ceilingMs, 'end of every handler')
        // Nothing of it is left at the broker.
        await fastify.mqtt.idle()
        await fastify.mqtt.publish('n/300', '', { qos })
        while (!ended.has(300)) await sleep(5)
        const twice = started.length - new Set(started).size
        t.diagnostic(`${twice} run twice`)
        assert.deepEqual([cuts, ended.size], [7, 301])
        if (qos === 2) assert.equal(twice, 0)
        else assert.ok(twice <= 150, `${twice} run twice: only where the acknowledgement itself was lost`)
      })
    }

    test(`MQTT ${version}: late over a reconnect that has used its identifier again, it acknowledges nothing else`, async (t) => {
      // One message at a time: the next one comes only when the one before is acknowledged.
      const broker = await startMosquitto(t, { lines: ['max_inflight_messages 1'] })
      const proxy = await startProxy(t, broker.ports.plain)
      const { fastify } = await createApp(t, { url: proxy.url, protocolVersion: version, reconnect })
      const { fastify: publisher } = await createApp(t, { url: broker.url })
      const seen = inbox<string>()
      const release = new Map(['a', 'b', 'c'].map((name) => [name, deferred<void>()]))
      fastify.mqtt.topic('m/<name>', { qos: 1 }, async ({ params }) => {
        seen.put(params.name)
        await release.get(params.name)?.promise
      })
      await Promise.all([fastify.ready(), publisher.ready()])
      await publisher.mqtt.publish('m/a', '', { qos: 1 })
      assert.equal(await seen.next(), 'a')
      proxy.cut()
      await proxy.nextConnection()
      while (fastify.mqtt.health().subscriptions.granted.length === 0) await sleep(5)
      for (const name of ['b', 'c']) await publisher.mqtt.publish(`m/${name}`, '', { qos: 1 })
      assert.equal(await seen.next(), 'b')
      release.get('a')?.resolve()
      // An acknowledgement of ours would have reached the broker before this.
      for (let trip = 0; trip < 2; trip++) await fastify.mqtt.publish('trip', '', { qos: 1 })
      assert.deepEqual(seen.all, ['a', 'b'])
      release.get('b')?.resolve()
      assert.equal(await seen.next(), 'c')
      release.get('c')?.resolve()
    })
  }
})

/** Payloads that `publish` takes, and makes bytes of. */
const unencoded: readonly unknown[] = [
  42, true, null, undefined, { a: 1 }, [1], '温', new ArrayBuffer(8), new DataView(new ArrayBuffer(8)),
  new Uint16Array(8)
]

/** What the guard's lists have, as it would be sent without it. */
const rowsPastTheGuard: readonly ((to: Unguarded) => Promise<unknown>)[] = [
  ...[0, 1, 2].flatMap((qos) => [
    ...[...badTopics, ...badTopicTypes].map((topic) => ({ topic })),
    ...[...badPayloads, ...unencoded].map((payload) => ({ payload }))
  ].map((given) => async ({ publish }: Unguarded) => {
    const { topic, ...others } = { topic: 'bad', ...given } as { topic: string }
    await publish(topic, { ...others, qos: qos as QoS }, { timeoutMs: 5_000 })
  })),
  ...badOptions.map(({ timeout = 5_000, signal, ...others }) => async ({ publish }: Unguarded) => {
    await publish('bad', others, { timeoutMs: timeout, signal } as Patience)
  }),
  ...badProperties.map((properties) => async ({ publish }: Unguarded) => {
    await publish('bad', { properties: properties as PublishProperties }, { timeoutMs: 5_000 })
  }),
  ...badTopicOptions.map(([filter, options]) => async ({ subscribe }: Unguarded) => {
    await subscribe(filter, options)
  })
]

suite('what ends the connection, on Mosquitto', { skip: mosquittoMissing, concurrency: 4 }, () => {
  const poison = 'a/+'

  for (const version of [5, 4] as const) {
    for (const [count, ...poisons] of [[30, 15], [30, 3, 25], [1_000, 500]] as const) {
      test(`MQTT ${version}: ${poisons.length} among ${count}: the others are delivered, in order`, async (t) => {
        const broker = await startMosquitto(t, { lines: unbounded })
        const { arrived, firsts } = await observe(t, broker)
        const { up, publish, connections } = openUnguarded(t, broker.ports.plain, { version, expiry: 60 })
        await up
        const isPoison = (n: number) => (poisons as readonly number[]).includes(n)
        const publishing = Array.from({ length: count }, (_, n) => publish(isPoison(n) ? poison : `n/${n}`))
        const ends = await Promise.all(publishing.map(endOf))
        await arrived()
        t.diagnostic(`${connections() - 1} reconnects`)
        const refused = ends.flatMap((end, n) => end === 'ok' ? [] : [[n, end]])
        assert.deepEqual(refused, poisons.map((n) => [n, 'FST_MQTT_PUBLISH_REFUSED']))
        assert.deepEqual(firsts(), ends.flatMap((_, n) => isPoison(n) ? [] : [n]))
      })
    }

    test(`MQTT ${version}: QoS 0 ends it again and again, and the good ones beside it are not blamed`, async (t) => {
      const broker = await startMosquitto(t, { lines: unbounded })
      const { arrived, firsts } = await observe(t, broker)
      const { up, publish, connections } = openUnguarded(t, broker.ports.plain, { version, expiry: 60 })
      await up
      const good: Promise<void>[] = []
      for (let n = 0; n < 30; n++) {
        good.push(publish(`n/${n}`))
        publish(poison, { qos: 0 }).catch(() => {})
        await sleep(5)
      }
      await within(Promise.all(good), ceilingMs, 'end of every good one')
      await arrived()
      assert.deepEqual(firsts().sort((a, b) => a - b), Array.from({ length: 30 }, (_, n) => n))
      assert.ok(connections() > 3, `${connections()} connections`)
    })

    test(`MQTT ${version}: each row of the guard's lists, sent past the guard, harms no other message`, async (t) => {
      const broker = await startMosquitto(t, { lines: unbounded })
      const { arrived, firsts } = await observe(t, broker)
      const expected = await Promise.all(rowsPastTheGuard.map(async (send, row) => {
        const unguarded = openUnguarded(t, broker.ports.plain, { version, expiry: 60 })
        const publishing: Promise<void>[] = []
        const publishAround = (first: number) => {
          for (let n = first; n < first + 5; n++) {
            publishing.push(unguarded.publish(`n/${row * 10 + n}`))
            if (n === first + 2) send(unguarded).catch(() => {})
          }
        }
        // Among what waits for the connection, and on it.
        publishAround(0)
        await unguarded.up
        publishAround(5)
        await within(Promise.all(publishing), ceilingMs, `end of those beside row ${row}`)
        return Array.from({ length: 10 }, (_, n) => row * 10 + n)
      }))
      await arrived()
      assert.deepEqual(firsts().sort((a, b) => a - b), expected.flat())
    })

    for (const what of ['at once, before it arrives', 'at a random moment, before the acknowledgement arrives']) {
      test(`MQTT ${version}: a good message alone, and its connection cut ten times ${what}, is delivered`, async (t) => {
        const broker = await startMosquitto(t)
        const { arrived, firsts } = await observe(t, broker)
        let cuts = 0
        const proxy = await startProxy(t, broker.ports.plain, {
          tap (direction, bytes) {
            if (direction === 'down' || (bytes[0] ?? 0) >> 4 !== 3 || cuts === 10) return
            cuts++
            if (what.startsWith('at once')) {
              proxy.cut()
              return
            }
            proxy.drop('down')
            setTimeout(() => {
              proxy.drop(false)
              proxy.cut()
            }, randomInt(0, 40))
          }
        })
        const { up, publish } = openUnguarded(t, proxy.port, { version, expiry: 60 })
        await up
        await publish('n/7')
        await arrived()
        assert.deepEqual([cuts, firsts()], [10, [7]])
      })
    }

    test(`MQTT ${version}: larger than the broker takes, ${version === 5 ? 'it is refused, and' : 'which it cannot say,'} the connection lives`, async (t) => {
      const broker = await startMosquitto(t, { lines: ['message_size_limit 1000'] })
      const { fastify } = await createApp(t, { url: broker.url, protocolVersion: version })
      const seen = inbox<number>()
      fastify.mqtt.topic('a', { qos: 1 }, ({ raw }) => seen.put(raw.length))
      await fastify.ready()
      const ends = await Promise.all([1_001, 1, 2].map((size) =>
        endOf(fastify.mqtt.publish('a', Buffer.alloc(size), { qos: 1 }))))
      assert.deepEqual(ends, [version === 5 ? 'FST_MQTT_PUBLISH_REFUSED' : 'ok', 'ok', 'ok'])
      assert.deepEqual([await seen.next(), await seen.next(), fastify.mqtt.health().attempts], [1, 2, 1])
    })

    test(`MQTT ${version}: 60 with QoS 2 at once, on a broker that takes 20, are all taken on one connection`, async (t) => {
      const broker = await startMosquitto(t)
      const { fastify } = await createApp(t, { url: broker.url, protocolVersion: version })
      await fastify.ready()
      const ends = await Promise.all(Array.from({ length: 60 }, (_, number) =>
        endOf(fastify.mqtt.publish('a', String(number), { qos: 2 }))))
      assert.deepEqual([new Set(ends), fastify.mqtt.health().attempts], [new Set(['ok']), 1])
    })
  }
})
