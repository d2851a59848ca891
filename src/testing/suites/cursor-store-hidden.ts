import assert from 'node:assert/strict'
import type { CursorStore } from '../../contracts/cursor-store.ts'
import { started, type DurableScenario, type Scenario } from './contract-case.ts'
import { at, cursorOf, KEY } from './cursor-samples.ts'
import { channel, CONFUSABLE_PAIRS, HOSTILE_IDS } from './samples.ts'

const MOST = 4_294_967_295

async function hiddenOf(store: CursorStore, uid = 'ann', key = KEY, afterSeq = 0, throughSeq = MOST): Promise<number[]> {
  return [...(await store.hidden(uid, key, afterSeq, throughSeq))]
}

/** The messages that a user has deleted for themselves only. */
export const hiddenScenarios: readonly Scenario<CursorStore>[] = [
  [
    'nothing is hidden at first',
    async (store) => {
      assert.deepEqual(await hiddenOf(store), [])
      await store.hide('ann', KEY, [])
      assert.deepEqual(await hiddenOf(store), [])
    },
  ],
  [
    'hidden seqs come back in ascending order, each once, in whatever order and however often they were given',
    async (store) => {
      await store.hide('ann', KEY, [300, 7, 20, 7])
      await store.hide('ann', KEY, [100, 20, 9, MOST, 1])
      assert.deepEqual(await hiddenOf(store), [1, 7, 9, 20, 100, 300, MOST])
    },
  ],
  [
    'the first bound of hidden is exclusive and the second inclusive; bounds the wrong way round find nothing',
    async (store) => {
      await store.hide('ann', KEY, [2, 4, 6, 256, 65_536])
      const expectations: readonly (readonly [afterSeq: number, throughSeq: number, expected: readonly number[]])[] = [
        [0, 1, []],
        [0, 2, [2]],
        [1, 2, [2]],
        [2, 4, [4]],
        [2, 3, []],
        [3, 6, [4, 6]],
        [4, 4, []],
        [6, 2, []],
        [6, 65_535, [256]],
        [255, 65_536, [256, 65_536]],
        [65_536, MOST, []],
        [0, 0, []],
      ]
      for (const [afterSeq, throughSeq, expected] of expectations) {
        assert.deepEqual(await hiddenOf(store, 'ann', KEY, afterSeq, throughSeq), expected, `${afterSeq} < seq <= ${throughSeq}`)
      }
    },
  ],
  [
    'what one user hides in one channel is hidden from nobody else and nowhere else',
    async (store) => {
      await store.hide('ann', channel('a', 2), [1])
      await store.hide('ann', channel('b', 2), [2])
      await store.hide('ann', channel('a', 4), [3])
      await store.hide('bob', channel('a', 2), [4])
      assert.deepEqual(await hiddenOf(store, 'ann', channel('a', 2)), [1])
      assert.deepEqual(await hiddenOf(store, 'ann', channel('b', 2)), [2])
      assert.deepEqual(await hiddenOf(store, 'ann', channel('a', 4)), [3])
      assert.deepEqual(await hiddenOf(store, 'bob', channel('a', 2)), [4])
      for (const [uid, id] of [['bob', 'b'], ['cleo', 'a'], ['an', 'a'], ['anna', 'a']] as const) {
        assert.deepEqual(await hiddenOf(store, uid, channel(id, 2)), [])
      }
    },
  ],
  [
    'users and channels whatever their text have hidden seqs of their own',
    async (store) => {
      const pairs = [...HOSTILE_IDS.flatMap((id) => [[id, 'room'], ['ann', id]] as const), ...CONFUSABLE_PAIRS.flat()]
      const distinct = [...new Map(pairs.map((pair) => [JSON.stringify(pair), pair])).values()]
      for (const [i, [uid, id]] of distinct.entries()) await store.hide(uid, channel(id), [1000 + i, i + 1])
      for (const [i, [uid, id]] of distinct.entries()) assert.deepEqual(await hiddenOf(store, uid, channel(id)), [i + 1, 1000 + i])
      for (const [uid, id] of distinct) {
        await store.remove(channel(id), [uid])
        assert.deepEqual(await hiddenOf(store, uid, channel(id)), [])
      }
    },
  ],
  [
    'hiding moves no position, and moving positions hides and shows nothing',
    async (store) => {
      await store.put([{ uid: 'ann', key: KEY, readSeq: 3 }])
      await store.hide('ann', KEY, [2, 5])
      assert.deepEqual(await cursorOf(store), at({ readSeq: 3 }))
      await store.put([{ uid: 'ann', key: KEY, readSeq: 9, deletedToSeq: 4 }])
      await store.advance([{ uid: 'ann', key: KEY, readSeq: 10 }])
      await store.flush()
      assert.deepEqual(await hiddenOf(store), [2, 5])
    },
  ],
  [
    'remove forgets what was hidden, from the users named and in that channel only',
    async (store) => {
      const other = channel(KEY.channelID, 4)
      for (const key of [KEY, other]) for (const uid of ['ann', 'bob']) await store.hide(uid, key, [1, 2, 300])
      await store.remove(KEY, ['ann', 'nobody'])
      assert.deepEqual(await hiddenOf(store), [])
      assert.deepEqual(await hiddenOf(store, 'bob'), [1, 2, 300])
      assert.deepEqual(await hiddenOf(store, 'ann', other), [1, 2, 300])
      await store.hide('ann', KEY, [7])
      assert.deepEqual(await hiddenOf(store), [7])
    },
  ],
  [
    'calls that overlap hide everything',
    async (store) => {
      const calls = Array.from({ length: 40 }, (_, i) => started(() => store.hide('ann', KEY, [((i * 17) % 40) + 1, 100 + (i % 3)])))
      await Promise.all([...calls, started(() => store.put([{ uid: 'ann', key: KEY, readSeq: 1 }]))])
      assert.deepEqual(await hiddenOf(store), [...Array.from({ length: 40 }, (_, i) => i + 1), 100, 101, 102])
      assert.deepEqual(await cursorOf(store), at({ readSeq: 1 }))
    },
  ],
  [
    'a thousand hidden seqs are found between any bounds',
    async (store) => {
      await store.hide('ann', KEY, Array.from({ length: 1000 }, (_, i) => ((i * 7) % 1000) * 3 + 1))
      assert.deepEqual(await hiddenOf(store), Array.from({ length: 1000 }, (_, i) => 3 * i + 1))
      assert.deepEqual(await hiddenOf(store, 'ann', KEY, 1500, 1510), [1501, 1504, 1507, 1510])
    },
  ],
  [
    'what the caller does to its list or to an answer afterwards does not reach the store',
    async (store) => {
      const seqs = [3, 1]
      const key = { ...KEY }
      await store.hide('ann', key, seqs)
      seqs.push(2)
      seqs[0] = 9
      key.channelID = 'elsewhere'
      const answer = await store.hidden('ann', KEY, 0, MOST)
      await store.hide('ann', KEY, [2])
      assert.deepEqual([...answer], [1, 3], 'an answer does not change when the store does')
      // A store may hand out what cannot be changed; assigning to it would throw.
      Reflect.set(answer, 0, 77)
      assert.deepEqual(await hiddenOf(store), [1, 2, 3])
    },
  ],
]

export const hiddenSurvivalScenarios: readonly DurableScenario<CursorStore>[] = [
  {
    name: 'after a restart what was hidden is hidden without a flush, and what was removed is not',
    before: async (store) => {
      await store.hide('ann', KEY, [4, 2])
      await store.hide('ann', KEY, [300])
      await store.hide('bob', KEY, [1])
      await store.remove(KEY, ['bob'])
      for (const [i, id] of HOSTILE_IDS.entries()) await store.hide(id, channel(id), [i + 1])
    },
    after: async (store) => {
      assert.deepEqual(await hiddenOf(store), [2, 4, 300])
      assert.deepEqual(await hiddenOf(store, 'bob'), [])
      for (const [i, id] of HOSTILE_IDS.entries()) assert.deepEqual(await hiddenOf(store, id, channel(id)), [i + 1])
    },
  },
]
