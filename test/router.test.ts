import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { Router } from '../lib/router/router.ts'
import { TopicCache, type TopicMemo } from '../lib/router/topic-cache.ts'
import { builtInConverters } from '../lib/topic/converters.ts'
import { parsePattern } from '../lib/topic/pattern.ts'
import { placePattern } from '../lib/topic/placed-pattern.ts'

type WildcardCase = [filter: string, topic: string, matches: 0 | 1]

// Measured on Mosquitto, and the same for every broker that keeps to the standard.
const wildcardCases = JSON.parse(readFileSync(
  new URL('../../test/fixtures/wildcards.json', import.meta.url), 'utf8')) as WildcardCase[]

/** [MQTT 5 §4.7] word by word, level by level. */
function naiveMatch (filter: string, topic: string): boolean {
  const levels = topic.split('/')
  const wanted = filter.split('/')
  if (topic.startsWith('$') && (wanted[0] === '+' || wanted[0] === '#')) return false
  for (const [index, level] of wanted.entries()) {
    if (level === '#') return levels.length >= index
    if (index >= levels.length || (level !== '+' && level !== levels[index])) return false
  }
  return levels.length === wanted.length
}

function matches (filter: string, topic: string): boolean {
  const router = new Router<string>()
  router.add(filter, filter)
  return router.match(topic).length === 1
}

// Few different levels, so that filters and topics meet.
const literal = fc.constantFrom('a', 'b', '', '$SYS', '$', 'ä', '日本', 'A', 'a.b', '__proto__')
const shortTopic = fc.array(literal, { minLength: 1, maxLength: 4 })
const longTopic = fc.array(fc.constantFrom('a', ''), { minLength: 150, maxLength: 200 })
const topics = fc.oneof({ weight: 9, arbitrary: shortTopic }, { weight: 1, arbitrary: longTopic })

/** A filter that some topic has been blurred to. */
const filters = fc.tuple(topics, fc.infiniteStream(fc.integer({ min: 0, max: 9 })), fc.boolean(), fc.nat(4))
  .map(([levels, dice, hasRest, kept]) => {
    const blurred = levels.map((level) => (dice.next().value ?? 0) < 3 ? '+' : level)
    return (hasRest ? [...blurred.slice(0, kept), '#'] : blurred).join('/')
  })
  .filter((filter) => filter !== '')
const topicNames = topics.map((levels) => levels.join('/'))

test('wildcards.json: has all 29 cases', () => assert.equal(wildcardCases.length, 29))

for (const [pattern, topic, expected] of wildcardCases) {
  const verb = expected === 1 ? 'matches' : 'does not match'
  test(`pattern and router: ${JSON.stringify(pattern)} ${verb} ${JSON.stringify(topic)}`, () => {
    const placement = { prefix: '', topicPrefix: '', absolute: true }
    const { matchFilter } = placePattern(pattern, placement, builtInConverters)
    assert.equal(matches(matchFilter, topic), expected === 1)
    assert.equal(naiveMatch(matchFilter, topic), expected === 1)
  })
}

for (const [behaviour, cases] of Object.entries<WildcardCase[]>({
  '# matches its parent level': [['sport/#', 'sport', 1], ['a/+/#', 'a/b', 1], ['a/#', 'ab', 0], ['/#', '', 1]],
  '+ and # match empty levels': [
    ['a/+/b', 'a//b', 1], ['sport/+', 'sport/', 1], ['/+', '/', 1], ['+/+', '/finance', 1], ['a/#', 'a/', 1],
    ['+/', '/', 1]
  ],
  'a leading wildcard matches no topic that begins with $': [
    ['#', '$SYS/x', 0], ['+/x', '$SYS/x', 0], ['+', '$', 0], ['#', '$', 0], ['a/+', 'a/$x', 1], ['a/#', 'a/$x', 1]
  ],
  '$ is no anchor': [
    ['$SYS/#', '$SYS/broker/uptime', 1], ['$SYS/+', '$SYS/x', 1], ['$SYS/#', '$SYS', 1], ['a$', 'a', 0]
  ],
  'characters of regular expressions are literal': [
    ['a.b', 'axb', 0], ['a*', 'aaa', 0], ['a|b', 'a', 0], ['a|b', 'a|b', 1], ['a{1}/x', 'a{1}/x', 1],
    ['a{1}/x', 'a/x', 0], ['a(b', 'a(b', 1], ['[ab]', 'a', 0], ['^a', '^a', 1], ['a\\d', 'a1', 0]
  ],
  'line ends are no ends': [['a', 'a\n', 0], ['a/#', 'a/b\nc', 1], ['a/+', 'a/b\n', 1]],
  'names of Object.prototype are names like others': [
    ['__proto__', '__proto__', 1], ['+/constructor', 'a/constructor', 1], ['+/constructor', 'a/toString', 0],
    ['+/a', 'toString', 0]
  ]
})) {
  test(`match: ${behaviour}`, () => {
    for (const [filter, topic, expected] of cases) {
      assert.equal(matches(filter, topic), expected === 1, `${filter} on ${topic}`)
    }
  })
}

