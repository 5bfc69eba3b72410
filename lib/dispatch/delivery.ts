import type { Activity } from './activity.ts'
import type { Loss } from './backlog.ts'
import { Course, type CourseObserver } from './course.ts'
import { bury, type LetterPublish } from './dead-letter.ts'
import type { Failures } from './failure.ts'
import type { Group, Lane } from './group.ts'
import { weightOf, type Incoming } from './message.ts'
import type { Passage } from './passage.ts'
import type { Match, MessageHandler, Pipeline } from './pipeline.ts'
import type { Receipt } from './receipt.ts'
import type { Scheduler, Task } from './scheduler.ts'

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
 * One message for one topic. Most are simple: all handlers are through at once, or all but the last, which is
 * awaited. For the others there is a course.
 */
export class Delivery implements Task {
  readonly port: DeliveryPort
  readonly match: Match
  readonly incoming: Incoming
  readonly receipt: Receipt | undefined
  /** What the schemas say of the message holds for all handlers of the topic. */
  rejection: { readonly error: unknown, isReported: boolean } | undefined
  wait: Task['wait']
  followers: Task['followers']
  #course: Course | undefined

  constructor (port: DeliveryPort, match: Match, incoming: Incoming, receipt: Receipt | undefined) {
    this.port = port
    this.match = match
    this.incoming = incoming
    this.receipt = receipt
    this.rejection = undefined
    this.wait = undefined
    this.followers = undefined
    this.#course = undefined
  }

  get group (): Group {
    return this.port.directGroup ?? this.match.group
  }

  get bytes (): number {
    return weightOf(this.incoming)
  }

  get isDroppable (): boolean {
    return this.receipt === undefined
  }

  /** Runs the handlers as soon as the rules allow it: in most cases now. */
  start (): void {
    const { scheduler } = this.port
    const { group, route: { handlers } } = this.match
    const lane = this.match.lane ?? (group.hasLanes ? this.lane() : undefined)
    if (lane?.owner !== undefined || !scheduler.hasSlot(group)) {
      if (this.#isSimple) this.#wait(lane)
      else this.#takeCourse(lane).start()
      return
    }
    const begun = this.#run(handlers)
    if (begun === 0) return
    if (begun < handlers.length || !this.#isSimple) {
      this.#takeCourse(lane).goOn(handlers, begun)
      return
    }
    this.#hold()
    if (lane !== undefined) group.take(lane, this)
    scheduler.begin(group)
  }

  /** Runs them now, whatever else runs. */
  startObserved (observer: CourseObserver): void {
    this.#takeCourse(undefined, observer).proceed()
  }

  /** It has waited. */
  proceed (): void {
    const { group, route: { handlers } } = this.match
    const begun = this.#run(handlers)
    if (begun === 0) {
      this.#end()
      return
    }
    this.port.scheduler.begin(group)
    if (begun < handlers.length) this.#complicate().goOnAfter(handlers, begun)
  }

  lose (why: Loss): void {
    // Else it is for the next process with this session.
    if (why === 'dropped') this.receipt?.release()
    this.#pass()
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
    const { route, group } = this.match
    // A failure need not be the end of it.
    if (passage.outcome === 'failed' && (route.retry !== undefined || route.deadLetter !== undefined)) {
      this.#course ??= this.#complicate()
    }
    if (this.#course === undefined) {
      this.port.scheduler.end(group)
      this.#end()
    } else {
      this.#course.onRunEnd(passage)
    }
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

  /** Whether its last handler is all that it may have to wait for. Then its lane is that of the match. */
  get #isSimple (): boolean {
    const { route, group } = this.match
    return route.ack === 'after' && typeof group.order !== 'function'
  }

  /** Runs one after the other. @returns how many have begun, if the last of these is not through; else 0 */
  #run (handlers: readonly MessageHandler[]): number {
    let begun = 0
    for (const handler of handlers) {
      const passage = this.port.pipeline.passage(handler, this)
      begun++
      if (!passage.go()) return begun
      if (passage.manualAck !== undefined) this.expectAck(passage)
    }
    return 0
  }

  #wait (lane: Lane | undefined): void {
    const { port: { scheduler }, match: { group } } = this
    this.#hold()
    if (lane?.owner !== undefined) {
      scheduler.follow(lane.owner, this)
      return
    }
    if (lane !== undefined) group.take(lane, this)
    scheduler.enqueue(this)
  }

  #enter (): void {
    this.incoming.keep?.()
    this.port.activity.begin()
  }

  /** Until it ends. */
  #hold (): void {
    this.#enter()
    this.receipt?.hold()
  }

  #end (): void {
    this.receipt?.release()
    this.#pass()
  }

  #pass (): void {
    const { lane } = this.match
    if (lane !== undefined) this.port.scheduler.pass(lane, this)
    this.leave()
  }

  /** Its handler is under way, and it holds the receipt and the lane. */
  #complicate (): Course {
    const { followers } = this
    this.followers = undefined
    return (this.#course = new Course(this, this.match.lane, undefined)).takeOver(followers)
  }

  #takeCourse (lane: Lane | undefined, observer?: CourseObserver): Course {
    this.#enter()
    return (this.#course = new Course(this, lane, observer))
  }
}
