import type { Job } from './job.ts'

/**
 * A connection that ends this often right after a message was sent alone, and lives without it, ends because
 * of it.
 */
const deathsToConvict = 12
/** From this many on a message waits apart, and the others go on. */
const deathsToQuarantine = 2

/**
 * Finds the message that makes a broker end the connection. The guard lets none through that the standard
 * forbids, but brokers have rules of their own, and one such message sent again after each reconnect would
 * stop all others.
 *
 * Evidence is needed, since connections end by themselves too. Where the broker says that it was a packet of
 * ours (DISCONNECT of MQTT 5), fewer and fewer are sent at once, until it says so of one alone. Where it
 * says nothing, one that was alone on several connections is set apart, so that the others go on, and is
 * tried again alone, each time on a connection that has proved to live without it.
 */
export class Suspicion {
  readonly #onProven: () => void
  readonly #now: () => number
  readonly #quarantine: Job[] = []
  /** What was in flight when the connection was last ended by one of these. */
  readonly #suspects = new Set<Job>()
  #limit = Infinity
  #trial: Job | undefined
  #isProven = false
  #timer: NodeJS.Timeout | undefined

  /** @param onProven told when a connection has lived for a while, so that a trial can begin */
  constructor (onProven: () => void, now = () => performance.now()) {
    this.#onProven = onProven
    this.#now = now
  }

  /** How many may be in flight. */
  get limit (): number {
    return this.#limit
  }

  /** True while nothing may be sent beside what is in flight: it has to be alone, or is about to be. */
  get isAlone (): boolean {
    return this.#limit === 1 || this.#trial !== undefined || this.isTrialDue
  }

  /** True if one that waits apart is to be sent as soon as nothing is in flight. */
  get isTrialDue (): boolean {
    return this.#isProven && this.#trial === undefined && this.#quarantine.length > 0
  }

  get isTrying (): boolean {
    return this.#trial !== undefined
  }

  takeTrial (): Job | undefined {
    this.#trial = this.#quarantine.shift()
    if (this.#trial !== undefined) this.#trial.isQuarantined = false
    return this.#trial
  }

  /** All that wait apart, for the end and for a session that is lost. */
  get quarantined (): readonly Job[] {
    return this.#quarantine
  }

  onUp (rttMs: number): void {
    if (this.#quarantine.length === 0) return
    this.#timer = setTimeout(() => {
      this.#isProven = true
      this.#onProven()
    }, Math.max(50, 5 * rttMs))
  }

  /**
   * A connection ended.
   *
   * @param lost what was in flight on it, in the order of sending
   * @param isBlamed whether the broker said that it was a packet of ours
   * @returns the one that is convicted
   */
  onDown (lost: readonly Job[], isBlamed: boolean, rttMs: number): Job | undefined {
    clearTimeout(this.#timer)
    const wasTrial = this.#trial !== undefined
    const wasAlone = this.#limit === 1 || wasTrial
    this.#isProven = false
    this.#trial = undefined
    const [first, second] = lost
    if (first === undefined) {
      // The connection does not live without them either.
      for (const job of this.#quarantine) job.loneDeaths = deathsToQuarantine
      return undefined
    }
    if (second === undefined) return this.#judge(first, isBlamed, wasAlone, rttMs)
    if (isBlamed || first.drops > 1) this.#narrow(lost)
    return undefined
  }

  /**
   * One has its answer, or is given up.
   *
   * @returns whether more can be sent now
   */
  onSettled (job: Job): boolean {
    const wasTrial = this.#trial === job
    const wasQuarantined = job.isQuarantined
    if (wasTrial) this.#trial = undefined
    if (wasQuarantined) this.#quarantine.splice(this.#quarantine.indexOf(job), 1)
    job.isQuarantined = false
    return this.#clear(job) || wasTrial || wasQuarantined
  }

  close (): void {
    clearTimeout(this.#timer)
  }

  #judge (job: Job, isBlamed: boolean, wasAlone: boolean, rttMs: number): Job | undefined {
    if (!wasAlone) {
      // A message of QoS 0 beside it may have been the cause: now it is sent alone.
      if (isBlamed || job.drops > 1) this.#narrow([job])
      return undefined
    }
    if (isBlamed) return job
    // A broker ends the connection when it has read the message. What takes longer has another cause.
    if (this.#now() - job.sentAt <= 4 * rttMs + 50) job.loneDeaths++
    if (job.loneDeaths >= deathsToConvict) return job
    if (job.loneDeaths >= deathsToQuarantine) {
      this.#clear(job)
      job.isQuarantined = true
      this.#quarantine.push(job)
    }
    return undefined
  }

  #narrow (lost: readonly Job[]): void {
    this.#limit = Math.max(1, Math.floor(Math.min(this.#limit, lost.length) / 4))
    // It is one of these: all others can go on as soon as these are through.
    this.#suspects.clear()
    for (const job of lost) this.#suspects.add(job)
  }

  /** @returns whether that was the last one */
  #clear (job: Job): boolean {
    if (!this.#suspects.delete(job) || this.#suspects.size > 0) return false
    this.#limit = Infinity
    return true
  }
}
