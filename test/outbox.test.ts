import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import type { QoS } from '../types/message.ts'
import type { AllowanceSettings } from '../lib/session/allowance.ts'
import { noLimits, type AckType, type BrokerLimits, type OutgoingPublish } from '../lib/session/link.ts'
import { Outbox, type PublishPort } from '../lib/session/outbox.ts'
import { stopClock, type Clock } from './helpers/clock.ts'
import { usedBytes } from './helpers/memory.ts'

const broker = 'mqtt://broker:1883'
const [puback, pubrec, pubcomp] = [4, 5, 7] as const
const cut = new Error('the connection was closed')

/** A connection that notes what is sent. */
class FakePort implements PublishPort {
  isUp = false
  isWritable = true
  version: 4 | 5 = 5
  limits: BrokerLimits = noLimits
  rttMs = 1
  readonly ids = new Map<string, number>()
  writes = 0
  onPublish: (publish: OutgoingPublish, id: number, isDup: boolean) => void = () => {}
  onAck: (type: AckType, id: number, reasonCode: number) => void = () => {}
  #sent: string[] = []

  sendPublish (publish: OutgoingPublish, id: number, isDup: boolean): number {
    this.onPublish(publish, id, isDup)
    const { topic, qos } = publish
    if (qos > 0) this.ids.set(topic, id)
    this.#sent.push(isDup ? `${topic} again` : topic)
    return ++this.writes
  }

  sendAck (type: AckType, id: number, reasonCode: number): void {
    this.onAck(type, id, reasonCode)
    const [topic = id] = [...this.ids].flatMap(([name, known]) => known === id ? name : [])
    this.#sent.push(`PUBREL ${topic}${reasonCode === 0 ? '' : ` 0x${reasonCode.toString(16)}`}`)
  }

  /** What was sent since the last call. */
  take (): string[] {
    return this.#sent.splice(0)
  }
}

interface Given {
  isUp?: boolean
  version?: 4 | 5
  limits?: Partial<BrokerLimits>
  settings?: Partial<AllowanceSettings>
}

/** An outbox with what the tests do to it; the publishes settle into `ends`. */
function open ({ isUp = true, version = 5, limits = {}, settings = {} }: Given = {}) {
  const port = new FakePort()
  port.version = version
  port.limits = { ...noLimits, ...limits }
  const outbox = new Outbox(port, {
    broker, maxMessages: 10_000, maxBytes: 2 ** 24, overflow: 'reject', ...settings
  })
  const ends = new Map<string, string>()
  const errors = new Map<string, Error>()
  const it = {
    port,
    outbox,
    /** 'ok' or the code of the error, by topic. */
    ends,
    errors,
    publish (topic: string, qos: QoS = 1, options: Partial<OutgoingPublish> = {}, signal?: AbortSignal) {
      outbox.publish({ ...message(topic, qos), ...options }, { timeoutMs: 30_000, signal }).then(
        () => ends.set(topic, 'ok'),
        (error: Error & { code: string }) => {
          ends.set(topic, error.code.replace('FST_MQTT_', ''))
          errors.set(topic, error)
        })
    },
    up (isSessionPresent = false) {
      port.isUp = true
      outbox.onUp(isSessionPresent)
    },
    down (cause: Error = cut) {
      port.isUp = false
      return outbox.onDown(cause)
    },
    ack (topic: string, reasonCode = 0) {
      outbox.onAck(puback, port.ids.get(topic) ?? 0, reasonCode)
    },
    pubrec (topic: string, reasonCode = 0) {
      outbox.onAck(pubrec, port.ids.get(topic) ?? 0, reasonCode)
    },
    pubcomp (topic: string, reasonCode = 0) {
      outbox.onAck(pubcomp, port.ids.get(topic) ?? 0, reasonCode)
    }
  }
  if (isUp) it.up()
  return it
}

function message (topic: string, qos: QoS): OutgoingPublish {
  return { topic, payload: Buffer.alloc(0), qos, retain: false, properties: undefined }
}

/** Lets promises settle. */
async function turn (): Promise<void> {
  await new Promise<void>((resolve) => { setImmediate(resolve) })
}

function names (count: number, from = 0): string[] {
  return Array.from({ length: count }, (_, index) => `m${from + index}`)
}

