import cluster from 'node:cluster'
import { isMainThread } from 'node:worker_threads'

/** What tells of several workers with one program; another one in tests. */
export interface WorkerHints {
  readonly isClusterWorker: boolean
  readonly isMainThread: boolean
  readonly env: Readonly<Record<string, string | undefined>>
  readonly platformatic: unknown
}

/**
 * How this process shows that it is one of several with the same program; undefined if it does not. Not by
 * `cluster.isPrimary`, which is true in worker threads.
 */
export function workerHint (hints: WorkerHints = surroundings()): string | undefined {
  const { env, platformatic } = hints
  // PM2 first: its workers are of node:cluster too.
  if (env['NODE_APP_INSTANCE'] !== undefined || env['pm_id'] !== undefined) return 'an instance of PM2'
  if (isObject(platformatic) && platformatic['workerId'] !== undefined) return 'a worker of Watt'
  if (hints.isClusterWorker) return 'a worker of node:cluster'
  return hints.isMainThread ? undefined : 'a worker thread'
}

function surroundings (): WorkerHints {
  const { platformatic } = globalThis as { platformatic?: unknown }
  return { isClusterWorker: cluster.isWorker, isMainThread, env: process.env, platformatic }
}

function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
