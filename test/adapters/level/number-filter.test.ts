import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Database } from '../../../src/adapters/level/database.ts'
import { numberKey, setChannelNo } from '../../../src/adapters/level/keys.ts'
import { NumberFilter } from '../../../src/adapters/level/number-filter.ts'

/** A database with these keys of client numbers, and nothing else. */
function withKeys(keys: readonly Buffer[]): Database {
  return {
    async *keyStrides() {
      for (let first = 0; first < keys.length; first += 3) yield keys.slice(first, first + 3)
    },
  } as unknown as Database
}

const keyOf = (uid: string, clientMsgNo: string, no = 1): Buffer => setChannelNo(numberKey(uid, clientMsgNo), no)

test('never says no to a number it was told of, whatever its text, before or after it was filled', async () => {
  const anyKey = fc.tuple(fc.string({ maxLength: 80 }), fc.string({ minLength: 1, maxLength: 80 }), fc.nat({ max: 5 })).map((parts) => keyOf(...parts))
  await fc.assert(
    fc.asyncProperty(fc.array(anyKey), fc.array(anyKey), fc.integer(), async (stored, added, seed) => {
      const filter = new NumberFilter({ maxBytes: 256, seed })
      for (const key of added) filter.add(filter.hash(key))
      await filter.fill(withKeys(stored), () => false)
      for (const key of [...stored, ...added]) expect(filter.mayHave(filter.hash(key))).toBe(true)
    }),
    { seed: 1 },
  )
})

test('says yes to everything until it has been filled, and when that was stopped', async () => {
  const filter = new NumberFilter({ maxBytes: 1024, seed: 7 })
  const hash = filter.hash(keyOf('ann', 'n'))
  expect(filter.mayHave(hash)).toBe(true)
  await filter.fill(withKeys([keyOf('bob', 'n')]), () => true)
  expect([filter.mayHave(hash), filter.isComplete]).toEqual([true, false])
  await filter.fill(withKeys([]), () => false)
  expect([filter.mayHave(hash), filter.isComplete]).toEqual([false, true])
})

test('says no to nearly all numbers that were never used, with as many as it has room for', async () => {
  const filter = new NumberFilter({ maxBytes: 1 << 14, seed: 3 })
  const capacity = ((1 << 14) * 8) / 10
  for (let index = 0; index < capacity; index++) filter.add(filter.hash(keyOf('ann', `used-${index}`)))
  await filter.fill(withKeys([]), () => false)
  let yes = 0
  for (let index = 0; index < 10_000; index++) if (filter.mayHave(filter.hash(keyOf('ann', `new-${index}`)))) yes++
  expect(yes).toBeLessThan(400)
})

test('keys that only differ in their channel have different hashes', () => {
  const filter = new NumberFilter({ maxBytes: 1024, seed: 3 })
  const hashes = Array.from({ length: 1_000 }, (_, no) => filter.hash(keyOf('ann', 'n', no)))
  expect(new Set(hashes).size).toBe(1_000)
})