suite('Outbox: every publish settles', () => {
  for (const [qos, answers, end, says] of [
    [1, [[puback, 0]], 'ok'],
    [1, [[puback, 0x10]], 'ok'],
    [1, [[puback, 0x80]], 'PUBLISH_REFUSED', /refused the message to 'a': Unspecified error \(0x80\)/],
    [1, [[puback, 0x87]], 'PUBLISH_REFUSED', /Not authorized \(0x87\)/],
    [1, [[puback, 0x95]], 'PUBLISH_REFUSED', /Packet too large \(0x95\)/],
    [1, [[puback, 0xee]], 'PUBLISH_REFUSED', /: 0xee/],
    [1, [[puback, 0], [puback, 0x80]], 'ok'],
    [1, [[pubrec, 0]], undefined],
    [2, [[puback, 0]], undefined],
    [2, [[pubrec, 0]], undefined],
    [2, [[pubcomp, 0]], undefined],
    [2, [[pubrec, 0], [pubcomp, 0]], 'ok'],
    [2, [[pubrec, 0x10], [pubcomp, 0]], 'ok'],
    [2, [[pubrec, 0], [pubrec, 0], [pubcomp, 0]], 'ok'],
    [2, [[pubrec, 0x97]], 'PUBLISH_REFUSED', /Quota exceeded \(0x97\)/],
    [2, [[pubrec, 0], [pubcomp, 0x92]], 'DELIVERY_UNKNOWN', /may or may not have arrived/]
  ] as const) {
    const said = answers.map(([type, code]) => `${['PUBACK', 'PUBREC', '', 'PUBCOMP'][type - 4]} 0x${code.toString(16)}`)
    test(`QoS ${qos}, ${said.join(', ')}: ${end ?? 'still waits'}`, async () => {
      const { port, outbox, ends, errors, publish } = open()
      publish('a', qos)
      for (const [type, code] of answers) outbox.onAck(type, port.ids.get('a') ?? 0, code)
      await turn()
      assert.equal(ends.get('a'), end)
      assert.match(errors.get('a')?.message ?? '', says ?? /^$/)
      outbox.close()
      await turn()
      assert.equal(ends.get('a'), end ?? 'CLOSED')
    })
  }

  test('QoS 0 resolves when the operating system has it, with all that was written before', async () => {
    const { outbox, ends, publish, port } = open()
    for (const topic of ['a', 'b', 'c']) publish(topic, 0)
    await turn()
    assert.deepEqual([port.take(), ends.size], [['a', 'b', 'c'], 0])
    outbox.onWritten(2)
    await turn()
    assert.deepEqual([...ends], [['a', 'ok'], ['b', 'ok']])
    outbox.onWritten(3)
    await turn()
    assert.equal(ends.get('c'), 'ok')
  })

  test('what was sent is answered on its own connection only', async () => {
    const { port, outbox, ends, publish, up, down } = open({ limits: { receiveMaximum: 1 } })
    publish('a')
    publish('b')
    const late = port.ids.get('a') ?? 0
    down()
    up()
    outbox.onAck(puback, late, 0)
    await turn()
    assert.equal(ends.size, 0)
  })

  test('after its time, wherever it waits', async (t) => {
    const clock = stopClock(t)
    const { port, ends, errors, publish, up } = open({ isUp: false })
    publish('offline')
    clock.tick(29_000)
    up()
    publish('in flight')
    publish('with the socket', 0)
    port.isWritable = false
    publish('blocked', 0)
    publish('blocked too')
    clock.tick(1_500)
    await turn()
    assert.deepEqual([...ends], [['offline', 'PUBLISH_TIMEOUT']])
    assert.match(errors.get('offline')?.message ?? '', /not acknowledge the message within 30000 ms/)
    clock.tick(30_000)
    await turn()
    assert.deepEqual(new Set(ends.values()), new Set(['PUBLISH_TIMEOUT']))
    assert.equal(ends.size, 5)
  })

  test('after its own time, also where several were written at once', async (t) => {
    const clock = stopClock(t)
    const { outbox, port } = open()
    // All in one write.
    port.onPublish = () => { port.writes = 0 }
    const late: number[] = []
    for (const timeoutMs of [300, 100, 200]) {
      outbox.publish(message('a', 0), { timeoutMs, signal: undefined }).catch(() => late.push(timeoutMs))
    }
    for (let step = 0; step < 3; step++) {
      clock.tick(100)
      await turn()
    }
    assert.deepEqual(late, [100, 200, 300])
  })

  test('when its signal is aborted, wherever it waits', async () => {
    const { port, ends, publish, up, outbox } = open({ isUp: false })
    const controller = new AbortController()
    const { signal } = controller
    publish('offline', 1, {}, signal)
    up()
    publish('in flight', 1, {}, signal)
    publish('with the socket', 0, {}, signal)
    port.isWritable = false
    publish('blocked', 0, {}, signal)
    publish('blocked too', 1, {}, signal)
    port.take()
    controller.abort(new Error('enough'))
    port.isWritable = true
    outbox.onDrain()
    publish('too late', 1, {}, signal)
    await turn()
    assert.deepEqual(port.take(), [], 'what was given up is not sent')
    assert.deepEqual([ends.size, new Set(ends.values())], [6, new Set(['ABORTED'])])
    assert.equal(outbox.counters.messages, 0)
  })

  test('a signal is let go of with the publish', async () => {
    const { publish, ack, outbox, ends } = open()
    const { signal } = new AbortController()
    for (const topic of names(100)) publish(topic, 1, {}, signal)
    publish('zero', 0, {}, signal)
    assert.equal(getEventListeners(signal, 'abort').length, 1, 'more than ten would be a warning')
    for (const topic of names(100)) ack(topic)
    outbox.onWritten(101)
    await turn()
    assert.deepEqual([ends.size, getEventListeners(signal, 'abort').length], [101, 0])
  })

  test('at the end, wherever it waits, and nothing is taken after that', async () => {
    const { port, ends, errors, publish, outbox } = open({ limits: { receiveMaximum: 1 } })
    for (const topic of ['in flight', 'queued']) publish(topic, 2)
    publish('with the socket', 0)
    port.isWritable = false
    publish('blocked', 0)
    outbox.close()
    publish('too late', 0)
    await turn()
    assert.deepEqual([ends.size, new Set(ends.values())], [5, new Set(['CLOSED'])])
    assert.match(errors.get('queued')?.message ?? '', /The connection to mqtt:\/\/broker:1883 is closed/)
  })

  test('until the connection is gone, PUBREC is answered after the end, too', () => {
    const { port, publish, outbox, pubrec: received } = open()
    publish('a', 2)
    outbox.close()
    received('a')
    assert.deepEqual(port.take(), ['a', 'PUBREL a'])
  })

  test('when another process has the session, wherever it waits; later a new one begins with all room', async () => {
    const { port, ends, publish, outbox, up, ack } = open({ limits: { receiveMaximum: 2 } })
    outbox.foreign(() => {})
    for (const topic of names(3)) publish(topic, 2)
    publish('with the socket', 0)
    outbox.reset(Object.assign(new Error('taken over'), { code: 'TAKEN_OVER' }))
    port.isUp = false
    await turn()
    assert.deepEqual([ends.size, new Set(ends.values())], [4, new Set(['TAKEN_OVER'])])
    publish('m3')
    publish('m4')
    port.take()
    up(true)
    assert.deepEqual(port.take(), ['m3', 'm4'])
    ack('m3')
    ack('m4')
    await turn()
    assert.deepEqual([ends.get('m3'), ends.get('m4')], ['ok', 'ok'])
  })

  test('a connection that was closed on purpose, and another one: as if it was lost', async () => {
    const { port, ends, publish, up } = open({ limits: { receiveMaximum: 2 } })
    for (const topic of names(3)) publish(topic)
    publish('with the socket', 0)
    port.take()
    up(true)
    await turn()
    assert.deepEqual([port.take(), [...ends]], [
      ['m0 again', 'm1 again'], [['with the socket', 'DELIVERY_UNKNOWN']]
    ])
  })

  test('flush: ends when nothing waits, or after the time', async (t) => {
    const clock = stopClock(t)
    const { publish, ack, outbox } = open()
    await outbox.flush(1_000)
    publish('a')
    publish('b')
    let isFlushed = false
    const flushed = outbox.flush(1_000).then(() => { isFlushed = true })
    ack('a')
    await turn()
    assert.equal(isFlushed, false)
    ack('b')
    await flushed
    const controller = new AbortController()
    publish('given up', 1, {}, controller.signal)
    controller.abort()
    ack('given up')
    publish('c')
    let isLate = false
    const late = outbox.flush(1_000).then(() => { isLate = true })
    clock.tick(990)
    await turn()
    assert.equal(isLate, false)
    clock.tick(10)
    await late
  })
})

