import type { Loss } from './backlog.ts'
import { bury } from './dead-letter.ts'
import type { Delivery } from './delivery.ts'
import type { Group, Lane } from './group.ts'
import type { Passage } from './passage.ts'
import type { MessageHandler } from './pipeline.ts'
import { Retry, retryDelay } from './retry.ts'
import type { Task } from './scheduler.ts'

/** Told how each handler ended, and when all have; for `inject()`. */
export interface CourseObserver {
  onSettled (passage: Passage): void
  onEnd (): void
}

/**
 * A delivery that is not simple: several of its handlers are under way, one has failed and may be run again,
 * its acknowledgement does not follow the handlers, or its order is a function's. A message that is
 * acknowledged after its handlers is so at the end, or when the dead letter target has it.
 */
export class Course implements Task {
  readonly delivery: Delivery
  readonly group: Group
  wait: Task['wait'] = undefined
  hasTurn = false
  readonly #observer: CourseObserver | undefined
  /** Undefined as long as none has begun: until then some may come or go. */
  #handlers: readonly MessageHandler[] | undefined = undefined
  /** The handlers before it have begun. */
  #next = 0
  /** Handlers that have begun and are not through, be it that they wait for another attempt. */
  #underWay = 0
  #lane: Lane | undefined
  #isHolding = false
  #lost: Loss | undefined = undefined
  #failed: Passage | undefined = undefined

  /** @param lane undefined if it has none, or it is not known yet */
  constructor (delivery: Delivery, lane: Lane | undefined, observer: CourseObserver | undefined) {
    this.delivery = delivery
    this.group = delivery.group
    this.#lane = lane
    this.#observer = observer
  }

  get bytes (): number {
    return this.delivery.bytes
  }

  /** What has been acknowledged would not come again either. */
  get isDroppable (): boolean {
    const { isDroppable, match } = this.delivery
    return isDroppable || (match.route.ack === 'before' && this.#handlers !== undefined)
  }

  /** Nothing of it has begun, because something has to be waited for. */
  start (): void {
    if (this.#lane === undefined || this.#lane.turns === 0) {
      this.#waitForSlot()
    } else {
      this.#hold()
      this.delivery.port.scheduler.follow(this.#lane, this)
    }
  }

  /** Goes on with what has begun: the handler before the next one is not through. */
  goOn (handlers: readonly MessageHandler[], next: number): void {
    this.#handlers = handlers
    this.#next = next
    this.#begin()
    this.proceed()
  }

  /** Goes on with what was simple: a handler is under way, and holds the receipt and its turn in the lane. */
  takeOver (): this {
    this.#handlers = []
    this.#underWay = 1
    this.#isHolding = true
    this.hasTurn = this.delivery.hasTurn
    this.delivery.hasTurn = false
    return this
  }

  /** The same, with more handlers than this one. */
  goOnAfter (handlers: readonly MessageHandler[], next: number): void {
    this.#handlers = handlers
    this.#next = next
    this.proceed()
  }

  proceed (): void {
    const { port, match: { route } } = this.delivery
    // Not before: what waits may still be lost, and would not come again.
    if (route.ack === 'before') this.#release()
    const handlers = (this.#handlers ??= route.handlers)
    for (let handler = handlers[this.#next]; handler !== undefined; handler = handlers[this.#next]) {
      if (!port.scheduler.hasSlot(this.group)) {
        this.#waitForSlot()
        return
      }
      this.#next++
      const passage = port.pipeline.passage(handler, this.delivery)
      if (passage.go()) this.#note(passage)
      else this.#begin()
    }
    // From here on the handlers' own acknowledgements hold it.
    if (route.ack === 'manual') this.#release()
    if (this.#underWay === 0) this.#end()
  }

  /** A handler is through, or has failed. */
  onRunEnd (passage: Passage): void {
    const { scheduler, counters } = this.delivery.port
    const { retry } = this.delivery.match.route
    scheduler.end(this.group)
    if (retry !== undefined && passage.canBeRetried && passage.attempt <= retry.limit) {
      counters.retried++
      scheduler.enqueueAfter(new Retry(this, passage), retryDelay(retry, passage.attempt))
    } else {
      this.#settle(passage)
    }
  }

  rerun (failed: Passage): void {
    const { port: { pipeline, scheduler }, match: { route } } = this.delivery
    if (!route.handlers.includes(failed.handler)) {
      // It was removed meanwhile.
      this.#settle(failed)
      return
    }
    const passage = pipeline.passageAfter(failed, this.delivery)
    if (passage.go()) this.#settle(passage)
    else scheduler.begin(this.group)
  }

  /** The last failure is the end of it. */
  onRetryLost (failed: Passage, why: Loss): void {
    this.#lost ??= why
    this.#settle(failed)
  }

  lose (why: Loss): void {
    this.#lost ??= why
    this.#next = Infinity
    if (this.#underWay === 0) this.#end()
  }

  #begin (): void {
    this.#underWay++
    this.delivery.port.scheduler.begin(this.group)
    if (this.delivery.match.route.ack === 'after') this.#hold()
    this.#takeLane()
  }

  #waitForSlot (): void {
    this.#hold()
    this.#takeLane()
    this.delivery.port.scheduler.enqueue(this)
  }

  #settle (passage: Passage): void {
    this.#note(passage)
    this.#underWay--
    const hasBegunAll = this.#handlers !== undefined && this.#next >= this.#handlers.length
    if (this.#underWay === 0 && hasBegunAll) this.#end()
  }

  #note (passage: Passage): void {
    const { ack, deadLetter } = this.delivery.match.route
    if (passage.outcome === 'failed') {
      this.#failed ??= passage
      // Until the letter holds it.
      if (deadLetter !== undefined && ack !== 'before') this.#hold()
    }
    if (passage.manualAck !== undefined && this.#lost !== 'given up') this.delivery.expectAck(passage)
    this.#observer?.onSettled(passage)
  }

  #end (): void {
    const { port } = this.delivery
    const isBuried = this.#failed !== undefined && this.#lost === undefined &&
      bury(this.delivery, this.#failed.error, this.#failed.attempt, this.#observer)
    if (this.#lost !== 'given up') this.#release()
    if (this.#lane !== undefined) port.scheduler.pass(this.#lane, this)
    this.delivery.incoming.drop?.()
    port.activity.end()
    if (!isBuried) this.#observer?.onEnd()
  }

  #hold (): void {
    if (this.#isHolding) return
    this.#isHolding = true
    this.delivery.receipt?.hold()
  }

  #release (): void {
    if (!this.#isHolding) return
    this.#isHolding = false
    this.delivery.receipt?.release()
  }

  #takeLane (): void {
    this.#lane ??= this.delivery.lane()
    if (this.#lane !== undefined) this.group.take(this.#lane, this)
  }
}
