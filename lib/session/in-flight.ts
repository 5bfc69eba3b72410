import { PacketIds } from '../wire/ids.ts'
import { JobQueue, type Job } from './job.ts'
import { PacketTable } from './packet-table.ts'

/**
 * What was sent with QoS 1 and 2 and not answered, in the order of sending. Some of it is settled all the
 * same: its packet identifier is in use until the broker answers.
 */
export class InFlight {
  readonly #jobs = new PacketTable<Job>()
  /** What was sent on an earlier connection of the session, and not again so far. */
  readonly #again = new JobQueue()
  readonly #ids = new PacketIds((id) => this.#jobs.get(id) !== undefined)
  #sent = 0

  get (packetId: number): Job | undefined {
    return this.#jobs.get(packetId)
  }

  get jobs (): readonly Job[] {
    return this.#jobs.values().sort((a, b) => a.place - b.place)
  }

  /** True while something waits to be sent again. */
  get isRepeating (): boolean {
    return this.#again.first !== undefined
  }

  /** Whether one more can be sent: with identifiers for all, or with the one that it has. */
  get hasRoom (): boolean {
    return this.#jobs.size < PacketIds.count || this.isRepeating
  }

  /** Gives the job a packet identifier. */
  add (job: Job): void {
    job.packetId = this.#ids.next() ?? 0
    job.place = ++this.#sent
    job.state = 'sent'
    this.#jobs.set(job.packetId, job)
  }

  delete (job: Job): void {
    this.#jobs.delete(job.packetId)
  }

  /** The next to be sent again. What was given up meanwhile is not. */
  takeAgain (): Job | undefined {
    for (let job = this.#again.shift(); job !== undefined; job = this.#again.shift()) {
      if (!job.isSettled || job.state === 'released') return job
      if (job.publish.qos === 2) {
        // The broker may have it, and would take the next message with its identifier for the same: PUBREL
        // ends that.
        job.state = 'released'
        return job
      }
      this.delete(job)
    }
    return undefined
  }

  /** The broker knows what was sent: it is sent again, with the same identifiers. */
  keepSession (): void {
    this.#again.drain()
    for (const job of this.jobs) {
      if (!job.isQuarantined) this.#again.push(job)
    }
  }

  /**
   * The broker knows nothing of it any more.
   *
   * @returns all of it, in order
   */
  loseSession (): readonly Job[] {
    const { jobs } = this
    this.#again.drain()
    this.#jobs.clear()
    return jobs
  }
}
