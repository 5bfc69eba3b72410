import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import fc from 'fast-check'
import { Router } from '../lib/router/router.ts'
import { covers, overlap } from '../lib/topic/overlap.ts'
import { OverlapIndex, withoutShare } from '../lib/topic/overlap-index.ts'
import { createApp } from './helpers/app.ts'

// Every topic of up to four levels over an alphabet with what matters: empty levels, and the broker's own.
const names = ((): string[] => {
  const levels = ['a', 'b', '', '$s']
  let all = levels
  const topics = [...levels]
  for (let length = 2; length <= 4; length++) {
    all = all.flatMap((topic) => ['a', 'b', ''].map((level) => `${topic}/${level}`))
    topics.push(...all)
  }
  return topics.filter((topic) => topic !== '')
})()

const level = fc.constantFrom('a', 'b', '', '+', '$s')
const anyFilter = fc.tuple(fc.array(level, { minLength: 1, maxLength: 3 }), fc.boolean())
  .map(([levels, hasRest]) => [...levels.map((text, index) => index > 0 && text === '$s' ? 'a' : text), ...hasRest ? ['#'] : []])
  .map((levels) => levels.join('/')).filter((text) => text !== '')

test('overlap: two filters overlap when some topic matches both', () => {
  fc.assert(fc.property(anyFilter, anyFilter, (one, other) => {
    const router = new Router<string>()
    router.add(one, 'one')
    router.add(other, 'other')
    const expected = names.some((name) => router.match(name).length === 2)
    assert.equal(overlap(one, other), expected, `${one} ${other}`)
    assert.equal(overlap(other, one), expected)
  }), { numRuns: 2_000 })
})

test('covers: a filter covers another when it matches every topic that the other matches', () => {
  fc.assert(fc.property(anyFilter, anyFilter, (wide, narrow) => {
    const router = new Router<string>()
    router.add(wide, 'wide')
    router.add(narrow, 'narrow')
    const onlyNarrow = names.filter((name) => router.match(name).join() === 'narrow')
    if (covers(wide, narrow)) assert.deepEqual(onlyNarrow, [], `${wide} ${narrow}`)
    // That '+/#' and '#' match the same is not known: one of them has to be the wider one.
    else if (narrow !== '#' && narrow !== '/#') assert.notDeepEqual(onlyNarrow, [], `${wide} ${narrow}`)
  }), { numRuns: 2_000 })
  assert.equal(covers('#', '$s/a'), false)
  assert.equal(covers('$s/#', '$s/a'), true)
})

test('OverlapIndex: finds what overlaps of the filters that are in it, shared ones too', () => {
  const filter = fc.tuple(fc.constantFrom('', '', '$share/g/', '$share/h/'), fc.oneof(anyFilter, fc.constant('#')))
    .map(([share, text]) => share + text)
  const change = fc.record({ filter, isDeleted: fc.boolean() })
  fc.assert(fc.property(fc.array(change, { maxLength: 20 }), filter, (changes, asked) => {
    const index = new OverlapIndex()
    const filters = new Set<string>()
    for (const { filter, isDeleted } of changes) {
      if (isDeleted) index.delete(filter)
      else index.add(filter)
      filters[isDeleted ? 'delete' : 'add'](filter)
    }
    const expected = [...filters]
      .filter((other) => other !== asked && overlap(withoutShare(asked), withoutShare(other)))
    assert.deepEqual(index.overlapping(asked).sort(), expected.sort())
  }), { numRuns: 2_000 })
})

