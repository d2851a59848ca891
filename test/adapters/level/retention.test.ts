import { levelStorage, type AnyLevel, type LevelStorage, type LevelStorageOptions } from 'imengine/level'
import type { AppendResult, ChannelKey } from 'imengine'
import { sampleMessage } from 'imengine/testing'
import { MemoryLevel } from 'memory-level'
import { describe, expect, test } from 'vitest'

const room = (channelID: string): ChannelKey => ({ channelID, channelType: 2 })

async function opened(options: Partial<LevelStorageOptions>) {
  const clock = { nowMs: 1_000_000 }
  const db = new MemoryLevel<string, string>() as AnyLevel
  const storage = levelStorage({ ...options, db, nowMs: () => clock.nowMs })
  await storage.open()
  let lastID = 0
  const say = async (key: ChannelKey, ...numbers: readonly string[]): Promise<readonly AppendResult[]> => {
    const messages = numbers.map((clientMsgNo) =>
      sampleMessage(++lastID, { ...key, clientMsgNo, payload: Buffer.from(clientMsgNo), timestampMs: clock.nowMs }),
    )
    return (await storage.messages.append([{ key, messages }]))[0]!
  }
  return { clock, db, storage, say, sweep: () => sweepAll(storage, clock.nowMs) }
}

/** As the engine does: again while there is more. */
async function sweepAll({ messages }: LevelStorage, nowMs: number): Promise<{ removedCount: number; callCount: number }> {
  let removedCount = 0
  for (let callCount = 1; ; callCount++) {
    const swept = await messages.sweep!(nowMs)
    removedCount += swept.removedCount
    if (swept.isDone) return { removedCount, callCount }
  }
}

async function seqs({ messages }: LevelStorage, key: ChannelKey): Promise<number[]> {
  return (await messages.range(key, { limit: 10_000 })).map(({ messageSeq }) => messageSeq)
}

describe('retention', () => {
  test('by count keeps the newest, and numbers go on', async () => {
    const { storage, say, sweep } = await opened({ retention: { maxCount: 3 } })
    await say(room('a'), '1', '2', '3', '4', '5')
    await say(room('b'), '1', '2')
    expect(await sweep()).toMatchObject({ removedCount: 2 })
    expect([await seqs(storage, room('a')), await seqs(storage, room('b'))]).toEqual([[3, 4, 5], [1, 2]])
    expect((await storage.messages.summaries('ann', [room('a')]))[0]).toMatchObject({ lastSeq: 5, floorSeq: 2 })
    expect((await say(room('a'), '1'))[0]).toMatchObject({ status: 'stored', messageSeq: 6 }) // with the message its number is forgotten
    expect((await say(room('a'), '4'))[0]).toMatchObject({ status: 'duplicate', messageSeq: 4 })
  })

  test('by age removes what is older, also all of a channel, and never gives its numbers again', async () => {
    const { clock, storage, say, sweep } = await opened({ retention: { maxAgeMs: 1_000 } })
    await say(room('a'), '1', '2')
    clock.nowMs += 600
    await say(room('a'), '3')
    clock.nowMs += 500
    expect(await sweep()).toMatchObject({ removedCount: 2 })
    expect(await seqs(storage, room('a'))).toEqual([3])
    clock.nowMs += 10_000
    expect(await sweep()).toMatchObject({ removedCount: 1 })
    expect(await seqs(storage, room('a'))).toEqual([])
    expect((await say(room('a'), '4'))[0]).toMatchObject({ messageSeq: 4 })
    expect(await sweep()).toMatchObject({ removedCount: 0 })
  })

  test('may be another one for each channel', async () => {
    const retention = ({ channelID }: ChannelKey) => (channelID === 'a' ? { maxCount: 1 } : undefined)
    const { storage, say, sweep } = await opened({ retention })
    for (const id of ['a', 'b']) await say(room(id), '1', '2', '3')
    await sweep()
    expect([await seqs(storage, room('a')), await seqs(storage, room('b'))]).toEqual([[3], [1, 2, 3]])
  })

  test('of many messages goes piece by piece, and of many channels as well', async () => {
    const { storage, say, sweep } = await opened({ retention: { maxCount: 1 } })
    for (let call = 0; call < 26; call++) await say(room('large'), ...Array.from({ length: 500 }, (_, index) => `${call}-${index}`))
    for (let index = 0; index < 2_100; index++) await say(room(`small-${index}`), '1', '2')
    const { removedCount, callCount } = await sweep()
    expect(removedCount).toBe(26 * 500 - 1 + 2_100)
    expect(callCount).toBeGreaterThan(2)
    expect(await seqs(storage, room('large'))).toEqual([13_000])
    expect(await seqs(storage, room('small-2099'))).toEqual([2])
  })

  test.each([
    ['throws', () => { throw new Error('of the host') }, /of the host/],
    ['answers half a message', () => ({ maxCount: 1.5 }), /maxCount/],
    ['answers no number', () => ({ maxAgeMs: Number.NaN }), /maxAgeMs/],
    ['answers what it does not mean', () => ({ maxcount: 1 }), /maxcount/],
  ])('of a function that %s for one channel is told; there everything stays, and elsewhere goes what has to', async (_name, ofB, told) => {
    const { clock, storage, say, sweep } = await opened({ retention: ({ channelID }) => (channelID === 'b' ? (ofB() as { maxCount: number }) : { maxCount: 1 }) })
    for (const id of ['a', 'b', 'c']) await say(room(id), '1', '2', '3')
    await storage.messages.append([{ key: room('d'), messages: [sampleMessage(900, { ...room('d'), timestampMs: clock.nowMs, expireSec: 1 })] }])
    clock.nowMs += 2_000
    await expect(sweep()).rejects.toThrow(told)
    expect(await Promise.all(['a', 'b', 'c', 'd'].map(async (id) => seqs(storage, room(id))))).toEqual([[3], [1, 2, 3], [3], []])
  })

  test('takes recalled messages and holes with it, and counts what is left rightly', async () => {
    const { clock, storage, say, sweep } = await opened({ retention: { maxCount: 4 } })
    await say(room('a'), '1', '2', '3', '4', '5', '6')
    for (const seq of [1, 4]) await storage.messages.revise(room('a'), seq, { kind: 'recalled', byUID: '', timestampMs: clock.nowMs })
    await sweep()
    expect(await storage.messages.countAfter(room('a'), 0)).toBe(3)
    expect(await seqs(storage, room('a'))).toEqual([3, 4, 5, 6])
  })
})

