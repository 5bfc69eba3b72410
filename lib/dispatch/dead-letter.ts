import type { PublishProperties, QoS } from '../../types/message.ts'
import type { DeadLetterHandler } from '../../types/topic.ts'
import { describeError, errorCode, errors } from '../errors.ts'
import { propertiesProblem } from '../guard.ts'
import type { DeliveryPort, FailedDelivery } from './delivery.ts'
import { copyProperties } from './message.ts'
import { retryDelay, type RetryPolicy } from './retry.ts'
import type { Group, Task } from './scheduler.ts'

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
 * One message on its way to the dead letter target. It has no key, so that the messages after it go on, but a
 * slot while the target works on it. The message is acknowledged when the target has it.
 */
export class DeadLetter implements Task {
  wait: Task['wait'] = undefined
  readonly group: Group
  readonly bytes: number
  readonly isDroppable: boolean
  readonly #port: DeliveryPort
  readonly #target: DeadLetterTarget
  readonly #failed: FailedDelivery
  /** Those that say something about the letter. */
  #failures = 0
  #passingFailures = 0

  constructor (port: DeliveryPort, target: DeadLetterTarget, failed: FailedDelivery) {
    this.#port = port
    this.#target = target
    this.#failed = failed
    this.group = failed.group
    this.bytes = failed.bytes
    this.isDroppable = failed.receipt === undefined
    failed.receipt?.hold()
    port.activity.begin()
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
    // A letter that may be dropped has no receipt.
    this.#port.activity.end()
    this.#failed.onEnd?.()
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
    const { match, incoming, error, attempts } = this.#failed
    if (typeof this.#target === 'string') {
      const { payload, qos } = incoming
      const properties = letterProperties(this.#failed)
      await this.#port.publish({ topic: this.#target, payload, qos, properties })
    } else {
      const message = this.#port.pipeline.rawMessage(match, incoming)
      await this.#target.call(match.route.server, message, { error, attempts })
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
    const { match, incoming } = this.#failed
    const { pattern } = match.route
    const problem = clean(() => describeError(cause))
    const error = new errors.FST_MQTT_DEAD_LETTER(pattern, problem, consequence, { cause })
    await failures.report(match.route, error, pipeline.rawMessage(match, incoming))
  }

  #end (): void {
    this.#failed.receipt?.release()
    this.#port.activity.end()
    this.#failed.onEnd?.()
  }
}

/** What came with the message, and why it is a dead letter. */
function letterProperties ({ incoming, error, attempts }: FailedDelivery): PublishProperties {
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
