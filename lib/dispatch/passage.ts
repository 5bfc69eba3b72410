import type { Settlement } from '../../types/hooks.ts'
import type { Delivery } from './delivery.ts'
import type { Failures } from './failure.ts'
import { acceptance, handling, type MessageHooks } from './hooks.ts'
import type { ReceivedMessage } from './message.ts'
import type { HandlerEnd, MessageHandler } from './pipeline.ts'
import type { ManualAck } from './receipt.ts'
import { isThenable, whenSettled } from './thenable.ts'

/** What a passage needs of the pipeline that it is in. */
export interface PassagePort {
  readonly failures: Failures
  /** Decodes and checks. @throws what makes the message no message for its topic */
  accept (delivery: Delivery, message: ReceivedMessage): void
}

/**
 * The way of one message to one handler, step by step. It goes on at once until something has to be waited
 * for: hooks and handlers that are synchronous cost no promise (an async function in their place costs
 * 0.8 µs), and an empty hook costs 10 to 20 ns.
 */
export class Passage {
  readonly message: ReceivedMessage
  readonly handler: MessageHandler
  readonly manualAck: ManualAck | undefined
  /** How often the handler has been run with this message, this time included. */
  readonly attempt: number
  outcome: Settlement['outcome'] = 'handled'
  /** Of a failure. */
  error: unknown
  readonly #port: PassagePort
  readonly #delivery: Delivery
  readonly #hooks: MessageHooks
  readonly #startedAt: number
  #next = 0
  /** No step follows: what is waited for then are hooks and error handlers. */
  #isOver = false
  #returned: unknown
  #durationMs = 0

  constructor (
    port: PassagePort,
    delivery: Delivery,
    message: ReceivedMessage,
    handler: MessageHandler,
    manualAck: ManualAck | undefined,
    attempt: number
  ) {
    this.#port = port
    this.#delivery = delivery
    this.message = message
    this.handler = handler
    this.manualAck = manualAck
    this.attempt = attempt
    this.#hooks = delivery.match.route.lifecycle.hooks
    // Two looks at the clock are 0.1 µs, for those who ask.
    const isTimed = delivery.port.directGroup !== undefined || this.#hooks.onSettled.length > 0
    this.#startedAt = isTimed ? performance.now() : 0
  }

  /** @returns false if something has to be waited for: the delivery is told when it is over. Never throws. */
  go (): boolean {
    const waiting = this.#advance()
    if (waiting === undefined) return true
    this.#goOnAfter(waiting)
    return false
  }

  /** What the schemas refuse they would refuse again. */
  get canBeRetried (): boolean {
    return this.outcome === 'failed' && this.#delivery.rejection?.error !== this.error
  }

  /** How it ended; only after it has. */
  get end (): HandlerEnd {
    return {
      route: this.#delivery.match.route,
      params: this.message.params,
      outcome: this.outcome,
      error: this.error,
      returned: this.#returned,
      durationMs: this.#durationMs
    }
  }

  /** @returns what has to be waited for before it goes on, or is over */
  #advance (): PromiseLike<unknown> | undefined {
    if (this.#isOver) return undefined
    const { steps } = this.#hooks
    try {
      while (this.#next < steps.length) {
        if (this.message.isSkipped) {
          this.outcome = 'skipped'
          break
        }
        const result = this.#take(steps[this.#next++])
        if (isThenable(result)) return result
      }
    } catch (thrown) {
      return this.#fail(thrown)
    }
    return this.#settle()
  }

  // As `await` would: an async function in this place takes 160 bytes more a message.
  #goOnAfter (waiting: PromiseLike<unknown>): void {
    whenSettled(waiting, (value) => {
      if (waiting === this.#returned) this.#returned = value
      this.#goOn(this.#advance())
    }, (thrown) => this.#goOn(this.#fail(thrown)))
  }

  #goOn (waiting: PromiseLike<unknown> | undefined): void {
    if (waiting === undefined) this.#delivery.onRunEnd(this)
    else this.#goOnAfter(waiting)
  }

  #take (step: MessageHooks['steps'][number] | undefined): unknown {
    const { server } = this.#delivery.match.route
    if (step === handling) return (this.#returned = this.handler.call(server, this.message))
    if (step === acceptance) return this.#accept()
    return step?.call(server, this.message)
  }

  #accept (): undefined {
    const { rejection } = this.#delivery
    if (rejection !== undefined) throw rejection.error
    try {
      this.#port.accept(this.#delivery, this.message)
    } catch (error) {
      this.#delivery.rejection = { error, isReported: false }
      throw error
    }
  }

  /** Never rejects. */
  async #fail (thrown: unknown): Promise<void> {
    this.#isOver = true
    this.outcome = 'failed'
    this.error = thrown
    this.#returned = undefined
    const { rejection, match } = this.#delivery
    // What the schemas refuse is told once, for all handlers of the topic.
    const isTold = rejection?.error === thrown && rejection?.isReported === true
    if (rejection !== undefined && rejection.error === thrown) rejection.isReported = true
    if (!isTold) await this.#port.failures.report(match.route, thrown, this.message)
    await this.#settle()
  }

  /** The promise, if there is one, never rejects. */
  #settle (): Promise<void> | undefined {
    this.#isOver = true
    if (this.#startedAt !== 0) this.#durationMs = performance.now() - this.#startedAt
    return this.#hooks.onSettled.length === 0 ? undefined : this.#runOnSettled()
  }

  async #runOnSettled (): Promise<void> {
    const { route } = this.#delivery.match
    const settlement = { outcome: this.outcome, error: this.error, durationMs: this.#durationMs }
    for (const hook of this.#hooks.onSettled) {
      try {
        const result = hook.call(route.server, this.message, settlement)
        if (isThenable(result)) await result
      } catch (thrown) {
        this.#port.failures.tell(route, thrown, this.message)
      }
    }
  }
}
