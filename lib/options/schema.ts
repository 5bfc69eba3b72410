import { Type, type Static } from '@sinclair/typebox'
import type { DynsecOptions } from '../../types/dynsec.ts'
import type { PublishProperties } from '../../types/message.ts'
import type {
  ClientOptions, Converter, CredentialsFunction, MultimqttOptions, ValidatorCompiler
} from '../../types/options.ts'
import type { ProcessesOptions } from '../../types/processes.ts'
import type { Codec, MessageOrder } from '../../types/topic.ts'

// setTimeout fires at once for more than 2^31 - 1 milliseconds.
const maxDelayMs = 2_147_483_647

const milliseconds = (minimum: number) => optional(Type.Integer({ minimum, maximum: maxDelayMs }))
// An option that is given as undefined, as `process.env.MQTT_HOST` may be, is one that is not given.
const optional = <T extends Parameters<typeof Type.Optional>[0]>(schema: T) =>
  Type.Optional(Type.Union([schema, Type.Undefined()]))
const pem = Type.Union([Type.String({ minLength: 1 }), Type.Unsafe<Buffer>(Type.Uint8Array())])

const TlsSchema = Type.Object({
  ca: optional(Type.Union([pem, Type.Array(pem)])),
  cert: optional(pem),
  key: optional(pem),
  passphrase: optional(Type.String()),
  servername: optional(Type.String({ minLength: 1 })),
  minVersion: optional(Type.Union([Type.Literal('TLSv1.2'), Type.Literal('TLSv1.3')])),
  rejectUnauthorized: optional(Type.Boolean())
}, { additionalProperties: false })

const ClientSchema = Type.Object({
  wsOptions: optional(Type.Object({})),
  writeCache: optional(Type.Boolean()),
  timerVariant: optional(Type.Unknown()),
  reschedulePings: optional(Type.Boolean()),
  log: optional(Type.Function([], Type.Unknown()))
}, { additionalProperties: false })

const ConverterSchema = Type.Object({
  parse: Type.Function([], Type.Unknown()),
  format: Type.Function([], Type.Unknown())
})

const CodecSchema = Type.Object({
  contentType: Type.String({ minLength: 1 }),
  encode: Type.Function([], Type.Unknown()),
  decode: Type.Function([], Type.Unknown())
})

const qos = optional(Type.Union([Type.Literal(0), Type.Literal(1), Type.Literal(2)]))
const seconds = optional(Type.Integer({ minimum: 0, maximum: 0xffff_ffff }))
const count = (minimum: number) => optional(Type.Integer({ minimum, maximum: Number.MAX_SAFE_INTEGER }))

const WillSchema = Type.Object({
  topic: Type.String({ minLength: 1 }),
  payload: Type.Optional(Type.Unknown()),
  qos,
  retain: optional(Type.Boolean()),
  delay: seconds,
  properties: optional(Type.Unsafe<PublishProperties>(Type.Object({}))),
  absolute: optional(Type.Boolean())
}, { additionalProperties: false })

const PresenceSchema = Type.Object({
  topic: Type.String({ minLength: 1 }),
  online: Type.Unknown(),
  offline: Type.Unknown(),
  qos,
  absolute: optional(Type.Boolean())
}, { additionalProperties: false })

const ReconnectSchema = Type.Object({
  minDelay: milliseconds(1),
  maxDelay: milliseconds(1)
}, { additionalProperties: false })

const OrderSchema = Type.Union([
  Type.Literal('topic'), Type.Literal('none'), Type.Function([], Type.Unknown())
])

const InboxSchema = Type.Object({
  maxMessages: count(1),
  maxBytes: count(1),
  maxUnacked: optional(Type.Integer({ minimum: 1, maximum: 65_535 })),
  overflow: optional(Type.Union([Type.Literal('drop-oldest'), Type.Literal('drop-newest')]))
}, { additionalProperties: false })

