import { Queue, type Place } from '../queue.ts'

/** What may wait, and which of it gives way if more comes. */
export interface BacklogLimits {
  readonly maxMessages: number
  /** Of topics and payloads. */
  readonly maxBytes: number
  readonly overflow: 'drop-oldest' | 'drop-newest'
}

/** Why something that waits will not run: others came, or nothing is begun any more. */
export type Loss = 'dropped' | 'given up'

/** Something that waits. */
export interface Waiting {
  readonly bytes: number
  /** Whether it may be dropped: it has no acknowledgement that waits with it, and would not come again. */
  readonly isDroppable: boolean
  /** Takes itself out of wherever it waits. */
  lose (why: Loss): void
}

const secondMs = 1_000

/** All that waits for handlers. What nobody would send again is limited; the rest is limited by the inbox. */
export class Backlog {
  readonly #limits: BacklogLimits
  readonly #warn: (dropped: number) => void
  readonly #now: () => number
  readonly #droppable = new Queue<Waiting>()
  readonly #kept = new Queue<Waiting>()
  #bytes = 0
  #dropped = 0
  #told = 0
  #toldAt = -Infinity

  /** @param warn told how many were dropped since it was told last, at most once a second */
  constructor (limits: BacklogLimits, warn: (dropped: number) => void, now = () => performance.now()) {
    this.#limits = limits
    this.#warn = warn
    this.#now = now
  }

  get size (): number {
    return this.#droppable.size + this.#kept.size
  }

  /** How many have been dropped. */
  get dropped (): number {
    return this.#dropped
  }

  add (waiting: Waiting): Place<Waiting> {
    if (!waiting.isDroppable) return this.#kept.push(waiting)
    this.#bytes += waiting.bytes
    return this.#droppable.push(waiting)
  }

  remove (place: Place<Waiting>): void {
    if (place.queue === this.#droppable) this.#bytes -= place.value.bytes
    place.leave()
  }

  /** After each `add`: drops what is too much. One that is larger than the limit may wait alone. */
  trim (): void {
    const { maxMessages, maxBytes, overflow } = this.#limits
    const queue = this.#droppable
    while (queue.size > maxMessages || (this.#bytes > maxBytes && queue.size > 1)) {
      const victim = overflow === 'drop-oldest' ? queue.first : queue.last
      if (victim === undefined) return
      this.remove(victim)
      victim.value.lose('dropped')
      this.#count()
    }
  }

  /** Nothing is begun any more. */
  clear (): void {
    for (const queue of [this.#droppable, this.#kept]) {
      for (let place = queue.first; place !== undefined; place = queue.first) {
        this.remove(place)
        place.value.lose('given up')
      }
    }
  }

  #count (): void {
    this.#dropped++
    const now = this.#now()
    if (now - this.#toldAt < secondMs) return
    this.#toldAt = now
    this.#warn(this.#dropped - this.#told)
    this.#told = this.#dropped
  }
}
