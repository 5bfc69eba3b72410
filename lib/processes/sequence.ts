/** How far the oldest in the ring may be behind the newest. */
const longest = 65_536

/**
 * What was begun and has not ended, by numbers that count up. Most of it ends about in the order in which it
 * began, so that it is a ring that is written over: a `Map` would leave tables behind that keep what was in
 * them until they are collected with all that is old, which took half of the time of a publish.
 */
export class Sequence<T> {
  #ring = new Array<T | undefined>(64).fill(undefined)
  /** Unsigned, of 32 bits, as the next one. Nothing before it is in the ring. */
  #first: number
  #next: number
  #inRing = 0
  /** Those that take very long. */
  readonly #late = new Map<number, T>()

  constructor (first = 1) {
    this.#first = this.#next = first
  }

  get size (): number {
    return this.#inRing + this.#late.size
  }

  /** Those that have not ended, in the order in which they began. */
  get values (): T[] {
    const values = [...this.#late.values()]
    for (let id = this.#first; id !== this.#next; id = after(id)) {
      const value = this.#ring[this.#slot(id)]
      if (value !== undefined) values.push(value)
    }
    return values
  }

  /** @param create is told its number */
  add (create: (id: number) => T): T {
    if (this.#span(this.#next) === this.#ring.length) this.#makeRoom()
    const id = this.#next
    const value = create(id)
    this.#ring[this.#slot(id)] = value
    this.#next = after(id)
    this.#inRing++
    return value
  }

  get (id: number): T | undefined {
    return this.#isInRing(id) ? this.#ring[this.#slot(id)] : this.#late.get(id)
  }

  delete (id: number): void {
    if (!this.#isInRing(id)) {
      this.#late.delete(id)
      return
    }
    const slot = this.#slot(id)
    if (this.#ring[slot] === undefined) return
    this.#ring[slot] = undefined
    this.#inRing--
    this.#skipEnded()
  }

  #skipEnded (): void {
    while (this.#first !== this.#next && this.#ring[this.#slot(this.#first)] === undefined) {
      this.#first = after(this.#first)
    }
  }

  #makeRoom (): void {
    if (this.#ring.length < longest) this.#grow()
    else this.#leaveBehind()
  }

  #grow (): void {
    const ring = this.#ring
    const mask = ring.length - 1
    this.#ring = new Array<T | undefined>(ring.length * 2).fill(undefined)
    for (let id = this.#first; id !== this.#next; id = after(id)) this.#ring[this.#slot(id)] = ring[id & mask]
  }

  /** The first one, which is there: what has ended is skipped. */
  #leaveBehind (): void {
    const slot = this.#slot(this.#first)
    this.#late.set(this.#first, this.#ring[slot] as T)
    this.#ring[slot] = undefined
    this.#inRing--
    this.#skipEnded()
  }

  #isInRing (id: number): boolean {
    return this.#span(id) < this.#span(this.#next)
  }

  /** How far a number is from the first one. */
  #span (id: number): number {
    return (id - this.#first) >>> 0
  }

  #slot (id: number): number {
    return id & (this.#ring.length - 1)
  }
}

function after (id: number): number {
  return (id + 1) >>> 0
}
