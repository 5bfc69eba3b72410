import type { PublishProperties, QoS } from '../../types/message.ts'
import { errors } from '../errors.ts'
import {
  maxRemainingLength, millisecondsProblem, propertiesProblem, publishSize, qosProblem
} from '../guard.ts'
import { booleanNamed, defined, kindOf, recordProblem, type Checks } from '../values.ts'
import type { BrokerLimits, OutgoingPublish } from './link.ts'

/** The options of a publish, checked. */
export interface CheckedPublishOptions {
  readonly qos: QoS
  readonly retain: boolean
  readonly properties: PublishProperties | undefined
  readonly absolute: boolean
  readonly timeoutMs: number | undefined
  readonly signal: AbortSignal | undefined
  /** Of the codec; left out where there are no properties. `properties` may have another. */
  readonly contentType?: string | undefined
}

/** @throws `FST_MQTT_PUBLISH_OPTIONS` */
export function checkPublishOptions (options: unknown, defaultQoS: QoS): CheckedPublishOptions {
  if (options === undefined) return defaults[defaultQoS]
  const problem = recordProblem(options, checks)
  if (problem !== undefined) throw new errors.FST_MQTT_PUBLISH_OPTIONS(problem)
  const { qos, retain, properties, absolute, timeout, signal } = options as
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

const defaultsOf = (qos: QoS): CheckedPublishOptions =>
  ({ qos, retain: false, properties: undefined, absolute: false, timeoutMs: undefined, signal: undefined })
const defaults = { 0: defaultsOf(0), 1: defaultsOf(1), 2: defaultsOf(2) } as const

/** The options of a message that goes on to another topic: as much of it as this connection can say. */
export function acceptableOptions (
  { qos, properties }: Pick<OutgoingPublish, 'qos' | 'properties'>,
  { version, limits }: { readonly version: 4 | 5, readonly limits: BrokerLimits }
): CheckedPublishOptions {
  return {
    qos: Math.min(qos, limits.maximumQoS) as QoS,
    retain: false,
    properties: version === 5 ? properties : undefined,
    absolute: true,
    timeoutMs: undefined,
    signal: undefined
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

/** What a PUBLISH has as its properties on the wire. */
export function sentProperties (publish: OutgoingPublish, version: 4 | 5): PublishProperties | undefined {
  const { contentType, properties } = publish
  if (version === 4 || contentType === undefined) return version === 4 ? undefined : properties
  return properties === undefined ? { contentType } : { contentType, ...defined(properties) }
}

function hasProperties (properties: PublishProperties): boolean {
  return Object.values(properties).some((value) => value !== undefined)
}

/**
 * What only the connection can say: its version, and the limits of the broker.
 *
 * @throws `FST_MQTT_NEEDS_MQTT5`, `FST_MQTT_BROKER_LIMIT`
 */
export function assertBrokerAccepts (
  publish: OutgoingPublish, { version, limits }: { readonly version: 4 | 5, readonly limits: BrokerLimits }
): void {
  const { topic, payload, qos, retain, properties } = publish
  if (version === 4 && properties !== undefined && hasProperties(properties)) {
    throw new errors.FST_MQTT_NEEDS_MQTT5('Properties of a publish')
  }
  const { maximumQoS, retainAvailable, maximumPacketSize } = limits
  if (qos > maximumQoS) throw new errors.FST_MQTT_BROKER_LIMIT(`qos is ${qos}, the highest is ${maximumQoS}`)
  if (retain && !retainAvailable) throw new errors.FST_MQTT_BROKER_LIMIT('it keeps no retained messages')
  const maximum = Math.min(maximumPacketSize, maxRemainingLength)
  // A topic has no more than 65,535 bytes: the usual message needs no counting.
  if (properties === undefined && payload.length + 70_000 < maximum) return
  const size = publishSize(topic, payload.length, qos, sentProperties(publish, version), version)
  if (size > maximum) {
    throw new errors.FST_MQTT_BROKER_LIMIT(`the packet has ${size} bytes, the largest is ${maximum}`)
  }
}
