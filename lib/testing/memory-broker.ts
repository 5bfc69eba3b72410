import type { MessageProperties, QoS } from '../../types/message.ts'
import type { DevicePublishOptions, MemoryBroker, PublishedMessage } from '../../types/testing.ts'
import { copyProperties } from '../dispatch/message.ts'
import { errors } from '../errors.ts'
import { propertiesProblem, qosProblem, topicNameProblem } from '../guard.ts'
import { bytesOf } from '../payload/bytes.ts'
import { decodeJson, decodeText } from '../payload/json.ts'
import { Router } from '../router/router.ts'
import type { Link, LinkEvents, OutgoingPublish, SubscribeOptions } from '../session/link.ts'
import { booleanNamed, defined, recordProblem } from '../values.ts'
import { MemoryLink, type LinkHost } from './memory-link.ts'

interface Subscription extends SubscribeOptions {
  readonly identifier: number | undefined
  readonly link: MemoryLink
  readonly filter: string
  readonly share: string | undefined
  readonly matchFilter: string
  /** In the order of Mosquitto: shared subscriptions last, a literal level before `+` before `#`. */
  readonly rank: string
}

interface Retained {
  readonly publish: OutgoingPublish
  /** Milliseconds; undefined for ever. */
  readonly expiresAt: number | undefined
}

const brokers = new Map<string, Broker>()
let made = 0

/**
 * Makes a broker within the process, for tests.
 *
 * @example
 * const broker = createMemoryBroker()
 * await fastify.register(multimqtt, { url: process.env.MQTT_URL ?? broker.url })
 */
export function createMemoryBroker (): MemoryBroker {
  const name = `broker${++made}`
  const broker = new Broker(name)
  brokers.set(name, broker)
  return broker
}

type LinkMaker = (settings: { protocolVersion: 'auto' | 4 | 5 }, events: LinkEvents) => Link

/** The connection to the memory broker of that name; undefined if there is none. */
export function memoryLinkTo (name: string): LinkMaker | undefined {
  const broker = brokers.get(name)
  if (broker === undefined) return undefined
  return ({ protocolVersion }, events) => new MemoryLink(broker, protocolVersion === 4 ? 4 : 5, events)
}

class Broker implements MemoryBroker, LinkHost {
  readonly url: string
  readonly published: PublishedMessage[] = []
  readonly #name: string
  readonly #links = new Set<MemoryLink>()
  readonly #router = new Router<Subscription>()
  readonly #subscriptions = new Map<MemoryLink, Map<string, Subscription>>()
  readonly #retained = new Map<string, Retained>()
  readonly #turns = new Map<string, number>()
  readonly #waiting: ((message: PublishedMessage) => void)[] = []
  #taken = 0
  #isClosed = false

  constructor (name: string) {
    this.#name = name
    this.url = `memory://${name}`
  }

