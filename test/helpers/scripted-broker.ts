import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import {
  generate, parser,
  type IConnackPacket, type IConnectPacket, type IPublishPacket, type ISubscribePacket,
  type Packet, type PacketCmd
} from 'mqtt-packet'
import { onEnd, type Owner } from './cleanup.ts'
import { Mailbox } from './mailbox.ts'
import { listen } from './ports.ts'

/** One client of the scripted broker. */
export interface ScriptedConnection {
  readonly socket: Socket
  /** What it sent first; undefined until then. */
  readonly connect: IConnectPacket | undefined
  /** Sends any packet, in the client's version of MQTT. */
  send (packet: Packet): void
  /** Sends bytes as they are, for what no packet writer would make. */
  sendBytes (bytes: Buffer): void
  /** Ends the connection without a word. */
  destroy (): void
}

export type ScriptedConnack = Partial<Omit<IConnackPacket, 'cmd'>>

export interface ScriptedBrokerOptions {
  /** Sees every packet before it is answered; what returns `true` is not answered. */
  onPacket?: (packet: Packet, connection: ScriptedConnection) => boolean | void
  /** What differs from an accepting CONNACK; one `reasonCode` does for both versions. */
  connack?: ScriptedConnack | ((connect: IConnectPacket) => ScriptedConnack)
  /** The QoS granted to a topic filter, or a reason code >= 128; default: as asked. */
  grants?: (filter: string, qos: number) => number
  /** Default: a free one. */
  port?: number
}

export interface ScriptedBroker {
  readonly port: number
  /** `mqtt://127.0.0.1:<port>` */
  readonly url: string
  /** Every packet of every connection, in order. */
  readonly received: readonly Packet[]
  /** Every connection, closed ones included, in order. */
  readonly connections: readonly ScriptedConnection[]
  /** The oldest packet of this kind that `next` has not given yet, awaited for at most 5 s. */
  next<C extends PacketCmd> (cmd: C, timeoutMs?: number): Promise<Extract<Packet, { cmd: C }>>
  /** Sends a PUBLISH to the newest connection; the handshakes of QoS 1 and 2 are done for it. */
  publish (message: Partial<IPublishPacket> & { topic: string }, connection?: ScriptedConnection): void
  /** Ends all connections and stops listening. */
  close (): Promise<void>
}

/** A broker that answers as it is told, to MQTT 3.1.1 and 5; the end of the test closes it. */
export async function startScriptedBroker (
  owner: Owner, options: ScriptedBrokerOptions = {}
): Promise<ScriptedBroker> {
  const received: Packet[] = []
  const connections: Connection[] = []
  const mailbox = new Mailbox<Packet>()
  let messageId = 0

  const server = createServer({ noDelay: true }, (socket) => {
    const connection = new Connection(socket, (packet) => {
      received.push(packet)
      const handled = options.onPacket?.(packet, connection) === true
      if (!handled) answer(packet, connection, options)
      // Last, so that whoever awaits a packet finds it answered.
      mailbox.put(packet)
    })
    connections.push(connection)
  })
  const port = await listen(server, options.port)

  const close = async () => {
    if (!server.listening) return
    const closed = once(server.close(), 'close')
    for (const connection of connections) connection.destroy()
    await closed
  }
  onEnd(owner, close)

  return {
    port,
    url: `mqtt://127.0.0.1:${port}`,
    received,
    connections,
    close,
    next: async <C extends PacketCmd>(cmd: C, timeoutMs?: number) => (
      await mailbox.take((packet) => packet.cmd === cmd, `${cmd} from a client`, timeoutMs)
    ) as Extract<Packet, { cmd: C }>,
    publish (message, connection = connections.at(-1)) {
      if (!connection) throw new Error('nobody has connected')
      const id = message.qos ? { messageId: messageId = messageId % 65_535 + 1 } : {}
      connection.send({ cmd: 'publish', qos: 0, dup: false, retain: false, payload: '', ...id, ...message })
    }
  }
}

/** Accepts connections and never says a word. */
export async function startSilentServer (
  owner: Owner
): Promise<{ port: number, url: string, connections: () => number }> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.on('error', () => {}).resume()
  })
  const port = await listen(server)
  onEnd(owner, async () => {
    const closed = once(server.close(), 'close')
    for (const socket of sockets) socket.destroy()
    await closed
  })
  return { port, url: `mqtt://127.0.0.1:${port}`, connections: () => sockets.size }
}

class Connection implements ScriptedConnection {
  readonly socket: Socket
  #connect: IConnectPacket | undefined

  constructor (socket: Socket, onPacket: (packet: Packet) => void) {
    this.socket = socket
    const packets = parser()
    packets.on('packet', (packet) => {
      // The parser takes the version from the CONNECT by itself.
      if (packet.cmd === 'connect') this.#connect = packet
      onPacket(packet)
    })
    packets.on('error', () => socket.destroy())
    socket.on('data', (bytes: Buffer) => packets.parse(bytes))
    socket.on('error', () => {})
  }

  get connect (): IConnectPacket | undefined {
    return this.#connect
  }

  send (packet: Packet): void {
    this.sendBytes(generate(packet, { protocolVersion: this.#connect?.protocolVersion ?? 4 }))
  }

  sendBytes (bytes: Buffer): void {
    if (this.socket.writable) this.socket.write(bytes)
  }

  destroy (): void {
    this.socket.destroy()
  }
}

function answer (packet: Packet, connection: ScriptedConnection, options: ScriptedBrokerOptions): void {
  const id = packet.messageId === undefined ? {} : { messageId: packet.messageId }
  switch (packet.cmd) {
    case 'connect': return connection.send(connack(packet, options))
    case 'subscribe': return connection.send({ cmd: 'suback', ...id, granted: grantsOf(packet, options) })
    case 'unsubscribe':
      return connection.send({ cmd: 'unsuback', ...id, granted: packet.unsubscriptions.map(() => 0) })
    case 'pingreq': return connection.send({ cmd: 'pingresp' })
    case 'publish':
      if (packet.qos > 0) connection.send({ cmd: packet.qos === 1 ? 'puback' : 'pubrec', ...id, reasonCode: 0 })
      return
    case 'pubrec':
      if ((packet.reasonCode ?? 0) < 128) connection.send({ cmd: 'pubrel', ...id, reasonCode: 0 })
      return
    case 'pubrel': return connection.send({ cmd: 'pubcomp', ...id, reasonCode: 0 })
    case 'disconnect':
      connection.socket.end()
      break
    // What ends a handshake, and what only a broker sends.
    case 'puback': case 'pubcomp': case 'auth':
    case 'connack': case 'suback': case 'unsuback': case 'pingresp':
  }
}

function connack (connect: IConnectPacket, { connack = {} }: ScriptedBrokerOptions): IConnackPacket {
  const own = typeof connack === 'function' ? connack(connect) : connack
  const code = own.reasonCode ?? own.returnCode ?? 0
  return { cmd: 'connack', sessionPresent: false, reasonCode: code, returnCode: code, ...own }
}

function grantsOf (packet: ISubscribePacket, { grants }: ScriptedBrokerOptions): number[] {
  return packet.subscriptions.map(({ topic, qos }) => grants ? grants(topic, qos) : qos)
}
