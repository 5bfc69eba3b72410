import type { Activity } from './activity.ts'
import { Course, type CourseObserver } from './course.ts'
import { bury, type LetterPublish } from './dead-letter.ts'
import type { Failures } from './failure.ts'
import type { Group, Lane } from './group.ts'
import type { Incoming } from './message.ts'
import type { Passage } from './passage.ts'
import type { Match, Pipeline } from './pipeline.ts'
import type { Receipt } from './receipt.ts'
import type { Scheduler } from './scheduler.ts'

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
 * One message for one topic. Most messages are through with their handlers at once: they wait for nothing,
 * ask nobody, and leave nothing behind. For the others there is a course.
 */
export class Delivery {
  readonly port: DeliveryPort
  readonly match: Match
  readonly incoming: Incoming
  readonly receipt: Receipt | undefined
  /** What the schemas say of the message holds for all handlers of the topic. */
  rejection: { readonly error: unknown, isReported: boolean } | undefined
  course: Course | undefined

  constructor (port: DeliveryPort, match: Match, incoming: Incoming, receipt: Receipt | undefined) {
    this.port = port
    this.match = match
    this.incoming = incoming
    this.receipt = receipt
    this.rejection = undefined
    this.course = undefined
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
        this.#takeCourse(lane).goOn(handlers, next)
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
    this.course?.onRunEnd(passage)
  }

  /** Where it may have to wait, or others behind it; undefined if they do not wait for each other. */
  lane (): Lane | undefined {
    const { group } = this
    if (typeof group.order === 'function') return group.laneFor(this.port.pipeline.keyOf(group.order, this))
    return group.order === 'topic' ? this.match.lane : undefined
  }

  #takeCourse (lane: Lane | undefined, observer?: CourseObserver): Course {
    return (this.course = new Course(this, lane, observer))
  }
}
