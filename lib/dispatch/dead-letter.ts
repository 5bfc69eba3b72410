import type { PublishProperties, QoS } from '../../types/message.ts'
import type { DeadLetterHandler, DeadLetterReason } from '../../types/topic.ts'
import { describeError, errorCode, errors } from '../errors.ts'
import { propertiesProblem } from '../guard.ts'
import type { CourseObserver } from './course.ts'
import type { Delivery, DeliveryPort } from './delivery.ts'
import type { Group } from './group.ts'
import { copyProperties, weightOf, type Incoming } from './message.ts'
import type { Receipt } from './receipt.ts'
import { retryDelay, type RetryPolicy } from './retry.ts'
import type { Task } from './scheduler.ts'

/** Where a topic sends what its handlers could not deal with: an absolute topic name, or a function. */
export type DeadLetterTarget = string | DeadLetterHandler

/** A message to be published to a dead letter topic. */
export interface LetterPublish {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  /** For MQTT 5. */
  readonly properties: PublishProperties
}

/** A target that fails is tried again so often, in about two minutes; then the letter is told and lost. */
const policy: RetryPolicy = { limit: 9, delayMs: 500, factor: 2 }
const maxDelayMs = 30_000

/**
 * What says nothing about the letter: the broker is away, or cannot follow. As long as it is like that the
 * message cannot be acknowledged either.
 */
const passing: ReadonlySet<string> = new Set([
  'FST_MQTT_OFFLINE', 'FST_MQTT_OUTBOX_FULL', 'FST_MQTT_DELIVERY_UNKNOWN', 'FST_MQTT_PUBLISH_TIMEOUT'
])

/**
 * Sends a message that has failed for good to the dead letter target of its topic.
 *
 * @param observer told when that is over
 * @returns false if the topic has none
 */
export function bury (
  delivery: Delivery, error: unknown, attempts: number, observer?: CourseObserver
): boolean {
  const { deadLetter } = delivery.match.route
  if (deadLetter === undefined) return false
  new DeadLetter(delivery, deadLetter, { error, attempts }, observer).start()
  return true
}

/**
 * One message on its way to the dead letter target. It is in no lane, so that the messages after it go
 * on; while the target works on it, it has a slot. The message is acknowledged when the target has it.
 */
class DeadLetter implements Task {
  wait: Task['wait'] = undefined
  readonly group: Group
  readonly #port: DeliveryPort
  readonly #delivery: Delivery
  readonly #target: DeadLetterTarget
  readonly #reason: DeadLetterReason
  readonly #receipt: Receipt | undefined
  readonly #observer: CourseObserver | undefined
  /** Those that say something about the letter, or about its target. */
  #failures = 0
  #passingFailures = 0

  constructor (
    delivery: Delivery,
    target: DeadLetterTarget,
    reason: DeadLetterReason,
    observer: CourseObserver | undefined
  ) {
    const { group, port, receipt, match } = delivery
    this.group = group
    this.#port = port
    this.#delivery = delivery
    this.#target = target
    this.#reason = reason
    this.#receipt = match.route.ack === 'before' ? undefined : receipt
    this.#observer = observer
    this.#receipt?.hold()
    port.activity.begin()
    delivery.incoming.keep?.()
  }

  get bytes (): number {
    return weightOf(this.#delivery.incoming)
  }

  get isDroppable (): boolean {
    return this.#receipt === undefined
  }

  /** At once where there is a slot; as there is when a handler has just left it. */
  start (): void {
    const { scheduler } = this.#port
    if (scheduler.hasSlot(this.group)) this.proceed()
    else scheduler.enqueue(this)
  }

  proceed (): void {
    this.#port.scheduler.begin(this.group)
    void this.#attempt()
  }

  lose (): void {
    // One that may be dropped has no receipt, and one that is given up is not acknowledged.
    this.#leave()
  }

  async #attempt (): Promise<void> {
    let error: unknown
    let hasFailed = false
    try {
      await this.#send()
    } catch (thrown) {
      error = thrown
      hasFailed = true
    }
    this.#port.scheduler.end(this.group)
    if (hasFailed) {
      await this.#onFailure(error)
    } else {
      this.#port.counters.deadLettered++
      this.#end()
    }
  }

  async #send (): Promise<void> {
    const { match, incoming } = this.#delivery
    if (typeof this.#target === 'string') {
      const { qos } = incoming
      // Of its own: the outbox may keep it longer than what was read with it.
      const payload = Buffer.from(incoming.payload)
      const properties = letterProperties(incoming, this.#reason)
      await this.#port.publish({ topic: this.#target, payload, qos, properties })
    } else {
      const message = this.#port.pipeline.rawMessage(match, incoming)
      await this.#target.call(match.route.server, message, this.#reason)
    }
  }

  /** Told each time. It is not lost while the broker is away. */
  async #onFailure (cause: unknown): Promise<void> {
    if (passing.has(errorCode(cause))) this.#passingFailures++
    else this.#failures++
    const isLast = this.#failures > policy.limit
    const delayMs = Math.min(maxDelayMs, retryDelay(policy, this.#failures + this.#passingFailures))
    await this.#report(cause, isLast ? 'it is given up' : `it is tried again in ${delayMs} ms`)
    if (isLast) this.#end()
    else this.#port.scheduler.enqueueAfter(this, delayMs)
  }

  async #report (cause: unknown, consequence: string): Promise<void> {
    const { failures, pipeline } = this.#port
    const { match, incoming } = this.#delivery
    const { pattern } = match.route
    const problem = clean(() => describeError(cause))
    const error = new errors.FST_MQTT_DEAD_LETTER(pattern, problem, consequence, { cause })
    await failures.report(match.route, error, pipeline.rawMessage(match, incoming))
  }

  #end (): void {
    this.#receipt?.release()
    this.#leave()
  }

  #leave (): void {
    this.#delivery.incoming.drop?.()
    this.#port.activity.end()
    this.#observer?.onEnd()
  }
}

/** What came with the message, and why it is a dead letter. */
function letterProperties (incoming: Incoming, { error, attempts }: DeadLetterReason): PublishProperties {
  const reason = {
    'dead-letter-code': clean(() => errorCode(error)),
    'dead-letter-message': clean(() => describeError(error)),
    'dead-letter-topic': clean(() => incoming.topic),
    'dead-letter-attempts': String(attempts)
  }
  const { contentType, payloadFormatIndicator, responseTopic, correlationData, userProperties } =
    copyProperties(incoming.properties ?? {})
  const properties = {
    contentType,
    payloadFormatIndicator,
    responseTopic,
    correlationData,
    userProperties: { ...userProperties, ...reason }
  }
  // Others may have sent what this side would not.
  return propertiesProblem(properties) === undefined ? properties : { userProperties: reason }
}

const maxReasonLength = 1_000

/** Text that may stand in a packet. What was thrown can be anything, also what cannot be read. */
function clean (read: () => string): string {
  try {
    const text = read().slice(0, maxReasonLength).toWellFormed()
    return text.replaceAll(/[\p{Cc}\p{Noncharacter_Code_Point}]/gu, ' ')
  } catch {
    return 'unreadable'
  }
}
