import { errors } from '../errors.ts'

/** The acknowledgement of a message, which waits for all who hold it. */
export interface Receipt {
  /** One more has to release it. */
  hold (): void
  /** @param reasonCode from 0x80 on the message is refused, which only MQTT 5 can say */
  release (reasonCode?: number): void
}

/** When a message is acknowledged; of several topics the strictest wins. */
export type AckMode = 'after' | 'before' | 'manual'

/** The share of one handler in the acknowledgement, which the handler gives by itself: `ack: 'manual'`. */
export class ManualAck {
  readonly #receipt: Receipt
  #timer: NodeJS.Timeout | undefined
  #isDone = false

  constructor (receipt: Receipt) {
    this.#receipt = receipt
    receipt.hold()
  }

  /** The second time it does nothing. */
  give (reasonCode = 0): void {
    if (this.#isDone) return
    this.#isDone = true
    clearTimeout(this.#timer)
    this.#receipt.release(reasonCode)
  }

  /** The handler is done: what it has not acknowledged by then is told, and acknowledged all the same. */
  expect (timeoutMs: number, pattern: string, report: (error: Error) => Promise<void>): void {
    if (this.#isDone) return
    this.#timer = setTimeout(() => {
      void report(new errors.FST_MQTT_ACK_TIMEOUT(pattern, timeoutMs)).then(() => this.give())
    }, timeoutMs).unref()
  }
}
