import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ReadBuffer } from '../lib/wire/read-buffer.ts'

const KiB = 1_024

test('ReadBuffer: what was read stays as it is, and each read has room', () => {
  const size = fc.oneof(
    fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 64 * KiB }),
    fc.constantFrom(KiB - 1, KiB, 16 * KiB, 16 * KiB + 1, 48 * KiB, 64 * KiB))
  fc.assert(fc.property(fc.array(size, { maxLength: 40 }), (sizes) => {
    const buffer = new ReadBuffer()
    const reads = sizes.map((wanted, index) => {
      const { target } = buffer
      assert.ok(target.length >= 48 * KiB)
      // As a socket does: not more than there is room for.
      const read = Math.min(wanted, target.length)
      target.fill(index + 1, 0, read)
      const taken = buffer.take(read)
      assert.equal(taken.length, read)
      return taken
    })
    for (const [index, read] of reads.entries()) assert.ok(read.every((byte) => byte === index + 1))
  }))
})

test('ReadBuffer: small reads have bytes of their own, others share a buffer', () => {
  const buffer = new ReadBuffer()
  const first = buffer.target.buffer
  for (let reads = 0; reads < 1_000; reads++) {
    assert.equal(buffer.take(500).buffer.byteLength, 500)
    assert.equal(buffer.target.buffer, first)
  }
  const reads = Array.from({ length: 11 }, () => {
    const read = buffer.take(3_000)
    assert.ok(buffer.target.length >= 48 * KiB)
    return read.buffer
  })
  assert.equal(new Set(reads).size, 2)
  assert.equal(reads[0], first)
})
