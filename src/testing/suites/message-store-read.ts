import assert from 'node:assert/strict'
import type { MessageStore, RangeQuery } from '../../contracts/message-store.ts'
import type { Message } from '../../model/message.ts'
import { started, type Scenario } from './contract-case.ts'
import { append, seqs } from './message-store-append.ts'
import {
  assertSameMessage,
  assertSameMessages,
  channel,
  CONFUSABLE_PAIRS,
  HOSTILE_IDS,
  ROOM,
  sampleMessage,
  sampleMessages,
} from './samples.ts'

/** What was appended comes back as it was, whatever is in it. */
export const contentScenarios: readonly Scenario<MessageStore>[] = [
  [
    'every field of a message comes back as it was, with its seq',
    async (store) => {
      const plain = sampleMessage(1)
      const unusual = sampleMessage(2, {
        clientMsgNo: 'n\0:@/👩‍👩‍👧',
        fromUID: 'ünal',
        timestampMs: 4_102_444_800_123,
        expireSec: 4_294_967_295,
        topic: 'thread/7',
        setting: 0x88,
        noPersist: true,
        redDot: false,
        syncOnce: true,
      })
      await append(store, ROOM, [plain, unusual])
      const expected = [
        { ...plain, messageSeq: 1 },
        { ...unusual, messageSeq: 2 },
      ]
      assertSameMessages(await store.range(ROOM), expected)
      assertSameMessage((await store.get([unusual.messageID]))[0], { ...unusual, messageSeq: 2 })
      assertSameMessage(await store.findByClientMsgNo(ROOM, 'ann', 'no-1'), { ...plain, messageSeq: 1 })
    },
  ],
  [
    'message ids keep all their digits over the whole unsigned 64-bit range',
    async (store) => {
      const ids = ['1', '9007199254740993', '9223372036854775807', '9223372036854775808', '18446744073709551615']
      await append(store, ROOM, ids.map((messageID, i) => sampleMessage(i + 1, { messageID })))
      assert.deepEqual((await store.range(ROOM)).map((message) => message.messageID), ids)
      assert.deepEqual((await store.get(ids)).map((message) => message?.messageID), ids)
    },
  ],
  [
    'payload bytes come back as they were: none, all values, a large one, a view on a larger buffer',
    async (store) => {
      const allValues = Uint8Array.from({ length: 256 }, (_, i) => i)
      const payloads = [new Uint8Array(0), allValues, new Uint8Array(300_000).fill(0xa5), allValues.subarray(65, 70)]
      await append(store, ROOM, payloads.map((payload, i) => sampleMessage(i + 1, { payload })))
      const kept = (await store.range(ROOM)).map((message) => message.payload)
      const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
      assert.deepEqual(kept.map(hex), payloads.map(hex))
    },
  ],
  [
    'what the caller does to the batch after append has resolved does not reach the store',
    async (store) => {
      const original = sampleMessage(1)
      const message = { ...original, payload: Buffer.from(original.payload) }
      const messages: Message[] = [message]
      const key = { ...ROOM }
      await store.append([{ key, messages }])
      message.payload.fill(0)
      Object.assign(message, { fromUID: 'mallory', clientMsgNo: 'other', messageSeq: 77, messageID: '1' })
      messages.push(sampleMessage(2))
      key.channelID = 'elsewhere'
      assertSameMessages(await store.range(ROOM), [{ ...original, messageSeq: 1 }])
      assertSameMessage((await store.get([original.messageID]))[0], { ...original, messageSeq: 1 })
      assertSameMessage(await store.findByClientMsgNo(ROOM, 'ann', 'no-1'), { ...original, messageSeq: 1 })
      const [again] = await append(store, ROOM, [original])
      assert.equal(again?.status, 'duplicate')
    },
  ],
  [
    'what a reader does to a message does not reach the store',
    async (store) => {
      const original = sampleMessage(1)
      await append(store, ROOM, [original])
      const reads: (() => Promise<Message | undefined>)[] = [
        async () => (await store.range(ROOM))[0],
        async () => (await store.get([original.messageID]))[0],
        async () => await store.findByClientMsgNo(ROOM, 'ann', 'no-1'),
      ]
      for (const read of reads) {
        ;(await read())?.payload.fill(0)
        assertSameMessage(await read(), { ...original, messageSeq: 1 })
      }
    },
  ],
  [
    'channels whatever their ids are kept apart and found again',
    async (store) => {
      for (const [i, id] of HOSTILE_IDS.entries()) await append(store, channel(id), [sampleMessage(i + 1)])
      for (const [i, id] of HOSTILE_IDS.entries()) {
        const [kept, ...others] = await store.range(channel(id))
        const expected = sampleMessage(i + 1, { ...channel(id), messageSeq: 1 })
        assertSameMessage(kept, expected, `the message of ${JSON.stringify(id.slice(0, 40))}`)
        assert.equal(others.length, 0)
      }
    },
  ],
  [
    'senders and client numbers whatever their text are kept apart and found again',
    async (store) => {
      const pairs = [...HOSTILE_IDS.flatMap((id) => [[id, 'no'], ['ann', id]] as const), ...CONFUSABLE_PAIRS.flat()]
      const distinct = [...new Map(pairs.map((pair) => [JSON.stringify(pair), pair])).values()]
      const messages = distinct.map(([fromUID, clientMsgNo], i) => sampleMessage(i + 1, { fromUID, clientMsgNo }))
      const results = await append(store, ROOM, messages)
      assert.deepEqual(results.map((result) => result.status), messages.map(() => 'stored'))
      for (const [i, message] of messages.entries()) {
        const found = await store.findByClientMsgNo(ROOM, message.fromUID, message.clientMsgNo)
        assertSameMessage(found, { ...message, messageSeq: i + 1 })
      }
    },
  ],
]

