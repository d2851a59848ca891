import { describe, expect, test } from 'vitest'
import { ChannelType, MemberRole, memoryStorage, ReasonCode, type ChannelKey, type Page } from 'imengine'
import { stage, TEAM, type Stage } from '../support.ts'

const HALL: ChannelKey = { channelID: 'hall', channelType: ChannelType.Group }
const hi = { ...TEAM, fromUID: 'system', payload: Buffer.from('hi') }
const uidsOf = (count: number): string[] => Array.from({ length: count }, (_, index) => `u${index}`)

async function all<T>(list: (query: { limit: number; cursor?: string }) => Promise<Page<T>>, limit = 1_000): Promise<{ items: T[]; most: number }> {
  const items: T[] = []
  let most = 0
  let cursor: string | undefined
  do {
    const page = await list({ limit, ...(cursor === undefined ? {} : { cursor }) })
    most = Math.max(most, page.items.length)
    items.push(...page.items)
    cursor = page.cursor
  } while (cursor !== undefined)
  return { items, most }
}

describe('flags', () => {
  test('that are changed by several calls at once are all kept', async () => {
    const storage = memoryStorage()
    const channel = storage.channels.channel.bind(storage.channels)
    storage.channels.channel = ((key: ChannelKey) => Promise.resolve().then(() => channel(key)))
    const { engine } = await stage({ storage })
    await Promise.all([engine.channels.create({ ...TEAM, ban: true }), engine.channels.update(TEAM, { sendBan: true }), engine.channels.setMode(TEAM, 'muted'), engine.channels.disband(TEAM)])
    expect(await engine.channels.get(TEAM)).toMatchObject({ ban: true, sendBan: true, mode: 'muted', disband: true })
  })

  test('of a channel that does not exist cannot be changed: IM_CHANNEL_NOT_FOUND, and none is made', async () => {
    const { engine } = await stage()
    for (const call of [() => engine.channels.update(HALL, {}), () => engine.channels.disband(HALL), () => engine.channels.setMode(HALL, 'normal')]) {
      await expect(call()).rejects.toMatchObject({ code: 'IM_CHANNEL_NOT_FOUND', context: HALL })
    }
    expect(await engine.channels.get(HALL)).toBeUndefined()
  })
})

describe('members', () => {
  test('that are set are all there are, and who stays keeps role, mute and place', async () => {
    const { engine } = await stage()
    const { subscribers } = engine.channels
    await subscribers.setRole(TEAM, 'bob', MemberRole.Admin)
    await engine.channels.mute(TEAM, 'bob', { untilMs: 5 })
    await engine.messages.send(hi)
    await subscribers.set(TEAM, ['bob', 'dan'])
    expect((await subscribers.list(TEAM)).items).toEqual([{ uid: 'bob', role: MemberRole.Admin, mutedUntilMs: 5 }, { uid: 'dan', role: MemberRole.Member }])
    expect(await engine.conversations.unread('bob', TEAM)).toBe(1)
    expect(await engine.conversations.unread('dan', TEAM)).toBe(0)
    await engine.channels.create(TEAM, { subscribers: ['eve'], reset: true })
    expect((await subscribers.list(TEAM)).items.map(({ uid }) => uid)).toEqual(['eve'])
    await subscribers.clear(TEAM)
    expect(await subscribers.has(TEAM, 'eve')).toBe(false)
    expect(await subscribers.get(TEAM, 'eve')).toBeUndefined()
  })

  test('keep a mute through a change of role, and the role through a mute, also at the same time', async () => {
    const { engine, clock } = await stage()
    await Promise.all([
      engine.channels.mute(TEAM, 'ann', { forMs: 60_000 }),
      engine.channels.subscribers.setRole(TEAM, 'ann', MemberRole.Owner),
      engine.channels.subscribers.add(TEAM, ['ann', { uid: 'bob', role: MemberRole.Admin }]),
      engine.channels.mute(TEAM, 'bob', { untilMs: 7 }),
    ])
    expect(await engine.channels.subscribers.get(TEAM, 'ann')).toEqual({ uid: 'ann', role: MemberRole.Owner, mutedUntilMs: clock.nowMs() + 60_000 })
    expect(await engine.channels.subscribers.get(TEAM, 'bob')).toEqual({ uid: 'bob', role: MemberRole.Admin, mutedUntilMs: 7 })
    await engine.channels.unmute(TEAM, 'ann')
    expect(await engine.channels.subscribers.get(TEAM, 'ann')).toEqual({ uid: 'ann', role: MemberRole.Owner })
  })

  test('are what can be muted and promoted: IM_MEMBER_NOT_FOUND for others, who are none afterwards', async () => {
    const { engine } = await stage()
    const calls = [
      () => engine.channels.mute(TEAM, 'dan', { forMs: 1 }), () => engine.channels.unmute(TEAM, 'dan'), () => engine.channels.subscribers.setRole(TEAM, 'dan', MemberRole.Owner),
    ]
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: 'IM_MEMBER_NOT_FOUND', context: { ...TEAM, uid: 'dan' } })
    expect(await engine.channels.subscribers.has(TEAM, 'dan')).toBe(false)
  })

  test('of a temporary channel are replaced, and get what is sent there', async () => {
    const { engine, connect } = await stage()
    const temp = { channelID: 'call-7', channelType: ChannelType.Temp }
    const [ann, bob] = [await connect('ann'), await connect('bob')]
    await engine.channels.setTemporary('call-7', ['ann'])
    await engine.channels.setTemporary('call-7', ['bob'])
    await engine.messages.send({ ...hi, ...temp })
    expect((await bob.client.nextRecv()).channelID).toBe('call-7')
    expect(ann.client.messages).toEqual([])
  })

  test('by the hundred thousand are listed in pages, and every one of them is reached', async () => {
    const { engine, clock } = await stage({ limits: { maxMembersPerCall: 100_000 } })
    const uids = uidsOf(100_000)
    let turnCount = 0
    const timer = setInterval(() => turnCount++, 0)
    await engine.channels.create(HALL, { subscribers: uids })
    clearInterval(timer)
    expect(turnCount).toBeGreaterThan(10) // the loop had its turn in between
    const { items, most } = await all((query) => engine.channels.subscribers.list(HALL, query))
    expect(most).toBe(1_000)
    expect(new Set(items.map(({ uid }) => uid)).size).toBe(100_000)
    let [pushCount, largest] = [0, 0]
    engine.use('EventPushOnline', function count(ctx) {
      pushCount += ctx.uids.length
      largest = Math.max(largest, ctx.uids.length)
    })
    await engine.messages.send({ ...hi, ...HALL })
    await clock.settle()
    expect([pushCount, largest]).toEqual([100_000, 1_000])
  })
})

