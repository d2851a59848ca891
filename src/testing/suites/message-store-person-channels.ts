import assert from 'node:assert/strict'
import type { MessageStore } from '../../contracts/message-store.ts'
import { ChannelType, commandKey, personChannelID, type ChannelKey } from '../../model/channel.ts'
import { started, type DurableScenario, type Scenario } from './contract-case.ts'
import { append, batchOf, unstorable } from './message-store-append.ts'
import { channel, HOSTILE_IDS, sampleMessage, sampleMessages } from './samples.ts'

function between(a: string, b: string): ChannelKey {
  return channel(personChannelID(a, b), ChannelType.Person)
}

/** All person channels of a user, read in pages of `limit`; `afterPage` runs after each but the last. */
async function listed(
  store: MessageStore,
  uid: string,
  limit = 10_000,
  afterPage: (pageNumber: number) => Promise<void> = async () => {},
): Promise<string[]> {
  const ids: string[] = []
  let cursor: string | undefined
  for (let pageNumber = 1; ; pageNumber++) {
    const page = await store.personChannelsOf(uid, cursor === undefined ? { limit } : { limit, cursor })
    assert.ok(page.items.length <= limit, 'a page holds no more than its limit')
    for (const { channelID, channelType } of page.items) {
      assert.equal(channelType, ChannelType.Person)
      ids.push(channelID)
    }
    cursor = page.cursor
    if (cursor === undefined) return ids
    assert.ok(pageNumber < 10_000, 'a listing must come to an end')
    await afterPage(pageNumber)
  }
}

async function assertListed(store: MessageStore, uid: string, keys: readonly ChannelKey[]): Promise<void> {
  const ids = keys.map((key) => key.channelID)
  assert.deepEqual((await listed(store, uid)).sort(), ids.sort(), `the channels of ${JSON.stringify(uid.slice(0, 40))}`)
}

