import type { FastifyBaseLogger } from 'fastify'
import type { Mqtt } from '../types/mqtt.ts'
import type { Health, Stats, Status } from '../types/status.ts'
import { ConnectionLog } from './connection-log.ts'
import { ConnectionState } from './connection-state.ts'
import { describeTrouble, isFinal } from './connection-trouble.ts'
import { errorCode, errors } from './errors.ts'
import type { Settings } from './options/settings.ts'
import { PresenceNotice } from './presence-notice.ts'
import { AsideSubscriptions } from './session/aside.ts'
import { Connection, type ConnectCredentials, type ConnectionSettings } from './session/connection.ts'
import { CoveringBook } from './session/covering-book.ts'
import { Inbox, type Deliver } from './session/inbox.ts'
import type { Patience } from './session/job.ts'
import type { BrokerLimits, Link, LinkEvents, OutgoingPublish } from './session/link.ts'
import { Outbox } from './session/outbox.ts'
import { isHangUp } from './session/refusals.ts'

/** What the broker's side needs of the application's. */
export interface BrokerSessionHost {
  readonly log: FastifyBaseLogger
  /** What connects; default: MQTT.js over a socket. */
  readonly link?: ((settings: ConnectionSettings, events: LinkEvents) => Link) | undefined
  readonly deliver: Deliver
  /** Asked before every attempt: false if another process has the connection now. */
  readonly mayConnect?: (() => boolean) | undefined
  onReady (): void
  onDown (cause: Error): void
  /** Status or health are others than before. */
  onChange? (): void
}

/** Milliseconds for the DISCONNECT itself, after everything has been waited for. */
const disconnectMs = 500
const pubrel = 6
/**
 * What the protocol allows: a message that is too large is refused by itself, since the broker would send it
 * again.
 */
const largestPacketBytes = 268_435_460

/** The broker's side of an engine: the connection, and what goes over it in both directions. */
export class BrokerSession {
  readonly book: CoveringBook
  /** What is subscribed beside the book, on the present connection only. */
  readonly aside: AsideSubscriptions
  readonly #settings: Settings
  readonly #host: BrokerSessionHost
  readonly #link: Link
  readonly #outbox: Outbox
  readonly #inbox: Inbox
  readonly #log: ConnectionLog
  readonly #state: ConnectionState
  readonly #presence: PresenceNotice | undefined
  #endWait: (() => void) | undefined
  readonly #watchers = new Set<(isUp: boolean) => void>()
  #username: string | undefined
  #isReady = false
  #isSessionPresent = false
  #isClosing = false
  #isRefused = false
  /** What is the matter, or was last. */
  #trouble: { readonly code: string, readonly message: string } | undefined
  #isAwaitingAnswers = false

