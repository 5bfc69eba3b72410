import { chmodSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { errorCode } from '../errors.ts'
import { Channel, type ChannelEnd, type ChannelSettings } from './channel.ts'
import { failureOf } from './failures.ts'
import {
  unexpected, type CallFrame, type ForwardedPublish, type Frame, type Parcel, type PublishFrame
} from './protocol.ts'
import type { Patience } from './relay.ts'

/** What the owner does for all processes of its group: the engine, which has the connection. */
export interface OwnerPort {
  /** Settles as the broker answers. What comes from another process has to be checked as our own. */
  publish (publish: ForwardedPublish, patience: Patience): Promise<void>
  /** An operation by its name. */
  call (name: string, parcel: Parcel, patience: Patience): Promise<Parcel>
}

/** Where the members of a group are served, in the process of the owner. */
export class Desk {
  readonly #server: Server
  readonly #settings: Omit<ChannelSettings, 'side'>
  readonly #port: OwnerPort
  readonly #onRefused: (error: Error) => void
  readonly #visitors = new Set<Visitor>()
  #state: unknown
  #isLeaving = false

  /** @param server listens already */
  constructor (
    server: Server,
    settings: Omit<ChannelSettings, 'side'>,
    port: OwnerPort,
    state: unknown,
    onRefused: (error: Error) => void
  ) {
    this.#server = server
    this.#settings = settings
    this.#port = port
    this.#state = state
    this.#onRefused = onRefused
    server.on('connection', (socket) => this.#receive(socket))
  }

  /** Tells all members how the connection is. */
  announce (state: unknown): void {
    this.#state = state
    for (const visitor of this.#visitors) visitor.announce(state)
  }

  /** Takes no more operations; those that run go on, and are answered. */
  leave (): void {
    this.#isLeaving = true
    for (const visitor of this.#visitors) visitor.leave()
  }

  /** Sends the last answers, ends all connections, and removes the socket. */
  async close (timeoutMs: number): Promise<void> {
    const closed = closeServer(this.#server)
    await Promise.all([...this.#visitors].map(async (visitor) => await visitor.close(timeoutMs)))
    this.#visitors.clear()
    await closed
  }

  #receive (socket: Socket): void {
    const visitor = new Visitor(socket, this.#settings, this.#port, {
      onOpen: () => {
        visitor.announce(this.#state)
        if (this.#isLeaving) visitor.leave()
      },
      onEnd: ({ reason, error }) => {
        this.#visitors.delete(visitor)
        if (reason === 'refused' && error !== undefined) this.#onRefused(error)
      }
    })
    this.#visitors.add(visitor)
  }
}

interface VisitorEvents {
  onOpen (): void
  onEnd (end: ChannelEnd): void
}

/** One connection to the desk. */
class Visitor {
  readonly #port: OwnerPort
  readonly #channel: Channel
  readonly #abortable = new Map<number, AbortController>()
  #isOpen = false
  #isLeaving = false

  constructor (socket: Socket, settings: Omit<ChannelSettings, 'side'>, port: OwnerPort, events: VisitorEvents) {
    this.#port = port
    this.#channel = new Channel(socket, { ...settings, side: 'owner' }, {
      onOpen: () => {
        this.#isOpen = true
        events.onOpen()
      },
      onFrame: (frame) => this.#receive(frame),
      // What it has asked for goes on: it may be a publish that was to be its last word.
      onEnd: (end) => events.onEnd(end)
    })
  }

  announce (state: unknown): void {
    if (this.#isOpen) this.#channel.send({ type: 'state', state })
  }

  leave (): void {
    this.#isLeaving = true
    if (this.#isOpen) this.#channel.send({ type: 'leaving' })
  }

  async close (timeoutMs: number): Promise<void> {
    await this.#channel.close(timeoutMs)
  }

  #receive (frame: Frame): void {
    if (frame.type === 'cancel') {
      this.#abortable.get(frame.id)?.abort()
      return
    }
    if (frame.type !== 'publish' && frame.type !== 'call') throw unexpected(frame)
    if (this.#isLeaving) this.#channel.send({ type: 'declined', id: frame.id })
    else this.#serve(frame)
  }

  #serve (frame: PublishFrame | CallFrame): void {
    const { id, timeoutMs, isAbortable } = frame
    const patience = { timeoutMs, signal: isAbortable ? this.#signalFor(id) : undefined }
    const fail = (error: unknown) => this.#fail(id, error)
    if (frame.type === 'publish') {
      this.#port.publish(frame.publish, patience).then(() => this.#answer({ type: 'done', id }), fail)
    } else {
      this.#port.call(frame.name, frame.parcel, patience)
        .then((parcel) => this.#answer({ type: 'reply', id, parcel })).catch(fail)
    }
  }

  #signalFor (id: number): AbortSignal {
    const controller = new AbortController()
    this.#abortable.set(id, controller)
    return controller.signal
  }

  #answer (frame: Frame & { readonly id: number }): void {
    this.#abortable.delete(frame.id)
    this.#channel.send(frame)
  }

  #fail (id: number, error: unknown): void {
    // Of what our own end has cut off the next owner will know more.
    if (this.#isLeaving && endings.includes(errorCode(error))) return
    this.#answer({ type: 'failed', id, failure: failureOf(error) })
  }
}

const endings: readonly string[] = ['FST_MQTT_CLOSED', 'FST_MQTT_DELIVERY_UNKNOWN']

/**
 * Listens on a socket that no other user can reach.
 *
 * @param onError is told of connections that the system does not let us accept
 */
export async function openServer (path: string, onError: (error: Error) => void): Promise<Server> {
  const server = createServer()
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      // In node:cluster the primary would listen instead, for all workers.
      server.listen({ path, exclusive: true }, resolve)
    })
    chmodSync(path, 0o600)
    // Unheard it would be the end of the process.
    server.on('error', onError)
    return server
  } catch (error) {
    server.close()
    throw error
  }
}

/** Ends a server; its socket file is gone then. */
export async function closeServer (server: Server): Promise<void> {
  await new Promise<void>((resolve) => server.close(() => resolve()))
}
