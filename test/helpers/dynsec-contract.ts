import type { DynsecCommandName } from '../../types/dynsec-commands.ts'

/** What the broker answers to fields like these. */
export type Refusal = readonly [answer: string, fields: Readonly<Record<string, unknown>>]

const bad = 'a\u0001'
const username = 'u'
const groupname = 'g'
const rolename = 'r'
const acl = { acltype: 'publishClientSend', topic: 'there', allow: true }

const noUsername: Refusal = ['Invalid/missing username', {}]
const noClient: Refusal = ['Client not found', { username: 'missing' }]
const noGroup: Refusal = ['Group not found', { groupname: 'missing' }]
const badUsername: Refusal = ['Username not valid UTF-8', { username: bad, groupname, rolename }]
const badGroup: Refusal = ['Group name not valid UTF-8', { username, groupname: bad, rolename }]
const badRole: Refusal = ['Role name not valid UTF-8', { username, groupname, rolename: bad, ...acl }]

/**
 * Every refusal in the sources of the plugin of Mosquitto 2.0.11, command by command, with fields that
 * provoke it; there are a client `u`, a role `r` with the entry `there`, a group `g`, and `u` and `g` have
 * `r`, `u` is in `g`. Only "Internal error" for want of memory is left out. In none of them does the plugin
 * free what it still uses.
 */