  constructor (settings: Settings, host: BrokerSessionHost) {
    const { address } = settings
    this.#settings = settings
    this.#host = host
    this.#log = new ConnectionLog(host.log, address.text)
    this.#state = new ConnectionState(this.#log)
    const createLink = host.link ?? ((linkSettings, events) => new Connection(linkSettings, events))
    this.#link = createLink({
      ...settings, credentials: () => this.#askCredentials(), maxPacketBytes: largestPacketBytes
    }, this.#linkEvents())
    this.aside = new AsideSubscriptions(this.#link, () => this.book)
    this.book = new CoveringBook(this.aside, this.#log, { answerTimeoutMs: settings.connectTimeoutMs })
    this.#outbox = new Outbox(this.#link, { broker: address.text, ...settings.outbox })
    const { presence } = settings
    if (presence !== undefined) this.#presence = new PresenceNotice(presence, this.#outbox, host.log)
    const onExcess = (unacked: number) => this.#renew(unacked)
    this.#inbox = new Inbox(this.#link, host.deliver, onExcess, settings.inbox.maxUnacked)
  }

  /** Of the connection, or of the attempt to connect. */
  get version (): 4 | 5 {
    return this.#link.version
  }

  get limits (): BrokerLimits {
    return this.#link.limits
  }

  /** True while filters can be subscribed. */
  get isReady (): boolean {
    return this.#isReady
  }

  /** Whether the last attempt to connect failed, and each other one would end as it did. */
  get isRefused (): boolean {
    return this.#isRefused
  }

  get lastError (): Error | undefined {
    return this.#link.lastError
  }

  /** Who has logged in last. */
  get username (): string | undefined {
    return this.#username
  }

  get client (): Mqtt['client'] {
    return this.#link.client
  }

  get status (): Status {
    return this.#state.status
  }

  get health (): Omit<Health, 'ok' | 'status' | 'messages'> {
    const { granted, refused, pending } = this.book
    const { attempts, everUp, version } = this.#link
    return {
      broker: this.#settings.address.text,
      protocolVersion: everUp ? version : undefined,
      attempts,
      lastError: this.#trouble,
      subscriptions: { granted, refused, pending }
    }
  }

  get counters (): Pick<Stats, 'unacked' | 'outbox'> {
    return { unacked: this.#inbox.unacked, outbox: this.#outbox.counters }
  }

  /** Tells when the connection comes, and filters can be subscribed, and when it goes. @returns a remover */
  watch (watcher: (isUp: boolean) => void): () => void {
    this.#watchers.add(watcher)
    return () => { this.#watchers.delete(watcher) }
  }

  /** Rejects as `Outbox.publish`. */
  publish (publish: OutgoingPublish, patience: Patience): Promise<void> {
    return this.#outbox.publish(publish, patience)
  }

  /** Connects, and goes on trying until it is closed. */
  open (): void {
    if (this.#link.isOpen) return
    this.#trouble = undefined
    this.#isRefused = false
    this.#state.open()
    this.#link.open()
  }

  /**
   * Connects and waits until every subscription is answered.
   *
   * @param timeoutMs default `connectTimeout`
   * @throws rejects with `FST_MQTT_CONNECT_FAILED` after that time, or at once if no other attempt would
   *   help; with `FST_MQTT_CLOSED` if it is closed meanwhile
   */
  async start (timeoutMs: number = this.#settings.connectTimeoutMs): Promise<void> {
    const isOurs = !this.#link.isOpen
    this.open()
    if (await this.#isReadyWithin(timeoutMs)) return
    const error = this.#startError(timeoutMs)
    // One that was started before goes on.
    if (isOurs) await this.#giveUp(error)
    throw error
  }

  /** Ends a connection that came of `open()`, and what waits for it. It can be opened again. */
  async abandon (): Promise<void> {
    this.#outbox.reset(new errors.FST_MQTT_CLOSED(this.#settings.address.text))
    await this.#giveUp(this.#startError())
    this.#forgetSession()
  }

  async #giveUp (error: Error): Promise<void> {
    this.#trouble ??= { code: errorCode(error), message: error.message }
    this.#state.fail()
    await this.#letGo(disconnectMs)
  }

  /**
   * Lets the connection go, which another process has taken over. What waits for an answer is settled as
   * unknown, and what came in is for the other process. It can be opened again.
   */
  async suspend (): Promise<void> {
    this.#outbox.reset(new errors.FST_MQTT_DELIVERY_UNKNOWN(this.#settings.address.text))
    const cause = new errors.FST_MQTT_CONNECTION('another process of the group has the connection now')
    this.#state.down(cause.message, cause, true, this.#link)
    const gone = this.#letGo(0)
    this.#forgetSession()
    await gone
  }

  /** Everybody knows before it has gone: a handler that ends meanwhile must not acknowledge any more. */
  async #letGo (timeoutMs: number): Promise<void> {
    const closed = this.#link.close(timeoutMs)
    this.#lapse()
    await closed
  }

  /** Ends the wait of `start()`, and says that this connection will be closed. */
  drain (): void {
    this.#isClosing = true
    this.#state.drain()
    this.#endWait?.()
  }

  /**
   * Sends what waits, within the time, and disconnects; in every state, and in bounded time.
   *
   * @param flushMs milliseconds for what waits to be sent, and acknowledged
   */
  async close (flushMs: number): Promise<void> {
    this.drain()
    // Also if only an 'online' waits: on a connection that comes back meanwhile it would be the last word.
    const isHeard = this.#link.isUp || this.#outbox.counters.messages > 0
    const parting = isHeard ? this.#presence?.part(flushMs) : undefined
    await this.#outbox.flush(flushMs)
    this.#inbox.close()
    this.#outbox.close()
    // What the broker has not taken from us it says itself, by the will.
    const isSaid = await parting !== false
    await this.#link.close(disconnectMs, isSaid)
    this.#isReady = false
    this.book.close()
    for (const watcher of this.#watchers) watcher(false)
    this.#state.close()
  }

  async #isReadyWithin (timeoutMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const deadline = new Promise<boolean>((resolve) => {
      timer = setTimeout(resolve, timeoutMs, false)
      // Closing while connecting ends the wait.
      this.#endWait = () => resolve(false)
    })
    const isReady = await Promise.race([deadline, this.book.answered().then(() => true, () => false)])
    clearTimeout(timer)
    this.#endWait = undefined
    return isReady
  }

  #startError (timeoutMs: number = this.#settings.connectTimeoutMs): Error {
    const { attempts, lastError, isUp } = this.#link
    if (this.#isClosing) return new errors.FST_MQTT_CLOSED(this.#settings.address.text)
    const reason = isUp
      ? `the broker did not answer the subscriptions ${this.book.pending.join(', ')}`
      : this.#trouble?.message ?? 'no answer'
    return new errors.FST_MQTT_CONNECT_FAILED(
      this.#settings.address.text,
      Math.round(timeoutMs),
      attempts === 1 ? '1 attempt' : `${attempts} attempts`,
      reason,
      { cause: lastError }
    )
  }

  async #askCredentials (): Promise<ConnectCredentials> {
    if (this.#host.mayConnect?.() === false) throw new errors.FST_MQTT_CLOSED(this.#settings.address.text)
    const login = await this.#settings.credentials.ask()
    this.#username = login.username
    return login
  }

  #linkEvents (): LinkEvents {
    return {
      onUp: (isSessionPresent) => {
        this.#isSessionPresent = isSessionPresent
        this.#inbox.onUp(isSessionPresent)
        this.#outbox.onUp(isSessionPresent)
      },
      onReady: () => this.#onReady(),
      onDown: (cause, wasUp) => this.#onDown(cause, wasUp),
      onMessage: (message) => this.#inbox.receive(message),
      onAck: (type, packetId, reasonCode) => {
        if (type === pubrel) this.#inbox.onPubrel(packetId)
        else this.#outbox.onAck(type, packetId, reasonCode)
      },
      onWritten: (sequence) => this.#outbox.onWritten(sequence),
      onDrain: () => this.#outbox.onDrain(),
      onForeignPublish: (send) => this.#outbox.foreign(send),
      onForeignDone: () => this.#outbox.onForeignDone()
    }
  }

