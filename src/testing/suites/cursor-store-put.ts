import assert from 'node:assert/strict'
import type { CursorStore } from '../../contracts/cursor-store.ts'
import { started, type DurableScenario, type Scenario } from './contract-case.ts'
import { at, cursorOf, KEY } from './cursor-samples.ts'
import { channel, CONFUSABLE_PAIRS, HOSTILE_IDS } from './samples.ts'

/** Positions are set, and forgotten. */
export const putScenarios: readonly Scenario<CursorStore>[] = [
  [
    'put sets positions, forwards and backwards, down to 0',
    async (store) => {
      const all = { deliveredSeq: 9, readSeq: 8, joinSeq: 7, deletedToSeq: 6, unreadMarkSeq: 5 }
      for (const positions of [all, { ...all, readSeq: 3, joinSeq: 12 }, at({ readSeq: 1 }), all, at()]) {
        await store.put([{ uid: 'ann', key: KEY, ...positions }])
        assert.deepEqual(await cursorOf(store), positions)
      }
    },
  ],
  [
    'put leaves positions that are not named as they are',
    async (store) => {
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 5, readSeq: 4, unreadMarkSeq: 3 }])
      await store.put([{ uid: 'ann', key: KEY, readSeq: 2 }])
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 5, readSeq: 2, unreadMarkSeq: 3 }))
      await store.put([{ uid: 'ann', key: KEY, joinSeq: 6, unreadMarkSeq: 0 }])
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 5, readSeq: 2, joinSeq: 6 }))
      await store.put([{ uid: 'ann', key: KEY }])
      await store.put([])
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 5, readSeq: 2, joinSeq: 6 }))
    },
  ],
  [
    'an advance that was written behind does not come back over a put, and moves on from it',
    async (store) => {
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 10, readSeq: 10 }])
      await store.put([{ uid: 'ann', key: KEY, readSeq: 3 }])
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 10, readSeq: 3 }))
      await store.flush()
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 10, readSeq: 3 }))
      await store.advance([{ uid: 'ann', key: KEY, readSeq: 2 }])
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 10, readSeq: 3 }))
      await store.advance([{ uid: 'ann', key: KEY, readSeq: 4 }])
      await store.flush()
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 10, readSeq: 4 }))
    },
  ],
  [
    'of several updates of one position in one put the last one counts',
    async (store) => {
      const positions = [{ readSeq: 8 }, { deliveredSeq: 7 }, { readSeq: 2 }, { readSeq: 5 }]
      await store.put(positions.map((position) => ({ uid: 'ann', key: KEY, ...position })))
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 7, readSeq: 5 }))
    },
  ],
  [
    'puts and advances that overlap lose nothing of one another',
    async (store) => {
      const calls = Array.from({ length: 30 }, (_, i) => [
        started(() => store.advance([{ uid: `u${i % 10}`, key: KEY, deliveredSeq: i + 1 }])),
        started(() => store.put([{ uid: `u${i % 10}`, key: KEY, joinSeq: 7 }, { uid: `v${i}`, key: KEY, readSeq: i + 1 }])),
        started(() => store.advance([{ uid: `u${i % 10}`, key: KEY, readSeq: i + 1 }])),
      ])
      await Promise.all([...calls.flat(), started(() => store.flush())])
      for (let i = 0; i < 10; i++) {
        assert.deepEqual(await cursorOf(store, `u${i}`), at({ deliveredSeq: i + 21, readSeq: i + 21, joinSeq: 7 }))
      }
      for (let i = 0; i < 30; i++) assert.deepEqual(await cursorOf(store, `v${i}`), at({ readSeq: i + 1 }))
    },
  ],
  [
    'put and remove keep users and channels apart, whatever their text',
    async (store) => {
      const pairs = [...HOSTILE_IDS.flatMap((id) => [[id, 'room'], ['ann', id]] as const), ...CONFUSABLE_PAIRS.flat()]
      const distinct = [...new Map(pairs.map((pair) => [JSON.stringify(pair), pair])).values()]
      await store.advance(distinct.map(([uid, id]) => ({ uid, key: channel(id), readSeq: 1_000_000 })))
      await store.put(distinct.map(([uid, id], i) => ({ uid, key: channel(id), readSeq: i + 1 })))
      for (const [i, [uid, id]] of distinct.entries()) {
        assert.equal((await store.cursor(uid, channel(id))).readSeq, i + 1)
        await store.remove(channel(id), [uid])
        assert.deepEqual(await cursorOf(store, uid, channel(id)), at())
      }
    },
  ],
  [
    'remove forgets the positions of the users named, in that channel only',
    async (store) => {
      const other = channel(KEY.channelID, 4)
      for (const key of [KEY, other, channel('b')]) {
        await store.put(['ann', 'bob', 'cleo'].map((uid) => ({ uid, key, readSeq: 5, joinSeq: 3 })))
      }
      await store.remove(KEY, ['ann', 'cleo', 'nobody', 'ann'])
      for (const uid of ['ann', 'cleo', 'nobody']) assert.deepEqual(await cursorOf(store, uid), at())
      assert.deepEqual(await cursorOf(store, 'bob'), at({ readSeq: 5, joinSeq: 3 }))
      for (const key of [other, channel('b')]) assert.deepEqual(await cursorOf(store, 'ann', key), at({ readSeq: 5, joinSeq: 3 }))
      await store.remove(KEY, [])
      await store.remove(channel('nowhere'), ['bob'])
      assert.deepEqual(await cursorOf(store, 'bob'), at({ readSeq: 5, joinSeq: 3 }))
    },
  ],
  [
    'what was removed does not come back with a flush, and starts again from 0',
    async (store) => {
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 9, readSeq: 9 }])
      await store.remove(KEY, ['ann'])
      assert.deepEqual(await cursorOf(store), at())
      await store.flush()
      assert.deepEqual(await cursorOf(store), at())
      await store.advance([{ uid: 'ann', key: KEY, readSeq: 2 }])
      await store.flush()
      assert.deepEqual(await cursorOf(store), at({ readSeq: 2 }))
    },
  ],
  [
    'what the caller does to a put afterwards does not reach the store',
    async (store) => {
      const update = { uid: 'ann', key: { ...KEY }, readSeq: 4 }
      const updates = [update]
      const uids = ['bob']
      await store.put(updates)
      await store.remove(KEY, uids)
      Object.assign(update.key, { channelID: 'elsewhere' })
      Object.assign(update, { uid: 'bob', readSeq: 9 })
      updates.push({ uid: 'cleo', key: KEY, readSeq: 1 })
      uids[0] = 'ann'
      await store.flush()
      assert.deepEqual(await cursorOf(store), at({ readSeq: 4 }))
      for (const uid of ['bob', 'cleo']) assert.deepEqual(await cursorOf(store, uid), at())
    },
  ],
]

