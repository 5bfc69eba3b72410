import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Router } from '../lib/router/router.ts'
import { TopicCache } from '../lib/router/topic-cache.ts'
import { grouped, median, scattered, table } from './report.ts'

const sizes = [10, 1_000, 100_000] as const
const rounds = 9
const warmUps = 3
const matchesPerRound = 20_000
/** Topics that are in use where the cache is to hit: fewer than it holds. */
const busyTopics = 1_000

/** What filters a router holds, and the topic name that the one of an index matches. */
interface Shape {
  readonly name: string
  readonly filter: (index: number, size: number) => string
  readonly topic: (index: number) => string
}

const topic = (index: number) => `site/${index % 97}/device/${index}/temperature`

const broad = ['#', 'site/#', 'site/+/device/+/temperature', '+/+/+/+/temperature']

const shapes: readonly Shape[] = [
  { name: 'exact', filter: topic, topic },
  { name: 'wildcard', filter: wildcard, topic },
  {
    name: 'mix',
    // The last four are broad, so that they match every topic: five matches each.
    filter: (index, size) => broad[index - size + broad.length] ?? narrow(index),
    topic
  }
]

function narrow (index: number): string {
  return index % 5 === 4 ? wildcard(index) : topic(index)
}

function wildcard (index: number): string {
  return `site/+/device/${index}/temperature`
}

/** Nanoseconds per match of the router, alone and behind the cache that the dispatcher has. */
export async function benchRouter (): Promise<void> {
  const rows = shapes.flatMap((shape) => sizes.map((size) => {
    const { router, bytes } = build(shape, size)
    const alone = (name: string) => router.match(name).length
    const few = Math.min(size, busyTopics)
    return [
      `${shape.name}, ${grouped(size)}`,
      grouped(alone(shape.topic(0))),
      grouped(measure(shape, size, alone)),
      grouped(measure(shape, few, alone)),
      grouped(measure(shape, few, cached(router))),
      size > few ? grouped(measure(shape, size, cached(router))) : '',
      // Below a thousand the heap's own noise is larger than the filters.
      size < 1_000 ? '' : grouped(bytes / size)
    ]
  }))
  console.log(`ns per match, on fresh strings in random order; medians of ${rounds} rounds.\n`)
  console.log(table([
    'filters', 'matches', 'not cached, all topics', `not cached, ≤ ${grouped(busyTopics)} topics`,
    `cached, ≤ ${grouped(busyTopics)} topics`, 'cached, all topics', 'bytes/filter'
  ], rows))
}

/** As Dispatcher does it, without the params. */
function cached (router: Router<number>): (topic: string) => number {
  const cache = new TopicCache<readonly number[]>()
  return (topic) => {
    const known = cache.get(topic)
    if (known !== undefined) return known.length
    const found = router.match(topic)
    cache.set(topic, found)
    return found.length
  }
}

function measure (shape: Shape, topics: number, match: (topic: string) => number): number {
  const names = Array.from({ length: topics }, (_, index) => Buffer.from(shape.topic(index)))
  const next = scattered(topics)
  const times: number[] = []
  for (let round = 0; round < warmUps + rounds; round++) {
    // Decoded from bytes as MQTT.js does it: flat, and without the hash that a string keeps as a key.
    const fresh = Array.from({ length: matchesPerRound }, () => names[next()]?.toString() ?? '')
    let found = 0
    const begin = performance.now()
    for (const name of fresh) found += match(name)
    const ms = performance.now() - begin
    if (found < matchesPerRound) throw new Error(`${shape.name}: only ${found} of ${matchesPerRound} matched`)
    if (round >= warmUps) times.push(ms * 1e6 / matchesPerRound)
  }
  return median(times)
}

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** The bytes are those of the heap, with the strings of the filters, without the values. */
function build (shape: Shape, size: number): { router: Router<number>, bytes: number } {
  collectGarbage()
  const before = process.memoryUsage().heapUsed
  const router = new Router<number>()
  for (let index = 0; index < size; index++) router.add(shape.filter(index, size), index)
  collectGarbage()
  return { router, bytes: process.memoryUsage().heapUsed - before }
}