  #onReady (): void {
    this.#isReady = true
    this.#isRefused = false
    this.aside.onUp()
    this.book.onUp(this.#isSessionPresent)
    for (const watcher of this.#watchers) watcher(true)
    this.#state.up(this.#link)
    this.#host.onReady()
    if (!this.#isAwaitingAnswers) void this.#awaitAnswers()
  }

  /** There is no connection any more. */
  #lapse (): void {
    this.#isReady = false
    this.book.onDown()
    this.#inbox.onDown()
    for (const watcher of this.#watchers) watcher(false)
  }

  /** Another process may have it now. */
  #forgetSession (): void {
    this.#inbox.reset()
    this.book.doubt()
  }

  /** One wait, however many connections are lost before their filters are answered. */
  async #awaitAnswers (): Promise<void> {
    this.#isAwaitingAnswers = true
    await this.book.answered().catch(() => {})
    this.#isAwaitingAnswers = false
    this.#host.onChange?.()
    // Once it hears what is said to it: whoever sees it there may answer at once.
    if (this.#link.isUp && !this.#isClosing) await this.#presence?.arrive(this.#settings.publishTimeoutMs)
  }

  #onDown (cause: Error, wasUp: boolean): boolean {
    this.#lapse()
    // As Mosquitto's dynamic security does when it changes what is allowed; it drops subscriptions then.
    if (isHangUp(cause)) this.book.doubt()
    const isSoon = this.#outbox.onDown(cause)
    const message = describeTrouble(cause, this.#link.everUp, this.#settings)
    this.#trouble = { code: errorCode(cause), message }
    this.#state.down(message, cause, wasUp, this.#link)
    this.#isRefused = !wasUp && isFinal(cause, this.#link, this.#settings)
    this.#host.onDown(cause)
    this.#host.onChange?.()
    // A start does not wait for what will not come.
    if (this.#isRefused && !this.#link.everUp) this.#endWait?.()
    return isSoon
  }

  /** The broker knows no bounds: it has to keep what is not acknowledged, and send it again. */
  #renew (unacked: number): void {
    this.#log.onExcess(unacked, this.#settings.inbox.maxUnacked)
    this.#link.renew(new errors.FST_MQTT_CONNECTION(`${unacked} messages wait to be acknowledged`))
  }
}
