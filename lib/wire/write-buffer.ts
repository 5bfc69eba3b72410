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
 */
export class WriteBuffer {
  readonly #onWritten: (sequence: number) => void
  #socket: Duplex | undefined
  #buffer = Buffer.allocUnsafeSlow(bufferBytes)
  #used = 0
  /** Writes that were made before there was a socket. */
  #early: Buffer[] = []
  #sequence = 1
  #isScheduled = false

  /** @param onWritten told the number of each write once the operating system has it */
  constructor (onWritten: (sequence: number) => void) {
    this.#onWritten = onWritten
  }

  open (socket: Duplex): void {
    this.#socket = socket
    for (const bytes of this.#early.splice(0)) socket.write(bytes)
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
    if (this.#used + bytes > this.#buffer.length) {
      this.flush()
      if (bytes > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(bytes)
    }
    return this.#used
  }

  /** What was reserved is filled up to this offset. @returns the number of the write that it is part of */
  commit (end: number): number {
    const sequence = this.#sequence
    this.#used = end
    if (end >= earlyBytes) this.flush()
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
    if (this.#used === 0) return
    const bytes = this.#buffer.subarray(0, this.#used)
    this.#used = 0
    this.#send(bytes)
    // Only what is gone may be written over. While there is no socket nothing is.
    const isGone = this.#socket !== undefined && this.#socket.writableLength === 0
    if (!isGone || this.#buffer.length > bufferBytes) {
      this.#buffer = Buffer.allocUnsafeSlow(bufferBytes)
    }
  }

  #send (bytes: Buffer): number {
    const sequence = this.#sequence++
    if (this.#socket === undefined) this.#early.push(bytes)
    else this.#socket.write(bytes, (error) => { if (error == null) this.#onWritten(sequence) })
    return sequence
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
