import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { generate } from 'mqtt-packet'
import type { PublishProperties, QoS } from '../types/message.ts'
import { describeError, errorCode, errors } from '../lib/errors.ts'
import {
  levelProblem, maxFieldBytes, maxTopicLevels, propertiesProblem, publishSize, qosProblem, textProblem,
  topicFilterProblem, topicNameProblem
} from '../lib/guard.ts'
import { booleanNamed, defined, describe, isRecord, kindOf, recordProblem } from '../lib/values.ts'

const tooLong = 'x'.repeat(maxFieldBytes + 1)
const levels = (count: number) => Array(count).fill('a').join('/')

// What no string of a packet may have, whatever it is for.
const badTexts: [what: string, text: unknown, says: RegExp][] = [
  ['a number', 42, /has to be a string, not a number/],
  ['undefined', undefined, /has to be a string, not undefined/],
  ['null', null, /has to be a string, not null/],
  ['a Buffer', Buffer.from('a'), /has to be a string, not an object \(Buffer\)/],
  ['NUL', 'a\0b', /the character U\+0000, which brokers refuse/],
  ['a C0 control character', 'a\u0001', /U\+0001/],
  ['a line feed', 'a\n', /U\+000A/],
  ['a C1 control character', '\u0085', /U\+0085/],
  ['the noncharacter U+FFFF', 'a\uffff', /U\+FFFF/],
  ['a noncharacter beyond the BMP', '\u{1fffe}', /U\+1FFFE/],
  ['a lone high surrogate', '\ud800x', /lone surrogate/],
  ['a lone low surrogate', 'x\udc00', /lone surrogate/],
  ['65,536 bytes', tooLong, /65536 bytes, at most 65535/],
  ['65,537 bytes in fewer characters', 'ä'.repeat(32_768) + 'x', /65537 bytes, at most 65535/]
]

const goodTexts = ['', ' ', 'ä', '日本', '🙂', '\ufeff', '\u00a0', 'x'.repeat(maxFieldBytes), 'ä'.repeat(32_767)]

function expectProblem (problem: string | undefined, says: RegExp) {
  assert.match(problem ?? 'no problem', says)
}

for (const [what, text, says] of badTexts) {
  test(`textProblem: refuses ${what}`, () => expectProblem(textProblem(text), says))
  test(`topicNameProblem: refuses ${what}`, () => expectProblem(topicNameProblem(text), says))
  test(`topicFilterProblem: refuses ${what}`, () => expectProblem(topicFilterProblem(text), says))
  test(`levelProblem: refuses ${what}, also in a path`, () => {
    expectProblem(levelProblem(text), says)
    expectProblem(levelProblem(text, true), says)
  })
}

test('textProblem: accepts text of up to 65,535 bytes', () => {
  for (const text of goodTexts) assert.equal(textProblem(text), undefined)
})

test('textProblem: what it accepts is the same after UTF-8, and has no control character', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => {
    if (textProblem(text) !== undefined) return
    assert.equal(Buffer.from(text).toString(), text)
    // eslint-disable-next-line no-control-regex -- this is the point
    assert.doesNotMatch(text, /[\u0000-\u001f\u007f-\u009f]/)
  }))
})

test('topicNameProblem: accepts every other topic, with empty levels, $ and 200 levels', () => {
  const names = ['a', '/', '//', 'a/', '/a', '$SYS/x', 'a b', 'c{1}/(x', '$shared/x', '日本/🙂']
  for (const name of [...names, levels(maxTopicLevels)]) assert.equal(topicNameProblem(name), undefined)
})

