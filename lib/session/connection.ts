import { MqttClient } from 'mqtt'
import type { ClientOptions, TlsOptions } from '../../types/options.ts'
import { errors } from '../errors.ts'
import type { Will } from '../options/will.ts'
import { defined } from '../values.ts'
import { LowIds } from '../wire/ids.ts'
import { dial, type Target } from '../wire/transport.ts'
import { Wire, type WireEvents } from '../wire/wire.ts'
import { BackOff, type BackOffSettings, type Pace } from './back-off.ts'
import { clientOptions, secureTarget, subscribeOptions } from './client-options.ts'
import {
  noLimits,
  type AckType, type BrokerLimits, type Link, type LinkEvents, type OutgoingPublish, type SubscribeOptions
} from './link.ts'
import { sentProperties } from './publish.ts'
import { MessageEvents } from './raw-client.ts'
import {
  asConnectionError, connackRefusal, disconnection, hangUp, isReset, isTakeover, refusalClass
} from './refusals.ts'
import { reasonCodeOf } from './reason-codes.ts'
import { Rivals } from './rivals.ts'

/** User and password of one CONNECT. */
export interface ConnectCredentials {
  readonly username: string | undefined
  readonly password: string | undefined
}

/** What a connection is made from. */
export interface ConnectionSettings {
  readonly address: {
    readonly protocol: 'mqtt' | 'mqtts' | 'ws' | 'wss' | 'memory'
    readonly host: string
    readonly port: number
    readonly path: string
    readonly text: string
  }
  /** Asked before every attempt. */
  readonly credentials: () => ConnectCredentials | Promise<ConnectCredentials>
  readonly clientId: string
  /** Seconds that the broker keeps the session after the connection; 0 for a session that ends with it. */
  readonly sessionExpirySeconds: number
  readonly will: Will | undefined
  readonly protocolVersion: 'auto' | 4 | 5
  readonly keepaliveSeconds: number
  readonly connectTimeoutMs: number
  readonly reconnect: BackOffSettings
  /** Bytes of the largest packet that is taken in. */
  readonly maxPacketBytes: number
  readonly tls: TlsOptions
  readonly client: ClientOptions
}

/** The one connection to a broker: the only place that knows MQTT.js. */
export class Connection implements Link {
  readonly #settings: ConnectionSettings
  readonly #events: LinkEvents
  readonly #backOff: BackOff
  readonly #rivals: Rivals
  readonly #secure: Target['tls']
  #client: MqttClient | undefined
  #wire: Wire | undefined
  /** The last one whose end was seen to. */
  #endedWire: Wire | undefined
  /** The packet identifier of what MQTT.js is sending. */
  #sendingId: number | undefined
  #timer: NodeJS.Timeout | undefined
  #isOpen = false
  #isUp = false
  #everUp = false
  #attempts = 0
  /** Counts attempts over all times that it was opened. */
  #turn = 0
  #lastError: Error | undefined
  #attemptError: Error | undefined
  #version: 4 | 5
  #nextVersion: 4 | 5
  #limits: BrokerLimits = noLimits
  #closing: Promise<void> | undefined

  constructor (settings: ConnectionSettings, events: LinkEvents) {
    this.#settings = settings
    this.#events = events
    this.#backOff = new BackOff(settings.reconnect)
    this.#rivals = new Rivals(settings.clientId, settings.reconnect.maxDelayMs)
    this.#secure = secureTarget(settings.address.protocol, settings.tls)
    this.#version = this.#nextVersion = settings.protocolVersion === 4 ? 4 : 5
  }