suite('Outbox: the window', () => {
  test('no more are in flight than the broker takes, the others go in order', () => {
    const { port, publish, ack } = open({ limits: { receiveMaximum: 3 } })
    for (const topic of names(6)) publish(topic, topic === 'm1' ? 2 : 1)
    assert.deepEqual(port.take(), ['m0', 'm1', 'm2'])
    ack('m2')
    ack('m0')
    assert.deepEqual(port.take(), ['m3', 'm4'])
  })

  test('QoS 2 takes its place until PUBCOMP, or until it is refused', () => {
    const { port, publish, pubrec: received, pubcomp: completed } = open({ limits: { receiveMaximum: 1 } })
    for (const topic of names(3)) publish(topic, 2)
    received('m0')
    assert.deepEqual(port.take(), ['m0', 'PUBREL m0'])
    completed('m0')
    assert.deepEqual(port.take(), ['m1'])
    received('m1', 0x80)
    assert.deepEqual(port.take(), ['m2'])
  })

  test("the raw client's publishes take part, and go first", () => {
    const { port, outbox, publish, ack } = open({ limits: { receiveMaximum: 2 } })
    const sent: string[] = []
    outbox.foreign(() => sent.push('theirs 1'))
    publish('a')
    publish('b')
    outbox.foreign(() => sent.push('theirs 2'))
    assert.deepEqual([port.take(), sent], [['a'], ['theirs 1']])
    ack('a')
    assert.deepEqual([port.take(), sent], [[], ['theirs 1', 'theirs 2']])
    outbox.onForeignDone()
    assert.deepEqual(port.take(), ['b'])
    outbox.onForeignDone()
    // A PUBREL that MQTT.js sends again has its PUBCOMP: that makes no more room than there is.
    outbox.onForeignDone()
    for (const topic of names(3)) publish(topic)
    assert.deepEqual(port.take(), ['m0'])
  })

  test("the raw client's publishes of a lost connection do not count", () => {
    const { port, outbox, publish, up, down } = open({ limits: { receiveMaximum: 1 } })
    const sent: string[] = []
    outbox.foreign(() => sent.push('sent'))
    outbox.foreign(() => sent.push('never'))
    publish('a')
    down()
    up()
    assert.deepEqual([port.take(), sent], [['a'], ['sent']])
  })

  test('after a reconnect it may be smaller, for what was in flight too', () => {
    const { port, publish, up, down, ack } = open({ limits: { receiveMaximum: 4 } })
    for (const topic of names(6)) publish(topic)
    port.take()
    down()
    port.limits = { ...noLimits, receiveMaximum: 2 }
    up(true)
    assert.deepEqual(port.take(), ['m0 again', 'm1 again'])
    publish('last')
    ack('m1')
    ack('m0')
    assert.deepEqual(port.take(), ['m2 again', 'm3 again'])
    ack('m2')
    ack('m3')
    ack('m4')
    assert.deepEqual(port.take(), ['m4', 'm5', 'last'])
  })

  test('a peer that does not read holds everything back, in order', () => {
    const { port, outbox, publish, down, up } = open()
    port.isWritable = false
    for (const topic of ['a', 'b']) publish(topic)
    assert.deepEqual(port.take(), [])
    port.isWritable = true
    outbox.onDrain()
    publish('c')
    assert.deepEqual(port.take(), ['a', 'b', 'c'])
    down()
    port.isWritable = false
    up(true)
    port.isWritable = true
    publish('d')
    assert.deepEqual(port.take(), [], 'not before what is to be sent again')
    outbox.onDrain()
    assert.deepEqual(port.take(), ['a again', 'b again', 'c again', 'd'])
  })
})

suite('Outbox: the limits of the broker', () => {
  const properties = { contentType: 'x' }

  test('are checked at once where there is a connection', async () => {
    const { port, publish, ends, errors } = open({ limits: { maximumQoS: 1 } })
    publish('a', 2)
    publish('b', 1)
    await turn()
    assert.deepEqual([port.take(), [...ends]], [['b'], [['a', 'BROKER_LIMIT']]])
    assert.match(errors.get('a')?.message ?? '', /qos is 2, the highest is 1/)
  })

  test('are those of the broker that it goes to: what waited is refused alone', async () => {
    const { port, publish, ends, up, ack } = open({ isUp: false })
    publish('m0')
    publish('qos', 2)
    publish('retain', 1, { retain: true })
    publish('m1')
    publish('large', 1, { payload: Buffer.alloc(100) })
    publish('m2')
    const small = { maximumQoS: 1, retainAvailable: false, maximumPacketSize: 50, receiveMaximum: 1 } as const
    port.limits = { ...noLimits, ...small }
    up()
    for (const topic of names(3)) ack(topic)
    await turn()
    assert.deepEqual(port.take(), ['m0', 'm1', 'm2'])
    assert.deepEqual([...ends], [
      ['m0', 'ok'], ['qos', 'BROKER_LIMIT'], ['retain', 'BROKER_LIMIT'], ['m1', 'ok'], ['large', 'BROKER_LIMIT'],
      ['m2', 'ok']
    ])
  })

  test('MQTT 3.1.1 has no properties: not dropped, refused', async () => {
    const { port, publish, ends, up, down } = open({ isUp: false, version: 4 })
    publish('a', 1, { properties })
    publish('b', 1, { contentType: 'of the codec' })
    up()
    await turn()
    assert.deepEqual([port.take(), [...ends]], [['b'], [['a', 'NEEDS_MQTT5']]])
    down()
    port.version = 5
    publish('a', 1, { properties })
    up()
    assert.deepEqual(port.take(), ['b', 'a'])
  })

  test('what cannot be written is refused alone', async () => {
    const { port, publish, ends, errors, up, ack } = open({ isUp: false })
    port.onPublish = ({ topic }) => { if (topic.startsWith('bad')) throw new TypeError('no string') }
    for (const topic of ['bad 1', 'm0', 'bad 2', 'm1']) publish(topic)
    assert.doesNotThrow(() => up())
    publish('bad 3', 0)
    publish('bad 4', 2)
    ack('m0')
    ack('m1')
    await turn()
    assert.deepEqual(port.take(), ['m0', 'm1'])
    assert.deepEqual([ends.get('m0'), ends.get('m1')], ['ok', 'ok'])
    for (const topic of ['bad 1', 'bad 2', 'bad 3', 'bad 4']) assert.equal(ends.get(topic), 'PUBLISH_REFUSED')
    assert.match(errors.get('bad 1')?.message ?? '', /to 'bad 1': it cannot be written: no string/)
  })
})

