import type { FastifyInstance, FastifyTypeProvider, FastifyTypeProviderDefault } from 'fastify'
import type { Message, PublishProperties, QoS } from './message.ts'
import type { AnyMessage, TopicHooks } from './hooks.ts'
import type { ParamsOf } from './pattern.ts'
import type { Infer } from './schema.ts'

/**
 * Receives the messages of a topic. `this` is the Fastify instance that registered it (arrow functions have
 * `message.server`). What it throws or rejects with is a failure, which ends in an error handler, `onError`
 * or the log; the next message is handled all the same.
 */
export type Handler<Params = Record<string, unknown>, Payload = Buffer> =
  (this: FastifyInstance, message: Message<Params, Payload>) => unknown

/** The names of the codecs that are always there. */
export type CodecName = 'json' | 'text' | 'binary'

/** How a payload becomes bytes and back; more of them are given to the plugin's option `codecs`. */
export interface Codec {
  /** The MQTT 5 content type that selects it for received messages and that is sent with published ones. */
  readonly contentType: string
  /** Bytes or text of a payload. What it throws is reported as `FST_MQTT_PAYLOAD_ENCODE`. */
  encode (payload: unknown): Uint8Array | string
  /** The payload that the bytes stand for. What it throws is reported as `FST_MQTT_PAYLOAD_DECODE`. */
  decode (bytes: Buffer): unknown
}

/**
 * Which messages of a topic wait for each other: those with the same topic name, none, or those for which the
 * function gives the same text. It is asked before the payload is decoded.
 */
export type MessageOrder = 'topic' | 'none' | ((message: AnyMessage) => string)

/** How a handler that has failed is run again. */
export interface RetryOptions {
  /** How often, after the first time. */
  limit: number
  /** Milliseconds before the first retry. Default 1000. */
  delay?: number | undefined
  /** Of each pause to the one before it. Default 2. */
  factor?: number | undefined
}

/** Why a message is a dead letter. */
export interface DeadLetterReason {
  /** Of the last attempt. */
  readonly error: unknown
  /** How often the handler was run. */
  readonly attempts: number
}

/**
 * Takes what the handlers of a topic could not deal with; `payload` is the bytes. `this` is the Fastify
 * instance that registered the topic. If it fails, it is called again.
 */
export type DeadLetterHandler =
  (this: FastifyInstance, message: AnyMessage, reason: DeadLetterReason) => unknown

/** What holds for a topic whether or not it has schemas. */
export interface TopicSettings extends TopicHooks {
  /**
   * For `topicFor`. Default: the name of the handler function, if it has one. Names hold for all
   * contexts of a connection: giving one twice is `FST_MQTT_TOPIC_NAME_TAKEN`.
   */
  name?: string | undefined
  /** Of the subscription and of `Topic.publish`. Default 0. Of patterns with one filter the highest holds. */
  qos?: QoS | undefined
  /** Without the global prefix and the scope's `topicPrefix`. Default false. `$…` topics need it. */
  absolute?: boolean | undefined
  /** The broker does not send back what this connection published. Needs MQTT 5. Default false. */
  noLocal?: boolean | undefined
  /** The broker leaves the retain flag as the publisher set it. Needs MQTT 5. Default false. */
  retainAsPublished?: boolean | undefined
  /**
   * When retained messages come: 0 at each subscription, 1 at a new one, 2 never. Needs MQTT 5. Default 0.
   */
  retainHandling?: 0 | 1 | 2 | undefined
  /**
   * How the payload is encoded; needs a `payload` schema. Default `'json'`. Or a content type of `codecs`.
   */
  codec?: CodecName | (string & Record<never, never>) | undefined
  /** Handlers of this topic that may run at once, besides the `concurrency` of the plugin. */
  concurrency?: number | undefined
  /** Default: the `order` of the plugin. */
  order?: MessageOrder | undefined
  /**
   * Runs a handler that has failed again, `limit` times, the first time after `delay` milliseconds, then
   * after `factor` times as much, and so on. What decoding and schemas refuse is not tried again. Default: no
   * retry.
   */
  retry?: RetryOptions | undefined
  /**
   * Where a message goes that has failed for good, before it is acknowledged: a topic name, which is
   * published to with the same payload and QoS, and the reason in the user properties; or a function.
   */
  deadLetter?: string | DeadLetterHandler | undefined
  /**
   * When a message with QoS 1 or 2 is acknowledged, so that the broker forgets it. `'after'`: when the
   * handlers are done, also when they have failed. `'before'`: before the first one runs. `'manual'`: by
   * `message.ack()` of each handler. Of several topics that a message matches the strictest wins: it is
   * acknowledged when all say so. Default `'after'`.
   */
  ack?: 'after' | 'before' | 'manual' | undefined
  /**
   * With `ack: 'manual'`: milliseconds after the end of a handler, within which it has to call
   * `message.ack()`. Then it is a failure, and the message is acknowledged. Default 30000.
   */
  ackTimeout?: number | undefined
  /** Level of what `message.log` and failures of this topic write. Default: that of the Fastify instance. */
  logLevel?: string | undefined
}

/** Options of `topic()`. */
export interface TopicOptions<P extends string = string, ParamsSchema = unknown, PayloadSchema = unknown>
  extends TopicSettings {
  /**
   * A schema of the params: it checks what the placeholders gave, and narrows their types. A message that
   * fails is logged as `FST_MQTT_PARAMS_INVALID` and reaches no handler.
   */
  params?: CheckParams<P, ParamsSchema> | undefined
  /** A schema of the payload. A message that fails is logged as `FST_MQTT_PAYLOAD_INVALID`, not handled. */
  payload?: PayloadSchema | undefined
}

