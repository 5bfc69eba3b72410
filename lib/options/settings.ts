import { randomBytes } from 'node:crypto'
import { isIPv6 } from 'node:net'
import { createSecureContext } from 'node:tls'
import { TypeCompiler, ValueErrorType, type ValueError } from '@sinclair/typebox/compiler'
import type { ClientOptions, MultimqttOptions, TlsOptions, ValidatorCompiler } from '../../types/options.ts'
import type { Codec, MessageOrder } from '../../types/topic.ts'
import { describeError, errors } from '../errors.ts'
import { textProblem } from '../guard.ts'
import { withConverters, type Converters } from '../topic/converters.ts'
import { parsePrefix } from '../topic/prefix.ts'
import { defined, describe, isRecord, kindOf } from '../values.ts'
import { Credentials, loginProblem } from './credentials.ts'
import { dynsecOf, type DynsecSettings } from './dynsec-options.ts'
import { resolveProcesses, type ProcessSettings } from './processes.ts'
import { OptionsSchema } from './schema.ts'
import { reconnectOf, sessionExpiryOf, type ReconnectSettings } from './session-options.ts'
import { parseBrokerUrl, redactUrl, type BrokerUrl } from './url.ts'
import { presenceOf, willOf, type Presence, type Will } from './will.ts'

/** The options, checked and complete. */
export interface Settings {
  readonly address: Address
  readonly credentials: Credentials
  readonly prefix: string
  readonly namespace: string | undefined
  readonly clientId: string
  /** False for a random one. */
  readonly hasClientId: boolean
  readonly protocolVersion: 'auto' | 4 | 5
  readonly keepaliveSeconds: number
  readonly sessionExpirySeconds: number
  readonly will: Will | undefined
  readonly presence: Presence | undefined
  readonly processes: ProcessSettings
  readonly dynsec: DynsecSettings<Settings> | undefined
  readonly reconnect: ReconnectSettings
  readonly concurrency: number
  readonly order: MessageOrder
  readonly inbox: {
    readonly maxMessages: number
    readonly maxBytes: number
    readonly maxUnacked: number
    readonly overflow: 'drop-oldest' | 'drop-newest'
  }
  readonly outbox: {
    readonly maxMessages: number
    readonly maxBytes: number
    readonly overflow: 'reject' | 'drop-oldest' | 'drop-newest'
  }
  readonly tls: TlsOptions
  readonly start: 'wait' | 'background' | 'manual'
  readonly connectTimeoutMs: number
  readonly publishTimeoutMs: number
  readonly drainTimeoutMs: number
  readonly maxPayload: number
  readonly converters: Converters
  readonly codecs: readonly Codec[]
  readonly validatorCompiler: ValidatorCompiler | undefined
  readonly client: ClientOptions
}

/** Where the broker is. */
export interface Address {
  /** `memory` is a broker within the process: fastify-multimqtt/testing. */
  readonly protocol: 'mqtt' | 'mqtts' | 'ws' | 'wss' | 'memory'
  readonly host: string
  readonly port: number
  /** Of the WebSocket. */
  readonly path: string
  /** For messages: protocol, host and port. */
  readonly text: string
}

/** What the Fastify instance says about itself. */
export interface HostLimits {
  /** Milliseconds that Fastify waits for a plugin and a hook; 0 for ever. */
  readonly pluginTimeoutMs: number
  readonly bodyLimit: number
}

/**
 * Checks the options and fills in what is not given.
 *
 * @throws `FST_MQTT_OPTIONS_INVALID`, which names the key
 */
