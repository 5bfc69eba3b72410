/** So many small pieces in a row are joined. */
const smallRun = 1_024
const smallBytes = 1_024

/**
 * The pieces of one packet that is cut over several reads: joined once, when it is whole. What it takes stays
 * in proportion to its bytes, even if they come one by one.
 */
export class Pieces {
  #list: Buffer[] = []
  /** How many pieces at the end are small. */
  #small = 0
  #bytes = 0

  get bytes (): number {
    return this.#bytes
  }

  add (piece: Buffer): void {
    if (piece.length === 0) return
    this.#list.push(piece)
    this.#bytes += piece.length
    this.#small = piece.length < smallBytes ? this.#small + 1 : 0
    if (this.#small < smallRun) return
    this.#list.push(Buffer.concat(this.#list.splice(-smallRun)))
    this.#small = 0
  }

  /** Everything so far, and this after it, in one. */
  joinedWith (last: Buffer): Buffer {
    return Buffer.concat([...this.#list, last], this.#bytes + last.length)
  }

  clear (): void {
    this.#list = []
    this.#small = 0
    this.#bytes = 0
  }
}
