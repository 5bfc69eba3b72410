import type { PublishProperties, QoS } from './message.ts'

/** A message that was published to a memory broker. */
export interface PublishedMessage {
  /** As on the wire, with the global prefix. */
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  readonly properties: PublishProperties
  /** The payload as text. */
  text (): string
  /** The payload as JSON. */
  json (): unknown
}

/** Options of `MemoryBroker.publish`. */
export interface DevicePublishOptions {
  /** Default 0. */
  qos?: QoS | undefined
  /** Default false. */
  retain?: boolean | undefined
  properties?: PublishProperties | undefined
}

/**
 * A broker within the process, for tests: `register(multimqtt, { url: broker.url })`. It keeps the rules of
 * MQTT 5 for subscriptions, wildcards, qualities of service, retained messages and `$share` (one receiver of
 * a group, in turn), and has neither sessions nor permissions. A message that several filters match comes
 * once for each connection; Mosquitto sends it once for each subscription on MQTT 5.
 */
export interface MemoryBroker {
  /** For the option `url`; with a path the path is the prefix: `` `${broker.url}/site` ``. */
  readonly url: string
  /** Everything that applications have published, in order. */
  readonly published: readonly PublishedMessage[]
  /**
   * The oldest message of `published` that has not been taken yet; rejects after `timeoutMs` (default 1000).
   */
  next (timeoutMs?: number): Promise<PublishedMessage>
  /**
   * Publishes to an absolute topic name, as a device would: strings and bytes as they are, anything else as
   * JSON.
   */
  publish (topic: string, payload?: unknown, options?: DevicePublishOptions): void
  /** The topic names that have a retained message, with its payload. */
  readonly retained: ReadonlyMap<string, Buffer>
  /** Cuts every connection; they come back at once. */
  disconnect (): void
  /** Cuts every connection for good, and forgets the name. */
  close (): void
}
