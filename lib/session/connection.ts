import { isIPv6 } from 'node:net'
import { createSecureContext } from 'node:tls'
import { connect, ReasonCodes, type IClientOptions, type MqttClient } from 'mqtt'
import type { PublishProperties, QoS } from '../../types/message.ts'
import type { ClientOptions, TlsOptions } from '../../types/options.ts'
import { errors } from '../errors.ts'
import { defined } from '../values.ts'

/** What a connection is made from. */
export interface ConnectionSettings {
  readonly address: {
    readonly protocol: 'mqtt' | 'mqtts' | 'ws' | 'wss' | 'memory'
    readonly host: string
    readonly port: number
    readonly path: string
    readonly text: string
  }
  readonly credentials: { readonly username: string | undefined, readonly password: string | undefined }
  readonly clientId: string
  readonly protocolVersion: 'auto' | 4 | 5
  readonly keepaliveSeconds: number
  readonly connectTimeoutMs: number
  readonly tls: TlsOptions
  readonly client: ClientOptions
}

/** What a connection tells whoever holds it. */
export interface ConnectionEvents {
  /** Connected: CONNACK came. */
  onUp (): void
  /** An attempt failed, or the connection ended. */
  onDown (cause: Error, wasUp: boolean): void
  onMessage (packet: ReceivedPacket): void
}

/** A PUBLISH that came in. */
export interface ReceivedPacket {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  readonly dup: boolean
  readonly properties?: object | undefined
}

/** A PUBLISH to be sent, checked by the guard. */
export interface OutgoingPublish {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  readonly properties: PublishProperties | undefined
}

/** How a filter is subscribed. */
export interface SubscribeOptions {
  readonly qos: QoS
  readonly noLocal: boolean
  readonly retainAsPublished: boolean
  readonly retainHandling: 0 | 1 | 2
}

/** What the broker said about itself in CONNACK; all is allowed where it said nothing. */
export interface BrokerLimits {
  readonly maximumQoS: QoS
  readonly retainAvailable: boolean
  readonly maximumPacketSize: number
  /** How many messages with QoS 1 and 2 may wait for their acknowledgement. */
  readonly receiveMaximum: number
  readonly subscriptionIdentifiersAvailable: boolean
  readonly wildcardSubscriptionAvailable: boolean
  readonly sharedSubscriptionAvailable: boolean
}

/** Milliseconds between attempts. */
const retryDelayMs = 1_000
/** The other version is tried without a wait. MQTT.js takes 0 for never. */
const atOnceMs = 1

/** What the engine needs of a connection: MQTT.js's, or one within the process for tests. */
export interface BrokerLink {
  readonly client: MqttClient | undefined
  readonly isUp: boolean
  readonly everUp: boolean
  readonly isOpen: boolean
  readonly attempts: number
  readonly lastError: Error | undefined
  readonly version: 4 | 5
  readonly nextVersion: 4 | 5
  readonly limits: BrokerLimits
  open (): void
  send (publish: OutgoingPublish, settle: (error?: Error) => void): number | undefined
  forget (packetId: number): void
  subscribe (
    filters: readonly string[], options: SubscribeOptions, subscriptionIdentifier: number | undefined
  ): Promise<readonly number[]>
  unsubscribe (filters: readonly string[]): Promise<void>
  close (timeoutMs: number): Promise<void>
}

/** The one connection to a broker: the only place that knows MQTT.js. */
export class Connection implements BrokerLink {
  readonly #settings: ConnectionSettings
  readonly #events: ConnectionEvents
  #client: MqttClient | undefined
  #isUp = false
  #everUp = false
  #attempts = 0
  #lastError: Error | undefined
  #attemptError: Error | undefined
  #version: 4 | 5
  #nextVersion: 4 | 5
  #limits: BrokerLimits = noLimits
  #closing: Promise<void> | undefined

  constructor (settings: ConnectionSettings, events: ConnectionEvents) {
    this.#settings = settings
    this.#events = events
    this.#version = this.#nextVersion = settings.protocolVersion === 4 ? 4 : 5
  }

