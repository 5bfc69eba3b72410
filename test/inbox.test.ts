import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import type { QoS } from '../types/message.ts'
import { Inbox, type AckPort } from '../lib/session/inbox.ts'
import type { AckType, ReceivedPublish } from '../lib/session/link.ts'
import type { Receipt } from '../lib/session/receipts.ts'
import { collectGarbage } from './helpers/memory.ts'

/** A message of a broker. */
class Sent implements ReceivedPublish {
  readonly retain = false
  readonly properties = undefined
  readonly subscriptionIds = []
  readonly topic: string
  readonly qos: QoS
  readonly messageId: number
  readonly payload: Buffer
  readonly dup: boolean
  keepers = 0

  constructor (topic: string, qos: QoS, messageId: number, payload = '', dup = false) {
    this.topic = topic
    this.qos = qos
    this.messageId = messageId
    this.payload = Buffer.from(payload)
    this.dup = dup
  }

  again ({ dup = true } = {}): Sent {
    return new Sent(this.topic, this.qos, this.messageId, this.payload.toString(), dup)
  }

  keep (): void {
    this.keepers++
  }

  drop (): void {
    this.keepers--
  }
}

class FakePort implements AckPort {
  version: 4 | 5 = 5
  onAck: (type: AckType, id: number, reasonCode: number) => void = () => {}
  #sent: string[] = []

  sendAck (type: AckType, id: number, reasonCode: number): void {
    const name = ['PUBACK', 'PUBREC', 'PUBREL', 'PUBCOMP'][type - 4] ?? ''
    this.#sent.push(`${name} ${id}${reasonCode === 0 ? '' : ` 0x${reasonCode.toString(16)}`}`)
    this.onAck(type, id, reasonCode)
  }

  /** What was sent since the last call. */
  take (): string[] {
    return this.#sent.splice(0)
  }
}

/** An inbox whose messages wait until the test is done with them. */
function open ({ version = 5, maxUnacked = 1_000 }: { version?: 4 | 5, maxUnacked?: number } = {}) {
  const port = new FakePort()
  port.version = version
  const delivered: string[] = []
  const receipts = new Map<string, Receipt>()
  const excess: number[] = []
  const inbox = new Inbox(port, ({ topic }, receipt) => {
    delivered.push(topic)
    if (receipt !== undefined) receipts.set(topic, receipt)
  }, (unacked) => excess.push(unacked), maxUnacked)
  inbox.onUp(false)
  const reconnect = (isSessionPresent: boolean) => {
    inbox.onDown()
    inbox.onUp(isSessionPresent)
  }
  const done = (topic: string, reasonCode?: number) => receipts.get(topic)?.release(reasonCode)
  return { port, inbox, delivered, receipts, excess, reconnect, done }
}

