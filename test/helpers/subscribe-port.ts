import type { SubscribeOptions } from '../../lib/session/link.ts'
import type { SubscribePort } from '../../lib/session/subscriptions.ts'

type Call = [
  verb: 'subscribe' | 'unsubscribe', filters: readonly string[], options?: SubscribeOptions,
  identifier?: number | undefined
]

/** A connection that notes the packets, and grants what it is asked for unless the test says otherwise. */
export class FakeSubscribePort implements SubscribePort {
  version: 4 | 5 = 5
  limits = {
    maximumPacketSize: Infinity,
    subscriptionIdentifiersAvailable: true,
    wildcardSubscriptionAvailable: true,
    sharedSubscriptionAvailable: true
  }

  readonly calls: Call[] = []
  onSubscribe = async (filters: readonly string[], options: SubscribeOptions): Promise<readonly number[]> =>
    filters.map(() => options.qos)

  onUnsubscribe = async (): Promise<void> => {}

  async subscribe (
    filters: readonly string[], options: SubscribeOptions, identifier: number | undefined
  ): Promise<readonly number[]> {
    this.calls.push(['subscribe', filters, options, identifier])
    return await this.onSubscribe(filters, options)
  }

  async unsubscribe (filters: readonly string[]): Promise<void> {
    this.calls.push(['unsubscribe', filters])
    await this.onUnsubscribe()
  }

  /** What was sent since the last call, such as `subscribe a b qos 1 rh 1 with an identifier`. */
  take (): string[] {
    return this.calls.splice(0).map(([verb, filters, options, identifier]) => [
      verb,
      ...filters,
      ...options === undefined ? [] : ['qos', options.qos],
      ...options?.retainHandling ? ['rh', options.retainHandling] : [],
      ...identifier === undefined ? [] : ['with an identifier']
    ].join(' '))
  }
}

/** SUBSCRIBE options, those of the standard but for what is given. */
export function subscribeOptions (given: Partial<SubscribeOptions> = {}): SubscribeOptions {
  return { qos: 0, noLocal: false, retainAsPublished: false, retainHandling: 0, ...given }
}
