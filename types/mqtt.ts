import type { FastifyTypeProvider, FastifyTypeProviderDefault } from 'fastify'
import type { MqttClient } from 'mqtt'
import type { Dynsec } from './dynsec.ts'
import type { HookName, MqttErrorHandler, MqttHooks } from './hooks.ts'
import type { InjectOptions, InjectResult } from './inject.ts'
import type { ListedTopic } from './listing.ts'
import type { CheckPattern, ParamsOf } from './pattern.ts'
import type { Health, Stats, Status } from './status.ts'
import type {
  Handler, RawPublishOptions, RouteOptions, Topic, TopicContract, TopicForOptions, TopicOptions, TopicParams,
  TopicPayload, TopicSettings
} from './topic.ts'
import type { MqttTopics, ParamsOfDeclared } from './topics.ts'

/**
 * `fastify.mqtt`. Each Fastify context has its own, as it has its own routes: topics registered through it
 * run with that context as `this`, and begin with the `topicPrefix` that it was registered with. Where there
 * are only namespaces, its own members throw `FST_MQTT_NO_DEFAULT`.
 *
 * @typeParam Provider the type provider of the Fastify instance, for schemas that are not of
 *   @sinclair/typebox
 */
export interface Mqtt<Provider extends FastifyTypeProvider = FastifyTypeProviderDefault> {
  /**
   * Registers a topic, before or after connecting. Without a handler it is for publishing, until `onMessage`
   * adds one. Every matching topic receives a message.
   *
   * @param contract what `defineTopic` returned
   * @throws `FST_MQTT_TOPIC_PATTERN`, `FST_MQTT_TOPIC_OPTIONS`, `FST_MQTT_TOPIC_NAME_TAKEN`,
   *   `FST_MQTT_TOPIC_CONFLICT`, `FST_MQTT_TOPIC_OUTSIDE_PREFIX`, `FST_MQTT_SCHEMA_INVALID`,
   *   `FST_MQTT_HOOK_INVALID`
   * @example
   * const reading = fastify.mqtt.topic('sensor/<int:id>/reading', {
   *   qos: 1,
   *   payload: Type.Object({ celsius: Type.Number() })
   * }, async function (message) {
   *   this.log.info({ id: message.params.id, celsius: message.payload.celsius })
   * })
   */
  topic<P extends string, Params, Payload> (
    contract: TopicContract<P, Params, Payload>, handler?: Handler<Params, Payload>
  ): Topic<Params, Payload>
  topic<P extends string, Params, Payload> (
    contract: TopicContract<P, Params, Payload>, settings: TopicSettings, handler?: Handler<Params, Payload>
  ): Topic<Params, Payload>
  topic<const P extends string, ParamsSchema, PayloadSchema> (
    pattern: CheckPattern<P>,
    options: TopicOptions<P, ParamsSchema, PayloadSchema>,
    handler?: Handler<TopicParams<P, ParamsSchema, Provider>, TopicPayload<PayloadSchema, Provider>>
  ): Topic<TopicParams<P, ParamsSchema, Provider>, TopicPayload<PayloadSchema, Provider>>
  topic<const P extends string> (
    pattern: CheckPattern<P>, handler?: Handler<ParamsOf<P>>
  ): Topic<ParamsOf<P>>

  /**
   * The same as `topic()` in the form of `fastify.route()`.
   *
   * @example
   * fastify.mqtt.route({ topic: 'room/<name>', qos: 1, handler: async (message) => message.params.name })
   */
  route<const P extends string, ParamsSchema, PayloadSchema> (
    options: RouteOptions<P, CheckPattern<P>, ParamsSchema, PayloadSchema, Provider>
  ): Topic<TopicParams<P, ParamsSchema, Provider>, TopicPayload<PayloadSchema, Provider>>

  /**
   * Publishes to a topic name, to which the global prefix is added. Strings and bytes are sent as they are,
   * `undefined` is the empty message, anything else is JSON (as `JSON.stringify` does it). Bytes are not
   * copied: leave them as they are until the promise has settled.
   *
   * @returns settles always: with QoS 1 and 2 when the broker has taken the message, with QoS 0 when it has
   *   been handed to the socket
   * @throws rejects with `FST_MQTT_TOPIC_NAME`, `FST_MQTT_TOPIC_OUTSIDE_PREFIX`, `FST_MQTT_PUBLISH_OPTIONS`,
   *   `FST_MQTT_PAYLOAD_ENCODE`, `FST_MQTT_NEEDS_MQTT5`, `FST_MQTT_BROKER_LIMIT`, `FST_MQTT_OFFLINE` (QoS 0),
   *   `FST_MQTT_OUTBOX_FULL` before anything is sent; with `FST_MQTT_DELIVERY_UNKNOWN`,
   *   `FST_MQTT_PUBLISH_REFUSED`, `FST_MQTT_PUBLISH_TIMEOUT` (option `timeout`, default `publishTimeout`,
   *   30,000 ms), `FST_MQTT_ABORTED`, `FST_MQTT_CLOSED`
   * @example
   * await fastify.mqtt.publish('lamp/7/set', { on: true }, { qos: 1 })
   * await fastify.mqtt.publish('$CONTROL/dynamic-security/v1', { commands: [] }, { absolute: true })
   */
  publish (topic: string, payload?: unknown, options?: RawPublishOptions): Promise<void>

