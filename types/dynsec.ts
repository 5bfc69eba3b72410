import type {
  DynsecAcl, DynsecAclKey, DynsecAclType, DynsecClient, DynsecClientFields, DynsecCommand, DynsecCommandName,
  DynsecDefaultAclType, DynsecDetails, DynsecGroup, DynsecReply, DynsecRequest, DynsecRole, DynsecRoleFields,
  DynsecTexts
} from './dynsec-commands.ts'
import type { MultimqttOptions } from './options.ts'

/** The option `dynsec`: `true` stands for all defaults. */
export interface DynsecOptions {
  /**
   * A connection of its own, with an administrator's account: the account of the application then needs no
   * rights to `$CONTROL`, and what changes it does not cut the connection that changes it. Default: the
   * plugin's own connection.
   */
  connection?: DynsecConnectionOptions | undefined
  /** Milliseconds for the answer to one message; 25 more for each of its commands. Default 5000. */
  timeout?: number | undefined
  /**
   * How many commands of a batch go into one message at most. The broker does nothing else meanwhile: those
   * after the first are smaller where it took more than 100 ms. Default 20, or 200 with Mosquitto 2.1, which
   * is that much faster.
   */
  chunk?: number | undefined
}

/**
 * Who administers, and where: options of the plugin. Where the broker is not given, by neither `url` nor its
 * parts, it is the plugin's own one, with its TLS. Without a `clientId` it has a random one; that of a group
 * in processes that share a connection, which share this one, too.
 */
export type DynsecConnectionOptions = Pick<
  MultimqttOptions,
  'url' | 'protocol' | 'host' | 'port' | 'path' | 'username' | 'password' | 'credentials' | 'clientId' | 'tls'
>

/** What every call takes. */
export interface DynsecCallOptions {
  /** Overrides the option `timeout`. */
  timeout?: number | undefined
  /** Ends the wait. What was sent may have been executed. */
  signal?: AbortSignal | undefined
  /**
   * Lets a command through that changes the account of this very connection, one of its roles or groups:
   * Mosquitto 2.0 then cuts the connection without an answer (`FST_MQTT_DYNSEC_OUTCOME_UNKNOWN`). Default
   * false.
   */
  allowSelf?: boolean | undefined
}

/** For what creates or adds something. */
export interface DynsecIfExists extends DynsecCallOptions {
  /** `'ignore'`: what is there stays as it is, whatever its fields. Default `'error'`. */
  ifExists?: 'error' | 'ignore' | undefined
}

/** For what deletes or removes something. */
export interface DynsecIfMissing extends DynsecCallOptions {
  /** Default `'error'`. */
  ifMissing?: 'error' | 'ignore' | undefined
}

/** For assigning a role or a group. */
export interface DynsecAssignOptions extends DynsecIfExists {
  /** -100,000 to 100,000; default -1. The highest comes first, and the first entry that matches decides. */
  priority?: number | undefined
}

/** Which part of a list. */
export interface DynsecListOptions extends DynsecCallOptions {
  /** At least 1; default all. */
  count?: number | undefined
  /** In the order of the names. Default 0. */
  offset?: number | undefined
}

/** A role to be assigned: by its name, or with a priority. */
export type DynsecAssignedRole =
  string | readonly [rolename: string, priority: number] |
  { rolename: string, priority?: number | undefined }
/** A group to be joined: by its name, or with a priority. */
export type DynsecAssignedGroup =
  string | readonly [groupname: string, priority: number] |
  { groupname: string, priority?: number | undefined }

/** A client to be created. */
export interface DynsecNewClient extends DynsecClientFields {
  username: string
  /** Assigned once the client is there; if one is refused the client is deleted again. */
  roles?: readonly DynsecAssignedRole[] | undefined
  groups?: readonly DynsecAssignedGroup[] | undefined
}

/** A group to be created. */
export interface DynsecNewGroup extends DynsecTexts {
  groupname: string
  roles?: readonly DynsecAssignedRole[] | undefined
}

/** A role to be created: what `roles.get` gives will do. */
export interface DynsecNewRole extends DynsecRoleFields {
  rolename: string
}

/** What the broker's plugin can do beyond Mosquitto 2.0; all true from 2.1 on. */
export interface DynsecCapabilities {
  /** `details()` */
  readonly details: boolean
  /** `allowwildcardsubs` of roles */
  readonly wildcardSubs: boolean
  /** `%u` and `%c` as levels of a topic */
  readonly substitution: boolean
  /** `connections` of a client */
  readonly connections: boolean
}

