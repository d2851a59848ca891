import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Clock, TimerEntry } from '../../src/contracts/clock.ts'
import { TimerWheel } from '../../src/services/timer-wheel.ts'

const TICK_MS = 100
const SLOT_COUNT = 512

/** Virtual time without promises: thousands of steps are cheap. A stall lets time pass while no timer fires. */
class StepClock implements Clock {
  nowValueMs = 0
  readonly timers = new Map<object, { readonly dueMs: number; readonly fire: () => void }>()

  nowMs(): number {
    return this.nowValueMs
  }

  monotonicMs(): number {
    return this.nowValueMs
  }

  setTimer(delayMs: number, fire: () => void): unknown {
    const timer = {}
    this.timers.set(timer, { dueMs: this.nowValueMs + Math.max(0, delayMs), fire })
    return timer
  }

  clearTimer(timer: unknown): void {
    this.timers.delete(timer as object)
  }

  defer(): void {
    throw new Error('the wheel needs no turn')
  }

  advance(ms: number): void {
    const endMs = this.nowValueMs + ms
    for (;;) {
      const [next] = [...this.timers].filter(([, timer]) => timer.dueMs <= endMs).sort((a, b) => a[1].dueMs - b[1].dueMs)
      if (next === undefined) break
      this.timers.delete(next[0])
      this.nowValueMs = Math.max(this.nowValueMs, next[1].dueMs)
      next[1].fire()
    }
    this.nowValueMs = Math.max(this.nowValueMs, endMs)
  }

  /** The event loop stands still: time passes and what became due fires at the end of it. */
  stall(ms: number): void {
    this.nowValueMs += ms
    this.advance(0)
  }
}

function setUp(startMs = 0) {
  const clock = new StepClock()
  clock.nowValueMs = startMs
  return { clock, wheel: new TimerWheel(clock, TICK_MS) }
}

type Action =
  | { readonly kind: 'arm'; readonly delayMs: number }
  | { readonly kind: 'cancel'; readonly which: number }
  | { readonly kind: 'pass'; readonly ms: number }

const delays = fc.oneof(
  fc.integer({ min: 0, max: 5 * TICK_MS }),
  fc.constantFrom(0, 1, TICK_MS, TICK_MS + 1, SLOT_COUNT * TICK_MS, SLOT_COUNT * TICK_MS + 1),
  fc.integer({ min: 0, max: 3 * SLOT_COUNT * TICK_MS }),
)

const actions: fc.Arbitrary<Action[]> = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('arm' as const), delayMs: delays }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const), which: fc.nat(100) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min: 0, max: 4 * TICK_MS }) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min: 0, max: 20_000 }) }) },
  ),
  { maxLength: 40 },
)

interface Armed {
  readonly dueMs: number
  readonly entry: TimerEntry
  firedAtMs: number[]
  cancelled: boolean
}

describe('against a list of due times', () => {
  test('every time-out fires once unless cancelled, never early, at most one tick late', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1_000 }), actions, (startMs, list) => {
        const { clock, wheel } = setUp(startMs)
        const all: Armed[] = []
        for (const action of list) {
          if (action.kind === 'pass') clock.advance(action.ms)
          else if (action.kind === 'arm') {
            const dueMs = clock.nowValueMs + action.delayMs
            const armed: Armed = { dueMs, firedAtMs: [], cancelled: false, entry: wheel.after(action.delayMs, () => armed.firedAtMs.push(clock.nowValueMs)) }
            all.push(armed)
          } else if (all.length > 0) {
            const armed = all[action.which % all.length]!
            wheel.cancel(armed.entry)
            if (armed.firedAtMs.length === 0) armed.cancelled = true
          }
          expect(wheel.count).toBe(all.filter((armed) => !armed.cancelled && armed.firedAtMs.length === 0).length)
          for (const armed of all) {
            if (!armed.cancelled && armed.firedAtMs.length === 0) expect(clock.nowValueMs).toBeLessThanOrEqual(armed.dueMs + TICK_MS)
          }
        }
        clock.advance(4 * SLOT_COUNT * TICK_MS)
        for (const armed of all) {
          expect(armed.firedAtMs).toHaveLength(armed.cancelled ? 0 : 1)
          const firedAtMs = armed.firedAtMs[0]
          if (firedAtMs === undefined) continue
          expect(firedAtMs).toBeGreaterThanOrEqual(armed.dueMs)
          expect(firedAtMs).toBeLessThanOrEqual(armed.dueMs + TICK_MS)
        }
        expect(wheel.count).toBe(0)
        expect(clock.timers.size).toBe(0)
      }),
      { seed: 41, numRuns: 200 },
    )
  })

  test('after stalls of any length each fires once, never early, and not later than one tick behind the stall', () => {
    const stalls = fc.array(fc.record({ delayMs: delays, stallMs: fc.integer({ min: 0, max: 3 * SLOT_COUNT * TICK_MS }) }), { maxLength: 10 })
    fc.assert(
      fc.property(stalls, (list) => {
        const { clock, wheel } = setUp()
        const all: { dueMs: number; latestMs: number; firedAtMs: number[] }[] = []
        for (const { delayMs, stallMs } of list) {
          const dueMs = clock.nowValueMs + delayMs
          const armed = { dueMs, latestMs: dueMs + TICK_MS, firedAtMs: [] as number[] }
          wheel.after(delayMs, () => armed.firedAtMs.push(clock.nowValueMs))
          all.push(armed)
          clock.stall(stallMs)
          for (const other of all) other.latestMs = Math.max(other.latestMs, clock.nowValueMs)
        }
        const lastStallMs = clock.nowValueMs
        clock.advance(4 * SLOT_COUNT * TICK_MS)
        for (const { dueMs, firedAtMs } of all) {
          expect(firedAtMs).toHaveLength(1)
          expect(firedAtMs[0]).toBeGreaterThanOrEqual(dueMs)
          expect(firedAtMs[0]).toBeLessThanOrEqual(Math.max(dueMs, lastStallMs) + TICK_MS)
        }
      }),
      { seed: 42, numRuns: 100 },
    )
  })
})

