import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { QoS } from '../types/message.ts'
import { Connection, type BrokerLimits, type OutgoingPublish } from '../lib/session/connection.ts'
import { Outbox, type Patience, type PublishPort } from '../lib/session/outbox.ts'
import { checkPublishOptions, preparePublish } from '../lib/session/publish.ts'

const broker = 'mqtt://broker:1883'
const forever: Patience = { timeoutMs: 2_000_000_000, signal: undefined }

test('Connection: subscribing without a connection is an error, not a wait', async () => {
  const connection = new Connection({
    address: { protocol: 'mqtt', host: 'broker', port: 1883, path: '', text: broker },
    credentials: { username: undefined, password: undefined },
    clientId: 'c',
    protocolVersion: 'auto',
    keepaliveSeconds: 60,
    connectTimeoutMs: 100,
    tls: {},
    client: {}
  }, { onUp () {}, onDown () {}, onMessage () {} })
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

suite('preparePublish', () => {
  const noLimits: BrokerLimits = {
    maximumQoS: 2,
    retainAvailable: true,
    maximumPacketSize: Infinity,
    receiveMaximum: 65_535,
    subscriptionIdentifiersAvailable: true,
    wildcardSubscriptionAvailable: true,
    sharedSubscriptionAvailable: true
  }

  function prepare (
    topic: string, size: number, options: object, given: Partial<BrokerLimits> = {}, version: 4 | 5 = 5
  ): OutgoingPublish {
    const limits = { ...noLimits, ...given }
    return preparePublish(topic, Buffer.alloc(size), checkPublishOptions(options, 0), { version, limits })
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

/** A connection that notes what is sent, and answers when the test says so. */
class FakePublishPort implements PublishPort {
  isUp = true
  limits = { receiveMaximum: 65_535 }
  readonly sent: { publish: OutgoingPublish, settle: (error?: Error) => void }[] = []
  readonly forgotten: number[] = []
  onSend: (settle: (error?: Error) => void) => void = () => {}

  send (publish: OutgoingPublish, settle: (error?: Error) => void): number | undefined {
    this.sent.push({ publish, settle })
    this.onSend(settle)
    return publish.qos === 0 ? undefined : this.sent.length
  }

  forget (packetId: number): void {
    this.forgotten.push(packetId)
  }

  answer (error?: Error): void {
    for (const { settle } of this.sent) settle(error)
  }
}

const publish: OutgoingPublish = {
  topic: 'a/b', payload: Buffer.from('x'), qos: 1, retain: false, properties: undefined
}

/** An outbox with one publish on its way, and what became of that: one entry for each time it settled. */
function sendOne (patience: Partial<Patience> = {}, qos: QoS = 1) {
  const port = new FakePublishPort()
  const outbox = new Outbox(port, broker)
  const outcomes: unknown[] = []
  const settled = outbox.publish({ ...publish, qos }, { ...forever, ...patience })
    .then(() => outcomes.push('sent'), (error: Error & { code: string }) => outcomes.push(error.code))
  return { port, outbox, settled, outcomes }
}

/** Everything that could settle a publish again. */
async function settleAgain ({ port, outbox, settled }: ReturnType<typeof sendOne>): Promise<void> {
  await settled
  port.answer()
  port.answer(new Error('late'))
  outbox.onDown(new Error('cut'))
  outbox.close()
  await turn()
}

suite('Outbox', () => {
  const refusal = Object.assign(new Error('Publish error: Not authorized'), { code: 135 })
  const socketError = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' })
  for (const [what, settle, outcome, forgotten] of [
    ['the acknowledgement', ({ port }) => port.answer(), 'sent', []],
    ["the broker's refusal", ({ port }) => port.answer(refusal), 'FST_MQTT_PUBLISH_REFUSED', []],
    ['an error of MQTT.js', ({ port }) => port.answer(new Error('ended')), 'FST_MQTT_DELIVERY_UNKNOWN', []],
    ['an error of the socket', ({ port }) => port.answer(socketError), 'FST_MQTT_DELIVERY_UNKNOWN', []],
    ['the loss of the connection', ({ outbox }) => outbox.onDown(new Error('cut')), 'FST_MQTT_DELIVERY_UNKNOWN', [1]],
    ['the end', ({ outbox }) => outbox.close(), 'FST_MQTT_CLOSED', []]
  ] as [string, (sent: ReturnType<typeof sendOne>) => void, string, number[]][]) {
    test(`a publish is settled by ${what}, once`, async () => {
      const sent = sendOne()
      assert.deepEqual(sent.port.sent.map(({ publish }) => publish), [publish])
      await turn()
      assert.deepEqual(sent.outcomes, [])
      settle(sent)
      await settleAgain(sent)
      assert.deepEqual(sent.outcomes, [outcome])
      assert.deepEqual(sent.port.forgotten, forgotten)
    })
  }

  test('a publish is settled by its timeout, once, and taken back', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const sent = sendOne({ timeoutMs: 30_000 })
    await turn()
    t.mock.timers.tick(29_999)
    await turn()
    assert.deepEqual(sent.outcomes, [])
    t.mock.timers.tick(1)
    await settleAgain(sent)
    assert.deepEqual(sent.outcomes, ['FST_MQTT_PUBLISH_TIMEOUT'])
    assert.deepEqual(sent.port.forgotten, [1])
  })

  test('a publish is settled by its signal, once, and taken back', async () => {
    const controller = new AbortController()
    const sent = sendOne({ signal: controller.signal })
    controller.abort()
    await settleAgain(sent)
    assert.deepEqual(sent.outcomes, ['FST_MQTT_ABORTED'])
    assert.deepEqual(sent.port.forgotten, [1])
  })

  test('a publish that is settled minds neither its timeout nor its signal', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const controller = new AbortController()
    const sent = sendOne({ timeoutMs: 1, signal: controller.signal })
    sent.port.answer()
    await sent.settled
    t.mock.timers.tick(10)
    controller.abort()
    await settleAgain(sent)
    assert.deepEqual(sent.outcomes, ['sent'])
    assert.deepEqual(sent.port.forgotten, [])
  })

  test('the errors say which topic, broker, time and reason', async (t) => {
    type Parts = { port: FakePublishPort, outbox: Outbox }
    const caught = async (settle: (parts: Parts) => void, patience: Partial<Patience> = {}) => {
      const port = new FakePublishPort()
      const outbox = new Outbox(port, broker)
      const promise = outbox.publish(publish, { ...forever, ...patience })
      settle({ port, outbox })
      return await promise.then(() => assert.fail('not refused'), (error: Error) => error)
    }
    const refused = await caught(({ port }) => port.answer(refusal))
    assert.equal(refused.message, "The broker refused the message to 'a/b': Publish error: Not authorized")
    assert.equal(refused.cause, refusal)
    const lost = await caught(({ outbox }) => outbox.onDown(new Error('cut')))
    assert.match(lost.message, /The connection to mqtt:\/\/broker:1883 was lost before/)
    const reason = new Error('user left')
    const controller = new AbortController()
    assert.equal((await caught(() => controller.abort(reason), { signal: controller.signal })).cause, reason)
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const late = await caught(() => t.mock.timers.tick(5), { timeoutMs: 5 })
    assert.equal(late.message, 'The broker did not acknowledge the message within 5 ms')
  })

  test('with QoS 0 a publish is settled as soon as it is written', async () => {
    const port = new FakePublishPort()
    port.onSend = (settle) => settle()
    const outbox = new Outbox(port, broker)
    await outbox.publish({ ...publish, qos: 0 }, forever)
    await outbox.flush(0)
    assert.equal(port.sent.length, 1)
  })

  test('with QoS 0 there is nothing to take back', async () => {
    const sent = sendOne({}, 0)
    sent.outbox.onDown(new Error('cut'))
    await settleAgain(sent)
    assert.deepEqual(sent.outcomes, ['FST_MQTT_DELIVERY_UNKNOWN'])
    assert.deepEqual(sent.port.forgotten, [])
  })

  test('what sending throws settles the publish, and the next one is sent', async () => {
    const port = new FakePublishPort()
    const outbox = new Outbox(port, broker)
    port.onSend = () => { throw new TypeError('chunk') }
    await assert.rejects(outbox.publish(publish, forever), { code: 'FST_MQTT_DELIVERY_UNKNOWN' })
    await outbox.flush(2_000_000_000)
    port.onSend = (settle) => settle()
    await outbox.publish(publish, forever)
  })

  test('nothing is sent while offline, after the end, or for a signal that was aborted before', async () => {
    const port = new FakePublishPort()
    const outbox = new Outbox(port, broker)
    const reason = new Error('user left')
    const signal = AbortSignal.abort(reason)
    await assert.rejects(outbox.publish(publish, { ...forever, signal }), { code: 'FST_MQTT_ABORTED', cause: reason })
    port.isUp = false
    await assert.rejects(outbox.publish(publish, { ...forever, timeoutMs: 50 }), (error: { code: string }) => error.code.startsWith('FST_MQTT_'))
    port.isUp = true
    outbox.close()
    await assert.rejects(outbox.publish(publish, forever), { code: 'FST_MQTT_CLOSED' })
    assert.equal(port.sent.length, 0)
  })

  test('flush waits for everything that is on its way', async () => {
    const sent = sendOne()
    const { port, outbox } = sent
    const second = outbox.publish(publish, forever)
    let isFlushed = false
    const flushed = outbox.flush(2_000_000_000).then(() => { isFlushed = true })
    port.sent[0]?.settle()
    await turn()
    assert.equal(isFlushed, false)
    port.sent[1]?.settle(Object.assign(new Error('x'), { code: 135 }))
    await assert.rejects(second)
    await flushed
  })

  test('flush waits no longer than its time, and not at all for nothing', async (t) => {
    await new Outbox(new FakePublishPort(), broker).flush(2_000_000_000)
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const sent = sendOne()
    const flushed = sent.outbox.flush(10)
    t.mock.timers.tick(10)
    await flushed
    assert.deepEqual(sent.outcomes, [])
    await settleAgain({ ...sent, settled: Promise.resolve(0) })
  })
})