  get retained (): ReadonlyMap<string, Buffer> {
    return new Map(this.#kept().map(({ topic, payload }) => [topic, payload]))
  }

  async next (timeoutMs = 1_000): Promise<PublishedMessage> {
    const message = this.published[this.#taken]
    this.#taken++
    if (message !== undefined) return message
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1)
        this.#taken--
        reject(new errors.FST_MQTT_CONNECTION(`nothing was published within ${timeoutMs} ms`))
      }, timeoutMs)
      const take = (published: PublishedMessage) => {
        clearTimeout(timer)
        resolve(published)
      }
      this.#waiting.push(take)
    })
  }

  publish (topic: string, payload?: unknown, options: DevicePublishOptions = {}): void {
    const problem = topicNameProblem(topic)
    if (problem !== undefined) throw new errors.FST_MQTT_TOPIC_NAME(topic, problem)
    const optionsProblem = recordProblem(options, publishChecks)
    if (optionsProblem !== undefined) throw new errors.FST_MQTT_PUBLISH_OPTIONS(optionsProblem)
    const { qos = 0, retain = false, properties } = options
    this.#route({ topic, payload: bytesOf(payload), qos, retain, properties }, undefined)
  }

  disconnect (): void {
    for (const link of [...this.#links]) {
      this.#forget(link)
      link.fall(new errors.FST_MQTT_CONNECTION('the memory broker cut the connection'))
      link.rise()
    }
  }

  close (): void {
    this.#isClosed = true
    brokers.delete(this.#name)
    for (const link of [...this.#links]) {
      this.detach(link)
      link.fall(closed())
    }
  }

  attach (link: MemoryLink): void {
    if (this.#isClosed) {
      link.refuse(closed())
      return
    }
    this.#links.add(link)
    link.rise()
  }

  detach (link: MemoryLink): void {
    this.#links.delete(link)
    this.#forget(link)
  }

  route (publish: OutgoingPublish, from: MemoryLink): void {
    const { topic, qos, retain } = publish
    const payload = Buffer.from(publish.payload)
    const properties = ownProperties(publish)
    const message: PublishedMessage = {
      topic,
      payload,
      qos,
      retain,
      properties,
      text: () => decodeText(payload),
      json: () => decodeJson(payload, { protoAction: 'error', constructorAction: 'error' })
    }
    this.published.push(message)
    this.#waiting.shift()?.(message)
    this.#route(publish, from)
  }

  subscribe (
    link: MemoryLink, filter: string, options: SubscribeOptions, identifier: number | undefined
  ): void {
    const [, share, rest] = /^\$share\/([^/]+)\/(.*)$/s.exec(filter) ?? []
    const matchFilter = rest ?? filter
    const rank = (share === undefined ? '0' : '1') + rankOf(matchFilter)
    const subscription = { ...options, identifier, link, filter, share, matchFilter, rank }
    const all = this.#subscriptions.get(link) ?? new Map<string, Subscription>()
    const isNew = !all.has(filter)
    this.unsubscribe(link, filter)
    all.set(filter, subscription)
    this.#subscriptions.set(link, all)
    this.#router.add(subscription.matchFilter, subscription)
    // Shared subscriptions get no retained messages [MQTT 5 §4.8.2]; Mosquitto 2.0.11 has them get some.
    const wantsRetained = options.retainHandling === 0 || (options.retainHandling === 1 && isNew)
    if (share !== undefined || !wantsRetained) return
    const only = new Router<true>()
    only.add(subscription.matchFilter, true)
    for (const publish of this.#kept()) {
      if (only.match(publish.topic).length > 0) deliver(subscription, publish, true)
    }
  }

  unsubscribe (link: MemoryLink, filter: string): void {
    const subscription = this.#subscriptions.get(link)?.get(filter)
    if (subscription === undefined) return
    this.#router.remove(subscription.matchFilter, subscription)
    this.#subscriptions.get(link)?.delete(filter)
  }

  #route (given: OutgoingPublish, from: MemoryLink | undefined): void {
    const publish = ownCopy(given)
    const { topic, payload, retain } = publish
    if (retain && payload.length === 0) this.#retained.delete(topic)
    else if (retain) this.#retained.set(topic, { publish, expiresAt: expiryOf(publish) })
    for (const subscription of this.#receivers(topic, from)) {
      deliver(subscription, publish, retain && subscription.retainAsPublished)
    }
  }

  /** The retained messages that have not expired, with the seconds that are left. */
  #kept (): OutgoingPublish[] {
    const now = Date.now()
    const all: OutgoingPublish[] = []
    for (const [topic, { publish, expiresAt }] of this.#retained) {
      if (expiresAt === undefined) {
        all.push(publish)
      } else if (expiresAt <= now) {
        this.#retained.delete(topic)
      } else {
        const messageExpiryInterval = Math.max(1, Math.floor((expiresAt - now) / 1_000))
        all.push({ ...publish, properties: { ...publish.properties, messageExpiryInterval } })
      }
    }
    return all
  }

  /**
   * The subscriptions that get a copy, as Mosquitto 2.0 chooses them: on MQTT 5 all that match, on 3.1.1 the
   * first of each connection; of a group the one whose turn it is.
   */
  #receivers (topic: string, from: MemoryLink | undefined): Subscription[] {
    const plain: Subscription[] = []
    const groups = new Map<string, Subscription[]>()
    for (const subscription of this.#router.match(topic)) {
      const { link, share, noLocal, filter } = subscription
      if (share !== undefined) groups.set(filter, [...groups.get(filter) ?? [], subscription])
      else if (!noLocal || link !== from) plain.push(subscription)
    }
    const chosen = [...groups].flatMap(([filter, members]) => {
      const turn = this.#turns.get(filter) ?? 0
      this.#turns.set(filter, turn + 1)
      return members[turn % members.length] ?? []
    })
    const served = new Set<MemoryLink>()
    return [...plain, ...chosen].sort((a, b) => a.rank.localeCompare(b.rank)).filter(({ link }) => {
      const isRepeated = link.version === 4 && served.has(link)
      served.add(link)
      return !isRepeated
    })
  }

  #forget (link: MemoryLink): void {
    for (const filter of [...this.#subscriptions.get(link)?.keys() ?? []]) this.unsubscribe(link, filter)
    this.#subscriptions.delete(link)
  }
}

const publishChecks = {
  qos: qosProblem, retain: booleanNamed('retain'), properties: propertiesProblem
}

function closed (): Error {
  return new errors.FST_MQTT_CONNECTION('the memory broker was closed')
}

function rankOf (filter: string): string {
  // What ends comes after what goes on with `#`, which is for the parent, too.
  return filter.split('/').map((level) => level === '#' ? '2' : level === '+' ? '1' : '0').join('') + '3'
}

/** What its publisher cannot change any more. As Mosquitto takes it, an expiry interval of 0 is none. */
function ownCopy (publish: OutgoingPublish): OutgoingPublish {
  const { messageExpiryInterval = 0, ...others } = ownProperties(publish)
  const properties = defined(messageExpiryInterval === 0 ? others : { messageExpiryInterval, ...others })
  return { ...publish, payload: Buffer.from(publish.payload), properties }
}

function ownProperties ({ properties }: OutgoingPublish): MessageProperties {
  const given: object = properties ?? {}
  return copyProperties(given)
}

function expiryOf ({ properties }: OutgoingPublish): number | undefined {
  const seconds = properties?.messageExpiryInterval
  return seconds === undefined ? undefined : Date.now() + seconds * 1_000
}

function deliver (subscription: Subscription, publish: OutgoingPublish, retain: boolean): void {
  const { topic, payload, qos, properties } = publish
  const { link } = subscription
  link.deliver({
    topic,
    payload: Buffer.from(payload),
    qos: Math.min(qos, subscription.qos) as QoS,
    retain,
    dup: false,
    subscriptionIds: subscription.identifier === undefined ? [] : [subscription.identifier],
    // 3.1.1 has none.
    properties: link.version === 4 ? undefined : properties
  })
}
