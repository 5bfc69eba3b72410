import { randomInt } from 'node:crypto'

/** Up to this, packet identifiers are MQTT.js's: its subscriptions', and the raw client's publishes'. */
export const highestLowId = 1_024
const highestId = 65_535

/** The packet identifiers of MQTT.js, for its option `messageIdProvider`. */
export class LowIds {
  readonly #inUse = new Set<number>()
  #last = 0

  /** The next that is free; null if none is. */
  allocate (): number | null {
    if (this.#inUse.size === highestLowId) return null
    do this.#last = this.#last % highestLowId + 1
    while (this.#inUse.has(this.#last))
    this.#inUse.add(this.#last)
    return this.#last
  }

  getLastAllocated (): number | null {
    return this.#last === 0 ? null : this.#last
  }

  /** Takes this one; false if it is in use, or is not one of these. */
  register (id: number): boolean {
    if (!Number.isInteger(id) || id < 1 || id > highestLowId || this.#inUse.has(id)) return false
    this.#inUse.add(id)
    return true
  }

  deallocate (id: number): void {
    this.#inUse.delete(id)
  }

  clear (): void {
    this.#inUse.clear()
  }
}

/** Our packet identifiers: those above MQTT.js's. */
export class PacketIds {
  /** How many there are. */
  static readonly count = highestId - highestLowId
  readonly #isInUse: (id: number) => boolean
  // A broker may still know identifiers that an earlier process has used in the same session.
  #next = randomInt(highestLowId + 1, highestId + 1)

  constructor (isInUse: (id: number) => boolean) {
    this.#isInUse = isInUse
  }

  /** The next that is not in use; undefined if all are. */
  next (): number | undefined {
    for (let tries = highestLowId; tries < highestId; tries++) {
      const id = this.#next
      this.#next = id === highestId ? highestLowId + 1 : id + 1
      if (!this.#isInUse(id)) return id
    }
    return undefined
  }
}