export const refusals: Readonly<Record<DynsecCommandName, readonly Refusal[]>> = {
  getDetails: [['Unknown command', {}]],
  setDefaultACLAccess: [['Missing/invalid actions array', {}], ['Missing/invalid actions array', { acls: 'x' }]],
  getDefaultACLAccess: [],
  createClient: [
    noUsername, badUsername, ['Client already exists', { username }],
    ['Invalid/missing password', { username: 'new', password: 5 }],
    ['Invalid/missing client id', { username: 'new', clientid: 5 }],
    ['Client ID not valid UTF-8', { username: 'new', clientid: bad }],
    ['Invalid/missing textname', { username: 'new', textname: 5 }],
    ['Invalid/missing textdescription', { username: 'new', textdescription: 5 }],
    ['Role not found', { username: 'new', roles: [{ rolename: 'missing' }] }],
    ["'roles' not an array or missing/invalid rolename", { username: 'new', roles: 'x' }],
    ['Group not found', { username: 'new', groups: [{ groupname: 'missing' }] }]
  ],
  deleteClient: [noUsername, noClient],
  enableClient: [noUsername, badUsername, noClient],
  disableClient: [noUsername, badUsername, noClient],
  getClient: [noUsername, badUsername, noClient],
  listClients: [],
  modifyClient: [
    noUsername, badUsername, noClient, ['Role not found', { username, roles: [{ rolename: 'missing' }] }],
    ["'roles' not an array or missing/invalid rolename", { username, roles: [{}] }]
  ],
  setClientId: [
    noUsername, badUsername, noClient, ['Invalid/missing client ID', { username, clientid: 5 }],
    ['Client ID not valid UTF-8', { username, clientid: bad }]
  ],
  setClientPassword: [
    noUsername, badUsername, ['Client not found', { username: 'missing', password: 'x' }],
    ['Invalid/missing password', { username }], ['Empty password is not allowed', { username, password: '' }]
  ],
  addClientRole: [
    noUsername, badUsername, ['Client not found', { username: 'missing', rolename }], badRole, ['Invalid/missing rolename', { username }],
    ['Role not found', { username, rolename: 'missing' }], ['Internal error', { username, rolename }]
  ],
  removeClientRole: [
    noUsername, badUsername, ['Client not found', { username: 'missing', rolename }], badRole, ['Invalid/missing rolename', { username }],
    ['Role not found', { username, rolename: 'missing' }]
  ],
  createGroup: [
    ['Invalid/missing groupname', {}], badGroup, ['Group already exists', { groupname }],
    ['Invalid/missing textname', { groupname: 'new', textname: 5 }],
    ['Invalid/missing textdescription', { groupname: 'new', textdescription: 5 }],
    ['Role not found', { groupname: 'new', roles: [{ rolename: 'missing' }] }],
    ['Internal error', { groupname: 'new', roles: 'x' }]
  ],
  deleteGroup: [['Invalid/missing groupname', {}], badGroup, noGroup],
  getGroup: [['Invalid/missing groupname', {}], badGroup, noGroup],
  listGroups: [],
  modifyGroup: [
    ['Invalid/missing groupname', {}], badGroup, noGroup,
    ['Role not found', { groupname, roles: [{ rolename: 'missing' }] }],
    ["'roles' not an array or missing/invalid rolename", { groupname, roles: 'x' }]
  ],
  addGroupClient: [
    ['Invalid/missing groupname', { username }], ['Invalid/missing username', { groupname }], badGroup, badUsername,
    ['Client not found', { username: 'missing', groupname }], ['Group not found', { groupname: 'missing', username }],
    ['Client is already in this group', { groupname, username }]
  ],
  removeGroupClient: [
    ['Invalid/missing groupname', { username }], ['Invalid/missing username', { groupname }], badGroup, badUsername,
    ['Client not found', { username: 'missing', groupname }], ['Group not found', { groupname: 'missing', username }]
  ],
  addGroupRole: [
    ['Invalid/missing groupname', { rolename }], ['Invalid/missing rolename', { groupname }], badGroup, badRole,
    ['Group not found', { groupname: 'missing', rolename }], ['Role not found', { groupname, rolename: 'missing' }],
    ['Group is already in this role', { groupname, rolename }]
  ],
  removeGroupRole: [
    ['Invalid/missing groupname', { rolename }], ['Invalid/missing rolename', { groupname }], badGroup, badRole,
    ['Group not found', { groupname: 'missing', rolename }], ['Role not found', { groupname, rolename: 'missing' }]
  ],
  setAnonymousGroup: [['Invalid/missing groupname', {}], badGroup, noGroup],
  getAnonymousGroup: [],
  createRole: [
    ['Invalid/missing rolename', {}], badRole, ['Role already exists', { rolename }],
    ['Invalid/missing textname', { rolename: 'new', textname: 5 }],
    ['Invalid/missing textdescription', { rolename: 'new', textdescription: 5 }]
  ],
  deleteRole: [['Invalid/missing rolename', {}], badRole, ['Role not found', { rolename: 'missing' }]],
  getRole: [['Invalid/missing rolename', {}], badRole, ['Role not found', { rolename: 'missing' }]],
  listRoles: [],
  modifyRole: [['Invalid/missing rolename', {}], badRole, ['Role does not exist', { rolename: 'missing' }]],
  addRoleACL: [
    ['Invalid/missing rolename', acl], badRole, ['Role not found', { ...acl, rolename: 'missing' }],
    ['Invalid/missing acltype', { rolename, topic: 'x', allow: true }], ['Unknown acltype', { ...acl, rolename, acltype: 'x' }],
    ['Invalid/missing topic', { rolename, acltype: acl.acltype, allow: true }],
    ['Topic not valid UTF-8', { ...acl, rolename, topic: bad }], ['Invalid ACL topic', { ...acl, rolename, topic: 'x/#/bad' }],
    ['ACL with this topic already exists', { ...acl, rolename }]
  ],
  removeRoleACL: [
    ['Invalid/missing rolename', { acltype: acl.acltype, topic: 'x' }], ['Role name not valid UTF-8', { rolename: bad, acltype: acl.acltype, topic: 'x' }],
    ['Role not found', { rolename: 'missing', acltype: acl.acltype, topic: 'x' }],
    ['Invalid/missing acltype', { rolename, topic: 'x' }], ['Unknown acltype', { rolename, acltype: 'x', topic: 'x' }],
    ['Invalid/missing topic', { rolename, acltype: acl.acltype }],
    ['Topic not valid UTF-8', { rolename, acltype: acl.acltype, topic: bad }],
    ['Invalid ACL topic', { rolename, acltype: acl.acltype, topic: 'x/#/bad' }],
    ['ACL not found', { rolename, acltype: acl.acltype, topic: 'x' }]
  ]
}

/** The code of each of these answers. */
export const codes: Readonly<Record<string, string>> = {
  'Unknown command': 'UNSUPPORTED',
  'Client not found': 'NOT_FOUND',
  'Group not found': 'NOT_FOUND',
  'Role not found': 'NOT_FOUND',
  'Role does not exist': 'NOT_FOUND',
  'ACL not found': 'NOT_FOUND',
  'Client already exists': 'ALREADY_EXISTS',
  'Group already exists': 'ALREADY_EXISTS',
  'Role already exists': 'ALREADY_EXISTS',
  'Client is already in this group': 'ALREADY_EXISTS',
  'Group is already in this role': 'ALREADY_EXISTS',
  'ACL with this topic already exists': 'ALREADY_EXISTS',
  'Internal error': 'INTERNAL'
}
