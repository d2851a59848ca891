import assert from 'node:assert/strict'
import type { Outbox } from '../../contracts/outbox.ts'
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

/** The promises of an Outbox, but for `precedes`, which are about a message store as well. */
export function outboxContract<O extends Opened<Outbox>>(options: DurableContractOptions<Outbox, O>): ContractCase[] {
  return [...casesOf(options, [...addScenarios, ...listScenarios, ...removeScenarios]), ...durableCasesOf(options, survivalScenarios())]
}

function bytesOf(...texts: readonly string[]): Uint8Array[] {
  return texts.map((text) => new Uint8Array(Buffer.from(text)))
}

/** Texts first .. last, both included. */
function texts(first: number, last: number): string[] {
  return Array.from({ length: last - first + 1 }, (_, i) => `entry ${first + i}`)
}

/** What is in a lane, as texts, oldest first. */
async function textsIn(outbox: Outbox, lane: number): Promise<string[]> {
  const entries = await outbox.list(lane, { limit: 10_000 })
  assertAscending(entries.map(({ entryID }) => entryID))
  return entries.map(({ bytes }) => {
    assert.ok(bytes instanceof Uint8Array, 'an entry must be a Uint8Array')
    return Buffer.from(bytes).toString()
  })
}

function assertAscending(entryIDs: readonly number[]): void {
  for (const [i, entryID] of entryIDs.entries()) {
    assert.ok(Number.isSafeInteger(entryID) && entryID > 0, `${entryID} is no entry id`)
    assert.ok(i === 0 || entryID > entryIDs[i - 1]!, `${entryID} comes behind ${entryIDs[i - 1]}`)
  }
}

const addScenarios: readonly Scenario<Outbox>[] = [
  [
    'an outbox that nobody has added to is empty, and to remove from it does nothing',
    async (outbox) => {
      assert.equal(await outbox.count(), 0)
      for (const lane of [0, 255]) {
        assert.deepEqual(await outbox.list(lane, { limit: 10 }), [])
        await outbox.remove(lane, [1, 2])
      }
      assert.equal(await outbox.count(), 0)
    },
  ],
  [
    'entries are listed oldest first, under the ids that add has given them',
    async (outbox) => {
      const entryIDs = [...(await outbox.add(0, bytesOf('a', 'b'))), ...(await outbox.add(0, bytesOf('c')))]
      assert.equal(entryIDs.length, 3)
      assertAscending(entryIDs)
      const listed = await outbox.list(0, { limit: 10 })
      assert.deepEqual(listed.map(({ entryID }) => entryID), entryIDs)
      assert.deepEqual(await textsIn(outbox, 0), ['a', 'b', 'c'])
    },
  ],
  [
    'an entry comes back as it was added, whatever its bytes are',
    async (outbox) => {
      const entries = [
        new Uint8Array(0),
        new Uint8Array(1),
        Uint8Array.from({ length: 256 }, (_, i) => i),
        Uint8Array.from({ length: 100_000 }, (_, i) => i * 7),
        Buffer.from('a part of something larger').subarray(2, 6),
      ]
      await outbox.add(3, entries)
      const listed = await outbox.list(3, { limit: 10 })
      assert.deepEqual(listed.map(({ bytes }) => Buffer.from(bytes).toString('hex')), entries.map((bytes) => Buffer.from(bytes).toString('hex')))
    },
  ],
  [
    'an add of nothing gives no ids and adds nothing',
    async (outbox) => {
      assert.deepEqual([...(await outbox.add(0, []))], [])
      assert.equal(await outbox.count(), 0)
      assert.deepEqual(await outbox.list(0, { limit: 10 }), [])
    },
  ],
  [
    'ids of a lane ascend in the order of the calls, also of calls that overlap',
    async (outbox) => {
      const calls = Array.from({ length: 50 }, (_, i) => started(() => outbox.add(i % 2, bytesOf(`${i} first`, `${i} second`))))
      const entryIDs = await Promise.all(calls)
      for (const lane of [0, 1]) {
        const ofLane = entryIDs.filter((_, i) => i % 2 === lane).flat()
        assertAscending(ofLane)
        assert.equal(ofLane.length, 50)
        const expected = Array.from({ length: 25 }, (_, i) => [`${2 * i + lane} first`, `${2 * i + lane} second`]).flat()
        assert.deepEqual(await textsIn(outbox, lane), expected)
      }
      assert.equal(await outbox.count(), 100)
    },
  ],
  [
    'lanes are queues of their own',
    async (outbox) => {
      for (const lane of [0, 1, 2, 127, 254, 255]) await outbox.add(lane, bytesOf(`lane ${lane}`))
      for (const lane of [0, 1, 2, 127, 254, 255]) assert.deepEqual(await textsIn(outbox, lane), [`lane ${lane}`])
      assert.deepEqual(await textsIn(outbox, 3), [])
      assert.equal(await outbox.count(), 6)
    },
  ],
  [
    'what the caller does to its arrays afterwards does not reach the outbox',
    async (outbox) => {
      const entries = bytesOf('one', 'two')
      const added = started(() => outbox.add(0, entries))
      entries[0]!.fill(0)
      entries.pop()
      const entryIDs = await added
      assert.equal(entryIDs.length, 2)
      assert.deepEqual(await textsIn(outbox, 0), ['one', 'two'])
    },
  ],
  [
    'a lane out of its bounds is a TypeError',
    async (outbox) => {
      for (const lane of [-1, 256, 1.5, Number.NaN]) {
        await assert.rejects(started(() => outbox.add(lane, bytesOf('a'))), TypeError, `add to lane ${lane}`)
        await assert.rejects(started(() => outbox.list(lane, { limit: 1 })), TypeError, `list of lane ${lane}`)
        await assert.rejects(started(() => outbox.remove(lane, [1])), TypeError, `remove from lane ${lane}`)
      }
      assert.equal(await outbox.count(), 0)
    },
  ],
]

