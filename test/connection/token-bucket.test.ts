import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { TokenBucket } from '../../src/connection/token-bucket.ts'

describe('a token bucket', () => {
  test('lets its rate pass at once, and one more as soon as it is earned', () => {
    const bucket = new TokenBucket(4, 1_000)
    expect(Array.from({ length: 6 }, () => bucket.take(1_000))).toEqual([true, true, true, true, false, false])
    expect(bucket.take(1_249)).toBe(false)
    expect(bucket.take(1_251)).toBe(true)
    expect(bucket.take(1_251)).toBe(false)
  })

  test('saves up no more than one second', () => {
    const bucket = new TokenBucket(3, 0)
    expect(Array.from({ length: 5 }, () => bucket.take(3_600_000))).toEqual([true, true, true, false, false])
  })

  test('is not emptied by what it turns away', () => {
    const bucket = new TokenBucket(1, 0)
    bucket.take(0)
    for (let nowMs = 0; nowMs < 1_000; nowMs += 100) expect(bucket.take(nowMs)).toBe(false)
    expect(bucket.take(1_001)).toBe(true)
  })

  test('never lets more pass in any stretch of time than its rate allows, and wastes nothing of a steady stream', () => {
    const gaps = fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 1, maxLength: 60 })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), gaps, (perSecond, list) => {
        const bucket = new TokenBucket(perSecond, 0)
        const passedAtMs: number[] = []
        let nowMs = 0
        for (const gap of list) {
          nowMs += gap
          if (bucket.take(nowMs)) passedAtMs.push(nowMs)
        }
        for (let first = 0; first < passedAtMs.length; first++) {
          for (let last = first; last < passedAtMs.length; last++) {
            const seconds = (passedAtMs[last]! - passedAtMs[first]!) / 1_000
            expect(last - first + 1).toBeLessThanOrEqual(perSecond + seconds * perSecond + 1e-6)
          }
        }
      }),
      { seed: 61, numRuns: 200 },
    )
    const bucket = new TokenBucket(10, 0)
    for (let nowMs = 0; nowMs < 10_000; nowMs += 125) expect(bucket.take(nowMs)).toBe(true)
  })
})
