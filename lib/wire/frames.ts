import { checkAck, checkControl } from './control.ts'
import { faultCode, malformed } from './malformed.ts'
import { firstByteFaults, packetType, type AckType } from './packets.ts'
import { Pieces } from './pieces.ts'
import { decodePublish, type PublishFrame } from './publish-frame.ts'
import { TopicTable } from './topic-names.ts'

export * from './encode.ts'
export { packetType, type AckType } from './packets.ts'
export { PublishFrame } from './publish-frame.ts'

/** Where packets go. What it throws ends the splitter, as a malformed packet does. */
export interface FrameSink {
  onPublish (frame: PublishFrame): void
  onAck (type: AckType, packetId: number, reasonCode: number): void
  /** Every other packet, whole, with its header. */
  onControl (frame: Buffer, type: number): void
}

export interface SplitterSettings {
  readonly version: 4 | 5
  /** The largest packet that is accepted, with its header. */
  readonly maxBytes: number
}

/** A fixed header: the type and flags, and at most four bytes of length. */
const maxHeaderBytes = 5

/**
 * Splits what is read from a broker into packets, however it is cut. Nothing is copied but packets that are
 * cut; so a chunk must not be written to after it was pushed.
 */
export class Splitter {
  readonly #sink: FrameSink
  readonly #version: 4 | 5
  readonly #maxBytes: number
  readonly #faults: (typeof firstByteFaults)[4]
  readonly #names = new TopicTable()
  /** The packet of which only a part has come. */
  readonly #pieces = new Pieces()
  /** Its size, if there is one; 0 while that has not come. */
  #wanted = 0
  #failure: unknown

  constructor (sink: FrameSink, { version, maxBytes }: SplitterSettings) {
    this.#sink = sink
    this.#version = version
    this.#maxBytes = maxBytes
    this.#faults = firstByteFaults[version]
  }

  /** What is kept of a packet that has not come whole. */
  get pendingBytes (): number {
    return this.#pieces.bytes
  }

  /**
   * Takes what was read, and hands on each packet that is whole now.
   *
   * @throws `FST_MQTT_MALFORMED`, or what the sink threw; from then on the same always
   */
  push (chunk: Buffer): void {
    if (this.#failure !== undefined) throw this.#failure
    try {
      this.#split(chunk, this.#pieces.bytes === 0 ? 0 : this.#complete(chunk))
    } catch (error) {
      this.#pieces.clear()
      this.#failure = error
      throw error
    }
  }

  #split (chunk: Buffer, start: number): void {
    const end = chunk.length
    for (let at = start; at < end;) {
      const size = this.#sizeAt(chunk, at, end)
      if (size === 0 || at + size > end) {
        this.#wanted = size
        this.#pieces.add(at === 0 ? chunk : chunk.subarray(at))
        return
      }
      this.#onFrame(chunk, at, at + size)
      at += size
    }
  }

  /** Completes the packet that is cut; returns the offset after it, or the end if it is still not whole. */
  #complete (chunk: Buffer): number {
    const pending = this.#pieces.bytes
    if (this.#wanted === 0) {
      const header = this.#pieces.joinedWith(chunk.subarray(0, maxHeaderBytes))
      this.#wanted = this.#sizeAt(header, 0, header.length)
    }
    const missing = this.#wanted === 0 ? Infinity : this.#wanted - pending
    if (missing > chunk.length) {
      this.#pieces.add(chunk)
      return chunk.length
    }
    const frame = this.#pieces.joinedWith(chunk.subarray(0, missing))
    this.#pieces.clear()
    this.#onFrame(frame, 0, frame.length)
    return missing
  }

  /** The size of the packet that begins here; 0 while that cannot be told. */
  #sizeAt (bytes: Buffer, at: number, end: number): number {
    // A packet that cannot be right is not waited for: an HTTP server's answer would look like a long one.
    const fault = this.#faults[bytes[at] as number]
    if (fault !== undefined) throw malformed(fault.problem, fault.reasonCode)
    if (at + 1 >= end) return 0
    const digit = bytes[at + 1] as number
    const size = digit < 0x80 ? digit + 2 : this.#longSizeAt(bytes, at, end)
    if (size > this.#maxBytes) {
      throw malformed(`a packet has ${size} bytes, at most ${this.#maxBytes} are accepted`, faultCode.tooLarge)
    }
    return size
  }

  #longSizeAt (bytes: Buffer, at: number, end: number): number {
    let length = 0
    for (let bytesRead = 1; bytesRead < maxHeaderBytes; bytesRead++) {
      if (at + bytesRead >= end) return 0
      const digit = bytes[at + bytesRead] as number
      length |= (digit & 0x7f) << 7 * (bytesRead - 1)
      if (digit > 0x7f) continue
      // [MQTT-1.5.5-1], which 3.1.1 has not.
      if (digit === 0 && this.#version === 5) throw malformed('the length of a packet has more bytes than it needs')
      return 1 + bytesRead + length
    }
    throw malformed('the length of a packet has more than four bytes')
  }

  #onFrame (bytes: Buffer, start: number, end: number): void {
    const first = bytes[start] as number
    const type = first >> 4
    let body = start + 2
    while ((bytes[body - 1] as number) > 0x7f) body++
    if (type === packetType.publish) {
      this.#sink.onPublish(decodePublish(bytes, first, body, end, this.#version, this.#names))
    } else if (isAck(type)) {
      const reasonCode = checkAck(bytes, type, body, end, this.#version)
      this.#sink.onAck(type, (bytes[body] as number) << 8 | (bytes[body + 1] as number), reasonCode)
    } else {
      checkControl(bytes, type, body, end, this.#version)
      this.#sink.onControl(bytes.subarray(start, end), type)
    }
  }
}

function isAck (type: number): type is AckType {
  return type >= packetType.puback && type <= packetType.pubcomp
}
