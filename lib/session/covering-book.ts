import type { GrantedFilter, RefusedFilter } from '../../types/status.ts'
import { covers } from '../topic/overlap.ts'
import { OverlapIndex } from '../topic/overlap-index.ts'
import type { SubscribeOptions } from './link.ts'
import { assertSameOptions, difference } from './subscription.ts'
import { SubscriptionBook, type BookEvents, type BookSettings, type SubscribePort } from './subscriptions.ts'

interface Request {
  readonly filter: string
  readonly options: SubscribeOptions
  /** The filter by whose subscription its messages come. */
  askedAs: string
  /** Takes it back from the book. */
  remove: () => void
}

/**
 * The book of a connection whose broker may send a message once for each subscription that matches. Where
 * subscription identifiers tell these copies apart, every filter is subscribed. On MQTT 3.1.1 nothing tells
 * them apart: there a filter that is covered by a wider one is not subscribed, the wider one brings its
 * messages, with the highest quality of service of all.
 *
 * A filter gives way only when the wider one is granted, and is subscribed before the wider one goes: a
 * message may come twice meanwhile, and none is missed.
 */
export class CoveringBook {
  readonly #port: SubscribePort
  readonly #book: SubscriptionBook
  readonly #index = new OverlapIndex()
  readonly #requests = new Map<string, Set<Request>>()
  #isUp = false
  #isSettling = false
  /** Those of filters that nobody wants any more, and that may still bring the messages of others. */
  readonly #leaving: Request[] = []
  /** Counts what may change by whose subscription messages come. */
  #changes = 0

  constructor (port: SubscribePort, events: BookEvents, settings: BookSettings = {}) {
    this.#port = port
    this.#book = new SubscriptionBook(port, {
      onRefused: (refused) => {
        events.onRefused(refused)
        this.#settle()
      },
      onStillRefused: (refused) => events.onStillRefused(refused),
      onRestored: (granted) => {
        events.onRestored(granted)
        this.#settle()
      }
    }, settings)
  }

  /** As `SubscriptionBook.want`. */
  want (filter: string, options: SubscribeOptions): () => void {
    const [first] = this.#requests.get(filter) ?? []
    if (first !== undefined) assertSameOptions(filter, first.options, options)
    // Also where a wider one is there: by its own SUBSCRIBE it has its retained messages.
    const remove = this.#book.want(filter, options)
    const request = { filter, options: { ...options }, askedAs: filter, remove }
    this.#enter(request)
    if (this.#isUp) this.#settle()
    return () => this.#leave(request)
  }

  onUp (isSessionPresent: boolean): void {
    this.onDown()
    this.#review()
    this.#isUp = true
    this.#book.onUp(isSessionPresent)
    this.#settle()
  }

  onDown (): void {
    this.#isUp = false
    this.#book.onDown()
    this.#letGo()
  }

  /** As `SubscriptionBook.doubt`. */
  doubt (): void {
    this.#book.doubt()
  }

  close (): void {
    this.#isUp = false
    this.#book.close()
  }

  /** As `SubscriptionBook.answered`. */
  async answered (): Promise<void> {
    do {
      await this.#book.answered()
      this.#review()
    } while (this.#book.pending.length > 0)
  }

  get granted (): GrantedFilter[] {
    const granted = new Map(this.#book.granted.map(({ filter, qos }) => [filter, qos]))
    return this.#all.flatMap(({ filter, askedAs }) => {
      const qos = granted.get(askedAs)
      return qos === undefined ? [] : [{ filter, qos }]
    })
  }

  get refused (): RefusedFilter[] {
    return this.#book.refused
  }

  get pending (): string[] {
    const pending = new Set(this.#book.pending)
    return this.#all.filter(({ askedAs }) => pending.has(askedAs)).map(({ filter }) => filter)
  }

  /** As `SubscriptionBook.filterOf`. */
  filterOf (subscriptionIdentifier: number): string | undefined {
    return this.#book.filterOf(subscriptionIdentifier)
  }

  /** As `SubscriptionBook.isNamed`. */
  isNamed (filter: string): boolean {
    return this.#book.isNamed(filter)
  }

  /** One of each filter. */
  get #all (): Request[] {
    return [...this.#requests.values()].flatMap(([first]) => first ?? [])
  }

  #enter (request: Request): void {
    const { filter } = request
    const others = this.#requests.get(filter)
    if (others !== undefined) {
      others.add(request)
      return
    }
    this.#index.add(filter)
    this.#requests.set(filter, new Set([request]))
  }

  #leave (request: Request): void {
    const { filter } = request
    const requests = this.#requests.get(filter)
    if (requests?.delete(request) !== true) return
    if (requests.size === 0) {
      this.#requests.delete(filter)
      this.#index.delete(filter)
      if (this.#review(filter) && this.#isUp) {
        this.#leaving.push(request)
        this.#settle()
        return
      }
    }
    request.remove()
  }

  /** Takes back what nobody wants: what took its place is answered, or there is no connection. */
  #letGo (): void {
    for (const request of this.#leaving.splice(0)) request.remove()
  }

  /** When everything is answered, finds out what that means for the filters that overlap. */
  #settle (): void {
    this.#changes++
    if (this.#isSettling) return
    this.#isSettling = true
    // It rejects with the close.
    void this.#settleAll().catch(() => {})
  }

  async #settleAll (): Promise<void> {
    let changes: number
    try {
      do {
        changes = this.#changes
        await this.answered()
      } while (changes !== this.#changes)
    } finally {
      // In the same turn as the last look at the changes: one that comes later is settled by itself.
      this.#isSettling = false
    }
    this.#letGo()
  }

  /**
   * Finds out for each filter by whose subscription its messages come from now on.
   *
   * @param gone whose subscription is about to go
   * @returns whether it is another one for any
   */
  #review (gone?: string): boolean {
    let hasMoved = false
    const granted = new Set(this.#isUp ? this.#book.granted.map(({ filter }) => filter) : [])
    const refused = new Set(this.#book.refused.map(({ filter }) => filter))
    const isPending = (filter: string) => this.#isUp && !granted.has(filter) && !refused.has(filter)
    for (const request of [...this.#requests.values()].flatMap((requests) => [...requests])) {
      const { askedAs } = request
      if (gone === undefined ? isPending(askedAs) : gone !== askedAs) continue
      // What is served gives way to what is granted, anything else to whatever may be.
      const isServed = this.#isUp && !refused.has(askedAs)
      const filter = this.#widest(request, (other) => isServed ? granted.has(other) : !refused.has(other))
      if (filter === askedAs) continue
      this.#ask(request, filter)
      hasMoved = true
    }
    return hasMoved
  }

  #ask (request: Request, filter: string): void {
    const { remove } = request
    request.remove = this.#book.want(filter, request.options)
    request.askedAs = filter
    remove()
  }

  #widest ({ filter, options }: Request, mayCover: (filter: string) => boolean): string {
    const canTellApart = this.#port.version === 5 && this.#port.limits.subscriptionIdentifiersAvailable
    if (canTellApart || isShared(filter)) return filter
    let widest = filter
    for (const other of this.#index.overlapping(filter)) {
      const [request] = this.#requests.get(other) ?? []
      if (request === undefined || isShared(other) || !covers(other, widest) || !mayCover(other)) continue
      if (difference(request.options, options) === undefined) widest = other
    }
    return widest
  }
}

/** The broker gives each of its messages to one of a group. */
function isShared (filter: string): boolean {
  return filter.startsWith('$share/')
}
