import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Collects what nobody holds any more. */
export async function collectGarbage (): Promise<void> {
  // What a turn of the event loop has looked at by a WeakRef lives until that turn is over.
  for (let round = 0; round < 3; round++) {
    await new Promise<void>((resolve) => { setImmediate(resolve) })
    collect()
  }
}

/** Bytes in use, after what nobody holds any more is gone. */
export async function usedBytes (): Promise<number> {
  await collectGarbage()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}
