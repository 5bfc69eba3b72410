import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { OptionsSchema } from '../lib/options/schema.ts'
import { resolveOptions } from '../lib/options/settings.ts'
import { parseBrokerUrl, redactUrl } from '../lib/options/url.ts'
import type { Converter } from '../types/options.ts'
import type { Codec } from '../types/topic.ts'

const host = { pluginTimeoutMs: 10_000, bodyLimit: 1_048_576 }
const resolve = (given: unknown, limits = host) => resolveOptions(given, limits)
const converter: Converter = { parse: (text) => text, format: String }
const codec: Codec = { contentType: 'application/x', encode: String, decode: String }
// Never in any message.
const password = 'hunter2'

test('resolveOptions: has a default for all but the broker of its own', async () => {
  const { clientId, converters, credentials, ...settings } = resolve({})
  assert.match(clientId, /^fastify[0-9a-f]{16}$/)
  assert.deepEqual([...converters.keys()], ['str', 'path', 'int', 'float', 'uuid'])
  assert.deepEqual(await credentials.ask(), { username: undefined, password: undefined })
  assert.deepEqual(settings, {
    address: { protocol: 'mqtt', host: '127.0.0.1', port: 1883, path: '', text: 'mqtt://127.0.0.1:1883' },
    prefix: '',
    namespace: undefined,
    protocolVersion: 'auto',
    keepaliveSeconds: 60,
    hasClientId: false,
    processes: { mode: 'each' },
    dynsec: undefined,
    sessionExpirySeconds: 0,
    will: undefined,
    presence: undefined,
    reconnect: { minDelayMs: 250, maxDelayMs: 30_000 },
    concurrency: 20,
    order: 'topic',
    inbox: { maxMessages: 10_000, maxBytes: 16_777_216, maxUnacked: 1_000, overflow: 'drop-oldest' },
    outbox: { maxMessages: 10_000, maxBytes: 16 * 1024 ** 2, overflow: 'reject' },
    tls: {},
    start: 'wait',
    connectTimeoutMs: 5_000,
    publishTimeoutMs: 30_000,
    drainTimeoutMs: 1_000,
    maxPayload: 1_048_576,
    codecs: [],
    validatorCompiler: undefined,
    client: {}
  })
  assert.notEqual(resolve({}).clientId, clientId)
})

test('resolveOptions: takes what is given', async () => {
  const validatorCompiler = () => () => true
  const client = { reschedulePings: true }
  const tls = { rejectUnauthorized: false, minVersion: 'TLSv1.3' as const, servername: 'broker' }
  const settings = resolve({
    protocol: 'ssl',
    host: 'h',
    port: 1,
    username: 'u',
    password,
    prefix: 'p',
    namespace: 'telemetry',
    clientId: 'c',
    protocolVersion: 4,
    keepalive: 0,
    concurrency: 2,
    order: 'none',
    inbox: { maxMessages: 1, maxBytes: 2, maxUnacked: 3, overflow: 'drop-newest' },
    tls,
    start: 'manual',
    connectTimeout: 9_000,
    publishTimeout: 1,
    drainTimeout: 0,
    maxPayload: 0,
    converters: { iso: converter, int: converter },
    codecs: [codec],
    validatorCompiler,
    client
  })
  const { converters, credentials, ...others } = settings
  assert.deepEqual([converters.get('iso'), converters.get('int')], [converter, converter])
  assert.deepEqual(await credentials.ask(), { username: 'u', password })
  assert.deepEqual(others, {
    address: { protocol: 'mqtts', host: 'h', port: 1, path: '', text: 'mqtts://h:1' },
    prefix: 'p',
    namespace: 'telemetry',
    clientId: 'c',
    protocolVersion: 4,
    keepaliveSeconds: 0,
    hasClientId: true,
    processes: { mode: 'each' },
    dynsec: undefined,
    sessionExpirySeconds: 0,
    will: undefined,
    presence: undefined,
    reconnect: { minDelayMs: 250, maxDelayMs: 30_000 },
    concurrency: 2,
    order: 'none',
    inbox: { maxMessages: 1, maxBytes: 2, maxUnacked: 3, overflow: 'drop-newest' },
    outbox: { maxMessages: 10_000, maxBytes: 16 * 1024 ** 2, overflow: 'reject' },
    tls,
    start: 'manual',
    connectTimeoutMs: 9_000,
    publishTimeoutMs: 1,
    drainTimeoutMs: 0,
    maxPayload: 0,
    codecs: [codec],
    validatorCompiler,
    client
  })
})