export const putSurvivalScenarios: readonly DurableScenario<CursorStore>[] = [
  {
    name: 'after a restart what was put is there without a flush, backwards too',
    before: async (store) => {
      await store.advance([{ uid: 'ann', key: KEY, readSeq: 10, deliveredSeq: 10 }])
      await store.flush()
      await store.put([{ uid: 'ann', key: KEY, readSeq: 4, joinSeq: 3 }])
      await store.advance([{ uid: 'bob', key: KEY, readSeq: 10 }])
      await store.put([{ uid: 'bob', key: KEY, readSeq: 6 }])
      await store.put(HOSTILE_IDS.map((id, i) => ({ uid: 'ann', key: channel(id), unreadMarkSeq: i + 1 })))
    },
    after: async (store) => {
      assert.deepEqual(await cursorOf(store), at({ deliveredSeq: 10, readSeq: 4, joinSeq: 3 }))
      assert.deepEqual(await cursorOf(store, 'bob'), at({ readSeq: 6 }))
      for (const [i, id] of HOSTILE_IDS.entries()) assert.equal((await store.cursor('ann', channel(id))).unreadMarkSeq, i + 1)
    },
  },
  {
    name: 'after a restart what was removed stays removed without a flush, and the rest is there',
    before: async (store) => {
      await store.put(['ann', 'bob'].map((uid) => ({ uid, key: KEY, readSeq: 5 })))
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 9 }])
      await store.flush()
      await store.advance([{ uid: 'ann', key: KEY, deliveredSeq: 11 }])
      await store.remove(KEY, ['ann'])
    },
    after: async (store) => {
      assert.deepEqual(await cursorOf(store), at())
      assert.deepEqual(await cursorOf(store, 'bob'), at({ readSeq: 5 }))
    },
  },
]
