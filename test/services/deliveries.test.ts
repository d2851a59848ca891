import { describe, expect, test } from 'vitest'
import { memoryStorage } from 'imengine'
import { Deliveries } from '../../src/services/deliveries.ts'
import { ManualTimers } from '../events/manual-timers.ts'

const FIRST = { channelID: 'first', channelType: 4 }

function setUp(maxCount: number): Deliveries {
  const { cursors } = memoryStorage()
  return new Deliveries({ cursors, timers: new ManualTimers(), flushMs: 500, maxCount, report: () => undefined })
}

/** Is what bob has acknowledged behind a gap still known after `count` others have been, in channels with names so long? */
function isKnownBehind(count: number, nameLength: number): boolean {
  const deliveries = setUp(100)
  deliveries.acknowledge('bob', FIRST, 5)
  for (let index = 0; index < count; index++) deliveries.acknowledge('eve', { channelID: String(index).padEnd(nameLength, 'x'), channelType: 4 }, 1)
  return deliveries.isAcknowledged('bob', FIRST, 5)
}

describe('what is kept of acknowledgements', () => {
  test('is as many users in channels as it may be', () => {
    expect([isKnownBehind(99, 100), isKnownBehind(100, 100)]).toEqual([true, false])
  })

  test('is fewer when their names are long: who invents channels cannot fill the memory with their names', () => {
    expect([isKnownBehind(1, 32_000), isKnownBehind(2, 32_000)]).toEqual([true, false])
  })

  test('is at least the position when a name alone is longer than all may be', async () => {
    const deliveries = setUp(1)
    const long = { channelID: 'x'.repeat(32_000), channelType: 4 }
    deliveries.acknowledge('bob', long, 1)
    deliveries.acknowledge('bob', long, 2)
    expect(deliveries.deliveredSeq('bob', long)).toBe(2)
    await deliveries.flush()
  })
})
