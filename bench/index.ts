import { availableParallelism, loadavg } from 'node:os'
import { benchChaos } from './chaos.ts'
import { benchConsume } from './consume.ts'
import { benchFleet } from './fleet.ts'
import { benchPublish } from './publish.ts'
import { benchProcesses } from './processes.ts'
import { benchRouter } from './router.ts'

const benches = new Map<string, () => Promise<void>>([
  ['router', benchRouter],
  ['consume', benchConsume],
  ['publish', benchPublish],
  ['processes', benchProcesses],
  ['chaos', benchChaos],
  ['fleet', benchFleet]
])

const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !benches.has(name))

if (unknown.length > 0) {
  console.error(`no bench is called ${unknown.join(', ')}; there are ${[...benches.keys()].join(', ')}`)
  process.exitCode = 1
} else {
  for (const [name, bench] of benches) {
    // The fleet fetches programs, so only if it is named.
    if (asked.length > 0 ? !asked.includes(name) : name === 'fleet') continue
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
