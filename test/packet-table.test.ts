import assert from 'node:assert/strict'
import { setFlagsFromString } from 'node:v8'
import { test } from 'node:test'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { PacketSet, PacketTable } from '../lib/session/packet-table.ts'

test('PacketTable: has what a Map has, after whatever was done to both', () => {
  // Some that share their low bits, so that it has to grow.
  const colliding = fc.integer({ min: 0, max: 20 }).map((n) => 1 + n * 3_072)
  const id = fc.oneof(fc.integer({ min: 1, max: 65_535 }), colliding)
  const step = fc.tuple(fc.constantFrom('set', 'set', 'delete', 'clear'), id)
  fc.assert(fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
    const [table, map] = [new PacketTable<object>(), new Map<number, object>()]
    for (const [what, packetId] of steps) {
      if (what === 'set') {
        const value = { packetId }
        table.set(packetId, value)
        map.set(packetId, value)
      } else if (what === 'delete') {
        assert.equal(table.delete(packetId), map.delete(packetId))
      } else if (packetId % 16 === 0) {
        table.clear()
        map.clear()
      }
      assert.equal(table.size, map.size)
      assert.equal(table.get(packetId), map.get(packetId))
    }
    assert.deepEqual(new Set(table.values()), new Set(map.values()))
  }))
})

test('PacketTable: has room for every identifier at once, and nothing for 0', () => {
  const table = new PacketTable<number>()
  for (let id = 1; id <= 65_535; id++) table.set(id, id)
  assert.equal(table.size, 65_535)
  for (let id = 1; id <= 65_535; id++) assert.equal(table.get(id), id)
  assert.deepEqual([table.get(0), table.delete(0)], [undefined, false])
})

test('PacketSet: has what a Set has, after whatever was done to both', () => {
  const step = fc.tuple(fc.constantFrom('add', 'add', 'delete', 'clear'), fc.integer({ min: 1, max: 65_535 }))
  fc.assert(fc.property(fc.array(step), fc.integer({ min: 1, max: 65_535 }), (steps, other) => {
    const [ids, model] = [new PacketSet(), new Set<number>()]
    for (const [what, packetId] of steps) {
      if (what === 'clear' && packetId % 16 > 0) continue
      ids[what](packetId)
      model[what](packetId)
      for (const id of [packetId, packetId - 1, packetId + 1, other]) assert.equal(ids.has(id), model.has(id))
    }
    for (const id of model) assert.ok(ids.has(id))
  }))
})

test('PacketTable: the collector of young garbage is enough for what was deleted', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as (options: { type: 'major' | 'minor' }) => void
  const table = new PacketTable<object>()
  let packetId = 0
  const send = (count: number) => {
    for (let sent = 0; sent < count; sent++) {
      packetId = packetId % 65_535 + 1
      table.set(packetId, { a: sent, b: { sent } })
      table.delete((packetId + 65_535 - 100) % 65_535)
    }
  }
  // Until the table is old.
  send(10_000)
  for (let times = 0; times < 3; times++) collect({ type: 'major' })
  const before = process.memoryUsage().heapUsed
  for (let times = 0; times < 20; times++) {
    send(50_000)
    collect({ type: 'minor' })
  }
  // With a Map it is three times as much, with the table a fifth.
  const grown = process.memoryUsage().heapUsed - before
  assert.ok(grown < 5_000_000, `${grown} bytes`)
})
