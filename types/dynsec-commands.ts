// The commands of Mosquitto's dynamic security plugin as the wire has them. lib/dynsec/commands.ts holds a
// schema for each, and proves that these types say the same.

/** What an entry of a role allows or denies. */
export type DynsecAclType =
  'publishClientSend' | 'publishClientReceive' | 'subscribeLiteral' | 'subscribePattern' |
  'unsubscribeLiteral' | 'unsubscribePattern'

/** What the defaults decide about, where no entry of a role matches. */
export type DynsecDefaultAclType = 'publishClientSend' | 'publishClientReceive' | 'subscribe' | 'unsubscribe'

/** Which topic: a topic filter, to which the global prefix is added unless it is absolute. */
export interface DynsecAclTopic {
  topic: string
  /** Without the global prefix. A topic that begins with `$` needs it. Default false. */
  absolute?: boolean | undefined
}

/** Names an entry of a role: there is one for each type and topic. */
export interface DynsecAclKey extends DynsecAclTopic {
  acltype: DynsecAclType
}

/** An entry of a role. */
export interface DynsecAcl extends DynsecAclKey {
  /** The broker's own default would be false, without a word: so it has to be said. */
  allow: boolean
  /** The first entry that matches decides, the highest priority first. -100,000 to 100,000, default 0. */
  priority?: number | undefined
}

/** An entry of a role as it is read: it can be written back as it is. */
export interface DynsecStoredAcl extends DynsecAcl {
  priority: number
}

/** A default, for what no entry of a role matches. */
export interface DynsecDefaultAcl {
  acltype: DynsecDefaultAclType
  allow: boolean
}

/** A role that a client or a group has. Without a priority it is -1. */
export interface DynsecRoleRef {
  rolename: string
  priority?: number
}

/** A group that a client is in. Without a priority it is -1. */
export interface DynsecGroupRef {
  groupname: string
  priority?: number
}

/** A client as it is read. Passwords never are. */
export interface DynsecClient {
  username: string
  /** The only client id that may log in with this username. */
  clientid?: string
  textname?: string
  textdescription?: string
  /** Only there if it is true. */
  disabled?: boolean
  roles: DynsecRoleRef[]
  groups: DynsecGroupRef[]
  /** Who is connected now: from Mosquitto 2.1 on. */
  connections?: { address?: string }[]
}

/** A group as it is read. */
export interface DynsecGroup {
  groupname: string
  textname?: string
  textdescription?: string
  clients: { username: string }[]
  roles: DynsecRoleRef[]
}

/** A role as it is read. */
export interface DynsecRole {
  rolename: string
  textname?: string
  textdescription?: string
  /** From Mosquitto 2.1 on. False: no filter with a wildcard can be subscribed by this role. */
  allowwildcardsubs?: boolean
  acls: DynsecStoredAcl[]
}

/** Of Mosquitto 2.1. */
export interface DynsecDetails {
  clientCount: number
  groupCount: number
  roleCount: number
  /** Grows with every change. */
  changeIndex: number
}

/** Names and descriptions for people. */
export interface DynsecTexts {
  textname?: string | undefined
  textdescription?: string | undefined
}

/** What can be set of a client beside its name. */
export interface DynsecClientFields extends DynsecTexts {
  /** Without one nobody can log in. */
  password?: string | undefined
  /** The only client id that may log in; `''` for any. */
  clientid?: string | undefined
}

/** What can be set of a role beside its name. */
export interface DynsecRoleFields extends DynsecTexts {
  /** Needs Mosquitto 2.1. */
  allowwildcardsubs?: boolean | undefined
  /** All of them: those that are not given are gone. */
  acls?: readonly DynsecAcl[] | undefined
}

/** Which part of a list. */
export interface DynsecPage {
  verbose?: boolean | undefined
  /** At least 1; default all. */
  count?: number | undefined
  offset?: number | undefined
}

interface ClientName { username: string }
interface GroupName { groupname: string }
interface RoleName { rolename: string }
interface Priority { priority?: number | undefined }
type None = Record<never, never>

/**
 * Every command, with the fields that it takes and what it answers. Inline `roles` and `groups` are left out
 * on purpose: they corrupt the memory of the plugin (eclipse-mosquitto#2660).
 */
export interface DynsecCommands {
  getDetails: { request: None, reply: DynsecDetails }
  setDefaultACLAccess: { request: { acls: readonly DynsecDefaultAcl[] }, reply: undefined }
  getDefaultACLAccess: { request: None, reply: { acls: DynsecDefaultAcl[] } }

  createClient: { request: ClientName & DynsecClientFields, reply: undefined }
  deleteClient: { request: ClientName, reply: undefined }
  enableClient: { request: ClientName, reply: undefined }
  disableClient: { request: ClientName, reply: undefined }
  getClient: { request: ClientName, reply: { client: DynsecClient } }
  listClients: { request: DynsecPage, reply: { totalCount: number, clients: (string | DynsecClient)[] } }
  modifyClient: { request: ClientName & DynsecClientFields, reply: undefined }
  setClientId: { request: ClientName & { clientid?: string | undefined }, reply: undefined }
  setClientPassword: { request: ClientName & { password: string }, reply: undefined }
  addClientRole: { request: ClientName & RoleName & Priority, reply: undefined }
  removeClientRole: { request: ClientName & RoleName, reply: undefined }

  createGroup: { request: GroupName & DynsecTexts, reply: undefined }
  deleteGroup: { request: GroupName, reply: undefined }
  getGroup: { request: GroupName, reply: { group: DynsecGroup } }
  listGroups: { request: DynsecPage, reply: { totalCount: number, groups: (string | DynsecGroup)[] } }
  modifyGroup: { request: GroupName & DynsecTexts, reply: undefined }
  addGroupClient: { request: GroupName & ClientName & Priority, reply: undefined }
  removeGroupClient: { request: GroupName & ClientName, reply: undefined }
  addGroupRole: { request: GroupName & RoleName & Priority, reply: undefined }
  removeGroupRole: { request: GroupName & RoleName, reply: undefined }
  setAnonymousGroup: { request: GroupName, reply: undefined }
  /** The name is `''` if there is none. */
  getAnonymousGroup: { request: None, reply: { group: { groupname: string } } }

  createRole: { request: RoleName & DynsecRoleFields, reply: undefined }
  deleteRole: { request: RoleName, reply: undefined }
  getRole: { request: RoleName, reply: { role: DynsecRole } }
  listRoles: { request: DynsecPage, reply: { totalCount: number, roles: (string | DynsecRole)[] } }
  modifyRole: { request: RoleName & DynsecRoleFields, reply: undefined }
  addRoleACL: { request: RoleName & DynsecAcl, reply: undefined }
  removeRoleACL: { request: RoleName & DynsecAclKey, reply: undefined }
}

/** The name of a command. */
export type DynsecCommandName = keyof DynsecCommands
/** The fields that a command takes. */
export type DynsecRequest<C extends DynsecCommandName> = DynsecCommands[C]['request']
/** What a command answers; undefined if nothing but success. */
export type DynsecReply<C extends DynsecCommandName> = DynsecCommands[C]['reply']

/** A command of a batch: its name among its fields. */
export type DynsecCommand = { [C in DynsecCommandName]: { command: C } & DynsecRequest<C> }[DynsecCommandName]
