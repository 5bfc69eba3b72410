import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import type { SubscribeOptions } from '../../lib/session/link.ts'
import { SubscriptionBook } from '../../lib/session/subscriptions.ts'
import { overlap } from '../../lib/topic/overlap.ts'
import { withoutShare } from '../../lib/topic/overlap-index.ts'
import { BrokerModel } from './broker-model.ts'
import { subscribeOptions as options } from './subscribe-port.ts'

const modelFilters = ['a', 'b', 'c/d', 'c/+', 'c/#', '$share/g/a']

/** Something that happens to a book or its broker. */
export type Step =
  | { readonly do: 'want', readonly filter: string, readonly given: Partial<SubscribeOptions> }
  | { readonly do: 'unwant' | 'answer' | 'lose', readonly index: number }
  | { readonly do: 'up', readonly sessionPresent: boolean }
  | { readonly do: 'allow' | 'forbid' | 'kick', readonly filter: string }
  | { readonly do: 'tick', readonly milliseconds: number }
  | { readonly do: 'down' | 'receive' | 'turn' | 'settle' }

const anyModelFilter = fc.constantFrom(...modelFilters)

function stepsOf (weight: number, step: fc.Arbitrary<Step>): fc.WeightedArbitrary<Step> {
  return { weight, arbitrary: step }
}

export const anyStep = fc.oneof(
  stepsOf(5, fc.record({
    do: fc.constant('want'),
    filter: anyModelFilter,
    given: fc.record({ qos: fc.constantFrom(0, 1, 2), noLocal: fc.constantFrom(false, false, true) })
  })),
  stepsOf(4, fc.record({ do: fc.constant('unwant'), index: fc.nat(20) })),
  stepsOf(5, fc.record({ do: fc.constant('answer'), index: fc.nat(20) })),
  stepsOf(1, fc.record({ do: fc.constant('lose'), index: fc.nat(20) })),
  stepsOf(2, fc.record({ do: fc.constant('up'), sessionPresent: fc.constantFrom(true, true, false) })),
  stepsOf(1, fc.record({ do: fc.constantFrom('allow', 'allow', 'forbid'), filter: anyModelFilter })),
  stepsOf(1, fc.record({ do: fc.constant('kick'), filter: anyModelFilter })),
  stepsOf(2, fc.record({ do: fc.constant('tick'), milliseconds: fc.constantFrom(100, 5_000, 60_000) })),
  stepsOf(5, fc.record({ do: fc.constant('receive') })),
  stepsOf(5, fc.record({ do: fc.constant('turn') })),
  stepsOf(1, fc.record({ do: fc.constantFrom('down', 'settle') }))
)

/** A book at a broker, with the rules that hold all the time. */
export class Simulation {
  readonly broker: BrokerModel
  readonly book: SubscriptionBook
  readonly #wants: { filter: string, options: SubscribeOptions, remove: () => void }[] = []
  /** Filters that were seen to be granted, until nobody wants them. */
  readonly #wereGranted = new Set<string>()
  /** Filters that were subscribed again so that their retained messages came again. */
  readonly #retainedTwice: string[] = []
  readonly #tick: (milliseconds: number) => void
  #isUp = false

  constructor (version: 4 | 5, dropsRefused: boolean, tick: (milliseconds: number) => void) {
    this.broker = new BrokerModel(version, dropsRefused)
    this.#tick = tick
    const events = { onRefused () {}, onStillRefused () {}, onRestored () {} }
    const retry = { minDelayMs: 1_000, maxDelayMs: 60_000, random: () => 1 }
    this.book = new SubscriptionBook(this.broker, events, { retry })
    this.broker.onSubscribe = (filter, { retainHandling }) => {
      // On 3.1.1 every SUBSCRIBE brings them.
      const isTwice = version === 5 && this.#wereGranted.has(filter) && retainHandling !== 1
      if (isTwice) this.#retainedTwice.push(filter)
    }
  }

