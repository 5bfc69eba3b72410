import { errors } from '../errors.ts'
import { reasonCodeOf, reasonText } from './reason-codes.ts'

/**
 * What an end of a connection is worth.
 *
 * - `transient`: it may go well the next time
 * - `slow`: somebody has to change something, at the broker or in the credentials; tried again in long
 *   intervals
 * - `fatal`: the same will happen always; a start does not wait for it
 */
export type RefusalClass = 'transient' | 'slow' | 'fatal'

/** Of the CONNACK of MQTT 3.1.1, by the codes that MQTT 5 has for the same [MQTT-3.2.2-8]. */
const oldCodes: Readonly<Record<number, number>> = { 1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87 }

// Unsupported version, client identifier not valid, bad authentication method, malformed, protocol error,
// and what is wrong with a will: topic name, packet size, payload format, retain, quality of service.
const fatalCodes: ReadonlySet<number> =
  new Set([0x81, 0x82, 0x84, 0x85, 0x8c, 0x90, 0x95, 0x99, 0x9a, 0x9b])
// Bad user name or password, not authorized, banned, session taken over, administrative action.
const slowCodes: ReadonlySet<number> = new Set([0x86, 0x87, 0x8a, 0x8e, 0x98])

/** Errors of TLS that no other attempt will change: of the protocol, and OpenSSL's of certificates. */
const tlsErrors = /^(?:ERR_SSL_|EPROTO$|ERR_TLS_CERT_|CERT_|CRL_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|ERROR_IN_|INVALID_|PATH_LENGTH_|HOSTNAME_)/

export function refusalClass (cause: Error): RefusalClass {
  const code = reasonCodeOf(cause)
  if (fatalCodes.has(code)) return 'fatal'
  if (slowCodes.has(code)) return 'slow'
  return 'code' in cause && typeof cause.code === 'string' && tlsErrors.test(cause.code) ? 'slow' : 'transient'
}

/** The error for a CONNACK that refuses, with its `reasonCode` as MQTT 5 has it. */
export function connackRefusal (code: number, reasonString: string | undefined): Error {
  const reasonCode = oldCodes[code] ?? code
  const says = reasonString === undefined ? '' : `: ${reasonString}`
  return coded(`Connection refused: ${reasonText(reasonCode)}${says}`, reasonCode)
}

/** The error for a DISCONNECT of the broker. */
export function disconnection (reasonCode: number, reasonString: string | undefined): Error {
  const says = reasonString === undefined ? '' : `: ${reasonString}`
  return coded(`the broker ended the connection: ${reasonText(reasonCode)}${says}`, reasonCode)
}

const hangUps = new WeakSet<Error>()

/** The error for a connection that the broker has closed, without a word. */
export function hangUp (problem: string): Error {
  const error = new errors.FST_MQTT_CONNECTION(problem)
  hangUps.add(error)
  return error
}

/** Whether it was the broker that closed the connection, and no fault of the network. */
export function isHangUp (cause: Error): boolean {
  return hangUps.has(cause)
}

/** The peer has closed without reading all: TCP makes that a reset. */
export function isReset (error: Error): boolean {
  return 'code' in error && (error.code === 'ECONNRESET' || error.code === 'EPIPE')
}

/** An error of MQTT.js, whose `code` is a number or missing, as one of ours. */
export function asConnectionError (error: Error): Error {
  const isCoded = 'code' in error && typeof error.code === 'string'
  return isCoded ? error : new errors.FST_MQTT_CONNECTION(error.message, { cause: error })
}

function coded (message: string, reasonCode: number): Error {
  return Object.assign(new errors.FST_MQTT_CONNECTION(message), { reasonCode })
}

/**
 * Another client with the same identifier has taken the session: whoever comes back at once is thrown out
 * again.
 */
export function isTakeover (cause: Error): boolean {
  return reasonCodeOf(cause) === 0x8e
}
