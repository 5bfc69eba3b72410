import type { Converter } from '../../types/options.ts'
import { errors } from '../errors.ts'
import { textProblem, topicFilterProblem } from '../guard.ts'
import { kindOf } from '../values.ts'
import type { Converters } from './converters.ts'

/** One level of a pattern. */
export type Level =
  | { readonly kind: 'literal', readonly text: string }
  | { readonly kind: 'wildcard', readonly text: '+' | '#' }
  | Placeholder

/** A level that gives a param. */
export interface Placeholder {
  readonly kind: 'placeholder'
  readonly name: string
  readonly converterName: string
  readonly converter: Converter
  /** A path takes all levels that are left; it can only be the last level. */
  readonly isPath: boolean
}

/** A topic pattern, read. */
export interface Pattern {
  /** As it was given. */
  readonly text: string
  /** The levels without `$share/<group>`. */
  readonly levels: readonly Level[]
  readonly placeholders: readonly Placeholder[]
  /** The group of a shared subscription. */
  readonly share: string | undefined
  /** True if a `+` or `#` has no name: then no topic name can be made from the pattern. */
  readonly hasWildcard: boolean
  /** The topic filter for the levels, without `$share/<group>`. */
  readonly filter: string
}

/**
 * Reads a topic pattern: levels are literal, `+`, `#` at the end, or one placeholder such as `<name>` or
 * `<int:n>`.
 *
 * @throws `FST_MQTT_TOPIC_PATTERN` with a sentence that says what would be right; types/pattern.ts has the
 *   same sentences as compile errors
 */
export function parsePattern (text: unknown, converters: Converters): Pattern {
  const problem = text === '' ? 'a topic pattern cannot be empty' : textProblem(text)
  if (problem !== undefined) throw new errors.FST_MQTT_TOPIC_PATTERN(problem, typeof text === 'string' ? text : kindOf(text))
  const pattern = text as string
  const refuse = (sentence: string): never => {
    throw new errors.FST_MQTT_TOPIC_PATTERN(sentence, pattern)
  }
  const { share, rest } = splitShare(pattern, refuse)
  const texts = rest.split('/')
  const last = texts.length - 1
  const levels = texts.map((level, index) => parseLevel(level, index === last, converters, refuse))
  const placeholders = levels.filter((level) => level.kind === 'placeholder')
  refuseDuplicates(placeholders, refuse)
  const filter = levels.map(filterOfLevel).join('/')
  const filterProblem = topicFilterProblem(filter)
  if (filterProblem !== undefined) refuse(filterProblem)
  const hasWildcard = levels.some((level) => level.kind === 'wildcard')
  return { text: pattern, levels, placeholders, share, filter, hasWildcard }
}

type Refuse = (sentence: string) => never

function splitShare (pattern: string, refuse: Refuse): { share: string | undefined, rest: string } {
  if (pattern !== '$share' && !pattern.startsWith('$share/')) return { share: undefined, rest: pattern }
  const groupEnd = pattern.indexOf('/', '$share/'.length)
  const share = pattern.slice('$share/'.length, groupEnd)
  const rest = pattern.slice(groupEnd + 1)
  if (groupEnd === -1 || share === '' || rest === '') {
    return refuse('a shared subscription is $share/<group>/<pattern>')
  }
  if (/[+#<>]/.test(share)) {
    return refuse(`the group of a shared subscription is plain text, '${share}' is not`)
  }
  return { share, rest }
}

function parseLevel (text: string, isLast: boolean, converters: Converters, refuse: Refuse): Level {
  const inner = /^<(.*)>$/s.exec(text)?.[1]
  if (inner !== undefined && !/[<>]/.test(inner)) return parsePlaceholder(text, inner, isLast, converters, refuse)
  if (/<.*>/s.test(text)) return refuse(`a placeholder must be a whole level, '${text}' is not`)
  if (text === '+') return { kind: 'wildcard', text }
  if (text === '#') return isLast ? { kind: 'wildcard', text } : refuse("'#' must be the last level")
  if (/[+#]/.test(text)) return refuse(`a wildcard must be a whole level, '${text}' is not`)
  return { kind: 'literal', text }
}

function parsePlaceholder (
  text: string, inner: string, isLast: boolean, converters: Converters, refuse: Refuse
): Placeholder {
  const colon = inner.indexOf(':')
  const converterName = colon === -1 ? 'str' : inner.slice(0, colon)
  const name = inner.slice(colon + 1)
  if (name === '') return refuse(`the placeholder '${text}' has no name`)
  const converter = converters.get(converterName)
  if (converter === undefined) {
    return refuse(`unknown converter '${converterName}' in '${text}': use ${listConverters(converters)} ` +
      'or one of your own (option converters, interface TopicConverters)')
  }
  if (!/^[\w-]+$/.test(name) || name === '__proto__') {
    return refuse(`the placeholder name '${name}' must be letters, digits, _ and -`)
  }
  const isPath = converterName === 'path'
  if (isPath && !isLast) return refuse(`'${text}' must be the last level: a path takes everything that is left`)
  return { kind: 'placeholder', name, converterName, converter, isPath }
}

function listConverters (converters: Converters): string {
  // In the order of the compile error: the built-in ones as documented.
  const builtIn = ['str', 'int', 'float', 'uuid', 'path']
  return [...builtIn, ...[...converters.keys()].filter((name) => !builtIn.includes(name))].join(', ')
}

function refuseDuplicates (placeholders: readonly Placeholder[], refuse: Refuse): void {
  const names = new Set<string>()
  for (const { name } of placeholders) {
    if (names.has(name)) refuse(`the name '${name}' is used twice`)
    names.add(name)
  }
}

function filterOfLevel (level: Level): string {
  switch (level.kind) {
    case 'literal': return level.text
    case 'wildcard': return level.text
    case 'placeholder': return level.isPath ? '#' : '+'
  }
}
