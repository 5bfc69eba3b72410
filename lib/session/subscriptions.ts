import type { GrantedFilter, RefusedFilter } from '../../types/status.ts'
import { errors } from '../errors.ts'
import type { SubscribeOptions } from './link.ts'
import { Exchanges, type Exchange } from './exchanges.ts'
import { RetryTimer, type RetryDelays } from './retry-timer.ts'
import { Subscription, type Pause } from './subscription.ts'
import { SubscriptionIdentifiers } from './subscription-identifiers.ts'
import {
  chunks, firstOf, maxFilters, reasonOf, subscribePackets, subscribeProblem, type SubscribeLimits
} from './subscription-packets.ts'

/** What the subscription book needs from whoever holds the connection. */
export interface SubscribePort {
  readonly version: 4 | 5
  readonly limits: SubscribeLimits
  /**
   * Sends one SUBSCRIBE. Rejects if the connection is lost first, of which the book is told before.
   *
   * @returns the reason code of each filter
   */
  subscribe (
    filters: readonly string[], options: SubscribeOptions, subscriptionIdentifier: number | undefined
  ): Promise<readonly number[]>
  unsubscribe (filters: readonly string[]): Promise<void>
}

/** What a book tells of its filters. */
export interface BookEvents {
  /** A filter is refused: for the first time, or for another reason than it was told of last. */
  onRefused (refused: RefusedFilter): void
  /** It was asked for again, and refused for the same reason. */
  onStillRefused (refused: RefusedFilter): void
  /** A filter that was refused is granted. */
  onRestored (granted: GrantedFilter): void
}

export interface BookSettings {
  /** Milliseconds that the broker has for an answer; default 5 s. */
  readonly answerTimeoutMs?: number | undefined
  /** When to ask again for what was refused; default: within 1 s, later within up to 60 s. */
  readonly retry?: RetryDelays | undefined
}

/**
 * What is to be subscribed, filter by filter, and what the broker answered to each. The book is the whole
 * truth: MQTT.js's own list loses every filter of a batch in which one was refused.
 *
 * For each filter it compares what is wanted with what the broker is known to hold in this session, and sends
 * what makes them equal. A filter is in one packet at a time, so that its answers come in order.
 */
export class SubscriptionBook {
  readonly #port: SubscribePort
  readonly #events: BookEvents
  readonly #subscriptions = new Map<string, Subscription>()
  readonly #identifiers = new SubscriptionIdentifiers()
  readonly #retry: RetryTimer
  /** Those for which something is to be sent. */
  readonly #due = new Set<Subscription>()
  /** Packets without an answer. */
  readonly #exchanges: Exchanges
  readonly #waiting: PromiseSettlers[] = []
  #isUp = false
  #isClosed = false
  #isScheduled = false

  constructor (port: SubscribePort, events: BookEvents, settings: BookSettings = {}) {
    this.#port = port
    this.#events = events
    const { answerTimeoutMs = 5_000, retry = { minDelayMs: 1_000, maxDelayMs: 60_000 } } = settings
    this.#exchanges = new Exchanges(answerTimeoutMs)
    this.#retry = new RetryTimer(retry, () => this.#askAgain())
  }

  /**
   * Asks for a filter. One filter has one subscription, with the highest quality of service of all who ask.
   *
   * @returns takes the request back; with the last one the filter is unsubscribed
   * @throws `FST_MQTT_TOPIC_CONFLICT` if it is already asked for with other options
   */
  want (filter: string, options: SubscribeOptions): () => void {
    const subscription = this.#subscriptions.get(filter) ?? this.#enter(filter)
    const request = { ...options }
    subscription.want(request)
    this.#review(subscription)
    let isWanted = true
    return () => {
      if (!isWanted) return
      isWanted = false
      subscription.unwant(request)
      this.#review(subscription)
    }
  }

