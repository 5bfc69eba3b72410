import type { EventEmitter } from 'node:events'
import type { MqttClient } from 'mqtt'
import { defined } from '../values.ts'
import type { ReceivedPublish } from './link.ts'

/**
 * Emits `message` on the raw client, for those who listen: what MQTT.js would have told them. Who listens is
 * asked when somebody has come or gone, not for each message: MQTT.js' emitter makes it expensive.
 */
export class MessageEvents {
  readonly #client: MqttClient
  #isAsked = false
  #isWanted = false

  constructor (client: MqttClient) {
    this.#client = client
    // MQTT.js declares an emitter that does not know these; what it is at run time is Node's.
    const emitter = client as unknown as EventEmitter
    const forget = () => { this.#isAsked = false }
    emitter.on('newListener', forget).on('removeListener', forget)
  }

  show (message: ReceivedPublish): void {
    if (!this.#isAsked) {
      this.#isAsked = true
      this.#isWanted = this.#client.listenerCount('message') > 0
    }
    // Later, so that what a listener throws does not end the connection.
    if (this.#isWanted) process.nextTick(emitMessage, this.#client, message)
  }
}

function emitMessage (client: MqttClient, message: ReceivedPublish): void {
  const { topic, payload, qos, retain, dup, messageId, properties } = message
  client.emit('message', topic, payload, {
    cmd: 'publish', topic, payload, qos, retain, dup, ...defined({ messageId: messageId || undefined, properties })
  })
}
