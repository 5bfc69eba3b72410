import { Kind } from '@sinclair/typebox'
import type { DynsecStoredAcl } from '../../types/dynsec-commands.ts'
import type { DynsecSettled } from '../../types/dynsec.ts'
import { errors } from '../errors.ts'
import { isRecord } from '../values.ts'
import { readTopic } from './acl-topics.ts'
import { ofCommand, withSubject } from './broker-errors.ts'
import { shapeProblem, type WireCommand } from './checks.ts'
import { specOf } from './commands.ts'

/** Checks the `data` of an answer, and takes the prefix from its topics. */
export function readReply (sent: WireCommand, data: unknown, prefix: string): DynsecSettled<unknown> {
  const schema = specOf(sent.command)?.reply
  // What a newer broker may add to a bare success is nobody's business.
  if (schema === undefined || schema[Kind] === 'Undefined') return { status: 'fulfilled', value: undefined }
  const problem = shapeProblem(data, schema)
  if (problem !== undefined) {
    const error = new errors.FST_MQTT_DYNSEC_REPLY_INVALID(withSubject(sent), problem)
    return { status: 'rejected', reason: ofCommand(error, sent) }
  }
  return { status: 'fulfilled', value: withoutPrefixes(data, prefix) }
}

/** Roles have their entries under `role`, or in the list `roles`. */
function withoutPrefixes (data: unknown, prefix: string): unknown {
  if (!isRecord(data)) return data
  const { role, roles } = data
  return {
    ...data,
    ...isRecord(role) ? { role: readRole(role, prefix) } : {},
    ...Array.isArray(roles)
      ? { roles: roles.map((one: unknown) => isRecord(one) ? readRole(one, prefix) : one) }
      : {}
  }
}

function readRole (role: Record<string, unknown>, prefix: string): Record<string, unknown> {
  const acls = role['acls'] as DynsecStoredAcl[]
  return { ...role, acls: acls.map((acl) => ({ ...acl, ...readTopic(prefix, acl.topic) })) }
}