suite('Inbox: acknowledgements follow the handlers', () => {
  test('QoS 0 has none', () => {
    const { port, inbox, delivered, receipts } = open()
    inbox.receive(new Sent('a', 0, 0))
    assert.deepEqual([port.take(), delivered, receipts.size], [[], ['a'], 0])
  })

  test('QoS 1: PUBACK when all who hold it are done', () => {
    const { port, inbox, receipts, done } = open()
    inbox.receive(new Sent('a', 1, 1))
    receipts.get('a')?.hold()
    done('a')
    assert.deepEqual(port.take(), [])
    done('a')
    assert.deepEqual(port.take(), ['PUBACK 1'])
  })

  test('QoS 2: PUBREC when they are done, PUBCOMP after PUBREL', () => {
    const { port, inbox, done } = open()
    inbox.receive(new Sent('a', 2, 1))
    assert.deepEqual(port.take(), [])
    done('a')
    inbox.onPubrel(1)
    assert.deepEqual(port.take(), ['PUBREC 1', 'PUBCOMP 1'])
  })

  for (const qos of [1, 2] as const) {
    test(`QoS ${qos}: in the order in which the messages came, whoever is done first`, () => {
      const { port, inbox, done } = open()
      const ack = qos === 1 ? 'PUBACK' : 'PUBREC'
      for (const id of [1, 2, 3, 4, 5]) inbox.receive(new Sent(`m${id}`, qos, id))
      for (const [id, acks] of [[4, []], [2, []], [1, [1, 2]], [3, [3, 4]], [5, [5]]] as const) {
        done(`m${id}`)
        assert.deepEqual(port.take(), acks.map((acked) => `${ack} ${acked}`))
      }
    })
  }

  for (const qos of [1, 2] as const) {
    test(`QoS ${qos}: one that takes more than a second holds up no other any more`, (t) => {
      t.mock.timers.enable({ apis: ['setTimeout'] })
      const { port, inbox, done } = open()
      const acks = (...ids: number[]) => ids.map((id) => `${qos === 1 ? 'PUBACK' : 'PUBREC'} ${id}`)
      for (const id of [1, 2, 3, 4, 5, 6]) inbox.receive(new Sent(`m${id}`, qos, id))
      for (const id of [1, 3, 5]) done(`m${id}`)
      assert.deepEqual(port.take(), acks(1))
      t.mock.timers.tick(999)
      assert.deepEqual(port.take(), [])
      t.mock.timers.tick(1)
      assert.deepEqual(port.take(), acks(3, 5))
      // From now on it is overtaken at once, until it is done.
      done('m4')
      assert.deepEqual(port.take(), acks(4))
      done('m2')
      assert.deepEqual(port.take(), acks(2))
      for (const id of [7, 8]) inbox.receive(new Sent(`m${id}`, qos, id))
      done('m7')
      assert.deepEqual(port.take(), [])
      t.mock.timers.tick(1_000)
      assert.deepEqual(port.take(), acks(7))
      assert.equal(inbox.unacked, 2)
      inbox.onDown()
      inbox.onUp(true)
      for (const id of [6, 8]) done(`m${id}`)
      assert.deepEqual(port.take(), [])
      inbox.receive(new Sent('m6', qos, 6, '', true))
      inbox.receive(new Sent('m8', qos, 8, '', true))
      assert.deepEqual(port.take(), acks(6, 8))
    })
  }

  test('the second is one of the oldest itself: another one that is slow has its own; the end has none', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { port, inbox, done } = open()
    for (const id of [1, 2, 3]) inbox.receive(new Sent(`m${id}`, 1, id))
    done('m3')
    t.mock.timers.tick(900)
    done('m1')
    assert.deepEqual(port.take(), ['PUBACK 1'])
    t.mock.timers.tick(100)
    assert.deepEqual(port.take(), [])
    t.mock.timers.tick(1_000)
    assert.deepEqual(port.take(), ['PUBACK 3'])
    // One of a connection before is not in the way, nor does it acknowledge anything.
    inbox.receive(new Sent('m4', 1, 4))
    inbox.onDown()
    inbox.onUp(true)
    inbox.receive(new Sent('m2', 1, 2, '', true))
    inbox.receive(new Sent('m5', 1, 5))
    inbox.receive(new Sent('m6', 1, 6))
    done('m5')
    t.mock.timers.tick(1_000)
    assert.deepEqual(port.take(), ['PUBACK 5'])
    done('m4')
    assert.deepEqual(port.take(), [])
    inbox.receive(new Sent('m7', 1, 7))
    done('m2')
    done('m7')
    inbox.close()
    t.mock.timers.tick(2_000)
    assert.deepEqual(port.take(), ['PUBACK 2'])
  })

  test('what comes after the youngest has overtaken the oldest is acknowledged in its turn', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { port, inbox, done } = open()
    for (const id of [1, 2, 3]) inbox.receive(new Sent(`m${id}`, 1, id))
    done('m1')
    t.mock.timers.tick(2_000)
    done('m3')
    assert.deepEqual(port.take(), ['PUBACK 1', 'PUBACK 3'])
    inbox.receive(new Sent('m4', 1, 4))
    done('m4')
    done('m2')
    assert.deepEqual([port.take(), inbox.unacked], [['PUBACK 4', 'PUBACK 2'], 0])
  })

  test('QoS 1 does not wait for QoS 2, nor the other way round', () => {
    const { port, inbox, done } = open()
    for (const id of [1, 2, 3, 4]) inbox.receive(new Sent(`m${id}`, id < 3 ? 1 : 2, id))
    done('m4')
    done('m3')
    assert.deepEqual(port.take(), ['PUBREC 3', 'PUBREC 4'])
    done('m1')
    assert.deepEqual(port.take(), ['PUBACK 1'])
  })

  test('thousands behind one that is slow keep their order', () => {
    const { port, inbox, done } = open({ maxUnacked: 10_000 })
    const ids = Array.from({ length: 5_000 }, (_, index) => index + 1)
    for (const id of ids) inbox.receive(new Sent(`m${id}`, 1, id))
    for (const id of ids.slice(0, 2_000)) done(`m${id}`)
    for (const id of ids.slice(3_000)) done(`m${id}`)
    assert.equal(port.take().length, 2_000)
    for (const id of ids.slice(2_000, 3_000)) done(`m${id}`)
    assert.deepEqual(port.take(), ids.slice(2_000).map((id) => `PUBACK ${id}`))
    assert.equal(inbox.unacked, 0)
  })

  test('refused by one who holds it, it is refused; the gravest reason counts', () => {
    const { port, inbox, receipts, done } = open()
    for (const [id, codes] of [[1, [0, 0x83]], [2, [0x83, 0]], [3, [0x99, 0x83]]] as const) {
      inbox.receive(new Sent(`m${id}`, 1, id))
      receipts.get(`m${id}`)?.hold()
      for (const code of codes) done(`m${id}`, code)
    }
    assert.deepEqual(port.take(), ['PUBACK 1 0x83', 'PUBACK 2 0x83', 'PUBACK 3 0x99'])
  })

  test('nothing is acknowledged while there is no connection, nor after the end', () => {
    const { port, inbox, done } = open()
    inbox.receive(new Sent('a', 1, 1))
    inbox.onDown()
    inbox.onDown()
    done('a')
    inbox.onUp(true)
    inbox.receive(new Sent('b', 1, 2))
    inbox.close()
    done('b')
    assert.deepEqual(port.take(), [])
  })

  test('more than maxUnacked are told, with each that comes on top', () => {
    const { inbox, excess, reconnect, done, delivered } = open({ maxUnacked: 2 })
    const messages = [1, 2, 3, 4].map((id) => new Sent(`m${id}`, id % 2 === 0 ? 2 : 1, id))
    for (const message of messages) inbox.receive(message)
    assert.deepEqual([excess, inbox.unacked], [[3, 4], 4])
    reconnect(true)
    assert.equal(inbox.unacked, 0)
    for (const message of messages) inbox.receive(message.again())
    assert.deepEqual([excess, inbox.unacked, delivered.length], [[3, 4], 4, 4], 'they run already')
    for (const { topic } of messages) done(topic)
    inbox.receive(new Sent('m5', 1, 5))
    assert.deepEqual([excess.length, inbox.unacked], [2, 1])
  })
})

