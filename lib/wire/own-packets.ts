/** A packet that MQTT.js wrote. */
export interface OwnPacket {
  readonly type: number
  readonly qos: number
  readonly packet: Buffer
}

/**
 * Splits what MQTT.js has written at once into packets. It writes whole ones, unless encoding has thrown
 * half-way: what follows would be taken for the rest.
 *
 * @returns undefined if the last one is not whole
 */
export function ownPackets (bytes: Buffer): OwnPacket[] | undefined {
  const packets: OwnPacket[] = []
  for (let start = 0; start < bytes.length;) {
    const end = endOf(bytes, start)
    if (end === undefined || end > bytes.length) return undefined
    const first = bytes[start] ?? 0
    packets.push({ type: first >> 4, qos: (first >> 1) & 3, packet: bytes.subarray(start, end) })
    start = end
  }
  return packets
}

function endOf (bytes: Buffer, start: number): number | undefined {
  let length = 0
  for (let index = 1; index <= 4; index++) {
    const byte = bytes[start + index]
    if (byte === undefined) return undefined
    length += (byte & 0x7f) * 128 ** (index - 1)
    if (byte < 0x80) return start + index + 1 + length
  }
  return undefined
}
