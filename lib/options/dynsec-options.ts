import type { DynsecConnectionOptions } from '../../types/dynsec.ts'
import type { MultimqttOptions } from '../../types/options.ts'
import { defined } from '../values.ts'
import { maxGroupLength } from './processes.ts'

/** Who administers dynamic security. */
export interface DynsecSettings<Settings> {
  readonly timeoutMs: number
  readonly chunk: number | undefined
  /** A connection of its own; else the plugin's. */
  readonly connection: Settings | undefined
}

/** @param resolve makes the settings of the administrator's connection from its options */
export function dynsecOf<Settings> (
  options: MultimqttOptions, resolve: (options: MultimqttOptions) => Settings
): DynsecSettings<Settings> | undefined {
  if (options.dynsec === undefined) return undefined
  const { connection, timeout = 5_000, chunk } = options.dynsec === true ? {} : options.dynsec
  return {
    timeoutMs: timeout,
    chunk,
    connection: connection === undefined ? undefined : resolve(administratorOf(options, connection))
  }
}

/** To the same broker, where none is given. */
function administratorOf (options: MultimqttOptions, connection: DynsecConnectionOptions): MultimqttOptions {
  const { url, protocol, host, port, path } = connection
  const isElsewhere = [url, protocol, host, port, path].some((part) => part !== undefined)
  const others = {
    start: options.start,
    connectTimeout: options.connectTimeout,
    publishTimeout: options.publishTimeout,
    drainTimeout: options.drainTimeout,
    keepalive: options.keepalive,
    protocolVersion: options.protocolVersion,
    reconnect: options.reconnect,
    ...inGroup(options.processes)
  }
  const where = isElsewhere
    ? {}
    : {
        url: options.url === undefined ? undefined : withoutLogin(options.url),
        protocol: options.protocol,
        host: options.host,
        port: options.port,
        path: options.path,
        tls: options.tls
      }
  return defined({ ...where, ...others, ...defined(connection) }) as MultimqttOptions
}

/**
 * Processes that share the connection of the application share the administrator's, too: a group of its own,
 * whose owner need not be the same one.
 */
function inGroup (processes: MultimqttOptions['processes']): MultimqttOptions {
  if (processes === undefined || processes === 'each') return {}
  const group = `${processes.group.slice(0, maxGroupLength - groupSuffix.length)}${groupSuffix}`
  // Nothing has to be kept while another process takes over.
  return { processes: { ...processes, group }, session: { expiry: 1 } }
}

const groupSuffix = '.dynsec'

/** The URL with nobody's name and password. */
function withoutLogin (url: string): string {
  return url.replace(/^([a-z]+:\/\/)[^/]*@/i, '$1')
}
