import { createSecureContext } from 'node:tls'
import type { IClientOptions, IClientSubscribeOptions } from 'mqtt'
import type { PublishProperties } from '../../types/message.ts'
import type { ClientOptions, TlsOptions } from '../../types/options.ts'
import type { Will } from '../options/will.ts'
import { defined, isRecord } from '../values.ts'
import type { TlsTarget } from '../wire/transport.ts'
import type { SubscribeOptions } from './link.ts'

interface ConnectSettings {
  readonly clientId: string
  readonly sessionExpirySeconds: number
  readonly will: Will | undefined
  readonly keepaliveSeconds: number
  readonly connectTimeoutMs: number
  readonly client: ClientOptions
}

/** The options of MQTT.js, without those that differ between attempts. */
export function clientOptions (settings: ConnectSettings): IClientOptions {
  const { clientId, sessionExpirySeconds, will, keepaliveSeconds, connectTimeoutMs, client } = settings
  return {
    ...defined({ ...client, wsOptions: undefined }),
    log: client.log === undefined ? () => {} : withoutPassword(client.log),
    clientId,
    keepalive: keepaliveSeconds,
    connectTimeout: connectTimeoutMs,
    clean: sessionExpirySeconds === 0,
    ...(sessionExpirySeconds === 0 ? {} : { properties: { sessionExpiryInterval: sessionExpirySeconds } }),
    ...(will === undefined ? {} : { will: willOf(will) }),
    // The waits between attempts are in session/back-off.ts.
    reconnectPeriod: 0,
    // Its own list forgets every filter of a batch in which one was refused: session/subscriptions.ts.
    resubscribe: false,
    queueQoSZero: false
  }
}

/** TLS without keys and passphrases, which stay in the context, where no log can find them. */
export function secureTarget (protocol: string, options: TlsOptions): TlsTarget {
  const { servername, rejectUnauthorized, ...tls } = options
  // A context takes some milliseconds, and 100 KB of certificates.
  if (protocol !== 'mqtts' && protocol !== 'wss') return {}
  return { servername, rejectUnauthorized, secureContext: createSecureContext(defined(tls)) }
}

/** The options of a SUBSCRIBE in the form of MQTT.js. */
export function subscribeOptions (
  { qos, noLocal: nl, retainAsPublished: rap, retainHandling: rh }: SubscribeOptions,
  subscriptionIdentifier: number | undefined,
  version: 4 | 5
): IClientSubscribeOptions {
  if (version === 4) return { qos }
  const properties = subscriptionIdentifier === undefined ? {} : { properties: { subscriptionIdentifier } }
  return { qos, nl, rap, rh, ...properties }
}

/** What MQTT.js tells about has the CONNECT packet in it, as it is. */
function withoutPassword (log: NonNullable<ClientOptions['log']>): NonNullable<ClientOptions['log']> {
  return (...args) => log(...args.map((arg: unknown) =>
    isRecord(arg) && 'password' in arg ? { ...arg, password: '***' } : arg))
}

function willOf ({ topic, payload, qos, retain, delaySeconds, properties }: Will) {
  const encoded = {
    ...encodable(properties ?? {}), ...(delaySeconds === 0 ? {} : { willDelayInterval: delaySeconds })
  }
  const isEmpty = Object.keys(encoded).length === 0
  return { topic, payload, qos, retain, ...(isEmpty ? {} : { properties: encoded }) }
}

/** Properties in the form of mqtt-packet: an empty `userProperties` would make it write nothing. */
function encodable ({ userProperties, correlationData, ...others }: PublishProperties) {
  const hasUserProperties = userProperties !== undefined && Object.keys(userProperties).length > 0
  return {
    ...defined(others),
    ...(correlationData === undefined ? {} : { correlationData: Buffer.from(correlationData) }),
    ...(hasUserProperties ? { userProperties: userProperties as Record<string, string | string[]> } : {})
  }
}
