import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { placeTopic, readTopic } from '../lib/dynsec/acl-topics.ts'
import { brokerError } from '../lib/dynsec/broker-errors.ts'
import { prepareCommand } from '../lib/dynsec/checks.ts'
import { commands, type CommandSpec } from '../lib/dynsec/commands.ts'
import type { ControlSubscription } from '../lib/dynsec/control-channel.ts'
import { Pace } from '../lib/dynsec/pace.ts'
import { errors } from '../lib/errors.ts'
import type { DynsecError } from '../types/dynsec.ts'
import type { DynsecCommand } from '../types/dynsec-commands.ts'
import { deferred, within } from './helpers/deadline.ts'
import {
  fakeAdmin, playMosquitto20, type FakeControlLink, type Response, type SentCommand
} from './helpers/fake-control-link.ts'
import { root } from './helpers/programs.ts'

const acl = { acltype: 'publishClientSend', topic: 'a/b', allow: true } as const
const invalid = { code: 'FST_MQTT_DYNSEC_INVALID' }
const detailsOf21 = { clientCount: 1, groupCount: 0, roleCount: 1, changeIndex: 0 }

/** Answers these commands, and the others as before. */
const nameOf = ({ command }: SentCommand) => command

type Answers = Record<string, Response | ((sent: SentCommand) => Response)>

function answer (link: FakeControlLink, answers: Answers): void {
  const others = link.respond
  link.respond = (sent) => {
    if (!Object.hasOwn(answers, sent.command)) return others(sent)
    const response = answers[sent.command]
    return typeof response === 'function' ? response(sent) : response
  }
}

suite('a command is checked before it is sent', () => {
  const long = 'é'.repeat(32_768)
  const badNames: readonly [unknown, RegExp][] = [
    ['', /it is empty/], ['admin\0x', /U\+0000/], ['a\ud800', /lone surrogate/], ['a\tb', /U\+0009/], [long, /65536 bytes/],
    [5, /string, got a number/], [undefined, /required property|string/], [null, /got null/]
  ]
  const cases: readonly [command: string, fields: unknown, problem: RegExp][] = [
    ...badNames.flatMap(([name, problem]): [string, unknown, RegExp][] => [
      ['deleteClient', { username: name }, problem],
      ['deleteGroup', { groupname: name }, problem],
      ['deleteRole', { rolename: name }, problem]
    ]),
    ['createClient', { username: 'u', clientid: 'a\0' }, /clientid: .*U\+0000/],
    ['createClient', { username: 'u', textname: 'a\0' }, /textname: .*U\+0000/],
    ['createClient', { username: 'u', textdescription: '\udfff' }, /textdescription: .*lone surrogate/],
    ['createClient', { username: 'u', password: '' }, /password: it is empty/],
    ['createClient', { username: 'u', password: 'a\0' }, /password: .*U\+0000/],
    ['createClient', { username: 'u', password: long }, /password: .*65535 bytes/],
    ['createClient', { username: 'u', password: ['x'] }, /password: Expected string, got an array/],
    ['createClient', { username: 'u', roles: [{ rolename: 'r' }] }, /no field 'roles'.*corrupt/],
    ['createClient', { username: 'u', groups: [] }, /no field 'groups'.*corrupt/],
    ['createGroup', { groupname: 'g', roles: [] }, /no field 'roles'.*corrupt/],
    ['modifyGroup', { groupname: 'g', clients: [] }, /no field 'clients'.*corrupt/],
    ['deleteClient', { username: 'u', usrname: 'u' }, /no field 'usrname', there are username$/],
    ['getDetails', { verbose: true }, /there are none/],
    ['deleteClient', ['u'], /an object, not an array/],
    ['dropTables', {}, /no such command, there are getDetails/],
    ['toString', {}, /no such command/],
    ['addClientRole', { username: 'u', rolename: 'r', priority: 100_001 }, /priority: Expected integer to be less/],
    ['addClientRole', { username: 'u', rolename: 'r', priority: 1.5 }, /priority: Expected integer/],
    ['addRoleACL', { rolename: 'r', ...acl, priority: -100_001 }, /priority/],
    ['addRoleACL', { rolename: 'r', ...acl, acltype: 'publish' }, /acltype: expected one of publishClientSend, /],
    ['addRoleACL', { rolename: 'r', ...acl, allow: 'yes' }, /allow: Expected boolean, got a string/],
    ['addRoleACL', { rolename: 'r', ...acl, allow: undefined }, /allow/],
    ['addRoleACL', { rolename: 'r', ...acl, topic: 'x/#/bad' }, /topic: '#' must be the last level/],
    ['addRoleACL', { rolename: 'r', ...acl, topic: '' }, /topic: it is empty/],
    ['addRoleACL', { rolename: 'r', ...acl, topic: 'a\0' }, /topic: .*U\+0000/],
    ['addRoleACL', { rolename: 'r', ...acl, topic: 'a/'.repeat(200) }, /topic: it has 201 levels/],
    ['addRoleACL', { rolename: 'r', ...acl, topic: long }, /topic: .* bytes/],
    ['addRoleACL', { rolename: 'r', ...acl, topic: 'device/<id>' }, /no placeholders, '<id>'/],
    ['addRoleACL', { rolename: 'r', ...acl, topic: '$share/g', absolute: true }, /topic: .*\$share/],
    ['createRole', { rolename: 'r', acls: [{ ...acl, topic: 'x/#/bad' }] }, /'#' must be the last level/],
    ['createRole', { rolename: 'r', acls: [acl, { ...acl, acltype: 'nonsense' }] },
      /acls\.1\.acltype: expected one of publishClientSend, .*, got a string$/],
    ['createRole', { rolename: 'r', acls: [{ ...acl, allow: undefined }] }, /acls\.0\.allow: Expected .*, got undefined$/],
    ['createRole', { rolename: 'r', acls: [{ ...acl, alow: true }] }, /acls\.0\.alow: Unexpected property, got a boolean$/],
    ['modifyRole', { rolename: 'r', acls: [{ ...acl, priority: 1e6 }] }, /acls\.0\.priority: Expected integer to be less/],
    ['modifyRole', { rolename: 'r', acls: [null] }, /acls\.0: Expected object, got null$/],
    ['createRole', { rolename: 'r', acls: [acl, { ...acl, allow: false }] }, /two entries publishClientSend/],
    ['createRole', { rolename: 'r', acls: acl }, /acls: Expected array, got an object \(Object\)$/],
    ['setDefaultACLAccess', { acls: [{ acltype: 'subscribeLiteral', allow: true }] }, /acls\.0\.acltype: expected one of/],
    ['setDefaultACLAccess', {}, /acls: Expected .*, got undefined$/],
    ['listClients', { count: 0 }, /count: Expected integer to be greater or equal to 1, got a number$/],
    ['listClients', { offset: -1 }, /offset: Expected integer to be greater/],
    ['listClients', { verbose: 'yes' }, /verbose: Expected boolean, got a string$/]
  ]

  for (const [command, fields, problem] of cases) {
    test(`${command} ${inspect(fields, { breakLength: Infinity, maxStringLength: 20 })}`, () => {
      assert.throws(() => prepareCommand(command, fields, ''), (error: Error) => {
        assert.ok(error instanceof errors.FST_MQTT_DYNSEC_INVALID)
        assert.match(error.message, problem)
        return true
      })
    })
  }

  test('a name may be what it likes otherwise, also of 65,535 bytes', () => {
    for (const username of ['a/+/#', 'ä ö', '%u', '$x', 'x'.repeat(65_535)]) {
      assert.deepEqual(prepareCommand('deleteClient', { username }, 'site'), { command: 'deleteClient', username })
    }
  })

  test('what is undefined is not given, and a text may have lines', () => {
    assert.deepEqual(
      prepareCommand('createClient', { username: 'u', password: undefined, textdescription: 'one\ntwo' }, ''),
      { command: 'createClient', username: 'u', textdescription: 'one\ntwo' })
  })

  test('a command that is not one at all', () => {
    assert.throws(() => prepareCommand(undefined, {}, ''), invalid)
  })

  test('nothing is sent, not even the question whether the plugin is there', async () => {
    const { link, dynsec } = fakeAdmin()
    await assert.rejects(dynsec.clients.delete(''), invalid)
    await assert.rejects(dynsec.batch([{ command: 'deleteClient', username: 'u' }, { command: 'deleteClient', username: '' }]), {
      ...invalid, message: "Invalid dynamic security command 'deleteClient (batch[1])': username: it is empty"
    })
    assert.deepEqual([link.sent, link.subscribed], [[], []])
  })
})

