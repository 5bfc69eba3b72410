import { errors } from '../errors.ts'
import { topicFilterProblem } from '../guard.ts'
import { assertInsidePrefix, withPrefix } from '../topic/prefix.ts'

/** What is wrong with the topic of an entry of a role, as half a sentence, or undefined. */
export function aclTopicProblem (topic: string): string | undefined {
  // Somebody would take it for "his own", and give the rights of all.
  const placeholder = topic.split('/').find((level) => /^<.*>$/s.test(level))
  if (placeholder !== undefined) {
    return `the topic of a role has no placeholders, '${placeholder}' is one: write + for any, or the value`
  }
  const { head, rest } = splitShare(topic)
  // Unlike a subscription, a permission may be for every group.
  return topicFilterProblem(head === '$share/+/' ? `$share/any/${rest}` : topic)
}

/**
 * The topic as the broker has it: with the prefix, which in `$share/<group>/<filter>` follows the group.
 *
 * @throws `FST_MQTT_TOPIC_OUTSIDE_PREFIX`, `FST_MQTT_DYNSEC_INVALID`
 */
export function placeTopic (prefix: string, topic: string, absolute: boolean, command: string): string {
  const { head, rest } = splitShare(topic)
  if (!absolute) assertInsidePrefix(rest)
  const placed = absolute ? topic : head + withPrefix(prefix, rest)
  // By itself as well: an empty one would pass behind a prefix.
  const problem = aclTopicProblem(topic) ?? aclTopicProblem(placed)
  if (problem !== undefined) throw new errors.FST_MQTT_DYNSEC_INVALID(command, `topic: ${problem}`)
  return placed
}

/**
 * The inverse: what gives this topic when it is placed. Only what lies outside of the prefix is `absolute`.
 */
export function readTopic (prefix: string, stored: string): { topic: string, absolute?: true } {
  const { head, rest } = splitShare(stored)
  const begin = prefix === '' ? '' : `${prefix}/`
  const inside = rest.startsWith(begin) ? rest.slice(begin.length) : ''
  return inside === '' || inside.startsWith('$') ? { topic: stored, absolute: true } : { topic: head + inside }
}

function splitShare (topic: string): { head: string, rest: string } {
  const head = /^\$share\/[^/]*\//.exec(topic)?.[0] ?? ''
  return { head, rest: topic.slice(head.length) }
}
