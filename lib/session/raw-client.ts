import type { MqttClient } from 'mqtt'
import { defined } from '../values.ts'
import type { ReceivedPublish } from './link.ts'

/** For those who listen to `message` of the raw client: what MQTT.js would have told them. */
export function showMessage (client: MqttClient, message: ReceivedPublish): void {
  const { topic, payload, qos, retain, dup, messageId, properties } = message
  client.emit('message', topic, payload, {
    cmd: 'publish', topic, payload, qos, retain, dup, ...defined({ messageId: messageId || undefined, properties })
  })
}
