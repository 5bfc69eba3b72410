import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Sequence } from '../lib/processes/sequence.ts'

interface Begun {
  readonly id: number
}

test('Sequence: has what a Map has, in order, whatever ends when, also where the numbers begin anew', () => {
  const step = fc.oneof(
    fc.record({ add: fc.integer({ min: 1, max: 100 }) }),
    // Counted from the oldest, or from the newest.
    fc.record({ end: fc.integer({ min: -50, max: 50 }) }),
    fc.record({ endAllBut: fc.integer({ min: 0, max: 3 }) }))
  fc.assert(fc.property(fc.constantFrom(1, 2 ** 32 - 30), fc.array(step), (first, steps) => {
    const sequence = new Sequence<Begun>(first)
    const map = new Map<number, Begun>()
    const end = (id: number | undefined) => {
      if (id === undefined) return
      sequence.delete(id)
      map.delete(id)
      assert.equal(sequence.get(id), undefined)
    }
    for (const action of steps) {
      if ('add' in action) {
        for (let count = 0; count < action.add; count++) {
          const begun = sequence.add((id) => ({ id }))
          map.set(begun.id, begun)
          assert.equal(sequence.get(begun.id), begun)
        }
      } else if ('end' in action) {
        end([...map.keys()].at(action.end))
      } else {
        for (const id of [...map.keys()].slice(action.endAllBut)) end(id)
      }
      assert.equal(sequence.size, map.size)
    }
    assert.deepEqual(sequence.values, [...map.values()])
  }))
})

test('Sequence: those that never end stay, and hold up no other', () => {
  const sequence = new Sequence<Begun>()
  const stuck = [sequence.add((id) => ({ id })), sequence.add((id) => ({ id }))]
  for (let count = 0; count < 300_000; count++) sequence.delete(sequence.add((id) => ({ id })).id)
  const last = sequence.add((id) => ({ id }))
  assert.deepEqual(sequence.values, [...stuck, last])
  assert.deepEqual(stuck.map(({ id }) => sequence.get(id)), stuck)
  for (const { id } of [...stuck, last, last]) sequence.delete(id)
  assert.deepEqual([sequence.size, sequence.values], [0, []])
})
