import { faultCode } from './malformed.ts'

/** The packet types [MQTT 5 §2.1.2]. */
export const packetType = {
  connect: 1,
  connack: 2,
  publish: 3,
  puback: 4,
  pubrec: 5,
  pubrel: 6,
  pubcomp: 7,
  subscribe: 8,
  suback: 9,
  unsubscribe: 10,
  unsuback: 11,
  pingreq: 12,
  pingresp: 13,
  disconnect: 14,
  auth: 15
} as const

/** PUBACK, PUBREC, PUBREL, PUBCOMP. */
export type AckType = 4 | 5 | 6 | 7

const names = [
  'the reserved packet', 'CONNECT', 'CONNACK', 'PUBLISH', 'PUBACK', 'PUBREC', 'PUBREL', 'PUBCOMP', 'SUBSCRIBE',
  'SUBACK', 'UNSUBSCRIBE', 'UNSUBACK', 'PINGREQ', 'PINGRESP', 'DISCONNECT', 'AUTH'
]

/** The name of a packet type in the standard. */
export function packetName (type: number): string {
  return names[type] ?? `packet ${type}`
}

const clientOnly: readonly number[] =
  [packetType.connect, packetType.subscribe, packetType.unsubscribe, packetType.pingreq]
/** The packets that 3.1.1 has for clients only, or not at all. */
const version5Only: readonly number[] = [packetType.disconnect, packetType.auth]

interface Fault {
  readonly problem: string
  readonly reasonCode: number
}

/** For each version and first byte what is wrong if a packet from a server begins with it. */
export const firstByteFaults: Readonly<Record<4 | 5, readonly (Fault | undefined)[]>> = {
  4: Array.from({ length: 256 }, (_, first) => firstByteFault(first, 4)),
  5: Array.from({ length: 256 }, (_, first) => firstByteFault(first, 5))
}

function firstByteFault (first: number, version: 4 | 5): Fault | undefined {
  const type = first >> 4
  const flags = first & 0x0f
  const name = packetName(type)
  if (type === 0) return { problem: 'there is no packet type 0', reasonCode: faultCode.malformed }
  if (clientOnly.includes(type) || (version === 4 && version5Only.includes(type))) {
    return { problem: `a server sends no ${name}`, reasonCode: faultCode.protocolError }
  }
  const problem = type === packetType.publish ? publishFlagsProblem(flags) : flagsProblem(type, flags)
  return problem === undefined ? undefined : { problem: `${name} ${problem}`, reasonCode: faultCode.malformed }
}

// [MQTT-3.3.1-4], [MQTT-3.3.1-2]
function publishFlagsProblem (flags: number): string | undefined {
  if ((flags & 0b0110) === 0b0110) return 'has QoS 3'
  return (flags & 0b1110) === 0b1000 ? 'has DUP with QoS 0' : undefined
}

// [MQTT 5 §2.1.3]
function flagsProblem (type: number, flags: number): string | undefined {
  const wanted = type === packetType.pubrel ? 0b0010 : 0
  return flags === wanted ? undefined : `has the flags ${flags}, not ${wanted}`
}
