import assert from 'node:assert/strict'
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
    }
    const store = memoryMessageStore()
    const text = sampleMessage(1, { payload: 'text' as unknown as Uint8Array })
    expect(() => store.append([{ key: ROOM, messages: [text] }])).toThrow(/payload must be a Uint8Array, got "text"/)
    expect(() => store.truncate(ROOM, -1)).toThrow(/beforeSeq must be an integer from 0, got -1/)
    expect(() => store.range(ROOM, { limit: 10_001 })).toThrow(/range limit must be an integer from 1 to 10000, got 10001/)
    expect(await store.lastSeq(ROOM)).toBe(0)
  })
})
