import { connect, type IClientOptions, type MqttClient } from 'mqtt'
import type { ControlLink, ControlSubscription } from '../../lib/dynsec/control-channel.ts'
import { errors } from '../../lib/errors.ts'
import type { Dynsec } from '../../types/dynsec.ts'
import { onEnd, type Owner } from './cleanup.ts'
import { createDynsec } from './dynsec.ts'
import { within } from './deadline.ts'

export interface AdminOptions {
  /** Of 127.0.0.1. */
  port: number
  username?: string
  password?: string
  version?: 4 | 5
  prefix?: string
  timeoutMs?: number
  chunk?: number
  /** What the client says it accepts. */
  maximumPacketSize?: number
  /** Milliseconds until the next attempt to connect; 0 (default) for none. */
  reconnectMs?: number
}

export interface Admin {
  readonly dynsec: Dynsec
  readonly link: MqttLink
  close (): void
}

/** The client of the plugin on a connection of its own, made with MQTT.js; the end of the test ends it. */
export async function createAdmin (owner: Owner, options: AdminOptions): Promise<Admin> {
  const { port, username = 'admin', password = 'admin-password', version = 5, maximumPacketSize } = options
  const settings: IClientOptions = {
    username,
    password,
    protocolVersion: version,
    reconnectPeriod: options.reconnectMs ?? 0,
    queueQoSZero: false,
    resubscribe: false
  }
  if (maximumPacketSize !== undefined) settings.properties = { maximumPacketSize }
  const client = connect(`mqtt://127.0.0.1:${port}`, settings)
  client.on('error', () => {})
  onEnd(owner, () => client.end(true))
  const link = new MqttLink(client, version, username)
  await within(new Promise<void>((resolve) => client.once('connect', () => resolve())), 5_000,
    'connection of an administrator')
  const { dynsec, close } = createDynsec(link, {
    broker: `mqtt://127.0.0.1:${port}`,
    prefix: options.prefix ?? '',
    timeoutMs: options.timeoutMs ?? 5_000,
    chunk: options.chunk
  })
  onEnd(owner, close)
  return { dynsec, link, close }
}

/** What the channel needs of a connection, by MQTT.js. */
export class MqttLink implements ControlLink {
  readonly client: MqttClient
  readonly version: 4 | 5
  readonly username: string
  /** Every message that was published, as text. */
  readonly sent: string[] = []
  readonly maximumPacketSize = Infinity

  constructor (client: MqttClient, version: 4 | 5, username: string) {
    this.client = client
    this.version = version
    this.username = username
    // Neither here nor in the product is a message sent again on another connection.
    client.on('close', () => {
      for (const packetId of Object.keys(client.outgoing)) client.removeOutgoingMessage(Number(packetId))
    })
  }

  get isUp (): boolean {
    return this.client.connected
  }

  async subscribe (filter: string, onMessage: (payload: Buffer) => void): Promise<ControlSubscription> {
    const listener = (topic: string, payload: Buffer) => { if (topic === filter) onMessage(payload) }
    this.client.on('message', listener)
    const reasonCode = await new Promise<number>((resolve, reject) => {
      this.client.subscribe(filter, { qos: 0 }, (error, _granted, packet) => {
        const code = (packet as { granted?: number[] } | undefined)?.granted?.[0]
        if (code === undefined) reject(error ?? new Error('no SUBACK'))
        else resolve(code)
      })
    })
    return {
      reasonCode,
      stop: async () => {
        this.client.off('message', listener)
        if (this.isUp) await this.client.unsubscribeAsync(filter)
      }
    }
  }

  async publish (topic: string, payload: Buffer, { qos }: { qos: 0 | 1 }): Promise<void> {
    if (!this.isUp) throw new errors.FST_MQTT_OFFLINE('the broker')
    this.sent.push(payload.toString())
    await new Promise<void>((resolve, reject) => {
      this.client.publish(topic, payload, { qos }, (error) => {
        if (!error) resolve()
        else if ('code' in error) reject(new errors.FST_MQTT_PUBLISH_REFUSED(topic, error.message, { cause: error }))
        else reject(new errors.FST_MQTT_DELIVERY_UNKNOWN('the broker', { cause: error }))
      })
    })
  }

  onChange (listener: (isUp: boolean) => void): () => void {
    const up = () => listener(true)
    const down = () => listener(false)
    this.client.on('connect', up).on('close', down)
    return () => { this.client.off('connect', up).off('close', down) }
  }
}
