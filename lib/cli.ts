#!/usr/bin/env node
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { inspect, parseArgs } from 'node:util'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import type { Mqtt } from '../types/mqtt.ts'
import { withoutConnecting } from './connecting.ts'
import { describeError, errorCode } from './errors.ts'

const usage = `fastify-multimqtt topics <app.js> [--json] [--namespace <name>]

Lists the MQTT topics of an application, without connecting to its broker: what it publishes while it starts
is not sent.

<app.js> exports, by default or as app, a Fastify instance that is not listening, a function that makes
one, or a plugin.

  --json                what fastify.mqtt.topics() gives, instead of a table
  --namespace <name>    the topics of fastify.mqtt.<name>
  --help                this text
`

/** Milliseconds for an application to close; what it keeps running then is no reason to stay. */
const closeMs = 2_000

/** What was asked for cannot be done: the message says why. */
class UsageError extends Error {}

try {
  await main()
  process.exit()
} catch (error) {
  const isUsage = error instanceof UsageError
  // Where it is only Node.js itself can say, of what nobody caught; it ends with 1 as well.
  if (error instanceof SyntaxError) throw error
  process.stderr.write(isUsage ? `${describeError(error)}\n\n${usage}` : `${inspect(error)}\n`)
  process.exit(isUsage ? 2 : 1)
}

async function main (): Promise<void> {
  const { values, positionals } = parsed()
  if (values.help === true) {
    process.stdout.write(usage)
    return
  }
  const [command, file, ...rest] = positionals
  if (command !== 'topics') throw new UsageError(`unknown command '${command ?? ''}', there is topics`)
  if (file === undefined || rest.length > 0) throw new UsageError('topics takes one file')
  withoutConnecting()
  const fastify = await load(resolve(file))
  await fastify.ready()
  const mqtt = mqttOf(fastify, values.namespace)
  process.stdout.write(listOf(mqtt, values.json === true))
  const late = new Promise((resolve) => setTimeout(resolve, closeMs))
  await Promise.race([fastify.close(), late])
}

function parsed () {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { help: { type: 'boolean' }, json: { type: 'boolean' }, namespace: { type: 'string' } }
    })
  } catch (error) {
    throw new UsageError(describeError(error))
  }
}

async function load (path: string): Promise<FastifyInstance> {
  const module = await import(pathToFileURL(path).href) as Record<string, unknown>
  // The default of a CommonJS module is all that it exports.
  const [main, app] = [await module['default'], await module['app']]
  const exported = isInstance(main) || typeof main === 'function' ? main : app
  if (isInstance(exported)) return exported
  if (typeof exported !== 'function') {
    throw new UsageError(`${path} exports no Fastify instance, and no function, by default or as app`)
  }
  // A plugin takes the instance: that of the application's own Fastify.
  if (exported.length > 0) {
    const createFastify = createRequire(path)('fastify') as () => FastifyInstance
    const fastify = createFastify()
    await fastify.register(exported as FastifyPluginAsync)
    return fastify
  }
  const made: unknown = await exported()
  if (isInstance(made)) return made
  throw new UsageError(`the function that ${path} exports returns no Fastify instance`)
}

function isInstance (value: unknown): value is FastifyInstance {
  return typeof value === 'object' && value !== null && 'ready' in value && 'addHook' in value
}

function mqttOf (fastify: FastifyInstance, namespace: string | undefined): Mqtt {
  if (!fastify.hasDecorator('mqtt')) throw new UsageError('the application has no fastify.mqtt: see fastify-plugin')
  if (namespace === undefined) return fastify.mqtt
  const mqtt = (fastify.mqtt as unknown as Record<string, Mqtt | undefined>)[namespace]
  if (mqtt === undefined || typeof mqtt.topics !== 'function') {
    throw new UsageError(`there is no namespace '${namespace}'`)
  }
  return mqtt
}

function listOf (mqtt: Mqtt, isJson: boolean): string {
  try {
    return isJson ? `${JSON.stringify(mqtt.topics(), null, 2)}\n` : mqtt.printTopics()
  } catch (error) {
    if (errorCode(error) !== 'FST_MQTT_NO_DEFAULT') throw error
    throw new UsageError(`${describeError(error)}: choose one by --namespace`)
  }
}
