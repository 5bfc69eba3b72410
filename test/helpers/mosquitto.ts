import { spawn, type ChildProcess } from 'node:child_process'
import { pbkdf2Sync, randomBytes } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onEnd, type Owner } from './cleanup.ts'
import { deferred, within } from './deadline.ts'
import { freePorts } from './ports.ts'
import { dynsecPluginPath, endWithUs, programPath, root } from './programs.ts'

const configurationFolder = join(root, 'docker', 'mosquitto')
const startTimeoutMs = 5_000
const killAfterMs = 2_000

/** `false` when a real broker can be started, else the reason, for the `skip` option of a test. */
export const mosquittoMissing: string | false = whatIsMissing()

/** Files of the development certificates, to be named in a client's options or in `lines`. */
export const certificates = {
  ca: join(configurationFolder, 'certs', 'ca.crt'),
  serverCert: join(configurationFolder, 'certs', 'server.crt'),
  serverKey: join(configurationFolder, 'certs', 'server.key'),
  clientCert: join(configurationFolder, 'certs', 'client.crt'),
  clientKey: join(configurationFolder, 'certs', 'client.key'),
  otherHostCert: join(configurationFolder, 'certs', 'other-host.crt'),
  otherHostKey: join(configurationFolder, 'certs', 'other-host.key')
}

/** Ports of 127.0.0.1. Nobody listens on `extra` unless `lines` says so. */
export interface MosquittoPorts {
  plain: number
  tls: number
  websocket: number
  dynsec: number
  extra: number
}

export interface MosquittoOptions {
  /**
   * Appended to docker/mosquitto/mosquitto.conf; `{{plain}}` … `{{extra}}` stand for ports, `{{dir}}` for the
   * broker's own folder, `{{certs}}` for that of the certificates. What belongs to a listener must follow a
   * `listener {{extra}} 127.0.0.1`, else it changes the dynamic security listener, the last one of the file.
   */
  lines?: readonly string[]
  /** Files to be put into the broker's own folder: their names and texts. */
  files?: Readonly<Record<string, string>>
}

/** A real broker that belongs to one test. */
export interface Mosquitto {
  readonly ports: Readonly<MosquittoPorts>
  /** Where the plain listener is: `mqtt://127.0.0.1:<port>`. */
  readonly url: string
  /** The broker's own folder, removed at the end. */
  readonly directory: string
  /** Ends the broker, by `SIGTERM` unless told otherwise; resolves when its process is gone. */
  stop (signal?: NodeJS.Signals): Promise<void>
  /** Starts it again on the same ports and the same folder. */
  start (): Promise<void>
  /** Has it write to its folder what a kill would lose: sessions and messages, where `persistence` is on. */
  save (): Promise<void>
  /** All that the broker has logged, restarts included. */
  log (): string
  /** Resolves when the log holds `pattern` after its first `since` characters. */
  logged (pattern: RegExp, since?: number): Promise<RegExpExecArray>
}

/** Starts a broker from docker/mosquitto/mosquitto.conf on free ports; the end of the test stops it. */
export async function startMosquitto (owner: Owner, options: MosquittoOptions = {}): Promise<Mosquitto> {
  const directory = mkdtempSync(join(tmpdir(), 'multimqtt-mosquitto-'))
  onEnd(owner, () => rmSync(directory, { recursive: true, force: true }))
  copyFileSync(join(configurationFolder, 'dynamic-security.json'), join(directory, 'dynamic-security.json'))

  for (let attempts = 5; ; attempts--) {
    const ports = await fivePorts()
    const fill = (text: string) => withPlaceholders(text, ports, directory)
    for (const [name, text] of Object.entries(options.files ?? {})) {
      writeFileSync(join(directory, name), fill(text))
    }
    writeFileSync(
      join(directory, 'mosquitto.conf'),
      [configuration(ports, directory), ...(options.lines ?? []).map(fill), ''].join('\n')
    )
    const broker = new MosquittoProcess(ports, directory)
    try {
      await broker.start()
      onEnd(owner, () => broker.stop())
      return broker
    } catch (error) {
      // Between our look and the broker's, somebody else may take a port.
      if (attempts === 0 || !/Address already in use|Unable to create websockets/.test(broker.log())) throw error
    }
  }
}

/** The text of a password file for these users and passwords, hashed as mosquitto_passwd 2.0 does. */
export function passwordFile (users: Readonly<Record<string, string>>): string {
  const iterations = 101
  return Object.entries(users).map(([name, password]) => {
    const salt = randomBytes(12)
    const hash = pbkdf2Sync(password, salt, iterations, 64, 'sha512')
    return `${name}:$7$${iterations}$${salt.toString('base64')}$${hash.toString('base64')}\n`
  }).join('')
}

class MosquittoProcess implements Mosquitto {
  readonly ports: Readonly<MosquittoPorts>
  readonly url: string
  readonly directory: string
  readonly #events = new EventEmitter().setMaxListeners(0)
  #child: ChildProcess | undefined
  #log = ''

