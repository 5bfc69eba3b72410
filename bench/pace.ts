/** Does something so many times a second, on average also where the machine is late. */
export class Pace {
  readonly #timer: NodeJS.Timeout

  /** @param action gets 1, 2, 3 … */
  constructor (rate: number, action: (number: number) => void) {
    const begin = performance.now()
    let count = 0
    this.#timer = setInterval(() => {
      const due = (performance.now() - begin) / 1_000 * rate
      while (count < due) action(++count)
    }, 5)
  }

  stop (): void {
    clearInterval(this.#timer)
  }
}
