import assert from 'node:assert/strict'
import type { MessageStore, Removal, SweepResult } from '../../contracts/message-store.ts'
import { ChannelType, personChannelID, type ChannelKey } from '../../model/channel.ts'
import type { DurableScenario, Scenario } from './contract-case.ts'
import { append, seqs } from './message-store-append.ts'
import { editTo, RECALL } from './message-store-revise.ts'
import { channel, HOSTILE_IDS, ROOM, sampleMessage, sampleMessages } from './samples.ts'

/** Over for a long time, by any clock. */
const gone = () => ({ timestampMs: Date.now() - 3_600_000, expireSec: 60 })

/** One piece of a sweep; undefined when the store cannot do it in that way. */
type Sweep = (store: MessageStore, nowMs: number) => Promise<SweepResult | undefined>

const bySweep: Sweep = async (store, nowMs) => store.sweep?.(nowMs)

/** In few pieces, each of which is removed twice, as a node does that ends in the middle. */
const byDiscard: Sweep = async (store, nowMs) => {
  if (store.due === undefined || store.discard === undefined) return undefined
  const { removals, isDone } = await store.due(nowMs, 100)
  const removedCount = await store.discard(removals)
  assert.equal(await store.discard(removals), 0)
  return { removedCount, isDone }
}

/** Sweep until there is no more to remove. @returns how many were removed; undefined when the store cannot do it in that way */
async function allOf(sweep: Sweep, store: MessageStore, nowMs: number): Promise<number | undefined> {
  let removedCount = 0
  for (let callCount = 1; callCount < 1000; callCount++) {
    const result = await sweep(store, nowMs)
    if (result === undefined) return undefined
    removedCount += result.removedCount
    if (result.isDone) return removedCount
  }
  return assert.fail('sweeping must come to an end')
}

/** Everything about a channel that has numbers 1 .. lastSeq and, of those, still these. */
async function assertHolds(store: MessageStore, key: ChannelKey, lastSeq: number, left: readonly number[]): Promise<void> {
  assert.deepEqual(seqs(await store.range(key)), left)
  assert.deepEqual(seqs(await store.range(key, { direction: 'backward' })), [...left].reverse())
  assert.equal(await store.lastSeq(key), lastSeq)
  for (let afterSeq = 0; afterSeq <= lastSeq; afterSeq++) {
    assert.equal(await store.countAfter(key, afterSeq), left.filter((seq) => seq > afterSeq).length, `countAfter ${afterSeq}`)
    const expected = left.filter((seq) => seq > afterSeq).slice(0, 2)
    assert.deepEqual(seqs(await store.range(key, { startSeq: afterSeq + 1, limit: 2 })), expected)
  }
}