describe('one time-out', () => {
  test('armed in the middle of a tick is not two ticks late', () => {
    const { clock, wheel } = setUp(50)
    let firedAtMs = -1
    wheel.after(51, () => (firedAtMs = clock.nowValueMs)) // due at 101
    clock.advance(1_000)
    expect(firedAtMs).toBeGreaterThanOrEqual(101)
    expect(firedAtMs).toBeLessThanOrEqual(201)
  })

  test.each([SLOT_COUNT * TICK_MS - 1, SLOT_COUNT * TICK_MS, SLOT_COUNT * TICK_MS + 1, 10 * SLOT_COUNT * TICK_MS])(
    'of %d ms does not fire a round of the wheel too soon',
    (delayMs) => {
      const { clock, wheel } = setUp()
      let fired = false
      wheel.after(delayMs, () => (fired = true))
      clock.advance(delayMs - 1)
      expect(fired).toBe(false)
      clock.advance(TICK_MS + 1)
      expect(fired).toBe(true)
    },
  )

  test('armed again from inside its own fire comes again, once per arming', () => {
    const { clock, wheel } = setUp()
    const firedAtMs: number[] = []
    const again = (): void => {
      firedAtMs.push(clock.nowValueMs)
      if (firedAtMs.length < 4) wheel.after(TICK_MS, again)
    }
    wheel.after(TICK_MS, again)
    clock.advance(3_000)
    expect(firedAtMs).toHaveLength(4)
    for (let index = 1; index < 4; index++) {
      expect(firedAtMs[index]! - firedAtMs[index - 1]!).toBeGreaterThanOrEqual(TICK_MS)
    }
    expect(clock.timers.size).toBe(0)
  })

  test('of 0 ms armed from inside a fire does not loop in the same turn', () => {
    const { clock, wheel } = setUp()
    let count = 0
    const again = (): void => {
      count++
      wheel.after(0, again)
    }
    wheel.after(0, again)
    clock.stall(SLOT_COUNT * TICK_MS)
    expect(count).toBe(1)
    wheel.stop()
  })

  test('armed from inside a fire with the time of a whole round does not fire in that turn', () => {
    const { clock, wheel } = setUp()
    let fired = false
    wheel.after(TICK_MS, () => void wheel.after(SLOT_COUNT * TICK_MS, () => (fired = true)))
    clock.stall(SLOT_COUNT * TICK_MS)
    expect(fired).toBe(false)
    clock.advance(SLOT_COUNT * TICK_MS + TICK_MS)
    expect(fired).toBe(true)
  })

  test('cancelled from inside the fire of another one that is due in the same tick stays silent', () => {
    const { clock, wheel } = setUp()
    const fired: string[] = []
    const entries: TimerEntry[] = []
    for (const name of ['a', 'b']) {
      entries.push(
        wheel.after(TICK_MS, () => {
          fired.push(name)
          for (const entry of entries) wheel.cancel(entry)
        }),
      )
    }
    clock.advance(1_000)
    expect(fired).toEqual(['a'])
    expect(wheel.count).toBe(0)
  })

  test('cancelled twice, or after it has fired, counts once', () => {
    const { clock, wheel } = setUp()
    const entry = wheel.after(10, () => undefined)
    const other = wheel.after(10_000, () => undefined)
    wheel.cancel(entry)
    wheel.cancel(entry)
    expect(wheel.count).toBe(1)
    clock.advance(20_000)
    wheel.cancel(other)
    expect(wheel.count).toBe(0)
  })
})

describe("the clock's own timers", () => {
  test('there is one, however many time-outs there are', () => {
    const { clock, wheel } = setUp()
    for (let delayMs = 0; delayMs < 1_000; delayMs++) wheel.after(delayMs * 10, () => undefined)
    expect(clock.timers.size).toBe(1)
    clock.advance(500)
    expect(clock.timers.size).toBe(1)
  })

  test('there is none before the first time-out, after the last, and after stop', () => {
    const { clock, wheel } = setUp()
    expect(clock.timers.size).toBe(0)
    wheel.after(10, () => undefined)
    clock.advance(1_000)
    expect(clock.timers.size).toBe(0)
    let fired = false
    const entry = wheel.after(10, () => (fired = true))
    wheel.stop()
    expect(clock.timers.size).toBe(0)
    expect(wheel.count).toBe(0)
    wheel.cancel(entry)
    clock.advance(1_000)
    expect(fired).toBe(false)
    expect(wheel.count).toBe(0)
  })

  test('after a long rest with nothing armed, a time-out is not early and not late', () => {
    const { clock, wheel } = setUp()
    clock.nowValueMs += 123_456_789
    let firedAtMs = 0
    wheel.after(250, () => (firedAtMs = clock.nowValueMs))
    clock.advance(1_000)
    expect(firedAtMs - 123_456_789).toBeGreaterThanOrEqual(250)
    expect(firedAtMs - 123_456_789).toBeLessThanOrEqual(250 + TICK_MS)
  })
})