const listScenarios: readonly Scenario<Outbox>[] = [
  [
    'pages that begin behind the last entry of the page before show every entry once, in order',
    async (outbox) => {
      await outbox.add(1, bytesOf(...texts(1, 250)))
      await outbox.add(0, bytesOf('before'))
      await outbox.add(2, bytesOf('behind'))
      for (const limit of [1, 7, 125, 249, 250, 251, 10_000]) {
        const seen: string[] = []
        let afterID: number | undefined
        for (;;) {
          const page = await outbox.list(1, afterID === undefined ? { limit } : { limit, afterID })
          assert.ok(page.length <= limit, 'a page holds no more than its limit')
          if (page.length === 0) break
          assert.equal(page.length, Math.min(limit, 250 - seen.length), 'a page is full while there are entries')
          seen.push(...page.map(({ bytes }) => Buffer.from(bytes).toString()))
          afterID = page.at(-1)?.entryID
        }
        assert.deepEqual(seen, texts(1, 250), `with a limit of ${limit}`)
      }
    },
  ],
  [
    'a listing goes on behind an entry that has been removed',
    async (outbox) => {
      const entryIDs = await outbox.add(0, bytesOf(...texts(1, 6)))
      await outbox.remove(0, entryIDs.slice(0, 3))
      const page = await outbox.list(0, { afterID: entryIDs[1]!, limit: 2 })
      assert.deepEqual(page.map(({ entryID }) => entryID), entryIDs.slice(3, 5))
      assert.deepEqual(await outbox.list(0, { afterID: entryIDs[5]!, limit: 10 }), [])
      assert.deepEqual(await outbox.list(0, { afterID: Number.MAX_SAFE_INTEGER, limit: 10 }), [])
    },
  ],
  [
    'a limit out of its bounds is a TypeError',
    async (outbox) => {
      await outbox.add(0, bytesOf('a'))
      for (const limit of [0, -1, 1.5, 10_001, Number.NaN]) {
        await assert.rejects(started(() => outbox.list(0, { limit })), TypeError, `limit ${limit}`)
      }
    },
  ],
]

