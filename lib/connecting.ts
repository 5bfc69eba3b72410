// By a symbol of the process: an application may have its own copy of this module.
const connectingIsOff = Symbol.for('fastify-multimqtt.connectingIsOff')

/**
 * From now on nothing in this process connects, for tools: `connect()` and what is published resolve, and
 * nothing is sent.
 */
export function withoutConnecting (): void {
  Object.assign(globalThis, { [connectingIsOff]: true })
}

/** Whether `withoutConnecting` was called. */
export function isConnectingOff (): boolean {
  return connectingIsOff in globalThis
}
