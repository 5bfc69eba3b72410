import type { Message } from '../../lib/index.ts'
import type { BacklogLimits } from '../../lib/dispatch/backlog.ts'
import { Dispatcher, type DispatcherSettings } from '../../lib/dispatch/dispatcher.ts'
import type { LetterPublish } from '../../lib/dispatch/dead-letter.ts'
import { HookBook, Lifecycle } from '../../lib/dispatch/hooks.ts'
import type { Incoming } from '../../lib/dispatch/message.ts'
import type { MessageHandler, Route } from '../../lib/dispatch/pipeline.ts'
import type { Receipt } from '../../lib/dispatch/receipt.ts'
import { Codecs } from '../../lib/payload/codecs.ts'
import { builtInConverters } from '../../lib/topic/converters.ts'
import { placePattern } from '../../lib/topic/placed-pattern.ts'

export interface TestDispatcher {
  readonly dispatcher: Dispatcher
  /** What each line of the log at level warn said. */
  readonly warnings: readonly unknown[]
  /** Each failure that reached the log, in order. */
  readonly failures: readonly unknown[]
  readonly letters: readonly LetterPublish[]
  /** Adds a topic. */
  topic (pattern: string, handler: Handler | readonly Handler[], options?: Partial<Route>): Route
}

type Handler = (message: Message) => unknown

/** A dispatcher without a connection. */
export function createDispatcher (
  inbox: Partial<BacklogLimits> = {}, settings: Partial<DispatcherSettings> = {}
): TestDispatcher {
  const warnings: unknown[] = []
  const failures: unknown[] = []
  const letters: LetterPublish[] = []
  const log = {
    debug () {},
    warn: (facts: unknown) => warnings.push(facts),
    error: (facts: { err: unknown }) => failures.push(facts.err)
  } as unknown as Message['log']
  const codecs = new Codecs({ protoAction: 'error', constructorAction: 'error' })
  const dispatcher = new Dispatcher({
    codecs,
    maxPayload: 1_000,
    log,
    concurrency: 20,
    order: 'topic',
    inbox: { maxMessages: 1_000, maxBytes: 1_000_000, overflow: 'drop-oldest', ...inbox },
    publish: async (letter) => { letters.push(letter) },
    onUnmatched () {},
    isFor: () => true,
    ...settings
  })
  let order = 0
  return {
    dispatcher,
    warnings,
    failures,
    letters,
    topic (pattern, handler, options = {}) {
      const placed = placePattern(pattern, { prefix: '', topicPrefix: '', absolute: false }, builtInConverters)
      const route: Route = {
        pattern,
        filter: placed.filter,
        placed,
        order: order++,
        name: undefined,
        prefix: '',
        server: {} as Message['server'],
        log,
        json: codecs.json,
        lifecycle: new Lifecycle(new HookBook()),
        ack: 'after',
        ackTimeoutMs: 1_000,
        checkParams: undefined,
        payload: undefined,
        sharesParams: true,
        handlers: [handler].flat() as readonly MessageHandler[],
        concurrency: undefined,
        messageOrder: undefined,
        retry: undefined,
        deadLetter: undefined,
        ...options
      }
      dispatcher.add(route)
      return route
    }
  }
}

/** A message with QoS 0, or 1 where it has an identifier. */
export function incoming (topic: string, payload = '', messageId = 0): Incoming {
  return {
    topic, payload: Buffer.from(payload), qos: messageId === 0 ? 0 : 1, retain: false, dup: false, messageId
  }
}

/** A receipt that tells whether it has been settled. */
export class TestReceipt implements Receipt {
  #holds = 1

  get isSettled (): boolean {
    return this.#holds === 0
  }

  hold (): void {
    this.#holds++
  }

  release (): void {
    this.#holds--
  }
}
