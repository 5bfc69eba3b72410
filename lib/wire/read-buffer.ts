const bufferBytes = 64 * 1024
/** The room that each read has at least. */
const leastBytes = bufferBytes * 3 / 4
/** What is smaller is copied: else a message that somebody keeps would keep a buffer of thousands with it. */
const smallBytes = 1_024

/**
 * Where a socket reads to: read after read into one buffer, and then into the next. Left to itself a stream
 * takes a new one of 64 KiB for each read, and hands it on over many functions: for a read with a few
 * messages that is half as much as all that is done for them.
 */
export class ReadBuffer {
  #free = Buffer.allocUnsafeSlow(bufferBytes)

  /** Where the next read goes. */
  get target (): Buffer {
    return this.#free
  }

  /** What has just been read. It is not written over. */
  take (size: number): Buffer {
    const read = this.#free.subarray(0, size)
    if (size < smallBytes) return Buffer.from(read)
    this.#free = this.#free.subarray(size)
    if (this.#free.length < leastBytes) this.#free = Buffer.allocUnsafeSlow(bufferBytes)
    return read
  }
}