suite('Inbox: reconnects', () => {
  for (const qos of [1, 2] as const) {
    const ack = qos === 1 ? 'PUBACK' : 'PUBREC'
    for (const dup of [true, false]) {
      test(`QoS ${qos}: one that runs and comes again${dup ? '' : ' without DUP'} is the same`, () => {
        const { port, inbox, delivered, reconnect, done } = open()
        const message = new Sent('a', qos, 7, 'x')
        inbox.receive(message)
        for (let cuts = 0; cuts < 3; cuts++) {
          reconnect(true)
          inbox.receive(message.again({ dup }))
        }
        assert.deepEqual(port.take(), [])
        done('a')
        assert.deepEqual([port.take(), delivered], [[`${ack} 7`], ['a']])
      })
    }

    test(`QoS ${qos}: done before it comes again, it is acknowledged at once`, () => {
      const { port, inbox, delivered, reconnect, done } = open()
      const messages = [1, 2, 3].map((id) => new Sent(`m${id}`, qos, id))
      for (const message of messages) inbox.receive(message)
      inbox.onDown()
      done('m1')
      done('m3')
      inbox.onUp(true)
      // The connection is lost before any of them comes.
      reconnect(true)
      for (const message of messages) inbox.receive(message.again())
      assert.deepEqual(port.take(), [`${ack} 1`])
      done('m2')
      assert.deepEqual([port.take(), delivered.length], [[`${ack} 2`, `${ack} 3`], 3])
    })

    test(`QoS ${qos}: late over a lost session, it acknowledges nothing else`, () => {
      const { port, inbox, reconnect, done } = open()
      inbox.receive(new Sent('old', qos, 1, 'x'))
      reconnect(false)
      inbox.receive(new Sent('new', qos, 1, 'x'))
      done('old')
      assert.deepEqual(port.take(), [])
      done('new')
      assert.deepEqual(port.take(), [`${ack} 1`])
    })

    test(`QoS ${qos}: another message with its identifier is another message, in a kept session too`, () => {
      const { port, inbox, delivered, reconnect, done } = open()
      inbox.receive(new Sent('a', qos, 1, 'x'))
      inbox.receive(new Sent('b', qos, 2, 'x'))
      reconnect(true)
      inbox.receive(new Sent('a', qos, 1, 'y', true))
      inbox.receive(new Sent('c', qos, 2, 'x', true))
      assert.deepEqual(delivered, ['a', 'b', 'a', 'c'])
      done('b')
      assert.deepEqual(port.take(), [])
      // Once another has had its identifier, the first cannot come again.
      done('a')
      inbox.receive(new Sent('a', qos, 1, 'x', true))
      assert.equal(delivered.length, 5)
    })

    test(`QoS ${qos}: what is acknowledged and comes again, PUBREL being through, is handled again`, () => {
      const { port, inbox, delivered, reconnect, done } = open()
      const message = new Sent('a', qos, 1)
      inbox.receive(message)
      done('a')
      if (qos === 2) inbox.onPubrel(1)
      reconnect(true)
      inbox.receive(message.again())
      done('a')
      assert.deepEqual(delivered, ['a', 'a'])
      assert.equal(port.take().filter((sent) => sent.startsWith(ack)).length, 2)
    })
  }

  test('a connection that was closed on purpose, and another one: as if it was lost', () => {
    const { port, inbox, delivered, done } = open()
    const message = new Sent('a', 1, 1)
    inbox.receive(message)
    inbox.onUp(true)
    assert.equal(inbox.unacked, 0)
    done('a')
    assert.deepEqual(port.take(), [])
    inbox.receive(message.again())
    assert.deepEqual([port.take(), delivered], [['PUBACK 1'], ['a']])
  })

  test('taken over by another process: nothing is acknowledged, and nothing is known again', () => {
    const { port, inbox, delivered, done } = open()
    inbox.receive(new Sent('a', 1, 1))
    inbox.receive(new Sent('b', 2, 2))
    done('b')
    port.take()
    inbox.reset()
    inbox.onUp(true)
    done('a')
    inbox.receive(new Sent('a', 1, 1, '', true))
    inbox.receive(new Sent('b', 2, 2, '', true))
    assert.deepEqual([port.take(), delivered], [[], ['a', 'b', 'a', 'b']])
  })

  test('a broker that uses an identifier twice at once: both are handled, and counted', () => {
    const { port, inbox, receipts, delivered } = open()
    inbox.receive(new Sent('a', 1, 1))
    inbox.receive(new Sent('b', 1, 1))
    inbox.receive(new Sent('b', 1, 1, '', true))
    receipts.get('a')?.release()
    assert.deepEqual([port.take(), delivered, inbox.unacked], [['PUBACK 1'], ['a', 'b'], 1])
    inbox.receive(new Sent('b', 1, 1, '', true))
    receipts.get('b')?.release()
    assert.deepEqual([port.take(), delivered, inbox.unacked], [['PUBACK 1'], ['a', 'b'], 0])
  })

  test('the first new message ends the time in which others come again', () => {
    const { inbox, delivered, reconnect } = open()
    inbox.receive(new Sent('a', 1, 1))
    inbox.receive(new Sent('b', 1, 2))
    reconnect(true)
    inbox.receive(new Sent('a', 1, 1, '', true))
    // Under way when the connection was cut, so it comes with DUP and is new all the same.
    inbox.receive(new Sent('lost', 1, 3, '', true))
    inbox.receive(new Sent('new', 1, 4))
    inbox.receive(new Sent('b', 1, 2))
    assert.deepEqual(delivered, ['a', 'b', 'lost', 'new', 'b'])
  })
})

