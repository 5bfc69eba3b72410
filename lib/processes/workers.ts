import cluster from 'node:cluster'
import { isMainThread } from 'node:worker_threads'
import { isRecord } from '../values.ts'

/** What tells whether this process is one of several; another one in tests. */
export interface Hints {
  readonly isClusterWorker: boolean
  readonly isMainThread: boolean
  readonly env: Readonly<Record<string, string | undefined>>
  /** `globalThis.platformatic`, which Watt sets. */
  readonly platformatic: unknown
}

/**
 * What this process is, if it looks as though the application has several workers: a phrase for a warning.
 * `cluster.isPrimary` would say nothing: it is true in every thread of Watt.
 */
export function workerHint (hints: Hints = hintsHere()): string | undefined {
  const { env, platformatic } = hints
  const pm2 = pm2Hint(env)
  if (pm2 !== undefined) return pm2
  if (isRecord(platformatic) && platformatic['workerId'] !== undefined) return 'a worker of Watt'
  if (hints.isClusterWorker) return 'a worker of node:cluster'
  return hints.isMainThread ? undefined : 'a worker thread'
}

// In fork mode the first of several instances is told from a single one only by their number.
function pm2Hint (env: Hints['env']): string | undefined {
  const instance = env['NODE_APP_INSTANCE'] ?? env['pm_id']
  if (instance === undefined) return undefined
  const isOnly = env['exec_mode'] === 'fork_mode' && env['instances'] === '1' && env['NODE_APP_INSTANCE'] === '0'
  return isOnly ? undefined : `instance ${instance} of PM2`
}

/**
 * The one warning of mode `'each'` with several workers.
 *
 * @param clientId if it is a fixed one
 */
export function workersWarning (hint: string, clientId: string | undefined): string {
  const shared = clientId === undefined
    ? 'each of them has a connection of its own, and handles every message'
    : `all of them connect as '${clientId}', and the broker lets only the last one in: they cut each other off`
  return `this process is ${hint}, so there may be several workers: ${shared}. ` +
    "Set processes: { mode: 'single', group: '…' } to share one connection, or processes: 'each' to mean this"
}

function hintsHere (): Hints {
  return {
    isClusterWorker: cluster.isWorker,
    isMainThread,
    env: process.env,
    platformatic: (globalThis as { platformatic?: unknown }).platformatic
  }
}
