import type { FastifyInstance } from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import type { MultimqttOptions } from '../types/options.ts'
import { isConnectingOff } from './connecting.ts'
import { Engine } from './engine.ts'
import { errors } from './errors.ts'
import { resolveOptions, type Settings } from './options/settings.ts'
import { workerHint, workersWarning } from './processes/workers.ts'
import { registerFormats } from './payload/formats.ts'
import { Scope } from './scope.ts'
import { memoryLinkTo } from './testing/memory-broker.ts'

async function register (fastify: FastifyInstance, options: MultimqttOptions): Promise<void> {
  const { pluginTimeout, bodyLimit, onProtoPoisoning, onConstructorPoisoning } = fastify.initialConfig
  const pluginTimeoutMs = pluginTimeout ?? 10_000
  const settings = resolveOptions(options, { pluginTimeoutMs, bodyLimit: bodyLimit ?? 1_048_576 })
  registerFormats()
  const { protocol, host, text } = settings.address
  const link = protocol === 'memory' ? memoryLinkTo(host) : undefined
  if (protocol === 'memory' && link === undefined) {
    throw new errors.FST_MQTT_OPTIONS_INVALID('url',
      `there is no memory broker ${text}: take the url of createMemoryBroker() of fastify-multimqtt/testing`)
  }
  const engine = new Engine(settings, {
    server: fastify,
    log: fastify.log,
    pluginTimeoutMs,
    link,
    poisoning: { protoAction: onProtoPoisoning ?? 'error', constructorAction: onConstructorPoisoning ?? 'error' }
  })
  // Who says 'each' means it.
  const hint = options.processes === undefined ? workerHint() : undefined
  if (hint !== undefined) warnOfWorkers(fastify, hint, settings)
  Scope.of(fastify).attach(settings.namespace, engine)
  if (settings.tls.rejectUnauthorized === false) {
    fastify.log.warn(`tls.rejectUnauthorized is false: anyone can pretend to be ${text}`)
  }

  fastify.addHook('onReady', async function connectMqtt () {
    // When every onReady is done, also those of the plugins below. If one fails nothing of ours stays behind.
    void fastify.ready().then(() => engine.open(), () => { void engine.close() })
    // Closed before it was ready: then Fastify would have close() reject with what is thrown here.
    if (isConnectingOff() || engine.status === 'draining' || engine.status === 'closed') return
    if (settings.start === 'wait') await engine.connect()
    else if (settings.start === 'background') engine.connectInBackground()
  })
  // Between the two Fastify waits for its requests, which may still publish.
  fastify.addHook('preClose', async function drainMqtt () { await engine.drain() })
  fastify.addHook('onClose', async function disconnectMqtt () { await engine.close() })
}

let hasWarned = false

/** Once in a process: several workers with a connection each are mostly not meant. */
function warnOfWorkers (fastify: FastifyInstance, hint: string, { clientId, hasClientId }: Settings): void {
  if (hasWarned) return
  hasWarned = true
  fastify.log.warn(workersWarning(hint, hasClientId ? clientId : undefined))
}

/**
 * The Fastify plugin. Decorates the instance with `fastify.mqtt`, connects in onReady, disconnects in
 * onClose.
 *
 * @example
 * await fastify.register(multimqtt, { url: 'mqtt://user:password@127.0.0.1/myprefix' })
 */
export const multimqtt = fastifyPlugin(register, { fastify: '5.x', name: 'fastify-multimqtt' })
