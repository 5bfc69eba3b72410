import type { FastifyInstance } from 'fastify'
import type { ListedTopic } from '../types/listing.ts'
import type { Handler, Topic, TopicForOptions } from '../types/topic.ts'
import { passOnPublish, type HookBook, type Lifecycle } from './dispatch/hooks.ts'
import { invalid, type PayloadRule, type Route } from './dispatch/pipeline.ts'
import type { RetryPolicy } from './dispatch/retry.ts'
import type { Engine } from './engine.ts'
import { asError, describeError, errors } from './errors.ts'
import { topicNameProblem } from './guard.ts'
import { bytesOf } from './payload/bytes.ts'
import { encodeWith } from './payload/codecs.ts'
import { checkPublishOptions, type CheckedPublishOptions } from './session/publish.ts'
import { needsMqtt5 } from './session/subscription-packets.ts'
import { builtInConverters } from './topic/converters.ts'
import type { Params } from './topic/params.ts'
import { placePattern, type PlacedPattern } from './topic/placed-pattern.ts'
import { overlap } from './topic/overlap.ts'
import { assertInsidePrefix, withPrefix } from './topic/prefix.ts'
import { topicFor } from './topic/reverse.ts'
import type { CheckedTopicOptions } from './topic/topic-options.ts'
import { booleanNamed, kindOf, recordProblem } from './values.ts'

/** What a topic is registered with. */
export interface Registration {
  readonly pattern: string
  readonly options: CheckedTopicOptions
  readonly server: FastifyInstance
  readonly topicPrefix: string
  readonly hooks: HookBook
}

type AnyHandler = Handler<Params, unknown>

let registered = 0

/**
 * A topic between its registration and its removal: what `topic()` returns, and the route of the dispatcher.
 */
export class RegisteredTopic implements Topic<Params, unknown>, Route {
  readonly pattern: string
  readonly filter: string
  readonly placed: PlacedPattern
  readonly order = registered++
  readonly server: FastifyInstance
  readonly lifecycle: Lifecycle
  readonly log: FastifyInstance['log']
  readonly prefix: string
  readonly json
  readonly checkParams
  readonly payload: PayloadRule | undefined
  readonly sharesParams: boolean
  readonly ack
  readonly ackTimeoutMs: number
  readonly concurrency
  readonly messageOrder
  readonly retry: RetryPolicy | undefined
  readonly deadLetter
  readonly #engine: Engine
  readonly #hooks: HookBook
  readonly #topicPrefix: string
  readonly #options: CheckedTopicOptions
  #handlers: readonly AnyHandler[] = []
  #name: string | undefined
  #unsubscribe: (() => void) | undefined

  constructor (engine: Engine, { pattern, options, server, topicPrefix, hooks }: Registration) {
    const { prefix, converters, protocolVersion } = engine.settings
    this.#engine = engine
    this.#options = options
    this.pattern = pattern
    this.server = server
    this.#hooks = hooks
    this.#topicPrefix = topicPrefix
    this.lifecycle = hooks.lifecycleWith(options.hooks)
    this.log = logFor(server, pattern, options.logLevel)
    this.placed = placePattern(pattern, { prefix, topicPrefix, absolute: options.absolute }, converters)
    this.filter = this.placed.filter
    this.prefix = options.absolute ? '' : prefix
    this.json = engine.codecs.json
    this.checkParams = options.params === undefined ? undefined : engine.schemas.compile(options.params, 'params')
    this.payload = options.payload === undefined
      ? undefined
      : {
          codec: codecNamed(engine, pattern, options.codec ?? 'json'),
          check: engine.schemas.compile(options.payload, 'payload')
        }
    this.ack = options.ack
    this.ackTimeoutMs = options.ackTimeoutMs
    this.concurrency = options.concurrency
    this.messageOrder = options.order
    this.retry = options.retry
    this.deadLetter = typeof options.deadLetter === 'string'
      ? placeDeadLetter(this.placed, this.prefix, options.deadLetter)
      : options.deadLetter
    this.sharesParams = this.placed.pattern.placeholders.every(
      ({ converterName, converter }) => builtInConverters.get(converterName) === converter)
    if (protocolVersion === 4 && needsMqtt5(options)) {
      throw new errors.FST_MQTT_TOPIC_OPTIONS(pattern,
        'noLocal, retainAsPublished and retainHandling need MQTT 5, the option protocolVersion is 4')
    }
    if (options.name !== undefined) {
      engine.names.give(options.name, this)
      this.#name = options.name
    }
    engine.topics.add(this)
  }

  get name (): string | undefined {
    return this.#name
  }

  get handlers (): readonly AnyHandler[] {
    return this.#handlers
  }