/** What the engine's regular sweep removes. A store that has none has nothing to show here. */
function scenariosOf(sweep: Sweep): readonly Scenario<MessageStore>[] {
  const sweepAll = (store: MessageStore, nowMs = Date.now()): Promise<number | undefined> => allOf(sweep, store, nowMs)
  return [
    [
      'a sweep removes what has expired, wherever it is in its channel, and nothing else',
      async (store) => {
        const lives = [{}, gone(), { timestampMs: Date.now(), expireSec: 3600 }, gone(), gone(), {}, { timestampMs: 1 }, gone()]
        await append(store, ROOM, lives.map((life, i) => sampleMessage(i + 1, life)))
        await append(store, channel('other'), [sampleMessage(11), sampleMessage(12, gone())])
        const removedCount = await sweepAll(store)
        if (removedCount === undefined) return
        assert.equal(removedCount, 5)
        await assertHolds(store, ROOM, 8, [1, 3, 6, 7])
        await assertHolds(store, channel('other'), 2, [1])
        const found = await store.get([2, 3, 5, 12].map((n) => sampleMessage(n).messageID))
        assert.deepEqual(found.map((message) => message?.messageSeq), [undefined, 3, undefined, undefined])
        assert.equal(await store.findByClientMsgNo(ROOM, 'ann', 'no-4'), undefined)
        assert.equal((await store.findByClientMsgNo(ROOM, 'ann', 'no-6'))?.messageSeq, 6)
        assert.equal(await store.revise(ROOM, 4, editTo('back')), undefined)
      },
    ],
    [
      'a sweep removes by the time it is given, to the millisecond',
      async (store) => {
        const sentMs = Date.now()
        await append(store, ROOM, [sampleMessage(1, { timestampMs: sentMs, expireSec: 3600 }), sampleMessage(2)])
        if ((await sweepAll(store, sentMs + 3_599_999)) === undefined) return
        await assertHolds(store, ROOM, 2, [1, 2])
        assert.equal(await sweepAll(store, sentMs + 3_600_000), 1)
        await assertHolds(store, ROOM, 2, [2])
      },
    ],
    [
      'a sweep of nothing, and one more after the last, is done and removes nothing',
      async (store) => {
        const first = await sweep(store, Date.now())
        if (first === undefined) return
        assert.deepEqual({ ...first }, { removedCount: 0, isDone: true })
        await append(store, ROOM, [sampleMessage(1), sampleMessage(2, gone())])
        assert.equal(await sweepAll(store), 1)
        assert.deepEqual({ ...(await sweep(store, Date.now())) }, { removedCount: 0, isDone: true })
        await assertHolds(store, ROOM, 2, [1])
      },
    ],
    [
      'no number of a swept message is given again, not even of the last, and not when nothing is left',
      async (store) => {
        await append(store, ROOM, [sampleMessage(1), sampleMessage(2, gone()), sampleMessage(3, gone())])
        await append(store, channel('all'), sampleMessages(11, 13, gone()))
        if ((await sweepAll(store)) === undefined) return
        assert.deepEqual(seqs(await append(store, ROOM, sampleMessages(4, 5))), [4, 5])
        assert.deepEqual(seqs(await append(store, channel('all'), [sampleMessage(14)])), [4])
        await assertHolds(store, ROOM, 5, [1, 4, 5])
        await assertHolds(store, channel('all'), 4, [4])
      },
    ],
    [
      'a repeat of a swept message is stored as new or answered with the number it had',
      async (store) => {
        await append(store, ROOM, [sampleMessage(1), sampleMessage(2, gone()), sampleMessage(3)])
        if ((await sweepAll(store)) === undefined) return
        const again = sampleMessage(4, { clientMsgNo: 'no-2', payload: Buffer.from('message 2') })
        const [first] = await append(store, ROOM, [again])
        const isNew = first?.status === 'stored'
        const original = { status: 'duplicate', messageID: sampleMessage(2).messageID, messageSeq: 2 }
        assert.deepEqual(first, isNew ? { status: 'stored', messageID: again.messageID, messageSeq: 4 } : original)
        await assertHolds(store, ROOM, isNew ? 4 : 3, isNew ? [1, 3, 4] : [1, 3])
        const [second] = await append(store, ROOM, [{ ...again, messageID: sampleMessage(5).messageID }])
        assert.deepEqual(second, { ...first, status: 'duplicate' })
      },
    ],
    [
      'a sweep moves no summary but floorSeq, and that never above what is left',
      async (store) => {
        await append(store, ROOM, [
          sampleMessage(1, gone()),
          sampleMessage(2, { ...gone(), fromUID: 'bob' }),
          sampleMessage(3, { fromUID: 'cleo' }),
          sampleMessage(4, gone()),
        ])
        await append(store, channel('all'), sampleMessages(11, 12, gone()))
        const keys = [ROOM, channel('all')]
        const before = (await store.summaries('bob', keys)).map((summary) => ({ ...summary }))
        if ((await sweepAll(store)) === undefined) return
        for (const [i, summary] of (await store.summaries('bob', keys)).entries()) {
          assert.deepEqual({ ...summary, floorSeq: 0 }, before[i])
          assert.ok(summary.floorSeq >= 0 && summary.floorSeq <= 2, `floorSeq ${summary.floorSeq}`)
        }
        assert.equal((await store.summaries('ann', [ROOM]))[0]?.sentSeq, 4)
      },
    ],
    [
      'what was revised is swept as anything else, and what was recalled does not count twice',
      async (store) => {
        const soon = { timestampMs: Date.now(), expireSec: 3600 }
        await append(store, ROOM, [sampleMessage(1), ...sampleMessages(2, 4, soon), ...sampleMessages(5, 7)])
        for (const seq of [2, 3, 6]) await store.revise(ROOM, seq, RECALL)
        await store.revise(ROOM, 4, editTo('better', { timestampMs: Date.now() + 86_400_000 }))
        const removedCount = await sweepAll(store, Date.now() + 7_200_000)
        if (removedCount === undefined) return
        assert.equal(removedCount, 3)
        assert.deepEqual(seqs(await store.range(ROOM)), [1, 5, 6, 7])
        const counts = [3, 2, 2, 2, 2, 1, 1, 0]
        for (const [afterSeq, count] of counts.entries()) assert.equal(await store.countAfter(ROOM, afterSeq), count)
      },
    ],
    [
      'truncate after a sweep removes and counts only what was left',
      async (store) => {
        await append(store, ROOM, [1, 2, 3, 4, 5, 6].map((n) => sampleMessage(n, n % 2 === 0 ? gone() : {})))
        if ((await sweepAll(store)) === undefined) return
        assert.deepEqual(await store.truncate(ROOM, 4), { removedCount: 2 })
        await assertHolds(store, ROOM, 6, [5])
        assert.deepEqual(await store.truncate(ROOM, 1000), { removedCount: 1 })
        assert.equal((await store.summaries('ann', [ROOM]))[0]?.floorSeq, 6)
        assert.deepEqual(seqs(await append(store, ROOM, [sampleMessage(7)])), [7])
      },
    ],
    [
      'a person channel of which everything has been swept stays listed',
      async (store) => {
        const key = channel(personChannelID('ann', 'bob'), ChannelType.Person)
        await append(store, key, [sampleMessage(1, gone())])
        if ((await sweepAll(store)) === undefined) return
        assert.deepEqual((await store.personChannelsOf('bob')).items.map((item) => ({ ...item })), [key])
      },
    ],
    [
      'sweeps remove from many channels, whatever their ids, and from one with many messages',
      async (store) => {
        for (const [i, id] of HOSTILE_IDS.entries()) {
          await append(store, channel(id), [sampleMessage(10 * i + 1), sampleMessage(10 * i + 2, gone()), sampleMessage(10 * i + 3)])
        }
        await append(store, ROOM, Array.from({ length: 450 }, (_, i) => sampleMessage(1000 + i, i % 9 === 0 ? {} : gone())))
        const removedCount = await sweepAll(store)
        if (removedCount === undefined) return
        assert.equal(removedCount, HOSTILE_IDS.length + 400)
        for (const id of HOSTILE_IDS) await assertHolds(store, channel(id), 3, [1, 3])
        assert.deepEqual(seqs(await store.range(ROOM, { limit: 1000 })), Array.from({ length: 50 }, (_, i) => 9 * i + 1))
        assert.deepEqual([await store.countAfter(ROOM, 0), await store.countAfter(ROOM, 225)], [50, 25])
      },
    ],
  ]
}

