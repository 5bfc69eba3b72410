import { isRecord } from '../values.ts'
import type { Answer, Missing } from './exchange.ts'

/** A message that waits for its reply. */
interface Waiting {
  readonly commands: number
  settle (answers: readonly Answer[]): void
}

/**
 * The messages that wait for a reply, in the order in which they were sent. The plugin sends every reply to
 * all who subscribed to them, without any property; what tells ours is the correlation data of each command,
 * here `<id of the message>/<index of the command>`.
 */
export class Replies {
  readonly #waiting = new Map<string, Waiting>()

  /** Resolves when the message is settled, by whatever comes first. */
  wait (id: string, commands: number): Promise<readonly Answer[]> {
    return new Promise((resolve) => {
      this.#waiting.set(id, { commands, settle: resolve })
    })
  }

  /** Settles a message that will not be answered. */
  settle (id: string, why: Missing): void {
    const waiting = this.#waiting.get(id)
    if (waiting === undefined) return
    this.#waiting.delete(id)
    waiting.settle(Array.from({ length: waiting.commands }, () => ({ kind: 'missing', why })))
  }

  settleAll (why: Missing): void {
    for (const id of this.#waiting.keys()) this.settle(id, why)
  }

  /** Whether a message was sent after this one, whose reply will tell of both. */
  isLast (id: string): boolean {
    return [...this.#waiting.keys()].at(-1) === id
  }

  /** Takes a message of the response topic: a reply to us, to somebody else, or neither. */
  receive (payload: Buffer): void {
    const reply = parse(payload)
    const { responses, error } = reply
    if (!Array.isArray(responses)) {
      // Mosquitto 2.1 without the plugin: to the sender alone, so that it can only be for the oldest.
      const [oldest] = this.#waiting.keys()
      if (oldest !== undefined && error === 'endpoint not available') this.settle(oldest, 'absent')
      return
    }
    const correlated = responses.filter(isRecord).map((response) => ({ response, ...parseId(response) }))
    const id = correlated.find((one) => this.#waiting.has(one.id))?.id
    const waiting = id === undefined ? undefined : this.#waiting.get(id)
    if (id === undefined || waiting === undefined) return
    this.#settleOvertaken(id)
    this.#waiting.delete(id)
    const answers = correlated.filter((one) => one.id === id)
    waiting.settle(Array.from({ length: waiting.commands }, (_, index) =>
      answerOf(answers.find((one) => one.index === index)?.response)))
  }

  /**
   * The broker executes and answers in order: what is overtaken will not be answered any more. Most likely
   * its reply was larger than the packets that we accept, which brokers drop without a word.
   */
  #settleOvertaken (id: string): void {
    for (const earlier of this.#waiting.keys()) {
      if (earlier === id) break
      this.settle(earlier, 'overtaken')
    }
  }
}

/** The correlation data of a command. */
export function correlationData (id: string, index: number): string {
  return `${id}/${index}`
}

function parseId ({ correlationData: data }: Record<string, unknown>): { id: string, index: number } {
  const [id = '', index = ''] = typeof data === 'string' ? data.split('/') : []
  return { id, index: Number(index) }
}

function answerOf (response: Record<string, unknown> | undefined): Answer {
  if (response === undefined) return { kind: 'missing', why: 'skipped' }
  const { error, data } = response
  return error === undefined ? { kind: 'done', data } : { kind: 'refused', error: String(error) }
}

function parse (payload: Buffer): Record<string, unknown> {
  try {
    const reply: unknown = JSON.parse(payload.toString())
    return isRecord(reply) ? reply : {}
  } catch {
    return {}
  }
}
