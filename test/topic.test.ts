import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { defineTopic } from '../lib/topic/contract.ts'
import { builtInConverters, withConverters } from '../lib/topic/converters.ts'
import { TopicNames, type Named } from '../lib/topic/names.ts'
import { paramsOf } from '../lib/topic/params.ts'
import { parsePattern } from '../lib/topic/pattern.ts'
import { placePattern, type PlacedPattern, type Placement } from '../lib/topic/placed-pattern.ts'
import { assertInsidePrefix, parsePrefix, withoutPrefix, withPrefix } from '../lib/topic/prefix.ts'
import { topicFor } from '../lib/topic/reverse.ts'
import { checkTopicOptions } from '../lib/topic/topic-options.ts'
import { Router } from '../lib/router/router.ts'
import type { Converter } from '../types/options.ts'

const id = '123e4567-e89b-12d3-a456-426614174000'
const day: Converter<Date> = {
  parse: (text) => /^\d{4}-\d\d-\d\d$/.test(text) ? new Date(text) : undefined,
  format: (value) => value.toISOString().slice(0, 10)
}
const converters = withConverters({ day: day as Converter })

function place (pattern: string, placement: Partial<Placement> = {}): PlacedPattern {
  return placePattern(pattern, { prefix: '', topicPrefix: '', absolute: false, ...placement }, converters)
}

/** What a handler of the pattern would get for a topic name: by filter, then by its placeholders. */
function receive (placed: PlacedPattern, absoluteTopic: string): unknown {
  const router = new Router<PlacedPattern>()
  router.add(placed.matchFilter, placed)
  const [matched] = router.match(absoluteTopic)
  return matched === undefined ? undefined : paramsOf(matched, absoluteTopic)
}

// Patterns

for (const [pattern, filter, names] of [
  ['a/b', 'a/b', []],
  ['a/<name>', 'a/+', ['name']],
  ['<str:a>/<int:b>/<float:c>/<uuid:d>/<path:e>', '+/+/+/+/#', ['a', 'b', 'c', 'd', 'e']],
  ['a/<day:when>', 'a/+', ['when']],
  ['a/+/<x>/#', 'a/+/+/#', ['x']],
  ['/dev/<int:id>', '/dev/+', ['id']],
  ['a/<str:x>/', 'a/+/', ['x']],
  ['a(b', 'a(b', []],
  ['a<b/c>', 'a<b/c>', []],
  ['<constructor>', '+', ['constructor']]
] as const) {
  test(`parsePattern: ${pattern} is the filter ${filter}`, () => {
    const parsed = parsePattern(pattern, converters)
    assert.equal(parsed.filter, filter)
    assert.deepEqual(parsed.placeholders.map(({ name }) => name), names)
  })
}

for (const [pattern, says] of [
  ['', /a topic pattern cannot be empty/],
  ['a/<path:p>/z', /'<path:p>' must be the last level: a path takes everything that is left \(in 'a\/<path:p>\/z'\)/],
  ['a/#/z', /'#' must be the last level/],
  ['a/b#', /a wildcard must be a whole level, 'b#' is not/],
  ['n/<bogus:x>', /unknown converter 'bogus' in '<bogus:x>': use str, int, float, uuid, path, day or one of your own/],
  ['n/<toString:x>', /unknown converter 'toString'/],
  ['n/<:x>', /unknown converter ''/],
  ['n/<int:n>/<int:n>', /the name 'n' is used twice/],
  ['n/<n>/<path:n>', /the name 'n' is used twice/],
  ['n-<int:n>', /a placeholder must be a whole level, 'n-<int:n>' is not/],
  ['<a><b>', /a placeholder must be a whole level/],
  ['<<a>>', /a placeholder must be a whole level/],
  ['<>', /the placeholder '<>' has no name/],
  ['<int:>', /the placeholder '<int:>' has no name/],
  ['<int:a b>', /the placeholder name 'a b' must be letters, digits, _ and -/],
  ['<__proto__>', /the placeholder name '__proto__'/],
  ['a\0', /U\+0000/],
  ['\ud800', /lone surrogate/],
  [Array.from({ length: 201 }, (_, n) => `<x${n}>`).join('/'), /it has 201 levels, brokers accept 200/],
  ['$share', /a shared subscription is \$share\/<group>\/<pattern>/],
  ['$share/g', /a shared subscription is/],
  ['$share/g/', /a shared subscription is/],
  ['$share//t', /a shared subscription is/],
  ['$share/g+/t', /the group of a shared subscription is plain text, 'g\+' is not/],
  ['$share/<g>/t', /the group of a shared subscription is plain text/]
] as const) {
  test(`parsePattern: refuses '${pattern.slice(0, 20)}'`, () => {
    assert.throws(() => parsePattern(pattern, converters), { code: 'FST_MQTT_TOPIC_PATTERN', message: says })
  })
}

