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
import { channel, CONFUSABLE_PAIRS, HOSTILE_IDS, ROOM } from './samples.ts'

/** The promises of a CursorStore. */
export function cursorStoreContract<O extends Opened<CursorStore>>(
  options: DurableContractOptions<CursorStore, O>,
): ContractCase[] {
  return [...casesOf(options, scenarios), ...durableCasesOf(options, survivalScenarios)]
}

const KEY = ROOM

async function cursorOf(store: CursorStore, uid = 'ann', key = KEY): Promise<{ deliveredSeq: number; readSeq: number }> {
  return { ...(await store.cursor(uid, key)) }
}

const scenarios: readonly Scenario<CursorStore>[] = [
  [
    'both positions start at 0',
    async (store) => {
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 0, readSeq: 0 })
    },
  ],
  [
    'an advance is seen by the next question, written behind or not',
    async (store) => {
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 7, readSeq: 3 }])
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 7, readSeq: 3 })
      await store.flush()
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 7, readSeq: 3 })
    },
  ],
  [
    'each position moves alone',
    async (store) => {
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 5 }])
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 5, readSeq: 0 })
      await store.advance([{ uid: 'ann', key: KEY, readSeq: 9 }])
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 5, readSeq: 9 })
      await store.advance([{ uid: 'ann', key: KEY }])
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 5, readSeq: 9 })
    },
  ],
  [
    'a position never moves backwards, also not by half of an update that moves the other one',
    async (store) => {
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 10, readSeq: 10 }])
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 9, readSeq: 11 }])
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 10, readSeq: 11 })
      await store.flush()
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 0, readSeq: 0 }])
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 10, readSeq: 11 })
    },
  ],
  [
    'the highest of several updates in one call counts, in any order',
    async (store) => {
      await store.advance([3, 8, 5].map((deliveredSeq) => ({ uid: 'ann', key: KEY, deliveredSeq })))
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 8, readSeq: 0 })
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
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 50, readSeq: 0 })
      for (let i = 0; i < 50; i++) assert.deepEqual(await cursorOf(store, `u${i}`), { deliveredSeq: 0, readSeq: 1 })
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
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 4_294_967_295, readSeq: 4_294_967_294 }])
      await store.flush()
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 4_294_967_295, readSeq: 4_294_967_294 })
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
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 5 }])
      assert.equal(before.deliveredSeq, 4, 'an answer does not change when the store does')
      await store.flush()
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 5, readSeq: 0 })
      assert.deepEqual(await cursorOf(store, 'bob'), { deliveredSeq: 0, readSeq: 0 })
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
      await store.flush()
    },
    after: async (store) => {
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 5, readSeq: 3 })
      for (const [i, uid] of HOSTILE_IDS.entries()) assert.equal((await store.cursor(uid, KEY)).readSeq, i + 1)
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 1, readSeq: 4 }])
      assert.deepEqual(await cursorOf(store), { deliveredSeq: 5, readSeq: 4 })
    },
  },
]
