import type { DynsecGroup, DynsecTexts } from '../../types/dynsec-commands.ts'
import type {
  DynsecAssignOptions, DynsecCallOptions, DynsecGroups, DynsecIfExists, DynsecIfMissing, DynsecListOptions,
  DynsecNewGroup
} from '../../types/dynsec.ts'
import { assigned, readCall, recordOf } from './call-options.ts'
import { createWhole } from './create-whole.ts'
import type { Executor } from './executor.ts'

/** `dynsec.groups`: types/dynsec.ts describes the members. */
export class Groups implements DynsecGroups {
  readonly #executor: Executor

  constructor (executor: Executor) {
    this.#executor = executor
  }

  async create (group: DynsecNewGroup, options?: DynsecIfExists): Promise<void> {
    const call = readCall('groups.create', options, ['ifExists'])
    const { roles, ...fields } = recordOf('groups.create', group)
    const { groupname } = fields
    const prepare = (command: string, given: unknown) => this.#executor.prepare(command, given)
    await createWhole(this.#executor, {
      create: prepare('createGroup', fields),
      assign: assigned('groups.create', 'rolename', roles)
        .map((role) => prepare('addGroupRole', { groupname, ...role })),
      undo: prepare('deleteGroup', { groupname })
    }, call.options)
  }

  async delete (groupname: string, options?: DynsecIfMissing): Promise<void> {
    const call = readCall('groups.delete', options, ['ifMissing'])
    await this.#executor.runUnlessIgnored('deleteGroup', { groupname }, call.options)
  }

  async get (
    groupname: string, options: DynsecIfMissing & { ifMissing: 'ignore' }
  ): Promise<DynsecGroup | undefined>
  async get (groupname: string, options?: DynsecIfMissing): Promise<DynsecGroup>
  async get (groupname: string, options?: DynsecIfMissing): Promise<DynsecGroup | undefined> {
    const call = readCall('groups.get', options, ['ifMissing'])
    const reply = await this.#executor.runUnlessIgnored('getGroup', { groupname }, call.options)
    return reply?.group
  }

  async list (options: DynsecListOptions & { verbose: true }): Promise<DynsecGroup[]>
  async list (options?: DynsecListOptions & { verbose?: false }): Promise<string[]>
  async list (options?: DynsecListOptions & { verbose?: boolean }): Promise<(string | DynsecGroup)[]> {
    const call = readCall('groups.list', options, ['verbose', 'count', 'offset'])
    const { groups } = await this.#executor.run('listGroups', call.fields, call.options)
    return groups
  }

  async modify (groupname: string, changes: DynsecTexts, options?: DynsecCallOptions): Promise<void> {
    const fields = { ...recordOf('groups.modify', changes), groupname }
    await this.#executor.run('modifyGroup', fields, readCall('groups.modify', options).options)
  }

  async addClient (groupname: string, username: string, options?: DynsecAssignOptions): Promise<void> {
    const call = readCall('groups.addClient', options, ['ifExists', 'priority'])
    await this.#executor.runUnlessIgnored('addGroupClient', { groupname, username, ...call.fields }, call.options)
  }

  async removeClient (groupname: string, username: string, options?: DynsecIfMissing): Promise<void> {
    const call = readCall('groups.removeClient', options, ['ifMissing'])
    await this.#executor.runUnlessIgnored('removeGroupClient', { groupname, username }, call.options)
  }

  async addRole (groupname: string, rolename: string, options?: DynsecAssignOptions): Promise<void> {
    const call = readCall('groups.addRole', options, ['ifExists', 'priority'])
    await this.#executor.runUnlessIgnored('addGroupRole', { groupname, rolename, ...call.fields }, call.options)
  }

  async removeRole (groupname: string, rolename: string, options?: DynsecIfMissing): Promise<void> {
    const call = readCall('groups.removeRole', options, ['ifMissing'])
    await this.#executor.runUnlessIgnored('removeGroupRole', { groupname, rolename }, call.options)
  }

  async getAnonymous (options?: DynsecCallOptions): Promise<string | undefined> {
    const { group } = await this.#executor.run('getAnonymousGroup', {}, readCall('groups.getAnonymous', options).options)
    return group.groupname === '' ? undefined : group.groupname
  }

  async setAnonymous (groupname: string, options?: DynsecCallOptions): Promise<void> {
    const call = readCall('groups.setAnonymous', options)
    await this.#executor.run('setAnonymousGroup', { groupname }, call.options)
  }
}
