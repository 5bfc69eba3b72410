import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { connect, createServer as createTcpServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { createServer as createTlsServer } from 'node:tls'
import { createWebSocketStream, WebSocketServer } from 'ws'
import { onEnd, type Owner } from './cleanup.ts'
import { certificates } from './mosquitto.ts'
import { listen } from './ports.ts'

export interface GatewayOptions {
  /** How a client reaches it; default over TCP, as the broker itself. */
  protocol?: 'mqtt' | 'mqtts' | 'ws' | 'wss'
  /** Default 127.0.0.1. */
  host?: '::1'
  /** Shows the certificate of another host. */
  isOtherHost?: boolean
  /** The subprotocol that a WebSocket is accepted with; default `mqtt`. */
  subprotocol?: false
}

export interface Gateway {
  readonly port: number
  /** How many bytes of MQTT clients have sent. */
  received (): number
}

/**
 * Takes connections over TLS or WebSocket, or at another address, and hands on what comes to the TCP port of
 * a broker: Mosquitto's own WebSocket listener holds back messages of 16,000 bytes and more. The end of the
 * test closes it.
 */
export async function startGateway (
  owner: Owner, targetPort: number, options: GatewayOptions
): Promise<Gateway> {
  let received = 0
  const open = new Set<Duplex>()
  const accept = (client: Duplex) => {
    const broker = connect(targetPort, '127.0.0.1').setNoDelay()
    open.add(client).add(broker)
    client.on('data', ({ length }: Buffer) => { received += length })
    client.pipe(broker).pipe(client)
    for (const [one, other] of [[client, broker], [broker, client]] as const) {
      one.on('error', () => {}).once('close', () => {
        open.delete(one)
        other.destroy()
      })
    }
  }
  const server = createServer(options, accept)
  const port = await listen(server, undefined, options.host)
  onEnd(owner, async () => {
    const closed = once(server.close(), 'close')
    for (const one of open) one.destroy()
    await closed
  })
  return { port, received: () => received }
}

function createServer (
  { protocol = 'mqtt', isOtherHost = false, subprotocol }: GatewayOptions, accept: (client: Duplex) => void
) {
  if (protocol === 'mqtt') return createTcpServer(accept)
  const [cert, key] = isOtherHost
    ? [certificates.otherHostCert, certificates.otherHostKey]
    : [certificates.serverCert, certificates.serverKey]
  const tls = { cert: readFileSync(cert), key: readFileSync(key) }
  if (protocol === 'mqtts') return createTlsServer(tls, accept).on('tlsClientError', () => {})
  const server = protocol === 'ws' ? createHttpServer() : createHttpsServer(tls).on('tlsClientError', () => {})
  const handleProtocols = () => subprotocol ?? 'mqtt'
  new WebSocketServer({ server, handleProtocols })
    .on('connection', (client) => accept(createWebSocketStream(client)))
  return server
}
