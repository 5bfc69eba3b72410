import type {
  DynsecAcl, DynsecAclType, DynsecClient, DynsecCommand, DynsecCommandName, DynsecDefaultAcl,
  DynsecDefaultAclType, DynsecDetails, DynsecGroup, DynsecReply, DynsecRequest, DynsecRole
} from '../../types/dynsec-commands.ts'
import type {
  Dynsec, DynsecAclOptions, DynsecAddClientOptions, DynsecBatchResult, DynsecCallOptions, DynsecCapabilities,
  DynsecClients, DynsecDefaults, DynsecGroups, DynsecIfExists, DynsecIfMissing, DynsecRoles, DynsecSnapshot
} from '../../types/dynsec.ts'
import { errors } from '../errors.ts'
import { kindOf } from '../values.ts'
import { readCall, recordOf } from './call-options.ts'
import { Clients } from './clients.ts'
import type { Exchange } from './exchange.ts'
import { Executor } from './executor.ts'
import { Groups } from './groups.ts'
import { Roles } from './roles.ts'

/** What the client of the plugin is made from. */
export interface DynsecSettings {
  /** The broker, for messages: protocol, host and port. */
  readonly broker: string
  /** The global prefix of the application's topics, whoever the link belongs to. */
  readonly prefix: string
  /** Option `timeout`. */
  readonly timeoutMs: number
  /** Option `chunk`. */
  readonly chunk: number | undefined
}

/** `fastify.mqtt.dynsec` on an exchange, which may be with another process. */
export class DynsecApi implements Dynsec {
  readonly clients: DynsecClients
  readonly groups: DynsecGroups
  readonly roles: DynsecRoles
  readonly defaults: DynsecDefaults
  readonly #executor: Executor

  constructor (exchange: Exchange, settings: DynsecSettings) {
    this.#executor = new Executor(exchange, settings)
    this.clients = new Clients(this.#executor)
    this.groups = new Groups(this.#executor)
    this.roles = new Roles(this.#executor)
    this.defaults = new Defaults(this.#executor)
  }

  async details (options?: DynsecCallOptions): Promise<DynsecDetails> {
    return await this.#executor.run('getDetails', {}, readCall('details', options).options)
  }

  async capabilities (options?: DynsecCallOptions): Promise<DynsecCapabilities> {
    const { capabilities } = await this.#executor.session(readCall('capabilities', options).options)
    return { ...capabilities }
  }

  async snapshot (options?: DynsecCallOptions): Promise<DynsecSnapshot> {
    const call = readCall('snapshot', options)
    const { capabilities } = await this.#executor.session(call.options)
    const [defaults, { group }, { clients }, { groups }, { roles }, details] = await this.#executor.read([
      'getDefaultACLAccess', 'getAnonymousGroup', 'listClients', 'listGroups', 'listRoles',
      ...capabilities.details ? ['getDetails'] as const : []
    ], { verbose: true }, call.options)
    return {
      defaults: defaultsIn(defaults.acls),
      anonymousGroup: group.groupname === '' ? undefined : group.groupname,
      clients: clients as DynsecClient[],
      groups: groups as DynsecGroup[],
      roles: roles as DynsecRole[],
      details
    }
  }

  async raw (
    command: string, fields: Readonly<Record<string, unknown>>,
    options: DynsecCallOptions & { unchecked: true }
  ): Promise<unknown>
  async raw<C extends DynsecCommandName> (
    command: C, fields?: DynsecRequest<C>, options?: DynsecCallOptions
  ): Promise<DynsecReply<C>>
  async raw (command: string, fields: unknown = {}, options?: unknown): Promise<unknown> {
    const call = readCall('raw', options, ['unchecked'])
    if ((options as { unchecked?: boolean } | undefined)?.unchecked === true) {
      return await this.#executor.runUnchecked({ ...recordOf('raw', fields as object), command }, call.options)
    }
    return await this.#executor.runOne(this.#executor.prepare(command, fields), call.options)
  }

  async batch<const Commands extends readonly DynsecCommand[]> (
    commands: Commands, options?: DynsecCallOptions
  ): Promise<DynsecBatchResult<Commands>> {
    const call = readCall('batch', options)
    if (!Array.isArray(commands)) {
      throw new errors.FST_MQTT_DYNSEC_INVALID('batch', `it takes a list of commands, not ${kindOf(commands)}`)
    }
    const prepared = commands.map((one: DynsecCommand, index) => {
      const { command, ...fields } = recordOf(`batch[${index}]`, one)
      return this.#executor.prepare(command, fields, ` (batch[${index}])`)
    })
    return await this.#executor.runAll(prepared, call.options) as DynsecBatchResult<Commands>
  }

  async addClient (username: string, password: string, options: DynsecAddClientOptions = {}): Promise<void> {
    const { clientid, roles, ...others } = recordOf('addClient', options)
    await this.clients.create({ username, password, clientid, roles }, others)
  }

  async deleteClient (username: string, options?: DynsecIfMissing): Promise<void> {
    await this.clients.delete(username, options)
  }

  async createRole (rolename: string, options?: DynsecIfExists): Promise<void> {
    await this.roles.create({ rolename }, options)
  }

  async deleteRole (rolename: string, options?: DynsecIfMissing): Promise<void> {
    await this.roles.delete(rolename, options)
  }

  async addRoleAcl (
    rolename: string, acltype: DynsecAclType, topic: string, allow: boolean, priority?: number,
    options: DynsecAclOptions = {}
  ): Promise<void> {
    const { absolute, ...others } = recordOf('addRoleAcl', options)
    const acl: DynsecAcl = { acltype, topic, allow, priority, absolute }
    await this.roles.addAcl(rolename, acl, others)
  }

  async removeRoleAcl (
    rolename: string, acltype: DynsecAclType, topic: string, options: DynsecAclOptions = {}
  ): Promise<void> {
    const { absolute, ...others } = recordOf('removeRoleAcl', options)
    await this.roles.removeAcl(rolename, { acltype, topic, absolute }, others)
  }
}

class Defaults implements DynsecDefaults {
  readonly #executor: Executor

  constructor (executor: Executor) {
    this.#executor = executor
  }

  async get (options?: DynsecCallOptions): Promise<Record<DynsecDefaultAclType, boolean>> {
    const { acls } = await this.#executor.run('getDefaultACLAccess', {}, readCall('defaults.get', options).options)
    return defaultsIn(acls)
  }

  async set (
    defaults: Partial<Record<DynsecDefaultAclType, boolean | undefined>>, options?: DynsecCallOptions
  ): Promise<void> {
    const acls = Object.entries(recordOf('defaults.set', defaults)).filter(([, allow]) => allow !== undefined)
      .map(([acltype, allow]) => ({ acltype, allow }) as DynsecDefaultAcl)
    await this.#executor.run('setDefaultACLAccess', { acls }, readCall('defaults.set', options).options)
  }
}

type DefaultAccess = Record<DynsecDefaultAclType, boolean>

function defaultsIn (acls: readonly DynsecDefaultAcl[]): DefaultAccess {
  return Object.fromEntries(acls.map(({ acltype, allow }) => [acltype, allow])) as DefaultAccess
}
