import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { describeError, errorCode, errors } from '../errors.ts'
import type { ChannelEnd } from './channel.ts'
import { within } from './deadline.ts'
import { directoryOf, ensureDirectory, groupKey, isCode, socketName, unusable, type Meeting } from './directory.ts'
import { Election, type Seat } from './election.ts'
import { Membership } from './member.ts'
import { closeServer, openServer, type OwnerPort } from './owner.ts'
import type { ForwardedPublish, Parcel } from './protocol.ts'
import { Relay, type Patience, type RelayLimits } from './relay.ts'
import { Tenure } from './tenure.ts'

/** What a process is in its group. */
export type Role = 'owner' | 'member'

export interface GroupSettings extends Meeting, RelayLimits {
  readonly heartbeatMs: number
  /** Milliseconds without a sign of life after which another process takes the connection over. */
  readonly ownerTimeoutMs: number
  /** Milliseconds that `close` waits for what is being published. */
  readonly drainTimeoutMs: number
}

/** What the group needs from the engine, which connects while this process is the owner, and only then. */
export interface GroupHooks extends OwnerPort {
  /** Connect: this process is the owner now. Ask `holdsOwnership` before every later attempt. */
  becomeOwner (): void
  /**
   * Disconnect, without a will, and keep the session. `lost`: another process has taken over, so at once and
   * without finishing anything. `closing`: let what runs come to its end first.
   */
  resign (reason: 'lost' | 'closing'): Promise<void>
  /** How the connection is, as plain data: what the members are told. */
  state (): unknown
  /** The role has changed; undefined while an owner is elected. */
  onRole (role: Role | undefined): void
  /** In a member: how the connection of the owner is. */
  onState (state: unknown): void
  /** Something needs somebody's attention; the group goes on trying. The same is not told twice in a row. */
  onTrouble (error: Error): void
}

/** How long `close` waits for the owner to see that a member has gone. */
const goodbyeMs = 500
/** Between attempts to find or become an owner. */
const shortestPauseMs = 5
const longestPauseMs = 1_000

/**
 * Joins the group of this name on this machine, and takes part in it until `close()`: its processes elect an
 * owner, who alone has the connection to the broker. `publish` and `call` do the same in all of them.
 *
 * @param relay what may have been asked for already, and waits for an owner
 * @throws `FST_MQTT_GROUP_DIRECTORY`
 */
export function joinGroup (settings: GroupSettings, hooks: GroupHooks, relay = new Relay(settings)): Group {
  const directory = directoryOf(settings)
  ensureDirectory(directory)
  groupKey(directory)
  return new Group(directory, settings, hooks, relay)
}

/**
 * The client identifier of a group, the same whoever is the owner, another one on each machine.
 *
 * @throws `FST_MQTT_GROUP_DIRECTORY`
 */
export function groupClientId (meeting: Meeting): string {
  return clientIdOf(meeting.group, directoryOf(meeting))
}

/** This process in its group; see `joinGroup`. */
export class Group {
  /** The client identifier of the presence: the same whoever is the owner, another one on each machine. */
  readonly clientId: string
  readonly #directory: string
  readonly #settings: GroupSettings
  readonly #hooks: GroupHooks
  readonly #election: Election
  readonly #relay: Relay
  readonly #running: Promise<void>
  readonly #onRole: (() => void)[] = []
  #role: Role | undefined
  #state: unknown
  #trouble: Error | undefined
  #tenure: Tenure | undefined
  #membership: Membership | undefined
  #resigning = Promise.resolve()
  #mayLead = true
  #isClosed = false
  #closing: Promise<void> | undefined
  #wake: () => void = () => {}

  constructor (directory: string, settings: GroupSettings, hooks: GroupHooks, relay: Relay) {
    this.clientId = clientIdOf(settings.group, directory)
    this.#directory = directory
    this.#settings = settings
    this.#hooks = hooks
    this.#election = new Election(directory)
    this.#relay = relay
    this.#running = this.#run()
  }

  /** Undefined while an owner is elected, and after `close()`. */
  get role (): Role | undefined {
    return this.#role
  }

