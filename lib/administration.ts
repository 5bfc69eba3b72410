import type { Dynsec } from '../types/dynsec.ts'
import type { BrokerSession } from './broker-session.ts'
import type { Dispatcher } from './dispatch/dispatcher.ts'
import { ControlChannel, type ControlLink, type ControlSubscription } from './dynsec/control-channel.ts'
import { DynsecApi } from './dynsec/dynsec.ts'
import type { Answer, Exchange, SendOptions, Session, SessionOptions } from './dynsec/exchange.ts'
import type { GroupSession } from './group-session.ts'
import type { Settings } from './options/settings.ts'
import type { Patience } from './session/job.ts'

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
    const broker = host.settings.address.text
    this.#channel = new ControlChannel(new SessionLink(host), { broker, timeoutMs })
    const exchange = host.group === undefined ? this.#channel : new GroupExchange(host.group, timeoutMs)
    host.group?.serve('dynsec.session', async (_data, patience) => toPlain(await this.#channel.session(patience)))
    host.group?.serve('dynsec.send', async (data, patience) =>
      await this.#channel.send(data as Parameters<Exchange['send']>[0], patience))
    this.dynsec = new DynsecApi(exchange, { broker, prefix, timeoutMs, chunk })
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
      const reasonCode = await own.subscribeAside(filter)
      const stop = async () => {
        stopReceiving()
        await own.unsubscribeAside(filter)
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

/** The exchange of the owner of the group, for all its processes. */
class GroupExchange implements Exchange {
  readonly #group: GroupSession
  readonly #timeoutMs: number

  constructor (group: GroupSession, timeoutMs: number) {
    this.#group = group
    this.#timeoutMs = timeoutMs
  }

  async session ({ timeoutMs, signal }: SessionOptions): Promise<Session> {
    // The handshake has more than one question.
    const patience = { timeoutMs: timeoutMs ?? 3 * this.#timeoutMs, signal }
    return fromPlain(await this.#group.call('dynsec.session', null, patience))
  }

  async send (
    commands: Parameters<Exchange['send']>[0], { timeoutMs, signal }: SendOptions
  ): Promise<readonly Answer[]> {
    const patience: Patience = { timeoutMs: timeoutMs + 3 * this.#timeoutMs, signal }
    return await this.#group.call('dynsec.send', commands, patience) as readonly Answer[]
  }
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