  get client (): MqttClient | undefined { return this.#client }
  get isUp (): boolean { return this.#isUp }
  get everUp (): boolean { return this.#everUp }
  get isOpen (): boolean { return this.#client !== undefined }
  get attempts (): number { return this.#attempts }
  get lastError (): Error | undefined { return this.#lastError }
  /** What is spoken, or tried. */
  get version (): 4 | 5 { return this.#version }
  /** What the next attempt will speak. */
  get nextVersion (): 4 | 5 { return this.#nextVersion }
  get limits (): BrokerLimits { return this.#limits }

  /** Starts to connect, and goes on until `close()`. */
  open (): void {
    const client = connect(this.#clientOptions())
    this.#client = client
    this.#attempts = 1
    this.#lastError = undefined
    this.#attemptError = undefined
    client.on('connect', (connack) => this.#up(client, connack))
    client.on('message', (_topic, _payload, packet) => this.#events.onMessage(packet as ReceivedPacket))
    client.on('error', (error) => {
      this.#attemptError = error
      // MQTT.js sets its timer right after this event, and before 'close', if CONNACK was a refusal.
      if (isVersionRefusal(error)) this.#planOtherVersion(client)
    })
    client.on('disconnect', ({ reasonCode = 0 }) => {
      const reason = ReasonCodes[reasonCode as keyof typeof ReasonCodes]
      this.#attemptError = new errors.FST_MQTT_CONNECTION(
        `the broker ended the connection: ${reason} (0x${reasonCode.toString(16)})`)
    })
    client.on('reconnect', () => {
      this.#attempts++
      this.#version = client.options.protocolVersion = this.#nextVersion
      client.options.reconnectPeriod = retryDelayMs
    })
    // Before MQTT.js's own listener, which sets the timer for the next attempt.
    client.prependListener('close', () => this.#down(client))
  }

  /**
   * Sends a PUBLISH. `settle` is called when it is acknowledged, or with QoS 0 written, or has failed;
   * perhaps never, if the connection is lost.
   *
   * @returns the packet identifier, undefined with QoS 0
   */
  send (publish: OutgoingPublish, settle: (error?: Error) => void): number | undefined {
    const { topic, payload, qos, retain, properties } = publish
    const options = properties === undefined
      ? { qos, retain }
      : { qos, retain, properties: encodable(properties) }
    this.#client?.publish(topic, payload, options, (error) => settle(error ?? undefined))
    return qos === 0 ? undefined : this.#client?.getLastMessageId()
  }

  /** Takes a PUBLISH back that will not be acknowledged: MQTT.js would send it again after a reconnect. */
  forget (packetId: number): void {
    this.#client?.removeOutgoingMessage(packetId)
  }

  /**
   * Subscribes filters with the same options.
   *
   * @returns the reason code of each
   */
  async subscribe (
    filters: readonly string[], options: SubscribeOptions, subscriptionIdentifier: number | undefined
  ): Promise<readonly number[]> {
    const client = this.#connectedClient()
    const { qos, noLocal: nl, retainAsPublished: rap, retainHandling: rh } = options
    const properties = subscriptionIdentifier === undefined ? {} : { properties: { subscriptionIdentifier } }
    const wire = this.#version === 5 ? { qos, nl, rap, rh, ...properties } : { qos }
    return await new Promise((resolve, reject) => {
      client.subscribe([...filters], wire, (error, _granted, packet) => {
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

  /** Ends the connection, in every state and within the time; what is still in flight is not waited for. */
  async close (timeoutMs: number): Promise<void> {
    const client = this.#client
    if (client !== undefined) this.#closing = this.#end(client, timeoutMs)
    await this.#closing
  }

  async #end (client: MqttClient, timeoutMs: number): Promise<void> {
    this.#client = undefined
    const wasUp = this.#isUp
    this.#isUp = false
    // With force there is no DISCONNECT, so that the broker would publish the will; without it a client that
    // is not connected, or waits for an acknowledgement, may never end [reference: MQTT.js#1033, #952].
    for (const packetId of Object.keys(client.outgoing)) client.removeOutgoingMessage(Number(packetId))
    await new Promise<void>((resolve) => {
      const guard = setTimeout(resolve, timeoutMs)
      client.end(!wasUp, () => {
        clearTimeout(guard)
        resolve()
      })
    })
    client.stream?.destroy()
  }

  #connectedClient (): MqttClient {
    if (this.#client !== undefined && this.#isUp) return this.#client
    throw new errors.FST_MQTT_OFFLINE(this.#settings.address.text)
  }

  #clientOptions (): IClientOptions {
    const { address, credentials, clientId, keepaliveSeconds, connectTimeoutMs, tls, client } = this.#settings
    const options: IClientOptions = {
      log: () => {},
      ...client,
      ...secureOptions(tls),
      // A memory broker is never reached by MQTT.js.
      protocol: address.protocol as Exclude<typeof address.protocol, 'memory'>,
      // In the URL of a WebSocket an IPv6 address needs its brackets.
      host: address.path !== '' && isIPv6(address.host) ? `[${address.host}]` : address.host,
      port: address.port,
      path: address.path,
      clientId,
      protocolVersion: this.#version,
      keepalive: keepaliveSeconds,
      connectTimeout: connectTimeoutMs,
      clean: true,
      reconnectPeriod: retryDelayMs,
      reconnectOnConnackError: true,
      // Its own list forgets every filter of a batch in which one was refused: session/subscriptions.ts.
      resubscribe: false,
      queueQoSZero: false
    }
    // MQTT.js hands on only some TLS options to a WebSocket, and writes into the object it is given.
    if (address.protocol === 'wss') options.wsOptions = { ...client.wsOptions, ...secureOptions(tls) }
    if (credentials.username !== undefined) options.username = credentials.username
    // Behind a getter that is not enumerable, so that a client or its options can be logged.
    Object.defineProperty(options, 'password', { get: () => credentials.password, enumerable: false })
    return options
  }

  #up (client: MqttClient, connack: { properties?: object | undefined }): void {
    if (client !== this.#client) return
    this.#isUp = true
    this.#everUp = true
    this.#attemptError = undefined
    this.#limits = { ...noLimits, ...defined(connack.properties ?? {}) }
    this.#events.onUp()
  }

  #down (client: MqttClient): void {
    const error = this.#attemptError
    this.#attemptError = undefined
    if (client !== this.#client) return
    const wasUp = this.#isUp
    this.#isUp = false
    // What a broker left unread makes its close a reset.
    const isClose = error === undefined || isReset(error)
    if (!wasUp && (isClose || this.#version === 4)) this.#planOtherVersion(client)
    const cause = error ?? new errors.FST_MQTT_CONNECTION(
      wasUp ? 'the connection was closed' : 'the broker closed the connection before it answered')
    this.#lastError = cause
    this.#events.onDown(cause, wasUp)
  }

  /**
   * With `auto`: after a refusal of 5 one attempt with 4, after its failure 5 again; never once one was
   * accepted.
   */
  #planOtherVersion (client: MqttClient): void {
    if (this.#settings.protocolVersion !== 'auto' || this.#everUp) return
    this.#nextVersion = this.#version === 5 ? 4 : 5
    if (this.#nextVersion === 4) client.options.reconnectPeriod = atOnceMs
  }
}

const noLimits: BrokerLimits = {
  maximumQoS: 2,
  retainAvailable: true,
  maximumPacketSize: Infinity,
  receiveMaximum: 65_535,
  subscriptionIdentifiersAvailable: true,
  wildcardSubscriptionAvailable: true,
  sharedSubscriptionAvailable: true
}

/** CONNACK "unacceptable protocol version", of 3.1.1 and of 5. */
function isVersionRefusal (error: Error): boolean {
  return 'code' in error && (error.code === 1 || error.code === 0x84)
}

function isReset (error: Error): boolean {
  return 'code' in error && (error.code === 'ECONNRESET' || error.code === 'EPIPE')
}

/** TLS without keys and passphrases, which stay in the context, where no log can find them. */
function secureOptions ({ servername, rejectUnauthorized, ...tls }: TlsOptions): IClientOptions {
  const certificates = defined(tls)
  const secureContext = Object.keys(certificates).length === 0 ? undefined : createSecureContext(certificates)
  return defined({ servername, rejectUnauthorized, secureContext }) as IClientOptions
}

/** The properties in the form of mqtt-packet: an empty `userProperties` would make its publish hang. */
function encodable (properties: PublishProperties): NonNullable<Parameters<MqttClient['publish']>[2]>['properties'] {
  const { userProperties, correlationData, ...others } = properties
  const hasUserProperties = userProperties !== undefined && Object.keys(userProperties).length > 0
  return {
    ...defined(others),
    ...(correlationData === undefined ? {} : { correlationData: Buffer.from(correlationData) }),
    ...(hasUserProperties ? { userProperties: userProperties as Record<string, string | string[]> } : {})
  }
}
