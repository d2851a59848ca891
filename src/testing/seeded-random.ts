import type { Random } from '../contracts/random.ts'
import { badOption } from '../errors.ts'

/** Chance that repeats itself: two with one seed give the same, call by call. */
export interface SeededRandom extends Random {
  /** to be printed by a test that fails */
  readonly seed: number
  /** an integer from 0 up to and without `bound` (1 .. 2^32) */
  below(bound: number): number
  /** one of `choices`, which must not be empty */
  pick<T>(choices: readonly T[]): T
}

/**
 * @param seed  any integer; its low 32 bits count
 * Numbers are those of the generator splitmix32: evenly spread, easily predicted, for tests only.
 */
export function seededRandom(seed: number): SeededRandom {
  if (!Number.isSafeInteger(seed)) badOption('seed', 'an integer', seed)
  let state = seed | 0
  const next = (): number => {
    state = (state + 0x9e3779b9) | 0
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
    return (mixed ^ (mixed >>> 15)) >>> 0
  }
  const below = (bound: number): number => Math.floor((next() / 0x1_0000_0000) * bound)
  return {
    seed,
    below,
    bytes: (count) => Uint8Array.from({ length: count }, () => next() & 0xff),
    pick: <T>(choices: readonly T[]): T => {
      if (choices.length === 0) badOption('choices', 'a list of at least one', choices)
      return choices[below(choices.length)] as T
    },
  }
}
