import { Connection, type ConnectionSettings } from '../../lib/session/connection.ts'
import type { LinkEvents } from '../../lib/session/link.ts'
import { onEnd, type Owner } from './cleanup.ts'
import { Mailbox } from './mailbox.ts'

/** What a connection told. */
export type News =
  | { kind: 'up', isSessionPresent: boolean }
  | { kind: 'ready' }
  | { kind: 'down', cause: Error & { code?: string }, wasUp: boolean }
  | { kind: 'message', topic: string }

export interface TestConnection {
  readonly connection: Connection
  /** The next of a kind that was not taken yet. */
  next<K extends News['kind']> (kind: K): Promise<Extract<News, { kind: K }>>
  readonly all: readonly News[]
}

/** A connection that was not opened yet; the end of the test closes it. */
export function createConnection (
  owner: Owner, port: number, given: Partial<ConnectionSettings> = {}
): TestConnection {
  const all: News[] = []
  const mailbox = new Mailbox<News>()
  const tell = (news: News) => {
    all.push(news)
    mailbox.put(news)
  }
  const events: LinkEvents = {
    onUp: (isSessionPresent) => tell({ kind: 'up', isSessionPresent }),
    onReady: () => tell({ kind: 'ready' }),
    onDown (cause, wasUp) {
      tell({ kind: 'down', cause, wasUp })
      return false
    },
    onMessage: ({ topic }) => tell({ kind: 'message', topic }),
    onAck () {},
    onWritten () {},
    onDrain () {},
    onForeignPublish: (send) => send(),
    onForeignDone () {}
  }
  const connection = new Connection({
    address: { protocol: 'mqtt', host: '127.0.0.1', port, path: '', text: `mqtt://127.0.0.1:${port}` },
    credentials: () => ({ username: undefined, password: undefined }),
    clientId: 'the-client',
    protocolVersion: 5,
    keepaliveSeconds: 60,
    connectTimeoutMs: 5_000,
    sessionExpirySeconds: 0,
    will: undefined,
    reconnect: { minDelayMs: 1, maxDelayMs: 1 },
    maxPacketBytes: 10_000,
    tls: {},
    client: {},
    ...given
  }, events)
  onEnd(owner, () => connection.close(100))
  return {
    connection,
    all,
    next: async <K extends News['kind']>(kind: K) =>
      await mailbox.take((news) => news.kind === kind, kind) as Extract<News, { kind: K }>
  }
}
