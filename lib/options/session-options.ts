import type { MultimqttOptions } from '../../types/options.ts'

type Fail = (key: string, problem: string) => Error

/** How the processes with one program share the broker. */
export type ProcessesSettings =
  | { readonly mode: 'each' }
  | {
    readonly mode: 'single'
    readonly group: string
    readonly dir: string | undefined
    readonly heartbeatMs: number
    readonly ownerTimeoutMs: number
    /** As given; else the group has one. */
    readonly clientId: string | undefined
  }

/** The waits between attempts to connect. */
export interface ReconnectSettings {
  readonly minDelayMs: number
  readonly maxDelayMs: number
}

/** How the processes share the broker. */
export function processesOf (
  { processes = 'each', clientId }: MultimqttOptions, fail: Fail
): ProcessesSettings {
  if (processes === 'each') return { mode: 'each' }
  const { group, dir, heartbeat = 500, ownerTimeout = 5_000 } = processes
  if (ownerTimeout < 2 * heartbeat) {
    throw fail('processes.ownerTimeout',
      `it is ${ownerTimeout} ms, less than two heartbeats of ${heartbeat} ms: an owner that lives would ` +
      'be taken for dead')
  }
  return { mode: 'single', group, dir, heartbeatMs: heartbeat, ownerTimeoutMs: ownerTimeout, clientId }
}

/** Seconds that the broker keeps the session. */
export function sessionExpiryOf (options: MultimqttOptions, fail: Fail): number {
  const isGroup = options.processes !== undefined && options.processes !== 'each'
  const expiry = options.session?.expiry ?? (isGroup ? 3_600 : 0)
  if (isGroup && expiry > 0) return expiry
  if (isGroup) {
    throw fail('session.expiry',
      "it has to be more than 0 with processes.mode 'single': the next owner finds the messages in the session")
  }
  if (expiry === 0 || options.clientId !== undefined) return expiry
  throw fail('session.expiry', 'a session that outlives the connection needs a clientId, by which the broker finds it')
}

/** The waits between attempts to connect. */
export function reconnectOf ({ reconnect = {} }: MultimqttOptions, fail: Fail): ReconnectSettings {
  const minDelayMs = reconnect.minDelay ?? Math.min(250, reconnect.maxDelay ?? 250)
  const maxDelayMs = reconnect.maxDelay ?? Math.max(30_000, minDelayMs)
  if (minDelayMs <= maxDelayMs) return { minDelayMs, maxDelayMs }
  throw fail('reconnect.minDelay', `it is ${minDelayMs}, more than maxDelay, which is ${maxDelayMs}`)
}
