import type { Socket } from 'node:net'
import { FrameSplitter, FrameWriter } from './frames.ts'
import { Handshake, type Side } from './handshake.ts'
import { decode, encode, maxFrameBytes, maxGreetingBytes, type Frame } from './protocol.ts'

export interface ChannelSettings {
  readonly side: Side
  readonly key: Buffer
  readonly heartbeatMs: number
  /** Milliseconds without a sign of life after which the other side counts as gone. */
  readonly silenceMs: number
}

/**
 * How a channel ended:
 * - `closed`: the other side is gone, or was never there
 * - `silent`: it is there, but gives no sign of life: stopped, or busy for too long
 * - `refused`: it is none of ours, or of another version, or said something that makes no sense
 */
export interface ChannelEnd {
  readonly reason: 'closed' | 'silent' | 'refused'
  readonly error: Error | undefined
  /** True if the greeting had been completed. */
  readonly wasOpen: boolean
}

/** What a channel tells whoever holds it. */
export interface ChannelEvents {
  /** The other side has proved that it is of the group. */
  onOpen (): void
  onFrame (frame: Frame): void
  /** Comes once, and last; not after `close()`. */
  onEnd (end: ChannelEnd): void
}

/** What is written at once without waiting for the end of the loop's turn. */
const earlyFlushBytes = 65_536
/** Bytes of answers that a member may leave unread before no more of its requests are read. */
const maxUnreadBytes = 1_048_576

/** A connection between two processes of a group that carries frames, in one write for each loop turn. */
export class Channel {
  readonly #socket: Socket
  readonly #settings: ChannelSettings
  readonly #events: ChannelEvents
  readonly #handshake: Handshake
  readonly #writer = new FrameWriter()
  readonly #splitter: FrameSplitter
  readonly #clock: NodeJS.Timeout
  #error: Error | undefined
  #silentTicks = 0
  #isScheduled = false
  #isEnded = false

  constructor (socket: Socket, settings: ChannelSettings, events: ChannelEvents) {
    this.#socket = socket
    this.#settings = settings
    this.#events = events
    this.#handshake = new Handshake(settings.key, settings.side, settings.heartbeatMs)
    this.#splitter = new FrameSplitter(maxGreetingBytes, (body) => this.#receive(decode(body)))
    this.#clock = setInterval(() => this.#tick(), settings.heartbeatMs)
    socket.on('data', (chunk: Buffer) => this.#read(chunk))
    socket.on('drain', () => socket.resume())
    socket.on('error', (error) => { this.#error = error })
    socket.on('close', () => this.#end('closed', this.#error))
    this.send(this.#handshake.hello())
  }

  /** @throws what `encode` throws */
  send (frame: Frame): void {
    if (this.#isEnded) return
    encode(this.#writer, frame)
    if (this.#writer.size >= earlyFlushBytes) this.#flush()
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      this.#flush()
    })
  }

  /** Sends what is left to send and ends the connection, within the time. Nothing is received any more. */
  async close (timeoutMs: number): Promise<void> {
    this.#flush()
    this.#stop()
    if (this.#socket.closed) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => this.#socket.destroy(), timeoutMs)
      this.#socket.once('close', () => {
        clearTimeout(timer)
        resolve()
      })
      this.#socket.destroySoon()
    })
  }

  #flush (): void {
    if (this.#isEnded || this.#writer.size === 0) return
    const chunks = this.#writer.take()
    if (chunks.length > 1) this.#socket.cork()
    for (const chunk of chunks) this.#socket.write(chunk)
    if (chunks.length > 1) this.#socket.uncork()
    // The system has taken it all.
    if (this.#socket.writableLength === 0) this.#writer.reuse()
  }

  #read (chunk: Buffer): void {
    this.#silentTicks = 0
    try {
      this.#splitter.push(chunk)
    } catch (error) {
      this.#end('refused', error as Error)
      return
    }
    // Never on both sides, or each would wait for the other.
    if (this.#settings.side === 'owner' && this.#socket.writableLength > maxUnreadBytes) this.#socket.pause()
  }

  #receive (frame: Frame): void {
    if (this.#handshake.isDone) {
      if (frame.type !== 'beat') this.#events.onFrame(frame)
      return
    }
    const answer = this.#handshake.take(frame)
    if (answer !== undefined) this.send(answer)
    if (!this.#handshake.isDone) return
    this.#splitter.maxBytes = maxFrameBytes
    this.#events.onOpen()
  }

  // Ticks are counted, not time: who was stopped or busy himself would find all others silent, until the loop
  // gets around to reading what they have sent meanwhile.
  #tick (): void {
    this.#silentTicks++
    const { heartbeatMs, silenceMs } = this.#settings
    const { isDone, peerHeartbeatMs } = this.#handshake
    // What is configured to beat more slowly than we expect is not silent.
    if (this.#silentTicks * heartbeatMs >= Math.max(silenceMs, isDone ? 3 * peerHeartbeatMs : 0)) {
      this.#end('silent', undefined)
      return
    }
    if (isDone) this.send({ type: 'beat' })
  }

  #end (reason: ChannelEnd['reason'], error: Error | undefined): void {
    if (this.#isEnded) return
    this.#stop()
    this.#socket.destroy()
    this.#events.onEnd({ reason, error, wasOpen: this.#handshake.isDone })
  }

  #stop (): void {
    this.#isEnded = true
    this.#splitter.stop()
    clearInterval(this.#clock)
  }
}
