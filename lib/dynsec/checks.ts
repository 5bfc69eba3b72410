import type { TObject, TSchema } from '@sinclair/typebox'
import { TypeCompiler, type TypeCheck } from '@sinclair/typebox/compiler'
import type { ValueError } from '@sinclair/typebox/errors'
import { errors } from '../errors.ts'
import { maxFieldBytes, textProblem } from '../guard.ts'
import { defined, isRecord, kindOf, type ProblemOf } from '../values.ts'
import { placeTopic } from './acl-topics.ts'
import { commands, specOf } from './commands.ts'

/** A command as it is sent, but for its correlation data. */
export interface WireCommand {
  readonly command: string
  readonly [field: string]: unknown
}

/**
 * Checks a command and gives the one to be sent, with its topics behind the prefix.
 *
 * @param where which of several it is, for messages
 * @throws `FST_MQTT_DYNSEC_INVALID`, `FST_MQTT_TOPIC_OUTSIDE_PREFIX`
 */
export function prepareCommand (
  command: unknown, given: unknown, prefix: string, where = ''
): WireCommand {
  const name = typeof command === 'string' ? command : kindOf(command)
  const refuse = (problem: string): never => {
    throw new errors.FST_MQTT_DYNSEC_INVALID(name + where, problem)
  }
  const spec = specOf(name)
  if (spec === undefined) {
    return refuse(`there is no such command, there are ${Object.keys(commands).join(', ')}`)
  }
  if (!isRecord(given)) return refuse(`its fields have to be an object, not ${kindOf(given)}`)
  const { request } = spec
  const problem = unknownField(given, request) ?? shapeProblem(given, request) ?? textsProblem(given)
  if (problem !== undefined) return refuse(problem)
  return { command: name, ...placeTopics(defined(given), prefix, name + where) }
}

function unknownField (given: Record<string, unknown>, { properties }: TObject): string | undefined {
  const field = Object.keys(given).find((key) => given[key] !== undefined && !Object.hasOwn(properties, key))
  if (field === undefined) return undefined
  const known = Object.keys(properties).join(', ') || 'none'
  const reason = field === 'roles' || field === 'groups' || field === 'clients'
    ? ': within a command they corrupt the memory of the plugin, use commands of their own'
    : ''
  return `there is no field '${field}', there are ${known}${reason}`
}

const compiled = new WeakMap<TSchema, TypeCheck<TSchema>>()

/** What does not fit a schema, as half a sentence, or undefined. */
export function shapeProblem (given: unknown, schema: TSchema): string | undefined {
  const check = compiled.get(schema) ?? TypeCompiler.Compile(schema)
  compiled.set(schema, check)
  if (check.Check(given)) return undefined
  const error = check.Errors(given).First()
  return error === undefined ? 'invalid' : problemOf(innermost(error))
}

function problemOf ({ path, message, value, schema }: ValueError): string {
  const choices = literalsOf(schema)
  const expectation = choices.length > 0 ? `expected one of ${choices.join(', ')}` : message
  // Told by its kind, not shown: it may be a password.
  return `${place(path)}${expectation}, got ${kindOf(value)}`
}

/** Of a field that may be left out: what is wrong with it where it is not. */
function innermost (error: ValueError): ValueError {
  const inner = literalsOf(error.schema).length > 0 ? undefined : error.errors[0]?.First()
  return inner === undefined ? error : innermost(inner)
}

function literalsOf ({ anyOf }: TSchema): string[] {
  const choices: unknown[] = Array.isArray(anyOf) ? anyOf : []
  return choices.flatMap((one) => isRecord(one) && 'const' in one ? [String(one['const'])] : [])
}

/** 'acls.0.priority: ' for '/acls/0/priority'. */
function place (pointer: string): string {
  return pointer === '' ? '' : `${pointer.slice(1).replaceAll('/', '.')}: `
}

function textsProblem (given: Record<string, unknown>): string | undefined {
  for (const [key, value] of Object.entries(given)) {
    const problem = typeof value === 'string' && Object.hasOwn(textChecks, key) ? textChecks[key]?.(value) : undefined
    if (problem !== undefined) return `${key}: ${problem}`
  }
  return undefined
}

// The plugin has C strings: what follows a NUL is cut off, so that one account could pass for another. A lone
// surrogate makes the whole message "Payload not valid JSON", which is answered without correlation data.
const textChecks: Readonly<Record<string, ProblemOf>> = {
  username: nameProblem,
  groupname: nameProblem,
  rolename: nameProblem,
  clientid: textProblem,
  textname: proseProblem,
  textdescription: proseProblem,
  password: (password) => password === ''
    // The broker would ignore it, or make a client that cannot log in.
    ? 'it is empty'
    : proseProblem(password) ?? (Buffer.byteLength(password as string) > maxFieldBytes
      ? `it has more than ${maxFieldBytes} bytes`
      : undefined)
}

function nameProblem (name: unknown): string | undefined {
  return name === '' ? 'it is empty' : textProblem(name)
}

/** Text that the broker does not check: line breaks may stand in it. */
function proseProblem (text: unknown): string | undefined {
  if (!(text as string).isWellFormed()) return 'it has a lone surrogate, which is no Unicode'
  return (text as string).includes('\0')
    ? 'it has the character U+0000, at which the broker would cut it off'
    : undefined
}

type Fields = Record<string, unknown>

function placeTopics (given: Fields, prefix: string, command: string): Fields {
  const { topic, absolute, acls, ...others } = given
  const placed: Fields = { ...others }
  if (typeof topic === 'string') placed['topic'] = placeTopic(prefix, topic, absolute === true, command)
  if (Array.isArray(acls)) {
    placed['acls'] = acls.map((acl: Fields) => placeTopics(defined(acl), prefix, command))
    refuseDuplicates(placed['acls'] as { acltype: string, topic?: string }[], command)
  }
  return placed
}

/** Mosquitto 2.0.11 stores both, and can remove only one. */
function refuseDuplicates (acls: readonly { acltype: string, topic?: string }[], command: string): void {
  const seen = new Set<string>()
  for (const { acltype, topic } of acls) {
    const key = JSON.stringify([acltype, topic])
    if (seen.has(key)) {
      throw new errors.FST_MQTT_DYNSEC_INVALID(command, `acls: there are two entries ${acltype} of one topic`)
    }
    seen.add(key)
  }
}
