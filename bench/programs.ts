import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePorts } from '../test/helpers/ports.ts'
import { endWithUs, programPath } from '../test/helpers/programs.ts'

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

/** Starts a Mosquitto that logs nothing, and ends with us. */
export async function startBroker (
  directory: string, maxInflightMessages: number
): Promise<{ child: ChildProcess, port: number }> {
  const [port = 0] = await freePorts(1)
  const configuration = join(directory, `${port}.conf`)
  writeFileSync(configuration, [
    `listener ${port} 127.0.0.1`, 'allow_anonymous true', `max_inflight_messages ${maxInflightMessages}`,
    'max_queued_messages 0', ''
  ].join('\n'))
  const child = spawn(programPath('mosquitto') ?? 'mosquitto', ['-c', configuration], { stdio: 'ignore' })
  endWithUs(child)
  for (;;) {
    const socket = connect(port, '127.0.0.1')
    const isOpen = await Promise.race([
      once(socket, 'connect').then(() => true), once(socket, 'close').then(() => false)
    ]).catch(() => false)
    socket.destroy()
    if (isOpen) return { child, port }
    if (child.exitCode !== null) throw new Error('no mosquitto')
  }
}
