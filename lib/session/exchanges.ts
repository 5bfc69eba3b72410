import { describeError } from '../errors.ts'

/** A packet that was sent and is to be answered: a token, which is what it is compared with. */
export type Exchange = object

/** What is to be done when a packet is answered, perhaps after `failed`; or when it is not. */
export interface Ends<A> {
  answered (answer: A): void
  failed (reason: string): void
}

/** The packets that wait for their answer: none for ever. */
export class Exchanges {
  readonly #timeoutMs: number
  readonly #timers = new Map<Exchange, NodeJS.Timeout>()

  constructor (timeoutMs: number) {
    this.#timeoutMs = timeoutMs
  }

  get size (): number {
    return this.#timers.size
  }

  /** Whether it still waits. */
  has (exchange: Exchange): boolean {
    return this.#timers.has(exchange)
  }

  start<A> (answer: Promise<A>, ends: Ends<A>): Exchange {
    const exchange = {}
    const fail = (reason: string) => { if (this.#end(exchange)) ends.failed(reason) }
    this.#timers.set(exchange, setTimeout(fail, this.#timeoutMs, `no answer within ${this.#timeoutMs} ms`))
    answer.then((value) => {
      this.#end(exchange)
      ends.answered(value)
    }, (error: unknown) => fail(describeError(error)))
    return exchange
  }

  /** Their answers will not come: the connection is lost. */
  clear (): void {
    for (const exchange of this.#timers.keys()) this.#end(exchange)
  }

  #end (exchange: Exchange): boolean {
    clearTimeout(this.#timers.get(exchange))
    return this.#timers.delete(exchange)
  }
}
