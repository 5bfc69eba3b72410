import type { Converter } from '../../types/options.ts'
import type { PlacedPattern } from './placed-pattern.ts'

/** What the placeholders of one topic name gave. */
export type Params = Readonly<Record<string, unknown>>

/**
 * Reads the params from a topic name that the pattern's filter matches.
 *
 * @returns undefined if a placeholder does not convert, or would be empty: then the pattern does not match
 */
export function paramsOf (placed: PlacedPattern, absoluteTopic: string): Params | undefined {
  const { levels, placeholders } = placed.pattern
  if (placeholders.length === 0) return noParams
  const texts = absoluteTopic.split('/')
  const params: Record<string, unknown> = {}
  for (const [index, level] of levels.entries()) {
    if (level.kind !== 'placeholder') continue
    const position = index + placed.prefixLevels
    // '#' also matches the parent level, where a path finds nothing left.
    const text = level.isPath ? texts.slice(position).join('/') : texts[position]
    const value = text === undefined || text === '' ? undefined : parseWith(level.converter, text)
    if (value === undefined) return undefined
    params[level.name] = value
  }
  return Object.freeze(params)
}

/** A converter that throws says no as well: what another client publishes must not end this one. */
function parseWith (converter: Converter, text: string): unknown {
  try {
    return converter.parse(text)
  } catch {
    return undefined
  }
}

const noParams: Params = Object.freeze({})
