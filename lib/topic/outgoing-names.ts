import { errors } from '../errors.ts'
import { textProblem, topicNameProblem } from '../guard.ts'
import { TopicCache } from '../router/topic-cache.ts'
import { describe } from '../values.ts'
import { assertInsidePrefix, withPrefix } from './prefix.ts'

/**
 * The topic names that are published to: each is checked and joined with the prefix once, and remembered. To
 * check a name costs as much as all the rest of a publish.
 */
export class OutgoingNames {
  readonly #prefix: string
  readonly #absolute = new TopicCache<string>()
  readonly #checked = new TopicCache<true>()

  constructor (prefix: string) {
    this.#prefix = prefix
  }

  /**
   * The absolute topic name for one without the prefix.
   *
   * @throws `FST_MQTT_TOPIC_NAME`, `FST_MQTT_TOPIC_OUTSIDE_PREFIX`
   */
  inside (topic: unknown): string {
    const known = typeof topic === 'string' ? this.#absolute.get(topic) : undefined
    if (known !== undefined) return known
    // By itself first: with a prefix before it an empty one would pass.
    const name = checked(topic)
    assertInsidePrefix(name)
    const absolute = this.#prefix === '' ? name : checked(withPrefix(this.#prefix, name))
    this.#absolute.set(name, absolute)
    return absolute
  }

  /**
   * An absolute topic name, as it is.
   *
   * @throws `FST_MQTT_TOPIC_NAME`
   */
  absolute (topic: unknown): string {
    if (typeof topic === 'string' && this.#checked.get(topic) !== undefined) return topic
    const name = checked(topic)
    this.#checked.set(name, true)
    return name
  }
}

function checked (topic: unknown): string {
  const problem = topicNameProblem(topic)
  if (problem !== undefined) throw new errors.FST_MQTT_TOPIC_NAME(nameForMessage(topic), problem)
  return topic as string
}

function nameForMessage (topic: unknown): string {
  return textProblem(topic) === undefined && typeof topic === 'string' ? topic.slice(0, 200) : describe(topic)
}
