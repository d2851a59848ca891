import { ChannelType, memoryStorage, personChannelID, type ChannelKey } from 'imengine'
import { describe, expect, test } from 'vitest'
import { deferred, stage, TEAM, type Stage } from '../support.ts'

const withBob = { channelID: 'bob', channelType: ChannelType.Person }

async function say({ engine }: Stage, key: ChannelKey, fromUID: string, ...texts: readonly string[]): Promise<string[]> {
  const ids: string[] = []
  for (const text of texts) ids.push((await engine.messages.send({ ...key, fromUID, payload: Buffer.from(text) })).messageID)
  return ids
}

const numbers = (first: number, last: number): string[] => Array.from({ length: last - first + 1 }, (_, index) => String(first + index))

describe('list', () => {
  test('has groups and people, the latest message first, named as the user names them', async () => {
    const made = await stage()
    await say(made, TEAM, 'ann', 'one', 'two')
    await made.clock.advance(1_000)
    await say(made, withBob, 'ann', 'psst')
    const { items, cursor } = await made.engine.conversations.list('bob')
    expect(cursor).toBeUndefined()
    expect(items.map(({ channelID, channelType, unread, lastSeq }) => ({ channelID, channelType, unread, lastSeq }))).toEqual([
      { channelID: 'ann', channelType: ChannelType.Person, unread: 1, lastSeq: 1 },
      { ...TEAM, unread: 2, lastSeq: 2 },
    ])
    expect(items[0]?.key).toEqual({ channelID: personChannelID('ann', 'bob'), channelType: ChannelType.Person })
    expect(items.map(({ lastMessage }) => Buffer.from(lastMessage!.payload).toString())).toEqual(['psst', 'two'])
    expect((await made.engine.conversations.list('ann')).items.map(({ channelID, unread }) => [channelID, unread])).toEqual([['bob', 0], ['team', 0]])
  })

  test('leaves out channels without messages, channels left, and kinds that keep no conversations', async () => {
    const made = await stage()
    const live = { channelID: 'stream', channelType: ChannelType.Live }
    await made.engine.channels.create(live, { subscribers: ['bob'] })
    await made.engine.channels.create({ channelID: 'silent', channelType: ChannelType.Group }, { subscribers: ['bob'] })
    await say(made, live, 'ann', 'hi')
    await say(made, TEAM, 'ann', 'hi')
    const ids = async (): Promise<string[]> => (await made.engine.conversations.list('bob')).items.map(({ channelID }) => channelID)
    expect(await ids()).toEqual(['team'])
    await made.engine.channels.subscribers.remove(TEAM, ['bob'])
    expect(await ids()).toEqual([])
  })

  test('pages run through all of them, each once', async () => {
    const made = await stage()
    for (let index = 0; index < 23; index++) {
      await say(made, { channelID: `peer-${index % 23}`, channelType: ChannelType.Person }, 'ann', 'hi')
      if (index % 3 === 0) await made.clock.advance(10) // some have the same time
    }
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const page = await made.engine.conversations.list('ann', { limit: 5, ...(cursor === undefined ? {} : { cursor }) })
      seen.push(...page.items.map(({ channelID }) => channelID))
      cursor = page.cursor
    } while (cursor !== undefined)
    expect(seen).toHaveLength(23)
    expect(new Set(seen).size).toBe(23)
    expect(seen[0]).toMatch(/^peer-2[12]$/)
  })

  test('shows the newest message that the user has not deleted', async () => {
    const made = await stage()
    const ids = await say(made, TEAM, 'ann', 'one', 'two')
    await made.engine.messages.deleteFor('bob', [ids[1]!])
    const [bobs, cats] = [await made.engine.conversations.list('bob'), await made.engine.conversations.list('cat')]
    expect(Buffer.from(bobs.items[0]!.lastMessage!.payload).toString()).toBe('one')
    expect(Buffer.from(cats.items[0]!.lastMessage!.payload).toString()).toBe('two')
  })

  test.each([{ limit: 0 }, { limit: 501 }, { cursor: 'x' }, { cursor: '' }])('refuses %j', async (query) => {
    const made = await stage()
    await expect(made.engine.conversations.list('bob', query)).rejects.toThrow(TypeError)
  })
})

test('a number in the place of the options of markRead is refused, and marks nothing', async () => {
  const made = await stage()
  await say(made, TEAM, 'ann', 'one', 'two')
  await expect(made.engine.conversations.markRead('bob', TEAM, 1 as never)).rejects.toThrow(/options must be an object, got 1/)
  expect((await made.engine.conversations.list('bob')).items[0]).toMatchObject({ unread: 2 })
})

