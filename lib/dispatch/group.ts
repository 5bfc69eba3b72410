import type { MessageOrder } from '../../types/topic.ts'
import { Place, Queue } from '../queue.ts'
import type { Owner, Task } from './scheduler.ts'

/** Messages of one topic that run one after the other: those with one topic name, or with one key. */
export class Lane {
  readonly key: string
  /** Whose turn it is; others wait behind it. */
  owner: Owner | undefined = undefined
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
  /** Lanes with an owner that are not cached. */
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
  laneFor (key: string, isCached = false): Lane {
    const lane = this.#lanes.get(key)
    if (lane === undefined) return new Lane(key, isCached)
    lane.isCached = isCached
    return lane
  }

  take (lane: Lane, owner: Owner): void {
    lane.owner = owner
    if (!lane.isCached) this.#lanes.set(lane.key, lane)
  }

  /** @returns whose turn it is now; undefined if nobody waits, or it was not the owner */
  pass (lane: Lane, owner: Owner): Task | undefined {
    if (lane.owner !== owner) return undefined
    const { followers } = owner
    const next = followers?.shift()
    // One that is through must not refer to those after it: grown old, it would keep all of them as garbage.
    owner.followers = undefined
    if (next !== undefined) next.followers = followers
    else if (this.#lanes.size > 0) this.#lanes.delete(lane.key)
    lane.owner = next
    return next
  }

  /** The cache has forgotten a lane. */
  onForgotten (lane: Lane): void {
    lane.isCached = false
    if (lane.owner !== undefined) this.#lanes.set(lane.key, lane)
  }
}
