import type {
  DynsecClient, DynsecCommandName, DynsecGroup, DynsecReply, DynsecRequest
} from '../../types/dynsec-commands.ts'
import type { DynsecSettled } from '../../types/dynsec.ts'
import { errors } from '../errors.ts'
import { brokerError, ofCommand, withSubject } from './broker-errors.ts'
import { isIgnored, type CallOptions } from './call-options.ts'
import { prepareCommand, type WireCommand } from './checks.ts'
import type { Answer, Exchange, Missing, SendOptions, Session } from './exchange.ts'
import { Pace } from './pace.ts'
import { readReply } from './read-reply.ts'
import { assertNotAnonymous, assertSafe, detachments } from './safety.ts'

export interface ExecutorSettings {
  /** The broker, for messages: protocol, host and port. */
  readonly broker: string
  /** The global prefix of topics. */
  readonly prefix: string
  /** For one message; more is given for each of its commands. */
  readonly timeoutMs: number
  /** Commands in one message; default by the version of the broker. */
  readonly chunk: number | undefined
}

/** Mosquitto 2.0 needs up to 9 ms for one command, in its only thread. */
const perCommandMs = 25
// The first message of a batch; the pace follows what it took.
const chunkOf20 = 20
const chunkOf21 = 200
/** What any broker takes in one packet; Mosquitto 2.1 has a limit of 2,000,000 bytes. */
const maxMessageBytes = 262_144
/** More than what the header, the topic and the envelope take, and a command's correlation data. */
const overheadBytes = 100

/** Checks commands, makes them safe, sends them in messages, and reads what came of them. */
export class Executor {
  readonly #exchange: Exchange
  readonly #settings: ExecutorSettings

  constructor (exchange: Exchange, settings: ExecutorSettings) {
    this.#exchange = exchange
    this.#settings = settings
  }

  async session (options: CallOptions): Promise<Session> {
    return await this.#exchange.session(options)
  }

  /** @throws `FST_MQTT_DYNSEC_INVALID`, `FST_MQTT_TOPIC_OUTSIDE_PREFIX` */
  prepare (command: unknown, fields: unknown, where?: string): WireCommand {
    return prepareCommand(command, fields, this.#settings.prefix, where)
  }

  /** One command, whose failure is the rejection. */
  async run<C extends DynsecCommandName> (
    command: C, fields: DynsecRequest<C>, options: CallOptions
  ): Promise<DynsecReply<C>> {
    return await this.runOne(this.prepare(command, fields), options) as DynsecReply<C>
  }

  /** The same, but for what the caller said does not matter: then undefined. */
  async runUnlessIgnored<C extends DynsecCommandName> (
    command: C, fields: DynsecRequest<C>, options: CallOptions
  ): Promise<DynsecReply<C> | undefined> {
    try {
      return await this.run(command, fields, options)
    } catch (error) {
      if (isIgnored(error, options)) return undefined
      throw error
    }
  }

  async runOne (command: WireCommand, options: CallOptions): Promise<unknown> {
    const [settled] = await this.runAll([command], options)
    return valueOf(settled)
  }

  /** Many commands, in order. Rejects only if nothing was sent. */
  async runAll (commands: readonly WireCommand[], options: CallOptions): Promise<DynsecSettled<unknown>[]> {
    if (commands.length === 0) return []
    const session = await this.#exchange.session(options)
    for (const command of commands) assertSafe(command, session, options.allowSelf)
    await this.#spareAnonymous(commands, options)
    const before = await this.#detach(commands, session, options)
    const settled = await this.#sendAll([...before, ...commands], session, options)
    return settled.slice(before.length)
  }

  /** Reads that belong to one moment: one message, whatever the chunk. */
  async read<const Names extends readonly DynsecCommandName[]> (
    commands: Names, fields: { verbose?: boolean }, options: CallOptions
  ): Promise<{ -readonly [K in keyof Names]: DynsecReply<Names[K]> }> {
    const message = commands.map((command) => ({ command, ...command.startsWith('list') ? fields : {} }))
    const settled = await this.#send(message, options)
    return settled.map(valueOf) as { -readonly [K in keyof Names]: DynsecReply<Names[K]> }
  }

  /** One command as it is, and its answer as it is. */
  async runUnchecked (sent: WireCommand, options: CallOptions): Promise<unknown> {
    const sending = this.#sending(1, options)
    const [answer = skipped] = await this.#exchange.send([sent], sending)
    if (answer.kind === 'done') return answer.data
    throw ofCommand(this.#errorFor(sent, answer, sending), sent)
  }

  async #spareAnonymous (commands: readonly WireCommand[], options: CallOptions): Promise<void> {
    if (!commands.some(({ command }) => command === 'deleteGroup')) return
    const [{ group }] = await this.read(['getAnonymousGroup'], {}, options)
    assertNotAnonymous(commands, group.groupname)
  }

  async #detach (
    commands: readonly WireCommand[], { self }: Session, options: CallOptions
  ): Promise<WireCommand[]> {
    const rolenames = commands.filter(({ command }) => command === 'deleteRole').map((sent) => sent['rolename'])
    if (rolenames.length === 0) return []
    const [{ clients }, { groups }] = await this.read(['listClients', 'listGroups'], { verbose: true }, options)
    return detachments(rolenames, clients as DynsecClient[], groups as DynsecGroup[], self)
  }

