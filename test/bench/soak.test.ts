import { describe, expect, it, onTestFinished } from 'vitest'
import { ReasonCode, refuse, type IMEngine } from 'imengine'
import { ComingAndGoing, runSoak } from '../../bench/load/soak.ts'
import { serveEngine } from '../../bench/servers/engine.ts'
import { grows, isAbove, trendOf } from '../../bench/trend.ts'
import type { SoakJob, SoakProgress, SoakResult } from '../../bench/wire.ts'

async function soak(job: Partial<SoakJob> = {}, prepare?: (engine: IMEngine) => void): Promise<{ result: SoakResult; told: SoakProgress[] }> {
  const running = await serveEngine({ kind: 'engine', transport: 'tcp', encryption: 'off', storage: 'memory', maxMessagesPerChannel: 1_000 }, prepare)
  onTestFinished(() => running.close())
  const told: SoakProgress[] = []
  const result = await runSoak(
    { transport: 'tcp', encryption: 'off', port: running.port, pairCount: 3, churnCount: 3, newcomersPerSecond: 40, ratePerSecond: 800, batchCount: 8, payloadBytes: 100, lastsMs: 2_500, tellEveryMs: 500, drainMs: 20_000, ...job },
    (progress) => told.push(progress),
  )
  return { result, told }
}

describe('a soak', () => {
  it('counts one delivery for each message, also of those who come and go, and says how far it is', async () => {
    const { result, told } = await soak()
    expect(result.sentCount).toBeGreaterThan(100)
    expect(result.deliveredCount).toBe(result.sentCount - result.refusedCount)
    expect(result.loginCount).toBeGreaterThan(3 * 2 + 3 * 2)
    expect(result.underWayCount).toBe(0)
    expect(told.length).toBeGreaterThan(0)
  })

  it('has new users, and waits until what they wrote has arrived', async () => {
    const { result } = await soak()
    expect(result.newcomerCount).toBeGreaterThan(0)
    expect(result.loginCount).toBeGreaterThan(result.newcomerCount)
  })

  it('notices that a message of a new user was acknowledged and never delivered', async () => {
    const withheld = soak({ drainMs: 500, lastsMs: 500 }, (engine) => {
      let isFirst = true
      void engine.use('EventPushOnline', function withholdOne({ messages }) {
        if (!isFirst || !messages.some(({ noPersist }) => noPersist)) return undefined
        isFirst = false
        return refuse(ReasonCode.NotAllowSend)
      })
    })
    await expect(withheld).rejects.toThrow(/lost: of \d+ messages of newcomers \d+ were delivered/)
  })

  it('notices that a message was acknowledged and never delivered', async () => {
    const withheld = soak({ drainMs: 500, lastsMs: 500 }, (engine) => {
      void engine.use('EventPushOnline', function withholdOne({ messages }) {
        if (messages.some(({ messageSeq }) => messageSeq === 7)) return refuse(ReasonCode.NotAllowSend)
      })
    })
    await expect(withheld).rejects.toThrow(/was delivered seq \d+ after \d+|lost/)
  })
})

describe('who comes and goes', () => {
  it('may be delivered again what came in an earlier stay, from anywhere on', () => {
    const visitor = new ComingAndGoing('r')
    visitor.begins()
    for (const seq of [1, 2, 3]) visitor.delivered(seq)
    visitor.begins()
    for (const seq of [2, 3, 4]) visitor.delivered(seq)
    expect([visitor.deliveredCount, visitor.repeatedCount, visitor.lastSeq]).toEqual([4, 2, 4])
  })

  it.each([
    ['a gap at the beginning', [1, 2], [4]],
    ['a gap later', [1, 2], [3, 5]],
    ['a repeat within a stay', [1, 2], [3, 3]],
    ['a step back within a stay', [1, 2], [3, 2]],
  ])('%s is told', (_, before, after) => {
    const visitor = new ComingAndGoing('r')
    visitor.begins()
    for (const seq of before) visitor.delivered(seq)
    visitor.begins()
    expect(() => {
      for (const seq of after) visitor.delivered(seq)
    }).toThrow('was delivered seq')
  })
})

describe('a trend', () => {
  it('is the slope of the line through points that lie on one, without an error', () => {
    const { slope, standardError } = trendOf([[0, 1], [1, 3], [2, 5], [3, 7]])
    expect(slope).toBeCloseTo(2, 12)
    expect(standardError).toBeCloseTo(0, 12)
  })

  it('has the standard error of the books', () => {
    // Residuals -0.1, 0.4, -0.5, 0.2 around 1.4 x + 0.1: sqrt((0.46 / 2) / 5).
    const { slope, standardError } = trendOf([[0, 0], [1, 1.9], [2, 2.4], [3, 4.5]])
    expect(slope).toBeCloseTo(1.4, 12)
    expect(standardError).toBeCloseTo(Math.sqrt(0.46 / 2 / 5), 12)
  })

  it('is above a bound only when it is so by more than two standard errors, and never with too few points', () => {
    expect(isAbove({ slope: 1, standardError: 0.4 }, 0.1)).toBe(true)
    expect(isAbove({ slope: 1, standardError: 0.5 }, 0.1)).toBe(false)
    expect(isAbove(trendOf([[0, 0], [1, 100]]), 0.1)).toBe(false)
  })

  it('of counts is growth when they never come down again to what they were', () => {
    expect(grows([5, 1, 2, 3, 9, 9, 4, 4])).toBe(true)
    expect(grows([1, 4, 2, 4, 1, 4, 4, 5])).toBe(false)
    expect(grows([1, 2])).toBe(false)
  })
})
