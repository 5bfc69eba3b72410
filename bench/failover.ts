import type { Owner } from '../test/helpers/cleanup.ts'
import {
  endScene, goalsMs, groupFaults, groupsFor, startScene, window, type End, type GroupFault
} from '../test/helpers/group-faults.ts'
import { endPrograms, type Kind } from '../test/helpers/group.ts'
import { grouped, median, table } from './report.ts'

/** How often each thing happens to each group: more often where it is about times. */
const rounds = { timed: 5, others: 2 }

type Round = End & { readonly afterMs: number | undefined }

/**
 * What a group loses, and how long nothing is handled, when its owner dies, closes or is stuck, and when a
 * member or the broker does. What happens, and the workers that it happens to, are those of
 * test/mosquitto-group.test.ts.
 */
export async function benchFailover (): Promise<void> {
  const rows: string[][] = []
  try {
    for (const fault of groupFaults) {
      for (const [group, workers] of groupsFor(fault)) {
        rows.push(rowOf(fault, group, await measure(fault, workers)))
      }
    }
  } finally {
    await endPrograms()
  }
  console.log('Heartbeat 250 ms, ownerTimeout 1,500 ms; a window of Mosquitto is 20 messages.\n')
  console.log(table(['', 'workers', 'rounds', 'sent', 'lost', 'twice, most', 'allowed', 'acked but lost', 'failed',
    'never settled', 'sockets left', 'handling again, ms', 'most', 'goal'], rows))
}

async function measure (fault: GroupFault, workers: readonly Kind[]): Promise<Round[]> {
  const outcomes: Round[] = []
  for (let round = fault.noticed === undefined ? rounds.others : rounds.timed; round > 0; round--) {
    const tasks: (() => unknown)[] = []
    const owner: Owner = { after: (task) => { tasks.push(task as () => unknown) } }
    try {
      const scene = await startScene(owner, workers)
      const afterMs = await fault.run(scene)
      await scene.load.more(100)
      outcomes.push({ ...await endScene(scene), afterMs })
    } finally {
      for (const task of tasks.reverse()) await task()
    }
  }
  return outcomes
}

function rowOf ({ name, windows, noticed }: GroupFault, group: string, outcomes: readonly Round[]): string[] {
  const sum = (key: keyof End) => outcomes.reduce((total, one) => total + one[key], 0)
  const times = outcomes.map(({ afterMs }) => afterMs).filter((time) => time !== undefined)
  return [
    name,
    group,
    String(outcomes.length),
    grouped(sum('sent')),
    String(sum('lost')),
    String(Math.max(...outcomes.map(({ duplicates }) => duplicates))),
    String(windows * window),
    String(sum('lostByGroup')),
    String(sum('failedByGroup')),
    String(sum('hanging')),
    String(sum('sockets')),
    ...noticed === undefined
      ? ['', '', '']
      : [grouped(median(times)), grouped(Math.max(...times)), `< ${grouped(goalsMs[noticed])}`]
  ]
}