/** Which person channels a user has. */
export const personChannelScenarios: readonly Scenario<MessageStore>[] = [
  [
    'somebody who has never written or been written to has no person channels',
    async (store) => {
      await append(store, between('ann', 'bob'), [sampleMessage(1)])
      assert.deepEqual(await store.personChannelsOf('cleo'), { items: [] })
      assert.deepEqual(await store.personChannelsOf(''), { items: [] })
    },
  ],
  [
    'a person channel is listed for both ends from its first message on, and once',
    async (store) => {
      const [first, second] = [between('ann', 'bob'), between('cleo', 'ann')]
      await append(store, first, [sampleMessage(1)])
      await assertListed(store, 'ann', [first])
      await assertListed(store, 'bob', [first])
      await store.append([batchOf(first, sampleMessages(2, 3)), batchOf(second, sampleMessages(4, 5)), batchOf(second, [sampleMessage(6)])])
      await append(store, first, [sampleMessage(1), sampleMessage(7, { fromUID: 'bob' })])
      await assertListed(store, 'ann', [first, second])
      await assertListed(store, 'bob', [first])
      await assertListed(store, 'cleo', [second])
    },
  ],
  [
    'a channel with oneself is listed once',
    async (store) => {
      await append(store, between('ann', 'ann'), sampleMessages(1, 2))
      await append(store, between('ann', 'bob'), [sampleMessage(3)])
      await assertListed(store, 'ann', [between('ann', 'ann'), between('ann', 'bob')])
    },
  ],
  [
    'a pair that has only sent each other commands is listed, and its command channel is not',
    async (store) => {
      await append(store, commandKey(between('ann', 'bob')), [sampleMessage(1)])
      await assertListed(store, 'ann', [between('ann', 'bob')])
      await assertListed(store, 'bob', [between('ann', 'bob')])
      await append(store, between('ann', 'bob'), [sampleMessage(2)])
      await assertListed(store, 'ann', [between('ann', 'bob')])
    },
  ],
  [
    'other channels are listed for nobody, nor are person channels whose id is not a pair',
    async (store) => {
      const notPairs = ['ann', '@ann', 'ann@', '@', 'ann@bob@cleo', '@@'].map((id) => channel(id, ChannelType.Person))
      const others = [ChannelType.Group, ChannelType.Community].map((type) => channel(personChannelID('ann', 'bob'), type))
      await store.append([...notPairs, ...others].map((key, i) => batchOf(key, [sampleMessage(i + 1)])))
      for (const uid of ['ann', 'bob', 'cleo', '', '@', 'ann@bob', 'bob@cleo', personChannelID('ann', 'bob')]) {
        await assertListed(store, uid, [])
      }
    },
  ],
  [
    'a person channel of which everything has been removed stays listed, once, also when it goes on',
    async (store) => {
      const key = between('ann', 'bob')
      await append(store, key, sampleMessages(1, 3))
      await store.truncate(key, 1000)
      await assertListed(store, 'ann', [key])
      await append(store, key, [sampleMessage(4)])
      await assertListed(store, 'ann', [key])
      await assertListed(store, 'bob', [key])
    },
  ],
  [
    'what was not written is not listed: a call that fails, a truncate or a question about a channel',
    async (store) => {
      const failing = { key: between('ann', 'bob'), messages: [sampleMessage(2), unstorable(3)] }
      await assert.rejects(started(() => store.append([batchOf(between('ann', 'cleo'), [sampleMessage(1)]), failing])))
      await store.truncate(between('ann', 'dan'), 5)
      await store.summaries('ann', [between('ann', 'eve')])
      for (const uid of ['ann', 'bob', 'cleo', 'dan', 'eve']) await assertListed(store, uid, [])
      await append(store, between('ann', 'bob'), [sampleMessage(2)])
      await assertListed(store, 'ann', [between('ann', 'bob')])
    },
  ],
  [
    'users whatever their uids are kept apart',
    async (store) => {
      const uids = [...HOSTILE_IDS.filter((id) => !id.includes('@')), 'a', 'an', 'anna', '1', '11']
      await store.append(uids.map((uid, i) => batchOf(between('ann', uid), [sampleMessage(i + 1)])))
      for (const uid of uids) await assertListed(store, uid, [between('ann', uid)])
      await assertListed(store, 'ann', uids.map((uid) => between('ann', uid)))
      await assertListed(store, 'toString', [])
    },
  ],
  [
    'every channel is on exactly one page, of whatever length',
    async (store) => {
      const keys = Array.from({ length: 25 }, (_, i) => between('ann', `n${(i * 7919) % 1009}-${i}`))
      for (const [i, key] of keys.entries()) await append(store, key, [sampleMessage(i + 1)])
      const expected = keys.map((key) => key.channelID).sort()
      for (const limit of [1, 2, 24, 25, 26]) assert.deepEqual((await listed(store, 'ann', limit)).sort(), expected, `limit ${limit}`)
      const full = await store.personChannelsOf('ann', { limit: 25 })
      assert.equal(full.cursor, undefined, 'the last page has no cursor')
    },
  ],
  [
    'a channel that is there is on exactly one page while others come, and while it is written to',
    async (store) => {
      const staying = Array.from({ length: 20 }, (_, i) => between('ann', `n${(i * 7919) % 1009}`))
      const written = Array.from({ length: 40 }, (_, i) => staying.slice((i * 7) % 19, ((i * 7) % 19) + 2))
      await store.append(staying.map((key, i) => batchOf(key, [sampleMessage(i + 1)])))
      let n = 100
      const seen = await listed(store, 'ann', 1, async (pageNumber) => {
        if (pageNumber <= 10) await append(store, between('ann', `new${(pageNumber * 13) % 11}`), [sampleMessage(n++)])
        for (const key of written[pageNumber] ?? []) await append(store, key, [sampleMessage(n++)])
      })
      const ids = staying.map((key) => key.channelID)
      assert.deepEqual(seen.filter((id) => ids.includes(id)).sort(), ids.sort())
      assert.equal(new Set(seen).size, seen.length, 'nothing is shown twice')
    },
  ],
  [
    'a page without a limit holds 1000',
    async (store) => {
      const keys = Array.from({ length: 1100 }, (_, i) => between('ann', `u${i}`))
      await store.append(keys.map((key, i) => batchOf(key, [sampleMessage(i + 1)])))
      const first = await store.personChannelsOf('ann')
      assert.equal(first.items.length, 1000)
      const second = await store.personChannelsOf('ann', { cursor: first.cursor ?? '' })
      assert.equal(second.items.length, 100)
      assert.equal(second.cursor, undefined)
    },
  ],
  [
    'a limit out of its bounds is a TypeError, for somebody without channels too',
    async (store) => {
      await append(store, between('ann', 'bob'), [sampleMessage(1)])
      for (const limit of [0, -1, 1.5, 10_001, Number.NaN]) {
        for (const uid of ['ann', 'nobody']) {
          await assert.rejects(started(() => store.personChannelsOf(uid, { limit })), TypeError, `limit ${limit}`)
        }
      }
    },
  ],
  [
    'first messages that overlap are all listed once they have resolved',
    async (store) => {
      const keys = Array.from({ length: 30 }, (_, i) => between('ann', `u${i % 15}`))
      await Promise.all(keys.map((key, i) => started(() => append(store, key, [sampleMessage(i + 1)]))))
      await assertListed(store, 'ann', keys.slice(0, 15))
      await assertListed(store, 'u7', keys.slice(7, 8))
    },
  ],
]

export const personChannelSurvivalScenarios: readonly DurableScenario<MessageStore>[] = [
  {
    name: 'after a restart person channels are listed, also those that have been emptied, and new ones join them',
    before: async (store) => {
      const keys = ['bob', 'cleo', 'ann', 'dan'].map((uid) => between('ann', uid))
      await store.append(keys.map((key, i) => batchOf(key, [sampleMessage(i + 1)])))
      await store.truncate(between('ann', 'cleo'), 1000)
    },
    after: async (store) => {
      const keys = ['bob', 'cleo', 'ann', 'dan'].map((uid) => between('ann', uid))
      await assertListed(store, 'ann', keys)
      await assertListed(store, 'cleo', [between('ann', 'cleo')])
      await append(store, between('ann', 'cleo'), [sampleMessage(8)])
      await append(store, between('ann', 'eve'), [sampleMessage(9)])
      assert.deepEqual((await listed(store, 'ann', 1)).sort(), [...keys, between('ann', 'eve')].map((key) => key.channelID).sort())
    },
  },
]
