import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** Ends a process of a bench. */
export async function endProcess (child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, 'exit')
  child.kill('SIGKILL')
  await exit
}

/** The path of a program of the benches. Not .ts: what runs is what tsc made, which rewrites no strings. */
export function program (name: string): string {
  return fileURLToPath(new URL(name, import.meta.url))
}
