import assert from 'node:assert/strict'
import { afterEach, suite, test, type TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import type { GrantedFilter, RefusedFilter } from '../types/status.ts'
import { CoveringBook } from '../lib/session/covering-book.ts'
import { RetryTimer } from '../lib/session/retry-timer.ts'
import {
  maxIdentifier, preferredIdentifier, SubscriptionIdentifiers
} from '../lib/session/subscription-identifiers.ts'
import { needsMqtt5 } from '../lib/session/subscription-packets.ts'
import { SubscriptionBook, type BookSettings } from '../lib/session/subscriptions.ts'
import { covers, overlap } from '../lib/topic/overlap.ts'
import { BrokerModel } from './helpers/broker-model.ts'
import { deferred, type Deferred } from './helpers/deadline.ts'
import { FakeSubscribePort, subscribeOptions as options } from './helpers/subscribe-port.ts'
import { anyStep, Simulation } from './helpers/subscription-simulation.ts'

interface BookOptions extends BookSettings {
  readonly isUp?: boolean
  readonly version?: 4 | 5
}

const opened: { close (): void }[] = []
// One with a filter that is refused would ask for ever.
afterEach(() => { for (const book of opened.splice(0)) book.close() })

/** A book with its port, and what it told. */
function openBook ({ isUp = true, version = 5, ...settings }: BookOptions = {}) {
  const port = new FakeSubscribePort()
  port.version = version
  const refusals: RefusedFilter[] = []
  const stillRefused: RefusedFilter[] = []
  const restored: GrantedFilter[] = []
  const book = new SubscriptionBook(port, {
    onRefused: (refused) => refusals.push(refused),
    onStillRefused: (refused) => stillRefused.push(refused),
    onRestored: (granted) => restored.push(granted)
  }, settings)
  opened.push(book)
  if (isUp) book.onUp(false)
  return { port, book, refusals, stillRefused, restored }
}

const refusedA = { filter: 'a', reasonCode: 0x87, reason: 'not authorized' }

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
    const removers = Array.from({ length: 250 }, (_, number) => book.want(`t/${number}`, options()))
    await book.answered()
    assert.deepEqual(port.calls.splice(0).map(([, filters]) => filters.length), [100, 100, 50])
    assert.equal(book.granted.length, 250)
    for (const remove of removers) remove()
    await turn()
    assert.deepEqual(port.calls.map(([, filters]) => filters.length), [100, 100, 50])
  })

  test('sends nothing before the connection is up, and everything then', async () => {
    const { port, book } = openBook({ isUp: false })
    book.want('a', options({ qos: 2 }))
    await turn()
    assert.deepEqual(port.take(), [])
    assert.deepEqual([book.pending, book.granted], [['a'], []])
    const answered = book.answered()
    book.onUp(false)
    await answered
    assert.deepEqual(port.take(), ['subscribe a qos 2'])
    assert.deepEqual(book.granted, [{ filter: 'a', qos: 2 }])
  })

  test('answered: resolves at once where nothing is to be asked, and on a connection with nothing wanted', async () => {
    const { book } = openBook()
    await book.answered()
    book.onDown()
    const answered = book.answered()
    book.onUp(true)
    await answered
  })

  test('answered: rejects when the book is closed, before and after', async () => {
    const { port, book } = openBook()
    port.onSubscribe = async () => await deferred<number[]>().promise
    book.want('a', options())
    const answered = book.answered()
    await turn()
    book.close()
    await assert.rejects(answered, { code: 'FST_MQTT_CONNECTION', message: /was closed before/ })
    await assert.rejects(book.answered(), { code: 'FST_MQTT_CONNECTION' })
    book.onUp(false)
    await turn()
    assert.equal(port.calls.length, 1)
  })

  test('what is wanted while another filter waits for its answer does not wait for it', async () => {
    const { port, book } = openBook()
    const answer = deferred<number[]>()
    port.onSubscribe = async (filters) => filters.includes('a') ? await answer.promise : [0]
    book.want('a', options())
    await turn()
    book.want('b', options())
    await turn()
    assert.deepEqual(port.take(), ['subscribe a qos 0', 'subscribe b qos 0'])
    assert.deepEqual([book.granted, book.pending], [[{ filter: 'b', qos: 0 }], ['a']])
    answer.resolve([0])
    await book.answered()
    assert.deepEqual(port.take(), [])
  })

  test('what is wanted in the turn in which the connection is lost is not sent', async () => {
    const { port, book } = openBook()
    book.want('a', options())
    book.onDown()
    await turn()
    assert.deepEqual(port.take(), [])
  })

  test('two connections in one turn make one packet', async () => {
    const { port, book } = openBook()
    book.want('a', options())
    book.onDown()
    book.onUp(false)
    await book.answered()
    await turn()
    assert.deepEqual(port.take(), ['subscribe a qos 0'])
  })
})

