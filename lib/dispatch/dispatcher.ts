import type { Health } from '../../types/status.ts'
import type { Message } from '../../types/message.ts'
import { Router } from '../router/router.ts'
import { TopicCache } from '../router/topic-cache.ts'
import { errors } from '../errors.ts'
import { paramsOf } from '../topic/params.ts'
import { Failures } from './failure.ts'
import type { Incoming } from './message.ts'
import type { Receipt } from './receipt.ts'
import { Pipeline, type Delivery, type HandlerEnd, type Match, type PipelineSettings, type Route } from './pipeline.ts'

type Counters = Health['messages']

/** What the dispatcher needs to know of its connection. */
export interface DispatcherSettings extends PipelineSettings {
  readonly log: Message['log']
  /** Told of each message that no topic matches. */
  readonly onUnmatched: (incoming: Incoming) => void
}

/** Messages that are kept until the application is ready. */
const maxHeld = 10_000

/**
 * Brings each message to the handlers of every topic that matches. Nothing that a handler does reaches the
 * caller: a throw there would stop MQTT.js for good.
 */
export class Dispatcher {
  readonly #settings: DispatcherSettings
  readonly #router = new Router<Route>()
  readonly #matches = new TopicCache<readonly Match[]>()
  readonly #idle: (() => void)[] = []
  readonly #deadlines = new Set<NodeJS.Timeout>()
  #held: Held[] | undefined = []
  #isStopped = false
  #running = 0
  #received = 0
  #unmatchedCount = 0
  #dropped = 0
  readonly #failures = new Failures()
  readonly #pipeline: Pipeline

  constructor (settings: DispatcherSettings) {
    this.#settings = settings
    this.#pipeline = new Pipeline(settings, this.#failures)
  }

  get counters (): Counters {
    return {
      received: this.#received,
      unmatched: this.#unmatchedCount,
      failed: this.#failures.count,
      dropped: this.#dropped
    }
  }

  add (route: Route): void {
    this.#router.add(route.placed.matchFilter, route)
    this.#matches.clear()
  }

  remove (route: Route): void {
    this.#router.remove(route.placed.matchFilter, route)
    this.#matches.clear()
  }

  /** @param receipt released when all handlers are done; without one nobody waits for that */
  receive (incoming: Incoming, receipt?: Receipt): void {
    // What is not acknowledged is for the next process with this session.
    if (this.#isStopped) return
    this.#received++
    if (this.#held === undefined) {
      this.#dispatch(incoming, receipt)
    } else if (receipt !== undefined || this.#held.length < maxHeld) {
      incoming.detach?.()
      this.#held.push({ incoming, receipt })
    } else if (this.#dropped++ === 0) {
      this.#settings.log.warn(`more than ${maxHeld} MQTT messages before the application was ready: dropping`)
    }
  }

  /** Brings a message to the handlers at once, and tells how each of them ended. */
  async inject (incoming: Incoming, receipt: Receipt): Promise<{ matched: number, ends: HandlerEnd[] }> {
    const matches = this.#resolve(incoming.topic)
    if (matches.length === 0) this.#unmatched(incoming)
    const passages = matches.flatMap((match) => {
      const delivery: Delivery = { match, incoming, rejection: undefined }
      return match.route.handlers.map((handler) => this.#pipeline.passage(handler, delivery, receipt, true))
    })
    const waiting = passages.map(async (passage) => { await passage.go() })
    for (const promise of waiting) this.#track(promise)
    await Promise.all(waiting)
    receipt.release()
    return { matched: matches.length, ends: passages.map(({ end }) => end) }
  }

  /** Lets messages through, those first that came before. */
  open (): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const { incoming, receipt } of held) this.#dispatch(incoming, receipt)
  }

  /** Takes no more messages in. Running handlers go on. */
  stop (): void {
    this.#isStopped = true
    this.#held = undefined
    // Nobody who waits keeps the process.
    for (const timer of this.#deadlines) timer.unref()
  }

  /** Resolves when no handler runs. */
  async idle (): Promise<void> {
    if (this.#running === 0) return
    await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  /**
   * The same, with an end: a handler that waits for it waits for itself, and nothing tells which handler asks
   * (an AsyncLocalStorage would, at the cost of every promise of the application).
   *
   * @throws `FST_MQTT_IDLE_TIMEOUT`
   */
  async idleWithin (timeoutMs: number): Promise<void> {
    if (this.#running === 0) return
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new errors.FST_MQTT_IDLE_TIMEOUT(timeoutMs, this.#running))
      }, timeoutMs)
      if (this.#isStopped) timer.unref()
      this.#deadlines.add(timer)
      this.#idle.push(() => {
        clearTimeout(timer)
        this.#deadlines.delete(timer)
        resolve()
      })
    })
  }

  #dispatch (incoming: Incoming, receipt: Receipt | undefined): void {
    const matches = this.#matches.get(incoming.topic) ?? this.#resolve(incoming.topic)
    if (matches.length === 0) this.#unmatched(incoming)
    for (const match of matches) this.#deliver(match, incoming, receipt)
    receipt?.release()
  }

  #unmatched (incoming: Incoming): void {
    this.#unmatchedCount++
    this.#settings.log.debug({ topic: incoming.topic }, 'no topic matches an MQTT message')
    this.#settings.onUnmatched(incoming)
  }

  #resolve (topic: string): readonly Match[] {
    const matches: Match[] = []
    for (const route of this.#router.match(topic).sort((a, b) => a.order - b.order)) {
      const params = paramsOf(route.placed, topic)
      if (params === undefined) continue
      matches.push({ route, params, issue: route.checkParams?.(params) })
    }
    this.#matches.set(topic, matches)
    return matches
  }

  #deliver (match: Match, incoming: Incoming, receipt: Receipt | undefined): void {
    const { handlers, ack } = match.route
    const delivery: Delivery = { match, incoming, rejection: undefined }
    for (const handler of handlers) {
      const waiting = this.#pipeline.passage(handler, delivery, receipt).go()
      if (waiting === undefined) continue
      incoming.detach?.()
      this.#track(waiting, ack === 'after' ? receipt : undefined)
    }
  }

  #track (promise: Promise<unknown>, receipt?: Receipt): void {
    this.#running++
    receipt?.hold()
    void promise.then(() => {
      this.#running--
      receipt?.release()
      if (this.#running === 0) for (const resolve of this.#idle.splice(0)) resolve()
    })
  }
}

interface Held {
  readonly incoming: Incoming
  readonly receipt: Receipt | undefined
}
