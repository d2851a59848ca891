import { expect, it } from 'vitest'
import { seededRandom } from '../../src/testing/index.ts'

const draw = (seed: number) => {
  const random = seededRandom(seed)
  return [random.bytes(8).join(), random.below(1000), random.pick(['a', 'b', 'c']), random.below(1000)]
}

it('repeats itself for one seed and differs for another', () => {
  expect(draw(1)).toEqual(draw(1))
  expect(draw(1)).not.toEqual(draw(2))
  expect(seededRandom(42).seed).toBe(42)
})

it('below stays below its bound and reaches every number', () => {
  const random = seededRandom(3)
  const seen = new Set(Array.from({ length: 1000 }, () => random.below(7)))
  expect([...seen].sort()).toEqual([0, 1, 2, 3, 4, 5, 6])
  expect(random.below(1)).toBe(0)
})

it('names what is wrong with a seed or with choices', () => {
  expect(() => seededRandom(1.5)).toThrow(/seed must be an integer, got 1.5/)
  expect(() => seededRandom(1).pick([])).toThrow(/choices must be a list of at least one/)
})
