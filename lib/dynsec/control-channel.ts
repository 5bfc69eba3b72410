import { randomUUID } from 'node:crypto'
import type { DynsecCapabilities } from '../../types/dynsec.ts'
import { describeError, errors } from '../errors.ts'
import { isRecord } from '../values.ts'
import type { WireCommand } from './checks.ts'
import {
  requestTopic, responseTopic,
  type Answer, type Exchange, type Self, type SendOptions, type Session, type SessionOptions
} from './exchange.ts'
import { correlationData, Replies } from './replies.ts'

/** What the channel needs of a connection to the broker. */
export interface ControlLink {
  /** What is spoken. */
  readonly version: 4 | 5
  /** Who has logged in; undefined if that is nobody. */
  readonly username: string | undefined
  readonly isUp: boolean
  /** The largest packet that the broker takes, in bytes; Infinity where it said nothing. */
  readonly maximumPacketSize: number
  /**
   * Subscribes an absolute filter on the present connection, with QoS 0. Its messages come at once and in
   * order, also before the application is ready. It ends with the connection, or by `stop()`.
   *
   * @returns the reason code of the SUBACK
   */
  subscribe (filter: string, onMessage: (payload: Buffer) => void): Promise<ControlSubscription>
  /**
   * Publishes to an absolute topic on the present connection, in the order of the calls. A message never
   * waits for a connection, and is never sent again on another one.
   *
   * @returns QoS 0: handed to the socket; QoS 1: acknowledged
   * @throws rejects with `FST_MQTT_OFFLINE` if it was not sent, with `FST_MQTT_PUBLISH_REFUSED` if MQTT 5
   *   says so
   */
  publish (topic: string, payload: Buffer, options: { qos: 0 | 1 }): Promise<void>
  /** Tells when the connection comes and goes. @returns a remover */
  onChange (listener: (isUp: boolean) => void): () => void
}

/** A subscription of the link. */
export interface ControlSubscription {
  readonly reasonCode: number
  stop (): Promise<void>
}

export interface ChannelSettings {
  /** The broker, for messages: protocol, host and port. */
  readonly broker: string
  /** For the answer to the first question. */
  readonly timeoutMs: number
}

const authorizedBelow = 0x80

/**
 * The way to the plugin by a connection of this process. A command is sent with QoS 0, and only on a
 * connection on which the plugin has answered before: with QoS 1 a command that cuts the own connection
 * would be sent again after each reconnect (eclipse-mosquitto#2474).
 */
export class ControlChannel implements Exchange {
  readonly #link: ControlLink
  readonly #settings: ChannelSettings
  readonly #replies = new Replies()
  readonly #removeListener: () => void
  #session: Promise<Session> | undefined
  #subscription: ControlSubscription | undefined
  #isClosed = false

  constructor (link: ControlLink, settings: ChannelSettings) {
    this.#link = link
    this.#settings = settings
    this.#removeListener = link.onChange((isUp) => { if (!isUp) this.#onDown() })
  }

  async session ({ timeoutMs, signal }: SessionOptions): Promise<Session> {
    const { broker } = this.#settings
    if (this.#isClosed) throw new errors.FST_MQTT_CLOSED(broker)
    if (!this.#link.isUp) throw new errors.FST_MQTT_OFFLINE(broker)
    this.#session ??= this.#open()
    const session = unlessAborted(this.#session, signal)
    if (timeoutMs === undefined) return await session
    const inTime = await unlessLate(session, timeoutMs)
    if (inTime !== undefined) return inTime
    throw new errors.FST_MQTT_DYNSEC_NO_ANSWER(broker, timeoutMs, 'the answer is still awaited')
  }

  async send (commands: readonly WireCommand[], options: SendOptions): Promise<readonly Answer[]> {
    await this.session(options)
    return await this.#post(commands, 0, options)
  }

  /** Settles all that waits; nothing is sent any more. */
  close (): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#removeListener()
    this.#replies.settleAll('closed')
    this.#forgetSession()
  }

  #onDown (): void {
    this.#replies.settleAll('lost')
    this.#session = undefined
    this.#subscription = undefined
  }

  #forgetSession (): void {
    this.#session = undefined
    const subscription = this.#subscription
    this.#subscription = undefined
    // It may fail with the connection, and ends with it.
    void subscription?.stop().catch(() => {})
  }

