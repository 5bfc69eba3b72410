import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { inspect } from 'node:util'
import { Type } from '@sinclair/typebox'
import multimqtt, { type MultimqttOptions } from '../lib/index.ts'
import { createFastify, inbox, type TestApp } from './helpers/app.ts'
import { mosquittoMissing, passwordFile, startMosquitto } from './helpers/mosquitto.ts'
import { closedPort } from './helpers/ports.ts'
import { startScriptedBroker, startSilentServer } from './helpers/scripted-broker.ts'

// Two canaries: what the connection is opened with, and what a payload carries.
const password = 'canary-in-the-password'
const payloadSecret = 'canary-in-the-payload'
const canary = /canary-in/

/** Everything a person or a logger can get hold of. */
class Witness {
  readonly #seen: string[] = []

  look (...things: unknown[]): void {
    for (const thing of things) {
      this.#seen.push(inspect(thing, { depth: 12, showHidden: true }), inspect(thing), String(thing))
      try {
        this.#seen.push(JSON.stringify(thing) ?? '')
      } catch {
        // A cycle: inspect has shown it.
      }
      if (thing instanceof Error) {
        this.#seen.push(thing.stack ?? '', thing.message)
        if (thing.cause !== undefined) this.look(thing.cause)
      }
    }
  }

  read (text: string): void {
    this.#seen.push(text)
  }

  async rejection (action: () => unknown): Promise<void> {
    assert.ok(await this.outcome(action) !== undefined, 'this ought to have failed')
  }

  /** What may fail or not. */
  async outcome (action: () => unknown): Promise<unknown> {
    try {
      await action()
      return undefined
    } catch (error) {
      this.look(error)
      return error
    }
  }

