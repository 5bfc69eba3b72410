import { errors } from '../errors.ts'
import { topicNameProblem } from '../guard.ts'

/**
 * Makes a prefix ready for use: its trailing slash is dropped, a leading one is a level of its own and stays.
 *
 * @returns the problem with it, or the prefix
 */
export function parsePrefix (text: string): { prefix: string } | { problem: string } {
  const prefix = text.endsWith('/') ? text.slice(0, -1) : text
  if (prefix === '') return { prefix }
  if (/<.*>/s.test(prefix)) return { problem: `a prefix has no placeholders, '${text}' has` }
  const problem = topicNameProblem(prefix)
  return problem === undefined ? { prefix } : { problem: `'${text}' cannot begin a topic: ${problem}` }
}

/** Joins a prefix and a topic with one slash; a topic that begins with one keeps it as an empty level. */
export function withPrefix (prefix: string, topic: string): string {
  return prefix === '' ? topic : `${prefix}/${topic}`
}

/**
 * The topic without the prefix, which is only one at the end of a level: 'site1' does not begin 'site10/x'.
 * A topic outside of the prefix is returned as it is.
 */
export function withoutPrefix (prefix: string, topic: string): string {
  if (prefix === '') return topic
  if (topic.startsWith(prefix) && topic.charCodeAt(prefix.length) === slash) {
    return topic.slice(prefix.length + 1)
  }
  return topic === prefix ? '' : topic
}

const slash = 47

/**
 * Keeps user input inside of the prefix: `$…` topics are the broker's own and lie beside all others.
 *
 * @throws `FST_MQTT_TOPIC_OUTSIDE_PREFIX`
 */
export function assertInsidePrefix (topic: string): void {
  if (topic.startsWith('$')) throw new errors.FST_MQTT_TOPIC_OUTSIDE_PREFIX(topic)
}
