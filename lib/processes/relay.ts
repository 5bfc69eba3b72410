import { errors } from '../errors.ts'
import type { Place } from '../queue.ts'
import { aborted, listen, unlisten, type Abortable } from '../session/aborts.ts'
import { within } from './deadline.ts'
import type { ForwardedPublish, Parcel } from './protocol.ts'
import { Sequence } from './sequence.ts'

/** When an operation is given up. */
export interface Patience {
  readonly timeoutMs: number
  readonly signal: AbortSignal | undefined
}

/** What is done for us: in the owner by the engine, in a member by the owner's process. */
export type Operation =
  | { readonly type: 'publish', readonly publish: ForwardedPublish }
  | { readonly type: 'call', readonly name: string, readonly parcel: Parcel }

/** The way to whoever holds the connection; it answers by `Relay.answer`, until it is lost. */
export interface Route {
  /** @throws if it cannot be sent at all */
  send (task: Task, timeoutMs: number): void
  /** Nobody waits for it any more. */
  cancel (task: Task): void
}

/** What became of an operation; `declined` has not been done, and another owner may do it. */
export type Outcome =
  | { readonly type: 'done' }
  | { readonly type: 'reply', readonly parcel: Parcel }
  | { readonly type: 'failed', readonly error: Error }
  | { readonly type: 'declined' }

export interface RelayLimits {
  /** How many operations may wait, and how many bytes of theirs. */
  readonly maxMessages: number
  readonly maxBytes: number
}

/** In errors, in the place of the broker. */
const theOwner = 'the owner of the group'
/** What an operation takes besides its payload and topic name. */
const taskBytes = 64

/**
 * The publishes and calls of this process on their way to whoever owns the connection. They wait while there
 * is nobody, and outlive the owner: what is not answered when the way is lost goes to the next one. Every
 * promise settles, by the answer, its timeout, its signal or the end.
 */
export class Relay implements TaskHost {
  readonly #limits: RelayLimits
  readonly #tasks = new Sequence<Task>()
  readonly #onIdle: (() => void)[] = []
  #route: Route | undefined
  #isHeld = false
  #isClosed = false
  #bytes = 0
  #clock: NodeJS.Timeout | undefined
  #clockAt = Infinity

  constructor (limits: RelayLimits) {
    this.#limits = limits
  }

