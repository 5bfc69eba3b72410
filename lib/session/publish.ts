import type { PublishProperties, QoS } from '../../types/message.ts'
import { errors } from '../errors.ts'
import {
  maxRemainingLength, millisecondsProblem, propertiesProblem, publishSize, qosProblem, topicNameProblem
} from '../guard.ts'
import { booleanNamed, kindOf, recordProblem, type Checks } from '../values.ts'
import type { BrokerLimits, OutgoingPublish } from './connection.ts'

/** The options of a publish, checked. */
export interface CheckedPublishOptions {
  readonly qos: QoS
  readonly retain: boolean
  readonly properties: PublishProperties | undefined
  readonly absolute: boolean
  readonly timeoutMs: number | undefined
  readonly signal: AbortSignal | undefined
}

/** @throws `FST_MQTT_PUBLISH_OPTIONS` */
export function checkPublishOptions (options: unknown, defaultQoS: QoS): CheckedPublishOptions {
  const problem = recordProblem(options === undefined ? {} : options, checks)
  if (problem !== undefined) throw new errors.FST_MQTT_PUBLISH_OPTIONS(problem)
  const { qos, retain, properties, absolute, timeout, signal } = (options ?? {}) as
    Partial<CheckedPublishOptions> & { timeout?: number }
  return {
    qos: qos ?? defaultQoS,
    retain: retain ?? false,
    properties,
    absolute: absolute ?? false,
    timeoutMs: timeout,
    signal
  }
}

const checks: Checks = {
  qos: qosProblem,
  retain: booleanNamed('retain'),
  properties: propertiesProblem,
  absolute: booleanNamed('absolute'),
  timeout: millisecondsProblem,
  signal: (value) => value instanceof AbortSignal
    ? undefined
    : `signal has to be an AbortSignal, not ${kindOf(value)}`
}

/**
 * The PUBLISH for an absolute topic name, after the last checks: those that the connection decides.
 *
 * @throws `FST_MQTT_TOPIC_NAME`, `FST_MQTT_NEEDS_MQTT5`, `FST_MQTT_BROKER_LIMIT`
 */
export function preparePublish (
  topic: string,
  payload: Buffer,
  options: CheckedPublishOptions,
  connection: { readonly version: 4 | 5, readonly limits: BrokerLimits }
): OutgoingPublish {
  const { qos, retain, properties } = options
  const problem = topicNameProblem(topic)
  if (problem !== undefined) throw new errors.FST_MQTT_TOPIC_NAME(topic, problem)
  if (connection.version === 4 && Object.values(properties ?? {}).some((value) => value !== undefined)) {
    throw new errors.FST_MQTT_NEEDS_MQTT5('Properties of a publish')
  }
  const size = publishSize(topic, payload.length, qos, properties, connection.version)
  const { maximumQoS, retainAvailable, maximumPacketSize } = connection.limits
  if (qos > maximumQoS) throw new errors.FST_MQTT_BROKER_LIMIT(`qos is ${qos}, the highest is ${maximumQoS}`)
  if (retain && !retainAvailable) throw new errors.FST_MQTT_BROKER_LIMIT('it keeps no retained messages')
  const maximum = Math.min(maximumPacketSize, maxRemainingLength)
  if (size > maximum) {
    throw new errors.FST_MQTT_BROKER_LIMIT(`the packet has ${size} bytes, the largest is ${maximum}`)
  }
  return { topic, payload, qos, retain, properties }
}
