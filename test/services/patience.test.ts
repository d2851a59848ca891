import { expect, it } from 'vitest'
import { FakeClock } from 'imengine/testing'
import { Patience } from '../../src/services/patience.ts'

it('tells of a hurry all who wait, once and not before one turn more, and nobody who has taken it back', async () => {
  const clock = new FakeClock()
  const patience = new Patience(clock)
  const told: string[] = []
  patience.whenHurried(() => told.push('before'))
  patience.whenHurried(() => told.push('taken back'))()
  const hurries = [new AbortController(), new AbortController()]
  for (const { signal } of hurries) patience.heed({ drainMs: 1_000, signal })
  hurries[0]!.abort()
  patience.whenHurried(() => told.push('after'))
  expect(told).toEqual([])
  await clock.settle()
  expect(told).toEqual(['before', 'after'])
  hurries[1]!.abort()
  await clock.settle()
  expect(told).toEqual(['before', 'after'])
  patience.end()
  expect(clock.pendingTimerCount).toBe(0)
})
