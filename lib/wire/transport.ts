import { connect as connectTcp, isIP, isIPv6, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls, createSecureContext, type SecureContext } from 'node:tls'
import { ReadBuffer } from './read-buffer.ts'

/** Where a broker is, and how it is reached. */
export interface Target {
  readonly protocol: 'mqtt' | 'mqtts' | 'ws' | 'wss'
  readonly host: string
  readonly port: number
  /** Of a WebSocket. */
  readonly path: string
  readonly tls: TlsTarget
  /** Further options of the package ws. */
  readonly wsOptions: object
}

export interface TlsTarget {
  readonly servername?: string | undefined
  readonly rejectUnauthorized?: boolean | undefined
  readonly secureContext?: SecureContext | undefined
}

/**
 * Opens a socket to the broker. Errors come as its `error` event, also those of connecting; what cannot even
 * be tried rejects.
 */
export function dial (target: Target): Duplex | Promise<Duplex> {
  try {
    return open(target)
  } catch (error) {
    return rejected(error)
  }
}

async function rejected (error: unknown): Promise<never> {
  throw error
}

function open (target: Target): Duplex | Promise<Duplex> {
  switch (target.protocol) {
    case 'mqtt': return dialTcp(target)
    case 'mqtts': return dialTls(target)
    case 'ws':
    case 'wss': return dialWebSocket(target)
  }
}

function dialTcp ({ host, port }: Target): Duplex {
  const buffer = new ReadBuffer()
  const onread = {
    buffer: () => buffer.target,
    callback: (size: number) => {
      socket.emit('data', buffer.take(size))
      return true
    }
  }
  const socket: Socket = connectTcp({ host, port, noDelay: true, onread })
  return socket
}

function dialTls ({ host, port, tls }: Target): Duplex {
  const socket = connectTls({ host, port, ...tlsOptions(host, tls) })
  socket.setNoDelay(true)
  return socket
}

async function dialWebSocket ({ protocol, host, port, path, tls, wsOptions }: Target): Promise<Duplex> {
  // Only for those who need it: the package is 15 ms of start-up.
  const { createWebSocketStream, WebSocket } = await import('ws')
  const authority = `${isIPv6(host) ? `[${host}]` : host}:${port}`
  const secure = protocol === 'wss' ? tlsOptions(host, tls) : {}
  // Compression costs a window of 32 KiB and more for each connection, and MQTT payloads are small.
  const socket = new WebSocket(`${protocol}://${authority}${path}`, ['mqtt'], {
    perMessageDeflate: false, ...wsOptions, ...secure
  })
  const stream = createWebSocketStream(socket)
  // As sockets say it.
  socket.once('open', () => stream.emit('connect'))
  return stream
}

function tlsOptions (host: string, { servername, rejectUnauthorized, secureContext }: TlsTarget) {
  return {
    // Server name indication has no addresses [RFC 6066 §3]; the certificate is checked for the host all the
    // same.
    servername: servername ?? (isIP(host) === 0 ? host : ''),
    // Said always: else NODE_TLS_REJECT_UNAUTHORIZED, or the options for ws, could turn it off unseen.
    rejectUnauthorized: rejectUnauthorized ?? true,
    secureContext: secureContext ?? createSecureContext()
  }
}
