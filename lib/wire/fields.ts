import { malformed } from './malformed.ts'

// The data types of MQTT 5 §1.5. Reading is by index and shifts: Buffer's own methods check more, and cost
// more than all the rest of a small packet.

export function readUint16 (bytes: Buffer, at: number): number {
  return (bytes[at] as number) << 8 | (bytes[at + 1] as number)
}

export function readUint32 (bytes: Buffer, at: number): number {
  return readUint16(bytes, at) * 0x1_0000 + readUint16(bytes, at + 2)
}

/**
 * Reads a Variable Byte Integer [MQTT 5 §1.5.5]; it took `variableByteSize` of its value.
 *
 * @throws `FST_MQTT_MALFORMED` if it does not end before `end`, or has more bytes than its value needs
 */
export function readVariable (bytes: Buffer, start: number, end: number): number {
  let value = 0
  for (let at = start, shift = 0; shift < 28; at++, shift += 7) {
    if (at >= end) throw malformed('a variable byte integer ends after its packet')
    const digit = bytes[at] as number
    value |= (digit & 0x7f) << shift
    if (digit < 0x80) {
      // [MQTT-1.5.5-1]
      if (at > start && digit === 0) throw malformed('a variable byte integer has more bytes than it needs')
      return value
    }
  }
  throw malformed('a variable byte integer has more than four bytes')
}

export function writeUint16 (target: Buffer, offset: number, value: number): number {
  target[offset] = value >>> 8
  target[offset + 1] = value
  return offset + 2
}

export function writeUint32 (target: Buffer, offset: number, value: number): number {
  return writeUint16(target, writeUint16(target, offset, value >>> 16), value)
}

export function writeVariable (target: Buffer, offset: number, value: number): number {
  let at = offset
  let rest = value
  for (; rest > 0x7f; rest >>>= 7) target[at++] = rest | 0x80
  target[at++] = rest
  return at
}

/** Writes text with its length in bytes. */
export function writeText (target: Buffer, offset: number, text: string): number {
  const size = target.write(text, offset + 2)
  return writeUint16(target, offset, size) + size
}

/** Writes binary data with its length. */
export function writeBytes (target: Buffer, offset: number, bytes: Uint8Array): number {
  const at = writeUint16(target, offset, bytes.byteLength)
  target.set(bytes, at)
  return at + bytes.byteLength
}
