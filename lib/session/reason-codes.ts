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
  return blames.has(reasonCodeOf(cause))
}

/** The reason code that an error carries; -1 if there is none. */
export function reasonCodeOf (error: Error): number {
  const code = 'reasonCode' in error ? error.reasonCode : undefined
  return typeof code === 'number' ? code : -1
}

// Malformed packet, protocol error, topic name invalid, packet too large, payload format invalid.
const blames: ReadonlySet<number> = new Set([0x81, 0x82, 0x90, 0x95, 0x99])

const reasons: Readonly<Record<number, string>> = {
  0x04: 'disconnect with will message',
  0x80: 'unspecified error',
  0x81: 'malformed packet',
  0x82: 'protocol error',
  0x83: 'implementation specific error',
  0x84: 'unsupported protocol version',
  0x85: 'client identifier not valid',
  0x86: 'bad user name or password',
  0x87: 'not authorized',
  0x88: 'server unavailable',
  0x89: 'server busy',
  0x8a: 'banned',
  0x8b: 'server shutting down',
  0x8c: 'bad authentication method',
  0x8d: 'keep alive timeout',
  0x8e: 'session taken over',
  0x8f: 'topic filter invalid',
  0x90: 'topic name invalid',
  0x91: 'packet identifier in use',
  0x92: 'packet identifier not found',
  0x93: 'receive maximum exceeded',
  0x94: 'topic alias invalid',
  0x95: 'packet too large',
  0x96: 'message rate too high',
  0x97: 'quota exceeded',
  0x98: 'administrative action',
  0x99: 'payload format invalid',
  0x9a: 'retain not supported',
  0x9b: 'QoS not supported',
  0x9c: 'use another server',
  0x9d: 'server moved',
  0x9e: 'shared subscriptions not supported',
  0x9f: 'connection rate exceeded',
  0xa0: 'maximum connect time',
  0xa1: 'subscription identifiers not supported',
  0xa2: 'wildcard subscriptions not supported'
}
