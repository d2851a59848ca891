import assert from 'node:assert/strict'
import type { ChannelSummary, MessageStore } from '../../contracts/message-store.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { started, type DurableScenario, type Scenario } from './contract-case.ts'
import { append, batchOf, seqs, unstorable } from './message-store-append.ts'
import { editTo, RECALL } from './message-store-revise.ts'
import { channel, CONFUSABLE_PAIRS, HOSTILE_IDS, ROOM, sampleMessage, sampleMessages } from './samples.ts'

const NOTHING: ChannelSummary = { lastSeq: 0, floorSeq: 0, lastTimestampMs: 0, sentSeq: 0 }

async function summaryOf(store: MessageStore, uid: string, key: ChannelKey = ROOM): Promise<ChannelSummary> {
  const answers = await store.summaries(uid, [key])
  assert.equal(answers.length, 1, 'one summary per channel')
  return { ...(answers[0] ?? NOTHING) }
}

/** Where channels stand, and one user in each. */
export const summaryScenarios: readonly Scenario<MessageStore>[] = [
  [
    'all numbers are 0 in a channel that nobody has written to, and asking brings nothing into being',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1)])
      assert.deepEqual(await summaryOf(store, 'ann', channel('nowhere')), NOTHING)
      assert.deepEqual(await summaryOf(store, 'ann', channel(ROOM.channelID, 4)), NOTHING)
      assert.deepEqual(await store.summaries('ann', []), [])
      assert.deepEqual(seqs(await append(store, channel('nowhere'), [sampleMessage(2)])), [1])
    },
  ],
  [
    'a summary tells the last number, its time, and how far the user asked about has written',
    async (store) => {
      await append(store, ROOM, [
        sampleMessage(1, { timestampMs: 500 }),
        sampleMessage(2, { fromUID: 'bob', timestampMs: 900 }),
        sampleMessage(3, { timestampMs: 100 }),
        sampleMessage(4, { fromUID: 'cleo', timestampMs: 300 }),
      ])
      const room = { lastSeq: 4, floorSeq: 0, lastTimestampMs: 300 }
      for (const [uid, sentSeq] of [['ann', 3], ['bob', 2], ['cleo', 4], ['dan', 0]] as const) {
        assert.deepEqual(await summaryOf(store, uid), { ...room, sentSeq }, uid)
      }
      await append(store, ROOM, [sampleMessage(5, { fromUID: 'bob', timestampMs: 4_102_444_800_123 })])
      assert.deepEqual(await summaryOf(store, 'bob'), { lastSeq: 5, floorSeq: 0, lastTimestampMs: 4_102_444_800_123, sentSeq: 5 })
    },
  ],
  [
    'summaries come in the order asked, also when a channel is asked for twice',
    async (store) => {
      await append(store, channel('a'), sampleMessages(1, 3))
      await append(store, channel('b'), sampleMessages(4, 5))
      const keys = ['b', 'nowhere', 'a', 'b', 'a', 'nowhere'].map((id) => channel(id))
      const answers = await store.summaries('ann', keys)
      assert.deepEqual(answers.map((answer) => answer.lastSeq), [2, 0, 3, 2, 3, 0])
      assert.deepEqual(answers.map((answer) => answer.sentSeq), [2, 0, 3, 2, 3, 0])
    },
  ],
  [
    'how far somebody has written does not depend on what others write at the same moment',
    async (store) => {
      for (let number = 1; number <= 40; number += 2) {
        const [uid, other] = number % 4 === 1 ? (['ann', 'bob'] as const) : (['bob', 'ann'] as const)
        const sent = await append(store, ROOM, [sampleMessage(number, { fromUID: uid })])
        const [summary] = await Promise.all([summaryOf(store, uid), append(store, ROOM, [sampleMessage(number + 1, { fromUID: other })])])
        assert.equal(summary.sentSeq, seqs(sent)[0])
      }
    },
  ],
  [
    'what is not stored moves nothing: a repeat, a conflict, a call that fails',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1), sampleMessage(2, { fromUID: 'bob' })])
      const before = await summaryOf(store, 'ann')
      await append(store, ROOM, [sampleMessage(1, { timestampMs: 9 }), sampleMessage(1, { payload: Buffer.from('other') })])
      await assert.rejects(started(() => store.append([{ key: ROOM, messages: [sampleMessage(3), unstorable(4)] }])))
      assert.deepEqual(await summaryOf(store, 'ann'), before)
      assert.deepEqual(before, { lastSeq: 2, floorSeq: 0, lastTimestampMs: sampleMessage(2).timestampMs, sentSeq: 1 })
      assert.equal(await store.countAfter(ROOM, 0), 2)
    },
  ],
  [
    'an edit or a recall moves nothing',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 3))
      const before = await summaryOf(store, 'ann')
      await store.revise(ROOM, 2, editTo('better', { byUID: 'bob' }))
      await store.revise(ROOM, 3, editTo('better'))
      await store.revise(ROOM, 1, RECALL)
      await store.revise(ROOM, 3, RECALL)
      assert.deepEqual(await summaryOf(store, 'ann'), before)
      assert.equal((await summaryOf(store, 'bob')).sentSeq, 0)
    },
  ],
  [
    'truncate raises floorSeq to the last number removed, and leaves the rest, also when nothing stays',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 5))
      await append(store, channel('other'), [sampleMessage(6)])
      const rest = { lastSeq: 5, lastTimestampMs: sampleMessage(5).timestampMs, sentSeq: 5 }
      for (const [beforeSeq, floorSeq] of [[0, 0], [1, 0], [3, 2], [2, 2], [1000, 5]] as const) {
        await store.truncate(ROOM, beforeSeq)
        assert.deepEqual(await summaryOf(store, 'ann'), { ...rest, floorSeq }, `truncate below ${beforeSeq}`)
      }
      assert.equal((await summaryOf(store, 'ann', channel('other'))).floorSeq, 0)
      await append(store, ROOM, [sampleMessage(7, { fromUID: 'bob' })])
      assert.deepEqual(await summaryOf(store, 'ann'), {
        lastSeq: 6,
        floorSeq: 5,
        lastTimestampMs: sampleMessage(7).timestampMs,
        sentSeq: 5,
      })
      await store.truncate(channel('nowhere'), 7)
      assert.deepEqual(await summaryOf(store, 'ann', channel('nowhere')), NOTHING)
    },
  ],
  [
    'users and channels whatever their text are kept apart',
    async (store) => {
      const pairs = [...HOSTILE_IDS.flatMap((id) => [[id, 'room'], ['ann', id]] as const), ...CONFUSABLE_PAIRS.flat()]
      const distinct = [...new Map(pairs.map((pair) => [JSON.stringify(pair), pair])).values()]
      const sentSeqs = new Map<string, number>()
      for (const [i, [fromUID, id]] of distinct.entries()) {
        const results = await append(store, channel(id), sampleMessages(3 * i + 1, 3 * i + 1 + (i % 3), { fromUID }))
        sentSeqs.set(JSON.stringify([fromUID, id]), results.at(-1)?.messageSeq ?? 0)
      }
      for (const [uid, id] of distinct) {
        const expected = sentSeqs.get(JSON.stringify([uid, id]))
        assert.equal((await summaryOf(store, uid, channel(id))).sentSeq, expected, JSON.stringify([uid, id].map((text) => text.slice(0, 40))))
      }
    },
  ],
  [
    'appends that overlap all count',
    async (store) => {
      const calls = Array.from({ length: 40 }, (_, i) =>
        started(() => append(store, channel(`room-${i % 2}`), [sampleMessage(i + 1, { fromUID: `u${i}` })])),
      )
      const results = (await Promise.all(calls)).flat()
      for (const [i, result] of results.entries()) {
        const summary = await summaryOf(store, `u${i}`, channel(`room-${i % 2}`))
        assert.deepEqual([summary.sentSeq, summary.lastSeq], [result.messageSeq, 20])
      }
    },
  ],
  [
    'an answer does not change when the store does',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1)])
      const keys = [{ ...ROOM }]
      const answers = await store.summaries('ann', keys)
      Object.assign(keys[0] ?? {}, channel('elsewhere'))
      await append(store, ROOM, [sampleMessage(2)])
      assert.deepEqual([answers[0]?.lastSeq, answers[0]?.sentSeq], [1, 1])
    },
  ],
]