suite('options of calls', () => {
  const { dynsec } = fakeAdmin()
  const wrong = (value: unknown) => value as never
  for (const [name, call] of Object.entries<() => Promise<unknown>>({
    'an unknown one': () => dynsec.clients.delete('u', wrong({ timeot: 5 })),
    'one of another call': () => dynsec.clients.delete('u', wrong({ ifExists: 'ignore' })),
    timeout: () => dynsec.clients.delete('u', { timeout: 0 }),
    'timeout of no number': () => dynsec.clients.delete('u', { timeout: wrong('5') }),
    signal: () => dynsec.clients.delete('u', { signal: wrong({ aborted: false }) }),
    allowSelf: () => dynsec.clients.delete('u', { allowSelf: wrong(1) }),
    ifMissing: () => dynsec.clients.delete('u', { ifMissing: wrong('skip') }),
    unchecked: () => dynsec.raw('deleteClient', { username: 'u' }, wrong({ unchecked: 1 })),
    'none at all': () => dynsec.clients.delete('u', wrong(5)),
    'a client that is none': () => dynsec.clients.create(wrong('u')),
    'roles that are no list': () => dynsec.clients.create({ username: 'u', roles: wrong('r') }),
    'groups that are no list': () => dynsec.clients.create({ username: 'u', groups: wrong('g') }),
    'a role that is none': () => dynsec.clients.create({ username: 'u', roles: [wrong(5)] }),
    'a role with more': () => dynsec.clients.create({ username: 'u', roles: [wrong({ rolename: 'r', allow: true })] }),
    'a batch that is no list': () => dynsec.batch(wrong({ command: 'getDetails' })),
    'a batch of what is no command': () => dynsec.batch([wrong('getDetails')]),
    'options of addClient': () => dynsec.addClient('u', 'p', wrong(['r'])),
    'options of addRoleAcl': () => dynsec.addRoleAcl('r', 'publishClientSend', 'a', true, 0, wrong(true)),
    'defaults that are none': () => dynsec.defaults.set(wrong(['subscribe']))
  })) {
    test(`${name}: refused`, async () => {
      await assert.rejects(call(), invalid)
    })
  }
})

suite('topics have the prefix', () => {
  const topicOf = (topic: string, prefix: string, absolute?: boolean) =>
    prepareCommand('removeRoleACL', { rolename: 'r', acltype: 'subscribePattern', topic, absolute }, prefix)['topic']

  test('unless they are absolute; slashes are levels', () => {
    assert.equal(topicOf('a/#', 'site'), 'site/a/#')
    assert.equal(topicOf('/a/', 'site'), 'site//a/')
    assert.equal(topicOf('a/#', ''), 'a/#')
    assert.equal(topicOf('a/#', 'site', true), 'a/#')
    assert.equal(topicOf('$CONTROL/dynamic-security/#', 'site', true), '$CONTROL/dynamic-security/#')
  })

  test('of a shared subscription behind the group, which may be any', () => {
    assert.equal(topicOf('$share/g/a/#', 'site'), '$share/g/site/a/#')
    assert.equal(topicOf('$share/+/a', 'site'), '$share/+/site/a')
    assert.equal(topicOf('$share/+/a', 'site', true), '$share/+/a')
  })

  test('in the entries of a new role too, where absolute is not sent', () => {
    const { acls } = prepareCommand('createRole', {
      rolename: 'r', acls: [{ ...acl, absolute: false }, { ...acl, topic: '$SYS/#', absolute: true, priority: 3 }]
    }, 'site') as { acls?: unknown }
    assert.deepEqual(acls, [{ ...acl, topic: 'site/a/b' }, { ...acl, topic: '$SYS/#', priority: 3 }])
  })

  test('a topic that begins with $ and is not absolute is an error', () => {
    for (const prefix of ['site', '']) {
      for (const topic of ['$SYS/#', '$CONTROL/x', '$share', '$share/g/$SYS/#']) {
        assert.throws(() => topicOf(topic, prefix), { code: 'FST_MQTT_TOPIC_OUTSIDE_PREFIX' }, topic)
      }
    }
  })

  test('with the prefix before it a topic can be too long', () => {
    assert.throws(() => topicOf('a/'.repeat(199), 'site'), invalid)
  })

  test('what is read can be written back: it is the same topic again', () => {
    const level = fc.constantFrom('a', 'site', '', '+', '$SYS', '%u', 'ä')
    const rest = fc.tuple(fc.array(level, { minLength: 1, maxLength: 4 }), fc.boolean())
      .map(([levels, all]) => [...levels, ...all ? ['#'] : []].join('/'))
    const stored = fc.tuple(fc.constantFrom('', '$share/g/', '$share/+/'), rest).map(([head, tail]) => head + tail)
    fc.assert(fc.property(stored, fc.constantFrom('', 'site', 'site/a'), (topic, prefix) => {
      const read = readTopic(prefix, topic)
      fc.pre(topic !== '' && topic !== '$share/g/' && topic !== '$share/+/')
      assert.equal(placeTopic(prefix, read.topic, read.absolute === true, 'addRoleACL'), topic)
      assert.equal(read.absolute, !insidePrefix(prefix, topic) || undefined)
    }), { numRuns: 2_000 })
  })

  test('what is written is read as it was written', () => {
    for (const topic of ['a', '/a/', 'site/a', '#', '$share/g/a', '+/+']) {
      for (const prefix of ['', 'site']) {
        assert.deepEqual(readTopic(prefix, placeTopic(prefix, topic, false, 'addRoleACL')), { topic })
      }
    }
  })
})

/** The naive model: what a topic that is not absolute could have become. */
function insidePrefix (prefix: string, stored: string): boolean {
  const levels = stored.split('/')
  const own = levels[0] === '$share' ? levels.slice(2) : levels
  const begin = prefix === '' ? [] : prefix.split('/')
  const inside = own.slice(begin.length)
  return begin.every((level, index) => own[index] === level) && inside.join('/') !== '' && !inside.join('/').startsWith('$')
}

suite('answers of brokers', () => {
  const codes: Record<string, readonly string[]> = {
    NOT_FOUND: [
      "'clients' contains an object with a 'username' that does not exist",
      "'groups' contains an object with a 'groupname' that does not exist",
      'ACL not found', 'Client not found', 'Group not found', 'Role does not exist', 'Role not found'
    ],
    ALREADY_EXISTS: [
      'ACL with this topic already exists', 'Client already exists', 'Client is already in this group', 'Group already exists',
      'Group is already in this role', 'Role already exists'
    ],
    INVALID: [
      "'clients' contains an object with an invalid 'username'", "'groups' contains an object with an invalid 'groupname'",
      "'roles' not an array or missing/invalid rolename", 'Client ID not valid UTF-8', 'Command not an object', 'Empty groupname',
      'Empty password is not allowed', 'Empty rolename', 'Empty username', 'Group name not valid UTF-8', 'Invalid ACL topic',
      'Invalid allowwildcardsubs', 'Invalid correlationData data type.', 'Invalid/missing acltype', 'Invalid/missing client ID',
      'Invalid/missing client id', 'Invalid/missing commands', 'Invalid/missing groupname', 'Invalid/missing password',
      'Invalid/missing rolename', 'Invalid/missing textdescription', 'Invalid/missing textname', 'Invalid/missing topic',
      'Invalid/missing username', 'Missing command', 'Missing/invalid actions array', 'Payload not valid JSON',
      'Role name not valid UTF-8', 'Topic not valid UTF-8', 'Unknown acltype', 'Username not valid UTF-8'
    ],
    FORBIDDEN: ['Deleting the anonymous group is forbidden'],
    INTERNAL: ['Internal error'],
    UNSUPPORTED: ['Unknown command'],
    REJECTED: ['Something that Mosquitto 3 says', 'client not found', '']
  }

  for (const [code, texts] of Object.entries(codes)) {
    test(`${code}: ${texts.length} texts`, () => {
      for (const text of texts) {
        const error = brokerError({ command: 'createClient', username: 'u', password: 'secret' }, text)
        assert.equal(error.code, `FST_MQTT_DYNSEC_${code}`, text)
        assert.deepEqual([error.command, error.brokerMessage], ['createClient', text])
        assert.ok(error.message.includes(text))
        assert.ok(!error.message.includes('secret'))
      }
    })
  }

  test('all of the 47 texts of the three versions are known', () => {
    assert.equal(Object.entries(codes).filter(([code]) => code !== 'REJECTED').flatMap(([, texts]) => texts).length, 47)
  })

  test('a role that the client has already is an "Internal error" to the broker', () => {
    const { code } = brokerError({ command: 'addClientRole', username: 'u', rolename: 'r' }, 'Internal error')
    assert.equal(code, 'FST_MQTT_DYNSEC_ALREADY_EXISTS')
  })
})

