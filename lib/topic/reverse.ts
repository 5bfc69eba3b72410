import { describeError, errors } from '../errors.ts'
import { topicNameProblem } from '../guard.ts'
import { isRecord, kindOf } from '../values.ts'
import { formatValue } from './converters.ts'
import type { Level } from './pattern.ts'
import type { PlacedPattern } from './placed-pattern.ts'

/**
 * The topic name that params give, with the scope's prefix and without the global one: what the pattern
 * matches with just these params.
 *
 * @throws `FST_MQTT_TOPIC_WILDCARD`, `FST_MQTT_TOPIC_PARAM`
 */
export function topicFor (placed: PlacedPattern, params: unknown = {}): string {
  const { pattern } = placed
  if (pattern.hasWildcard) throw new errors.FST_MQTT_TOPIC_WILDCARD(placed.text)
  const refuse = (problem: string, cause?: unknown): never => {
    if (cause === undefined) throw new errors.FST_MQTT_TOPIC_PARAM(placed.text, problem)
    throw new errors.FST_MQTT_TOPIC_PARAM(placed.text, problem, { cause })
  }
  if (!isRecord(params)) return refuse(`params have to be an object, not ${kindOf(params)}`)
  refuseExtra(placed, params, refuse)
  const topic = pattern.levels.map((level) => textOf(level, params, refuse)).join('/')
  // Where the pattern itself says $, it is meant; a wildcard does not match it [MQTT-4.7.2-1].
  if (topic.startsWith('$') && !(placed.absolute && pattern.filter.startsWith('$'))) {
    return refuse("the first level begins with $: such topics are the broker's own, and lie outside of the prefix")
  }
  const problem = topicNameProblem(topic)
  return problem === undefined ? topic : refuse(problem)
}

function refuseExtra (
  placed: PlacedPattern, params: Record<string, unknown>, refuse: (problem: string) => never
): void {
  const names = placed.pattern.placeholders.map(({ name }) => name)
  for (const name of Object.keys(params)) {
    if (!names.includes(name)) {
      refuse(`there is no placeholder '${name}', there ${names.length === 0 ? 'are none' : `is ${names.join(', ')}`}`)
    }
  }
}

function textOf (
  level: Level, params: Record<string, unknown>, refuse: (problem: string, cause?: unknown) => never
): string {
  // A pattern with a wildcard has been refused before.
  if (level.kind !== 'placeholder') return level.text
  const value = Object.hasOwn(params, level.name) ? params[level.name] : undefined
  if (value === undefined) return refuse(`the param '${level.name}' is missing`)
  try {
    return formatValue(level.converterName, level.converter, value)
  } catch (error) {
    return refuse(`the param '${level.name}' (${level.converterName}): ${describeError(error)}`, error)
  }
}
