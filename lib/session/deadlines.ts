/** What can be overdue. */
export abstract class Timed {
  abstract readonly timeoutMs: number
  /** On the clock of `performance.now()`; set by `Deadlines`, as the others. */
  dueAt = 0
  group: Group | undefined = undefined
  later: Timed | undefined = undefined
  earlier: Timed | undefined = undefined

  abstract onOverdue (): void
}

/** What has the same timeout, in the order of its deadlines. */
interface Group {
  readonly timeoutMs: number
  first: Timed | undefined
  last: Timed | undefined
  timer: NodeJS.Timeout | undefined
}

/**
 * The timeouts of many things at once, with one timer for each length of time: a timer for each would cost
 * more than the rest of a publish. They are linked, not in a `Set`, for the reason that `PacketTable` tells.
 */
export class Deadlines {
  readonly #now: () => number
  readonly #groups = new Map<number, Group>()
  /** In most cases all have the same timeout. */
  #latest: Group | undefined

  constructor (now = () => performance.now()) {
    this.#now = now
  }

  add (item: Timed): void {
    const { timeoutMs } = item
    const group = this.#latest?.timeoutMs === timeoutMs ? this.#latest : this.#groupFor(timeoutMs)
    item.dueAt = this.#now() + timeoutMs
    item.group = group
    item.earlier = group.last
    if (group.last === undefined) group.first = item
    else group.last.later = item
    group.last = item
    group.timer ??= this.#timer(group, timeoutMs)
  }

  delete (item: Timed): void {
    const { group } = item
    if (group === undefined) return
    if (item.earlier === undefined) group.first = item.later
    else item.earlier.later = item.later
    if (item.later === undefined) group.last = item.earlier
    else item.later.earlier = item.earlier
    item.group = item.earlier = item.later = undefined
  }

  /** Ends all timers. */
  clear (): void {
    for (const { timer } of this.#groups.values()) clearTimeout(timer)
    this.#groups.clear()
    this.#latest = undefined
  }

  #groupFor (timeoutMs: number): Group {
    let group = this.#groups.get(timeoutMs)
    if (group === undefined) {
      group = { timeoutMs, first: undefined, last: undefined, timer: undefined }
      this.#groups.set(timeoutMs, group)
    }
    return (this.#latest = group)
  }

  #timer (group: Group, delayMs: number): NodeJS.Timeout {
    // What waits has a connection, or the wait for one, that keeps the process alive.
    return setTimeout(() => this.#expire(group), delayMs).unref()
  }

  #expire (group: Group): void {
    group.timer = undefined
    const now = this.#now()
    for (let item = group.first; item !== undefined; item = group.first) {
      // A timer may come a fraction of a millisecond early.
      if (item.dueAt > now + 1) {
        group.timer ??= this.#timer(group, Math.ceil(item.dueAt - now))
        return
      }
      this.delete(item)
      item.onOverdue()
    }
    if (group.timer !== undefined) return
    this.#groups.delete(group.timeoutMs)
    if (this.#latest === group) this.#latest = undefined
  }
}