  get client (): MqttClient | undefined { return this.#client }
  get isUp (): boolean { return this.#isUp }
  get everUp (): boolean { return this.#everUp }
  get isOpen (): boolean { return this.#isOpen }
  get attempts (): number { return this.#attempts }
  get lastError (): Error | undefined { return this.#lastError }
  get version (): 4 | 5 { return this.#version }
  get nextVersion (): 4 | 5 { return this.#nextVersion }
  get limits (): BrokerLimits { return this.#limits }
  get rttMs (): number { return this.#wire?.rttMs ?? 0 }
  get isWritable (): boolean { return this.#wire?.isWritable === true }

  open (): void {
    if (this.#isOpen) return
    this.#isOpen = true
    this.#closing = undefined
    this.#attempts = 0
    this.#lastError = undefined
    void this.#attempt()
  }

  sendPublish (publish: OutgoingPublish, packetId: number, isDup: boolean): number {
    const { topic, payload, qos, retain, properties, contentType } = publish
    const toEncode = contentType === undefined && (this.#version === 5 || properties === undefined)
      ? publish
      : { topic, payload, qos, retain, properties: sentProperties(publish, this.#version) }
    return this.#openWire().publish(toEncode, packetId, isDup)
  }

  sendAck (type: AckType, packetId: number, reasonCode: number): void {
    this.#openWire().ack(type, packetId, reasonCode)
  }

  async subscribe (
    filters: readonly string[], options: SubscribeOptions, subscriptionIdentifier?: number
  ): Promise<readonly number[]> {
    const client = this.#connectedClient()
    const wireOptions = subscribeOptions(options, subscriptionIdentifier, this.#version)
    return await new Promise((resolve, reject) => {
      client.subscribe([...filters], wireOptions, (error, _granted, packet) => {
        // One refusal makes the whole batch an error; the packet has the answer for each filter.
        const codes = (packet as { granted?: number[] } | undefined)?.granted
        if (codes?.length === filters.length) resolve(codes)
        else reject(error ?? new errors.FST_MQTT_CONNECTION('SUBACK does not fit SUBSCRIBE'))
      })
    })
  }

  async unsubscribe (filters: readonly string[]): Promise<void> {
    await this.#connectedClient().unsubscribeAsync([...filters])
  }

  pause (): void {
    this.#wire?.pauseReading()
  }

  resume (): void {
    this.#wire?.resumeReading()
  }

  renew (cause: Error): void {
    this.#wire?.destroy(cause)
  }

  async close (timeoutMs: number, isWithGoodbye = true): Promise<void> {
    await (this.#closing ??= this.#end(timeoutMs, isWithGoodbye))
  }

  /**
   * DISCONNECT is ours, so that there is no will; then MQTT.js's end with force, which is at once in every
   * state.
   */
  async #end (timeoutMs: number, isWithGoodbye: boolean): Promise<void> {
    const wasUp = this.#isUp
    this.#isOpen = this.#isUp = false
    clearTimeout(this.#timer)
    const client = this.#client
    const wire = this.#wire
    this.#client = this.#wire = undefined
    if (wasUp && isWithGoodbye) await wire?.goodbye(timeoutMs)
    wire?.destroy()
    if (client?.stream !== undefined) client.end(true)
  }

  async #attempt (): Promise<void> {
    const turn = ++this.#turn
    this.#attempts++
    this.#version = this.#nextVersion
    this.#attemptError = undefined
    let credentials: ConnectCredentials
    try {
      credentials = await this.#askCredentials()
    } catch (error) {
      this.#attemptError = new errors.FST_MQTT_CREDENTIALS({ cause: error })
      if (this.#isOpen && turn === this.#turn) this.#down()
      return
    }
    // It was closed meanwhile, or even opened again.
    if (!this.#isOpen || turn !== this.#turn) return
    const client = (this.#client ??= this.#createClient())
    client.options.protocolVersion = this.#version
    if (credentials.username === undefined) delete client.options.username
    else client.options.username = credentials.username
    // Behind a getter that is not enumerable, so that a client or its options can be logged.
    Object.defineProperty(client.options, 'password', {
      get: () => credentials.password, enumerable: false, configurable: true
    })
    client.connect()
  }

  /** One that never answers must not be the end of all attempts. */
  async #askCredentials (): Promise<ConnectCredentials> {
    const { credentials, connectTimeoutMs } = this.#settings
    let timer: NodeJS.Timeout | undefined
    const deadline = new Promise<never>((_resolve, reject) => {
      const error = new Error(`no answer within ${connectTimeoutMs} ms`)
      timer = this.#timer = setTimeout(() => reject(error), connectTimeoutMs)
    })
    try {
      return await Promise.race([credentials(), deadline])
    } finally {
      clearTimeout(timer)
    }
  }

  #createClient (): MqttClient {
    const client: MqttClient = new MqttClient((self) => this.#buildWire(self, messageEvents), {
      ...clientOptions(this.#settings), messageIdProvider: new LowIds(), manualConnect: true
    })
    const messageEvents = new MessageEvents(client)
    client.on('error', (error) => {
      // Where it is the cause of an end, that has begun; others are about what the raw client was told to do.
      const isEnd = client === this.#client && this.#wire?.destroyed === true
      if (isEnd) this.#attemptError ??= asConnectionError(error)
    })
    client.on('connect', () => { if (client === this.#client && this.#isUp) this.#events.onReady() })
    client.on('close', () => { if (client === this.#client) this.#onClose() })
    client.on('packetsend', ({ messageId }) => { this.#sendingId = messageId })
    return client
  }

  /** Not for a wire that another has replaced. */
  #onClose (): void {
    if (this.#wire?.closed !== true || this.#wire === this.#endedWire) return
    this.#endedWire = this.#wire
    this.#down()
  }

  /** MQTT.js asks for it: told by us to connect, or by somebody who has the raw client. */
  #buildWire (client: MqttClient, messageEvents: MessageEvents): Wire {
    if (client === this.#client) this.#abandon()
    const { address, client: { wsOptions = {} }, maxPacketBytes } = this.#settings
    const target = { ...address, tls: this.#secure, wsOptions } as Target
    const isClosed = client !== this.#client
    const socket = isClosed ? Promise.reject(new errors.FST_MQTT_CLOSED(address.text)) : dial(target)
    const wire: Wire = new Wire(socket, { version: this.#version, maxBytes: maxPacketBytes },
      this.#wireEvents(client, messageEvents, () => wire === this.#wire))
    if (!isClosed) this.#wire = wire
    return wire
  }

  /** Another attempt takes the place of what there is. */
  #abandon (): void {
    clearTimeout(this.#timer)
    this.#wire?.destroy()
    if (!this.#isUp) return
    this.#isUp = false
    this.#lastError = new errors.FST_MQTT_CONNECTION('the raw client was told to connect again')
    this.#events.onDown(this.#lastError, true)
  }

  #wireEvents (client: MqttClient, messageEvents: MessageEvents, isCurrent: () => boolean): WireEvents {
    const events = this.#events
    return {
      onConnack: (connack) => {
        // Some say that a session is there which they were told to end.
        const isKept = this.#settings.sessionExpirySeconds > 0 && connack.sessionPresent
        if (isCurrent()) this.#up(isKept, connack.properties)
      },
      onRefusal: (packet) => {
        if (!isCurrent()) return
        const reasonString = packet.properties?.reasonString
        this.#attemptError = packet.cmd === 'connack'
          ? connackRefusal(packet.reasonCode ?? packet.returnCode ?? 0x80, reasonString)
          : disconnection(packet.reasonCode ?? 0, reasonString)
      },
      onPublish: (frame) => {
        if (!isCurrent()) return
        events.onMessage(frame)
        messageEvents.show(frame)
      },
      onAck: (type, packetId, reasonCode) => { if (isCurrent()) events.onAck(type, packetId, reasonCode) },
      onWritten: (sequence) => { if (isCurrent()) events.onWritten(sequence) },
      onDrain: () => { if (isCurrent()) events.onDrain() },
      onForeignPublish: (send) => events.onForeignPublish(send),
      onForeignDone: () => events.onForeignDone(),
      // Or MQTT.js would send it again on each connection, and end each.
      onUnsendable: () => { if (this.#sendingId !== undefined) client.removeOutgoingMessage(this.#sendingId) }
    }
  }

  /** With CONNACK, before MQTT.js knows: what waits is on its way in the same turn. */
  #up (isSessionPresent: boolean, properties: object | undefined): void {
    this.#isUp = true
    this.#everUp = true
    this.#attemptError = undefined
    this.#limits = { ...noLimits, ...defined(properties ?? {}) }
    this.#backOff.onUp()
    this.#rivals.onUp()
    this.#events.onUp(isSessionPresent)
  }

  #down (): void {
    const wasUp = this.#isUp
    this.#isUp = false
    if (!this.#isOpen) return
    const error = wasUp ? this.#rivals.onEnd(this.#attemptError) : this.#attemptError
    const cause = error ?? hangUp(
      wasUp ? 'the connection was closed' : 'the broker closed the connection before it answered')
    this.#lastError = cause
    if (!wasUp) this.#rivals.onFailure()
    const isOtherVersion = !wasUp && this.#planVersion(error)
    const turn = this.#turn
    const isSoon = this.#events.onDown(cause, wasUp)
    if (!this.#isOpen || turn !== this.#turn) return
    const delayMs = isOtherVersion ? 0 : this.#backOff.next(this.#paceAfter(cause, isSoon))
    this.#timer = setTimeout(() => { void this.#attempt() }, delayMs)
  }

  #paceAfter (cause: Error, isSoon: boolean): Pace {
    if (isSoon && !isTakeover(cause)) return 'soon'
    if (this.#rivals.areSuspected) return 'contested'
    return this.#everUp && refusalClass(cause) !== 'transient' ? 'slow' : 'usual'
  }

  /**
   * With `auto`: after a refusal of 5 one attempt with 4, at once; after its failure 5 again; never once one
   * was accepted.
   *
   * @returns whether the next attempt is with 4
   */
  #planVersion (error: Error | undefined): boolean {
    if (this.#settings.protocolVersion !== 'auto' || this.#everUp) return false
    // What a broker left unread makes its close a reset; but there was nothing to read before it was reached.
    const isHungUp = (error === undefined || isReset(error)) && this.#wire?.isReached === true
    const isRefused = isHungUp || (error !== undefined && reasonCodeOf(error) === 0x84)
    this.#nextVersion = this.#version === 5 && isRefused ? 4 : 5
    return this.#nextVersion === 4
  }

  #connectedClient (): MqttClient {
    if (this.#client !== undefined && this.#isUp) return this.#client
    throw new errors.FST_MQTT_OFFLINE(this.#settings.address.text)
  }

  #openWire (): Wire {
    if (this.#wire !== undefined && this.#isUp) return this.#wire
    throw new errors.FST_MQTT_OFFLINE(this.#settings.address.text)
  }
}
