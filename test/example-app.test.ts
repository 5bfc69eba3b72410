import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import type { FastifyInstance } from 'fastify'
import { createGreenhouse } from '../examples/greenhouse/app.ts'
import type { PublishOptions } from '../lib/index.ts'
import { createMemoryBroker } from '../lib/testing/index.ts'
import { createApp } from './helpers/app.ts'
import { onEnd } from './helpers/cleanup.ts'
import { Mailbox } from './helpers/mailbox.ts'
import { mosquittoMissing, startMosquitto } from './helpers/mosquitto.ts'

// How an application with thirty topics is tested. The one switch is the URL of the broker: nothing in the
// suite knows which one it is.
const brokers: Record<string, { skip: string | false, start: (t: TestContext) => Promise<string> }> = {
  'the memory broker': {
    skip: false,
    start: async (t) => {
      const broker = createMemoryBroker()
      onEnd(t, () => broker.close())
      return broker.url
    }
  },
  Mosquitto: { skip: mosquittoMissing, start: async (t) => (await startMosquitto(t)).url }
}

const card = '6f9619ff-8b86-4d01-b42d-00cf4fc964ff'

for (const [name, { skip, start }] of Object.entries(brokers)) {
  suite(`the greenhouse on ${name}`, { skip }, () => {
    test('is ready with each of its filters granted', async (t) => {
      const { fastify } = await startGreenhouse(t, await start(t))
      const { ok, subscriptions } = fastify.mqtt.health()
      assert.ok(ok)
      const topics = fastify.mqtt.topics()
      assert.equal(topics.length, 30)
      assert.deepEqual(topics.filter(({ overlaps }) => overlaps.length > 0), [])
      assert.deepEqual(subscriptions.granted.map(({ filter }) => filter).sort(),
        topics.filter(({ handlers }) => handlers > 0).map(({ filter }) => filter).sort())
      assert.equal((await fastify.inject('/health')).statusCode, 200)
    })

    test('heats a zone that is too cold, and stops when its window is open', async (t) => {
      const { fastify, device } = await startGreenhouse(t, await start(t))
      await device.send('climate/north/temperature', { celsius: 12.5 })
      assert.deepEqual((await device.heard('climate/north/heater/set')).json(), { on: true })
      await device.send('climate/north/window', { on: true })
      assert.deepEqual((await device.heard('climate/north/heater/set')).json(), { on: false })
      const zone = await fastify.inject('/zones/north')
      assert.deepEqual(zone.json(), { celsius: 12.5, target: 20 })
    })

    test('takes a target over HTTP, which a later application finds retained', async (t) => {
      const url = await start(t)
      const { fastify, device } = await startGreenhouse(t, url)
      const response = await fastify.inject({ method: 'PUT', url: '/zones/north/target', payload: { celsius: 5 } })
      assert.deepEqual([response.statusCode, response.json()], [202, { sentTo: 'site/climate/north/target' }])
      await device.heard('climate/north/target')
      const later = await startGreenhouse(t, url)
      // Its own message comes after what the broker had kept.
      await later.device.send('climate/north/temperature', { celsius: 12.5 })
      assert.deepEqual((await later.device.heard('climate/north/heater/set')).json(), { on: false })
      const zone = await later.fastify.inject('/zones/north')
      assert.deepEqual(zone.json(), { celsius: 12.5, target: 5 })
    })

    test('raises an alarm by the name of another plugin\'s topic, once, and clears it', async (t) => {
      const { fastify, device } = await startGreenhouse(t, await start(t))
      for (let times = 0; times < 2; times++) await device.send('climate/south/temperature', { celsius: 41 })
      assert.deepEqual((await device.heard('alarm/raised/heat-south')).json(), { text: '41 °C in south' })
      assert.deepEqual((await device.heard('alarm/summary')).json(), { active: ['heat-south'] })
      await device.send('irrigation/bed/3/leak')
      assert.deepEqual((await device.heard('alarm/summary')).json(), { active: ['heat-south', 'leak-3'] })
      await device.send('alarm/acknowledged/heat-south')
      assert.deepEqual((await device.heard('alarm/summary')).json(), { active: ['leak-3'] })
      assert.deepEqual([...fastify.greenhouse.alarms], [['leak-3', 'bed 3 leaks']])
    })

    test('rejects what its schemas do not accept, counts it, and handles the next message', async (t) => {
      const { fastify, device } = await startGreenhouse(t, await start(t))
      await device.send('climate/north/temperature', '{"celsius":')
      await device.send('climate/north/temperature', { celsius: 'warm' })
      await device.send('climate/UPPER/temperature', { celsius: 20 })
      await device.send('irrigation/bed/13/moisture', { percent: 50 })
      await device.send('climate/north/temperature', { celsius: 10 })
      await device.heard('climate/north/heater/set')
      const state = await fastify.inject('/state')
      assert.deepEqual(state.json().rejected, { climate: 3, irrigation: 1 })
      assert.deepEqual([...fastify.greenhouse.zones.keys()], ['north'])
      assert.deepEqual([...fastify.greenhouse.moisture], [])
    })

    test('waters a dry bed with QoS 2, as long as there is water', async (t) => {
      const { device } = await startGreenhouse(t, await start(t))
      await device.send('irrigation/bed/4/moisture', { percent: 10 })
      await device.send('irrigation/tank/level', { litres: 80 })
      const refill = await device.heard('irrigation/tank/refill')
      assert.equal(refill.raw.length, 0)
      await device.send('irrigation/bed/5/moisture', { percent: 27.5 })
      const opened = await device.heard('irrigation/bed/+/valve/open')
      assert.deepEqual([opened.topic, opened.json(), opened.qos], ['irrigation/bed/5/valve/open', { seconds: 30 }, 2])
    })

    test('switches every lamp that it knows when the sun sets', async (t) => {
      const { device } = await startGreenhouse(t, await start(t))
      for (const id of [1, 2]) await device.send(`light/lamp/${id}/state`, { on: false })
      await device.send('light/sun', { lux: 20 })
      const scene = await device.heard('light/scene')
      assert.deepEqual([scene.text(), scene.properties.contentType], ['night', 'text/plain'])
      const lamps = [await device.heard('light/lamp/+/set'), await device.heard('light/lamp/+/set')]
      assert.deepEqual(lamps.map(({ topic }) => topic).sort(), ['light/lamp/1/set', 'light/lamp/2/set'])
      assert.deepEqual(lamps.map((message) => message.json()), [{ on: true }, { on: true }])
    })

    test('answers a route with the topic that it published to, and refuses a body before that', async (t) => {
      const { fastify, device } = await startGreenhouse(t, await start(t))
      const bad = await fastify.inject({ method: 'POST', url: '/lamps/0', payload: { on: true } })
      assert.equal(bad.statusCode, 400)
      const good = await fastify.inject({ method: 'POST', url: '/lamps/9', payload: { on: true } })
      assert.deepEqual([good.statusCode, good.json()], [202, { sentTo: 'light/lamp/9/set' }])
      const command = await device.heard('light/lamp/+/set')
      assert.deepEqual([command.topic, command.json()], ['light/lamp/9/set', { on: true }])
    })

    test('opens a door for a badge that was issued, and for no other', async (t) => {
      const { fastify, device } = await startGreenhouse(t, await start(t))
      await device.send(`door/badge/issued/${card}`)
      await device.send('door/front/badge/00000000-0000-4000-8000-000000000000')
      await device.send('door/front/badge/nonsense')
      await device.send(`door/back/badge/${card}`)
      const lock = await device.heard('door/+/lock/set')
      assert.deepEqual([lock.topic, lock.json()], ['door/back/lock/set', { locked: false }])
      assert.deepEqual((await device.heard('door/visitors')).json(), { inside: 1 })
      assert.equal(fastify.mqtt.health().messages.unmatched, 1)
    })

    test('restarts a device only when it is online, and collects its log from any depth', async (t) => {
      const { fastify, device } = await startGreenhouse(t, await start(t))
      const restart = () => fastify.inject({ method: 'POST', url: '/devices/d1/restart' })
      assert.equal((await restart()).statusCode, 409)
      await device.send('device/d1/log/net/wifi', 'joined')
      await device.send('device/d1/online', { online: true }, { qos: 1 })
      await device.send('light/sun', { lux: 1 })
      await device.heard('light/scene')
      assert.equal((await restart()).statusCode, 202)
      await device.heard('device/d1/restart')
      assert.deepEqual(fastify.greenhouse.devices.get('d1')?.log, ['net/wifi: joined'])
    })

    test('answers a question where the asker wants it, with the asker\'s correlation data', async (t) => {
      const { device } = await startGreenhouse(t, await start(t))
      const correlationData = Buffer.from([1, 0, 255])
      await device.send('device/d1/time', '', { properties: { responseTopic: 'site/answers/7', correlationData } })
      const answer = await device.heard('answers/7')
      assert.deepEqual(answer.properties.correlationData, correlationData)
      assert.ok((answer.json() as { seconds: number }).seconds > 1_700_000_000)
    })
  })
}

