import assert from 'node:assert/strict'
import type { MessageStore } from '../../contracts/message-store.ts'
import { started, type DurableScenario, type Scenario } from './contract-case.ts'
import { append, batchOf, seqs, unstorable } from './message-store-append.ts'
import { channel, ROOM, sampleMessage, sampleMessages } from './samples.ts'

const LONGEST_LOG = 'l'.repeat(100)

/** How far a store says a log has come here. Only called for stores that say so. */
async function positionOf(store: MessageStore, log: string): Promise<number> {
  return store.logPosition!(log)
}

/** What a store that keeps how far a log has been applied promises; one that does not has nothing to show here. */
export const positionScenarios: readonly Scenario<MessageStore>[] = onlyWithPosition([
  [
    'the position of a log is 0 until one is given, and then the last that was given for that log',
    async (store) => {
      assert.equal(await positionOf(store, 'a'), 0)
      await store.append([batchOf(ROOM, [sampleMessage(1)])], { log: 'a', index: 3 })
      await store.append([batchOf(ROOM, [sampleMessage(2)])], { log: 'b', index: 1 })
      await append(store, ROOM, [sampleMessage(3)])
      await store.append([batchOf(ROOM, [sampleMessage(4)])], { log: LONGEST_LOG, index: 2 ** 47 })
      assert.deepEqual([await positionOf(store, 'a'), await positionOf(store, 'b'), await positionOf(store, 'A')], [3, 1, 0])
      assert.equal(await positionOf(store, LONGEST_LOG), 2 ** 47)
      await store.append([batchOf(channel('other'), [sampleMessage(5)])], { log: 'a', index: 4 })
      assert.deepEqual([await positionOf(store, 'a'), await positionOf(store, 'b')], [4, 1])
      assert.equal(await store.lastSeq(ROOM), 4)
    },
  ],
  [
    'a position goes forwards also when there is no message with it, or none that is new',
    async (store) => {
      assert.deepEqual(await store.append([], { log: 'a', index: 1 }), [])
      assert.equal(await positionOf(store, 'a'), 1)
      await append(store, ROOM, [sampleMessage(1)])
      const [results] = await store.append([batchOf(ROOM, [sampleMessage(1)])], { log: 'a', index: 2 })
      assert.equal(results?.[0]?.status, 'duplicate')
      assert.equal(await positionOf(store, 'a'), 2)
    },
  ],
  [
    'an append that fails leaves the position where it was',
    async (store) => {
      await store.append([batchOf(ROOM, [sampleMessage(1)])], { log: 'a', index: 1 })
      const batches = [batchOf(ROOM, [sampleMessage(2)]), { key: ROOM, messages: [unstorable(3)] }]
      await assert.rejects(started(() => store.append(batches, { log: 'a', index: 2 })))
      assert.equal(await positionOf(store, 'a'), 1)
      assert.deepEqual(seqs(await store.range(ROOM)), [1])
    },
  ],
  [
    'overlapping appends with positions leave the last of them, and all messages',
    async (store) => {
      const calls = Array.from({ length: 20 }, (_, i) =>
        started(() => store.append([batchOf(ROOM, [sampleMessage(i + 1)])], { log: 'a', index: i + 1 })),
      )
      await Promise.all(calls)
      assert.equal(await positionOf(store, 'a'), 20)
      assert.equal(await store.lastSeq(ROOM), 20)
    },
  ],
  [
    'a position given with a change of a message is kept with it',
    async (store) => {
      await store.append([batchOf(ROOM, [sampleMessage(1)])], { log: 'a', index: 1 })
      const change = { kind: 'edited', byUID: '', timestampMs: 5, payload: Uint8Array.of(1) } as const
      const edited = await store.revise(ROOM, 1, change, { log: 'a', index: 2 })
      assert.deepEqual([edited?.revision?.version, await positionOf(store, 'a')], [1, 2])
      await store.revise(ROOM, 1, { kind: 'recalled', byUID: '', timestampMs: 6 }, { log: 'a', index: 3 })
      assert.equal(await positionOf(store, 'a'), 3)
      await assert.rejects(started(() => store.revise(ROOM, 1, change, { log: '', index: 4 })), TypeError)
    },
  ],
  [
    'a position that no log has is a TypeError, and nothing is written',
    async (store) => {
      const bad = [{ log: '', index: 1 }, { log: `${LONGEST_LOG}l`, index: 1 }, { log: 'a', index: 0 }, { log: 'a', index: 1.5 }]
      for (const position of bad) {
        await assert.rejects(started(() => store.append([batchOf(ROOM, [sampleMessage(1)])], position)), TypeError)
      }
      assert.equal(await store.lastSeq(ROOM), 0)
      assert.equal(await positionOf(store, 'a'), 0)
    },
  ],
])

export const positionSurvivalScenarios: readonly DurableScenario<MessageStore>[] = [
  {
    name: 'after a restart the position of every log is the last that append resolved for, and its messages are there',
    before: async (store) => {
      await append(store, ROOM, sampleMessages(1, 2))
      if (store.logPosition === undefined) return
      await store.append([batchOf(ROOM, [sampleMessage(3)]), batchOf(channel('other'), [sampleMessage(4)])], { log: 'a', index: 7 })
      await store.append([], { log: 'b', index: 2 })
    },
    after: async (store) => {
      assert.equal(await store.lastSeq(ROOM), store.logPosition === undefined ? 2 : 3)
      if (store.logPosition === undefined) return
      assert.deepEqual([await positionOf(store, 'a'), await positionOf(store, 'b'), await positionOf(store, 'c')], [7, 2, 0])
      assert.deepEqual(seqs(await store.range(channel('other'))), [1])
      await store.append([], { log: 'a', index: 8 })
      assert.equal(await positionOf(store, 'a'), 8)
    },
  },
]

function onlyWithPosition(scenarios: readonly Scenario<MessageStore>[]): Scenario<MessageStore>[] {
  return scenarios.map(([name, check]) => [name, async (store) => (store.logPosition === undefined ? undefined : check(store))])
}
