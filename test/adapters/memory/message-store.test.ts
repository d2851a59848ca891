import assert from 'node:assert/strict'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { memoryMessageStore } from '../../../src/adapters/memory/index.ts'
import { isPromise } from '../../../src/model/maybe-promise.ts'
import type { Message } from '../../../src/model/message.ts'
import { FakeClock, sampleMessage } from '../../../src/testing/index.ts'

const ROOM = { channelID: 'room', channelType: 2 }
const HALL = { channelID: 'hall', channelType: 2 }

function messages(first: number, last: number, over: Partial<Message> = {}): Message[] {
  return Array.from({ length: last - first + 1 }, (_, i) => sampleMessage(first + i, over))
}

async function seqsOf(store: ReturnType<typeof memoryMessageStore>, key = ROOM): Promise<number[]> {
  return (await store.range(key, { limit: 10_000 })).map((message) => message.messageSeq)
}

describe('memoryMessageStore', () => {
  it('answers with plain values, never with promises', () => {
    const store = memoryMessageStore()
    const answers = [
      store.append([{ key: ROOM, messages: messages(1, 2) }]),
      store.range(ROOM),
      store.lastSeq(ROOM),
      store.findByClientMsgNo(ROOM, 'ann', 'no-1'),
      store.get(['1']),
      store.truncate(ROOM, 1),
      store.summaries('ann', [ROOM]),
      store.countAfter(ROOM, 0),
      store.personChannelsOf('ann'),
      store.revise(ROOM, 1, { kind: 'recalled', byUID: 'ann', timestampMs: 1 }),
      store.sweep?.(1),
    ]
    expect(answers.filter(isPromise)).toEqual([])
  })

  it('drops the oldest message of a channel beyond its bound, with its ids and its repeats, and gives no number again', async () => {
    const store = memoryMessageStore({ maxMessagesPerChannel: 3 })
    for (const message of messages(1, 5)) await store.append([{ key: ROOM, messages: [message] }])
    expect(await seqsOf(store)).toEqual([3, 4, 5])
    expect(await store.get([sampleMessage(2).messageID])).toEqual([undefined])
    expect(await store.findByClientMsgNo(ROOM, 'ann', 'no-2')).toBeUndefined()
    expect(await store.lastSeq(ROOM)).toBe(5)
    const [results] = await store.append([{ key: ROOM, messages: [sampleMessage(2), sampleMessage(4)] }])
    expect(results?.map((result) => [result.status, result.messageSeq])).toEqual([
      ['stored', 6],
      ['duplicate', 4],
    ])
  })

  it('keeps only the last of a batch that is larger than the bound', async () => {
    const store = memoryMessageStore({ maxMessagesPerChannel: 3 })
    const [results] = await store.append([{ key: ROOM, messages: messages(1, 10) }])
    expect(results?.map((result) => result.messageSeq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    expect(await seqsOf(store)).toEqual([8, 9, 10])
  })

  it('holds on to nothing of a message that it has dropped, while an older one of another channel is there', async () => {
    const store = memoryMessageStore({ maxMessagesPerChannel: 1 })
    await store.append([{ key: HALL, messages: [sampleMessage(1, HALL)] }])
    const before = usedBytes()
    for (let n = 2; n <= 1_001; n++) {
      const topic = Buffer.alloc(20_000, `${n} `).toString('latin1') // a text of its own, not pieces of another one
      await store.append([{ key: ROOM, messages: [sampleMessage(n, { topic })] }])
    }
    expect(usedBytes() - before).toBeLessThan(5_000_000) // a thousand topics are 20 MB
    const found = await store.get([1, 1_000, 1_001].map((n) => sampleMessage(n).messageID))
    expect(found.map((message) => message?.clientMsgNo)).toEqual(['no-1', undefined, 'no-1001'])
  })

  it('finds what is left by its id, whichever messages in between have been dropped, and drops in the order of storing', async () => {
    const store = memoryMessageStore({ maxMessagesPerChannel: 3, maxMessages: 5 })
    for (let n = 1; n <= 5_000; n++) {
      const key = n % 2_500 === 0 ? HALL : ROOM
      await store.append([{ key, messages: [sampleMessage(n, key)] }])
    }
    const asked = [2_499, 2_500, 4_000, 4_996, 4_997, 4_998, 4_999, 5_000, 5_001]
    const kept = async (): Promise<number[]> => {
      const found = await store.get(asked.map((n) => sampleMessage(n).messageID))
      return asked.filter((_, index) => found[index] !== undefined)
    }
    expect(await kept()).toEqual([2_500, 4_997, 4_998, 4_999, 5_000])
    await store.append([{ key: HALL, messages: [sampleMessage(5_001, HALL)] }]) // one too many in all: the oldest goes
    expect(await kept()).toEqual([4_997, 4_998, 4_999, 5_000, 5_001])
  })

  it('drops the message stored longest ago beyond the bound over all channels', async () => {
    const store = memoryMessageStore({ maxMessages: 4 })
    await store.append([{ key: ROOM, messages: messages(1, 2) }])
    await store.append([{ key: HALL, messages: messages(3, 4, HALL) }])
    await store.append([{ key: ROOM, messages: messages(5, 7) }])
    expect(await seqsOf(store)).toEqual([3, 4, 5])
    expect(await seqsOf(store, HALL)).toEqual([2])
    await store.truncate(HALL, 100)
    await store.append([{ key: ROOM, messages: [sampleMessage(8)] }])
    expect(await seqsOf(store)).toEqual([3, 4, 5, 6])
    await store.append([{ key: HALL, messages: [sampleMessage(9, HALL)] }])
    expect([await seqsOf(store), await seqsOf(store, HALL)]).toEqual([[4, 5, 6], [3]])
  })

  it('stays at its bound, and finds what it has, over many times as many messages', async () => {
    const store = memoryMessageStore({ maxMessagesPerChannel: 200 })
    for (let n = 1; n <= 5000; n++) {
      await store.append([{ key: ROOM, messages: [sampleMessage(n)] }])
      if (n % 701 === 0) await store.truncate(ROOM, n - 50)
    }
    // The last truncate was at 4907, and fewer than the bound have come since.
    expect(await seqsOf(store)).toEqual(Array.from({ length: 144 }, (_, i) => 4857 + i))
    expect((await store.range(ROOM, { startSeq: 4990, limit: 1 }))[0]?.messageID).toBe(sampleMessage(4990).messageID)
    expect((await store.findByClientMsgNo(ROOM, 'ann', 'no-4990'))?.messageSeq).toBe(4990)
  })

  it('does not lose the newer of two messages that share an id when the older one goes', async () => {
    const store = memoryMessageStore({ maxMessagesPerChannel: 1 })
    const twin = { messageID: '42' }
    await store.append([{ key: ROOM, messages: [sampleMessage(1, twin), sampleMessage(2, twin)] }])
    expect((await store.get(['42']))[0]?.messageSeq).toBe(2)
  })

  it('finds the newest of several messages that share an id, also when the highest id there was has gone in between', async () => {
    const store = memoryMessageStore()
    const keys = ['a', 'b', 'c', 'd'].map((channelID) => ({ channelID, channelType: 2 }))
    const [low, high, middle, again] = keys as [typeof ROOM, typeof ROOM, typeof ROOM, typeof ROOM]
    const { messageID } = sampleMessage(5)
    for (const [key, number] of [[low, 3], [high, 10], [middle, 5]] as const) {
      await store.append([{ key, messages: [sampleMessage(number, key)] }])
    }
    await store.truncate(high, 2) // its id was the highest: now the next one may go behind the lowest
    await store.append([{ key: again, messages: [sampleMessage(5, again)] }])
    expect(await store.get([messageID])).toMatchObject([again])
    await store.truncate(middle, 2)
    expect(await store.get([messageID])).toMatchObject([again])
  })

  it('hides a message at the millisecond its expireSec has passed, and still knows its repeats', async () => {
    const clock = new FakeClock()
    const store = memoryMessageStore({ nowMs: () => clock.nowMs() })
    const message = sampleMessage(1, { timestampMs: clock.nowMs(), expireSec: 2 })
    await store.append([{ key: ROOM, messages: [message] }])
    clock.setNow(message.timestampMs + 1999)
    expect(await seqsOf(store)).toEqual([1])
    clock.setNow(message.timestampMs + 2000)
    expect(await seqsOf(store)).toEqual([])
    expect(await store.get([message.messageID])).toEqual([undefined])
    expect(await store.findByClientMsgNo(ROOM, 'ann', 'no-1')).toBeUndefined()
    const [results] = await store.append([{ key: ROOM, messages: [message] }])
    expect(results).toEqual([{ status: 'duplicate', messageID: message.messageID, messageSeq: 1 }])
  })

  it('forgets the repeats of what it has swept: one is stored as new', async () => {
    const store = memoryMessageStore()
    const message = sampleMessage(2, { timestampMs: 1000, expireSec: 1 })
    await store.append([{ key: ROOM, messages: [sampleMessage(1), message, sampleMessage(3)] }])
    expect(await store.sweep?.(2000)).toEqual({ removedCount: 1, isDone: true })
    const [results] = await store.append([{ key: ROOM, messages: [{ ...message, expireSec: 0 }] }])
    expect(results).toEqual([{ status: 'stored', messageID: message.messageID, messageSeq: 4 }])
    expect(await seqsOf(store)).toEqual([1, 3, 4])
    expect((await store.get([message.messageID]))[0]?.messageSeq).toBe(4)
  })

  it('removes no more than 10 000 messages in one sweep, those that ended first', async () => {
    const store = memoryMessageStore({ maxMessagesPerChannel: 100_000, nowMs: () => 0 })
    const ending = (n: number): Partial<Message> => ({ timestampMs: 1000, expireSec: 1 + (n % 3) })
    for (let first = 1; first <= 24_000; first += 6000) {
      await store.append([{ key: ROOM, messages: messages(first, first + 5999).map((message, i) => ({ ...message, ...ending(first + i) })) }])
    }
    await store.append([{ key: ROOM, messages: [sampleMessage(24_001)] }])
    expect(await store.sweep?.(3000)).toEqual({ removedCount: 10_000, isDone: false })
    expect(await store.countAfter(ROOM, 0)).toBe(14_001)
    expect((await store.range(ROOM, { limit: 10_000 })).filter(({ expireSec }) => expireSec === 1)).toEqual([])
    expect(await store.sweep?.(3000)).toEqual({ removedCount: 6000, isDone: true })
    expect(await store.sweep?.(4000)).toEqual({ removedCount: 8000, isDone: true })
    expect(await seqsOf(store)).toEqual([24_001])
  })

  it('counts only what is left against its bounds, and numbers that were swept cost nothing', async () => {
    const store = memoryMessageStore({ maxMessagesPerChannel: 3, nowMs: () => 0 })
    await store.append([{ key: ROOM, messages: [sampleMessage(1)] }])
    for (let n = 2; n <= 1000; n++) {
      await store.append([{ key: ROOM, messages: [sampleMessage(n, { timestampMs: n, expireSec: 1 })] }])
      if (n % 2 === 0) await store.sweep?.(n + 1000)
    }
    expect(await seqsOf(store)).toEqual([1])
    await store.append([{ key: ROOM, messages: messages(1001, 1003) }])
    expect(await seqsOf(store)).toEqual([1001, 1002, 1003])
    expect(await store.summaries('ann', [ROOM])).toMatchObject([{ lastSeq: 1003, floorSeq: 1000 }])
  })

  it('drops what is older than its retention at a sweep, from every channel, and keeps everything without one', async () => {
    const append = async (store: ReturnType<typeof memoryMessageStore>): Promise<void> => {
      const at = (n: number, key = ROOM): Message => sampleMessage(n, { ...key, timestampMs: 1000 * n })
      await store.append([{ key: ROOM, messages: [at(1), at(2), at(3)] }, { key: HALL, messages: [at(4, HALL), at(5, HALL)] }])
    }
    const store = memoryMessageStore({ maxAgeMs: 2000 })
    await append(store)
    expect(await seqsOf(store)).toEqual([1, 2, 3])
    expect(await store.sweep?.(3000)).toEqual({ removedCount: 0, isDone: true })
    expect(await store.sweep?.(3001)).toEqual({ removedCount: 1, isDone: true })
    expect(await store.sweep?.(4001)).toEqual({ removedCount: 1, isDone: true })
    expect([await seqsOf(store), await seqsOf(store, HALL)]).toEqual([[3], [1, 2]])
    expect(await store.sweep?.(6001)).toEqual({ removedCount: 2, isDone: true })
    expect(await store.summaries('ann', [ROOM, HALL])).toEqual([
      { lastSeq: 3, floorSeq: 3, lastTimestampMs: 3000, sentSeq: 3 },
      { lastSeq: 2, floorSeq: 1, lastTimestampMs: 5000, sentSeq: 2 },
    ])
    const keeping = memoryMessageStore()
    await append(keeping)
    expect(await keeping.sweep?.(Number.MAX_SAFE_INTEGER)).toEqual({ removedCount: 0, isDone: true })
  })

  it('raises the floor of a channel at its bounds, and leaves what it says of the past', async () => {
    const store = memoryMessageStore({ maxMessagesPerChannel: 2 })
    await store.append([{ key: ROOM, messages: [sampleMessage(1, { fromUID: 'bob' }), ...messages(2, 5)] }])
    expect(await store.summaries('bob', [ROOM])).toMatchObject([{ lastSeq: 5, floorSeq: 3, sentSeq: 1 }])
    expect(await store.countAfter(ROOM, 0)).toBe(2)
  })

  it('keeps no part of the memory a payload came in', async () => {
    const store = memoryMessageStore()
    const chunk = Buffer.alloc(65_536, 1)
    await store.append([{ key: ROOM, messages: [sampleMessage(1, { payload: chunk.subarray(10, 20) })] }])
    const [kept] = await store.range(ROOM)
    assert.ok(kept !== undefined)
    expect(kept.payload.buffer).not.toBe(chunk.buffer)
  })

  it('names what is wrong with an option, a payload or a seq', async () => {
    for (const count of [0, -1, 1.5, Number.NaN]) {
      expect(() => memoryMessageStore({ maxMessagesPerChannel: count })).toThrow(/maxMessagesPerChannel must be a positive integer/)
      expect(() => memoryMessageStore({ maxMessages: count })).toThrow(/maxMessages must be a positive integer/)
      expect(() => memoryMessageStore({ maxAgeMs: count })).toThrow(/maxAgeMs must be a positive integer/)
    }
    const store = memoryMessageStore()
    const text = sampleMessage(1, { payload: 'text' as unknown as Uint8Array })
    expect(() => store.append([{ key: ROOM, messages: [text] }])).toThrow(/payload must be a Uint8Array, got a string/)
    expect(() => store.truncate(ROOM, -1)).toThrow(/beforeSeq must be an integer from 0, got -1/)
    expect(() => store.range(ROOM, { limit: 10_001 })).toThrow(/range limit must be an integer from 1 to 10000, got 10001/)
    const by = { byUID: 'ann', timestampMs: 1 }
    expect(() => store.countAfter(ROOM, -1)).toThrow(/afterSeq must be an integer from 0, got -1/)
    expect(() => store.revise(ROOM, 1.5, { kind: 'recalled', ...by })).toThrow(/messageSeq must be an integer from 0, got 1.5/)
    expect(() => store.revise(ROOM, 1, { kind: 'pinned' as 'recalled', ...by })).toThrow(/change kind must be 'edited' or 'recalled', got "pinned"/)
    expect(() => store.revise(ROOM, 1, { kind: 'edited', ...by, payload: 'text' as unknown as Uint8Array })).toThrow(/change payload must be a Uint8Array/)
    expect(() => store.personChannelsOf('ann', { limit: 0 })).toThrow(/page limit must be an integer from 1 to 10000, got 0/)
    expect(() => store.sweep?.(Number.NaN)).toThrow(/sweep nowMs must be a time in milliseconds, got NaN/)
    expect(await store.lastSeq(ROOM)).toBe(0)
  })
})

/** The heap after a collection, so that only what is still reachable counts: texts are in it. */
function usedBytes(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  return process.memoryUsage().heapUsed
}
