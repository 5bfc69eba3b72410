import type { FastifyInstance } from 'fastify'
import type { HookName } from '../types/hooks.ts'
import type { InjectResult } from '../types/inject.ts'
import type { ListedTopic } from '../types/listing.ts'
import type { Mqtt } from '../types/mqtt.ts'
import type { Health, Stats, Status } from '../types/status.ts'
import type { Engine } from './engine.ts'
import { checkHook, isConnectionHook, passOnPublish, type Hook, type HookBook } from './dispatch/hooks.ts'
import { isThenable } from './dispatch/thenable.ts'
import { asError, errors } from './errors.ts'
import { millisecondsProblem } from './guard.ts'
import { bytesOf } from './payload/bytes.ts'
import { RegisteredTopic } from './registered-topic.ts'
import { checkPublishOptions } from './session/publish.ts'
import { printTopics } from './topic/listing.ts'
import { checkTopicOptions } from './topic/topic-options.ts'
import { defined, describe, isRecord, kindOf, recordProblem } from './values.ts'

/** Where a context stands: what its topics run with, and which connection they use. */
export interface Context {
  readonly server: FastifyInstance
  readonly topicPrefix: string
  readonly hooks: HookBook
  /** @throws `FST_MQTT_NO_DEFAULT`, which names the member that asked */
  engine (member: string): Engine
}

/** `fastify.mqtt` of one Fastify context. types/mqtt.ts describes the members, and types them. */
export class MqttContext {
  readonly #context: Context

  constructor (context: Context) {
    this.#context = context
  }

  topic (patternOrContract: unknown, ...rest: unknown[]): RegisteredTopic {
    const { pattern, options: ofContract } = readTarget(patternOrContract)
    const [first, second] = rest
    const hasOptions = typeof first !== 'function' && first !== undefined
    if (hasOptions && !isRecord(first)) {
      throw new errors.FST_MQTT_TOPIC_OPTIONS(pattern,
        `a topic takes options and a handler, ${kindOf(first)} is neither`)
    }
    if (typeof first === 'function' && second !== undefined) {
      throw new errors.FST_MQTT_TOPIC_OPTIONS(pattern, 'the options come before the handler')
    }
    const options = hasOptions ? { ...ofContract, ...defined(first) } : ofContract
    return this.#register(pattern, options, typeof first === 'function' ? first : second)
  }

  route (options: unknown): RegisteredTopic {
    if (!isRecord(options)) {
      throw new errors.FST_MQTT_TOPIC_OPTIONS('', `route takes an object with 'topic', not ${kindOf(options)}`)
    }
    const { topic, handler, ...others } = options
    const { pattern, options: ofContract } = readTarget(topic)
    return this.#register(pattern, { ...ofContract, ...defined(others) }, handler)
  }

  // Not an async function: with QoS 0 its promise would be a good part of the cost.
  publish (topic: unknown, payload?: unknown, options?: unknown): Promise<void> {
    try {
      const engine = this.#context.engine('publish')
      const { hooks } = this.#context
      if (hooks.of('onPublish').length > 0) return this.#publishThroughHooks(engine, topic, payload, options)
      const checked = checkPublishOptions(options, 0)
      return engine.publish(engine.nameOf(topic, checked.absolute), bytesOf(payload), checked)
    } catch (error) {
      return Promise.reject(asError(error))
    }
  }

