// npm run demo            tells its story, then goes on until Ctrl-C
// npm run demo -- --once  ends after the story
// MQTT_URL=mqtt://…       takes that broker instead of the one inside of this program
// DEMO_LOG=1              prints the log of the Fastify application as well
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { buildApp } from './app.ts'
import { openBroker } from './broker.ts'
import { Devices } from './devices.ts'
import { Narrator } from './narrator.ts'

const readingEveryMs = 3_000

const narrator = new Narrator()
const stopped = new Promise<'stopped'>((resolve) => {
  // Not once: npm passes on what the terminal has already sent.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => resolve('stopped'))
})

try {
  await run(process.argv.includes('--once'))
} catch (error) {
  narrator.say(`\nThe demo failed: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}

async function run (isOnce: boolean): Promise<void> {
  const broker = await openBroker(process.env['MQTT_URL'])
  // Of this run alone: others may use the same broker.
  const prefix = `demo-${randomBytes(3).toString('hex')}`
  narrator.say(`
A greenhouse: two sensors and a fan speak MQTT. A Fastify application listens to them and answers.
Every topic begins with ${prefix}/, which the application adds and removes by itself.

   broker    · ${broker.description}`)

  const { url } = broker
  const app = await buildApp({ url, protocolVersion: broker.protocolVersion, prefix, narrator })
  let devices: Devices | undefined
  try {
    await app.listen({ host: '127.0.0.1', port: 0 })
    const { protocolVersion = 5 } = app.mqtt.health()
    devices = await Devices.start({ url, protocolVersion, prefix, narrator })
    const ended = await Promise.race([tellStory(app, devices), stopped])
    if (ended !== 'stopped' && !isOnce) await goOn(app, devices)
  } finally {
    await devices?.close()
    await app.close()
    await broker.close()
  }
  narrator.say('\nDisconnected and closed.')
}

async function tellStory (app: FastifyInstance, devices: Devices): Promise<void> {
  const { port } = app.server.address() as AddressInfo
  const filters = app.mqtt.health().subscriptions.granted.map(({ filter }) => filter)
  narrator.tell('app', '·', '', `subscribed to ${filters.join(' and ')}`)
  narrator.tell('app', '·', '', `answers HTTP at http://127.0.0.1:${port}`)

  narrator.say(`
1. A sensor publishes a reading.
   The app declared '<int:id>/reading' with a schema: its handler gets a number and a checked payload.`)
  await until(narrator.told('app', '←', 'sensor/1/reading'), devices.measure(1))

  narrator.say(`
2. It is too warm. The app answers on a topic of its own, made from a name and params.
   The fan obeys and reports.`)
  await until(narrator.told('app', '←', 'fan/1/state'), devices.measure(2))

  narrator.say(`
3. A sensor sends a payload that does not fit the schema. No handler sees it, the log does.`)
  await until(
    narrator.told('app', '✗', 'sensor/2/reading'),
    devices.send('sensor 2', 'sensor/2/reading', '{"celsius":"quite warm"}'))

  narrator.say(`
4. A topic whose id is no integer: no pattern matches, so nothing happens.`)
  await until(
    narrator.told('app', '·', 'sensor/north/reading'),
    devices.send('sensor 2', 'sensor/north/reading', '{"celsius":22}'))

  narrator.say(`
5. An HTTP route that tells where commands for a fan go.`)
  await request(`http://127.0.0.1:${port}/fans/1/topic`)

  narrator.say(`
6. An HTTP route that publishes. One schema checks the request and the message.`)
  const stands = narrator.told('app', '←', 'fan/1/state')
  await until(stands, request(`http://127.0.0.1:${port}/fans/1`, { on: false }))
  await request(`http://127.0.0.1:${port}/fans/1`, { on: 'perhaps' })

  const { received, unmatched, failed } = app.mqtt.health().messages
  narrator.say(`
   health(): ${received} messages received, ${unmatched} without a topic, ${failed} refused`)
}

/** What is awaited last may come first. */
async function until (told: Promise<void>, action: Promise<void>): Promise<void> {
  await Promise.all([told, action])
}

/** Calls the application over HTTP, as a browser would. */
async function request (url: string, body?: unknown): Promise<void> {
  const { pathname } = new URL(url)
  const method = body === undefined ? 'GET' : 'POST'
  const text = body === undefined ? '' : JSON.stringify(body)
  narrator.tell('browser', '→', `${method} ${pathname}`, text)
  const response = await fetch(url, body === undefined
    ? {}
    : { method, headers: { 'content-type': 'application/json' }, body: text })
  narrator.tell('browser', '←', `${response.status} ${response.statusText}`, await response.text())
}

/** Readings until Ctrl-C. The app keeps the greenhouse between 23 and 28 °C. */
async function goOn (app: FastifyInstance, devices: Devices): Promise<void> {
  const { port } = app.server.address() as AddressInfo
  narrator.say(`
The sensors go on, and the app keeps the greenhouse between 23 and 28 °C. Ctrl-C ends the demo. Meanwhile try:
   curl -X POST http://127.0.0.1:${port}/fans/1 -H 'content-type: application/json' -d '{"on":true}'
`)
  let turn = 0
  const timer = setInterval(() => {
    void devices.measure(turn++ % 2 + 1).catch((error: Error) => narrator.tell('devices', '✗', '', error.message))
  }, readingEveryMs)
  await stopped
  clearInterval(timer)
}
