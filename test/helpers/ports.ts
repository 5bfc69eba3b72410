import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Server } from 'node:net'

/**
 * Ports below the range from which systems take those of outgoing connections (32768 on Linux): there, a
 * client that redials a broker which has stopped can meet itself.
 */
const [firstPort, lastPort] = [12_000, 32_000]
/** Of which each process has its own, so that nobody else takes those of a broker while it is stopped. */
const stretch = 200

let claimed: Promise<number> | undefined
let taken = 0

/** The first port of a stretch that is ours until the process ends: we listen on it. */
async function claim (): Promise<number> {
  for (;;) {
    const port = firstPort + stretch * randomInt((lastPort - firstPort) / stretch)
    if (await canListen(createServer().unref(), port)) return port
  }
}

/** In turn, so that one that was used comes again as late as possible. */
async function nextPort (): Promise<number> {
  const first = await (claimed ??= claim())
  return first + 1 + taken++ % (stretch - 1)
}

async function canListen (server: Server, port: number, host = '127.0.0.1'): Promise<boolean> {
  const opened = once(server, 'listening')
  server.listen(port, host)
  return await opened.then(() => true, () => false)
}

/** Lets `server` listen on `port` of 127.0.0.1 (or `host`), or on a free one, and says which. */
export async function listen (server: Server, port?: number, host = '127.0.0.1'): Promise<number> {
  for (let attempts = stretch; attempts > 0; attempts--) {
    if (await canListen(server, port ?? await nextPort(), host)) return (server.address() as AddressInfo).port
    if (port !== undefined) break
  }
  throw new Error(port === undefined ? `no port of ${host} is free` : `port ${port} of ${host} is in use`)
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