const OutboxSchema = Type.Object({
  maxMessages: count(1),
  maxBytes: count(1),
  overflow: optional(Type.Union([Type.Literal('reject'), Type.Literal('drop-oldest'), Type.Literal('drop-newest')]))
}, { additionalProperties: false })

const protocol = Type.Union([
  Type.Literal('mqtt'), Type.Literal('mqtts'), Type.Literal('tcp'), Type.Literal('ssl'), Type.Literal('tls'),
  Type.Literal('ws'), Type.Literal('wss')
])

/** Where the broker is, and who logs in there. */
const access = {
  url: optional(Type.String({ minLength: 1 })),
  protocol: optional(protocol),
  host: optional(Type.String({ minLength: 1 })),
  port: optional(Type.Integer({ minimum: 1, maximum: 65_535 })),
  username: optional(Type.String({ minLength: 1 })),
  password: optional(Type.String()),
  path: optional(Type.String({ minLength: 1 })),
  clientId: optional(Type.String({ minLength: 1 })),
  credentials: optional(Type.Unsafe<CredentialsFunction>(Type.Function([], Type.Unknown()))),
  tls: optional(TlsSchema)
}

const DynsecSchema = Type.Object({
  connection: optional(Type.Object(access, { additionalProperties: false })),
  // There is more for each command, which has to fit into a timer too.
  timeout: optional(Type.Integer({ minimum: 1, maximum: 2 ** 30 - 1 })),
  chunk: count(1)
}, { additionalProperties: false })

/**
 * The options of the plugin: the one place that says what is accepted. docs/options.md is checked against it.
 */
export const OptionsSchema = Type.Object({
  ...access,
  // Fastify's RegisterOptions have a prefix too, whose type takes no undefined.
  prefix: Type.Optional(Type.String()),
  namespace: optional(Type.String({ pattern: '^[A-Za-z_$][A-Za-z0-9_$]*$' })),
  protocolVersion: optional(Type.Union([Type.Literal('auto'), Type.Literal(4), Type.Literal(5)])),
  keepalive: optional(Type.Integer({ minimum: 0, maximum: 65_535 })),
  session: optional(Type.Object({ expiry: seconds }, { additionalProperties: false })),
  will: optional(WillSchema),
  presence: optional(PresenceSchema),
  start: optional(Type.Union([Type.Literal('wait'), Type.Literal('background'), Type.Literal('manual')])),
  connectTimeout: milliseconds(1),
  // Checked by itself, for its messages: options/processes.ts.
  processes: Type.Optional(Type.Unsafe<ProcessesOptions | undefined>(Type.Unknown())),
  reconnect: optional(ReconnectSchema),
  concurrency: count(1),
  order: optional(Type.Unsafe<MessageOrder>(OrderSchema)),
  inbox: optional(InboxSchema),
  outbox: optional(OutboxSchema),
  publishTimeout: milliseconds(1),
  drainTimeout: milliseconds(0),
  maxPayload: optional(Type.Integer({ minimum: 0 })),
  dynsec: optional(Type.Union([Type.Literal(true), Type.Unsafe<DynsecOptions>(DynsecSchema)])),
  converters: optional(
    Type.Unsafe<Readonly<Record<string, Converter>>>(Type.Record(Type.String(), ConverterSchema))),
  codecs: optional(Type.Unsafe<readonly Codec[]>(Type.Array(CodecSchema))),
  validatorCompiler: optional(Type.Unsafe<ValidatorCompiler>(Type.Function([], Type.Unknown()))),
  client: optional(Type.Unsafe<ClientOptions>(ClientSchema))
}, { additionalProperties: false })

/**
 * The interface in types/ is written by hand, for its documentation: this line proves that both say the same.
 */
true satisfies Equal<Flat<Static<typeof OptionsSchema>>, Flat<MultimqttOptions>>
true satisfies Equal<Flat<Static<typeof DynsecSchema>>, Flat<DynsecOptions>>

type Flat<T> = { [K in keyof T]: T[K] }
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
