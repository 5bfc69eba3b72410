import { Duplex } from 'node:stream'
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
}

export interface WireSettings {
  readonly version: 4 | 5
  /** The largest packet that is taken in. */
  readonly maxBytes: number
}

const pingresp = Buffer.of(packetType.pingresp << 4, 0)

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
  #socket: Duplex | undefined
  #isAccepted = false
  #isPaused = false
  #isPingOut = false
  #openedAt = performance.now()
  /** Milliseconds between what was sent first, and the answer. */
  rttMs = 0

  constructor (socket: Duplex | Promise<Duplex>, settings: WireSettings, events: WireEvents) {
    super({ autoDestroy: false })
    this.#settings = settings
    this.#events = events
    this.#splitter = new Splitter(this, settings)
    this.#writer = new WriteBuffer((sequence) => events.onWritten(sequence))
    if (socket instanceof Duplex) this.#open(socket)
    else socket.then((opened) => this.#open(opened), (error: Error) => this.destroy(error))
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
    const timer = setTimeout(() => this.destroy(), timeoutMs)
    this.#writer.write(Buffer.of(packetType.disconnect << 4, 0))
    this.#writer.flush()
    if (this.#socket === undefined) this.destroy()
    else this.#socket.end()
    await closed
    clearTimeout(timer)
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
    if (isDone) this.#events.onForeignDone()
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
  }

  override _read (): void {}

  override _write (chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    this.#forward(chunk, done)
  }

  override _writev (chunks: { chunk: Buffer }[], done: (error?: Error) => void): void {
    this.#forward(Buffer.concat(chunks.map(({ chunk }) => chunk)), done)
  }

  override _final (done: () => void): void {
    this.#writer.flush()
    this.#socket?.end()
    done()
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    this.#socket?.destroy()
    // MQTT.js hides errors that have no code: such as its own about options that it cannot encode.
    done(error === null || 'code' in error ? error : new errors.FST_MQTT_CONNECTION(error.message, { cause: error }))
  }

  #open (socket: Duplex): void {
    if (this.destroyed) {
      socket.on('error', () => {}).destroy()
      return
    }
    this.#socket = socket
    const opened = () => { this.#openedAt = performance.now() }
    socket.once('connect', opened).once('secureConnect', opened)
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
    socket.on('drain', () => this.#events.onDrain())
    socket.on('error', (error) => this.destroy(error))
    socket.once('end', () => this.destroy())
    socket.once('close', () => this.destroy())
    if (this.#isPaused) socket.pause()
    this.#writer.open(socket)
  }

  #take (chunk: Buffer): void {
    if (this.destroyed) return
    try {
      this.#splitter.push(chunk)
    } catch (error) {
      this.#objectTo(error as Error)
    }
    // What comes is a sign of life, though the answer to the ping may be far behind it.
    if (this.#isPingOut) this.#answerPing()
  }

  /** Tells the broker, which on 3.1.1 is not possible, and ends. */
  #objectTo (error: Error): void {
    const reasonCode = 'reasonCode' in error ? Number(error.reasonCode) : 0x82
    if (this.#settings.version === 5 && this.#isAccepted) {
      this.#writer.write(Buffer.of(packetType.disconnect << 4, 1, reasonCode))
      this.#writer.flush()
    }
    this.destroy(error)
  }

  #decode (frame: Buffer): Packet {
    const packets = parser({ protocolVersion: this.#settings.version })
    let result: Packet | Error | undefined
    packets.on('packet', (packet) => { result = packet })
    packets.on('error', (error: Error) => { result = error })
    packets.parse(frame)
    if (result !== undefined && !(result instanceof Error)) return result
    throw malformed(result?.message ?? 'a packet of an unknown kind', faultCode.protocolError)
  }

  #onConnack (connack: IConnackPacket): void {
    const code = this.#settings.version === 5 ? connack.reasonCode : connack.returnCode
    if (code !== 0) {
      this.#events.onRefusal(connack)
      this.destroy()
      return
    }
    this.#isAccepted = true
    this.rttMs = performance.now() - this.#openedAt
    this.#events.onConnack(connack)
  }

  /** Packets of MQTT.js: whole ones, or the connection is of no more use. */
  #forward (bytes: Buffer, done: (error?: Error) => void): void {
    const packets = ownPackets(bytes)
    if (packets === undefined) {
      done()
      this.destroy(new errors.FST_MQTT_CONNECTION('MQTT.js has written only a part of a packet'))
      return
    }
    for (const { type, qos, packet } of packets) {
      if (type === packetType.publish && qos > 0) {
        this.#events.onForeignPublish(() => this.#writer.write(packet))
        continue
      }
      this.#writer.write(packet)
      if (type === packetType.pingreq) {
        this.#isPingOut = true
        if (this.#isPaused) this.#answerPing()
      }
    }
    done()
  }

  #answerPing (): void {
    if (!this.#isPingOut || this.destroyed) return
    this.#isPingOut = false
    this.push(pingresp)
  }
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
