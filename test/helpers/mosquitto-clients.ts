import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { onEnd, type Owner } from './cleanup.ts'
import { Mailbox } from './mailbox.ts'
import { certificates, type Mosquitto } from './mosquitto.ts'
import { endWithUs, programPath } from './programs.ts'

const run = promisify(execFile)
const timeoutMs = 10_000

/** How the programs reach the broker: by default the plain listener, with MQTT 5. */
export interface MosquittoClientOptions {
  /** Default: `ports.plain`, or `ports.tls` with `tls`. */
  port?: number
  version?: 4 | 5
  /** `true` trusts the development CA, 'mutual' also shows the client certificate. */
  tls?: boolean | 'mutual'
  username?: string
  password?: string
}

export interface MosquittoPubOptions extends MosquittoClientOptions {
  topic: string
  /** Sent byte for byte. */
  message: string | Buffer
  qos?: 0 | 1 | 2
  retain?: boolean
  /** MQTT 5 properties of the PUBLISH, for example `['user-property', 'name', 'value']`. */
  properties?: readonly (readonly string[])[]
}

/** Publishes by mosquitto_pub; rejects with what it complains about, a refused PUBLISH included. */
export async function mosquittoPub (broker: Mosquitto, options: MosquittoPubOptions): Promise<void> {
  const { topic, message, qos = 0, retain = false, properties = [] } = options
  const payload = Buffer.from(message)
  const child = spawn(programPath('mosquitto_pub') ?? 'mosquitto_pub', [
    ...connectionArguments(broker, options), '-t', topic, '-q', String(qos), ...(retain ? ['-r'] : []),
    ...(payload.length === 0 ? ['-n'] : ['-s']),
    ...properties.flatMap((property) => ['-D', 'publish', ...property])
  ], { stdio: ['pipe', 'ignore', 'pipe'], timeout: timeoutMs, killSignal: 'SIGKILL' })
  // It may end before it has read its input; what it says then tells more than EPIPE.
  child.stdin.on('error', () => {})
  child.stdin.end(payload)

  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => { complaint += text })
  const [code] = await once(child, 'close') as [number | null]
  // It exits with 0 when the broker refuses a PUBLISH in its PUBACK, and only warns.
  if (code !== 0 || complaint.includes('Warning: Publish')) {
    throw new Error(`mosquitto_pub ended with ${code}: ${complaint.trim()}`)
  }
}

/** What mosquitto_sub received. */
export interface ReceivedMessage {
  topic: string
  payload: Buffer
  qos: number
  retain: boolean
}

export interface MosquittoSubOptions extends MosquittoClientOptions {
  topics: readonly string[]
  qos?: 0 | 1 | 2
  /** Ends by itself after so many messages. */
  count?: number
}

export interface MosquittoSub extends AsyncIterable<ReceivedMessage> {
  readonly clientId: string
  /** Resolves when the broker holds all subscriptions; rejects when it refuses one. */
  readonly ready: Promise<void>
  /** The oldest message not taken yet, awaited for at most 5 s. */
  next (timeoutMs?: number): Promise<ReceivedMessage>
  stop (): Promise<void>
}

/** Subscribes by mosquitto_sub; the end of the test stops it. */
export function mosquittoSub (owner: Owner, broker: Mosquitto, options: MosquittoSubOptions): MosquittoSub {
  const { topics, qos = 0, count } = options
  const clientId = `sub-${randomUUID()}`
  const ready = granted(broker, clientId, topics)
  const messages = new Mailbox<ReceivedMessage>()
  const child = spawn(programPath('mosquitto_sub') ?? 'mosquitto_sub', [
    ...connectionArguments(broker, options), '-i', clientId, '-q', String(qos),
    ...topics.flatMap((topic) => ['-t', topic]), ...(count === undefined ? [] : ['-C', String(count)]),
    '-F', '%q %r %x %t'
  ], { stdio: ['ignore', 'pipe', 'pipe'] })
  endWithUs(child)
  createInterface(child.stdout).on('line', (line) => messages.put(parseLine(line)))
  const ended = whenEnded(child)
  const failed = ended.then((reason) => {
    messages.fail(new SubscriberEnded(reason))
    throw new SubscriberEnded(reason)
  })
  failed.catch(() => {})
  const stop = async () => {
    // A SIGTERM right after its SUBACK does not always end it (2.0.11, TLS, on a busy machine).
    child.kill('SIGKILL')
    await ended
  }
  onEnd(owner, stop)

  const next = (timeoutMs?: number) => messages.take(() => true, 'message at mosquitto_sub', timeoutMs)
  return {
    clientId,
    ready: quiet(Promise.race([ready, failed])),
    next,
    stop,
    async * [Symbol.asyncIterator] () {
      try {
        while (true) yield await next()
      } catch (error) {
        if (!(error instanceof SubscriberEnded)) throw error
      }
    }
  }
}

/** Runs mosquitto_ctrl as the administrator of the dynamic security listener, and gives its output. */
export async function mosquittoCtrl (broker: Mosquitto, ...args: string[]): Promise<string> {
  const { stdout } = await run(programPath('mosquitto_ctrl') ?? 'mosquitto_ctrl', [
    '-h', '127.0.0.1', '-p', String(broker.ports.dynsec), '-u', 'admin', '-P', 'admin-password', ...args
  ], { timeout: timeoutMs, killSignal: 'SIGKILL' })
  return stdout
}

class SubscriberEnded extends Error {}

function connectionArguments (broker: Mosquitto, options: MosquittoClientOptions): string[] {
  const { tls = false, version = 5, username, password } = options
  const port = options.port ?? (tls ? broker.ports.tls : broker.ports.plain)
  return [
    '-h', '127.0.0.1', '-p', String(port), '-V', version === 5 ? 'mqttv5' : 'mqttv311',
    ...(tls ? ['--cafile', certificates.ca] : []),
    ...(tls === 'mutual' ? ['--cert', certificates.clientCert, '--key', certificates.clientKey] : []),
    ...(username === undefined ? [] : ['-u', username]),
    ...(password === undefined ? [] : ['-P', password])
  ]
}

/**
 * mosquitto_sub holds back what it prints about its SUBACK until its first message when it writes into a
 * pipe. The broker's log says it at once, a line for each filter: `<client id> <QoS or code> <filter>`.
 */
async function granted (broker: Mosquitto, clientId: string, topics: readonly string[]): Promise<void> {
  const since = broker.log().length
  for (const topic of topics) {
    const [, grant] = await broker.logged(new RegExp(`^${clientId} (\\d+) ${literal(topic)}$`, 'm'), since)
    if (Number(grant) >= 128) throw new Error(`the broker refused to subscribe to ${topic}: ${grant}`)
  }
}

function parseLine (line: string): ReceivedMessage {
  // The topic comes last because it may hold blanks.
  const [, qos, retain, payload = '', topic = ''] = /^(\d) (\d) ([0-9a-f]*) (.*)$/.exec(line) ?? []
  return { topic, payload: Buffer.from(payload, 'hex'), qos: Number(qos), retain: retain === '1' }
}

async function whenEnded (child: ChildProcess): Promise<string> {
  let complaint = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => { complaint += text })
  const [code, signal] = await once(child, 'close') as [number | null, string | null]
  return `mosquitto_sub ended with ${code ?? signal}: ${complaint.trim()}`
}

/** A rejection that a test does not look at is not an unhandled one. */
function quiet<T> (promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

function literal (text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
}
