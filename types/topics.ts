import type { ParamsOf } from './pattern.ts'
import type { Topic, TopicContract } from './topic.ts'

/**
 * The names that `topicFor` knows the params of, by declaration merging: each with its pattern, its contract
 * or the `Topic` itself. Names that are not declared here can still be used, with untyped params.
 *
 * @example
 * declare module 'fastify-multimqtt' {
 *   interface MqttTopics { room: 'room/<name>', reading: typeof readingContract }
 * }
 */
export interface MqttTopics {}

/**
 * The namespaces of an application, by declaration merging.
 *
 * @example
 * declare module 'fastify-multimqtt' {
 *   interface MqttInstances { telemetry: Mqtt }
 * }
 */
export interface MqttInstances {}

// Tuples keep the conditionals from distributing: over a union of 500 names tsc would work out each for each
// call.
/** The params that a declared name takes. */
export type ParamsOfDeclared<D> =
  [D] extends [string]
    ? ParamsOf<D>
    : [D] extends [TopicContract<string, infer Params, infer _>]
        ? Params
        : [D] extends [Topic<infer Params, infer _>] ? Params : Record<string, unknown>
