import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type { Measurement } from './meter.ts'
import { endProcess, program } from './programs.ts'
import type { PublishTask } from './publisher.ts'
import { grouped, median, range, table } from './report.ts'

interface Outcome extends Measurement {
  readonly p50: number | undefined
}

type Kind = Pick<PublishTask, 'qos' | 'window' | 'version' | 'messages'> & { readonly goal: string }

const rounds = 5
const processMs = 60_000

const kinds: Readonly<Record<string, Kind>> = {
  'QoS 0': { qos: 0, window: 1_000, version: 4, messages: 400_000, goal: '≤ 0.25' },
  'QoS 1, window 1,000': { qos: 1, window: 1_000, version: 4, messages: 200_000, goal: '≤ 0.25' },
  'QoS 1, window 1,000, MQTT 5': { qos: 1, window: 1_000, version: 5, messages: 200_000, goal: '' },
  'QoS 1, each awaited': { qos: 1, window: 1, version: 4, messages: 10_000, goal: '' }
}

/** CPU time per message that is published, of the plugin and of MQTT.js alone; paired as in `consume`. */
export async function benchPublish (): Promise<void> {
  const sink = fork(program('sink.js'))
  try {
    const [port] = await once(sink, 'message', { signal: AbortSignal.timeout(processMs) }) as [number]
    const rows: string[][] = []
    for (const [name, kind] of Object.entries(kinds)) rows.push(await compare(name, kind, sink, port))
    console.log(`120 bytes of text, 1,000 topics, all acknowledged or written; medians of ${rounds} rounds.\n`)
    console.log(table([
      'published', 'messages', 'raw: CPU µs/message', 'plugin: CPU µs/message', 'ratio', 'range', 'goal',
      'raw: p50 µs', 'plugin: p50 µs'
    ], rows))
  } finally {
    await endProcess(sink)
  }
}

async function compare (name: string, kind: Kind, sink: ChildProcess, port: number): Promise<string[]> {
  const raw: Outcome[] = []
  const plugin: Outcome[] = []
  for (let round = 0; round < rounds; round++) {
    raw.push(await publish({ ...kind, publisher: 'raw', port }, sink))
    plugin.push(await publish({ ...kind, publisher: 'plugin', port }, sink))
  }
  const cpu = (outcomes: readonly Outcome[]) => outcomes.map(({ cpuUs }) => cpuUs)
  const ratios = cpu(plugin).map((value, round) => value / (cpu(raw)[round] ?? NaN))
  const p50 = (outcomes: readonly Outcome[]) =>
    kind.window === 1 ? median(outcomes.map(({ p50 = NaN }) => p50)).toFixed(0) : ''
  return [
    name, grouped(kind.messages), median(cpu(raw)).toFixed(2), median(cpu(plugin)).toFixed(2),
    median(ratios).toFixed(2), range(ratios), kind.goal, p50(raw), p50(plugin)
  ]
}

async function publish (task: PublishTask, sink: ChildProcess): Promise<Outcome> {
  const counted = once(sink, 'message', { signal: AbortSignal.timeout(processMs) }) as Promise<[{ received: number }]>
  const child = fork(program('publisher.js'), [JSON.stringify(task)])
  try {
    const left = once(child, 'exit').then(() => [])
    const signal = AbortSignal.timeout(processMs)
    const [outcome] = await Promise.race([once(child, 'message', { signal }), left]) as [Outcome?]
    const [{ received }] = await counted
    if (outcome !== undefined && received === task.messages) return outcome
    throw new Error(`${task.publisher}: ${received} of ${task.messages} messages came`)
  } finally {
    await endProcess(child)
  }
}
