import { connect, type MqttClient } from 'mqtt'
import type { SubscribeOptions } from '../../lib/session/link.ts'
import { SubscriptionBook, type SubscribePort } from '../../lib/session/subscriptions.ts'
import { onEnd, type Owner } from './cleanup.ts'
import { Mailbox } from './mailbox.ts'

export interface LiveBookOptions {
  readonly url: string
  readonly version: 4 | 5
  /** The session is kept by the broker under this client identifier; else there is none. */
  readonly sessionOf?: string | undefined
}

/** A message, and the filters by whose subscriptions it came. */
export interface LiveMessage {
  readonly topic: string
  readonly text: string
  readonly retain: boolean
  readonly filters: readonly (string | undefined)[]
}

/** A book at a real broker, on MQTT.js, which connects again by itself. */
export interface LiveBook {
  readonly book: SubscriptionBook
  /** What the book told, such as `refused a` and `restored a`. */
  readonly told: readonly string[]
  /** Filters of each SUBSCRIBE so far. */
  readonly sent: readonly (readonly string[])[]
  /** The next thing that the book tells, awaited for at most 5 s. */
  next (what: string): Promise<void>
  nextMessage (): Promise<LiveMessage>
  /** Resolves at the next CONNACK, with its session present flag. */
  connected (): Promise<boolean>
  /** Ends the connection, and leaves the session. */
  end (): void
}

/** Connects; the end of the test ends it. */
export function openLiveBook (owner: Owner, { url, version, sessionOf }: LiveBookOptions): LiveBook {
  const told: string[] = []
  const tidings = new Mailbox<string>()
  const messages = new Mailbox<LiveMessage>()
  const client = connect(url, {
    protocolVersion: version,
    ...sessionOf === undefined ? {} : { clientId: sessionOf, clean: false },
    ...sessionOf !== undefined && version === 5 ? { properties: { sessionExpiryInterval: 60 } } : {},
    reconnectPeriod: 20,
    resubscribe: false
  })
  const port = new MqttjsPort(client, version)
  const tell = (text: string) => {
    told.push(text)
    tidings.put(text)
  }
  const book = new SubscriptionBook(port, {
    onRefused: ({ filter }) => tell(`refused ${filter}`),
    onStillRefused () {},
    onRestored: ({ filter }) => tell(`restored ${filter}`)
  }, { retry: { minDelayMs: 20, maxDelayMs: 200 } })
  client.on('connect', ({ sessionPresent, properties }) => {
    Object.assign(port.limits, properties)
    book.onUp(sessionPresent)
  })
  client.prependListener('close', () => book.onDown())
  client.on('message', (topic, payload, { retain, properties }) => {
    const identifiers = [properties?.subscriptionIdentifier ?? []].flat()
    messages.put({
      topic,
      text: payload.toString(),
      retain,
      filters: identifiers.map((identifier) => book.filterOf(identifier))
    })
  })
  const end = () => {
    book.close()
    client.end(true)
  }
  onEnd(owner, end)
  return {
    book,
    told,
    sent: port.sent,
    next: async (what) => { await tidings.take((text) => text === what, what) },
    nextMessage: () => messages.take(() => true, 'message'),
    connected: async () => await new Promise((resolve) => {
      client.once('connect', ({ sessionPresent }) => resolve(sessionPresent))
    }),
    end
  }
}

class MqttjsPort implements SubscribePort {
  readonly version: 4 | 5
  readonly limits = {
    maximumPacketSize: Infinity,
    subscriptionIdentifiersAvailable: true,
    wildcardSubscriptionAvailable: true,
    sharedSubscriptionAvailable: true
  }

  readonly sent: (readonly string[])[] = []
  readonly #client: MqttClient

  constructor (client: MqttClient, version: 4 | 5) {
    this.#client = client
    this.version = version
  }

  async subscribe (
    filters: readonly string[], options: SubscribeOptions, subscriptionIdentifier: number | undefined
  ): Promise<readonly number[]> {
    this.sent.push(filters)
    const { qos, noLocal: nl, retainAsPublished: rap, retainHandling: rh } = options
    const properties = subscriptionIdentifier === undefined ? {} : { properties: { subscriptionIdentifier } }
    const wire = this.version === 5 ? { qos, nl, rap, rh, ...properties } : { qos }
    return await new Promise((resolve, reject) => {
      this.#client.subscribe([...filters], wire, (error, _granted, packet) => {
        const codes = (packet as { granted?: number[] } | undefined)?.granted
        if (codes === undefined) reject(error ?? new Error('no codes'))
        else resolve(codes)
      })
    })
  }

  async unsubscribe (filters: readonly string[]): Promise<void> {
    await this.#client.unsubscribeAsync([...filters])
  }
}
