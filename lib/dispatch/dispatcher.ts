import type { Message } from '../../types/message.ts'
import type { Stats } from '../../types/status.ts'
import type { MessageOrder } from '../../types/topic.ts'
import { Router } from '../router/router.ts'
import { TopicCache } from '../router/topic-cache.ts'
import { paramsOf } from '../topic/params.ts'
import { withoutPrefix } from '../topic/prefix.ts'
import { Activity } from './activity.ts'
import { Backlog, type BacklogLimits } from './backlog.ts'
import type { CourseObserver } from './course.ts'
import { Delivery, type DeliveryPort } from './delivery.ts'
import { Failures } from './failure.ts'
import { Gate } from './gate.ts'
import { Group } from './group.ts'
import type { Incoming } from './message.ts'
import { Match, type Interceptor, type Targets } from './match.ts'
import type { Passage } from './passage.ts'
import { Pipeline, type HandlerEnd, type MessageHandler, type PipelineSettings, type Route } from './pipeline.ts'
import type { Receipt } from './receipt.ts'
import { Scheduler } from './scheduler.ts'

/** What the dispatcher needs to know of its connection. */
export interface DispatcherSettings extends PipelineSettings {
  readonly log: Message['log']
  /** Handlers that may run at once. */
  readonly concurrency: number
  /** Of topics that do not say it themselves. */
  readonly order: MessageOrder
  readonly inbox: BacklogLimits
  /** Publishes a dead letter. */
  readonly publish: DeliveryPort['publish']
  /** Told of each message that no topic matches. */
  readonly onUnmatched: (incoming: Incoming) => void
  /** Whether a copy with these subscription identifiers came for the filter: else another copy does. */
  readonly isFor: (filter: string, subscriptionIds: readonly number[]) => boolean
}

/**
 * Brings each message to the handlers of every topic that matches, once, whatever copies of it come. Nothing
 * that a handler does reaches the caller, nor does the caller wait for any: what cannot run yet waits here.
 */
export class Dispatcher {
  readonly #settings: DispatcherSettings
  readonly #router = new Router<Route>()
  readonly #interceptors = new Router<Interceptor>()
  readonly #targets = new TopicCache<Targets>({ onForgotten: forgetLanes })
  readonly #groups = new WeakMap<Route, Group>()
  readonly #activity = new Activity()
  readonly #failures = new Failures()
  readonly #backlog: Backlog
  readonly #gate: Gate
  readonly #port: DeliveryPort
  /** For `inject()`, whose messages wait for nothing. */
  readonly #directPort: DeliveryPort
  #isStopped = false
  #received = 0
  #unmatchedCount = 0