suite('Inbox: QoS 2', () => {
  test('PUBREC lost: the message comes again, and is not handled again', () => {
    const { port, inbox, delivered, reconnect, done } = open()
    const message = new Sent('a', 2, 1, 'x')
    inbox.receive(message)
    done('a')
    reconnect(true)
    inbox.receive(message.again())
    inbox.onPubrel(1)
    assert.deepEqual([port.take(), delivered], [['PUBREC 1', 'PUBREC 1', 'PUBCOMP 1'], ['a']])
  })

  for (const [version, answer] of [[5, 'PUBCOMP 1 0x92'], [4, 'PUBCOMP 1']] as const) {
    test(`PUBCOMP lost, MQTT ${version === 5 ? '5' : '3.1.1'}: PUBREL comes again, and is answered`, () => {
      const { port, inbox, reconnect, done } = open({ version })
      inbox.receive(new Sent('a', 2, 1))
      done('a')
      inbox.onPubrel(1)
      reconnect(true)
      inbox.onPubrel(1)
      assert.deepEqual(port.take(), ['PUBREC 1', 'PUBCOMP 1', answer])
    })
  }

  test('a lost session forgets what PUBREL has not come for', () => {
    const { port, inbox, delivered, reconnect, done } = open()
    inbox.receive(new Sent('a', 2, 1, 'x'))
    done('a')
    reconnect(false)
    inbox.receive(new Sent('a', 2, 1, 'x'))
    assert.deepEqual([port.take(), delivered], [['PUBREC 1'], ['a', 'a']])
  })

  test('the identifier with another message is another message', () => {
    const { inbox, delivered, done } = open()
    inbox.receive(new Sent('a', 2, 1, 'x'))
    done('a')
    inbox.receive(new Sent('a', 2, 1, 'y'))
    inbox.receive(new Sent('a', 1, 1, 'y'))
    assert.deepEqual(delivered, ['a', 'a', 'a'])
  })

  test('refused, it ends with PUBREC on MQTT 5; on 3.1.1, which cannot say so, it is as if taken', () => {
    for (const [version, times] of [[5, 2], [4, 1]] as const) {
      const { port, inbox, delivered, reconnect, done } = open({ version })
      const message = new Sent('a', 2, 1)
      inbox.receive(message)
      done('a', 0x83)
      reconnect(true)
      inbox.receive(message.again())
      assert.equal(port.take()[0], 'PUBREC 1 0x83')
      assert.equal(delivered.length, times)
    }
  })
})