  /** How the owner's connection is, as its engine says; undefined while there is no owner. */
  get state (): unknown {
    return this.#role === 'owner' ? this.#hooks.state() : this.#state
  }

  /** What keeps this process from a role; undefined when it has one. */
  get trouble (): Error | undefined {
    return this.#role === undefined ? this.#trouble : undefined
  }

  /** Resolves with the first role. Rejects with `FST_MQTT_CLOSED` if there was none before `close()`. */
  async joined (): Promise<Role> {
    while (this.#role === undefined) {
      if (this.#isClosed) throw new errors.FST_MQTT_CLOSED(`the group '${this.#settings.group}'`)
      await new Promise<void>((resolve) => this.#onRole.push(resolve))
    }
    return this.#role
  }

  /** Publishes by the owner, wherever it is: see `Relay.publish` for how it rejects. */
  publish (publish: ForwardedPublish, patience: Patience): Promise<void> {
    return this.#relay.publish(publish, patience)
  }

  /** Has the owner's engine do something by its name, wherever it is. */
  call (name: string, parcel: Parcel, patience: Patience): Promise<Parcel> {
    return this.#relay.call(name, parcel, patience)
  }

  /** To be called by the owner's engine when its state has changed; members are told at once. */
  stateChanged (): void {
    this.#tenure?.announce()
  }

  /**
   * To be asked by the owner's engine before every connect: if another process has taken over meanwhile, a
   * connect would take the session away from it. When the answer is no, `resign` has been called.
   */
  holdsOwnership (): boolean {
    return this.#tenure?.check() ?? false
  }

  /**
   * Leaves the group, and hands the connection over if it is ours. Settles all promises, in bounded time.
   *
   * @param drainMs milliseconds for what is being published; default `drainTimeoutMs`
   */
  async close (drainMs = this.#settings.drainTimeoutMs): Promise<void> {
    await (this.#closing ??= this.#close(drainMs))
  }

  /** Leaves the group at once. What waits in this process waits on, for the next group with this relay. */
  async leave (): Promise<void> {
    await (this.#closing ??= this.#leave())
  }

  async #close (drainMs: number): Promise<void> {
    this.#mayLead = false
    if (this.#tenure === undefined) await this.#relay.flush(drainMs)
    this.#isClosed = true
    await this.#tenure?.close(2 * drainMs + 1_000)
    this.#relay.close()
    await this.#end(drainMs)
  }

  async #leave (): Promise<void> {
    this.#mayLead = false
    this.#isClosed = true
    this.#tenure?.stepDown()
    this.#relay.detach()
    await this.#end(2 * goodbyeMs)
  }

  async #end (drainMs: number): Promise<void> {
    await this.#membership?.close(goodbyeMs)
    this.#wake()
    await this.#running
    await within(this.#resigning, drainMs)
    this.#setRole(undefined)
    this.#tellWhoWaits()
  }

  async #run (): Promise<void> {
    let fruitless = 0
    while (!this.#isClosed) {
      try {
        fruitless = await this.#takePart() ? 0 : fruitless + 1
        // Mostly somebody else was faster, and is there now.
        if (fruitless > 1) await this.#pause(shortestPauseMs * 2 ** fruitless)
      } catch (error) {
        this.#complain(error)
        await this.#pause(longestPauseMs)
      }
    }
  }

  /** Is a member or the owner, for as long as that goes well. @returns false if it was neither */
  async #takePart (): Promise<boolean> {
    ensureDirectory(this.#directory)
    const key = groupKey(this.#directory)
    const seat = this.#election.current()
    if (seat === undefined) return await this.#lead(0, key)
    const since = performance.now()
    const { reason, error, wasMember } = await this.#follow(seat, key)
    switch (reason) {
      case 'refused': break
      case 'silent': return await this.#lead(seat.term, key)
      case 'closed':
        // One that takes us in only to throw us out, again and again, is not to be asked without a pause.
        if (wasMember) return performance.now() - since > this.#settings.heartbeatMs
        if (isCode(error, 'ECONNREFUSED', 'ENOENT')) return await this.#lead(seat.term, key, seat.socketPath)
        // It died just now, or so many connect at once that there is no room.
        if (error === undefined || isCode(error, 'ECONNRESET', 'EPIPE', 'EAGAIN')) return false
    }
    throw error
  }

  async #follow (seat: Seat, key: Buffer): Promise<ChannelEnd & { readonly wasMember: boolean }> {
    const end = await new Promise<ChannelEnd>((resolve) => {
      this.#wake = () => resolve({ reason: 'closed', error: undefined, wasOpen: true })
      this.#membership = new Membership(seat.socketPath, this.#channelSettings(key), this.#relay, {
        onState: (state) => {
          this.#state = state
          this.#setRole('member')
          this.#hooks.onState(state)
        },
        onEnd: resolve
      })
    })
    const wasMember = this.#role === 'member'
    this.#membership = undefined
    this.#state = undefined
    this.#setRole(undefined)
    return { ...end, wasMember }
  }

