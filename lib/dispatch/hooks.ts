import type { HookName } from '../../types/hooks.ts'
import { errors } from '../errors.ts'
import { describe, kindOf } from '../values.ts'

/** Any hook: what it takes depends on its name, for which types/hooks.ts has the signatures. */
export type Hook = (this: unknown, ...args: unknown[]) => unknown

/** Those that a message passes on its way to a handler and after it. */
export const messageHooks = ['onMessage', 'preValidation', 'preHandler', 'onSettled', 'onError'] as const
const scopeHooks = ['onTopic', 'onPublish'] as const
const connectionHooks = ['onUnmatched', 'onConnect', 'onDisconnect', 'onRole'] as const
const names: readonly string[] = [...messageHooks, ...scopeHooks, ...connectionHooks]

export type MessageHookName = typeof messageHooks[number]
export type ScopeHookName = MessageHookName | typeof scopeHooks[number]
export type ConnectionHookName = typeof connectionHooks[number]

/** @throws `FST_MQTT_HOOK_INVALID` */
export function checkHook (name: unknown, hook: unknown): asserts hook is Hook {
  if (typeof name !== 'string' || !names.includes(name)) {
    throw new errors.FST_MQTT_HOOK_INVALID(`there is no hook ${describe(name)}, there are ${names.join(', ')}`)
  }
  if (typeof hook !== 'function') {
    throw new errors.FST_MQTT_HOOK_INVALID(`${name} has to be a function, not ${kindOf(hook)}`)
  }
}

/** Whether a hook belongs to the connection as a whole, in whatever scope it was added. */
export function isConnectionHook (name: HookName): name is ConnectionHookName {
  return (connectionHooks as readonly string[]).includes(name)
}

/**
 * The hooks and the error handler of one scope. As in Fastify a scope begins with the hooks of the one above,
 * and gets those that are added there later; never the other way round.
 */
export class HookBook {
  readonly #parent: HookBook | undefined
  readonly #children: HookBook[] = []
  readonly #hooks: ReadonlyMap<ScopeHookName, Hook[]>
  #errorHandler: Hook | undefined
  /** Grows with every change, so that what was made from the hooks can be made anew. */
  version = 0
  /** One for all topics without hooks of their own: for 10,000 of them it stays in the processor's cache. */
  readonly #shared = new Lifecycle(this)

  constructor (parent?: HookBook) {
    this.#parent = parent
    this.#hooks = new Map([...messageHooks, ...scopeHooks].map((name) => [name, [...parent?.of(name) ?? []]]))
    if (parent !== undefined) parent.#children.push(this)
  }

  add (name: ScopeHookName, hook: Hook): void {
    this.#hooks.get(name)?.push(hook)
    this.version++
    // Fastify's onRoute is the exception there, too: it is for what is registered after it.
    if (name !== 'onTopic') for (const child of this.#children) child.add(name, hook)
  }

  of (name: ScopeHookName): readonly Hook[] {
    return this.#hooks.get(name) ?? []
  }

  /** @param own the hooks of a topic, which come after those of its scope */
  lifecycleWith (own: TopicHooks): Lifecycle {
    return Object.values(own).some((hooks) => hooks.length > 0) ? new Lifecycle(this, own) : this.#shared
  }

  setErrorHandler (handler: Hook): void {
    this.#errorHandler = handler
    this.#touch()
  }

  #touch (): void {
    this.version++
    for (const child of this.#children) child.#touch()
  }

  /** The error handlers from this scope upwards: each has what the one before it threw. */
  errorHandlers (): Hook[] {
    const above = this.#parent === undefined ? [] : this.#parent.errorHandlers()
    return this.#errorHandler === undefined ? above : [this.#errorHandler, ...above]
  }
}

/** The step at which the payload is decoded and checked. */
export const acceptance = Symbol('acceptance')
/** The step that is the handler. */
export const handling = Symbol('handling')

/** What the messages of one topic pass. */
export interface MessageHooks {
  /** On the way, in order. */
  readonly steps: readonly (Hook | typeof acceptance | typeof handling)[]
  readonly onSettled: readonly Hook[]
  readonly onError: readonly Hook[]
  /** None but those for errors. */
  readonly isPlain: boolean
}

type TopicHooks = Partial<Record<MessageHookName, readonly Hook[]>>

/** The hooks that messages pass: those of a scope, then those of a topic. */
export class Lifecycle {
  readonly #book: HookBook
  readonly #own: TopicHooks
  #version = -1
  #hooks: MessageHooks = { steps: [], onSettled: [], onError: [], isPlain: false }