suite('Inbox: memory', () => {
  test('what waits, or is remembered, is kept until it is done; what is done at once is not', () => {
    const { inbox, delivered, done } = open()
    const slow = new Sent('slow', 1, 1)
    inbox.receive(slow)
    assert.equal(slow.keepers, 1)
    const atOnce = new Inbox(new FakePort(), (_, receipt) => receipt?.release(), () => {}, 10)
    const one = new Sent('one', 1, 1)
    const two = new Sent('two', 2, 2)
    atOnce.onUp(false)
    for (const message of [one, two]) atOnce.receive(message)
    assert.deepEqual([one.keepers, two.keepers], [0, 1])
    atOnce.onPubrel(2)
    done('slow')
    assert.deepEqual([slow.keepers, two.keepers], [0, 0])
    assert.deepEqual(delivered, ['slow'])
  })

  test('what is acknowledged is let go, though another still waits', async () => {
    const { inbox, receipts, done } = open()
    const payloads = [1, 2].map((id) => {
      const message = new Sent(`m${id}`, 1, id, 'x')
      inbox.receive(message)
      return new WeakRef(message)
    })
    done('m1')
    receipts.delete('m1')
    await collectGarbage()
    assert.deepEqual(payloads.map((payload) => payload.deref() === undefined), [true, false])
  })

  test('what is done at once behind one that waits is kept, too', () => {
    const port = new FakePort()
    const held: Receipt[] = []
    const inbox = new Inbox(port, (message, receipt) => {
      if (message.topic === 'slow') held.push(receipt as Receipt)
      else receipt?.release()
    }, () => {}, 10)
    inbox.onUp(false)
    inbox.receive(new Sent('slow', 1, 1))
    const behind = new Sent('behind', 1, 2)
    inbox.receive(behind)
    assert.equal(behind.keepers, 1)
    held[0]?.release()
    assert.equal(behind.keepers, 0)
    assert.deepEqual(port.take(), ['PUBACK 1', 'PUBACK 2'])
  })
})

/** What a broker knows of one message of a session. */
interface Outgoing {
  readonly n: number
  readonly qos: 1 | 2
  readonly id: number
  isReceived: boolean
}

