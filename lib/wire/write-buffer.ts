import type { Duplex } from 'node:stream'

const bufferBytes = 64 * 1024
/** What has come together is written before the turn ends, so that the peer has something to do meanwhile. */
const earlyBytes = 32 * 1024
/** Payloads from here on are written as they are: copying would cost more than a write of their own. */
const largeBytes = 16 * 1024
/** A peer that leaves so much unread takes nothing more for now. */
const blockedBytes = 256 * 1024

/**
 * Collects what is written in one turn of the event loop, and writes it at once: a write of its own costs a
 * small packet ten times what it takes to encode it.
 *
 * ```
 *           start     end
 * ┌──────────┬─────────┬──────────┐
 * │ written  │ this    │  free    │   What is written may still be with the socket, which does not copy:
 * │          │ turn    │          │   it is written over when the socket has nothing left.
 * └──────────┴─────────┴──────────┘
 * ```
 */
export class WriteBuffer {
  readonly #onWritten: (sequence: number) => void
  #socket: Duplex | undefined
  #buffer = Buffer.allocUnsafeSlow(bufferBytes)
  #start = 0
  #end = 0
  /** Writes that were made before there was a socket. */
  readonly #early: Buffer[] = []
  #sequence = 1
  #isScheduled = false
  #isEnded = false

  /** @param onWritten told the number of each write once the operating system has it */
  constructor (onWritten: (sequence: number) => void) {
    this.#onWritten = onWritten
  }

  open (socket: Duplex): void {
    this.#socket = socket
    this.#early.splice(0).forEach((bytes, index) => this.#write(socket, bytes, index + 1))
    this.flush()
  }

  get isBlocked (): boolean {
    return this.#socket === undefined || this.#socket.writableLength >= blockedBytes
  }

  /** Where the next bytes go: between `reserve` and `commit`. */
  get target (): Buffer {
    return this.#buffer
  }

  /** Makes room. @returns the offset in `target` */
  reserve (bytes: number): number {
    const isFlushed = this.#start === this.#end
    if (isFlushed && this.#socket?.writableLength === 0) this.#start = this.#end = 0
    if (this.#end + bytes > this.#buffer.length) {
      this.flush()
      this.#renew(Math.max(bytes, bufferBytes))
    }
    return this.#end
  }

  /** What was reserved is filled up to this offset. @returns the number of the write that it is part of */
  commit (end: number): number {
    const sequence = this.#sequence
    this.#end = end
    if (end - this.#start >= earlyBytes) this.flush()
    else this.#schedule()
    return sequence
  }

  /**
   * Writes bytes as they are, after all that was committed. They must not change any more.
   *
   * @returns the number of the write
   */
  write (bytes: Buffer): number {
    if (bytes.length >= largeBytes) {
      this.flush()
      return this.#send(bytes)
    }
    const offset = this.reserve(bytes.length)
    bytes.copy(this.#buffer, offset)
    return this.commit(offset + bytes.length)
  }

  flush (): void {
    if (this.#start === this.#end) return
    const bytes = this.#buffer.subarray(this.#start, this.#end)
    this.#start = this.#end
    if (this.#buffer.length > bufferBytes) this.#renew(bufferBytes)
    this.#send(bytes)
  }

  /** Writes what is there, and ends the socket. What comes after it is dropped. */
  end (): void {
    this.flush()
    this.#isEnded = true
    this.#socket?.end()
  }

  #renew (size: number): void {
    this.#buffer = Buffer.allocUnsafeSlow(size)
    this.#start = this.#end = 0
  }

  #send (bytes: Buffer): number {
    const sequence = this.#sequence++
    if (this.#socket === undefined) this.#early.push(bytes)
    else if (!this.#isEnded) this.#write(this.#socket, bytes, sequence)
    return sequence
  }

  #write (socket: Duplex, bytes: Buffer, sequence: number): void {
    socket.write(bytes, (error) => { if (error == null) this.#onWritten(sequence) })
  }

  #schedule (): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      this.flush()
    })
  }
}

/** Whether a payload is written without a copy. */
export function isLarge (payload: Buffer): boolean {
  return payload.length >= largeBytes
}
