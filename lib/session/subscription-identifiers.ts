import { OverlapIndex } from '../topic/overlap-index.ts'

/**
 * The subscription identifiers of filters that overlap others [MQTT 5 §3.8.2.1.2]: a broker may send a
 * message once for each subscription, and the identifier tells for which. Filters that overlap no other have
 * none, so that many of them go out in one packet, and their messages carry no property.
 */
export class SubscriptionIdentifiers {
  readonly #index = new OverlapIndex()
  readonly #byFilter = new Map<string, number>()
  readonly #filters = new Map<number, string>()

  /** @returns the other filters that have an identifier from now on, since this one overlaps them */
  add (filter: string): string[] {
    const overlapping = this.#index.overlapping(filter)
    this.#index.add(filter)
    if (overlapping.length === 0) return []
    const others = overlapping.filter((other) => !this.#byFilter.has(other))
    for (const one of [...others, filter]) this.#give(one)
    return others
  }

  delete (filter: string): void {
    this.#index.delete(filter)
    const identifier = this.#byFilter.get(filter)
    if (identifier === undefined) return
    this.#byFilter.delete(filter)
    this.#filters.delete(identifier)
  }

  of (filter: string): number | undefined {
    return this.#byFilter.get(filter)
  }

  filterOf (identifier: number): string | undefined {
    return this.#filters.get(identifier)
  }

  #give (filter: string): void {
    let identifier = preferredIdentifier(filter)
    while (this.#filters.has(identifier)) identifier = identifier % maxIdentifier + 1
    this.#byFilter.set(filter, identifier)
    this.#filters.set(identifier, filter)
  }
}

export const maxIdentifier = 268_435_455

/**
 * A hash, FNV-1a, and no counter: a kept session outlives the process, and what waits in it came by the
 * identifiers of the process before. So they mean the same to the next one, whatever it subscribes besides.
 */
export function preferredIdentifier (filter: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < filter.length; index++) {
    hash = Math.imul(hash ^ filter.charCodeAt(index), 0x01000193)
  }
  return (hash >>> 0) % maxIdentifier + 1
}
