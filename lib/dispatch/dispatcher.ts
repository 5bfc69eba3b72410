import type { Message } from '../../types/message.ts'
import type { Codec, Handler } from '../../types/topic.ts'
import { errors } from '../errors.ts'
import { decodeWith, type Codecs } from '../payload/codecs.ts'
import type { Check, Issue } from '../payload/schemas.ts'
import { Router } from '../router/router.ts'
import { TopicCache } from '../router/topic-cache.ts'
import { paramsOf, type Params } from '../topic/params.ts'
import type { PlacedPattern } from '../topic/placed-pattern.ts'
import { ReceivedMessage, type Incoming, type Recipient } from './message.ts'

/** A topic as the dispatcher sees it. */
export interface Route extends Recipient {
  readonly placed: PlacedPattern
  /** Of registration, which is the order in which matching topics run. */
  readonly order: number
  readonly checkParams: Check | undefined
  readonly payload: PayloadRule | undefined
  /** Replaced, never changed, when handlers come and go. */
  readonly handlers: readonly Handler<Params, unknown>[]
  /** False if a converter of the application gives values that a handler could change. */
  readonly sharesParams: boolean
}

/** How the payload of a topic with a schema is read. */
export interface PayloadRule {
  readonly codec: Codec
  readonly check: Check
}

/** What the dispatcher needs to know of its connection. */
export interface DispatcherSettings {
  readonly codecs: Codecs
  readonly maxPayload: number
  readonly log: Message['log']
}

/** A topic that a topic name matches, with what its placeholders gave. */
interface Match {
  readonly route: Route
  readonly params: Params
  readonly issue: Issue | undefined
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
  #held: Incoming[] | undefined = []
  #isStopped = false
  #running = 0
  readonly counters = { received: 0, unmatched: 0, failed: 0, dropped: 0 }

  constructor (settings: DispatcherSettings) {
    this.#settings = settings
  }

  add (route: Route): void {
    this.#router.add(route.placed.matchFilter, route)
    this.#matches.clear()
  }

  remove (route: Route): void {
    this.#router.remove(route.placed.matchFilter, route)
    this.#matches.clear()
  }

  receive (incoming: Incoming): void {
    if (this.#isStopped) return
    this.counters.received++
    if (this.#held === undefined) {
      this.#dispatch(incoming)
    } else if (this.#held.length < maxHeld) {
      this.#held.push(incoming)
    } else {
      if (this.counters.dropped++ === 0) {
        this.#settings.log.warn(`more than ${maxHeld} MQTT messages before the application was ready: dropping`)
      }
    }
  }

  /** Lets messages through, those first that came before. */
  open (): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const incoming of held) this.#dispatch(incoming)
  }

  /** Takes no more messages in. Running handlers go on. */
  stop (): void {
    this.#isStopped = true
    this.#held = undefined
  }

  /** Resolves when no handler runs. */
  async idle (): Promise<void> {
    if (this.#running === 0) return
    await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  #dispatch (incoming: Incoming): void {
    const matches = this.#matches.get(incoming.topic) ?? this.#resolve(incoming.topic)
    if (matches.length === 0) {
      this.counters.unmatched++
      this.#settings.log.debug({ topic: incoming.topic }, 'no topic matches an MQTT message')
      return
    }
    const isShared = matches.length > 1
    for (const match of matches) this.#deliver(match, incoming, isShared)
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

  #deliver (match: Match, incoming: Incoming, isShared: boolean): void {
    const { route, issue } = match
    if (issue !== undefined) {
      this.#fail(route, incoming, invalid(errors.FST_MQTT_PARAMS_INVALID, route.pattern, issue))
      return
    }
    const { handlers } = route
    if (handlers.length === 1 && !isShared) {
      const [handler] = handlers
      if (handler !== undefined) this.#run(handler, match, incoming, incoming.payload)
      return
    }
    for (const handler of handlers) {
      // Each handler has bytes of its own to change.
      if (!this.#run(handler, match, incoming, Buffer.from(incoming.payload))) return
    }
  }

  /** @returns false if the payload is no good, so that no other handler of the topic can have it either */
  #run (handler: Handler<Params, unknown>, match: Match, incoming: Incoming, raw: Buffer): boolean {
    const { route } = match
    let message: ReceivedMessage
    try {
      const payload = this.#payloadOf(route, incoming, raw)
      message = new ReceivedMessage(incoming, route, ownParams(match, incoming), raw, payload)
    } catch (error) {
      this.#fail(route, incoming, error)
      return false
    }
    try {
      const result = handler.call(route.server, message)
      if (isThenable(result)) this.#await(result, route, incoming)
    } catch (error) {
      this.#fail(route, incoming, error)
    }
    return true
  }

  #payloadOf (route: Route, incoming: Incoming, raw: Buffer): unknown {
    const { maxPayload, codecs } = this.#settings
    if (raw.length > maxPayload) throw new errors.FST_MQTT_PAYLOAD_TOO_LARGE(raw.length, maxPayload)
    if (route.payload === undefined) return raw
    const contentType = incoming.properties !== undefined && 'contentType' in incoming.properties
      ? String(incoming.properties.contentType)
      : undefined
    const codec = codecs.forContentType(contentType) ?? route.payload.codec
    const payload = raw.length === 0 ? undefined : decodeWith(codec, raw)
    const issue = route.payload.check(payload)
    if (issue !== undefined) throw invalid(errors.FST_MQTT_PAYLOAD_INVALID, route.pattern, issue)
    return payload
  }

  #await (result: PromiseLike<unknown>, route: Route, incoming: Incoming): void {
    this.#running++
    const settled = () => {
      this.#running--
      if (this.#running === 0) for (const resolve of this.#idle.splice(0)) resolve()
    }
    Promise.resolve(result).then(settled, (error: unknown) => {
      this.#fail(route, incoming, error)
      settled()
    })
  }

  #fail (route: Route, incoming: Incoming, error: unknown): void {
    this.counters.failed++
    const { pattern } = route
    route.server.log.error({ err: error, pattern, topic: incoming.topic }, 'an MQTT message was not handled')
  }
}

/** Params are worked out once a topic name, unless a converter gives values that a handler could change. */
function ownParams ({ route, params }: Match, incoming: Incoming): Params {
  return route.sharesParams ? params : paramsOf(route.placed, incoming.topic) ?? params
}

/** An error with the issue in the form of Fastify's validation errors. */
export function invalid (
  InvalidError: typeof errors.FST_MQTT_PARAMS_INVALID | typeof errors.FST_MQTT_PAYLOAD_INVALID,
  pattern: string,
  issue: Issue
): Error {
  const place = issue.instancePath === '' ? '' : `${issue.instancePath}: `
  return Object.assign(new InvalidError(pattern, place + issue.message), { validation: [issue] })
}

function isThenable (value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'
}