suite('the greenhouse by inject(), without any broker', () => {
  test('tells what each handler did and what it would have published', async (t) => {
    const fastify = await createGreenhouse({ start: 'manual', prefix: 'site' })
    onEnd(t, () => fastify.close())
    const { matched, handlers, published } =
      await fastify.mqtt.inject({ topic: 'climate/north/temperature', payload: { celsius: 41 } })
    assert.equal(matched, 1)
    assert.equal(handlers[0]?.outcome, 'handled')
    assert.deepEqual(published.map(({ topic }) => topic),
      ['site/climate/north/heater/set', 'site/alarm/raised/heat-north'])
    assert.equal(fastify.greenhouse.zones.get('north')?.celsius, 41)
  })

  test('tells why a message was rejected, which the application counts', async (t) => {
    const fastify = await createGreenhouse({ start: 'manual' })
    onEnd(t, () => fastify.close())
    const { handlers } = await fastify.mqtt.inject({ topic: 'irrigation/tank/level', payload: { litres: -1 } })
    assert.equal((handlers[0]?.error as { code?: string }).code, 'FST_MQTT_PAYLOAD_INVALID')
    assert.deepEqual((await fastify.inject('/state')).json().rejected, { irrigation: 1 })
  })
})

interface Heard {
  /** Without the prefix. */
  readonly topic: string
  readonly raw: Buffer
  readonly qos: number
  readonly properties: {
    readonly contentType?: string | undefined
    readonly correlationData?: Buffer | undefined
  }
  text (): string
  json (): unknown
}

