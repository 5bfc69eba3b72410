import type { Stats, Status } from '../types/status.ts'
import type { BrokerSession } from './broker-session.ts'
import { describeError, errorCode, errors } from './errors.ts'
import { topicNameProblem } from './guard.ts'
import type { Settings } from './options/settings.ts'
import { joinGroup, type Group, type GroupHooks, type GroupSettings, type Role } from './processes/group.ts'
import { errorOf, failureOf, type Failure } from './processes/failures.ts'
import type { ForwardedPublish } from './processes/protocol.ts'
import { Relay } from './processes/relay.ts'
import type { Patience } from './session/job.ts'
import type { OutgoingPublish } from './session/link.ts'

/** What a group needs of the engine. */
export interface GroupSessionHost {
  /** The session that is open while this process is the owner. */
  readonly own: BrokerSession
  onRole (role: Role | undefined): void
  /** In a member: the owner has connected, or lost the connection. */
  onMemberUp (): void
  onMemberDown (cause: Error): void
  onTrouble (error: Error): void
}

/** What the owner does for a process of its group. */
type Operation = (data: unknown, patience: Patience) => Promise<unknown>

const noBytes = Buffer.alloc(0)

/** What the owner tells the members: plain data. */
interface SharedState {
  readonly status: Status
  readonly health: SessionHealth
  /** What the last attempt failed by, if each other one would. */
  readonly refusal: Failure | undefined
  readonly clientId: string
}

type SessionHealth = BrokerSession['health']

/**
 * The broker's side of an engine whose process is one of a group: the owner's session does what all of them
 * ask for, and the others have none.
 */
export class GroupSession {
  readonly #settings: Settings
  readonly #host: GroupSessionHost
  readonly #own: BrokerSession
  readonly #groupSettings: GroupSettings
  /** What of this process waits for an owner, also before it has joined, and after a start that failed. */
  readonly #relay: Relay
  #group: Group | undefined
  #wasJoined = false
  #wasUp = false
  /** There has been an owner that was connected, in the time of this process. */
  #wasReady = false
  /** The last one that was compared with ours. */
  #ownersClientId: string | undefined
  #isDraining = false
  #hasFailed = false
  #isClosed = false
  /** Resolves when the first attempt to connect as the owner has ended. */
  #tried: Promise<void>
  #onTried: () => void = () => {}
  #flushMs = 0
  readonly #waiting: (() => void)[] = []
  readonly #operations = new Map<string, Operation>()

  constructor (settings: Settings, groupSettings: GroupSettings, host: GroupSessionHost) {
    this.#settings = settings
    this.#groupSettings = groupSettings
    this.#relay = new Relay(groupSettings)
    this.#host = host
    this.#own = host.own
    this.#tried = this.#attempt()
  }

  get role (): Role | undefined {
    return this.#group?.role
  }

  /** False if another process has taken over: then a connect would take the session away from it. */
  get mayConnect (): boolean {
    return this.#group?.holdsOwnership() === true
  }