suite('SubscriptionBook: several who want one filter', () => {
  test('it is subscribed once, and unsubscribed by the last', async () => {
    const { port, book } = openBook()
    const removers = [book.want('n/+', options()), book.want('n/+', options())]
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe n/+ qos 0'])
    removers[0]?.()
    removers[0]?.()
    await turn()
    assert.deepEqual(port.take(), [])
    removers[1]?.()
    assert.deepEqual(book.granted, [])
    await turn()
    assert.deepEqual(port.take(), ['unsubscribe n/+'])
    assert.deepEqual([book.granted, book.pending], [[], []])
  })

  test('it has the highest quality of service of all', async () => {
    const { port, book } = openBook()
    book.want('a', options({ qos: 1 }))
    const remove = book.want('a', options({ qos: 2 }))
    book.want('a', options({ qos: 0 }))
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 2'])
    remove()
    await turn()
    assert.deepEqual(port.take(), [])
    book.onUp(false)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 1 rh 1'])
  })

  test('a higher quality of service later is subscribed anew, a lower one is not', async () => {
    const { port, book } = openBook()
    for (const [qos, expected] of [
      [1, ['subscribe a qos 1']], [0, []], [2, ['subscribe a qos 2 rh 1']]
    ] as const) {
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
    test(`two values of ${key} are a conflict, which changes nothing`, async () => {
      const { port, book } = openBook()
      book.want('a/+', options())
      assert.throws(() => book.want('a/+', options({ ...given, qos: 2 })), {
        code: 'FST_MQTT_TOPIC_CONFLICT', message: said
      })
      await book.answered()
      assert.deepEqual(port.take(), ['subscribe a/+ qos 0'])
    })
  }
})

suite('SubscriptionBook: what is taken back', () => {
  test('and wanted again in one turn, nothing is sent', async () => {
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

  test('and wanted with other options in one turn, it is subscribed with those', async () => {
    const { port, book } = openBook()
    const remove = book.want('a', options())
    await book.answered()
    port.take()
    remove()
    book.want('a', options({ noLocal: true }))
    await book.answered()
    assert.deepEqual(port.calls, [['subscribe', ['a'], options({ noLocal: true, retainHandling: 1 }), undefined]])
  })

  test('in the turn in which it was wanted, nothing is sent', async () => {
    const { port, book } = openBook()
    book.want('a', options())()
    await turn()
    assert.deepEqual(port.take(), [])
    assert.deepEqual(book.pending, [])
  })

  test('an old remover does not take away what was wanted since', async () => {
    const { port, book } = openBook()
    const remove = book.want('a', options())
    remove()
    await turn()
    book.want('a', options())
    remove()
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 0'])
  })

  test('while it is asked for, it is unsubscribed', async () => {
    const { port, book } = openBook()
    const answer = deferred<number[]>()
    port.onSubscribe = async () => await answer.promise
    const remove = book.want('a', options())
    await turn()
    remove()
    answer.resolve([0])
    await turn()
    assert.deepEqual(port.take(), ['subscribe a qos 0', 'unsubscribe a'])
    assert.deepEqual([book.granted, book.pending], [[], []])
  })

  test('while it is asked for, and refused, is neither told nor unsubscribed', async () => {
    const { port, book, refusals } = openBook()
    const answer = deferred<number[]>()
    port.onSubscribe = async () => await answer.promise
    const remove = book.want('a', options())
    await turn()
    remove()
    answer.resolve([0x87])
    await turn()
    assert.deepEqual([refusals, book.refused, port.take()], [[], [], ['subscribe a qos 0']])
  })

  test('while its options were refused, it is unsubscribed: a broker may have kept what was granted before', async () => {
    const { port, book, refusals } = openBook()
    const remove = book.want('a', options())
    await book.answered()
    port.onSubscribe = async () => [0x87]
    const removeSecond = book.want('a', options({ qos: 1 }))
    await book.answered()
    assert.deepEqual([refusals, book.granted], [[refusedA], []])
    remove()
    removeSecond()
    assert.deepEqual(book.refused, [])
    await turn()
    assert.deepEqual(port.take(), ['subscribe a qos 0', 'subscribe a qos 1 rh 1', 'unsubscribe a'])
  })

  test('and wanted again while the UNSUBSCRIBE is under way, it is subscribed after that', async () => {
    const { port, book } = openBook()
    const removeOld = book.want('old', options())
    await book.answered()
    port.take()
    const done = deferred<undefined>()
    port.onUnsubscribe = async () => { await done.promise }
    removeOld()
    await turn()
    book.want('old', options())
    book.want('new', options())
    await turn()
    assert.deepEqual(port.take(), ['unsubscribe old', 'subscribe new qos 0'])
    assert.deepEqual([book.granted, book.pending], [[{ filter: 'new', qos: 0 }], ['old']])
    done.resolve(undefined)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe old qos 0'])
  })

  test('an UNSUBSCRIBE of an earlier connection sends nothing on the next', async () => {
    const { port, book } = openBook()
    const remove = book.want('old', options())
    await book.answered()
    port.take()
    const done = deferred<undefined>()
    port.onUnsubscribe = async () => { await done.promise }
    remove()
    await turn()
    book.want('a', options())
    book.onDown()
    book.onUp(false)
    await book.answered()
    done.reject(new Error('Connection closed'))
    await turn()
    assert.deepEqual(port.take(), ['unsubscribe old', 'subscribe a qos 0'])
  })

  test('an UNSUBSCRIBE that fails is sent again after a while, once it is answered no more', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { port, book, refusals } = openBook(promptly)
    port.onUnsubscribe = async () => { throw new Error('Not authorized') }
    const remove = book.want('a', options())
    await book.answered()
    remove()
    await turn()
    assert.deepEqual(port.take(), ['subscribe a qos 0', 'unsubscribe a'])
    port.onUnsubscribe = async () => {}
    t.mock.timers.tick(1_000)
    await turn()
    assert.deepEqual(port.take(), ['unsubscribe a'])
    t.mock.timers.tick(1_000_000)
    await turn()
    assert.deepEqual([port.take(), refusals], [[], []])
  })
})

suite('SubscriptionBook: on a new connection', () => {
  test('without the session every filter is asked for, without the retained messages it had', async () => {
    const { port, book } = openBook()
    book.want('a', options())
    book.want('b', options())
    book.want('c', options({ retainHandling: 2 }))
    await book.answered()
    for (let connection = 0; connection < 3; connection++) {
      port.take()
      book.onDown()
      assert.deepEqual([book.granted, book.pending], [[], ['a', 'b', 'c']])
      book.onUp(false)
      await book.answered()
      assert.deepEqual(port.take(), ['subscribe a b qos 0 rh 1', 'subscribe c qos 0 rh 2'])
    }
  })

  test('with the session every filter is asked for on MQTT 5: the broker may have dropped it', async () => {
    const { port, book, refusals } = openBook()
    book.want('a', options({ qos: 1 }))
    book.want('b', options({ qos: 1 }))
    await book.answered()
    port.take()
    port.onSubscribe = async (filters) => filters.map((filter) => filter === 'a' ? 0x87 : 1)
    for (let connection = 0; connection < 3; connection++) {
      book.onDown()
      book.onUp(true)
      assert.deepEqual([book.granted, book.pending], [[], ['a', 'b']])
      await book.answered()
      assert.deepEqual(port.take(), ['subscribe a b qos 1 rh 1'])
      assert.deepEqual([book.granted, book.refused], [[{ filter: 'b', qos: 1 }], [refusedA]])
    }
    assert.deepEqual(refusals, [refusedA])
  })

  test('with the session nothing is asked for on MQTT 3.1.1 that is granted in it: retained messages came', async () => {
    const { port, book } = openBook({ version: 4 })
    book.want('a', options({ qos: 1 }))
    await book.answered()
    port.take()
    for (let connection = 0; connection < 3; connection++) {
      book.onDown()
      assert.deepEqual([book.granted, book.pending], [[], ['a']])
      book.onUp(true)
      await book.answered()
      assert.deepEqual([port.take(), book.granted], [[], [{ filter: 'a', qos: 1 }]])
    }
  })

  test('with a session of an earlier process everything is asked for, with the retained messages', async () => {
    const { port, book } = openBook({ isUp: false })
    book.want('a', options())
    book.onUp(true)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 0'])
  })

  for (const [version, changed, expected] of [
    [4, options({ qos: 2 }), [
      'subscribe changed qos 2', 'subscribe kept added qos 1', 'unsubscribe gone'
    ]],
    [5, options({ noLocal: true }), [
      'subscribe changed qos 0 rh 1', 'subscribe kept qos 1 rh 1', 'subscribe added qos 1', 'unsubscribe gone'
    ]]
  ] as const) {
    test(`with the session what changed meanwhile is made up for on MQTT ${version}`, async () => {
      const { port, book } = openBook({ version })
      const removers = ['gone', 'changed', 'kept'].map((filter) => book.want(filter, options()))
      await book.answered()
      port.take()
      book.onDown()
      removers[0]?.()
      removers[1]?.()
      book.want('changed', changed)
      book.want('added', options({ qos: 1 }))
      book.want('kept', options({ qos: 1 }))
      book.onUp(true)
      await book.answered()
      assert.deepEqual(port.take(), expected)
    })
  }

  test('without the session nothing is unsubscribed', async () => {
    const { port, book } = openBook()
    const remove = book.want('a', options())
    await book.answered()
    port.take()
    book.onDown()
    remove()
    book.onUp(false)
    await book.answered()
    assert.deepEqual(port.take(), [])
  })

  test('with the session a SUBSCRIBE that was lost on its way is sent again, as the first time', async () => {
    const { port, book, refusals } = openBook()
    const answer = deferred<number[]>()
    port.onSubscribe = async () => await answer.promise
    book.want('a', options())
    await turn()
    book.onDown()
    answer.reject(new Error('Connection closed'))
    await turn()
    assert.deepEqual([refusals, book.pending], [[], ['a']])
    port.onSubscribe = async () => [0]
    book.onUp(true)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 0', 'subscribe a qos 0'])
    assert.deepEqual(book.granted, [{ filter: 'a', qos: 0 }])
  })

  test('with the session a renewal that was lost on its way is sent again: both may hold', async () => {
    const { port, book } = openBook()
    book.want('a', options())
    await book.answered()
    port.onSubscribe = async () => await deferred<number[]>().promise
    const remove = book.want('a', options({ qos: 1 }))
    await turn()
    book.onDown()
    remove()
    port.onSubscribe = async () => [0]
    book.onUp(true)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 0', 'subscribe a qos 1 rh 1', 'subscribe a qos 0 rh 1'])
  })

  test('with the session an UNSUBSCRIBE that was lost on its way is sent again', async () => {
    const { port, book } = openBook()
    const remove = book.want('a', options())
    await book.answered()
    port.onUnsubscribe = async () => await deferred<undefined>().promise
    remove()
    await turn()
    book.onDown()
    book.onUp(true)
    await turn()
    assert.deepEqual(port.take(), ['subscribe a qos 0', 'unsubscribe a', 'unsubscribe a'])
  })

  test('with a session that began before the first SUBSCRIBE everything is asked for', async () => {
    const { port, book } = openBook({ isUp: false })
    book.want('a', options())
    book.onUp(false)
    book.onDown()
    book.onUp(true)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 0'])
  })

  for (const [what, settle] of [
    ['a grant', (answer) => answer.resolve([2])],
    ['a refusal', (answer) => answer.resolve([0x87])],
    ['an error', (answer) => answer.reject(new Error('Connection closed'))]
  ] as [string, (answer: Deferred<readonly number[]>) => void][]) {
    test(`${what} of an earlier one changes nothing`, async () => {
      const { port, book, refusals } = openBook()
      const answers = [deferred<readonly number[]>(), deferred<readonly number[]>()]
      port.onSubscribe = async () => await (answers[port.calls.length - 1]?.promise ?? [0x80])
      book.want('a', options())
      await turn()
      book.onDown()
      book.onUp(true)
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
})

/** Asks again after exactly the limit. */
const promptly: BookSettings = { retry: { minDelayMs: 1_000, maxDelayMs: 60_000, random: () => 1 } }

suite('SubscriptionBook: refusals', () => {
  for (const [code, reason] of [
    [0x80, 'refused without a reason'], [0x83, 'implementation specific error'], [0x87, 'not authorized'],
    [0x8f, 'topic filter invalid'], [0x97, 'quota exceeded'], [0x9e, 'shared subscriptions not supported'],
    [0xa2, 'wildcard subscriptions not supported'], [0xff, 'refused']
  ] as const) {
    test(`0x${code.toString(16)} is told as '${reason}', and costs no other filter`, async () => {
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

  /** A book whose filter `a` is refused until the test says otherwise. */
  async function openRefused (t: TestContext, settings: BookOptions = promptly) {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const all = openBook(settings)
    all.port.onSubscribe = async (filters) => filters.map(() => 0x87)
    const remove = all.book.want('a', options())
    await all.book.answered()
    all.port.take()
    const tick = async (milliseconds: number) => {
      t.mock.timers.tick(milliseconds)
      await turn()
      return all.port.take()
    }
    return { ...all, remove, tick }
  }

  test('is asked for again after 1, 2, 4 … 60 seconds, shown all the while and told once', async (t) => {
    const { book, refusals, stillRefused, tick } = await openRefused(t)
    for (const seconds of [1, 2, 4, 8, 16, 32, 60, 60, 60]) {
      assert.deepEqual(await tick(seconds * 1_000 - 1), [])
      assert.deepEqual(await tick(1), ['subscribe a qos 0'])
      assert.deepEqual([book.refused, book.pending], [[refusedA], []])
    }
    assert.deepEqual(refusals, [refusedA])
    assert.equal(stillRefused.length, 9)
  })

  test('comes back by itself, which is told once', async (t) => {
    const { port, book, restored, tick } = await openRefused(t)
    await tick(1_000)
    port.onSubscribe = async (filters) => filters.map(() => 0)
    assert.deepEqual(await tick(2_000), ['subscribe a qos 0'])
    assert.deepEqual([book.refused, book.granted], [[], [{ filter: 'a', qos: 0 }]])
    assert.deepEqual(await tick(1_000_000), [])
    book.onUp(false)
    await book.answered()
    assert.deepEqual(restored, [{ filter: 'a', qos: 0 }])
  })

  test('those that are refused are asked for again together, as one is that was refused since', async (t) => {
    const { book, tick } = await openRefused(t)
    await tick(1_000)
    book.want('b', options())
    assert.deepEqual(await tick(0), ['subscribe b qos 0'])
    assert.deepEqual(await tick(1_000), ['subscribe a b qos 0'])
    assert.deepEqual(await tick(1_999), [])
    assert.deepEqual(await tick(1), ['subscribe a b qos 0'])
  })

  test('another reason is told, and does not start the delays over', async (t) => {
    const { port, refusals, tick } = await openRefused(t)
    port.onSubscribe = async () => [0x97]
    await tick(1_000)
    assert.deepEqual(await tick(1_999), [])
    assert.deepEqual(await tick(1), ['subscribe a qos 0'])
    assert.deepEqual(refusals, [refusedA, { filter: 'a', reasonCode: 0x97, reason: 'quota exceeded' }])
  })

  test('is asked for at once on the next connection, by which it is pending; the same reason is not news', async (t) => {
    const { port, book, refusals, stillRefused, tick } = await openRefused(t)
    await tick(1_000)
    book.onDown()
    assert.deepEqual(book.refused, [refusedA])
    assert.deepEqual(await tick(1_000_000), [])
    for (const sessionPresent of [true, false]) {
      book.onUp(sessionPresent)
      assert.deepEqual([book.refused, book.pending], [[], ['a']])
      await book.answered()
      assert.deepEqual([port.take(), book.refused], [['subscribe a qos 0'], [refusedA]])
    }
    assert.deepEqual([refusals.length, stillRefused.length], [1, 3])
    assert.deepEqual(await tick(1_000), ['subscribe a qos 0'])
  })

  test('a filter that was granted and that the next connection is refused is told', async (t) => {
    const { port, book, refusals, restored, tick } = await openRefused(t)
    port.onSubscribe = async () => [0]
    await tick(1_000)
    port.onSubscribe = async () => [0x87]
    book.onUp(false)
    await book.answered()
    assert.deepEqual([refusals.length, restored.length, book.refused], [2, 1, [refusedA]])
  })

  test('is asked for at once when it is wanted again, by others or anew', async (t) => {
    const { port, book, refusals, remove, tick } = await openRefused(t)
    const removeSecond = book.want('a', options())
    await book.answered()
    assert.deepEqual([port.take(), refusals.length], [['subscribe a qos 0'], 1])
    remove()
    removeSecond()
    assert.deepEqual(book.refused, [])
    assert.deepEqual(await tick(1_000), [])
    book.want('a', options())
    await book.answered()
    assert.deepEqual([port.take(), refusals.length], [['subscribe a qos 0'], 2])
  })

  test('the retained messages come with the first grant', async (t) => {
    const { port, book, tick } = await openRefused(t)
    port.onSubscribe = async () => [0]
    assert.deepEqual(await tick(1_000), ['subscribe a qos 0'])
    book.onUp(false)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 0 rh 1'])
  })

  test('an answer that lacks a filter is a refusal', async () => {
    const { port, book } = openBook()
    port.onSubscribe = async () => [0]
    book.want('a', options())
    book.want('b', options())
    await book.answered()
    assert.deepEqual(book.refused, [
      { filter: 'b', reasonCode: undefined, reason: 'refused without a reason' }
    ])
  })

  test('an error while connected is a refusal, so that nothing is asked for without end', async () => {
    const { port, book, refusals } = openBook()
    port.onSubscribe = async () => { throw new Error('SUBACK does not fit SUBSCRIBE') }
    book.want('a', options())
    await book.answered()
    assert.deepEqual(refusals, [{ filter: 'a', reasonCode: undefined, reason: 'SUBACK does not fit SUBSCRIBE' }])
    assert.equal(port.calls.length, 1)
  })

  test('no answer in time is a refusal, until the answer comes', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { port, book, refusals, restored } = openBook({ ...promptly, answerTimeoutMs: 300 })
    const answers = [deferred<number[]>(), deferred<number[]>()]
    port.onSubscribe = async () => await (answers[port.calls.length - 1]?.promise ?? [])
    book.want('a', options())
    await turn()
    t.mock.timers.tick(300)
    await book.answered()
    const late = { filter: 'a', reasonCode: undefined, reason: 'no answer within 300 ms' }
    assert.deepEqual([refusals, book.refused], [[late], [late]])
    t.mock.timers.tick(1_000)
    await turn()
    // The first answer says nothing any more: the second SUBSCRIBE decides.
    answers[0]?.resolve([0x87])
    await turn()
    assert.deepEqual(book.refused, [late])
    t.mock.timers.tick(300)
    answers[1]?.resolve([1])
    await turn()
    assert.deepEqual([book.refused, book.granted, restored], [[], [{ filter: 'a', qos: 1 }], [{ filter: 'a', qos: 1 }]])
    assert.equal(port.calls.length, 2)
  })

  test('close() ends every timer', async (t) => {
    const { port, book, tick } = await openRefused(t, { ...promptly, answerTimeoutMs: 10 })
    port.onSubscribe = async () => await deferred<number[]>().promise
    book.want('b', options())
    await turn()
    port.take()
    book.close()
    assert.deepEqual(await tick(1_000_000), [])
    assert.deepEqual(book.refused, [refusedA])
  })
})

suite('SubscriptionBook: what a connection cannot do', () => {
  for (const given of [{ noLocal: true }, { retainAsPublished: true }, { retainHandling: 1 }] as const) {
    test(`${JSON.stringify(given)} is refused on MQTT 3.1.1 without asking the broker`, async () => {
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

  for (const [key, filters, reason] of [
    ['wildcardSubscriptionAvailable', ['+', 'a/#', '$share/g/+'], 'the broker has no wildcard subscriptions'],
    ['sharedSubscriptionAvailable', ['$share/g/a', '$share/g/+'], 'the broker has no shared subscriptions']
  ] as const) {
    test(`without ${key} ${filters.join(', ')} are refused without asking the broker`, async () => {
      const { port, book } = openBook()
      port.limits = { ...port.limits, subscriptionIdentifiersAvailable: false, [key]: false }
      for (const filter of ['+', 'a/#', '$share/g/a', '$share/g/+', 'plain']) book.want(filter, options())
      await book.answered()
      assert.deepEqual(book.refused, filters.map((filter) => ({ filter, reasonCode: undefined, reason })))
      assert.deepEqual(port.calls.map(([, sent]) => sent),
        [['+', 'a/#', '$share/g/a', '$share/g/+', 'plain'].filter((one) => !filters.some((other) => other === one))])
    })
  }

  test('it is not asked for again before the next connection, which may be able to', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { port, book, refusals, restored } = openBook({ ...promptly, version: 4 })
    book.want('a', options({ noLocal: true }))
    await book.answered()
    t.mock.timers.tick(1_000_000)
    await turn()
    assert.deepEqual([port.take(), refusals.length], [[], 1])
    port.version = 5
    book.onUp(false)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a qos 0'])
    assert.deepEqual([book.refused, book.granted, restored.length], [[], [{ filter: 'a', qos: 0 }], 1])
  })

  test('a packet is no larger than the broker accepts; what is larger by itself is refused', async () => {
    const { port, book } = openBook()
    port.limits = { ...port.limits, maximumPacketSize: 60 }
    // 13 bytes of the packet, 11 of each filter: four fit.
    const removers = Array.from({ length: 10 }, (_, number) => book.want(`filter-${number}`, options()))
    book.want('x'.repeat(60), options())
    await book.answered()
    assert.deepEqual(port.calls.splice(0).map(([, filters]) => filters.length), [4, 4, 2])
    assert.deepEqual(book.refused.map(({ reason }) => reason), [
      'it is larger than the packets that the broker accepts'
    ])
    for (const remove of removers) remove()
    await turn()
    assert.deepEqual(port.calls.map(([, filters]) => filters.length), [4, 4, 2])
  })
})

suite('SubscriptionBook: subscription identifiers', () => {
  test('filters that overlap have one each, and a packet each', async () => {
    const { port, book } = openBook()
    for (const filter of ['a/b', 'c', 'a/+', 'd', '$share/g/a/b']) book.want(filter, options())
    await book.answered()
    assert.deepEqual(book.granted.length, 5)
    const identifiers = new Map(port.calls.map(([, [filter], , identifier]) => [filter, identifier]))
    for (const filter of ['a/b', 'a/+', '$share/g/a/b']) {
      assert.equal(book.filterOf(identifiers.get(filter) ?? 0), filter)
    }
    assert.deepEqual(port.take(), [
      'subscribe a/b qos 0 with an identifier',
      'subscribe c d qos 0',
      'subscribe a/+ qos 0 with an identifier',
      'subscribe $share/g/a/b qos 0 with an identifier'
    ])
  })

  test('one that overlaps later gives one to the earlier, which is renewed, both for good', async () => {
    const { port, book } = openBook()
    book.want('a', options())
    book.want('b', options())
    await book.answered()
    const remove = book.want('+', options({ retainHandling: 2 }))
    assert.deepEqual(book.pending, ['a', 'b', '+'])
    await book.answered()
    assert.deepEqual(port.take(), [
      'subscribe a b qos 0',
      'subscribe a qos 0 rh 1 with an identifier',
      'subscribe b qos 0 rh 1 with an identifier',
      'subscribe + qos 0 rh 2 with an identifier'
    ])
    remove()
    await turn()
    book.onUp(false)
    await book.answered()
    assert.deepEqual(port.take(), [
      'unsubscribe +', 'subscribe a qos 0 rh 1 with an identifier', 'subscribe b qos 0 rh 1 with an identifier'
    ])
  })

  test('they are the same in another process, and on another connection', async () => {
    const seen = []
    for (const filters of [['a/+', 'a/b'], ['x', 'a/b', 'a/#', 'a/+']]) {
      const { port, book } = openBook()
      for (const filter of filters) book.want(filter, options())
      await book.answered()
      book.onUp(false)
      await book.answered()
      seen.push(port.calls.flatMap(([, [filter], , identifier]) => filter === 'a/+' ? identifier : []))
    }
    assert.equal(seen.flat().length, 4)
    assert.equal(new Set(seen.flat()).size, 1)
  })

  test('an identifier belongs to its filter until the broker has forgotten that', async () => {
    const { port, book } = openBook()
    const done = deferred<undefined>()
    port.onUnsubscribe = async () => { await done.promise }
    book.want('#', options())
    const remove = book.want('a', options())
    await book.answered()
    const identifier = port.calls[1]?.[3] ?? 0
    remove()
    await turn()
    assert.equal(book.filterOf(identifier), 'a')
    done.resolve(undefined)
    await turn()
    assert.equal(book.filterOf(identifier), undefined)
  })

  for (const [where, version, subscriptionIdentifiersAvailable] of [
    ['MQTT 3.1.1', 4, true], ['a broker without', 5, false]
  ] as const) {
    test(`${where} has none: overlapping filters go out in one packet`, async () => {
      const { port, book } = openBook({ version })
      port.limits = { ...port.limits, subscriptionIdentifiersAvailable }
      for (const filter of ['a', '+', '#']) book.want(filter, options())
      await book.answered()
      assert.deepEqual(port.take(), ['subscribe a + # qos 0'])
    })
  }

  test('all filters that overlap another have different ones, of the range of the standard', () => {
    const filter = fc.array(fc.constantFrom('a', 'b', '+'), { minLength: 1, maxLength: 4 })
      .map((levels) => levels.join('/'))
    const change = fc.record({ filter, isDeleted: fc.boolean() })
    fc.assert(fc.property(fc.array(change, { maxLength: 20 }), (changes) => {
      const identifiers = new SubscriptionIdentifiers()
      const filters = new Set<string>()
      for (const { filter, isDeleted } of changes) {
        if (isDeleted && filters.delete(filter)) identifiers.delete(filter)
        if (isDeleted || filters.has(filter)) continue
        filters.add(filter)
        identifiers.add(filter)
      }
      for (const one of filters) {
        const identifier = identifiers.of(one)
        if (identifier === undefined) {
          assert.deepEqual([...filters].filter((other) => other !== one && overlap(one, other)), [])
        } else {
          assert.ok(identifier >= 1 && identifier <= maxIdentifier)
          assert.equal(identifiers.filterOf(identifier), one)
        }
      }
    }), { numRuns: 500 })
  })

  test('two filters whose hashes are the same have different ones', () => {
    const byHash = new Map<number, string>()
    let twins: string[] | undefined
    for (let number = 0; twins === undefined; number++) {
      const filter = `site/${number.toString(36)}/${number * 7919 % 1000}`
      const twin = byHash.get(preferredIdentifier(filter))
      if (twin !== undefined) twins = [twin, filter]
      byHash.set(preferredIdentifier(filter), filter)
    }
    const identifiers = new SubscriptionIdentifiers()
    const [first = '', second = ''] = twins
    assert.deepEqual(identifiers.add('#'), [])
    assert.deepEqual(identifiers.add(first), ['#'])
    assert.deepEqual(identifiers.add(second), [])
    assert.equal(identifiers.of(first), preferredIdentifier(first))
    assert.equal(identifiers.of(second), preferredIdentifier(first) % maxIdentifier + 1)
    identifiers.delete(first)
    assert.equal(identifiers.filterOf(preferredIdentifier(first)), undefined)
    identifiers.delete('never added')
  })
})

test('RetryTimer: waits for a random part of a limit that doubles, one attempt at a time', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let attempts = 0
  const timer = new RetryTimer({ minDelayMs: 100, maxDelayMs: 300, random: () => 0.5 }, () => { attempts++ })
  for (const delayMs of [50, 100, 150, 150]) {
    timer.plan()
    timer.plan()
    t.mock.timers.tick(delayMs - 1)
    const before = attempts
    t.mock.timers.tick(1)
    assert.equal(attempts, before + 1)
    t.mock.timers.tick(1_000)
    assert.equal(attempts, before + 1)
  }
  timer.plan()
  timer.reset()
  t.mock.timers.tick(1_000)
  assert.equal(attempts, 4)
  timer.plan()
  t.mock.timers.tick(50)
  assert.equal(attempts, 5)
})

test('RetryTimer: the part is random by itself', (t) => {
  const delays: unknown[] = []
  t.mock.method(globalThis, 'setTimeout', (_task: unknown, delay: number) => { delays.push(delay) })
  for (let round = 0; round < 20; round++) {
    new RetryTimer({ minDelayMs: 1_000, maxDelayMs: 1_000 }, () => {}).plan()
  }
  assert.ok(new Set(delays).size > 10)
  assert.ok(delays.every((delay) => Number(delay) >= 0 && Number(delay) < 1_000))
})

/** The same of a CoveringBook. */
function openCovering (version: 4 | 5 = 4, hasIdentifiers = true) {
  const port = new FakeSubscribePort()
  port.version = version
  port.limits.subscriptionIdentifiersAvailable = hasIdentifiers
  const told: string[] = []
  const book = new CoveringBook(port, {
    onRefused: ({ filter }) => told.push(`${filter} is refused`),
    onStillRefused: ({ filter }) => told.push(`${filter} is still refused`),
    onRestored: ({ filter }) => told.push(`${filter} is granted`)
  }, { retry: { minDelayMs: 1_000, maxDelayMs: 1_000, random: () => 1 } })
  opened.push(book)
  /** Wants filters such as `a/+ 1`. */
  const want = (...all: string[]) => all.map((text) => {
    const [filter = '', qos = '0'] = text.split(' ')
    return book.want(filter, options({ qos: Number(qos) as 0 | 1 | 2 }))
  })
  return { port, book, told, want }
}

suite('CoveringBook', () => {
  for (const { name, version, hasIdentifiers } of [
    { name: 'MQTT 3.1.1', version: 4, hasIdentifiers: true },
    { name: 'MQTT 5 without identifiers', version: 5, hasIdentifiers: false }
  ] as const) {
    test(`on ${name} a filter that another covers is not subscribed, and counts as granted`, async () => {
      const { port, book, want } = openCovering(version, hasIdentifiers)
      want('a/b 1', '$share/g/a/b', 'a/#', '$s/x', 'c', '#')
      book.onUp(false)
      await book.answered()
      // What is shared comes besides, and # does not match $s.
      assert.deepEqual(port.take().sort(), ['subscribe # qos 1', 'subscribe $share/g/a/b $s/x qos 0'])
      assert.deepEqual(book.pending, [])
      assert.deepEqual(book.granted.map(({ filter, qos }) => `${filter} ${qos}`), [
        'a/b 1', '$share/g/a/b 0', 'a/# 1', '$s/x 0', 'c 1', '# 1'
      ])
    })
  }

  test('on MQTT 5 every filter is subscribed: the identifiers tell the copies apart', async () => {
    const { port, book, want } = openCovering(5)
    want('a/b', 'a/#')
    book.onUp(false)
    await book.answered()
    assert.deepEqual(port.take(), [
      'subscribe a/b qos 0 with an identifier', 'subscribe a/# qos 0 with an identifier'
    ])
  })

  test('one that is pending, or refused, makes those that it covers pending, or subscribed themselves', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { port, book, told, want } = openCovering()
    let isAllowed = false
    port.onSubscribe = async (filters, { qos }) => filters.map((filter) => filter === '#' && !isAllowed ? 0x80 : qos)
    want('a/b', 'a/+ 1', '#')
    book.onUp(false)
    assert.deepEqual(book.pending, ['a/b', 'a/+', '#'])
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe # qos 1', 'subscribe a/+ qos 1'])
    assert.deepEqual(book.granted.map(({ filter }) => filter), ['a/b', 'a/+'])
    assert.deepEqual(book.refused.map(({ filter }) => filter), ['#'])
    t.mock.timers.tick(1_000)
    await turn()
    isAllowed = true
    t.mock.timers.tick(1_000)
    await turn()
    assert.deepEqual(told, ['# is refused', '# is still refused', '# is granted'])
    assert.deepEqual(port.take(), ['subscribe # qos 0', 'subscribe # qos 0', 'subscribe # qos 1', 'unsubscribe a/+'])
    assert.deepEqual(book.granted.map(({ filter }) => filter), ['a/b', 'a/+', '#'])
  })

  test('one that comes later is subscribed for its retained messages, and gives way when it is granted', async () => {
    const { port, book, want } = openCovering()
    book.onUp(false)
    want('a/#')
    await book.answered()
    port.take()
    const [remove] = want('a/b')
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a/b qos 0', 'unsubscribe a/b'])
    remove?.()
    remove?.()
    await turn()
    assert.deepEqual([port.take(), book.granted.map(({ filter }) => filter)], [[], ['a/#']])
  })

  test('a wider one that comes later takes over when it is granted; what it covers comes back before it goes', async () => {
    const { port, book, want } = openCovering()
    book.onUp(false)
    want('a/b 1', 'a/c')
    await book.answered()
    port.take()
    const [remove] = want('a/+')
    await turn()
    assert.deepEqual(port.take(), ['subscribe a/+ qos 0', 'subscribe a/+ qos 1', 'unsubscribe a/b a/c'])
    remove?.()
    await turn()
    assert.deepEqual(port.take(), ['subscribe a/b qos 1', 'subscribe a/c qos 0', 'unsubscribe a/+'])
  })

  test('of those that it covered one may cover another; in a cut there is nothing to wait for', async () => {
    const { port, book, want } = openCovering()
    book.onUp(false)
    const [remove] = want('#', 'a/+', 'a/b')
    await book.answered()
    port.take()
    remove?.()
    await turn()
    assert.deepEqual(port.take(), ['subscribe a/+ a/b qos 0', 'unsubscribe a/b', 'unsubscribe #'])
    const [again] = want('#')
    await book.answered()
    again?.()
    book.onDown()
    port.take()
    book.onUp(false)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a/+ qos 0'])
  })

  test('several who want one filter count once; options that differ are a conflict, though it gave way', async () => {
    const { port, book, want } = openCovering()
    const [first, second] = want('a/b', 'a/b 2', '#')
    assert.throws(() => book.want('a/b', options({ noLocal: true })), { code: 'FST_MQTT_TOPIC_CONFLICT' })
    book.onUp(false)
    await book.answered()
    assert.throws(() => book.want('a/b', options({ noLocal: true })), { code: 'FST_MQTT_TOPIC_CONFLICT' })
    assert.deepEqual(port.take(), ['subscribe # qos 2'])
    first?.()
    assert.deepEqual(book.granted.map(({ filter }) => filter), ['a/b', '#'])
    second?.()
    assert.deepEqual(book.granted.map(({ filter }) => filter), ['#'])
  })

  test('filters with other options do not cover each other', async () => {
    const { port, book, want } = openCovering(5, false)
    book.want('#', options({ noLocal: true }))
    want('a')
    book.onUp(false)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe # qos 0', 'subscribe a qos 0'])
  })

  test('a broker of another version changes what is subscribed', async () => {
    const { port, book, want } = openCovering(5)
    want('a/b', 'a/#')
    book.onUp(false)
    await book.answered()
    book.onDown()
    port.take()
    port.version = 4
    book.onUp(false)
    await book.answered()
    assert.deepEqual(port.take(), ['subscribe a/# qos 0'])
    book.onDown()
    port.version = 5
    book.onUp(false)
    await book.answered()
    assert.deepEqual(port.take().length, 2)
    book.close()
    await assert.rejects(book.answered(), { code: 'FST_MQTT_CONNECTION' })
  })

  test('whatever comes and goes, what is wanted is held once, and never missed in between', async () => {
    const filter = fc.constantFrom('a/b', 'a/+', '+/b', 'a/#', '#', '$share/g/a/b', '$s/x', 'c')
    const step = fc.oneof(
      { weight: 3, arbitrary: fc.record({ do: fc.constant('want' as const), filter, qos: fc.constantFrom(0, 1, 2) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('unwant' as const), index: fc.nat(9) }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('receive' as const, 'answer' as const) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('settle' as const) }) }
    )
    await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const broker = new BrokerModel(4, true)
      const book = new CoveringBook(broker, { onRefused () {}, onStillRefused () {}, onRestored () {} })
      opened.push(book)
      const wants: { filter: string, qos: 0 | 1 | 2, remove: () => void }[] = []
      const isCoveredBy = (wide: string, narrow: string) => wide === narrow ||
        (!narrow.startsWith('$share/') && !wide.startsWith('$share/') && covers(wide, narrow))
      const isHeld = ({ filter, qos }: { filter: string, qos: number }) =>
        [...broker.held].some(([held, { options }]) => isCoveredBy(held, filter) && options.qos >= qos)
      /** Those that were granted once, and are wanted all the while. */
      const served = new Set<typeof wants[number]>()
      const check = () => {
        const granted = new Set(book.granted.map(({ filter }) => filter))
        for (const want of wants) {
          if (isHeld(want)) {
            // Not yet, if an UNSUBSCRIBE from before it was wanted is still under way.
            if (granted.has(want.filter)) served.add(want)
            continue
          }
          assert.ok(!served.has(want), `${want.filter} is missed`)
        }
      }
      const settle = async () => {
        for (let round = 0; round < 4; round++) {
          await turn()
          while (!broker.isQuiet) {
            broker.receive()
            check()
            broker.answer(0)
            await turn()
          }
        }
        const held = [...broker.held.keys()]
        for (const one of held) {
          const wider = held.filter((other) => other !== one && isCoveredBy(other, one))
          assert.deepEqual(wider, [], `${one} is held besides`)
          assert.ok(wants.some(({ filter }) => filter === one), `${one} is held in vain`)
        }
        for (const want of wants) assert.ok(isHeld(want), `${want.filter} is not held`)
        const wanted = new Set(wants.map(({ filter }) => filter))
        assert.deepEqual([...wanted].sort(), book.granted.map(({ filter }) => filter).sort())
      }
      book.onUp(false)
      for (const step of steps) {
        if (step.do === 'want') {
          const qos = step.qos as 0 | 1 | 2
          wants.push({ filter: step.filter, qos, remove: book.want(step.filter, options({ qos })) })
        } else if (step.do === 'unwant') {
          const [taken] = wants.splice(step.index % (wants.length || 1), 1)
          if (taken !== undefined) served.delete(taken)
          taken?.remove()
        } else if (step.do === 'settle') {
          await settle()
        } else if (step.do === 'receive') {
          broker.receive()
          check()
        } else {
          broker.answer(0)
          await turn()
        }
      }
      await settle()
      book.close()
    }), { numRuns: 1_000 })
  })
})

for (const version of [4, 5] as const) {
  test(`SubscriptionBook: on MQTT ${version} the broker holds what is wanted, after whatever happened`, async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const scene = fc.record({
      steps: fc.array(anyStep, { maxLength: 80, size: 'max' }),
      dropsRefused: fc.boolean(),
      ending: fc.constantFrom('same connection', 'session kept', 'session lost')
    })
    await fc.assert(fc.asyncProperty(scene, async ({ steps, dropsRefused, ending }) => {
      const tick = (milliseconds: number) => t.mock.timers.tick(milliseconds)
      const simulation = new Simulation(version, dropsRefused, tick)
      opened.push(simulation.book)
      for (const step of steps) await simulation.run(step)
      const answered = simulation.book.answered()
      if (ending !== 'same connection' || !simulation.isUp) simulation.up(ending === 'session kept')
      await simulation.settle()
      await answered
      simulation.checkEnd(ending === 'session lost')
      simulation.book.close()
    }), { numRuns: 500 })
  })
}
