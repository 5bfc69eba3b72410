import type { MessageOrder } from '../../types/topic.ts'
import type { Backlog, Droppable } from './backlog.ts'
import { Queue, type Place } from './queue.ts'

/** What runs when the rules allow it. */
export interface Task {
  readonly group: Group
  /** What it takes while it waits. */
  readonly bytes: number
  /** Whether it may be lost while it waits: it has no acknowledgement that waits with it. */
  readonly isDroppable: boolean
  /** While it waits; the scheduler's own. */
  wait: Wait | undefined
  /** Those that wait for its key, in order; the scheduler's own. */
  followers?: Queue<Task> | undefined
  /** Runs as much of it as there are slots for, of which at least one is free. Never throws. */
  proceed (): void
  /** It will not run: it gave way to others, or nothing is begun any more. */
  lose (why: 'dropped' | 'given up'): void
}

/** Where a task waits: in a queue, or for its time. */
class Wait implements Droppable {
  place: Place<Task> | undefined = undefined
  timer: NodeJS.Timeout | undefined = undefined
  entry: Place<Droppable> | undefined = undefined
  readonly #scheduler: Scheduler
  readonly #task: Task

  constructor (scheduler: Scheduler, task: Task) {
    this.#scheduler = scheduler
    this.#task = task
  }

  get bytes (): number {
    return this.#task.bytes
  }

  drop (): void {
    this.#scheduler.withdraw(this.#task)
    this.#task.lose('dropped')
  }
}

/** What runs by the rules of one topic. */
export class Group {
  /** How many handlers may run at once. */
  readonly concurrency: number
  readonly order: MessageOrder
  running = 0
  /** Those that would have a slot of the connection, and none of the topic. */
  readonly parked = new Queue<Task>()
  readonly #owners = new Map<string, Task>()

  constructor (concurrency: number, order: MessageOrder) {
    this.concurrency = concurrency
    this.order = order
  }

  /** False while nobody has any key: then nobody has to ask for one. */
  get hasOwners (): boolean {
    return this.#owners.size > 0
  }

  ownerOf (key: string): Task | undefined {
    return this.#owners.get(key)
  }

  take (key: string, task: Task): void {
    this.#owners.set(key, task)
  }

  /** @returns who has the key now; undefined if nobody waits for it, or the task did not have it */
  pass (key: string, task: Task): Task | undefined {
    if (this.#owners.get(key) !== task) return undefined
    const next = task.followers?.shift()
    if (next === undefined) {
      this.#owners.delete(key)
    } else {
      next.followers = task.followers
      this.#owners.set(key, next)
    }
    return next
  }
}

/**
 * Says what may run now: so many handlers at once, over all and of each topic, and of each key one message
 * after the other. Only what is under way takes a slot: a handler that is done when it returns has had none,
 * and as long as all are like that there is nothing to look up.
 *
 * ```
 * a message ── its key is taken ── followers of the owner ──┐ passed on
 *          ├── no slot ───────── ready ◄────────────────────┤
 *          │                      │  ▲ the topic has a slot │
 *          │                      ▼  │                      │
 *          └── runs ◄──────────── parked: its topic has none
 * ```
 */
export class Scheduler {
  readonly #concurrency: number
  readonly #backlog: Backlog
  /** Want a slot, and have their key. */
  readonly #ready = new Queue<Task>()
  readonly #waiting = new Set<Task>()
  #running = 0
  #isPumping = false
  #isStopped = false

  constructor (concurrency: number, backlog: Backlog) {
    this.#concurrency = concurrency
    this.#backlog = backlog
  }

  /** How many handlers run. */
  get running (): number {
    return this.#running
  }

  get waiting (): number {
    return this.#waiting.size
  }

  hasSlot (group: Group): boolean {
    return this.#running < this.#concurrency && group.running < group.concurrency
  }

  /** Something has begun that is not done yet. */
  begin (group: Group): void {
    this.#running++
    group.running++
  }

  end (group: Group): void {
    this.#running--
    group.running--
    const parked = group.parked.shift()
    if (parked !== undefined) this.#put(parked, this.#ready)
    this.#pump()
  }

  /** Runs it as soon as there is a slot. */
  enqueue (task: Task): void {
    this.#put(task, this.#ready)
    this.#pump()
  }

  /** Runs it some time later, as soon as there is a slot. */
  enqueueAfter (task: Task, delayMs: number): void {
    const wait = this.#enter(task)
    if (wait === undefined) return
    wait.timer = setTimeout(() => {
      wait.timer = undefined
      this.enqueue(task)
    }, delayMs)
    this.#backlog.trim()
  }

  /** Runs it as soon as those are done that have its key, or wait for it. */
  follow (owner: Task, task: Task): void {
    owner.followers ??= new Queue()
    this.#put(task, owner.followers)
  }

  /** Gives the key to the one who has waited longest for it. */
  pass (group: Group, key: string, task: Task): void {
    const next = group.pass(key, task)
    if (next !== undefined) this.enqueue(next)
  }

  /** It waits no more. */
  withdraw (task: Task): void {
    const { wait } = task
    if (wait === undefined) return
    task.wait = undefined
    wait.place?.leave()
    clearTimeout(wait.timer)
    if (wait.entry !== undefined) this.#backlog.remove(wait.entry)
    this.#waiting.delete(task)
  }

  /** Begins nothing any more, and gives up what waits. What runs goes on. */
  stop (): void {
    this.#isStopped = true
    for (const task of [...this.#waiting]) this.#giveUp(task)
  }

  #giveUp (task: Task): void {
    if (task.wait === undefined) return
    this.withdraw(task)
    task.lose('given up')
  }

  /** Into a queue; from another one if it waits already. */
  #put (task: Task, queue: Queue<Task>): void {
    const isNew = task.wait === undefined
    const wait = task.wait ?? this.#enter(task)
    if (wait === undefined) return
    wait.place = queue.push(task)
    if (isNew) this.#backlog.trim()
  }

  /** @returns undefined if nothing is begun any more */
  #enter (task: Task): Wait | undefined {
    const wait = new Wait(this, task)
    if (task.isDroppable) wait.entry = this.#backlog.add(wait)
    task.wait = wait
    this.#waiting.add(task)
    if (this.#isStopped) this.#giveUp(task)
    return task.wait
  }

  #pump (): void {
    // What runs may end at once, and let the next one run: a loop, or ten thousand would be a stack too deep.
    if (this.#isPumping) return
    this.#isPumping = true
    while (this.#running < this.#concurrency) {
      const task = this.#ready.shift()
      if (task === undefined) break
      if (this.hasSlot(task.group)) {
        this.withdraw(task)
        task.proceed()
      } else {
        this.#put(task, task.group.parked)
      }
    }
    this.#isPumping = false
  }
}
