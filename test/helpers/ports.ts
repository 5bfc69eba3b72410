import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Server } from 'node:net'

/**
 * Lets `server` listen on `port` of 127.0.0.1 (or `host`), or on a random one, and says which. The random one
 * lies below the range from which systems take the ports of outgoing connections (32768 on Linux): there, a
 * client that redials a broker which has stopped can meet itself.
 */
export async function listen (server: Server, port?: number, host = '127.0.0.1'): Promise<number> {
  for (let attempts = 20; ; attempts--) {
    const opened = once(server, 'listening')
    server.listen(port ?? randomInt(12_000, 32_000), host)
    try {
      await opened
      return (server.address() as AddressInfo).port
    } catch (error) {
      if (port !== undefined || attempts === 0) throw error
    }
  }
}

/** `count` different ports of 127.0.0.1 on which nobody listens now. */
export async function freePorts (count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer())
  const ports = await Promise.all(servers.map((server) => listen(server)))
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}

/** A port of 127.0.0.1 on which nobody listens: a connection to it is refused at once. */
export async function closedPort (): Promise<number> {
  const [port] = await freePorts(1)
  if (port === undefined) throw new Error('no free port')
  return port
}
