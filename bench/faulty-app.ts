import Fastify from 'fastify'
import { multimqtt } from '../lib/index.ts'
import { Pace } from './pace.ts'

// A program of its own: the application of faults.ts. It publishes, and handles what comes with handlers that
// fail, and tells what it has seen twice a second. It ends by itself when it is told to close.

/** What it is told, as its only argument, in JSON. */
export interface FaultyAppTask {
  readonly url: string
  readonly rate: number
  /** Each so many-th message fails always, and has to become a dead letter. */
  readonly hopelessEach: number
}

/** What it tells. */
export interface FaultyAppReport {
  /** Numbers of messages: handled, given to the dead letter target, published and acknowledged. */
  readonly handled: readonly number[]
  readonly dead: readonly number[]
  readonly confirmed: readonly number[]
  readonly refused: Readonly<Record<string, number>>
  readonly published: number
  readonly pending: number
  readonly heapBytes: number
  readonly rssBytes: number
  readonly status: string
  readonly attempts: number
  readonly retried: number
  readonly unacked: number
  readonly running: number
  readonly isGuardGranted: boolean
  readonly lines: Readonly<Record<string, number>>
}

const task = JSON.parse(process.argv[2] ?? '') as FaultyAppTask
const lines: Record<string, number> = {}
const app = Fastify({
  logger: {
    level: 'warn',
    stream: {
      write (text: string) {
        const { msg } = JSON.parse(text) as { msg: string }
        // Without addresses and times, of which there is no end.
        const kind = msg.replaceAll(/[\d.:]+/g, '#').slice(0, 90)
        lines[kind] = (lines[kind] ?? 0) + 1
      }
    }
  }
})
await app.register(multimqtt, {
  url: task.url,
  clientId: 'faulty-app',
  session: { expiry: 3_600 },
  keepalive: 2,
  reconnect: { minDelay: 50, maxDelay: 1_000 },
  start: 'background',
  publishTimeout: 600_000,
  drainTimeout: 5_000,
  outbox: { maxMessages: 100_000 }
})

let handled: number[] = []
let dead: number[] = []
let confirmed: number[] = []
const refused: Record<string, number> = {}
let published = 0
let pending = 0

app.mqtt.topic('work/<int:key>', {
  qos: 1,
  retry: { limit: 3, delay: 20, factor: 2 },
  deadLetter: (message) => { dead.push(Number(message.text())) }
}, async (message) => {
  const number = Number(message.text())
  await new Promise((resolve) => setTimeout(resolve, Math.random() * 8))
  if (number % task.hopelessEach === 0 || Math.random() < 0.02) throw new Error('as planned')
  handled.push(number)
})
app.mqtt.topic('guarded/#', { qos: 1 }, () => {})
// Its one line for each failure is what this script makes by the thousand.
app.mqtt.addHook('onError', () => {})
await app.ready()

const pace = new Pace(task.rate, (number) => {
  published++
  pending++
  app.mqtt.publish(`back/${number % 10}`, String(number), { qos: 1 }).then(() => {
    pending--
    confirmed.push(number)
  }, (error: Error & { code?: string }) => {
    pending--
    refused[error.code ?? error.message] = (refused[error.code ?? error.message] ?? 0) + 1
  })
})
const reporting = setInterval(report, 500)

process.on('message', (order: 'pause' | 'close') => {
  pace.stop()
  if (order === 'close') void close()
})
process.on('disconnect', () => process.exit())

async function close (): Promise<void> {
  clearInterval(reporting)
  await app.close()
  report()
  // Nothing else is left to keep the process.
  process.disconnect()
}

function report (): void {
  global.gc?.()
  const { heapUsed, rss } = process.memoryUsage()
  const { attempts, status, subscriptions } = app.mqtt.health()
  const { retried, unacked, running } = app.mqtt.stats()
  const told: FaultyAppReport = {
    handled,
    dead,
    confirmed,
    refused,
    published,
    pending,
    heapBytes: heapUsed,
    rssBytes: rss,
    status,
    attempts,
    retried,
    unacked,
    running,
    isGuardGranted: subscriptions.granted.some(({ filter }) => filter === 'guarded/#'),
    lines
  }
  handled = []
  dead = []
  confirmed = []
  process.send?.(told)
}
