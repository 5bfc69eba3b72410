import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import type { Message, PublishOptions, TopicOptions } from '../lib/index.ts'
import {
  badOptions, badPayloads, badProperties, badTopicOptions, badTopics, badTopicTypes
} from './fixtures/bad-input.ts'
import { createApp, inbox, type TestApp } from './helpers/app.ts'
import { mosquittoMissing, startMosquitto } from './helpers/mosquitto.ts'

/** What DESIGN gives a meaning: the bytes that go on the wire. */
const meanings: readonly (readonly [unknown, string])[] = [
  [42, '42'], [-0, '0'], [true, 'true'], [null, 'null'], [undefined, ''], ['', ''], [{ a: 1 }, '{"a":1}'], [[1], '[1]'],
  [NaN, 'null'], [new Date(0), '"1970-01-01T00:00:00.000Z"'], [Uint8Array.of(65, 66).buffer, 'AB'],
  [new DataView(Uint8Array.of(65, 66).buffer, 1), 'B'], [Uint16Array.of(0x4241), 'AB'], [Buffer.from('AB'), 'AB']
]
suite('the guard, on Mosquitto', { skip: mosquittoMissing }, () => {
  for (const version of [5, 4] as const) {
    test(`MQTT ${version}: every row of bad input is refused before the wire, and the next publish works`, async (t) => {
      const broker = await startMosquitto(t)
      const { fastify, ...app } = await createApp(t, { url: broker.url, protocolVersion: version })
      const echo = inbox<Message>()
      fastify.mqtt.topic('echo', { qos: 1 }, echo.put)
      await fastify.ready()
      const publish = async (topic: unknown, payload: unknown, options: unknown) =>
        await fastify.mqtt.publish(topic as string, payload, options as PublishOptions)
      const refused = async (topic: unknown, payload: unknown, options: unknown, code: RegExp) => {
        const publishing = publish(topic, payload, options)
        await assert.rejects(publishing, (error: { code?: string, message: string }) => {
          assert.match(error.code ?? String(error), code)
          assert.ok(error.message.length < 1_000, 'a message that repeats what it refuses')
          return true
        })
      }
      for (const qos of [0, 1] as const) {
        for (const topic of badTopics) await refused(topic, 'x', { qos }, /^FST_MQTT_TOPIC_NAME$/)
        await refused('$SYS/x', 'x', { qos }, /^FST_MQTT_TOPIC_OUTSIDE_PREFIX$/)
        for (const topic of badTopicTypes) await refused(topic, 'x', { qos }, /^FST_MQTT_TOPIC_NAME$/)
        for (const properties of badProperties) {
          await refused('a', 'x', { qos, properties }, /^FST_MQTT_PUBLISH_OPTIONS$/)
        }
        for (const options of badOptions) await refused('a', 'x', { qos, ...options }, /^FST_MQTT_PUBLISH_OPTIONS$/)
        for (const payload of badPayloads) await refused('a', payload, { qos }, /^FST_MQTT_PAYLOAD_ENCODE$/)
        await publish('echo', 'still here', { qos })
        assert.equal((await echo.next()).text(), 'still here')
        for (const [payload, expected] of meanings) {
          await publish('echo', payload, { qos })
          assert.equal((await echo.next()).text(), expected)
        }
      }
      for (const [pattern, options] of badTopicOptions) {
        assert.throws(() => fastify.mqtt.topic(pattern as string, options as TopicOptions, () => {}), { code: /^FST_MQTT_/ }, pattern)
      }
      await publish('echo', 'last', { qos: 1 })
      assert.equal((await echo.next()).text(), 'last')
      assertUnharmed({ fastify, ...app })
    })

    test(`MQTT ${version}: thousands of random publishes and subscriptions, none closes the connection`, async (t) => {
      const broker = await startMosquitto(t)
      const { fastify, ...app } = await createApp(t, { url: broker.url, protocolVersion: version })
      await fastify.ready()
      const plain = fc.constantFrom('a', 'b', 'ä', '温度', '😀', 'a b', 'a.b', '', '$', '<', '>', '%', '\u200b', '\u2028')
      const hostile = fc.oneof(
        fc.string({ maxLength: 8 }), fc.string({ unit: 'binary', maxLength: 4 }), fc.string({ unit: 'grapheme', maxLength: 4 }),
        fc.constantFrom('+', '#', '$SYS', '$share', '<int:x>', '<path:p>', '\ud800', '\uffff', '\u0007', 'x'.repeat(70_000)))
      const level = fc.oneof({ weight: 6, arbitrary: plain }, { weight: 1, arbitrary: hostile })
      const topic = fc.oneof(
        fc.array(level, { minLength: 1, maxLength: 5 }).map((levels) => levels.join('/')),
        fc.array(fc.constantFrom('a', '', '+'), { minLength: 190, maxLength: 210 }).map((levels) => levels.join('/')))
      const anything = fc.anything({ withBigInt: true, withDate: true, withTypedArray: true })
      const mostly = (good: fc.Arbitrary<unknown>) =>
        fc.oneof({ weight: 6, arbitrary: good }, { weight: 1, arbitrary: anything })
      const text = mostly(level)
      const properties = fc.record({
        messageExpiryInterval: mostly(fc.oneof(fc.nat(), fc.nat(), fc.integer(), fc.double())),
        contentType: text,
        responseTopic: text,
        correlationData: mostly(fc.uint8Array()),
        payloadFormatIndicator: mostly(fc.boolean()),
        userProperties: mostly(fc.dictionary(plain, fc.oneof(level, fc.array(plain))))
      }, { requiredKeys: [] })
      const options = fc.record({
        qos: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(0, 1, 2) }, anything),
        retain: fc.oneof({ weight: 9, arbitrary: fc.boolean() }, anything),
        absolute: fc.boolean(),
        properties
      }, { requiredKeys: [] })
      const payload = fc.oneof(fc.string({ unit: 'binary' }), fc.uint8Array({ maxLength: 5_000 }), anything)
      let accepted = 0
      let refused = 0
      const settle = async (action: () => unknown) => {
        try {
          await action()
          accepted++
        } catch (error) {
          // A refusal of the broker's own, such as of a `$…` topic, is an answer and no harm.
          assert.match((error as { code?: string }).code ?? String(error), /^FST_MQTT_(?!OFFLINE|DELIVERY_UNKNOWN|PUBLISH_TIMEOUT)/)
          refused++
        }
      }
      await fc.assert(fc.asyncProperty(topic, payload, options, async (name, value, settings) => {
        await settle(async () => await fastify.mqtt.publish(name, value, settings as PublishOptions))
      }), { numRuns: 3_000 })
      await fc.assert(fc.asyncProperty(topic, payload, fc.constantFrom(0, 1, 2), async (name, value, qos) => {
        const settings = { qos, absolute: true } as PublishOptions
        await settle(async () => await fastify.mqtt.publish(name, value, settings))
      }), { numRuns: 1_000 })
      await fc.assert(fc.asyncProperty(topic, options, async (pattern, settings) => {
        await settle(async () => {
          const { qos, absolute } = settings
          const topicOptions = { qos, absolute } as TopicOptions
          const registered = fastify.mqtt.topic(pattern as string, topicOptions, () => {})
          await fastify.mqtt.connect()
          registered.remove()
        })
      }), { numRuns: 1_000 })
      t.diagnostic(`${accepted} accepted, ${refused} refused`)
      assert.ok(accepted > 1_000, 'too little was accepted to prove anything')
      assert.ok(refused > 1_000, 'too little was refused to prove anything')
      await fastify.mqtt.publish('end', '', { qos: 2 })
      assertUnharmed({ fastify, ...app })
    })
  }
})

function assertUnharmed ({ fastify, lines }: TestApp): void {
  assert.equal(fastify.mqtt.status, 'ready')
  assert.equal(fastify.mqtt.health().attempts, 1)
  assert.deepEqual(lines.filter(({ msg }) => msg.includes('lost the connection')), [])
}
