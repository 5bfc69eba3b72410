import type { AckType, ReceivedPublish } from './link.ts'
import { PacketSet, PacketTable } from './packet-table.ts'
import { notFound } from './reason-codes.ts'
import { Line, Receipt } from './receipts.ts'

/** What the inbox needs from whoever holds the connection. */
export interface AckPort {
  readonly version: 4 | 5
  sendAck (type: AckType, packetId: number, reasonCode: number): void
}

/** Brings a message on its way. With QoS 1 and 2 a `receipt.release()` has to follow, at once or later. */
export type Deliver = (message: ReceivedPublish, receipt: Receipt | undefined) => void

const [puback, pubrec, pubcomp] = [4, 5, 7] as const
/** Milliseconds for which the oldest message may hold up the acknowledgements of others. */
const patienceMs = 1_000

/**
 * What came in with QoS 1 and 2 and is not acknowledged. The acknowledgement follows the handlers, so that
 * what dies with the process is sent again; with QoS 2 it is the PUBREC.
 *
 * In the order in which the messages came [MQTT-4.6.0-2, MQTT-4.6.0-3], unless one takes very long: a broker
 * sends no more than its window while the oldest is not acknowledged (Mosquitto: 20): a handler that hangs,
 * or waits to be run again, would stop all others. Brokers find what is acknowledged by its identifier.
 */
export class Inbox {
  readonly #port: AckPort
  readonly #deliver: Deliver
  readonly #onExcess: (unacked: number) => void
  readonly #maxUnacked: number
  readonly #settled = (receipt: Receipt) => this.#onSettled(receipt)
  readonly #lines: Record<1 | 2, Line> = { 1: new Line(), 2: new Line() }
  /** The identifiers of what is in the lines, which QoS 1 and 2 share. */
  readonly #unacked = new PacketSet()
  /** A broker has used one for two messages at once. */
  #isAmbiguous = false
  /** Not acknowledged on the connection before, of a session that is kept. */
  readonly #carried = new PacketTable<Receipt>()
  /** With QoS 2: PUBREC is sent, PUBREL has not come. */
  readonly #received = new PacketTable<ReceivedPublish>()
  #isUp = false

  /** @param onExcess told when more than `maxUnacked` wait, which no broker with bounds lets happen */
  constructor (port: AckPort, deliver: Deliver, onExcess: (unacked: number) => void, maxUnacked: number) {
    this.#port = port
    this.#deliver = deliver
    this.#onExcess = onExcess
    this.#maxUnacked = maxUnacked
  }

  get unacked (): number {
    return this.#lines[1].size + this.#lines[2].size
  }

  onUp (isSessionPresent: boolean): void {
    // A connection that was closed on purpose ends without a word.
    this.onDown()
    this.#isUp = true
    if (isSessionPresent) return
    this.#carried.clear()
    this.#received.clear()
  }

