import type {
  FastifyBaseLogger, FastifyTypeProvider, RawReplyDefaultExpression, RawRequestDefaultExpression,
  RawServerBase
} from 'fastify'
import type { Mqtt } from './mqtt.ts'
import type { MqttInstances } from './topics.ts'

/** `fastify.mqtt`: the default connection, with the namespaces of the application. */
export type FastifyMqtt<Provider extends FastifyTypeProvider> = Mqtt<Provider> & MqttInstances

// With the type parameters of Fastify's own declaration, so that the instance's type provider reaches the
// topics.
/* eslint-disable @typescript-eslint/no-unused-vars -- merging demands every type parameter by its name */
declare module 'fastify' {
  interface FastifyInstance<
    RawServer extends RawServerBase,
    RawRequest extends RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer>,
    Logger extends FastifyBaseLogger,
    TypeProvider extends FastifyTypeProvider
  > {
    /** The MQTT connection of this context; see the `Mqtt` interface. */
    mqtt: FastifyMqtt<TypeProvider>
  }

  interface RegisterOptions {
    /** Begins every topic that the plugin registers, between the global prefix and the pattern. */
    topicPrefix?: string
  }
}