suite('Outbox: overflow', () => {
  const sized = (bytes: number) => ({ payload: Buffer.alloc(bytes) })

  test('reject: the newest is refused, and what waits is as it was', async () => {
    const it = open({ isUp: false, settings: { maxMessages: 2 } })
    const { publish, ends, errors, outbox, up, ack, port } = it
    for (const topic of names(4)) publish(topic)
    await turn()
    assert.deepEqual([...ends], [['m2', 'OUTBOX_FULL'], ['m3', 'OUTBOX_FULL']])
    assert.match(errors.get('m2')?.message ?? '', /for mqtt:\/\/broker:1883 may be 2 messages with 16777216 bytes/)
    assert.deepEqual(outbox.counters, { messages: 2, bytes: 4, dropped: 0 })
    up()
    ack('m0')
    publish('m4')
    assert.deepEqual(port.take(), ['m0', 'm1', 'm4'])
  })

  test('drop-newest: the same, and counted', async () => {
    const { publish, ends, outbox } = open({ isUp: false, settings: { maxMessages: 2, overflow: 'drop-newest' } })
    for (const topic of names(4)) publish(topic)
    await turn()
    assert.deepEqual([...ends], [['m2', 'OUTBOX_FULL'], ['m3', 'OUTBOX_FULL']])
    assert.equal(outbox.counters.dropped, 2)
  })

  test('drop-oldest: what has waited longest gives way, but not what is in flight', async () => {
    const { publish, ends, outbox, port, ack } = open({
      limits: { receiveMaximum: 1 }, settings: { maxMessages: 3, overflow: 'drop-oldest' }
    })
    for (const topic of names(5)) publish(topic)
    await turn()
    assert.deepEqual([...ends], [['m1', 'OUTBOX_FULL'], ['m2', 'OUTBOX_FULL']])
    assert.deepEqual(outbox.counters, { messages: 3, bytes: 6, dropped: 2 })
    for (const topic of ['m0', 'm3', 'm4']) ack(topic)
    assert.deepEqual(port.take(), ['m0', 'm3', 'm4'])
  })

  test('drop-oldest: where all is in flight the newest has to go', async () => {
    const { publish, ends } = open({ settings: { maxMessages: 2, overflow: 'drop-oldest' } })
    for (const topic of names(3)) publish(topic)
    await turn()
    assert.deepEqual([...ends], [['m2', 'OUTBOX_FULL']])
  })

  test('drop-oldest: over both qualities of service', async (t) => {
    const clock = stopClock(t)
    const { port, publish, ends } = open({ settings: { maxMessages: 2, overflow: 'drop-oldest' } })
    port.isWritable = false
    publish('zero', 0)
    clock.tick(10)
    publish('one', 1)
    clock.tick(10)
    publish('two', 0)
    clock.tick(10)
    publish('three', 0)
    await turn()
    assert.deepEqual([...ends.keys()], ['zero', 'one'])
  })

  test('bytes of topic and payload count, those of what is in flight too', async () => {
    const { publish, ends, outbox, ack, port } = open({ settings: { maxBytes: 20 } })
    publish('m0', 1, sized(8))
    publish('m1', 1, sized(8))
    publish('m2', 1, sized(8))
    publish('', 1, sized(0))
    await turn()
    assert.deepEqual([[...ends], outbox.counters.bytes], [[['m2', 'OUTBOX_FULL']], 20])
    ack('m0')
    assert.equal(outbox.counters.bytes, 10)
    port.take()
    publish('m3', 1, sized(8))
    assert.deepEqual(port.take(), ['m3'])
  })

  test('drop-oldest by bytes: as many give way as are needed; what never fits costs nobody else', async () => {
    const { publish, ends, outbox } = open({ isUp: false, settings: { maxBytes: 32, overflow: 'drop-oldest' } })
    for (const topic of names(3)) publish(topic, 1, sized(8))
    publish('m3', 1, sized(31))
    await turn()
    assert.deepEqual([...ends], [['m3', 'OUTBOX_FULL']])
    publish('m4', 1, sized(15))
    await turn()
    assert.deepEqual([...ends.keys()], ['m3', 'm0', 'm1'])
    assert.deepEqual(outbox.counters, { messages: 2, bytes: 27, dropped: 3 })
  })
})

