import type { QoS } from '../../types/message.ts'
import type { DeadLetterHandler, MessageOrder, RetryOptions } from '../../types/topic.ts'
import { errors } from '../errors.ts'
import { qosProblem, topicNameProblem } from '../guard.ts'
import {
  booleanNamed, describe, isRecord, kindOf, recordProblem, type Checks, type ProblemOf
} from '../values.ts'

/** The options of a topic, checked and complete. */
export interface CheckedTopicOptions {
  readonly name: string | undefined
  readonly qos: QoS
  readonly absolute: boolean
  readonly noLocal: boolean
  readonly retainAsPublished: boolean
  readonly retainHandling: 0 | 1 | 2
  readonly params: unknown
  readonly payload: unknown
  readonly codec: string | undefined
  readonly ack: 'after' | 'before' | 'manual'
  readonly ackTimeoutMs: number
  readonly concurrency: number | undefined
  readonly order: MessageOrder | undefined
  readonly retry: Retry | undefined
  /** A topic name as it was given, or a function. */
  readonly deadLetter: string | DeadLetterHandler | undefined
  readonly logLevel: string | undefined
  readonly hooks: TopicHookLists
}

interface Retry {
  readonly limit: number
  readonly delayMs: number
  readonly factor: number
}

/** The hooks of a topic, each as a list. */
export type TopicHookLists = Partial<Record<typeof hookNames[number], readonly TopicHook[]>>
type TopicHook = (this: unknown, ...args: unknown[]) => unknown

const hookNames = ['onMessage', 'preValidation', 'preHandler', 'onSettled', 'onError'] as const

/** @throws `FST_MQTT_TOPIC_OPTIONS` */
export function checkTopicOptions (pattern: string, options: unknown): CheckedTopicOptions {
  const problem = recordProblem(options, checks)
  if (problem !== undefined) throw new errors.FST_MQTT_TOPIC_OPTIONS(pattern, problem)
  const given = options as Partial<Omit<CheckedTopicOptions, 'retry'>> & { retry?: RetryOptions }
  const checked = {
    name: given.name,
    qos: given.qos ?? 0,
    absolute: given.absolute ?? false,
    noLocal: given.noLocal ?? false,
    retainAsPublished: given.retainAsPublished ?? false,
    retainHandling: given.retainHandling ?? 0,
    params: given.params,
    payload: given.payload,
    codec: given.codec,
    ack: given.ack ?? 'after',
    ackTimeoutMs: (given as { ackTimeout?: number }).ackTimeout ?? 30_000,
    concurrency: given.concurrency,
    order: given.order,
    retry: given.retry && {
      limit: given.retry.limit, delayMs: given.retry.delay ?? 1_000, factor: given.retry.factor ?? 2
    },
    deadLetter: given.deadLetter,
    logLevel: given.logLevel,
    hooks: hooksOf(options as Record<string, unknown>)
  }
  if (checked.noLocal && pattern.startsWith('$share/')) {
    throw new errors.FST_MQTT_TOPIC_OPTIONS(pattern, 'noLocal cannot go with a shared subscription [MQTT-3.8.3-4]')
  }
  if (checked.codec !== undefined && checked.payload === undefined) {
    throw new errors.FST_MQTT_TOPIC_OPTIONS(pattern, 'codec needs a payload schema, without one the payload is bytes')
  }
  return checked
}

const checks: Checks = {
  name: (value) => typeof value === 'string' && value !== ''
    ? undefined
    : `name has to be a string that is not empty, not ${describe(value)}`,
  qos: qosProblem,
  absolute: booleanNamed('absolute'),
  noLocal: booleanNamed('noLocal'),
  retainAsPublished: booleanNamed('retainAsPublished'),
  retainHandling: (value) => value === 0 || value === 1 || value === 2
    ? undefined
    : `retainHandling has to be 0, 1 or 2, not ${describe(value)}`,
  // Schemas are checked by the compiler, which knows them.
  params: () => undefined,
  payload: () => undefined,
  ...Object.fromEntries(hookNames.map((name) => [name, hooksNamed(name)])),
  ack: (value) => value === 'after' || value === 'before' || value === 'manual'
    ? undefined
    : `ack has to be 'after', 'before' or 'manual', not ${describe(value)}`,
  ackTimeout: (value) => Number.isInteger(value) && (value as number) > 0 && (value as number) < 2 ** 31
    ? undefined
    : `ackTimeout has to be a whole number of milliseconds from 1 to 2147483647, not ${describe(value)}`,
  concurrency: (value) => Number.isSafeInteger(value) && (value as number) > 0
    ? undefined
    : `concurrency has to be a whole number from 1 on, not ${describe(value)}`,
  order: (value) => value === 'topic' || value === 'none' || typeof value === 'function'
    ? undefined
    : `order has to be 'topic', 'none' or a function, not ${describe(value)}`,
  retry: retryProblem,
  deadLetter: (value) => {
    const problem = typeof value === 'function' ? undefined : topicNameProblem(value)
    return problem === undefined ? undefined : `deadLetter has to be a topic name or a function: ${problem}`
  },
  logLevel: (value) => typeof value === 'string' && value !== ''
    ? undefined
    : `logLevel has to be the name of a level, not ${describe(value)}`,
  codec: (value) => typeof value === 'string' ? undefined : `codec has to be a name, not ${describe(value)}`
}

function retryProblem (value: unknown): string | undefined {
  const problem = recordProblem(value, retryChecks)
  if (problem !== undefined) return `retry: ${problem}`
  return isRecord(value) && value['limit'] !== undefined ? undefined : 'retry: limit is missing'
}

const retryChecks: Checks = {
  limit: (value) => Number.isSafeInteger(value) && (value as number) >= 0
    ? undefined
    : `limit has to be a whole number from 0 on, not ${describe(value)}`,
  delay: (value) => Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 31
    ? undefined
    : `delay has to be a whole number of milliseconds from 0 to 2147483647, not ${describe(value)}`,
  factor: (value) => Number.isFinite(value) && (value as number) >= 1
    ? undefined
    : `factor has to be a number from 1 on, not ${describe(value)}`
}

function hooksNamed (name: string): ProblemOf {
  return (value) => {
    const wrong = [value].flat().find((hook) => typeof hook !== 'function')
    return wrong === undefined ? undefined : `${name} has to be a function or a list of functions, not ${kindOf(wrong)}`
  }
}

function hooksOf (options: Record<string, unknown>): TopicHookLists {
  return Object.fromEntries(hookNames.map((name) => [name, [options[name] ?? []].flat() as TopicHook[]]))
}
