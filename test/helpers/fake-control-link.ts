import type { ControlLink, ControlSubscription } from '../../lib/dynsec/control-channel.ts'
import { errors } from '../../lib/errors.ts'
import type { Dynsec } from '../../types/dynsec.ts'
import { createDynsec } from './dynsec.ts'
import { Mailbox } from './mailbox.ts'

/** A command as it was sent. */
export interface SentCommand {
  readonly command: string
  readonly correlationData: string
  readonly [field: string]: unknown
}

export interface SentMessage {
  readonly topic: string
  readonly qos: 0 | 1
  readonly commands: readonly SentCommand[]
}

/** What a broker answers to one command: its data, its error, or nothing at all. */
export type Response = { data?: unknown, error?: string } | undefined

/**
 * A connection to a broker that a test plays: by default that of Mosquitto 2.0.11 with an account `admin`,
 * which has the role `admin`, and no more.
 */
export class FakeControlLink implements ControlLink {
  version: 4 | 5 = 5
  username: string | undefined = 'admin'
  maximumPacketSize = Infinity
  reasonCode = 0
  /** Answers a command; `undefined` leaves the whole message without an answer. */
  respond: (command: SentCommand) => Response = playMosquitto20
  /** What publishing rejects with. */
  publishError: ((qos: 0 | 1) => Error | undefined) | undefined
  readonly sent: SentMessage[] = []
  readonly subscribed: string[] = []
  readonly #messages = new Mailbox<SentMessage>()
  readonly #listeners = new Set<(isUp: boolean) => void>()
  readonly #handlers = new Map<string, (payload: Buffer) => void>()
  #isUp = true

  get isUp (): boolean { return this.#isUp }

  async subscribe (filter: string, onMessage: (payload: Buffer) => void): Promise<ControlSubscription> {
    if (!this.#isUp) throw new Error('the connection is gone')
    this.subscribed.push(filter)
    this.#handlers.set(filter, onMessage)
    return {
      reasonCode: this.reasonCode,
      stop: async () => {
        this.subscribed.splice(this.subscribed.indexOf(filter), 1)
        this.#handlers.delete(filter)
      }
    }
  }

  async publish (topic: string, payload: Buffer, { qos }: { qos: 0 | 1 }): Promise<void> {
    if (!this.#isUp) throw new errors.FST_MQTT_OFFLINE('the broker')
    const error = this.publishError?.(qos)
    if (error !== undefined) throw error
    const { commands } = JSON.parse(payload.toString()) as { commands: SentCommand[] }
    const message = { topic, qos, commands }
    this.sent.push(message)
    this.#messages.put(message)
    const responses = commands.map((one) => ({ one, response: this.respond(one) }))
    if (responses.some(({ response }) => response === undefined)) return
    this.reply({
      responses: responses.map(({ one: { command, correlationData }, response }) =>
        ({ command, ...response, correlationData }))
    })
  }

  onChange (listener: (isUp: boolean) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  get listeners (): number { return this.#listeners.size }

  /** A message on the response topic, at the next turn as it would be. */
  reply (message: object | string): void {
    const payload = Buffer.from(typeof message === 'string' ? message : JSON.stringify(message))
    setImmediate(() => { for (const handler of this.#handlers.values()) handler(payload) })
  }

  down (): void {
    this.#isUp = false
    this.#handlers.clear()
    this.subscribed.length = 0
    for (const listener of this.#listeners) listener(false)
  }

  up (): void {
    this.#isUp = true
    for (const listener of this.#listeners) listener(true)
  }

  /** The next message that holds this command. */
  async next (command: string): Promise<SentMessage> {
    const isIt = ({ commands }: SentMessage) => commands.some((one) => one.command === command)
    return await this.#messages.take(isIt, command)
  }

  /** The names of all commands that were sent, message by message, without those of the handshake. */
  get commands (): string[][] {
    return this.sent.slice(1).map(({ commands }) => commands.map(({ command }) => command))
  }
}

/** The answers of a broker that has nothing but the account that asks. */
export function playMosquitto20 ({ command, username }: SentCommand): Response {
  switch (command) {
    case 'getDetails': return { error: 'Unknown command' }
    case 'getClient': return username === 'admin'
      ? { data: { client: { username, roles: [{ rolename: 'admin' }], groups: [] } } }
      : { error: 'Client not found' }
    case 'getAnonymousGroup': return { data: { group: { groupname: '' } } }
    case 'listClients': return { data: { totalCount: 0, clients: [] } }
    case 'listGroups': return { data: { totalCount: 0, groups: [] } }
    case 'listRoles': return { data: { totalCount: 0, roles: [] } }
    case 'getDefaultACLAccess': return { data: { acls: [{ acltype: 'subscribe', allow: false }] } }
    default: return {}
  }
}

export interface FakeAdminOptions {
  prefix?: string
  timeoutMs?: number
  chunk?: number
  username?: string | undefined
}

/** The client of the plugin on such a connection. */
export function fakeAdmin (
  options: FakeAdminOptions = {}
): { link: FakeControlLink, dynsec: Dynsec, close: () => void } {
  const link = new FakeControlLink()
  if ('username' in options) link.username = options.username
  const { dynsec, close } = createDynsec(link, {
    broker: 'mqtt://127.0.0.1:1883',
    prefix: options.prefix ?? '',
    timeoutMs: options.timeoutMs ?? 5_000,
    chunk: options.chunk
  })
  return { link, dynsec, close }
}
