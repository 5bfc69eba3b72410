import type { DynsecCapabilities } from '../../types/dynsec.ts'
import type { DynsecClient, DynsecGroup } from '../../types/dynsec-commands.ts'
import { errors } from '../errors.ts'
import { describe } from '../values.ts'
import { ofCommand } from './broker-errors.ts'
import type { WireCommand } from './checks.ts'
import { specOf } from './commands.ts'
import type { Self, Session } from './exchange.ts'

/**
 * Refuses what the broker would silently take for something else, and what would cut our own connection.
 *
 * @throws `FST_MQTT_DYNSEC_UNSUPPORTED`, `FST_MQTT_DYNSEC_SELF`
 */
export function assertSafe (sent: WireCommand, { capabilities, self }: Session, allowSelf: boolean): void {
  const problem = unsupported(sent, capabilities)
  if (problem !== undefined) {
    throw ofCommand(new errors.FST_MQTT_DYNSEC_UNSUPPORTED(sent.command, problem), sent)
  }
  const subject = allowSelf ? undefined : ownSubject(sent, self)
  if (subject !== undefined) throw ofCommand(new errors.FST_MQTT_DYNSEC_SELF(sent.command, subject), sent)
}

/** Mosquitto 2.0 ignores the one and takes the other as text: a role would allow more than it says. */
function unsupported (
  sent: WireCommand, { wildcardSubs, substitution }: DynsecCapabilities
): string | undefined {
  if (!wildcardSubs && sent['allowwildcardsubs'] === false) {
    return 'Mosquitto 2.0 allows wildcards always; allowwildcardsubs came with 2.1'
  }
  if (substitution || sent.command === 'removeRoleACL') return undefined
  const acls = Array.isArray(sent['acls']) ? sent['acls'] as Record<string, unknown>[] : [sent]
  const topic = acls.map((acl) => String(acl['topic'])).find((text) => /(?:^|\/)%[uc](?:\/|$)/.test(text))
  if (topic === undefined) return undefined
  return `in ${describe(topic)} Mosquitto 2.0 takes %u and %c as text; 2.1 replaces them`
}

function ownSubject (sent: WireCommand, { username, groups, roles }: Self): string | undefined {
  const own: Record<string, readonly unknown[]> = { username: [username], groupname: groups, rolename: roles }
  const field = specOf(sent.command)?.touches.find((name) => own[name]?.includes(sent[name]))
  return field === undefined ? undefined : `${field} ${describe(sent[field])}`
}

/**
 * Refuses to delete the group of those who have no username, which crashes Mosquitto 2.0.11. One that a
 * command before it makes that group counts as well, and the one of before too: that command may fail.
 *
 * @throws `FST_MQTT_DYNSEC_FORBIDDEN`
 */
export function assertNotAnonymous (commands: readonly WireCommand[], anonymousGroup: string): void {
  const made = commands.filter(({ command }) => command === 'setAnonymousGroup').map((sent) => sent['groupname'])
  const kept = [anonymousGroup, ...made]
  const sent = commands.find(({ command, groupname }) => command === 'deleteGroup' && kept.includes(groupname))
  if (sent === undefined) return
  throw ofCommand(new errors.FST_MQTT_DYNSEC_FORBIDDEN(`deleteGroup ${describe(sent['groupname'])}`,
    'it is the group of those who log in without a username. Make another group that one first'), sent)
}

/**
 * What takes roles from all who have them. Where a tool gave a role within the command that created its
 * holder the plugin does not know of it: deleting the role would leave a dangling pointer. The own account
 * comes last, since it is cut off.
 */
export function detachments (
  rolenames: readonly unknown[], clients: readonly DynsecClient[], groups: readonly DynsecGroup[], self: Self
): WireCommand[] {
  const held = (roles: readonly { rolename: string }[]) =>
    [...new Set(roles.map(({ rolename }) => rolename))].filter((rolename) => rolenames.includes(rolename))
  const isOwn = ({ username, groupname }: WireCommand) =>
    username === self.username || self.groups.includes(String(groupname))
  const all: WireCommand[] = [
    ...clients.flatMap(({ username, roles }) =>
      held(roles).map((rolename) => ({ command: 'removeClientRole', username, rolename }))),
    ...groups.flatMap(({ groupname, roles }) =>
      held(roles).map((rolename) => ({ command: 'removeGroupRole', groupname, rolename })))
  ]
  return [...all.filter((one) => !isOwn(one)), ...all.filter(isOwn)]
}