  /** What is wanted of each filter. */
  get wanted (): Map<string, SubscribeOptions> {
    const ascending = [...this.#wants].sort((a, b) => a.options.qos - b.options.qos)
    return new Map(ascending.map(({ filter, options }) => [filter, options]))
  }

  get isUp (): boolean {
    return this.#isUp
  }

  async run (step: Step): Promise<void> {
    switch (step.do) {
      case 'want': this.#want(step.filter, options(step.given)); break
      case 'unwant': this.#unwant(step.index); break
      case 'up': this.up(step.sessionPresent); break
      case 'down': this.#down(); break
      case 'receive': this.broker.receive(); break
      case 'answer': this.broker.answer(step.index); break
      case 'lose': this.broker.lose(step.index); break
      case 'allow': this.broker.forbidden.delete(step.filter); break
      case 'forbid': this.broker.forbidden.add(step.filter); break
      case 'kick': this.#kick(step.filter); break
      case 'tick': this.#tick(step.milliseconds); break
      case 'turn': await this.#turn(); break
      case 'settle': await this.settle(); break
    }
    this.#check()
  }

  up (sessionPresent: boolean): void {
    if (this.#isUp) this.#down()
    if (!sessionPresent) this.broker.held.clear()
    this.#isUp = true
    this.book.onUp(sessionPresent)
  }

  /** Everything arrives, is answered and is tried again, until nothing more happens. */
  async settle (): Promise<void> {
    for (let round = 0; round < 5; round++) {
      await this.#turn()
      while (!this.broker.isQuiet) {
        this.broker.receive()
        this.broker.answer(0)
        await this.#turn()
      }
      this.#tick(60_000)
    }
    await this.#turn()
    this.#check()
  }

  /** Every answer that has come is read. */
  async #turn (): Promise<void> {
    await turn()
    for (const { filter } of this.book.granted) {
      assert.ok(this.broker.held.has(filter) || this.broker.isUnsettled(filter), `${filter} is not granted`)
    }
  }

  #want (filter: string, given: SubscribeOptions): void {
    try {
      this.#wants.push({ filter, options: given, remove: this.book.want(filter, given) })
    } catch (error) {
      assert.equal((error as { code: string }).code, 'FST_MQTT_TOPIC_CONFLICT')
    }
  }

  #unwant (index: number): void {
    const [taken] = this.#wants.splice(index % (this.#wants.length || 1), 1)
    taken?.remove()
    if (taken !== undefined && !this.wanted.has(taken.filter)) this.#wereGranted.delete(taken.filter)
  }

  /** The broker takes a permission away, with what is subscribed by it, and ends the connection. */
  #kick (filter: string): void {
    this.broker.forbidden.add(filter)
    // On 3.1.1 the book cannot know: to ask would bring retained messages again.
    if (this.broker.version === 5) this.broker.held.delete(filter)
    this.#down()
  }

  #down (): void {
    this.#isUp = false
    this.book.onDown()
    this.broker.cut()
  }

  #check (): void {
    const { granted, refused, pending } = this.book
    assert.deepEqual(this.#retainedTwice, [])
    for (const { filter } of granted) this.#wereGranted.add(filter)
    const settled = [...granted, ...refused].map(({ filter }) => filter)
    for (const filter of this.wanted.keys()) {
      assert.ok(settled.includes(filter) || pending.includes(filter), `${filter} is forgotten`)
    }
  }

  /** To be called when it has settled. */
  checkEnd (isNewSession: boolean): void {
    const { broker, book, wanted } = this
    const granted = new Set(book.granted.map(({ filter }) => filter))
    const refused = book.refused.map(({ filter }) => filter)
    assert.deepEqual(book.pending, [])
    assert.deepEqual([...granted, ...refused].sort(), [...wanted.keys()].sort())
    for (const { filter, reasonCode } of book.refused) {
      const isImpossible = broker.version === 4 && wanted.get(filter)?.noLocal === true
      const isRight = reasonCode === undefined ? isImpossible : broker.forbidden.has(filter)
      assert.ok(isRight, `${filter} is refused in vain`)
    }
    for (const filter of granted) {
      const [held, options] = [broker.held.get(filter)?.options, wanted.get(filter)]
      assert.equal(held?.noLocal, options?.noLocal, filter)
      assert.ok((held?.qos ?? -1) >= (options?.qos ?? 3), `${filter} is held with QoS ${held?.qos}`)
      if (broker.version === 5) this.#checkIdentifier(filter, granted)
    }
    // What was granted in the session and is refused now may be there still.
    for (const filter of broker.held.keys()) {
      assert.ok(isNewSession ? granted.has(filter) : wanted.has(filter), `${filter} is held in vain`)
    }
  }

  #checkIdentifier (filter: string, granted: ReadonlySet<string>): void {
    const identifier = this.broker.held.get(filter)?.identifier
    if (identifier !== undefined) assert.equal(this.book.filterOf(identifier), filter)
    const others = [...granted].filter((other) =>
      other !== filter && overlap(withoutShare(filter), withoutShare(other)))
    assert.ok(identifier !== undefined || others.length === 0, `${filter} overlaps ${others.join()}`)
  }
}
