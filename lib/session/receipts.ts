import type { ReceivedPublish } from './link.ts'

/**
 * The acknowledgement that a message waits for, over all connections of its session: a message that the
 * broker sends again while its handlers run is the same one, and has the same receipt.
 */
export class Receipt {
  readonly message: ReceivedPublish
  readonly #onSettled: (receipt: Receipt) => void
  isSettled = false
  isAcknowledged = false
  /** Whether its message is. */
  isKept = false
  /** The one that came after it, as long as both wait for their acknowledgement; the inbox's own. */
  next: Receipt | undefined = undefined
  /** From 0x80 on the message is refused, which only MQTT 5 can say. */
  reasonCode = 0
  #holds = 1

  constructor (message: ReceivedPublish, onSettled: (receipt: Receipt) => void) {
    this.message = message
    this.#onSettled = onSettled
  }

  /** One more has to release it. */
  hold (): void {
    this.#holds++
  }

  /** One of those who hold it is done; with the last one it is settled. */
  release (reasonCode = 0): void {
    if (reasonCode > this.reasonCode) this.reasonCode = reasonCode
    if (--this.#holds > 0) return
    this.isSettled = true
    this.#onSettled(this)
  }
}

/** What waits for its acknowledgement, in the order in which it came. */
export class Line {
  first: Receipt | undefined
  /** The oldest, if others need not wait for it any more. */
  overtaken: Receipt | undefined
  timer: NodeJS.Timeout | undefined
  size = 0
  #last: Receipt | undefined

  add (receipt: Receipt): void {
    if (this.#last === undefined) this.first = receipt
    else this.#last.next = receipt
    this.#last = receipt
    this.size++
  }

  shift (): void {
    const { first } = this
    if (first === undefined) return
    this.size--
    this.first = first.next
    if (first.next === undefined) this.#last = undefined
    // What is through must not refer to what came after it: grown old, it would keep all of that as garbage.
    first.next = undefined
  }

  /** One that is not the first. @returns whether it was there */
  remove (receipt: Receipt): boolean {
    for (let before = this.first; before !== undefined; before = before.next) {
      if (before.next !== receipt) continue
      this.size--
      before.next = receipt.next
      if (this.#last === receipt) this.#last = before
      receipt.next = undefined
      return true
    }
    return false
  }

  /** The latest, if a broker has used the identifier twice. */
  find (messageId: number): Receipt | undefined {
    let found: Receipt | undefined
    for (let receipt = this.first; receipt !== undefined; receipt = receipt.next) {
      if (receipt.message.messageId === messageId) found = receipt
    }
    return found
  }

  takeAll (): Receipt[] {
    const all: Receipt[] = []
    for (let receipt = this.first; receipt !== undefined; receipt = this.first) {
      all.push(receipt)
      this.shift()
    }
    return all
  }

  takeSettled (): Receipt[] {
    const all = this.takeAll()
    for (const receipt of all) if (!receipt.isSettled) this.add(receipt)
    return all.filter(({ isSettled }) => isSettled)
  }

  /** When all have been taken. */
  reset (): void {
    this.overtaken = undefined
    clearTimeout(this.timer)
    this.timer = undefined
  }
}