for (const pattern of ['c++', 'a+b', 'a#', 'x/y+/z']) {
  test(`parsePattern: refuses ${pattern}, a wildcard within a level`, () => {
    assert.throws(() => parsePattern(pattern, builtInConverters), {
      code: 'FST_MQTT_TOPIC_PATTERN', message: /a wildcard must be a whole level, '.+' is not/
    })
  })
}

test('match: finds what a walk over all filters finds, among any filters', () => {
  const routes = fc.array(filters, { maxLength: 30 })
  fc.assert(fc.property(routes, fc.array(topicNames, { maxLength: 10 }), (all, names) => {
    const router = new Router<number>()
    for (const [index, filter] of all.entries()) router.add(filter, index)
    for (const name of names) {
      const expected = [...all.keys()].filter((index) => naiveMatch(all[index] ?? '', name))
      assert.deepEqual(router.match(name).sort((a, b) => a - b), expected)
    }
  }), { numRuns: 500 })
})

test('match: knows text of any kind', () => {
  const level = fc.string({ unit: 'binary' }).map((text) => text.replace(/[/+#]/g, ''))
  const any = fc.array(level, { minLength: 1, maxLength: 5 })
  fc.assert(fc.property(any, any, (left, right) => {
    for (const topic of [left.join('/'), right.join('/')]) {
      assert.equal(matches(left.join('/'), topic), naiveMatch(left.join('/'), topic))
      assert.equal(matches(`${left.join('/')}/#`, topic), naiveMatch(`${left.join('/')}/#`, topic))
    }
  }))
})

test('match: takes topics of 32,768 levels, which a broker may send', () => {
  const router = new Router<string>()
  for (const filter of ['a/#', '#', '+/+/+', Array(200).fill('+').join('/')]) router.add(filter, filter)
  const topic = Array(32_768).fill('a').join('/')
  assert.deepEqual(router.match(topic).sort(), ['#', 'a/#'])
})

test('match: takes 200,000 values of one filter', () => {
  const router = new Router<number>()
  for (let value = 0; value < 200_000; value++) router.add('a', value)
  assert.equal(router.match('a').length, 200_000)
})

for (const filter of ['a/b', 'a/+', 'a/#']) {
  test(`match: the values of ${filter} come in the order in which they were added`, () => {
    const router = new Router<number>()
    for (const value of [5, 3, 4, 0, 2, 1]) router.add(filter, value)
    assert.deepEqual(router.match('a/b'), [5, 3, 4, 0, 2, 1])
  })
}

test('remove: undoes add, whatever else is there', () => {
  const entries = fc.array(filters, { maxLength: 20 })
  const names = fc.array(topicNames, { maxLength: 10 })
  fc.assert(fc.property(entries, entries, names, (staying, going, topics) => {
    const router = new Router<string>()
    for (const filter of staying) router.add(filter, `stays ${filter}`)
    const before = topics.map((name) => router.match(name).sort())
    for (const filter of going) router.add(filter, `goes ${filter}`)
    for (const filter of going) assert.equal(router.remove(filter, `goes ${filter}`), true)
    assert.deepEqual(topics.map((name) => router.match(name).sort()), before)
    for (const filter of staying) assert.equal(router.remove(filter, `stays ${filter}`), true)
    assert.equal(router.isEmpty, true)
  }))
})

test('remove: takes one value of several, and one of the same value twice', () => {
  for (const filter of ['a/b', 'a/+', 'a/#']) {
    const router = new Router<string>()
    for (const value of ['x', 'y', 'x']) router.add(filter, value)
    assert.equal(router.remove(filter, 'x'), true)
    assert.deepEqual(router.match('a/b').sort(), ['x', 'y'])
    assert.equal(router.isEmpty, false)
  }
})

test('remove: says false for what is not there', () => {
  const router = new Router<string>()
  for (const filter of ['a/b', 'a/+/c', 'a/#']) router.add(filter, 'x')
  for (const [filter, value] of [
    ['a/b', 'y'], ['b', 'x'], ['a/+/c', 'y'], ['a/+/d', 'x'], ['b/+', 'x'], ['a/#', 'y'], ['b/#', 'x'], ['+', 'x']
  ] as const) assert.equal(router.remove(filter, value), false, filter)
  assert.equal(router.isEmpty, false)
})

test('TopicCache: gives what was set, until it is cleared', () => {
  const cache = new TopicCache<number>()
  assert.equal(cache.get('a'), undefined)
  cache.set('a', 1)
  assert.equal(cache.get('a'), 1)
  cache.clear()
  assert.equal(cache.get('a'), undefined)
})

test('TopicCache: a memo gives what the cache would give without it', () => {
  const step = fc.oneof(
    { arbitrary: fc.record({ what: fc.constant('get' as const), topic: fc.nat(9) }), weight: 9 },
    { arbitrary: fc.record({ what: fc.constant('set' as const), topic: fc.nat(9) }), weight: 9 },
    { arbitrary: fc.record({ what: fc.constant('clear' as const), topic: fc.nat(9) }), weight: 1 })
  fc.assert(fc.property(fc.array(step, { minLength: 20, maxLength: 60 }), (steps) => {
    const [cache, plain] = [new TopicCache<object>({ size: 2 }), new TopicCache<object>({ size: 2 })]
    const memos = Array.from({ length: 10 }, (): TopicMemo => ({ value: undefined, owner: undefined }))
    for (const { what, topic } of steps) {
      const name = `topic ${topic}`
      if (what === 'get') {
        assert.equal(cache.get(name, memos[topic]), plain.get(name))
      } else if (what === 'clear') {
        cache.clear()
        plain.clear()
      } else {
        const known = plain.get(name)
        assert.equal(cache.get(name), known)
        // As its users do: only what is not there.
        const value = { topic }
        if (known === undefined) for (const each of [cache, plain]) each.set(name, value)
      }
    }
  }))
})

test('TopicCache: two that share a memo do not mix', () => {
  const [one, other] = [new TopicCache<number>(), new TopicCache<number>()]
  const memo: TopicMemo = { value: undefined, owner: undefined }
  one.set('a', 1)
  other.set('a', 2)
  for (let times = 0; times < 2; times++) {
    assert.deepEqual([one.get('a', memo), other.get('a', memo)], [1, 2])
  }
})

test('TopicCache: forgets what was not asked for, and keeps what was', () => {
  const cache = new TopicCache<number>({ size: 2 })
  cache.set('used', 0)
  for (let index = 1; index <= 6; index++) {
    cache.set(`topic ${index}`, index)
    assert.equal(cache.get('used'), 0)
  }
  const kept = [1, 2, 3, 4, 5, 6].filter((index) => cache.get(`topic ${index}`) !== undefined)
  assert.ok(kept.length <= 4, `${kept.length} topics are kept`)
  assert.ok(!kept.includes(1))
})

test('TopicCache: keeps no topic of more than 512 characters', () => {
  const cache = new TopicCache<number>()
  cache.set('x'.repeat(513), 1)
  cache.set('x'.repeat(512), 2)
  assert.equal(cache.get('x'.repeat(513)), undefined)
  assert.equal(cache.get('x'.repeat(512)), 2)
})
