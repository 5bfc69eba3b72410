import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync, closeSync, constants, existsSync, fstatSync, linkSync, lstatSync, mkdirSync, openSync,
  readFileSync, rmSync, writeFileSync, type Stats
} from 'node:fs'
import { tmpdir } from 'node:os'
import { isAbsolute, join, resolve } from 'node:path'
import { describeError, errors } from '../errors.ts'

/** Which group, and where its processes meet. */
export interface Meeting {
  readonly group: string
  /** What else all processes of the group have in common: broker, user, prefix. */
  readonly identity: readonly string[]
  /** A directory in which the private one is made; default: see `defaultBase`. */
  readonly dir: string | undefined
}

/** What is asked of the machine; another one in tests. */
export interface Surroundings {
  readonly platform: string
  readonly uid: number | undefined
  readonly runtimeDir: string | undefined
  readonly tmpdir: string
}

/** The longest path of a socket on macOS; Linux has 107, and binds elsewhere without a word beyond. */
const maxSocketPathBytes = 103
/** The key by which the processes know each other. */
export const keyName = 'key'
const keyBytes = 32
/** Of what is in the directory, the name of a socket is the longest. */
const longestName = socketName(4_194_304)

/**
 * The path of the private directory of a group, the same in all its processes: of one user, on one machine.
 *
 * @throws `FST_MQTT_GROUP_DIRECTORY` if there can be none
 */
export function directoryOf ({ group, identity, dir }: Meeting, machine = surroundings()): string {
  const base = dir === undefined ? defaultBase(machine) : resolve(dir)
  if (machine.platform === 'win32' || machine.uid === undefined) {
    throw new errors.FST_MQTT_GROUP_DIRECTORY(base, "mode 'single' needs Unix sockets and symbolic links, " +
      `which are not used on ${machine.platform}: choose mode 'each'`)
  }
  const what = JSON.stringify([machine.uid, group, ...identity])
  const path = join(base, `multimqtt-${createHash('sha256').update(what).digest('hex').slice(0, 12)}`)
  const bytes = Buffer.byteLength(join(path, longestName))
  if (bytes > maxSocketPathBytes) {
    throw new errors.FST_MQTT_GROUP_DIRECTORY(path, `the path of a socket in it has ${bytes} bytes, systems allow ` +
      `${maxSocketPathBytes}: set processes.dir to a directory with a shorter path`)
  }
  return path
}

/** The only place here that looks at the environment. */
function surroundings (): Surroundings {
  const { platform, env } = process
  return { platform, uid: process.getuid?.(), runtimeDir: env['XDG_RUNTIME_DIR'], tmpdir: tmpdir() }
}

/**
 * `XDG_RUNTIME_DIR` if it is a directory of ours, else that of temporary files. After `su` the variable often
 * names the directory of somebody else.
 */
function defaultBase ({ uid, runtimeDir, tmpdir }: Surroundings): string {
  if (runtimeDir === undefined || !isAbsolute(runtimeDir)) return tmpdir
  const stats = lstatSync(runtimeDir, { throwIfNoEntry: false })
  return stats?.isDirectory() === true && stats.uid === uid ? runtimeDir : tmpdir
}

/**
 * Makes the private directory if it is not there, and checks that nobody else can do anything in it.
 *
 * @throws `FST_MQTT_GROUP_DIRECTORY`
 */
export function ensureDirectory (path: string): void {
  const stats = statsOf(path) ?? made(path)
  const problem = problemOf(stats)
  if (problem !== undefined) {
    throw new errors.FST_MQTT_GROUP_DIRECTORY(path,
      `${problem}. Remove it, or set processes.dir to a directory that only this user can write to`)
  }
}

function problemOf (stats: Stats): string | undefined {
  const uid = process.getuid?.()
  if (stats.isSymbolicLink()) return 'it is a symbolic link'
  if (!stats.isDirectory()) return 'it is no directory'
  if (stats.uid !== uid) return `it belongs to the user ${stats.uid}, this process runs as ${uid}`
  const mode = stats.mode & 0o777
  return mode === 0o700 ? undefined : `its mode is ${mode.toString(8)}, not 700, so that others may use it`
}

function statsOf (path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch (error) {
    throw unusable(path, error)
  }
}

function made (path: string): Stats {
  try {
    mkdirSync(path, { mode: 0o700 })
    // Whatever the umask is.
    chmodSync(path, 0o700)
  } catch (error) {
    // Another process of the group may have been faster.
    if (!isCode(error, 'EEXIST')) throw unusable(path, error)
  }
  return lstatSync(path)
}

/** What is told of a directory that the system refuses. */
export function unusable (path: string, error: unknown): Error {
  const advice = isCode(error, 'EMFILE', 'ENFILE')
    ? 'Too many files are open: close some, or raise the limit (ulimit -n)'
    : 'Set processes.dir to a directory that exists and that this user can write to'
  return new errors.FST_MQTT_GROUP_DIRECTORY(path, `${describeError(error)}. ${advice}`, { cause: error })
}

/**
 * The key by which the processes of a group know each other: that of the directory, else a new one.
 *
 * @throws `FST_MQTT_GROUP_DIRECTORY`
 */
export function groupKey (directory: string): Buffer {
  const path = join(directory, keyName)
  try {
    if (!existsSync(path)) writeKey(path)
    return readKey(path)
  } catch (error) {
    throw unusable(directory, error)
  }
}

function readKey (path: string): Buffer {
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    // Of the open file: whatever happens to its name meanwhile.
    const { uid, mode } = fstatSync(file)
    const key = readFileSync(file)
    const isOurs = uid === process.getuid?.() && (mode & 0o077) === 0
    if (!isOurs || key.length !== keyBytes) {
      throw new Error(`'${path}' is no key of ours: remove it while no process of the group runs`)
    }
    return key
  } finally {
    closeSync(file)
  }
}

// Written under another name first: once it is there it has all its bytes, and only one can make it.
function writeKey (path: string): void {
  const draft = `${path}.${randomBytes(6).toString('hex')}`
  writeFileSync(draft, randomBytes(keyBytes), { mode: 0o600, flag: 'wx' })
  try {
    linkSync(draft, path)
  } catch (error) {
    if (!isCode(error, 'EEXIST')) throw error
  } finally {
    rmSync(draft, { force: true })
  }
}

/** A name for a socket that no other has. */
export function socketName (pid = process.pid): string {
  return `${pid}.${randomBytes(4).toString('hex')}.sock`
}

/** Whether an error of the operating system is this one. */
export function isCode (error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code))
}
