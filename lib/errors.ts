import createError from '@fastify/error'

/**
 * Every error of the plugin, by its code. `statusCode` is what an HTTP route that passes the error on would
 * answer. Match on `error.code`; each page of `docs/errors.md` is checked against this table.
 */
export const errors = {
  // Registration of the plugin
  FST_MQTT_OPTIONS_INVALID: createError<'FST_MQTT_OPTIONS_INVALID', 500, [key: string, problem: string]>(
    'FST_MQTT_OPTIONS_INVALID', "Invalid option '%s': %s", 500),
  FST_MQTT_ALREADY_REGISTERED: createError<'FST_MQTT_ALREADY_REGISTERED', 500, [what: string, advice: string]>(
    'FST_MQTT_ALREADY_REGISTERED', '%s is already registered here: %s', 500),
  FST_MQTT_NO_DEFAULT: createError<'FST_MQTT_NO_DEFAULT', 500, [member: string, namespaces: string]>(
    'FST_MQTT_NO_DEFAULT',
    'fastify.mqtt.%s needs the default connection, which is not registered: register one without a namespace, ' +
    'or use one of the namespaces %s', 500),

  // Registration of topics
  FST_MQTT_TOPIC_PATTERN: createError<'FST_MQTT_TOPIC_PATTERN', 500, [problem: string, pattern: string]>(
    'FST_MQTT_TOPIC_PATTERN', "Invalid topic pattern: %s (in '%s')", 500),
  FST_MQTT_TOPIC_OPTIONS: createError<'FST_MQTT_TOPIC_OPTIONS', 500, [pattern: string, problem: string]>(
    'FST_MQTT_TOPIC_OPTIONS', "Invalid options of topic '%s': %s", 500),
  FST_MQTT_TOPIC_CONFLICT: createError<'FST_MQTT_TOPIC_CONFLICT', 500, [filter: string, problem: string]>(
    'FST_MQTT_TOPIC_CONFLICT',
    "The topic filter '%s' is already subscribed with other options: %s. One filter has one subscription: " +
    'give both topics the same', 500),
  FST_MQTT_TOPIC_NAME_TAKEN: createError<'FST_MQTT_TOPIC_NAME_TAKEN', 500, [name: string, pattern: string]>(
    'FST_MQTT_TOPIC_NAME_TAKEN',
    "The topic name '%s' is already given to '%s': names hold for all contexts of a connection", 500),
  FST_MQTT_SCHEMA_INVALID: createError<'FST_MQTT_SCHEMA_INVALID', 500, [place: string, problem: string, options?: ErrorOptions]>(
    'FST_MQTT_SCHEMA_INVALID', 'Invalid %s schema: %s', 500),

  FST_MQTT_HOOK_INVALID: createError<'FST_MQTT_HOOK_INVALID', 500, [problem: string]>(
    'FST_MQTT_HOOK_INVALID', 'Invalid hook: %s', 500),
  FST_MQTT_HOOK_TOO_LATE: createError<'FST_MQTT_HOOK_TOO_LATE', 500, [what: string]>(
    'FST_MQTT_HOOK_TOO_LATE', '%s has to be called before the application is ready', 500),
  FST_MQTT_INJECT_NOT_READY: createError<'FST_MQTT_INJECT_NOT_READY', 500>(
    'FST_MQTT_INJECT_NOT_READY',
    "inject() needs an application that is ready: await fastify.ready() first, or register with start: 'manual', " +
    'which needs no broker', 500),

  // Topic names and reverse routing
  FST_MQTT_TOPIC_NAME: createError<'FST_MQTT_TOPIC_NAME', 400, [topic: string, problem: string]>(
    'FST_MQTT_TOPIC_NAME', "Invalid topic name '%s': %s", 400),
  FST_MQTT_TOPIC_OUTSIDE_PREFIX: createError<'FST_MQTT_TOPIC_OUTSIDE_PREFIX', 400, [topic: string]>(
    'FST_MQTT_TOPIC_OUTSIDE_PREFIX',
    "The topic '%s' begins with $ and so lies outside of every prefix: set { absolute: true } to mean that", 400),
  FST_MQTT_TOPIC_UNKNOWN: createError<'FST_MQTT_TOPIC_UNKNOWN', 500, [name: string, known: string]>(
    'FST_MQTT_TOPIC_UNKNOWN', "No topic has the name '%s': known are %s", 500),
  FST_MQTT_TOPIC_NAME_AMBIGUOUS: createError<'FST_MQTT_TOPIC_NAME_AMBIGUOUS', 500, [name: string, patterns: string]>(
    'FST_MQTT_TOPIC_NAME_AMBIGUOUS',
    "The name '%s' comes from the handler functions of several topics (%s): give each a name of its own", 500),
  FST_MQTT_TOPIC_PARAM: createError<'FST_MQTT_TOPIC_PARAM', 400, [pattern: string, problem: string, options?: ErrorOptions]>(
    'FST_MQTT_TOPIC_PARAM', "No topic name can be made from '%s': %s", 400),
  FST_MQTT_TOPIC_WILDCARD: createError<'FST_MQTT_TOPIC_WILDCARD', 500, [pattern: string]>(
    'FST_MQTT_TOPIC_WILDCARD',
    "The pattern '%s' has a wildcard without a name, so that no topic name can be made from it: " +
    'name it, as in <name> or <path:rest>', 500),

  // Messages that came in
  FST_MQTT_PARAMS_INVALID: createError<'FST_MQTT_PARAMS_INVALID', 400, [pattern: string, problem: string]>(
    'FST_MQTT_PARAMS_INVALID', "Invalid params for '%s': %s", 400),
  FST_MQTT_PAYLOAD_INVALID: createError<'FST_MQTT_PAYLOAD_INVALID', 400, [pattern: string, problem: string]>(
    'FST_MQTT_PAYLOAD_INVALID', "Invalid payload for '%s': %s", 400),
  FST_MQTT_PAYLOAD_DECODE: createError<'FST_MQTT_PAYLOAD_DECODE', 400, [codec: string, problem: string, options?: ErrorOptions]>(
    'FST_MQTT_PAYLOAD_DECODE', 'The payload is no %s: %s', 400),
  FST_MQTT_PAYLOAD_TOO_LARGE: createError<'FST_MQTT_PAYLOAD_TOO_LARGE', 413, [size: number, limit: number]>(
    'FST_MQTT_PAYLOAD_TOO_LARGE', 'The payload has %s bytes, maxPayload allows %s', 413),
  FST_MQTT_ACK_TIMEOUT: createError<'FST_MQTT_ACK_TIMEOUT', 504, [pattern: string, timeoutMs: number]>(
    'FST_MQTT_ACK_TIMEOUT',
    "A handler of '%s' with ack: 'manual' has not called message.ack() within %s ms after it was done", 504),
  FST_MQTT_ACK_NOT_MANUAL: createError<'FST_MQTT_ACK_NOT_MANUAL', 500, [pattern: string]>(
    'FST_MQTT_ACK_NOT_MANUAL', "The topic '%s' acknowledges by itself: message.ack() is for topics with ack: 'manual'", 500),
  FST_MQTT_ACK_CODE: createError<'FST_MQTT_ACK_CODE', 500, [given: string]>(
    'FST_MQTT_ACK_CODE', 'message.ack() takes 0, or a reason code from 128 to 255 to refuse the message, not %s', 500),
  FST_MQTT_IDLE_TIMEOUT: createError<'FST_MQTT_IDLE_TIMEOUT', 504, [timeoutMs: number, running: number]>(
    'FST_MQTT_IDLE_TIMEOUT',
    'After %s ms handlers are still running (%s): a handler that awaits idle() waits for itself', 504),
  FST_MQTT_ORDER_KEY: createError<'FST_MQTT_ORDER_KEY', 500, [pattern: string, given: string]>(
    'FST_MQTT_ORDER_KEY', "The function 'order' of '%s' has to return a string, not %s", 500),
  FST_MQTT_DEAD_LETTER: createError<
    'FST_MQTT_DEAD_LETTER', 502, [pattern: string, problem: string, consequence: string, options?: ErrorOptions]
  >(
    'FST_MQTT_DEAD_LETTER', "The dead letter target of '%s' has failed (%s): %s", 502),

  // Publishing
  FST_MQTT_PAYLOAD_ENCODE: createError<'FST_MQTT_PAYLOAD_ENCODE', 400, [codec: string, problem: string, options?: ErrorOptions]>(
    'FST_MQTT_PAYLOAD_ENCODE', 'The payload cannot be sent as %s: %s', 400),
  FST_MQTT_PUBLISH_OPTIONS: createError<'FST_MQTT_PUBLISH_OPTIONS', 400, [problem: string]>(
    'FST_MQTT_PUBLISH_OPTIONS', 'Invalid publish options: %s', 400),
  FST_MQTT_NEEDS_MQTT5: createError<'FST_MQTT_NEEDS_MQTT5', 500, [what: string]>(
    'FST_MQTT_NEEDS_MQTT5', '%s need MQTT 5, this connection speaks MQTT 3.1.1', 500),
  FST_MQTT_BROKER_LIMIT: createError<'FST_MQTT_BROKER_LIMIT', 400, [problem: string]>(
    'FST_MQTT_BROKER_LIMIT', 'The broker does not accept this message: %s', 400),
  FST_MQTT_OFFLINE: createError<'FST_MQTT_OFFLINE', 503, [broker: string, options?: ErrorOptions]>(
    'FST_MQTT_OFFLINE', 'Not connected to %s: the message was not sent', 503),
  FST_MQTT_DELIVERY_UNKNOWN: createError<
    'FST_MQTT_DELIVERY_UNKNOWN', 503, [broker: string, options?: ErrorOptions]
  >(
    'FST_MQTT_DELIVERY_UNKNOWN',
    'The connection to %s was lost before the message was acknowledged: it may or may not have arrived', 503),
  FST_MQTT_PUBLISH_REFUSED: createError<'FST_MQTT_PUBLISH_REFUSED', 502, [topic: string, reason: string, options?: ErrorOptions]>(
    'FST_MQTT_PUBLISH_REFUSED', "The broker refused the message to '%s': %s", 502),
  FST_MQTT_OUTBOX_FULL: createError<'FST_MQTT_OUTBOX_FULL', 503, [problem: string]>(
    'FST_MQTT_OUTBOX_FULL', 'No more can wait to be sent: %s', 503),
  FST_MQTT_PUBLISH_TIMEOUT: createError<'FST_MQTT_PUBLISH_TIMEOUT', 504, [timeoutMs: number]>(
    'FST_MQTT_PUBLISH_TIMEOUT', 'The broker did not acknowledge the message within %s ms', 504),
  FST_MQTT_ABORTED: createError<'FST_MQTT_ABORTED', 503, [options?: ErrorOptions]>(
    'FST_MQTT_ABORTED', 'The signal given to publish was aborted before the message was acknowledged', 503),

  // Connection
  FST_MQTT_CONNECT_FAILED: createError<
    'FST_MQTT_CONNECT_FAILED', 503, [broker: string, timeoutMs: number, attempts: string, reason: string, options?: ErrorOptions]
  >(
    'FST_MQTT_CONNECT_FAILED', 'Could not connect to %s within %s ms (%s): %s', 503),
  FST_MQTT_CREDENTIALS: createError<'FST_MQTT_CREDENTIALS', 503, [options?: ErrorOptions]>(
    'FST_MQTT_CREDENTIALS', 'The option credentials has failed, so that there is nothing to connect with', 503),
  FST_MQTT_CONNECTION: createError<'FST_MQTT_CONNECTION', 503, [problem: string, options?: ErrorOptions]>(
    'FST_MQTT_CONNECTION', '%s', 503),
  FST_MQTT_MALFORMED: createError<'FST_MQTT_MALFORMED', 502, [problem: string]>(
    'FST_MQTT_MALFORMED', 'The broker sent what MQTT does not allow: %s', 502),
  FST_MQTT_CLOSED: createError<'FST_MQTT_CLOSED', 503, [broker: string]>(
    'FST_MQTT_CLOSED', 'The connection to %s is closed', 503),

  // Several processes
  FST_MQTT_GROUP_DIRECTORY: createError<
    'FST_MQTT_GROUP_DIRECTORY', 500, [directory: string, problem: string, options?: ErrorOptions]
  >(
    'FST_MQTT_GROUP_DIRECTORY', "The processes of the group cannot meet in '%s': %s", 500),
  FST_MQTT_GROUP_CLIENT_ID: createError<'FST_MQTT_GROUP_CLIENT_ID', 500, [group: string, owners: string, ours: string]>(
    'FST_MQTT_GROUP_CLIENT_ID',
    "The owner of the group '%s' is connected as '%s', this process would be as '%s', and not find the messages that " +
    'the broker keeps for the other one: give all processes of the group the same clientId', 500),
  FST_MQTT_PEER_VERSION: createError<'FST_MQTT_PEER_VERSION', 503, [theirs: number, ours: number]>(
    'FST_MQTT_PEER_VERSION',
    'Another process of the group speaks version %s of the protocol between processes, this one version %s: ' +
    'run one version of fastify-multimqtt in all processes of a group, and restart those with the older one', 503),
  FST_MQTT_PEER_REFUSED: createError<'FST_MQTT_PEER_REFUSED', 503, [problem: string, options?: ErrorOptions]>(
    'FST_MQTT_PEER_REFUSED', 'The connection to another process of the group was ended: %s', 503),

  // Dynamic security: what we refuse
  FST_MQTT_DYNSEC_NOT_ENABLED: createError<'FST_MQTT_DYNSEC_NOT_ENABLED', 500>(
    'FST_MQTT_DYNSEC_NOT_ENABLED',
    'fastify.mqtt.dynsec needs the option dynsec: true, or { connection } with the account of an administrator', 500),
  FST_MQTT_DYNSEC_INVALID: createError<'FST_MQTT_DYNSEC_INVALID', 400, [command: string, problem: string]>(
    'FST_MQTT_DYNSEC_INVALID', "Invalid dynamic security command '%s': %s", 400),
  FST_MQTT_DYNSEC_UNSUPPORTED: createError<'FST_MQTT_DYNSEC_UNSUPPORTED', 501, [command: string, problem: string]>(
    'FST_MQTT_DYNSEC_UNSUPPORTED', "The broker cannot do '%s': %s", 501),
  FST_MQTT_DYNSEC_SELF: createError<'FST_MQTT_DYNSEC_SELF', 403, [command: string, subject: string]>(
    'FST_MQTT_DYNSEC_SELF',
    "'%s' would change the account that sends it (%s), which may cut its own connection or lock it out: use another " +
    'account for that (option dynsec.connection), or { allowSelf: true } to mean it', 403),

  // Dynamic security: what the broker refuses
  FST_MQTT_DYNSEC_NOT_AUTHORIZED: createError<
    'FST_MQTT_DYNSEC_NOT_AUTHORIZED', 502, [what: string, reason: string, options?: ErrorOptions]
  >(
    'FST_MQTT_DYNSEC_NOT_AUTHORIZED', 'The account of this connection may not %s: %s', 502),
  FST_MQTT_DYNSEC_PLUGIN_ABSENT: createError<'FST_MQTT_DYNSEC_PLUGIN_ABSENT', 502, [broker: string, answer: string]>(
    'FST_MQTT_DYNSEC_PLUGIN_ABSENT', "%s has no dynamic security plugin here, it says '%s'", 502),
  FST_MQTT_DYNSEC_NOT_FOUND: createError<'FST_MQTT_DYNSEC_NOT_FOUND', 404, [command: string, answer: string]>(
    'FST_MQTT_DYNSEC_NOT_FOUND', 'The broker refused %s: %s', 404),
  FST_MQTT_DYNSEC_ALREADY_EXISTS: createError<'FST_MQTT_DYNSEC_ALREADY_EXISTS', 409, [command: string, answer: string]>(
    'FST_MQTT_DYNSEC_ALREADY_EXISTS', 'The broker refused %s: %s', 409),
  FST_MQTT_DYNSEC_FORBIDDEN: createError<'FST_MQTT_DYNSEC_FORBIDDEN', 403, [command: string, problem: string]>(
    'FST_MQTT_DYNSEC_FORBIDDEN', '%s is forbidden: %s', 403),
  FST_MQTT_DYNSEC_INTERNAL: createError<'FST_MQTT_DYNSEC_INTERNAL', 502, [command: string, answer: string]>(
    'FST_MQTT_DYNSEC_INTERNAL', 'The broker failed in %s: %s', 502),
  FST_MQTT_DYNSEC_REJECTED: createError<'FST_MQTT_DYNSEC_REJECTED', 502, [command: string, answer: string]>(
    'FST_MQTT_DYNSEC_REJECTED', 'The broker refused %s: %s', 502),

  // Dynamic security: answers that do not come, or are of no use
  FST_MQTT_DYNSEC_NO_ANSWER: createError<
    'FST_MQTT_DYNSEC_NO_ANSWER', 504, [broker: string, timeoutMs: number, reasons: string]
  >(
    'FST_MQTT_DYNSEC_NO_ANSWER',
    '%s did not answer a question to its dynamic security plugin within %s ms, so nothing was sent: %s', 504),
  FST_MQTT_DYNSEC_OUTCOME_UNKNOWN: createError<
    'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN', 503, [broker: string, command: string]
  >(
    'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN',
    'The connection to %s was lost before %s was answered: it may or may not have been executed', 503),
  FST_MQTT_DYNSEC_TIMEOUT: createError<'FST_MQTT_DYNSEC_TIMEOUT', 504, [command: string, timeoutMs: number]>(
    'FST_MQTT_DYNSEC_TIMEOUT', '%s was not answered within %s ms: it may or may not have been executed', 504),
  FST_MQTT_DYNSEC_ABORTED: createError<'FST_MQTT_DYNSEC_ABORTED', 503, [what: string, options?: ErrorOptions]>(
    'FST_MQTT_DYNSEC_ABORTED', 'The signal was aborted: %s', 503),
  FST_MQTT_DYNSEC_REPLY_LOST: createError<'FST_MQTT_DYNSEC_REPLY_LOST', 502, [command: string]>(
    'FST_MQTT_DYNSEC_REPLY_LOST',
    '%s was executed, but its answer did not come while a later one did: brokers drop answers that are larger than ' +
    'the packets that the client accepts. Ask for less at once, by count and offset', 502),
  FST_MQTT_DYNSEC_REPLY_INVALID: createError<'FST_MQTT_DYNSEC_REPLY_INVALID', 502, [command: string, problem: string]>(
    'FST_MQTT_DYNSEC_REPLY_INVALID', '%s was executed, but its answer cannot be read: %s', 502),
  FST_MQTT_DYNSEC_NOT_SENT: createError<'FST_MQTT_DYNSEC_NOT_SENT', 503, [command: string, options?: ErrorOptions]>(
    'FST_MQTT_DYNSEC_NOT_SENT', '%s was not sent, because an earlier part of the batch was not answered', 503),
  FST_MQTT_DYNSEC_INCOMPLETE: createError<
    'FST_MQTT_DYNSEC_INCOMPLETE', 503, [command: string, reason: string, options?: ErrorOptions]
  >(
    'FST_MQTT_DYNSEC_INCOMPLETE', '%s succeeded, but what belongs to it did not: %s', 503)
} as const

/** The code of one of the plugin's errors. */
export type ErrorCode = keyof typeof errors

/**
 * What an error says, also where Node.js leaves the message empty: an AggregateError of several addresses.
 */
export function describeError (error: unknown): string {
  if (error instanceof AggregateError && error.message === '') {
    return error.errors.map(describeError).join(', ')
  }
  return error instanceof Error ? error.message : String(error)
}

/** What was thrown, as an error: codecs and converters of an application may throw anything. */
export function asError (thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(describeError(thrown))
}

/** The code of an error where it has one, as text: MQTT.js has numbers for the reason codes of the broker. */
export function errorCode (error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === undefined ? 'UNKNOWN' : String(code)
}