export function resolveOptions (given: unknown, host: HostLimits): Settings {
  const options = checkShape(given)
  const url = options.url === undefined ? undefined : urlOf(options.url)
  const protocol = protocolOf(options, url)
  const prefix = prefixOf(options, url, protocol)
  return {
    address: addressOf(options, url, protocol),
    credentials: credentialsOf(options, url),
    prefix,
    namespace: options.namespace,
    clientId: clientIdOf(options),
    hasClientId: options.clientId !== undefined,
    protocolVersion: options.protocolVersion ?? 'auto',
    keepaliveSeconds: options.keepalive ?? 60,
    sessionExpirySeconds: sessionExpiryOf(options, invalid),
    will: willOf(options, prefix, invalid),
    presence: presenceOf(options, prefix, invalid),
    processes: resolveProcesses(options.processes),
    dynsec: dynsecOf(options, (administrator) => resolveOptions(administrator, host)),
    reconnect: reconnectOf(options, invalid),
    concurrency: options.concurrency ?? 20,
    order: options.order ?? 'topic',
    inbox: {
      maxMessages: options.inbox?.maxMessages ?? 10_000,
      maxBytes: options.inbox?.maxBytes ?? 16 * 1024 ** 2,
      maxUnacked: options.inbox?.maxUnacked ?? 1_000,
      overflow: options.inbox?.overflow ?? 'drop-oldest'
    },
    outbox: {
      maxMessages: options.outbox?.maxMessages ?? 10_000,
      maxBytes: options.outbox?.maxBytes ?? 16 * 1024 ** 2,
      overflow: options.outbox?.overflow ?? 'reject'
    },
    tls: tlsOf(options, protocol),
    start: options.start ?? 'wait',
    connectTimeoutMs: connectTimeoutOf(options, host),
    publishTimeoutMs: options.publishTimeout ?? 30_000,
    drainTimeoutMs: options.drainTimeout ?? 1_000,
    maxPayload: options.maxPayload ?? host.bodyLimit,
    converters: convertersOf(options),
    codecs: options.codecs ?? [],
    validatorCompiler: options.validatorCompiler,
    client: options.client ?? {}
  }
}

const compiled = TypeCompiler.Compile(OptionsSchema)

// Keys of register() itself, which Fastify hands on to the plugin.
const fastifyKeys = ['logLevel', 'logSerializers']

function checkShape (given: unknown): MultimqttOptions {
  if (!isRecord(given)) throw invalid('options', `they have to be an object, not ${kindOf(given)}`)
  const options = Object.fromEntries(Object.entries(given).filter(([key]) => !fastifyKeys.includes(key)))
  if (compiled.Check(options)) return options
  const outermost = compiled.Errors(options).First()
  if (outermost === undefined) throw invalid('options', 'they do not fit the schema')
  const error = innermost(outermost)
  throw invalid(error.path.slice(1).replaceAll('/', '.'), shapeProblem(error))
}

/**
 * Of what may be undefined, or something else, TypeBox says only that it is a union: what the one choice
 * that was meant wants, and where.
 */
function innermost (error: ValueError): ValueError {
  const choices = choicesOf(error.schema)
  const objects = choices.filter((choice) => choice['type'] === 'object')
  const [only, ...others] = choices.length > 1 && isRecord(error.value) ? objects : choices
  if (only === undefined || others.length > 0) return error
  const inner = error.errors[choices.indexOf(only)]?.First()
  return inner === undefined ? error : innermost(inner)
}

function shapeProblem (error: ValueError): string {
  if (error.type === ValueErrorType.ObjectAdditionalProperties) {
    const parent: unknown = error.schema['properties']
    return `there is no such option, there are ${Object.keys(isRecord(parent) ? parent : {}).join(', ')}`
  }
  const isSecret = /\/(?:url|password|tls|key|passphrase)$/.test(error.path)
  return `expected ${expectation(error)}, not ${isSecret ? kindOf(error.value) : describe(error.value)}`
}

function expectation ({ schema, message }: ValueError): string {
  const choices = choicesOf(schema)
  if (choices.length === 0) return message.replace(/^Expected /, '')
  const isLiteral = choices.every((choice) => 'const' in choice)
  return isLiteral
    ? `one of ${choices.map((choice) => describe(choice['const'])).join(', ')}`
    : choices.flatMap(typesOf).join(' or ')
}

function typesOf (schema: Record<string, unknown>): unknown[] {
  if ('const' in schema) return [describe(schema['const'])]
  if (schema['type'] === 'Function') return ['function']
  return 'type' in schema ? [schema['type']] : choicesOf(schema).flatMap(typesOf)
}

function choicesOf (schema: object): Record<string, unknown>[] {
  const choices: unknown[] = 'anyOf' in schema && Array.isArray(schema.anyOf) ? schema.anyOf : []
  return choices.filter(isRecord).filter((choice) => choice['type'] !== 'undefined')
}

function invalid (key: string, problem: string): Error {
  return new errors.FST_MQTT_OPTIONS_INVALID(key, problem)
}

function urlOf (text: string): BrokerUrl {
  const parsed = parseBrokerUrl(text)
  if ('problem' in parsed) throw invalid('url', parsed.problem)
  return parsed.url
}

const protocols = {
  mqtt: 'mqtt', tcp: 'mqtt', mqtts: 'mqtts', ssl: 'mqtts', tls: 'mqtts', ws: 'ws', wss: 'wss'
} as const
const defaultPorts = { mqtt: 1883, mqtts: 8883, ws: 80, wss: 443, memory: 0 } as const

