import type { Message } from '../../types/message.ts'
import { logFailure } from '../diagnostics.ts'
import type { Lifecycle } from './hooks.ts'
import { isThenable } from './thenable.ts'

/** What a failure is reported by. */
export interface FailingRoute {
  readonly pattern: string
  readonly server: Message['server']
  readonly lifecycle: Lifecycle
  /** With the log level of the topic. */
  readonly log: Message['log']
}

/** Log lines that one topic may write in a second: a flood of bad messages is no flood of lines. */
const linesPerSecond = 10

interface Window {
  second: number
  lines: number
  suppressed: number
}

/**
 * Brings each failure to its end, exactly once: the error handlers from the scope of the topic upwards, then
 * the `onError` hooks, and where there is none the log.
 */
export class Failures {
  readonly #windows = new WeakMap<FailingRoute, Window>()
  count = 0

  /** Never rejects. */
  async report (route: FailingRoute, error: unknown, message: { readonly topic: string }): Promise<void> {
    this.count++
    let current = error
    for (const handler of route.lifecycle.errorHandlers()) {
      try {
        const result = handler.call(route.server, current, message)
        if (isThenable(result)) await result
        return
      } catch (thrown) {
        current = thrown
      }
    }
    const hooks = route.lifecycle.hooks.onError
    if (hooks.length === 0) this.#log(route, current, message)
    for (const hook of hooks) {
      try {
        const result = hook.call(route.server, current, message)
        if (isThenable(result)) await result
      } catch (thrown) {
        this.#log(route, thrown, message)
      }
    }
  }

  /** Straight to the log: where there are no handlers and hooks, or they are done. */
  tell (route: FailingRoute, error: unknown, message: { readonly topic: string }): void {
    this.count++
    this.#log(route, error, message)
  }

  #log (route: FailingRoute, error: unknown, message: { readonly topic: string }): void {
    const second = Math.floor(Date.now() / 1_000)
    let window = this.#windows.get(route)
    if (window === undefined || window.second !== second) {
      window = { second, lines: 0, suppressed: window?.suppressed ?? 0 }
      this.#windows.set(route, window)
    }
    if (window.lines >= linesPerSecond) {
      window.suppressed++
      return
    }
    window.lines++
    const more = window.suppressed === 0 ? {} : { suppressed: window.suppressed }
    window.suppressed = 0
    const facts = { pattern: route.pattern, topic: message.topic, ...more }
    logFailure(route.log, error, facts, 'an MQTT message was not handled')
  }
}