/** The form of `route()`: the options of `topic()` with the pattern and the handler among them. */
export interface RouteOptions<
  P extends string, Pattern, ParamsSchema, PayloadSchema, Provider extends FastifyTypeProvider
> extends TopicOptions<P, ParamsSchema, PayloadSchema> {
  topic: Pattern
  handler?: Handler<TopicParams<P, ParamsSchema, Provider>, TopicPayload<PayloadSchema, Provider>> | undefined
}

/**
 * A params schema whose keys are all placeholders of the pattern, else a sentence that names the one that is
 * not.
 */
export type CheckParams<P extends string, S> =
  [Exclude<SchemaKeys<S>, keyof ParamsOf<P>>] extends [never]
    ? S
    : `Not a placeholder of the pattern: ${Exclude<SchemaKeys<S>, keyof ParamsOf<P>> & string}`

type SchemaKeys<S> = S extends { properties: infer Properties } ? keyof Properties : never

/** The params of a pattern, narrowed by the params schema where there is one. */
export type TopicParams<
  P extends string, S, Provider extends FastifyTypeProvider = FastifyTypeProviderDefault
> =
  unknown extends S ? ParamsOf<P> : Narrow<ParamsOf<P>, Infer<S, Provider>>

type Narrow<Params, Checked> = { [K in keyof Params]: K extends keyof Checked ? Checked[K] : Params[K] }

/** What the payload schema describes; the Buffer where there is none. */
export type TopicPayload<S, Provider extends FastifyTypeProvider = FastifyTypeProviderDefault> =
  unknown extends S ? Buffer : Infer<S, Provider>

/** Options of `publish`. */
export interface PublishOptions {
  /** Default 0, or the topic's own for `Topic.publish`. */
  qos?: QoS | undefined
  /** The broker keeps the message for later subscribers. Default false. */
  retain?: boolean | undefined
  /** MQTT 5 properties. */
  properties?: PublishProperties | undefined
  /**
   * Milliseconds after which the promise rejects with `FST_MQTT_PUBLISH_TIMEOUT`. Default `publishTimeout`.
   */
  timeout?: number | undefined
  /** Ends the wait; the promise rejects with `FST_MQTT_ABORTED`, the signal's reason is its cause. */
  signal?: AbortSignal | undefined
}

/** Options of `fastify.mqtt.publish`. */
export interface RawPublishOptions extends PublishOptions {
  /** Without the global prefix. Default false. `$…` topics need it. */
  absolute?: boolean | undefined
}

/** Options of `topicFor`. */
export interface TopicForOptions {
  /** With the global prefix, as a client outside of this application needs it. Default false. */
  absolute?: boolean | undefined
}

/**
 * A payload that a topic takes: what its schema describes; without a schema what `fastify.mqtt.publish`
 * takes.
 */
export type Publishable<Payload> = [Payload] extends [Buffer] ? unknown : Payload

/** A registered topic. */
export interface Topic<Params = Record<string, unknown>, Payload = Buffer> {
  /** As given, without prefixes. */
  readonly pattern: string
  /** The topic filter as it is subscribed: with prefixes, `+` and `#`. */
  readonly filter: string
  /** What `topicFor` knows it by. */
  readonly name: string | undefined
  /**
   * Publishes to the topic that the params give: `publish(params, payload, options)`, or `publish(payload,
   * options)` where the pattern has no placeholders. The payload is checked by the schema and encoded by the
   * codec before anything is sent.
   *
   * @throws rejects as `fastify.mqtt.publish` does, and with `FST_MQTT_TOPIC_PARAM`,
   *   `FST_MQTT_TOPIC_WILDCARD`, `FST_MQTT_PAYLOAD_INVALID`
   */
  publish (...args: PublishArguments<Params, Payload>): Promise<void>
  /**
   * The topic name for params: `topicFor(params, options)`, or `topicFor(options)` without placeholders.
   *
   * @throws `FST_MQTT_TOPIC_PARAM` if a param is missing, extra or ill-typed; `FST_MQTT_TOPIC_WILDCARD` if
   *   the pattern has an unnamed `+` or `#`
   */
  topicFor (...args: TopicForArguments<Params>): string
  /** Adds a handler; handlers run in the order of their registration. @returns what removes it again */
  onMessage (handler: Handler<Params, Payload>): () => void
  /** Takes the topic away: its handlers, its subscription if no other topic needs it, and its name. */
  remove (): void
}

/**
 * The arguments of `Topic.publish`. Where the pattern is one of several, or only known as text, those of each
 * that it may be: at run time the pattern decides.
 */
export type PublishArguments<Params, Payload> = ByParams<
  Params, [payload: Publishable<Payload>, options?: PublishOptions]
>

/** The arguments of `Topic.topicFor`, in the same way. */
export type TopicForArguments<Params> = ByParams<Params, [options?: TopicForOptions]>

type ByParams<Params, Others extends unknown[]> =
  Params extends unknown
    ? keyof Params extends never
      ? Others
      : string extends keyof Params ? Others | [params: Params, ...Others] : [params: Params, ...Others]
    : never

/** A pattern with its options, from `defineTopic`: needs no connection, so that services can share it. */
export interface TopicContract<P extends string = string, Params = unknown, Payload = unknown> {
  readonly pattern: P
  readonly options: Readonly<TopicOptions>
  /** Carries the types of params and payload; there is no value at run time. */
  readonly types?: { readonly params: Params, readonly payload: Payload }
}
