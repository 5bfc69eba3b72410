import { Type } from '@sinclair/typebox'

/** What the feed sends and the consumers expect. */
export interface Traffic {
  /** A multiple of `blockSize`. */
  readonly messages: number
  /** Distinct topic names; a divisor of `devices`. */
  readonly topics: number
  readonly qos: 0 | 1
  /** With QoS 1: messages that may wait for their acknowledgement. */
  readonly window: number
}

/** A consumer publishes its wishes here, in JSON, when it has subscribed. */
export const requestTopic = 'bench/request'

/** Messages that the feed makes once and then repeats. */
export const blockSize = 10_000

/** Numbers that a device may have: one handler each where there are 10,000. */
export const devices = 10_000

/** The name of topic `index`: spread over the devices, so that every part of a large router is visited. */
export function topicName (index: number, { topics }: Pick<Traffic, 'topics'>): string {
  return `site/${index % 10}/device/${index * (devices / topics)}/reading`
}

export const payloadBytes = 120

export const readingSchema = Type.Object({
  id: Type.String(),
  sequence: Type.Integer({ minimum: 0 }),
  celsius: Type.Number(),
  humidity: Type.Number({ minimum: 0, maximum: 100 }),
  charging: Type.Boolean(),
  at: Type.Integer()
})

/** Six fields of 120 bytes: the size of a usual sensor's message. */
export function payloadText (sequence: number): string {
  const reading = {
    id: '',
    sequence,
    celsius: (200 + sequence % 100) / 10,
    humidity: 40 + sequence % 50,
    charging: sequence % 2 === 0,
    at: 1_760_000_000_000 + sequence
  }
  const missing = payloadBytes - JSON.stringify(reading).length
  return JSON.stringify({ ...reading, id: 'sensor'.padEnd(missing, '0') })
}
