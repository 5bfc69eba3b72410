import { errors } from '../errors.ts'
import { aborted } from './aborts.ts'
import { Allowance, type AllowanceSettings } from './allowance.ts'
import { Deadlines } from './deadlines.ts'
import { InFlight } from './in-flight.ts'
import { Job, JobQueue, older, type JobHost, type Patience } from './job.ts'
import type { AckType, BrokerLimits, OutgoingPublish } from './link.ts'
import { assertBrokerAccepts } from './publish.ts'
import { isBlame, isRefusal, notFound, reasonText } from './reason-codes.ts'
import { Suspicion } from './suspicion.ts'
import { Unwritten, writePublish } from './unwritten.ts'

/** What the outbox needs from whoever holds the connection. */
export interface PublishPort {
  readonly isUp: boolean
  readonly isWritable: boolean
  readonly version: 4 | 5
  readonly limits: BrokerLimits
  readonly rttMs: number
  sendPublish (publish: OutgoingPublish, packetId: number, isDup: boolean): number
  sendAck (type: AckType, packetId: number, reasonCode: number): void
}

const [puback, pubrec, pubrel, pubcomp] = [4, 5, 6, 7] as const

/**
 * What waits for the broker. Every publish settles: by the acknowledgement, or by the first of its timeout,
 * its signal and the end. QoS 1 and 2 outlive the connection; in order, as many at once as the broker takes.
 */
export class Outbox implements JobHost {
  readonly #port: PublishPort
  readonly #broker: string
  readonly #allowance: Allowance
  /** QoS 1 and 2, not sent yet. */
  readonly #queue = new JobQueue()
  /** QoS 0 that the socket does not take, or that has to wait for a trial. */
  readonly #zeros = new JobQueue()
  readonly #inFlight = new InFlight()
  readonly #deadlines = new Deadlines()
  readonly #unwritten: Unwritten
  readonly #suspicion = new Suspicion(() => this.#pump())
  readonly #foreign: (() => void)[] = []
  readonly #idle: (() => void)[] = []
  #foreignInFlight = 0
  #live = 0
  /** Those of them with QoS 2. */
  #liveExact = 0
  #connection = 0
  /** All that has not settled. */
  #pending = 0
  #isUp = false
  #isClosed = false

  constructor (port: PublishPort, settings: AllowanceSettings) {
    this.#port = port
    this.#broker = settings.broker
    this.#allowance = new Allowance(settings)
    this.#unwritten = new Unwritten(port, this.#deadlines, this)
  }

  /** How many wait, what they take, and how many gave way to others. */
  get counters (): { messages: number, bytes: number, dropped: number } {
    return this.#allowance.counters
  }

