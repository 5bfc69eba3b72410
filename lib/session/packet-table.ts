const firstSize = 64

/**
 * What belongs to packet identifiers in use, as a `Map` would have it, but in one array that it writes over:
 * each time that a `Map` has filled up with what was deleted it leaves a table behind that refers to the next
 * one, and as soon as one of them has grown old, the collector of young garbage keeps all that was in those
 * after it (more than half of the time of a publish went there).
 */
export class PacketTable<T> {
  /** By the low bits of the identifier; 0 where nothing is. */
  #ids = new Uint16Array(firstSize)
  #values: (T | undefined)[] = emptied(firstSize)
  #size = 0

  get size (): number {
    return this.#size
  }

  get (id: number): T | undefined {
    const slot = id & (this.#ids.length - 1)
    return this.#ids[slot] === id ? this.#values[slot] : undefined
  }

  set (id: number, value: T): void {
    let slot = id & (this.#ids.length - 1)
    // Two identifiers in one slot: it has to be larger. With 65,536 slots each has one of its own.
    while (this.#ids[slot] !== 0 && this.#ids[slot] !== id) {
      this.#grow()
      slot = id & (this.#ids.length - 1)
    }
    if (this.#ids[slot] === 0) this.#size++
    this.#ids[slot] = id
    this.#values[slot] = value
  }

  /** @returns whether it was there */
  delete (id: number): boolean {
    const slot = id & (this.#ids.length - 1)
    if (id === 0 || this.#ids[slot] !== id) return false
    this.#ids[slot] = 0
    this.#values[slot] = undefined
    this.#size--
    return true
  }

  clear (): void {
    this.#ids = new Uint16Array(firstSize)
    this.#values = emptied(firstSize)
    this.#size = 0
  }

  /** In no order. */
  values (): T[] {
    return this.#values.filter((value) => value !== undefined)
  }

  #grow (): void {
    const [ids, values] = [this.#ids, this.#values]
    this.#ids = new Uint16Array(ids.length * 2)
    this.#values = emptied(ids.length * 2)
    const mask = this.#ids.length - 1
    // What had slots of its own has them in the larger one.
    ids.forEach((id, slot) => {
      if (id === 0) return
      this.#ids[id & mask] = id
      this.#values[id & mask] = values[slot]
    })
  }
}

/** Packet identifiers in use: to ask for one costs less than to find what belongs to it. */
export class PacketSet {
  /** One bit for each. */
  readonly #bits = new Uint32Array(2_048)

  has (id: number): boolean {
    return ((this.#bits[id >>> 5] as number) >>> (id & 31) & 1) === 1
  }

  add (id: number): void {
    this.#bits[id >>> 5] = (this.#bits[id >>> 5] as number) | 1 << (id & 31)
  }

  delete (id: number): void {
    this.#bits[id >>> 5] = (this.#bits[id >>> 5] as number) & ~(1 << (id & 31))
  }

  clear (): void {
    this.#bits.fill(0)
  }
}

function emptied<T> (size: number): (T | undefined)[] {
  return new Array<T | undefined>(size).fill(undefined)
}
