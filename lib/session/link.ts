import type { MqttClient } from 'mqtt'
import type { PublishProperties, QoS } from '../../types/message.ts'

/** A PUBLISH that came in. */
export interface ReceivedPublish {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  readonly dup: boolean
  /** The packet identifier; 0 with QoS 0. */
  readonly messageId: number
  /** Of MQTT 5, in the form of mqtt-packet. */
  readonly properties: object | undefined
  /** The subscriptions that this copy is for, where the broker says so. */
  readonly subscriptionIds: readonly number[]
  /**
   * It is needed later, too: beyond this turn of the event loop it gets bytes of its own, so that what was
   * read from the socket with it can be collected.
   */
  keep (): void
  /** One of those who keep it needs it no more. */
  drop (): void
}

/** A PUBLISH to be sent, checked by the guard. */
export interface OutgoingPublish {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  readonly properties: PublishProperties | undefined
  /** That of the codec: not sent on MQTT 3.1.1, where properties are refused. */
  readonly contentType?: string | undefined
}

/** PUBACK, PUBREC, PUBREL, PUBCOMP [MQTT 5 §2.1.2]. */
export type AckType = 4 | 5 | 6 | 7

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

export const noLimits: BrokerLimits = {
  maximumQoS: 2,
  retainAvailable: true,
  maximumPacketSize: Infinity,
  receiveMaximum: 65_535,
  subscriptionIdentifiersAvailable: true,
  wildcardSubscriptionAvailable: true,
  sharedSubscriptionAvailable: true
}

/** What a link tells whoever holds it. */
export interface LinkEvents {
  /** CONNACK came: messages can be sent and acknowledged. */
  onUp (isSessionPresent: boolean): void
  /** Right after it: filters can be subscribed. */
  onReady (): void
  /**
   * An attempt failed, or the connection ended.
   *
   * @returns true to have the next attempt soon: the connection ended because of what was sent
   */
  onDown (cause: Error, wasUp: boolean): boolean
  onMessage (message: ReceivedPublish): void
  onAck (type: AckType, packetId: number, reasonCode: number): void
  /** All that was sent up to this number is with the operating system. */
  onWritten (sequence: number): void
  /** The peer takes bytes again. */
  onDrain (): void
  /** The raw client wants to publish with QoS 1 or 2: to be sent when the broker's window has room. */
  onForeignPublish (send: () => void): void
  /** A publish of the raw client was acknowledged. */
  onForeignDone (): void
}

/** A connection to a broker that comes back by itself: over a socket, or within the process for tests. */
export interface Link {
  readonly client: MqttClient | undefined
  readonly isUp: boolean
  readonly everUp: boolean
  readonly isOpen: boolean
  readonly attempts: number
  readonly lastError: Error | undefined
  /** What is spoken, or tried. */
  readonly version: 4 | 5
  /** What the next attempt will speak. */
  readonly nextVersion: 4 | 5
  readonly limits: BrokerLimits
  /** Milliseconds from CONNECT to CONNACK. */
  readonly rttMs: number
  /** False while the peer does not take what was sent. */
  readonly isWritable: boolean
  open (): void
  /** @returns the number of the write, for `onWritten` */
  sendPublish (publish: OutgoingPublish, packetId: number, isDup: boolean): number
  sendAck (type: AckType, packetId: number, reasonCode: number): void
  /** One SUBSCRIBE. @returns the reason code of each filter */
  subscribe (
    filters: readonly string[], options: SubscribeOptions, subscriptionIdentifier?: number
  ): Promise<readonly number[]>
  unsubscribe (filters: readonly string[]): Promise<void>
  /**
   * Stops reading; signs of life are still seen to. That the peer has gone may be noticed only by a write, or
   * after `resume`.
   */
  pause (): void
  resume (): void
  /** Cuts the connection, so that a new one is made. */
  renew (cause: Error): void
  /**
   * Ends the connection, in every state and within the time; what is still in flight is not waited for.
   *
   * @param isWithGoodbye false lets the broker publish the will; default true
   */
  close (timeoutMs: number, isWithGoodbye?: boolean): Promise<void>
}