suite('Outbox: QoS 0', () => {
  test('is not kept while there is no connection', async () => {
    const { publish, ends, errors } = open({ isUp: false })
    publish('a', 0)
    await turn()
    assert.equal(ends.get('a'), 'OFFLINE')
    assert.match(errors.get('a')?.message ?? '', /Not connected to mqtt:\/\/broker:1883/)
  })

  test('those of one write end together, but one that has a signal', async () => {
    const { port, publish, ends, outbox } = open()
    const written: number[] = []
    port.sendPublish = () => port.writes
    port.writes = 1
    const giveUp = new AbortController()
    const promises = ['a', 'b'].map((topic) =>
      outbox.publish(message(topic, 0), { timeoutMs: 30_000, signal: undefined }))
    publish('own', 0, {}, giveUp.signal)
    port.writes = 2
    const later = outbox.publish(message('c', 0), { timeoutMs: 30_000, signal: undefined })
    void later.then(() => written.push(2))
    assert.equal(promises[0], promises[1])
    giveUp.abort()
    outbox.onWritten(1)
    await Promise.all(promises)
    await turn()
    assert.deepEqual([ends.get('own'), written], ['ABORTED', []])
    const idle = outbox.flush(1_000)
    outbox.onWritten(2)
    await Promise.all([later, idle])
  })

  test('one that cannot be written, or that the broker would not take, harms no other of its write', async () => {
    const { port, ends, publish, outbox } = open({ limits: { retainAvailable: false } })
    port.onPublish = ({ topic }) => { if (topic === 'bad') throw new Error('no way') }
    publish('a', 0)
    publish('bad', 0)
    publish('kept', 0, { retain: true })
    publish('b', 0)
    outbox.onWritten(2)
    await turn()
    assert.deepEqual(Object.fromEntries(ends), { a: 'ok', bad: 'PUBLISH_REFUSED', kept: 'BROKER_LIMIT', b: 'ok' })
  })

  test('waits within the limits while the peer does not read, and goes in order', async () => {
    const { port, publish, outbox, ends } = open({ settings: { maxMessages: 2 } })
    port.isWritable = false
    for (const topic of names(3)) publish(topic, 0)
    await turn()
    assert.deepEqual([port.take(), [...ends]], [[], [['m2', 'OUTBOX_FULL']]])
    port.onPublish = ({ topic }) => { if (topic === 'm0') port.isWritable = false }
    port.isWritable = true
    outbox.onDrain()
    assert.deepEqual(port.take(), ['m0'])
    port.isWritable = true
    outbox.onWritten(1)
    publish('m3', 0)
    assert.deepEqual(port.take(), [], 'what waits goes first')
    outbox.onDrain()
    assert.deepEqual(port.take(), ['m1', 'm3'])
  })

  test('does not wait for the window', () => {
    const { port, publish } = open({ limits: { receiveMaximum: 1 } })
    publish('a')
    publish('b')
    publish('urgent', 0)
    assert.deepEqual(port.take(), ['a', 'urgent'])
  })

  test('with the end of the connection, what was written is open, what was not is not sent', async () => {
    const { port, publish, down, up, ends, errors, outbox } = open()
    publish('gone', 0)
    publish('with the socket', 0)
    outbox.onWritten(1)
    port.isWritable = false
    publish('blocked', 0)
    down(new Error('reset by peer'))
    up()
    await turn()
    assert.deepEqual(new Map([...ends].sort()), new Map([
      ['blocked', 'OFFLINE'], ['gone', 'ok'], ['with the socket', 'DELIVERY_UNKNOWN']
    ]))
    assert.equal((errors.get('blocked')?.cause as Error).message, 'reset by peer')
    assert.deepEqual(port.take(), ['gone', 'with the socket'])
  })
})

suite('Outbox: reconnects', () => {
  test('a kept session: the same identifiers and DUP, in order, before what is new', () => {
    const { port, publish, down, up, ack } = open()
    for (const topic of names(3)) publish(topic)
    const ids = names(3).map((topic) => port.ids.get(topic))
    ack('m1')
    down()
    for (const topic of names(2, 3)) publish(topic)
    port.take()
    up(true)
    assert.deepEqual(port.take(), ['m0 again', 'm2 again', 'm3', 'm4'])
    assert.deepEqual([port.ids.get('m0'), port.ids.get('m2')], [ids[0], ids[2]])
  })

  test('a lost session: new identifiers, no DUP, in order, before what is new', () => {
    const { port, publish, down, up } = open()
    for (const topic of names(3)) publish(topic)
    const before = new Set(names(3).map((topic) => port.ids.get(topic)))
    down()
    for (const topic of names(2, 3)) publish(topic)
    port.take()
    up(false)
    assert.deepEqual(port.take(), names(5))
    assert.deepEqual(names(3).filter((topic) => before.has(port.ids.get(topic))), [])
  })

  test('cut before all was sent again: nothing is left out and nothing comes twice', async (t) => {
    const clock = stopClock(t)
    const { port, publish, down, up, ack, ends } = open({ limits: { receiveMaximum: 3 } })
    for (const topic of names(5)) publish(topic)
    for (const isKept of [true, true, false, true]) {
      // Later than the end that a message of ours would bring about.
      clock.tick(100)
      down()
      port.limits = { ...noLimits, receiveMaximum: 2 }
      up(isKept)
    }
    port.take()
    const sent = names(5).map((topic) => {
      ack(topic)
      return port.take()
    })
    await turn()
    assert.deepEqual(sent.flat(), ['m1', 'm2', 'm3', 'm4'])
    assert.deepEqual([...ends], names(5).map((topic) => [topic, 'ok']))
  })

  test('with every identifier in use: 70,000 wait, and all are sent again', async () => {
    const { port, publish, down, up, ends, ack } = open({ settings: { maxMessages: 70_000 } })
    const topics = names(70_000)
    for (const topic of topics) publish(topic)
    assert.equal(port.take().length, 64_511)
    assert.equal(new Set(port.ids.values()).size, 64_511)
    down()
    up(true)
    assert.equal(port.take().length, 64_511)
    for (const topic of topics) ack(topic)
    await turn()
    assert.equal(new Set(port.ids.values()).size, 64_511)
    assert.equal([...ends.values()].filter((end) => end === 'ok').length, 70_000)
  })

  test('what was given up is not sent again, also between the reconnect and its turn', async () => {
    const { port, publish, down, up, ack } = open()
    const controllers = names(4).map(() => new AbortController())
    for (const [index, topic] of names(4).entries()) publish(topic, 1, {}, controllers[index]?.signal)
    controllers[0]?.abort()
    down()
    port.limits = { ...noLimits, receiveMaximum: 1 }
    port.take()
    up(true)
    controllers[2]?.abort()
    ack('m1')
    assert.deepEqual(port.take(), ['m1 again', 'm3 again'])
    down()
    up(false)
    assert.deepEqual(port.take(), ['m3'])
  })
})

