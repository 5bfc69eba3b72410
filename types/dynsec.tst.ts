import { describe, expect, test } from 'tstyche'
import type {
  Dynsec, DynsecClient, DynsecDetails, DynsecError, DynsecGroup, DynsecRole, DynsecSettled
} from './index.ts'

declare const dynsec: Dynsec

describe('reading', () => {
  test('a list has names, or with verbose the whole', async () => {
    expect(await dynsec.clients.list()).type.toBe<string[]>()
    expect(await dynsec.clients.list({ count: 5 })).type.toBe<string[]>()
    expect(await dynsec.clients.list({ verbose: true })).type.toBe<DynsecClient[]>()
    expect(await dynsec.groups.list({ verbose: true })).type.toBe<DynsecGroup[]>()
    expect(await dynsec.roles.list({ verbose: true, offset: 5 })).type.toBe<DynsecRole[]>()
  })

  test('what may be missing is undefined only if that is asked for', async () => {
    expect(await dynsec.clients.get('u')).type.toBe<DynsecClient>()
    expect(await dynsec.clients.get('u', { timeout: 5 })).type.toBe<DynsecClient>()
    expect(await dynsec.clients.get('u', { ifMissing: 'ignore' })).type.toBe<DynsecClient | undefined>()
    expect(await dynsec.roles.get('r', { ifMissing: 'ignore' })).type.toBe<DynsecRole | undefined>()
  })
})

describe('writing', () => {
  test('an entry has to say whether it allows', () => {
    const acl = { acltype: 'publishClientSend', topic: 'a' } as const
    expect(dynsec.roles.addAcl).type.toBeCallableWith('r', { ...acl, allow: true })
    expect(dynsec.roles.addAcl).type.not.toBeCallableWith('r', acl)
    expect(dynsec.roles.addAcl).type.not.toBeCallableWith('r', { ...acl, acltype: 'publish', allow: true })
    expect(dynsec.roles.removeAcl).type.toBeCallableWith('r', acl)
  })

  test('what was read can be written', async () => {
    expect(dynsec.roles.create).type.toBeCallableWith(await dynsec.roles.get('r'))
  })

  test('roles are names, pairs or objects', () => {
    const client = { username: 'u' }
    const roles = ['a', ['b', 5], { rolename: 'c' }] as const
    expect(dynsec.clients.create).type.toBeCallableWith({ ...client, roles })
    expect(dynsec.addClient).type.toBeCallableWith('u', 'p', { roles })
    expect(dynsec.clients.create).type.not.toBeCallableWith({ ...client, roles: [5] })
  })
})

describe('raw', () => {
  test('the command says which fields it takes, and what it answers', async () => {
    expect(await dynsec.raw('getDetails')).type.toBe<DynsecDetails>()
    expect(await dynsec.raw('getRole', { rolename: 'r' })).type.toBe<{ role: DynsecRole }>()
    expect(await dynsec.raw('deleteRole', { rolename: 'r' }, { timeout: 5 })).type.toBe<undefined>()
    expect(dynsec.raw).type.not.toBeCallableWith('getRole')
    expect(dynsec.raw).type.not.toBeCallableWith('getRole', { username: 'u' })
    expect(dynsec.raw).type.not.toBeCallableWith('createClient', { username: 'u', roles: [] })
    expect(dynsec.raw).type.not.toBeCallableWith('nonsense', {})
  })

  test('unchecked takes anything', async () => {
    expect(await dynsec.raw('nonsense', { roles: [] }, { unchecked: true })).type.toBe<unknown>()
  })
})

describe('batch', () => {
  test('each command has its own result', async () => {
    const [created, client, roles] = await dynsec.batch([
      { command: 'createClient', username: 'u', password: 'p' },
      { command: 'getClient', username: 'u' },
      { command: 'listRoles' }
    ])
    expect(created).type.toBe<DynsecSettled<undefined>>()
    expect(client).type.toBe<DynsecSettled<{ client: DynsecClient }>>()
    expect(roles).type.toBe<DynsecSettled<{ totalCount: number, roles: (string | DynsecRole)[] }>>()
    if (client.status === 'rejected') expect(client.reason).type.toBe<DynsecError>()
    else expect(client.value.client).type.toBe<DynsecClient>()
  })

  test('of any length it is an array', async () => {
    const usernames: string[] = []
    const results = await dynsec.batch(usernames.map((username) => ({ command: 'getClient' as const, username })))
    expect(results).type.toBe<DynsecSettled<{ client: DynsecClient }>[]>()
  })

  test('a field that its command does not take is an error', () => {
    expect(dynsec.batch).type.not.toBeCallableWith([{ command: 'getClient', rolename: 'r' }])
    expect(dynsec.batch).type.not.toBeCallableWith([{ command: 'nonsense' }])
  })
})