/** The whole configuration at one moment. */
export interface DynsecSnapshot {
  readonly defaults: Record<DynsecDefaultAclType, boolean>
  /** The group of those who log in without a username. */
  readonly anonymousGroup: string | undefined
  readonly clients: DynsecClient[]
  readonly groups: DynsecGroup[]
  readonly roles: DynsecRole[]
  /** From Mosquitto 2.1 on. */
  readonly details: DynsecDetails | undefined
}

/** What a command that failed rejects with; `code` tells what happened: docs/errors.md. */
export interface DynsecError extends Error {
  readonly code: string
  readonly statusCode: number
  /** The command that failed, as the wire has it. */
  readonly command?: string
  /** What the broker said. */
  readonly brokerMessage?: string
}

/** What came of one command of a batch. */
export type DynsecSettled<T> =
  | { readonly status: 'fulfilled', readonly value: T }
  | { readonly status: 'rejected', readonly reason: DynsecError }

/** What came of each command of a batch, in order. */
export type DynsecBatchResult<Commands extends readonly { command: DynsecCommandName }[]> = {
  -readonly [K in keyof Commands]: DynsecSettled<DynsecReply<Commands[K]['command']>>
}

/** Clients: who may log in. */
export interface DynsecClients {
  /**
   * Creates a client, and then assigns its roles and groups. If that is refused the client is deleted again.
   * An existing client is left as it is.
   *
   * @throws rejects with `FST_MQTT_DYNSEC_ALREADY_EXISTS`, `FST_MQTT_DYNSEC_NOT_FOUND` for a role or group
   * @example
   * await fastify.mqtt.dynsec.clients.create({ username: 'sensor-7', password, roles: ['sensor'] })
   */
  create (client: DynsecNewClient, options?: DynsecIfExists): Promise<void>
  /** Deletes a client, and ends its connections. */
  delete (username: string, options?: DynsecIfMissing): Promise<void>
  get (username: string, options: DynsecIfMissing & { ifMissing: 'ignore' }): Promise<DynsecClient | undefined>
  get (username: string, options?: DynsecIfMissing): Promise<DynsecClient>
  list (options: DynsecListOptions & { verbose: true }): Promise<DynsecClient[]>
  list (options?: DynsecListOptions & { verbose?: false | undefined }): Promise<string[]>
  /** Changes what is given. Ends the client's connections, also if nothing differs. */
  modify (username: string, changes: DynsecClientFields, options?: DynsecCallOptions): Promise<void>
  enable (username: string, options?: DynsecCallOptions): Promise<void>
  /** Lets nobody log in as this client, and ends its connections. */
  disable (username: string, options?: DynsecCallOptions): Promise<void>
  /** Ends the client's connections. */
  setPassword (username: string, password: string, options?: DynsecCallOptions): Promise<void>
  /** Lets only this client id log in; undefined any. Ends the client's connections. */
  setId (username: string, clientid: string | undefined, options?: DynsecCallOptions): Promise<void>
  /** Ends the client's connections, so that they come back with the new rights. */
  addRole (username: string, rolename: string, options?: DynsecAssignOptions): Promise<void>
  /** Ends the client's connections, also if it does not have the role. */
  removeRole (username: string, rolename: string, options?: DynsecIfMissing): Promise<void>
  /** Ends the client's connections. Their wills are not sent. */
  kick (username: string, options?: DynsecCallOptions): Promise<void>
}

/** Groups: roles that several clients have. */
export interface DynsecGroups {
  /** Creates a group, and then assigns its roles. If that is refused the group is deleted again. */
  create (group: DynsecNewGroup, options?: DynsecIfExists): Promise<void>
  /**
   * Deletes a group, and ends the connections of its members.
   *
   * @throws rejects with `FST_MQTT_DYNSEC_FORBIDDEN` for the anonymous group: it would crash Mosquitto 2.0.11
   */
  delete (groupname: string, options?: DynsecIfMissing): Promise<void>
  get (groupname: string, options: DynsecIfMissing & { ifMissing: 'ignore' }): Promise<DynsecGroup | undefined>
  get (groupname: string, options?: DynsecIfMissing): Promise<DynsecGroup>
  list (options: DynsecListOptions & { verbose: true }): Promise<DynsecGroup[]>
  list (options?: DynsecListOptions & { verbose?: false | undefined }): Promise<string[]>
  /** Changes what is given. Ends the connections of all members. */
  modify (groupname: string, changes: DynsecTexts, options?: DynsecCallOptions): Promise<void>
  /** Ends the client's connections. */
  addClient (groupname: string, username: string, options?: DynsecAssignOptions): Promise<void>
  /** Ends the client's connections. */
  removeClient (groupname: string, username: string, options?: DynsecIfMissing): Promise<void>
  /** Ends the connections of all members. */
  addRole (groupname: string, rolename: string, options?: DynsecAssignOptions): Promise<void>
  /** Ends the connections of all members. */
  removeRole (groupname: string, rolename: string, options?: DynsecIfMissing): Promise<void>
  /** The group of those who log in without a username. */
  getAnonymous (options?: DynsecCallOptions): Promise<string | undefined>
  /** Ends the connections of all who have no username. It cannot be unset. */
  setAnonymous (groupname: string, options?: DynsecCallOptions): Promise<void>
}

