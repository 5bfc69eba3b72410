import type { AnyMessage, Settlement } from '../../types/hooks.ts'
import type { Codec, Handler, MessageOrder } from '../../types/topic.ts'
import { errors } from '../errors.ts'
import { decodePayload, type Codecs } from '../payload/codecs.ts'
import type { Check, Issue } from '../payload/schemas.ts'
import { paramsOf, type Params } from '../topic/params.ts'
import type { PlacedPattern } from '../topic/placed-pattern.ts'
import { kindOf } from '../values.ts'
import type { DeadLetterTarget } from './dead-letter.ts'
import type { Delivery } from './delivery.ts'
import type { Failures, FailingRoute } from './failure.ts'
import { ReceivedMessage, type Incoming, type Recipient } from './message.ts'
import { Passage } from './passage.ts'
import type { Match } from './match.ts'
import { ManualAck } from './receipt.ts'
import type { RetryPolicy } from './retry.ts'

/** A topic as messages see it. */
export interface Route extends Recipient, FailingRoute {
  readonly name: string | undefined
  /** What is taken off the topic name; empty for absolute topics. */
  readonly prefix: string
  readonly placed: PlacedPattern
  /** Of registration, which is the order in which matching topics run. */
  readonly order: number
  readonly checkParams: Check | undefined
  readonly payload: PayloadRule | undefined
  /** Replaced, never changed, when handlers come and go. */
  readonly handlers: readonly MessageHandler[]
  /** False if a converter of the application gives values that a handler could change. */
  readonly sharesParams: boolean
  /** With `ack: 'manual'`: milliseconds after the handler. */
  readonly ackTimeoutMs: number
  /** What is subscribed, by which a copy of a message may have come. */
  readonly filter: string
  /** Handlers that may run at once; undefined if the connection's limit is the only one. */
  readonly concurrency: number | undefined
  /** Undefined for that of the connection. */
  readonly messageOrder: MessageOrder | undefined
  readonly retry: RetryPolicy | undefined
  readonly deadLetter: DeadLetterTarget | undefined
}

export type MessageHandler = Handler<Params, unknown>

/** How the payload of a topic with a schema is read. */
export interface PayloadRule {
  readonly codec: Codec
  readonly check: Check
}

/** How one handler ended, for `inject()`. */
export interface HandlerEnd extends Settlement {
  readonly route: Route
  readonly params: Params
  readonly returned: unknown
}

/** What decoding needs to know. */
export interface PipelineSettings {
  readonly codecs: Codecs
  readonly maxPayload: number
}

/** The way of a message to one handler: hooks, decoding, validation, the handler, failures. */
export class Pipeline {
  readonly #settings: PipelineSettings
  readonly #failures: Failures

  constructor (settings: PipelineSettings, failures: Failures) {
    this.#settings = settings
    this.#failures = failures
  }

  /** The way to one handler, which begins with its `go()`. */
  passage (handler: MessageHandler, delivery: Delivery): Passage {
    const { match: { route }, receipt } = delivery
    const manualAck = route.ack === 'manual' && receipt !== undefined ? new ManualAck(receipt) : undefined
    return this.#passage(handler, delivery, manualAck, 1)
  }

  /** The next attempt, with a message that no attempt has seen. */
  passageAfter ({ handler, manualAck, attempt }: Passage, delivery: Delivery): Passage {
    return this.#passage(handler, delivery, manualAck, attempt + 1)
  }

  /** A message whose payload is not decoded yet. */
  message (match: Match, incoming: Incoming, manualAck?: ManualAck): ReceivedMessage {
    return new ReceivedMessage(incoming, match.route, match.topic, ownParams(match, incoming), manualAck)
  }

  /** A message that is not decoded; its payload is the bytes. */
  rawMessage (match: Match, incoming: Incoming): ReceivedMessage {
    const message = this.message(match, incoming)
    message.payload = message.raw
    return message
  }

  /** The key by which a message is kept in order; that of its topic if the function has none. */
  keyOf (order: (message: AnyMessage) => string, { match, incoming }: Delivery): string {
    const message = this.message(match, incoming)
    try {
      const key: unknown = order.call(match.route.server, message)
      if (typeof key === 'string') return key
      throw new errors.FST_MQTT_ORDER_KEY(match.route.pattern, kindOf(key))
    } catch (error) {
      this.#failures.tell(match.route, error, message)
      return incoming.topic
    }
  }

  #passage (
    handler: MessageHandler, delivery: Delivery, manualAck: ManualAck | undefined, attempt: number
  ): Passage {
    const message = this.message(delivery.match, delivery.incoming, manualAck)
    return new Passage(delivery, message, handler, manualAck, attempt)
  }

  /** Decodes and checks. @throws what makes the message no message for its topic */
  accept ({ route, issue }: Match, message: ReceivedMessage, incoming: Incoming): void {
    if (issue !== undefined) throw invalid(errors.FST_MQTT_PARAMS_INVALID, route.pattern, issue)
    message.payload = this.#payloadOf(route, message, incoming)
  }

  #payloadOf (route: Route, message: ReceivedMessage, { properties }: Incoming): unknown {
    const { maxPayload, codecs } = this.#settings
    const { size } = message
    if (size > maxPayload) throw new errors.FST_MQTT_PAYLOAD_TOO_LARGE(size, maxPayload)
    if (route.payload === undefined) return message.raw
    const own = properties === undefined ? undefined : codecOf(properties, codecs)
    const codec = own ?? route.payload.codec
    const payload = size === 0 ? undefined : decodePayload(codec, message)
    const issue = route.payload.check(payload)
    if (issue !== undefined) throw invalid(errors.FST_MQTT_PAYLOAD_INVALID, route.pattern, issue)
    return payload
  }
}

function codecOf (properties: object, codecs: Codecs): Codec | undefined {
  return 'contentType' in properties ? codecs.forContentType(String(properties.contentType)) : undefined
}

/** Params are worked out once a topic name, unless a converter gives values that a handler could change. */
function ownParams ({ route, params }: Match, incoming: Incoming): Params {
  return route.sharesParams ? params : paramsOf(route.placed, incoming.topic) ?? params
}

/** An error with the issue in the form of Fastify's validation errors. */
export function invalid (
  InvalidError: typeof errors.FST_MQTT_PARAMS_INVALID | typeof errors.FST_MQTT_PAYLOAD_INVALID,
  pattern: string,
  issue: Issue
): Error {
  const place = issue.instancePath === '' ? '' : `${issue.instancePath}: `
  return Object.assign(new InvalidError(pattern, place + issue.message), { validation: [issue] })
}
