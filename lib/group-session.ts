import type { Stats, Status } from '../types/status.ts'
import type { BrokerSession } from './broker-session.ts'
import { describeError, errorCode, errors } from './errors.ts'
import { topicNameProblem } from './guard.ts'
import type { Settings } from './options/settings.ts'
import { joinGroup, type Group, type GroupHooks, type GroupSettings, type Role } from './processes/group.ts'
import type { ForwardedPublish } from './processes/protocol.ts'
import { Relay, type Task } from './processes/relay.ts'
import type { Patience } from './session/job.ts'
import type { OutgoingPublish } from './session/link.ts'
import { sentProperties } from './session/publish.ts'

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
  #group: Group | undefined
  #wasJoined = false
  #wasUp = false
  #isDraining = false
  #hasFailed = false
  #isClosed = false
  /** Resolves when the first attempt to connect as the owner has ended. */
  #tried: Promise<void>
  #onTried: () => void = () => {}
  #flushMs = 0
  readonly #waiting: (() => void)[] = []
  readonly #operations = new Map<string, Operation>()
  /** What is published while this process takes no part. */
  readonly #early: Relay

  constructor (settings: Settings, groupSettings: GroupSettings, host: GroupSessionHost) {
    this.#settings = settings
    this.#groupSettings = groupSettings
    this.#host = host
    this.#own = host.own
    this.#early = new Relay(groupSettings)
    this.#tried = this.#attempt()
  }

  get role (): Role | undefined {
    return this.#group?.role
  }

  /** False if another process has taken over: then a connect would take the session away from it. */
  get mayConnect (): boolean {
    return this.#group?.holdsOwnership() === true
  }

  /** Of the owner's connection; 5 while that is not known. */
  get version (): 4 | 5 {
    return this.role === 'owner' ? this.#own.version : this.#shared?.health.protocolVersion ?? 5
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
    return { ...own, outbox: { ...(this.#group ?? this.#early).waiting, dropped: own.outbox.dropped } }
  }

  publish (publish: OutgoingPublish, patience: Patience): Promise<void> {
    // By a relay in the owner, too, so that it goes to the next one if this process loses the connection.
    if (this.#group === undefined) return this.#early.publish(publish, patience)
    if (this.role === 'owner') return this.#group.publish(publish, patience)
    const properties = sentProperties(publish, this.version)
    const { topic, payload, qos, retain } = publish
    if (this.version === 4 && publish.properties !== undefined) {
      return Promise.reject(new errors.FST_MQTT_NEEDS_MQTT5('Properties of a publish'))
    }
    return this.#group.publish({ topic, payload, qos, retain, properties }, patience)
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
    if (this.#group !== undefined) return
    this.#group = joinGroup(this.#groupSettings, this.#hooks())
    // The group has the signals itself.
    this.#early.attach({ send: (task, timeoutMs) => this.#passOn(task, timeoutMs), cancel () {} })
  }

  /**
   * Joins the group and waits until the owner, whoever it is, is connected with every subscription answered.
   *
   * @throws rejects with `FST_MQTT_GROUP_DIRECTORY`, `FST_MQTT_CONNECT_FAILED`, `FST_MQTT_CLOSED`
   */
  async start (): Promise<void> {
    const isOurs = this.#group === undefined
    this.open()
    const { connectTimeoutMs } = this.#settings
    const deadline = performance.now() + connectTimeoutMs
    while (!this.#isStarted) {
      const leftMs = deadline - performance.now()
      const isEnding = this.#isClosed || this.#isDraining
      if (isEnding || leftMs <= 0 || this.#isHopeless) {
        const error = isEnding ? this.#closedError() : this.#startError()
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
    const group = this.#group
    if (group !== undefined) await group.close(flushMs)
    this.#early.close()
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
    await this.#group?.close(0)
    this.#group = undefined
    this.#early.detach()
    this.#wasJoined = false
  }

  get #shared (): SharedState | undefined {
    return this.role === 'member' ? this.#group?.state as SharedState | undefined : undefined
  }

  get #isStarted (): boolean {
    const { status, health } = this
    return status === 'ready' && health.subscriptions.pending.length === 0
  }

  /** What keeps us from the broker would keep us from it with each other attempt. */
  get #isHopeless (): boolean {
    return this.role === 'owner' && this.#own.isHopeless
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
      state: (): SharedState => ({ status: this.#own.status, health: shortened(this.#own.health) }),
      onRole: (role) => {
        if (role !== undefined) this.#wasJoined = true
        this.#host.onRole(role)
        if (role !== 'member') this.#noteMember(false)
        this.#changed()
      },
      onState: () => {
        this.#noteMember(this.#shared?.status === 'ready')
        this.#changed()
      },
      onTrouble: (error) => {
        this.#host.onTrouble(error)
        this.#changed()
      }
    }
  }

  #attempt (): Promise<void> {
    return new Promise((resolve) => { this.#onTried = resolve })
  }

  async #resign (reason: 'lost' | 'closing'): Promise<void> {
    this.#onTried()
    // After a failed start the connection can be opened again.
    if (reason === 'closing' && !this.#hasFailed) return await this.#own.close(this.#flushMs)
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

  /** What was published early. */
  #passOn ({ id, operation, signal }: Task, timeoutMs: number): void {
    if (operation.type !== 'publish') return
    this.publish(operation.publish, { timeoutMs, signal }).then(
      () => this.#early.answer(id, { type: 'done' }),
      (error: Error) => this.#early.answer(id, { type: 'failed', error }))
  }

  /** What another process has sent is checked as our own. */
  #publishForGroup (publish: ForwardedPublish, patience: Patience): Promise<void> {
    const problem = topicNameProblem(publish.topic)
    if (problem !== undefined) return Promise.reject(new errors.FST_MQTT_TOPIC_NAME(publish.topic, problem))
    return this.#own.publish(asOwn(publish), patience)
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
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  #startError (): Error {
    const { lastError, attempts } = this.health
    const trouble = this.#group?.trouble
    const reason = trouble?.message ?? (this.status === 'ready' ? undefined : lastError?.message) ?? this.#silence
    return new errors.FST_MQTT_CONNECT_FAILED(
      this.#settings.address.text,
      this.#settings.connectTimeoutMs,
      attempts === 1 ? '1 attempt' : `${attempts} attempts`,
      reason,
      { cause: trouble }
    )
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

/** The content type of a codec came among the properties; alone, it is left out on MQTT 3.1.1. */
function asOwn (publish: ForwardedPublish): OutgoingPublish {
  const { properties } = publish
  if (properties?.contentType === undefined) return publish
  const { contentType, ...others } = properties
  const isAlone = Object.values(others).every((value) => value === undefined)
  return isAlone ? { ...publish, contentType, properties: undefined } : publish
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
