import type { CheckPattern } from '../../types/pattern.ts'
import type { TopicContract, TopicOptions, TopicParams, TopicPayload } from '../../types/topic.ts'

/**
 * Writes a topic down once, for the services or plugins that share it: needs no connection. The pattern and
 * the options are checked when it is registered with `fastify.mqtt.topic(contract, handler)`.
 *
 * @example
 * export const reading = defineTopic('sensor/<int:id>/reading', {
 *   name: 'reading', payload: Type.Object({ celsius: Type.Number() })
 * })
 */
export function defineTopic<const P extends string, ParamsSchema, PayloadSchema> (
  pattern: CheckPattern<P>, options: TopicOptions<P, ParamsSchema, PayloadSchema> = {}
): TopicContract<P, TopicParams<P, ParamsSchema>, TopicPayload<PayloadSchema>> {
  return Object.freeze({ pattern: pattern as P, options: Object.freeze({ ...options }) as TopicOptions })
}
