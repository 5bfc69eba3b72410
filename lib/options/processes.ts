import { Type } from '@sinclair/typebox'
import { TypeCompiler, ValueErrorType, type ValueError } from '@sinclair/typebox/compiler'
import type { ProcessesOptions, SingleProcesses } from '../../types/processes.ts'
import { errors } from '../errors.ts'
import { describe, isRecord, kindOf } from '../values.ts'

/** The option `processes`, checked and complete. */
export type ProcessSettings =
  | { readonly mode: 'each' }
  | {
    readonly mode: 'single'
    readonly group: string
    readonly dir: string | undefined
    readonly heartbeatMs: number
    readonly ownerTimeoutMs: number
  }

const optional = <T extends Parameters<typeof Type.Optional>[0]>(schema: T) =>
  Type.Optional(Type.Union([schema, Type.Undefined()]))

export const maxGroupLength = 64

const SingleSchema = Type.Object({
  mode: Type.Literal('single'),
  group: Type.String({ pattern: `^[A-Za-z0-9_.-]{1,${maxGroupLength}}$` }),
  handle: optional(Type.Literal('owner')),
  dir: optional(Type.String({ minLength: 1 })),
  heartbeat: optional(Type.Integer({ minimum: 10, maximum: 60_000 })),
  ownerTimeout: optional(Type.Integer({ minimum: 30, maximum: 600_000 }))
}, { additionalProperties: false })

const compiled = TypeCompiler.Compile(SingleSchema)

/** What is expected of each key: TypeBox would say of a group that is missing only that it is no string. */
const expectations: Readonly<Record<keyof SingleProcesses, string>> = {
  mode: "'single'",
  group: 'the name that all processes which share the connection have in common, and no other application ' +
    '(1 to 64 letters, digits, _, . and -)',
  handle: "'owner'",
  dir: 'the path of a directory',
  heartbeat: 'a whole number of milliseconds from 10 to 60000',
  ownerTimeout: 'a whole number of milliseconds from 30 to 600000'
}

/**
 * Checks the option `processes` and fills in what is not given.
 *
 * @throws `FST_MQTT_OPTIONS_INVALID`, which names the key
 */
export function resolveProcesses (given: ProcessesOptions | undefined): ProcessSettings {
  if (given === undefined || given === 'each') return { mode: 'each' }
  const { group, dir, heartbeat = 500, ownerTimeout = 5_000 } = checkSingle(given)
  if (ownerTimeout < 3 * heartbeat) {
    throw invalid('ownerTimeout', `it has to be at least three heartbeats, ${3 * heartbeat} ms, not ${ownerTimeout}`)
  }
  return { mode: 'single', group, dir, heartbeatMs: heartbeat, ownerTimeoutMs: ownerTimeout }
}

function checkSingle (given: unknown): SingleProcesses {
  if (compiled.Check(given)) return given
  if (!isRecord(given)) {
    throw new errors.FST_MQTT_OPTIONS_INVALID('processes',
      `expected 'each' or an object with mode and group, not ${typeof given === 'string' ? describe(given) : kindOf(given)}`)
  }
  const [error] = compiled.Errors(given)
  throw error === undefined ? invalid('mode', 'it does not fit') : problemOf(error)
}

function problemOf ({ path, type, value }: ValueError): Error {
  const key = path.slice(1)
  const isUnknown = type === ValueErrorType.ObjectAdditionalProperties
  return invalid(key, isUnknown
    ? `there is no such option, there are ${Object.keys(expectations).join(', ')}`
    : `expected ${expectations[key as keyof SingleProcesses]}, not ${describe(value)}`)
}

function invalid (key: string, problem: string): Error {
  return new errors.FST_MQTT_OPTIONS_INVALID(`processes.${key}`, problem)
}

/**
 * The seconds for which the broker keeps the session of a group: what comes while another process takes over.
 *
 * @throws `FST_MQTT_OPTIONS_INVALID` for 0
 */
export function groupSessionExpiry (given: number | undefined): number {
  if (given !== 0) return given ?? 3_600
  throw new errors.FST_MQTT_OPTIONS_INVALID('session.expiry', "with processes: { mode: 'single' } it cannot be 0: " +
    'the broker has to keep what comes between the end of one owner and the start of the next. Leave it out for 3600')
}
