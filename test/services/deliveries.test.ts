import { describe, expect, test } from 'vitest'
import { memoryStorage, type ChannelKey, type CursorStore, type CursorUpdate } from 'imengine'
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

describe('a hint of where the last delivery was counted', () => {
  const TEAM = { channelID: 'team', channelType: 2 }

  test('counts for nobody and no channel but those it is about', async () => {
    const { cursors } = memoryStorage()
    const deliveries = new Deliveries({ cursors, timers: new ManualTimers(), flushMs: 500, maxCount: 100, report: () => undefined })
    const holder = { deliveryHint: undefined }
    for (const [uid, key] of [['ann', TEAM], ['bob', TEAM], ['bob', FIRST], ['bob', { ...TEAM, channelType: 4 }], ['ann', TEAM]] as const) {
      const before = deliveries.deliveredSeq(uid, key)
      deliveries.acknowledge(uid, key, before + 1, before + 1, holder)
    }
    await deliveries.flush()
    const seqs = [['ann', TEAM], ['bob', TEAM], ['bob', FIRST], ['bob', { ...TEAM, channelType: 4 }]] as const
    expect(await Promise.all(seqs.map(async ([uid, key]) => (await cursors.cursor(uid, key)).deliveredSeq))).toEqual([2, 1, 1, 1])
  })

  test('is worth nothing once the user has left the channel, or others have taken the room', async () => {
    const { cursors } = memoryStorage()
    const deliveries = new Deliveries({ cursors, timers: new ManualTimers(), flushMs: 500, maxCount: 2, report: () => undefined })
    const holder = { deliveryHint: undefined }
    deliveries.acknowledge('ann', TEAM, 1, 5, holder)
    deliveries.forget('ann', TEAM)
    deliveries.acknowledge('ann', TEAM, 7, 7, holder) // beyond a gap: what came before the leaving does not count
    expect(deliveries.deliveredSeq('ann', TEAM)).toBe(0)
    for (const uid of ['bob', 'eve']) deliveries.acknowledge(uid, TEAM, 1)
    deliveries.acknowledge('ann', TEAM, 1, 1, holder)
    expect(deliveries.deliveredSeq('ann', TEAM)).toBe(1)
    await deliveries.flush()
    expect((await cursors.cursor('ann', TEAM)).deliveredSeq).toBe(1)
  })

  test('moves the stored position after every flush, also one that has failed', async () => {
    const { cursors } = memoryStorage()
    let isBroken = false
    const flaky = new Proxy(cursors, {
      get: (target, name) => {
        if (name === 'advance' && isBroken) return () => Promise.reject(new Error('disk full'))
        const member: unknown = Reflect.get(target, name)
        return typeof member === 'function' ? (member.bind(target) as unknown) : member
      },
    })
    const deliveries = new Deliveries({ cursors: flaky, timers: new ManualTimers(), flushMs: 500, maxCount: 100, report: () => undefined })
    const holder = { deliveryHint: undefined }
    for (const [seq, broken] of [[1, false], [2, true], [3, false], [4, false]] as const) {
      isBroken = broken
      deliveries.acknowledge('ann', TEAM, seq, seq, holder)
      await deliveries.flush()
      expect((await cursors.cursor('ann', TEAM)).deliveredSeq).toBe(broken ? seq - 1 : seq)
    }
  })
})

test('a position that the store was slow to say does not hold up another one of the same user and channel', async () => {
  const { cursors } = memoryStorage()
  const loads: (() => void)[] = []
  const slow: CursorStore = Object.assign(Object.create(cursors) as CursorStore, {
    cursor: (uid: string, key: ChannelKey) => new Promise((resolve) => loads.push(() => resolve(cursors.cursor(uid, key)))),
    cursors: (uid: string, keys: readonly ChannelKey[]) => cursors.cursors(uid, keys),
    advance: (updates: readonly CursorUpdate[]) => cursors.advance(updates),
    flush: () => cursors.flush(),
  })
  const deliveries = new Deliveries({ cursors: slow, timers: new ManualTimers(), flushMs: 500, maxCount: 1, report: () => undefined })
  const phone = { deliveryHint: undefined }
  deliveries.acknowledge('bob', FIRST, 1, 1)
  deliveries.acknowledge('eve', FIRST, 1, 1) // pushes bob's out
  deliveries.acknowledge('bob', FIRST, 1, 1, phone)
  for (const index of [2, 0]) {
    loads[index]!()
    await Promise.resolve().then(() => undefined)
  }
  deliveries.acknowledge('bob', FIRST, 2, 2, phone)
  await deliveries.flush()
  deliveries.acknowledge('bob', FIRST, 3, 3, phone)
  await deliveries.flush()
  expect(await cursors.cursor('bob', FIRST)).toMatchObject({ deliveredSeq: 3 })
})

test('a load that fails late takes nothing from the position that has come in its place', async () => {
  const { cursors } = memoryStorage()
  const fails: ((reason: unknown) => void)[] = []
  const slow: CursorStore = Object.assign(Object.create(cursors) as CursorStore, {
    cursor: (uid: string, key: ChannelKey) => (fails.length === 0 ? new Promise((_, reject) => fails.push(reject)) : cursors.cursor(uid, key)),
  })
  const deliveries = new Deliveries({ cursors: slow, timers: new ManualTimers(), flushMs: 500, maxCount: 1, report: () => undefined })
  deliveries.acknowledge('bob', FIRST, 7)
  deliveries.acknowledge('eve', FIRST, 1) // pushes bob's out
  deliveries.acknowledge('bob', FIRST, 5)
  fails[0]!(new Error('lost'))
  await Promise.resolve().then(() => undefined)
  expect(deliveries.isAcknowledged('bob', FIRST, 5)).toBe(true)
})
