import type { QoS } from '../../types/message.ts'
import type { GrantedFilter, RefusedFilter } from '../../types/status.ts'
import { describeError, errors } from '../errors.ts'
import type { SubscribeOptions } from './link.ts'

/** What the subscription book needs from whoever holds the connection. */
export interface SubscribePort {
  readonly version: 4 | 5
  readonly limits: { readonly maximumPacketSize: number }
  subscribe (filters: readonly string[], options: SubscribeOptions): Promise<readonly number[]>
  unsubscribe (filters: readonly string[]): Promise<void>
}

/** Told of each filter that is refused. */
export type OnRefused = (refused: RefusedFilter) => void

/**
 * What is to be subscribed, filter by filter, and what the broker answered to each. The book is the whole
 * truth: MQTT.js's own list loses every filter of a batch in which one was refused.
 */
export class SubscriptionBook {
  readonly #port: SubscribePort
  readonly #onRefused: OnRefused
  readonly #answerTimeoutMs: number
  readonly #wanted = new Map<string, Want>()
  readonly #granted = new Map<string, Grant>()
  readonly #refused = new Map<string, RefusedFilter>()
  readonly #waiting: (() => void)[] = []
  #isUp = false
  #isWorking = false
  /** Counts connections, so that an answer of an earlier one changes nothing. */
  #connection = 0

  constructor (port: SubscribePort, onRefused: OnRefused, answerTimeoutMs = 5_000) {
    this.#port = port
    this.#onRefused = onRefused
    this.#answerTimeoutMs = answerTimeoutMs
  }

  /**
   * Asks for a filter. One filter has one subscription, with the highest quality of service of all who ask.
   *
   * @returns takes the request back; with the last one the filter is unsubscribed
   * @throws `FST_MQTT_TOPIC_CONFLICT` if it is already asked for with other options
   */
  want (filter: string, options: SubscribeOptions): () => void {
    const want = this.#wanted.get(filter) ?? new Want(filter)
    want.add(options)
    this.#wanted.set(filter, want)
    this.#refused.delete(filter)
    this.#work()
    return () => {
      want.delete(options)
      if (want.isEmpty && this.#wanted.get(filter) === want) {
        this.#wanted.delete(filter)
        this.#refused.delete(filter)
      }
      this.#work()
    }
  }

  /** A new connection, with no subscriptions: every filter is sent. */
  onUp (): void {
    this.#isUp = true
    this.#connection++
    this.#granted.clear()
    this.#refused.clear()
    this.#isWorking = false
    this.#work()
  }

  onDown (): void {
    this.#isUp = false
  }