test('topics(): lists every topic of the connection in order, from whatever scope, until it is removed', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual', prefix: 'site' })
  const params = Type.Object({ n: Type.Integer() })
  const payload = Type.Object({ x: Type.Number() })
  const first = fastify.mqtt.topic('a/<int:n>', { name: 'first', qos: 1, params, payload }, () => {})
  first.onMessage(() => {})
  await fastify.register(async (child) => {
    child.mqtt.topic('$SYS/#', { absolute: true })
    child.mqtt.topic('b/<path:rest>', function second () {})
    const all = child.mqtt.topics()
    assert.deepEqual(all, [
      {
        pattern: 'a/<int:n>',
        filter: 'site/a/+',
        name: 'first',
        qos: 1,
        absolute: false,
        topicPrefix: '',
        handlers: 2,
        params: [{ name: 'n', converter: 'int' }],
        schemas: { params, payload },
        overlaps: []
      },
      {
        pattern: '$SYS/#',
        filter: '$SYS/#',
        name: undefined,
        qos: 0,
        absolute: true,
        topicPrefix: 'low',
        handlers: 0,
        params: [],
        schemas: { params: undefined, payload: undefined },
        overlaps: []
      },
      {
        pattern: 'b/<path:rest>',
        filter: 'site/low/b/#',
        name: 'second',
        qos: 0,
        absolute: false,
        topicPrefix: 'low',
        handlers: 1,
        params: [{ name: 'rest', converter: 'path' }],
        schemas: { params: undefined, payload: undefined },
        overlaps: []
      }
    ])
  }, { topicPrefix: 'low' })
  await fastify.ready()
  first.remove()
  assert.deepEqual(fastify.mqtt.topics().map(({ pattern }) => pattern), ['$SYS/#', 'b/<path:rest>'])
  first.onMessage(() => {})
  assert.deepEqual(fastify.mqtt.topics().map(({ pattern }) => pattern), ['$SYS/#', 'b/<path:rest>', 'a/<int:n>'])
})

test('topics(): names the patterns that one message can match beside, not those with the same filter', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual' })
  for (const pattern of ['a/<x>', 'a/<int:y>', 'a/#', 'b', '$share/g/a/b']) fastify.mqtt.topic(pattern as 'a', () => {})
  assert.deepEqual(fastify.mqtt.topics().map(({ overlaps }) => overlaps), [
    ['a/#', '$share/g/a/b'], ['a/#', '$share/g/a/b'], ['a/<x>', 'a/<int:y>', '$share/g/a/b'], [],
    ['a/<x>', 'a/<int:y>', 'a/#']
  ])
})

test('printTopics(): is a table', async (t) => {
  const { fastify } = await createApp(t, { start: 'manual', prefix: 'site' })
  assert.equal(fastify.mqtt.printTopics(), 'no topics\n')
  const payload = Type.Object({
    celsius: Type.Number(),
    unit: Type.Optional(Type.Union([Type.Literal('C'), Type.Literal('F')])),
    list: Type.Array(Type.Object({ deep: Type.Object({ deeper: Type.Object({}) }) }))
  })
  fastify.mqtt.topic('sensor/<int:id>', { name: 'sensor', qos: 1, payload }, () => {}).onMessage(() => {})
  await fastify.register(async (child) => {
    child.mqtt.topic('#', () => {})
    child.mqtt.topic('out', { payload: Type.Object({}, { title: 'Command' }) })
    child.mqtt.topic('id', { payload: Type.String({ $id: 'Identifier' }) })
    child.mqtt.topic('text', { payload: Type.String() })
    child.mqtt.topic('empty', { payload: Type.Object({}) })
    child.mqtt.topic('any', { payload: Type.Any() })
  }, { topicPrefix: 'sensor' })
  await fastify.ready()
  const [head, sensor, rest, out, id, text, empty, any] = fastify.mqtt.printTopics().split('\n')
  assert.match(head ?? '', /^filter +qos +pattern +scope +name +payload$/)
  assert.match(sensor ?? '', /^site\/sensor\/\+ +1 +sensor\/<int:id> +- +sensor +\{ celsius: number, unit\?: "C" \| "F", list: \{ deep: \{…\} \}\[\] \} +2 handlers; overlaps #, out, id, text, empty, any$/)
  assert.match(rest ?? '', /^site\/sensor\/# +0 +# +sensor +- +- +overlaps sensor\/<int:id>, out, id, text, empty, any$/)
  assert.match(out ?? '', /Command +not subscribed; overlaps/)
  assert.match(id ?? '', /Identifier +not subscribed/)
  assert.match(text ?? '', /string +not subscribed/)
  assert.match(empty ?? '', /\{\} +not subscribed/)
  assert.match(any ?? '', /schema +not subscribed/)
})
