import type { FastifyInstance } from 'fastify'
import type { Message } from './message.ts'
import type { RawPublishOptions } from './topic.ts'

/** A message of any topic. Its payload is undefined until it has been decoded, before `preHandler`. */
export type AnyMessage = Message<Readonly<Record<string, unknown>>, unknown>

/** How a handler ended for one message. */
export interface Settlement {
  /** `skipped` if a hook called `message.skip()`. */
  readonly outcome: 'handled' | 'skipped' | 'failed'
  /** What failed; undefined unless the outcome is `failed`. */
  readonly error: unknown
  /** Milliseconds from the first hook to the end of the handler. */
  readonly durationMs: number
}

/** A topic that is being registered, for `onTopic`. */
export interface TopicRegistration {
  readonly pattern: string
  readonly filter: string
  readonly name: string | undefined
  /** The `topicPrefix` of the scope. */
  readonly topicPrefix: string
}

/** A publish on its way, for `onPublish`: payload and options may be replaced. */
export interface OutgoingMessage {
  /** As `publish` takes it: without the global prefix. */
  readonly topic: string
  payload: unknown
  options: RawPublishOptions
}

/**
 * The hooks of `fastify.mqtt.addHook`. They may be async; the next one waits. `this` is the Fastify instance
 * whose topic it is, as it is for the hooks of routes.
 *
 * A message passes `onMessage`, `preValidation`, decoding and validation, `preHandler`, the handler,
 * `onSettled`, once for each handler. What throws on this way goes to the error handler of the scope
 * (`setErrorHandler`), then to those of the scopes above; what they throw goes to `onError`, and without such
 * a hook to the log.
 */
export interface MqttHooks {
  /** Before anything else. */
  onMessage (this: FastifyInstance, message: AnyMessage): unknown
  /** Before the payload is decoded and checked. */
  preValidation (this: FastifyInstance, message: AnyMessage): unknown
  /** Before the handler, with the payload. */
  preHandler (this: FastifyInstance, message: AnyMessage): unknown
  /** After the handler, however it ended. */
  onSettled (this: FastifyInstance, message: AnyMessage, settlement: Settlement): unknown
  /** For each failure that no error handler has dealt with; instead of the log line. */
  onError (this: FastifyInstance, error: unknown, message: AnyMessage): unknown
  /** When a topic is registered in this scope or below, as Fastify's `onRoute`; not async. */
  onTopic (this: FastifyInstance, topic: TopicRegistration): void
  /** Before a message is published by this scope: what it throws is what the promise rejects with. */
  onPublish (this: FastifyInstance, message: OutgoingMessage): unknown
  /** For a message that no topic matches, whatever scope it was added in. */
  onUnmatched (this: FastifyInstance, message: AnyMessage): unknown
  /** When connected, for the first time or again, whatever scope it was added in. */
  onConnect (this: FastifyInstance): unknown
  /** When a connection is lost or an attempt failed, whatever scope it was added in. */
  onDisconnect (this: FastifyInstance, cause: Error): unknown
  /**
   * With `processes: { mode: 'single' }`: this process has become the owner of the connection, or a member of
   * the group that has another owner; undefined while there is none. Whatever scope it was added in.
   */
  onRole (this: FastifyInstance, role: 'owner' | 'member' | undefined): unknown
}

/** The names of hooks. */
export type HookName = keyof MqttHooks

/** Deals with what a hook, a schema or a handler threw; what it throws itself goes to the scope above. */
export type MqttErrorHandler = (this: FastifyInstance, error: unknown, message: AnyMessage) => unknown

/** Hooks of one topic, which run after those of its scope: a function, or several. */
export type TopicHooks = {
  [K in 'onMessage' | 'preValidation' | 'preHandler' | 'onSettled' | 'onError']?:
    MqttHooks[K] | readonly MqttHooks[K][] | undefined
}