  constructor (settings: DispatcherSettings) {
    this.#settings = settings
    const { log, inbox, publish } = settings
    this.#backlog = new Backlog(inbox, (dropped) => {
      log.warn({ dropped }, 'MQTT messages were dropped: more wait for handlers than inbox.maxMessages or maxBytes allow')
    })
    this.#gate = new Gate(this.#backlog)
    this.#port = {
      scheduler: new Scheduler(settings.concurrency, this.#backlog),
      pipeline: new Pipeline(settings, this.#failures),
      failures: this.#failures,
      activity: this.#activity,
      counters: { retried: 0, deadLettered: 0 },
      directGroup: undefined,
      publish
    }
    this.#directPort = {
      ...this.#port, scheduler: new Scheduler(Infinity, this.#backlog), directGroup: new Group(Infinity, 'none')
    }
  }

  get stats (): Omit<Stats, 'unacked' | 'outbox'> {
    const { scheduler, counters } = this.#port
    return {
      received: this.#received,
      unmatched: this.#unmatchedCount,
      failed: this.#failures.count,
      dropped: this.#backlog.dropped,
      retried: counters.retried,
      deadLettered: counters.deadLettered,
      running: scheduler.running,
      waiting: this.#backlog.size
    }
  }

  add (route: Route): void {
    this.#router.add(route.placed.matchFilter, route)
    this.#targets.clear()
  }

  remove (route: Route): void {
    this.#router.remove(route.placed.matchFilter, route)
    this.#targets.clear()
  }

  /**
   * Takes the messages of a filter, or of one topic name, past the hooks and everything that messages wait
   * for: also before the application is ready, and while it closes. For replies that somebody awaits. Topics
   * that match have these messages too.
   *
   * @param filter absolute, and subscribed by whoever asks
   * @param receive called for each copy; the bytes are read at once, or the message detached
   * @returns ends it
   */
  intercept (filter: string, receive: (incoming: Incoming) => void): () => void {
    const interceptor = { filter, receive }
    this.#interceptors.add(filter, interceptor)
    this.#targets.clear()
    return () => {
      this.#interceptors.remove(filter, interceptor)
      this.#targets.clear()
    }
  }

  /** @param receipt released when all handlers are done; without one nobody waits for that */
  receive (incoming: Incoming, receipt?: Receipt): void {
    const targets = this.#targetsOf(incoming)
    const isIntercepted = targets.interceptors !== undefined && this.#passBy(targets.interceptors, incoming)
    if (isIntercepted && targets.first === undefined) {
      receipt?.release()
      return
    }
    // What is not acknowledged is for the next process with this session.
    if (this.#isStopped) return
    this.#received++
    if (this.#gate.isOpen) this.#dispatch(targets, incoming, receipt)
    else this.#gate.keep(incoming, receipt)
  }

  /** Brings a message to the handlers at once, and tells how each of them ended. */
  async inject (incoming: Incoming, receipt: Receipt): Promise<{ matched: number, ends: HandlerEnd[] }> {
    const { first } = this.#targetsOf(incoming)
    if (first === undefined) this.#unmatched(incoming)
    const all: Promise<HandlerEnd[]>[] = []
    for (let match = first; match !== undefined; match = match.next) {
      const ends = new Ends(match.route.handlers)
      new Delivery(this.#directPort, match, incoming, receipt).startObserved(ends)
      all.push(ends.all)
    }
    receipt.release()
    const ends = await Promise.all(all)
    return { matched: all.length, ends: ends.flat() }
  }

  /** Lets messages through, those first that came before. */
  open (): void {
    this.#gate.open((incoming, receipt) => this.#dispatch(this.#targetsOf(incoming), incoming, receipt))
  }

  /** Takes no more messages in, and begins nothing that waits. Running handlers go on. */
  stop (): void {
    this.#isStopped = true
    this.#port.scheduler.stop()
    this.#directPort.scheduler.stop()
    this.#activity.stop()
    this.#backlog.clear()
  }

  /** Resolves when no handler runs, and no message waits for one. */
  async idle (): Promise<void> {
    await this.#activity.idle()
  }

  /** The same. @throws `FST_MQTT_IDLE_TIMEOUT` */
  async idleWithin (timeoutMs: number): Promise<void> {
    await this.#activity.idleWithin(timeoutMs)
  }

  #dispatch ({ first }: Targets, incoming: Incoming, receipt: Receipt | undefined): void {
    if (first === undefined) this.#unmatched(incoming)
    const ids = incoming.subscriptionIds
    for (let match = first; match !== undefined; match = match.next) {
      if (ids !== undefined && ids.length > 0 && !this.#settings.isFor(match.route.filter, ids)) continue
      new Delivery(this.#port, match, incoming, receipt).start()
    }
    receipt?.release()
  }

  /** @returns whether it came for one of them */
  #passBy (interceptors: readonly Interceptor[], incoming: Incoming): boolean {
    const ids = incoming.subscriptionIds ?? []
    const called = interceptors.filter(({ filter }) => ids.length === 0 || this.#settings.isFor(filter, ids))
    for (const { receive } of called) this.#passTo(receive, incoming)
    return called.length > 0
  }

  #passTo (receive: Interceptor['receive'], incoming: Incoming): void {
    try {
      receive(incoming)
    } catch (error) {
      // Whoever reads goes on.
      this.#settings.log.error({ err: error, topic: incoming.topic }, 'a reply was not taken')
    }
  }

  #unmatched (incoming: Incoming): void {
    this.#unmatchedCount++
    this.#settings.log.debug({ topic: incoming.topic }, 'no topic matches an MQTT message')
    this.#settings.onUnmatched(incoming)
  }

  #targetsOf ({ topic, name }: Incoming): Targets {
    return this.#targets.get(topic, name) ?? this.#resolve(topic)
  }

  /** Only where the cache has none: with another lane a message would not wait for those in the first one. */
  #resolve (topic: string): Targets {
    let first: Match | undefined
    // From the last to the first, each before those that are there.
    for (const route of this.#router.match(topic).sort((a, b) => b.order - a.order)) {
      const params = paramsOf(route.placed, topic)
      if (params === undefined) continue
      const issue = route.checkParams?.(params)
      const relative = withoutPrefix(route.prefix, topic)
      first = new Match(topic, route, relative, params, issue, this.#groupOf(route), first)
    }
    const found = this.#interceptors.match(topic)
    const interceptors = found.length > 0 ? found : undefined
    if (first !== undefined) first.interceptors = interceptors
    const targets = first ?? { first, interceptors }
    if (!this.#targets.set(topic, targets)) forgetLanes(targets)
    return targets
  }

  /** Outlives the cache, and the removal of a topic: what runs by it goes on. */
  #groupOf (route: Route): Group {
    let group = this.#groups.get(route)
    if (group === undefined) {
      group = new Group(route.concurrency ?? Infinity, route.messageOrder ?? this.#settings.order)
      this.#groups.set(route, group)
    }
    return group
  }
}

function forgetLanes ({ first }: Targets): void {
  for (let match = first; match !== undefined; match = match.next) {
    if (match.lane !== undefined) match.group.onForgotten(match.lane)
  }
}

/** How each handler of a topic ended, in the order of their registration. */
class Ends implements CourseObserver {
  readonly all: Promise<HandlerEnd[]>
  readonly #handlers: readonly MessageHandler[]
  readonly #passages: Passage[] = []
  #resolve: (ends: HandlerEnd[]) => void = () => {}

  constructor (handlers: readonly MessageHandler[]) {
    this.#handlers = handlers
    this.all = new Promise((resolve) => { this.#resolve = resolve })
  }

  onSettled (passage: Passage): void {
    this.#passages.push(passage)
  }

  onEnd (): void {
    const rank = ({ handler }: Passage) => this.#handlers.indexOf(handler)
    this.#resolve(this.#passages.sort((a, b) => rank(a) - rank(b)).map(({ end }) => end))
  }
}
