import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import type { Dynsec } from '../types/dynsec.ts'
import type { InjectResult } from '../types/inject.ts'
import type { ListedTopic } from '../types/listing.ts'
import type { Mqtt } from '../types/mqtt.ts'
import type { Health, Stats, Status } from '../types/status.ts'
import { isConnectingOff } from './connecting.ts'
import { Administration } from './administration.ts'
import { BrokerSession } from './broker-session.ts'
import { Dispatcher } from './dispatch/dispatcher.ts'
import { ConnectionHooks } from './dispatch/hooks.ts'
import { ReceivedMessage, type Incoming } from './dispatch/message.ts'
import { errors } from './errors.ts'
import { groupClientId } from './processes/group.ts'
import type { Meeting } from './processes/directory.ts'
import { injections } from './injection.ts'
import { GroupSession } from './group-session.ts'
import { logFailure } from './diagnostics.ts'
import type { Settings } from './options/settings.ts'
import { Codecs } from './payload/codecs.ts'
import type { PoisoningRules } from './payload/json.ts'
import { SchemaCompiler } from './payload/schemas.ts'
import type { ConnectionSettings } from './session/connection.ts'
import type { Link, LinkEvents } from './session/link.ts'
import type { RegisteredTopic } from './registered-topic.ts'
import type { OutgoingPublish } from './session/link.ts'
import { acceptableOptions, type CheckedPublishOptions } from './session/publish.ts'
import type { CoveringBook } from './session/covering-book.ts'
import { TopicNames, type Named } from './topic/names.ts'
import { OutgoingNames } from './topic/outgoing-names.ts'
import { overlap } from './topic/overlap.ts'
import { withoutPrefix } from './topic/prefix.ts'

/** What the engine needs from the application that it runs in. */
export interface EngineHost {
  readonly server: FastifyInstance
  readonly log: FastifyBaseLogger
  readonly poisoning: PoisoningRules
  /** Milliseconds that Fastify gives a hook; 0 for ever. */
  readonly pluginTimeoutMs: number
  /** What connects; default: MQTT.js. */
  readonly link?: ((settings: ConnectionSettings, events: LinkEvents) => Link) | undefined
}

/** One connection with all that hangs on it: wires the parts, and leads them through start and close. */
export class Engine {
  readonly settings: Settings
  readonly names = new TopicNames<Named>()
  /** Every topic that is registered, in order. */
  readonly topics = new Set<RegisteredTopic>()
  readonly codecs: Codecs
  readonly schemas: SchemaCompiler
  readonly dispatcher: Dispatcher
  readonly hooks: ConnectionHooks
  readonly #host: EngineHost
  /** The connection of this process. */
  readonly #own: BrokerSession
  readonly #group: GroupSession | undefined
  /** Whichever of the two the application has. */
  readonly #session: BrokerSession | GroupSession
  #administration: Administration | undefined
  /** The administrator's own connection. */
  #administrator: Engine | undefined
  #connecting: Promise<void> | undefined
  #closing: Promise<void> | undefined
  #draining: Promise<void> | undefined
  #isOpen = false
  readonly #names: OutgoingNames

  constructor (given: Settings, host: EngineHost) {
    const settings = withGroupClientId(given)
    this.settings = settings
    this.#host = host
    this.#names = new OutgoingNames(settings.prefix)
    this.codecs = new Codecs(host.poisoning, settings.codecs)
    this.schemas = new SchemaCompiler(settings.validatorCompiler)
    this.hooks = new ConnectionHooks((name, error) => {
      logFailure(host.log, error, {}, `the MQTT hook ${name} failed`)
    }, settings.inbox.maxMessages)
    this.dispatcher = new Dispatcher({
      codecs: this.codecs,
      maxPayload: settings.maxPayload,
      log: host.log,
      concurrency: settings.concurrency,
      order: settings.order,
      inbox: settings.inbox,
      publish: async (letter) => {
        await this.publish(letter.topic, letter.payload, acceptableOptions(letter, this.#own))
      },
      onUnmatched: (incoming) => this.#onUnmatched(incoming),
      isFor: (filter, ids) => this.#isFor(filter, ids)
    })
    this.#own = new BrokerSession(settings, {
      log: host.log,
      link: host.link,
      deliver: (message, receipt) => this.dispatcher.receive(message, receipt),
      mayConnect: () => this.#group?.mayConnect !== false,
      onReady: () => this.hooks.runInTurn('onConnect'),
      onDown: (cause) => this.hooks.runInTurn('onDisconnect', cause),
      onChange: () => this.#group?.changed()
    })
    this.#group = settings.processes.mode === 'single' ? this.#createGroup(settings.processes) : undefined
    this.#session = this.#group ?? this.#own
    if (settings.dynsec !== undefined) this.#administration = this.#createAdministration(settings.dynsec)
  }

