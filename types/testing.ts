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
 * A broker within the process, for tests: `register(multimqtt, { url: broker.url })`. It does what Mosquitto
 * 2.0 does with wildcards, qualities of service, retained messages and their expiry, `$share` (one receiver
 * of a group, in turn) and overlapping subscriptions: on MQTT 5 a copy for each of them, on 3.1.1
 * (`protocolVersion: 4`) one for the connection. It has neither sessions nor permissions, and gives `$share`
 * no retained messages, as MQTT 5 has it.
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
   *
   * @throws `FST_MQTT_TOPIC_NAME`, `FST_MQTT_PUBLISH_OPTIONS`, `FST_MQTT_PAYLOAD_ENCODE`
   */
  publish (topic: string, payload?: unknown, options?: DevicePublishOptions): void
  /** The topic names that have a retained message, with its payload. */
  readonly retained: ReadonlyMap<string, Buffer>
  /** Cuts every connection; they come back at once. */
  disconnect (): void
  /**
   * Cuts every connection for good, and forgets the name. An application that was registered with it and
   * starts later fails with `FST_MQTT_CONNECT_FAILED`, as it does without a real broker.
   */
  close (): void
}