test('a damaged message is told, and does not keep others from being swept', async () => {
  const { clock, storage, db, sweep } = await opened({ retention: ({ channelID }) => (channelID === 'b' ? { maxCount: 1 } : undefined) })
  const expiring = [1, 2, 3].map((n) => sampleMessage(900 + n, { ...room('a'), timestampMs: clock.nowMs, expireSec: n }))
  await storage.messages.append([{ key: room('a'), messages: expiring }])
  await storage.messages.append([{ key: room('b'), messages: [1, 2, 3].map((n) => sampleMessage(950 + n, room('b'))) }])
  const batch = db.batch()
  batch.put(Buffer.from([0x6d, 0, 0, 0, 1, 0, 0, 0, 1]), Buffer.from('damage'), { keyEncoding: 'buffer', valueEncoding: 'buffer' })
  await batch.write()
  clock.nowMs += 10_000
  await expect(sweep()).rejects.toMatchObject({ code: 'IM_STORE_CORRUPT' })
  expect(await storage.messages.get([2, 3].map((n) => sampleMessage(900 + n).messageID))).toEqual([undefined, undefined])
  expect(await seqs(storage, room('b'))).toEqual([3])
  expect(await sweep()).toMatchObject({ removedCount: 0 })
})

describe('what is found first, and then removed', () => {
  test('is no more at a time than was asked for, of one channel and of many', async () => {
    const { clock, storage, say } = await opened({ retention: { maxCount: 1 } })
    await say(room('large'), ...Array.from({ length: 250 }, (_, index) => `${index}`))
    for (let index = 0; index < 120; index++) await say(room(`small-${index}`), '1', '2')
    const counts: number[] = []
    for (let isDone = false; !isDone; ) {
      const due = await storage.messages.due!(clock.nowMs, 100)
      counts.push(await storage.messages.discard!(due.removals))
      isDone = due.isDone
    }
    expect(counts).toEqual([100, 100, 100, 69])
    expect(await seqs(storage, room('large'))).toEqual([250])
  })

  test('forgets numbers piece by piece, too', async () => {
    const { clock, storage, say } = await opened({ dedupeKeepMs: 1_000 })
    await say(room('a'), ...Array.from({ length: 250 }, (_, index) => `${index}`))
    clock.nowMs += 2_000
    const found = []
    for (let isDone = false; !isDone; ) {
      const due = await storage.messages.due!(clock.nowMs, 100)
      found.push(...due.removals)
      await storage.messages.discard!(due.removals)
      isDone = due.isDone
    }
    expect(found.map(({ forgottenThroughSeq }) => forgottenThroughSeq)).toEqual([128, 250]) // a whole row of them, as they were stored
    expect((await say(room('a'), '249'))[0]).toMatchObject({ status: 'stored' })
  })

  test('is found again while nobody removes it, and other channels have their turn', async () => {
    const { clock, storage, say } = await opened({ retention: { maxCount: 1 } })
    for (const id of ['a', 'b']) await say(room(id), ...Array.from({ length: 30 }, (_, index) => `${index}`))
    const found: string[] = []
    for (let call = 0; call < 8; call++) found.push(...(await storage.messages.due!(clock.nowMs, 10)).removals.map(({ key }) => key.channelID))
    expect(found.slice(0, 2)).toEqual(['a', 'a'])
    expect(new Set(found)).toEqual(new Set(['a', 'b']))
  })

  test('of a damaged message is refused by name, whatever of it is to go: nodes would number repeats differently. The rest is removed', async () => {
    const { clock, storage, db } = await opened({})
    const expiring = [1, 2].map((n) => sampleMessage(900 + n, { ...room('a'), timestampMs: clock.nowMs, expireSec: n }))
    await storage.messages.append([{ key: room('a'), messages: expiring }])
    const batch = db.batch()
    batch.put(Buffer.from([0x6d, 0, 0, 0, 1, 0, 0, 0, 1]), Buffer.from('damage'), { keyEncoding: 'buffer', valueEncoding: 'buffer' })
    await batch.write()
    clock.nowMs += 10_000
    const { removals } = await storage.messages.due!(clock.nowMs, 100)
    for (const removal of [...removals, { key: room('a'), throughSeq: 1 }, { key: room('a'), forgottenThroughSeq: 1 }]) {
      await expect((async () => storage.messages.discard!([removal]))()).rejects.toMatchObject({ code: 'IM_STORE_CORRUPT' })
    }
    expect((await storage.messages.get([sampleMessage(902).messageID]))[0]).toBeUndefined()
  })

  test.each([
    { throughSeq: -1 }, { key: undefined as never, throughSeq: 1 }, { forgottenThroughSeq: 1.5 }, { expired: [{ messageSeq: 0, expiresAtMs: 1 }] }, { expired: [{ messageSeq: 1, expiresAtMs: Number.NaN }] },
  ])('is a TypeError when no store can have found it (%o), and nothing is removed', async (bad) => {
    const { storage, say } = await opened({})
    await say(room('a'), '1', '2')
    await expect((async () => storage.messages.discard!([{ key: room('a'), throughSeq: 1 }, { key: room('a'), ...bad }]))()).rejects.toThrow(TypeError)
    expect(await seqs(storage, room('a'))).toEqual([1, 2])
  })
})

describe('dedupeKeepMs', () => {
  test('is how long a repeat is recognised; the message stays', async () => {
    const { clock, storage, say, sweep } = await opened({ dedupeKeepMs: 1_000 })
    await say(room('a'), 'n')
    clock.nowMs += 900
    await sweep()
    expect((await say(room('a'), 'n'))[0]).toMatchObject({ status: 'duplicate', messageSeq: 1 })
    clock.nowMs += 200
    await sweep()
    expect((await say(room('a'), 'n'))[0]).toMatchObject({ status: 'stored', messageSeq: 2 })
    expect(await seqs(storage, room('a'))).toEqual([1, 2])
    expect((await storage.messages.findByClientMsgNo(room('a'), 'ann', 'n'))?.messageSeq).toBe(2)
  })

  test('removing the first message of a number that was used again leaves the second one recognised', async () => {
    const { clock, storage, say, sweep } = await opened({ dedupeKeepMs: 1_000 })
    await say(room('a'), 'n')
    clock.nowMs += 2_000
    await sweep()
    await say(room('a'), 'n')
    await storage.messages.truncate(room('a'), 2)
    expect((await say(room('a'), 'n'))[0]).toMatchObject({ status: 'duplicate', messageSeq: 2 })
  })
})
