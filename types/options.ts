import type { IClientOptions } from 'mqtt'
import type { DynsecOptions } from './dynsec.ts'
import type { PublishProperties, QoS } from './message.ts'
import type { ProcessesOptions } from './processes.ts'
import type { Codec, MessageOrder } from './topic.ts'

/** The schemes of `url`, and the values of `protocol`. `tcp` is `mqtt`; `ssl` and `tls` are `mqtts`. */
export type Protocol = 'mqtt' | 'mqtts' | 'tcp' | 'ssl' | 'tls' | 'ws' | 'wss'

/** A converter of an application's own. */
export interface Converter<T = unknown> {
  /** The value of a level, or undefined if it is none: then the pattern does not match. */
  parse (text: string): T | undefined
  /** The level for a value, the inverse of `parse`; may throw. What it returns is parsed again as a proof. */
  format (value: T): string
}

/** TLS of the connection. A certificate is always verified unless `rejectUnauthorized` is false. */
export interface TlsOptions {
  /** Certificates of the authorities to trust, instead of the ones that Node.js trusts. PEM. */
  ca?: string | Buffer | (string | Buffer)[] | undefined
  /** The client's certificate. PEM. */
  cert?: string | Buffer | undefined
  /** The client's private key. PEM. */
  key?: string | Buffer | undefined
  passphrase?: string | undefined
  /** The name that the certificate has to be for. Default: the host. */
  servername?: string | undefined
  /** Default: that of Node.js, `'TLSv1.2'`. */
  minVersion?: 'TLSv1.2' | 'TLSv1.3' | undefined
  /** False accepts any certificate, and is logged as a warning. Default true. */
  rejectUnauthorized?: boolean | undefined
}

/** The options of MQTT.js that the plugin does not own. */
export type ClientOptions =
  Pick<IClientOptions, 'wsOptions' | 'writeCache' | 'timerVariant' | 'reschedulePings' | 'log'>

/** Gives user and password for the next attempt to connect: from a vault, or a token that expires. */
export type CredentialsFunction = () =>
  { username?: string | undefined, password?: string | undefined } |
  Promise<{ username?: string | undefined, password?: string | undefined }>

/** What the broker publishes when the connection ends without a DISCONNECT [MQTT 5 §3.1.2.5]. */
export interface WillOptions {
  topic: string
  /** As for `publish`; at most 65,535 bytes. Default: the empty message. */
  payload?: unknown
  /** Default 0. */
  qos?: QoS | undefined
  /** Default false. */
  retain?: boolean | undefined
  /** Seconds that the broker waits for the client to come back first. Needs MQTT 5. Default 0. */
  delay?: number | undefined
  /** Need MQTT 5. */
  properties?: PublishProperties | undefined
  /** Leaves the prefix out. Default false. */
  absolute?: boolean | undefined
}

/**
 * A retained message that says whether this client is there: `online` is published after each connect,
 * `offline` when it disconnects, and by the broker, as the will, when it is gone without a word.
 */
export interface PresenceOptions {
  topic: string
  /** As for `publish`; at most 65,535 bytes. */
  online: unknown
  offline: unknown
  /** Default 1. */
  qos?: QoS | undefined
  /** Leaves the prefix out. Default false. */
  absolute?: boolean | undefined
}

