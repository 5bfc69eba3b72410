import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { Connection } from '../lib/session/connection.ts'
import { noLimits, type BrokerLimits, type OutgoingPublish } from '../lib/session/link.ts'
import { assertBrokerAccepts, checkPublishOptions } from '../lib/session/publish.ts'
import { OutgoingNames } from '../lib/topic/outgoing-names.ts'

const broker = 'mqtt://broker:1883'

test('Connection: subscribing without a connection is an error, not a wait', async () => {
  const connection = new Connection({
    address: { protocol: 'mqtt', host: 'broker', port: 1883, path: '', text: broker },
    credentials: () => ({ username: undefined, password: undefined }),
    clientId: 'c',
    protocolVersion: 'auto',
    keepaliveSeconds: 60,
    connectTimeoutMs: 100,
    sessionExpirySeconds: 0,
    will: undefined,
    reconnect: { minDelayMs: 1, maxDelayMs: 1 },
    maxPacketBytes: 1_000,
    tls: {},
    client: {}
  }, {
    onUp () {},
    onReady () {},
    onDown: () => false,
    onMessage () {},
    onAck () {},
    onWritten () {},
    onDrain () {},
    onForeignPublish () {},
    onForeignDone () {}
  })
  const options = { qos: 0, noLocal: false, retainAsPublished: false, retainHandling: 0 } as const
  await assert.rejects(connection.subscribe(['a'], options, undefined), { code: 'FST_MQTT_OFFLINE' })
  await assert.rejects(connection.unsubscribe(['a']), { code: 'FST_MQTT_OFFLINE' })
})

// Publishing

suite('checkPublishOptions', () => {
  const defaults = {
    qos: 0, retain: false, properties: undefined, absolute: false, timeoutMs: undefined, signal: undefined
  }

  test('fills in what is not given', () => {
    assert.deepEqual(checkPublishOptions(undefined, 0), defaults)
    assert.deepEqual(checkPublishOptions({ qos: undefined, retain: undefined }, 2), { ...defaults, qos: 2 })
    const { signal } = new AbortController()
    const given = { qos: 1, retain: true, properties: { contentType: 'x' }, absolute: true, timeout: 5, signal }
    const { timeout, ...others } = given
    assert.deepEqual(checkPublishOptions(given, 0), { ...others, timeoutMs: timeout })
  })

  for (const [options, says] of [
    [null, /Invalid publish options: they have to be an object, not null/],
    [1, /not a number/],
    [{ qos: 3 }, /qos has to be 0, 1 or 2, not 3/],
    [{ qos: '1' }, /not '1'/],
    [{ retain: 1 }, /retain has to be a boolean, not 1/],
    [{ absolute: 'yes' }, /absolute has to be a boolean, not 'yes'/],
    [{ dup: true }, /there is no option 'dup', there are qos, retain, properties, absolute, timeout, signal/],
    [{ properties: { topicAlias: 1 } }, /there is no property 'topicAlias'/],
    [{ properties: { responseTopic: 'a/#' } }, /'responseTopic': .*wildcards/],
    [{ timeout: 0 }, /milliseconds from 1 to 2147483647, not 0/],
    [{ timeout: 2 ** 31 }, /not 2147483648/],
    [{ timeout: '5' }, /not '5'/],
    [{ signal: {} }, /signal has to be an AbortSignal, not an object \(Object\)/]
  ] as const) {
    test(`refuses ${JSON.stringify(options)}`, () => {
      assert.throws(() => checkPublishOptions(options, 0), {
        code: 'FST_MQTT_PUBLISH_OPTIONS', statusCode: 400, message: says
      })
    })
  }
})

suite('a publish', () => {
  function prepare (
    topic: string, size: number, options: object, given: Partial<BrokerLimits> = {}, version: 4 | 5 = 5
  ): OutgoingPublish {
    const limits = { ...noLimits, ...given }
    const { qos, retain, properties } = checkPublishOptions(options, 0)
    const name = new OutgoingNames('').absolute(topic)
    const publish = { topic: name, payload: Buffer.alloc(size), qos, retain, properties }
    assertBrokerAccepts(publish, { version, limits })
    return publish
  }

  test('gives the PUBLISH that the connection sends', () => {
    const properties = { contentType: 'x' }
    assert.deepEqual(prepare('a', 2, { qos: 1, retain: true, properties, absolute: true }), {
      topic: 'a', payload: Buffer.alloc(2), qos: 1, retain: true, properties
    })
  })

  const tooDeep = Array(201).fill('a').join('/')
  const bad = ['', 'a/+', 'a/#', 'a\0', 'a\u0001', '\uffff', '\ud800', 'x'.repeat(65_536), tooDeep, '$share/g/t']
  for (const topic of bad) {
    test(`refuses the topic name ${JSON.stringify(topic.slice(0, 12))}, for every quality of service`, () => {
      for (const qos of [0, 1, 2]) {
        assert.throws(() => prepare(topic, 0, { qos }), {
          code: 'FST_MQTT_TOPIC_NAME', statusCode: 400, message: /^Invalid topic name '.*': \$?[a-z]/s
        })
      }
    })
  }

  test('refuses what the broker does not offer', () => {
    for (const [options, limits, says] of [
      [{ qos: 2 }, { maximumQoS: 1 }, /qos is 2, the highest is 1/],
      [{ qos: 1 }, { maximumQoS: 0 }, /qos is 1, the highest is 0/],
      [{ retain: true }, { retainAvailable: false }, /it keeps no retained messages/]
    ] as const) {
      assert.throws(() => prepare('a', 0, options, limits), { code: 'FST_MQTT_BROKER_LIMIT', message: says })
    }
    assert.equal(prepare('a', 0, { qos: 1 }, { maximumQoS: 1, retainAvailable: false }).qos, 1)
  })

  test('takes packets of up to maximumPacketSize bytes', () => {
    // 1 type, 1 length, 2 + 1 topic, 1 length of the properties, payload
    assert.equal(prepare('a', 94, {}, { maximumPacketSize: 100 }).payload.length, 94)
    assert.throws(() => prepare('a', 95, {}, { maximumPacketSize: 100 }), {
      code: 'FST_MQTT_BROKER_LIMIT', message: /the packet has 101 bytes, the largest is 100/
    })
  })

  test('refuses properties on MQTT 3.1.1, but not the absence of any', () => {
    assert.throws(() => prepare('a', 0, { properties: { contentType: 'x' } }, {}, 4), {
      code: 'FST_MQTT_NEEDS_MQTT5', message: /Properties of a publish need MQTT 5, this connection speaks MQTT 3.1.1/
    })
    for (const properties of [{}, { contentType: undefined }, undefined]) {
      assert.equal(prepare('a', 0, { properties }, {}, 4).topic, 'a')
    }
  })
})
