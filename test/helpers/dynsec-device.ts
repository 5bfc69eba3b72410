import { connect, type IClientOptions } from 'mqtt'
import { onEnd, type Owner } from './cleanup.ts'
import { deferred, within } from './deadline.ts'
import { Mailbox } from './mailbox.ts'

/** Somebody who logs in at a listener with dynamic security. */
export interface Device {
  /**
   * The reason code of the broker's DISCONNECT; undefined if it just closed the connection, as on MQTT
   * 3.1.1.
   */
  readonly disconnected: Promise<number | undefined>
  /** Publishes with QoS 1. @returns the reason code of the PUBACK */
  publish (topic: string, payload?: string): Promise<number>
  /** @returns the reason code of the SUBACK */
  subscribe (filter: string): Promise<number>
  /** The oldest message not taken yet: its topic and text. */
  next (): Promise<[topic: string, payload: string]>
  end (): void
}

export interface DeviceOptions {
  port: number
  username: string
  password: string
  version?: 4 | 5
  clientId?: string
}

/** Logs in; rejects with the reason code of the CONNACK if that is refused. */
export async function connectDevice (
  owner: Owner, { port, version = 5, ...options }: DeviceOptions
): Promise<Device> {
  const settings: IClientOptions = { ...options, protocolVersion: version, reconnectPeriod: 0 }
  const client = connect(`mqtt://127.0.0.1:${port}`, settings)
  onEnd(owner, () => client.end(true))
  const connected = deferred<undefined>()
  const disconnected = deferred<number | undefined>()
  const messages = new Mailbox<[string, string]>()
  client.on('connect', () => connected.resolve(undefined))
  client.on('error', (error) => {
    const reasonCode = 'code' in error ? error.code : undefined
    connected.reject(Object.assign(new Error(error.message), { reasonCode }))
  })
  client.on('disconnect', ({ reasonCode }) => disconnected.resolve(reasonCode))
  client.on('close', () => disconnected.resolve(undefined))
  client.on('message', (topic, payload) => messages.put([topic, payload.toString()]))
  await within(connected.promise, 5_000, 'CONNACK')
  return {
    disconnected: within(disconnected.promise, 5_000, 'end of the connection'),
    publish: (topic, payload = '') => new Promise((resolve, reject) => {
      client.publish(topic, payload, { qos: 1 }, (error, packet) => {
        const code = error && 'code' in error ? error.code : undefined
        if (typeof code === 'number') resolve(code)
        else if (error) reject(error)
        else resolve((packet as { reasonCode?: number } | undefined)?.reasonCode ?? 0)
      })
    }),
    subscribe: (filter) => new Promise((resolve, reject) => {
      client.subscribe(filter, { qos: 1 }, (error, _granted, packet) => {
        const [code] = (packet as { granted?: number[] } | undefined)?.granted ?? []
        if (code === undefined) reject(error ?? new Error('no SUBACK'))
        else resolve(code)
      })
    }),
    next: () => messages.take(() => true, 'message at a device'),
    end: () => { client.end(true) }
  }
}