  /**
   * A new connection. Without a session everything is asked for. With one too: a broker may have dropped what
   * is not allowed any more, as Mosquitto's dynamic security does, and tells only who asks. On MQTT 5 that
   * costs nothing. On 3.1.1 each SUBSCRIBE brings the retained messages again, so that only what is not known
   * to be granted in this session is asked for: a SUBSCRIBE that was lost on its way, all after `doubt()`.
   */
  onUp (sessionPresent: boolean): void {
    this.onDown()
    if (this.#isClosed) return
    this.#isUp = true
    for (const subscription of this.#subscriptions.values()) {
      if (!sessionPresent) subscription.forget()
      else if (this.#port.version === 5) subscription.doubt()
      subscription.askAnew()
      this.#review(subscription)
    }
    this.#schedule()
  }

  onDown (): void {
    this.#isUp = false
    this.#retry.reset()
    this.#exchanges.clear()
    this.#due.clear()
    for (const subscription of this.#subscriptions.values()) subscription.loseAnswer()
  }

  /** What the session holds is not known any more: somebody may have changed it. */
  doubt (): void {
    for (const subscription of this.#subscriptions.values()) subscription.doubt()
  }

  /** Ends every wait and every timer. */
  close (): void {
    this.onDown()
    this.#isClosed = true
    for (const { reject } of this.#waiting.splice(0)) reject(closedError())
  }

  /** Resolves when every filter that is wanted now is answered; rejects if the book is closed before. */
  async answered (): Promise<void> {
    if (this.#isClosed) throw closedError()
    if (this.#isUp && !this.#hasPending()) return
    await new Promise<void>((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  get granted (): GrantedFilter[] {
    const all = this.#isUp ? [...this.#subscriptions.values()] : []
    return all.flatMap(({ filter, wanted, grant }) =>
      wanted === undefined || grant === undefined ? [] : [{ filter, qos: grant.qos }])
  }

  get refused (): RefusedFilter[] {
    return [...this.#subscriptions.values()].flatMap(({ refused }) => refused ?? [])
  }

  get pending (): string[] {
    return [...this.#subscriptions.values()].filter((one) => this.#isPending(one)).map(({ filter }) => filter)
  }

  /**
   * The filter by whose subscription a message came, from its subscription identifier. Only filters that
   * overlap others have one, and only where the protocol and the broker know them.
   */
  filterOf (subscriptionIdentifier: number): string | undefined {
    return this.#identifiers.filterOf(subscriptionIdentifier)
  }

  /** False while the copies of messages that come by its subscription do not name it. */
  isNamed (filter: string): boolean {
    return this.#subscriptions.get(filter)?.isNameless !== true
  }

  #enter (filter: string): Subscription {
    const subscription = new Subscription(filter)
    this.#subscriptions.set(filter, subscription)
    for (const other of this.#identifiers.add(filter)) {
      const overlapping = this.#subscriptions.get(other)
      if (overlapping === undefined) continue
      // What is under way will be renewed only after this one.
      if (overlapping.sent !== undefined) overlapping.isNameless = true
      this.#review(overlapping)
    }
    return subscription
  }

  /** After each change of a filter: finds out whether something is to be sent for it. */
  #review (subscription: Subscription): void {
    if (subscription.isOver && this.#subscriptions.get(subscription.filter) === subscription) {
      this.#subscriptions.delete(subscription.filter)
      this.#identifiers.delete(subscription.filter)
    }
    if (this.#isDue(subscription)) this.#due.add(subscription)
    else this.#due.delete(subscription)
    this.#schedule()
  }

  #isDue (subscription: Subscription): boolean {
    const { wanted, held, sent, pause } = subscription
    if (!this.#isUp || pause !== undefined) return false
    // What is under way decides what comes next.
    if (sent !== undefined && this.#exchanges.has(sent)) return false
    return wanted === undefined ? held !== undefined : !this.#isGranted(subscription)
  }

  #isGranted (subscription: Subscription): boolean {
    return subscription.isGranted(this.#identifierOf(subscription.filter))
  }

  #isPending (subscription: Subscription): boolean {
    const { wanted, refused } = subscription
    return wanted !== undefined && refused === undefined && !(this.#isUp && this.#isGranted(subscription))
  }

  #hasPending (): boolean {
    for (const subscription of this.#subscriptions.values()) if (this.#isPending(subscription)) return true
    return false
  }

  #identifierOf (filter: string): number | undefined {
    const { version, limits } = this.#port
    return version === 5 && limits.subscriptionIdentifiersAvailable ? this.#identifiers.of(filter) : undefined
  }

  /** What one turn registers goes out in one packet. */
  #schedule (): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    queueMicrotask(() => {
      this.#isScheduled = false
      this.#send()
    })
  }

  #send (): void {
    while (this.#due.size > 0 && this.#exchanges.size < maxUnderWay) {
      const due = firstOf(this.#due, maxFilters)
      for (const subscription of due) this.#due.delete(subscription)
      // First what is new: it may take over from what goes.
      this.#subscribe(due)
      this.#unsubscribe(due.filter(({ wanted }) => wanted === undefined))
    }
    if (!this.#isUp || this.#waiting.length === 0 || this.#due.size > 0 || this.#hasPending()) return
    for (const { resolve } of this.#waiting.splice(0)) resolve()
  }

  #unsubscribe (surplus: readonly Subscription[]): void {
    for (const subscriptions of chunks(surplus, this.#port.limits.maximumPacketSize)) {
      for (const subscription of subscriptions) subscription.unask()
      const answer = this.#port.unsubscribe(subscriptions.map(({ filter }) => filter))
      this.#await(answer, subscriptions, (subscription) => { subscription.held = undefined })
    }
  }

  #subscribe (due: readonly Subscription[]): void {
    const { version, limits } = this.#port
    const requests = due.flatMap((subscription) => {
      const { filter, wanted } = subscription
      if (wanted === undefined) return []
      const problem = subscribeProblem({ filter, options: wanted }, version, limits)
      if (problem !== undefined) {
        this.#refuse(subscription, { filter, reasonCode: undefined, reason: problem }, 'until connected')
        return []
      }
      const identifier = this.#identifierOf(filter)
      return [{ filter, options: subscription.ask(wanted, identifier, version), identifier, subscription }]
    })
    for (const packet of subscribePackets(requests, limits.maximumPacketSize)) {
      const subscriptions = packet.requests.map(({ subscription }) => subscription)
      const filters = packet.requests.map(({ filter }) => filter)
      const answer = this.#port.subscribe(filters, packet.options, packet.identifier)
      this.#await(answer, subscriptions, (one, codes, index) => this.#note(one, codes[index]))
    }
  }

  #await<A> (answer: Promise<A>, subscriptions: readonly Subscription[], note: Note<A>): void {
    const exchange: Exchange = this.#exchanges.start(answer, {
      answered: (value) => {
        for (const [index, subscription] of subscriptions.entries()) {
          // It came late, and another packet has been sent; or the connection was lost.
          if (subscription.sent !== exchange) continue
          subscription.sent = undefined
          note(subscription, value, index)
          this.#review(subscription)
        }
      },
      failed: (reason) => {
        for (const subscription of subscriptions) this.#fail(subscription, reason)
      }
    })
    for (const subscription of subscriptions) subscription.sent = exchange
  }

  /** No answer is no reason to ask without end, nor never again. */
  #fail (subscription: Subscription, reason: string): void {
    const { filter } = subscription
    subscription.held = 'unknown'
    subscription.pause = 'until retry'
    this.#refuse(subscription, { filter, reasonCode: undefined, reason }, 'until retry')
    this.#retry.plan()
    this.#review(subscription)
  }

  #note (subscription: Subscription, code: number | undefined): void {
    const { filter } = subscription
    if (code === 0 || code === 1 || code === 2) {
      if (subscription.noteGrant(code)) this.#events.onRestored({ filter, qos: code })
    } else {
      this.#refuse(subscription, { filter, reasonCode: code, reason: reasonOf(code) }, 'until retry')
    }
  }

  #refuse (subscription: Subscription, refused: RefusedFilter, pause: Pause): void {
    const isFirst = subscription.refused === undefined
    const isNews = subscription.noteRefusal(refused, pause)
    if (subscription.wanted === undefined) return
    if (isNews) this.#events.onRefused(refused)
    else this.#events.onStillRefused(refused)
    if (pause === 'until connected') return
    if (isFirst) this.#retry.reset()
    this.#retry.plan()
  }

  #askAgain (): void {
    for (const subscription of this.#subscriptions.values()) {
      if (subscription.pause !== 'until retry') continue
      subscription.pause = undefined
      this.#review(subscription)
    }
  }
}

/** What an answer means for one of the subscriptions in a packet. */
type Note<A> = (subscription: Subscription, answer: A, index: number) => void

interface PromiseSettlers {
  resolve (): void
  reject (error: Error): void
}

/**
 * Packets that may wait for an answer at once, give or take a hundred. Fewer than MQTT.js has identifiers,
 * 1,024; many, so that 10,000 filters that need a packet each do not take 10,000 round trips.
 */
const maxUnderWay = 256

function closedError (): Error {
  return new errors.FST_MQTT_CONNECTION('the connection was closed before its subscriptions were answered')
}