  /** One message after another: the broker serves others between them. */
  async #sendAll (
    commands: readonly WireCommand[], session: Session, options: CallOptions
  ): Promise<DynsecSettled<unknown>[]> {
    const pace = new Pace(this.#limit(session), session.roundTripMs)
    const settled: DynsecSettled<unknown>[] = []
    let failure: unknown
    while (settled.length < commands.length && failure === undefined) {
      const message = messageOf(commands, settled.length, pace.size, session)
      const since = performance.now()
      try {
        settled.push(...await this.#send(message, options, (cause) => { failure = cause }))
      } catch (error) {
        if (settled.length === 0) throw error
        failure = error
      }
      pace.note(message.length, performance.now() - since)
    }
    const notSent = commands.slice(settled.length).map((sent) =>
      rejected(sent, new errors.FST_MQTT_DYNSEC_NOT_SENT(withSubject(sent), { cause: failure })))
    return [...settled, ...notSent]
  }

  #limit ({ capabilities }: Session): number {
    return this.#settings.chunk ?? (capabilities.details ? chunkOf21 : chunkOf20)
  }

  async #send (
    message: readonly WireCommand[], options: CallOptions, onMissing?: (failure: Error) => void
  ): Promise<DynsecSettled<unknown>[]> {
    const sending = this.#sending(message.length, options)
    const answers = await this.#exchange.send(message, sending)
    return message.map((sent, index) => {
      const answer = answers[index] ?? skipped
      if (answer.kind === 'done') return readReply(sent, answer.data, this.#settings.prefix)
      const error = this.#errorFor(sent, answer, sending)
      if (answer.kind === 'missing') onMissing?.(error)
      return rejected(sent, error)
    })
  }

  #sending (commands: number, { timeoutMs = this.#settings.timeoutMs, signal }: CallOptions): SendOptions {
    return { timeoutMs: timeoutMs + commands * perCommandMs, signal }
  }

  #errorFor (sent: WireCommand, answer: Exclude<Answer, { kind: 'done' }>, sending: SendOptions): Error {
    return answer.kind === 'refused' ? brokerError(sent, answer.error) : this.#missing(sent, answer.why, sending)
  }

  #missing (sent: WireCommand, why: Missing, { timeoutMs, signal }: SendOptions): Error {
    const { broker } = this.#settings
    const command = withSubject(sent)
    switch (why) {
      case 'lost': return new errors.FST_MQTT_DYNSEC_OUTCOME_UNKNOWN(broker, command)
      case 'closed': return new errors.FST_MQTT_CLOSED(broker)
      case 'late': return new errors.FST_MQTT_DYNSEC_TIMEOUT(command, timeoutMs)
      case 'aborted': return new errors.FST_MQTT_DYNSEC_ABORTED(
        `${command} may or may not have been executed`, { cause: signal?.reason })
      case 'overtaken': return new errors.FST_MQTT_DYNSEC_REPLY_LOST(command)
      case 'skipped': return new errors.FST_MQTT_DYNSEC_REPLY_INVALID(command, 'it says nothing of this command')
      case 'absent': return new errors.FST_MQTT_DYNSEC_PLUGIN_ABSENT(broker, 'endpoint not available')
    }
  }
}

/** The next commands that fit into a message: at least one, which the link refuses if it is too large. */
function messageOf (
  commands: readonly WireCommand[], start: number, most: number, { maximumPacketSize }: Session
): WireCommand[] {
  const room = Math.min(maxMessageBytes, maximumPacketSize)
  let bytes = overheadBytes
  const next = commands.slice(start, start + most)
  const end = next.findIndex((command, index) => {
    bytes += Buffer.byteLength(JSON.stringify(command)) + overheadBytes
    return index > 0 && bytes > room
  })
  return end === -1 ? next : next.slice(0, end)
}

const skipped: Answer = { kind: 'missing', why: 'skipped' }

function rejected (sent: WireCommand, error: Error): DynsecSettled<never> {
  return { status: 'rejected', reason: ofCommand(error, sent) }
}

function valueOf (settled: DynsecSettled<unknown> | undefined): unknown {
  if (settled?.status === 'fulfilled') return settled.value
  throw settled?.reason ?? new Error('no command')
}
