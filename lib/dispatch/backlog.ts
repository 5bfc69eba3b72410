import { Queue, type Place } from './queue.ts'

/** What may wait, and which of it gives way if more comes. */
export interface BacklogLimits {
  readonly maxMessages: number
  /** Of topics and payloads. */
  readonly maxBytes: number
  readonly overflow: 'drop-oldest' | 'drop-newest'
}

/** Something that waits and may be lost, since nobody would send it again. */
export interface Droppable {
  readonly bytes: number
  /** It gives way: takes itself out of wherever it waits. */
  drop (): void
}

const secondMs = 1_000

/** What waits for handlers and has no acknowledgement that waits with it: only that may be lost. */
export class Backlog {
  readonly #limits: BacklogLimits
  readonly #warn: (dropped: number) => void
  readonly #now: () => number
  readonly #queue = new Queue<Droppable>()
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

  /** How many have been dropped. */
  get dropped (): number {
    return this.#dropped
  }

  get size (): number {
    return this.#queue.size
  }

  add (waiting: Droppable): Place<Droppable> {
    this.#bytes += waiting.bytes
    return this.#queue.push(waiting)
  }

  remove (place: Place<Droppable>): void {
    if (place.queue === undefined) return
    place.leave()
    this.#bytes -= place.value.bytes
  }

  /** After each `add`: drops what is too much. One that is larger than the limit may wait alone. */
  trim (): void {
    const { maxMessages, maxBytes, overflow } = this.#limits
    while (this.#queue.size > maxMessages || (this.#bytes > maxBytes && this.#queue.size > 1)) {
      const victim = overflow === 'drop-oldest' ? this.#queue.first : this.#queue.last
      if (victim === undefined) return
      this.remove(victim)
      victim.value.drop()
      this.#count()
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