describe('lists', () => {
  test.each(['denylist', 'allowlist'] as const)('%s: set replaces, has asks, clear empties, and pages list', async (name) => {
    const { engine } = await stage()
    const list = engine.channels[name]
    await list.add(TEAM, ['x', 'y'])
    await list.set(TEAM, ['y', 'z'])
    expect((await all((query) => list.list(TEAM, query), 1)).items.toSorted()).toEqual(['y', 'z'])
    expect([await list.has(TEAM, 'x'), await list.has(TEAM, 'z')]).toEqual([false, true])
    await list.clear(TEAM)
    expect((await list.list(TEAM)).items).toEqual([])
  })

  test('an allow list that is set is never empty in between, which would let everybody in', async () => {
    const storage = memoryStorage()
    const { engine } = await stage({ storage })
    await engine.channels.allowlist.set(TEAM, ['x'])
    const seen: boolean[] = []
    for (const method of ['addToList', 'removeFromList'] as const) {
      const original = storage.channels[method].bind(storage.channels)
      storage.channels[method] = (key, list, uids) => {
        void original(key, list, uids)
        seen.push(storage.channels.isListEmpty(TEAM, 'allow') as boolean)
      }
    }
    await engine.channels.allowlist.set(TEAM, ['y'])
    expect(seen).toEqual([false, false])
  })

  test('a member who comes on the deny list loses the conversation once; a new message brings it back', async () => {
    const { engine } = await stage()
    await engine.messages.send(hi)
    const listed = async (uid: string): Promise<number> => (await engine.conversations.list(uid)).items.length
    await engine.channels.denylist.add(TEAM, ['bob', 'stranger'])
    expect([await listed('ann'), await listed('bob')]).toEqual([1, 0])
    await engine.messages.send(hi)
    await engine.channels.denylist.add(TEAM, ['bob']) // is there already
    expect(await listed('bob')).toBe(1)
    expect(await engine.conversations.unread('bob', TEAM)).toBe(1)
    expect(await engine.channels.subscribers.has(TEAM, 'stranger')).toBe(false)
  })
})

describe('messages of a channel', () => {
  test('go with it when they are to, and its numbers go on all the same', async () => {
    const { engine } = await stage()
    expect(await engine.channels.lastMessage(TEAM)).toBeUndefined()
    for (let index = 0; index < 3; index++) await engine.messages.send(hi)
    expect(await engine.channels.lastMessage(TEAM)).toMatchObject({ messageSeq: 3 })
    await engine.channels.delete(TEAM, { messages: true })
    expect((await engine.messages.sync(TEAM)).messages).toEqual([])
    expect(await engine.channels.lastSeq(TEAM)).toBe(3)
    await engine.channels.create(TEAM, { subscribers: ['ann'] })
    expect(await engine.messages.send(hi)).toMatchObject({ messageSeq: 4 })
  })

  test('go with its commands: nothing that was said in it is left', async () => {
    const { engine } = await stage()
    const command = await engine.messages.send({ ...hi, syncOnce: true })
    await engine.channels.delete(TEAM)
    expect((await engine.messages.get([command.messageID]))[0]).toMatchObject({ messageSeq: 1 })
    await engine.channels.delete(TEAM, { messages: true })
    expect(await engine.messages.get([command.messageID])).toEqual([undefined])
  })
})