  async #publishThroughHooks (
    engine: Engine, topic: unknown, payload: unknown, options: unknown
  ): Promise<void> {
    const { hooks, server } = this.#context
    // Hooks get a topic that can be published to.
    engine.nameOf(topic, true)
    const outgoing = await passOnPublish(hooks, server, { topic: topic as string, payload, options })
    const checked = checkPublishOptions(outgoing.options, 0)
    await engine.publish(engine.nameOf(topic, checked.absolute), bytesOf(outgoing.payload), checked)
  }

  addHook (name: unknown, hook: unknown): this {
    checkHook(name, hook)
    const engine = this.#context.engine('addHook')
    if (engine.isOpen) throw new errors.FST_MQTT_HOOK_TOO_LATE(`addHook('${String(name)}')`)
    const known = name as HookName
    if (isConnectionHook(known)) engine.hooks.add(known, hook, this.#context.server)
    else this.#context.hooks.add(known, hook)
    return this
  }

  setErrorHandler (handler: unknown): this {
    if (typeof handler !== 'function') {
      throw new errors.FST_MQTT_HOOK_INVALID(`the error handler has to be a function, not ${kindOf(handler)}`)
    }
    if (this.#context.engine('setErrorHandler').isOpen) throw new errors.FST_MQTT_HOOK_TOO_LATE('setErrorHandler()')
    this.#context.hooks.setErrorHandler(handler as Hook)
    return this
  }

  async inject (options: unknown): Promise<InjectResult> {
    const engine = this.#context.engine('inject')
    if (!isRecord(options)) {
      throw new errors.FST_MQTT_PUBLISH_OPTIONS(`inject takes an object with 'topic', not ${kindOf(options)}`)
    }
    const { topic, payload, ...others } = options
    const { qos, retain, properties, absolute } = checkPublishOptions(others, 0)
    const absoluteTopic = engine.nameOf(topic, absolute)
    const bytes = bytesOf(payload)
    if (!engine.isOpen) {
      // ready() would wait for the broker, and fail without one.
      if (engine.settings.start === 'wait' && engine.status !== 'ready') {
        throw new errors.FST_MQTT_INJECT_NOT_READY()
      }
      await this.#context.server.ready()
    }
    return await engine.inject({ topic: absoluteTopic, payload: bytes, qos, retain, dup: false, properties })
  }

  topicFor (name: string, params?: unknown, options?: unknown): string {
    const topic = this.#context.engine('topicFor').names.find(name)
    return (topic as RegisteredTopic).topicNameFor(params, options)
  }

  topics (): ListedTopic[] {
    return this.#context.engine('topics').list()
  }

  printTopics (): string {
    return printTopics(this.topics())
  }

  get dynsec (): Mqtt['dynsec'] {
    return this.#context.engine('dynsec').dynsec
  }

  get role (): Mqtt['role'] {
    return this.#context.engine('role').role
  }

  get status (): Status {
    return this.#context.engine('status').status
  }

  health (): Health {
    return this.#context.engine('health').health()
  }

  stats (): Stats {
    return this.#context.engine('stats').stats()
  }

  async connect (): Promise<void> {
    await this.#context.engine('connect').connect()
  }

  async close (): Promise<void> {
    await this.#context.engine('close').close()
  }

  async idle (options: unknown = {}): Promise<void> {
    const { dispatcher } = this.#context.engine('idle')
    const problem = recordProblem(options, idleChecks)
    if (problem !== undefined) throw new errors.FST_MQTT_OPTIONS_INVALID('timeout', problem)
    const { timeout = 30_000 } = options as { timeout?: number }
    await dispatcher.idleWithin(timeout)
  }

  get client (): Mqtt['client'] {
    return this.#context.engine('client').client
  }

  #register (pattern: string, options: unknown, handler: unknown): RegisteredTopic {
    const { server, topicPrefix, hooks } = this.#context
    if (handler !== undefined && typeof handler !== 'function') {
      throw new errors.FST_MQTT_TOPIC_OPTIONS(pattern, `the handler has to be a function, not ${kindOf(handler)}`)
    }
    const topic = new RegisteredTopic(this.#context.engine('topic'), {
      pattern, options: checkTopicOptions(pattern, options), server, topicPrefix, hooks
    })
    try {
      if (handler !== undefined) topic.onMessage(handler as Parameters<RegisteredTopic['onMessage']>[0])
      const { filter, name } = topic
      for (const hook of hooks.of('onTopic')) {
        const result = hook.call(server, { pattern, filter, name, topicPrefix })
        if (!isThenable(result)) continue
        result.then(undefined, () => {})
        throw new errors.FST_MQTT_HOOK_INVALID('onTopic cannot be async: a topic is registered at once')
      }
    } catch (error) {
      // A conflict with another topic, or a hook that objects, leaves nothing behind.
      topic.remove()
      throw error
    }
    return topic
  }
}

const idleChecks = { timeout: millisecondsProblem }

/** A pattern, or a contract of `defineTopic`. */
function readTarget (target: unknown): { pattern: string, options: Record<string, unknown> } {
  if (typeof target === 'string') return { pattern: target, options: {} }
  if (isRecord(target) && typeof target['pattern'] === 'string') {
    return { pattern: target['pattern'], options: isRecord(target['options']) ? target['options'] : {} }
  }
  throw new errors.FST_MQTT_TOPIC_PATTERN(
    `it has to be a string or what defineTopic returned, not ${kindOf(target)}`, describe(target))
}