  /**
   * The absolute topic name for a publish.
   *
   * @throws `FST_MQTT_TOPIC_NAME`, `FST_MQTT_TOPIC_OUTSIDE_PREFIX`
   */
  nameOf (topic: unknown, isAbsolute: boolean): string {
    return isAbsolute ? this.#names.absolute(topic) : this.#names.inside(topic)
  }

  /** Publishes bytes to an absolute topic name that `nameOf` gave. */
  publish (topic: string, payload: Buffer, options: CheckedPublishOptions): Promise<void> {
    const { qos, retain, properties, contentType } = options
    const publish = { topic, payload, qos, retain, properties, contentType }
    if ((injections.areRunning && this.#isCaught(publish)) || isConnectingOff()) return Promise.resolve()
    const timeoutMs = options.timeoutMs ?? this.settings.publishTimeoutMs
    return this.#session.publish(publish, { timeoutMs, signal: options.signal })
  }

  #isCaught (publish: OutgoingPublish): boolean {
    return injections.capture(publish, this.settings.namespace, (bytes) => this.codecs.json.decode(bytes))
  }

  /** What is registered, with what overlaps. */
  list (): ListedTopic[] {
    const all = [...this.topics]
    return all.map((topic) => ({
      ...topic.listing,
      overlaps: all
        .filter((other) => other.filter !== topic.filter)
        .filter((other) => overlap(other.placed.matchFilter, topic.placed.matchFilter))
        .map(({ pattern }) => pattern)
    }))
  }

  get book (): CoveringBook {
    return this.#own.book
  }

  get client (): Mqtt['client'] {
    return this.#own.client
  }

  /** @throws `FST_MQTT_DYNSEC_NOT_ENABLED` */
  get dynsec (): Dynsec {
    if (this.#administration === undefined) throw new errors.FST_MQTT_DYNSEC_NOT_ENABLED()
    return this.#administration.dynsec
  }

  get role (): 'owner' | 'member' | undefined {
    return this.#group?.role
  }

  get status (): Status {
    return this.#session.status
  }

  health (): Health {
    const { status } = this
    const { subscriptions, ...connection } = this.#session.health
    const { refused, pending } = subscriptions
    const { received, unmatched, failed, dropped } = this.dispatcher.stats
    return {
      ok: status === 'ready' && refused.length === 0 && pending.length === 0,
      status,
      ...connection,
      subscriptions,
      messages: { received, unmatched, failed, dropped }
    }
  }

  stats (): Stats {
    return { ...this.dispatcher.stats, ...this.#session.counters }
  }

  /** Connects and waits until every subscription is answered; gives up after `connectTimeout`. */
  async connect (): Promise<void> {
    if (this.#draining !== undefined) throw new errors.FST_MQTT_CLOSED(this.settings.address.text)
    if (isConnectingOff()) return
    this.#connecting ??= this.#start().finally(() => { this.#connecting = undefined })
    await this.#connecting
  }

  /** Goes on trying until it is closed. */
  connectInBackground (): void {
    this.#session.open()
    this.#administrator?.connectInBackground()
  }

  /** Lets messages through to the handlers: the application is ready. */
  open (): void {
    this.#isOpen = true
    this.dispatcher.open()
  }

  /** True once the application is ready, and no hook can be added any more. */
  get isOpen (): boolean {
    return this.#isOpen
  }

  /** Brings a message to the handlers without a broker; what they publish is not sent. */
  async inject (incoming: Incoming): Promise<InjectResult> {
    if (this.#draining !== undefined) throw new errors.FST_MQTT_CLOSED(this.settings.address.text)
    return await injections.run((receipt) => this.dispatcher.inject(incoming, receipt))
  }

  /**
   * Takes no more messages in and waits for the handlers that run, but not longer than Fastify waits for us.
   */
  async drain (): Promise<void> {
    await (this.#draining ??= this.#drain())
  }

  /** Ends the connection, in every state and in bounded time. */
  async close (): Promise<void> {
    await (this.#closing ??= this.#close())
  }

  async #drain (): Promise<void> {
    this.dispatcher.stop()
    this.#session.drain()
    await within(this.dispatcher.idle(), this.#drainLimitMs)
  }

  async #start (): Promise<void> {
    const since = performance.now()
    await this.#session.start()
    if (this.#administrator === undefined) return
    // Together they have what Fastify waits for.
    const leftMs = this.settings.connectTimeoutMs - (performance.now() - since)
    await this.#administrator.#session.start(Math.max(1, leftMs))
  }

  async #close (): Promise<void> {
    await this.drain()
    this.#administration?.close()
    await Promise.all([this.#session.close(this.#drainLimitMs), this.#administrator?.close()])
  }

  /** For the handlers, and then for what waits to be sent: Fastify does not wait for ever. */
  get #drainLimitMs (): number {
    const { pluginTimeoutMs } = this.#host
    const { drainTimeoutMs } = this.settings
    if (pluginTimeoutMs === 0) return drainTimeoutMs
    return Math.max(0, Math.min(drainTimeoutMs, pluginTimeoutMs - 500))
  }

  /**
   * One that is for a subscription of an earlier process is for whoever matches. A broker that sends one copy
   * for all subscriptions does not name those that have no identifier.
   */
  #isFor (filter: string, subscriptionIds: readonly number[]): boolean {
    const { book } = this
    const filters = subscriptionIds.map((id) => book.filterOf(id))
    return filters.includes(filter) || !book.isNamed(filter) || filters.every((known) => known === undefined)
  }

  #createAdministration (dynsec: NonNullable<Settings['dynsec']>): Administration {
    if (dynsec.connection !== undefined) this.#administrator = new Engine(dynsec.connection, this.#host)
    const engine = this.#administrator ?? this
    return new Administration(this.settings.prefix, dynsec, {
      settings: engine.settings, own: engine.#own, dispatcher: engine.dispatcher, group: engine.#group
    })
  }

  #createGroup ({ group, dir, heartbeatMs, ownerTimeoutMs }: SingleProcesses): GroupSession {
    const { log } = this.#host
    const { settings } = this
    return new GroupSession(settings, {
      ...meetingOf(settings, group, dir),
      ...settings.outbox,
      heartbeatMs,
      ownerTimeoutMs,
      drainTimeoutMs: settings.drainTimeoutMs
    }, {
      own: this.#own,
      onRole: (role) => {
        log[this.#closing === undefined ? 'info' : 'debug']({ group, role }, this.#roleLine(group, role))
        this.hooks.runInTurn('onRole', role)
      },
      onMemberUp: () => this.hooks.runInTurn('onConnect'),
      onMemberDown: (cause) => this.hooks.runInTurn('onDisconnect', cause),
      onTrouble: (error) => log.error({ err: error }, `the group '${group}' is in trouble, trying again`)
    })
  }

  #roleLine (group: string, role: Mqtt['role']): string {
    if (role !== undefined) return `this process is ${role === 'owner' ? 'the owner' : 'a member'} of the group '${group}'`
    return this.#closing === undefined ? `the group '${group}' has no owner for now` : `left the group '${group}'`
  }

  #onUnmatched (incoming: Incoming): void {
    const { log, server } = this.#host
    if (!this.hooks.has('onUnmatched')) return
    // A hook may have it for long.
    incoming.keep?.()
    const recipient = { pattern: '', server, log, json: this.codecs.json, ack: 'after' } as const
    const topic = withoutPrefix(this.settings.prefix, incoming.topic)
    this.hooks.run('onUnmatched', new ReceivedMessage(incoming, recipient, topic, {}))
  }
}

/** Waits for a promise that never rejects, but not longer than the time. */
async function within (promise: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<void>((resolve) => { timer = setTimeout(resolve, timeoutMs) })
  await Promise.race([promise, deadline])
  clearTimeout(timer)
}

type SingleProcesses = Extract<Settings['processes'], { mode: 'single' }>

/** What processes have in common that are one group. */
function meetingOf (
  { address, credentials, prefix, namespace }: Settings, group: string, dir: string | undefined
): Meeting {
  return { group, identity: [address.text, credentials.username ?? '', prefix, namespace ?? ''], dir }
}

/** Whoever is the owner has the same session: found by the same client identifier. */
function withGroupClientId (settings: Settings): Settings {
  const { processes, hasClientId } = settings
  if (processes.mode === 'each' || hasClientId) return settings
  return { ...settings, clientId: groupClientId(meetingOf(settings, processes.group, processes.dir)) }
}
