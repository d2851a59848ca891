import assert from 'node:assert/strict'
import type { ChannelDirectory, PageQuery } from '../../contracts/channel-directory.ts'
import { MemberRole, type Page } from '../../model/channel.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import { started, type Scenario } from './contract-case.ts'
import { channel, ROOM } from './samples.ts'

/** One of the four listings, reduced to names: how to fill it, empty it and read a page. */
interface Listing {
  readonly name: string
  /** a directory need not have it */
  isAbsent?(directory: ChannelDirectory): boolean
  add(directory: ChannelDirectory, names: readonly string[]): MaybePromise<void>
  remove(directory: ChannelDirectory, names: readonly string[]): MaybePromise<void>
  page(directory: ChannelDirectory, query?: PageQuery): Promise<Page<string>>
}

const LISTINGS: readonly Listing[] = [
  {
    name: 'members',
    add: (directory, uids) => directory.putMembers(ROOM, uids.map((uid) => ({ uid, role: MemberRole.Member }))),
    remove: (directory, uids) => directory.removeMembers(ROOM, uids),
    page: async (directory, query) => {
      const page = await directory.members(ROOM, query)
      return { ...page, items: page.items.map((member) => member.uid) }
    },
  },
  {
    name: 'listed',
    add: (directory, uids) => directory.addToList(ROOM, 'allow', uids),
    remove: (directory, uids) => directory.removeFromList(ROOM, 'allow', uids),
    page: async (directory, query) => await directory.listed(ROOM, 'allow', query),
  },
  {
    name: 'channelsOf',
    add: async (directory, ids) => {
      for (const id of ids) await directory.putMembers(channel(id), [{ uid: 'ann', role: MemberRole.Member }])
    },
    remove: async (directory, ids) => {
      for (const id of ids) await directory.removeMembers(channel(id), ['ann'])
    },
    page: async (directory, query) => {
      const page = await directory.channelsOf('ann', query)
      return { ...page, items: page.items.map((key) => key.channelID) }
    },
  },
  {
    name: 'systemUIDs',
    isAbsent: (directory) => directory.systemUIDs === undefined,
    add: (directory, uids) => setSystem(directory, uids, true),
    remove: (directory, uids) => setSystem(directory, uids, false),
    page: async (directory, query) => (await directory.systemUIDs?.(query)) ?? { items: [] },
  },
]

async function setSystem(directory: ChannelDirectory, uids: readonly string[], system: boolean): Promise<void> {
  await Promise.all(uids.map((uid) => started(() => directory.setUserFlags(uid, { system }))))
}

/** Names first .. last in an order that is neither the alphabet's nor the reverse. */
function names(first: number, last: number): string[] {
  return Array.from({ length: last - first + 1 }, (_, i) => `n${((first + i) * 7919) % 100_003}-${first + i}`)
}

/** Read every page; `between` runs after each but the last with what has been seen and what page came. */
async function readAll(
  read: (query: PageQuery) => Promise<Page<string>>,
  limit: number,
  between: (seen: readonly string[], pageNumber: number) => Promise<void> = async () => {},
): Promise<string[]> {
  const seen: string[] = []
  let cursor: string | undefined
  for (let pageNumber = 1; ; pageNumber++) {
    const page = await read(cursor === undefined ? { limit } : { limit, cursor })
    assert.ok(page.items.length <= limit, 'a page holds no more than its limit')
    seen.push(...page.items)
    cursor = page.cursor
    if (cursor === undefined) return seen
    assert.ok(pageNumber < 10_000, 'a listing must come to an end')
    await between(seen, pageNumber)
  }
}

function scenariosOf(listing: Listing): Scenario<ChannelDirectory>[] {
  return pagesOf(listing).map(([name, check]) => [name, async (directory) => (listing.isAbsent?.(directory) === true ? undefined : check(directory))])
}

