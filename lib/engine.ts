import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import type { InjectResult } from '../types/inject.ts'
import type { ListedTopic } from '../types/listing.ts'
import type { Mqtt } from '../types/mqtt.ts'
import type { Health, RefusedFilter, Status } from '../types/status.ts'
import { ConnectionLog } from './connection-log.ts'
import { Dispatcher } from './dispatch/dispatcher.ts'
import { ConnectionHooks } from './dispatch/hooks.ts'
import { ReceivedMessage, type Incoming } from './dispatch/message.ts'
import { describeError, errorCode, errors } from './errors.ts'
import { Injections } from './injection.ts'
import type { Settings } from './options/settings.ts'
import { Codecs } from './payload/codecs.ts'
import type { PoisoningRules } from './payload/json.ts'
import { SchemaCompiler } from './payload/schemas.ts'
import { Connection, type ConnectionSettings } from './session/connection.ts'
import { Inbox } from './session/inbox.ts'
import type { Link, LinkEvents } from './session/link.ts'
import { Outbox } from './session/outbox.ts'
import type { RegisteredTopic } from './registered-topic.ts'
import { preparePublish, type CheckedPublishOptions } from './session/publish.ts'
import { refusalClass } from './session/refusals.ts'
import { SubscriptionBook } from './session/subscriptions.ts'
import { TopicNames, type Named } from './topic/names.ts'
import { overlap } from './topic/overlap.ts'

/** What the engine needs from the application that it runs in. */
export interface EngineHost {
  readonly server: FastifyInstance
  readonly log: FastifyBaseLogger
  readonly poisoning: PoisoningRules
  /** Milliseconds that Fastify gives a hook; 0 for ever. */
  readonly pluginTimeoutMs: number
  /** What connects; default: MQTT.js. */
  readonly link?: ((settings: ConnectionSettings, events: LinkEvents) => Link) | undefined
}

/** Milliseconds for the DISCONNECT itself, after everything has been waited for. */
const disconnectMs = 500
const pubrel = 6
/**
 * What the protocol allows: a message that is too large is refused by itself, since the broker would send it
 * again.
 */
const largestPacketBytes = 268_435_460

/** One connection with all that hangs on it: wires the parts, and leads them through start and close. */
export class Engine {
  readonly settings: Settings
  readonly names = new TopicNames<Named>()
  /** Every topic that is registered, in order. */
  readonly topics = new Set<RegisteredTopic>()
  readonly codecs: Codecs
  readonly schemas: SchemaCompiler
  readonly dispatcher: Dispatcher
  readonly book: SubscriptionBook
  readonly hooks: ConnectionHooks
  readonly #host: EngineHost
  readonly #connection: Link
  readonly #outbox: Outbox
  readonly #inbox: Inbox
  #connecting: Promise<void> | undefined
  #closing: Promise<void> | undefined
  #draining: Promise<void> | undefined
  #isClosed = false
  #hasFailed = false
  #isOpen = false
  readonly #injections = new Injections()
  #giveUp: (() => void) | undefined
  readonly #log: ConnectionLog

