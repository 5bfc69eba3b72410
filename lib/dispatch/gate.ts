import type { Backlog, Waiting } from './backlog.ts'
import { weightOf, type Incoming } from './message.ts'
import { Queue, type Place } from '../queue.ts'
import type { Receipt } from './receipt.ts'

/** Keeps what comes before the application is ready, by the limits of what waits for handlers. */
export class Gate {
  readonly #backlog: Backlog
  readonly #queue = new Queue<Held>()
  #isOpen = false

  constructor (backlog: Backlog) {
    this.#backlog = backlog
  }

  get isOpen (): boolean {
    return this.#isOpen
  }

  keep (incoming: Incoming, receipt: Receipt | undefined): void {
    incoming.keep?.()
    const held = new Held(incoming, receipt)
    held.place = this.#queue.push(held)
    this.#backlog.add(held)
    this.#backlog.trim()
  }

  /** Lets through what came before, and all that comes after it. */
  open (pass: (incoming: Incoming, receipt: Receipt | undefined) => void): void {
    for (let held = this.#take(); held !== undefined; held = this.#take()) pass(held.incoming, held.receipt)
    this.#isOpen = true
  }

  #take (): Held | undefined {
    const held = this.#queue.shift()
    if (held === undefined) return undefined
    this.#backlog.remove(held)
    held.incoming.drop?.()
    return held
  }
}

class Held implements Waiting {
  readonly incoming: Incoming
  readonly receipt: Receipt | undefined
  place: Place<Held> | undefined = undefined
  list: Waiting['list'] = undefined
  older: Waiting['older'] = undefined
  newer: Waiting['newer'] = undefined

  constructor (incoming: Incoming, receipt: Receipt | undefined) {
    this.incoming = incoming
    this.receipt = receipt
  }

  get bytes (): number {
    return weightOf(this.incoming)
  }

  get isDroppable (): boolean {
    return this.receipt === undefined
  }

  lose (): void {
    this.place?.leave()
    this.incoming.drop?.()
  }
}