  hasSeenNothing (): void {
    const leaks = this.#seen.filter((text) => canary.test(text))
      .map((text) => text.slice(Math.max(0, text.search(canary) - 200), text.search(canary) + 40))
    assert.ok(this.#seen.length > 0)
    assert.deepEqual(leaks, [])
  }
}

function named (name: string, message: string): Error {
  return Object.assign(new Error(message), { name })
}

function lookAt (witness: Witness, { fastify, lines }: TestApp): void {
  const { mqtt } = fastify
  witness.look(mqtt, mqtt.health(), mqtt.status, lines, mqtt.client?.options, fastify)
}

test('secrets: no option that is refused shows a password', async (t) => {
  const witness = new Witness()
  const cases: Record<string, unknown>[] = [
    { url: `mqtt://u:${password}@127.0.0.1:99999` }, { url: `mqtt://u:${password}@h/+/#` },
    { url: `carrier-pigeon://u:${password}@h` }, { url: `mqtt://u:${password}@h?x=1` }, { url: `u:${password}@h` },
    { url: `mqtt://u:${password}%@h` }, { url: `mqtt://u:${password}@` }, { url: `//u:${password}@h` },
    { password }, { username: 'u', password: [password] }, { username: 'u\0', password },
    { host: `u:${password}@h` },
    { url: 'mqtts://h', tls: { key: password } }, { url: 'mqtts://h', tls: { key: { password } } },
    { url: 'mqtts://h', tls: { cert: password } }, { url: 'mqtts://h', tls: { passphrase: [password] } },
    { url: 'mqtt://h', tls: { passphrase: password } }, { username: 'u', password: password.repeat(5_000) }
  ]
  for (const options of cases) {
    const { fastify, lines } = createFastify(t)
    await witness.rejection(async () => await fastify.register(multimqtt, options as MultimqttOptions))
    witness.look(lines)
  }
  witness.hasSeenNothing()
})

test('secrets: no start that fails shows a password', async (t) => {
  const witness = new Witness()
  const refusing = await startScriptedBroker(t, { connack: { reasonCode: 135 } })
  const silent = await startSilentServer(t)
  const hangingUp = await startScriptedBroker(t, {
    onPacket: (_packet, connection) => {
      connection.destroy()
      return true
    }
  })
  const noise = await startScriptedBroker(t, {
    onPacket: (_packet, connection) => {
      connection.sendBytes(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'))
      return true
    }
  })
  for (const [protocol, port] of [
    ['mqtt', await closedPort()], ['mqtt', refusing.port], ['mqtt', silent.port], ['mqtt', hangingUp.port],
    ['mqtt', noise.port], ['mqtts', refusing.port], ['ws', refusing.port]
  ] as const) {
    const app = createFastify(t)
    await app.fastify.register(multimqtt, {
      url: `${protocol}://u:${password}@127.0.0.1:${port}/p`, connectTimeout: 300
    })
    await witness.rejection(async () => await app.fastify.ready())
    lookAt(witness, app)
  }
  witness.hasSeenNothing()
})

test('secrets: what credentials() gives is in no error, no log line and no object, whatever comes of it', async (t) => {
  const witness = new Witness()
  const accepting = await startScriptedBroker(t)
  const refusing = await startScriptedBroker(t, { connack: { reasonCode: 0x86 } })
  const rude = await startScriptedBroker(t, {
    // A broker that gives back what it was told.
    connack: ({ username, password }) => ({
      reasonCode: 0x87, properties: { reasonString: `no such user ${username?.length} ${password?.length}` }
    })
  })
  const silent = await startSilentServer(t)
  const login = { username: 'u', password }
  type Answer = () => unknown
  const never: Answer = () => new Promise(() => {})
  const cases: readonly (readonly [number, Answer])[] = [
    [accepting.port, async () => login], [refusing.port, () => login], [rude.port, async () => login],
    [silent.port, () => login], [await closedPort(), async () => login],
    [accepting.port, () => password], [accepting.port, () => [login]], [accepting.port, () => ({ password })],
    [accepting.port, () => ({ username: 'u', password: [password] })],
    [accepting.port, () => ({ username: { password }, password })],
    [accepting.port, () => ({ username: 'u', password: password.repeat(5_000) })],
    [accepting.port, () => ({ username: 'u\0', password })],
    [accepting.port, () => ({ get username () { throw new Error('no user') }, password })],
    [accepting.port, async () => { throw new Error('the vault is closed') }], [accepting.port, never],
    // What the application, or a library of its, says of a login that it has just read.
    [accepting.port, () => { throw new Error(`no user has ${password}`) }],
    [accepting.port, async () => { throw new Error('refused', { cause: new Error(`401 for u:${password}`) }) }],
    [accepting.port, async () => { throw Object.assign(new Error('refused'), { login, code: password }) }],
    [accepting.port, async () => { throw named(password, `line\n    at ${password} (/a/b.js:1:1)`) }],
    [accepting.port, async () => { throw new AggregateError([new Error(password)]) }],
    [accepting.port, () => { throw Object.freeze(new Error(password)) }],
    [accepting.port, () => Promise.reject(password)], [accepting.port, () => { throw login }]
  ]
  for (const [port, credentials] of cases) {
    const app = createFastify(t)
    const causes = inbox<Error>()
    await app.fastify.register(multimqtt, {
      url: `mqtt://127.0.0.1:${port}/p`,
      start: 'background',
      connectTimeout: 300,
      reconnect: { minDelay: 5, maxDelay: 5 },
      credentials: credentials as () => { username: string },
      client: { log: (...args: unknown[]) => witness.read(inspect(args, { depth: 4 })) }
    })
    app.fastify.mqtt.addHook('onDisconnect', (cause) => causes.put(cause))
    await app.fastify.ready()
    const isConnected = await witness.outcome(() => app.fastify.mqtt.connect()) === undefined
    // For each of the cases where there is one, the second attempt.
    if (!isConnected) for (let count = 0; count < 2; count++) witness.look(await causes.next())
    const { mqtt } = app.fastify
    witness.look(mqtt, mqtt.health(), mqtt.client?.options, app.lines)
    mqtt.client?.stream.destroy()
    await app.fastify.close()
    witness.look(mqtt, mqtt.health(), app.lines)
  }
  witness.hasSeenNothing()
})

test('secrets: nothing that fails later shows a password or a payload', async (t) => {
  const witness = new Witness()
  const broker = await startScriptedBroker(t, {
    grants: (filter, qos) => filter === 'p/refused' ? 0x80 : qos,
    onPacket: ({ cmd }) => cmd === 'publish'
  })
  const app = createFastify(t)
  const { fastify } = app
  await fastify.register(multimqtt, { url: `mqtt://u:${password}@127.0.0.1:${broker.port}/p`, maxPayload: 200 })
  const { mqtt } = fastify
  const seen = inbox<string>()
  const schema = Type.Object({ password: Type.Integer() })
  const strict = mqtt.topic('strict/<int:n>', { payload: schema }, () => {})
  mqtt.topic('free', (message) => {
    seen.put(message.topic)
    message.json()
  })
  mqtt.topic('refused', () => {})
  mqtt.topic('end', (message) => seen.put(message.topic))
  await fastify.ready()
  for (const payload of [
    `{"password":"${payloadSecret}"}`, `{"password":${payloadSecret}}`, `{"${payloadSecret}":`, payloadSecret.repeat(50),
    `{"__proto__":"${payloadSecret}"}`
  ]) {
    broker.publish({ topic: 'p/strict/1', payload })
    broker.publish({ topic: 'p/free', payload })
  }
  broker.publish({ topic: 'p/end' })
  while (await seen.next() !== 'end');
  await witness.rejection(() => strict.publish({ n: 1 }, { password: payloadSecret } as never))
  await witness.rejection(() => strict.publish({ n: 1 }, payloadSecret as never))
  await witness.rejection(() => mqtt.publish('a/+', payloadSecret))
  await witness.rejection(() => mqtt.publish('a', payloadSecret, { qos: 1, timeout: 20 }))
  await witness.rejection(() => mqtt.publish('a', { get secret () { throw new Error('no') }, payloadSecret }))
  const lost = witness.outcome(() => mqtt.publish('a', payloadSecret, { qos: 2, timeout: 500 }))
  await broker.close()
  await lost
  await witness.outcome(() => mqtt.publish('a', payloadSecret, { timeout: 100 }))
  await app.logged(/could not connect/)
  lookAt(witness, app)
  await fastify.close()
  await witness.rejection(() => mqtt.publish('a', payloadSecret))
  lookAt(witness, app)
  witness.hasSeenNothing()
})

suite('secrets, on Mosquitto', { skip: mosquittoMissing }, () => {
  test('a password that the broker refuses is in no error and no log line', async (t) => {
    const witness = new Witness()
    const broker = await startMosquitto(t, {
      lines: ['listener {{extra}} 127.0.0.1', 'allow_anonymous false', 'password_file {{dir}}/passwords'],
      files: { passwords: passwordFile({ u: 'another' }) }
    })
    const app = createFastify(t)
    await app.fastify.register(multimqtt, {
      url: `mqtt://u:${password}@127.0.0.1:${broker.ports.extra}`, connectTimeout: 700
    })
    await witness.rejection(async () => await app.fastify.ready())
    lookAt(witness, app)
    witness.hasSeenNothing()
  })
})
