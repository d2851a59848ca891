import fc from 'fast-check'
import type { deferred } from '../support.ts'

/** Every property of this folder runs the same cases in every run; a failing one prints how to repeat it alone. */
export const CASES = { seed: 20_260_101, numRuns: 150 } as const

export interface QueuedEvent {
  readonly key: string
  /** the place of the event among those of its key */
  readonly number: number
  readonly bytes: number
}

/** How the test answers one call of `run`. */
export type Manner = 'sync' | 'throws' | 'resolves later' | 'rejects later'

export type Command =
  | { readonly kind: 'submit'; readonly key: string; readonly bytes: number }
  | { readonly kind: 'drain' }
  /** settle one of the promises that are pending, or let one go that gathers, whichever the number points at */
  | { readonly kind: 'settle'; readonly which: number }

const keys = fc.constantFrom('ann', 'bob', 'cleo', 'dan')

export const commands: fc.Arbitrary<Command[]> = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('submit' as const), key: keys, bytes: fc.integer({ min: 0, max: 40 }) }) },
    { weight: 2, arbitrary: fc.constant({ kind: 'drain' as const }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('settle' as const), which: fc.nat(100) }) },
  ),
  { maxLength: 80 },
)

export const manners: fc.Arbitrary<Manner[]> = fc.array(
  fc.constantFrom<Manner>('sync', 'throws', 'resolves later', 'rejects later'),
  { minLength: 1, maxLength: 20 },
)

export const gathers: fc.Arbitrary<boolean[]> = fc.array(fc.boolean(), { minLength: 1, maxLength: 8 })

export const bounds = fc.record({
  maxEventsPerKey: fc.integer({ min: 1, max: 8 }),
  maxBytesPerKey: fc.integer({ min: 1, max: 120 }),
  maxEvents: fc.integer({ min: 1, max: 20 }),
  maxBytes: fc.integer({ min: 40, max: 300 }),
  maxBatchCount: fc.integer({ min: 1, max: 6 }),
})

/** Let everything run that waits for nothing but its turn. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

export type Deferred = ReturnType<typeof deferred<void>>