export const sweepScenarios: readonly Scenario<MessageStore>[] = [
  ...scenariosOf(bySweep),
  ...scenariosOf(byDiscard).map(([name, check]): Scenario<MessageStore> => [`${name} (found first, and then removed)`, check]),
  [
    'who is said to have expired at a time that is not theirs stays, and who is named twice is removed once',
    async (store) => {
      if (store.discard === undefined) return
      const soon = { timestampMs: 1_000, expireSec: 60 }
      await append(store, ROOM, [sampleMessage(1), sampleMessage(2, soon), sampleMessage(3, soon), sampleMessage(4), sampleMessage(5)])
      const wrong = [1, 2, 4].map((messageSeq) => ({ messageSeq, expiresAtMs: 60_999 }))
      assert.equal(await store.discard([{ key: ROOM, expired: wrong }]), 0)
      const right = [3, 3].map((messageSeq) => ({ messageSeq, expiresAtMs: 61_000 }))
      assert.equal(await store.discard([{ key: ROOM, expired: right }]), 1)
      assert.deepEqual([await store.countAfter(ROOM, 0), await store.countAfter(ROOM, 3), await store.lastSeq(ROOM)], [4, 2, 5])
      assert.equal((await store.findByClientMsgNo(ROOM, 'ann', 'no-4'))?.messageSeq, 4)
    },
  ],
  [
    'a list of removals of which one names no channel is a TypeError, and nothing of it is done',
    async (store) => {
      if (store.discard === undefined) return
      await append(store, ROOM, sampleMessages(1, 3))
      const removals = [{ key: ROOM, throughSeq: 2 }, { throughSeq: 2 } as Removal]
      await assert.rejects(async () => store.discard!(removals), TypeError)
      await assertHolds(store, ROOM, 3, [1, 2, 3])
    },
  ],
]

export const sweepSurvivalScenarios: readonly DurableScenario<MessageStore>[] = [
  {
    name: 'after a restart what has expired is absent, swept or not, and no number of it is given again',
    before: async (store) => {
      await append(store, ROOM, [sampleMessage(1), sampleMessage(2, gone()), sampleMessage(3), sampleMessage(4, gone())])
      await append(store, channel('all'), sampleMessages(11, 13, gone()))
      await allOf(bySweep, store, Date.now())
    },
    after: async (store) => {
      assert.deepEqual(seqs(await store.range(ROOM)), [1, 3])
      assert.equal(await store.lastSeq(ROOM), 4)
      assert.equal((await store.summaries('ann', [channel('all')]))[0]?.sentSeq, 3)
      assert.deepEqual(seqs(await append(store, ROOM, [sampleMessage(5)])), [5])
      assert.deepEqual(seqs(await append(store, channel('all'), [sampleMessage(14)])), [4])
      assert.deepEqual(seqs(await store.range(channel('all'))), [4])
    },
  },
]