  get status (): Status {
    if (this.#isClosed || this.#hasFailed) return 'closed'
    if (this.#isDraining) return 'draining'
    if (this.#group === undefined) return 'idle'
    if (this.role === 'owner') return this.#own.status
    return this.#shared?.status ?? (this.#wasJoined ? 'offline' : 'connecting')
  }

  get health (): SessionHealth {
    if (this.role === 'owner') return this.#own.health
    const trouble = this.#group?.trouble
    const shared = this.#shared?.health ?? this.#own.health
    // JSON has left out what is undefined.
    const { protocolVersion, lastError } = shared
    if (trouble === undefined) return { ...shared, protocolVersion, lastError }
    const own = { code: errorCode(trouble), message: describeError(trouble) }
    return { ...shared, protocolVersion, lastError: own }
  }

  /** What waits in this process; in the owner also for the others. */
  get counters (): Pick<Stats, 'unacked' | 'outbox'> {
    const own = this.#own.counters
    if (this.role === 'owner') return own
    return { ...own, outbox: { ...this.#relay.waiting, dropped: own.outbox.dropped } }
  }

  /** By the owner, whoever it is now, or will be. Rejects as `Relay.publish`. */
  publish (publish: OutgoingPublish, patience: Patience): Promise<void> {
    return this.#relay.publish(publish, patience)
  }

  /** Says how the owner does an operation, whichever process asks for it. */
  serve (name: string, operation: Operation): void {
    this.#operations.set(name, operation)
  }

  /** Has the owner do an operation; what it takes and gives has to have JSON. */
  async call (name: string, data: unknown, patience: Patience): Promise<unknown> {
    if (this.#group === undefined) throw new errors.FST_MQTT_OFFLINE(this.#settings.address.text)
    return (await this.#group.call(name, { data, bytes: noBytes }, patience)).data
  }

  /** Joins the group, and takes part in it until `close()`. @throws `FST_MQTT_GROUP_DIRECTORY` */
  open (): void {
    this.#hasFailed = false
    this.#group ??= joinGroup(this.#groupSettings, this.#hooks(), this.#relay)
  }

  /**
   * Joins the group and waits until the owner, whoever it is, is connected with every subscription answered.
   *
   * @param timeoutMs default `connectTimeout`
   * @throws rejects with `FST_MQTT_GROUP_DIRECTORY`, `FST_MQTT_CONNECT_FAILED`, `FST_MQTT_CLOSED`
   */
  async start (timeoutMs: number = this.#settings.connectTimeoutMs): Promise<void> {
    const isOurs = this.#group === undefined
    this.open()
    const deadline = performance.now() + timeoutMs
    while (!this.#isStarted) {
      const leftMs = deadline - performance.now()
      const isEnding = this.#isClosed || this.#isDraining
      if (isEnding || leftMs <= 0 || this.#isRefused) {
        const error = isEnding ? this.#closedError() : this.#startError(timeoutMs)
        if (isOurs) await this.#leave()
        throw error
      }
      await this.#change(leftMs)
    }
  }

  drain (): void {
    this.#own.drain()
    this.#isDraining = true
    this.#changed()
  }

  /** Leaves the group, and hands the connection over if it is ours. */
  async close (flushMs: number): Promise<void> {
    this.#flushMs = flushMs
    this.#isClosed = true
    this.#changed()
    await this.#group?.close(flushMs)
    // Also what waits for a group that this process was not in, or was about to leave.
    this.#relay.close()
    await this.#own.close(flushMs)
  }

  /** To be called by the own session when something about it has changed. */
  changed (): void {
    this.#onTried()
    this.#group?.stateChanged()
    this.#changed()
  }

  /** After a failed start: the others go on, and this process may join again. */
  async #leave (): Promise<void> {
    this.#hasFailed = true
    await this.#group?.leave()
    this.#group = undefined
    this.#wasJoined = false
  }

  get #shared (): SharedState | undefined {
    return this.role === 'member' ? this.#group?.state as SharedState | undefined : undefined
  }

  get #isStarted (): boolean {
    const { status, health } = this
    return status === 'ready' && health.subscriptions.pending.length === 0
  }

  /** Who has never been connected does not wait for an owner that the broker refuses. */
  get #isRefused (): boolean {
    return !this.#wasReady && (this.role === 'owner' ? this.#own.isRefused : this.#shared?.refusal !== undefined)
  }

  #hooks (): GroupHooks {
    return {
      publish: (publish, patience) => this.#publishForGroup(publish, patience),
      call: async (name, { data }, patience) => {
        const operation = this.#operations.get(name)
        if (operation === undefined) throw new errors.FST_MQTT_PEER_REFUSED(`there is no operation '${name}'`)
        // It may have waited for a new owner: then it waits for its connection too.
        await this.#tried
        return { data: await operation(data, patience), bytes: noBytes }
      },
      becomeOwner: () => this.#own.open(),
      resign: (reason) => this.#resign(reason),
      state: () => this.#stateForMembers(),
      onRole: (role) => {
        if (role !== undefined) this.#wasJoined = true
        this.#host.onRole(role)
        if (role !== 'member') this.#noteMember(false)
        this.#changed()
      },
      onState: () => {
        this.#compare(this.#shared)
        this.#noteMember(this.#shared?.status === 'ready')
        this.#changed()
      },
      onTrouble: (error) => {
        this.#host.onTrouble(error)
        this.#changed()
      }
    }
  }

  #stateForMembers (): SharedState {
    const { status, health, isRefused, lastError } = this.#own
    const refusal = isRefused && lastError !== undefined ? failureOf(lastError) : undefined
    return { status, health: shortened(health), refusal, clientId: this.#settings.clientId }
  }

  /** What the broker keeps for one client identifier is lost to a process that takes over with another. */
  #compare (shared: SharedState | undefined): void {
    const { clientId, processes } = this.#settings
    if (shared === undefined || shared.clientId === this.#ownersClientId) return
    this.#ownersClientId = shared.clientId
    if (shared.clientId === clientId || processes.mode !== 'single') return
    this.#host.onTrouble(new errors.FST_MQTT_GROUP_CLIENT_ID(processes.group, shared.clientId, clientId))
  }

  #attempt (): Promise<void> {
    return new Promise((resolve) => { this.#onTried = resolve })
  }

  async #resign (reason: 'lost' | 'closing'): Promise<void> {
    this.#onTried()
    if (reason === 'closing') return await this.#own.close(this.#flushMs)
    const wasUp = this.#own.isReady
    if (this.#hasFailed) await this.#own.abandon()
    else await this.#own.suspend()
    this.#tried = this.#attempt()
    if (!wasUp || this.#hasFailed) return
    this.#host.onMemberDown(new errors.FST_MQTT_CONNECTION('another process has taken the connection over'))
  }

  /** The hooks of a member hear of the owner's connection; not of their own process's end. */
  #noteMember (isUp: boolean): void {
    if (isUp === this.#wasUp) return
    this.#wasUp = isUp
    if (isUp) this.#host.onMemberUp()
    else if (this.role !== 'owner' && !this.#isClosed) this.#host.onMemberDown(this.#lostError())
  }

  /** What another process has sent is checked as our own. */
  #publishForGroup (publish: ForwardedPublish, patience: Patience): Promise<void> {
    const problem = topicNameProblem(publish.topic)
    if (problem !== undefined) return Promise.reject(new errors.FST_MQTT_TOPIC_NAME(publish.topic, problem))
    return this.#own.publish(publish, patience)
  }

  async #change (timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs)
      this.#waiting.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  #changed (): void {
    this.#wasReady ||= this.status === 'ready'
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  #startError (timeoutMs: number): Error {
    const { lastError, attempts } = this.health
    const reason = (this.status === 'ready' ? undefined : lastError?.message) ?? this.#silence
    return new errors.FST_MQTT_CONNECT_FAILED(
      this.#settings.address.text,
      Math.round(timeoutMs),
      attempts === 1 ? '1 attempt' : `${attempts} attempts`,
      reason,
      { cause: this.#startCause() }
    )
  }

  #startCause (): Error | undefined {
    if (this.role === 'owner') return this.#own.lastError
    const failure = this.#shared?.refusal ?? this.#shared?.health.lastError
    return this.#group?.trouble ?? (failure === undefined ? undefined : errorOf(failure))
  }

  /** What has not come, where nobody says why. */
  get #silence (): string {
    if (this.role === undefined) return 'no owner was elected'
    const { status, health: { subscriptions: { pending } } } = this
    return status === 'ready' ? `the broker did not answer the subscriptions ${pending.join(', ')}` : 'no answer'
  }

  #closedError (): Error {
    return new errors.FST_MQTT_CLOSED(this.#settings.address.text)
  }

  #lostError (): Error {
    const { lastError } = this.health
    return new errors.FST_MQTT_CONNECTION(lastError?.message ?? 'the process that has the connection is gone')
  }
}

/** Of so many filters of a kind the members are told: it goes to all of them with every change. */
const maxFilters = 200

function shortened (health: SessionHealth): SessionHealth {
  const { granted, refused, pending } = health.subscriptions
  const subscriptions = {
    granted: granted.slice(0, maxFilters),
    refused: refused.slice(0, maxFilters),
    pending: pending.slice(0, maxFilters)
  }
  return { ...health, subscriptions }
}
