import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { Consumer, Outcome, Task } from './consumer.ts'
import { endProcess, program } from './programs.ts'
import { grouped, median, range, table } from './report.ts'

interface Variant {
  readonly name: string
  readonly consumer: Consumer
  readonly version: 4 | 5
  readonly topics: number
  readonly qos?: 1
  readonly window?: number
}

interface Comparison {
  readonly name: string
  readonly of: string
  readonly to: string
  /** The most that the first may cost, as a multiple of the second. */
  readonly goal: number | undefined
}

const rounds = 5
const messages = 1_000_000
/** Milliseconds for one process, about ten times of what it needs. */
const processMs = 30_000

const hookCounts = [1, 2, 5, 11] as const

const variants: readonly Variant[] = [
  { name: 'raw-count', consumer: 'raw-count', version: 4, topics: 1_000 },
  { name: 'plugin-full', consumer: 'plugin-full', version: 4, topics: 1_000 },
  { name: 'raw-json', consumer: 'raw-json', version: 4, topics: 1_000 },
  ...hookCounts.map((count) => (
    { name: `plugin-hooks-${count}`, consumer: `plugin-hooks-${count}`, version: 4, topics: 1_000 } as const
  )),
  { name: 'plugin-10000', consumer: 'plugin-10000', version: 4, topics: 1_000 },
  { name: 'plugin-full, 10,000 topics', consumer: 'plugin-full', version: 4, topics: 10_000 },
  { name: 'plugin-10000, 10,000 topics', consumer: 'plugin-10000', version: 4, topics: 10_000 },
  { name: 'raw-count, MQTT 5', consumer: 'raw-count', version: 5, topics: 1_000 },
  { name: 'plugin-full, MQTT 5', consumer: 'plugin-full', version: 5, topics: 1_000 },
  { name: 'raw-count, QoS 1, window 20', consumer: 'raw-count', version: 4, topics: 1_000, qos: 1, window: 20 },
  { name: 'plugin-late, QoS 1, window 20', consumer: 'plugin-late', version: 4, topics: 1_000, qos: 1, window: 20 },
  {
    name: 'raw-count, QoS 1, window 1,000', consumer: 'raw-count', version: 4, topics: 1_000, qos: 1, window: 1_000
  },
  {
    name: 'plugin-late, QoS 1, window 1,000',
    consumer: 'plugin-late',
    version: 4,
    topics: 1_000,
    qos: 1,
    window: 1_000
  }
]

const comparisons: readonly Comparison[] = [
  { name: 'full pipeline / raw counting', of: 'plugin-full', to: 'raw-count', goal: 0.7 },
  { name: 'full pipeline / raw JSON.parse', of: 'plugin-full', to: 'raw-json', goal: undefined },
  { name: '10,000 handlers / 1', of: 'plugin-10000', to: 'plugin-full', goal: 1.3 },
  {
    name: '10,000 handlers / 1, each with a message',
    of: 'plugin-10000, 10,000 topics',
    to: 'plugin-full, 10,000 topics',
    goal: 1.3
  },
  {
    name: 'full pipeline / raw counting, MQTT 5', of: 'plugin-full, MQTT 5', to: 'raw-count, MQTT 5', goal: 0.7
  },
  {
    name: 'late ack, full pipeline / raw counting, QoS 1, window 20',
    of: 'plugin-late, QoS 1, window 20',
    to: 'raw-count, QoS 1, window 20',
    goal: 0.6
  },
  {
    name: 'late ack, full pipeline / raw counting, QoS 1, window 1,000',
    of: 'plugin-late, QoS 1, window 1,000',
    to: 'raw-count, QoS 1, window 1,000',
    goal: 0.35
  }
]

/**
 * CPU time per message of the plugin and of MQTT.js alone, each in a fresh process on the same feed, one
 * after the other and round after round: what disturbs the machine disturbs both.
 */
export async function benchConsume (): Promise<void> {
  const feed = fork(program('feed.js'))
  try {
    const [port] = await once(feed, 'message', { signal: AbortSignal.timeout(processMs) }) as [number]
    const outcomes = new Map<string, Outcome[]>(variants.map(({ name }) => [name, []]))
    for (let round = 0; round < rounds; round++) {
      for (const { name, ...variant } of variants) {
        outcomes.get(name)?.push(await consume({ qos: 0, window: 0, ...variant, port, messages }))
      }
    }
    print(outcomes)
  } finally {
    await endProcess(feed)
  }
}

/** Runs a consumer in a process of its own. */
export async function consume (task: Task): Promise<Outcome> {
  const child = fork(program('consumer.js'), [JSON.stringify(task)])
  try {
    // A child that fails has written why to stderr, and leaves without a message.
    const left = once(child, 'exit').then(() => [])
    const signal = AbortSignal.timeout(processMs)
    const [outcome] = await Promise.race([once(child, 'message', { signal }), left]) as [Outcome?]
    if (outcome?.delivered === task.messages) return outcome
    throw new Error(`${task.consumer} received ${outcome?.delivered ?? 'none'} of ${task.messages} messages`)
  } finally {
    await endProcess(child)
  }
}

function print (outcomes: ReadonlyMap<string, readonly Outcome[]>): void {
  const cpu = (name: string) => (outcomes.get(name) ?? []).map(({ cpuUs }) => cpuUs)
  console.log(`120 bytes of JSON, ${grouped(messages)} messages a process, all delivered in each; ` +
    `medians of ${rounds} rounds.\n`)
  console.log(table(['variant', 'topics', 'CPU µs/message', 'range', 'messages/s'], variants.map(
    ({ name, topics }) => [
      name,
      grouped(topics),
      median(cpu(name)).toFixed(2),
      range(cpu(name)),
      grouped(median((outcomes.get(name) ?? []).map(({ rate }) => rate)))
    ])))
  const without = cpu('plugin-full')
  console.log(`\n${table(['empty synchronous hooks', 'µs for each', 'range', 'goal'], hookCounts.map((count) => {
    const each = cpu(`plugin-hooks-${count}`).map((value, round) => (value - (without[round] ?? NaN)) / count)
    return [String(count), median(each).toFixed(3), range(each), '≤ 0.1']
  }))}`)
  console.log()
  console.log(table(['cost as a multiple', 'median', 'range', 'goal'], comparisons.map(({ name, of, to, goal }) => {
    const others = cpu(to)
    const ratios = cpu(of).map((value, round) => value / (others[round] ?? NaN))
    return [name, median(ratios).toFixed(2), range(ratios), goal === undefined ? '' : `≤ ${goal}`]
  })))
}
