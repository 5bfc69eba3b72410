import { FormatRegistry, Kind, TransformKind, type TSchema } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import type { ValidatorCompiler } from '../../types/options.ts'
import { describeError, errors } from '../errors.ts'
import { isRecord, kindOf } from '../values.ts'

/** What is wrong with a value, by JSON pointer. */
export interface Issue {
  readonly instancePath: string
  readonly message: string
}

/** Checks a value: undefined if it is valid. Never changes it. */
export type Check = (value: unknown) => Issue | undefined

/** Compiles schemas, each only once however many topics share it. */
export class SchemaCompiler {
  readonly #compiled = new WeakMap<object, Check>()
  readonly #validatorCompiler: ValidatorCompiler | undefined

  constructor (validatorCompiler: ValidatorCompiler | undefined) {
    this.#validatorCompiler = validatorCompiler
  }

  /** @throws `FST_MQTT_SCHEMA_INVALID` */
  compile (schema: unknown, place: 'params' | 'payload'): Check {
    if (typeof schema !== 'object' || schema === null) {
      throw new errors.FST_MQTT_SCHEMA_INVALID(place, `it has to be a schema, not ${kindOf(schema)}`)
    }
    let check = this.#compiled.get(schema)
    if (check === undefined) {
      check = this.#validatorCompiler === undefined
        ? compileTypeBox(schema, place)
        : compileWith(this.#validatorCompiler, schema, place)
      this.#compiled.set(schema, check)
    }
    return check
  }
}

function compileTypeBox (schema: object, place: string): Check {
  if (!(Kind in schema)) {
    throw new errors.FST_MQTT_SCHEMA_INVALID(place,
      'it is no schema of @sinclair/typebox; for those of other libraries set the option validatorCompiler')
  }
  const problem = unsupported(schema)
  if (problem !== undefined) throw new errors.FST_MQTT_SCHEMA_INVALID(place, problem)
  try {
    const compiled = TypeCompiler.Compile(schema as TSchema)
    return guarded((value) => {
      if (compiled.Check(value)) return undefined
      const first = compiled.Errors(value).First()
      // Told by its kind, not shown: a payload may carry secrets.
      return {
        instancePath: first?.path ?? '',
        message: `${first?.message ?? 'invalid'}, got ${kindOf(first?.value)}`
      }
    })
  } catch (error) {
    throw new errors.FST_MQTT_SCHEMA_INVALID(place, describeError(error), { cause: error })
  }
}

/** What TypeBox compiles without complaint and then refuses, or ignores, at each message. */
function unsupported (schema: unknown): string | undefined {
  if (Array.isArray(schema)) return firstProblem(schema)
  if (!isRecord(schema)) return undefined
  if (TransformKind in schema) return 'Type.Transform is not supported: transform the payload in the handler'
  const { type, format } = schema
  if (type === 'string' && typeof format === 'string' && !FormatRegistry.Has(format)) {
    return `unknown format '${format}': known are ${[...FormatRegistry.Entries().keys()].join(', ')}; ` +
      'register more with FormatRegistry.Set of @sinclair/typebox'
  }
  const parts = Object.entries(schema).filter(([key]) => !dataKeywords.has(key))
  return firstProblem(parts.map(([key, part]) => mapKeywords.has(key) ? Object.values(part as object) : part))
}

// Their values are data, not schemas.
const dataKeywords = new Set(['const', 'default', 'enum', 'examples'])
// Their keys are names of the application's own: a property may be called 'default'.
const mapKeywords = new Set(['properties', 'patternProperties', '$defs'])

function firstProblem (schemas: readonly unknown[]): string | undefined {
  for (const schema of schemas) {
    const problem = unsupported(schema)
    if (problem !== undefined) return problem
  }
  return undefined
}

function compileWith (compiler: ValidatorCompiler, schema: object, place: 'params' | 'payload'): Check {
  let validate: ReturnType<ValidatorCompiler>
  try {
    validate = compiler({ schema, httpPart: place === 'params' ? 'params' : 'body' })
  } catch (error) {
    throw new errors.FST_MQTT_SCHEMA_INVALID(place, describeError(error), { cause: error })
  }
  if (typeof validate !== 'function') {
    throw new errors.FST_MQTT_SCHEMA_INVALID(place,
      `validatorCompiler has to return a function, not ${kindOf(validate)}`)
  }
  return guarded((value) => issueOf(validate(value), validate))
}

/** A check that throws, as a format of the application or a recursion may, refuses the value. */
function guarded (check: Check): Check {
  return (value) => {
    try {
      return check(value)
    } catch (error) {
      return issueFrom(error)
    }
  }
}

/** Reads the answers that Fastify's validator compilers give: ajv's boolean, or `{ error }`, or an Error. */
function issueOf (result: unknown, validate: object): Issue | undefined {
  if (result === true || result === undefined) return undefined
  if (result === false) {
    const [first]: unknown[] = 'errors' in validate && Array.isArray(validate.errors) ? validate.errors : []
    return issueFrom(first)
  }
  if (result instanceof Error) return issueFrom(result)
  const { error, then } = Object(result) as { error?: unknown, then?: unknown }
  if (typeof then === 'function') {
    return { instancePath: '', message: 'the check answers with a promise, it has to answer at once' }
  }
  if (error === undefined || error === null) return undefined
  return issueFrom(Array.isArray(error) ? error[0] : error)
}

function issueFrom (error: unknown): Issue {
  const { instancePath, message } = (typeof error === 'object' ? error ?? {} : {}) as Partial<Issue>
  return { instancePath: instancePath ?? '', message: message ?? 'invalid' }
}
