import {
  existsSync, lstatSync, lutimesSync, readdirSync, readlinkSync, rmSync, symlinkSync, utimesSync
} from 'node:fs'
import { basename, join } from 'node:path'
import { isCode, keyName } from './directory.ts'

/** Who owns the connection, or owned it last. */
export interface Seat {
  /** Counted up with each owner. */
  readonly term: number
  /** Where it listens, or listened: whether it lives is found out by connecting. */
  readonly socketPath: string
}

/** Milliseconds for which somebody may listen without being the owner: until he has tried to become it. */
const candidacyMs = 60_000

/**
 * The election of an owner, by symbolic links in the private directory that are made and never changed:
 *
 *     owner.7 → 4711.3f9a0c11.sock      was owner, its process died
 *     owner.8 → 4712.77e01b5d.sock      is owner
 *
 * The link with the highest term tells the owner. Who finds it dead makes the next one, which only one
 * process can: the operating system says EEXIST to all others. Unlike replacing one link, this cannot go
 * wrong, however long a process stops between finding the owner dead and taking over: it comes too late, and
 * learns that. The last link stays when its owner closes, so that terms never start again.
 */
export class Election {
  readonly #directory: string

  constructor (directory: string) {
    this.#directory = directory
  }

  /** The owner, or the last one; undefined if there has never been one. */
  current (): Seat | undefined {
    const term = this.#highestTerm()
    if (term === 0) return undefined
    try {
      return { term, socketPath: join(this.#directory, basename(readlinkSync(this.#linkPath(term)))) }
    } catch (error) {
      // Another owner has tidied up since.
      if (isCode(error, 'ENOENT')) return this.current()
      throw error
    }
  }

  /**
   * Makes us the owner after the one whose term this was, if nobody else has become it.
   *
   * @param socketPath where we listen already
   * @param deadSocketPath of the last owner, if nobody listens there any more: it is removed
   * @returns the seat that we hold, undefined if another process was faster
   */
  claim (lastTerm: number, socketPath: string, deadSocketPath?: string): Seat | undefined {
    const seat = { term: lastTerm + 1, socketPath }
    try {
      symlinkSync(basename(socketPath), this.#linkPath(seat.term))
    } catch (error) {
      if (isCode(error, 'EEXIST')) return undefined
      throw error
    }
    // There may have been others meanwhile, who have tidied up the link that would have stopped us.
    if (!this.isHeld(seat)) return undefined
    if (deadSocketPath !== undefined) rmSync(deadSocketPath, { force: true })
    this.#tidy(seat)
    return seat
  }

  /** Whether we are the owner still, by a seat that `claim` returned: another process may have taken over. */
  isHeld ({ term, socketPath }: Seat): boolean {
    return this.#highestTerm() === term && existsSync(socketPath)
  }

  /** Keeps what we hold from being taken for forgotten by programs that clean up directories. */
  refresh ({ term, socketPath }: Seat): void {
    const now = new Date()
    lutimesSync(this.#linkPath(term), now, now)
    utimesSync(socketPath, now, now)
    utimesSync(join(this.#directory, keyName), now, now)
  }

  /** Removes the links of former owners, and what processes that were killed have left. */
  #tidy (seat: Seat): void {
    for (const name of readdirSync(this.#directory)) {
      const path = join(this.#directory, name)
      const term = termOf(name)
      const isFormer = term > 0 ? term < seat.term : path !== seat.socketPath && isLeftOver(name, path)
      if (isFormer) rmSync(path, { force: true })
    }
  }

  #highestTerm (): number {
    return Math.max(0, ...readdirSync(this.#directory).map(termOf))
  }

  #linkPath (term: number): string {
    return join(this.#directory, `owner.${term}`)
  }
}

/** The term of a link; 0 for all other files. */
function termOf (name: string): number {
  return Number(/^owner\.([1-9]\d{0,14})$/.exec(name)?.[1] ?? 0)
}

// Only the owner listens for longer, or one who was stopped and has lost his seat.
function isLeftOver (name: string, path: string): boolean {
  if (!name.endsWith('.sock') && !name.startsWith(`${keyName}.`)) return false
  const stats = lstatSync(path, { throwIfNoEntry: false })
  return stats !== undefined && stats.mtimeMs < Date.now() - candidacyMs
}