  constructor (book: HookBook, own: TopicHooks = {}) {
    this.#book = book
    this.#own = own
  }

  /** As they are now; later hooks make other lists. */
  get hooks (): MessageHooks {
    if (this.#version !== this.#book.version) this.#refresh()
    return this.#hooks
  }

  errorHandlers (): Hook[] {
    return this.#book.errorHandlers()
  }

  #refresh (): void {
    this.#version = this.#book.version
    const list = (name: MessageHookName) => [...this.#book.of(name), ...this.#own[name] ?? []]
    const steps: MessageHooks['steps'] =
      [...list('onMessage'), ...list('preValidation'), acceptance, ...list('preHandler'), handling]
    const onSettled = list('onSettled')
    const isPlain = steps.length === 2 && onSettled.length === 0
    this.#hooks = { steps, onSettled, onError: list('onError'), isPlain }
  }
}

interface ConnectionHook {
  readonly hook: Hook
  readonly server: unknown
}

/** The hooks of a connection, from all scopes. */
export class ConnectionHooks {
  readonly #hooks = new Map<ConnectionHookName, ConnectionHook[]>()
  readonly #onFailure: (name: ConnectionHookName, error: unknown) => void
  readonly #concurrency: number
  #running = 0
  /** Whose turn it is: the role does not wait for those who hear of the connection, nor they for it. */
  readonly #turns = { connection: Promise.resolve(), role: Promise.resolve() }

  /** @param concurrency of `run`: what comes while so many calls are under way is not told */
  constructor (onFailure: (name: ConnectionHookName, error: unknown) => void, concurrency: number) {
    this.#onFailure = onFailure
    this.#concurrency = concurrency
  }

  add (name: ConnectionHookName, hook: Hook, server: unknown): void {
    this.#hooks.set(name, [...this.#hooks.get(name) ?? [], { hook, server }])
  }

  has (name: ConnectionHookName): boolean {
    return this.#hooks.has(name)
  }

  /** Runs the hooks one after another. Never throws; what a hook throws is told, and the next one runs. */
  run (name: ConnectionHookName, ...args: unknown[]): void {
    const hooks = this.#hooks.get(name)
    if (hooks === undefined || this.#running >= this.#concurrency) return
    this.#running++
    void this.#runAll(name, hooks, args).then(() => { this.#running-- })
  }

  /**
   * The same, after those that were run before by this: what an async `onConnect` does comes before what the
   * `onDisconnect` of the same connection does, and the roles come one after the other.
   */
  runInTurn (name: ConnectionHookName, ...args: unknown[]): void {
    const hooks = this.#hooks.get(name)
    if (hooks === undefined) return
    const about = name === 'onRole' ? 'role' : 'connection'
    this.#turns[about] = this.#turns[about].then(() => this.#runAll(name, hooks, args))
  }

  async #runAll (
    name: ConnectionHookName, hooks: readonly ConnectionHook[], args: unknown[]
  ): Promise<void> {
    for (const { hook, server } of hooks) {
      try {
        await hook.apply(server, args)
      } catch (error) {
        this.#onFailure(name, error)
      }
    }
  }
}

/** A publish with what the `onPublish` hooks of its scope made of it. */
export async function passOnPublish<T extends { payload: unknown, options: unknown }> (
  hooks: HookBook, server: unknown, outgoing: T
): Promise<T> {
  const all = hooks.of('onPublish')
  if (all.length === 0) return outgoing
  const own = { ...outgoing, options: outgoing.options ?? {} }
  for (const hook of all) await hook.call(server, own)
  return own
}
