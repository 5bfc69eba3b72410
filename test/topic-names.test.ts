import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { TopicName, TopicTable } from '../lib/wire/topic-names.ts'

/** Where it lies must not matter, nor what lies beside it. */
function lookUp (table: TopicTable, name: string | Buffer, before = 'x', after = 'yyyy') {
  const bytes = Buffer.from(name)
  const all = Buffer.concat([Buffer.from(before), bytes, Buffer.from(after)])
  const start = Buffer.byteLength(before)
  return table.at(all, start, start + bytes.length)
}

function deviceNames (count: number): string[] {
  return Array.from({ length: count }, (_, index) => `site/${index % 10}/device/${index}/reading`)
}

// Of the lengths at which something changes, and with names that differ in one place only.
const unit = fc.constantFrom('a', 'b', '/', 'ä', '€', '😀')
const name = fc.oneof(
  fc.array(unit, { minLength: 1, maxLength: 12 }).map((units) => units.join('')),
  fc.tuple(fc.constantFrom(3, 4, 5, 31, 32, 33, 36, 127, 128, 129, 300), fc.nat(299), unit)
    .map(([length, at, other]) => 'a'.repeat(at % length) + other + 'a'.repeat(length - 1 - at % length)))

test('TopicTable: gives the name that is there, however often and whatever came before', () => {
  const table = new TopicTable()
  fc.assert(fc.property(name, fc.string({ maxLength: 5 }), fc.string(), (text, before, after) => {
    const found = lookUp(table, text, before, after)
    assert.equal(found.text, text)
    const isRemembered = Buffer.byteLength(text) <= 128
    assert.equal(lookUp(table, text, after, before) === found, isRemembered)
  }), { numRuns: 2_000 })
})

test('TopicName: is where its bytes are, and nowhere else', () => {
  const other = fc.oneof(name, fc.nat(127))
  fc.assert(fc.property(name, other, (text, place) => {
    const bytes = Buffer.from(text)
    const known = new TopicName(text, bytes, 0, bytes.length)
    // Another name, or the same with one other byte.
    const here = typeof place === 'string' ? Buffer.from(place) : Buffer.from(bytes)
    if (typeof place === 'number') here[place % here.length] = (here[place % here.length] as number) ^ 1
    const both = Buffer.concat([here, bytes])
    assert.equal(known.isAt(both, 0, here.length), here.equals(bytes))
    assert.ok(known.isAt(both, here.length, both.length))
  }), { numRuns: 5_000 })
})

test('TopicTable: has more names than it remembers', () => {
  const table = new TopicTable()
  const names = deviceNames(100_000)
  for (let round = 0; round < 2; round++) {
    for (const text of names) assert.equal(lookUp(table, text).text, text)
  }
})

test('TopicTable: thousands of names have room beside each other', () => {
  const table = new TopicTable()
  const names = deviceNames(10_000)
  const first = names.map((text) => lookUp(table, text))
  const again = names.filter((text, index) => lookUp(table, text) === first[index])
  assert.ok(again.length > 9_000, `${again.length} of them are remembered`)
})

for (const [what, bytes] of [
  ['a wildcard', Buffer.from('a/+')],
  ['a NUL', Buffer.from('a\0')],
  ['ill-formed UTF-8', Buffer.from('612fff', 'hex')]
] as const) {
  test(`TopicTable: ${what} is malformed each time`, () => {
    const table = new TopicTable()
    for (let times = 0; times < 2; times++) {
      assert.throws(() => lookUp(table, bytes), { code: 'FST_MQTT_MALFORMED' })
    }
    assert.equal(lookUp(table, 'a/b').text, 'a/b')
  })
}
