import type { Activity } from './activity.ts'
import { Course, type CourseObserver } from './course.ts'
import { bury, type LetterPublish } from './dead-letter.ts'
import type { Failures } from './failure.ts'
import type { Group, Lane } from './group.ts'
import type { Incoming } from './message.ts'
import type { Passage } from './passage.ts'
import type { Match, Pipeline } from './pipeline.ts'
import type { Receipt } from './receipt.ts'
import type { Owner, Scheduler } from './scheduler.ts'

/** What a delivery needs of the dispatcher. */
export interface DeliveryPort {
  readonly scheduler: Scheduler
  readonly pipeline: Pipeline
  readonly failures: Failures
  readonly activity: Activity
  readonly counters: DeliveryCounters
  /** Instead of that of each topic: of `inject()`, whose messages wait for nothing, and are timed. */
  readonly directGroup: Group | undefined
  publish (letter: LetterPublish): Promise<void>
}

export interface DeliveryCounters {
  retried: number
  deadLettered: number
}

/**
 * One message for one topic. Most are simple: their handlers are through at once, and leave nothing behind, or
 * all but the last, which is awaited. For the others there is a course.
 */
export class Delivery implements Owner {
  readonly port: DeliveryPort
  readonly match: Match
  readonly incoming: Incoming
  readonly receipt: Receipt | undefined
  /** What the schemas say of the message holds for all handlers of the topic. */
  rejection: { readonly error: unknown, isReported: boolean } | undefined
  course: Course | undefined
  followers: Owner['followers']

  constructor (port: DeliveryPort, match: Match, incoming: Incoming, receipt: Receipt | undefined) {
    this.port = port
    this.match = match
    this.incoming = incoming
    this.receipt = receipt
    this.rejection = undefined
    this.course = undefined
    this.followers = undefined
  }

  get group (): Group {
    return this.port.directGroup ?? this.match.group
  }

  /** Runs the handlers as soon as the rules allow it: in most cases now. */
  start (): void {
    const { scheduler, pipeline } = this.port
    const { group, route: { handlers } } = this.match
    const lane = this.match.lane ?? (group.hasLanes ? this.lane() : undefined)
    if (lane?.owner !== undefined || !scheduler.hasSlot(group)) {
      this.#takeCourse(lane).start()
      return
    }
    let next = 0
    for (const handler of handlers) {
      const passage = pipeline.passage(handler, this)
      next++
      if (passage.go()) {
        if (passage.manualAck !== undefined) this.expectAck(passage)
      } else {
        if (next === handlers.length && this.#isSimple) this.#begin()
        else this.#takeCourse(lane).goOn(handlers, next)
        return
      }
    }
  }

  /** Runs them now, whatever else runs. */
  startObserved (observer: CourseObserver): void {
    this.#takeCourse(undefined, observer).proceed()
  }

  /** With `ack: 'manual'`: what has failed, or was left out by a hook, nobody will acknowledge. */
  expectAck (passage: Passage): void {
    const { route } = this.match
    if (passage.outcome !== 'handled') {
      passage.manualAck?.give()
      return
    }
    passage.manualAck?.expect(route.ackTimeoutMs, route.pattern, async (error) => {
      await this.port.failures.report(route, error, passage.message)
      bury(this, error, passage.attempt)
    })
  }

  /** A handler is through, or has failed, some time after it was begun. */
  onRunEnd (passage: Passage): void {
    if (this.course === undefined && passage.outcome === 'failed') this.#complicate()
    if (this.course === undefined) this.#end()
    else this.course.onRunEnd(passage)
  }

  /** It is over: nobody needs the message any more. */
  leave (): void {
    this.incoming.drop?.()
    this.port.activity.end()
  }

  /** Where it may have to wait, or others behind it; undefined if they do not wait for each other. */
  lane (): Lane | undefined {
    const { group } = this
    if (typeof group.order === 'function') return group.laneFor(this.port.pipeline.keyOf(group.order, this))
    return group.order === 'topic' ? this.match.lane : undefined
  }

  /** Whether it is enough to wait for the last handler. */
  get #isSimple (): boolean {
    const { route, group } = this.match
    return route.ack === 'after' && typeof group.order !== 'function'
  }

  #enter (): void {
    this.incoming.keep?.()
    this.port.activity.begin()
  }

  /** The last handler is under way. */
  #begin (): void {
    const { group, lane } = this.match
    this.#enter()
    this.port.scheduler.begin(group)
    this.receipt?.hold()
    if (lane !== undefined) group.take(lane, this)
  }

  #end (): void {
    const { port: { scheduler }, match: { group, lane } } = this
    scheduler.end(group)
    this.receipt?.release()
    if (lane !== undefined) scheduler.pass(lane, this)
    this.leave()
  }

  /** The last handler has failed: perhaps that is not the end of it. */
  #complicate (): void {
    const { followers, match: { route, lane } } = this
    if (route.retry === undefined && route.deadLetter === undefined) return
    this.followers = undefined
    this.course = new Course(this, lane, undefined).takeOver(followers)
  }

  #takeCourse (lane: Lane | undefined, observer?: CourseObserver): Course {
    this.#enter()
    return (this.course = new Course(this, lane, observer))
  }
}
