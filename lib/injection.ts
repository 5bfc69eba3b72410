import { AsyncLocalStorage } from 'node:async_hooks'
import type { InjectedPublish, InjectResult } from '../types/inject.ts'
import { copyProperties } from './dispatch/message.ts'
import type { HandlerEnd } from './dispatch/pipeline.ts'
import { decodeText } from './payload/json.ts'
import type { Receipt } from './dispatch/receipt.ts'
import type { OutgoingPublish } from './session/link.ts'
import { sentProperties } from './session/publish.ts'

interface Dispatched {
  readonly matched: number
  readonly ends: readonly HandlerEnd[]
}

/**
 * What is published while injected messages are handled, on whatever connection: kept for each injection by
 * itself, and not sent.
 */
class Injections {
  readonly #published = new AsyncLocalStorage<InjectedPublish[]>()
  #running = 0

  /** Whether there is one under way: else a publish has nothing to look for. */
  get areRunning (): boolean {
    return this.#running > 0
  }

  /** @returns whether the publish belongs to an injection, which has it now */
  capture (
    publish: OutgoingPublish, namespace: string | undefined, decodeJson: (bytes: Buffer) => unknown
  ): boolean {
    const published = this.#published.getStore()
    if (published === undefined) return false
    const { topic, qos, retain } = publish
    const payload = Buffer.from(publish.payload)
    const given: object = sentProperties(publish, 5) ?? {}
    const properties = copyProperties(given)
    const text = () => decodeText(payload)
    const json = () => decodeJson(payload)
    published.push({ topic, payload, qos, retain, properties, namespace, text, json })
    return true
  }

  async run (dispatch: (receipt: Receipt) => Promise<Dispatched>): Promise<InjectResult> {
    const published: InjectedPublish[] = []
    const receipt = new InjectedReceipt()
    this.#running++
    try {
      const { matched, ends } = await this.#published.run(published, () => dispatch(receipt))
      const handlers = ends.map(({ route, params, outcome, error, returned, durationMs }) =>
        ({ name: route.name, pattern: route.pattern, params, outcome, error, returned, durationMs }))
      return { matched, handlers, published, acknowledged: receipt.isReleased }
    } finally {
      this.#running--
    }
  }
}

/** Knows whether the message would be acknowledged by now. */
class InjectedReceipt implements Receipt {
  #holds = 1

  hold (): void {
    this.#holds++
  }

  release (): void {
    this.#holds--
  }

  get isReleased (): boolean {
    return this.#holds === 0
  }
}

/** One for all connections: a handler of one may publish on another. */
export const injections = new Injections()
