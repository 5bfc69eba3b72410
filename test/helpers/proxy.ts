import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { onEnd, type Owner } from './cleanup.ts'
import { listen } from './ports.ts'

/** 'up' is from the client to the broker. */
export type Direction = 'up' | 'down'

export interface Proxy {
  readonly port: number
  /** `mqtt://127.0.0.1:<port>` */
  readonly url: string
  /** How many connections are open. */
  connections (): number
  /** How many connections were made since the start. */
  accepted (): number
  /** Resolves at the next connection of a client. */
  nextConnection (): Promise<void>
  /** Resets every connection. */
  cut (): void
  /** Resets every connection as soon as so many more bytes have passed in this direction (default 'up'). */
  cutAfter (bytes: number, direction?: Direction): void
  /** Half-open: nothing passes, and nobody is told. New connections are held too. */
  hold (): void
  /** Ends `hold`: what was held back passes now. */
  resume (): void
  /** Loses for good all that comes in this direction; `false` ends it. */
  drop (direction: Direction | false): void
  /** Accepts new connections and resets them at once. */
  refuse (on: boolean): void
}

export interface ProxyOptions {
  /** Milliseconds that everything takes in each direction. Default 0. */
  delayMs?: number
  /** Sees what the client sends and what is sent to it, both at its own end. */
  tap?: (direction: Direction, bytes: Buffer) => void
}

interface Pair {
  client: Socket
  broker: Socket
}

/** A TCP proxy in front of `targetPort` of 127.0.0.1 that makes faults; the end of the test closes it. */
export async function startProxy (
  owner: Owner, targetPort: number, { delayMs = 0, tap = () => {} }: ProxyOptions = {}
): Promise<Proxy> {
  const pairs = new Set<Pair>()
  const waiting: (() => void)[] = []
  let accepted = 0
  let held = false
  let refusing = false
  let dropped: Direction | false = false
  let limit: { direction: Direction, bytes: number } | undefined

  const arrive = (action: () => void) => { held ? waiting.push(action) : action() }
  const later = (action: () => void) => { delayMs > 0 ? setTimeout(arrive, delayMs, action) : arrive(action) }
  const resetting = new WeakSet<Socket>()
  // A reset ends a socket first. Node.js 20 loses the handle of one that is destroyed in the midst of that,
  // or was ending already, and then spins at the exit of the process.
  const reset = (socket: Socket) => {
    if (socket.writableLength > 0 || socket.writableEnded) {
      if (!resetting.has(socket)) socket.destroy()
      return
    }
    resetting.add(socket)
    socket.resetAndDestroy()
  }
  const cut = () => {
    for (const { client, broker } of pairs) {
      reset(client)
      reset(broker)
    }
  }
  const pass = (chunk: Buffer, direction: Direction, from: Socket, to: Socket) => {
    if (dropped === direction || !to.writable) return
    if (direction === 'down') tap(direction, chunk)
    const rest = limit?.direction === direction ? limit.bytes - chunk.length : Infinity
    if (rest <= 0) {
      limit = undefined
      to.write(chunk.subarray(0, chunk.length + rest), cut)
      return
    }
    if (limit?.direction === direction) limit.bytes = rest
    if (to.write(chunk)) return
    from.pause()
    to.once('drain', () => from.resume())
  }
  const join = (direction: Direction, from: Socket, to: Socket) => {
    from.on('data', (chunk: Buffer) => {
      if (direction === 'up') tap(direction, chunk)
      later(() => pass(chunk, direction, from, to))
    })
    from.on('end', () => later(() => to.end()))
    from.on('close', (hadError) => later(() => {
      if (hadError) reset(to)
      else if (!resetting.has(to)) to.destroy()
    }))
    from.on('error', () => {})
  }

  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    accepted++
    if (refusing) {
      client.on('error', () => {}).resetAndDestroy()
      return
    }
    const broker = connect({ host: '127.0.0.1', port: targetPort, allowHalfOpen: true, noDelay: true })
    const pair = { client, broker }
    pairs.add(pair)
    const forget = () => { if (client.destroyed && broker.destroyed) pairs.delete(pair) }
    client.once('close', forget)
    broker.once('close', forget)
    join('up', client, broker)
    join('down', broker, client)
  })
  const port = await listen(server)
  onEnd(owner, async () => {
    const closed = once(server.close(), 'close')
    cut()
    await closed
  })

  return {
    port,
    url: `mqtt://127.0.0.1:${port}`,
    connections: () => [...pairs].filter(({ client }) => !client.destroyed).length,
    accepted: () => accepted,
    nextConnection: async () => { await once(server, 'connection') },
    cut,
    cutAfter: (bytes, direction = 'up') => { limit = { direction, bytes } },
    hold: () => { held = true },
    resume: () => {
      held = false
      for (const action of waiting.splice(0)) action()
    },
    drop: (direction) => { dropped = direction },
    refuse: (on) => { refusing = on }
  }
}