const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant('send' as const), qos: fc.constantFrom<1 | 2>(1, 2) }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('arrive' as const) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('done' as const), which: fc.nat(8) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('answer' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('cut' as const), isKept: fc.boolean() }) }
)

suite('Inbox: any sequence of events', () => {
  test('no acknowledgement before its handler or for another message, in order, QoS 2 once, none left out', () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 80, size: 'max' }), fc.boolean(), (steps, setsDup) => {
      const port = new FakePort()
      /** What the broker has in flight, in order; what is under way to us and back. */
      let session: Outgoing[] = []
      let toUs: (() => void)[] = []
      let back: (() => void)[] = []
      let count = 0
      const running: { n: number, receipt: Receipt }[] = []
      const times = new Map<number, number>()
      const finished = new Set<number>()
      const answered = new Set<number>()
      /** Of this connection: what came last with an identifier, and what came in order. */
      const current = new Map<number, Outgoing>()
      const order: Record<1 | 2, number[]> = { 1: [], 2: [] }
      let arriving: Outgoing

      const inbox = new Inbox(port, (_, receipt) => {
        const { n, qos } = arriving
        const before = times.get(n) ?? 0
        times.set(n, before + 1)
        if (before > 0) assert.ok(qos === 1 && answered.has(n), `message ${n} is handled twice`)
        if (receipt !== undefined) running.push({ n, receipt })
      }, () => {}, 1_000)
      inbox.onUp(false)

      port.onAck = (type, id) => {
        if (type === 7) {
          back.push(() => { session = session.filter((one) => one.id !== id) })
          return
        }
        const message = current.get(id)
        assert.ok(message !== undefined, `nothing came with the identifier ${id}`)
        assert.ok(finished.has(message.n), `message ${message.n} is acknowledged before it is handled`)
        assert.equal(type, message.qos === 1 ? 4 : 5)
        if (!answered.has(message.n)) {
          const earlier = order[message.qos].slice(0, order[message.qos].indexOf(message.n))
          assert.deepEqual(earlier.filter((n) => !answered.has(n)), [], `message ${message.n} overtakes`)
        }
        answered.add(message.n)
        back.push(() => {
          if (message.qos === 1) {
            session = session.filter((one) => one !== message)
          } else {
            message.isReceived = true
            toUs.push(() => inbox.onPubrel(id))
          }
        })
      }
      const transmit = (message: Outgoing, dup: boolean) => toUs.push(() => {
        arriving = message
        current.set(message.id, message)
        if (!order[message.qos].includes(message.n)) order[message.qos].push(message.n)
        // Few contents, so that one is often like another.
        inbox.receive(new Sent('t', message.qos, message.id, String(message.n % 2), dup))
      })
      const play = (event: { do: string, qos?: 1 | 2, which?: number, isKept?: boolean }) => {
        if (event.do === 'send') {
          let id = 1
          while (session.some((one) => one.id === id)) id++
          // Without DUP a message whose PUBACK was lost looks like a new one, after which no other is known.
          const message = { n: count++, qos: setsDup ? event.qos ?? 1 : 2, id, isReceived: false }
          session.push(message)
          transmit(message, false)
        } else if (event.do === 'arrive') {
          toUs.shift()?.()
        } else if (event.do === 'done') {
          const [one] = running.splice((event.which ?? 0) % Math.max(1, running.length), 1)
          if (one === undefined) return
          finished.add(one.n)
          one.receipt.release()
        } else if (event.do === 'answer') {
          back.shift()?.()
        } else {
          toUs = []
          back = []
          current.clear()
          order[1] = []
          order[2] = []
          inbox.onDown()
          if (event.isKept !== true) session = []
          inbox.onUp(event.isKept === true)
          for (const one of session) {
            if (one.isReceived) toUs.push(() => inbox.onPubrel(one.id))
            else transmit(one, setsDup)
          }
        }
      }
      for (const event of steps) play(event)
      while (toUs.length > 0 || back.length > 0 || running.length > 0) {
        for (const what of ['arrive', 'done', 'answer']) play({ do: what })
      }
      assert.deepEqual(session, [], 'the broker has its answer to all')
      assert.equal(inbox.unacked, 0)
    }), { numRuns: 2_000 })
  })
})
