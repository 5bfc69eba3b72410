import { Duplex } from 'node:stream'

/** One end of a connection, whose other end is the test. */
export class FakeSocket extends Duplex {
  /** What was written, byte for byte, as it is when the socket is done with it. */
  readonly taken: Buffer[] = []
  /** What the socket holds, as it was given: a socket does not copy. */
  readonly held: { chunk: Buffer, done: () => void }[] = []
  readonly #isSlow: boolean

  /** @param isSlow takes nothing until it is told so */
  constructor (isSlow = false) {
    super()
    this.#isSlow = isSlow
  }

  /** All that was taken. */
  get bytes (): Buffer {
    return Buffer.concat(this.taken)
  }

  /** Is done with the next of what it holds; false if there is none. */
  complete (): boolean {
    const next = this.held.shift()
    if (next === undefined) return false
    this.taken.push(Buffer.from(next.chunk))
    next.done()
    return true
  }

  /** Bytes from the peer. */
  receive (bytes: Uint8Array): void {
    this.push(bytes)
  }

  override _read (): void {}

  override _write (chunk: Buffer, _encoding: string, done: () => void): void {
    this.held.push({ chunk, done })
    if (!this.#isSlow) this.complete()
  }
}