  onMessage (handler: AnyHandler): () => void {
    if (typeof handler !== 'function') {
      throw new errors.FST_MQTT_TOPIC_OPTIONS(this.pattern,
        `the handler has to be a function, not ${kindOf(handler)}`)
    }
    this.#subscribe()
    this.#engine.topics.add(this)
    // The same function may be added twice, and removed once.
    const isThere = this.#handlers.includes(handler)
    const entry: AnyHandler = isThere ? function (message) { return handler.call(this, message) } : handler
    this.#handlers = [...this.#handlers, entry]
    this.#takeNameOf(handler)
    return () => {
      this.#handlers = this.#handlers.filter((other) => other !== entry)
      if (this.#handlers.length === 0) this.#silence()
    }
  }

  /** What `topics()` tells of it; `overlaps` is for whoever knows the others. */
  get listing (): Omit<ListedTopic, 'overlaps'> {
    const { qos, absolute, params, payload } = this.#options
    const { placeholders } = this.placed.pattern
    return {
      pattern: this.pattern,
      filter: this.filter,
      name: this.#name,
      qos,
      absolute,
      topicPrefix: this.#topicPrefix,
      handlers: this.#handlers.length,
      params: placeholders.map(({ name, converterName }) => ({ name, converter: converterName })),
      schemas: { params, payload }
    }
  }

  remove (): void {
    this.#engine.topics.delete(this)
    this.#handlers = []
    this.#silence()
    if (this.#name !== undefined) this.#engine.names.remove(this.#name, this)
    this.#name = undefined
  }

  topicFor (...args: unknown[]): string {
    const [params, options] = this.#hasParams ? args : [undefined, ...args]
    return this.topicNameFor(params, options)
  }

  /** The same with params always first. */
  topicNameFor (params: unknown, options: unknown): string {
    const problem = options === undefined ? undefined : recordProblem(options, topicForChecks)
    if (problem !== undefined) throw new errors.FST_MQTT_TOPIC_PARAM(this.pattern, `options: ${problem}`)
    const topic = this.#topicName(params)
    const { absolute = false } = (options ?? {}) as TopicForOptions
    return absolute ? withPrefix(this.prefix, topic) : topic
  }

  // Not an async function: with QoS 0 its promise would be a good part of the cost.
  publish (...args: unknown[]): Promise<void> {
    try {
      const [params, payload, options] = this.#hasParams ? args : [undefined, ...args]
      const topic = this.#topicName(params)
      if (this.#hooks.of('onPublish').length === 0) return this.#publish(topic, payload, options)
      return passOnPublish(this.#hooks, this.server, { topic, payload, options })
        .then((outgoing) => this.#publish(topic, outgoing.payload, outgoing.options))
    } catch (error) {
      return Promise.reject(asError(error))
    }
  }

  #publish (topic: string, payload: unknown, options: unknown): Promise<void> {
    const checked = checkPublishOptions(options, this.#options.qos)
    const absoluteTopic = this.#engine.nameOf(topic, this.#options.absolute)
    return this.#engine.publish(absoluteTopic, this.#encode(payload), this.#withContentType(checked))
  }

  /** Only a name that this topic would accept itself. */
  #topicName (params: unknown): string {
    const topic = topicFor(this.placed, params)
    const issue = this.checkParams?.(params ?? {})
    if (issue === undefined) return topic
    throw new errors.FST_MQTT_TOPIC_PARAM(this.pattern, `${issue.instancePath}: ${issue.message}`)
  }

  get #hasParams (): boolean {
    return this.placed.pattern.placeholders.length > 0
  }

  #subscribe (): void {
    if (this.#unsubscribe !== undefined) return
    this.#unsubscribe = this.#engine.book.want(this.filter, { ...this.#options })
    this.#engine.dispatcher.add(this)
  }

  #silence (): void {
    this.#unsubscribe?.()
    this.#unsubscribe = undefined
    this.#engine.dispatcher.remove(this)
  }

  #takeNameOf (handler: { readonly name: string }): void {
    // `{ handler: () => {} }` names the function 'handler', which nobody meant.
    if (this.#name !== undefined || handler.name === '' || handler.name === 'handler') return
    this.#engine.names.imply(handler.name, this)
    this.#name = handler.name
  }

  #encode (payload: unknown): Buffer {
    if (this.payload === undefined) return bytesOf(payload)
    const issue = this.payload.check(payload)
    if (issue !== undefined) throw invalid(errors.FST_MQTT_PAYLOAD_INVALID, this.pattern, issue)
    return payload === undefined ? bytesOf(undefined) : encodeWith(this.payload.codec, payload)
  }

  #withContentType (options: CheckedPublishOptions): CheckedPublishOptions {
    return this.payload === undefined ? options : { ...options, contentType: this.payload.codec.contentType }
  }
}

/** @throws `FST_MQTT_TOPIC_OPTIONS` for a level that the logger does not know */
function logFor ({ log }: FastifyInstance, pattern: string, level: string | undefined): FastifyInstance['log'] {
  if (level === undefined) return log
  try {
    return log.child({}, { level })
  } catch (error) {
    throw new errors.FST_MQTT_TOPIC_OPTIONS(pattern, `logLevel: ${describeError(error)}`)
  }
}

/** The absolute name. @throws `FST_MQTT_TOPIC_OPTIONS`, `FST_MQTT_TOPIC_OUTSIDE_PREFIX` */
function placeDeadLetter (placed: PlacedPattern, prefix: string, name: string): string {
  const { text, absolute, matchFilter } = placed
  if (!absolute) assertInsidePrefix(name)
  const topic = withPrefix(prefix, name)
  const problem = topicNameProblem(topic)
  if (problem !== undefined) {
    throw new errors.FST_MQTT_TOPIC_OPTIONS(text, `deadLetter: with its prefix ${problem}`)
  }
  if (!overlap(matchFilter, topic)) return topic
  throw new errors.FST_MQTT_TOPIC_OPTIONS(text,
    `deadLetter is '${name}', which this topic receives itself: its letters would go round`)
}

const topicForChecks = { absolute: booleanNamed('absolute') }

function codecNamed (engine: Engine, pattern: string, name: string) {
  const codec = engine.codecs.named(name)
  if (codec !== undefined) return codec
  throw new errors.FST_MQTT_TOPIC_OPTIONS(pattern,
    `there is no codec '${name}', there are ${engine.codecs.names.join(', ')}`)
}