  /** Who fails tries again with the next command: rights and plugins come and go. */
  #open (): Promise<Session> {
    const session = this.#handshake().catch((error: unknown) => {
      if (this.#session === session || this.#isClosed) this.#forgetSession()
      throw error
    })
    // Each caller waits for it by itself, and may have given up.
    session.catch(() => {})
    return session
  }

  async #handshake (): Promise<Session> {
    await this.#subscribe()
    const { username, maximumPacketSize } = this.#link
    const since = performance.now()
    // Its QoS 1 makes a broker with MQTT 5 tell if it may not be asked.
    const [details, self] = await this.#ask([
      { command: 'getDetails' },
      ...username === undefined ? [] : [{ command: 'getClient', username }]
    ], 1)
    const roundTripMs = performance.now() - since
    return {
      // Mosquitto 2.0: "Unknown command".
      capabilities: details?.kind === 'done' ? capabilitiesOf21 : capabilitiesOf20,
      self: await this.#identify(self),
      maximumPacketSize,
      roundTripMs
    }
  }

  async #subscribe (): Promise<void> {
    const { broker, timeoutMs } = this.#settings
    const granted = this.#link.subscribe(responseTopic, (payload) => this.#replies.receive(payload))
    const subscription = await unlessLate(granted, timeoutMs).catch((error: unknown) => {
      throw this.#link.isUp ? error : new errors.FST_MQTT_OFFLINE(broker)
    })
    if (subscription === undefined) {
      stopWhenThere(granted)
      throw new errors.FST_MQTT_DYNSEC_NO_ANSWER(broker, timeoutMs, `it did not answer the subscription to ${responseTopic}`)
    }
    this.#subscription = subscription
    const { reasonCode } = subscription
    if (reasonCode < authorizedBelow) return
    throw new errors.FST_MQTT_DYNSEC_NOT_AUTHORIZED(`subscribe to ${responseTopic}`,
      `the broker answered with reason 0x${reasonCode.toString(16)}`)
  }

  /** A question of the handshake, before anything of the caller's is sent. */
  async #ask (commands: readonly WireCommand[], qos: 0 | 1): Promise<readonly Answer[]> {
    const { broker, timeoutMs } = this.#settings
    const answers = await this.#post(commands, qos, { timeoutMs })
    const [first] = answers
    if (first?.kind !== 'missing') return answers
    if (first.why === 'closed') throw new errors.FST_MQTT_CLOSED(broker)
    if (first.why === 'lost') throw new errors.FST_MQTT_OFFLINE(broker)
    if (first.why === 'absent') throw new errors.FST_MQTT_DYNSEC_PLUGIN_ABSENT(broker, 'endpoint not available')
    throw new errors.FST_MQTT_DYNSEC_NO_ANSWER(broker, timeoutMs,
      `it has no such plugin, or the account may not receive ${responseTopic}` +
      (this.#link.version === 4 ? `, or not publish to ${requestTopic}, which MQTT 3.1.1 cannot tell` : ''))
  }

  /** Who we are, with the roles that come by the groups. */
  async #identify (answer: Answer | undefined): Promise<Self> {
    const client = recordIn(answer, 'client')
    const groups = namesIn(client['groups'], 'groupname')
    const details = groups.length === 0
      ? []
      : await this.#ask(groups.map((groupname) => ({ command: 'getGroup', groupname })), 0)
    const roles = [client, ...details.map((group) => recordIn(group, 'group'))]
      .flatMap((holder) => namesIn(holder['roles'], 'rolename'))
    return { username: this.#link.username, groups, roles }
  }

  async #post (
    commands: readonly WireCommand[], qos: 0 | 1, { timeoutMs, signal }: SendOptions, isProbe = false
  ): Promise<readonly Answer[]> {
    // Whoever waited for the session may have waited too long.
    if (this.#isClosed) throw new errors.FST_MQTT_CLOSED(this.#settings.broker)
    if (this.#session === undefined) throw new errors.FST_MQTT_OFFLINE(this.#settings.broker)
    if (signal?.aborted === true) throw abortError(signal)
    const id = randomUUID()
    const correlated = commands.map((command, index) =>
      ({ ...command, correlationData: correlationData(id, index) }))
    const payload = Buffer.from(JSON.stringify({ commands: correlated }))
    const answers = this.#replies.wait(id, commands.length)
    const probe = isProbe ? undefined : setTimeout(() => this.#probe(id, timeoutMs / 2), timeoutMs / 2)
    const limit = setTimeout(() => this.#replies.settle(id, 'late'), timeoutMs)
    const onAbort = () => this.#replies.settle(id, 'aborted')
    signal?.addEventListener('abort', onAbort)
    try {
      return await Promise.race([answers, this.#publish(payload, qos, answers)])
    } finally {
      // Not to be waited for any more, if it was not sent.
      this.#replies.settle(id, 'lost')
      clearTimeout(probe)
      clearTimeout(limit)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /** Rejects if the message was not sent; otherwise leaves it to the answers. */
  async #publish<T> (payload: Buffer, qos: 0 | 1, answers: Promise<T>): Promise<T> {
    try {
      await this.#link.publish(requestTopic, payload, { qos })
    } catch (error) {
      if (error instanceof errors.FST_MQTT_PUBLISH_REFUSED) {
        throw new errors.FST_MQTT_DYNSEC_NOT_AUTHORIZED(`publish to ${requestTopic}`, describeError(error), {
          cause: error
        })
      }
      // It may have been sent: with the connection the answers are lost, and say so.
      if (!(error instanceof errors.FST_MQTT_DELIVERY_UNKNOWN)) throw error
    }
    return await answers
  }

  /**
   * Half of the time is over: the answer to a small question, which overtakes none, tells whether the broker
   * is slow or has dropped a reply that was too large for us.
   */
  #probe (id: string, timeoutMs: number): void {
    if (!this.#replies.isLast(id)) return
    this.#post([{ command: 'getAnonymousGroup' }], 0, { timeoutMs }, true).catch(() => {})
  }
}

const capabilitiesOf20: DynsecCapabilities =
  { details: false, wildcardSubs: false, substitution: false, connections: false }
const capabilitiesOf21: DynsecCapabilities =
  { details: true, wildcardSubs: true, substitution: true, connections: true }

/** Undefined if it takes longer. */
async function unlessLate<T> (promise: Promise<T>, timeoutMs: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => { timer = setTimeout(resolve, timeoutMs, undefined) })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

function stopWhenThere (granted: Promise<ControlSubscription>): void {
  void granted.then((subscription) => subscription.stop()).catch(() => {})
}

async function unlessAborted<T> (promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await promise
  let stop: () => void = () => {}
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => reject(abortError(signal))
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop)
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

function abortError (signal: AbortSignal): Error {
  return new errors.FST_MQTT_DYNSEC_ABORTED('nothing was sent', { cause: signal.reason })
}

function recordIn (answer: Answer | undefined, key: string): Record<string, unknown> {
  const data = answer?.kind === 'done' ? answer.data : undefined
  const record = isRecord(data) ? data[key] : undefined
  return isRecord(record) ? record : {}
}

function namesIn (list: unknown, key: string): string[] {
  const entries: unknown[] = Array.isArray(list) ? list : []
  return entries.filter(isRecord).map((entry) => entry[key]).filter((name) => typeof name === 'string')
}
