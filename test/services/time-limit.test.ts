import { describe, expect, test, vi } from 'vitest'
import { IMError } from '../../src/errors.ts'
import { inTime, Waits, withTimeLimit } from '../../src/services/time-limit.ts'
import { TimerWheel } from '../../src/services/timer-wheel.ts'
import { FakeClock } from '../../src/testing/fake-clock.ts'
import { settled } from '../events/workload.ts'
import { deferred } from '../support.ts'

function setUp() {
  const clock = new FakeClock()
  const timers = new TimerWheel(clock, 100)
  const waits = new Waits()
  return { clock, timers, waits, limit: { timers, timeoutMs: 1_000, waits } }
}

describe.each([
  ['withTimeLimit', withTimeLimit],
  ['inTime', inTime],
])('%s', (_name, limited) => {
  test.each([
    ['an answer at once', () => 5],
    ['an answer later', () => Promise.resolve(5)],
  ])('hands on %s, and leaves no timer', async (_what, action) => {
    const { limit, timers } = setUp()
    expect(await limited(limit, action)).toBe(5)
    expect(timers.count).toBe(0)
  })

  test.each([
    ['throws', () => { throw new Error('boom') }],
    ['rejects', () => Promise.reject(new Error('boom'))],
  ])('hands on what an action %s, and leaves no timer', async (_manner, action) => {
    const { limit, timers } = setUp()
    await expect(limited(limit, action)).rejects.toThrow('boom')
    expect(timers.count).toBe(0)
  })

  test('ends when nobody waits any longer, and for what begins after that', async () => {
    const { limit, timers, waits } = setUp()
    const hanging = limited(limit, () => deferred().promise)
    const reason = new IMError('IM_ABORTED', { detail: 'closing' })
    waits.abort(reason)
    await expect(hanging).rejects.toBe(reason)
    expect(timers.count).toBe(0)
    await expect(limited(limit, () => deferred().promise)).rejects.toBe(reason)
  })
})

describe('withTimeLimit', () => {
  test('gives up an action that ignores its signal, not before the time is over', async () => {
    const { limit, clock, timers } = setUp()
    const answer = deferred<number>()
    let signal: AbortSignal | undefined
    const settledWith = vi.fn()
    withTimeLimit(limit, (given) => ((signal = given), answer.promise)).then(settledWith, settledWith)
    await clock.advance(900)
    expect(settledWith).not.toHaveBeenCalled()
    expect(signal!.aborted).toBe(false)
    await clock.advance(200)
    expect(settledWith).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'IM_ABORTED' }))
    expect(signal!.aborted).toBe(true)
    answer.reject(new Error('late')) // nobody is interested any more
    await settled()
    expect(timers.count).toBe(0)
  })
})

describe('inTime', () => {
  test('gives up an answer that does not come, not before the time is over, and takes none that comes too late', async () => {
    const { limit, clock, timers } = setUp()
    const answer = deferred<number>()
    const settledWith = vi.fn()
    inTime(limit, () => answer.promise).then(settledWith, settledWith)
    await clock.advance(900)
    expect(settledWith).not.toHaveBeenCalled()
    await clock.advance(200)
    expect(settledWith).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'IM_ABORTED' }))
    answer.reject(new Error('late')) // nobody is interested any more
    await settled()
    expect(timers.count).toBe(0)
  })

  test('arms nothing for what is answered at once', async () => {
    const { limit, timers } = setUp()
    const answer = inTime(limit, () => 5)
    expect(timers.count).toBe(0)
    expect(await answer).toBe(5)
  })
})

describe('Waits', () => {
  test('aborts those that are in it, not those that were taken out', () => {
    const waits = new Waits()
    const [stays, leaves, late] = [new AbortController(), new AbortController(), new AbortController()]
    waits.add(stays)
    waits.add(leaves)
    waits.remove(leaves)
    waits.remove(late) // was never in
    waits.abort(new IMError('IM_ABORTED'))
    waits.add(late)
    expect([stays, leaves, late].map((controller) => controller.signal.aborted)).toEqual([true, false, true])
  })
})
