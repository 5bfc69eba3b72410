/** Whether there is something to wait for. */
export function isThenable (value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'
}

/** Who waits for a thenable; one of the two is called, once. */
export interface Awaiting {
  onValue (value: unknown): void
  onThrown (thrown: unknown): void
}

/** The two functions that a promise wants, used again: new ones for each would be 200 bytes more. */
class Listener {
  #awaiting: Awaiting | undefined
  readonly onValue = (value: unknown): void => this.#take()?.onValue(value)
  readonly onThrown = (thrown: unknown): void => this.#take()?.onThrown(thrown)

  wait (awaiting: Awaiting): this {
    this.#awaiting = awaiting
    return this
  }

  #take (): Awaiting | undefined {
    const awaiting = this.#awaiting
    this.#awaiting = undefined
    if (free.length < maxFree) free.push(this)
    return awaiting
  }
}

const free: Listener[] = []
const maxFree = 1_000
const { then } = Promise.prototype

/** Calls it in a later microtask: whatever kind of thenable it is, also a broken one. */
export function whenSettled (thenable: PromiseLike<unknown>, awaiting: Awaiting): void {
  const { onValue, onThrown } = (free.pop() ?? new Listener()).wait(awaiting)
  try {
    // As an async function returns it. What others have as `then` is called only by a promise.
    if (thenable.constructor === Promise) {
      void then.call(thenable as Promise<unknown>, onValue, onThrown)
      return
    }
  } catch {
    // It only looks like one.
  }
  void new Promise((resolve) => resolve(thenable)).then(onValue, onThrown)
}