const TEN = Array.from({ length: 10 }, (_, i) => i + 1)

/** query, and the seqs it must give in a channel that has 1 to 10 */
const RANGES: readonly (readonly [query: RangeQuery, expected: readonly number[]])[] = [
  [{}, TEN],
  [{ direction: 'forward' }, TEN],
  [{ limit: 3 }, [1, 2, 3]],
  [{ startSeq: 4 }, [4, 5, 6, 7, 8, 9, 10]],
  [{ startSeq: 4, limit: 2 }, [4, 5]],
  [{ endSeq: 3 }, [1, 2, 3]],
  [{ startSeq: 4, endSeq: 6 }, [4, 5, 6]],
  [{ startSeq: 4, endSeq: 4 }, [4]],
  [{ startSeq: 4, endSeq: 6, limit: 2 }, [4, 5]],
  [{ startSeq: 0 }, TEN],
  [{ endSeq: 0 }, []],
  [{ startSeq: 0, endSeq: 0 }, []],
  [{ startSeq: 6, endSeq: 4 }, []],
  [{ startSeq: 10 }, [10]],
  [{ startSeq: 11 }, []],
  [{ startSeq: 9, endSeq: 1000 }, [9, 10]],
  [{ startSeq: Number.MAX_SAFE_INTEGER }, []],
  [{ endSeq: Number.MAX_SAFE_INTEGER, limit: 10_000 }, TEN],
  [{ direction: 'backward' }, [...TEN].reverse()],
  [{ direction: 'backward', limit: 3 }, [10, 9, 8]],
  [{ direction: 'backward', startSeq: 4 }, [4, 3, 2, 1]],
  [{ direction: 'backward', startSeq: 4, limit: 2 }, [4, 3]],
  [{ direction: 'backward', endSeq: 8 }, [10, 9, 8]],
  [{ direction: 'backward', startSeq: 6, endSeq: 4 }, [6, 5, 4]],
  [{ direction: 'backward', startSeq: 6, endSeq: 4, limit: 2 }, [6, 5]],
  [{ direction: 'backward', startSeq: 4, endSeq: 4 }, [4]],
  [{ direction: 'backward', startSeq: 4, endSeq: 6 }, []],
  [{ direction: 'backward', startSeq: 0 }, []],
  [{ direction: 'backward', startSeq: 0, endSeq: 0 }, []],
  [{ direction: 'backward', endSeq: 0 }, [...TEN].reverse()],
  [{ direction: 'backward', endSeq: 11 }, []],
  [{ direction: 'backward', startSeq: 1000, limit: 2 }, [10, 9]],
  [{ direction: 'backward', startSeq: Number.MAX_SAFE_INTEGER, limit: 1 }, [10]],
]