suite('Outbox: QoS 2 over reconnects', () => {
  test('PUBREC lost: PUBLISH again, then on with the handshake', async () => {
    const it = open()
    it.publish('a', 2)
    it.down()
    it.up(true)
    it.pubrec('a')
    it.pubcomp('a')
    await turn()
    assert.deepEqual([it.port.take(), it.ends.get('a')], [['a', 'a again', 'PUBREL a'], 'ok'])
  })

  test('PUBREL lost: PUBREL again, never PUBLISH', async () => {
    const it = open()
    it.publish('a', 2)
    it.pubrec('a')
    it.down()
    it.up(true)
    it.down()
    it.up(true)
    it.pubcomp('a')
    await turn()
    assert.deepEqual([it.port.take(), it.ends.get('a')], [['a', 'PUBREL a', 'PUBREL a', 'PUBREL a'], 'ok'])
  })

  test('PUBCOMP lost: the broker knows nothing of it any more, which is right', async () => {
    const it = open()
    it.publish('a', 2)
    it.pubrec('a')
    it.down()
    it.up(true)
    it.pubcomp('a', 0x92)
    await turn()
    assert.equal(it.ends.get('a'), 'ok')
  })

  test('the broker has forgotten it between PUBREC and the first PUBREL: nobody knows', async () => {
    const it = open()
    it.publish('a', 2)
    it.down()
    it.up(true)
    it.pubrec('a')
    it.pubcomp('a', 0x92)
    await turn()
    assert.equal(it.ends.get('a'), 'DELIVERY_UNKNOWN')
  })

  test('a lost session: nobody knows, before PUBREC and after it; what was not sent goes on', async () => {
    const it = open({ limits: { receiveMaximum: 2 } })
    for (const topic of names(3)) it.publish(topic, 2)
    it.pubrec('m1')
    it.down()
    await turn()
    assert.equal(it.ends.size, 0, 'the session may be there')
    it.port.take()
    it.up(false)
    await turn()
    assert.deepEqual([...it.ends], [['m0', 'DELIVERY_UNKNOWN'], ['m1', 'DELIVERY_UNKNOWN']])
    assert.deepEqual(it.port.take(), ['m2'])
  })

  test('PUBREC that nobody waits for, of another process with this session: PUBREL 0x92', () => {
    const { port, outbox } = open()
    outbox.onAck(pubrec, 7, 0)
    outbox.onAck(pubrec, 8, 0x80)
    outbox.onAck(puback, 9, 0)
    outbox.onAck(pubcomp, 9, 0)
    assert.deepEqual(port.take(), ['PUBREL 7 0x92'])
  })

  test('PUBREC for what is still to be sent again is not the answer to that', async () => {
    const it = open({ limits: { receiveMaximum: 2 } })
    it.publish('a', 2)
    it.publish('b', 2)
    it.down()
    it.port.limits = { ...noLimits, receiveMaximum: 1 }
    it.port.take()
    it.up(true)
    it.pubrec('b')
    it.pubrec('a')
    it.pubcomp('a')
    it.pubrec('b')
    it.pubcomp('b')
    await turn()
    assert.deepEqual(it.port.take(), ['a again', 'PUBREL a', 'b again', 'PUBREL b'])
    assert.deepEqual([...it.ends.values()], ['ok', 'ok'])
  })

  test('given up: the broker is told by PUBREL, so that its identifier can be used again', async () => {
    const it = open()
    const controller = new AbortController()
    it.publish('before PUBREC', 2, {}, controller.signal)
    it.publish('after PUBREC', 2, {}, controller.signal)
    it.pubrec('after PUBREC')
    controller.abort()
    it.down()
    it.port.take()
    it.up(true)
    assert.deepEqual(it.port.take(), ['PUBREL before PUBREC', 'PUBREL after PUBREC'])
    it.pubcomp('before PUBREC', 0x92)
    it.pubcomp('after PUBREC')
    it.down()
    it.up(true)
    assert.deepEqual(it.port.take(), [])
  })
})

