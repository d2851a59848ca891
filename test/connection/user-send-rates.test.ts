import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { TokenBucket } from '../../src/connection/token-bucket.ts'
import { UserSendRates } from '../../src/connection/user-send-rates.ts'

describe('the rates of users', () => {
  test('are kept for as long as a bucket may not be full, and then forgotten', () => {
    const rates = new UserSendRates(5, 0)
    for (let number = 0; number < 10_000; number++) rates.take(`u${number}`, number / 10)
    expect(rates.count).toBe(10_000)
    rates.take('ann', 2_000)
    rates.take('ann', 3_000)
    expect(rates.count).toBe(1)
  })

  test('never hold more than those who have asked within the last two seconds, or before a silence', () => {
    const rates = new UserSendRates(5, 0)
    for (let nowMs = 0; nowMs < 60_000; nowMs++) {
      rates.take(`u${nowMs}`, nowMs)
      expect(rates.count).toBeLessThanOrEqual(2_001)
    }
  })

  test('say for every user what a bucket of their own that is never forgotten would say', () => {
    const steps = fc.array(fc.record({ uid: fc.constantFrom('ann', 'bob', 'cat'), gapMs: fc.integer({ min: 0, max: 1_500 }) }), { maxLength: 80 })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), steps, (perSecond, list) => {
        const rates = new UserSendRates(perSecond, 0)
        const buckets = new Map<string, TokenBucket>()
        let nowMs = 0
        for (const { uid, gapMs } of list) {
          nowMs += gapMs
          const bucket = buckets.get(uid) ?? new TokenBucket(perSecond, nowMs)
          buckets.set(uid, bucket)
          expect(rates.take(uid, nowMs)).toBe(bucket.take(nowMs))
        }
      }),
      { seed: 62, numRuns: 300 },
    )
  })
})