const BAD_QUERIES: readonly RangeQuery[] = [
  { limit: 0 },
  { limit: -1 },
  { limit: 10_001 },
  { limit: 1.5 },
  { limit: Number.NaN },
  { limit: Infinity },
  { startSeq: -1 },
  { startSeq: 1.5 },
  { endSeq: -1 },
  { endSeq: Number.NaN },
  { direction: 'sideways' as 'forward' },
]

/** Messages are found by seq, by id and by the sender's number. */
export const lookupScenarios: readonly Scenario<MessageStore>[] = [
  [
    'a channel nobody has written to is empty',
    async (store) => {
      const unknown = channel('nowhere')
      assert.deepEqual(await store.range(unknown), [])
      assert.deepEqual(await store.range(unknown, { direction: 'backward', startSeq: 5 }), [])
      assert.equal(await store.lastSeq(unknown), 0)
      assert.equal(await store.findByClientMsgNo(unknown, 'ann', 'no-1'), undefined)
    },
  ],
  [
    'a range has both its bounds, counts in its direction and stops at its limit',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 10))
      // Neighbours in any order of keys: nothing of theirs may show.
      for (const [i, id] of ['roo', 'room\0', 'room0', 'rooms'].entries()) {
        await append(store, channel(id), sampleMessages(100 * i + 100, 100 * i + 120))
      }
      for (const [query, expected] of RANGES) {
        assert.deepEqual(seqs(await store.range(ROOM, query)), expected, `range ${JSON.stringify(query)}`)
      }
    },
  ],
  [
    'a range without a limit gives 100 messages',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 150))
      const hundred = Array.from({ length: 100 }, (_, i) => i)
      assert.deepEqual(seqs(await store.range(ROOM)), hundred.map((i) => i + 1))
      assert.deepEqual(seqs(await store.range(ROOM, { direction: 'backward' })), hundred.map((i) => 150 - i))
      assert.equal((await store.range(ROOM, { limit: 10_000 })).length, 150)
    },
  ],
  [
    'a range keeps counting in numbers, not in text',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 300))
      assert.deepEqual(seqs(await store.range(ROOM, { startSeq: 254, endSeq: 258 })), [254, 255, 256, 257, 258])
      assert.deepEqual(seqs(await store.range(ROOM, { startSeq: 9, limit: 3 })), [9, 10, 11])
      assert.deepEqual(seqs(await store.range(ROOM, { direction: 'backward', startSeq: 101, limit: 3 })), [101, 100, 99])
    },
  ],
  [
    'a range out of its bounds is a TypeError, in an empty channel too',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1)])
      for (const query of BAD_QUERIES) {
        for (const key of [ROOM, channel('nowhere')]) {
          await assert.rejects(started(() => store.range(key, query)), TypeError, `range ${JSON.stringify(query)}`)
        }
      }
    },
  ],
  [
    'get answers in the order asked, over all channels, with undefined where there is none',
    async (store) => {
      await append(store, channel('a'), sampleMessages(1, 3))
      await append(store, channel('b'), sampleMessages(4, 5))
      const id = (n: number): string => sampleMessage(n).messageID
      const found = await store.get([id(5), id(9), id(1), id(3), id(1)])
      assert.deepEqual(found.map((message) => message?.messageID), [id(5), undefined, id(1), id(3), id(1)])
      assert.deepEqual(found.map((message) => message?.channelID), ['b', undefined, 'a', 'a', 'a'])
      assert.deepEqual(await store.get([]), [])
    },
  ],
  [
    'findByClientMsgNo looks only at the one channel and sender',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1), sampleMessage(2, { fromUID: 'bob', clientMsgNo: 'no-1' })])
      const find = async (key = ROOM, uid = 'ann', clientMsgNo = 'no-1'): Promise<number | undefined> =>
        (await store.findByClientMsgNo(key, uid, clientMsgNo))?.messageSeq
      assert.equal(await find(), 1)
      assert.equal(await find(ROOM, 'bob'), 2)
      assert.equal(await find(ROOM, 'cleo'), undefined)
      assert.equal(await find(ROOM, 'ann', 'no-2'), undefined)
      assert.equal(await find(channel('other')), undefined)
      assert.equal(await find(channel(ROOM.channelID, 4)), undefined)
    },
  ],
]
