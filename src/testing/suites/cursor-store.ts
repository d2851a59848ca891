import assert from 'node:assert/strict'
import type { CursorStore } from '../../contracts/cursor-store.ts'
import {
  casesOf,
  durableCasesOf,
  started,
  type ContractCase,
  type DurableContractOptions,
  type DurableScenario,
  type Opened,
  type Scenario,
} from './contract-case.ts'
import { at, cursorOf, KEY } from './cursor-samples.ts'
import { hiddenScenarios, hiddenSurvivalScenarios } from './cursor-store-hidden.ts'
import { putScenarios, putSurvivalScenarios } from './cursor-store-put.ts'
import { channel, CONFUSABLE_PAIRS, HOSTILE_IDS } from './samples.ts'

/** The promises of a CursorStore. */
export function cursorStoreContract<O extends Opened<CursorStore>>(
  options: DurableContractOptions<CursorStore, O>,
): ContractCase[] {
  return [
    ...casesOf(options, [...scenarios, ...putScenarios, ...hiddenScenarios]),
    ...durableCasesOf(options, [...survivalScenarios, ...putSurvivalScenarios, ...hiddenSurvivalScenarios]),
  ]
}

const scenarios: readonly Scenario<CursorStore>[] = [
  [
    'all positions start at 0',
    async (store) => {
      assert.deepEqual(await cursorOf(store), at())
    },
  ],
  [
    'an advance is seen by the next question, written behind or not',
    async (store) => {
      const positions = { deliveredSeq: 7, readSeq: 3, joinSeq: 2, deletedToSeq: 1, unreadMarkSeq: 5 }
      await store.advance([{ uid: 'ann', key: KEY, ...positions }])
      assert.deepEqual(await cursorOf(store), positions)
      await store.flush()
      assert.deepEqual(await cursorOf(store), positions)
    },
  ],
  [
    'each position moves alone',
    async (store) => {
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 5 }])
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 5 }))
      await store.advance([{ uid: 'ann', key: KEY, readSeq: 9 }])
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 5, readSeq: 9 }))
      await store.advance([{ uid: 'ann', key: KEY, joinSeq: 3 }])
      await store.advance([{ uid: 'ann', key: KEY, deletedToSeq: 2 }])
      await store.advance([{ uid: 'ann', key: KEY, unreadMarkSeq: 1 }])
      const all = { deliveredSeq: 5, readSeq: 9, joinSeq: 3, deletedToSeq: 2, unreadMarkSeq: 1 }
      assert.deepEqual(await cursorOf(store), all)
      await store.advance([{ uid: 'ann', key: KEY }])
      assert.deepEqual(await cursorOf(store), all)
    },
  ],
  [
    'an advance never moves a position backwards, also not by half of an update that moves the other one',
    async (store) => {
      const ten = { deliveredSeq: 10, readSeq: 10, joinSeq: 10, deletedToSeq: 10, unreadMarkSeq: 10 }
      await store.advance([{ uid: 'ann', key: KEY, ...ten }])
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 9, readSeq: 11, joinSeq: 9, deletedToSeq: 11, unreadMarkSeq: 9 }])
      assert.deepEqual(await cursorOf(store), { ...ten, readSeq: 11, deletedToSeq: 11 })
      await store.flush()
      await store.advance([{ uid: 'ann', key: KEY, ...at() }])
      assert.deepEqual(await cursorOf(store), { ...ten, readSeq: 11, deletedToSeq: 11 })
    },
  ],
  [
    'the highest of several updates in one call counts, in any order',
    async (store) => {
      await store.advance([3, 8, 5].map((deliveredSeq) => ({ uid: 'ann', key: KEY, deliveredSeq })))
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 8 }))
    },
  ],
  [
    'calls that overlap lose nothing',
    async (store) => {
      const calls = Array.from({ length: 50 }, (_, i) => {
        const shared = { uid: 'ann', key: KEY, deliveredSeq: ((i * 17) % 50) + 1 }
        return started(() => store.advance([shared, { uid: `u${i}`, key: KEY, readSeq: 1 }]))
      })
      await Promise.all(calls)
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 50 }))
      for (let i = 0; i < 50; i++) assert.deepEqual(await cursorOf(store, `u${i}`), at({ readSeq: 1 }))
    },
  ],
  [
    'every user has an own position in every channel, also when only the type differs',
    async (store) => {
      await store.advance([
        { uid: 'ann', key: channel('a', 2), readSeq: 1 },
        { uid: 'ann', key: channel('b', 2), readSeq: 2 },
        { uid: 'ann', key: channel('a', 4), readSeq: 3 },
        { uid: 'bob', key: channel('a', 2), readSeq: 4 },
      ])
      assert.equal((await store.cursor('ann', channel('a', 2))).readSeq, 1)
      assert.equal((await store.cursor('ann', channel('b', 2))).readSeq, 2)
      assert.equal((await store.cursor('ann', channel('a', 4))).readSeq, 3)
      assert.equal((await store.cursor('bob', channel('a', 2))).readSeq, 4)
      assert.equal((await store.cursor('bob', channel('b', 2))).readSeq, 0)
    },
  ],
  [
    'users and channels whatever their text are kept apart',
    async (store) => {
      const pairs = [...HOSTILE_IDS.flatMap((id) => [[id, 'room'], ['ann', id]] as const), ...CONFUSABLE_PAIRS.flat()]
      const distinct = [...new Map(pairs.map((pair) => [JSON.stringify(pair), pair])).values()]
      await store.advance(distinct.map(([uid, id], i) => ({ uid, key: channel(id), deliveredSeq: i + 1 })))
      for (const [i, [uid, id]] of distinct.entries()) {
        assert.equal((await store.cursor(uid, channel(id))).deliveredSeq, i + 1)
      }
    },
  ],
  [
    'the largest seq the wire can carry is kept exactly',
    async (store) => {
      const most = 4_294_967_295
      const positions = { deliveredSeq: most, readSeq: most - 1, joinSeq: most, deletedToSeq: most - 2, unreadMarkSeq: most }
      await store.advance([{ uid: 'ann', key: KEY, ...positions }])
      await store.flush()
      assert.deepEqual(await cursorOf(store), positions)
    },
  ],
  [
    'cursors answers for each channel what cursor does, in the order asked, also when one is asked for twice',
    async (store) => {
      await store.advance([
        { uid: 'ann', key: channel('a'), readSeq: 1, joinSeq: 9 },
        { uid: 'ann', key: channel('b'), readSeq: 2 },
        { uid: 'ann', key: channel('a', 4), readSeq: 3 },
        { uid: 'bob', key: channel('a'), readSeq: 4 },
      ])
      await store.put([{ uid: 'ann', key: channel('c'), unreadMarkSeq: 6 }])
      const keys = [channel('b'), channel('nowhere'), channel('a'), channel('a', 4), channel('c'), channel('b')]
      const answers = (await store.cursors('ann', keys)).map((cursor) => ({ ...cursor }))
      const expected = [at({ readSeq: 2 }), at(), at({ readSeq: 1, joinSeq: 9 }), at({ readSeq: 3 }), at({ unreadMarkSeq: 6 }), at({ readSeq: 2 })]
      assert.deepEqual(answers, expected)
      for (const [i, key] of keys.entries()) assert.deepEqual(await cursorOf(store, 'ann', key), expected[i])
      assert.deepEqual(await store.cursors('ann', []), [])
      assert.deepEqual((await store.cursors('nobody', keys)).map((cursor) => ({ ...cursor })), keys.map(() => at()))
    },
  ],
  [
    'cursors keeps channels apart whatever their ids are',
    async (store) => {
      await store.advance(HOSTILE_IDS.map((id, i) => ({ uid: 'ann', key: channel(id), readSeq: i + 1 })))
      const answers = await store.cursors('ann', HOSTILE_IDS.map((id) => channel(id)))
      assert.deepEqual(answers.map((cursor) => cursor.readSeq), HOSTILE_IDS.map((_, i) => i + 1))
    },
  ],
  [
    'what the caller does to an update or an answer afterwards does not reach the store',
    async (store) => {
      const update = { uid: 'ann', key: { ...KEY }, deliveredSeq: 4 }
      await store.advance([update])
      Object.assign(update.key, { channelID: 'elsewhere' })
      Object.assign(update, { uid: 'bob', deliveredSeq: 9 })
      const before = await store.cursor('ann', KEY)
      const [beforeToo] = await store.cursors('ann', [KEY])
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 5 }])
      assert.equal(before.deliveredSeq, 4, 'an answer does not change when the store does')
      assert.equal(beforeToo?.deliveredSeq, 4, 'an answer does not change when the store does')
      await store.flush()
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 5 }))
      assert.deepEqual(await cursorOf(store, 'bob'), at())
    },
  ],
  [
    'flush of nothing, and twice, resolves',
    async (store) => {
      await store.advance([])
      await store.flush()
      await store.flush()
    },
  ],
]

const survivalScenarios: readonly DurableScenario<CursorStore>[] = [
  {
    name: 'after a restart everything accepted before the last flush is there',
    before: async (store) => {
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 5, readSeq: 2 }])
      await store.advance(HOSTILE_IDS.map((uid, i) => ({ uid, key: KEY, readSeq: i + 1 })))
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 4, readSeq: 3 }])
      await store.advance([{ uid: 'ann', key: KEY, joinSeq: 7, deletedToSeq: 8, unreadMarkSeq: 9 }])
      await store.flush()
    },
    after: async (store) => {
      const rest = { joinSeq: 7, deletedToSeq: 8, unreadMarkSeq: 9 }
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 5, readSeq: 3, ...rest })
      for (const [i, uid] of HOSTILE_IDS.entries()) assert.equal((await store.cursor(uid, KEY)).readSeq, i + 1)
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 1, readSeq: 4, joinSeq: 1 }])
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 5, readSeq: 4, ...rest })
    },
  },
]