  constructor (settings: Settings, host: EngineHost) {
    this.settings = settings
    this.#host = host
    this.#log = new ConnectionLog(host.log, settings.address.text)
    this.codecs = new Codecs(host.poisoning, settings.codecs)
    this.schemas = new SchemaCompiler(settings.validatorCompiler)
    const link = host.link ?? ((linkSettings, events) => new Connection(linkSettings, events))
    this.#connection = link({
      ...settings, credentials: () => settings.credentials.ask(), maxPacketBytes: largestPacketBytes
    }, this.#linkEvents())
    const onRefused = (refused: RefusedFilter) => this.#log.onRefused(refused)
    this.book = new SubscriptionBook(this.#connection, onRefused, settings.connectTimeoutMs)
    this.#outbox = new Outbox(this.#connection, { broker: settings.address.text, ...settings.outbox })
    this.#inbox = new Inbox(
      this.#connection,
      (message, receipt) => this.dispatcher.receive(message, receipt),
      (unacked) => this.#renew(unacked),
      settings.inbox.maxUnacked
    )
    this.hooks = new ConnectionHooks((name, error) => {
      host.log.error({ err: error }, `the MQTT hook ${name} failed`)
    })
    this.dispatcher = new Dispatcher({
      codecs: this.codecs,
      maxPayload: settings.maxPayload,
      log: host.log,
      onUnmatched: (incoming) => this.#onUnmatched(incoming)
    })
  }

  /** Publishes bytes to an absolute topic name. */
  publish (topic: string, payload: Buffer, options: CheckedPublishOptions): Promise<void> {
    const publish = preparePublish(topic, payload, options)
    if (this.#injections.capture(publish, (bytes) => this.codecs.json.decode(bytes))) return Promise.resolve()
    const timeoutMs = options.timeoutMs ?? this.settings.publishTimeoutMs
    return this.#outbox.publish(publish, { timeoutMs, signal: options.signal })
  }

  /** What is registered, with what overlaps. */
  list (): ListedTopic[] {
    const all = [...this.topics]
    return all.map((topic) => ({
      ...topic.listing,
      overlaps: all
        .filter((other) => other.filter !== topic.filter)
        .filter((other) => overlap(other.placed.matchFilter, topic.placed.matchFilter))
        .map(({ pattern }) => pattern)
    }))
  }

  /** Of the connection, or of the attempt to connect. */
  get version (): 4 | 5 {
    return this.#connection.version
  }

  get client (): Mqtt['client'] {
    return this.#connection.client
  }

  get status (): Status {
    if (this.#isClosed) return 'closed'
    if (this.#draining !== undefined) return 'draining'
    if (!this.#connection.isOpen) return this.#hasFailed ? 'closed' : 'idle'
    if (this.#connection.isUp) return 'ready'
    return this.#connection.everUp ? 'offline' : 'connecting'
  }

  health (): Health {
    const { granted, refused, pending } = this.book
    const { attempts, lastError, everUp, version } = this.#connection
    const status = this.status
    return {
      ok: status === 'ready' && refused.length === 0 && pending.length === 0,
      status,
      broker: this.settings.address.text,
      protocolVersion: everUp ? version : undefined,
      attempts,
      lastError: lastError && { code: errorCode(lastError), message: describeError(lastError) },
      subscriptions: { granted, refused, pending },
      messages: { ...this.dispatcher.counters }
    }
  }

  /** Connects and waits until every subscription is answered; gives up after `connectTimeout`. */
  async connect (): Promise<void> {
    if (this.#draining !== undefined || this.#isClosed) {
      throw new errors.FST_MQTT_CLOSED(this.settings.address.text)
    }
    this.#connecting ??= this.#start().finally(() => { this.#connecting = undefined })
    await this.#connecting
  }

  /** Goes on trying until it is closed. */
  connectInBackground (): void {
    if (!this.#connection.isOpen) this.#connection.open()
  }

  /** Lets messages through to the handlers: the application is ready. */
  open (): void {
    this.#isOpen = true
    this.dispatcher.open()
  }

  /** True once the application is ready, and no hook can be added any more. */
  get isOpen (): boolean {
    return this.#isOpen
  }

  /** Brings a message to the handlers without a broker; what they publish is not sent. */
  async inject (incoming: Incoming): Promise<InjectResult> {
    if (this.#draining !== undefined) throw new errors.FST_MQTT_CLOSED(this.settings.address.text)
    return await this.#injections.run((receipt) => this.dispatcher.inject(incoming, receipt))
  }

  /**
   * Takes no more messages in and waits for the handlers that run, but not longer than Fastify waits for us.
   */
  async drain (): Promise<void> {
    await (this.#draining ??= this.#drain())
  }

  /** Ends the connection, in every state and in bounded time. */
  async close (): Promise<void> {
    await (this.#closing ??= this.#close())
  }

  async #start (): Promise<void> {
    const isOurs = !this.#connection.isOpen
    if (isOurs) this.#connection.open()
    if (await this.#isReadyWithin(this.settings.connectTimeoutMs)) return
    const error = this.#startError()
    // One that was started before goes on.
    if (isOurs) {
      this.#hasFailed = true
      await this.#connection.close(disconnectMs)
      this.book.onDown()
    }
    throw error
  }

  async #isReadyWithin (timeoutMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const deadline = new Promise<boolean>((resolve) => {
      timer = setTimeout(resolve, timeoutMs, false)
      // Closing while connecting ends the wait.
      this.#giveUp = () => resolve(false)
    })
    const isReady = await Promise.race([deadline, this.book.answered().then(() => true)])
    clearTimeout(timer)
    this.#giveUp = undefined
    return isReady
  }

  #startError (): Error {
    const { attempts, lastError, isUp } = this.#connection
    if (this.#draining !== undefined) return new errors.FST_MQTT_CLOSED(this.settings.address.text)
    const reason = isUp
      ? `the broker did not answer the subscriptions ${this.book.pending.join(', ')}`
      : lastError === undefined ? 'no answer' : describeError(lastError)
    return new errors.FST_MQTT_CONNECT_FAILED(
      this.settings.address.text,
      this.settings.connectTimeoutMs,
      attempts === 1 ? '1 attempt' : `${attempts} attempts`,
      reason,
      { cause: lastError }
    )
  }

  async #drain (): Promise<void> {
    this.dispatcher.stop()
    this.#giveUp?.()
    const { pluginTimeoutMs } = this.#host
    const { drainTimeoutMs } = this.settings
    const limitMs = pluginTimeoutMs === 0 ? drainTimeoutMs : Math.min(drainTimeoutMs, pluginTimeoutMs - 500)
    await within(this.dispatcher.idle(), Math.max(0, limitMs))
  }

  async #close (): Promise<void> {
    await this.drain()
    if (this.#connection.isUp) this.#announce('offline')
    await this.#outbox.flush(this.settings.drainTimeoutMs)
    this.#inbox.close()
    this.#outbox.close()
    await this.#connection.close(disconnectMs)
    this.book.onDown()
    this.#isClosed = true
    this.#log.onClosed()
  }

  #linkEvents (): LinkEvents {
    return {
      onUp: (isSessionPresent) => {
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
    this.book.onUp()
    this.#announce('online')
    this.hooks.run('onConnect')
    this.#log.onReady(this.#connection)
  }

  #onDown (cause: Error, wasUp: boolean): boolean {
    this.book.onDown()
    this.#inbox.onDown()
    const isSoon = this.#outbox.onDown(cause)
    this.hooks.run('onDisconnect', cause)
    this.#log.onDown(cause, wasUp, this.#connection)
    const { everUp, version, nextVersion } = this.#connection
    // What will never change is not waited for.
    if (!everUp && version === nextVersion && refusalClass(cause) === 'fatal') this.#giveUp?.()
    return isSoon
  }

  /** Whether this client is there; the broker says it by the will if it is gone without a word. */
  #announce (state: 'online' | 'offline'): void {
    const { presence, publishTimeoutMs, drainTimeoutMs } = this.settings
    if (presence === undefined) return
    const { topic, qos } = presence
    const publish = { topic, payload: presence[state], qos, retain: true, properties: undefined }
    const timeoutMs = state === 'online' ? publishTimeoutMs : Math.max(1, drainTimeoutMs)
    void this.#outbox.publish(publish, { timeoutMs, signal: undefined }).catch((error: unknown) => {
      this.#host.log.warn({ err: error, topic }, `the presence '${state}' was not published`)
    })
  }

  /** The broker knows no bounds: it has to keep what is not acknowledged, and send it again. */
  #renew (unacked: number): void {
    this.#log.onExcess(unacked, this.settings.inbox.maxUnacked)
    this.#connection.renew(new errors.FST_MQTT_CONNECTION(`${unacked} messages wait to be acknowledged`))
  }

  #onUnmatched (incoming: Incoming): void {
    const { log, server } = this.#host
    const recipient = { pattern: '', prefix: this.settings.prefix, server, log, json: this.codecs.json, ack: 'after' } as const
    this.hooks.run('onUnmatched', new ReceivedMessage(incoming, recipient, {}))
  }
}

/** Waits for a promise that never rejects, but not longer than the time. */
async function within (promise: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<void>((resolve) => { timer = setTimeout(resolve, timeoutMs) })
  await Promise.race([promise, deadline])
  clearTimeout(timer)
}
