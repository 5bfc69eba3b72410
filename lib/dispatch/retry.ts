import type { Loss } from './backlog.ts'
import type { Course } from './course.ts'
import type { Group } from './group.ts'
import type { Passage } from './passage.ts'
import type { Task } from './scheduler.ts'

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

/** The next attempt of one handler. It keeps its turn meanwhile, and no slot. */
export class Retry implements Task {
  wait: Task['wait'] = undefined
  readonly group: Group
  readonly bytes: number
  readonly isDroppable: boolean
  readonly #course: Course
  readonly #failed: Passage

  constructor (course: Course, failed: Passage) {
    this.group = course.group
    this.bytes = course.bytes
    this.isDroppable = course.isDroppable
    this.#course = course
    this.#failed = failed
  }

  proceed (): void {
    this.#course.rerun(this.#failed)
  }

  lose (why: Loss): void {
    this.#course.onRetryLost(this.#failed, why)
  }
}
