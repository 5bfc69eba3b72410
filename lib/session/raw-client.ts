import type { MqttClient } from 'mqtt'
import { defined } from '../values.ts'
import type { ReceivedPublish } from './link.ts'

/**
 * Emits `message` on the raw client, for those who listen: what MQTT.js would have told them. Who listens is
 * asked once in each turn, which MQTT.js' emitter makes expensive: a listener that is added by what a message
 * causes hears those of the next turn.
 */
export class MessageEvents {
  readonly #client: MqttClient
  #isAsked = false
  #isWanted = false

  constructor (client: MqttClient) {
    this.#client = client
  }

  show (message: ReceivedPublish): void {
    if (!this.#isAsked) {
      this.#isAsked = true
      this.#isWanted = this.#client.listenerCount('message') > 0
      process.nextTick(() => { this.#isAsked = false })
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