  async #lead (lastTerm: number, key: Buffer, deadSocketPath?: string): Promise<boolean> {
    // The engine may still be about to disconnect.
    await within(this.#resigning, this.#settings.drainTimeoutMs)
    const path = join(this.#directory, socketName())
    const server = await openServer(path, (error) => this.#complain(error))
    // Claimed last: whoever finds the seat finds somebody who listens.
    const seat = this.#claim(lastTerm, path, deadSocketPath)
    if (seat === undefined) {
      await closeServer(server)
      return false
    }
    this.#tenure = new Tenure(seat, this.#election, server, this.#channelSettings(key), this.#relay, {
      publish: (publish, patience) => this.#hooks.publish(publish, patience),
      call: (name, parcel, patience) => this.#hooks.call(name, parcel, patience),
      state: () => this.#hooks.state(),
      resign: (reason) => this.#resign(reason),
      onTrouble: (error) => this.#complain(error)
    })
    this.#setRole('owner')
    this.#hooks.becomeOwner()
    await this.#tenure.over
    this.#tenure = undefined
    this.#setRole(undefined)
    return true
  }

  #claim (lastTerm: number, socketPath: string, deadSocketPath: string | undefined): Seat | undefined {
    if (!this.#mayLead) return undefined
    try {
      return this.#election.claim(lastTerm, socketPath, deadSocketPath)
    } catch (error) {
      this.#complain(error)
      return undefined
    }
  }

  async #resign (reason: 'lost' | 'closing'): Promise<void> {
    this.#resigning = this.#hooks.resign(reason).catch((error: unknown) => this.#complain(error))
    await this.#resigning
  }

  #channelSettings (key: Buffer) {
    const { heartbeatMs, ownerTimeoutMs } = this.#settings
    return { key, heartbeatMs, silenceMs: ownerTimeoutMs }
  }

  #setRole (role: Role | undefined): void {
    if (role !== undefined) this.#trouble = undefined
    if (role === this.#role) return
    this.#role = role
    this.#hooks.onRole(role)
    this.#tellWhoWaits()
  }

  #tellWhoWaits (): void {
    for (const resolve of this.#onRole.splice(0)) resolve()
  }

  #complain (error: unknown): void {
    // What is none of ours comes from the system, and the directory is all that is asked of it.
    const trouble = isOurs(error) ? error : unusable(this.#directory, error)
    const isNew = this.#trouble === undefined || describeError(this.#trouble) !== describeError(trouble)
    this.#trouble = trouble
    if (isNew) this.#hooks.onTrouble(trouble)
  }

  async #pause (delayMs: number): Promise<void> {
    if (this.#isClosed) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.min(delayMs, longestPauseMs))
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

function isOurs (error: unknown): error is Error {
  return errorCode(error).startsWith('FST_')
}

/** By host and directory: two groups that do not know of each other must not take each other's session. */
function clientIdOf (group: string, directory: string): string {
  const hash = createHash('sha256').update(JSON.stringify([hostname(), directory])).digest('hex').slice(0, 8)
  return `${group}-${hash}`
}
