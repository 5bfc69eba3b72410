import type { DynsecAcl, DynsecAclKey, DynsecRole, DynsecRoleFields } from '../../types/dynsec-commands.ts'
import type {
  DynsecCallOptions, DynsecIfExists, DynsecIfMissing, DynsecListOptions, DynsecNewRole, DynsecRoles
} from '../../types/dynsec.ts'
import { readCall, recordOf } from './call-options.ts'
import type { Executor } from './executor.ts'

/** `dynsec.roles`: types/dynsec.ts describes the members. */
export class Roles implements DynsecRoles {
  readonly #executor: Executor

  constructor (executor: Executor) {
    this.#executor = executor
  }

  async create (role: DynsecNewRole, options?: DynsecIfExists): Promise<void> {
    const call = readCall('roles.create', options, ['ifExists'])
    await this.#executor.runUnlessIgnored('createRole', recordOf('roles.create', role), call.options)
  }

  async delete (rolename: string, options?: DynsecIfMissing): Promise<void> {
    const call = readCall('roles.delete', options, ['ifMissing'])
    await this.#executor.runUnlessIgnored('deleteRole', { rolename }, call.options)
  }

  async get (
    rolename: string, options: DynsecIfMissing & { ifMissing: 'ignore' }
  ): Promise<DynsecRole | undefined>
  async get (rolename: string, options?: DynsecIfMissing): Promise<DynsecRole>
  async get (rolename: string, options?: DynsecIfMissing): Promise<DynsecRole | undefined> {
    const call = readCall('roles.get', options, ['ifMissing'])
    const reply = await this.#executor.runUnlessIgnored('getRole', { rolename }, call.options)
    return reply?.role
  }

  async list (options: DynsecListOptions & { verbose: true }): Promise<DynsecRole[]>
  async list (options?: DynsecListOptions & { verbose?: false }): Promise<string[]>
  async list (options?: DynsecListOptions & { verbose?: boolean }): Promise<(string | DynsecRole)[]> {
    const call = readCall('roles.list', options, ['verbose', 'count', 'offset'])
    const { roles } = await this.#executor.run('listRoles', call.fields, call.options)
    return roles
  }

  async modify (rolename: string, changes: DynsecRoleFields, options?: DynsecCallOptions): Promise<void> {
    const fields = { ...recordOf('roles.modify', changes), rolename }
    await this.#executor.run('modifyRole', fields, readCall('roles.modify', options).options)
  }

  async addAcl (rolename: string, acl: DynsecAcl, options?: DynsecIfExists): Promise<void> {
    const call = readCall('roles.addAcl', options, ['ifExists'])
    await this.#executor.runUnlessIgnored('addRoleACL', { ...recordOf('roles.addAcl', acl), rolename }, call.options)
  }

  async removeAcl (rolename: string, acl: DynsecAclKey, options?: DynsecIfMissing): Promise<void> {
    const call = readCall('roles.removeAcl', options, ['ifMissing'])
    // A whole entry names itself, too.
    const { acltype, topic, absolute } = recordOf('roles.removeAcl', acl)
    await this.#executor.runUnlessIgnored('removeRoleACL', { rolename, acltype, topic, absolute }, call.options)
  }
}
