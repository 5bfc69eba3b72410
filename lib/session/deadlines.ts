/** What can be overdue. */
export interface Timed {
  /** On the clock of `performance.now()`; set by `Deadlines`. */
  dueAt: number
  readonly timeoutMs: number
  onOverdue (): void
}

/**
 * The timeouts of many things at once, with one timer for each length of time: a timer for each would cost
 * more than the rest of a publish.
 */
export class Deadlines<T extends Timed> {
  readonly #now: () => number
  readonly #groups = new Map<number, Group<T>>()

  constructor (now = () => performance.now()) {
    this.#now = now
  }

  add (item: T): void {
    const { timeoutMs } = item
    item.dueAt = this.#now() + timeoutMs
    let group = this.#groups.get(timeoutMs)
    if (group === undefined) this.#groups.set(timeoutMs, group = { items: new Set(), timer: undefined })
    // In the order of insertion, which is that of the deadlines.
    group.items.add(item)
    group.timer ??= this.#timer(timeoutMs, timeoutMs)
  }

  delete (item: T): void {
    this.#groups.get(item.timeoutMs)?.items.delete(item)
  }

  /** Ends all timers. */
  clear (): void {
    for (const { timer } of this.#groups.values()) clearTimeout(timer)
    this.#groups.clear()
  }

  #timer (timeoutMs: number, delayMs: number): NodeJS.Timeout {
    // What waits has a connection, or the wait for one, that keeps the process alive.
    return setTimeout(() => this.#expire(timeoutMs), delayMs).unref()
  }

  #expire (timeoutMs: number): void {
    const group = this.#groups.get(timeoutMs)
    if (group === undefined) return
    group.timer = undefined
    const now = this.#now()
    for (const item of group.items) {
      // A timer may come a fraction of a millisecond early.
      if (item.dueAt > now + 1) {
        group.timer ??= this.#timer(timeoutMs, Math.ceil(item.dueAt - now))
        return
      }
      group.items.delete(item)
      item.onOverdue()
    }
    if (group.items.size === 0 && group.timer === undefined) this.#groups.delete(timeoutMs)
  }
}

interface Group<T> {
  readonly items: Set<T>
  timer: NodeJS.Timeout | undefined
}
