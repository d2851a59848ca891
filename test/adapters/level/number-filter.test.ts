import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Database } from '../../../src/adapters/level/database.ts'
import { MAX_NUMBER_KEY_BYTES, numberText, writeNumberKey } from '../../../src/adapters/level/keys.ts'
import { NumberFilter } from '../../../src/adapters/level/number-filter.ts'

type Used = readonly [uid: string, clientMsgNo: string, no?: number]

/** A database with these numbers, each with a key of its own, and lists with these hashes, and nothing else. */
function withNumbers(used: readonly Used[], listed: readonly number[] = []): Database {
  const keys = used.map(([uid, clientMsgNo, no = 1]) => {
    const key = Buffer.alloc(MAX_NUMBER_KEY_BYTES)
    return key.subarray(0, writeNumberKey(key, no, numberText(uid, clientMsgNo)))
  })
  return {
    async *keyStrides() {
      for (let first = 0; first < keys.length; first += 3) yield keys.slice(first, first + 3)
    },
    async *strides() {
      for (const hash of listed) yield [[Buffer.alloc(9), Buffer.from(Int32Array.of(hash, 0).buffer).swap32()]]
    },
  } as unknown as Database
}

const hashIn = (filter: NumberFilter, [uid, clientMsgNo, no = 1]: Used): number => filter.hashOf(no, numberText(uid, clientMsgNo))

test('never says no to a number it was told of, whatever its text, before or after it was filled', async () => {
  const anyNumber = fc.tuple(fc.string({ maxLength: 80 }), fc.string({ minLength: 1, maxLength: 80 }), fc.nat({ max: 5 }))
  await fc.assert(
    fc.asyncProperty(fc.array(anyNumber), fc.array(anyNumber), fc.array(anyNumber), fc.integer(), async (stored, listed, added, seed) => {
      const filter = new NumberFilter({ maxBytes: 256 })
      filter.seed = seed
      for (const number of added) filter.add(hashIn(filter, number))
      await filter.fill(withNumbers(stored, listed.map((number) => hashIn(filter, number))), () => false)
      for (const number of [...stored, ...listed, ...added]) expect(filter.mayHave(hashIn(filter, number))).toBe(true)
    }),
    { seed: 1 },
  )
})

test('says yes to everything until it has been filled, and when that was stopped', async () => {
  const filter = new NumberFilter({ maxBytes: 1024 })
  const hash = hashIn(filter, ['ann', 'n'])
  expect(filter.mayHave(hash)).toBe(true)
  await filter.fill(withNumbers([['bob', 'n']]), () => true)
  expect([filter.mayHave(hash), filter.isComplete]).toEqual([true, false])
  await filter.fill(withNumbers([]), () => false)
  expect([filter.mayHave(hash), filter.isComplete]).toEqual([false, true])
})

test('says no to nearly all numbers that were never used, with as many as it has room for', async () => {
  const filter = new NumberFilter({ maxBytes: 1 << 14 })
  const capacity = ((1 << 14) * 8) / 10
  for (let index = 0; index < capacity; index++) filter.add(hashIn(filter, ['ann', `used-${index}`]))
  await filter.fill(withNumbers([]), () => false)
  let yes = 0
  for (let index = 0; index < 10_000; index++) if (filter.mayHave(hashIn(filter, ['ann', `new-${index}`]))) yes++
  expect(yes).toBeLessThan(400)
})

test('numbers that only differ in their channel have different hashes', () => {
  const filter = new NumberFilter({ maxBytes: 1024 })
  const hashes = Array.from({ length: 1_000 }, (_, no) => hashIn(filter, ['ann', 'n', no]))
  expect(new Set(hashes).size).toBe(1_000)
})
