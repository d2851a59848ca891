import { describe, expect, test, vi } from 'vitest'
import type { ChannelDirectory, PageQuery } from '../../src/contracts/channel-directory.ts'
import { MemberRole, personChannelID, type ChannelKey, type Member, type Page } from '../../src/model/channel.ts'
import type { MaybePromise } from '../../src/model/maybe-promise.ts'
import { Subscribers, type SubscribersOptions } from '../../src/services/subscribers.ts'
import { FakeClock } from '../../src/testing/fake-clock.ts'
import { deferred } from '../support.ts'

const TEAM: ChannelKey = { channelID: 'team', channelType: 2 }
const OTHER: ChannelKey = { channelID: 'other', channelType: 2 }

type Members = (key: ChannelKey, query?: PageQuery) => MaybePromise<Page<Member>>

const member = (uid: string): Member => ({ uid, role: MemberRole.Member })

/** A directory whose only method hands out `uids` in pages; a cursor is the place where the next page begins. */
function pagesOf(uids: () => readonly string[]): Members {
  return (_key, { cursor = '0', limit = 1_000 } = {}) => {
    const first = Number(cursor)
    const items = uids().slice(first, first + limit).map(member)
    return first + limit < uids().length ? { items, cursor: String(first + limit) } : { items }
  }
}

function setUp(members: Members, options: Partial<SubscribersOptions> = {}) {
  const clock = new FakeClock()
  const read = vi.fn(members)
  const subscribers = new Subscribers({
    directory: { members: read } as unknown as ChannelDirectory,
    clock,
    pageCount: 3,
    maxCachedMembers: 10,
    maxCachedChannels: 10,
    cacheMs: 5_000,
    limited: (page) => page,
    ...options,
  })
  const all = async (key: ChannelKey = TEAM): Promise<(readonly string[])[]> => {
    const pages: (readonly string[])[] = []
    await subscribers.each(key, (uids) => void pages.push(uids))
    return pages
  }
  return { subscribers, clock, read, all }
}

const later =
  (members: Members): Members =>
  (key, query) =>
    Promise.resolve().then(() => members(key, query))

