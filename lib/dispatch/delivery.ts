import type { Activity } from './activity.ts'
import { DeadLetter, type LetterPublish } from './dead-letter.ts'
import type { Failures } from './failure.ts'
import type { Incoming } from './message.ts'
import type { Passage } from './passage.ts'
import type { Match, MessageHandler, Pipeline } from './pipeline.ts'
import type { ManualAck, Receipt } from './receipt.ts'
import { Retry, retryDelay, type RetryHost } from './retry.ts'
import type { Group, Scheduler, Task } from './scheduler.ts'

/** What a delivery needs of the dispatcher. */
export interface DeliveryPort {
  readonly scheduler: Scheduler
  readonly pipeline: Pipeline
  readonly failures: Failures
  readonly activity: Activity
  readonly counters: DeliveryCounters
  publish (letter: LetterPublish): Promise<void>
}

export interface DeliveryCounters {
  retried: number
  deadLettered: number
}

/** A message that one topic could not deal with. */
export interface FailedDelivery {
  readonly match: Match
  readonly incoming: Incoming
  /** Waits for the end of it; undefined if nothing does. */
  readonly receipt: Receipt | undefined
  readonly group: Group
  readonly bytes: number
  readonly error: unknown
  /** How often the handler was run. */
  readonly attempts: number
  /** Called when the letter has arrived, or is lost. */
  readonly onEnd: (() => void) | undefined
}

/** Told how each handler ended, and when all have; for `inject()`. */
export interface DeliveryObserver {
  onSettled (passage: Passage): void
  onEnd (): void
}

/**
 * One message for one topic: runs the handlers, as the scheduler allows; again those that fail; and sends it
 * to the dead letter target at last. Most messages are through with their handlers at once: then it waits for
 * nothing, asks nobody, and leaves nothing behind.
 */
export class Delivery implements Task, RetryHost {
  readonly match: Match
  readonly incoming: Incoming
  readonly group: Group
  /** What the schemas say of the message holds for all handlers of the topic. */
  rejection: { readonly error: unknown, isReported: boolean } | undefined
  wait: Task['wait']
  followers: Task['followers']
  readonly receipt: Receipt | undefined
  readonly observer: DeliveryObserver | undefined
  readonly #port: DeliveryPort
  #handlers: readonly MessageHandler[] | undefined
  /** The handler that comes next. */
  #next = 0
  /** Handlers that have begun and are not through, be it that they wait for another attempt. */
  #underWay = 0
  #key: string | undefined
  /** Others have to be told of its end. */
  #isOpen = false
  #isHolding = false
  #lost: 'dropped' | 'given up' | undefined
  #failed: Passage | undefined

  constructor (
    port: DeliveryPort,
    match: Match,
    incoming: Incoming,
    receipt: Receipt | undefined,
    group: Group,
    observer: DeliveryObserver | undefined
  ) {
    this.#port = port
    this.match = match
    this.incoming = incoming
    this.receipt = receipt
    this.group = group
    this.observer = observer
    this.rejection = undefined
    this.wait = undefined
    this.followers = undefined
  }

  get bytes (): number {
    return this.incoming.topic.length + this.incoming.payload.length
  }