/** How many messages there are to be read. */
export const countScenarios: readonly Scenario<MessageStore>[] = [
  [
    'countAfter counts what is above its seq, and nothing in a channel that nobody has written to',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 10))
      for (const [i, id] of ['roo', 'room\0', 'room0', 'rooms'].entries()) {
        await append(store, channel(id), sampleMessages(100 * i + 100, 100 * i + 120))
      }
      for (let afterSeq = 0; afterSeq <= 10; afterSeq++) assert.equal(await store.countAfter(ROOM, afterSeq), 10 - afterSeq)
      for (const afterSeq of [11, 4_294_967_295, Number.MAX_SAFE_INTEGER]) assert.equal(await store.countAfter(ROOM, afterSeq), 0)
      for (const afterSeq of [0, 5]) assert.equal(await store.countAfter(channel('nowhere'), afterSeq), 0)
      assert.equal(await store.countAfter(channel(ROOM.channelID, 4), 0), 0)
    },
  ],
  [
    'a repeat does not count, and an edited message counts as before',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 4))
      await append(store, ROOM, sampleMessages(2, 3))
      await store.revise(ROOM, 2, editTo('better'))
      await store.revise(ROOM, 4, editTo('better'))
      assert.deepEqual(await countsOf(store, 5), [4, 3, 2, 1, 0])
    },
  ],
  [
    'a recalled message does not count, once, however often it is recalled',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 5))
      for (const seq of [4, 2, 4, 4]) await store.revise(ROOM, seq, RECALL)
      await store.revise(ROOM, 3, editTo('better'))
      await store.revise(ROOM, 4, editTo('back'))
      assert.deepEqual(await countsOf(store, 6), [3, 2, 2, 1, 1, 0])
      await append(store, ROOM, sampleMessages(6, 7))
      assert.equal(await store.countAfter(ROOM, 4), 3)
    },
  ],
  [
    'a removed message does not count, recalled before or not',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 8))
      for (const seq of [2, 4, 7]) await store.revise(ROOM, seq, RECALL)
      assert.deepEqual(await store.truncate(ROOM, 4), { removedCount: 3 })
      assert.deepEqual(await countsOf(store, 9), [3, 3, 3, 3, 3, 2, 1, 1, 0])
      await store.truncate(ROOM, 1000)
      assert.deepEqual(await countsOf(store, 9), Array(9).fill(0))
      await append(store, ROOM, [sampleMessage(9)])
      assert.equal(await store.countAfter(ROOM, 0), 1)
    },
  ],
  [
    'countAfter is right at every seq of a channel with many recalls',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 300))
      const recalled = Array.from({ length: 100 }, (_, i) => ((i * 37) % 100) * 3 + 1)
      for (const seq of recalled) await store.revise(ROOM, seq, RECALL)
      await store.truncate(ROOM, 101)
      for (let afterSeq = 0; afterSeq <= 301; afterSeq++) {
        const above = Array.from({ length: 300 }, (_, i) => i + 1).filter((seq) => seq > Math.max(afterSeq, 100))
        assert.equal(await store.countAfter(ROOM, afterSeq), above.filter((seq) => seq % 3 !== 1).length, `after ${afterSeq}`)
      }
    },
  ],
  [
    'countAfter of what is no seq is a TypeError, in an empty channel too',
    async (store) => {
      await append(store, ROOM, [sampleMessage(1)])
      for (const afterSeq of [-1, 1.5, Number.NaN]) {
        for (const key of [ROOM, channel('nowhere')]) {
          await assert.rejects(started(() => store.countAfter(key, afterSeq)), TypeError, `countAfter ${afterSeq}`)
        }
      }
    },
  ],
  [
    'channels whatever their ids are counted apart',
    async (store) => {
      for (const [i, id] of HOSTILE_IDS.entries()) await append(store, channel(id), sampleMessages(100 * i + 1, 100 * i + 2 + (i % 5)))
      for (const id of HOSTILE_IDS) await store.revise(channel(id), 2, RECALL)
      for (const [i, id] of HOSTILE_IDS.entries()) assert.equal(await store.countAfter(channel(id), 0), (i % 5) + 1)
    },
  ],
]