test('parsePattern: refuses what is no string by its kind', () => {
  for (const [value, kind] of [[42, 'a number'], [undefined, 'undefined'], [Object.create(null), 'no prototype']]) {
    assert.throws(() => parsePattern(value, converters), {
      code: 'FST_MQTT_TOPIC_PATTERN', message: new RegExp(`has to be a string, not .*${kind}`)
    })
  }
})

test('placePattern: two patterns with the same filter give each its own params', () => {
  const [first, second] = [place('n/<int:a>'), place('n/<str:b>')]
  assert.equal(first.filter, second.filter)
  assert.deepEqual([receive(first, 'n/5'), receive(second, 'n/5')], [{ a: 5 }, { b: '5' }])
  assert.deepEqual([receive(first, 'n/x'), receive(second, 'n/x')], [undefined, { b: 'x' }])
})

// Prefixes

for (const [pattern, placement, filter, topic, params] of [
  ['n/<int:id>', { prefix: 'p' }, 'p/n/+', 'p/n/42', { id: 42 }],
  ['n/<int:id>', { prefix: '/p' }, '/p/n/+', '/p/n/42', { id: 42 }],
  ['/n/<int:id>', { prefix: 'p' }, 'p//n/+', 'p//n/42', { id: 42 }],
  ['n/<int:id>', { prefix: 'p/q', topicPrefix: 'floor/1' }, 'p/q/floor/1/n/+', 'p/q/floor/1/n/42', { id: 42 }],
  ['n/<int:id>', { prefix: 'p', topicPrefix: 'f', absolute: true }, 'n/+', 'n/42', { id: 42 }],
  ['$SYS/<path:rest>', { prefix: 'p', absolute: true }, '$SYS/#', '$SYS/broker/uptime', { rest: 'broker/uptime' }],
  ['$share/g/t/<x>', { prefix: 'p' }, '$share/g/p/t/+', 'p/t/1', { x: '1' }],
  ['$share/g/t/<x>', { prefix: 'p', topicPrefix: 'f' }, '$share/g/p/f/t/+', 'p/f/t/1', { x: '1' }],
  ['$share/g/t/<x>', { topicPrefix: 'f', absolute: true }, '$share/g/t/+', 't/1', { x: '1' }]
] as const) {
  test(`placePattern: ${pattern} with ${JSON.stringify(placement)} subscribes ${filter} and receives ${topic}`, () => {
    const placed = place(pattern, placement)
    assert.equal(placed.filter, filter)
    assert.deepEqual({ ...receive(placed, topic) as object }, params)
    const { prefix, absolute } = { prefix: '', absolute: false, ...placement }
    assert.equal(absolute ? topicFor(placed, params) : withPrefix(prefix, topicFor(placed, params)), topic)
  })
}

test('placePattern: a $ topic needs absolute, also in a shared subscription', () => {
  for (const pattern of ['$SYS/#', '$CONTROL/x', '$share/g/$SYS/x']) {
    assert.throws(() => place(pattern, { prefix: 'p' }), {
      code: 'FST_MQTT_TOPIC_OUTSIDE_PREFIX', message: /'\$.*' begins with \$ .* set \{ absolute: true \}/
    })
  }
})

