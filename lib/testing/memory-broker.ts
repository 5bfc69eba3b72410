import type { QoS } from '../../types/message.ts'
import type { DevicePublishOptions, MemoryBroker, PublishedMessage } from '../../types/testing.ts'
import { errors } from '../errors.ts'
import { topicNameProblem } from '../guard.ts'
import { bytesOf } from '../payload/bytes.ts'
import { decodeJson, decodeText } from '../payload/json.ts'
import { Router } from '../router/router.ts'
import type { Link, LinkEvents, OutgoingPublish, SubscribeOptions } from '../session/link.ts'
import { sentProperties } from '../session/publish.ts'
import { MemoryLink, type LinkHost } from './memory-link.ts'

interface Subscription extends SubscribeOptions {
  readonly link: MemoryLink
  readonly filter: string
  readonly share: string | undefined
  readonly matchFilter: string
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

type LinkMaker = (settings: unknown, events: LinkEvents) => Link

/** The connection to the memory broker of that name; undefined if there is none. */
export function memoryLinkTo (name: string): LinkMaker | undefined {
  const broker = brokers.get(name)
  return broker === undefined ? undefined : (_settings, events) => new MemoryLink(broker, events)
}

class Broker implements MemoryBroker, LinkHost {
  readonly url: string
  readonly published: PublishedMessage[] = []
  readonly #name: string
  readonly #links = new Set<MemoryLink>()
  readonly #router = new Router<Subscription>()
  readonly #subscriptions = new Map<MemoryLink, Map<string, Subscription>>()
  readonly #retained = new Map<string, OutgoingPublish>()
  readonly #turns = new Map<string, number>()
  readonly #waiting: ((message: PublishedMessage) => void)[] = []
  #taken = 0

  constructor (name: string) {
    this.#name = name
    this.url = `memory://${name}`
  }

  get retained (): ReadonlyMap<string, Buffer> {
    return new Map([...this.#retained].map(([topic, { payload }]) => [topic, payload]))
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
    brokers.delete(this.#name)
    for (const link of [...this.#links]) {
      this.detach(link)
      link.fall(new errors.FST_MQTT_CONNECTION('the memory broker was closed'))
    }
  }

  attach (link: MemoryLink): void {
    this.#links.add(link)
    link.rise()
  }

  detach (link: MemoryLink): void {
    this.#links.delete(link)
    this.#forget(link)
  }

  route (publish: OutgoingPublish, from: MemoryLink): void {
    const { topic, qos, retain } = publish
    const properties = sentProperties(publish, 5) ?? {}
    const payload = Buffer.from(publish.payload)
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

  subscribe (link: MemoryLink, filter: string, options: SubscribeOptions): void {
    const [, share, rest] = /^\$share\/([^/]+)\/(.*)$/s.exec(filter) ?? []
    const subscription = { ...options, link, filter, share, matchFilter: rest ?? filter }
    const all = this.#subscriptions.get(link) ?? new Map<string, Subscription>()
    const isNew = !all.has(filter)
    this.unsubscribe(link, filter)
    all.set(filter, subscription)
    this.#subscriptions.set(link, all)
    this.#router.add(subscription.matchFilter, subscription)
    // Shared subscriptions get no retained messages [MQTT 5 §4.8.2].
    const wantsRetained = options.retainHandling === 0 || (options.retainHandling === 1 && isNew)
    if (share !== undefined || !wantsRetained) return
    const only = new Router<true>()
    only.add(subscription.matchFilter, true)
    for (const publish of this.#retained.values()) {
      if (only.match(publish.topic).length > 0) deliver(subscription, publish, true)
    }
  }

  unsubscribe (link: MemoryLink, filter: string): void {
    const subscription = this.#subscriptions.get(link)?.get(filter)
    if (subscription === undefined) return
    this.#router.remove(subscription.matchFilter, subscription)
    this.#subscriptions.get(link)?.delete(filter)
  }

  #route (publish: OutgoingPublish, from: MemoryLink | undefined): void {
    const { topic, payload, retain } = publish
    if (retain && payload.length === 0) this.#retained.delete(topic)
    else if (retain) this.#retained.set(topic, { ...publish, payload: Buffer.from(payload) })
    for (const subscription of this.#receivers(topic, from)) {
      deliver(subscription, publish, retain && subscription.retainAsPublished)
    }
  }

  /**
   * For each connection its subscription with the highest quality of service; of a group the one whose turn
   * it is.
   */
  #receivers (topic: string, from: MemoryLink | undefined): Subscription[] {
    const plain = new Map<MemoryLink, Subscription>()
    const groups = new Map<string, Subscription[]>()
    for (const subscription of this.#router.match(topic)) {
      const { link, share, noLocal, filter, qos } = subscription
      if (share !== undefined) groups.set(filter, [...groups.get(filter) ?? [], subscription])
      else if (noLocal && link === from) continue
      else if (qos >= (plain.get(link)?.qos ?? 0)) plain.set(link, subscription)
    }
    const chosen = [...groups].flatMap(([filter, members]) => {
      const turn = this.#turns.get(filter) ?? 0
      this.#turns.set(filter, turn + 1)
      return members[turn % members.length] ?? []
    })
    return [...plain.values(), ...chosen]
  }

  #forget (link: MemoryLink): void {
    for (const filter of [...this.#subscriptions.get(link)?.keys() ?? []]) this.unsubscribe(link, filter)
    this.#subscriptions.delete(link)
  }
}

function deliver (subscription: Subscription, publish: OutgoingPublish, retain: boolean): void {
  const { topic, payload, qos } = publish
  subscription.link.deliver({
    topic,
    payload: Buffer.from(payload),
    qos: Math.min(qos, subscription.qos) as QoS,
    retain,
    dup: false,
    properties: sentProperties(publish, 5)
  })
}
