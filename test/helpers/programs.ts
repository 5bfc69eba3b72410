import type { ChildProcess } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync, readdirSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The root of the repository, from the sources as well as from `build/`. */
export const root = rootAbove(dirname(fileURLToPath(import.meta.url)))

const children = new Set<ChildProcess>()

/** The path of a program in PATH or in one of the `sbin` folders, where Debian puts brokers. */
export function programPath (name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']
  return folders.map((folder) => join(folder, name)).find(isExecutable)
}

/** The path of Mosquitto's dynamic security plugin: `MOSQUITTO_DYNSEC_PLUGIN`, or a usual place. */
export function dynsecPluginPath (): string | undefined {
  const named = process.env['MOSQUITTO_DYNSEC_PLUGIN']
  if (named) return named
  const libraries = ['/usr/lib', '/usr/lib64', '/usr/local/lib', '/opt/homebrew/lib'].filter(existsSync)
  // Debian: /usr/lib/<machine>-linux-gnu
  const folders = libraries.flatMap((library) => [
    library, ...readdirSync(library).filter((name) => name.includes('-linux-')).map((name) => join(library, name))
  ])
  return folders.map((folder) => join(folder, 'mosquitto_dynamic_security.so')).find(existsSync)
}

/** Kills `child` when this process exits: a test file that dies in the middle leaves nothing behind. */
export function endWithUs (child: ChildProcess): void {
  if (children.size === 0) process.on('exit', killAll)
  children.add(child)
  child.once('close', () => {
    children.delete(child)
    if (children.size === 0) process.off('exit', killAll)
  })
}

function killAll (): void {
  for (const child of children) child.kill('SIGKILL')
}

function rootAbove (folder: string): string {
  const file = join(folder, 'package.json')
  if (existsSync(file)) {
    const { name } = JSON.parse(readFileSync(file, 'utf8')) as { name?: string }
    if (name === 'fastify-multimqtt') return folder
  }
  if (dirname(folder) === folder) throw new Error('no package.json of fastify-multimqtt above the test helpers')
  return rootAbove(dirname(folder))
}

function isExecutable (path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
