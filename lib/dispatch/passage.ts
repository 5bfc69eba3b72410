import type { Settlement } from '../../types/hooks.ts'
import type { Delivery } from './delivery.ts'
import { acceptance, handling, type MessageHooks } from './hooks.ts'
import type { ReceivedMessage } from './message.ts'
import type { HandlerEnd, MessageHandler } from './pipeline.ts'
import type { ManualAck } from './receipt.ts'
import { isThenable, whenSettled, type Awaiting } from './thenable.ts'

/**
 * The way of one message to one handler, step by step. It goes on at once until something has to be waited
 * for: hooks and handlers that are synchronous cost no promise (an async function in their place costs
 * 0.8 µs), and an empty hook costs 10 to 20 ns. A message that no hook sees takes a shorter one.
 */
export class Passage implements Awaiting {
  readonly message: ReceivedMessage
  readonly handler: MessageHandler
  readonly manualAck: ManualAck | undefined
  /** How often the handler has been run with this message, this time included. */
  readonly attempt: number
  outcome: Settlement['outcome'] = 'handled'
  /** Of a failure. */
  error: unknown
  readonly #delivery: Delivery
  readonly #hooks: MessageHooks
  #next = 0
  /** No step follows: what is waited for then are hooks and error handlers. */
  #isOver = false
  #returned: unknown
  /** On the clock when it began, if it is timed; then the milliseconds that it took. */
  #time: number

  constructor (
    delivery: Delivery,
    message: ReceivedMessage,
    handler: MessageHandler,
    manualAck: ManualAck | undefined,
    attempt: number
  ) {
    this.#delivery = delivery
    this.message = message
    this.handler = handler
    this.manualAck = manualAck
    this.attempt = attempt
    this.#hooks = delivery.match.route.lifecycle.hooks
    // Two looks at the clock are 0.1 µs, for those who ask.
    const isTimed = delivery.port.directGroup !== undefined || this.#hooks.onSettled.length > 0
    this.#time = isTimed ? performance.now() : 0
  }

  /** @returns false if something has to be waited for: the delivery is told when it is over. Never throws. */
  go (): boolean {
    const waiting = this.#advance()
    if (waiting === undefined) return true
    // As `await` would: an async function in this place takes 160 bytes more a message.
    whenSettled(waiting, this)
    return false
  }

  /** Its handler was run without it, and has failed. The delivery is told when it is over. */
  fail (thrown: unknown): void {
    whenSettled(this.#fail(thrown), this)
  }

  /** What was waited for has come. */
  onValue (value: unknown): void {
    if (!this.#isOver && this.#hooks.steps[this.#next - 1] === handling) this.#returned = value
    this.#goOn(this.#advance())
  }

  /** What was waited for has failed. */
  onThrown (thrown: unknown): void {
    this.#goOn(this.#fail(thrown))
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
      durationMs: this.#time
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

  #goOn (waiting: PromiseLike<unknown> | undefined): void {
    if (waiting === undefined) this.#delivery.onRunEnd(this)
    else whenSettled(waiting, this)
  }

  #take (step: MessageHooks['steps'][number] | undefined): unknown {
    const { server } = this.#delivery.match.route
    if (step === handling) return (this.#returned = this.handler.call(server, this.message))
    if (step === acceptance) return this.#delivery.accept(this.message)
    return step?.call(server, this.message)
  }

  /** Never rejects. */
  async #fail (thrown: unknown): Promise<void> {
    this.#isOver = true
    this.outcome = 'failed'
    this.error = thrown
    this.#returned = undefined
    const { rejection, port, match } = this.#delivery
    // What the schemas refuse is told once, for all handlers of the topic.
    const isTold = rejection?.error === thrown && rejection?.isReported === true
    if (rejection !== undefined && rejection.error === thrown) rejection.isReported = true
    if (!isTold) await port.failures.report(match.route, thrown, this.message)
    await this.#settle()
  }

  /** The promise, if there is one, never rejects. */
  #settle (): Promise<void> | undefined {
    this.#isOver = true
    if (this.#time !== 0) this.#time = performance.now() - this.#time
    return this.#hooks.onSettled.length === 0 ? undefined : this.#runOnSettled()
  }

  async #runOnSettled (): Promise<void> {
    const { port, match: { route } } = this.#delivery
    const settlement = { outcome: this.outcome, error: this.error, durationMs: this.#time }
    for (const hook of this.#hooks.onSettled) {
      try {
        const result = hook.call(route.server, this.message, settlement)
        if (isThenable(result)) await result
      } catch (thrown) {
        port.failures.tell(route, thrown, this.message)
      }
    }
  }
}
