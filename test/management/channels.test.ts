import { describe, expect, test } from 'vitest'
import { channelInfo, ChannelType, MemberRole, memoryStorage, ReasonCode, type ChannelKey } from 'imengine'
import { deferred, stage, TEAM } from '../support.ts'

const NEWS: ChannelKey = { channelID: 'news', channelType: ChannelType.Info }
const hi = { ...TEAM, fromUID: 'system', payload: Buffer.from('hi') }

describe('create', () => {
  test('makes a channel whose flags are false unless given', async () => {
    const { engine } = await stage()
    expect(await engine.channels.get(NEWS)).toBeUndefined()
    expect(await engine.channels.create(NEWS)).toEqual(channelInfo(NEWS))
    expect(await engine.channels.get(NEWS)).toEqual(channelInfo(NEWS))
  })

  test('again changes what is given and leaves the rest: flags, members, lists', async () => {
    const { engine } = await stage()
    await engine.channels.create({ ...NEWS, ban: true }, { subscribers: ['ann'] })
    await engine.channels.denylist.add(NEWS, ['bob'])
    expect(await engine.channels.create({ ...NEWS, disband: true }, { subscribers: ['cat'] })).toEqual(channelInfo(NEWS, { ban: true, disband: true }))
    expect(await engine.channels.create({ ...NEWS, ban: false })).toEqual(channelInfo(NEWS, { disband: true }))
    expect((await engine.channels.subscribers.list(NEWS)).items.map(({ uid }) => uid).toSorted()).toEqual(['ann', 'cat'])
    expect((await engine.channels.denylist.list(NEWS)).items).toEqual(['bob'])
  })

  test('keeps the role of a member that is named again without one', async () => {
    const { engine } = await stage()
    await engine.channels.create(NEWS, { subscribers: [{ uid: 'ann', role: MemberRole.Owner }, { uid: 'bob' }, 'cat'] })
    await engine.channels.create(NEWS, { subscribers: ['ann', 'bob', { uid: 'cat', role: MemberRole.Admin }] })
    const { items } = await engine.channels.subscribers.list(NEWS)
    expect(Object.fromEntries(items.map(({ uid, role }) => [uid, role]))).toEqual({ ann: MemberRole.Owner, bob: MemberRole.Member, cat: MemberRole.Admin })
  })

  test('that is refused for its subscribers makes nothing', async () => {
    const { engine } = await stage()
    await expect(engine.channels.create(NEWS, { subscribers: ['ann', 'b@d'] })).rejects.toThrow(TypeError)
    expect(await engine.channels.get(NEWS)).toBeUndefined()
    expect((await engine.channels.subscribers.list(NEWS)).items).toEqual([])
  })
})

describe('subscribers', () => {
  test('a uid named twice in one call keeps the role it is given', async () => {
    const { engine } = await stage()
    await engine.channels.subscribers.add(NEWS, [{ uid: 'ann', role: MemberRole.Admin }, 'ann'])
    expect((await engine.channels.subscribers.list(NEWS)).items).toEqual([{ uid: 'ann', role: MemberRole.Admin }])
  })

  test('are listed in pages, each once', async () => {
    const { engine } = await stage()
    const uids = Array.from({ length: 25 }, (_, index) => `u${index}`)
    await engine.channels.subscribers.add(NEWS, uids)
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const page = await engine.channels.subscribers.list(NEWS, { limit: 10, ...(cursor === undefined ? {} : { cursor }) })
      expect(page.items.length).toBeLessThanOrEqual(10)
      seen.push(...page.items.map(({ uid }) => uid))
      cursor = page.cursor
    } while (cursor !== undefined)
    expect(seen.toSorted()).toEqual(uids.toSorted())
  })

  test('who are removed get nothing of the next message, who are added do, although lists are cached', async () => {
    const { engine, connect } = await stage()
    const bob = await connect('bob')
    const dan = await connect('dan')
    await engine.messages.send(hi)
    expect((await bob.client.nextRecv()).messageSeq).toBe(1)
    await engine.channels.subscribers.remove(TEAM, ['bob', 'never in'])
    await engine.channels.subscribers.add(TEAM, ['dan'])
    await engine.messages.send(hi)
    expect((await dan.client.nextRecv()).messageSeq).toBe(2)
    expect(bob.client.messages).toHaveLength(1)
  })

  test('changed behind the engine are used once the channel has been invalidated', async () => {
    const storage = memoryStorage()
    const { engine, connect } = await stage({ storage })
    const dan = await connect('dan')
    await engine.messages.send(hi) // the list is cached now
    await storage.channels.putMembers(TEAM, [{ uid: 'dan', role: MemberRole.Member }])
    await engine.messages.send(hi)
    engine.channels.invalidate(TEAM)
    await engine.messages.send(hi)
    expect((await dan.client.nextRecv()).messageSeq).toBe(3)
    expect(dan.client.messages).toHaveLength(1)
  })
})