test('placePattern: refuses what is too long only with its prefixes', () => {
  const pattern = Array(150).fill('a').join('/')
  const prefix = Array(51).fill('p').join('/')
  for (const placement of [{ prefix }, { topicPrefix: prefix }]) {
    assert.throws(() => place(pattern, placement), {
      code: 'FST_MQTT_TOPIC_PATTERN', message: /it has 201 levels, brokers accept 200/
    })
  }
  assert.throws(() => place('a'.repeat(65_534), { prefix: 'p' }), {
    code: 'FST_MQTT_TOPIC_PATTERN', message: /with its prefixes it has 65536 bytes/
  })
})

for (const [given, prefix] of [
  ['', ''], ['p', 'p'], ['p/', 'p'], ['/p', '/p'], ['/p/', '/p'], ['/', ''], ['p/q r', 'p/q r'], ['p//', 'p/']
] as const) {
  test(`parsePrefix: '${given}' is '${prefix}'`, () => assert.deepEqual(parsePrefix(given), { prefix }))
}

for (const [given, says] of [
  ['a/+', /'a\/\+' cannot begin a topic: .*wildcards/], ['#', /wildcards/], ['a\0', /U\+0000/],
  ['$share/g', /\$share is for subscriptions/], ['$share/', /\$share is for subscriptions/],
  ['<x>', /a prefix has no placeholders, '<x>' has/], ['a/<int:x>/b', /no placeholders/]
] as const) {
  test(`parsePrefix: refuses '${given}'`, () => {
    const parsed = parsePrefix(given)
    assert.match('problem' in parsed ? parsed.problem : 'no problem', says)
  })
}

test('withoutPrefix: takes a prefix away only where it is one, at the end of a level', () => {
  for (const [prefix, topic, rest] of [
    ['site1', 'site1/x', 'x'], ['site1', 'sensors/kitchen/temp', 'sensors/kitchen/temp'], ['site1', 'site10/x', 'site10/x'],
    ['site1', 'Site1/x', 'Site1/x'], ['site1', 'site1', ''], ['site1', 'site1/', ''], ['site1', 'site1/site1/x', 'site1/x'],
    ['site1', 'site', 'site'], ['', 'x', 'x'], ['/p', '/p/x', 'x'], ['p', 'p//x', '/x']
  ] as const) assert.equal(withoutPrefix(prefix, topic), rest)
})

test('withoutPrefix: undoes withPrefix for every prefix and topic', () => {
  const text = fc.string({ unit: fc.constantFrom('a', '/', '$', 'ä', '日', '🙂') })
  fc.assert(fc.property(text, text, (given, topic) => {
    const parsed = parsePrefix(given)
    if ('problem' in parsed) return
    assert.equal(withoutPrefix(parsed.prefix, withPrefix(parsed.prefix, topic)), topic)
  }))
})

test('assertInsidePrefix: lets no $ topic through', () => {
  assert.throws(() => assertInsidePrefix('$SYS/x'), { code: 'FST_MQTT_TOPIC_OUTSIDE_PREFIX', statusCode: 400 })
  assertInsidePrefix('a/$SYS')
})

// Converters

for (const [converter, accepted, refused] of [
  ['str', [['a', 'a'], ['ä b', 'ä b']], ['']],
  ['int', [['0', 0], ['5', 5], ['-7', -7], ['9007199254740991', 9007199254740991]], [
    '1_000', ' 42 ', '42\n', '+5', '٣', '05', '-0', '--1', '1.0', '1e3', '0x10', '9007199254740992',
    '-9007199254740993', 'abc', ''
  ]],
  ['float', [['0', 0], ['-1.5', -1.5], ['3', 3], ['0.10', 0.1], ['1000000000000000000000', 1e21]], [
    'nan', 'NaN', 'Infinity', '-Infinity', '1e400', '1e3', `1${'0'.repeat(400)}`, '.5', '5.', '05.1', '-0', '-0.0',
    '+1', '1,5', ' 1', '1\n', ''
  ]],
  ['uuid', [[id, id], [id.toUpperCase(), id.toUpperCase()]], [
    `{${id}}`, id.replaceAll('-', ''), `${id}0`, id.slice(1), id.replace('1', 'g'), `urn:uuid:${id}`, `${id}\n`, ''
  ]],
  ['path', [['a', 'a'], ['a/b/c', 'a/b/c'], ['a//b/', 'a//b/'], ['/', '/']], ['']]
] as const) {
  test(`${converter}: gives the value of its canonical texts only; others do not match`, () => {
    const placed = place(`x/<${converter}:value>`)
    for (const [text, value] of accepted) assert.deepEqual(receive(placed, `x/${text}`), { value }, text)
    for (const text of refused) assert.equal(receive(placed, `x/${text}`), undefined, text)
  })
}

