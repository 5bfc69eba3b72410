import type { SubscribeOptions } from '../../lib/session/link.ts'
import type { SubscribePort } from '../../lib/session/subscriptions.ts'
import { deferred, type Deferred } from './deadline.ts'

/** A subscription in the session of a broker. */
export interface HeldSubscription {
  readonly options: SubscribeOptions
  readonly identifier: number | undefined
}

interface Packet {
  readonly filters: readonly string[]
  /** What the broker does when the packet reaches it, and says. */
  readonly process: () => number[]
  readonly answer: Deferred<number[]>
  codes: number[]
}

/**
 * A broker and the way to it, step by step as a test says: packets reach the broker in the order in which
 * they were sent, and are answered in any order, or never.
 */
export class BrokerModel implements SubscribePort {
  readonly version: 4 | 5
  readonly limits = {
    maximumPacketSize: Infinity,
    subscriptionIdentifiersAvailable: true,
    wildcardSubscriptionAvailable: true,
    sharedSubscriptionAvailable: true
  }

  /** The session. */
  readonly held = new Map<string, HeldSubscription>()
  readonly forbidden = new Set<string>()
  /** A refusal ends what was granted before. */
  readonly #dropsRefused: boolean
  readonly #onWay: Packet[] = []
  readonly #unanswered: Packet[] = []
  readonly #lost: Packet[] = []
  onSubscribe: (filter: string, options: SubscribeOptions) => void = () => {}

  constructor (version: 4 | 5, dropsRefused: boolean) {
    this.version = version
    this.#dropsRefused = dropsRefused
  }

  async subscribe (
    filters: readonly string[], options: SubscribeOptions, identifier: number | undefined
  ): Promise<readonly number[]> {
    for (const filter of filters) this.onSubscribe(filter, options)
    return await this.#send(filters, (filter) => {
      if (!this.forbidden.has(filter)) {
        this.held.set(filter, { options, identifier })
        return options.qos
      }
      if (this.#dropsRefused) this.held.delete(filter)
      return 0x87
    })
  }

  async unsubscribe (filters: readonly string[]): Promise<void> {
    await this.#send(filters, (filter) => {
      this.held.delete(filter)
      return 0
    })
  }

  /** Whether a packet with the filter has no answer. */
  isUnsettled (filter: string): boolean {
    return [this.#onWay, this.#unanswered, this.#lost].flat().some(({ filters }) => filters.includes(filter))
  }

  get isQuiet (): boolean {
    return this.#onWay.length === 0 && this.#unanswered.length === 0
  }

  /** The oldest packet reaches the broker. */
  receive (): void {
    const packet = this.#onWay.shift()
    if (packet === undefined) return
    packet.codes = packet.process()
    this.#unanswered.push(packet)
  }

  /** One of the answers comes. */
  answer (index: number): void {
    const [packet] = this.#unanswered.splice(index % (this.#unanswered.length || 1), 1)
    packet?.answer.resolve(packet.codes)
  }

  /** One of the answers never comes. */
  lose (index: number): void {
    this.#lost.push(...this.#unanswered.splice(index % (this.#unanswered.length || 1), 1))
  }

  /** What is on its way is lost, and every promise rejects. */
  cut (): void {
    for (const packets of [this.#onWay, this.#unanswered, this.#lost]) {
      for (const { answer } of packets.splice(0)) answer.reject(new Error('Connection closed'))
    }
  }

  async #send (filters: readonly string[], one: (filter: string) => number): Promise<number[]> {
    const packet: Packet = { filters, process: () => filters.map(one), answer: deferred(), codes: [] }
    this.#onWay.push(packet)
    return await packet.answer.promise
  }
}
