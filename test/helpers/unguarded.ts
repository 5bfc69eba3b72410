import { randomUUID } from 'node:crypto'
import type { QoS } from '../../types/message.ts'
import { Connection } from '../../lib/session/connection.ts'
import { Inbox } from '../../lib/session/inbox.ts'
import type { Patience } from '../../lib/session/job.ts'
import type { OutgoingPublish, SubscribeOptions } from '../../lib/session/link.ts'
import { Outbox } from '../../lib/session/outbox.ts'
import { onEnd, type Owner } from './cleanup.ts'
import { deferred } from './deadline.ts'

export interface Unguarded {
  /** Resolves when it is connected. */
  readonly up: Promise<void>
  /** Connections that were made. */
  connections (): number
  publish (topic: string, options?: Partial<OutgoingPublish>, patience?: Partial<Patience>): Promise<void>
  subscribe (filter: string, options?: Partial<SubscribeOptions>): Promise<readonly number[]>
}

export interface UnguardedOptions {
  version?: 4 | 5
  /** Seconds for which the session is kept. Default 0. */
  expiry?: number
}

/** A connection with an outbox, without the guard before it: what it is given is sent as it is. */
export function openUnguarded (
  owner: Owner, port: number, { version = 5, expiry = 0 }: UnguardedOptions = {}
): Unguarded {
  const { promise: up, resolve } = deferred<void>()
  let connections = 0
  const connection: Connection = new Connection({
    address: { protocol: 'mqtt', host: '127.0.0.1', port, path: '', text: `mqtt://127.0.0.1:${port}` },
    credentials: () => ({ username: undefined, password: undefined }),
    clientId: `unguarded-${randomUUID()}`,
    sessionExpirySeconds: expiry,
    will: undefined,
    protocolVersion: version,
    keepaliveSeconds: 60,
    connectTimeoutMs: 5_000,
    reconnect: { minDelayMs: 10, maxDelayMs: 50 },
    maxPacketBytes: 2 ** 20,
    tls: {},
    client: {}
  }, {
    onUp (isSessionPresent) {
      connections++
      inbox.onUp(isSessionPresent)
      outbox.onUp(isSessionPresent)
      resolve()
    },
    onReady () {},
    onDown (cause) {
      inbox.onDown()
      return outbox.onDown(cause)
    },
    onMessage: (message) => inbox.receive(message),
    onAck: (type, packetId, reasonCode) => {
      if (type === 6) inbox.onPubrel(packetId)
      else outbox.onAck(type, packetId, reasonCode)
    },
    onWritten: (sequence) => outbox.onWritten(sequence),
    onDrain: () => outbox.onDrain(),
    onForeignPublish: (send) => outbox.foreign(send),
    onForeignDone: () => outbox.onForeignDone()
  })
  const outbox: Outbox = new Outbox(connection, {
    broker: `mqtt://127.0.0.1:${port}`, maxMessages: 100_000, maxBytes: 2 ** 26, overflow: 'reject'
  })
  const inbox = new Inbox(connection, (_, receipt) => receipt?.release(), () => {}, 1_000)
  onEnd(owner, async () => {
    outbox.close()
    await connection.close(500)
  })
  connection.open()
  return {
    up,
    connections: () => connections,
    publish (topic, options = {}, patience = {}) {
      const message = { topic, payload: Buffer.alloc(0), qos: 1 as QoS, retain: false, properties: undefined }
      return outbox.publish({ ...message, ...options }, { timeoutMs: 30_000, signal: undefined, ...patience })
    },
    async subscribe (filter, options = {}) {
      const plain = { qos: 0, noLocal: false, retainAsPublished: false, retainHandling: 0 } as const
      return await connection.subscribe([filter], { ...plain, ...options })
    }
  }
}