test('paramsOf: a path takes one level at least, not its parent level', () => {
  const placed = place('files/<path:p>')
  assert.deepEqual(receive(placed, 'files/a/b/c'), { p: 'a/b/c' })
  assert.equal(receive(placed, 'files'), undefined)
  assert.equal(receive(placed, 'files/'), undefined)
})

test('paramsOf: an empty level fills a wildcard, and no placeholder', () => {
  assert.deepEqual(receive(place('a/+/b'), 'a//b'), {})
  assert.equal(receive(place('a/<x>/b'), 'a//b'), undefined)
  assert.deepEqual(receive(place('sport/+'), 'sport/'), {})
  assert.equal(receive(place('sport/<x>'), 'sport/'), undefined)
})

test('paramsOf: gives frozen params, also where there are none', () => {
  for (const params of [paramsOf(place('a/<x>'), 'a/b'), paramsOf(place('a'), 'a')]) assert.ok(Object.isFrozen(params))
})

test("paramsOf: a converter of the application's own converts, refuses, or throws, which refuses as well", () => {
  const big: Converter = { parse: (text) => BigInt(text), format: String }
  const own = withConverters({ day: day as Converter, big })
  const placed = placePattern('<day:d>/<big:n>', { prefix: '', topicPrefix: '', absolute: false }, own)
  assert.deepEqual(receive(placed, '2026-01-31/12'), { d: new Date('2026-01-31'), n: 12n })
  assert.equal(receive(placed, 'today/12'), undefined)
  assert.equal(receive(placed, '2026-01-31/x'), undefined)
})

test('withConverters: has the built-in ones and may replace them', () => {
  assert.deepEqual([...withConverters().keys()], [...builtInConverters.keys()])
  const own: Converter = { parse: Number, format: String }
  assert.equal(withConverters({ int: own }).get('int'), own)
})

// Reverse routing

for (const [pattern, params, topic] of [
  ['a/b', undefined, 'a/b'],
  ['n/<int:id>', { id: 42 }, 'n/42'],
  ['/dev/<int:id>', { id: 5 }, '/dev/5'],
  ['a/<x>/', { x: 'b' }, 'a/b/'],
  ['s/<path:p>', { p: 'a/b//c' }, 's/a/b//c'],
  ['f/<float:x>', { x: 1e21 }, 'f/1000000000000000000000'],
  ['f/<float:x>', { x: -1.5e-9 }, 'f/-0.0000000015'],
  ['f/<float:x>', { x: Number.MAX_VALUE }, `f/17976931348623157${'0'.repeat(292)}`],
  ['f/<float:x>', { x: Number.MIN_VALUE }, `f/0.${'0'.repeat(323)}5`],
  ['f/<float:x>', { x: 0.1 }, 'f/0.1'],
  ['u/<uuid:x>', { x: id.toUpperCase() }, `u/${id.toUpperCase()}`],
  ['d/<day:x>', { x: new Date('2026-01-31') }, 'd/2026-01-31'],
  ['a/<x>', { x: '$SYS' }, 'a/$SYS'],
  ['a/<x>', { x: '..' }, 'a/..'],
  ['<constructor>', { constructor: 'x' }, 'x']
] as const) {
  test(`topicFor: ${pattern} gives ${topic.slice(0, 40)}`, () => assert.equal(topicFor(place(pattern), params), topic))
}

