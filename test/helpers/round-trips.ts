import { parser, type Packet } from 'mqtt-packet'
import type { Direction } from './proxy.ts'

/** What counts, by all that passes a proxy. */
export interface RoundTrips {
  tap (direction: Direction, bytes: Buffer): void
  count (): number
}

/** The longest chain of publishes of which each was sent after the acknowledgement of the one before. */
export function countRoundTrips (protocolVersion: 4 | 5): RoundTrips {
  const depths = new Map<number, number>()
  let acknowledged = 0
  const onPacket = (packet: Packet) => {
    if (packet.cmd === 'publish') depths.set(packet.messageId ?? 0, acknowledged + 1)
    if (packet.cmd === 'puback') acknowledged = Math.max(acknowledged, depths.get(packet.messageId ?? 0) ?? 0)
  }
  const parsers = { up: parser({ protocolVersion }), down: parser({ protocolVersion }) }
  parsers.up.on('packet', onPacket)
  parsers.down.on('packet', onPacket)
  return {
    tap: (direction, bytes) => { parsers[direction].parse(bytes) },
    count: () => acknowledged
  }
}
