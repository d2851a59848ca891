import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../../contracts/clock.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import type { ContractCase, ContractOptions, Opened } from './contract-case.ts'

export interface ClockContractOptions<O extends Opened<Clock>> extends ContractOptions<Clock, O> {
  /** Let at least `ms` pass for this clock; by default that much real time. */
  advance?(opened: O, ms: number): MaybePromise<void>
}

/** The promises of a Clock. */
export function clockContract<O extends Opened<Clock>>(options: ClockContractOptions<O>): ContractCase[] {
  const { open, advance = async (_opened, ms) => await sleep(ms + 5) } = options
  return scenarios.map(([name, check]) => ({
    name,
    run: async () => {
      const opened = await open()
      try {
        await check(opened.subject, async (ms) => await advance(opened, ms))
      } finally {
        await opened.close?.()
      }
    },
  }))
}

/** Timers of Node may fire up to a millisecond before a finer clock says that they are due. */
const TOLERANCE_MS = 1

type Check = (clock: Clock, pass: (ms: number) => Promise<void>) => Promise<void>

const scenarios: readonly (readonly [name: string, check: Check])[] = [
  [
    'nowMs counts milliseconds since 1970 and moves on',
    async (clock, pass) => {
      const before = clock.nowMs()
      assert.ok(before > Date.UTC(2020, 0) && before < Date.UTC(2200, 0), 'a date of our times')
      await pass(20)
      assert.ok(clock.nowMs() > before)
    },
  ],
  [
    'monotonicMs never goes back and moves on',
    async (clock, pass) => {
      const before = clock.monotonicMs()
      let last = before
      for (let i = 0; i < 10_000; i++) {
        const now = clock.monotonicMs()
        assert.ok(now >= last)
        last = now
      }
      await pass(20)
      assert.ok(clock.monotonicMs() - before >= 20 - TOLERANCE_MS)
    },
  ],
  [
    'a timer fires once, not within setTimer and not before its delay',
    async (clock, pass) => {
      const setAtMs = clock.monotonicMs()
      const firedAfterMs: number[] = []
      for (const delayMs of [0, 10, 30]) clock.setTimer(delayMs, () => firedAfterMs.push(clock.monotonicMs() - setAtMs))
      assert.deepEqual(firedAfterMs, [])
      await pass(50)
      assert.equal(firedAfterMs.length, 3)
      for (const [i, delayMs] of [0, 10, 30].entries()) assert.ok((firedAfterMs[i] ?? 0) >= delayMs - TOLERANCE_MS)
      await pass(50)
      assert.equal(firedAfterMs.length, 3)
    },
  ],
  [
    'timers fire in the order in which they are due',
    async (clock, pass) => {
      const fired: number[] = []
      for (const delayMs of [60, 5, 30]) clock.setTimer(delayMs, () => fired.push(delayMs))
      await pass(80)
      assert.deepEqual(fired, [5, 30, 60])
    },
  ],
  [
    'a timer that was cleared does not fire; to clear it again, or after it has fired, does nothing',
    async (clock, pass) => {
      const fired: string[] = []
      const cleared = clock.setTimer(10, () => fired.push('cleared'))
      const kept = clock.setTimer(10, () => fired.push('kept'))
      clock.clearTimer(cleared)
      clock.clearTimer(cleared)
      await pass(30)
      clock.clearTimer(kept)
      assert.deepEqual(fired, ['kept'])
    },
  ],
  [
    'a timer may set and clear others',
    async (clock, pass) => {
      const fired: string[] = []
      const victim = clock.setTimer(30, () => fired.push('victim'))
      clock.setTimer(5, () => {
        clock.clearTimer(victim)
        clock.setTimer(5, () => fired.push('second'))
      })
      await pass(20)
      await pass(30)
      assert.deepEqual(fired, ['second'])
    },
  ],
  [
    'what is deferred runs once, after the code and the promises of now, in the order given',
    async (clock) => {
      const ran: string[] = []
      const done = new Promise<void>((resolve) => {
        clock.defer(() => ran.push('first'))
        clock.defer(() => {
          ran.push('second')
          clock.defer(() => {
            ran.push('from within')
            resolve()
          })
        })
      })
      ran.push('now')
      await Promise.resolve().then(() => ran.push('promise'))
      await done
      assert.deepEqual(ran, ['now', 'promise', 'first', 'second', 'from within'])
    },
  ],
]
