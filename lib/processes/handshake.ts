import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { errors } from '../errors.ts'
import { nonceBytes, protocolVersion, type Frame } from './protocol.ts'

/** Which end of a connection. */
export type Side = 'owner' | 'member'

/**
 * The greeting, the same from both sides and at once: each says its version and a number used once, and then
 * proves by the other's number that it knows the key of the group. Nothing else is read before.
 *
 *     hello  ⇄  hello
 *     proof  ⇄  proof
 */
export class Handshake {
  readonly #key: Buffer
  readonly #side: Side
  readonly #heartbeatMs: number
  readonly #nonce = randomBytes(nonceBytes)
  #theirNonce: Buffer | undefined
  #peerHeartbeatMs = 0
  #isDone = false

  constructor (key: Buffer, side: Side, heartbeatMs: number) {
    this.#key = key
    this.#side = side
    this.#heartbeatMs = heartbeatMs
  }

  get isDone (): boolean {
    return this.#isDone
  }

  /** How often the other side gives a sign of life. */
  get peerHeartbeatMs (): number {
    return this.#peerHeartbeatMs
  }

  hello (): Frame {
    return { type: 'hello', version: protocolVersion, heartbeatMs: this.#heartbeatMs, nonce: this.#nonce }
  }

  /**
   * Takes what the other side says.
   *
   * @returns what is to be said next
   * @throws `FST_MQTT_PEER_VERSION`, `FST_MQTT_PEER_REFUSED`
   */
  take (frame: Frame): Frame | undefined {
    if (frame.type === 'hello' && this.#theirNonce === undefined) {
      if (frame.version !== protocolVersion) {
        throw new errors.FST_MQTT_PEER_VERSION(frame.version, protocolVersion)
      }
      this.#theirNonce = frame.nonce
      this.#peerHeartbeatMs = frame.heartbeatMs
      return { type: 'proof', proof: this.#proof(this.#side, this.#nonce, frame.nonce) }
    }
    if (frame.type === 'proof' && this.#theirNonce !== undefined) {
      const other = this.#side === 'owner' ? 'member' : 'owner'
      if (!timingSafeEqual(frame.proof, this.#proof(other, this.#theirNonce, this.#nonce))) {
        throw new errors.FST_MQTT_PEER_REFUSED('it does not know the key of the group')
      }
      this.#isDone = true
      return undefined
    }
    throw new errors.FST_MQTT_PEER_REFUSED(`'${frame.type}' came where the greeting ought to`)
  }

  // With the side in it nobody can answer with our own proof.
  #proof (side: Side, own: Buffer, other: Buffer): Buffer {
    return createHmac('sha256', this.#key).update(`${side} ${protocolVersion}\n`).update(own).update(other).digest()
  }
}
