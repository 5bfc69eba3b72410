import type { MessageOrder } from '../../types/topic.ts'
import { Place, Queue } from '../queue.ts'
import type { Task, Taker } from './scheduler.ts'

/** Messages of one topic that run one after the other: those with one topic name, or with one key. */
export class Lane {
  readonly key: string
  /**
   * How many have their turn: one, or with it those that its handler hands in itself. A number, not who they
   * are: a lane is old, and to let it refer to each message costs more than to count.
   */
  turns = 0
  /** Those that wait for theirs, in order. */
  followers: Queue<Task> | undefined = undefined
  /** Whether it is found with the topics that a topic name matches: then nobody has to look for it. */
  isCached: boolean

  constructor (key: string, isCached: boolean) {
    this.key = key
    this.isCached = isCached
  }
}

/** What runs by the rules of one topic. */
export class Group {
  /** How many handlers may run at once. */
  readonly concurrency: number
  readonly order: MessageOrder
  running = 0
  /** Those that want a slot. It is their turn where they have a lane. */
  readonly ready = new Queue<Task>()
  /** Among the groups with something that may run; the scheduler's own. */
  readonly place = new Place<Group>(this)
  /** Lanes in which somebody has a turn, and that are not cached. */
  readonly #lanes = new Map<string, Lane>()

  constructor (concurrency: number, order: MessageOrder) {
    this.concurrency = concurrency
    this.order = order
  }

  get hasSlot (): boolean {
    return this.running < this.concurrency
  }

  get hasLanes (): boolean {
    return this.#lanes.size > 0
  }

  /** The lane of a key; a new one if nobody has that key. */
  laneFor (key: string, fresh = new Lane(key, false)): Lane {
    const lane = this.#lanes.get(key)
    if (lane === undefined) return fresh
    lane.isCached = fresh.isCached
    return lane
  }

  /** It is its turn, if it was not yet. */
  take (lane: Lane, taker: Taker): void {
    if (taker.hasTurn) return
    taker.hasTurn = true
    lane.turns++
    if (!lane.isCached) this.#lanes.set(lane.key, lane)
  }

  /** @returns whose turn it is now; undefined if nobody waits, another has it too, or it was not its turn */
  pass (lane: Lane, taker: Taker): Task | undefined {
    if (!taker.hasTurn) return undefined
    taker.hasTurn = false
    if (--lane.turns > 0) return undefined
    const next = lane.followers?.shift()
    if (next !== undefined) {
      next.hasTurn = true
      lane.turns = 1
    } else if (this.#lanes.size > 0) {
      this.#lanes.delete(lane.key)
    }
    return next
  }

  /** The cache has forgotten a lane. */
  onForgotten (lane: Lane): void {
    lane.isCached = false
    if (lane.turns > 0) this.#lanes.set(lane.key, lane)
  }
}
