import { describe, expect, it } from 'vitest'
import { FakeClock } from '../../src/testing/index.ts'

describe('FakeClock', () => {
  it('lets nothing happen until it is told, and shows each timer its own due time', async () => {
    const clock = new FakeClock({ nowMs: 5000 })
    const seen: [string, number, number][] = []
    const note = (name: string) => (): void => void seen.push([name, clock.monotonicMs(), clock.nowMs()])
    clock.setTimer(300, note('c'))
    clock.setTimer(100, note('a'))
    clock.setTimer(100, note('b'))
    await clock.settle()
    expect(seen).toEqual([])
    await clock.advance(299)
    expect(seen).toEqual([
      ['a', 100, 5100],
      ['b', 100, 5100],
    ])
    expect([clock.monotonicMs(), clock.nowMs(), clock.pendingTimerCount]).toEqual([299, 5299, 1])
    await clock.advance(1)
    expect(seen[2]).toEqual(['c', 300, 5300])
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('lets promises and deferred work come to rest between two timers, and fires what they set within the same advance', async () => {
    const clock = new FakeClock()
    const seen: string[] = []
    clock.setTimer(10, () => {
      void Promise.resolve()
        .then(() => Promise.resolve())
        .then(() => {
          clock.defer(() => {
            clock.defer(() => {
              seen.push(`deferred at ${clock.monotonicMs()}`)
              clock.setTimer(5, () => seen.push(`set meanwhile, at ${clock.monotonicMs()}`))
            })
          })
        })
    })
    clock.setTimer(12, () => seen.push(`second at ${clock.monotonicMs()}`))
    await clock.advance(15)
    expect(seen).toEqual(['deferred at 10', 'second at 12', 'set meanwhile, at 15'])
  })

  it('setNow moves the wall clock and no timer', async () => {
    const clock = new FakeClock({ nowMs: 1000 })
    let fired = false
    clock.setTimer(50, () => {
      fired = true
    })
    clock.setNow(1_000_000)
    await clock.settle()
    expect([clock.nowMs(), clock.monotonicMs(), fired]).toEqual([1_000_000, 0, false])
    clock.setNow(10)
    await clock.advance(50)
    expect([clock.nowMs(), clock.monotonicMs(), fired]).toEqual([60, 50, true])
  })

  it('a timer that is due already fires with the next advance, even of nothing', async () => {
    const clock = new FakeClock()
    const fired: number[] = []
    clock.setTimer(0, () => fired.push(0))
    clock.setTimer(-5, () => fired.push(-5))
    await clock.advance(0)
    expect(fired).toEqual([0, -5])
  })

  it('a timer that never ends is counted and cleared like any other', async () => {
    const clock = new FakeClock()
    const timer = clock.setTimer(Infinity, () => {
      throw new Error('never')
    })
    await clock.advance(1e12)
    expect(clock.pendingTimerCount).toBe(1)
    clock.clearTimer(timer)
    clock.clearTimer(undefined)
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('gives on what a timer throws, and can go on', async () => {
    const clock = new FakeClock()
    clock.setTimer(5, () => {
      throw new Error('broken')
    })
    await expect(clock.advance(10)).rejects.toThrow('broken')
    await clock.advance(10)
    expect(clock.monotonicMs()).toBe(15)
  })

  it('refuses two advances at once, and time that is none', async () => {
    const clock = new FakeClock()
    const first = clock.advance(1)
    await expect(clock.advance(1)).rejects.toThrow(/advance is running already/)
    await first
    await expect(clock.advance(-1)).rejects.toThrow(TypeError)
    await expect(clock.advance(Infinity)).rejects.toThrow(TypeError)
    expect(() => clock.setTimer(Number.NaN, () => {})).toThrow(TypeError)
  })

  it('reports work that defers itself for ever', async () => {
    const clock = new FakeClock()
    let running = true
    const again = (): void => {
      if (running) clock.defer(again)
    }
    clock.defer(again)
    await expect(clock.settle()).rejects.toThrow(/still deferring itself/)
    running = false
  })
})