describe('the channels of a user', () => {
  test('are those it is a member of', async () => {
    const { engine } = await stage()
    await engine.channels.create(NEWS, { subscribers: ['ann'] })
    expect((await engine.channels.of('ann')).items).toEqual(expect.arrayContaining([TEAM, NEWS]))
    await engine.channels.subscribers.remove(TEAM, ['ann'])
    expect((await engine.channels.of('ann')).items).toEqual([NEWS])
    expect((await engine.channels.of('nobody')).items).toEqual([])
  })
})

describe('lists', () => {
  test('hold for the next SEND, and no longer than until the name is taken off', async () => {
    const { engine, connect } = await stage()
    const { client } = await connect('ann')
    const send = async (): Promise<number> => (await client.send({ ...TEAM, payload: 'hi' })).reasonCode
    await engine.channels.denylist.add(TEAM, ['ann'])
    expect(await send()).toBe(ReasonCode.InBlacklist)
    await engine.channels.denylist.remove(TEAM, ['ann'])
    expect(await send()).toBe(ReasonCode.Success)
    await engine.channels.allowlist.add(TEAM, ['bob'])
    expect(await send()).toBe(ReasonCode.NotInWhitelist)
    await engine.channels.allowlist.add(TEAM, ['ann'])
    expect(await send()).toBe(ReasonCode.Success)
    expect((await engine.channels.allowlist.list(TEAM)).items.toSorted()).toEqual(['ann', 'bob'])
  })

  test("of a person hang on the person's own uid", async () => {
    const { engine, connect } = await stage()
    const { client } = await connect('ann')
    await engine.channels.denylist.add({ channelID: 'bob', channelType: ChannelType.Person }, ['ann'])
    expect(await client.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'hi' })).toMatchObject({ reasonCode: ReasonCode.InBlacklist })
    expect(await client.send({ channelID: 'cat', channelType: ChannelType.Person, payload: 'hi' })).toMatchObject({ reasonCode: ReasonCode.Success })
  })
})

describe('the end of a channel', () => {
  test('disband refuses clients and the host alike, and its messages stay readable', async () => {
    const { engine, connect } = await stage()
    const { client } = await connect('ann')
    await engine.messages.send(hi)
    await engine.channels.create({ ...TEAM, disband: true })
    expect(await client.send({ ...TEAM, payload: 'hi' })).toMatchObject({ reasonCode: ReasonCode.Disband })
    await expect(engine.messages.send(hi)).rejects.toMatchObject({ code: 'IM_REFUSED', context: { reasonCode: ReasonCode.Disband } })
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
    await engine.channels.create({ ...TEAM, disband: false })
    expect(await client.send({ ...TEAM, payload: 'hi' })).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 2 })
  })

  test('delete takes members and lists with it, not the numbers of its messages', async () => {
    const { engine, connect } = await stage()
    const { client } = await connect('ann')
    await engine.messages.send(hi)
    await engine.channels.denylist.add(TEAM, ['bob'])
    await engine.channels.delete(TEAM)
    await engine.channels.delete(TEAM)
    expect(await engine.channels.get(TEAM)).toBeUndefined()
    expect(await client.send({ ...TEAM, payload: 'hi' })).toMatchObject({ reasonCode: ReasonCode.ChannelNotExist })
    await engine.channels.create(TEAM)
    expect((await engine.channels.subscribers.list(TEAM)).items).toEqual([])
    expect((await engine.channels.denylist.list(TEAM)).items).toEqual([])
    await engine.channels.subscribers.add(TEAM, ['ann'])
    expect(await client.send({ ...TEAM, payload: 'hi' })).toMatchObject({ messageSeq: 2 })
  })
})

