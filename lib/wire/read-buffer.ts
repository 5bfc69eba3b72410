const bufferBytes = 64 * 1024
/** The room that each read has at least. */
const leastBytes = bufferBytes * 3 / 4
/**
 * A read with a few messages is copied to bytes of its own: else one that the application keeps would keep
 * all that came in the same minutes.
 */
const smallBytes = 1_024

/**
 * Where a socket reads to: read after read into one buffer, and then into the next. Left to itself a stream
 * takes a new one of 64 KiB for each read, and hands it on over many functions: about 6 µs, in which four
 * messages are handled.
 */
export class ReadBuffer {
  #free = Buffer.allocUnsafeSlow(bufferBytes)
  /** The bytes at its beginning that are in use. */
  #taken = 0

  /** Where the next read goes; asked after each. */
  get target (): Buffer {
    if (this.#taken > 0) {
      const free = this.#free.subarray(this.#taken)
      this.#free = free.length < leastBytes ? Buffer.allocUnsafeSlow(bufferBytes) : free
      this.#taken = 0
    }
    return this.#free
  }

  /** What has been read to the target. It is not written over once the next one was asked for. */
  take (size: number): Buffer {
    const read = this.#free.subarray(0, size)
    if (size >= smallBytes) {
      this.#taken = size
      return read
    }
    const copy = Buffer.allocUnsafeSlow(size)
    copy.set(read)
    return copy
  }
}
