import type { QoS } from '../../types/message.ts'
import type { RefusedFilter } from '../../types/status.ts'
import { errors } from '../errors.ts'
import type { SubscribeOptions } from './link.ts'
import type { Exchange } from './exchanges.ts'

/** What the broker said yes to. */
export interface Grant {
  readonly asked: SubscribeOptions
  readonly identifier: number | undefined
  /** Perhaps less than was asked for. */
  readonly qos: QoS
}

/** When something is sent for a filter again, if nothing else happens to it. */
export type Pause = 'until retry' | 'until connected'

/**
 * One topic filter: what is wanted of it, and what the broker is known to hold of it in this session.
 *
 * The broker holds nothing (`undefined`), a grant, or `unknown`: perhaps what was granted before, perhaps
 * what was asked for since without an answer, perhaps nothing.
 */
export class Subscription {
  readonly filter: string
  /** The options of all who want it, with the highest quality of service; undefined if nobody does. */
  wanted: SubscribeOptions | undefined
  held: Grant | 'unknown' | undefined
  refused: RefusedFilter | undefined
  pause: Pause | undefined
  /** The last packet with it, until that is answered. */
  sent: Exchange | undefined
  /** One that overlaps it was asked for before it got an identifier, which is not granted so far. */
  isNameless = false
  readonly #requests = new Set<SubscribeOptions>()
  #asked: Omit<Grant, 'qos'> | undefined
  #wasGranted = false
  #toldReason: string | undefined

  constructor (filter: string) {
    this.filter = filter
  }

  /** @throws `FST_MQTT_TOPIC_CONFLICT` if it is already wanted with other options */
  want (request: SubscribeOptions): void {
    if (this.wanted !== undefined) assertSameOptions(this.filter, this.wanted, request)
    this.#requests.add(request)
    this.wanted = highest([...this.#requests])
    this.askAnew()
  }

  unwant (request: SubscribeOptions): void {
    this.#requests.delete(request)
    this.wanted = highest([...this.#requests])
    if (this.wanted !== undefined) return
    this.#toldReason = undefined
    this.askAnew()
  }

  get grant (): Grant | undefined {
    return this.held === 'unknown' ? undefined : this.held
  }

  /** Nobody wants it, the broker holds nothing, and no answer may change that. */
  get isOver (): boolean {
    return this.wanted === undefined && this.held === undefined && this.sent === undefined
  }

  /** Whether the broker is known to hold what is wanted. */
  isGranted (identifier: number | undefined): boolean {
    const { grant, wanted } = this
    return grant !== undefined && wanted !== undefined && grant.asked.qos >= wanted.qos &&
      difference(grant.asked, wanted) === undefined && grant.identifier === identifier
  }

  /** What was said about it before is no reason not to ask. */
  askAnew (): void {
    this.refused = undefined
    this.pause = undefined
  }

  /** @returns how to subscribe it */
  ask (asked: SubscribeOptions, identifier: number | undefined, version: 4 | 5): SubscribeOptions {
    this.#asked = { asked, identifier }
    const isRenewal = version === 5 && this.#wasGranted && asked.retainHandling === 0
    // The retained messages came already; they come again only if the broker does not know the subscription.
    return isRenewal ? { ...asked, retainHandling: 1 } : asked
  }

  /** An UNSUBSCRIBE is sent. */
  unask (): void {
    this.held = 'unknown'
    this.#wasGranted = false
  }

  /** @returns whether it was told as refused */
  noteGrant (qos: QoS): boolean {
    if (this.#asked !== undefined) this.held = { ...this.#asked, qos }
    if (this.#asked?.identifier !== undefined) this.isNameless = false
    this.#wasGranted = true
    this.askAnew()
    const wasTold = this.#toldReason !== undefined
    this.#toldReason = undefined
    return wasTold
  }

  /** @returns whether that is news */
  noteRefusal (refused: RefusedFilter, pause: Pause): boolean {
    // What was granted before may be there still: the standard does not say.
    this.doubt()
    if (this.wanted === undefined) return false
    this.refused = refused
    this.pause = pause
    const reason = `${refused.reasonCode} ${refused.reason}`
    const isNews = reason !== this.#toldReason
    this.#toldReason = reason
    return isNews
  }

  /** The broker holds nothing. */
  forget (): void {
    this.held = undefined
    this.isNameless = false
  }

  /** What the broker held it may hold no more, or otherwise. */
  doubt (): void {
    if (this.held !== undefined) this.held = 'unknown'
  }

  /** The connection is lost: an answer that has not come will not come. */
  loseAnswer (): void {
    if (this.sent !== undefined) this.held = 'unknown'
    this.sent = undefined
  }
}

function highest (requests: readonly SubscribeOptions[]): SubscribeOptions | undefined {
  return requests.reduce<SubscribeOptions | undefined>(
    (best, one) => best === undefined || one.qos > best.qos ? one : best, undefined)
}

/** @throws `FST_MQTT_TOPIC_CONFLICT` */
export function assertSameOptions (filter: string, known: SubscribeOptions, given: SubscribeOptions): void {
  const key = difference(known, given)
  if (key === undefined) return
  throw new errors.FST_MQTT_TOPIC_CONFLICT(filter, `${key} is ${known[key]}, not ${given[key]}`)
}

/** The first option, but for the quality of service, in which two differ. */
export function difference (a: SubscribeOptions, b: SubscribeOptions) {
  return (['noLocal', 'retainAsPublished', 'retainHandling'] as const).find((key) => a[key] !== b[key])
}
