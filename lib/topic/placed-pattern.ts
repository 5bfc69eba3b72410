import { errors } from '../errors.ts'
import { topicFilterProblem } from '../guard.ts'
import type { Converters } from './converters.ts'
import { parsePattern, type Pattern } from './pattern.ts'
import { assertInsidePrefix, withPrefix } from './prefix.ts'

/** A pattern where it lies in the broker's topics: with the global prefix and the prefix of its scope. */
export interface PlacedPattern {
  /** As given, without prefixes. */
  readonly text: string
  /** The levels from the scope's prefix on, without the global prefix. */
  readonly pattern: Pattern
  /** What messages are matched with: absolute, without `$share/<group>`. */
  readonly matchFilter: string
  /** What is subscribed: `$share/<group>/` comes before the prefix [MQTT 5 §4.8.2]. */
  readonly filter: string
  /** The levels of the global prefix, by which absolute topics are longer than the pattern. */
  readonly prefixLevels: number
  readonly absolute: boolean
}

/** Where a pattern lies. */
export interface Placement {
  readonly prefix: string
  readonly topicPrefix: string
  readonly absolute: boolean
}

/**
 * Reads a pattern and puts it in its place.
 *
 * @throws `FST_MQTT_TOPIC_PATTERN`, `FST_MQTT_TOPIC_OUTSIDE_PREFIX`
 */
export function placePattern (text: string, placement: Placement, converters: Converters): PlacedPattern {
  const { absolute } = placement
  const bare = parsePattern(text, converters)
  if (!absolute) assertInsidePrefix(bare.filter)
  const inScope = absolute || placement.topicPrefix === ''
    ? bare
    : parsePattern(insertPrefix(placement.topicPrefix, bare), converters)
  const prefix = absolute ? '' : placement.prefix
  const matchFilter = withPrefix(prefix, inScope.filter)
  const filter = bare.share === undefined ? matchFilter : `$share/${bare.share}/${matchFilter}`
  // Each part may be right and the whole too long.
  const problem = topicFilterProblem(filter)
  if (problem !== undefined) throw new errors.FST_MQTT_TOPIC_PATTERN(`with its prefixes ${problem}`, text)
  return {
    text,
    pattern: inScope,
    matchFilter,
    filter,
    prefixLevels: prefix === '' ? 0 : prefix.split('/').length,
    absolute
  }
}

function insertPrefix (topicPrefix: string, pattern: Pattern): string {
  if (pattern.share === undefined) return withPrefix(topicPrefix, pattern.text)
  const head = `$share/${pattern.share}/`
  return head + withPrefix(topicPrefix, pattern.text.slice(head.length))
}