  /** What is not answered yet. */
  get waiting (): { readonly messages: number, readonly bytes: number } {
    return { messages: this.#tasks.size, bytes: this.#bytes }
  }

  /**
   * Publishes by the owner. Rejects with what the owner rejects with, and with `FST_MQTT_OFFLINE` (QoS 0
   * while there is no owner), `FST_MQTT_DELIVERY_UNKNOWN` (QoS 0 and 2 in flight when the owner was lost),
   * `FST_MQTT_OUTBOX_FULL`, `FST_MQTT_PUBLISH_TIMEOUT`, `FST_MQTT_ABORTED`, `FST_MQTT_CLOSED`.
   */
  publish (publish: ForwardedPublish, patience: Patience): Promise<void> {
    const bytes = taskBytes + publish.topic.length + publish.payload.length
    return this.#add({ type: 'publish', publish }, bytes, patience) as Promise<void>
  }

  /** Has the owner do something by its name. Rejects as `publish` with QoS 2 does. */
  call (name: string, parcel: Parcel, patience: Patience): Promise<Parcel> {
    return this.#add({ type: 'call', name, parcel }, taskBytes + parcel.bytes.length, patience) as Promise<Parcel>
  }

  /** There is an owner: what waits is sent, in order. */
  attach (route: Route): void {
    this.#route = route
    this.#isHeld = false
    const now = performance.now()
    for (const task of this.#tasks.values) if (!task.isSent) this.#send(task, task.remainingMs(now))
  }

  /** The owner closes: what comes now waits for the next one. */
  hold (): void {
    this.#isHeld = true
  }

  /** The way is lost. */
  detach (): void {
    this.#route = undefined
    for (const task of this.#tasks.values) {
      if (!task.isSent) continue
      task.isSent = false
      // May have been done: only what may be done twice is repeated.
      if (!task.isRepeatable) task.fail(new errors.FST_MQTT_DELIVERY_UNKNOWN(theOwner))
    }
  }

  /** The answer to an operation; ignored if nobody waits for it any more. */
  answer (id: number, outcome: Outcome): void {
    const task = this.#tasks.get(id)
    if (task === undefined) return
    switch (outcome.type) {
      case 'done': return task.succeed(undefined)
      case 'reply': return task.succeed(outcome.parcel)
      case 'failed': return task.fail(outcome.error)
      case 'declined':
        task.isSent = false
        if (!task.mayWait) task.fail(new errors.FST_MQTT_OFFLINE(theOwner))
    }
  }

  /** Resolves when nothing waits, or after the time. */
  async flush (timeoutMs: number): Promise<void> {
    if (this.#tasks.size === 0) return
    await within(new Promise<void>((resolve) => this.#onIdle.push(resolve)), timeoutMs)
  }

  /** Takes no more, and settles what still waits. */
  close (): void {
    this.#isClosed = true
    for (const task of this.#tasks.values) task.fail(new errors.FST_MQTT_CLOSED(theOwner))
    clearTimeout(this.#clock)
  }

  onSettled (task: Task): void {
    this.#tasks.delete(task.id)
    this.#bytes -= task.bytes
    if (this.#tasks.size === 0) for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  onAbort (task: Task, signal: AbortSignal): void {
    this.#giveUp(task, aborted(signal))
  }

  // No async functions from here to the socket: each would cost a promise for each message.
  #add (operation: Operation, bytes: number, patience: Patience): Promise<Parcel | undefined> {
    const { signal } = patience
    if (this.#isClosed) return Promise.reject(new errors.FST_MQTT_CLOSED(theOwner))
    if (signal?.aborted === true) return Promise.reject(aborted(signal))
    const problem = this.#fullness(bytes)
    if (problem !== undefined) return Promise.reject(new errors.FST_MQTT_OUTBOX_FULL(problem))
    return new Promise((resolve, reject) => {
      const task = this.#tasks.add((id) => new Task(id, operation, bytes, patience, this, resolve, reject))
      this.#bytes += bytes
      if (task.dueAt < this.#clockAt) this.#setClock(task.dueAt)
      if (this.#route !== undefined && !this.#isHeld) this.#send(task, patience.timeoutMs)
      else if (!task.mayWait) task.fail(new errors.FST_MQTT_OFFLINE(theOwner))
    })
  }

  #send (task: Task, timeoutMs: number): void {
    task.isSent = true
    try {
      this.#route?.send(task, timeoutMs)
    } catch (error) {
      task.fail(error as Error)
    }
  }

  #giveUp (task: Task, error: Error): void {
    const { isSent } = task
    task.fail(error)
    if (isSent) this.#route?.cancel(task)
  }

  // One timer for all: one for each message would cost more than the rest of it.
  #setClock (dueAt: number): void {
    clearTimeout(this.#clock)
    this.#clockAt = dueAt
    if (dueAt === Infinity) return
    this.#clock = setTimeout(() => this.#expire(), Math.max(1, Math.ceil(dueAt - performance.now())))
  }

  #expire (): void {
    const now = performance.now()
    let next = Infinity
    for (const task of this.#tasks.values) {
      if (task.dueAt <= now) this.#giveUp(task, new errors.FST_MQTT_PUBLISH_TIMEOUT(task.timeoutMs))
      else if (task.dueAt < next) next = task.dueAt
    }
    this.#setClock(next)
  }

  #fullness (bytes: number): string | undefined {
    const { maxMessages, maxBytes } = this.#limits
    const total = this.#bytes + bytes
    if (this.#tasks.size >= maxMessages) return `${maxMessages} messages wait already, which is the most`
    return total > maxBytes ? `${total} bytes would wait, the most is ${maxBytes}` : undefined
  }
}

interface TaskHost {
  onSettled (task: Task): void
  onAbort (task: Task, signal: AbortSignal): void
}

/** One operation on its way, which settles once. */
export class Task implements Abortable {
  readonly id: number
  readonly operation: Operation
  readonly bytes: number
  readonly timeoutMs: number
  readonly signal: AbortSignal | undefined
  /** On the clock of `performance.now()`. */
  readonly dueAt: number
  /** The present owner has it. */
  isSent = false
  #isSettled = false
  readonly #listening: Place<Abortable> | undefined
  readonly #host: TaskHost
  readonly #resolve: (parcel: Parcel | undefined) => void
  readonly #reject: (error: Error) => void

  constructor (
    id: number,
    operation: Operation,
    bytes: number,
    { timeoutMs, signal }: Patience,
    host: TaskHost,
    resolve: (parcel: Parcel | undefined) => void,
    reject: (error: Error) => void
  ) {
    this.id = id
    this.operation = operation
    this.bytes = bytes
    this.timeoutMs = timeoutMs
    this.signal = signal
    this.dueAt = performance.now() + timeoutMs
    this.#host = host
    this.#resolve = resolve
    this.#reject = reject
    this.#listening = signal === undefined ? undefined : listen(signal, this)
  }

  /** QoS 1 may arrive twice; QoS 0 and 2 may not, and of calls nobody knows. */
  get isRepeatable (): boolean {
    return this.operation.type === 'publish' && this.operation.publish.qos === 1
  }

  /** QoS 0 does not wait for a connection, in no process. */
  get mayWait (): boolean {
    return this.operation.type === 'call' || this.operation.publish.qos > 0
  }

  onAbort (signal: AbortSignal): void {
    this.#host.onAbort(this, signal)
  }

  remainingMs (now: number): number {
    return Math.max(1, Math.ceil(this.dueAt - now))
  }

  succeed (parcel: Parcel | undefined): void {
    if (this.#settles()) this.#resolve(parcel)
  }

  fail (error: Error): void {
    if (this.#settles()) this.#reject(error)
  }

  #settles (): boolean {
    if (this.#isSettled) return false
    this.#isSettled = true
    if (this.signal !== undefined && this.#listening !== undefined) unlisten(this.signal, this.#listening)
    this.#host.onSettled(this)
    return true
  }
}
