import assert from 'node:assert/strict'
import type { MessageStore } from '../../contracts/message-store.ts'
import {
  casesOf,
  durableCasesOf,
  type ContractCase,
  type DurableContractOptions,
  type DurableScenario,
  type Opened,
  type Scenario,
} from './contract-case.ts'
import { append, batchOf, failureScenarios, numberingScenarios, repeatScenarios, seqs } from './message-store-append.ts'
import { personChannelScenarios, personChannelSurvivalScenarios } from './message-store-person-channels.ts'
import { positionScenarios, positionSurvivalScenarios } from './message-store-position.ts'
import { contentScenarios, lookupScenarios } from './message-store-read.ts'
import { reviseScenarios, reviseSurvivalScenarios } from './message-store-revise.ts'
import { countScenarios, summaryScenarios, summarySurvivalScenarios } from './message-store-summaries.ts'
import { sweepScenarios, sweepSurvivalScenarios } from './message-store-sweep.ts'
import { assertSameMessages, channel, HOSTILE_IDS, ROOM, sampleMessage, sampleMessages } from './samples.ts'

/**
 * The promises of a MessageStore. A store that removes messages at a bound must hold at least 1000 per channel and 10 000
 * in all here, and one that keeps them for a limited time must keep those of 1970. Its clock, if it has one of its own,
 * must show the process's time. What `sweep` does is checked where there is one.
 */
export function messageStoreContract<O extends Opened<MessageStore>>(
  options: DurableContractOptions<MessageStore, O>,
): ContractCase[] {
  return [
    ...casesOf(options, [
      ...numberingScenarios,
      ...repeatScenarios,
      ...failureScenarios,
      ...contentScenarios,
      ...lookupScenarios,
      ...removalScenarios,
      ...reviseScenarios,
      ...summaryScenarios,
      ...countScenarios,
      ...personChannelScenarios,
      ...sweepScenarios,
      ...positionScenarios,
    ]),
    ...durableCasesOf(options, [
      ...survivalScenarios,
      ...reviseSurvivalScenarios,
      ...summarySurvivalScenarios,
      ...personChannelSurvivalScenarios,
      ...sweepSurvivalScenarios,
      ...positionSurvivalScenarios,
    ]),
  ]
}

const removalScenarios: readonly Scenario<MessageStore>[] = [
  [
    'truncate removes everything below its seq and nothing else',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 10))
      await append(store, channel('other'), sampleMessages(11, 20))
      assert.deepEqual(await store.truncate(ROOM, 4), { removedCount: 3 })
      assert.deepEqual(seqs(await store.range(ROOM)), [4, 5, 6, 7, 8, 9, 10])
      assert.deepEqual(seqs(await store.range(ROOM, { direction: 'backward', startSeq: 5 })), [5, 4])
      assert.deepEqual(seqs(await store.range(ROOM, { limit: 2 })), [4, 5])
      const found = await store.get([3, 4].map((n) => sampleMessage(n).messageID))
      assert.deepEqual(found.map((message) => message?.messageSeq), [undefined, 4])
      assert.equal(await store.findByClientMsgNo(ROOM, 'ann', 'no-3'), undefined)
      assert.equal((await store.findByClientMsgNo(ROOM, 'ann', 'no-4'))?.messageSeq, 4)
      assert.equal((await store.range(channel('other'))).length, 10)
    },
  ],
  [
    'truncate keeps lastSeq, and no number is given again',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 5))
      assert.deepEqual(await store.truncate(ROOM, 6), { removedCount: 5 })
      assert.deepEqual(await store.range(ROOM), [])
      assert.equal(await store.lastSeq(ROOM), 5)
      assert.deepEqual(seqs(await append(store, ROOM, sampleMessages(6, 7))), [6, 7])
      assert.deepEqual(seqs(await store.range(ROOM)), [6, 7])
    },
  ],
  [
    'truncate beyond the last message skips no number, and repeated or for nothing removes nothing',
    async (store) => {
      await append(store, ROOM, sampleMessages(1, 3))
      assert.deepEqual(await store.truncate(ROOM, 0), { removedCount: 0 })
      assert.deepEqual(await store.truncate(ROOM, 1), { removedCount: 0 })
      assert.deepEqual(await store.truncate(ROOM, 1000), { removedCount: 3 })
      assert.deepEqual(await store.truncate(ROOM, 1000), { removedCount: 0 })
      assert.equal(await store.lastSeq(ROOM), 3)
      assert.deepEqual(seqs(await append(store, ROOM, [sampleMessage(4)])), [4])
      assert.deepEqual(await store.truncate(channel('nowhere'), 5), { removedCount: 0 })
      assert.deepEqual(seqs(await append(store, channel('nowhere'), [sampleMessage(5)])), [1])
    },
  ],
  [
    'a message whose expireSec has passed is absent from every answer, and its number stays used',
    async (store) => {
      const gone = { timestampMs: Date.now() - 3_600_000, expireSec: 60 }
      const fresh = { timestampMs: Date.now(), expireSec: 3600 }
      const forever = { timestampMs: 1, expireSec: 0 }
      const lives = [gone, fresh, gone, forever, gone]
      await append(store, ROOM, lives.map((life, i) => sampleMessage(i + 1, life)))
      assert.deepEqual(seqs(await store.range(ROOM)), [2, 4])
      assert.deepEqual(seqs(await store.range(ROOM, { direction: 'backward' })), [4, 2])
      assert.deepEqual(seqs(await store.range(ROOM, { limit: 2 })), [2, 4])
      assert.deepEqual(await store.get([sampleMessage(3).messageID]), [undefined])
      assert.equal(await store.findByClientMsgNo(ROOM, 'ann', 'no-3'), undefined)
      assert.equal(await store.lastSeq(ROOM), 5)
      assert.deepEqual(seqs(await append(store, ROOM, [sampleMessage(6)])), [6])
    },
  ],
]

