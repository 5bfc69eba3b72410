import { AsyncResource } from 'node:async_hooks'
import { errors } from '../errors.ts'
import {
  noLimits, type AckType, type Link, type LinkEvents, type OutgoingPublish, type ReceivedPublish,
  type SubscribeOptions
} from '../session/link.ts'
import { sentProperties } from '../session/publish.ts'

/** What a link needs of the broker that it leads to. */
export interface LinkHost {
  route (publish: OutgoingPublish, from: MemoryLink): void
  subscribe (
    link: MemoryLink, filter: string, options: SubscribeOptions, identifier: number | undefined
  ): void
  unsubscribe (link: MemoryLink, filter: string): void
  /** The link is open; it is connected when the broker calls `rise`, and not if it calls `refuse`. */
  attach (link: MemoryLink): void
  detach (link: MemoryLink): void
}

const [puback, pubrec, pubrel, pubcomp] = [4, 5, 6, 7] as const

/**
 * The connection of one application to a memory broker. What comes of a call comes later, as from a socket.
 */
export class MemoryLink implements Link {
  readonly client = undefined
  readonly version: 4 | 5
  readonly limits = noLimits
  readonly rttMs = 0
  readonly isWritable = true

  readonly #host: LinkHost
  readonly #events: LinkEvents
  /** Where it was made: what comes from the broker has nothing to do with whoever published it. */
  readonly #origin = new AsyncResource('MemoryLink')
  isUp = false
  everUp = false
  isOpen = false
  attempts = 0
  lastError: Error | undefined
  #packetId = 0
  #writes = 0

  constructor (host: LinkHost, version: 4 | 5, events: LinkEvents) {
    this.#host = host
    this.version = version
    this.#events = events
  }

  get nextVersion (): 4 | 5 {
    return this.version
  }

  open (): void {
    this.isOpen = true
    this.#host.attach(this)
  }

  /** For the broker: connects, after this turn. */
  rise (): void {
    this.attempts++
    this.#later(() => {
      if (!this.isOpen || this.isUp) return
      this.isUp = true
      this.everUp = true
      this.#events.onUp(false)
      this.#events.onReady()
    })
  }

  /** For the broker: refuses the connection, after this turn. */
  refuse (cause: Error): void {
    this.attempts++
    this.#later(() => { if (this.isOpen) this.fall(cause) })
  }

  /** For the broker: cuts the connection. */
  fall (cause: Error): void {
    this.lastError = cause
    const wasUp = this.isUp
    this.isUp = false
    this.#events.onDown(cause, wasUp)
  }

  /** For the broker: brings a message, after this turn, unless the connection is another by then. */
  deliver (message: Omit<ReceivedPublish, 'messageId' | 'keep' | 'drop'>): void {
    const messageId = message.qos === 0 ? 0 : (this.#packetId = this.#packetId % 65_535 + 1)
    this.#whileUp(() => this.#events.onMessage({ ...message, messageId, keep () {}, drop () {} }))
  }

  sendPublish (publish: OutgoingPublish, packetId: number): number {
    this.#host.route({ ...publish, properties: sentProperties(publish, this.version) }, this)
    const write = ++this.#writes
    this.#whileUp(() => {
      this.#events.onWritten(write)
      if (publish.qos > 0) this.#events.onAck(publish.qos === 1 ? puback : pubrec, packetId, 0)
    })
    return write
  }

  sendAck (type: AckType, packetId: number, reasonCode: number): void {
    if (type === pubrel) this.#whileUp(() => this.#events.onAck(pubcomp, packetId, 0))
    if (type === pubrec && reasonCode < 0x80) this.#whileUp(() => this.#events.onAck(pubrel, packetId, 0))
  }

  async subscribe (
    filters: readonly string[], options: SubscribeOptions, identifier?: number
  ): Promise<readonly number[]> {
    await this.#turn()
    for (const filter of filters) this.#host.subscribe(this, filter, options, identifier)
    return filters.map(() => options.qos)
  }

  async unsubscribe (filters: readonly string[]): Promise<void> {
    await this.#turn()
    for (const filter of filters) this.#host.unsubscribe(this, filter)
  }

  pause (): void {}

  resume (): void {}

  renew (cause: Error): void {
    this.#host.detach(this)
    this.fall(cause)
    this.#host.attach(this)
  }

  async close (): Promise<void> {
    this.isOpen = false
    this.isUp = false
    this.#host.detach(this)
  }

  #later (action: () => void): void {
    setImmediate(() => this.#origin.runInAsyncScope(action))
  }

  /** After this turn, unless the connection is another by then. */
  #whileUp (action: () => void): void {
    const attempt = this.attempts
    this.#later(() => { if (this.isUp && attempt === this.attempts) action() })
  }

  /** One round trip. */
  async #turn (): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    if (!this.isUp) throw new errors.FST_MQTT_CONNECTION('the connection was closed')
  }
}