describe("a host's mistake is a TypeError that names the argument", () => {
  const bad = (value: unknown): never => value as never

  test.each<[string, (channels: Awaited<ReturnType<typeof stage>>['engine']['channels']) => unknown, RegExp]>([
    ['no key', (channels) => channels.create(bad(undefined)), /channelType must be .*got undefined/],
    ['a type of 0', (channels) => channels.get({ channelID: 'a', channelType: 0 }), /channelType must be an integer from 1 to 255, got 0/],
    ['a type of 256', (channels) => channels.get({ channelID: 'a', channelType: 256 }), /channelType .*got 256/],
    ['a type as text', (channels) => channels.get({ channelID: 'a', channelType: bad('2') }), /channelType .*got "2"/],
    ['a blank id', (channels) => channels.create({ channelID: ' ', channelType: 2 }), /channelID must be .*got " "/],
    ['an id with #', (channels) => channels.delete({ channelID: 'a#b', channelType: 2 }), /channelID .*got "a#b"/],
    ['an id with a control character', (channels) => channels.delete({ channelID: 'a\u0000', channelType: 2 }), /channelID/],
    ['half of a surrogate pair', (channels) => channels.get({ channelID: 'a\ud800', channelType: 2 }), /channelID/],
    ['an id that is too long', (channels) => channels.get({ channelID: 'a'.repeat(32_768), channelType: 2 }), /channelID/],
    ['a person channel that is no uid and no pair', (channels) => channels.get({ channelID: 'a@b@c', channelType: 1 }), /channelID/],
    ['a flag that is no flag', (channels) => channels.create({ ...NEWS, ban: bad(1) }), /ban must be true or false, got 1/],
    ['another flag that is no flag', (channels) => channels.create({ ...NEWS, disband: bad('yes') }), /disband must be true or false, got "yes"/],
    ['subscribers that are no list', (channels) => channels.create(NEWS, { subscribers: bad('ann') }), /subscribers must be .*got "ann"/],
    ['members in the place of the options', (channels) => channels.create(NEWS, bad(['ann'])), /options\.0 must be left out: there is no such option \(known: reset, subscribers\)/],
    ['a subscriber that is no uid', (channels) => channels.subscribers.add(NEWS, ['ann', 'b&b']), /subscribers\[1\] must be a uid.*got "b&b"/],
    ['a subscriber that is nothing', (channels) => channels.subscribers.add(NEWS, [bad(null)]), /subscribers\[0\] must be a uid/],
    ['a role that is none', (channels) => channels.subscribers.add(NEWS, [{ uid: 'ann', role: bad(3) }]), /subscribers\[0\]\.role must be a MemberRole, got 3/],
    ['uids that are no list', (channels) => channels.subscribers.remove(NEWS, bad('ann')), /uids must be an array of uids, got "ann"/],
    ['a uid on the deny list that is none', (channels) => channels.denylist.add(NEWS, ['ok', '']), /uids\[1\] must be a uid/],
    ['a uid on the allow list that is none', (channels) => channels.allowlist.remove(NEWS, [bad(7)]), /uids\[0\] must be a uid.*got 7/],
    ['a user that is none', (channels) => channels.of('a@b'), /uid must be a uid.*got "a@b"/],
    ['an invalidation of nothing', async (channels) => channels.invalidate(bad(null)), /channelType/],
    ['a list of an unknown channel key', (channels) => channels.denylist.list(bad({})), /channelType/],
  ])('%s', async (_what, call, message) => {
    const { engine } = await stage()
    const result = (async () => call(engine.channels))()
    await expect(result).rejects.toThrow(TypeError)
    await expect(result).rejects.toThrow(message)
    expect(await engine.channels.get(NEWS)).toBeUndefined()
  })
})

test('a group may be written to while its directory is being changed', async () => {
  const answer = deferred()
  const { engine, connect } = await stage()
  const { client } = await connect('ann')
  engine.use('EventOnSend', function waits() {
    return answer.promise
  })
  const sendack = client.send({ ...TEAM, payload: 'hi' })
  await engine.channels.subscribers.remove(TEAM, ['bob'])
  answer.resolve()
  expect(await sendack).toMatchObject({ reasonCode: ReasonCode.Success })
})
