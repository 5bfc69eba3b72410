/** What can be given up by a signal. */
export interface Abortable {
  onAbort (signal: AbortSignal): void
}

/**
 * What waits for each signal. It has one listener for all: with an eleventh of its own Node.js would warn of
 * a leak.
 */
const waiting = new WeakMap<AbortSignal, Set<Abortable>>()

/** Tells `item` once when `signal` is aborted. */
export function listen (signal: AbortSignal, item: Abortable): void {
  const items = waiting.get(signal)
  if (items !== undefined) {
    items.add(item)
    return
  }
  waiting.set(signal, new Set([item]))
  signal.addEventListener('abort', onAbort, { once: true })
}

/** The opposite of `listen`. */
export function unlisten (signal: AbortSignal, item: Abortable): void {
  const items = waiting.get(signal)
  if (items?.delete(item) !== true || items.size > 0) return
  waiting.delete(signal)
  signal.removeEventListener('abort', onAbort)
}

function onAbort (this: AbortSignal): void {
  const items = waiting.get(this) ?? []
  waiting.delete(this)
  for (const item of items) item.onAbort(this)
}
