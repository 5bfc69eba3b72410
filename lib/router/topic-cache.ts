/**
 * Remembers what was worked out for a topic name. Two generations of at most `size` topics each: a topic that
 * is asked for again moves to the younger one, and the older one is dropped as a whole when the younger is
 * full. That never walks or moves entries one by one, as a least-recently-used list would (28 µs a miss by
 * Map order).
 */
export class TopicCache<T> {
  readonly #size: number
  readonly #onForgotten: ((value: T) => void) | undefined
  #young = new Map<string, T>()
  #old = new Map<string, T>()
  /** As long as the younger ones are the same. A memo outlives it, so it must not be the Map itself. */
  #generation = {}

  /** @param settings `onForgotten` is told of each value that is not kept any longer, perhaps of one twice */
  constructor ({ size = 10_000, onForgotten }: TopicCacheSettings<T> = {}) {
    this.#size = size
    this.#onForgotten = onForgotten
  }

  /** @param memo of that topic, where the value is found sooner the next time */
  get (topic: string, memo?: TopicMemo): T | undefined {
    // Only what is among the younger ones.
    if (memo !== undefined && memo.owner === this.#generation) return memo.value as T
    let value = this.#young.get(topic)
    if (value === undefined) {
      value = this.#old.get(topic)
      if (value === undefined) return undefined
      this.set(topic, value)
    }
    if (memo !== undefined) {
      memo.value = value
      memo.owner = this.#generation
    }
    return value
  }

  /**
   * Long topics are not kept: 20,000 of 64 KiB would be more than a gigabyte.
   *
   * @returns whether it is kept
   */
  set (topic: string, value: T): boolean {
    if (topic.length > maxTopicLength) return false
    if (this.#young.size >= this.#size) {
      const forgotten = this.#old
      this.#old = this.#young
      this.#young = new Map()
      this.#generation = {}
      this.#forget(forgotten)
    }
    this.#young.set(topic, value)
    return true
  }

  clear (): void {
    const forgotten = [this.#young, this.#old]
    this.#young = new Map()
    this.#old = new Map()
    this.#generation = {}
    for (const values of forgotten) this.#forget(values)
  }

  #forget (forgotten: ReadonlyMap<string, T>): void {
    if (this.#onForgotten === undefined) return
    for (const [topic, value] of forgotten) {
      // It may have moved to the younger ones.
      if (!this.#old.has(topic)) this.#onForgotten(value)
    }
  }
}

/** What somebody keeps who knows the topic. */
export interface TopicMemo {
  value: unknown
  owner: object | undefined
}

export interface TopicCacheSettings<T> {
  /** Of one generation. */
  readonly size?: number | undefined
  readonly onForgotten?: ((value: T) => void) | undefined
}

const maxTopicLength = 512