  /** Resolves when every filter that is wanted now is answered. */
  async answered (): Promise<void> {
    if (this.#isUp && this.#missing().length === 0) return
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  get granted (): GrantedFilter[] {
    return (this.#isUp ? [...this.#granted] : []).map(([filter, { qos }]) => ({ filter, qos }))
  }

  get refused (): RefusedFilter[] {
    return [...this.#refused.values()]
  }

  get pending (): string[] {
    return this.#missing().map(({ filter }) => filter)
  }

  #work (): void {
    if (!this.#isUp || this.#isWorking) return
    this.#isWorking = true
    // What one turn registers goes out in one packet.
    const connection = this.#connection
    queueMicrotask(() => { void this.#synchronise(connection) })
  }

  async #synchronise (connection: number): Promise<void> {
    for (;;) {
      if (connection !== this.#connection) return
      const surplus = [...this.#granted.keys()].filter((filter) => !this.#wanted.has(filter))
      const missing = this.#missing()
      if (!this.#isUp || (surplus.length === 0 && missing.length === 0)) break
      const { maximumPacketSize } = this.#port.limits
      if (surplus.length > 0) {
        const packets = chunks(surplus, maximumPacketSize)
        await Promise.all(packets.map((filters) => this.#unsubscribe(filters)))
        // Much may have changed meanwhile: the wishes, and the connection.
        continue
      }
      const due = batches(missing, maximumPacketSize)
      await Promise.all(due.map((batch) => this.#subscribe(batch, connection)))
    }
    this.#isWorking = false
    if (this.#isUp) for (const resolve of this.#waiting.splice(0)) resolve()
  }

  async #unsubscribe (filters: readonly string[]): Promise<void> {
    for (const filter of filters) this.#granted.delete(filter)
    try {
      await this.#answer(this.#port.unsubscribe(filters))
    } catch {
      // The connection is gone, and its subscriptions with it; or the broker does not answer, which has to
      // cost no other filter.
    }
  }

  async #subscribe ({ options, filters }: Batch, connection: number): Promise<void> {
    if (this.#port.version === 4 && needsMqtt5(options)) {
      for (const filter of filters) {
        this.#refuse(filter, undefined, 'noLocal, retainAsPublished and retainHandling need MQTT 5, ' +
          'this connection speaks MQTT 3.1.1')
      }
      return
    }
    const [first = ''] = filters
    if (packetSize(first) > this.#port.limits.maximumPacketSize) {
      this.#refuse(first, undefined, 'it is larger than the packets that the broker accepts')
      return
    }
    try {
      const codes = await this.#answer(this.#port.subscribe(filters, options))
      if (connection === this.#connection) this.#note(filters, options, codes)
    } catch (error) {
      // A lost connection is followed by another; otherwise the filter must not be asked for without end.
      if (connection !== this.#connection || !this.#isUp) return
      for (const filter of filters) this.#refuse(filter, undefined, describeError(error))
    }
  }

  /** No answer is no reason to wait for ever. */
  async #answer<T> (answer: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    const deadline = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        reject(new errors.FST_MQTT_CONNECTION(`no answer within ${this.#answerTimeoutMs} ms`))
      }, this.#answerTimeoutMs)
    })
    try {
      return await Promise.race([answer, deadline])
    } finally {
      clearTimeout(timer)
    }
  }

  #note (filters: readonly string[], asked: SubscribeOptions, codes: readonly number[]): void {
    for (const [index, filter] of filters.entries()) {
      const code = codes[index]
      if (code === 0 || code === 1 || code === 2) this.#granted.set(filter, { asked, qos: code })
      else this.#refuse(filter, code, reasonOf(code))
    }
  }

  #refuse (filter: string, reasonCode: number | undefined, reason: string): void {
    this.#granted.delete(filter)
    if (!this.#wanted.has(filter)) return
    const refused = { filter, reasonCode, reason }
    this.#refused.set(filter, refused)
    this.#onRefused(refused)
  }

  #missing (): Want[] {
    return [...this.#wanted.values()].filter(({ filter, options }) => {
      if (this.#refused.has(filter)) return false
      const grant = this.#isUp ? this.#granted.get(filter) : undefined
      return grant === undefined || grant.asked.qos < options.qos ||
        difference(grant.asked, options) !== undefined
    })
  }
}

interface Grant {
  readonly asked: SubscribeOptions
  readonly qos: QoS
}

/** Everything that is asked of one filter. */
class Want {
  readonly filter: string
  readonly #requests = new Set<SubscribeOptions>()

  constructor (filter: string) {
    this.filter = filter
  }

  add (options: SubscribeOptions): void {
    const [other] = this.#requests
    const key = other === undefined ? undefined : difference(other, options)
    if (key !== undefined) {
      throw new errors.FST_MQTT_TOPIC_CONFLICT(this.filter, `${key} is ${other?.[key]}, not ${options[key]}`)
    }
    this.#requests.add(options)
  }

  delete (options: SubscribeOptions): void {
    this.#requests.delete(options)
  }

  get isEmpty (): boolean {
    return this.#requests.size === 0
  }

  get options (): SubscribeOptions {
    const all = [...this.#requests]
    return all.reduce((highest, options) => options.qos > highest.qos ? options : highest)
  }
}

/** The first option, but for the quality of service, in which two differ. */
function difference (a: SubscribeOptions, b: SubscribeOptions) {
  return (['noLocal', 'retainAsPublished', 'retainHandling'] as const).find((key) => a[key] !== b[key])
}

/** Filters of one packet: some brokers limit their number. */
const batchSize = 100

interface Batch {
  readonly options: SubscribeOptions
  readonly filters: readonly string[]
}

/** Filters with the same options, in packets that the broker accepts. */
function batches (wants: readonly Want[], maximumPacketSize: number): Batch[] {
  const groups = new Map<string, { options: SubscribeOptions, filters: string[] }>()
  for (const { filter, options } of wants) {
    const { qos, noLocal, retainAsPublished, retainHandling } = options
    const key = `${qos}${noLocal}${retainAsPublished}${retainHandling}`
    const group = groups.get(key) ?? { options, filters: [] }
    group.filters.push(filter)
    groups.set(key, group)
  }
  return [...groups.values()].flatMap(({ options, filters }) =>
    chunks(filters, maximumPacketSize).map((chunk) => ({ options, filters: chunk })))
}

/** A filter that is too large for any packet has one of its own. */
function chunks (filters: readonly string[], maximumPacketSize: number): string[][] {
  const all: string[][] = []
  let size = 0
  for (const filter of filters) {
    const last = all.at(-1)
    size += packetSize(filter)
    if (last === undefined || last.length === batchSize || size > maximumPacketSize) {
      all.push([filter])
      size = packetSize(filter)
    } else {
      last.push(filter)
    }
  }
  return all
}

/** The most that a packet with one filter takes: header, identifier, properties, the filter, its options. */
function packetSize (filter: string): number {
  return 5 + 2 + 1 + 2 + Buffer.byteLength(filter) + 1
}

/** Whether a 3.1.1 connection cannot do what is asked. */
export function needsMqtt5 (options: Omit<SubscribeOptions, 'qos'>): boolean {
  return options.noLocal || options.retainAsPublished || options.retainHandling !== 0
}

/** MQTT 5 §3.9.3; 0x80 is all that 3.1.1 has. */
function reasonOf (code: number | undefined): string {
  return reasons[code ?? 0x80] ?? 'refused'
}

const reasons: Readonly<Record<number, string>> = {
  0x80: 'refused without a reason',
  0x83: 'implementation specific error',
  0x87: 'not authorized',
  0x8f: 'topic filter invalid',
  0x91: 'packet identifier in use',
  0x97: 'quota exceeded',
  0x9e: 'shared subscriptions not supported',
  0xa1: 'subscription identifiers not supported',
  0xa2: 'wildcard subscriptions not supported'
}
