import type { Passage } from './passage.ts'
import type { Group, Task } from './scheduler.ts'

/** How often a handler that has failed is run again, and when. */
export interface RetryPolicy {
  readonly limit: number
  readonly delayMs: number
  /** Of each pause to the one before it. */
  readonly factor: number
}

/** What setTimeout can wait: with more it fires at once. */
const maxDelayMs = 2_147_483_647

/** Milliseconds between a failed attempt, counted from 1, and the next one. */
export function retryDelay ({ delayMs, factor }: RetryPolicy, attempt: number): number {
  return Math.min(maxDelayMs, delayMs * factor ** (attempt - 1))
}

/** What a retry needs of the delivery that it is part of. */
export interface RetryHost {
  readonly group: Group
  readonly bytes: number
  readonly isDroppable: boolean
  rerun (failed: Passage): void
  /** There will be none: the last failure is the end of it. */
  onRetryLost (failed: Passage, why: 'dropped' | 'given up'): void
}

/** The next attempt of one handler. It keeps its key meanwhile, and no slot. */
export class Retry implements Task {
  wait: Task['wait'] = undefined
  readonly group: Group
  readonly bytes: number
  readonly isDroppable: boolean
  readonly #host: RetryHost
  readonly #failed: Passage

  constructor (host: RetryHost, failed: Passage) {
    this.group = host.group
    this.bytes = host.bytes
    this.isDroppable = host.isDroppable
    this.#host = host
    this.#failed = failed
  }

  proceed (): void {
    this.#host.rerun(this.#failed)
  }

  lose (why: 'dropped' | 'given up'): void {
    this.#host.onRetryLost(this.#failed, why)
  }
}