suite('the way to the plugin', () => {
  test('is made with the first command: subscribed, then asked with QoS 1, then used with QoS 0', async () => {
    const { link, dynsec } = fakeAdmin()
    assert.deepEqual([link.subscribed, link.sent], [[], []])
    await Promise.all([dynsec.clients.enable('u'), dynsec.clients.enable('v')])
    assert.deepEqual(link.subscribed, ['$CONTROL/dynamic-security/v1/response'])
    const sent = link.sent.map(({ topic, qos, commands }) => [topic, qos, commands.map(nameOf)])
    assert.deepEqual(sent, [
      ['$CONTROL/dynamic-security/v1', 1, ['getDetails', 'getClient']],
      ['$CONTROL/dynamic-security/v1', 0, ['enableClient']],
      ['$CONTROL/dynamic-security/v1', 0, ['enableClient']]
    ])
    const ids = link.sent.flatMap(({ commands }) => commands.map(({ correlationData }) => correlationData))
    assert.equal(new Set(ids).size, ids.length)
    for (const id of ids) assert.match(id, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\/\d$/)
  })

  test('is refused while offline, and nothing is sent later', async () => {
    const { link, dynsec } = fakeAdmin()
    link.down()
    await assert.rejects(dynsec.clients.enable('u'), { code: 'FST_MQTT_OFFLINE', statusCode: 503 })
    link.up()
    await dynsec.clients.get('u', { ifMissing: 'ignore' })
    assert.deepEqual(link.commands, [['getClient']])
  })

  test('is made anew after each loss of the connection', async () => {
    const { link, dynsec } = fakeAdmin()
    await dynsec.clients.enable('u')
    link.down()
    link.up()
    await dynsec.clients.enable('u')
    assert.deepEqual(link.sent.map(({ qos }) => qos), [1, 0, 1, 0])
    assert.deepEqual(link.subscribed, ['$CONTROL/dynamic-security/v1/response'])
  })

  test('may not be subscribed: NOT_AUTHORIZED, and tried again with the next command', async () => {
    const { link, dynsec } = fakeAdmin()
    link.reasonCode = 0x87
    await assert.rejects(dynsec.clients.enable('u'), {
      code: 'FST_MQTT_DYNSEC_NOT_AUTHORIZED',
      message: 'The account of this connection may not subscribe to $CONTROL/dynamic-security/v1/response: ' +
        'the broker answered with reason 0x87'
    })
    assert.deepEqual([link.sent, link.subscribed], [[], []])
    link.reasonCode = 0
    await dynsec.clients.enable('u')
  })

  test('may not be published to: NOT_AUTHORIZED', async () => {
    const { link, dynsec } = fakeAdmin()
    link.publishError = (qos) => qos === 0 ? undefined : new errors.FST_MQTT_PUBLISH_REFUSED('topic', 'Not authorized')
    await assert.rejects(dynsec.clients.enable('u'), (error: DynsecError) => {
      assert.equal(error.code, 'FST_MQTT_DYNSEC_NOT_AUTHORIZED')
      assert.match(error.message, /may not publish to \$CONTROL\/dynamic-security\/v1: .*Not authorized/)
      assert.ok(error.cause instanceof errors.FST_MQTT_PUBLISH_REFUSED)
      return true
    })
    assert.deepEqual(link.subscribed, [])
  })

  test('leads nowhere: NO_ANSWER, which says what may be the reason', async () => {
    for (const [version, hint] of [[5, /receive \$CONTROL\/dynamic-security\/v1\/response$/], [4, /MQTT 3\.1\.1 cannot tell$/]] as const) {
      const { link, dynsec } = fakeAdmin({ timeoutMs: 30 })
      link.version = version
      link.respond = () => undefined
      await assert.rejects(dynsec.clients.enable('u'), (error: DynsecError) => {
        assert.deepEqual([error.code, error.statusCode], ['FST_MQTT_DYNSEC_NO_ANSWER', 504])
        assert.match(error.message, hint)
        return true
      })
      assert.deepEqual(link.commands.flat().filter((command) => command === 'enableClient'), [])
    }
  })

  test('takes longer than one call would wait: NO_ANSWER for that one, and the others go on', async () => {
    const { link, dynsec } = fakeAdmin()
    link.respond = () => undefined
    const patient = dynsec.clients.enable('u')
    const { commands: asked } = await link.next('getDetails')
    await assert.rejects(dynsec.clients.enable('v', { timeout: 10 }), {
      code: 'FST_MQTT_DYNSEC_NO_ANSWER', message: /within 10 ms, so nothing was sent: the answer is still awaited$/
    })
    link.respond = playMosquitto20
    link.reply({ responses: asked.map((one) => ({ ...playMosquitto20(one), ...one })) })
    await patient
    assert.deepEqual(link.commands, [['enableClient']])
  })

  test('is lost before it is verified: OFFLINE, since nothing was sent', async () => {
    const { link, dynsec } = fakeAdmin()
    link.respond = () => undefined
    const enabled = dynsec.clients.enable('u')
    await link.next('getDetails')
    link.down()
    await assert.rejects(enabled, { code: 'FST_MQTT_OFFLINE' })
  })

  test('is lost while it is subscribed, or fails otherwise there', async () => {
    const { link, dynsec } = fakeAdmin()
    link.subscribe = async () => {
      link.down()
      throw new Error('the connection is gone')
    }
    await assert.rejects(dynsec.clients.enable('u'), { code: 'FST_MQTT_OFFLINE' })
    link.up()
    link.subscribe = async () => { throw new Error('no SUBACK') }
    await assert.rejects(dynsec.clients.enable('u'), /no SUBACK/)
  })

  test('is not even answered with a SUBACK: NO_ANSWER, and one that comes late is ended', async () => {
    const { link, dynsec } = fakeAdmin({ timeoutMs: 20 })
    const late = deferred<ControlSubscription>()
    const stopped = deferred<undefined>()
    link.subscribe = async () => await late.promise
    await assert.rejects(dynsec.clients.enable('u'), {
      code: 'FST_MQTT_DYNSEC_NO_ANSWER',
      message: 'mqtt://127.0.0.1:1883 did not answer a question to its dynamic security plugin within 20 ms, so nothing was ' +
        'sent: it did not answer the subscription to $CONTROL/dynamic-security/v1/response'
    })
    late.resolve({ reasonCode: 0, stop: async () => stopped.resolve(undefined) })
    await within(stopped.promise, 1_000, 'end of the subscription')
    assert.deepEqual(link.sent, [])
  })

  test('is lost before the last question of the handshake: OFFLINE', async () => {
    const { link, dynsec } = fakeAdmin()
    answer(link, {
      getClient: { data: { client: { username: 'admin', roles: [], groups: [{ groupname: 'g' }] } } },
      getGroup: () => {
        link.down()
        return undefined
      }
    })
    await assert.rejects(dynsec.groups.list(), { code: 'FST_MQTT_OFFLINE' })
  })

  test('knows what the broker can do', async () => {
    const { link, dynsec } = fakeAdmin()
    assert.deepEqual(await dynsec.capabilities(),
      { details: false, wildcardSubs: false, substitution: false, connections: false })
    link.down()
    link.up()
    answer(link, { getDetails: { data: detailsOf21 } })
    assert.deepEqual(await dynsec.capabilities(),
      { details: true, wildcardSubs: true, substitution: true, connections: true })
  })
})

suite('answers are matched', () => {
  test('by the correlation data alone: those of others, nonsense and copies change nothing', async () => {
    const { link, dynsec } = fakeAdmin()
    await dynsec.capabilities()
    link.respond = () => undefined
    const [one, two] = [dynsec.roles.get('one'), dynsec.roles.get('two')]
    const role = (rolename: string) => ({ role: { rolename, acls: [] } })
    const [first, second] = [await link.next('getRole'), await link.next('getRole')]
    const replyTo = ({ commands: [sent] }: typeof first, rolename: string) =>
      ({ responses: [{ command: 'getRole', data: role(rolename), correlationData: sent?.correlationData }] })
    for (const foreign of [
      'nonsense', '5', 'null', '{}', '[]', { error: 'something else' }, { responses: 'none' }, { responses: [5, null] },
      { responses: [{ command: 'getRole', data: role('foreign') }] },
      { responses: [{ command: 'getRole', data: role('foreign'), correlationData: 7 }] },
      { responses: [{ command: 'getRole', data: role('foreign'), correlationData: 'their-id/0' }] },
      { responses: [{ command: 'Unknown command', error: 'Payload not valid JSON' }] }
    ]) link.reply(foreign)
    for (const reply of [replyTo(first, 'one'), replyTo(first, 'copy'), replyTo(second, 'two')]) link.reply(reply)
    assert.deepEqual((await Promise.all([one, two])).map(({ rolename }) => rolename), ['one', 'two'])
  })

  test('within a message by command, in whatever order; what is not answered is told', async () => {
    const { link, dynsec } = fakeAdmin()
    await dynsec.capabilities()
    link.respond = () => undefined
    const batch = dynsec.batch([
      { command: 'enableClient', username: 'a' }, { command: 'enableClient', username: 'b' }, { command: 'getAnonymousGroup' }
    ])
    const { commands: [a, , c] } = await link.next('enableClient')
    link.reply({
      responses: [
        { command: 'getAnonymousGroup', data: { group: { groupname: 'g' } }, correlationData: c?.correlationData },
        { command: 'enableClient', error: 'Client not found', correlationData: a?.correlationData }
      ]
    })
    const [first, second, third] = await batch
    assert.equal(first.status === 'rejected' && first.reason.code, 'FST_MQTT_DYNSEC_NOT_FOUND')
    assert.equal(second.status === 'rejected' && second.reason.code, 'FST_MQTT_DYNSEC_REPLY_INVALID')
    assert.deepEqual(third, { status: 'fulfilled', value: { group: { groupname: 'g' } } })
  })

  test('a later answer tells that an earlier one was dropped: REPLY_LOST, at once', async () => {
    const { link, dynsec } = fakeAdmin()
    answer(link, { listClients: undefined })
    const list = dynsec.clients.list({ verbose: true })
    await link.next('listClients')
    await dynsec.clients.enable('u')
    await assert.rejects(list, (error: DynsecError) => {
      assert.deepEqual([error.code, error.command], ['FST_MQTT_DYNSEC_REPLY_LOST', 'listClients'])
      return true
    })
  })

  test('if nothing else is sent a small question after half of the time tells it', async () => {
    const { link, dynsec } = fakeAdmin({ timeoutMs: 200 })
    answer(link, { listClients: undefined })
    await assert.rejects(dynsec.clients.list(), { code: 'FST_MQTT_DYNSEC_REPLY_LOST' })
    assert.deepEqual(link.commands, [['listClients'], ['getAnonymousGroup']])
  })

  test('no answer at all: TIMEOUT, after the time of the call and 25 ms for each command', async () => {
    const { link, dynsec } = fakeAdmin()
    await dynsec.capabilities()
    link.respond = () => undefined
    const since = performance.now()
    await assert.rejects(dynsec.clients.enable('u', { timeout: 60 }), {
      code: 'FST_MQTT_DYNSEC_TIMEOUT',
      command: 'enableClient',
      message: "enableClient 'u' was not answered within 85 ms: it may or may not have been executed"
    })
    const passed = performance.now() - since
    assert.ok(passed >= 84 && passed < 1_000, `${passed} ms`)
  })

  test('an answer that does not fit is REPLY_INVALID; one that has more is welcome', async () => {
    const { link, dynsec } = fakeAdmin()
    answer(link, { getClient: { data: { client: { username: 5, roles: [], groups: [] } } } })
    await assert.rejects(dynsec.clients.get('u'), {
      code: 'FST_MQTT_DYNSEC_REPLY_INVALID',
      command: 'getClient',
      message: "getClient 'u' was executed, but its answer cannot be read: client.username: Expected string, got a number"
    })
    answer(link, {
      getClient: { data: { client: { username: 'u', roles: [], groups: [], quota: 5 }, more: true } }, enableClient: { data: { more: 5 } }
    })
    assert.deepEqual(await dynsec.clients.get('u'), { username: 'u', roles: [], groups: [], quota: 5 })
    assert.equal(await dynsec.clients.enable('u'), undefined)
  })
})

