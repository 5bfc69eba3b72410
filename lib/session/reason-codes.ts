/** Packet identifier not found [MQTT 5 §3.6.2.1, §3.7.2.1]. */
export const notFound = 0x92

/** Reason codes from 0x80 on are failures [MQTT 5 §2.4]. */
export function isRefusal (reasonCode: number): boolean {
  return reasonCode >= 0x80
}

/** What a reason code says, for messages. */
export function reasonText (reasonCode: number): string {
  const hex = `0x${reasonCode.toString(16).padStart(2, '0')}`
  const text = reasons[reasonCode]
  return text === undefined ? hex : `${text} (${hex})`
}

/** Whether a connection ended because of a packet that we sent: the broker said so in its DISCONNECT. */
export function isBlame (cause: Error): boolean {
  // What we object to in the broker's packets has the same codes.
  const isOurs = 'code' in cause && cause.code === 'FST_MQTT_MALFORMED'
  return !isOurs && blames.has(reasonCodeOf(cause))
}

/** The reason code that an error carries; -1 if there is none. */
export function reasonCodeOf (error: Error): number {
  const code = 'reasonCode' in error ? error.reasonCode : undefined
  return typeof code === 'number' ? code : -1
}

// Malformed packet, protocol error, topic name invalid, packet too large, payload format invalid.
const blames: ReadonlySet<number> = new Set([0x81, 0x82, 0x90, 0x95, 0x99])

const reasons: Readonly<Record<number, string>> = {
  0x04: 'Disconnect with will message',
  0x80: 'Unspecified error',
  0x81: 'Malformed packet',
  0x82: 'Protocol error',
  0x83: 'Implementation specific error',
  0x84: 'Unacceptable protocol version',
  0x85: 'Client identifier not valid',
  0x86: 'Bad user name or password',
  0x87: 'Not authorized',
  0x88: 'Server unavailable',
  0x89: 'Server busy',
  0x8a: 'Banned',
  0x8b: 'Server shutting down',
  0x8c: 'Bad authentication method',
  0x8d: 'Keep alive timeout',
  0x8e: 'Session taken over',
  0x8f: 'Topic filter invalid',
  0x90: 'Topic name invalid',
  0x91: 'Packet identifier in use',
  0x92: 'Packet identifier not found',
  0x93: 'Receive maximum exceeded',
  0x94: 'Topic alias invalid',
  0x95: 'Packet too large',
  0x96: 'Message rate too high',
  0x97: 'Quota exceeded',
  0x98: 'Administrative action',
  0x99: 'Payload format invalid',
  0x9a: 'Retain not supported',
  0x9b: 'QoS not supported',
  0x9c: 'Use another server',
  0x9d: 'Server moved',
  0x9e: 'Shared subscriptions not supported',
  0x9f: 'Connection rate exceeded',
  0xa0: 'Maximum connect time',
  0xa1: 'Subscription identifiers not supported',
  0xa2: 'Wildcard subscriptions not supported'
}