describe("a host's mistake is a TypeError that names the argument", () => {
  const bad = (value: unknown): never => value as never
  const many = Array<string>(10_001).fill('x')
  type Channels = Stage['engine']['channels']
  test.each<[string, (channels: Channels) => unknown, RegExp]>([
    ['update without flags', (channels) => channels.update(TEAM, bad(undefined)), /flags must be an object/],
    ['update of a strange flag', (channels) => channels.update(TEAM, { sendBan: bad(1) }), /sendBan must be true or false/],
    ['update of a strange key', (channels) => channels.update(bad({}), {}), /channelType/],
    ['disband of a strange key', (channels) => channels.disband(bad(null)), /channelType/],
    ['setMode without a mode', (channels) => channels.setMode(TEAM, bad(undefined)), /mode must be 'normal' or 'muted' or 'announcement', got undefined/],
    ['delete with strange messages', (channels) => channels.delete(TEAM, { messages: bad('all') }), /messages must be true or false/],
    ['a reset without members', (channels) => channels.create(TEAM, { reset: true }), /subscribers must be given with reset/],
    ['a strange reset', (channels) => channels.create(TEAM, { reset: bad(1) }), /reset must be true or false/],
    ['too many members', (channels) => channels.create(TEAM, { subscribers: many }), /subscribers must be an array of at most 10000 uids.*got an array of 10001/],
    ['too many to add', (channels) => channels.subscribers.add(TEAM, many), /subscribers must be an array of at most 10000/],
    ['too many to set', (channels) => channels.subscribers.set(TEAM, many), /subscribers must be an array of at most 10000/],
    ['too many to remove', (channels) => channels.subscribers.remove(TEAM, many), /uids must be at most 10000 uids/],
    ['clear of a strange key', (channels) => channels.subscribers.clear(bad(1)), /channelType/],
    ['has of no uid', (channels) => channels.subscribers.has(TEAM, ''), /uid must be a uid/],
    ['get of no uid', (channels) => channels.subscribers.get(TEAM, bad(null)), /uid must be a uid/],
    ['setRole to none', (channels) => channels.subscribers.setRole(TEAM, 'ann', bad(3)), /role must be a MemberRole, got 3/],
    ['mute without a time', (channels) => channels.mute(TEAM, 'ann', bad(undefined)), /time must be \{ untilMs \} or \{ forMs \}/],
    ['mute with two times', (channels) => channels.mute(TEAM, 'ann', bad({ untilMs: 1, forMs: 1 })), /time must be/],
    ['mute for nothing', (channels) => channels.mute(TEAM, 'ann', { forMs: 0 }), /forMs must be an integer from 1/],
    ['mute until never', (channels) => channels.mute(TEAM, 'ann', { untilMs: Infinity }), /untilMs must be an integer/],
    ['mute of no uid', (channels) => channels.mute(TEAM, '', { forMs: 1 }), /uid must be a uid/],
    ['unmute of no uid', (channels) => channels.unmute(TEAM, ''), /uid must be a uid/],
    ['too many on a list', (channels) => channels.denylist.add(TEAM, many), /uids must be at most 10000/],
    ['a list that is none', (channels) => channels.allowlist.set(TEAM, bad('x')), /uids must be an array/],
    ['too many off a list', (channels) => channels.allowlist.remove(TEAM, many), /uids must be at most 10000/],
    ['clear of a list of a strange key', (channels) => channels.denylist.clear(bad({})), /channelType/],
    ['has on a list of no uid', (channels) => channels.denylist.has(TEAM, ''), /uid must be a uid/],
    ['setTemporary without an id', (channels) => channels.setTemporary('', ['ann']), /channelID/],
    ['setTemporary of too many', (channels) => channels.setTemporary('t', many), /uids must be at most 10000/],
    ['lastSeq of a strange key', (channels) => channels.lastSeq(bad({})), /channelType/],
    ['lastMessage of a strange key', (channels) => channels.lastMessage(bad({})), /channelType/],
  ])('%s', async (_what, call, message) => {
    const { engine } = await stage()
    const result = (async () => call(engine.channels))()
    await expect(result).rejects.toThrow(TypeError)
    await expect(result).rejects.toThrow(message)
    expect((await engine.channels.subscribers.list(TEAM)).items).toHaveLength(3)
  })
})

test('disband refuses clients from the next SEND on', async () => {
  const { engine, connect } = await stage()
  const { client } = await connect('ann')
  await engine.channels.disband(TEAM)
  expect(await client.send({ ...TEAM, payload: 'hi' })).toMatchObject({ reasonCode: ReasonCode.Disband })
})
