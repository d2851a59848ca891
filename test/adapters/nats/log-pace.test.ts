import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LogPace } from '../../../src/adapters/nats/log-pace.ts'

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance', 'Date'], now: 1_700_000_000_000 }))
afterEach(() => void vi.useRealTimers())

/** A node whose entries take so long. */
function pace(nodeID: number, flightMs: number, periodMs = 48): LogPace {
  const made = new LogPace(nodeID, periodMs)
  land(made, flightMs, 20)
  return made
}

function land(own: LogPace, flightMs: number, count: number): void {
  for (let each = 0; each < count; each++) own.landed(flightMs)
}

/** The moments at which one who always has something launches, within `forMs` that are looked at every half a millisecond. */
function launches(own: LogPace, forMs: number): number[] {
  const moments: number[] = []
  for (let ms = 0; ms < forMs; ms += 0.5) {
    if (own.leftMs === 0) {
      own.launched()
      moments.push(ms)
    }
    vi.advanceTimersByTime(0.5)
  }
  return moments
}

describe('a node that always has something to send', () => {
  it.each([10, 11, 2_000])('launches, when an entry takes %d ms, once in every period', (flightMs) => {
    const [, ...gaps] = launches(pace(1, flightMs), 960).map((moment, index, all) => moment - (all[index - 1] ?? 0))
    expect(gaps.length).toBeGreaterThanOrEqual(18)
    // The first gap is that to its place in the period.
    for (const gap of gaps.slice(1)) expect(Math.abs(gap - 48)).toBeLessThanOrEqual(1)
  })

  it('does so at a time at which no other node of five does', () => {
    const places = [1, 2, 3, 4, 5].map((nodeID) => {
      vi.setSystemTime(1_700_000_000_000)
      return launches(pace(nodeID, 12), 480).at(-1)! % 48
    })
    const sorted = places.sort((a, b) => a - b)
    const gaps = sorted.map((place, index) => (index === 0 ? place + 48 - sorted.at(-1)! : place - sorted[index - 1]!))
    expect(Math.min(...gaps)).toBeGreaterThan(48 / 5 / 2)
  })

})

describe('a node whose entries take', () => {
  it.each([
    ['little time', 9.9, 48],
    ['long, but are not to be held', 20, 0],
  ])('%s, launches whenever it likes', (_what, flightMs, periodMs) => {
    const own = pace(1, flightMs, periodMs)
    own.launched()
    expect([own.isHeld, own.leftMs]).toEqual([false, 0])
  })

  it('little time goes on so when a few take a minute', () => {
    const own = pace(1, 2)
    land(own, 60_000, 7)
    expect(own.isHeld).toBe(false)
    land(own, 60_000, 1)
    expect(own.isHeld).toBe(true)
  })

  it('long tries after a while whether they do without being held, and then after twice as long', () => {
    const own = pace(1, 11)
    for (const holdMs of [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000]) {
      vi.advanceTimersByTime(holdMs - 1)
      land(own, 1, 20)
      expect(own.isHeld).toBe(true)
      vi.advanceTimersByTime(1)
      land(own, 11, 15) // the first of them tells the time, and the next 14 are too few
      expect(own.isHeld).toBe(false)
      land(own, 11, 1)
      expect(own.isHeld).toBe(true)
    }
  })

  it('long no more is not held again, and begins anew when it is much later', () => {
    const own = pace(1, 11)
    vi.advanceTimersByTime(2_000)
    land(own, 5, 1_000)
    expect(own.isHeld).toBe(false)
    vi.advanceTimersByTime(60_000)
    land(own, 11, 15)
    expect(own.isHeld).toBe(true)
    vi.advanceTimersByTime(2_000)
    land(own, 11, 1)
    expect(own.isHeld).toBe(false)
  })
})

it('nobody waits for longer than the period, whatever becomes of the clock on the wall', () => {
  fc.assert(
    fc.property(fc.nat(1_023), fc.integer({ min: 0, max: 60 }), fc.array(fc.integer({ min: -10_000_000, max: 10_000_000 }), { maxLength: 20 }), (nodeID, flightMs, jumps) => {
      const own = pace(nodeID, flightMs)
      own.launched()
      for (const jump of jumps) {
        vi.setSystemTime(Date.now() + jump)
        expect(own.leftMs).toBeLessThanOrEqual(48)
        vi.advanceTimersByTime(1)
      }
      vi.advanceTimersByTime(50)
      expect(own.leftMs).toBe(0)
    }),
    { seed: 20_260_101, numRuns: 200 },
  )
})
