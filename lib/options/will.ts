import type { PublishProperties, QoS } from '../../types/message.ts'
import type { MultimqttOptions, PresenceOptions, WillOptions } from '../../types/options.ts'
import { describeError } from '../errors.ts'
import { propertiesProblem, topicNameProblem } from '../guard.ts'
import { bytesOf } from '../payload/bytes.ts'
import { withPrefix } from '../topic/prefix.ts'

/** What the broker publishes when the connection ends without a word. */
export interface Will {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  /** Seconds after which it is published. */
  readonly delaySeconds: number
  readonly properties: PublishProperties | undefined
}

/** The retained message that says whether this client is there. */
export interface Presence {
  readonly topic: string
  readonly qos: QoS
  readonly online: Buffer
  readonly offline: Buffer
}

type Fail = (key: string, problem: string) => Error

/** The will of the options, which is that of `presence` where there is one. */
export function willOf (options: MultimqttOptions, prefix: string, fail: Fail): Will | undefined {
  if (options.will !== undefined && options.presence !== undefined) {
    throw fail('presence', 'it is a will already: give either will or presence')
  }
  const presence = presenceOf(options, prefix, fail)
  if (presence !== undefined) {
    const { topic, qos, offline } = presence
    return { topic, payload: offline, qos, retain: true, delaySeconds: 0, properties: undefined }
  }
  const { will } = options
  if (will === undefined) return undefined
  const problem = will.properties === undefined ? undefined : propertiesProblem(will.properties)
  if (problem !== undefined) throw fail('will.properties', problem)
  return {
    topic: topicOf('will', will, prefix, fail),
    payload: payloadOf('will.payload', will.payload, fail),
    qos: will.qos ?? 0,
    retain: will.retain ?? false,
    delaySeconds: will.delay ?? 0,
    properties: will.properties
  }
}

/** The presence of the options. */
export function presenceOf (
  { presence }: MultimqttOptions, prefix: string, fail: Fail
): Presence | undefined {
  if (presence === undefined) return undefined
  return {
    topic: topicOf('presence', presence, prefix, fail),
    qos: presence.qos ?? 1,
    online: payloadOf('presence.online', presence.online, fail),
    offline: payloadOf('presence.offline', presence.offline, fail)
  }
}

function topicOf (
  key: string, { topic, absolute }: WillOptions | PresenceOptions, prefix: string, fail: Fail
): string {
  const problem = topicNameProblem(topic) ??
    (topic.startsWith('$') && absolute !== true ? 'it begins with $: set absolute to mean that' : undefined)
  if (problem !== undefined) throw fail(`${key}.topic`, problem)
  return absolute === true ? topic : withPrefix(prefix, topic)
}

function payloadOf (key: string, payload: unknown, fail: Fail): Buffer {
  try {
    const bytes = bytesOf(payload)
    if (bytes.length > 65_535) throw new RangeError(`it has ${bytes.length} bytes, a will has at most 65535`)
    return bytes
  } catch (error) {
    throw fail(key, describeError(error))
  }
}
