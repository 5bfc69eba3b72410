/** Whether there is something to wait for. */
export function isThenable (value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'
}

const { then } = Promise.prototype

/** Calls one of the two, once, in a later microtask: whatever kind of thenable it is, also a broken one. */
export function whenSettled (
  thenable: PromiseLike<unknown>, onValue: (value: unknown) => void, onThrown: (thrown: unknown) => void
): void {
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
