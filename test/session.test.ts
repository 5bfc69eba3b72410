import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { RefusedFilter } from '../types/status.ts'
import { Connection } from '../lib/session/connection.ts'
import { noLimits, type BrokerLimits, type OutgoingPublish, type SubscribeOptions } from '../lib/session/link.ts'
import { assertBrokerAccepts, checkPublishOptions } from '../lib/session/publish.ts'
import { OutgoingNames } from '../lib/topic/outgoing-names.ts'
import { needsMqtt5, SubscriptionBook, type SubscribePort } from '../lib/session/subscriptions.ts'

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
  await assert.rejects(connection.subscribe(['a'], options), { code: 'FST_MQTT_OFFLINE' })
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

// Subscriptions

type Call = [verb: 'subscribe' | 'unsubscribe', filters: readonly string[], options?: SubscribeOptions]

/** A connection that notes the packets, and grants what it is asked for unless the test says otherwise. */
class FakeSubscribePort implements SubscribePort {
  version: 4 | 5 = 5
  limits = { maximumPacketSize: Infinity }
  readonly calls: Call[] = []
  onSubscribe = async (filters: readonly string[], options: SubscribeOptions): Promise<readonly number[]> =>
    filters.map(() => options.qos)

  onUnsubscribe = async (): Promise<void> => {}

  async subscribe (filters: readonly string[], options: SubscribeOptions): Promise<readonly number[]> {
    this.calls.push(['subscribe', filters, options])
    return await this.onSubscribe(filters, options)
  }

  async unsubscribe (filters: readonly string[]): Promise<void> {
    this.calls.push(['unsubscribe', filters])
    await this.onUnsubscribe()
  }

  /** What was sent since the last call. */
  take (): string[] {
    return this.calls.splice(0).map(([verb, filters, options]) =>
      `${verb} ${filters.join(' ')}${options === undefined ? '' : ` qos ${options.qos}`}`)
  }
}

function openBook ({ isUp = true, version = 5 }: { isUp?: boolean, version?: 4 | 5 } = {}) {
  const port = new FakeSubscribePort()
  port.version = version
  const refusals: RefusedFilter[] = []
  const book = new SubscriptionBook(port, (refused) => refusals.push(refused))
  if (isUp) book.onUp()
  return { port, book, refusals }
}

function options (given: Partial<SubscribeOptions> = {}): SubscribeOptions {
  return { qos: 0, noLocal: false, retainAsPublished: false, retainHandling: 0, ...given }
}

/** A promise that the test settles. */
function pending<T> () {
  let resolve: (value: T) => void = () => {}
  let reject: (error: Error) => void = () => {}
  const promise = new Promise<T>((_resolve, _reject) => {
    resolve = _resolve
    reject = _reject
  })
  return { promise, resolve, reject }
}

