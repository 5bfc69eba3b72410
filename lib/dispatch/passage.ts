import type { Settlement } from '../../types/hooks.ts'
import type { Failures } from './failure.ts'
import type { Hook } from './hooks.ts'
import type { ReceivedMessage } from './message.ts'
import type { Delivery, HandlerEnd, MessageHandler } from './pipeline.ts'
import { isThenable } from './thenable.ts'

/** What a passage needs of the pipeline that it is in. */
export interface PassagePort {
  readonly failures: Failures
  /** Decodes and checks. @throws what makes the message no message for its topic */
  accept (delivery: Delivery, message: ReceivedMessage): void
}

// The stations of a message, in the order of types/hooks.ts.
const onMessage = 0
const preValidation = 1
const acceptance = 2
const preHandler = 3
const handling = 4
const end = 5

/**
 * The way of one message to one handler through all hooks. It goes on at once until something has to be
 * waited for: hooks and handlers that are synchronous cost no promise (an async function in their place costs
 * 0.8 µs).
 */
export class Passage {
  readonly #port: PassagePort
  readonly #delivery: Delivery
  readonly #message: ReceivedMessage
  readonly #handler: MessageHandler
  readonly #startedAt: number
  #station = onMessage
  #outcome: Settlement['outcome'] = 'handled'
  #error: unknown
  #returned: unknown
  #durationMs = 0

  constructor (
    port: PassagePort, delivery: Delivery, message: ReceivedMessage, handler: MessageHandler, isTimed: boolean
  ) {
    this.#port = port
    this.#delivery = delivery
    this.#message = message
    this.#handler = handler
    // Two looks at the clock are 0.1 µs, for those who ask.
    this.#startedAt = isTimed ? performance.now() : 0
  }

  /** @returns a promise, which never rejects, if something has to be waited for */
  go (): Promise<void> | undefined {
    try {
      while (this.#station < end) {
        const waiting = this.#pass(this.#station++)
        if (waiting !== undefined) return this.#goOnAfter(waiting)
      }
    } catch (thrown) {
      return this.#fail(thrown)
    }
    return this.#settle()
  }

  /** How it ended; only after `go` has come to its end. */
  get end (): HandlerEnd {
    return {
      route: this.#delivery.match.route,
      params: this.#message.params,
      outcome: this.#outcome,
      error: this.#error,
      returned: this.#returned,
      durationMs: this.#durationMs
    }
  }

  #pass (station: number): PromiseLike<unknown> | undefined {
    const { lifecycle } = this.#delivery.match.route
    switch (station) {
      case onMessage: return this.#run(lifecycle.of('onMessage'))
      case preValidation: return this.#run(lifecycle.of('preValidation'))
      case acceptance: return this.#accept()
      case preHandler: return this.#run(lifecycle.of('preHandler'))
      case handling: return this.#handle()
      default: return undefined
    }
  }

  #run (hooks: readonly Hook[], from = 0): PromiseLike<unknown> | undefined {
    const { server } = this.#delivery.match.route
    for (let index = from; index < hooks.length && !this.#message.isSkipped; index++) {
      const result = hooks[index]?.call(server, this.#message)
      if (isThenable(result)) return result.then(() => this.#run(hooks, index + 1))
    }
    return undefined
  }

  #accept (): undefined {
    if (this.#message.isSkipped) return
    const { rejection } = this.#delivery
    if (rejection !== undefined) throw rejection.error
    try {
      this.#port.accept(this.#delivery, this.#message)
    } catch (error) {
      this.#delivery.rejection = { error, isReported: false }
      throw error
    }
  }

  #handle (): PromiseLike<unknown> | undefined {
    if (this.#message.isSkipped) {
      this.#outcome = 'skipped'
      return undefined
    }
    this.#returned = this.#handler.call(this.#delivery.match.route.server, this.#message)
    if (!isThenable(this.#returned)) return undefined
    return this.#returned.then((value) => { this.#returned = value })
  }

  async #goOnAfter (waiting: PromiseLike<unknown>): Promise<void> {
    try {
      await waiting
    } catch (thrown) {
      await this.#fail(thrown)
      return
    }
    await this.go()
  }

  async #fail (thrown: unknown): Promise<void> {
    this.#outcome = 'failed'
    this.#error = thrown
    this.#returned = undefined
    const { rejection, match } = this.#delivery
    // What the schemas refuse is told once, for all handlers of the topic.
    const isTold = rejection?.error === thrown && rejection?.isReported === true
    if (rejection !== undefined && rejection.error === thrown) rejection.isReported = true
    if (!isTold) await this.#port.failures.report(match.route, thrown, this.#message)
    await this.#settle()
  }

  #settle (): Promise<void> | undefined {
    if (this.#startedAt !== 0) this.#durationMs = performance.now() - this.#startedAt
    const hooks = this.#delivery.match.route.lifecycle.of('onSettled')
    return hooks.length === 0 ? undefined : this.#runSettled(hooks)
  }

  async #runSettled (hooks: readonly Hook[]): Promise<void> {
    const { route } = this.#delivery.match
    const settlement = { outcome: this.#outcome, error: this.#error, durationMs: this.#durationMs }
    for (const hook of hooks) {
      try {
        const result = hook.call(route.server, this.#message, settlement)
        if (isThenable(result)) await result
      } catch (thrown) {
        this.#port.failures.tell(route, thrown, this.#message)
      }
    }
  }
}
