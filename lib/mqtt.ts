import type { FastifyInstance } from 'fastify'
import type { Mqtt } from '../types/mqtt.ts'
import type { Health, Status } from '../types/status.ts'
import type { Engine } from './engine.ts'
import { errors } from './errors.ts'
import { textProblem, topicNameProblem } from './guard.ts'
import { bytesOf } from './payload/bytes.ts'
import { RegisteredTopic } from './registered-topic.ts'
import { checkPublishOptions } from './session/publish.ts'
import { assertInsidePrefix, withPrefix } from './topic/prefix.ts'
import { checkTopicOptions } from './topic/topic-options.ts'
import { describe, isRecord, kindOf } from './values.ts'

/** Where a context stands: what its topics run with, and which connection they use. */
export interface Context {
  readonly server: FastifyInstance
  readonly topicPrefix: string
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
    const options = hasOptions ? { ...ofContract, ...first as object } : ofContract
    return this.#register(pattern, options, typeof first === 'function' ? first : second)
  }

  route (options: unknown): RegisteredTopic {
    if (!isRecord(options)) {
      throw new errors.FST_MQTT_TOPIC_OPTIONS('', `route takes an object with 'topic', not ${kindOf(options)}`)
    }
    const { topic, handler, ...others } = options
    const { pattern } = readTarget(topic)
    return this.#register(pattern, others, handler)
  }

  async publish (topic: unknown, payload?: unknown, options?: unknown): Promise<void> {
    const engine = this.#context.engine('publish')
    const checked = checkPublishOptions(options, 0)
    // The topic by itself first: with a prefix before it an empty one would pass.
    const problem = topicNameProblem(topic)
    if (problem !== undefined) throw new errors.FST_MQTT_TOPIC_NAME(nameForMessage(topic), problem)
    const name = topic as string
    if (!checked.absolute) assertInsidePrefix(name)
    const absoluteTopic = checked.absolute ? name : withPrefix(engine.settings.prefix, name)
    await engine.publish(absoluteTopic, bytesOf(payload), checked)
  }

  topicFor (name: string, params?: unknown, options?: unknown): string {
    const topic = this.#context.engine('topicFor').names.find(name)
    return (topic as RegisteredTopic).topicNameFor(params, options)
  }

  get status (): Status {
    return this.#context.engine('status').status
  }

  health (): Health {
    return this.#context.engine('health').health()
  }

  async connect (): Promise<void> {
    await this.#context.engine('connect').connect()
  }

  async close (): Promise<void> {
    await this.#context.engine('close').close()
  }

  async idle (): Promise<void> {
    await this.#context.engine('idle').dispatcher.idle()
  }

  get client (): Mqtt['client'] {
    return this.#context.engine('client').client
  }

  #register (pattern: string, options: unknown, handler: unknown): RegisteredTopic {
    const { server, topicPrefix } = this.#context
    if (handler !== undefined && typeof handler !== 'function') {
      throw new errors.FST_MQTT_TOPIC_OPTIONS(pattern, `the handler has to be a function, not ${kindOf(handler)}`)
    }
    const topic = new RegisteredTopic(this.#context.engine('topic'), {
      pattern, options: checkTopicOptions(pattern, options), server, topicPrefix
    })
    if (handler === undefined) return topic
    try {
      topic.onMessage(handler as Parameters<RegisteredTopic['onMessage']>[0])
    } catch (error) {
      // A conflict with another topic leaves nothing behind.
      topic.remove()
      throw error
    }
    return topic
  }
}

/** A pattern, or a contract of `defineTopic`. */
function readTarget (target: unknown): { pattern: string, options: Record<string, unknown> } {
  if (typeof target === 'string') return { pattern: target, options: {} }
  if (isRecord(target) && typeof target['pattern'] === 'string') {
    return { pattern: target['pattern'], options: isRecord(target['options']) ? target['options'] : {} }
  }
  throw new errors.FST_MQTT_TOPIC_PATTERN(
    `it has to be a string or what defineTopic returned, not ${kindOf(target)}`, describe(target))
}

function nameForMessage (topic: unknown): string {
  return textProblem(topic) === undefined && typeof topic === 'string' ? topic.slice(0, 200) : describe(topic)
}