suite('Outbox: what ends the connection', () => {
  const blamed = Object.assign(new Error('the broker ended the connection'), { reasonCode: 0x82 })

  /** Takes what is sent, and ends the connection when the poison is among it: with a word, or without. */
  function run (it: ReturnType<typeof open>, clock: Clock, poison: readonly string[], cause: Error) {
    let connections = 0
    for (let steps = 0; steps < 100; steps++) {
      const sent = it.port.take().map((text) => text.replace(' again', ''))
      const first = sent.findIndex((topic) => poison.includes(topic))
      for (const topic of first === -1 ? sent : sent.slice(0, first)) it.ack(topic)
      if (first !== -1) {
        it.down(cause)
        clock.tick(1)
        it.up(true)
        connections++
      } else {
        clock.tick(60)
      }
    }
    return connections
  }

  test('named by the broker: no more than a few connections until it is found', async (t) => {
    const clock = stopClock(t)
    const it = open({ limits: { receiveMaximum: 20 } })
    for (const topic of names(1_000)) it.publish(topic)
    const connections = run(it, clock, ['m500'], blamed)
    await turn()
    assert.equal(it.ends.size, 1_000)
    assert.deepEqual([...it.ends].filter(([, end]) => end !== 'ok'), [['m500', 'PUBLISH_REFUSED']])
    assert.match(it.errors.get('m500')?.message ?? '', /to 'm500': it ends the connection, each time that it is sent \(/)
    assert.equal(it.errors.get('m500')?.cause, blamed)
    assert.ok(connections <= 4, `${connections} connections`)
  })

  test('without a word: the others go on meanwhile, and it is refused after a dozen times alone', async (t) => {
    const clock = stopClock(t)
    const it = open()
    for (const topic of names(30)) it.publish(topic)
    const connections = run(it, clock, ['m7', 'm8'], cut)
    await turn()
    assert.deepEqual([...it.ends].filter(([, end]) => end !== 'ok').map(([topic]) => topic).sort(), ['m7', 'm8'])
    assert.equal([...it.ends.keys()].indexOf('m29'), 27, 'all good ones came before the verdict')
    assert.ok(connections >= 24 && connections <= 30, `${connections} connections`)
  })

  test('a good message whose connection is cut ten times, each time at once, is delivered', async (t) => {
    const clock = stopClock(t)
    const it = open()
    it.publish('a')
    let cuts = 0
    while (cuts < 10) {
      const isSent = it.port.take().length > 0
      clock.tick(isSent ? 1 : 60)
      if (!isSent) continue
      cuts++
      it.down()
      it.up(true)
    }
    clock.tick(100)
    it.ack('a')
    await turn()
    assert.equal(it.ends.get('a'), 'ok')
  })

  test('connections that end later, or end without it as well, are no evidence', async (t) => {
    const clock = stopClock(t)
    const it = open()
    it.publish('a')
    for (let cuts = 0; cuts < 60; cuts++) {
      // Of four it is sent on two, of which one ends at once.
      if (cuts % 2 === 0) clock.tick(cuts % 4 === 0 ? 200 : 60)
      it.down()
      it.up(true)
    }
    clock.tick(200)
    assert.equal(it.ends.size, 0)
    it.ack('a')
    await turn()
    assert.equal(it.ends.get('a'), 'ok')
  })

  test('what we object to in the packets of the broker is not said of ours', async () => {
    const it = open()
    const objection = Object.assign(new Error('malformed'), { code: 'FST_MQTT_MALFORMED', reasonCode: 0x81 })
    it.publish('a')
    for (let cuts = 0; cuts < 3; cuts++) {
      it.down(objection)
      it.up(true)
    }
    await turn()
    assert.equal(it.ends.size, 0)
  })

  test('QoS 0 waits while one has to be alone, and is not blamed on it', async () => {
    const it = open()
    it.publish('good')
    it.publish('poison', 0)
    it.down(blamed)
    it.port.take()
    it.up(true)
    it.publish('zero', 0)
    assert.deepEqual(it.port.take(), ['good again'])
    it.ack('good')
    await turn()
    assert.deepEqual([it.port.take(), it.ends.get('good')], [['zero'], 'ok'])
  })

  test('only those that were in flight at the last end are sent a few at a time', () => {
    const it = open()
    for (const topic of names(40)) it.publish(topic)
    it.down(blamed)
    it.port.take()
    it.up(true)
    assert.equal(it.port.take().length, 10)
    it.down(blamed)
    it.up(true)
    assert.equal(it.port.take().length, 2)
    for (const topic of names(10)) it.ack(topic)
    assert.equal(it.port.take().length, 38, 'the rest at once, after the eight others')
  })

  /** One that is set apart, with another one behind it. */
  function quarantine (clock: Clock, qos: QoS = 1, signal?: AbortSignal) {
    const it = open()
    it.publish('apart', qos, {}, signal)
    for (let cuts = 0; cuts < 4; cuts++) {
      clock.tick(1)
      it.down()
      it.up(true)
    }
    it.port.take()
    return it
  }

  test('set apart: tried again alone when the connection has lived for a while, and nothing is in flight', async (t) => {
    const clock = stopClock(t)
    const it = quarantine(clock)
    it.publish('m0')
    assert.deepEqual(it.port.take(), ['m0'])
    clock.tick(60)
    it.publish('m1')
    it.publish('zero', 0)
    assert.deepEqual(it.port.take(), [], 'm0 is in flight')
    it.ack('m0')
    assert.deepEqual(it.port.take(), ['apart again'])
    it.ack('apart')
    await turn()
    assert.deepEqual([it.port.take(), it.ends.get('apart')], [['m1', 'zero'], 'ok'])
  })

  for (const when of ['while it waits', 'while it is due', 'while it is tried']) {
    test(`set apart and given up ${when}: the others go on`, async (t) => {
      const clock = stopClock(t)
      const controller = new AbortController()
      const it = quarantine(clock, 1, controller.signal)
      if (when === 'while it is due') it.publish('m0')
      if (when !== 'while it waits') clock.tick(60)
      it.publish('m1')
      controller.abort()
      await turn()
      assert.deepEqual(it.port.take().at(-1), 'm1')
      assert.equal(it.ends.get('apart'), 'ABORTED')
      it.down()
      it.port.take()
      it.up(true)
      assert.ok(!it.port.take().includes('apart again'))
    })
  }

  test('set apart and given up, with QoS 2: the broker is told by PUBREL', async (t) => {
    const clock = stopClock(t)
    const controller = new AbortController()
    const it = quarantine(clock, 2, controller.signal)
    controller.abort()
    it.down()
    it.up(true)
    assert.deepEqual(it.port.take(), ['PUBREL apart'])
  })

  test('set apart, and refused by the limits of a later broker: the others go on', async (t) => {
    const clock = stopClock(t)
    const it = quarantine(clock)
    it.down()
    it.port.limits = { ...noLimits, maximumQoS: 0 }
    it.up(false)
    it.publish('zero', 0)
    clock.tick(60)
    it.publish('next', 0)
    await turn()
    assert.deepEqual([it.port.take(), it.ends.get('apart')], [['zero', 'next'], 'BROKER_LIMIT'])
  })

  test('in a lost session: QoS 1 is tried anew, of QoS 2 nobody knows', async (t) => {
    const clock = stopClock(t)
    const it = quarantine(clock)
    it.down()
    it.up(false)
    clock.tick(60)
    assert.deepEqual(it.port.take(), ['apart'])
    it.ack('apart')
    it.publish('two', 2)
    for (let cuts = 0; cuts < 4; cuts++) {
      clock.tick(1)
      it.down()
      it.up(true)
    }
    it.down()
    it.up(false)
    await turn()
    assert.deepEqual([...it.ends], [['apart', 'ok'], ['two', 'DELIVERY_UNKNOWN']])
  })

  test('a new connection may come soon while the culprit is looked for, and only then', async (t) => {
    const clock = stopClock(t)
    const it = open()
    it.publish('a')
    assert.equal(it.down(), false)
    it.up(true)
    assert.equal(it.down(), true)
    it.up(true)
    it.ack('a')
    clock.tick(1)
    assert.equal(it.down(), false)
  })

  test('the end settles what is set apart, and leaves no timer', async (t) => {
    const clock = stopClock(t)
    const it = quarantine(clock)
    it.outbox.close()
    await turn()
    clock.tick(1_000)
    assert.deepEqual([it.port.take(), it.ends.get('apart')], [[], 'CLOSED'])
  })
})

/**
 * A broker that keeps a session: it delivers when PUBLISH comes, and knows the identifiers of QoS 2 until
 * PUBREL [MQTT 5 §4.3.3, method B]. What is under way in either direction is lost with the connection.
 */
class NaiveBroker {
  readonly delivered: string[] = []
  /** The reason code with which it refuses a message, by topic. */
  readonly refusals = new Map<string, number>()
  #up: { type: 'publish' | 'pubrel', topic: string, qos: QoS, id: number }[] = []
  #down: [type: AckType, id: number, reasonCode: number][] = []
  readonly #held = new Map<number, string>()
  /** Sent on this connection, and the answer has not come. */
  readonly unanswered = new Set<number>()
  readonly #answer: (type: AckType, id: number, reasonCode: number) => void

  constructor (port: FakePort, answer: (type: AckType, id: number, reasonCode: number) => void) {
    this.#answer = answer
    port.onPublish = ({ topic, qos }, id) => {
      this.#up.push({ type: 'publish', topic, qos, id })
      if (qos === 0) return
      assert.ok(!this.unanswered.has(id), `the identifier of ${topic} is in use`)
      this.unanswered.add(id)
      assert.ok(this.unanswered.size <= port.limits.receiveMaximum, 'more than the broker takes')
    }
    port.onAck = (_, id) => {
      this.#up.push({ type: 'pubrel', topic: '', qos: 2, id })
      this.unanswered.add(id)
    }
  }

  /** Reads one packet. @returns false if there is none */
  take (): boolean {
    const packet = this.#up.shift()
    if (packet === undefined) return false
    const { type, topic, qos, id } = packet
    if (type === 'pubrel') {
      this.#down.push([pubcomp, id, this.#held.delete(id) ? 0 : 0x92])
      return true
    }
    const held = this.#held.get(id)
    const reasonCode = this.refusals.get(topic) ?? 0
    if (qos === 2) assert.ok(held === undefined || held === topic, `${topic} would be taken for ${held}`)
    if (reasonCode === 0 && !(qos === 2 && held !== undefined)) this.delivered.push(topic)
    if (reasonCode === 0 && qos === 2) this.#held.set(id, topic)
    if (qos > 0) this.#down.push([qos === 1 ? puback : pubrec, id, reasonCode])
    return true
  }

  /** Lets one answer arrive. @returns false if there is none */
  answer (): boolean {
    const answer = this.#down.shift()
    if (answer === undefined) return false
    const [type, id, reasonCode] = answer
    if (type !== pubrec || reasonCode >= 0x80) this.unanswered.delete(id)
    this.#answer(type, id, reasonCode)
    return true
  }

  down (): void {
    this.#up = []
    this.#down = []
    this.unanswered.clear()
  }

  forget (): void {
    this.#held.clear()
  }
}

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('publish' as const), qos: fc.constantFrom<QoS>(0, 1, 2), code: fc.constantFrom(0, 0, 0, 0x87)
    })
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('take' as const) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('answer' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('written' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('down' as const), isBlamed: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('up' as const), isKept: fc.boolean(), window: fc.constantFrom(1, 2, 5, 65_535)
    })
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('abort' as const), which: fc.nat(20) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('block' as const), isWritable: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(1, 60, 31_000) }) }
)