suite('when the wait ends', () => {
  test('a lost connection: OUTCOME_UNKNOWN, and nothing is sent again', async () => {
    const { link, dynsec } = fakeAdmin()
    await dynsec.capabilities()
    link.respond = () => undefined
    const [one, two] = [dynsec.clients.enable('u'), dynsec.clients.kick('v')]
    await link.next('modifyClient')
    link.down()
    await assert.rejects(one, { code: 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN', command: 'enableClient' })
    await assert.rejects(two, {
      code: 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN',
      message: "The connection to mqtt://127.0.0.1:1883 was lost before modifyClient 'v' was answered: it may or may not have been executed"
    })
    link.up()
    link.respond = playMosquitto20
    await dynsec.groups.list()
    assert.deepEqual(link.commands, [['enableClient'], ['modifyClient'], ['getDetails', 'getClient'], ['listGroups']])
  })

  test('a publish that may have been sent is settled by its connection', async () => {
    const { link, dynsec } = fakeAdmin()
    await dynsec.capabilities()
    link.publishError = () => new errors.FST_MQTT_DELIVERY_UNKNOWN('the broker')
    const enabled = dynsec.clients.enable('u')
    setImmediate(() => link.down())
    await assert.rejects(enabled, { code: 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN' })
  })

  test('a publish that was not sent says so', async () => {
    const { link, dynsec } = fakeAdmin()
    await dynsec.capabilities()
    link.publishError = () => new errors.FST_MQTT_BROKER_LIMIT('the packet has 5 bytes, the largest is 4')
    await assert.rejects(dynsec.clients.enable('u'), { code: 'FST_MQTT_BROKER_LIMIT' })
    link.publishError = undefined
    await dynsec.clients.enable('u')
  })

  test('an aborted signal: before the session, in it, and after', async () => {
    const { link, dynsec } = fakeAdmin()
    const aborted = { code: 'FST_MQTT_DYNSEC_ABORTED', statusCode: 503 }
    await assert.rejects(dynsec.clients.enable('u', { signal: AbortSignal.abort('enough') }), {
      ...aborted, cause: 'enough', message: 'The signal was aborted: nothing was sent'
    })
    link.respond = () => undefined
    const during = new AbortController()
    const first = dynsec.clients.enable('u', { signal: during.signal })
    await link.next('getDetails')
    during.abort()
    await assert.rejects(first, { ...aborted, message: 'The signal was aborted: nothing was sent' })
    link.down()
    link.up()
    link.respond = playMosquitto20
    await dynsec.capabilities()
    link.respond = () => undefined
    const after = new AbortController()
    const second = dynsec.clients.enable('u', { signal: after.signal })
    await link.next('enableClient')
    after.abort('enough')
    await assert.rejects(second, {
      ...aborted,
      cause: 'enough',
      command: 'enableClient',
      message: "The signal was aborted: enableClient 'u' may or may not have been executed"
    })
  })

  test('close: what waits rejects with CLOSED, and so does what comes', async () => {
    const { link, dynsec, close } = fakeAdmin()
    const starting = fakeAdmin()
    starting.link.respond = () => undefined
    const early = starting.dynsec.clients.enable('u')
    await starting.link.next('getDetails')
    starting.close()
    await assert.rejects(early, { code: 'FST_MQTT_CLOSED' })
    await dynsec.capabilities()
    link.respond = () => undefined
    const enabled = dynsec.clients.enable('u')
    await link.next('enableClient')
    close()
    close()
    await assert.rejects(enabled, { code: 'FST_MQTT_CLOSED', command: 'enableClient' })
    await assert.rejects(dynsec.clients.enable('u'), { code: 'FST_MQTT_CLOSED' })
    assert.deepEqual([link.listeners, link.subscribed], [0, []])
  })

  test('the plugin is unloaded: PLUGIN_ABSENT for what is sent then', async () => {
    const { link, dynsec } = fakeAdmin()
    await dynsec.capabilities()
    answer(link, { enableClient: undefined })
    const enabled = dynsec.clients.enable('u')
    await link.next('enableClient')
    link.reply('{"error": "endpoint not available"}')
    await assert.rejects(enabled, { code: 'FST_MQTT_DYNSEC_PLUGIN_ABSENT', command: 'enableClient' })
  })
})

suite('many commands', () => {
  const enable = (count: number): DynsecCommand[] =>
    Array.from({ length: count }, (_, index) => ({ command: 'enableClient', username: `u${index}` }))
  const sizes = (link: FakeControlLink) => link.commands.map(({ length }) => length)

  test('go in messages of 20, in order, each after the answer to the one before', async () => {
    const { link, dynsec } = fakeAdmin()
    let isAnswered = true
    link.respond = (sent) => {
      if (sent.command === 'enableClient' && sent['username'] === 'u20') assert.ok(isAnswered)
      isAnswered = false
      setImmediate(() => { isAnswered = true })
      return playMosquitto20(sent)
    }
    const settled = await dynsec.batch(enable(50))
    assert.deepEqual(sizes(link), [20, 20, 10])
    assert.ok(settled.every(({ status }) => status === 'fulfilled'))
    assert.deepEqual(link.sent.slice(1).flatMap(({ commands }) => commands.map(({ username }) => username)),
      enable(50).map((one) => one.command === 'enableClient' && one.username))
  })

  test('of 200 with Mosquitto 2.1, of as many as the option chunk says, of what a packet holds', async () => {
    const newer = fakeAdmin()
    answer(newer.link, { getDetails: { data: detailsOf21 } })
    await newer.dynsec.batch(enable(401))
    assert.deepEqual(sizes(newer.link), [200, 200, 1])
    const own = fakeAdmin({ chunk: 3 })
    await own.dynsec.batch(enable(7))
    assert.deepEqual(sizes(own.link), [3, 3, 1])
    const narrow = fakeAdmin()
    narrow.link.maximumPacketSize = 1_000
    await narrow.dynsec.batch(enable(20))
    assert.ok(sizes(narrow.link).length > 2)
    for (const { commands } of narrow.link.sent) {
      assert.ok(Buffer.byteLength(JSON.stringify({ commands })) < 900)
    }
    const prose = fakeAdmin()
    const textdescription = 'x'.repeat(100_000)
    await prose.dynsec.batch(['a', 'b', 'c'].map((username) => ({ command: 'modifyClient' as const, username, textdescription })))
    assert.deepEqual(sizes(prose.link), [2, 1])
  })

  test('are fewer where the broker took more than 100 ms, and more again where it did not', () => {
    const pace = new Pace(20, 40)
    const sizes = [pace.size]
    for (const tookMs of [540, 140, 41, 41, 41, 5_000, 41, 10]) {
      pace.note(pace.size, tookMs)
      sizes.push(pace.size)
    }
    assert.deepEqual(sizes, [20, 4, 4, 8, 16, 20, 1, 2, 4])
  })

  test('none: nothing is sent', async () => {
    const { link, dynsec } = fakeAdmin()
    assert.deepEqual(await dynsec.batch([]), [])
    assert.deepEqual(link.sent, [])
  })

  test('one that is refused stops none of the others', async () => {
    const { link, dynsec } = fakeAdmin({ chunk: 2 })
    answer(link, { enableClient: ({ username }) => username === 'u1' ? { error: 'Client not found' } : {} })
    const settled = await dynsec.batch(enable(4))
    assert.deepEqual(settled.map((one) => one.status === 'rejected' ? one.reason.code : one.status),
      ['fulfilled', 'FST_MQTT_DYNSEC_NOT_FOUND', 'fulfilled', 'fulfilled'])
  })

  test('a connection that is lost in the middle: what was executed, what is unknown, what was not sent', async () => {
    const { link, dynsec } = fakeAdmin({ chunk: 2 })
    answer(link, {
      enableClient: ({ username }) => {
        if (username !== 'u2' && username !== 'u3') return {}
        setImmediate(() => link.down())
        return undefined
      }
    })
    const settled = await dynsec.batch(enable(6))
    const codes = settled.map((one) => one.status === 'rejected' ? one.reason.code : one.status)
    const [unknown, notSent] = ['FST_MQTT_DYNSEC_OUTCOME_UNKNOWN', 'FST_MQTT_DYNSEC_NOT_SENT']
    assert.deepEqual(codes, ['fulfilled', 'fulfilled', unknown, unknown, notSent, notSent])
    const last = settled[5]
    assert.ok(last?.status === 'rejected')
    assert.deepEqual([last.reason.command, (last.reason.cause as DynsecError).code], ['enableClient', unknown])
    assert.deepEqual(sizes(link), [2, 2])
  })

  test('a connection that is lost between two messages leaves nothing unknown', async () => {
    const { link, dynsec } = fakeAdmin({ chunk: 1 })
    answer(link, {
      enableClient: ({ username }) => {
        if (username === 'u0') setImmediate(() => setImmediate(() => link.down()))
        return {}
      }
    })
    link.publishError = () => link.sent.length < 2 ? undefined : new errors.FST_MQTT_OFFLINE('the broker')
    const settled = await dynsec.batch(enable(3))
    assert.deepEqual(settled.map((one) => one.status === 'rejected' ? one.reason.code : one.status),
      ['fulfilled', 'FST_MQTT_DYNSEC_NOT_SENT', 'FST_MQTT_DYNSEC_NOT_SENT'])
  })
})

suite('what would do harm', () => {
  const self = { code: 'FST_MQTT_DYNSEC_SELF', statusCode: 403 }

  test('changes of the own account, its roles and groups and their roles are refused', async () => {
    const { link, dynsec } = fakeAdmin()
    answer(link, {
      getClient: {
        data: {
          client: {
            username: 'admin', roles: [{ rolename: 'direct' }], groups: [{ groupname: 'g' }]
          }
        }
      },
      getGroup: { data: { group: { groupname: 'g', clients: [{ username: 'admin' }], roles: [{ rolename: 'by-group' }] } } }
    })
    const calls: Record<string, () => Promise<unknown>> = {
      deleteClient: () => dynsec.clients.delete('admin'),
      disableClient: () => dynsec.clients.disable('admin'),
      modifyClient: () => dynsec.clients.kick('admin'),
      setClientId: () => dynsec.clients.setId('admin', 'x'),
      setClientPassword: () => dynsec.clients.setPassword('admin', 'x'),
      addClientRole: () => dynsec.clients.addRole('admin', 'r'),
      removeClientRole: () => dynsec.clients.removeRole('admin', 'direct'),
      addGroupClient: () => dynsec.groups.addClient('other', 'admin'),
      removeGroupClient: () => dynsec.groups.removeClient('other', 'admin'),
      deleteGroup: () => dynsec.groups.delete('g'),
      modifyGroup: () => dynsec.groups.modify('g', {}),
      addGroupRole: () => dynsec.groups.addRole('g', 'r'),
      removeGroupRole: () => dynsec.groups.removeRole('g', 'r'),
      deleteRole: () => dynsec.roles.delete('direct'),
      modifyRole: () => dynsec.roles.modify('by-group', {}),
      addRoleACL: () => dynsec.roles.addAcl('by-group', acl),
      removeRoleACL: () => dynsec.roles.removeAcl('direct', { acltype: 'publishClientSend', topic: 'a' })
    }
    for (const [command, call] of Object.entries(calls)) await assert.rejects(call(), { ...self, command })
    await assert.rejects(dynsec.batch([{ command: 'enableClient', username: 'u' }, { command: 'deleteClient', username: 'admin' }]), self)
    assert.deepEqual(link.commands, [['getGroup']])
    assert.deepEqual(Object.keys(calls).sort(),
      Object.entries(commands).filter(([, { touches }]) => touches.length > 0).map(([name]) => name).sort())
  })

  test('others are not, and neither is the own account with allowSelf', async () => {
    const { link, dynsec } = fakeAdmin()
    await dynsec.clients.setPassword('other', 'x')
    await dynsec.clients.enable('admin')
    await dynsec.clients.setPassword('admin', 'x', { allowSelf: true })
    assert.deepEqual(link.commands, [['setClientPassword'], ['enableClient'], ['setClientPassword']])
    const nobody = fakeAdmin({ username: undefined })
    await nobody.dynsec.clients.setPassword('admin', 'x')
    assert.deepEqual(nobody.link.sent[0]?.commands.map(({ command }) => command), ['getDetails'])
  })

  test('deleting the anonymous group, or one that the batch makes that, is FORBIDDEN', async () => {
    const { link, dynsec } = fakeAdmin()
    answer(link, { getAnonymousGroup: { data: { group: { groupname: 'nobody' } } } })
    const forbidden = { code: 'FST_MQTT_DYNSEC_FORBIDDEN', statusCode: 403, command: 'deleteGroup' }
    await assert.rejects(dynsec.groups.delete('nobody', { ifMissing: 'ignore' }), forbidden)
    await assert.rejects(dynsec.batch([
      { command: 'setAnonymousGroup', groupname: 'g' }, { command: 'deleteGroup', groupname: 'g' }
    ]), forbidden)
    await assert.rejects(dynsec.raw('deleteGroup', { groupname: 'nobody' }), forbidden)
    await dynsec.groups.delete('g')
    assert.deepEqual(link.commands.flat().filter((command) => command !== 'getAnonymousGroup'), ['deleteGroup'])
  })

  test('a role is taken from all who have it before it is deleted, in one go', async () => {
    const { link, dynsec } = fakeAdmin()
    answer(link, {
      listClients: {
        data: {
          totalCount: 2,
          clients: [
            // A plugin that was loaded twice has everything twice.
            { username: 'a', roles: [{ rolename: 'r' }, { rolename: 'r' }, { rolename: 's' }], groups: [] },
            { username: 'b', roles: [{ rolename: 's' }], groups: [] }
          ]
        }
      },
      listGroups: { data: { totalCount: 1, groups: [{ groupname: 'g', clients: [], roles: [{ rolename: 'r', priority: 3 }] }] } }
    })
    await dynsec.roles.delete('r')
    const [read, write] = link.sent.slice(1)
    assert.deepEqual(read?.commands.map(({ command, verbose }) => [command, verbose]), [['listClients', true], ['listGroups', true]])
    assert.deepEqual(write?.commands.map(({ command, username, groupname, rolename }) =>
      [command, username ?? groupname, rolename]), [
      ['removeClientRole', 'a', 'r'], ['removeGroupRole', 'g', 'r'], ['deleteRole', undefined, 'r']
    ])
  })

  test('the own account loses such a role last', async () => {
    const { link, dynsec } = fakeAdmin()
    answer(link, {
      listClients: {
        data: {
          totalCount: 2,
          clients: ['admin', 'b'].map((username) =>
            ({ username, roles: [{ rolename: 'admin' }], groups: [] }))
        }
      }
    })
    await dynsec.roles.delete('admin', { allowSelf: true })
    assert.deepEqual(link.sent.at(-1)?.commands.map(({ username, command }) => username ?? command), ['b', 'admin', 'deleteRole'])
  })

  test('what only Mosquitto 2.1 understands is UNSUPPORTED before: it would allow more than it says', async () => {
    const unsupported = { code: 'FST_MQTT_DYNSEC_UNSUPPORTED', statusCode: 501 }
    const calls = (dynsec: ReturnType<typeof fakeAdmin>['dynsec']) => [
      () => dynsec.roles.create({ rolename: 'r', allowwildcardsubs: false }),
      () => dynsec.roles.modify('r', { allowwildcardsubs: false }),
      () => dynsec.roles.addAcl('r', { ...acl, topic: 'k/%u/#' }),
      () => dynsec.roles.create({ rolename: 'r', acls: [acl, { ...acl, topic: '%c' }] })
    ]
    const older = fakeAdmin()
    for (const call of calls(older.dynsec)) await assert.rejects(call(), unsupported)
    assert.deepEqual(older.link.commands, [])
    await older.dynsec.roles.create({ rolename: 'r', allowwildcardsubs: true, acls: [{ ...acl, topic: 'x%u' }] })
    await older.dynsec.roles.removeAcl('r', { acltype: 'publishClientSend', topic: '%u' })
    const newer = fakeAdmin()
    answer(newer.link, { getDetails: { data: detailsOf21 } })
    for (const call of calls(newer.dynsec)) await call()
  })
})

suite('what is created in several steps', () => {
  const names = (link: FakeControlLink) => link.commands.flat()

  test('roles and groups are assigned once the client is there: by name, by pair, by object', async () => {
    const { link, dynsec } = fakeAdmin()
    await dynsec.clients.create({
      username: 'u',
      password: 'p',
      clientid: 'c',
      textname: 'U',
      roles: ['one', ['two', 5], { rolename: 'three', priority: -1 }],
      groups: ['g', { groupname: 'h' }]
    })
    const [create, assign] = link.sent.slice(1).map(({ commands }) =>
      commands.map(({ correlationData, ...fields }) => fields))
    assert.deepEqual(create, [{ command: 'createClient', username: 'u', password: 'p', clientid: 'c', textname: 'U' }])
    assert.deepEqual(assign, [
      { command: 'addClientRole', username: 'u', rolename: 'one' },
      { command: 'addClientRole', username: 'u', rolename: 'two', priority: 5 },
      { command: 'addClientRole', username: 'u', rolename: 'three', priority: -1 },
      { command: 'addGroupClient', username: 'u', groupname: 'g' },
      { command: 'addGroupClient', username: 'u', groupname: 'h' }
    ])
  })

  test('a client that exists gets no role from it, whatever ifExists says', async () => {
    const { link, dynsec } = fakeAdmin()
    answer(link, { createClient: { error: 'Client already exists' } })
    await assert.rejects(dynsec.clients.create({ username: 'u', roles: ['r'] }), { code: 'FST_MQTT_DYNSEC_ALREADY_EXISTS' })
    await dynsec.clients.create({ username: 'u', roles: ['r'] }, { ifExists: 'ignore' })
    assert.deepEqual(names(link), ['createClient', 'createClient'])
  })

  test('if the broker refuses an assignment nothing is left', async () => {
    const { link, dynsec } = fakeAdmin()
    answer(link, { addClientRole: { error: 'Role not found' }, addGroupRole: { error: 'Role not found' } })
    const missing = { code: 'FST_MQTT_DYNSEC_NOT_FOUND', command: 'addClientRole' }
    await assert.rejects(dynsec.clients.create({ username: 'u', roles: ['r'], groups: ['g'] }), missing)
    assert.deepEqual(names(link), ['createClient', 'addClientRole', 'addGroupClient', 'deleteClient'])
    await assert.rejects(dynsec.groups.create({ groupname: 'g', roles: [['r', 3]] }), { ...missing, command: 'addGroupRole' })
    assert.deepEqual(names(link).slice(4), ['createGroup', 'addGroupRole', 'getAnonymousGroup', 'deleteGroup'])
  })

  test('if that cannot be had the error says what is there: INCOMPLETE', async () => {
    const lost = fakeAdmin()
    answer(lost.link, {
      addClientRole: () => {
        setImmediate(() => lost.link.down())
        return undefined
      }
    })
    await assert.rejects(lost.dynsec.clients.create({ username: 'u', roles: ['r'] }), (error: DynsecError) => {
      assert.equal(error.code, 'FST_MQTT_DYNSEC_INCOMPLETE')
      assert.match(error.message, /^createClient 'u' succeeded, but what belongs to it did not: The connection to .* was lost/)
      assert.equal((error.cause as DynsecError).code, 'FST_MQTT_DYNSEC_OUTCOME_UNKNOWN')
      return true
    })
    const stuck = fakeAdmin()
    answer(stuck.link, { addClientRole: { error: 'Role not found' }, deleteClient: { error: 'Internal error' } })
    await assert.rejects(stuck.dynsec.clients.create({ username: 'u', roles: ['r'] }), (error: DynsecError) => {
      assert.equal((error.cause as DynsecError).code, 'FST_MQTT_DYNSEC_INTERNAL')
      return error.code === 'FST_MQTT_DYNSEC_INCOMPLETE'
    })
  })
})

suite('the verbs', () => {
  const without = ({ correlationData, ...fields }: SentCommand) => fields
  /** What one call sent as its last message. */
  async function sentBy (call: (dynsec: ReturnType<typeof fakeAdmin>['dynsec']) => Promise<unknown>, link = fakeAdmin({ prefix: 'site' })) {
    await call(link.dynsec)
    return link.link.sent.at(-1)?.commands.map(without)
  }
  const removal = { acltype: 'publishClientSend', topic: 'a' } as const

  test('each sends its command', async () => {
    const [username, groupname, rolename] = ['u', 'g', 'r']
    const cases: readonly [(dynsec: ReturnType<typeof fakeAdmin>['dynsec']) => Promise<unknown>, SentCommandLike[]][] = [
      [({ clients }) => clients.create({ username }), [{ command: 'createClient', username }]],
      [({ clients }) => clients.delete('u'), [{ command: 'deleteClient', username }]],
      [({ clients }) => clients.list({ count: 5, offset: 10 }), [{ command: 'listClients', count: 5, offset: 10 }]],
      [({ clients }) => clients.list({ verbose: true }), [{ command: 'listClients', verbose: true }]],
      [({ clients }) => clients.modify('u', { textname: 'U', clientid: '' }), [{ command: 'modifyClient', textname: 'U', clientid: '', username }]],
      [({ clients }) => clients.enable('u'), [{ command: 'enableClient', username }]],
      [({ clients }) => clients.disable('u'), [{ command: 'disableClient', username }]],
      [({ clients }) => clients.setPassword('u', 'p'), [{ command: 'setClientPassword', username, password: 'p' }]],
      [({ clients }) => clients.setId('u', 'c'), [{ command: 'setClientId', username, clientid: 'c' }]],
      [({ clients }) => clients.setId('u', undefined), [{ command: 'setClientId', username }]],
      [({ clients }) => clients.addRole('u', 'r', { priority: 3 }), [{ command: 'addClientRole', username, rolename, priority: 3 }]],
      [({ clients }) => clients.removeRole('u', 'r'), [{ command: 'removeClientRole', username, rolename }]],
      [({ clients }) => clients.kick('u'), [{ command: 'modifyClient', username }]],
      [({ groups }) => groups.create({ groupname, textname: 'G' }), [{ command: 'createGroup', groupname, textname: 'G' }]],
      [({ groups }) => groups.list({ verbose: false }), [{ command: 'listGroups', verbose: false }]],
      [({ groups }) => groups.modify('g', { textdescription: 'x' }), [{ command: 'modifyGroup', textdescription: 'x', groupname }]],
      [({ groups }) => groups.addClient('g', 'u', { priority: 1 }), [{ command: 'addGroupClient', groupname, username, priority: 1 }]],
      [({ groups }) => groups.removeClient('g', 'u'), [{ command: 'removeGroupClient', groupname, username }]],
      [({ groups }) => groups.addRole('g', 'r'), [{ command: 'addGroupRole', groupname, rolename }]],
      [({ groups }) => groups.removeRole('g', 'r'), [{ command: 'removeGroupRole', groupname, rolename }]],
      [({ groups }) => groups.setAnonymous('g'), [{ command: 'setAnonymousGroup', groupname }]],
      [({ groups }) => groups.getAnonymous(), [{ command: 'getAnonymousGroup' }]],
      [({ roles }) => roles.create({ rolename, acls: [acl] }), [{ command: 'createRole', rolename, acls: [{ ...acl, topic: 'site/a/b' }] }]],
      [({ roles }) => roles.list(), [{ command: 'listRoles' }]],
      [({ roles }) => roles.modify('r', { acls: [], textname: 'R' }), [{ command: 'modifyRole', acls: [], textname: 'R', rolename }]],
      [({ roles }) => roles.addAcl('r', acl), [{ command: 'addRoleACL', ...acl, topic: 'site/a/b', rolename }]],
      [({ roles }) => roles.removeAcl('r', removal), [{ command: 'removeRoleACL', ...removal, topic: 'site/a', rolename }]],
      [({ defaults }) => defaults.get(), [{ command: 'getDefaultACLAccess' }]],
      [({ defaults }) => defaults.set({ subscribe: true, unsubscribe: undefined }),
        [{ command: 'setDefaultACLAccess', acls: [{ acltype: 'subscribe', allow: true }] }]],
      [(dynsec) => dynsec.raw('listGroups'), [{ command: 'listGroups' }]],
      [(dynsec) => dynsec.raw('addRoleACL', { rolename, ...acl }), [{ command: 'addRoleACL', rolename, ...acl, topic: 'site/a/b' }]]
    ]
    for (const [call, expected] of cases) assert.deepEqual(await sentBy(call), expected, String(call))
  })

  test("the seed's six helpers, with its arguments", async () => {
    const [username, rolename, acltype] = ['u', 'r', 'subscribeLiteral'] as const
    const admin = fakeAdmin({ prefix: 'site' })
    await admin.dynsec.addClient('u', 'p', { clientid: 'c', roles: ['r', ['s', 7]] })
    assert.deepEqual(admin.link.sent.slice(1).map(({ commands }) => commands.map(without)), [
      [{ command: 'createClient', username, password: 'p', clientid: 'c' }],
      [{ command: 'addClientRole', username, rolename }, { command: 'addClientRole', username, rolename: 's', priority: 7 }]
    ])
    assert.deepEqual(await sentBy((dynsec) => dynsec.addClient('u', 'p')), [{ command: 'createClient', username, password: 'p' }])
    assert.deepEqual(await sentBy((dynsec) => dynsec.deleteClient('u')), [{ command: 'deleteClient', username }])
    assert.deepEqual(await sentBy((dynsec) => dynsec.createRole('r')), [{ command: 'createRole', rolename }])
    assert.deepEqual(await sentBy((dynsec) => dynsec.deleteRole('r')), [{ command: 'deleteRole', rolename }])
    assert.deepEqual(await sentBy((dynsec) => dynsec.addRoleAcl('r', acltype, 'a', true)),
      [{ command: 'addRoleACL', acltype, topic: 'site/a', allow: true, rolename }])
    assert.deepEqual(await sentBy((dynsec) => dynsec.addRoleAcl('r', acltype, '$SYS/#', false, 3, { absolute: true })),
      [{ command: 'addRoleACL', acltype, topic: '$SYS/#', allow: false, priority: 3, rolename }])
    assert.deepEqual(await sentBy((dynsec) => dynsec.removeRoleAcl('r', acltype, 'a')),
      [{ command: 'removeRoleACL', acltype, topic: 'site/a', rolename }])
    assert.deepEqual(await sentBy((dynsec) => dynsec.removeRoleAcl('r', acltype, '$SYS/#', { absolute: true })),
      [{ command: 'removeRoleACL', acltype, topic: '$SYS/#', rolename }])
  })

  test('ifExists and ifMissing let one refusal pass, and no other', async () => {
    const { link, dynsec } = fakeAdmin()
    const ifExists = [
      () => dynsec.clients.create({ username: 'u' }, { ifExists: 'ignore' }), () => dynsec.groups.create({ groupname: 'g' }, { ifExists: 'ignore' }),
      () => dynsec.roles.create({ rolename: 'r' }, { ifExists: 'ignore' }), () => dynsec.clients.addRole('u', 'r', { ifExists: 'ignore' }),
      () => dynsec.groups.addClient('g', 'u', { ifExists: 'ignore' }), () => dynsec.groups.addRole('g', 'r', { ifExists: 'ignore' }),
      () => dynsec.roles.addAcl('r', acl, { ifExists: 'ignore' }), () => dynsec.createRole('r', { ifExists: 'ignore' })
    ]
    const ifMissing = [
      () => dynsec.clients.delete('u', { ifMissing: 'ignore' }), () => dynsec.groups.delete('g', { ifMissing: 'ignore' }),
      () => dynsec.roles.delete('r', { ifMissing: 'ignore' }), () => dynsec.clients.get('u', { ifMissing: 'ignore' }),
      () => dynsec.groups.get('g', { ifMissing: 'ignore' }), () => dynsec.roles.get('r', { ifMissing: 'ignore' }),
      () => dynsec.clients.removeRole('u', 'r', { ifMissing: 'ignore' }), () => dynsec.groups.removeRole('g', 'r', { ifMissing: 'ignore' }),
      () => dynsec.groups.removeClient('g', 'u', { ifMissing: 'ignore' }), () => dynsec.roles.removeAcl('r', removal, { ifMissing: 'ignore' }),
      () => dynsec.deleteClient('u', { ifMissing: 'ignore' }), () => dynsec.deleteRole('r', { ifMissing: 'ignore' })
    ]
    await dynsec.capabilities()
    const reads = ['getAnonymousGroup', 'listClients', 'listGroups']
    const refuseWith = (error: string) => {
      link.respond = (sent) => reads.includes(sent.command) ? playMosquitto20(sent) : { error }
    }
    refuseWith('Role already exists')
    for (const call of ifExists) assert.equal(await call(), undefined)
    for (const call of ifMissing) await assert.rejects(call(), { code: 'FST_MQTT_DYNSEC_ALREADY_EXISTS' })
    refuseWith('Role not found')
    for (const call of ifMissing) assert.equal(await call(), undefined)
    for (const call of ifExists) await assert.rejects(call(), { code: 'FST_MQTT_DYNSEC_NOT_FOUND' })
  })

  test('a snapshot is one message, whatever the chunk', async () => {
    const { link, dynsec } = fakeAdmin({ prefix: 'site', chunk: 1 })
    answer(link, {
      getAnonymousGroup: { data: { group: { groupname: 'nobody' } } },
      listRoles: { data: { totalCount: 1, roles: [{ rolename: 'r', acls: [{ ...acl, topic: 'site/a/b', priority: 0 }] }] } }
    })
    assert.deepEqual(await dynsec.snapshot(), {
      defaults: { subscribe: false },
      anonymousGroup: 'nobody',
      clients: [],
      groups: [],
      details: undefined,
      roles: [{ rolename: 'r', acls: [{ ...acl, priority: 0 }] }]
    })
    assert.deepEqual(link.commands, [['getDefaultACLAccess', 'getAnonymousGroup', 'listClients', 'listGroups', 'listRoles']])
    answer(link, { listRoles: { error: 'Internal error' } })
    await assert.rejects(dynsec.snapshot(), { code: 'FST_MQTT_DYNSEC_INTERNAL', command: 'listRoles' })
  })

  test('raw with unchecked sends what it is given, and gives what comes', async () => {
    const { link, dynsec } = fakeAdmin({ prefix: 'site' })
    answer(link, { createClient: { data: 'anything' }, nonsense: { error: 'Unknown command' }, late: undefined })
    const fields = { username: '', roles: [{ rolename: 'r' }], topic: 'a' }
    assert.equal(await dynsec.raw('createClient', fields, { unchecked: true }), 'anything')
    assert.deepEqual(link.sent.at(-1)?.commands.map(without), [{ command: 'createClient', ...fields }])
    await assert.rejects(dynsec.raw('nonsense', {}, { unchecked: true }), {
      code: 'FST_MQTT_DYNSEC_UNSUPPORTED', command: 'nonsense', brokerMessage: 'Unknown command'
    })
    await assert.rejects(dynsec.raw('late', {}, { unchecked: true, timeout: 5 }), {
      code: 'FST_MQTT_DYNSEC_REPLY_LOST', command: 'late'
    })
    await assert.rejects(dynsec.raw('nonsense' as 'getDetails'), invalid)
  })
})

type SentCommandLike = Record<string, unknown>

// Recorded from Mosquitto 2.1.2 (and 2.0.11, where that is said), which is not at hand here: the replies as
// they were on the wire, but for the correlation data, which has to be that of the question.
suite('recorded from Mosquitto 2.1.2', () => {
  const details = '{"responses":[{"command":"getDetails","data":{"clientCount":1,"groupCount":0,"roleCount":1,"changeIndex":0},' +
    '"correlationData":"x"},{"command":"getClient","data":{"client":{"username":"admin","roles":[{"rolename":"super-admin"}],' +
    '"groups":[],"connections":[{"address":"127.0.0.1"}]}},"correlationData":"y"}]}'

  /** Gives the recorded replies, one after another, and what was asked. */
  function replay (link: FakeControlLink, ...recorded: readonly string[]): void {
    const replies = [details, ...recorded]
    link.respond = () => undefined
    const publish = link.publish.bind(link)
    link.publish = async (topic, payload, options) => {
      await publish(topic, payload, options)
      const ids = link.sent.at(-1)?.commands.map(({ correlationData }) => correlationData) ?? []
      link.reply((replies.shift() ?? '{}').replaceAll(/"correlationData":"[^"]*"/g, () => `"correlationData":${JSON.stringify(ids.shift())}`))
    }
  }
  const asked = (link: FakeControlLink) => link.sent.slice(1).map(({ commands }) =>
    JSON.stringify(commands.map(({ correlationData, ...fields }) => fields)))

  test('createRole', async () => {
    const { link, dynsec } = fakeAdmin({ prefix: 'myprefix' })
    replay(link, '{"responses":[{"command":"createRole","correlationData":"1"}]}')
    await dynsec.roles.create({
      rolename: 'sensor',
      textname: 'Sensor',
      acls: [
        { acltype: 'publishClientSend', topic: 'sensor/+/data', priority: 0, allow: true },
        { acltype: 'subscribeLiteral', topic: 'cmd/+', priority: 0, allow: true },
        { acltype: 'publishClientReceive', topic: 'cmd/+', priority: 0, allow: true }
      ]
    })
    const [request = ''] = asked(link)
    assert.deepEqual(JSON.parse(request), JSON.parse('[{"command":"createRole","rolename":"sensor","textname":"Sensor","acls":[' +
      '{"acltype":"publishClientSend","topic":"myprefix/sensor/+/data","priority":0,"allow":true},' +
      '{"acltype":"subscribeLiteral","topic":"myprefix/cmd/+","priority":0,"allow":true},' +
      '{"acltype":"publishClientReceive","topic":"myprefix/cmd/+","priority":0,"allow":true}]}]'))
  })

  test('createClient and addClientRole, one refused', async () => {
    const { link, dynsec } = fakeAdmin()
    replay(link, '{"responses":[{"command":"createClient","correlationData":"2"},{"command":"addClientRole","correlationData":"3"},' +
      '{"command":"addClientRole","error":"Role not found","correlationData":"4"}]}')
    const settled = await dynsec.batch([
      { command: 'createClient', username: 'dev1', password: 's3cret', textname: 'Device 1' },
      { command: 'addClientRole', username: 'dev1', rolename: 'sensor', priority: 5 },
      { command: 'addClientRole', username: 'dev1', rolename: 'nope' }
    ])
    assert.deepEqual(asked(link), ['[{"command":"createClient","username":"dev1","password":"s3cret","textname":"Device 1"},' +
      '{"command":"addClientRole","username":"dev1","rolename":"sensor","priority":5},' +
      '{"command":"addClientRole","username":"dev1","rolename":"nope"}]'])
    assert.deepEqual(settled.map((one) => one.status === 'rejected' ? one.reason.code : one.status),
      ['fulfilled', 'fulfilled', 'FST_MQTT_DYNSEC_NOT_FOUND'])
  })

  const role = '{"rolename":"sensor","textname":"Sensor","allowwildcardsubs":true,"acls":[' +
    '{"acltype":"publishClientSend","topic":"myprefix/sensor/+/data","priority":0,"allow":true},' +
    '{"acltype":"publishClientReceive","topic":"myprefix/cmd/+","priority":0,"allow":true},' +
    '{"acltype":"subscribeLiteral","topic":"myprefix/cmd/+","priority":0,"allow":true}]}'

  test('getClient with connections, getRole with allowwildcardsubs', async () => {
    const { link, dynsec } = fakeAdmin({ prefix: 'myprefix' })
    replay(link, '{"responses":[{"command":"getClient","data":{"client":{"username":"dev1","textname":"Device 1","roles":[{"rolename":"sensor",' +
      `"priority":5}],"groups":[],"connections":[]}},"correlationData":"5"},{"command":"getRole","data":{"role":${role}},"correlationData":"6"}]}`,
    '{"responses":[{"command":"createRole","correlationData":"7"}]}')
    const [client, sensor] = await dynsec.batch([{ command: 'getClient', username: 'dev1' }, { command: 'getRole', rolename: 'sensor' }])
    assert.deepEqual(client, {
      status: 'fulfilled',
      value: {
        client: {
          username: 'dev1', textname: 'Device 1', roles: [{ rolename: 'sensor', priority: 5 }], groups: [], connections: []
        }
      }
    })
    assert.ok(sensor.status === 'fulfilled')
    const { acls, allowwildcardsubs } = sensor.value.role
    assert.deepEqual([allowwildcardsubs, acls.map(({ topic }) => topic)], [true, ['sensor/+/data', 'cmd/+', 'cmd/+']])
    await dynsec.roles.create(sensor.value.role)
    const [, written = ''] = asked(link)
    assert.deepEqual(JSON.parse(written), [{ command: 'createRole', ...JSON.parse(role) as object }])
  })

  test('the same from 2.0.11, without both', async () => {
    const { link, dynsec } = fakeAdmin({ prefix: 'myprefix' })
    answer(link, {
      getClient: ({ username }) => ({ data: { client: { username, textname: 'Device 1', roles: [{ rolename: 'sensor', priority: 5 }], groups: [] } } }),
      getRole: { data: { role: { rolename: 'sensor', acls: [] } } }
    })
    assert.equal((await dynsec.clients.get('dev1')).connections, undefined)
    assert.equal((await dynsec.roles.get('sensor')).allowwildcardsubs, undefined)
  })

  test('a group', async () => {
    const { link, dynsec } = fakeAdmin()
    replay(link, '{"responses":[{"command":"createGroup","correlationData":"9"},{"command":"addGroupRole","correlationData":"10"},' +
      '{"command":"addGroupClient","correlationData":"11"},{"command":"getGroup","data":{"group":{"groupname":"g","clients":[{"username":"dev1"}],' +
      '"roles":[{"rolename":"sensor"}]}},"correlationData":"12"}]}')
    const [, , , group] = await dynsec.batch([
      { command: 'createGroup', groupname: 'g' }, { command: 'addGroupRole', groupname: 'g', rolename: 'sensor' },
      { command: 'addGroupClient', groupname: 'g', username: 'dev1', priority: 1 }, { command: 'getGroup', groupname: 'g' }
    ])
    assert.deepEqual(group, {
      status: 'fulfilled',
      value: {
        group: { groupname: 'g', clients: [{ username: 'dev1' }], roles: [{ rolename: 'sensor' }] }
      }
    })
  })

  test('getDetails, and a snapshot with it', async () => {
    const one = '{"responses":[{"command":"getDetails","data":{"clientCount":1,"groupCount":0,"roleCount":1,"changeIndex":0},"correlationData":"x"}]}'
    const { link, dynsec } = fakeAdmin()
    replay(link, one)
    assert.deepEqual(await dynsec.details(), { clientCount: 1, groupCount: 0, roleCount: 1, changeIndex: 0 })
    answer(link, {
      getDetails: { data: { clientCount: 1, groupCount: 0, roleCount: 1, changeIndex: 7 } },
      ...Object.fromEntries(['getDefaultACLAccess', 'getAnonymousGroup', 'listClients', 'listGroups', 'listRoles']
        .map((command) => [command, playMosquitto20]))
    })
    assert.equal((await dynsec.snapshot()).details?.changeIndex, 7)
  })

  test('no plugin: "endpoint not available", to the sender alone, without correlation data', async () => {
    const { link, dynsec } = fakeAdmin()
    link.respond = () => {
      link.reply('{"error": "endpoint not available"}')
      return undefined
    }
    await assert.rejects(dynsec.roles.list(), {
      code: 'FST_MQTT_DYNSEC_PLUGIN_ABSENT',
      statusCode: 502,
      message: "mqtt://127.0.0.1:1883 has no dynamic security plugin here, it says 'endpoint not available'"
    })
    assert.deepEqual(link.subscribed, [])
  })
})

test('secrets: nothing that can be printed has a password', async () => {
  const canary = 'canary-in-the-password'
  const { link, dynsec } = fakeAdmin()
  answer(link, { createClient: { error: 'Client already exists' }, setClientPassword: { error: canary.slice(0, 3) } })
  const seen: string[] = []
  const look = (thing: unknown) => {
    seen.push(inspect(thing, { depth: 12, showHidden: true }), String(thing), JSON.stringify(thing))
  }
  const waiting = fakeAdmin()
  await waiting.dynsec.capabilities()
  waiting.link.respond = () => undefined
  const pending = waiting.dynsec.clients.create({ username: 'u', password: canary })
  look(waiting.dynsec)
  waiting.link.down()
  const failures = await Promise.allSettled([
    pending,
    dynsec.clients.create({ username: 'u', password: canary }),
    dynsec.clients.setPassword('u', canary),
    dynsec.clients.setPassword('u', `${canary}\0`),
    dynsec.clients.setPassword('u', canary.repeat(10_000)),
    dynsec.clients.setPassword('u', [canary] as never),
    dynsec.clients.create({ username: '', password: canary }),
    dynsec.clients.create({ username: 'u', password: canary, roles: [5 as never] }),
    dynsec.batch([{ command: 'createClient', username: 'u', password: canary, textname: 5 as never }]),
    dynsec.addClient('', canary)
  ])
  for (const failure of failures) {
    assert.ok(failure.status === 'rejected')
    look(failure.reason)
    look((failure.reason as Error).stack)
  }
  look(dynsec)
  look(await dynsec.batch([{ command: 'createClient', username: 'u', password: canary }]))
  assert.deepEqual(seen.filter((text) => text.includes(canary)), [])
})

test('docs/dynsec.md has a row for each command, with the fields that it takes', () => {
  const page = readFileSync(join(root, 'docs/dynsec.md'), 'utf8')
  const rows = [...page.matchAll(/^\| `(\w+)` \| (.*) \| (.*) \|$/gm)].map(([row]) => row)
  const expected = Object.entries<CommandSpec>(commands).map(([name, { does, request }]) => {
    const fields = Object.keys(request.properties)
      .map((field) => `\`${field}\`${request.required?.includes(field) === true ? '' : '?'}`)
    return `| \`${name}\` | ${fields.join(' ') || '–'} | ${does} |`
  })
  assert.deepEqual(rows.slice(-expected.length), expected)
})