  constructor (ports: MosquittoPorts, directory: string) {
    this.ports = ports
    this.url = `mqtt://127.0.0.1:${ports.plain}`
    this.directory = directory
  }

  async start (): Promise<void> {
    if (this.#child) throw new Error('this broker runs already')
    const since = this.#log.length
    const child = spawn(programPath('mosquitto') ?? 'mosquitto', ['-c', join(this.directory, 'mosquitto.conf')], {
      stdio: ['ignore', 'ignore', 'pipe']
    })
    this.#child = child
    endWithUs(child)
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#log += text
      this.#events.emit('log')
    })
    const end = () => {
      this.#child = undefined
      this.#events.emit('end')
    }
    child.once('close', end)
    child.once('error', (error) => {
      this.#log += `${error.message}\n`
      end()
    })
    try {
      // Written once all listeners are open.
      await this.logged(/^mosquitto version \S+ running$/m, since)
    } catch (error) {
      await this.stop('SIGKILL')
      throw error
    }
  }

  async stop (signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#child
    if (!child) return
    const ended = once(this.#events, 'end')
    child.kill(signal)
    const timer = setTimeout(() => child.kill('SIGKILL'), killAfterMs)
    await ended
    clearTimeout(timer)
  }

  async save (): Promise<void> {
    const file = join(this.directory, 'mosquitto.db')
    // It is renamed to that when it is complete.
    rmSync(file, { force: true })
    this.#child?.kill('SIGUSR1')
    const saved = (async () => {
      while (!existsSync(file)) await new Promise((resolve) => setTimeout(resolve, 5))
    })()
    await within(saved, startTimeoutMs, 'saved database')
  }

  log (): string {
    return this.#log
  }

  async logged (pattern: RegExp, since = 0): Promise<RegExpExecArray> {
    const { promise, resolve, reject } = deferred<RegExpExecArray>()
    const look = () => {
      const match = pattern.exec(this.#log.slice(since))
      if (match) resolve(match)
    }
    const end = () => reject(new Error(`mosquitto ended: ${this.#log.slice(since)}`))
    this.#events.on('log', look).on('end', end)
    try {
      look()
      return await within(promise, startTimeoutMs, `${pattern} in the log of mosquitto`)
    } finally {
      this.#events.off('log', look).off('end', end)
    }
  }
}

async function fivePorts (): Promise<MosquittoPorts> {
  const [plain = 0, tls = 0, websocket = 0, dynsec = 0, extra = 0] = await freePorts(5)
  return { plain, tls, websocket, dynsec, extra }
}

/** The one place that reads docker/mosquitto/mosquitto.conf: the same with this machine's ports and paths. */
function configuration (ports: MosquittoPorts, directory: string): string {
  const ours = new Map([
    ['1883', ports.plain], ['8883', ports.tls], ['9001', ports.websocket], ['1884', ports.dynsec]
  ])
  const text = readFileSync(join(configurationFolder, 'mosquitto.conf'), 'utf8')
    .replaceAll('/mosquitto/config', configurationFolder)
    .replaceAll('/mosquitto/data', directory)
    .replaceAll('/usr/lib/mosquitto_dynamic_security.so', dynsecPluginPath() ?? '')
    .replaceAll(/^listener (\d+)$/gm, (_, port: string) => {
      const own = ours.get(port)
      if (own === undefined) throw new Error(`mosquitto.conf has a listener ${port} the tests know nothing of`)
      return `listener ${own} 127.0.0.1`
    })
  // 'subscribe' tells the grants, on which mosquittoSub waits; 'debug' would tell every packet, and is slow.
  const logTypes = ['error', 'warning', 'notice', 'information', 'subscribe', 'unsubscribe']
  return [
    // Started by root, the broker would become another user, who may not read the test's folder.
    ...(process.getuid?.() === 0 ? ['user root'] : []),
    'log_dest stderr',
    'log_timestamp false',
    ...logTypes.map((type) => `log_type ${type}`),
    text
  ].join('\n')
}

function withPlaceholders (text: string, ports: MosquittoPorts, directory: string): string {
  const values = new Map<string, string | number>([
    ...Object.entries(ports), ['dir', directory], ['certs', join(configurationFolder, 'certs')]
  ])
  return text.replaceAll(/\{\{(\w+)\}\}/g, (whole, name: string) => String(values.get(name) ?? whole))
}

function whatIsMissing (): string | false {
  const programs = ['mosquitto', 'mosquitto_pub', 'mosquitto_sub'].filter((name) => !programPath(name))
  const missing = dynsecPluginPath() ? programs : [...programs, 'mosquitto_dynamic_security.so']
  if (missing.length === 0) return false
  const reason = `needs a real broker: ${missing.join(', ')} not found`
  if (process.env['MULTIMQTT_REQUIRE_BROKER']) throw new Error(reason)
  return reason
}
