import type { IClientOptions } from 'mqtt'
import type { DynsecOptions } from './dynsec.ts'
import type { Codec } from './topic.ts'

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
  /** Default: a random one. */
  clientId?: string | undefined
  /**
   * 4 is MQTT 3.1.1. `'auto'` speaks 5, and 4 where the broker refuses 5 (reason 1 or 0x84, or closes before
   * CONNACK) and accepts 4; never once 5 has succeeded. Default `'auto'`.
   */
  protocolVersion?: 'auto' | 4 | 5 | undefined
  /** Seconds between signs of life, 0 for none. Default 60. */
  keepalive?: number | undefined
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
