import type { Backlog, Loss, Waiting } from './backlog.ts'
import type { Group, Lane } from './group.ts'
import { Queue, type Place } from '../queue.ts'

/** What may have to wait for its turn in a lane. */
export interface Taker {
  readonly group: Group
  /** Whether it has it; the group's own. */
  hasTurn?: boolean
}

/** What runs when the rules allow it. */
export interface Task extends Taker, Pick<Waiting, 'bytes' | 'isDroppable'> {
  /** While it waits; the scheduler's own. */
  wait: Wait | undefined
  /** Runs as much of it as there are slots for, of which at least one is free. Never throws. */
  proceed (): void
  /** It will not run. It waits no more then. */
  lose (why: Loss): void
}

/** A task that waits: in a queue, or for its time. It has two places, for it is in the backlog, too. */
class Wait implements Place<Task>, Waiting {
  readonly value: Task
  queue: Queue<Task> | undefined = undefined
  next: Place<Task> | undefined = undefined
  previous: Place<Task> | undefined = undefined
  list: Waiting['list'] = undefined
  older: Waiting['older'] = undefined
  newer: Waiting['newer'] = undefined
  timer: NodeJS.Timeout | undefined = undefined
  readonly #scheduler: Scheduler

  constructor (scheduler: Scheduler, task: Task) {
    this.value = task
    this.#scheduler = scheduler
  }

  leave (): void {
    this.queue?.remove(this)
  }

  get bytes (): number {
    return this.value.bytes
  }

  get isDroppable (): boolean {
    return this.value.isDroppable
  }

  lose (why: Loss): void {
    this.#scheduler.withdraw(this.value)
    this.value.lose(why)
  }
}

/**
 * Says what may run now: so many handlers at once, over all and of each topic, and in each lane one message
 * after the other. Only what is under way takes a slot: a handler that is done when it returns has had none,
 * and as long as all are like that there is nothing to look up. Topics take turns at the slots, so that one
 * that is flooded does not keep the others waiting.
 *
 * ```
 * a message ── another has its turn ─── followers of the lane
 *     │                                     │ it is its turn
 *     ├────── no slot ────────────────► ready ── of its topic
 *     │                                     │ it is the topic's turn
 *     └────── runs ◄────────────────────────┘
 * ```
 */
export class Scheduler {
  readonly #concurrency: number
  readonly #backlog: Backlog
  /** Those in which something is ready, and that have a slot of their own. */
  readonly #groups = new Queue<Group>()
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

  hasSlot (group: Group): boolean {
    return this.#running < this.#concurrency && group.hasSlot
  }

  /** Something has begun that is not done yet. */
  begin (group: Group): void {
    this.#running++
    group.running++
  }

  end (group: Group): void {
    this.#running--
    group.running--
    if (group.ready.size > 0) this.#list(group)
    if (this.#groups.size > 0) this.#pump()
  }

  /** Runs it as soon as there is a slot. */
  enqueue (task: Task): void {
    this.#put(task, task.group.ready)
    this.#list(task.group)
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

  /** Runs it when it is its turn in its lane. */
  follow (lane: Lane, task: Task): void {
    lane.followers ??= new Queue()
    this.#put(task, lane.followers)
  }

  /** It is the turn of the one behind it. */
  pass (lane: Lane, taker: Taker): void {
    const next = taker.group.pass(lane, taker)
    if (next === undefined) return
    // In most cases nobody else wants the slot that has just become free.
    const isNext = this.#groups.size === 0 && this.hasSlot(next.group)
    if (!isNext || this.#isPumping || this.#isStopped) {
      this.enqueue(next)
      return
    }
    this.#isPumping = true
    this.#run(next)
    this.#isPumping = false
    this.#pump()
  }

  /** It waits no more. */
  withdraw (task: Task): void {
    const { wait } = task
    if (wait === undefined) return
    task.wait = undefined
    wait.leave()
    if (wait.timer !== undefined) clearTimeout(wait.timer)
    this.#backlog.remove(wait)
  }

  /** From now on nothing begins that would have to wait first. */
  stop (): void {
    this.#isStopped = true
  }

  /** Into a queue; from another one if it waits already. */
  #put (task: Task, queue: Queue<Task>): void {
    if (task.wait !== undefined) {
      queue.append(task.wait)
      return
    }
    const wait = this.#enter(task)
    if (wait === undefined) return
    queue.append(wait)
    this.#backlog.trim()
  }

  /** @returns undefined if nothing is begun any more */
  #enter (task: Task): Wait | undefined {
    if (this.#isStopped) {
      task.lose('given up')
      return undefined
    }
    const wait = new Wait(this, task)
    task.wait = wait
    this.#backlog.add(wait)
    return wait
  }

  #list (group: Group): void {
    const isListed = group.place.queue !== undefined
    if (!isListed && group.ready.size > 0 && group.hasSlot) this.#groups.append(group.place)
  }

  #run (task: Task): void {
    this.withdraw(task)
    task.proceed()
  }

  #pump (): void {
    // What runs may end at once, and let the next one run: a loop, or ten thousand would be a stack too deep.
    if (this.#isPumping) return
    this.#isPumping = true
    while (this.#running < this.#concurrency && !this.#isStopped) {
      const place = this.#groups.first
      if (place === undefined) break
      const { value: group } = place
      const task = group.hasSlot ? group.ready.first?.value : undefined
      if (task !== undefined) this.#run(task)
      const isLeft = group.ready.size > 0 && group.hasSlot
      if (isLeft && this.#groups.size === 1) continue
      place.leave()
      if (isLeft) this.#groups.append(place)
    }
    this.#isPumping = false
  }
}