const removeScenarios: readonly Scenario<Outbox>[] = [
  [
    'what is removed is gone, and the rest stays in order',
    async (outbox) => {
      const entryIDs = await outbox.add(0, bytesOf(...texts(1, 5)))
      await outbox.remove(0, [entryIDs[3]!, entryIDs[0]!])
      assert.deepEqual(await textsIn(outbox, 0), ['entry 2', 'entry 3', 'entry 5'])
      assert.equal(await outbox.count(), 3)
      await outbox.add(0, bytesOf('entry 6'))
      assert.deepEqual(await textsIn(outbox, 0), ['entry 2', 'entry 3', 'entry 5', 'entry 6'])
    },
  ],
  [
    'entries that are not there are passed over, and counted by nobody',
    async (outbox) => {
      const entryIDs = await outbox.add(0, bytesOf(...texts(1, 4)))
      const [first = 0, second = 0] = entryIDs
      await outbox.remove(0, [first, 0, -1, 1.5, Number.MAX_SAFE_INTEGER, first, second])
      await outbox.remove(0, [first, second])
      await Promise.all([[second], [entryIDs[2]!], [entryIDs[2]!]].map((ids) => started(() => outbox.remove(0, ids))))
      assert.deepEqual(await textsIn(outbox, 0), ['entry 4'])
      assert.equal(await outbox.count(), 1)
    },
  ],
  [
    'a removal concerns one lane',
    async (outbox) => {
      const entryIDs = await outbox.add(5, bytesOf('a', 'b'))
      for (const lane of [0, 4, 6, 255]) await outbox.remove(lane, entryIDs)
      assert.deepEqual(await textsIn(outbox, 5), ['a', 'b'])
      assert.equal(await outbox.count(), 2)
    },
  ],
  [
    'an id is not given again when its entry, or every entry, has been removed',
    async (outbox) => {
      const given = [...(await outbox.add(0, bytesOf('a', 'b')))]
      await outbox.remove(0, given.slice(1))
      given.push(...(await outbox.add(0, bytesOf('c'))))
      await outbox.remove(0, given)
      assert.equal(await outbox.count(), 0)
      given.push(...(await outbox.add(0, bytesOf('d'))))
      assertAscending(given)
      assert.deepEqual(await textsIn(outbox, 0), ['d'])
    },
  ],
  [
    'adds and removals that overlap are counted rightly once they have resolved',
    async (outbox) => {
      const old = await outbox.add(0, bytesOf(...texts(1, 40)))
      const calls: Promise<unknown>[] = []
      for (let i = 0; i < 20; i++) {
        calls.push(started(() => outbox.add(i % 3, bytesOf('new', 'newer'))))
        calls.push(started(() => outbox.remove(0, old.slice(i, i + 3))))
        calls.push(started(() => outbox.count()))
      }
      await Promise.all(calls)
      assert.equal(await outbox.count(), 40 - 22 + 40)
      let listedCount = 0
      for (const lane of [0, 1, 2]) listedCount += (await textsIn(outbox, lane)).length
      assert.equal(listedCount, 40 - 22 + 40)
    },
  ],
]

/** Made anew for every suite: what the first life was told, the second is measured by. */
function survivalScenarios(): readonly DurableScenario<Outbox>[] {
  return [
    {
      name: 'after a restart what is to be told is there, in order, and what was removed is not',
      before: async (outbox) => {
        const entryIDs = await outbox.add(0, bytesOf(...texts(1, 5)))
        await outbox.add(255, bytesOf('other'))
        await outbox.add(0, bytesOf('entry 6'))
        await outbox.remove(0, [entryIDs[0]!, entryIDs[2]!])
        await outbox.remove(1, entryIDs)
      },
      after: async (outbox) => {
        assert.equal(await outbox.count(), 5)
        assert.deepEqual(await textsIn(outbox, 0), ['entry 2', 'entry 4', 'entry 5', 'entry 6'])
        assert.deepEqual(await textsIn(outbox, 255), ['other'])
        const [first] = await outbox.list(0, { limit: 1 })
        await outbox.remove(0, [first!.entryID])
        await outbox.add(0, bytesOf('entry 7'))
        assert.deepEqual(await textsIn(outbox, 0), ['entry 4', 'entry 5', 'entry 6', 'entry 7'])
        assert.equal(await outbox.count(), 5)
      },
    },
    idsAfterRestart('after a restart ids go on behind the last one given', (entryIDs) => entryIDs.slice(0, 1)),
    idsAfterRestart('after a restart ids go on behind the last one given, when that has been removed', (entryIDs) => entryIDs.slice(-1)),
    idsAfterRestart('after a restart ids go on behind the last one given, when everything has been removed', (entryIDs) => entryIDs),
  ]
}

function idsAfterRestart(name: string, removed: (entryIDs: readonly number[]) => readonly number[]): DurableScenario<Outbox> {
  let given: number[] = []
  return {
    name,
    before: async (outbox) => {
      given = [...(await outbox.add(0, bytesOf('a', 'b'))), ...(await outbox.add(0, bytesOf('c')))]
      await outbox.remove(0, removed(given))
    },
    after: async (outbox) => {
      assertAscending([...given, ...(await outbox.add(0, bytesOf('d', 'e'))), ...(await outbox.add(0, bytesOf('f')))])
      assert.deepEqual((await textsIn(outbox, 0)).slice(-3), ['d', 'e', 'f'])
    },
  }
}
