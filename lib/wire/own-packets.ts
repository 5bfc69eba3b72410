import { readUint16 } from './fields.ts'
import { packetType } from './packets.ts'

/** A packet that MQTT.js wrote. */
export interface OwnPacket {
  readonly type: number
  /** Of a PUBLISH with QoS 1 or 2; else 0. */
  readonly publishId: number
  readonly packet: Buffer
}

/**
 * Splits what MQTT.js has written at once into packets. It writes whole ones, unless encoding has thrown
 * half-way: what follows would be taken for the rest.
 *
 * @param chunks as they were written: no chunk has bytes of two packets
 * @returns undefined if one is not whole
 */
export function ownPackets (chunks: readonly Buffer[]): OwnPacket[] | undefined {
  const bytes = Buffer.concat(chunks)
  const borders = bordersOf(chunks)
  const packets: OwnPacket[] = []
  for (let start = 0; start < bytes.length;) {
    const body = bodyOf(bytes, start)
    if (body === undefined) return undefined
    const end = body.start + body.length
    if (!borders.has(end)) return undefined
    const first = bytes[start] as number
    const type = first >> 4
    const isAnswered = type === packetType.publish && (first & 0b0110) !== 0
    packets.push({
      type, publishId: isAnswered ? publishIdAt(bytes, body.start) : 0, packet: bytes.subarray(start, end)
    })
    start = end
  }
  return packets
}

function bordersOf (chunks: readonly Buffer[]): Set<number> {
  let at = 0
  return new Set(chunks.map(({ length }) => (at += length)))
}

/** Where the body of a packet begins, and how long it is said to be; undefined if that is not all there. */
function bodyOf (bytes: Buffer, start: number): { start: number, length: number } | undefined {
  let length = 0
  for (let index = 1; index <= 4; index++) {
    const byte = bytes[start + index]
    if (byte === undefined) return undefined
    length += (byte & 0x7f) * 128 ** (index - 1)
    if (byte < 0x80) return { start: start + index + 1, length }
  }
  return undefined
}

/** The packet identifier, which follows the topic. */
function publishIdAt (bytes: Buffer, body: number): number {
  return readUint16(bytes, body + 2 + readUint16(bytes, body))
}