  onDown (): void {
    this.#isUp = false
    // What the connection before has not sent again may come on the next one.
    for (const line of [this.#lines[1], this.#lines[2]]) {
      for (const receipt of line.takeAll()) this.#carried.set(receipt.message.messageId, receipt)
      line.reset()
    }
    this.#unacked.clear()
    this.#isAmbiguous = false
  }

  receive (message: ReceivedPublish): void {
    const { qos, messageId } = message
    if (qos === 0) this.#deliver(message, undefined)
    else if (qos === 2 && this.#isReceived(message)) this.#port.sendAck(pubrec, messageId, 0)
    else if (!this.#isKnown(message)) this.#accept(message, qos)
  }

  onPubrel (packetId: number): void {
    const received = this.#received.get(packetId)
    const isKnown = this.#received.delete(packetId)
    received?.drop()
    this.#port.sendAck(pubcomp, packetId, isKnown || this.#port.version === 4 ? 0 : notFound)
  }

  /** Forgets the session, which another process has taken over: what comes again later is not the same. */
  reset (): void {
    this.onDown()
    this.#carried.clear()
    this.#received.clear()
  }

  /** Acknowledges nothing more: the messages are for the next process with this session. */
  close (): void {
    this.#isUp = false
  }

  #onSettled (receipt: Receipt): void {
    if (!this.#isUp) return
    const qos = receipt.message.qos === 2 ? 2 : 1
    const line = this.#lines[qos]
    const { first } = line
    if (first === undefined || first === receipt || first !== line.overtaken) this.#acknowledge(qos)
    else if (line.remove(receipt)) this.#send(receipt, qos)
  }

  #accept (message: ReceivedPublish, qos: 1 | 2): void {
    const receipt = new Receipt(message, this.#settled)
    this.#enlist(receipt, qos)
    this.#deliver(message, receipt)
    if (!receipt.isAcknowledged) {
      receipt.isKept = true
      message.keep()
    }
    if (this.unacked > this.#maxUnacked) this.#onExcess(this.unacked)
  }

  #enlist (receipt: Receipt, qos: 1 | 2): void {
    const { messageId } = receipt.message
    if (this.#unacked.has(messageId)) this.#isAmbiguous = true
    this.#unacked.add(messageId)
    this.#lines[qos].add(receipt)
  }

  /**
   * Whether it is one that runs already, or is done and not acknowledged. Not every broker sets DUP when it
   * sends a message again; all send them before any other [MQTT-4.4.0-1].
   */
  #isKnown (message: ReceivedPublish): boolean {
    const isUnacked = this.#unacked.has(message.messageId)
    return (isUnacked || this.#carried.size > 0) && this.#isAgain(message, isUnacked)
  }

  #isAgain (message: ReceivedPublish, isUnacked: boolean): boolean {
    const { messageId } = message
    const known = isUnacked ? this.#find(messageId) : this.#carried.get(messageId)
    if (known !== undefined && isSame(known.message, message)) {
      if (this.#carried.delete(messageId) && message.qos !== 0) {
        this.#enlist(known, message.qos)
        // It may be done already.
        this.#acknowledge(message.qos)
      }
      return true
    }
    if (!message.dup) this.#carried.clear()
    else this.#carried.delete(messageId)
    return false
  }

  #find (messageId: number): Receipt | undefined {
    return this.#lines[1].find(messageId) ?? this.#lines[2].find(messageId)
  }

  /**
   * Whether it is one whose PUBREC was lost. The same identifier with another message is a message of its
   * own.
   */
  #isReceived (message: ReceivedPublish): boolean {
    const received = this.#received.get(message.messageId)
    return received !== undefined && isSame(received, message)
  }

  /** Sends what can be sent without overtaking: only what came on this connection, or came again. */
  #acknowledge (qos: 1 | 2): void {
    const line = this.#lines[qos]
    for (let receipt = line.first; receipt?.isSettled === true; receipt = line.first) {
      line.shift()
      this.#send(receipt, qos)
    }
    if (line.first !== undefined && line.timer === undefined) this.#watch(line, qos)
  }

  #send (receipt: Receipt, qos: 1 | 2): void {
    const { message, reasonCode } = receipt
    const { messageId } = message
    if (!this.#isAmbiguous || this.#find(messageId) === undefined) this.#unacked.delete(messageId)
    receipt.isAcknowledged = true
    if (receipt.isKept) message.drop()
    // After a refusal no PUBREL comes; but on 3.1.1 nothing can be refused.
    if (qos === 2 && (reasonCode < 0x80 || this.#port.version === 4)) {
      message.keep()
      this.#received.set(messageId, message)
    }
    this.#port.sendAck(qos === 1 ? puback : pubrec, messageId, reasonCode)
  }

  /** Looks after a while whether the oldest is still the same. */
  #watch (line: Line, qos: 1 | 2): void {
    const { first } = line
    line.timer = setTimeout(() => {
      line.timer = undefined
      if (!this.#isUp || line.first === undefined) return
      if (line.first === first) this.#overtake(line, first, qos)
      else this.#watch(line, qos)
    }, patienceMs).unref()
  }

  #overtake (line: Line, first: Receipt, qos: 1 | 2): void {
    line.overtaken = first
    for (const receipt of line.takeSettled()) this.#send(receipt, qos)
  }
}

function isSame (one: ReceivedPublish, other: ReceivedPublish): boolean {
  return one.qos === other.qos && one.topic === other.topic && one.payload.equals(other.payload)
}
