import { maxFieldBytes, textProblem } from '../guard.ts'
import { isRecord, kindOf } from '../values.ts'
import { unspoken } from './unspoken.ts'

/** User and password of one CONNECT. */
export interface Login {
  readonly username: string | undefined
  readonly password: string | undefined
}

/** User and password, which neither util.inspect nor JSON.stringify shows. */
export class Credentials {
  /** Whether the next attempt may have others. */
  readonly mayChange: boolean
  readonly #ask: () => unknown

  readonly #username: string | undefined

  /**
   * @param ask gives them anew for every attempt
   * @param username where it is known beforehand
   */
  constructor (ask: () => unknown, mayChange = true, username?: string) {
    this.#ask = ask
    this.mayChange = mayChange
    this.#username = username
  }

  /** Undefined where the application's function gives it. */
  get username (): string | undefined {
    return this.#username
  }

  /**
   * Those for the next attempt.
   *
   * @throws rejects with an error that tells what the application's function threw, without its message; and
   *   a TypeError for what can be no credentials
   */
  async ask (): Promise<Login> {
    const { username, password } = await this.#read()
    const problem = loginProblem(username, password)
    if (problem !== undefined) throw new TypeError(`${problem.key}: ${problem.problem}`)
    return { username: username as string | undefined, password: password as string | undefined }
  }

  async #read (): Promise<{ readonly username?: unknown, readonly password?: unknown }> {
    let given: unknown
    try {
      given = await this.#ask()
      if (isRecord(given)) return { username: given['username'], password: given['password'] }
    } catch (thrown) {
      throw unspoken(thrown)
    }
    throw new TypeError(`it has to give an object with username and password, not ${kindOf(given)}`)
  }
}

/** What is wrong with user and password; never with the password itself in it. */
export function loginProblem (
  username: unknown, password: unknown
): { key: 'username' | 'password', problem: string } | undefined {
  const usernameProblem = username === undefined ? undefined : textProblem(username)
  if (usernameProblem !== undefined) return { key: 'username', problem: usernameProblem }
  if (password === undefined) return undefined
  if (typeof password !== 'string') return { key: 'password', problem: `it has to be a string, not ${kindOf(password)}` }
  if (username === undefined) return { key: 'password', problem: 'it needs a username' }
  return Buffer.byteLength(password) > maxFieldBytes
    ? { key: 'password', problem: `it has more than ${maxFieldBytes} bytes` }
    : undefined
}
