import { errors } from '../errors.ts'

/** Counts what has begun and not ended, for whoever waits until nothing has. */
export class Activity {
  readonly #waiting: (() => void)[] = []
  readonly #deadlines = new Set<NodeJS.Timeout>()
  #count = 0
  #isStopped = false

  begin (): void {
    this.#count++
  }

  end (): void {
    if (--this.#count === 0 && this.#waiting.length > 0) this.#tell()
  }

  async idle (): Promise<void> {
    if (this.#count === 0) return
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  /**
   * The same, with an end: a handler that waits for it waits for itself, and nothing tells which handler asks
   * (an AsyncLocalStorage would, at the cost of every promise of the application).
   *
   * @throws `FST_MQTT_IDLE_TIMEOUT`
   */
  async idleWithin (timeoutMs: number): Promise<void> {
    if (this.#count === 0) return
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new errors.FST_MQTT_IDLE_TIMEOUT(timeoutMs, this.#count))
      }, timeoutMs)
      if (this.#isStopped) timer.unref()
      this.#deadlines.add(timer)
      this.#waiting.push(() => {
        clearTimeout(timer)
        this.#deadlines.delete(timer)
        resolve()
      })
    })
  }

  #tell (): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  /** Nobody who waits keeps the process from now on. */
  stop (): void {
    this.#isStopped = true
    for (const timer of this.#deadlines) timer.unref()
  }
}