describe.each([
  ['answers at once', (members: Members) => members],
  ['answers later', later],
])('a directory that %s', (_manner, wrap) => {
  test('is read every time for a channel with a long name, which is not to be kept in memory', async () => {
    const { all, read } = setUp(wrap(pagesOf(() => ['a'])))
    const long = { ...TEAM, channelID: 'x'.repeat(32_000) }
    for (const key of [TEAM, TEAM, long, long]) expect(await all(key)).toEqual([['a']])
    expect(read.mock.calls.map(([key]) => key)).toEqual([TEAM, long, long])
  })

  test('is read page by page, and the pages are handed over as they come', async () => {
    const { all, read } = setUp(wrap(pagesOf(() => ['a', 'b', 'c', 'd', 'e', 'f', 'g'])))
    expect(await all()).toEqual([['a', 'b', 'c'], ['d', 'e', 'f'], ['g']])
    expect(read.mock.calls.map(([, query]) => query)).toEqual([{ limit: 3 }, { limit: 3, cursor: '3' }, { limit: 3, cursor: '6' }])
  })

  test('is asked once while the list is fresh, and the kept list comes in pages again', async () => {
    const { all, read } = setUp(wrap(pagesOf(() => ['a', 'b', 'c', 'd'])))
    const first = await all()
    expect(await all()).toEqual(first)
    expect(read).toHaveBeenCalledTimes(2)
  })

  test('is asked again once the list is too old, not before', async () => {
    let uids = ['a']
    const { all, clock } = setUp(wrap(pagesOf(() => uids)))
    await all()
    uids = ['a', 'b']
    await clock.advance(4_999)
    expect(await all()).toEqual([['a']])
    await clock.advance(1)
    expect(await all()).toEqual([['a', 'b']])
  })

  test('is asked again after forget, and only for that channel', async () => {
    let uids = ['a']
    const { all, subscribers, read } = setUp(wrap(pagesOf(() => uids)))
    await all(TEAM)
    await all(OTHER)
    uids = ['b']
    subscribers.forget(TEAM)
    expect(await all(TEAM)).toEqual([['b']])
    expect(await all(OTHER)).toEqual([['a']])
    expect(read).toHaveBeenCalledTimes(3)
  })

  test('is asked every time when nothing may be kept', async () => {
    const { all, read } = setUp(wrap(pagesOf(() => ['a'])), { cacheMs: 0 })
    await all()
    await all()
    expect(read).toHaveBeenCalledTimes(2)
  })

  test('is asked every time for a list that is too large, which is still handed over whole', async () => {
    const { all, read } = setUp(wrap(pagesOf(() => ['a', 'b', 'c', 'd'])), { maxCachedMembers: 3 })
    expect((await all()).flat()).toEqual(['a', 'b', 'c', 'd'])
    expect((await all()).flat()).toEqual(['a', 'b', 'c', 'd'])
    expect(read).toHaveBeenCalledTimes(4)
  })

  test('is asked once for a list of exactly the largest size', async () => {
    const { all, read } = setUp(wrap(pagesOf(() => ['a', 'b', 'c'])), { maxCachedMembers: 3 })
    await all()
    await all()
    expect(read).toHaveBeenCalledTimes(1)
  })

  test('is not asked again for a channel without members, and nothing is handed over', async () => {
    const { all, read } = setUp(wrap(pagesOf(() => [])))
    expect(await all()).toEqual([])
    expect(await all()).toEqual([])
    expect(read).toHaveBeenCalledTimes(1)
  })

  test('that fails is a failure, and is asked again the next time', async () => {
    let fails = true
    const { all } = setUp(
      wrap((key, query) => {
        if (fails) throw new Error('down')
        return pagesOf(() => ['a'])(key, query)
      }),
    )
    await expect(all()).rejects.toThrow('down')
    fails = false
    expect(await all()).toEqual([['a']])
  })

  test('that fails on a later page keeps nothing of the earlier ones', async () => {
    let fails = true
    const { all } = setUp(
      wrap((key, query) => {
        if (fails && query?.cursor !== undefined) throw new Error('down')
        return pagesOf(() => ['a', 'b', 'c', 'd'])(key, query)
      }),
    )
    await expect(all()).rejects.toThrow('down')
    fails = false
    expect((await all()).flat()).toEqual(['a', 'b', 'c', 'd'])
  })
})

test('a directory that answers at once costs no promise', () => {
  const { subscribers } = setUp(pagesOf(() => ['a', 'b', 'c', 'd']))
  expect(subscribers.each(TEAM, () => undefined)).toBeUndefined()
  expect(subscribers.each(TEAM, () => undefined)).toBeUndefined()
})

test('a list whose reading began before a change is used once and not kept', async () => {
  const first = deferred<Page<Member>>()
  const answers = [first.promise, { items: [member('a'), member('b')] }]
  const { subscribers, all } = setUp(() => answers.shift()!)
  const reading = all()
  subscribers.forget(TEAM) // b has joined meanwhile
  first.resolve({ items: [member('a')] })
  expect(await reading).toEqual([['a']])
  expect(await all()).toEqual([['a', 'b']])
})

test('beyond the bound of channels the least recently used list is read again', async () => {
  const { all, read } = setUp(pagesOf(() => ['a']), { maxCachedChannels: 1 })
  await all(TEAM)
  await all(OTHER)
  await all(TEAM)
  expect(read).toHaveBeenCalledTimes(3)
})

describe('a person channel', () => {
  test('is for both of its ends, and nobody is asked', async () => {
    const { all, read } = setUp(pagesOf(() => ['wrong']))
    const pages = await all({ channelID: personChannelID('ann', 'bob'), channelType: 1 })
    expect(pages.flat().toSorted()).toEqual(['ann', 'bob'])
    expect(read).not.toHaveBeenCalled()
  })

  test("with oneself is for oneself, once", async () => {
    const { all } = setUp(pagesOf(() => ['wrong']))
    expect(await all({ channelID: 'ann@ann', channelType: 1 })).toEqual([['ann']])
  })

  test('whose id is no pair is for nobody', async () => {
    const { all, read } = setUp(pagesOf(() => ['wrong']))
    expect(await all({ channelID: 'ann', channelType: 1 })).toEqual([])
    expect(read).not.toHaveBeenCalled()
  })
})