  /**
   * Rejects with `FST_MQTT_OFFLINE` (QoS 0), `FST_MQTT_OUTBOX_FULL`, `FST_MQTT_DELIVERY_UNKNOWN`,
   * `FST_MQTT_PUBLISH_REFUSED`, `FST_MQTT_BROKER_LIMIT`, `FST_MQTT_NEEDS_MQTT5`, `FST_MQTT_PUBLISH_TIMEOUT`,
   * `FST_MQTT_ABORTED`, `FST_MQTT_CLOSED`.
   */
  publish (publish: OutgoingPublish, { timeoutMs, signal }: Patience): Promise<void> {
    if (this.#isClosed) return Promise.reject(new errors.FST_MQTT_CLOSED(this.#broker))
    if (signal?.aborted === true) return Promise.reject(aborted(signal))
    const isUsual = publish.qos === 0 && signal === undefined
    if (isUsual && this.#isOpen) return this.#unwritten.write(publish, timeoutMs)
    return new Promise((resolve, reject) => {
      const job = new Job(publish, timeoutMs, this, resolve, reject)
      // What is accepted while offline is checked when it is sent.
      if (this.#port.isUp && !this.#isAccepted(job)) return
      if (publish.qos === 0) this.#acceptZero(job, signal)
      else this.#accept(job, signal)
    })
  }

  /** For the raw client: sends when the broker has room for one more. */
  foreign (send: () => void): void {
    this.#foreign.push(send)
    this.#pump()
  }

  onForeignDone (): void {
    // MQTT.js has sent a PUBREL again, for a PUBLISH of the connection before.
    if (this.#foreignInFlight > 0) this.#foreignInFlight--
    this.#pump()
  }

  onUp (isSessionPresent: boolean): void {
    // A connection that was closed on purpose ends without a word.
    if (this.#isUp) this.#lose(new errors.FST_MQTT_CONNECTION('the connection was closed'))
    this.#isUp = true
    this.#connection++
    this.#suspicion.onUp(this.#port.rttMs)
    if (isSessionPresent) this.#inFlight.keepSession()
    else this.#loseSession()
    this.#pump()
  }

  /** @returns true if a new connection may come soon, because of what was sent on this one */
  onDown (cause: Error): boolean {
    if (this.#isUp) this.#lose(cause)
    return this.#suspicion.limit < Infinity || this.#suspicion.quarantined.length > 0
  }

  #lose (cause: Error): void {
    this.#isUp = false
    const lost = this.#inFlight.jobs
      .filter((job) => job.connection === this.#connection && !job.isSettled)
    for (const job of lost) job.drops++
    this.#live = this.#liveExact = 0
    this.#foreignInFlight = 0
    this.#foreign.length = 0
    const convict = this.#suspicion.onDown(lost, isBlame(cause), this.#port.rttMs)
    convict?.settle(new errors.FST_MQTT_PUBLISH_REFUSED(convict.publish.topic,
      `it ends the connection, each time that it is sent (${cause.message})`, { cause }))
    this.#unwritten.reject(() => new errors.FST_MQTT_DELIVERY_UNKNOWN(this.#broker, { cause }))
    for (const job of this.#zeros.drain()) job.settle(new errors.FST_MQTT_OFFLINE(this.#broker, { cause }))
  }

  onAck (type: AckType, packetId: number, reasonCode: number): void {
    const job = this.#inFlight.get(packetId)
    if (job === undefined) {
      // Of another process that had this session: the broker waits for the end of the handshake.
      if (type === pubrec && reasonCode < 0x80) this.#port.sendAck(pubrel, packetId, notFound)
      return
    }
    // It will be sent again, and answered once more.
    if (job.connection !== this.#connection) return
    const { qos } = job.publish
    if (type === pubrec && qos === 2 && reasonCode < 0x80) {
      job.state = 'released'
      job.releasedOn = this.#connection
      this.#port.sendAck(pubrel, packetId, 0)
    } else if ((type === puback && qos === 1) || (type === pubrec && qos === 2)) {
      this.#answered(job, isRefusal(reasonCode)
        ? new errors.FST_MQTT_PUBLISH_REFUSED(job.publish.topic, reasonText(reasonCode))
        : undefined)
    } else if (type === pubcomp && job.state === 'released') {
      // After a PUBREL that was sent again, only the PUBCOMP of the connection before was lost.
      const isUnknown = reasonCode === notFound && job.releasedOn === this.#connection
      this.#answered(job, isUnknown ? new errors.FST_MQTT_DELIVERY_UNKNOWN(this.#broker) : undefined)
    }
  }

  onWritten (sequence: number): void {
    this.#unwritten.settle(sequence)
  }

  onDrain (): void {
    this.#pump()
  }

  /** Resolves when nothing waits, or after the time. */
  async flush (timeoutMs: number): Promise<void> {
    if (this.#pending === 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs)
      this.#idle.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  /** Settles all that waits: another process has taken the session over. */
  reset (error: Error): void {
    this.#settleAll(() => error)
    this.#inFlight.loseSession()
  }

  /** Takes no more, and settles what still waits. */
  close (): void {
    this.#isClosed = true
    this.#settleAll(() => new errors.FST_MQTT_CLOSED(this.#broker))
    this.#suspicion.close()
    this.#deadlines.clear()
  }

  #settleAll (closed: () => Error): void {
    this.#unwritten.reject(closed)
    const waiting = [...this.#zeros.drain(), ...this.#inFlight.jobs, ...this.#suspicion.quarantined,
      ...this.#queue.drain()]
    // They stay in flight: until the connection is gone, a PUBREC is still answered.
    for (const job of waiting) job.settle(closed())
  }

  onCreated (): void {
    this.#pending++
  }

  onSettled (job: Job): void {
    if (job.isCounted) {
      this.#allowance.release(job)
      this.#deadlines.delete(job)
      if (job.state === 'queued') (job.publish.qos === 0 ? this.#zeros : this.#queue).delete(job)
    }
    // Given up, it holds the others back no more.
    if (this.#suspicion.onSettled(job)) queueMicrotask(() => this.#pump())
    if (--this.#pending === 0) for (const resolve of this.#idle.splice(0)) resolve()
  }

  // QoS 0: straight to the socket while that takes it.
  #acceptZero (job: Job, signal: AbortSignal | undefined): void {
    if (!this.#port.isUp) {
      job.settle(new errors.FST_MQTT_OFFLINE(this.#broker))
    } else if (!this.#isOpen) {
      if (this.#admit(job, signal)) this.#zeros.push(job)
    } else {
      if (signal !== undefined) job.listen(signal)
      this.#write(job)
    }
  }

  /** Whether QoS 0 has nothing to wait for. */
  get #isOpen (): boolean {
    const { isUp, isWritable } = this.#port
    return isUp && isWritable && this.#zeros.first === undefined && !this.#suspicion.isAlone
  }

  #accept (job: Job, signal: AbortSignal | undefined): void {
    if (!this.#admit(job, signal)) return
    if (this.#queue.first === undefined && !this.#inFlight.isRepeating && this.#hasRoom) this.#depart(job)
    else this.#queue.push(job)
  }

  /** @returns false if there is no room: the job is settled */
  #admit (job: Job, signal: AbortSignal | undefined): boolean {
    if (!this.#allowance.admit(job, () => older(this.#queue.first, this.#zeros.first))) return false
    this.#deadlines.add(job)
    if (signal !== undefined) job.listen(signal)
    return true
  }

  get #hasRoom (): boolean {
    const { limit, isTrying, isTrialDue } = this.#suspicion
    return this.#port.isUp && this.#port.isWritable && !isTrying && !isTrialDue &&
      this.#inFlight.hasRoom && (this.#port.version === 5 || this.#liveExact < maxExactOn311) &&
      this.#live + this.#foreignInFlight < Math.min(this.#port.limits.receiveMaximum, limit)
  }

  /** Sends what may be sent now: first what was sent before, and what the raw client has. */
  #pump (): void {
    if (this.#suspicion.isTrialDue && this.#live + this.#foreignInFlight === 0 && this.#port.isUp) {
      const job = this.#suspicion.takeTrial()
      if (job !== undefined) this.#depart(job)
    }
    while (this.#hasRoom) {
      const again = this.#inFlight.takeAgain()
      const foreign = again === undefined ? this.#foreign.shift() : undefined
      const job = again ?? (foreign === undefined ? this.#queue.shift() : undefined)
      if (foreign !== undefined) {
        this.#foreignInFlight++
        foreign()
      } else if (job === undefined) {
        break
      } else {
        this.#depart(job)
      }
    }
    while (this.#port.isUp && this.#port.isWritable && !this.#suspicion.isAlone) {
      const job = this.#zeros.shift()
      if (job === undefined) return
      this.#write(job)
    }
  }

  #write (job: Job): void {
    if (!this.#isAccepted(job)) return
    const sequence = this.#send(job, false)
    if (sequence !== undefined) this.#unwritten.add(sequence, job)
  }

  #depart (job: Job): void {
    const isAgain = job.state !== 'queued'
    if (!isAgain && !this.#isAccepted(job)) return
    job.connection = this.#connection
    this.#count(job, 1)
    if (this.#suspicion.limit === 1 || this.#suspicion.isTrying) job.sentAt = performance.now()
    if (!isAgain) this.#inFlight.add(job)
    if (job.state === 'released') {
      this.#port.sendAck(pubrel, job.packetId, 0)
    } else if (this.#send(job, isAgain) === undefined) {
      this.#inFlight.delete(job)
      this.#count(job, -1)
    }
  }

  /** @returns the number of the write; undefined if there is none: the job is settled */
  #send (job: Job, isAgain: boolean): number | undefined {
    try {
      return writePublish(this.#port, job.publish, job.packetId, isAgain)
    } catch (error) {
      job.settle(error as Error)
      return undefined
    }
  }

  /** What was accepted while offline is checked against the broker that it goes to. */
  #isAccepted (job: Job): boolean {
    if (job.isSettled) return false
    if (job.checkedOn === this.#connection) return true
    job.checkedOn = this.#connection
    try {
      assertBrokerAccepts(job.publish, this.#port)
      return true
    } catch (error) {
      job.settle(error as Error)
      return false
    }
  }

  #count ({ publish }: Job, change: 1 | -1): void {
    this.#live += change
    if (publish.qos === 2) this.#liveExact += change
  }

  #answered (job: Job, error: Error | undefined): void {
    this.#inFlight.delete(job)
    this.#count(job, -1)
    job.settle(error)
    if (this.#queue.first !== undefined || this.#inFlight.isRepeating || this.#suspicion.isTrialDue ||
      this.#zeros.first !== undefined || this.#foreign.length > 0) this.#pump()
  }

  /** QoS 1 starts anew; of QoS 2 nobody can say any more whether it has arrived. */
  #loseSession (): void {
    const again: Job[] = []
    for (const job of this.#inFlight.loseSession()) {
      if (job.publish.qos === 2) job.settle(new errors.FST_MQTT_DELIVERY_UNKNOWN(this.#broker))
      if (job.isSettled) continue
      job.state = 'queued'
      if (!job.isQuarantined) again.push(job)
    }
    this.#queue.unshift(again)
  }
}

// MQTT 3.1.1 tells no receive maximum; Mosquitto has 20 for QoS 2, and ends the connection with the 21st.
const maxExactOn311 = 20
