import { isUtf8 } from 'node:buffer'
import { malformed } from './malformed.ts'

const setBits = 14
const maxBytes = 128
const wordBytes = 4
/** Of a name, beside those of its neighbour: what both take is one line of a processor's cache. */
const nearWords = 8

/** A topic name as it came; one for all messages with that name, as long as it is remembered. */
export class TopicName {
  readonly text: string
  /** For the one who asks what to do with it: what was worked out, and by whom. */
  value: unknown = undefined
  owner: object | undefined = undefined
  /** In bytes. */
  readonly size: number
  /** Of a longer name, what is not with the table. */
  readonly farWords: Int32Array | undefined

  constructor (text: string, size: number, farWords: Int32Array | undefined) {
    this.text = text
    this.size = size
    this.farWords = farWords
  }
}

/** The bytes of the name that is looked for, four in each. */
const wanted = new Int32Array(maxBytes / wordBytes)

/**
 * Remembers the topic names of a connection by their bytes, two for each value of their hash. Most names come
 * again and again: to find one costs less than to make a string of it, and all that is known of it is found
 * with it. It is a matter of memory more than of work: what thousands of topics need is in no cache of the
 * processor when their message comes, and each step from one place to another is a wait.
 */
export class TopicTable {
  /** As large as they may get from the first message on; nothing before. */
  #names: (TopicName | undefined)[] = []
  #nearWords = new Int32Array(0)
  /** Which of two gives way to a third; in turn, which needs no look at their age. */
  #isFirstNext = false

  /**
   * The topic name between two offsets.
   *
   * @throws `FST_MQTT_MALFORMED`
   */
  at (bytes: Buffer, start: number, end: number): TopicName {
    const size = end - start
    if (size > maxBytes) return new TopicName(decodeTopic(bytes, start, end), size, undefined)
    const place = 2 * readWanted(bytes, start, end)
    if (this.#is(place, size)) return this.#names[place] as TopicName
    if (this.#is(place + 1, size)) return this.#names[place + 1] as TopicName
    return this.#add(place, decodeTopic(bytes, start, end), size)
  }

  #is (place: number, size: number): boolean {
    const name = this.#names[place]
    if (name === undefined || name.size !== size) return false
    const words = this.#nearWords
    const count = Math.min(nearWords, size + wordBytes - 1 >> 2)
    for (let index = 0, at = place * nearWords; index < count; index++) {
      if (words[at++] !== wanted[index]) return false
    }
    return name.farWords === undefined || isWantedFar(name.farWords)
  }

  #add (place: number, text: string, size: number): TopicName {
    if (this.#names.length === 0) {
      this.#names = new Array<TopicName | undefined>(2 << setBits).fill(undefined)
      this.#nearWords = new Int32Array(nearWords * 2 << setBits)
    }
    const [first, second] = [this.#names[place], this.#names[place + 1]]
    if (first !== undefined && second !== undefined) this.#isFirstNext = !this.#isFirstNext
    const isFirst = first === undefined || (second !== undefined && this.#isFirstNext)
    const chosen = isFirst ? place : place + 1
    this.#nearWords.set(wanted.subarray(0, nearWords), chosen * nearWords)
    const count = size + wordBytes - 1 >> 2
    const name = new TopicName(text, size, count > nearWords ? wanted.slice(nearWords, count) : undefined)
    this.#names[chosen] = name
    return name
  }
}

function isWantedFar (words: Int32Array): boolean {
  for (let index = 0; index < words.length; index++) {
    if (words[index] !== wanted[nearWords + index]) return false
  }
  return true
}

/** @returns its hash */
function readWanted (bytes: Buffer, start: number, end: number): number {
  let hash = 0
  for (let at = start, index = 0; at < end; at += wordBytes) {
    const word = wordAt(bytes, at, end)
    wanted[index++] = word
    hash = Math.imul(hash ^ word, 0x9e3779b1)
    hash ^= hash >>> 15
  }
  return Math.imul(hash, 0x9e3779b1) >>> 32 - setBits
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
