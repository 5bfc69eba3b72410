import { describeError, errors } from '../errors.ts'
import type { OutgoingPublish } from './connection.ts'

/** What the outbox needs from whoever holds the connection. */
export interface PublishPort {
  readonly isUp: boolean
  readonly limits: { readonly receiveMaximum: number }
  send (publish: OutgoingPublish, settle: (error?: Error) => void): number | undefined
  forget (packetId: number): void
}

/** When a publish is given up. */
export interface Patience {
  readonly timeoutMs: number
  readonly signal: AbortSignal | undefined
}

/**
 * What waits for the broker. Every publish settles: by the acknowledgement, or by the first of a lost
 * connection, its timeout, its signal and the end.
 */
export class Outbox {
  readonly #port: PublishPort
  readonly #broker: string
  readonly #waiting = new Set<Departure>()
  readonly #idle: (() => void)[] = []
  /** What the broker's receive maximum holds back, in order. */
  readonly #queue: Departure[] = []
  #inFlight = 0
  #isClosed = false

  constructor (port: PublishPort, broker: string) {
    this.#port = port
    this.#broker = broker
  }

  /**
   * Rejects with `FST_MQTT_OFFLINE`, `FST_MQTT_DELIVERY_UNKNOWN`, `FST_MQTT_PUBLISH_REFUSED`,
   * `FST_MQTT_PUBLISH_TIMEOUT`, `FST_MQTT_ABORTED`, `FST_MQTT_CLOSED`.
   */
  async publish (publish: OutgoingPublish, patience: Patience): Promise<void> {
    if (this.#isClosed) throw new errors.FST_MQTT_CLOSED(this.#broker)
    if (patience.signal?.aborted === true) throw aborted(patience.signal)
    if (!this.#port.isUp) throw new errors.FST_MQTT_OFFLINE(this.#broker)
    await new Promise<void>((resolve, reject) => {
      const departure = new Departure(publish, resolve, reject, () => this.#left(departure))
      this.#waiting.add(departure)
      if (publish.qos === 0) {
        this.#depart(departure)
      } else {
        this.#queue.push(departure)
        this.#send()
      }
      // With QoS 0 it is mostly settled by now.
      if (!departure.isSettled) departure.watch(patience, () => this.#forget(departure))
    })
  }

  /** The connection was lost: what it carried may or may not have arrived, and is not sent again. */
  onDown (cause: Error): void {
    for (const departure of this.#waiting) {
      departure.settle(new errors.FST_MQTT_DELIVERY_UNKNOWN(this.#broker, { cause }))
      this.#forget(departure)
    }
  }

  /** Resolves when nothing waits, or after the time. */
  async flush (timeoutMs: number): Promise<void> {
    if (this.#waiting.size === 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs)
      this.#idle.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  /** Takes no more, and settles what still waits. */
  close (): void {
    this.#isClosed = true
    for (const departure of this.#waiting) departure.settle(new errors.FST_MQTT_CLOSED(this.#broker))
  }

  /** As many as the broker takes now; a 21st message would be refused by a Mosquitto as it comes. */
  #send (): void {
    while (this.#port.isUp && !this.#isClosed && this.#inFlight < this.#port.limits.receiveMaximum) {
      const departure = this.#queue.shift()
      if (departure === undefined) return
      if (!departure.isSettled) this.#depart(departure)
    }
  }

  #depart (departure: Departure): void {
    const { publish } = departure
    departure.isInFlight = publish.qos > 0
    if (departure.isInFlight) this.#inFlight++
    const settle = (error?: Error) => {
      departure.settle(error === undefined ? undefined : this.#explain(error, publish.topic))
    }
    try {
      departure.packetId = this.#port.send(publish, settle)
    } catch (error) {
      settle(error as Error)
    }
  }

  #left (departure: Departure): void {
    this.#waiting.delete(departure)
    if (departure.isInFlight) {
      this.#inFlight--
      this.#send()
    }
    if (this.#waiting.size === 0) for (const resolve of this.#idle.splice(0)) resolve()
  }

  #forget (departure: Departure): void {
    if (departure.packetId !== undefined) this.#port.forget(departure.packetId)
  }

  #explain (error: Error, topic: string): Error {
    const isRefusal = 'code' in error && typeof error.code === 'number'
    if (isRefusal) return new errors.FST_MQTT_PUBLISH_REFUSED(topic, describeError(error), { cause: error })
    return new errors.FST_MQTT_DELIVERY_UNKNOWN(this.#broker, { cause: error })
  }
}

/** One publish on its way, which settles once. */
class Departure {
  readonly publish: OutgoingPublish
  packetId: number | undefined
  isInFlight = false
  isSettled = false
  readonly #resolve: () => void
  readonly #reject: (error: Error) => void
  readonly #onSettled: () => void
  #timer: NodeJS.Timeout | undefined
  #signal: AbortSignal | undefined
  #onAbort: (() => void) | undefined

  constructor (
    publish: OutgoingPublish, resolve: () => void, reject: (error: Error) => void, onSettled: () => void
  ) {
    this.publish = publish
    this.#resolve = resolve
    this.#reject = reject
    this.#onSettled = onSettled
  }

  watch ({ timeoutMs, signal }: Patience, giveUp: () => void): void {
    this.#timer = setTimeout(() => {
      this.settle(new errors.FST_MQTT_PUBLISH_TIMEOUT(timeoutMs))
      giveUp()
    }, timeoutMs)
    if (signal === undefined) return
    this.#signal = signal
    this.#onAbort = () => {
      this.settle(aborted(signal))
      giveUp()
    }
    signal.addEventListener('abort', this.#onAbort, { once: true })
  }

  settle (error?: Error): void {
    if (this.isSettled) return
    this.isSettled = true
    clearTimeout(this.#timer)
    if (this.#onAbort !== undefined) this.#signal?.removeEventListener('abort', this.#onAbort)
    if (error === undefined) this.#resolve()
    else this.#reject(error)
    this.#onSettled()
  }
}

function aborted (signal: AbortSignal): Error {
  return new errors.FST_MQTT_ABORTED({ cause: signal.reason })
}