describe('unread', () => {
  test('joined at 50, read to 60, deleted to 70, removed to 80: the formula', async () => {
    const storage = memoryStorage()
    const made = await stage({ storage })
    await say(made, TEAM, 'ann', ...numbers(1, 49))
    await made.engine.channels.subscribers.add(TEAM, ['dan'])
    const unread = (): Promise<number> => made.engine.conversations.unread('dan', TEAM)
    expect(await unread()).toBe(0)
    await say(made, TEAM, 'ann', ...numbers(50, 100))
    expect(await unread()).toBe(51)
    await made.engine.conversations.markRead('dan', TEAM, { seq: 60 })
    expect(await unread()).toBe(40)
    await storage.cursors.put([{ uid: 'dan', key: TEAM, deletedToSeq: 70 }])
    expect(await unread()).toBe(30)
    await made.engine.messages.truncate(TEAM, 81)
    expect(await unread()).toBe(20)
  })

  test('own messages never count, and whoever writes has read what is above', async () => {
    const made = await stage()
    const bob = await made.connect('bob')
    await say(made, TEAM, 'ann', '1', '2')
    await bob.client.send({ ...TEAM, payload: '3' })
    expect(await made.engine.conversations.unread('bob', TEAM)).toBe(0)
    await say(made, TEAM, 'ann', '4')
    expect(await made.engine.conversations.unread('bob', TEAM)).toBe(1)
    expect(await made.engine.conversations.unread('ann', TEAM)).toBe(0)
  })

  test('of all conversations is their sum', async () => {
    const made = await stage()
    await say(made, TEAM, 'ann', '1', '2')
    await say(made, withBob, 'ann', '1')
    await say(made, withBob, 'cat', '1')
    expect(await made.engine.conversations.unread('bob')).toBe(4)
  })

  test('goes down with a recall, and with a message the user deletes; not twice for both', async () => {
    const made = await stage()
    const ids = await say(made, TEAM, 'ann', '1', '2', '3', '4')
    await made.engine.messages.recall(ids[1]!)
    expect(await made.engine.conversations.unread('bob', TEAM)).toBe(3)
    await made.engine.messages.deleteFor('bob', [ids[1]!, ids[2]!])
    expect(await made.engine.conversations.unread('bob', TEAM)).toBe(2)
    expect(await made.engine.conversations.unread('cat', TEAM)).toBe(3)
  })

  test('markRead goes forwards only, and no further than the last message', async () => {
    const made = await stage()
    await say(made, TEAM, 'ann', ...numbers(1, 10))
    await made.engine.conversations.markRead('bob', TEAM, { seq: 8 })
    await made.engine.conversations.markRead('bob', TEAM, { seq: 3 })
    expect(await made.engine.conversations.unread('bob', TEAM)).toBe(2)
    await made.engine.conversations.markRead('bob', TEAM, { seq: 500 })
    await say(made, TEAM, 'ann', '11')
    expect(await made.engine.conversations.unread('bob', TEAM)).toBe(1)
    await made.engine.conversations.markRead('bob', TEAM)
    expect(await made.engine.conversations.unread('bob', TEAM)).toBe(0)
  })

  test('setUnread is exact, forwards and backwards, and an own message sets it aside again', async () => {
    const made = await stage()
    const bob = await made.connect('bob')
    const ids = await say(made, TEAM, 'ann', ...numbers(1, 9))
    await bob.client.send({ ...TEAM, payload: '10' })
    const unread = (): Promise<number> => made.engine.conversations.unread('bob', TEAM)
    for (const count of [3, 1, 0, 7]) {
      await made.engine.conversations.setUnread('bob', TEAM, count)
      expect(await unread()).toBe(count)
    }
    await made.engine.messages.recall(ids[8]!)
    await made.engine.messages.recall(ids[6]!)
    await made.engine.conversations.setUnread('bob', TEAM, 3)
    expect(await unread()).toBe(3)
    await made.engine.conversations.setUnread('bob', TEAM, 5_000)
    expect(await unread()).toBe(8)
    await bob.client.send({ ...TEAM, payload: '11' })
    expect(await unread()).toBe(0)
  })
})