suite('Outbox: any sequence of events', () => {
  for (const [what, isSlow] of [
    ['connections that end long after what was sent', true], ['connections that end at once', false]
  ] as const) {
    test(`${what}: nothing resolved that was lost, QoS 2 once, in order, nothing waits for ever`, async (t) => {
      const clock = stopClock(t)
      const settings = fc.record({
        maxMessages: fc.constantFrom(3, 10_000), overflow: fc.constantFrom('reject', 'drop-oldest' as const)
      })
      await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 60, size: 'max' }), settings, async (steps, given) => {
        const it = open({ isUp: false, settings: given })
        const { port, outbox, ends } = it
        const broker = new NaiveBroker(port, (type, id, code) => outbox.onAck(type, id, code))
        const controllers: AbortController[] = []
        const published: { topic: string, qos: QoS }[] = []
        const rise = (isKept: boolean, window: number) => {
          if (port.isUp) return
          if (!isKept) broker.forget()
          port.limits = { ...noLimits, receiveMaximum: window }
          it.up(isKept)
        }
        const fall = (cause: Error) => {
          if (!port.isUp) return
          if (isSlow) clock.tick(100)
          broker.down()
          it.down(cause)
        }
        for (const event of steps) {
          switch (event.do) {
            case 'publish': {
              const topic = `m${published.length}`
              const controller = new AbortController()
              published.push({ topic, qos: event.qos })
              controllers.push(controller)
              broker.refusals.set(topic, event.code)
              it.publish(topic, event.qos, {}, controller.signal)
              break
            }
            case 'take': broker.take(); break
            case 'answer': broker.answer(); break
            case 'written': outbox.onWritten(port.writes); break
            case 'down': fall(event.isBlamed && !isSlow ? Object.assign(new Error(), { reasonCode: 0x82 }) : cut); break
            case 'up': rise(event.isKept, event.window); break
            case 'abort': controllers[event.which]?.abort(); break
            case 'block':
              port.isWritable = event.isWritable
              if (event.isWritable) outbox.onDrain()
              break
            case 'pass': clock.tick(event.ms)
          }
          await turn()
        }
        // A connection on which all goes well: whatever waits has to go now, by itself.
        rise(true, 2)
        port.isWritable = true
        outbox.onDrain()
        for (let quiet = 0; quiet < 3; quiet++) {
          while (broker.take() || broker.answer()) quiet = 0
          outbox.onWritten(port.writes)
          await turn()
          clock.tick(60)
        }
        await turn()
        assert.deepEqual(published.filter(({ topic }) => !ends.has(topic)), [], 'nothing waits for ever')
        assert.deepEqual(outbox.counters.messages, 0)
        const { delivered } = broker
        for (const { topic, qos } of published) {
          const times = delivered.filter((name) => name === topic).length
          if (qos > 0 && ends.get(topic) === 'ok') assert.ok(times >= 1, `${topic} is lost`)
          if (qos === 2) assert.ok(times <= 1, `${topic} came ${times} times`)
        }
        const acknowledged = published.filter(({ qos }) => qos > 0).map(({ topic }) => topic)
        const firsts = [...new Set(delivered)].filter((topic) => acknowledged.includes(topic))
        if (isSlow) assert.deepEqual(firsts, acknowledged.filter((topic) => firsts.includes(topic)))
        outbox.close()
      }), { numRuns: 1_000 })
    })
  }
})

suite('Outbox: memory', () => {
  test('what is given up without an answer keeps its packet identifier, and not its payload', async () => {
    const { outbox, port } = open()
    const abort = new AbortController()
    const publish = (qos: 1 | 2) => outbox.publish(
      { ...message('a', qos), payload: Buffer.alloc(1_000_000) }, { timeoutMs: 60_000, signal: abort.signal })
    const before = await usedBytes()
    const publishing = Array.from({ length: 16 }, (_, n) => publish(n % 2 === 0 ? 1 : 2))
    abort.abort()
    await Promise.allSettled(publishing)
    assert.equal(port.take().length, 16)
    const kept = await usedBytes() - before
    assert.ok(kept < 2_000_000, `${kept} bytes are kept`)
    outbox.close()
  })
})