test('resolveOptions: takes undefined for every option as not given', () => {
  const keys = Object.keys(OptionsSchema.properties)
  const { clientId, ...settings } = resolve(Object.fromEntries(keys.map((key) => [key, undefined])))
  const { clientId: otherId, ...defaults } = resolve({})
  assert.deepEqual(inspect(settings), inspect(defaults))
  assert.notEqual(clientId, otherId)
  assert.equal(resolve({ protocol: 'mqtts', tls: { ca: undefined } }).address.port, 8883)
})

test("resolveOptions: drops the keys of Fastify's register", () => {
  assert.equal(resolve({ logLevel: 'warn', logSerializers: {} }).start, 'wait')
})

// Addresses

for (const [options, text, path, prefix] of [
  [{ url: 'mqtt://h' }, 'mqtt://h:1883', '', ''],
  [{ url: 'tcp://h' }, 'mqtt://h:1883', '', ''],
  [{ url: 'ssl://h' }, 'mqtts://h:8883', '', ''],
  [{ url: 'tls://h' }, 'mqtts://h:8883', '', ''],
  [{ url: 'mqtts://h:1' }, 'mqtts://h:1', '', ''],
  [{ url: 'ws://h' }, 'ws://h:80', '/', ''],
  [{ url: 'wss://u:p@h' }, 'wss://h:443', '/', ''],
  [{ url: 'wss://h:8084/mqtt' }, 'wss://h:8084', '/mqtt', ''],
  [{ url: 'ws://h/mqtt', path: '/other', prefix: 'p' }, 'ws://h:80', '/other', 'p'],
  [{ url: 'mqtt://h/p' }, 'mqtt://h:1883', '', 'p'],
  [{ url: 'mqtt://h/p/' }, 'mqtt://h:1883', '', 'p'],
  [{ url: 'mqtt://h//p' }, 'mqtt://h:1883', '', '/p'],
  [{ url: 'mqtt://h/a/b%20c%3F' }, 'mqtt://h:1883', '', 'a/b c?'],
  [{ url: 'mqtt://h/p', prefix: 'q/' }, 'mqtt://h:1883', '', 'q'],
  [{ url: 'mqtt://h/p', prefix: '' }, 'mqtt://h:1883', '', ''],
  [{ url: 'mqtt://[::1]:1884/p' }, 'mqtt://[::1]:1884', '', 'p'],
  [{ host: '::1' }, 'mqtt://[::1]:1883', '', ''],
  [{ url: 'mqtt://h:1/p', host: 'other', port: 2, protocol: 'mqtts' }, 'mqtts://other:2', '', 'p'],
  [{ url: 'mqtt://h/p', protocol: 'wss' }, 'wss://h:443', '/p', '']
] as const) {
  test(`resolveOptions: ${JSON.stringify(options)} is ${text}${path} with the prefix '${prefix}'`, () => {
    const settings = resolve(options)
    assert.deepEqual([settings.address.text, settings.address.path, settings.prefix], [text, path, prefix])
  })
}

