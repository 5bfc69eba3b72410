import { errors, type ErrorCode } from '../errors.ts'
import { isRecord } from '../values.ts'

/** An error on its way to another process. */
export interface Failure {
  /** A number for the reason codes of a broker. */
  readonly code: string | number
  readonly message: string
  readonly statusCode?: number | undefined
  /** What the broker has said. */
  readonly reasonCode?: number | undefined
  readonly cause?: Failure | undefined
}

/** Deeper causes are left out. */
const maxDepth = 3

/** What the other process is told of an error: its codes, message and causes; no stack. */
export function failureOf (error: unknown, depth = 1): Failure {
  if (!(error instanceof Error)) return { code: 'UNKNOWN', message: String(error) }
  const { code, statusCode, reasonCode } = error as Partial<Record<'code' | 'statusCode' | 'reasonCode', unknown>>
  return {
    code: typeof code === 'string' || typeof code === 'number' ? code : 'UNKNOWN',
    message: error.message,
    statusCode: typeof statusCode === 'number' ? statusCode : undefined,
    reasonCode: typeof reasonCode === 'number' ? reasonCode : undefined,
    cause: error.cause === undefined || depth === maxDepth ? undefined : failureOf(error.cause, depth + 1)
  }
}

/** The same error here: of the plugin's own class where it is one of them. */
export function errorOf ({ code, message, statusCode, reasonCode, cause }: Failure): Error {
  const error = typeof code === 'string' && Object.hasOwn(errors, code)
    ? ownError(code as ErrorCode, message)
    : Object.assign(new Error(message), { code }, statusCode === undefined ? {} : { statusCode })
  if (reasonCode !== undefined) Object.assign(error, { reasonCode })
  if (cause !== undefined) error.cause = errorOf(cause)
  return error
}

export function isFailure (value: unknown): value is Failure {
  return isRecord(value) && typeof value['message'] === 'string' &&
    (typeof value['code'] === 'string' || typeof value['code'] === 'number') &&
    ['statusCode', 'reasonCode'].every((key) => value[key] === undefined || typeof value[key] === 'number') &&
    (value['cause'] === undefined || isFailure(value['cause']))
}

// The message has its arguments in it already; the stack has to begin with it.
function ownError (code: ErrorCode, message: string): Error {
  const Own = errors[code] as unknown as new () => Error
  const error = new Own()
  error.message = message
  Error.captureStackTrace(error, ownError)
  return error
}
