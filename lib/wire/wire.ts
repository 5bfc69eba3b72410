import { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { parser, type IConnackPacket, type IDisconnectPacket, type Packet } from 'mqtt-packet'
import { errors } from '../errors.ts'
import {
  encodeAck, encodedHeadBytes, encodePublish, encodePublishHead, maxAckBytes, packetType, Splitter,
  type AckType, type FrameSink, type PublishFrame, type PublishToEncode
} from './frames.ts'
import { highestLowId } from './ids.ts'
import { faultCode, malformed } from './malformed.ts'
import { ownPackets } from './own-packets.ts'
import { isLarge, WriteBuffer } from './write-buffer.ts'

/** What a wire tells of what comes in. */
export interface WireEvents {
  /** The broker has accepted the connection. */
  onConnack (connack: IConnackPacket): void
  /** The broker has refused the connection, which ends now; or says that it will end it. */
  onRefusal (packet: IConnackPacket | IDisconnectPacket): void
  onPublish (frame: PublishFrame): void
  onAck (type: AckType, packetId: number, reasonCode: number): void
  onWritten (sequence: number): void
  onDrain (): void
  /** MQTT.js publishes by itself, for whoever uses the raw client: `send` writes it. */
  onForeignPublish (send: () => void): void
  onForeignDone (): void
  /** MQTT.js cannot encode what it has been told to send: the connection ends, in the same turn. */
  onUnsendable (): void
}

export interface WireSettings {
  readonly version: 4 | 5
  /** The largest packet that is taken in. */
  readonly maxBytes: number
}

const pingresp = Buffer.of(packetType.pingresp << 4, 0)
/** Milliseconds in which a connection that MQTT.js ends has to be closed. */
const farewellMs = 500

/**
 * Stands between MQTT.js and the socket. PUBLISH and its acknowledgements are ours in both directions; all
 * else is handed on, whole packets in the order in which they were written. So MQTT.js connects, subscribes
 * and pings, and the messages take another way (it would acknowledge them before they are handled, and lose
 * some in a cut).
 *
 * ```
 *            ┌ PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP ── outbox, inbox
 * socket ── wire
 *            └ CONNECT … SUBACK, PING, DISCONNECT, AUTH ── MQTT.js
 * ```
 */
export class Wire extends Duplex implements FrameSink {
  readonly #settings: WireSettings
  readonly #events: WireEvents
  readonly #splitter: Splitter
  readonly #writer: WriteBuffer
  /** Packet identifiers of MQTT.js's own messages that were sent and not answered. */
  readonly #foreign = new Set<number>()
  #socket: Duplex | undefined
  #isAccepted = false
  #isPaused = false
  #isPingOut = false
  /** Nothing is sent or heard any more. */
  #isEnding = false
  #openedAt = performance.now()
  #isReached = false
  /** Milliseconds between what was sent first, and the answer. */
  rttMs = 0

  constructor (socket: Duplex | Promise<Duplex>, settings: WireSettings, events: WireEvents) {
    super({ autoDestroy: false })
    this.#settings = settings
    this.#events = events
    this.#splitter = new Splitter(this, settings)
    this.#writer = new WriteBuffer((sequence) => events.onWritten(sequence))
    if (socket instanceof Duplex) this.#open(socket)
    else socket.then((opened) => this.#open(opened), (error: Error) => this.destroy(asCoded(error)))
  }

  /** Whether the socket was connected, and secure, so that something could be sent. */
  get isReached (): boolean {
    return this.#isReached
  }

  /** False while the peer does not take what was sent. */
  get isWritable (): boolean {
    return !this.#writer.isBlocked
  }

  /** @returns the number of the write, for `onWritten` */
  publish (publish: PublishToEncode, packetId: number, isDup: boolean): number {
    const { version } = this.#settings
    const writer = this.#writer
    const headBytes = encodedHeadBytes(publish, version)
    if (isLarge(publish.payload)) {
      const offset = writer.reserve(headBytes)
      writer.commit(encodePublishHead(writer.target, offset, publish, packetId, isDup, version))
      return writer.write(publish.payload)
    }
    const offset = writer.reserve(headBytes + publish.payload.length)
    return writer.commit(encodePublish(writer.target, offset, publish, packetId, isDup, version))
  }

  ack (type: AckType, packetId: number, reasonCode: number): void {
    const offset = this.#writer.reserve(maxAckBytes)
    const { target } = this.#writer
    this.#writer.commit(encodeAck(target, offset, type, packetId, reasonCode, this.#settings.version))
  }

  /**
   * Stops reading. Meanwhile pings are answered here: the answers of the broker are behind what is not read.
   */
  pauseReading (): void {
    this.#isPaused = true
    this.#socket?.pause()
    this.#answerPing()
  }

  resumeReading (): void {
    this.#isPaused = false
    this.#socket?.resume()
  }

  /** Says goodbye, so that the broker does not publish the will, and ends within the time. */
  async goodbye (timeoutMs: number): Promise<void> {
    if (this.destroyed) return
    const closed = new Promise<void>((resolve) => { this.once('close', resolve) })
    this.#writer.write(Buffer.of(packetType.disconnect << 4, 0))
    this.#finish(timeoutMs)
    await closed
  }

  /** Ends the socket, and does not wait for the peer for ever. */
  #finish (timeoutMs: number): void {
    if (this.#socket === undefined) {
      this.destroy()
      return
    }
    this.#isEnding = true
    const timer = setTimeout(() => this.destroy(), timeoutMs)
    this.once('close', () => clearTimeout(timer))
    this.#writer.end()
    // The end of the peer is behind what is not read.
    this.#socket.resume()
  }

  onPublish (frame: PublishFrame): void {
    if (this.destroyed) return
    if (!this.#isAccepted) throw malformed('PUBLISH came before CONNACK', faultCode.protocolError)
    this.#events.onPublish(frame)
  }

  onAck (type: AckType, packetId: number, reasonCode: number): void {
    if (this.destroyed) return
    // PUBREL is for messages that came in, whose identifiers are the broker's.
    if (packetId > highestLowId || type === packetType.pubrel) {
      this.#events.onAck(type, packetId, reasonCode)
      return
    }
    this.push(ackForMqttJs(type, packetId, reasonCode, this.#settings.version))
    const isDone = type === packetType.puback || type === packetType.pubcomp || reasonCode >= 0x80
    // Not for what MQTT.js has sent on an earlier connection: of that only PUBREL is sent again.
    if (isDone && this.#foreign.delete(packetId)) this.#events.onForeignDone()
  }

  onControl (frame: Buffer, type: number): void {
    if (this.destroyed) return
    const packet = this.#decode(frame)
    if (packet.cmd === 'connack') {
      if (this.#isAccepted) throw malformed('a second CONNACK came', faultCode.protocolError)
      this.#onConnack(packet)
      if (this.destroyed) return
    } else if (packet.cmd === 'disconnect') {
      this.#events.onRefusal(packet)
    }
    if (type === packetType.pingresp) this.#isPingOut = false
    this.push(frame)
    // Not every broker closes the connection then [MQTT-3.14.4-1], and it takes nothing more.
    if (packet.cmd === 'disconnect') this.destroy()
  }

  override _read (): void {}

  /**
   * The encoder of MQTT.js writes a packet piece by piece, and undefined where it has no bytes for a value.
   * That would throw out of the middle of MQTT.js, which forgets what it was about and lets a promise reject
   * that nobody has.
   */
  override write (chunk: unknown, encoding?: BufferEncoding | WriteCallback, done?: WriteCallback): boolean {
    if (typeof chunk === 'string' || chunk instanceof Uint8Array) {
      return super.write(chunk, encoding as BufferEncoding, done)
    }
    this.destroy(new Error('MQTT.js has written only a part of a packet'))
    return false
  }

  override _write (chunk: Buffer, _encoding: string, done: () => void): void {
    this.#forward([chunk])
    done()
  }

  override _writev (chunks: { chunk: Buffer }[], done: () => void): void {
    this.#forward(chunks.map(({ chunk }) => chunk))
    done()
  }

  override _final (done: () => void): void {
    this.#finish(farewellMs)
    done()
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    this.#socket?.destroy()
    if (error === null || 'code' in error) {
      done(error)
      return
    }
    // Of MQTT.js's encoder. MQTT.js itself hides errors that have no code.
    this.#events.onUnsendable()
    done(asCoded(error))
  }

  #open (socket: Duplex): void {
    if (this.destroyed) {
      socket.on('error', () => {}).destroy()
      return
    }
    this.#socket = socket
    const opened = () => { this.#openedAt = performance.now() }
    socket.once('connect', opened).once('secureConnect', opened)
    socket.once(socket instanceof TLSSocket ? 'secureConnect' : 'connect', () => { this.#isReached = true })
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
    socket.on('drain', () => this.#events.onDrain())
    socket.on('error', (error) => this.destroy(asCoded(error)))
    socket.once('end', () => this.destroy())
    socket.once('close', () => this.destroy())
    if (this.#isPaused) socket.pause()
    this.#writer.open(socket)
  }

  #take (chunk: Buffer): void {
    if (this.destroyed || this.#isEnding) return
    try {
      this.#splitter.push(chunk)
    } catch (error) {
      this.#objectTo(asCoded(error))
    }
    // What comes is a sign of life, though the answer to the ping may be far behind it.
    if (this.#isPingOut) this.#answerPing()
  }

  /** Tells the broker, which on 3.1.1 is not possible, and ends. */
  #objectTo (error: Error): void {
    const reasonCode = 'reasonCode' in error ? Number(error.reasonCode) : implementationSpecific
    if (this.#settings.version === 5 && this.#isAccepted) {
      this.#writer.write(Buffer.of(packetType.disconnect << 4, 1, reasonCode))
      this.#writer.flush()
    }
    this.destroy(error)
  }

  #decode (frame: Buffer): Packet {
    const packets = parser({ protocolVersion: this.#settings.version })
    let result: Packet | undefined
    packets.on('packet', (packet) => { result = packet })
    packets.on('error', (error: Error) => { throw error })
    try {
      packets.parse(frame)
    } catch (error) {
      throw malformed(asCoded(error).message, faultCode.protocolError)
    }
    if (result === undefined) throw malformed('a packet that says nothing')
    return result
  }

  #onConnack (connack: IConnackPacket): void {
    const code = this.#settings.version === 5 ? connack.reasonCode : connack.returnCode
    if (code !== 0) {
      this.#events.onRefusal(connack)
      this.destroy()
      return
    }
    const { receiveMaximum, maximumPacketSize } = connack.properties ?? {}
    // [MQTT 5 §3.2.2.3.3], [MQTT 5 §3.2.2.3.6]: nothing could be sent at all.
    if (receiveMaximum === 0 || maximumPacketSize === 0) {
      throw malformed('CONNACK allows no messages', faultCode.protocolError)
    }
    this.#isAccepted = true
    this.rttMs = performance.now() - this.#openedAt
    this.#events.onConnack(connack)
  }

  /** Packets of MQTT.js: whole ones, or the connection is of no more use. */
  #forward (chunks: readonly Buffer[]): void {
    const packets = ownPackets(chunks)
    if (packets === undefined) {
      this.destroy(new errors.FST_MQTT_CONNECTION('MQTT.js has written only a part of a packet'))
      return
    }
    for (const { type, publishId, packet } of packets) {
      if (publishId > 0) {
        this.#events.onForeignPublish(() => {
          this.#foreign.add(publishId)
          this.#writer.write(packet)
        })
        continue
      }
      this.#writer.write(packet)
      if (type === packetType.pingreq) {
        this.#isPingOut = true
        if (this.#isPaused) this.#answerPing()
      }
    }
  }

  #answerPing (): void {
    if (!this.#isPingOut || this.destroyed) return
    this.#isPingOut = false
    this.push(pingresp)
  }
}

type WriteCallback = (error: Error | null | undefined) => void

/** What a broker is told about an error that is ours [MQTT 5 §3.14.2.1]. */
const implementationSpecific = 0x83

function asCoded (error: unknown): Error {
  if (!(error instanceof Error)) return new errors.FST_MQTT_CONNECTION(String(error))
  return 'code' in error ? error : new errors.FST_MQTT_CONNECTION(error.message, { cause: error })
}

/** mqtt-packet takes a code that it does not know for a malformed packet, and hears no more from then on. */
function ackForMqttJs (type: AckType, packetId: number, reasonCode: number, version: 4 | 5): Buffer {
  const isEnd = type === packetType.pubcomp
  const known = isEnd ? knownReleaseCodes : knownPublishCodes
  const code = known.has(reasonCode) ? reasonCode : isEnd ? 0x92 : 0x80
  const frame = Buffer.alloc(maxAckBytes)
  return frame.subarray(0, encodeAck(frame, 0, type, packetId, code, version))
}

const knownPublishCodes: ReadonlySet<number> = new Set([0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
const knownReleaseCodes: ReadonlySet<number> = new Set([0, 0x92])
