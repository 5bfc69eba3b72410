import type { SubscribeOptions } from './link.ts'

/** What a broker can do, as its CONNACK says; all of it where that says nothing. */
export interface SubscribeLimits {
  readonly maximumPacketSize: number
  readonly subscriptionIdentifiersAvailable: boolean
  readonly wildcardSubscriptionAvailable: boolean
  readonly sharedSubscriptionAvailable: boolean
}

/** A filter that is to be subscribed. */
export interface SubscribeRequest {
  readonly filter: string
  readonly options: SubscribeOptions
  readonly identifier: number | undefined
}

/** One SUBSCRIBE: its requests have the same options and the same identifier. */
export interface SubscribePacket<R extends SubscribeRequest> {
  readonly requests: readonly R[]
  readonly options: SubscribeOptions
  readonly identifier: number | undefined
}

/** Filters of one packet: some brokers limit their number. */
export const maxFilters = 100

/** The first so many of what waits. */
export function firstOf<T> (all: Iterable<T>, count: number): T[] {
  const first: T[] = []
  for (const one of all) {
    first.push(one)
    if (first.length === count) break
  }
  return first
}

/** Requests in packets that the broker accepts. */
export function subscribePackets<R extends SubscribeRequest> (
  requests: readonly R[], maximumPacketSize: number
): SubscribePacket<R>[] {
  const groups = new Map<string, { first: R, members: R[] }>()
  for (const request of requests) {
    const { qos, noLocal, retainAsPublished, retainHandling } = request.options
    const key = [qos, noLocal, retainAsPublished, retainHandling, request.identifier].join()
    const group = groups.get(key) ?? { first: request, members: [] }
    group.members.push(request)
    groups.set(key, group)
  }
  return [...groups.values()].flatMap(({ first: { options, identifier }, members }) =>
    chunks(members, maximumPacketSize).map((chunk) => ({ requests: chunk, options, identifier })))
}

/** What goes into one packet together. A filter that is too large for any has one of its own. */
export function chunks<T extends { readonly filter: string }> (
  all: readonly T[], maximumPacketSize: number
): T[][] {
  const packets: T[][] = []
  let size = 0
  for (const one of all) {
    const last = packets.at(-1)
    size += filterSize(one.filter)
    if (last === undefined || last.length === maxFilters || size > maximumPacketSize) {
      packets.push([one])
      size = packetSize(one.filter)
    } else {
      last.push(one)
    }
  }
  return packets
}

/** Why a filter cannot be subscribed on this connection at all; undefined if the broker can be asked. */
export function subscribeProblem (
  { filter, options }: Omit<SubscribeRequest, 'identifier'>, version: 4 | 5, limits: SubscribeLimits
): string | undefined {
  if (version === 4 && needsMqtt5(options)) {
    return 'noLocal, retainAsPublished and retainHandling need MQTT 5, this connection speaks MQTT 3.1.1'
  }
  if (packetSize(filter) > limits.maximumPacketSize) return 'it is larger than the packets that the broker accepts'
  if (!limits.sharedSubscriptionAvailable && filter.startsWith('$share/')) {
    return 'the broker has no shared subscriptions'
  }
  if (!limits.wildcardSubscriptionAvailable && /[+#]/.test(filter)) return 'the broker has no wildcard subscriptions'
  return undefined
}

/** Whether a 3.1.1 connection cannot do what is asked. */
export function needsMqtt5 (options: Omit<SubscribeOptions, 'qos'>): boolean {
  return options.noLocal || options.retainAsPublished || options.retainHandling !== 0
}

/** The most that a packet with one filter takes: header, packet identifier, properties, the filter. */
function packetSize (filter: string): number {
  return 5 + 2 + (1 + identifierSize) + filterSize(filter)
}

/** A subscription identifier: the property's own, and a variable byte integer. */
const identifierSize = 1 + 4

/** Length, text, options. */
function filterSize (filter: string): number {
  return 2 + Buffer.byteLength(filter) + 1
}

/** The text of a reason code of SUBACK [MQTT 5 §3.9.3]; 0x80 is all that 3.1.1 has. */
export function reasonOf (code: number | undefined): string {
  return reasons[code ?? 0x80] ?? 'refused'
}

const reasons: Readonly<Record<number, string>> = {
  0x80: 'refused without a reason',
  0x83: 'implementation specific error',
  0x87: 'not authorized',
  0x8f: 'topic filter invalid',
  0x91: 'packet identifier in use',
  0x97: 'quota exceeded',
  0x9e: 'shared subscriptions not supported',
  0xa1: 'subscription identifiers not supported',
  0xa2: 'wildcard subscriptions not supported'
}
