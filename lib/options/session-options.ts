import type { MultimqttOptions } from '../../types/options.ts'
import { groupSessionExpiry, resolveProcesses } from './processes.ts'

type Fail = (key: string, problem: string) => Error

/** The waits between attempts to connect. */
export interface ReconnectSettings {
  readonly minDelayMs: number
  readonly maxDelayMs: number
}

/** Seconds that the broker keeps the session. */
export function sessionExpiryOf (options: MultimqttOptions, fail: Fail): number {
  if (resolveProcesses(options.processes).mode === 'single') return groupSessionExpiry(options.session?.expiry)
  const expiry = options.session?.expiry ?? 0
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
