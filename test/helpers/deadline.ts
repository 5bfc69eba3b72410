/** Settles as `promise` does, or rejects with `no <what> within <timeoutMs> ms`. */
export async function within<T> (promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  const { promise: late, reject } = deferred<never>()
  const timer = setTimeout(() => reject(new Error(`no ${what} within ${timeoutMs} ms`)), timeoutMs)
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** A promise and the two functions that settle it. */
export interface Deferred<T> {
  promise: Promise<T>
  resolve (value: T): void
  reject (error: Error): void
}

/** `Promise.withResolvers`, which Node 20 lacks; a rejection nobody looked at yet is not reported. */
export function deferred<T> (): Deferred<T> {
  let resolve: (value: T) => void = () => {}
  let reject: (error: Error) => void = () => {}
  const promise = new Promise<T>((_resolve, _reject) => {
    resolve = _resolve
    reject = _reject
  })
  promise.catch(() => {})
  return { promise, resolve, reject }
}
