import { errors } from '../errors.ts'

/** What is wrong with a packet, as MQTT 5 counts it [MQTT 5 §2.4, §4.13]. */
export const faultCode = { malformed: 0x81, protocolError: 0x82, topicAlias: 0x94, tooLarge: 0x95 } as const

/** Something came in that breaks the protocol. `reasonCode` is what a DISCONNECT would say about it. */
export type MalformedError = InstanceType<typeof errors.FST_MQTT_MALFORMED> & { readonly reasonCode: number }

/** The error for a packet, from half a sentence about it. */
export function malformed (problem: string, reasonCode: number = faultCode.malformed): MalformedError {
  return Object.assign(new errors.FST_MQTT_MALFORMED(problem), { reasonCode })
}