/** Everything outside of the application: boards, sensors, the panel on the wall. */
interface Device {
  send (topic: string, payload?: unknown, options?: PublishOptions): Promise<void>
  /** The oldest message of a topic filter that was not taken yet, whoever published it. */
  heard (filter: string): Promise<Heard>
}

async function startGreenhouse (
  t: TestContext, url: string
): Promise<{ fastify: FastifyInstance, device: Device }> {
  const device = await startDevice(t, url)
  const fastify = await createGreenhouse({ url: `${url}/site` })
  onEnd(t, () => fastify.close())
  await fastify.ready()
  return { fastify, device }
}

async function startDevice (t: TestContext, url: string): Promise<Device> {
  const { fastify } = await createApp(t, { url: `${url}/site` })
  const heard = new Mailbox<Heard>()
  fastify.mqtt.topic('#', { qos: 2, noLocal: true }, (message) => heard.put(message))
  await fastify.ready()
  return {
    send: async (topic, payload, options) =>
      await fastify.mqtt.publish(topic, payload, { qos: 1, ...options }),
    heard: (filter) => {
      const pattern = new RegExp(`^${filter.replaceAll('+', '[^/]*')}$`)
      return heard.take(({ topic }) => pattern.test(topic), `message on ${filter}`)
    }
  }
}
