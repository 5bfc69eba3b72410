import type { DynsecClient, DynsecClientFields } from '../../types/dynsec-commands.ts'
import type {
  DynsecAssignOptions, DynsecCallOptions, DynsecClients, DynsecIfExists, DynsecIfMissing, DynsecListOptions,
  DynsecNewClient
} from '../../types/dynsec.ts'
import { assigned, readCall, recordOf } from './call-options.ts'
import { createWhole } from './create-whole.ts'
import type { Executor } from './executor.ts'

/** `dynsec.clients`: types/dynsec.ts describes the members. */
export class Clients implements DynsecClients {
  readonly #executor: Executor

  constructor (executor: Executor) {
    this.#executor = executor
  }

  async create (client: DynsecNewClient, options?: DynsecIfExists): Promise<void> {
    const call = readCall('clients.create', options, ['ifExists'])
    const { roles, groups, ...fields } = recordOf('clients.create', client)
    const { username } = fields
    const prepare = (command: string, given: unknown) => this.#executor.prepare(command, given)
    await createWhole(this.#executor, {
      create: prepare('createClient', fields),
      assign: [
        ...assigned('clients.create', 'rolename', roles)
          .map((role) => prepare('addClientRole', { username, ...role })),
        ...assigned('clients.create', 'groupname', groups)
          .map((group) => prepare('addGroupClient', { username, ...group }))
      ],
      undo: prepare('deleteClient', { username })
    }, call.options)
  }

  async delete (username: string, options?: DynsecIfMissing): Promise<void> {
    const call = readCall('clients.delete', options, ['ifMissing'])
    await this.#executor.runUnlessIgnored('deleteClient', { username }, call.options)
  }

  async get (
    username: string, options: DynsecIfMissing & { ifMissing: 'ignore' }
  ): Promise<DynsecClient | undefined>
  async get (username: string, options?: DynsecIfMissing): Promise<DynsecClient>
  async get (username: string, options?: DynsecIfMissing): Promise<DynsecClient | undefined> {
    const call = readCall('clients.get', options, ['ifMissing'])
    const reply = await this.#executor.runUnlessIgnored('getClient', { username }, call.options)
    return reply?.client
  }

  async list (options: DynsecListOptions & { verbose: true }): Promise<DynsecClient[]>
  async list (options?: DynsecListOptions & { verbose?: false }): Promise<string[]>
  async list (options?: DynsecListOptions & { verbose?: boolean }): Promise<(string | DynsecClient)[]> {
    const call = readCall('clients.list', options, ['verbose', 'count', 'offset'])
    const { clients } = await this.#executor.run('listClients', call.fields, call.options)
    return clients
  }

  async modify (username: string, changes: DynsecClientFields, options?: DynsecCallOptions): Promise<void> {
    const fields = { ...recordOf('clients.modify', changes), username }
    await this.#executor.run('modifyClient', fields, readCall('clients.modify', options).options)
  }

  async enable (username: string, options?: DynsecCallOptions): Promise<void> {
    await this.#executor.run('enableClient', { username }, readCall('clients.enable', options).options)
  }

  async disable (username: string, options?: DynsecCallOptions): Promise<void> {
    await this.#executor.run('disableClient', { username }, readCall('clients.disable', options).options)
  }

  async setPassword (username: string, password: string, options?: DynsecCallOptions): Promise<void> {
    const call = readCall('clients.setPassword', options)
    await this.#executor.run('setClientPassword', { username, password }, call.options)
  }

  async setId (username: string, clientid: string | undefined, options?: DynsecCallOptions): Promise<void> {
    await this.#executor.run('setClientId', { username, clientid }, readCall('clients.setId', options).options)
  }

  async addRole (username: string, rolename: string, options?: DynsecAssignOptions): Promise<void> {
    const { options: callOptions, fields } = readCall('clients.addRole', options, ['ifExists', 'priority'])
    await this.#executor.runUnlessIgnored('addClientRole', { username, rolename, ...fields }, callOptions)
  }

  async removeRole (username: string, rolename: string, options?: DynsecIfMissing): Promise<void> {
    const call = readCall('clients.removeRole', options, ['ifMissing'])
    await this.#executor.runUnlessIgnored('removeClientRole', { username, rolename }, call.options)
  }

  async kick (username: string, options?: DynsecCallOptions): Promise<void> {
    // A modification that changes nothing ends the connections all the same.
    await this.#executor.run('modifyClient', { username }, readCall('clients.kick', options).options)
  }
}
