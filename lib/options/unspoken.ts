import { kindOf } from '../values.ts'

/** Deeper causes are left out. */
const maxDepth = 4

/**
 * What the application's function threw, without what it says: somebody who failed with a login has mostly
 * just read it, and errors end in logs. What kind of error it was and where it comes from tells whoever
 * wrote the function enough.
 */
export function unspoken (thrown: unknown, depth = 1): Error {
  try {
    return thrown instanceof Error ? withoutWords(thrown, depth) : hidden(`what was thrown is ${kindOf(thrown)}`, '')
  } catch {
    return hidden('what was thrown cannot be read', '')
  }
}

function withoutWords (error: Error, depth: number): Error {
  const { code } = error as { code?: unknown }
  // Constants of Node.js and the like, and statuses of HTTP.
  const isConstant = typeof code === 'number' || (typeof code === 'string' && /^E[A-Z]{2,14}$|^ERR_[A-Z_]{1,40}$/.test(code))
  const kind = isConstant ? `${kindOfError(error)} with the code ${code}` : kindOfError(error)
  const told = hidden(`${kind}, whose message is not repeated: it may have a secret in it`, framesOf(error))
  if (error.cause !== undefined && depth < maxDepth) told.cause = unspoken(error.cause, depth + 1)
  return told
}

function hidden (message: string, frames: string): Error {
  const error = new Error(message)
  error.stack = `Error: ${message}${frames}`
  return error
}

/** By its class, since anybody can set a name. */
function kindOfError (error: Error): string {
  return kindOf(error).replace(/^an object \((.*)\)$/, '$1')
}

/** Where it was thrown. The stack begins with the message, which may look like a part of what follows it. */
function framesOf ({ stack, message }: Error): string {
  const start = String(stack).indexOf(`${message}\n    at `)
  if (message === '' || start < 0) return ''
  return /^(?:\n {4}at .*)*/.exec(String(stack).slice(start + message.length))?.[0] ?? ''
}
