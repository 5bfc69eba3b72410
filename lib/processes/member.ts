import { connect } from 'node:net'
import { Channel, type ChannelEnd, type ChannelSettings } from './channel.ts'
import { errorOf } from './failures.ts'
import { unexpected, type Frame } from './protocol.ts'
import type { Relay, Route, Task } from './relay.ts'

/** What a membership tells the group. */
export interface MembershipEvents {
  /** The owner has taken us in, and says how its connection is; later it says so whenever that changes. */
  onState (state: unknown): void
  /** Comes once, and last; not after `close()`. */
  onEnd (end: ChannelEnd): void
}

/** A process under an owner: what it publishes goes over a socket to the owner, which answers. */
export class Membership implements Route {
  readonly #relay: Relay
  readonly #events: MembershipEvents
  readonly #channel: Channel
  #isIn = false

  constructor (
    socketPath: string, settings: Omit<ChannelSettings, 'side'>, relay: Relay, events: MembershipEvents
  ) {
    this.#relay = relay
    this.#events = events
    this.#channel = new Channel(connect(socketPath), { ...settings, side: 'member' }, {
      // The owner speaks first: how its connection is.
      onOpen: () => {},
      onFrame: (frame) => this.#receive(frame),
      onEnd: (end) => {
        if (this.#isIn) relay.detach()
        events.onEnd(end)
      }
    })
  }

  send (task: Task, timeoutMs: number): void {
    const { id, operation } = task
    const isAbortable = task.signal !== undefined
    if (operation.type === 'publish') {
      this.#channel.send({ type: 'publish', id, timeoutMs, isAbortable, publish: operation.publish })
    } else {
      const { name, parcel } = operation
      this.#channel.send({ type: 'call', id, timeoutMs, isAbortable, name, parcel })
    }
  }

  cancel ({ id, signal }: Task): void {
    if (signal !== undefined) this.#channel.send({ type: 'cancel', id })
  }

  async close (timeoutMs: number): Promise<void> {
    await this.#channel.close(timeoutMs)
  }

  #receive (frame: Frame): void {
    switch (frame.type) {
      case 'done':
      case 'reply':
      case 'declined': return this.#relay.answer(frame.id, frame)
      case 'failed': return this.#relay.answer(frame.id, { type: 'failed', error: errorOf(frame.failure) })
      case 'leaving': return this.#relay.hold()
      case 'state':
        if (!this.#isIn) this.#relay.attach(this)
        this.#isIn = true
        return this.#events.onState(frame.state)
      case 'publish':
      case 'call':
      case 'cancel':
      case 'hello':
      case 'proof':
      case 'beat':
        throw unexpected(frame)
    }
  }
}
