import { isUtf8 } from 'node:buffer'
import { malformed } from './malformed.ts'

const setBits = 14
const maxBytes = 128
const wordBytes = 4
/** Of a name, in itself. */
const ownBytes = 8 * wordBytes

/**
 * A topic name as it came; one for all messages with that name, as long as it is remembered. What it takes
 * to tell it from others by their bytes stands in it, not in an array or a string that it refers to: of
 * thousands none is in a cache of the processor when its message comes, and each step to another place is a
 * wait.
 */
export class TopicName {
  readonly text: string
  /** For the one who asks what to do with it: what was worked out, and by whom. */
  value: unknown = undefined
  owner: object | undefined = undefined
  readonly #size: number
  /** Its first bytes, four in each. */
  readonly #word0: number
  readonly #word1: number
  readonly #word2: number
  readonly #word3: number
  readonly #word4: number
  readonly #word5: number
  readonly #word6: number
  readonly #word7: number
  /** Those that follow, of a name that is longer. */
  readonly #others: readonly number[] | undefined

  constructor (text: string, bytes: Buffer, start: number, end: number) {
    this.text = text
    this.#size = end - start
    this.#word0 = wordAt(bytes, start, end)
    this.#word1 = wordAt(bytes, start + 4, end)
    this.#word2 = wordAt(bytes, start + 8, end)
    this.#word3 = wordAt(bytes, start + 12, end)
    this.#word4 = wordAt(bytes, start + 16, end)
    this.#word5 = wordAt(bytes, start + 20, end)
    this.#word6 = wordAt(bytes, start + 24, end)
    this.#word7 = wordAt(bytes, start + 28, end)
    this.#others = this.#size > ownBytes ? wordsAt(bytes, start + ownBytes, end) : undefined
  }

  isAt (bytes: Buffer, start: number, end: number): boolean {
    return end - start === this.#size &&
      wordAt(bytes, start, end) === this.#word0 && wordAt(bytes, start + 4, end) === this.#word1 &&
      wordAt(bytes, start + 8, end) === this.#word2 && wordAt(bytes, start + 12, end) === this.#word3 &&
      wordAt(bytes, start + 16, end) === this.#word4 && wordAt(bytes, start + 20, end) === this.#word5 &&
      wordAt(bytes, start + 24, end) === this.#word6 && wordAt(bytes, start + 28, end) === this.#word7 &&
      (this.#others === undefined || areAt(this.#others, bytes, start + ownBytes, end))
  }
}

/**
 * Remembers the topic names of a connection by their bytes, two for each value of their hash. Most names come
 * again and again: to find one costs less than to make a string of it, and all that is known of it is found
 * with it. It is a matter of memory more than of work: what thousands of topics need is in no cache of the
 * processor when their message comes, and each look into a `Map` is two or three waits for it.
 */
export class TopicTable {
  /** As large as it may get from the first message on; nothing before. */
  #names: (TopicName | undefined)[] | undefined
  /** Which of two gives way to a third; in turn, which needs no look at their age. */
  #isFirstNext = false

  /**
   * The topic name between two offsets.
   *
   * @throws `FST_MQTT_MALFORMED`
   */
  at (bytes: Buffer, start: number, end: number): TopicName {
    // It is not looked for, so that its bytes are not needed.
    if (end - start > maxBytes) return new TopicName(decodeTopic(bytes, start, end), bytes, end, end)
    const names = (this.#names ??= new Array<TopicName | undefined>(2 << setBits).fill(undefined))
    const index = 2 * hashOf(bytes, start, end)
    const first = names[index]
    if (first?.isAt(bytes, start, end) === true) return first
    const second = names[index + 1]
    if (second?.isAt(bytes, start, end) === true) return second
    const name = new TopicName(decodeTopic(bytes, start, end), bytes, start, end)
    if (first !== undefined && second !== undefined) this.#isFirstNext = !this.#isFirstNext
    const isFirst = first === undefined || (second !== undefined && this.#isFirstNext)
    names[isFirst ? index : index + 1] = name
    return name
  }
}

function hashOf (bytes: Buffer, start: number, end: number): number {
  let hash = 0
  for (let at = start; at < end; at += wordBytes) {
    hash = Math.imul(hash ^ wordAt(bytes, at, end), 0x9e3779b1)
    hash ^= hash >>> 15
  }
  return Math.imul(hash, 0x9e3779b1) >>> 32 - setBits
}

function wordsAt (bytes: Buffer, start: number, end: number): number[] {
  const words = new Array<number>(Math.ceil((end - start) / wordBytes))
  for (let at = start, index = 0; at < end; at += wordBytes) words[index++] = wordAt(bytes, at, end)
  return words
}

function areAt (words: readonly number[], bytes: Buffer, start: number, end: number): boolean {
  for (let at = start, index = 0; at < end; at += wordBytes) {
    if (words[index++] !== wordAt(bytes, at, end)) return false
  }
  return true
}

/** Up to four bytes as one number, fewer or 0 at the end: to look at each by itself takes twice as long. */
function wordAt (bytes: Buffer, at: number, end: number): number {
  if (at + wordBytes <= end) {
    return (bytes[at] as number) | (bytes[at + 1] as number) << 8 | (bytes[at + 2] as number) << 16 |
      (bytes[at + 3] as number) << 24
  }
  let word = 0
  for (let index = at; index < end; index++) word = word << 8 | (bytes[index] as number)
  return word
}

function decodeTopic (bytes: Buffer, start: number, end: number): string {
  let bits = 0
  for (let at = start; at < end; at++) {
    const byte = bytes[at] as number
    if (byte === plus || byte === hash || byte === 0) {
      throw malformed(`the topic of PUBLISH has ${byte === 0 ? 'a NUL' : 'a wildcard'}`)
    }
    bits |= byte
  }
  // ASCII needs no decoder.
  if (bits < 0x80) return bytes.toString('latin1', start, end)
  const topic = bytes.toString('utf8', start, end)
  if (topic.includes('\uFFFD') && !isUtf8(bytes.subarray(start, end))) {
    throw malformed('the topic of PUBLISH is no UTF-8')
  }
  return topic
}

const plus = 0x2b
const hash = 0x23