for (const [options, username, given] of [
  [{ url: 'mqtt://u:p%40ss@h' }, 'u', 'p@ss'],
  [{ url: 'mqtt://user:pa%3Ass@h' }, 'user', 'pa:ss'],
  [{ url: 'mqtt://us%2Fer:p%25%23%3F@h' }, 'us/er', 'p%#?'],
  [{ url: 'mqtt://u@h' }, 'u', undefined],
  [{ url: 'mqtt://u:p@h', username: 'v', password: 'q' }, 'v', 'q'],
  [{ url: 'mqtt://u:p@h', password: '' }, 'u', '']
] as const) {
  test(`resolveOptions: ${JSON.stringify(options)} has the user ${username} and the password ${given}`, async () => {
    const { credentials } = resolve(options)
    assert.deepEqual(await credentials.ask(), { username, password: given })
  })
}

test('resolveOptions: any user and password come through a URL unchanged', () => {
  const text = fc.string({ unit: 'grapheme', minLength: 1 })
  fc.assert(fc.property(text, text, (username, secret) => {
    const url = `mqtt://${encodeURIComponent(username)}:${encodeURIComponent(secret)}@h/p`
    const parsed = parseBrokerUrl(url)
    assert.deepEqual(parsed, {
      url: { scheme: 'mqtt', host: 'h', port: undefined, username, password: secret, path: '/p', prefix: 'p' }
    })
  }))
})

