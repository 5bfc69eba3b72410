import { deferred, within } from './deadline.ts'

interface Reader<T> {
  matches: (item: T) => boolean
  resolve (item: T): void
  reject (error: Error): void
}

/** A queue that can be awaited: every item is taken once, by the first reader it matches. */
export class Mailbox<T> {
  readonly #items: T[] = []
  readonly #readers: Reader<T>[] = []
  #failure: Error | undefined

  put (item: T): void {
    const index = this.#readers.findIndex((reader) => reader.matches(item))
    const [reader] = index < 0 ? [] : this.#readers.splice(index, 1)
    if (reader) reader.resolve(item)
    else this.#items.push(item)
  }

  /** What is waiting can still be taken; a reader that finds nothing is rejected with `failure`. */
  fail (failure: Error): void {
    this.#failure = failure
    for (const reader of this.#readers.splice(0)) reader.reject(failure)
  }

  /** The oldest item that matches and was not taken yet, awaited for at most `timeoutMs`. */
  async take (matches: (item: T) => boolean, what: string, timeoutMs = 5_000): Promise<T> {
    const index = this.#items.findIndex(matches)
    const [item] = index < 0 ? [] : this.#items.splice(index, 1)
    if (item !== undefined) return item
    if (this.#failure) throw this.#failure

    const { promise, resolve, reject } = deferred<T>()
    const reader = { matches, resolve, reject }
    this.#readers.push(reader)
    try {
      return await within(promise, timeoutMs, what)
    } finally {
      const left = this.#readers.indexOf(reader)
      if (left >= 0) this.#readers.splice(left, 1)
    }
  }
}
