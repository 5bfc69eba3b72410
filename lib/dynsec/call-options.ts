import { errorCode, errors } from '../errors.ts'
import { booleanNamed, describe, isRecord, kindOf, recordProblem, type Checks, type ProblemOf } from '../values.ts'

/** The options of a call, checked. */
export interface CallOptions {
  readonly timeoutMs?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly allowSelf: boolean
  /** The code of the refusal that is as good as success. */
  readonly ignored?: string | undefined
}

/** Options that belong to one kind of calls; the rest is for every call. */
type Extra = 'ifExists' | 'ifMissing' | 'absolute' | 'priority' | 'unchecked' | 'verbose' | 'count' | 'offset' |
  'clientid' | 'roles'

interface Given {
  timeout?: number
  signal?: AbortSignal
  allowSelf?: boolean
  ifExists?: 'error' | 'ignore'
  ifMissing?: 'error' | 'ignore'
}

/**
 * Reads what a call was given: what all calls take, and what goes into the fields of its command.
 *
 * @param extra what this call takes beside that
 * @throws `FST_MQTT_DYNSEC_INVALID`
 */
export function readCall (
  call: string, options: unknown, extra: readonly Extra[] = []
): { options: CallOptions, fields: Record<string, unknown> } {
  const known = Object.fromEntries(Object.entries(checks).filter(([name]) =>
    isCommon(name) || (extra as readonly string[]).includes(name)))
  const problem = options === undefined ? undefined : recordProblem(options, known)
  if (problem !== undefined) throw new errors.FST_MQTT_DYNSEC_INVALID(call, problem)
  const { timeout, signal, allowSelf, ifExists, ifMissing, ...fields } = (options ?? {}) as Given
  return {
    options: {
      timeoutMs: timeout,
      signal,
      allowSelf: allowSelf ?? false,
      ignored: ifExists === 'ignore'
        ? 'FST_MQTT_DYNSEC_ALREADY_EXISTS'
        : ifMissing === 'ignore' ? 'FST_MQTT_DYNSEC_NOT_FOUND' : undefined
    },
    fields
  }
}

const checks: Checks = {
  timeout: (value) => Number.isInteger(value) && (value as number) > 0 && (value as number) < 2 ** 30
    ? undefined
    : `timeout has to be a whole number of milliseconds from 1 to ${2 ** 30 - 1}, not ${describe(value)}`,
  signal: (value) => value instanceof AbortSignal ? undefined : `signal has to be an AbortSignal, not ${kindOf(value)}`,
  allowSelf: booleanNamed('allowSelf'),
  ifExists: errorOrIgnore('ifExists'),
  ifMissing: errorOrIgnore('ifMissing'),
  unchecked: booleanNamed('unchecked'),
  // Fields of the command, which its schema checks.
  ...Object.fromEntries(['absolute', 'priority', 'verbose', 'count', 'offset', 'clientid', 'roles']
    .map((name) => [name, () => undefined]))
}

function isCommon (name: string): boolean {
  return name === 'timeout' || name === 'signal' || name === 'allowSelf'
}

function errorOrIgnore (name: string): ProblemOf {
  return (value) => value === 'error' || value === 'ignore'
    ? undefined
    : `${name} has to be 'error' or 'ignore', not ${describe(value)}`
}

/** Whether an error is the refusal that the caller said does not matter. */
export function isIgnored (error: unknown, { ignored }: CallOptions): boolean {
  return ignored !== undefined && errorCode(error) === ignored
}

/** An argument that has to have named values. @throws `FST_MQTT_DYNSEC_INVALID` */
export function recordOf<T extends object> (call: string, value: T): T {
  if (isRecord(value)) return value
  throw new errors.FST_MQTT_DYNSEC_INVALID(call, `it takes an object, not ${kindOf(value)}`)
}

type Assigned<Field extends string> =
  string | readonly [name: string, priority: number] |
  { [K in Field]: string } & { priority?: number | undefined }

/**
 * Roles or groups to be assigned, as fields of their commands.
 *
 * @throws `FST_MQTT_DYNSEC_INVALID` for what is no list; what stands in it is checked with its command
 */
export function assigned<Field extends 'rolename' | 'groupname'> (
  call: string, field: Field, list: readonly Assigned<Field>[] | undefined
): Record<string, unknown>[] {
  if (list === undefined) return []
  if (!Array.isArray(list)) {
    const name = field === 'rolename' ? 'roles' : 'groups'
    throw new errors.FST_MQTT_DYNSEC_INVALID(call, `${name} has to be a list, not ${kindOf(list)}`)
  }
  return list.map((one: unknown) => {
    const [name, priority] = Array.isArray(one) ? one as unknown[] : [one]
    return isRecord(one) ? one : { [field]: name, priority }
  })
}