test('Credentials: what the function throws is told by class, code, place and causes, without a word of it', async () => {
  class VaultError extends Error {}
  function readVault (): never {
    const cause = Object.assign(new TypeError('fetch'), { cause: Object.assign(new Error('x'), { code: 'ECONNREFUSED' }) })
    throw Object.assign(new VaultError(password, { cause }), { code: 403 })
  }
  const thrownBy = async (credentials: () => unknown) =>
    await resolve({ credentials }).credentials.ask().then(() => assert.fail('it has to throw'), (error: Error) => error)
  const error = await thrownBy(readVault)
  const silence = ', whose message is not repeated: it may have a secret in it'
  assert.equal(error.message, `VaultError with the code 403${silence}`)
  assert.match(error.stack ?? '', /^Error: VaultError[^\n]*\n {4}at [\w.]*readVault \(.*options\.test/)
  const causes = [error.cause, (error.cause as Error).cause].map((cause) => (cause as Error).message)
  assert.deepEqual(causes, [`TypeError${silence}`, `Error with the code ECONNREFUSED${silence}`])
  // A cause that is its own cause.
  const loop = new Error('x')
  loop.cause = loop
  assert.ok(inspect(await thrownBy(() => { throw loop })).length < 10_000)
  assert.equal((await thrownBy(() => { throw Object.assign(new Error('x'), { code: password }) })).message, `Error${silence}`)
  assert.equal((await thrownBy(() => { throw password })).message, 'what was thrown is a string')
  assert.equal((await thrownBy(() => { throw new Proxy(loop, { get () { throw loop } }) })).message, 'what was thrown cannot be read')
})

test('Credentials: neither util.inspect nor JSON.stringify of the settings shows them', async () => {
  const settings = resolve({ url: `mqtt://someone:${password}@h` })
  const shown = inspect(settings, { depth: 9, showHidden: true }) + JSON.stringify(settings)
  assert.doesNotMatch(shown, /hunter2|someone/)
  assert.equal((await settings.credentials.ask()).password, password)
})

// Refusals: each names the key, says what was given and what would be right.

for (const [options, key, says] of [
  [null, 'options', /have to be an object, not null/],
  ['mqtt://h', 'options', /have to be an object, not a string/],
  [{ bogus: 1 }, 'bogus', /there is no such option, there are url, protocol, host, port, /],
  [{ pasword: password }, 'pasword', /there is no such option/],
  [{ topicPrefix: 'x' }, 'topicPrefix', /there is no such option/],
  [{ protocol: 'carrier-pigeon' }, 'protocol', /expected one of 'mqtt', 'mqtts', .*, not 'carrier-pigeon'/],
  [{ host: '' }, 'host', /length greater or equal to 1, not ''/],
  [{ host: 'h:1883' }, 'host', /'h:1883' is no host name or address; the port is an option of its own/],
  [{ host: '[::1]' }, 'host', /'\[::1\]' is no host name/],
  [{ host: 'a b' }, 'host', /'a b' is no host name/],
  [{ host: `u:${password}@h` }, 'host', /'\*\*\*@h' is no host name/],
  [{ host: `mqtt://u:${password}@h` }, 'host', /'mqtt:\/\/\*\*\*@h' is no host name/],
  [{ port: 99_999 }, 'port', /less or equal to 65535, not 99999/],
  [{ port: 0 }, 'port', /greater or equal to 1, not 0/],
  [{ port: '1883' }, 'port', /expected integer, not '1883'/],
  [{ username: '' }, 'username', /not ''/],
  [{ username: 'u\0', password }, 'username', /U\+0000/],
  [{ username: 'u'.repeat(65_536) }, 'username', /65536 bytes, at most 65535/],
  [{ username: {}, password }, 'username', /expected string, not an object/],
  [{ password }, 'password', /it needs a username/],
  [{ url: `mqtt://:${password}@h` }, 'password', /it needs a username/],
  [{ username: 'u', password: [password] }, 'password', /expected string, not an array/],
  [{ username: 'u', password: password.repeat(9_363) }, 'password', /more than 65535 bytes/],
  [{ path: '/mqtt' }, 'path', /only ws and wss have a path, mqtt has not; the prefix of the topics is 'prefix'/],
  [{ protocol: 'ws', path: 'mqtt' }, 'path', /has to begin with \/, as in '\/mqtt'/],
  [{ prefix: 'a/+' }, 'prefix', /'a\/\+' cannot begin a topic: .*wildcards/],
  [{ prefix: '<x>' }, 'prefix', /a prefix has no placeholders/],
  [{ prefix: '$share/g' }, 'prefix', /\$share is for subscriptions/],
  [{ prefix: 5 }, 'prefix', /expected string, not 5/],
  [{ namespace: 'a-b' }, 'namespace', /to match '\^\[A-Za-z_\$\]\[A-Za-z0-9_\$\]\*\$', not 'a-b'/],
  [{ clientId: '' }, 'clientId', /not ''/],
  [{ clientId: 'x'.repeat(65_536) }, 'clientId', /65536 bytes, at most 65535/],
  [{ clientId: '\ud800' }, 'clientId', /lone surrogate/],
  [{ protocolVersion: 3 }, 'protocolVersion', /expected one of 'auto', 4, 5, not 3/],
  [{ keepalive: -1 }, 'keepalive', /greater or equal to 0, not -1/],
  [{ keepalive: 65_536 }, 'keepalive', /less or equal to 65535, not 65536/],
  [{ start: 'later' }, 'start', /expected one of 'wait', 'background', 'manual', not 'later'/],
  [{ connectTimeout: 9_001 }, 'connectTimeout', /1000 ms below Fastify's pluginTimeout \(10000 ms\), not 9001/],
  [{ publishTimeout: 0 }, 'publishTimeout', /greater or equal to 1, not 0/],
  [{ publishTimeout: 2 ** 31 }, 'publishTimeout', /less or equal to 2147483647, not 2147483648/],
  [{ drainTimeout: 1.5 }, 'drainTimeout', /expected integer, not 1.5/],
  [{ maxPayload: -1 }, 'maxPayload', /greater or equal to 0/],
  [{ converters: { iso: {} } }, 'converters.iso.parse', /expected required property/],
  [{ converters: { iso: { parse: 1, format: String } } }, 'converters.iso.parse', /expected function, not 1/],
  [{ converters: { 'a b': converter } }, 'converters', /the name 'a b' must be letters, digits, _ and -/],
  [{ converters: { path: converter } }, 'converters', /'path' cannot be replaced/],
  [{ codecs: [codec, { ...codec, decode: 1 }] }, 'codecs.1.decode', /expected function, not 1/],
  [{ codecs: [{ ...codec, contentType: '' }] }, 'codecs.0.contentType', /not ''/],
  [{ validatorCompiler: {} }, 'validatorCompiler', /expected function, not an object/],
  [{ concurrency: 0 }, 'concurrency', /greater or equal to 1/],
  [{ order: 'key' }, 'order', /expected 'topic' or 'none' or function, not 'key'/],
  [{ inbox: { overflow: 'reject' } }, 'inbox.overflow', /expected one of 'drop-oldest', 'drop-newest'/],
  [{ inbox: { maxBytes: 0 } }, 'inbox.maxBytes', /greater or equal to 1/],
  [{ client: { password } }, 'client.password', /there is no such option, there are wsOptions, /],
  [{ dynsec: false }, 'dynsec', /expected true or object, not false/],
  [{ dynsec: { timeout: 2 ** 31 - 1 } }, 'dynsec.timeout', /1073741823/],
  [{ dynsec: { timeot: 5 } }, 'dynsec.timeot', /there is no such option, there are connection, timeout, chunk/],
  [{ dynsec: { chunk: 0 } }, 'dynsec.chunk', /greater or equal to 1/],
  [{ dynsec: { connection: { username: '' } } }, 'dynsec.connection.username', /greater or equal to 1/],
  [{ dynsec: { connection: { password: [password] } } }, 'dynsec.connection.password', /expected string, not an array/],
  [{ dynsec: { connection: { url: [password] } } }, 'dynsec.connection.url', /expected string, not an array/],
  [{ dynsec: { connection: { prefix: 'x' } } }, 'dynsec.connection.prefix', /there is no such option, there are url, /],
  [{ tls: {} }, 'tls', /the protocol is mqtt, which has no TLS: use mqtts/],
  [{ protocol: 'ws', tls: {} }, 'tls', /the protocol is ws, which has no TLS: use wss/],
  [{ protocol: 'wss', tls: password }, 'tls', /expected object, not a string/],
  [{ protocol: 'mqtts', tls: { bogus: 1 } }, 'tls.bogus', /there is no such option, there are ca, cert, key, /],
  [{ protocol: 'mqtts', tls: { cert: 5 } }, 'tls.cert', /expected string or Uint8Array, not 5/],
  [{ protocol: 'mqtts', tls: { ca: 5 } }, 'tls.ca', /expected string or Uint8Array or array, not 5/],
  [{ protocol: 'mqtts', tls: { passphrase: [password] } }, 'tls.passphrase', /expected string, not an array/],
  [{ protocol: 'mqtts', tls: { minVersion: 'TLSv1' } }, 'tls.minVersion', /'TLSv1.2', 'TLSv1.3', not 'TLSv1'/],
  [{ protocol: 'mqtts', tls: { cert: 'no certificate' } }, 'tls', /PEM/],
  [{ url: '' }, 'url', /length greater or equal to 1/],
  [{ url: { password } }, 'url', /expected string, not an object/],
  [{ url: `mqtt://u:${password}@h:99999` }, 'url', /'mqtt:\/\/\*\*\*@h:99999' is no URL such as mqtt:\/\/user:pass/],
  [{ url: `mqtt://u:${password}@h:port` }, 'url', /is no URL/],
  [{ url: `mqtt://u:${password}/x@h` }, 'url', /'mqtt:\/\/\*\*\*@h' is no URL/],
  [{ url: `mqtt://u:${password}#x@h` }, 'url', /is no URL/],
  [{ url: `mqtt://u:${password}?x@h` }, 'url', /is no URL/],
  [{ url: `mqtt://u:x@${password}@h:99999` }, 'url', /is no URL/],
  [{ url: 'mqtt://h:0' }, 'url', /'mqtt:\/\/h:0' has port 0, there are 1 to 65535/],
  [{ url: 'h:1883' }, 'url', /'h:1883' has no scheme: write mqtt:\/\/h:1883/],
  [{ url: `u:${password}@h` }, 'url', /'\*\*\*@h' has no scheme: write mqtt:\/\/\*\*\*@h/],
  [{ url: `u:${password}/x@h` }, 'url', /has no scheme/],
  [{ url: `mqtt:/u:${password}@h` }, 'url', /has no scheme/],
  [{ url: `carrier-pigeon://u:${password}@h` }, 'url', /unknown scheme 'carrier-pigeon', there are mqtt, tcp, mqtts, /],
  [{ url: 'toString://h' }, 'url', /unknown scheme 'tostring'/],
  [{ url: 'mqtt://h/+/#' }, 'url', /has a fragment/],
  [{ url: 'mqtt://h/+' }, 'url', /'\+' cannot begin a topic: .*wildcards/],
  [{ url: 'mqtt://h/a/%23' }, 'url', /'a\/#' cannot begin a topic: .*wildcards/],
  [{ url: 'mqtt://h/%00' }, 'url', /U\+0000/],
  [{ url: `mqtt://u:${password}@h?x=1` }, 'url', /has a query, which is not used: write other options as fields/],
  [{ url: `mqtt://h?password=${password}` }, 'url', /has a query/],
  [{ url: 'wss://h/mqtt?x=1' }, 'url', /has a query/],
  [{ url: `mqtt://u:${password}@h#x` }, 'url', /has a fragment, which is not used: .* \? and # as %3F and %23/],
  [{ url: 'mqtt://h/site/#' }, 'url', /'mqtt:\/\/h\/site\/#' has a fragment/],
  [{ url: 'mqtt://h?' }, 'url', /has a query/],
  [{ url: 'mqtt://' }, 'url', /'mqtt:\/\/' has no host/],
  [{ url: `mqtt://u:${password}%zz@h` }, 'url', /has a % that is no percent-encoding: write it as %25/],
  [{ url: `mqtt://u:${password}@h/%zz` }, 'url', /'mqtt:\/\/\*\*\*@h\/%zz' has a %/]
] as const) {
  test(`resolveOptions: refuses ${JSON.stringify(options).slice(0, 60)}`, () => {
    assert.throws(() => resolve(options), (error: Error & { code: string, statusCode: number }) => {
      assert.equal(error.code, 'FST_MQTT_OPTIONS_INVALID')
      assert.ok(error.message.startsWith(`Invalid option '${key}': `), error.message)
      assert.match(error.message, says)
      assert.doesNotMatch(inspect(error), /hunter2/)
      return true
    })
    // A refusal leaves nothing behind.
    assert.equal(resolve({ port: 1884 }).address.text, 'mqtt://127.0.0.1:1884')
  })
}

test('resolveOptions: no URL with a password shows it, however wrong it is', () => {
  const part = fc.string({ unit: fc.constantFrom('a', ':', '/', '?', '#', '%', '[', ' ', '@', '\\'), maxLength: 6 })
  const around = fc.constantFrom('', 'mqtt://', 'ws://', 'mqtt:/', '//', 'x://', 'u:')
  fc.assert(fc.property(around, part, part, part, (begin, left, right, rest) => {
    const url = `${begin}u:${left}${password}${right}@${rest}`
    try {
      resolve({ url })
    } catch (error) {
      assert.doesNotMatch(inspect(error), /hunter2/)
    }
  }), { numRuns: 2_000 })
})

test('redactUrl: leaves a URL without secrets as it is', () => {
  for (const url of ['mqtt://h:1883/p', 'h:1883', 'wss://h/mqtt', 'no url']) assert.equal(redactUrl(url), url)
  assert.equal(redactUrl('mqtt://u:p@h:1/p'), 'mqtt://***@h:1/p')
  assert.equal(redactUrl('MQTTS://u:p\n@h'), 'MQTTS://***@h')
  assert.equal(redactUrl('u:p@h'), '***@h')
  assert.equal(redactUrl('mqtt://h?token=x'), 'mqtt://h?***')
})

for (const [pluginTimeoutMs, given, expected] of [
  [10_000, undefined, 5_000], [4_000, undefined, 3_000], [500, undefined, 250], [0, undefined, 5_000],
  [0, 60_000, 60_000], [10_000, 9_000, 9_000]
] as const) {
  test(`resolveOptions: a pluginTimeout of ${pluginTimeoutMs} and a connectTimeout of ${given} give ${expected} ms`, () => {
    assert.equal(resolve({ connectTimeout: given }, { ...host, pluginTimeoutMs }).connectTimeoutMs, expected)
  })
}

suite('the administrator of dynamic security', () => {
  const administrator = { username: 'admin', password }

  test('is at the broker of the application unless another is given, and never with its account', async () => {
    const own = resolve({ url: `mqtt://me:${password}@broker:1884/p`, dynsec: { connection: administrator, timeout: 7 } })
    assert.equal(own.dynsec?.timeoutMs, 7)
    assert.equal(own.dynsec?.connection?.address.text, 'mqtt://broker:1884')
    assert.equal(own.dynsec?.connection?.credentials.username, 'admin')
    assert.deepEqual(await own.dynsec?.connection?.credentials.ask(), administrator)
    const other = resolve({ host: 'broker', dynsec: { connection: { ...administrator, url: 'mqtt://elsewhere' } } })
    assert.equal(other.dynsec?.connection?.address.text, 'mqtt://elsewhere:1883')
    const here = resolve({ host: 'broker', dynsec: { connection: administrator } })
    assert.equal(here.dynsec?.connection?.address.text, 'mqtt://broker:1883')
    assert.equal(resolve({ dynsec: true }).dynsec?.connection, undefined)
  })

  test('is one for a group of processes, by a group of its own', () => {
    const groupOf = (group: string) => {
      const processes = { mode: 'single', group, dir: '/run/app', heartbeat: 100 } as const
      const { connection } = resolve({ processes, dynsec: { connection: administrator } }).dynsec ?? {}
      assert.equal(connection?.sessionExpirySeconds, 1)
      return connection.processes
    }
    assert.deepEqual(groupOf('orders'), {
      mode: 'single', group: 'orders.dynsec', dir: '/run/app', heartbeatMs: 100, ownerTimeoutMs: 5_000
    })
    const long = groupOf('o'.repeat(64))
    assert.equal(long.mode === 'single' && long.group, `${'o'.repeat(57)}.dynsec`)
    const { connection } = resolve({ processes: 'each', dynsec: { connection: administrator } }).dynsec ?? {}
    assert.deepEqual([connection?.processes, connection?.sessionExpirySeconds], [{ mode: 'each' }, 0])
  })
})

for (const [options, key, says] of [
  [{ session: { expiry: 1 } }, 'session.expiry', /needs a clientId/],
  [{ reconnect: { minDelay: 2, maxDelay: 1 } }, 'reconnect.minDelay', /it is 2, more than maxDelay, which is 1/],
  [{ credentials: () => ({}), username: 'u' }, 'credentials', /give either/],
  [{ will: { topic: 'w' }, presence: { topic: 'p', online: 1, offline: 0 } }, 'presence', /either will or presence/],
  [{ will: { topic: 'w', payload: Buffer.alloc(65_536) } }, 'will.payload', /65536 bytes, a will has at most 65535/],
  [{ will: { topic: 'w', payload: 1n } }, 'will.payload', /cannot be sent as/]
] as const) {
  test(`resolveOptions: refuses what does not go together in ${key}: ${String(says)}`, () => {
    assert.throws(() => resolve(options), { code: 'FST_MQTT_OPTIONS_INVALID', message: says })
    assert.throws(() => resolve(options), (error: Error) => error.message.includes(`'${key}'`))
  })
}