for (const [name, says] of [
  ['', /it is empty/],
  ['a/+', /no wildcards \+ and #/],
  ['a/#', /no wildcards \+ and #/],
  ['c++', /no wildcards \+ and #/],
  ['$share/g/t', /\$share is for subscriptions/],
  ['$share', /\$share is for subscriptions/],
  [levels(201), /it has 201 levels, brokers accept 200/]
] as const) {
  test(`topicNameProblem: refuses '${name.slice(0, 12)}'`, () => expectProblem(topicNameProblem(name), says))
}

test('topicFilterProblem: accepts wildcards as whole levels, and shared subscriptions', () => {
  const filters = [
    'a', '+', '#', '/', 'a/#', '+/+/#', '+//#', '$SYS/#', '$share/g/t', '$share/g//t', '$share/g/#', '$share/g-1/+/x',
    levels(maxTopicLevels)
  ]
  for (const filter of filters) assert.equal(topicFilterProblem(filter), undefined, filter)
})

for (const [filter, says] of [
  ['', /it is empty/],
  ['a#', /a wildcard must be a whole level, 'a#' is not/],
  ['a/b+/c', /a wildcard must be a whole level, 'b\+' is not/],
  ['a/##', /a wildcard must be a whole level, '##' is not/],
  ['#/a', /'#' must be the last level/],
  ['$share', /\$share\/<group>\/<filter>/],
  ['$share/g', /\$share\/<group>\/<filter>/],
  ['$share/g/', /\$share\/<group>\/<filter>/],
  ['$share//t', /\$share\/<group>\/<filter>/],
  ['$share/g+/t', /the group of a shared subscription has no wildcards/],
  ['$share/#/t', /the group of a shared subscription has no wildcards/],
  [levels(201), /it has 201 levels/]
] as const) {
  test(`topicFilterProblem: refuses '${filter.slice(0, 12)}'`, () => expectProblem(topicFilterProblem(filter), says))
}

test('levelProblem: refuses the empty text and whatever would make other levels or wildcards', () => {
  for (const [text, says] of [['', /empty/], ['a/b', /has a \//], ['a+', /has a \+/], ['#', /has a #/]] as const) {
    expectProblem(levelProblem(text), says)
  }
  for (const text of ['a', '$SYS', '<x>', '..', ' ']) assert.equal(levelProblem(text), undefined)
})

test('levelProblem: lets a path have slashes, and still no wildcards', () => {
  assert.equal(levelProblem('a/b//c', true), undefined)
  expectProblem(levelProblem('a/+', true), /has a \+/)
  expectProblem(levelProblem('', true), /empty/)
})

for (const [what, properties, says] of [
  ['no object', 'x', /have to be an object, not a string/],
  ['a list', [], /not an array/],
  ['an unknown name', { foo: 1 }, /there is no property 'foo': there are payloadFormatIndicator, /],
  ['topicAlias, which a broker bounds', { topicAlias: 1 }, /there is no property 'topicAlias'/],
  ['names that every object inherits', { hasOwnProperty: 1 }, /there is no property 'hasOwnProperty'/],
  ['__proto__', JSON.parse('{"__proto__":1}'), /there is no property '__proto__'/],
  ['payloadFormatIndicator 1', { payloadFormatIndicator: 1 }, /'payloadFormatIndicator': .*boolean, not a number/],
  ['a negative expiry', { messageExpiryInterval: -1 }, /from 0 to 4294967295, not -1/],
  ['an expiry beyond 32 bits', { messageExpiryInterval: 2 ** 32 }, /not 4294967296/],
  ['a broken expiry', { messageExpiryInterval: 1.5 }, /whole number of seconds/],
  ['an expiry as text', { messageExpiryInterval: '5' }, /not '5'/],
  ['a number as contentType', { contentType: 5 }, /'contentType': .*string, not a number/],
  ['null as contentType', { contentType: null }, /string, not null/],
  ['a long contentType', { contentType: tooLong }, /65536 bytes/],
  ['a wildcard in responseTopic', { responseTopic: 'evil/#' }, /'responseTopic': .*no wildcards/],
  ['an empty responseTopic', { responseTopic: '' }, /'responseTopic': it is empty/],
  ['a long responseTopic', { responseTopic: tooLong }, /65536 bytes/],
  ['text as correlationData', { correlationData: 'x' }, /Buffer or Uint8Array, not a string/],
  ['long correlationData', { correlationData: Buffer.alloc(65_536) }, /65536 bytes, at most 65535/],
  ['userProperties that are no object', { userProperties: ['a'] }, /'userProperties': it has to be an object/],
  ['null in userProperties', { userProperties: { a: null } }, /'a': it has to be a string, not null/],
  ['an empty list in userProperties', { userProperties: { a: [] } }, /'a': the list is empty/],
  ['a number in a list of userProperties', { userProperties: { a: ['x', 1] } }, /'a': .*not a number/],
  ['a NUL in the name of a user property', { userProperties: { 'a\0': 'x' } }, /name .*U\+0000/],
  ['a long user property', { userProperties: { a: tooLong } }, /'a': it has 65536 bytes/]
] as const) {
  test(`propertiesProblem: refuses ${what}`, () => expectProblem(propertiesProblem(properties), says))
}

test('propertiesProblem: accepts what a packet can carry', () => {
  for (const properties of [
    {},
    { contentType: undefined },
    { userProperties: {} },
    {
      payloadFormatIndicator: true,
      messageExpiryInterval: 2 ** 32 - 1,
      responseTopic: 'a/b',
      correlationData: new Uint8Array(maxFieldBytes),
      contentType: 'application/json',
      userProperties: { a: 'x', b: ['y', 'z'], __: '' }
    }
  ]) assert.equal(propertiesProblem(properties), undefined)
})

test('qosProblem: accepts the numbers 0, 1 and 2 only', () => {
  for (const qos of [0, 1, 2]) assert.equal(qosProblem(qos), undefined)
  for (const qos of [3, -1, 1.5, '1', null, true]) expectProblem(qosProblem(qos), /has to be 0, 1 or 2, not/)
})

test('publishSize: is the length that mqtt-packet writes', () => {
  const text = fc.string({ unit: 'grapheme', maxLength: 40 })
  const properties = fc.record({
    payloadFormatIndicator: fc.boolean(),
    messageExpiryInterval: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    responseTopic: text,
    correlationData: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    contentType: text,
    userProperties: fc
      .dictionary(text.filter((name) => name !== '__proto__'), fc.oneof(text, fc.array(text, { minLength: 1 })))
      .filter((entries) => Object.keys(entries).length > 0)
  }, { requiredKeys: [] })
  const payloadSize = fc.constantFrom(0, 1, 100, 127, 128, 16_000, 16_383, 16_384, 2_097_152)
  const flags = { cmd: 'publish' as const, dup: false, retain: false, messageId: 7 }
  const version = fc.constantFrom(4 as const, 5 as const)
  fc.assert(fc.property(text, payloadSize, fc.constantFrom<QoS>(0, 1, 2), properties, version,
    (topic, bytes, qos, given, protocolVersion) => {
      const packet = generate({
        ...flags, topic: `t${topic}`, payload: Buffer.alloc(bytes), qos, properties: given
      }, { protocolVersion })
      const size = publishSize(`t${topic}`, bytes, qos, given as PublishProperties, protocolVersion)
      assert.equal(size, packet.length)
    }))
  assert.equal(publishSize('t', 0, 0, undefined, 5), 6)
})

test('isRecord: is true for plain objects only', () => {
  class A {}
  for (const value of [{}, Object.create(null), { a: 1 }]) assert.equal(isRecord(value), true)
  for (const value of [null, undefined, 1, 'x', [], new Date(), new Map(), Buffer.alloc(0), () => {}, new A()]) {
    assert.equal(isRecord(value), false)
  }
})

test('kindOf: tells the kind, and never the value', () => {
  const kinds: [unknown, string][] = [
    ['secret', 'a string'], [1, 'a number'], [true, 'a boolean'], [1n, 'a bigint'], [Symbol('secret'), 'a symbol'],
    [() => {}, 'a function'], [undefined, 'undefined'], [NaN, 'NaN'], [null, 'null'], [['secret'], 'an array'],
    [{ a: 'secret' }, 'an object (Object)'], [new Date(), 'an object (Date)'],
    [Object.create(null), 'an object (no prototype)']
  ]
  for (const [value, kind] of kinds) assert.equal(kindOf(value), kind)
})

test("kindOf: a received object with a key 'constructor' changes nothing", () => {
  for (const constructor of ['{"name":"secret"}', '{"name":{"toString":1}}', '1', 'null']) {
    assert.equal(kindOf(JSON.parse(`{"constructor":${constructor}}`)), 'an object (Object)')
  }
})

test('describe: shows short text and primitives, the kind of all others', () => {
  const texts: [unknown, string][] = [
    ['a', "'a'"], ['x'.repeat(60), `'${'x'.repeat(60)}'`], ['x'.repeat(61), `'${'x'.repeat(57)}...'`],
    [-0, '-0'], [0, '0'], [NaN, 'NaN'], [5n, '5'], [Symbol('s'), 'Symbol(s)'], [undefined, 'undefined'], [null, 'null'],
    [{ a: 1 }, 'an object (Object)'], [() => {}, 'a function']
  ]
  for (const [value, text] of texts) assert.equal(describe(value), text)
})

test('defined: leaves out the keys that are undefined', () => {
  assert.deepEqual(defined({ a: 1, b: undefined, c: null }), { a: 1, c: null })
})

test('recordProblem: refuses unknown keys with the ones that there are', () => {
  const checks = { a: booleanNamed('a'), b: qosProblem }
  assert.equal(recordProblem({ a: true, b: undefined }, checks), undefined)
  expectProblem(recordProblem({ a: 'yes' }, checks), /a has to be a boolean, not 'yes'/)
  expectProblem(recordProblem({ c: 1 }, checks), /no option 'c', there are a, b/)
  expectProblem(recordProblem({ toString: 1 }, checks), /no option 'toString'/)
  expectProblem(recordProblem(JSON.parse('{"__proto__":{}}'), checks), /no option '__proto__'/)
  expectProblem(recordProblem(undefined, checks), /have to be an object, not undefined/)
  expectProblem(recordProblem([], checks), /have to be an object, not an array/)
})

test('errors: each has its key as code, and a status code of HTTP', () => {
  for (const [code, CodedError] of Object.entries(errors)) {
    const AnyError = CodedError as new (...args: string[]) => Error & { code: string, statusCode: number }
    const error = new AnyError()
    assert.equal(error.code, code)
    assert.ok(error.statusCode >= 400 && error.statusCode < 600, code)
    assert.ok(error instanceof Error)
  }
})

test('errors: text of a user is not taken for a format', () => {
  const error = new errors.FST_MQTT_TOPIC_NAME('a/%s/%d', '%s')
  assert.equal(error.message, "Invalid topic name 'a/%s/%d': %s")
})

test('errors: the cause is kept', () => {
  const cause = new Error('inner')
  assert.equal(new errors.FST_MQTT_TOPIC_PARAM('p', 'x', { cause }).cause, cause)
})

test('describeError: says what an AggregateError without a message holds', () => {
  const refused = [new Error('connect ECONNREFUSED ::1'), new Error('connect ECONNREFUSED 127.0.0.1')]
  const both = 'connect ECONNREFUSED ::1, connect ECONNREFUSED 127.0.0.1'
  assert.equal(describeError(new AggregateError(refused)), both)
  assert.equal(describeError(new AggregateError(refused, 'several')), 'several')
  assert.equal(describeError(new TypeError('x')), 'x')
  assert.equal(describeError('thrown text'), 'thrown text')
})

test('errorCode: is text, also for the numbers of MQTT', () => {
  assert.equal(errorCode(Object.assign(new Error('x'), { code: 'ECONNRESET' })), 'ECONNRESET')
  assert.equal(errorCode(Object.assign(new Error('x'), { code: 135 })), '135')
  assert.equal(errorCode(new Error('x')), 'UNKNOWN')
  assert.equal(errorCode('x'), 'UNKNOWN')
})