suite('SubscriptionBook', () => {
  test('sends the filters of one turn in one packet for each set of options', async () => {
    const { port, book } = openBook()
    for (const filter of ['a', 'b', 'c/#']) book.want(filter, options())
    book.want('d', options({ qos: 1 }))
    book.want('e', options({ noLocal: true }))
    assert.deepEqual(book.pending, ['a', 'b', 'c/#', 'd', 'e'])
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a b c/# qos 0', 'subscribe d qos 1', 'subscribe e qos 0'])
    assert.deepEqual(book.pending, [])
    assert.equal(book.granted.length, 5)
  })

  test('sends at most 100 filters in one packet', async () => {
    const { port, book } = openBook()
    for (let number = 0; number < 250; number++) book.want(`t/${number}`, options())
    await book.answered()
    assert.deepEqual(port.calls.map(([, filters]) => filters.length), [100, 100, 50])
    assert.equal(book.granted.length, 250)
  })

  test('sends nothing before the connection is up, and everything then', async () => {
    const { port, book } = openBook({ isUp: false })
    book.want('a', options({ qos: 2 }))
    await turn()
    assert.deepEqual(port.take(), [])
    assert.deepEqual([book.pending, book.granted], [['a'], []])
    const answered = book.answered()
    book.onUp()
    await answered
    assert.deepEqual(port.take(), ['subscribe a qos 2'])
    assert.deepEqual(book.granted, [{ filter: 'a', qos: 2 }])
  })

  test('answered: resolves at once where nothing is to be asked', async () => {
    const { book } = openBook()
    await book.answered()
  })

  test('subscribes every filter again on every connection', async () => {
    const { port, book } = openBook()
    book.want('a', options())
    book.want('b', options())
    await book.answered()
    for (let connection = 0; connection < 3; connection++) {
      port.take()
      book.onDown()
      assert.deepEqual([book.granted, book.pending], [[], ['a', 'b']])
      book.onUp()
      await book.answered()
      assert.deepEqual(port.take(), ['subscribe a b qos 0'])
    }
  })

  test('a filter that was wanted twice is subscribed once, and unsubscribed by the last', async () => {
    const { port, book } = openBook()
    const removers = [book.want('n/+', options()), book.want('n/+', options())]
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe n/+ qos 0'])
    removers[0]?.()
    removers[0]?.()
    await turn()
    assert.deepEqual(port.take(), [])
    removers[1]?.()
    await turn()
    assert.deepEqual(port.take(), ['unsubscribe n/+'])
    assert.deepEqual([book.granted, book.pending], [[], []])
  })

  test('one filter has the highest quality of service of all who ask', async () => {
    const { port, book } = openBook()
    book.want('a', options({ qos: 1 }))
    const remove = book.want('a', options({ qos: 2 }))
    book.want('a', options({ qos: 0 }))
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 2'])
    remove()
    await turn()
    assert.deepEqual(port.take(), [])
  })

  test('a higher quality of service later is subscribed anew, a lower one is not', async () => {
    const { port, book } = openBook()
    for (const [qos, expected] of [[1, ['subscribe a qos 1']], [0, []], [2, ['subscribe a qos 2']]] as const) {
      book.want('a', options({ qos }))
      await book.answered()
      assert.deepEqual(port.take(), expected)
    }
  })

  test('a grant of less than was asked is kept, and not asked for again', async () => {
    const { port, book } = openBook()
    port.onSubscribe = async () => [0]
    book.want('a', options({ qos: 2 }))
    await book.answered()
    book.want('a', options({ qos: 1 }))
    await turn()
    assert.equal(port.calls.length, 1)
    assert.deepEqual(book.granted, [{ filter: 'a', qos: 0 }])
  })

  for (const [key, given, said] of [
    ['noLocal', { noLocal: true }, /noLocal is false, not true/],
    ['retainAsPublished', { retainAsPublished: true }, /retainAsPublished is false, not true/],
    ['retainHandling', { retainHandling: 2 }, /retainHandling is 0, not 2/]
  ] as const) {
    test(`one filter with two values of ${key} is a conflict, which changes nothing`, async () => {
      const { port, book } = openBook()
      book.want('a/+', options())
      assert.throws(() => book.want('a/+', options({ ...given, qos: 2 })), {
        code: 'FST_MQTT_TOPIC_CONFLICT', message: said
      })
      await book.answered()
      assert.deepEqual(port.take(), ['subscribe a/+ qos 0'])
    })
  }

  test('taken back and wanted again in one turn, nothing is sent', async () => {
    const { port, book } = openBook()
    const remove = book.want('a', options())
    await book.answered()
    port.take()
    remove()
    book.want('a', options())
    await turn()
    assert.deepEqual(port.take(), [])
    assert.deepEqual(book.granted, [{ filter: 'a', qos: 0 }])
  })

  test('taken back and wanted with other options in one turn, it is subscribed with those', async () => {
    const { port, book } = openBook()
    const remove = book.want('a', options())
    await book.answered()
    port.take()
    remove()
    book.want('a', options({ noLocal: true }))
    await book.answered()
    assert.deepEqual(port.calls, [['subscribe', ['a'], options({ noLocal: true })]])
  })

  test('wanted and taken back in one turn, nothing is sent', async () => {
    const { port, book } = openBook()
    book.want('a', options())()
    await turn()
    assert.deepEqual(port.take(), [])
  })

  test('an old remover does not take away what was wanted since', async () => {
    const { port, book } = openBook()
    const remove = book.want('a', options())
    remove()
    book.want('a', options())
    remove()
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 0'])
  })

  for (const [code, reason] of [
    [0x80, 'refused without a reason'], [0x83, 'implementation specific error'], [0x87, 'not authorized'],
    [0x8f, 'topic filter invalid'], [0x97, 'quota exceeded'], [0x9e, 'shared subscriptions not supported'],
    [0xa2, 'wildcard subscriptions not supported'], [0xff, 'refused']
  ] as const) {
    test(`a refusal 0x${code.toString(16)} is told once as '${reason}', and the other filters are granted`, async () => {
      const { port, book, refusals } = openBook()
      port.onSubscribe = async (filters) => filters.map((filter) => filter === 'no' ? code : 0)
      for (const filter of ['a', 'no', 'b']) book.want(filter, options())
      await book.answered()
      const refused = { filter: 'no', reasonCode: code, reason }
      assert.deepEqual([refusals, book.refused], [[refused], [refused]])
      assert.deepEqual(book.granted.map(({ filter }) => filter), ['a', 'b'])
      assert.deepEqual(book.pending, [])
      book.want('c', options())
      await book.answered()
      assert.deepEqual(port.take(), ['subscribe a no b qos 0', 'subscribe c qos 0'])
    })
  }

  test('a refused filter is asked for again on the next connection, and when it is wanted again', async () => {
    const { port, book, refusals } = openBook()
    port.onSubscribe = async () => [0x87]
    const remove = book.want('a', options())
    await book.answered()
    book.onUp()
    await book.answered()
    const removeSecond = book.want('a', options())
    await book.answered()
    assert.equal(port.calls.length, 3)
    assert.equal(refusals.length, 3)
    remove()
    removeSecond()
    await turn()
    assert.deepEqual(book.refused, [])
    assert.deepEqual(port.take().at(-1), 'subscribe a qos 0')
  })

  test('an answer that is missing is a refusal', async () => {
    const { port, book } = openBook()
    port.onSubscribe = async () => [0]
    book.want('a', options())
    book.want('b', options())
    await book.answered()
    assert.deepEqual(book.refused, [{ filter: 'b', reasonCode: undefined, reason: 'refused without a reason' }])
  })

  test('an error while connected is a refusal, so that nothing is asked for without end', async () => {
    const { port, book, refusals } = openBook()
    port.onSubscribe = async () => { throw new Error('SUBACK does not fit SUBSCRIBE') }
    book.want('a', options())
    await book.answered()
    assert.deepEqual(refusals, [{ filter: 'a', reasonCode: undefined, reason: 'SUBACK does not fit SUBSCRIBE' }])
    assert.equal(port.calls.length, 1)
  })

  test('an error because the connection was lost is no refusal', async () => {
    const { port, book, refusals } = openBook()
    const answer = pending<readonly number[]>()
    port.onSubscribe = async () => await answer.promise
    book.want('a', options())
    await turn()
    book.onDown()
    answer.reject(new Error('Connection closed'))
    await turn()
    assert.deepEqual([refusals, book.pending], [[], ['a']])
    port.onSubscribe = async () => [0]
    book.onUp()
    await book.answered()
    assert.deepEqual(book.granted, [{ filter: 'a', qos: 0 }])
  })

  for (const [what, settle] of [
    ['a grant', (answer) => answer.resolve([2])],
    ['a refusal', (answer) => answer.resolve([0x87])],
    ['an error', (answer) => answer.reject(new Error('Connection closed'))]
  ] as [string, (answer: ReturnType<typeof pending<readonly number[]>>) => void][]) {
    test(`${what} of an earlier connection changes nothing`, async () => {
      const { port, book, refusals } = openBook()
      const answers = [pending<readonly number[]>(), pending<readonly number[]>()]
      port.onSubscribe = async () => await (answers[port.calls.length - 1]?.promise ?? [0x80])
      book.want('a', options())
      await turn()
      book.onDown()
      book.onUp()
      await turn()
      if (answers[0] !== undefined) settle(answers[0])
      await turn()
      assert.deepEqual([book.granted, book.refused, refusals, book.pending], [[], [], [], ['a']])
      answers[1]?.resolve([1])
      await book.answered()
      assert.deepEqual(book.granted, [{ filter: 'a', qos: 1 }])
      assert.equal(port.calls.length, 2)
    })
  }

  test('two connections in one turn make one packet', async () => {
    const { port, book } = openBook()
    book.want('a', options())
    book.onDown()
    book.onUp()
    await book.answered()
    await turn()
    assert.deepEqual(port.take(), ['subscribe a qos 0'])
  })

  test('a filter that is taken back while it is asked for is unsubscribed', async () => {
    const { port, book } = openBook()
    const answer = pending<readonly number[]>()
    port.onSubscribe = async () => await answer.promise
    const remove = book.want('a', options())
    await turn()
    remove()
    answer.resolve([0])
    await turn()
    assert.deepEqual(port.take(), ['subscribe a qos 0', 'unsubscribe a'])
    assert.deepEqual([book.granted, book.pending], [[], []])
  })

  test('a filter that is taken back while it is asked for, and refused, is not told', async () => {
    const { port, book, refusals } = openBook()
    const answer = pending<readonly number[]>()
    port.onSubscribe = async () => await answer.promise
    const remove = book.want('a', options())
    await turn()
    remove()
    answer.resolve([0x87])
    await turn()
    assert.deepEqual([refusals, book.refused], [[], []])
  })

  test('what is wanted while packets are under way is asked for right after', async () => {
    const { port, book } = openBook()
    const answer = pending<readonly number[]>()
    port.onSubscribe = async (filters) => filters.includes('a') ? await answer.promise : [0]
    book.want('a', options())
    await turn()
    book.want('b', options())
    await turn()
    assert.deepEqual(port.take(), ['subscribe a qos 0'])
    answer.resolve([0])
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe b qos 0'])
  })

  test('what changes while an UNSUBSCRIBE is under way is done after it', async () => {
    const { port, book } = openBook()
    const removeOld = book.want('old', options())
    await book.answered()
    port.take()
    const done = pending<undefined>()
    port.onUnsubscribe = async () => { await done.promise }
    removeOld()
    const removeFleeting = book.want('fleeting', options())
    await turn()
    assert.deepEqual(port.take(), ['unsubscribe old'])
    removeFleeting()
    book.want('old', options())
    book.want('new', options())
    done.resolve(undefined)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe old new qos 0'])
  })

  test('an UNSUBSCRIBE of an earlier connection sends nothing on the next', async () => {
    const { port, book } = openBook()
    const remove = book.want('old', options())
    await book.answered()
    port.take()
    const done = pending<undefined>()
    port.onUnsubscribe = async () => { await done.promise }
    remove()
    book.want('a', options())
    await turn()
    book.onDown()
    book.onUp()
    await book.answered()
    done.reject(new Error('Connection closed'))
    await turn()
    assert.deepEqual(port.take(), ['unsubscribe old', 'subscribe a qos 0'])
  })

  test('an UNSUBSCRIBE that fails is not sent again', async () => {
    const { port, book } = openBook()
    port.onUnsubscribe = async () => { throw new Error('Not authorized') }
    const remove = book.want('a', options())
    await book.answered()
    remove()
    await turn()
    assert.deepEqual(port.take(), ['subscribe a qos 0', 'unsubscribe a'])
  })

  for (const given of [{ noLocal: true }, { retainAsPublished: true }, { retainHandling: 1 }] as const) {
    test(`on MQTT 3.1.1 ${JSON.stringify(given)} is refused without asking the broker`, async () => {
      const { port, book, refusals } = openBook({ version: 4 })
      book.want('a', options())
      book.want('b', options(given))
      await book.answered()
      assert.deepEqual(port.take(), ['subscribe a qos 0'])
      assert.equal(refusals.length, 1)
      assert.equal(refusals[0]?.filter, 'b')
      assert.equal(refusals[0]?.reasonCode, undefined)
      assert.match(refusals[0]?.reason ?? '', /need MQTT 5, this connection speaks MQTT 3.1.1/)
      assert.deepEqual([needsMqtt5(options(given)), needsMqtt5(options())], [true, false])
    })
  }

  test('what MQTT 3.1.1 refused is subscribed by a later connection with MQTT 5', async () => {
    const { port, book } = openBook({ version: 4 })
    book.want('a', options({ noLocal: true }))
    await book.answered()
    port.version = 5
    book.onUp()
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 0'])
    assert.deepEqual([book.refused, book.granted], [[], [{ filter: 'a', qos: 0 }]])
  })
})
