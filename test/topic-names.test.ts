import assert from 'node:assert/strict'
import { isUtf8 } from 'node:buffer'
import { test } from 'node:test'
import fc from 'fast-check'
import { TopicTable } from '../lib/wire/topic-names.ts'

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

test('TopicTable: tells a name from one with another byte, and from one with more', () => {
  fc.assert(fc.property(name, fc.nat(127), (text, place) => {
    // Where nothing is but the one that could be taken for the other.
    const table = new TopicTable()
    const known = lookUp(table, text)
    const other = Buffer.from(text)
    other[place % other.length] = (other[place % other.length] as number) ^ 1
    const longer = Buffer.concat([Buffer.from(text), other])
    for (const bytes of [other, longer, longer.subarray(0, Buffer.byteLength(text) - 1)]) {
      if (bytes.length === 0 || !isTopicName(bytes)) continue
      assert.equal(lookUp(table, bytes).text, bytes.toString())
    }
    assert.equal(lookUp(table, text) === known, Buffer.byteLength(text) <= 128)
  }), { numRuns: 5_000 })
})

for (const [what, nameOf] of [
  ['at the beginning', (number: string) => number + 'x'.repeat(60)],
  ['behind the first 32 bytes', (number: string) => 'x'.repeat(32) + number],
  ['at the end', (number: string) => 'x'.repeat(122) + number]
] as const) {
  test(`TopicTable: tells names from each other that have one place, and differ ${what}`, () => {
    const table = new TopicTable()
    // More than there are places, and of one length.
    for (let index = 0; index < 60_000; index++) {
      const text = nameOf(String(index % 40_000).padStart(5, '0'))
      assert.equal(lookUp(table, text).text, text)
    }
  })
}

function isTopicName (bytes: Buffer): boolean {
  return isUtf8(bytes) && !/[+#\0]/.test(bytes.toString())
}

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
