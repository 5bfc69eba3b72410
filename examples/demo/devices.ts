import { connectAsync, type MqttClient } from 'mqtt'
import type { Narrator } from './narrator.ts'

/** What the devices need to know. */
export interface DevicesOptions {
  readonly url: string
  readonly protocolVersion: 4 | 5
  readonly prefix: string
  readonly narrator: Narrator
}

/**
 * Two sensors and a fan, played by one plain MQTT client: nothing of fastify-multimqtt in here, as in a real
 * device.
 */
export class Devices {
  readonly #client: MqttClient
  readonly #prefix: string
  readonly #narrator: Narrator
  readonly #celsius = new Map([[1, 21.5], [2, 30.5]])
  #isFanOn = false

  private constructor (client: MqttClient, { prefix, narrator }: DevicesOptions) {
    this.#client = client
    this.#prefix = prefix
    this.#narrator = narrator
  }

  static async start (options: DevicesOptions): Promise<Devices> {
    const { url, protocolVersion, prefix } = options
    const client = await connectAsync(url, { protocolVersion }, false)
    const devices = new Devices(client, options)
    client.on('message', (topic, payload) => devices.#obey(topic.slice(prefix.length + 1), payload.toString()))
    await client.subscribeAsync(`${prefix}/fan/+/set`, { qos: 1 })
    return devices
  }

  /** A sensor publishes what it measures. With the fan on it gets cooler. */
  async measure (id: number): Promise<void> {
    const before = this.#celsius.get(id) ?? 20
    await this.send(`sensor ${id}`, `sensor/${id}/reading`, JSON.stringify({ celsius: before }))
    this.#celsius.set(id, before + (this.#isFanOn ? -1.5 : 1))
  }

  /** Any device publishes any text on any topic: devices make mistakes. */
  async send (who: string, topic: string, text: string): Promise<void> {
    this.#narrator.tell(who, '→', topic, text)
    await this.#client.publishAsync(`${this.#prefix}/${topic}`, text)
  }

  async close (): Promise<void> {
    await this.#client.endAsync()
  }

  #obey (topic: string, text: string): void {
    const [, id = ''] = topic.split('/')
    const who = `fan ${id}`
    this.#narrator.tell(who, '←', topic, text)
    const { on } = JSON.parse(text) as { on: boolean }
    this.#isFanOn = on
    void this.send(who, `fan/${id}/state`, JSON.stringify({ on, rpm: on ? 1200 : 0 })).catch((error: Error) => {
      this.#narrator.tell(who, '✗', topic, error.message)
    })
  }
}
