import type { Activity } from './activity.ts'
import type { Loss } from './backlog.ts'
import { Course, type CourseObserver } from './course.ts'
import { bury, type LetterPublish } from './dead-letter.ts'
import type { Failures } from './failure.ts'
import type { Group, Lane } from './group.ts'
import type { Match } from './match.ts'
import { weightOf, type Incoming, type ReceivedMessage } from './message.ts'
import { Passage } from './passage.ts'
import type { MessageHandler, Pipeline } from './pipeline.ts'
import type { Receipt } from './receipt.ts'
import type { Scheduler, Task } from './scheduler.ts'
import { isThenable, whenSettled, type Awaiting } from './thenable.ts'

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
export class Delivery implements Task, Awaiting {
  readonly port: DeliveryPort
  readonly match: Match
  readonly incoming: Incoming
  readonly receipt: Receipt | undefined
  /** What the schemas say of the message holds for all handlers of the topic. */
  rejection: { readonly error: unknown, isReported: boolean } | undefined
  wait: Task['wait']
  hasTurn: boolean
  #course: Course | undefined
  /** What is under way without a passage. */
  #message: ReceivedMessage | undefined
  #handler: MessageHandler | undefined

  constructor (port: DeliveryPort, match: Match, incoming: Incoming, receipt: Receipt | undefined) {
    this.port = port
    this.match = match
    this.incoming = incoming
    this.receipt = receipt
    this.rejection = undefined
    this.wait = undefined
    this.hasTurn = false
    this.#course = undefined
    this.#message = undefined
    this.#handler = undefined
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
    if ((lane !== undefined && lane.turns > 0) || !scheduler.hasSlot(group)) {
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

  /** A handler that is under way without a passage is through. */
  onValue (): void {
    this.port.scheduler.end(this.match.group)
    this.#end()
  }

  /** The same, has failed. */
  onThrown (thrown: unknown): void {
    if (this.#message === undefined || this.#handler === undefined) return
    this.#fail(this.#message, this.#handler, thrown)
  }

  /** Decodes and checks. @throws what makes it no message for its topic, for each handler the same */
  accept (message: ReceivedMessage): void {
    if (this.rejection !== undefined) throw this.rejection.error
    try {
      this.port.pipeline.accept(this.match, message, this.incoming)
    } catch (error) {
      this.rejection = { error, isReported: false }
      throw error
    }
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
    const only = handlers[0]
    if (only !== undefined && handlers.length === 1 && this.#isPlain) return this.#runPlain(only)
    let begun = 0
    // By its index: to iterate would be more code than all that is done here.
    for (let handler = handlers[begun]; handler !== undefined; handler = handlers[begun]) {
      const passage = this.port.pipeline.passage(handler, this)
      begun++
      if (!passage.go()) return begun
      if (passage.manualAck !== undefined) this.expectAck(passage)
    }
    return 0
  }

  /** Whether no hook sees it, so that its way to a handler is short: most are like that. */
  get #isPlain (): boolean {
    return this.match.route.lifecycle.hooks.isPlain && this.#isSimple
  }

  /** As a passage would, without one: it saves a twentieth of the time. What fails gets its passage then. */
  #runPlain (handler: MessageHandler): 0 | 1 {
    const message = this.port.pipeline.message(this.match, this.incoming)
    try {
      this.accept(message)
      const result: unknown = handler.call(this.match.route.server, message)
      if (!isThenable(result)) return 0
      this.#message = message
      this.#handler = handler
      whenSettled(result, this)
    } catch (thrown) {
      this.#fail(message, handler, thrown)
    }
    return 1
  }

  #fail (message: ReceivedMessage, handler: MessageHandler, thrown: unknown): void {
    new Passage(this, message, handler, undefined, 1).fail(thrown)
  }

  #wait (lane: Lane | undefined): void {
    const { port: { scheduler }, match: { group } } = this
    this.#hold()
    if (lane !== undefined && lane.turns > 0) {
      scheduler.follow(lane, this)
      return
    }
    if (lane !== undefined) group.take(lane, this)
    scheduler.enqueue(this)
  }

  /** Until it ends. A message with a receipt is kept by whoever gave it, as long as that is held. */
  #hold (): void {
    if (this.receipt === undefined) this.incoming.keep?.()
    else this.receipt.hold()
    this.port.activity.begin()
  }

  #end (): void {
    this.receipt?.release()
    this.#pass()
  }

  #pass (): void {
    const { lane } = this.match
    if (lane !== undefined) this.port.scheduler.pass(lane, this)
    if (this.receipt === undefined) this.incoming.drop?.()
    this.port.activity.end()
  }

  /** Its handler is under way, and it holds the receipt and the lane. */
  #complicate (): Course {
    if (this.receipt !== undefined) this.incoming.keep?.()
    return (this.#course = new Course(this, this.match.lane, undefined)).takeOver()
  }

  #takeCourse (lane: Lane | undefined, observer?: CourseObserver): Course {
    this.incoming.keep?.()
    this.port.activity.begin()
    return (this.#course = new Course(this, lane, observer))
  }
}
