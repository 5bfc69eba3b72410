import { availableParallelism, loadavg } from 'node:os'
import { benchChaos } from './chaos.ts'
import { benchConsume } from './consume.ts'
import { benchDrain } from './drain.ts'
import { benchFailover } from './failover.ts'
import { benchFleet } from './fleet.ts'
import { benchPublish } from './publish.ts'
import { benchProcesses } from './processes.ts'
import { benchRouter } from './router.ts'

const benches = new Map<string, () => Promise<void>>([
  ['router', benchRouter],
  ['consume', benchConsume],
  ['drain', benchDrain],
  ['publish', benchPublish],
  ['processes', benchProcesses],
  ['chaos', benchChaos],
  ['failover', benchFailover],
  ['fleet', benchFleet]
])

/** Only if they are named: they take minutes, and the fleet fetches programs. */
const special: readonly string[] = ['failover', 'fleet']

const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !benches.has(name))

if (unknown.length > 0) {
  console.error(`no bench is called ${unknown.join(', ')}; there are ${[...benches.keys()].join(', ')}`)
  process.exitCode = 1
} else {
  for (const [name, bench] of benches) {
    if (asked.length > 0 ? !asked.includes(name) : special.includes(name)) continue
    const begin = performance.now()
    console.log(`# ${name}\n\nNode.js ${process.version}, ${availableParallelism()} cores, ${load()} before\n`)
    await bench()
    console.log(`\n${load()} after, ${((performance.now() - begin) / 1_000).toFixed(0)} s\n`)
  }
}

// Belongs to the numbers: above one job a core they are dearer, and not all by the same factor.
function load (): string {
  return `load ${loadavg()[0]?.toFixed(1)}`
}
