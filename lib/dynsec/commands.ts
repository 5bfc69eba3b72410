import { Type, type Static, type TObject, type TSchema, type TUndefined } from '@sinclair/typebox'
import type { DynsecCommandName, DynsecCommands } from '../../types/dynsec-commands.ts'
import {
  acls, ClientAnswer, defaultAcls, defaultAclsAnswer, DetailsAnswer, fields, GroupAnswer, RoleAnswer,
  type Equal, type Flat
} from './schemas.ts'

/** One command of the plugin. */
export interface CommandSpec {
  /** What it does, for docs/dynsec.md. */
  readonly does: string
  readonly request: TObject
  /** The `data` of the answer. */
  readonly reply: TSchema
  /** Whose connections the broker ends, of those that the request names. */
  readonly touches: readonly ('username' | 'groupname' | 'rolename')[]
}

const { username, groupname, rolename, priority, texts, page, aclKey, allow, allowwildcardsubs } = fields

/**
 * Every command of the plugin, of Mosquitto 2.0 and 2.1: the one place that says what it takes and answers.
 * `touches` follows what was measured, failing commands and such as change nothing included; `roles` and
 * `groups` within a command are left out, since they corrupt the memory of the plugin
 * (eclipse-mosquitto#2660).
 */
export const commands = {
  getDetails: read('counts, and the index of changes; from Mosquitto 2.1 on', {}, DetailsAnswer),
  setDefaultACLAccess: write('sets what holds where no entry of a role matches', { acls: defaultAcls }),
  getDefaultACLAccess: read('what holds where no entry of a role matches', {}, Type.Object({ acls: defaultAclsAnswer })),

  createClient: write('creates a client, without roles and groups', {
    username, password: fields.optionalPassword, clientid: fields.clientid, ...texts
  }),
  deleteClient: write('deletes a client', { username }, ['username']),
  enableClient: write('lets a client log in again', { username }),
  disableClient: write('lets a client log in no more', { username }, ['username']),
  getClient: read('one client', { username }, Type.Object({ client: ClientAnswer })),
  listClients: read('the names of all clients, or with `verbose` the clients', page, Type.Object({
    totalCount: Type.Number(), clients: Type.Array(Type.Union([Type.String(), ClientAnswer]))
  })),
  modifyClient: write('changes what is given; nothing given just ends the connections', {
    username, password: fields.optionalPassword, clientid: fields.clientid, ...texts
  }, ['username']),
  setClientId: write('lets only this client id log in; none or an empty one: any', {
    username, clientid: fields.clientid
  }, ['username']),
  setClientPassword: write('sets the password', { username, password: fields.password }, ['username']),
  addClientRole: write('gives a client a role', { username, rolename, priority }, ['username']),
  removeClientRole: write('takes a role from a client', { username, rolename }, ['username']),

  createGroup: write('creates a group, without roles', { groupname, ...texts }),
  deleteGroup: write('deletes a group', { groupname }, ['groupname']),
  getGroup: read('one group', { groupname }, Type.Object({ group: GroupAnswer })),
  listGroups: read('the names of all groups, or with `verbose` the groups', page, Type.Object({
    totalCount: Type.Number(), groups: Type.Array(Type.Union([Type.String(), GroupAnswer]))
  })),
  modifyGroup: write('changes what is given', { groupname, ...texts }, ['groupname']),
  addGroupClient: write('puts a client into a group', { groupname, username, priority }, ['username']),
  removeGroupClient: write('takes a client out of a group', { groupname, username }, ['username']),
  addGroupRole: write('gives a group a role', { groupname, rolename, priority }, ['groupname']),
  removeGroupRole: write('takes a role from a group', { groupname, rolename }, ['groupname']),
  setAnonymousGroup: write('makes a group that of those who have no username', { groupname }),
  getAnonymousGroup: read('the group of those who have no username', {},
    Type.Object({ group: Type.Object({ groupname: Type.String() }) })),

  createRole: write('creates a role with its entries', { rolename, allowwildcardsubs, acls, ...texts }),
  deleteRole: write('deletes a role', { rolename }, ['rolename']),
  getRole: read('one role', { rolename }, Type.Object({ role: RoleAnswer })),
  listRoles: read('the names of all roles, or with `verbose` the roles', page, Type.Object({
    totalCount: Type.Number(), roles: Type.Array(Type.Union([Type.String(), RoleAnswer]))
  })),
  modifyRole: write('changes what is given; `acls` are all of its entries', {
    rolename, allowwildcardsubs, acls, ...texts
  }, ['rolename']),
  addRoleACL: write('adds an entry to a role', { rolename, ...aclKey, allow, priority }, ['rolename']),
  removeRoleACL: write('removes an entry from a role', { rolename, ...aclKey }, ['rolename'])
} satisfies Record<DynsecCommandName, CommandSpec>

function read<Fields extends TObject['properties'], Reply extends TSchema> (
  does: string, properties: Fields, reply: Reply
) {
  return { does, request: Type.Object(properties, { additionalProperties: false }), reply, touches: [] }
}

function write<Fields extends TObject['properties']> (
  does: string, properties: Fields, touches: CommandSpec['touches'] = []
) {
  const reply: TUndefined = Type.Undefined()
  return { does, request: Type.Object(properties, { additionalProperties: false }), reply, touches }
}

/** The map in types/ is written by hand, for its documentation: this line proves that both say the same. */
true satisfies Equal<Wire, { [C in DynsecCommandName]: Plain<DynsecCommands[C]> }>

type Wire = { [C in DynsecCommandName]: Plain<{
  request: Static<typeof commands[C]['request']>
  reply: Static<typeof commands[C]['reply']>
}> }
interface Plain<T extends { request: unknown, reply: unknown }> {
  request: Flat<T['request']>
  reply: T['reply']
}

/** The specification of a command that is known by that name. */
export function specOf (command: string): CommandSpec | undefined {
  return Object.hasOwn(commands, command) ? commands[command as DynsecCommandName] : undefined
}
