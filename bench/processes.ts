import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { endWithUs } from '../test/helpers/programs.ts'
import type { Part, PublisherOutcome, Publishing } from './group-publisher.ts'
import { endProcess, program, startBroker } from './programs.ts'
import { grouped, median, range, table } from './report.ts'

const rounds = 7
/** Milliseconds for one process, about ten times of what it needs. */
const processMs = 60_000

interface Variant extends Publishing {
  readonly name: string
}

const small = { messages: 60_000, payloadBytes: 100, outstanding: 100 }
const large = { messages: 20_000, payloadBytes: 4_096, outstanding: 100 }

const variants: readonly Variant[] = [
  { name: 'own connection, MQTT.js', by: 'MQTT.js', ...small },
  { name: 'own connection, the plugin', by: 'wire', ...small },
  { name: 'member → owner → broker', by: 'group', ...small },
  { name: 'own connection, MQTT.js, 4 KB', by: 'MQTT.js', ...large },
  { name: 'own connection, the plugin, 4 KB', by: 'wire', ...large },
  { name: 'member → owner → broker, 4 KB', by: 'group', ...large },
  { name: 'member → owner alone', by: 'owner alone', ...small, messages: 600_000, outstanding: 5_000 }
]

interface Comparison {
  readonly of: string
  readonly to: string
  readonly hasGoal: boolean
}

const comparisons: readonly Comparison[] = ['', ', 4 KB'].flatMap((size) => [
  { of: `member → owner → broker${size}`, to: `own connection, MQTT.js${size}`, hasGoal: true },
  { of: `member → owner → broker${size}`, to: `own connection, the plugin${size}`, hasGoal: false }
])

/**
 * What it costs to publish by the owner of a group instead of by a connection of one's own: QoS 1, to a
 * Mosquitto. The publisher has a process of its own, and so have the owner and the broker.
 */
export async function benchProcesses (): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'multimqtt-bench-'))
  const broker = await startBroker(directory, 1_000)
  try {
    const outcomes = new Map<string, PublisherOutcome[]>(variants.map(({ name }) => [name, []]))
    for (let round = 0; round < rounds; round++) {
      for (const variant of variants) {
        outcomes.get(variant.name)?.push(await measure(variant, broker.port, directory))
      }
    }
    print(outcomes)
  } finally {
    await endProcess(broker.child)
    rmSync(directory, { recursive: true })
  }
}

async function measure (publishing: Variant, port: number, dir: string): Promise<PublisherOutcome> {
  const target = { port, dir, hasBroker: publishing.by !== 'owner alone' }
  const hasOwner = publishing.by === 'group' || publishing.by === 'owner alone'
  const owner = hasOwner ? start({ part: 'owner', ...target }) : undefined
  try {
    if (owner !== undefined) await answerOf(owner)
    const publisher = start({ part: 'publisher', ...target, publishing })
    try {
      return await answerOf(publisher) as PublisherOutcome
    } finally {
      await endProcess(publisher)
    }
  } finally {
    if (owner !== undefined) await endProcess(owner)
  }
}

function start (part: Part): ChildProcess {
  const child = fork(program('group-publisher.js'), [JSON.stringify(part)])
  endWithUs(child)
  return child
}

async function answerOf (child: ChildProcess): Promise<unknown> {
  const left = once(child, 'exit').then(() => { throw new Error('a process has left without an answer') })
  // Killed when it has answered.
  left.catch(() => {})
  const answer = once(child, 'message', { signal: AbortSignal.timeout(processMs) })
  return (await Promise.race([answer, left]) as unknown[])[0]
}

function print (outcomes: ReadonlyMap<string, readonly PublisherOutcome[]>): void {
  const of = (name: string, key: keyof PublisherOutcome) =>
    (outcomes.get(name) ?? []).map((outcome) => outcome[key])
  console.log(`QoS 1, awaited, at most 100 outstanding (member → owner alone: 5,000); medians of ${rounds} rounds.\n`)
  console.log(table(['variant', 'messages/s', 'range', 'CPU µs/message of the publisher', 'range'],
    variants.map(({ name }) => [
      name,
      grouped(median(of(name, 'rate'))),
      `${grouped(Math.min(...of(name, 'rate')))}–${grouped(Math.max(...of(name, 'rate')))}`,
      median(of(name, 'cpuUs')).toFixed(2),
      range(of(name, 'cpuUs'))
    ])))
  console.log()
  const ratios = (one: string, other: string, key: keyof PublisherOutcome) => {
    const others = of(other, key)
    return of(one, key).map((value, round) => value / (others[round] ?? NaN))
  }
  console.log(table(['as a multiple', 'of', 'rate', 'range', 'goal', 'CPU of the publisher', 'range', 'goal'],
    comparisons.map(({ of: one, to, hasGoal }) => [
      one,
      to,
      median(ratios(one, to, 'rate')).toFixed(2),
      range(ratios(one, to, 'rate')),
      hasGoal ? '≥ 0.65' : '',
      median(ratios(one, to, 'cpuUs')).toFixed(2),
      range(ratios(one, to, 'cpuUs')),
      hasGoal ? '≤ 0.5' : ''
    ])))
  console.log(`\nmember → owner alone: goal ≥ ${grouped(300_000)} messages/s`)
}