function protocolOf (options: MultimqttOptions, url: BrokerUrl | undefined): Address['protocol'] {
  const scheme = options.protocol ?? url?.scheme ?? 'mqtt'
  if (scheme === 'memory') return scheme
  if (Object.hasOwn(protocols, scheme)) return protocols[scheme as keyof typeof protocols]
  throw invalid('url', `unknown scheme '${scheme}', there are ${Object.keys(protocols).join(', ')}`)
}

function addressOf (
  options: MultimqttOptions, url: BrokerUrl | undefined, protocol: Address['protocol']
): Address {
  const host = options.host ?? url?.host ?? '127.0.0.1'
  if (/[\s/@[\]]/.test(host) || (host.includes(':') && !isIPv6(host))) {
    throw invalid('host', `'${redactUrl(host)}' is no host name or address; the port is an option of its own`)
  }
  const isWebSocket = protocol === 'ws' || protocol === 'wss'
  if (options.path !== undefined && !isWebSocket) {
    throw invalid('path', `only ws and wss have a path, ${protocol} has not; the prefix of the topics is 'prefix'`)
  }
  if (options.path !== undefined && !options.path.startsWith('/')) {
    throw invalid('path', `it has to begin with /, as in '/${options.path}'`)
  }
  const port = options.port ?? url?.port ?? defaultPorts[protocol]
  return {
    protocol,
    host,
    port,
    path: isWebSocket ? options.path ?? (url?.path || '/') : '',
    text: protocol === 'memory' ? `memory://${host}` : `${protocol}://${host.includes(':') ? `[${host}]` : host}:${port}`
  }
}

function credentialsOf (options: MultimqttOptions, url: BrokerUrl | undefined): Credentials {
  const username = options.username ?? url?.username
  const password = options.password ?? url?.password
  if (options.credentials !== undefined) {
    if (username === undefined && password === undefined) return new Credentials(options.credentials)
    throw invalid('credentials', 'it takes the place of username and password: give either')
  }
  const problem = loginProblem(username, password)
  if (problem !== undefined) throw invalid(problem.key, problem.problem)
  return new Credentials(() => ({ username, password }), false, username)
}

function prefixOf (
  options: MultimqttOptions, url: BrokerUrl | undefined, protocol: Address['protocol']
): string {
  const fromUrl = protocol === 'ws' || protocol === 'wss' ? '' : url?.prefix ?? ''
  const parsed = parsePrefix(options.prefix ?? fromUrl)
  if ('problem' in parsed) throw invalid(options.prefix === undefined ? 'url' : 'prefix', parsed.problem)
  return parsed.prefix
}

function clientIdOf (options: MultimqttOptions): string {
  // Letters and digits, 23 of them: what every 3.1.1 server has to accept [MQTT-3.1.3-5].
  const clientId = options.clientId ?? `fastify${randomBytes(8).toString('hex')}`
  const problem = textProblem(clientId)
  if (problem !== undefined) throw invalid('clientId', problem)
  return clientId
}

function tlsOf (options: MultimqttOptions, protocol: Address['protocol']): TlsOptions {
  const { tls } = options
  if (tls === undefined) return {}
  if (protocol !== 'mqtts' && protocol !== 'wss') {
    throw invalid('tls', `the protocol is ${protocol}, which has no TLS: use ${protocol === 'ws' ? 'wss' : 'mqtts'}`)
  }
  try {
    createSecureContext(defined(tls))
  } catch (error) {
    throw invalid('tls', describeError(error))
  }
  return tls
}

function connectTimeoutOf (options: MultimqttOptions, host: HostLimits): number {
  const wanted = options.connectTimeout ?? 5_000
  if (host.pluginTimeoutMs === 0) return wanted
  // Later, Fastify would end the start itself, with an error that names neither broker nor cause.
  const limit = host.pluginTimeoutMs - 1_000
  if (options.connectTimeout === undefined) {
    return limit > 0 ? Math.min(wanted, limit) : Math.ceil(host.pluginTimeoutMs / 2)
  }
  if (wanted <= limit) return wanted
  throw invalid('connectTimeout',
    `it has to stay 1000 ms below Fastify's pluginTimeout (${host.pluginTimeoutMs} ms), not ${wanted}`)
}

function convertersOf (options: MultimqttOptions): Converters {
  for (const name of Object.keys(options.converters ?? {})) {
    if (!/^[\w-]+$/.test(name)) {
      throw invalid('converters', `the name '${name}' must be letters, digits, _ and -`)
    }
    if (name === 'path') throw invalid('converters', "'path' cannot be replaced: it is the one of several levels")
  }
  return withConverters(options.converters)
}