function pagesOf({ name, add, remove, page }: Listing): Scenario<ChannelDirectory>[] {
  return [
    [
      `${name}: whatever the page size, everything is on exactly one page`,
      async (directory) => {
        const all = names(1, 250)
        await add(directory, all)
        for (const limit of [1, 7, 125, 249, 250, 251, 10_000]) {
          const seen = await readAll((query) => page(directory, query), limit)
          assert.deepEqual([...seen].sort(), [...all].sort(), `with a limit of ${limit}`)
        }
      },
    ],
    [
      `${name}: a page that holds the rest has no cursor`,
      async (directory) => {
        await add(directory, names(1, 20))
        const first = await page(directory, { limit: 10 })
        assert.equal(first.items.length, 10)
        assert.ok(first.cursor !== undefined)
        const second = await page(directory, { limit: 10, cursor: first.cursor })
        assert.equal(second.items.length, 10)
        assert.equal(second.cursor, undefined)
        assert.equal((await page(directory, { limit: 20 })).cursor, undefined)
      },
    ],
    [
      `${name}: who stays throughout is on exactly one page, while others come and go`,
      async (directory) => {
        const staying = names(1, 60)
        const leaving = names(1001, 1060)
        await add(directory, staying.flatMap((stays, i) => [stays, leaving[i] ?? '']))
        const seen = await readAll(
          (query) => page(directory, query),
          10,
          async (_seen, pageNumber) => {
            await remove(directory, leaving.splice(0, 3))
            await remove(directory, leaving.splice(-3))
            if (pageNumber <= 5) await add(directory, names(2000 + 10 * pageNumber, 2005 + 10 * pageNumber))
          },
        )
        const seenStaying = seen.filter((item) => staying.includes(item))
        assert.deepEqual([...seenStaying].sort(), [...staying].sort())
        assert.equal(new Set(seen).size, seen.length, 'nothing is shown twice')
      },
    ],
    [
      `${name}: a listing goes on after the very entry it stopped at has been removed`,
      async (directory) => {
        const all = names(1, 30)
        await add(directory, all)
        const removed: string[] = []
        const seen = await readAll(
          (query) => page(directory, query),
          4,
          async (sofar) => {
            const last = sofar.at(-1) ?? ''
            removed.push(last)
            await remove(directory, [last])
          },
        )
        assert.deepEqual([...seen].sort(), [...all].sort())
        const left = await readAll((query) => page(directory, query), 100)
        assert.deepEqual([...left].sort(), all.filter((item) => !removed.includes(item)).sort())
      },
    ],
    [
      `${name}: a listing comes to its end when everything has been removed meanwhile`,
      async (directory) => {
        const all = names(1, 30)
        await add(directory, all)
        const seen = await readAll((query) => page(directory, query), 10, async () => await remove(directory, all))
        assert.equal(seen.length, 10)
      },
    ],
    [
      `${name}: what is written again while it is listed is not shown twice`,
      async (directory) => {
        const all = names(1, 30)
        await add(directory, all)
        const seen = await readAll((query) => page(directory, query), 7, async (sofar) => await add(directory, [...sofar]))
        assert.deepEqual([...seen].sort(), [...all].sort())
      },
    ],
    [
      `${name}: a limit out of its bounds is a TypeError`,
      async (directory) => {
        await add(directory, names(1, 3))
        for (const limit of [0, -1, 1.5, 10_001, Number.NaN]) {
          await assert.rejects(started(() => page(directory, { limit })), TypeError, `limit ${limit}`)
        }
      },
    ],
  ]
}

/** The promises of `members`, `listed`, `channelsOf` and `systemUIDs`, which are the same. */
export const pagingScenarios: readonly Scenario<ChannelDirectory>[] = [
  ...LISTINGS.flatMap(scenariosOf),
  [
    'members: a page without a limit holds 1000',
    async (directory) => {
      await directory.putMembers(ROOM, names(1, 1500).map((uid) => ({ uid, role: MemberRole.Member })))
      const first = await directory.members(ROOM)
      assert.equal(first.items.length, 1000)
      const second = await directory.members(ROOM, { cursor: first.cursor ?? '' })
      assert.equal(second.items.length, 500)
      assert.equal(second.cursor, undefined)
    },
  ],
]
