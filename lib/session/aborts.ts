import { errors } from '../errors.ts'
import { Queue, type Place } from '../queue.ts'

/** What can be given up by a signal. */
export interface Abortable {
  onAbort (signal: AbortSignal): void
}

/**
 * What waits for each signal. It has one listener for all: with an eleventh of its own Node.js would warn of
 * a leak.
 */
const waiting = new WeakMap<AbortSignal, Queue<Abortable>>()

/** Tells `item` once when `signal` is aborted. @returns what `unlisten` needs */
export function listen (signal: AbortSignal, item: Abortable): Place<Abortable> {
  const items = waiting.get(signal)
  if (items !== undefined) return items.push(item)
  const first = new Queue<Abortable>()
  waiting.set(signal, first)
  signal.addEventListener('abort', onAbort, { once: true })
  return first.push(item)
}

/** The opposite of `listen`. */
export function unlisten (signal: AbortSignal, place: Place<Abortable>): void {
  const items = waiting.get(signal)
  place.leave()
  if (items === undefined || items.size > 0) return
  waiting.delete(signal)
  signal.removeEventListener('abort', onAbort)
}

function onAbort (this: AbortSignal): void {
  const items = waiting.get(this)
  waiting.delete(this)
  for (let item = items?.shift(); item !== undefined; item = items?.shift()) item.onAbort(this)
}

export function aborted (signal: AbortSignal): Error {
  return new errors.FST_MQTT_ABORTED({ cause: signal.reason })
}
