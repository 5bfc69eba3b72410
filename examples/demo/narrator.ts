/** What happened, from the point of view of `who`. */
export type Event = '→' | '←' | '·' | '✗'

interface Listener {
  readonly key: string
  resolve (): void
}

const patienceMs = 10_000

/** Tells on the screen who says what on which topic, and lets the story wait until it has been told. */
export class Narrator {
  #listeners: Listener[] = []

  say (text: string): void {
    console.log(text)
  }

  /** One line, in columns. */
  tell (who: string, event: Event, topic: string, text: string): void {
    console.log(`   ${who.padEnd(9)} ${event} ${topic.padEnd(21)} ${text}`.trimEnd())
    const key = keyOf(who, event, topic)
    for (const listener of this.#listeners.filter((one) => one.key === key)) listener.resolve()
    this.#listeners = this.#listeners.filter((one) => one.key !== key)
  }

  /** Resolves with the next such line. Call it before what leads to the line. */
  async told (who: string, event: Event, topic: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`waited ${patienceMs} ms for: ${who} ${event} ${topic}`))
      }, patienceMs)
      // A demo that is interrupted while it waits ends at once.
      timer.unref()
      this.#listeners.push({
        key: keyOf(who, event, topic),
        resolve () {
          clearTimeout(timer)
          resolve()
        }
      })
    })
  }
}

function keyOf (...parts: string[]): string {
  return parts.join(' ')
}

/** Where pino writes the application's log: tells what a newcomer should see of it. */
export function logToNarrator (narrator: Narrator, prefix: string): { write (line: string): void } {
  return {
    write (line) {
      if (process.env['DEMO_LOG'] !== undefined) process.stderr.write(line)
      const { level, msg, topic, err } = JSON.parse(line) as LogLine
      const name = topic?.replace(`${prefix}/`, '') ?? ''
      if (err?.code !== undefined && topic !== undefined) {
        narrator.tell('app', '✗', name, `${err.code}: ${err.message}`)
      } else if (topic !== undefined || level >= warning || msg.startsWith('connected')) {
        narrator.tell('app', '·', name, msg)
      }
    }
  }
}

interface LogLine {
  readonly level: number
  readonly msg: string
  readonly topic?: string
  readonly err?: { readonly code?: string, readonly message: string }
}

const warning = 40
