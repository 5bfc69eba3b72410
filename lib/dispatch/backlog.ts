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
  /** Where it stands among all that wait; the backlog's own, as the two beside it. */
  list: WaitingList | undefined
  older: Waiting | undefined
  newer: Waiting | undefined
}

const secondMs = 1_000

/** In the order in which they came. A `Queue` would be one more object for each message that waits. */
class WaitingList {
  first: Waiting | undefined
  last: Waiting | undefined
  size = 0

  add (waiting: Waiting): void {
    waiting.list = this
    waiting.older = this.last
    if (this.last === undefined) this.first = waiting
    else this.last.newer = waiting
    this.last = waiting
    this.size++
  }

  remove (waiting: Waiting): void {
    if (waiting.older === undefined) this.first = waiting.newer
    else waiting.older.newer = waiting.newer
    if (waiting.newer === undefined) this.last = waiting.older
    else waiting.newer.older = waiting.older
    waiting.list = waiting.older = waiting.newer = undefined
    this.size--
  }
}

/** All that waits for handlers. What nobody would send again is limited; the rest is limited by the inbox. */
export class Backlog {
  readonly #limits: BacklogLimits
  readonly #warn: (dropped: number) => void
  readonly #now: () => number
  readonly #droppable = new WaitingList()
  readonly #kept = new WaitingList()
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

  add (waiting: Waiting): void {
    if (waiting.isDroppable) {
      this.#bytes += waiting.bytes
      this.#droppable.add(waiting)
    } else {
      this.#kept.add(waiting)
    }
  }

  /** The second time it does nothing. */
  remove (waiting: Waiting): void {
    const { list } = waiting
    if (list === this.#droppable) this.#bytes -= waiting.bytes
    list?.remove(waiting)
  }

  /** After each `add`: drops what is too much. One that is larger than the limit may wait alone. */
  trim (): void {
    const { maxMessages, maxBytes, overflow } = this.#limits
    const list = this.#droppable
    while (list.size > maxMessages || (this.#bytes > maxBytes && list.size > 1)) {
      const victim = overflow === 'drop-oldest' ? list.first : list.last
      if (victim === undefined) return
      this.remove(victim)
      victim.lose('dropped')
      this.#count()
    }
  }

  /** Nothing is begun any more. */
  clear (): void {
    for (const list of [this.#droppable, this.#kept]) {
      for (let waiting = list.first; waiting !== undefined; waiting = list.first) {
        this.remove(waiting)
        waiting.lose('given up')
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