describe('delete', () => {
  test('takes the conversation away from this user, with its history, until there is a new message', async () => {
    const made = await stage()
    await say(made, TEAM, 'ann', '1', '2')
    await made.engine.conversations.delete('bob', TEAM)
    const ids = async (uid: string): Promise<string[]> => (await made.engine.conversations.list(uid)).items.map(({ channelID }) => channelID)
    expect([await ids('bob'), await ids('cat')]).toEqual([[], ['team']])
    await say(made, TEAM, 'ann', '3')
    expect(await ids('bob')).toEqual(['team'])
    expect(await made.engine.conversations.unread('bob', TEAM)).toBe(1)
    const { messages } = await made.engine.messages.sync(TEAM, { forUID: 'bob' })
    expect(messages.map(({ messageSeq }) => messageSeq)).toEqual([3])
  })

  test('is not undone by a replay', async () => {
    const made = await stage()
    await say(made, TEAM, 'ann', '1', '2')
    await made.engine.conversations.delete('bob', TEAM)
    await say(made, TEAM, 'ann', '3')
    const bob = await made.connect('bob')
    await made.clock.settle()
    expect(bob.client.messages.map(({ text }) => text)).toEqual(['3'])
  })

  test('of a person channel goes by the other one’s uid, or by the key', async () => {
    const made = await stage()
    await say(made, withBob, 'ann', '1')
    await made.engine.conversations.delete('ann', withBob)
    expect((await made.engine.conversations.list('ann')).items).toEqual([])
    await made.engine.conversations.delete('bob', { channelID: personChannelID('ann', 'bob'), channelType: ChannelType.Person })
    expect((await made.engine.conversations.list('bob')).items).toEqual([])
  })
})

test('coming back to a group begins anew', async () => {
  const made = await stage()
  await say(made, TEAM, 'ann', '1', '2')
  await made.engine.channels.subscribers.remove(TEAM, ['bob'])
  await say(made, TEAM, 'ann', '3')
  await made.engine.channels.subscribers.add(TEAM, ['bob'])
  expect(await made.engine.conversations.unread('bob', TEAM)).toBe(0)
  await say(made, TEAM, 'ann', '4')
  expect(await made.engine.conversations.unread('bob', TEAM)).toBe(1)
})

test('creating a channel again keeps where its members stand', async () => {
  const made = await stage()
  await say(made, TEAM, 'ann', '1', '2')
  await made.engine.channels.create(TEAM, { subscribers: ['bob', { uid: 'cat', role: 2 }, 'dan'] })
  const unread = await Promise.all(['bob', 'cat', 'dan'].map((uid) => made.engine.conversations.unread(uid, TEAM)))
  expect(unread).toEqual([2, 2, 0])
})

test('a person channel that was given members as well is one conversation, and is replayed once', async () => {
  const made = await stage()
  await made.engine.channels.create({ channelID: personChannelID('ann', 'bob'), channelType: ChannelType.Person }, { subscribers: ['ann', 'bob'] })
  await say(made, withBob, 'ann', '1', '2')
  expect((await made.engine.conversations.list('bob')).items).toHaveLength(1)
  expect(await made.engine.conversations.unread('bob')).toBe(2)
  const bob = await made.connect('bob')
  await made.clock.settle()
  expect(bob.client.messages.map(({ text }) => text)).toEqual(['1', '2'])
})

test('two calls that add the same member at once make one beginning: nothing said in between is passed over', async () => {
  const storage = memoryStorage()
  const member = storage.channels.member.bind(storage.channels)
  const { promise, resolve } = deferred()
  storage.channels.member = async (key, uid) => {
    if (uid === 'slow') await promise
    return member(key, uid)
  }
  const made = await stage({ storage })
  const both = [
    made.engine.channels.create(TEAM, { subscribers: ['dan', 'slow'] }),
    made.engine.channels.subscribers.add(TEAM, ['dan']).then(() => say(made, TEAM, 'ann', 'important')),
  ]
  resolve()
  await Promise.all(both)
  expect(await made.engine.conversations.unread('dan', TEAM)).toBe(1)
})

test('removing a channel that fails leaves its members where they stood', async () => {
  const storage = memoryStorage()
  const made = await stage({ storage })
  await say(made, TEAM, 'ann', 'old')
  await made.engine.channels.subscribers.add(TEAM, ['dan'])
  storage.channels.removeMembers = () => {
    throw new Error('disk')
  }
  await expect(made.engine.channels.delete(TEAM)).rejects.toThrow('disk')
  expect(await made.engine.conversations.unread('dan', TEAM)).toBe(0)
})