/** countAfter(0) .. countAfter(count - 1) */
async function countsOf(store: MessageStore, count: number): Promise<number[]> {
  const counts: number[] = []
  for (let afterSeq = 0; afterSeq < count; afterSeq++) counts.push(await store.countAfter(ROOM, afterSeq))
  return counts
}

export const summarySurvivalScenarios: readonly DurableScenario<MessageStore>[] = [
  {
    name: 'after a restart summaries and counts are what they were',
    before: async (store) => {
      await store.append([
        batchOf(ROOM, [sampleMessage(1), sampleMessage(2, { fromUID: 'bob' }), ...sampleMessages(3, 6)]),
        batchOf(channel('all'), sampleMessages(11, 13)),
      ])
      await append(store, ROOM, [sampleMessage(7, { fromUID: 'cleo', timestampMs: 77 })])
      await store.revise(ROOM, 5, RECALL)
      await store.truncate(ROOM, 4)
      await store.truncate(channel('all'), 1000)
    },
    after: async (store) => {
      const room = { lastSeq: 7, floorSeq: 3, lastTimestampMs: 77 }
      for (const [uid, sentSeq] of [['ann', 6], ['bob', 2], ['cleo', 7], ['dan', 0]] as const) {
        assert.deepEqual(await summaryOf(store, uid), { ...room, sentSeq }, uid)
      }
      const emptied = { lastSeq: 3, floorSeq: 3, lastTimestampMs: sampleMessage(13).timestampMs, sentSeq: 3 }
      assert.deepEqual(await summaryOf(store, 'ann', channel('all')), emptied)
      assert.deepEqual(await countsOf(store, 8), [3, 3, 3, 3, 2, 2, 1, 0])
      assert.equal(await store.countAfter(channel('all'), 0), 0)
      await append(store, ROOM, [sampleMessage(8)])
      assert.deepEqual(await summaryOf(store, 'ann'), { lastSeq: 8, floorSeq: 3, lastTimestampMs: sampleMessage(8).timestampMs, sentSeq: 8 })
      assert.equal(await store.countAfter(ROOM, 0), 4)
    },
  },
]
