import { errors } from '../errors.ts'
import type {
  BrokerLimits, BrokerLink, ConnectionEvents, OutgoingPublish, ReceivedPacket, SubscribeOptions
} from '../session/connection.ts'

/** What a link needs of the broker that it leads to. */
export interface LinkHost {
  route (publish: OutgoingPublish, from: MemoryLink): void
  subscribe (link: MemoryLink, filter: string, options: SubscribeOptions): void
  unsubscribe (link: MemoryLink, filter: string): void
  /** The link is open; it is connected when the broker calls `rise`. */
  attach (link: MemoryLink): void
  detach (link: MemoryLink): void
}

/**
 * The connection of one application to a memory broker. What comes of a call comes later, as from a socket.
 */
export class MemoryLink implements BrokerLink {
  readonly client = undefined
  readonly version = 5
  readonly nextVersion = 5
  readonly limits: BrokerLimits = {
    maximumQoS: 2,
    retainAvailable: true,
    maximumPacketSize: Infinity,
    receiveMaximum: 65_535,
    // A message comes once, for the subscription with the highest quality of service.
    subscriptionIdentifiersAvailable: false,
    wildcardSubscriptionAvailable: true,
    sharedSubscriptionAvailable: true
  }

  readonly #host: LinkHost
  readonly #events: ConnectionEvents
  isUp = false
  everUp = false
  isOpen = false
  attempts = 0
  lastError: Error | undefined

  constructor (host: LinkHost, events: ConnectionEvents) {
    this.#host = host
    this.#events = events
  }

  open (): void {
    this.isOpen = true
    this.#host.attach(this)
  }

  /** For the broker: connects, after this turn. */
  rise (): void {
    this.attempts++
    setImmediate(() => {
      if (!this.isOpen || this.isUp) return
      this.isUp = true
      this.everUp = true
      this.#events.onUp()
    })
  }

  /** For the broker: cuts the connection. */
  fall (cause: Error): void {
    this.lastError = cause
    const wasUp = this.isUp
    this.isUp = false
    this.#events.onDown(cause, wasUp)
  }

  /** For the broker: brings a message, after this turn, unless the connection is another by then. */
  deliver (packet: ReceivedPacket): void {
    const attempt = this.attempts
    setImmediate(() => {
      if (this.isUp && attempt === this.attempts) this.#events.onMessage(packet)
    })
  }

  send (publish: OutgoingPublish, settle: (error?: Error) => void): undefined {
    this.#host.route(publish, this)
    setImmediate(settle)
  }

  forget (): void {}

  async subscribe (filters: readonly string[], options: SubscribeOptions): Promise<readonly number[]> {
    await this.#turn()
    for (const filter of filters) this.#host.subscribe(this, filter, options)
    return filters.map(() => options.qos)
  }

  async unsubscribe (filters: readonly string[]): Promise<void> {
    await this.#turn()
    for (const filter of filters) this.#host.unsubscribe(this, filter)
  }

  async close (): Promise<void> {
    this.isOpen = false
    this.isUp = false
    this.#host.detach(this)
  }

  /** One round trip. */
  async #turn (): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    if (!this.isUp) throw new errors.FST_MQTT_CONNECTION('the connection was closed')
  }
}
