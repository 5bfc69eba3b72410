import { describeError } from './errors.ts'

/** The part of a logger that failures need. */
interface ErrorLog {
  error (facts: object, text: string): void
}

/**
 * Logs what was thrown, which can be anything: pino itself throws for a frozen error, and for one whose
 * message cannot be read.
 */
export function logFailure (log: ErrorLog, error: unknown, facts: object, text: string): void {
  try {
    log.error({ err: error, ...facts }, text)
  } catch {
    log.error({ err: { message: messageOf(error) }, ...facts }, text)
  }
}

function messageOf (error: unknown): string {
  try {
    return describeError(error)
  } catch {
    return 'an error that cannot be read'
  }
}
