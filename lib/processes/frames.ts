import { errors } from '../errors.ts'

// A frame is four bytes that say how many follow, one byte for its type, and its body:
//
//   | length (4) | type (1) | body (length - 1) |

const lengthBytes = 4
/** What one write takes at once; a frame that does not fit has a buffer of its own. */
const slabBytes = 65_536
/** Bytes from which on a payload is handed to the socket as it is, not copied. */
const largeBytes = 4_096

/** Writes frames one after the other into the bytes of as few writes as possible. */
export class FrameWriter {
  #slab: Buffer = Buffer.alloc(0)
  /** Where what has not been taken begins. */
  #from = 0
  #at = 0
  #frameAt = 0
  /** Of the frame that is being written: what is not in the slab. */
  #outside = 0
  #chunks: Buffer[] = []
  #chunkBytes = 0

  /** Bytes that can be taken. */
  get size (): number {
    return this.#chunkBytes + this.#at - this.#from
  }

  /** Begins a frame whose body takes at most `room` bytes, large payloads apart. */
  begin (type: number, room: number): this {
    const needed = lengthBytes + 1 + room
    if (this.#at + needed > this.#slab.length) this.#renew(needed)
    this.#frameAt = this.#at
    this.#outside = 0
    this.#at += lengthBytes
    return this.uint8(type)
  }

  uint8 (value: number): this {
    this.#slab[this.#at++] = value
    return this
  }

  uint16 (value: number): this {
    this.#at = this.#slab.writeUInt16BE(value, this.#at)
    return this
  }

  uint32 (value: number): this {
    this.#at = this.#slab.writeUInt32BE(value, this.#at)
    return this
  }

  /** Text of at most 65,535 bytes after its length; it takes up to `textRoom` bytes. */
  text (text: string): this {
    const bytes = this.#slab.write(text, this.#at + 2)
    this.#slab.writeUInt16BE(bytes, this.#at)
    this.#at += 2 + bytes
    return this
  }

  /** Bytes without their length; `bytesRoom` tells how much room they take. */
  bytes (bytes: Buffer): this {
    if (bytes.length >= largeBytes) {
      this.#cut()
      this.#chunks.push(bytes)
      this.#chunkBytes += bytes.length
      this.#outside += bytes.length
    } else {
      this.#slab.set(bytes, this.#at)
      this.#at += bytes.length
    }
    return this
  }

  /** Ends the frame. */
  end (): void {
    // The length stands before what was cut off, in the same slab.
    this.#slab.writeUInt32BE(this.#at - this.#frameAt - lengthBytes + this.#outside, this.#frameAt)
  }

  /** All that has been written since the last time. */
  take (): Buffer[] {
    this.#cut()
    const chunks = this.#chunks
    this.#chunks = []
    this.#chunkBytes = 0
    return chunks
  }

  /** What was taken is written: its place can be used again. Not while anything waits to be taken. */
  reuse (): void {
    this.#from = this.#at = 0
  }

  #cut (): void {
    if (this.#at === this.#from) return
    this.#chunks.push(this.#slab.subarray(this.#from, this.#at))
    this.#chunkBytes += this.#at - this.#from
    this.#from = this.#at
  }

  // What was taken may still wait in the socket.
  #renew (needed: number): void {
    this.#cut()
    this.#slab = Buffer.allocUnsafeSlow(Math.max(slabBytes, needed))
    this.#from = this.#at = 0
  }
}

/** Bytes that a text may take in UTF-8, with its length. */
export function textRoom (text: string): number {
  return 2 + text.length * 3
}

/** Bytes that `FrameWriter.bytes` takes of the room of a frame. */
export function bytesRoom (bytes: Buffer): number {
  return bytes.length >= largeBytes ? 0 : bytes.length
}

/** Cuts what comes out of a socket into frames, however it was cut on the way. */
export class FrameSplitter {
  /** Bytes that a frame may have; more is an error before they are waited for. */
  maxBytes: number
  readonly #onFrame: (frame: FrameBody) => void
  readonly #body = new FrameBody()
  #chunks: Buffer[] = []
  #size = 0
  /** Bytes without which there is no further frame. */
  #wanted = lengthBytes
  #isStopped = false

  constructor (maxBytes: number, onFrame: (frame: FrameBody) => void) {
    this.maxBytes = maxBytes
    this.#onFrame = onFrame
  }

  /** @throws `FST_MQTT_PEER_REFUSED`, and what `onFrame` throws; then nothing more can be read */
  push (chunk: Buffer): void {
    if (this.#isStopped) return
    this.#size += chunk.length
    this.#chunks.push(chunk)
    if (this.#size < this.#wanted) return
    const whole = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks, this.#size)
    const rest = this.#split(whole)
    this.#chunks = rest.length === 0 ? [] : [rest]
    this.#size = rest.length
  }

  /** No further frame comes, not even of what has been read. */
  stop (): void {
    this.#isStopped = true
    this.#chunks = []
  }

  #split (bytes: Buffer): Buffer {
    let at = 0
    this.#wanted = lengthBytes
    while (!this.#isStopped && bytes.length - at >= lengthBytes) {
      const length = bytes.readUInt32BE(at)
      if (length === 0 || length > this.maxBytes) {
        throw new errors.FST_MQTT_PEER_REFUSED(`a frame of ${length} bytes, from 1 to ${this.maxBytes} are allowed`)
      }
      const end = at + lengthBytes + length
      if (end > bytes.length) {
        this.#wanted = lengthBytes + length
        break
      }
      this.#onFrame(this.#body.open(bytes, at + lengthBytes, end))
      at = end
    }
    return this.#isStopped ? bytes.subarray(0, 0) : bytes.subarray(at)
  }
}

/** Reads one frame, never beyond its end. Valid until the next frame. */
export class FrameBody {
  #bytes: Buffer = Buffer.alloc(0)
  #at = 0
  #end = 0

  open (bytes: Buffer, at: number, end: number): this {
    this.#bytes = bytes
    this.#at = at
    this.#end = end
    return this
  }

  uint8 (): number {
    return this.#bytes.readUInt8(this.#advance(1))
  }

  uint16 (): number {
    return this.#bytes.readUInt16BE(this.#advance(2))
  }

  uint32 (): number {
    return this.#bytes.readUInt32BE(this.#advance(4))
  }

  text (): string {
    const length = this.uint16()
    const at = this.#advance(length)
    return this.#bytes.toString('utf8', at, at + length)
  }

  /** A view of what was read from the socket. */
  bytes (length: number): Buffer {
    const at = this.#advance(length)
    return this.#bytes.subarray(at, at + length)
  }

  /** A view of all that is left. */
  rest (): Buffer {
    return this.bytes(this.left)
  }

  /** All that is left, to be kept: it does not keep alive much more that was read with it. */
  keepRest (): Buffer {
    if (this.left * 4 >= this.#bytes.buffer.byteLength) return this.rest()
    const copy = Buffer.allocUnsafe(this.left)
    this.#bytes.copy(copy, 0, this.#at, this.#end)
    this.#at = this.#end
    return copy
  }

  /** How many bytes are left. */
  get left (): number {
    return this.#end - this.#at
  }

  #advance (length: number): number {
    const at = this.#at
    this.#at += length
    if (this.#at > this.#end) throw new errors.FST_MQTT_PEER_REFUSED('a frame that ends too early')
    return at
  }
}