/** What `fastify.register(multimqtt, options)` takes. An unknown key is an error. */
export interface MultimqttOptions {
  /**
   * `mqtt://user:password@host:port/prefix`, percent-encoded. For `ws` and `wss` the path is that of the
   * WebSocket; otherwise it is the prefix. Default `mqtt://127.0.0.1`.
   */
  url?: string | undefined
  /** Overrides the scheme of `url`. */
  protocol?: Protocol | undefined
  /** Overrides the host of `url`. */
  host?: string | undefined
  /** Overrides the port of `url`. Default 1883, 8883 for mqtts, 80 for ws, 443 for wss. */
  port?: number | undefined
  /** Overrides the user of `url`. */
  username?: string | undefined
  /** Overrides the password of `url`; needs a username. */
  password?: string | undefined
  /** Path of the WebSocket; overrides the one of `url`. Default `/`. */
  path?: string | undefined
  /**
   * Prefix of every topic that is not `absolute`. Default: the path of `url`, else none. (Its type does not
   * take undefined because Fastify's own `prefix` option of `register` does not.)
   */
  prefix?: string
  /** Makes this a further connection: `fastify.mqtt.<namespace>`. */
  namespace?: string | undefined
  /** Default: a random one; in a group of processes one that is made from its name. */
  clientId?: string | undefined
  /**
   * 4 is MQTT 3.1.1. `'auto'` speaks 5, and 4 where the broker refuses 5 (reason 1 or 0x84, or closes before
   * CONNACK) and accepts 4; never once 5 has succeeded. Default `'auto'`.
   */
  protocolVersion?: 'auto' | 4 | 5 | undefined
  /** Seconds between signs of life, 0 for none. Default 60. */
  keepalive?: number | undefined
  /**
   * `expiry` is the number of seconds for which the broker keeps subscriptions and messages after the
   * connection, 0 for none (4294967295: for ever). More than 0 needs a `clientId`. MQTT 3.1.1 knows only
   * none and for as long as the broker likes. Default 0; with `processes: { mode: 'single' }` 3600, and 0 is
   * an error.
   */
  session?: { expiry?: number | undefined } | undefined
  /** Asked before every attempt to connect, in place of `username` and `password`. */
  credentials?: CredentialsFunction | undefined
  /** What the broker publishes when this client is gone without a word. */
  will?: WillOptions | undefined
  /** Whether this client is there, as a retained message. Not together with `will`. */
  presence?: PresenceOptions | undefined
  /** Needs a protocol with TLS. */
  tls?: TlsOptions | undefined
  /**
   * `'wait'`: `ready()` resolves when connected with every subscription answered, and rejects if that takes
   * more than `connectTimeout`. `'background'`: it does not wait, and connecting is tried until it succeeds.
   * `'manual'`: call `fastify.mqtt.connect()`. Default `'wait'`.
   */
  start?: 'wait' | 'background' | 'manual' | undefined
  /**
   * Milliseconds for connecting at start, all attempts together, and for each attempt after that. Default
   * 5000, or 1000 below Fastify's `pluginTimeout` if that is less; it has to stay 1000 below it.
   */
  connectTimeout?: number | undefined
  /**
   * `'each'`: every process has a connection of its own. `{ mode: 'single', group }`: the processes of a
   * group on one machine share one; see docs/processes.md. Default `'each'`.
   */
  processes?: ProcessesOptions | undefined
  /**
   * Milliseconds between attempts: random ones below a limit that begins with `minDelay` and doubles up to
   * `maxDelay`; anew after 10 s of connection. Default 250 and 30000.
   */
  reconnect?: { minDelay?: number | undefined, maxDelay?: number | undefined } | undefined
  /** How many handlers may run at once, over all topics. Default 20. */
  concurrency?: number | undefined
  /**
   * Which messages of a topic are handled one after the other: those with the same topic name, none, or those
   * for which the function gives the same text. Default `'topic'`.
   */
  order?: MessageOrder | undefined
  /**
   * What came in and waits for handlers. `maxMessages` (default 10000) and `maxBytes` of topic and payload
   * (default 16 MiB) are for QoS 0, where `overflow` says which are lost then (default `'drop-oldest'`).
   * `maxUnacked` is for QoS 1 and 2: with more, the connection is renewed, so that the broker keeps them
   * (default 1000).
   */
  inbox?: {
    maxMessages?: number | undefined
    maxBytes?: number | undefined
    maxUnacked?: number | undefined
    overflow?: 'drop-oldest' | 'drop-newest' | undefined
  } | undefined
  /**
   * What waits to be sent: at most `maxMessages` (default 10000) with `maxBytes` of topic and payload
   * (default 16 MiB). One more is rejected with `FST_MQTT_OUTBOX_FULL`, or with `'drop-oldest'` the one that
   * has waited longest; the `drop-…` policies count in `stats()` what they drop. Default `'reject'`.
   */
  outbox?: {
    maxMessages?: number | undefined
    maxBytes?: number | undefined
    overflow?: 'reject' | 'drop-oldest' | 'drop-newest' | undefined
  } | undefined
  /** Milliseconds after which a publish that is not settled rejects. Default 30000. */
  publishTimeout?: number | undefined
  /** Milliseconds that running handlers, and then publishes, are waited for when closing. Default 1000. */
  drainTimeout?: number | undefined
  /** Bytes that the payload of a received message may have. Default: Fastify's `bodyLimit`. */
  maxPayload?: number | undefined
  /**
   * Administers Mosquitto's dynamic security plugin by `fastify.mqtt.dynsec`: `true` on this connection, with
   * `connection` on one of its own.
   */
  dynsec?: true | DynsecOptions | undefined
  /** Converters for placeholders, by name; declare their types in `interface TopicConverters`. */
  converters?: Readonly<Record<string, Converter>> | undefined
  /** Further codecs, chosen by their content type. */
  codecs?: readonly Codec[] | undefined
  /** Compiles schemas that are not of @sinclair/typebox. Default: the TypeBox compiler. */
  validatorCompiler?: ValidatorCompiler | undefined
  /** Options of MQTT.js, except those that the plugin owns. */
  client?: ClientOptions | undefined
}

/**
 * Makes the check of one schema, in the form of Fastify's validator compilers: the check returns true, or an
 * object without `error`, for what is valid.
 */
export type ValidatorCompiler =
  (route: { schema: unknown, httpPart: 'params' | 'body' }) => (data: unknown) => unknown