  /** What has been acknowledged would not come again either. */
  get isDroppable (): boolean {
    return this.receipt === undefined || (this.match.route.ack === 'before' && this.#handlers !== undefined)
  }

  /** Runs as soon as the rules allow it: in most cases now. */
  start (): void {
    const { scheduler } = this.#port
    if (this.group.hasOwners) {
      const owner = this.#ownerOfKey()
      if (owner !== undefined) {
        this.#hold()
        this.#open()
        scheduler.follow(owner, this)
        return
      }
    }
    if (scheduler.hasSlot(this.group)) this.proceed()
    else this.#waitForSlot()
  }

  proceed (): void {
    const { ack, handlers } = this.match.route
    // Not before: what waits may still be lost, and would not come again.
    if (this.#isHolding && ack === 'before') this.#release()
    const all = (this.#handlers ??= handlers)
    for (let handler = all[this.#next]; handler !== undefined; handler = all[this.#next]) {
      if (!this.#port.scheduler.hasSlot(this.group)) {
        this.#waitForSlot()
        return
      }
      this.#next++
      this.#run(this.#port.pipeline.passage(handler, this))
    }
    // From here on the handlers' own acknowledgements hold it.
    if (this.#isHolding && ack === 'manual') this.#release()
    if (this.#underWay === 0) this.#end()
  }

  /** A handler is through, or has failed, some time after it was begun. */
  onRunEnd (passage: Passage): void {
    const { scheduler, counters } = this.#port
    scheduler.end(this.group)
    const { retry } = this.match.route
    if (retry !== undefined && passage.canBeRetried && passage.attempt <= retry.limit) {
      counters.retried++
      scheduler.enqueueAfter(new Retry(this, passage), retryDelay(retry, passage.attempt))
    } else {
      this.#settle(passage)
    }
  }

  rerun (failed: Passage): void {
    const passage = this.#port.pipeline.passageAfter(failed, this)
    if (passage.go()) this.#settle(passage)
    else this.#port.scheduler.begin(this.group)
  }

  onRetryLost (failed: Passage, why: 'dropped' | 'given up'): void {
    this.#lost ??= why
    this.#settle(failed)
  }

  lose (why: 'dropped' | 'given up'): void {
    this.#lost ??= why
    this.#next = Infinity
    if (this.#underWay === 0) this.#end()
  }

  #run (passage: Passage): void {
    if (passage.go()) {
      this.#note(passage)
      return
    }
    this.#underWay++
    this.#port.scheduler.begin(this.group)
    if (this.match.route.ack === 'after') this.#hold()
    this.#open()
    this.#takeKey()
  }

  #waitForSlot (): void {
    this.#hold()
    this.#open()
    this.#takeKey()
    this.#port.scheduler.enqueue(this)
  }

  #settle (passage: Passage): void {
    this.#note(passage)
    this.#underWay--
    const hasBegunAll = this.#handlers !== undefined && this.#next >= this.#handlers.length
    if (this.#underWay === 0 && hasBegunAll) this.#end()
  }

  #note (passage: Passage): void {
    const { ack, deadLetter } = this.match.route
    if (passage.outcome === 'failed') {
      this.#failed ??= passage
      // Until the letter holds it.
      if (deadLetter !== undefined && ack !== 'before') this.#hold()
    }
    if (passage.manualAck !== undefined) this.#expectAck(passage, passage.manualAck)
    this.observer?.onSettled(passage)
  }

  /** What has failed, or was left out by a hook, nobody will acknowledge. */
  #expectAck (passage: Passage, manualAck: ManualAck): void {
    const { route } = this.match
    if (passage.outcome === 'handled') {
      manualAck.expect(route.ackTimeoutMs, route.pattern, async (error) => {
        await this.#port.failures.report(route, error, passage.message)
        this.#bury(error, passage.attempt, undefined)
      })
    } else if (this.#lost !== 'given up') {
      manualAck.give()
    }
  }

  #end (): void {
    const { observer } = this
    const onEnd = observer === undefined ? undefined : () => observer.onEnd()
    const isBuried = this.#failed !== undefined && this.#lost === undefined &&
      this.#bury(this.#failed.error, this.#failed.attempt, onEnd)
    if (this.#isOpen) {
      if (this.#lost !== 'given up') this.#release()
      if (this.#key !== undefined) this.#port.scheduler.pass(this.group, this.#key, this)
      this.#port.activity.end()
    }
    if (!isBuried) onEnd?.()
  }

  /** @returns whether there is a target */
  #bury (error: unknown, attempts: number, onEnd: (() => void) | undefined): boolean {
    const { match, incoming, group, bytes } = this
    const { ack, deadLetter } = match.route
    if (deadLetter === undefined) return false
    const receipt = ack === 'before' ? undefined : this.receipt
    const failed = { match, incoming, receipt, group, bytes, error, attempts, onEnd }
    new DeadLetter(this.#port, deadLetter, failed).start()
    return true
  }

  #open (): void {
    if (this.#isOpen) return
    this.#isOpen = true
    this.incoming.detach?.()
    this.#port.activity.begin()
  }

  #hold (): void {
    if (this.#isHolding) return
    this.#isHolding = true
    this.receipt?.hold()
  }

  #release (): void {
    if (!this.#isHolding) return
    this.#isHolding = false
    this.receipt?.release()
  }

  #ownerOfKey (): Task | undefined {
    const key = this.#keyOf()
    return key === undefined ? undefined : this.group.ownerOf(key)
  }

  #takeKey (): void {
    const key = this.#keyOf()
    if (key !== undefined) this.group.take(key, this)
  }

  /** Worked out when somebody has to wait, or may have to wait for this one. */
  #keyOf (): string | undefined {
    const { order } = this.group
    if (order === 'none') return undefined
    return (this.#key ??= order === 'topic' ? this.incoming.topic : this.#port.pipeline.keyOf(order, this))
  }
}
