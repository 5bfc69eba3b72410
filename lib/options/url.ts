/** What a broker's URL says. */
export interface BrokerUrl {
  readonly scheme: string
  readonly host: string
  readonly port: number | undefined
  readonly username: string | undefined
  readonly password: string | undefined
  /** With its leading slash; empty if there is none. For the request of a WebSocket it stays encoded. */
  readonly path: string
  /** The path percent-decoded, without its leading slash. */
  readonly prefix: string
}

/**
 * Reads the URL of a broker. Not left to MQTT.js, which splits user and password after decoding, at the wrong
 * colon, and drops the path.
 *
 * @returns the problem with it, or what it says
 */
export function parseBrokerUrl (text: string): { url: BrokerUrl } | { problem: string } {
  const url = parse(text)
  if (url === null) return { problem: `'${redactUrl(text)}' is no URL such as mqtt://user:password@host:1883/prefix` }
  if (!text.includes('://')) {
    return { problem: `'${redactUrl(text)}' has no scheme: write mqtt://${redactUrl(text)}` }
  }
  // Not url.search and url.hash, which are empty for 'mqtt://h/site/#'.
  const extra = /[?#]/.exec(text)?.[0]
  if (extra !== undefined) {
    return {
      problem: `'${redactUrl(text)}' has a ${extra === '#' ? 'fragment' : 'query'}, which is not used: ` +
      'write other options as fields, and ? and # as %3F and %23'
    }
  }
  if (url.hostname === '') return { problem: `'${redactUrl(text)}' has no host` }
  if (url.port === '0') return { problem: `'${redactUrl(text)}' has port 0, there are 1 to 65535` }
  try {
    return { url: partsOf(url) }
  } catch {
    return { problem: `'${redactUrl(text)}' has a % that is no percent-encoding: write it as %25` }
  }
}

/**
 * A URL without user, password and query, for messages; also of a text that is no URL. Up to the last @: it
 * is better to hide too much of a text whose password was not encoded.
 */
export function redactUrl (text: string): string {
  return text.replace(/^([a-z][a-z0-9+.-]*:\/\/)?.*@/is, '$1***@').replace(/\?.+$/s, '?***')
}

function partsOf (url: URL): BrokerUrl {
  return {
    scheme: url.protocol.slice(0, -1),
    host: decodeURIComponent(url.hostname).replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? undefined : Number(url.port),
    username: url.username === '' ? undefined : decodeURIComponent(url.username),
    password: url.password === '' ? undefined : decodeURIComponent(url.password),
    path: url.pathname,
    prefix: decodeURIComponent(url.pathname).replace(/^\//, '')
  }
}

// URL.parse came with Node 22.
function parse (text: string): URL | null {
  try {
    return new URL(text)
  } catch {
    return null
  }
}
