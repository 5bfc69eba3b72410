import { describeError, errorCode } from './errors.ts'
import type { Settings } from './options/settings.ts'
import type { Link } from './session/link.ts'
import { isTakeover, refusalClass } from './session/refusals.ts'

type Particulars = Pick<Settings, 'address' | 'clientId' | 'connectTimeoutMs' | 'keepaliveSeconds'>

/**
 * What is the matter with a connection, in a sentence: the error, and what to look at where the error alone
 * sends people the wrong way.
 *
 * @param wasEverUp whether the broker is known to be there, and its port the right one
 */
export function describeTrouble (cause: Error, wasEverUp: boolean, settings: Particulars): string {
  // What OpenSSL says in the middle of names of its files and functions.
  const text = describeError(cause).trim().replace(/^.*:SSL routines:[^:]*:([^:]+):.*$/s, 'TLS failed: $1')
  const { address: { protocol }, clientId, connectTimeoutMs, keepaliveSeconds } = settings
  // The words of MQTT.js.
  if (text === 'connack timeout') return `no answer within ${connectTimeoutMs} ms`
  if (text === 'Keepalive timeout') return `no sign of life from the broker, with a keepalive of ${keepaliveSeconds} s`
  // It has no words of the application's in it: options/unspoken.ts.
  if (errorCode(cause) === 'FST_MQTT_CREDENTIALS') return `${text}: ${describeError(cause.cause)}`
  if (isTakeover(cause)) return `${text}: another client has connected with the clientId '${clientId}'`
  if (wasEverUp) return text
  const isSecure = protocol === 'mqtts' || protocol === 'wss'
  if (isSecure && noTls.test(text)) return `${text} (does that port speak TLS?)`
  if (noAuthority.test(errorCode(cause))) return `${text} (is its authority in tls.ca?)`
  return isForeign(cause) ? `${text} (is that an MQTT broker, and its port for ${protocol}://?)` : text
}

/** Whether each other attempt to connect would fail as this one did, until somebody changes something. */
export function isFinal (
  cause: Error, { version, nextVersion }: Pick<Link, 'version' | 'nextVersion'>,
  { credentials }: Pick<Settings, 'credentials'>
): boolean {
  if (version !== nextVersion) return false
  const kind = refusalClass(cause)
  return kind === 'fatal' || (kind === 'slow' && !credentials.mayChange)
}

/** What comes where TLS meets something else. */
const noTls = /wrong version number|packet length too long|ECONNRESET|before secure TLS connection/

const noAuthority = /^(?:DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/

/** Answers that no broker gives; that it hangs up says the least, and comes of a wrong port most often. */
function isForeign (cause: Error): boolean {
  const code = errorCode(cause)
  return code === 'FST_MQTT_MALFORMED' || code === 'ECONNRESET' || code === 'EPIPE' ||
    (code === 'FST_MQTT_CONNECTION' && /^the broker closed the connection before|^Unexpected server response/.test(cause.message))
}
