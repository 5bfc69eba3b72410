import type { TestContext } from 'node:test'

/** The time, which stands still. */
export interface Clock {
  /** Lets so many milliseconds pass, with the timers that are due in them. */
  tick (ms: number): void
}

/** Takes `setTimeout` and `performance.now` from the real time until the test ends. */
export function stopClock (t: TestContext): Clock {
  let now = 1_000
  t.mock.timers.enable({ apis: ['setTimeout'] })
  t.mock.method(performance, 'now', () => now)
  return {
    tick (ms) {
      // In small steps, so that what a timer starts is due in its time.
      for (let left = ms; left > 0;) {
        const step = Math.min(left, 10)
        now += step
        left -= step
        t.mock.timers.tick(step)
      }
    }
  }
}