/** Roles: what may be published, received and subscribed. */
export interface DynsecRoles {
  /**
   * @throws rejects with `FST_MQTT_DYNSEC_ALREADY_EXISTS`, `FST_MQTT_TOPIC_OUTSIDE_PREFIX` for a topic that
   *   begins with `$` and is not absolute
   * @example
   * await fastify.mqtt.dynsec.roles.create({
   *   rolename: 'sensor',
   *   acls: [{ acltype: 'publishClientSend', topic: 'sensor/+/reading', allow: true }]
   * })
   */
  create (role: DynsecNewRole, options?: DynsecIfExists): Promise<void>
  /** Takes a role from all who have it, and deletes it. Ends the connections of those who had it. */
  delete (rolename: string, options?: DynsecIfMissing): Promise<void>
  get (rolename: string, options: DynsecIfMissing & { ifMissing: 'ignore' }): Promise<DynsecRole | undefined>
  get (rolename: string, options?: DynsecIfMissing): Promise<DynsecRole>
  list (options: DynsecListOptions & { verbose: true }): Promise<DynsecRole[]>
  list (options?: DynsecListOptions & { verbose?: false | undefined }): Promise<string[]>
  /**
   * Changes what is given. Mosquitto 2.0 leaves those who have the role connected, with the subscriptions
   * that they have: to take a right away use `removeAcl`, which ends their connections.
   */
  modify (rolename: string, changes: DynsecRoleFields, options?: DynsecCallOptions): Promise<void>
  /**
   * Adds an entry, and ends the connections of all who have the role. There is one for each type and topic:
   * to change it remove it first.
   */
  addAcl (rolename: string, acl: DynsecAcl, options?: DynsecIfExists): Promise<void>
  /** Removes an entry, and ends the connections of all who have the role. */
  removeAcl (rolename: string, acl: DynsecAclKey, options?: DynsecIfMissing): Promise<void>
}

/** What holds where no entry of a role matches. Topics of `$CONTROL` are never allowed by default. */
export interface DynsecDefaults {
  get (options?: DynsecCallOptions): Promise<Record<DynsecDefaultAclType, boolean>>
  /** Changes what is given. Nobody is disconnected. */
  set (
    defaults: Partial<Record<DynsecDefaultAclType, boolean | undefined>>, options?: DynsecCallOptions
  ): Promise<void>
}

/** Options of `addClient`. */
export interface DynsecAddClientOptions extends DynsecCallOptions {
  clientid?: string | undefined
  roles?: readonly DynsecAssignedRole[] | undefined
}

/** Options of the calls that name a topic. */
export interface DynsecAclOptions extends DynsecCallOptions {
  /** Without the global prefix. A topic that begins with `$` needs it. Default false. */
  absolute?: boolean | undefined
}

/**
 * `fastify.mqtt.dynsec`: administers the dynamic security plugin of the Mosquitto broker. Every call waits
 * for the broker's answer, and settles in bounded time; nothing is sent while offline, and nothing twice.
 *
 * Names of clients, groups and roles have no prefix. Topics have the global prefix, in and out, unless they
 * are `absolute`.
 *
 * Every call rejects with a `DynsecError`.
 * - Nothing was executed: `FST_MQTT_DYNSEC_INVALID`, `FST_MQTT_DYNSEC_SELF`, `FST_MQTT_DYNSEC_UNSUPPORTED`,
 *   `FST_MQTT_OFFLINE`, `FST_MQTT_CLOSED`, `FST_MQTT_DYNSEC_NOT_AUTHORIZED`, `FST_MQTT_DYNSEC_PLUGIN_ABSENT`,
 *   `FST_MQTT_DYNSEC_NO_ANSWER`
 * - The broker refused: `FST_MQTT_DYNSEC_NOT_FOUND`, `FST_MQTT_DYNSEC_ALREADY_EXISTS`,
 *   `FST_MQTT_DYNSEC_FORBIDDEN`, `FST_MQTT_DYNSEC_INTERNAL`, `FST_MQTT_DYNSEC_REJECTED`
 * - It may or may not have been executed: `FST_MQTT_DYNSEC_OUTCOME_UNKNOWN`, `FST_MQTT_DYNSEC_TIMEOUT`,
 *   `FST_MQTT_DYNSEC_ABORTED`
 * - It was executed, but the answer is of no use: `FST_MQTT_DYNSEC_REPLY_LOST`,
 *   `FST_MQTT_DYNSEC_REPLY_INVALID`
 */
