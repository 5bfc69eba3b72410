import type { PublishProperties, QoS } from './message.ts'

/** A message for `inject()`. */
export interface InjectOptions {
  /** The topic name, without the global prefix unless `absolute`. */
  topic: string
  /**
   * As for `publish`: strings and bytes as they are, `undefined` is the empty message, anything else is JSON.
   */
  payload?: unknown
  /** Default 0. */
  qos?: QoS | undefined
  /** Default false. */
  retain?: boolean | undefined
  properties?: PublishProperties | undefined
  /** Default false. */
  absolute?: boolean | undefined
}

/** What one handler did with an injected message. */
export interface InjectedHandler {
  /** Of the topic. */
  readonly name: string | undefined
  readonly pattern: string
  readonly params: Readonly<Record<string, unknown>>
  readonly outcome: 'handled' | 'skipped' | 'failed'
  /** What failed, also if an error handler dealt with it. */
  readonly error: unknown
  /** What the handler returned, or what its promise resolved with. */
  readonly returned: unknown
  readonly durationMs: number
}

/** A message that was published while an injected one was handled; it was not sent. */
export interface InjectedPublish {
  /** As on the wire, with the global prefix. */
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  readonly properties: PublishProperties
  /** Of the connection that it was published on; undefined for the default one. */
  readonly namespace: string | undefined
  text (): string
  json (): unknown
}

/** What came of an injected message. */
export interface InjectResult {
  /** How many topics matched. */
  readonly matched: number
  /** In the order in which they were started. */
  readonly handlers: readonly InjectedHandler[]
  readonly published: readonly InjectedPublish[]
  /** True when every handler has settled, so that the message would have been acknowledged. */
  readonly acknowledged: boolean
}
