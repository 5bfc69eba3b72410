import { realpathSync } from 'node:fs'
import { createRequire, register } from 'node:module'
import { isAbsolute, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type * as mqtt from 'mqtt'

type MqttJs = typeof mqtt

/**
 * Which MQTT.js the tests run on: `MULTIMQTT_MQTTJS` is the name of an installed package, or the path of a
 * folder into which npm has installed one. Default: that of the project.
 */
const named = process.env['MULTIMQTT_MQTTJS'] ?? 'mqtt'

/** MQTT.js itself, with its version. */
export async function loadMqttJs (): Promise<{ MqttClient: MqttJs['MqttClient'], version: string }> {
  const require = createRequire(isAbsolute(named) ? join(named, 'package.json') : import.meta.url)
  const name = isAbsolute(named) ? 'mqtt' : named
  const file = require.resolve(name)
  // Else one of a folder above would be tested.
  if (isAbsolute(named) && !file.startsWith(realpathSync(named))) throw new Error(`there is no mqtt in ${named}`)
  const { MqttClient } = await import(pathToFileURL(file).href) as MqttJs
  const { version } = require(`${name}/package.json`) as { version: string }
  return { MqttClient, version }
}

/** Lets all of this process that is loaded from now on import that MQTT.js: `node --import` of this file. */
export function replaceMqttJs (): void {
  const parentURL = pathToFileURL(join(named, 'package.json')).href
  const hook = `export async function resolve (specifier, context, next) {
    return await next(specifier, specifier === 'mqtt' ? { ...context, parentURL: ${JSON.stringify(parentURL)} } : context)
  }`
  register(`data:text/javascript,${encodeURIComponent(hook)}`)
}

if (isAbsolute(named)) replaceMqttJs()