export interface Dynsec {
  readonly clients: DynsecClients
  readonly groups: DynsecGroups
  readonly roles: DynsecRoles
  readonly defaults: DynsecDefaults

  /** Counts, and the index of changes. Needs Mosquitto 2.1. */
  details (options?: DynsecCallOptions): Promise<DynsecDetails>
  /** What the broker's plugin can do; connects to it if nothing has been sent so far. */
  capabilities (options?: Omit<DynsecCallOptions, 'allowSelf'>): Promise<DynsecCapabilities>
  /** Everything, read by one message and so of one moment. */
  snapshot (options?: DynsecCallOptions): Promise<DynsecSnapshot>

  /**
   * Any command. With `unchecked` it is sent as it is: without checks, without the prefix, and at your own
   * risk, since some commands crash some brokers.
   *
   * @returns the `data` of the answer
   * @example
   * const { totalCount } = await fastify.mqtt.dynsec.raw('listClients', { count: 1 })
   */
  raw (
    command: string, fields: Readonly<Record<string, unknown>>,
    options: Omit<DynsecCallOptions, 'allowSelf'> & { unchecked: true }
  ): Promise<unknown>
  raw<C extends DynsecCommandName> (
    command: C,
    ...rest: Record<never, never> extends DynsecRequest<C>
      ? [fields?: DynsecRequest<C>, options?: DynsecCallOptions]
      : [fields: DynsecRequest<C>, options?: DynsecCallOptions]
  ): Promise<DynsecReply<C>>

  /**
   * Many commands in few messages. They are executed in order. One that the broker refuses stops none of the
   * others, and nothing is taken back: a batch is no transaction. Up to 20 commands (200 with Mosquitto 2.1,
   * option `chunk`) are one message, and within a message no command of somebody else comes between. When an
   * answer does not come, what was not sent yet is not sent: `FST_MQTT_DYNSEC_NOT_SENT`.
   *
   * @returns what came of each command, in order
   * @throws rejects with `FST_MQTT_DYNSEC_INVALID`, `FST_MQTT_DYNSEC_SELF`, `FST_MQTT_DYNSEC_UNSUPPORTED`,
   *   `FST_MQTT_DYNSEC_FORBIDDEN` if any command is refused by our own checks: then nothing is sent
   * @example
   * const [created, role] = await fastify.mqtt.dynsec.batch([
   *   { command: 'createRole', rolename: 'sensor' },
   *   { command: 'getRole', rolename: 'sensor' }
   * ])
   * if (role.status === 'fulfilled') console.log(role.value.role.acls)
   */
  batch<const Commands extends readonly DynsecCommand[]> (
    commands: Commands, options?: DynsecCallOptions
  ): Promise<DynsecBatchResult<Commands>>

  /** As `clients.create`. A role is a name, or a name and its priority. */
  addClient (username: string, password: string, options?: DynsecAddClientOptions): Promise<void>
  /** As `clients.delete`. */
  deleteClient (username: string, options?: DynsecIfMissing): Promise<void>
  /** As `roles.create`, without entries. */
  createRole (rolename: string, options?: DynsecIfExists): Promise<void>
  /** As `roles.delete`. */
  deleteRole (rolename: string, options?: DynsecIfMissing): Promise<void>
  /**
   * As `roles.addAcl`.
   *
   * @example
   * await fastify.mqtt.dynsec.addRoleAcl('sensor', 'publishClientSend', 'sensor/+/reading', true)
   */
  addRoleAcl (
    rolename: string, acltype: DynsecAclType, topic: string, allow: boolean, priority?: number,
    options?: DynsecAclOptions
  ): Promise<void>
  /** As `roles.removeAcl`. */
  removeRoleAcl (
    rolename: string, acltype: DynsecAclType, topic: string, options?: DynsecAclOptions
  ): Promise<void>
}
