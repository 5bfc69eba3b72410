import { createServer, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { Aedes } from 'aedes'

/** Where the demo's messages go. */
export interface Broker {
  readonly url: string
  readonly protocolVersion: 'auto' | 4
  readonly description: string
  close (): Promise<void>
}

/** The broker at `url`, or one inside of this process on a free port. */
export async function openBroker (url: string | undefined): Promise<Broker> {
  if (url !== undefined) {
    // The URL may have a password.
    const { protocol, host } = new URL(url)
    return { url, protocolVersion: 'auto', description: `${protocol}//${host}, from MQTT_URL`, close: async () => {} }
  }
  const aedes = await Aedes.createBroker()
  const server = createServer(aedes.handle)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `mqtt://127.0.0.1:${port}`,
    // MQTT 3.1.1 is all that aedes speaks.
    protocolVersion: 4,
    description: `one inside of this program, at mqtt://127.0.0.1:${port} (MQTT_URL names another)`,
    async close () {
      await new Promise<void>((resolve) => aedes.close(resolve))
      await new Promise((resolve) => server.close(resolve))
    }
  }
}
