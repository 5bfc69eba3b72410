import type { GrantedFilter } from '../../types/status.ts'
import type { Link, SubscribeOptions } from './link.ts'
import type { SubscribePort } from './subscriptions.ts'

/** What is asked for in the book, where the same filter may be. */
export interface Booked {
  readonly granted: readonly GrantedFilter[]
  readonly pending: readonly string[]
  answered (): Promise<void>
}

const asideOptions = { qos: 0, noLocal: false, retainAsPublished: false, retainHandling: 0 } as const

/**
 * Subscriptions of the present connection beside those of the book. For the broker a filter has one
 * subscription, whoever has asked for it: what one of the two ends the other may still need.
 */
export class AsideSubscriptions implements SubscribePort {
  readonly #link: Link
  readonly #book: () => Booked
  readonly #filters = new Set<string>()

  constructor (link: Link, book: () => Booked) {
    this.#link = link
    this.#book = book
  }

  get version (): 4 | 5 {
    return this.#link.version
  }

  get limits (): Link['limits'] {
    return this.#link.limits
  }

  // Not an async function: what comes right behind the SUBACK would find its filter still pending.
  /** For the book. */
  subscribe (
    filters: readonly string[], options: SubscribeOptions, subscriptionIdentifier: number | undefined
  ): Promise<readonly number[]> {
    return this.#link.subscribe(filters, options, subscriptionIdentifier)
  }

  /** For the book: what is needed beside it is only taken from it. */
  async unsubscribe (filters: readonly string[]): Promise<void> {
    const kept = filters.filter((filter) => this.#filters.has(filter))
    const others = filters.filter((filter) => !this.#filters.has(filter))
    if (kept.length > 0) await this.#link.subscribe(kept, asideOptions)
    if (others.length > 0) await this.#link.unsubscribe(others)
  }

  /** @returns the reason code of the SUBACK */
  async add (filter: string): Promise<number> {
    this.#filters.add(filter)
    try {
      return await this.#ask(filter)
    } catch (error) {
      this.#filters.delete(filter)
      throw error
    }
  }

  async remove (filter: string): Promise<void> {
    this.#filters.delete(filter)
    const { granted, pending } = this.#book()
    if (pending.includes(filter) || granted.some((booked) => booked.filter === filter)) return
    await this.#link.unsubscribe([filter])
  }

  /** A new connection: they have ended with the one before. */
  onUp (): void {
    this.#filters.clear()
  }

  async #ask (filter: string): Promise<number> {
    if (this.#book().pending.includes(filter)) await this.#book().answered()
    const booked = this.#book().granted.find((granted) => granted.filter === filter)
    if (booked !== undefined) return booked.qos
    const [reasonCode = 0x80] = await this.#link.subscribe([filter], asideOptions)
    return reasonCode
  }
}
