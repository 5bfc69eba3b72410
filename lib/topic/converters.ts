import type { Converter } from '../../types/options.ts'
import { levelProblem } from '../guard.ts'
import { describe, kindOf } from '../values.ts'

/** The converters of a connection by name: the built-in ones and the application's own. */
export type Converters = ReadonlyMap<string, Converter>

/**
 * One value, one text, both ways: what `format` writes `parse` reads as the same value. Other texts are no
 * value, so that the pattern does not match; nothing is ever coerced.
 */
export const builtInConverters: Converters = new Map<string, Converter>([
  ['str', { parse: (text) => text, format: formatText }],
  ['path', { parse: (text) => text, format: formatText }],
  ['int', { parse: parseInteger, format: formatInteger }],
  ['float', { parse: parseFloatingPoint, format: formatFloatingPoint }],
  ['uuid', { parse: parseUuid, format: formatUuid }]
])

/** The built-in converters with an application's own, which may replace all but `path`. */
export function withConverters (own: Readonly<Record<string, Converter>> = {}): Converters {
  return new Map([...builtInConverters, ...Object.entries(own)])
}

/**
 * The text of a value for one placeholder.
 *
 * @throws TypeError with what was given and what would be accepted
 */
export function formatValue (converterName: string, converter: Converter, value: unknown): string {
  const text = converter.format(value)
  const problem = levelProblem(text, converterName === 'path')
  if (problem !== undefined) throw new TypeError(`${describe(text)} cannot stand in a topic: ${problem}`)
  if (converter.parse(text) === undefined) {
    throw new TypeError(`the converter '${converterName}' does not parse what it formatted, ${describe(text)}`)
  }
  return text
}

function formatText (value: unknown): string {
  if (typeof value === 'string') return value
  throw new TypeError(`it has to be a string, not ${kindOf(value)}`)
}

const integer = /^-?(?:0|[1-9]\d*)$/

function parseInteger (text: string): number | undefined {
  if (!integer.test(text)) return undefined
  const value = Number(text)
  return Number.isSafeInteger(value) && !Object.is(value, -0) ? value : undefined
}

function formatInteger (value: unknown): string {
  if (Number.isSafeInteger(value) && !Object.is(value, -0)) return String(value)
  throw new TypeError(`it has to be a safe integer, not ${describe(value)}`)
}

const decimal = /^-?(?:0|[1-9]\d*)(?:\.\d+)?$/

function parseFloatingPoint (text: string): number | undefined {
  if (!decimal.test(text)) return undefined
  const value = Number(text)
  return Number.isFinite(value) && !Object.is(value, -0) ? value : undefined
}

function formatFloatingPoint (value: unknown): string {
  if (typeof value === 'number' && Number.isFinite(value) && !Object.is(value, -0)) return withoutExponent(value)
  throw new TypeError(`it has to be a finite number, not ${describe(value)}`)
}

/** 1e21 would be '1e+21', and + is a wildcard: the shortest digits are kept, only the point moves. */
function withoutExponent (value: number): string {
  const parts = /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(String(value))
  if (parts === null) return String(value)
  const [, sign = '', first = '', fraction = '', exponentText = ''] = parts
  const exponent = Number(exponentText)
  const digits = first + fraction
  return exponent < 0
    ? `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`
    : sign + digits.padEnd(exponent + 1, '0')
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** Upper and lower case are both accepted and kept: topics are case-sensitive. */
function parseUuid (text: string): string | undefined {
  return uuid.test(text) ? text : undefined
}

function formatUuid (value: unknown): string {
  if (typeof value === 'string' && uuid.test(value)) return value
  throw new TypeError(`it has to be a UUID in the form 8-4-4-4-12, not ${describe(value)}`)
}
