import { Writable } from 'node:stream'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import multimqtt, { type MultimqttOptions } from '../../lib/index.ts'
import { onEnd, type Owner } from './cleanup.ts'
import { Mailbox } from './mailbox.ts'

/** A line of the application's log. */
export interface LogLine {
  readonly level: number
  readonly msg: string
  readonly err?: { readonly code: string, readonly message: string }
  readonly [key: string]: unknown
}

export interface TestApp {
  readonly fastify: FastifyInstance
  /** Everything that was logged, from level debug on. */
  readonly lines: readonly LogLine[]
  /** The oldest line not taken yet that fits, awaited for at most 5 s. */
  logged (pattern: RegExp): Promise<LogLine>
}

/** A Fastify application that logs into memory; the end of the test closes it. */
export function createFastify (owner: Owner, options: FastifyServerOptions = {}): TestApp {
  const lines: LogLine[] = []
  const mailbox = new Mailbox<LogLine>()
  const stream = new Writable({
    write (chunk: Buffer, _encoding, done) {
      const line = JSON.parse(chunk.toString()) as LogLine
      lines.push(line)
      mailbox.put(line)
      done()
    }
  })
  const fastify = Fastify({ logger: { level: 'debug', stream }, ...options })
  onEnd(owner, () => fastify.close())
  return {
    fastify,
    lines,
    logged: (pattern) => mailbox.take(({ msg }) => pattern.test(msg), `log line ${pattern}`)
  }
}

/** The same with the plugin registered. Not started: call `ready()`. */
export async function createApp (
  owner: Owner, options: MultimqttOptions, fastifyOptions: FastifyServerOptions = {}
): Promise<TestApp> {
  const app = createFastify(owner, fastifyOptions)
  await app.fastify.register(multimqtt, options)
  return app
}

export interface Inbox<T> {
  readonly put: (message: T) => void
  /** The oldest one not taken yet, awaited for at most 5 s. */
  readonly next: () => Promise<T>
  readonly all: readonly T[]
}

/** Collects what handlers receive, to be awaited. */
export function inbox<T> (): Inbox<T> {
  const all: T[] = []
  const mailbox = new Mailbox<T>()
  return {
    put (message) {
      all.push(message)
      mailbox.put(message)
    },
    next: () => mailbox.take(() => true, 'message at a handler'),
    all
  }
}
