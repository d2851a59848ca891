import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LogPace } from '../../../src/adapters/nats/log-pace.ts'

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance', 'Date'], now: 1_700_000_000_000 }))
afterEach(() => void vi.useRealTimers())

/** A node whose entries take so long. */
function pace(nodeID: number, flightMs: number, maxPeriodMs = 48): LogPace {
  const made = new LogPace(nodeID, maxPeriodMs)
  for (let count = 0; count < 100; count++) made.landed(flightMs)
  return made
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
  it.each([
    [0, 3],
    [0.7, 3],
    [2, 12],
    [5, 24],
    [11, 48],
    [2_000, 48],
  ])('launches, when an entry takes %d ms, every %d ms', (flightMs, periodMs) => {
    const [, ...gaps] = launches(pace(1, flightMs), 960).map((moment, index, all) => moment - (all[index - 1] ?? 0))
    expect(gaps.length).toBeGreaterThanOrEqual(960 / periodMs - 2)
    // The first gap is that to its place in the period.
    for (const gap of gaps.slice(1)) expect(Math.abs(gap - periodMs)).toBeLessThanOrEqual(1)
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

  it('is over an entry that was on its way for a minute after a few of the usual kind', () => {
    const own = pace(1, 0.5)
    own.landed(60_000)
    for (let count = 0; count < 20; count++) own.landed(0.5)
    own.launched()
    expect(own.leftMs).toBeLessThanOrEqual(6)
  })

  it('launches whenever it likes if it is not to be held', () => {
    const own = pace(1, 20, 0)
    own.launched()
    expect(own.leftMs).toBe(0)
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
