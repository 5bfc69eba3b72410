import { errors } from '../errors.ts'

/** A topic as the names know it. */
export interface Named {
  readonly pattern: string
}

/**
 * The names of all topics of a connection. A name that was given is taken; one that comes from a handler
 * function gives way to it, and only if it is looked up does it matter that several have it.
 */
export class TopicNames<T extends Named> {
  readonly #given = new Map<string, T>()
  readonly #implied = new Map<string, T[]>()

  /** @throws `FST_MQTT_TOPIC_NAME_TAKEN` */
  give (name: string, topic: T): void {
    const owner = this.#given.get(name)
    if (owner !== undefined) throw new errors.FST_MQTT_TOPIC_NAME_TAKEN(name, owner.pattern)
    this.#given.set(name, topic)
  }

  imply (name: string, topic: T): void {
    const topics = this.#implied.get(name)
    if (topics === undefined) this.#implied.set(name, [topic])
    else topics.push(topic)
  }

  remove (name: string, topic: T): void {
    if (this.#given.get(name) === topic) {
      this.#given.delete(name)
      return
    }
    const left = (this.#implied.get(name) ?? []).filter((other) => other !== topic)
    if (left.length === 0) this.#implied.delete(name)
    else this.#implied.set(name, left)
  }

  /** @throws `FST_MQTT_TOPIC_UNKNOWN`, `FST_MQTT_TOPIC_NAME_AMBIGUOUS` */
  find (name: string): T {
    const given = this.#given.get(name)
    if (given !== undefined) return given
    const [implied, ...others] = this.#implied.get(name) ?? []
    if (implied === undefined) {
      const known = [...new Set([...this.#given.keys(), ...this.#implied.keys()])]
      throw new errors.FST_MQTT_TOPIC_UNKNOWN(name, known.length === 0 ? 'none' : known.join(', '))
    }
    if (others.length > 0) {
      const patterns = [implied, ...others].map(({ pattern }) => pattern).join(', ')
      throw new errors.FST_MQTT_TOPIC_NAME_AMBIGUOUS(name, patterns)
    }
    return implied
  }
}
