import type { Dynsec } from '../types/dynsec.ts'
import type { BrokerSession } from './broker-session.ts'
import type { Dispatcher } from './dispatch/dispatcher.ts'
import type { WireCommand } from './dynsec/checks.ts'
import {
  ControlChannel, type ChannelSettings, type ControlLink, type ControlSubscription
} from './dynsec/control-channel.ts'
import { DynsecApi } from './dynsec/dynsec.ts'
import type { Answer, Exchange, SendOptions, Session, SessionOptions } from './dynsec/exchange.ts'
import { errorCode, errors } from './errors.ts'
import type { GroupSession } from './group-session.ts'
import type { Settings } from './options/settings.ts'

/** What administration needs of the engine whose connection it uses. */
export interface AdministrationHost {
  readonly settings: Settings
  readonly own: BrokerSession
  readonly dispatcher: Dispatcher
  /** If the connection may be in another process. */
  readonly group: GroupSession | undefined
}

/** `fastify.mqtt.dynsec` over a connection of this process, or over that of the owner of its group. */
export class Administration {
  readonly dynsec: Dynsec
  readonly #channel: ControlChannel

  constructor (prefix: string, { timeoutMs, chunk }: DynsecLimits, host: AdministrationHost) {
    const settings = { broker: host.settings.address.text, timeoutMs }
    this.#channel = new ControlChannel(new SessionLink(host), settings)
    if (host.group !== undefined) serve(host.group, this.#channel)
    const exchange = host.group === undefined ? this.#channel : new GroupExchange(host.group, settings)
    this.dynsec = new DynsecApi(exchange, { ...settings, prefix, chunk })
  }

  /** Settles what waits. */
  close (): void {
    this.#channel.close()
  }
}

interface DynsecLimits {
  readonly timeoutMs: number
  readonly chunk: number | undefined
}

/** The connection of an engine as dynamic security uses it: beside hooks, order and the gate of the start. */
class SessionLink implements ControlLink {
  readonly #host: AdministrationHost

  constructor (host: AdministrationHost) {
    this.#host = host
  }

  get version (): 4 | 5 {
    return this.#host.own.version
  }

  get username (): string | undefined {
    return this.#host.own.username
  }

  get isUp (): boolean {
    return this.#host.own.isReady
  }

  get maximumPacketSize (): number {
    return this.#host.own.limits.maximumPacketSize
  }

  async subscribe (filter: string, onMessage: (payload: Buffer) => void): Promise<ControlSubscription> {
    const { own, dispatcher } = this.#host
    const stopReceiving = dispatcher.intercept(filter, ({ payload }) => onMessage(payload))
    try {
      const reasonCode = await own.aside.add(filter)
      const stop = async () => {
        stopReceiving()
        await own.aside.remove(filter)
      }
      return { reasonCode, stop }
    } catch (error) {
      stopReceiving()
      throw error
    }
  }

  async publish (topic: string, payload: Buffer, { qos }: { qos: 0 | 1 }): Promise<void> {
    const { own, settings } = this.#host
    // Not sent again on another connection: a command may have been executed.
    const lost = new AbortController()
    const stopWatching = own.watch((isUp) => { if (!isUp) lost.abort(own.lastError) })
    const publish = { topic, payload, qos, retain: false, properties: undefined }
    try {
      await own.publish(publish, { timeoutMs: settings.publishTimeoutMs, signal: lost.signal })
    } finally {
      stopWatching()
    }
  }

  onChange (listener: (isUp: boolean) => void): () => void {
    return this.#host.own.watch(listener)
  }
}

/** For the members of a group, when this process is the owner. */
function serve (group: GroupSession, channel: ControlChannel): void {
  group.serve('dynsec.session', async (data, { signal }) => {
    const { timeoutMs } = data as SessionOptions
    return toPlain(await channel.session({ timeoutMs, signal }))
  })
  group.serve('dynsec.send', async (data, { signal }) => {
    const { commands, timeoutMs } = data as Message
    return await channel.send(commands, { timeoutMs, signal })
  })
}

/** What goes to the owner of the group. */
interface Message {
  readonly commands: readonly WireCommand[]
  readonly timeoutMs: number
}

/** What the way to another process may take beside what is done there. */
const detourMs = 2_000
/** Of a timer. */
const maxTimeoutMs = 2 ** 31 - 1

/** The exchange of the owner of the group, for all its processes. */
class GroupExchange implements Exchange {
  readonly #group: GroupSession
  readonly #settings: ChannelSettings

  constructor (group: GroupSession, settings: ChannelSettings) {
    this.#group = group
    this.#settings = settings
  }

  async session ({ timeoutMs, signal }: SessionOptions): Promise<Session> {
    const { broker } = this.#settings
    // The handshake has up to three questions.
    const mostMs = timeoutMs ?? 3 * this.#settings.timeoutMs
    try {
      return fromPlain(await this.#call('dynsec.session', { timeoutMs }, mostMs, signal))
    } catch (error) {
      const why = lossOf(error)
      if (why === 'lost') throw new errors.FST_MQTT_OFFLINE(broker, { cause: error })
      if (why === 'aborted') {
        throw new errors.FST_MQTT_DYNSEC_ABORTED('nothing was sent', { cause: signal?.reason })
      }
      if (why !== 'late') throw error
      throw new errors.FST_MQTT_DYNSEC_NO_ANSWER(
        broker, mostMs, 'the process that has the connection of the group did not answer')
    }
  }

  async send (
    commands: Message['commands'], { timeoutMs, signal }: SendOptions
  ): Promise<readonly Answer[]> {
    try {
      // The owner may have to open the session first.
      const answers = await this.#call('dynsec.send', { commands, timeoutMs }, 2 * timeoutMs, signal)
      return (answers as readonly Answer[]).map(unlessClosed)
    } catch (error) {
      const why = lossOf(error)
      if (why === undefined) throw error
      // The owner may have sent them.
      return commands.map(() => ({ kind: 'missing', why }))
    }
  }

  async #call (
    name: string, data: unknown, mostMs: number, signal: AbortSignal | undefined
  ): Promise<unknown> {
    const timeoutMs = Math.min(mostMs + detourMs, maxTimeoutMs)
    return await this.#group.call(name, data, { timeoutMs, signal })
  }
}

/** What became of a call that the owner did not answer; undefined for an answer. */
function lossOf (error: unknown): 'lost' | 'late' | 'aborted' | 'closed' | undefined {
  switch (errorCode(error)) {
    case 'FST_MQTT_DELIVERY_UNKNOWN': return 'lost'
    case 'FST_MQTT_PUBLISH_TIMEOUT': return 'late'
    case 'FST_MQTT_ABORTED': return 'aborted'
    case 'FST_MQTT_CLOSED': return 'closed'
    default: return undefined
  }
}

/** It is the owner that was closed, with what it had sent: to us that is a lost connection. */
function unlessClosed (answer: Answer): Answer {
  const isClosed = answer.kind === 'missing' && answer.why === 'closed'
  return isClosed ? { kind: 'missing', why: 'lost' } : answer
}

// JSON has no Infinity.
function toPlain (session: Session): object {
  const { maximumPacketSize } = session
  return { ...session, maximumPacketSize: Number.isFinite(maximumPacketSize) ? maximumPacketSize : null }
}

function fromPlain (plain: unknown): Session {
  const session = plain as Session & { readonly maximumPacketSize: number | null }
  return { ...session, maximumPacketSize: session.maximumPacketSize ?? Infinity }
}