  /**
   * The topic name for a named topic: what `publish` takes to reach its handler.
   *
   * @throws `FST_MQTT_TOPIC_UNKNOWN`, `FST_MQTT_TOPIC_PARAM`, `FST_MQTT_TOPIC_WILDCARD`,
   *   `FST_MQTT_TOPIC_NAME_AMBIGUOUS`
   * @example
   * fastify.mqtt.topicFor('reading', { id: 42 })                       // 'sensor/42/reading'
   * fastify.mqtt.topicFor('reading', { id: 42 }, { absolute: true })   // 'myprefix/sensor/42/reading'
   */
  topicFor<N extends string> (
    name: N extends keyof MqttTopics ? never : N,
    params?: Readonly<Record<string, unknown>>,
    options?: TopicForOptions
  ): string
  topicFor<N extends keyof MqttTopics> (
    name: keyof ParamsOfDeclared<MqttTopics[N]> extends never ? N : never
  ): string
  topicFor<N extends keyof MqttTopics> (
    name: N, params: NoInfer<ParamsOfDeclared<MqttTopics[N]>>, options?: TopicForOptions
  ): string

  /**
   * Adds a hook to this scope and the scopes below; see `MqttHooks` for what there is. Before the application
   * is ready.
   *
   * @throws `FST_MQTT_HOOK_INVALID`, `FST_MQTT_HOOK_TOO_LATE`
   * @example
   * fastify.mqtt.addHook('preHandler', async (message) => { message.log.debug('a message') })
   */
  addHook<N extends HookName> (name: N, hook: MqttHooks[N]): this
  /**
   * Deals with what fails on the way of a message in this scope and the scopes below. What it throws goes to
   * the handler of the scope above, and at last to `onError` or the log.
   *
   * @throws `FST_MQTT_HOOK_INVALID`, `FST_MQTT_HOOK_TOO_LATE`
   */
  setErrorHandler (handler: MqttErrorHandler): this

  /**
   * Brings a message to the handlers as if it had come from the broker, through the real router, hooks,
   * codecs and validation, and tells what came of it. Needs no broker. What is published meanwhile is caught
   * and not sent. For tests.
   *
   * @throws rejects with `FST_MQTT_INJECT_NOT_READY` if the application is not ready and `start` is `'wait'`,
   *   `FST_MQTT_TOPIC_NAME`, `FST_MQTT_PUBLISH_OPTIONS`, `FST_MQTT_CLOSED`
   * @example
   * const { handlers } = await fastify.mqtt.inject({ topic: 'sensor/7', payload: { celsius: 21 } })
   */
  inject (message: InjectOptions): Promise<InjectResult>

  /** All topics that are registered on this connection, in whatever scope, in order. */
  topics (): ListedTopic[]
  /** The same as a text for people, a line for each topic, as `fastify.printRoutes()` has it for routes. */
  printTopics (): string

  /**
   * Administers the dynamic security plugin of the Mosquitto broker. Needs the option `dynsec`.
   *
   * @throws `FST_MQTT_DYNSEC_NOT_ENABLED`
   * @example
   * await fastify.mqtt.dynsec.clients.create({ username: 'sensor-7', password, roles: ['sensor'] })
   */
  readonly dynsec: Dynsec

  /**
   * With `processes: { mode: 'single' }`: whether this process has the connection, or another one of its
   * group; undefined while there is no owner, and without a group.
   */
  readonly role: 'owner' | 'member' | undefined
  /** Where the connection stands: in a member that of the owner. */
  readonly status: Status
  /** What there is to know about the connection, its subscriptions and its messages. */
  health (): Health
  /** Counters and gauges of messages and handlers, for metrics. */
  stats (): Stats

  /**
   * Connects; for `start: 'manual'`, otherwise Fastify's `ready()` does it. Called again it waits until the
   * topics that were registered since are subscribed too.
   *
   * @returns resolves when connected with every SUBACK in, refusals included: `health()` has those
   * @throws rejects with `FST_MQTT_CONNECT_FAILED` after `connectTimeout`, or at once where each other
   *   attempt would end the same, as with a wrong password; with `FST_MQTT_CLOSED` after `close()`; with
   *   `FST_MQTT_GROUP_DIRECTORY` where the processes of a group cannot meet
   */
  connect (): Promise<void>
  /**
   * Disconnects; Fastify's `close()` does it by itself. Never rejects. Calling it again gives the same
   * promise.
   */
  close (): Promise<void>
  /**
   * Resolves when no handler is running, and no message waits for one. Not for handlers: one that awaits it
   * waits for itself.
   *
   * @param options `timeout` in milliseconds, default 30,000
   * @throws rejects with `FST_MQTT_IDLE_TIMEOUT`
   */
  idle (options?: { readonly timeout?: number | undefined }): Promise<void>

  /**
   * The MQTT.js client of the current connection, as a way out; undefined before `connect()`. Its
   * subscriptions and stores are managed by the plugin.
   */
  readonly client: MqttClient | undefined
}
