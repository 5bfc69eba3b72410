import type { Server } from 'node:net'
import type { ChannelSettings } from './channel.ts'
import { within } from './deadline.ts'
import type { Election, Seat } from './election.ts'
import { Desk, type OwnerPort } from './owner.ts'
import type { Relay, Route, Task } from './relay.ts'

/** What a tenure needs from the group, and from the engine behind it. */
export interface TenureHooks extends OwnerPort {
  state (): unknown
  /** Never rejects. */
  resign (reason: 'lost' | 'closing'): Promise<void>
  onTrouble (error: unknown): void
}

/** How long members are waited for when the connections to them end. */
const goodbyeMs = 500
const refreshMs = 3_600_000

/** The time in which this process is the owner: it serves the members, and looks whether it still is. */
export class Tenure implements Route {
  /** Resolves when it is over. */
  readonly over: Promise<void>
  readonly #seat: Seat
  readonly #election: Election
  readonly #relay: Relay
  readonly #hooks: TenureHooks
  readonly #desk: Desk
  readonly #clock: NodeJS.Timeout
  #end: () => void = () => {}
  #isClosing = false
  #isOver = false
  #stateJson: string
  #refreshAt = Date.now() + refreshMs

  /** @param server listens on the socket of the seat */
  constructor (
    seat: Seat,
    election: Election,
    server: Server,
    settings: Omit<ChannelSettings, 'side'>,
    relay: Relay,
    hooks: TenureHooks
  ) {
    this.#seat = seat
    this.#election = election
    this.#relay = relay
    this.#hooks = hooks
    const state = hooks.state()
    this.#stateJson = JSON.stringify(state)
    this.#desk = new Desk(server, settings, hooks, state, (error) => hooks.onTrouble(error))
    this.#clock = setInterval(() => this.#tick(), settings.heartbeatMs)
    this.over = new Promise((resolve) => { this.#end = resolve })
    relay.attach(this)
  }

  /** One of our own operations, which goes to the engine without a detour. */
  send ({ id, operation, signal }: Task, timeoutMs: number): void {
    const patience = { timeoutMs, signal }
    // What fails by the end of the tenure goes to the next owner.
    const fail = (error: Error) => { if (!this.#isOver) this.#relay.answer(id, { type: 'failed', error }) }
    if (operation.type === 'publish') {
      this.#hooks.publish(operation.publish, patience).then(() => this.#relay.answer(id, { type: 'done' }), fail)
    } else {
      this.#hooks.call(operation.name, operation.parcel, patience)
        .then((parcel) => this.#relay.answer(id, { type: 'reply', parcel }), fail)
    }
  }

  /** The engine has the signal and the time itself. */
  cancel (): void {}

  /** Whether we still are the owner; if not, the tenure ends here. To be asked before every connect. */
  check (): boolean {
    if (this.#isOver) return false
    if (this.#isHeld()) return true
    if (!this.#isClosing) this.stepDown()
    return false
  }

  /** Tells the members how the connection is, if that has changed. */
  announce (): void {
    const state = this.#hooks.state()
    const json = JSON.stringify(state)
    if (json === this.#stateJson) return
    this.#stateJson = json
    this.#desk.announce(state)
  }

  /** Hands over: what runs ends, what comes goes to the next owner, who can be elected when this resolves. */
  async close (timeoutMs: number): Promise<void> {
    this.#isClosing = true
    clearInterval(this.#clock)
    this.#desk.leave()
    await within(this.#hooks.resign('closing'), timeoutMs)
    await this.#desk.close(goodbyeMs)
    this.#isOver = true
    this.#end()
  }

  /** Lets go at once: another process has taken over, or is to. What this one asked for goes to the next. */
  stepDown (): void {
    if (this.#isOver) return
    this.#isOver = true
    clearInterval(this.#clock)
    this.#relay.detach()
    // Before the engine lets go: what fails by that is not to be told to members, who ask the next owner.
    void this.#desk.close(0)
    void this.#hooks.resign('lost')
    this.#end()
  }

  #isHeld (): boolean {
    try {
      return this.#election.isHeld(this.#seat)
    } catch (error) {
      // Without the directory nobody else can have taken over, and the members are connected.
      this.#hooks.onTrouble(error)
      return true
    }
  }

  #tick (): void {
    if (!this.check()) return
    this.announce()
    if (Date.now() < this.#refreshAt) return
    this.#refreshAt = Date.now() + refreshMs
    try {
      this.#election.refresh(this.#seat)
    } catch (error) {
      this.#hooks.onTrouble(error)
    }
  }
}