const survivalScenarios: readonly DurableScenario<MessageStore>[] = [
  {
    name: 'after a restart every message that append resolved for is there, once, at the seq that was told',
    before: async (store) => {
      await append(store, ROOM, sampleMessages(1, 50))
      await store.append(HOSTILE_IDS.map((id, i) => batchOf(channel(id), [sampleMessage(100 + i)])))
    },
    after: async (store) => {
      const expected = sampleMessages(1, 50).map((message, i) => ({ ...message, messageSeq: i + 1 }))
      assertSameMessages(await store.range(ROOM), expected)
      for (const [i, id] of HOSTILE_IDS.entries()) {
        assertSameMessages(await store.range(channel(id)), [sampleMessage(100 + i, { ...channel(id), messageSeq: 1 })])
      }
      assert.equal((await store.get([sampleMessage(7).messageID]))[0]?.messageSeq, 7)
      assert.equal((await store.findByClientMsgNo(ROOM, 'ann', 'no-8'))?.messageSeq, 8)
    },
  },
  {
    name: 'after a restart numbers go on where they were and repeats are recognised',
    before: async (store) => void (await append(store, ROOM, sampleMessages(1, 3))),
    after: async (store) => {
      assert.equal(await store.lastSeq(ROOM), 3)
      const changed = sampleMessage(3, { payload: Buffer.from('other') })
      const results = await append(store, ROOM, [sampleMessage(2), changed, sampleMessage(4)])
      assert.deepEqual(results.map((result) => result.status), ['duplicate', 'conflict', 'stored'])
      assert.deepEqual(seqs(results), [2, 3, 4])
    },
  },
  {
    name: 'after a restart what was truncated stays removed and its numbers stay used, also when nothing was left',
    before: async (store) => {
      await append(store, channel('some'), sampleMessages(1, 5))
      await append(store, channel('all'), sampleMessages(11, 15))
      await store.truncate(channel('some'), 3)
      await store.truncate(channel('all'), 6)
    },
    after: async (store) => {
      assert.deepEqual(seqs(await store.range(channel('some'))), [3, 4, 5])
      assert.deepEqual(seqs(await store.range(channel('all'))), [])
      for (const [i, id] of ['some', 'all'].entries()) {
        assert.equal(await store.lastSeq(channel(id)), 5)
        assert.deepEqual(seqs(await append(store, channel(id), [sampleMessage(20 + i)])), [6])
      }
    },
  },
]
