import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import type { InjectResult } from '../types/inject.ts'
import type { ListedTopic } from '../types/listing.ts'
import type { Mqtt } from '../types/mqtt.ts'
import type { Health, RefusedFilter, Status } from '../types/status.ts'
import { isConnectingOff } from './connecting.ts'
import { Dispatcher } from './dispatch/dispatcher.ts'
import { ConnectionHooks } from './dispatch/hooks.ts'
import { ReceivedMessage, type Incoming } from './dispatch/message.ts'
import { describeError, errorCode, errors } from './errors.ts'
import { injections } from './injection.ts'
import { logFailure } from './diagnostics.ts'
import type { Settings } from './options/settings.ts'
import { Codecs } from './payload/codecs.ts'
import type { PoisoningRules } from './payload/json.ts'
import { SchemaCompiler } from './payload/schemas.ts'
import { Connection, type BrokerLink, type ConnectionEvents, type ConnectionSettings } from './session/connection.ts'
import { Outbox } from './session/outbox.ts'
import type { RegisteredTopic } from './registered-topic.ts'
import { preparePublish, type CheckedPublishOptions } from './session/publish.ts'
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
  readonly link?: ((settings: ConnectionSettings, events: ConnectionEvents) => BrokerLink) | undefined
}

/** Milliseconds for the DISCONNECT itself, after everything has been waited for. */
const disconnectMs = 500

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
  readonly #connection: BrokerLink
  readonly #outbox: Outbox
  #connecting: Promise<void> | undefined
  #closing: Promise<void> | undefined
  #draining: Promise<void> | undefined
  #isClosed = false
  #hasFailed = false
  #isOpen = false
  #giveUp: (() => void) | undefined
  #lastComplaint: string | undefined

  constructor (settings: Settings, host: EngineHost) {
    this.settings = settings
    this.#host = host
    this.codecs = new Codecs(host.poisoning, settings.codecs)
    this.schemas = new SchemaCompiler(settings.validatorCompiler)
    const link = host.link ?? ((linkSettings, events) => new Connection(linkSettings, events))
    this.#connection = link(settings, {
      onUp: () => this.#onUp(),
      onDown: (cause, wasUp) => this.#onDown(cause, wasUp),
      onMessage: (packet) => this.dispatcher.receive(packet)
    })
    const onRefused = (refused: RefusedFilter) => this.#onRefused(refused)
    this.book = new SubscriptionBook(this.#connection, onRefused, settings.connectTimeoutMs)
    this.#outbox = new Outbox(this.#connection, settings.address.text)
    this.hooks = new ConnectionHooks((name, error) => {
      logFailure(host.log, error, {}, `the MQTT hook ${name} failed`)
    })
    this.dispatcher = new Dispatcher({
      codecs: this.codecs,
      maxPayload: settings.maxPayload,
      log: host.log,
      onUnmatched: (incoming) => this.#onUnmatched(incoming)
    })
  }

  /** Publishes bytes to an absolute topic name. */
  async publish (topic: string, payload: Buffer, options: CheckedPublishOptions): Promise<void> {
    const publish = preparePublish(topic, payload, options, this.#connection)
    const { namespace } = this.settings
    if (injections.capture(publish, namespace, (bytes) => this.codecs.json.decode(bytes))) return
    if (isConnectingOff()) return
    const timeoutMs = options.timeoutMs ?? this.settings.publishTimeoutMs
    await this.#outbox.publish(publish, { timeoutMs, signal: options.signal })
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
    if (isConnectingOff()) return
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
    return await injections.run(() => this.dispatcher.inject(incoming))
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
    await this.#outbox.flush(this.settings.drainTimeoutMs)
    this.#outbox.close()
    await this.#connection.close(disconnectMs)
    this.book.onDown()
    this.#isClosed = true
    this.#host.log.debug(`disconnected from ${this.settings.address.text}`)
  }

  #onUp (): void {
    this.#lastComplaint = undefined
    this.book.onUp()
    this.hooks.run('onConnect')
    const { version, attempts } = this.#connection
    this.#host.log.info(`connected to ${this.settings.address.text} with MQTT ${version === 5 ? '5' : '3.1.1'}` +
      (attempts === 1 ? '' : ` (attempt ${attempts})`))
  }

  #onDown (cause: Error, wasUp: boolean): void {
    this.book.onDown()
    this.#outbox.onDown(cause)
    this.hooks.run('onDisconnect', cause)
    const { log } = this.#host
    const broker = this.settings.address.text
    if (wasUp) {
      log.warn({ err: cause }, `lost the connection to ${broker}, connecting again`)
      return
    }
    const { version, nextVersion } = this.#connection
    if (version === 5 && nextVersion === 4) {
      log.info(`${broker} did not accept MQTT 5, trying 3.1.1`)
      return
    }
    // An outage is one line, not one a second.
    const complaint = describeError(cause)
    const level = complaint === this.#lastComplaint ? 'debug' : 'warn'
    this.#lastComplaint = complaint
    log[level]({ err: cause }, `could not connect to ${broker}, trying again`)
  }

  #onUnmatched (incoming: Incoming): void {
    const { log, server } = this.#host
    const recipient = { pattern: '', prefix: this.settings.prefix, server, log, json: this.codecs.json }
    this.hooks.run('onUnmatched', new ReceivedMessage(incoming, recipient, {}, Buffer.from(incoming.payload)))
  }

  #onRefused (refused: RefusedFilter): void {
    const { filter, reasonCode, reason } = refused
    this.#host.log.error({ filter, reasonCode }, `subscription to '${filter}' was refused: ${reason}`)
  }
}

/** Waits for a promise that never rejects, but not longer than the time. */
async function within (promise: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<void>((resolve) => { timer = setTimeout(resolve, timeoutMs) })
  await Promise.race([promise, deadline])
  clearTimeout(timer)
}
