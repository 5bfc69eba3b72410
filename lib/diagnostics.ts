import { describeError } from './errors.ts'

type Level = 'debug' | 'warn' | 'error'

/** The part of a logger that failures need at one level. */
type ErrorLog<L extends Level> = Readonly<Record<L, (facts: object, text: string) => void>>

/**
 * Logs what was thrown, which can be anything: pino itself throws for a frozen error, and for one whose
 * message cannot be read.
 */
export function logFailure (log: ErrorLog<'error'>, error: unknown, facts: object, text: string): void {
  logAt(log, 'error', error, facts, text)
}

/** The same at any level. */
export function logAt<L extends Level> (
  log: ErrorLog<L>, level: L, error: unknown, facts: object, text: string
): void {
  try {
    log[level]({ err: error, ...facts }, text)
  } catch {
    log[level]({ err: { message: messageOf(error) }, ...facts }, text)
  }
}

function messageOf (error: unknown): string {
  try {
    return describeError(error)
  } catch {
    return 'an error that cannot be read'
  }
}