for (const [what, pattern, params, says] of [
  ['a missing param', 'n/<int:id>', {}, /No topic name can be made from 'n\/<int:id>': the param 'id' is missing/],
  ['no params where some are needed', 'n/<int:id>', undefined, /'id' is missing/],
  ['an undefined param', 'n/<int:id>', { id: undefined }, /'id' is missing/],
  ['an inherited param', 'n/<toString>', {}, /'toString' is missing/],
  ['an extra param', 'n/<int:id>', { id: 1, other: 2 }, /there is no placeholder 'other', there is id/],
  ['params where there are none', 'n', { id: 1 }, /there is no placeholder 'id', there are none/],
  ['params that are no object', 'n/<x>', 'x', /params have to be an object, not a string/],
  ['params in a list', 'n/<x>', ['x'], /params have to be an object, not an array/],
  ['text for an int', 'n/<int:id>', { id: 'abc' }, /the param 'id' \(int\): it has to be a safe integer, not 'abc'/],
  ['digits as text for an int', 'n/<int:id>', { id: '42' }, /safe integer, not '42'/],
  ['a broken int', 'n/<int:id>', { id: 1.5 }, /safe integer, not 1.5/],
  ['an int beyond the safe ones', 'n/<int:id>', { id: 2 ** 53 }, /safe integer/],
  ['-0 for an int', 'n/<int:id>', { id: -0 }, /safe integer, not -0/],
  ['NaN for a float', 'n/<float:x>', { x: NaN }, /finite number, not NaN/],
  ['Infinity for a float', 'n/<float:x>', { x: Infinity }, /finite number, not Infinity/],
  ['-0 for a float', 'n/<float:x>', { x: -0 }, /finite number, not -0/],
  ['a number for a str', 'n/<x>', { x: 5 }, /it has to be a string, not a number/],
  ['null for a str', 'n/<x>', { x: null }, /it has to be a string, not null/],
  ['no UUID', 'n/<uuid:x>', { x: '123' }, /UUID in the form 8-4-4-4-12, not '123'/],
  ['empty text', 's/<x>', { x: '' }, /'' cannot stand in a topic: it is empty/],
  ['an empty path', 's/<path:x>', { x: '' }, /it is empty/],
  ['a slash', 's/<x>', { x: 'a/b' }, /'a\/b' cannot stand in a topic: it has a \//],
  ['+', 's/<x>', { x: 'a+' }, /it has a \+/],
  ['#', 's/<x>', { x: '#' }, /it has a #/],
  ['a wildcard in a path', 's/<path:x>', { x: 'a/b/#' }, /it has a #/],
  ['NUL', 's/<x>', { x: 'a\0' }, /U\+0000/],
  ['a line feed', 's/<x>', { x: 'a\nb' }, /U\+000A/],
  ['a lone surrogate', 's/<x>', { x: '\ud800' }, /lone surrogate/],
  ['$ at the beginning', '<x>/s', { x: '$SYS' }, /the first level begins with \$/],
  ['$ at the beginning of a path', '<path:x>', { x: '$SYS/x' }, /the first level begins with \$/],
  ['more than 200 levels', 's/<path:x>', { x: Array(200).fill('a').join('/') }, /201 levels, brokers accept 200/],
  ['more than 65,535 bytes', 's/<x>', { x: 'a'.repeat(65_535) }, /65537 bytes, at most 65535/]
] as const) {
  test(`topicFor: refuses ${what}`, () => {
    assert.throws(() => topicFor(place(pattern), params), { code: 'FST_MQTT_TOPIC_PARAM', statusCode: 400, message: says })
  })
}

test('topicFor: an absolute pattern may say $ itself, a param may not', () => {
  assert.equal(topicFor(place('$SYS/<x>', { absolute: true }), { x: 'y' }), '$SYS/y')
  assert.throws(() => topicFor(place('<x>/y', { absolute: true }), { x: '$SYS' }), {
    code: 'FST_MQTT_TOPIC_PARAM', message: /the first level begins with \$/
  })
})

test('topicFor: keeps what a converter throws as the cause', () => {
  const own = withConverters({ day: day as Converter })
  const placed = placePattern('<day:x>', { prefix: '', topicPrefix: '', absolute: false }, own)
  assert.throws(() => topicFor(placed, { x: new Date(NaN) }), (error: Error & { code: string }) => {
    assert.equal(error.code, 'FST_MQTT_TOPIC_PARAM')
    assert.match(error.message, /the param 'x' \(day\): Invalid time value/)
    return error.cause instanceof RangeError
  })
})

test('topicFor: refuses what a converter formats and does not parse, or formats as no text', () => {
  for (const [format, says] of [
    [() => 'nothing', /the converter 'odd' does not parse what it formatted, 'nothing'/],
    [() => 5 as unknown as string, /5 cannot stand in a topic: it has to be a string, not a number/]
  ] as const) {
    const own = withConverters({ odd: { parse: () => undefined, format } })
    const placed = placePattern('<odd:x>', { prefix: '', topicPrefix: '', absolute: false }, own)
    assert.throws(() => topicFor(placed, { x: 1 }), { code: 'FST_MQTT_TOPIC_PARAM', message: says })
  }
})

for (const pattern of ['home/#', 'home/+/x', '<a>/+']) {
  test(`topicFor: makes no topic name from the unnamed wildcard of ${pattern}`, () => {
    assert.throws(() => topicFor(place(pattern), { a: 'x' }), {
      code: 'FST_MQTT_TOPIC_WILDCARD', message: /has a wildcard without a name.*name it, as in <name> or <path:rest>/
    })
  })
}

// What one level can be, and what it cannot.
const level = fc.string({ unit: 'binary', minLength: 1, maxLength: 8 })
  .map((text) => text.toWellFormed().replace(/[/+#\p{Cc}\p{Noncharacter_Code_Point}]/gu, 'x'))
const inFirstLevel = (text: string) => text.replace(/^\$/, 'x')
const finite = { noNaN: true, noDefaultInfinity: true } as const
const allParams = fc.record({
  s: level.map(inFirstLevel),
  i: fc.oneof(fc.maxSafeInteger(), fc.integer()),
  // -0 + 0 is 0
  f: fc.oneof(fc.double(finite), fc.float(finite)).map((value) => value + 0),
  u: fc.uuid().chain((uuid) => fc.constantFrom(uuid, uuid.toUpperCase())),
  d: fc.date({ min: new Date(0), max: new Date('9999-12-31'), noInvalidDate: true })
    .map((date) => new Date(date.toISOString().slice(0, 10))),
  p: fc.array(fc.oneof(level, fc.constant('')), { minLength: 1, maxLength: 190 }).map((parts) => parts.join('/'))
    .filter((path) => path !== '')
})
const placements = fc.constantFrom<Partial<Placement>>(
  {}, { prefix: 'site/1' }, { prefix: '/p', topicPrefix: 'f' }, { topicPrefix: 'f' }, { prefix: 'p', absolute: true })

test('topicFor: its topic matches the pattern and gives the same params, for every converter', () => {
  const pattern = '<str:s>/<int:i>/<float:f>/x/<uuid:u>/<day:d>/<path:p>'
  fc.assert(fc.property(allParams, placements, (params, placement) => {
    const placed = place(pattern, placement)
    const topic = topicFor(placed, params)
    const isAbsolute = placement.absolute === true
    const received = receive(placed, isAbsolute ? topic : withPrefix(placement.prefix ?? '', topic))
    assert.deepEqual({ ...received as object }, { ...params })
  }), { numRuns: 1_000 })
})

test('topicFor: a hostile param is refused, or gives exactly one level below the prefix', () => {
  const parts = ['/', '+', '#', '$', '\0', '\n', '..', '$share/g/', '\ud800', '\uffff', 'a', '%2f']
  const nasty = fc.array(fc.constantFrom(...parts), { maxLength: 5 }).map((some) => some.join(''))
  const values = fc.oneof(nasty, fc.string({ unit: 'binary' }), fc.anything())
  fc.assert(fc.property(values, fc.constantFrom('<x>', 'a/<x>', 'a/<x>/b'), (x, pattern) => {
    const placed = place(pattern)
    let topic
    try {
      topic = topicFor(placed, { x })
    } catch (error) {
      assert.equal((error as { code?: unknown }).code, 'FST_MQTT_TOPIC_PARAM')
      return
    }
    assert.equal(topic, pattern.replace('<x>', () => x as string))
    assert.equal(topic.split('/').length, pattern.split('/').length)
    assert.doesNotMatch(topic, /[+#]|^\$/)
    assert.deepEqual(receive(placed, topic), { x })
  }), { numRuns: 1_000 })
})

// Names, options, contracts

test('TopicNames: a name is given once', () => {
  const names = new TopicNames<Named>()
  const topic = { pattern: 'a/<x>' }
  names.give('n', topic)
  assert.throws(() => names.give('n', { pattern: 'b' }), {
    code: 'FST_MQTT_TOPIC_NAME_TAKEN', message: /The topic name 'n' is already given to 'a\/<x>'/
  })
  assert.equal(names.find('n'), topic)
  names.remove('n', topic)
  names.give('n', { pattern: 'b' })
  assert.equal(names.find('n').pattern, 'b')
})

test('TopicNames: an unknown name is refused with the known ones', () => {
  const names = new TopicNames<Named>()
  assert.throws(() => names.find('x'), {
    code: 'FST_MQTT_TOPIC_UNKNOWN', message: "No topic has the name 'x': known are none"
  })
  names.give('a', { pattern: 'a' })
  names.imply('b', { pattern: 'b' })
  names.imply('a', { pattern: 'c' })
  assert.throws(() => names.find('toString'), { code: 'FST_MQTT_TOPIC_UNKNOWN', message: /known are a, b$/ })
})

test('TopicNames: the name of a handler function gives way to a given one, and is refused only where it is used', () => {
  const names = new TopicNames<Named>()
  const [first, second, given] = [{ pattern: 'a' }, { pattern: 'b' }, { pattern: 'c' }]
  names.imply('onReading', first)
  assert.equal(names.find('onReading'), first)
  names.imply('onReading', second)
  assert.throws(() => names.find('onReading'), {
    code: 'FST_MQTT_TOPIC_NAME_AMBIGUOUS',
    message: /'onReading' comes from the handler functions of several topics \(a, b\): give each a name/
  })
  names.give('onReading', given)
  assert.equal(names.find('onReading'), given)
  names.remove('onReading', given)
  names.remove('onReading', first)
  assert.equal(names.find('onReading'), second)
  names.remove('onReading', second)
  names.remove('onReading', second)
  assert.throws(() => names.find('onReading'), { code: 'FST_MQTT_TOPIC_UNKNOWN' })
})

test('checkTopicOptions: fills in what is not given', () => {
  const defaults = {
    name: undefined,
    qos: 0,
    absolute: false,
    noLocal: false,
    retainAsPublished: false,
    retainHandling: 0,
    params: undefined,
    payload: undefined,
    codec: undefined,
    ack: 'after',
    ackTimeoutMs: 30_000,
    concurrency: undefined,
    order: undefined,
    retry: undefined,
    deadLetter: undefined,
    logLevel: undefined,
    hooks: { onMessage: [], preValidation: [], preHandler: [], onSettled: [], onError: [] }
  }
  assert.deepEqual(checkTopicOptions('a', {}), defaults)
  assert.deepEqual(checkTopicOptions('a', { qos: undefined, name: undefined }), defaults)
  const given = {
    name: 'n',
    qos: 2,
    absolute: true,
    noLocal: true,
    retainAsPublished: true,
    retainHandling: 2,
    params: {},
    payload: {},
    codec: 'text',
    ack: 'manual',
    concurrency: 3,
    order: 'none',
    deadLetter: 'dead',
    logLevel: 'warn'
  }
  const [one, other] = [() => {}, () => {}]
  const hooks = { onMessage: [one], preValidation: [], preHandler: [one, other], onSettled: [], onError: [] }
  assert.deepEqual(
    checkTopicOptions('a', {
      ...given, ackTimeout: 5, retry: { limit: 2, delay: 10 }, onMessage: one, preHandler: [one, other]
    }),
    { ...given, ackTimeoutMs: 5, retry: { limit: 2, delayMs: 10, factor: 2 }, hooks })
  assert.deepEqual(
    checkTopicOptions('a', { retry: { limit: 0, factor: 1 } }).retry, { limit: 0, delayMs: 1_000, factor: 1 })
  assert.equal(checkTopicOptions('a', { deadLetter: one, order: one }).deadLetter, one)
})

for (const [options, says] of [
  [undefined, /have to be an object, not undefined/],
  [{ qo: 1 }, /there is no option 'qo', there are name, qos, absolute/],
  [{ qos: 3 }, /qos has to be 0, 1 or 2, not 3/],
  [{ qos: '1' }, /not '1'/],
  [{ name: '' }, /name has to be a string that is not empty, not ''/],
  [{ name: 5 }, /not 5/],
  [{ absolute: 1 }, /absolute has to be a boolean, not 1/],
  [{ noLocal: 'yes' }, /noLocal has to be a boolean, not 'yes'/],
  [{ retainAsPublished: null }, /retainAsPublished has to be a boolean, not null/],
  [{ retainHandling: 3 }, /retainHandling has to be 0, 1 or 2, not 3/],
  [{ ack: 'later' }, /ack has to be 'after', 'before' or 'manual', not 'later'/],
  [{ ackTimeout: 0 }, /ackTimeout has to be a whole number of milliseconds from 1 to 2147483647, not 0/],
  [{ concurrency: 0 }, /concurrency has to be a whole number from 1 on, not 0/],
  [{ concurrency: '2' }, /concurrency .* not '2'/],
  [{ order: 'key' }, /order has to be 'topic', 'none' or a function, not 'key'/],
  [{ retry: 3 }, /retry: they have to be an object, not a number/],
  [{ retry: {} }, /retry: limit is missing/],
  [{ retry: { limit: 1.5 } }, /retry: limit has to be a whole number from 0 on, not 1.5/],
  [{ retry: { limit: 1, delay: -1 } }, /retry: delay has to be a whole number of milliseconds .* not -1/],
  [{ retry: { limit: 1, factor: 0.5 } }, /retry: factor has to be a number from 1 on, not 0.5/],
  [{ retry: { limits: 1 } }, /retry: there is no option 'limits', there are limit, delay, factor/],
  [{ deadLetter: 'dead/#' }, /deadLetter has to be a topic name or a function: a topic name has no wildcards/],
  [{ deadLetter: 5 }, /deadLetter has to be a topic name or a function: it has to be a string, not a number/],
  [{ codec: 5, payload: {} }, /codec has to be a name, not 5/],
  [{ codec: 'text' }, /codec needs a payload schema/]
] as const) {
  test(`checkTopicOptions: refuses ${JSON.stringify(options)}`, () => {
    assert.throws(() => checkTopicOptions('a/<x>', options), { code: 'FST_MQTT_TOPIC_OPTIONS', message: says })
    assert.throws(() => checkTopicOptions('a/<x>', options), /Invalid options of topic 'a\/<x>'/)
  })
}

test('checkTopicOptions: refuses noLocal for a shared subscription, which a broker ends the connection for', () => {
  assert.throws(() => checkTopicOptions('$share/g/t', { noLocal: true }), {
    code: 'FST_MQTT_TOPIC_OPTIONS', message: /noLocal cannot go with a shared subscription/
  })
  assert.equal(checkTopicOptions('$share/g/t', { noLocal: false }).noLocal, false)
})

test('defineTopic: keeps the pattern and a copy of the options, frozen', () => {
  const options = { qos: 1 as const }
  const contract = defineTopic('a/<x>', options)
  assert.deepEqual(contract, { pattern: 'a/<x>', options: { qos: 1 } })
  assert.ok(Object.isFrozen(contract) && Object.isFrozen(contract.options) && !Object.isFrozen(options))
  assert.deepEqual(defineTopic('a').options, {})
})
