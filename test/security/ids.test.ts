import { MemoryLevel } from 'memory-level'
import { describe, expect, test } from 'vitest'
import { ChannelType, memoryStorage, ReasonCode } from 'imengine'
import { levelStorage } from 'imengine/level'
import { encode, LATEST_VERSION } from 'imengine/protocol'
import { heard, openSocket, plainConnect } from '../connection/raw.ts'
import { stage, TEAM } from '../support.ts'

const PERSON = ChannelType.Person

/** Two ids each that a reader, a normaliser or a careless join would take for one. */
const ALIKE: readonly (readonly [why: string, one: string, other: string])[] = [
  ['composed and decomposed', 'caf\u00e9', 'cafe\u0301'],
  ['Latin and Cyrillic', 'ann', '\u0430nn'],
  ['capitals', 'ann', 'Ann'],
  ['a zero-width space', 'ann', 'ann\u200b'],
  ['a no-break space', 'ann', 'ann\u00a0'],
  ['a space in front', 'ann', ' ann'],
  ['a ligature', '\ufb01sh', 'fish'],
  ['a byte order mark', 'ann', '\ufeffann'],
  ['the replacement character', 'a\ufffd', 'a\ufffd\ufffd'],
  ['a type in front', 'team', '2:team'],
  ['the last of 20 000 bytes', `${'x'.repeat(19_999)}1`, `${'x'.repeat(19_999)}2`],
  ['names of every object', '__proto__', 'constructor'],
  ['a number and its text', '1', '01'],
  ['separators of stores', 'a:b', 'a/b'],
]

const SMALL = { maxCachedChannels: 100, maxCachedValues: 100, dedupeFilterBytes: 4_096 }
const LIMITS = { maxTrackedDeliveries: 100, maxCachedPermissions: 100 }
const storages = { memory: () => memoryStorage(), level: () => levelStorage({ db: new MemoryLevel<Buffer, Buffer>(), ...SMALL }) }

describe.each(Object.entries(storages))('ids that look alike (%s)', (_name, storage) => {
  test.each(ALIKE)('%s: are two users, two person channels and two groups', async (_why, one, other) => {
    const { engine, connect, clock } = await stage({ limits: LIMITS, plaintext: 'allow', storage: storage() })
    const plain = { plaintext: true, deviceID: 'd' }
    const [{ client: first }, { client: second }, { client: zed }] = [await connect(one, plain), await connect(other, plain), await connect('zed', plain)]
    for (const [receiver, text] of [[one, 'for one'], [other, 'for the other']] as const) {
      expect(await zed.send({ channelID: receiver, channelType: PERSON, payload: text, clientMsgNo: 'same' })).toMatchObject({ reasonCode: 1, messageSeq: 1 })
    }
    await clock.settle()
    expect(first.messages.map(({ text, fromUID }) => [fromUID, text])).toEqual([['zed', 'for one']])
    expect(second.messages.map(({ text, fromUID }) => [fromUID, text])).toEqual([['zed', 'for the other']])

    await engine.channels.create({ channelID: one, channelType: ChannelType.Group }, { subscribers: ['zed'] })
    const refused = await zed.send({ channelID: other, channelType: ChannelType.Group, payload: 'x', clientMsgNo: 'n1' })
    expect(refused.reasonCode).toBe(ReasonCode.ChannelNotExist)
    await engine.channels.denylist.add({ channelID: one, channelType: PERSON }, [other])
    expect((await second.send({ channelID: one, channelType: PERSON, payload: 'x', clientMsgNo: 'n2' })).reasonCode).toBe(ReasonCode.InBlacklist)
    expect((await zed.send({ channelID: one, channelType: PERSON, payload: 'y' })).reasonCode).toBe(ReasonCode.Success)
    await engine.users.ban(one)
    await clock.settle()
    expect(engine.connections.list().map(({ uid }) => uid).toSorted()).toEqual([other, 'zed'].toSorted())
  })
})

describe('a uid', () => {
  test.each(['', ' ', '\t', '\u00a0', '\u2003', 'a@b', '@', 'a#b', 'a&b', 'a\u0000', '\u0000', 'a\nb', 'a\u001bb', 'a\u007fb', 'ann____cmd', '____cmd'])(
    '%j may not log in, whatever the verifier would say',
    async (uid) => {
      const asked: string[] = []
      const { engine } = await stage({ limits: LIMITS, plaintext: 'allow', tokenVerifier: (request) => (asked.push(request.uid), { ok: true }) })
      const { client } = openSocket(engine)
      expect((await client.connect({ uid, plaintext: true })).reasonCode).toBe(ReasonCode.AuthFail)
      await client.closed
      expect(asked).toEqual([])
    },
  )

  test.each([
    ['half of a pair', [0xed, 0xa0, 0x80]],
    ['a text cut short', [0xe2, 0x82, 0x41]],
    ['an overlong letter', [0xc1, 0x81, 0x41]],
    ['an overlong zero', [0xc0, 0x80, 0x41]],
    ['beyond the last character', [0xf5, 0x80, 0x80]],
  ])('of bytes that are no text (%s) is malformed, and not repaired into another', async (_why, bytes) => {
    const { engine, clock } = await stage({ limits: LIMITS, plaintext: 'allow' })
    const refused = heard(engine, 'connectionRefused')
    const frame = Buffer.from(encode(plainConnect('XYZ'), LATEST_VERSION))
    const at = frame.indexOf('XYZ')
    frame.set(bytes, at)
    const { client } = openSocket(engine)
    client.sendRaw(frame)
    await clock.settle()
    expect(refused).toMatchObject([{ cause: 'malformed', detail: 'bad-utf8', uid: '' }])
    expect(engine.connections.list()).toEqual([])
  })
})

describe('a channel id', () => {
  test('of a person that is no uid is refused with 16: nobody can be made part of a pair by it', async () => {
    const { engine, connect } = await stage()
    const stored = heard(engine, 'messageStored')
    const { client: ann } = await connect('ann')
    for (const channelID of ['', ' ', 'bob@cat', 'bob@', '@bob', 'a#b', 'a&b', 'bob\u0000', 'bob\n', 'bob____cmd____cmd', '____cmd', 'bob@cat____cmd']) {
      expect((await ann.send({ channelID, channelType: PERSON, payload: 'x' })).reasonCode, channelID).toBe(ReasonCode.ChannelIDError)
    }
    expect(stored).toEqual([])
  })

  test('with the ending of commands asks for what the channel itself asks for, and twice it is none', async () => {
    const { engine, connect, clock } = await stage()
    const community = { channelID: 'town', channelType: ChannelType.Community }
    await engine.channels.create(community, { subscribers: ['ann', 'bob'] })
    await engine.channels.denylist.add(community, ['mallory'])
    const [{ client: ann }, { client: mallory }, { client: bob }] = [await connect('ann'), await connect('mallory'), await connect('bob')]
    const reasonOf = async (client: typeof ann, channelID: string, channelType: number): Promise<number> =>
      (await client.send({ channelID, channelType, payload: 'x' })).reasonCode
    expect(await reasonOf(mallory, 'team____cmd', ChannelType.Group)).toBe(ReasonCode.SubscriberNotExist)
    expect(await reasonOf(mallory, 'town____cmd', ChannelType.Community)).toBe(ReasonCode.InBlacklist)
    for (const channelID of ['town____cmd____cmd', 'town____cmd____cmd____cmd', '____cmd', '____cmd____cmd']) {
      for (const channelType of [ChannelType.Group, ChannelType.Community, ChannelType.CustomerService, ChannelType.Live]) {
        expect(await reasonOf(mallory, channelID, channelType), `${channelType}:${channelID}`).toBe(ReasonCode.ChannelIDError)
      }
    }
    expect(await reasonOf(ann, 'town____cmd', ChannelType.Community)).toBe(ReasonCode.Success)
    await clock.settle()
    expect(bob.messages.map(({ channelID }) => channelID)).toEqual(['town'])
    expect(await engine.messages.lastSeq(community)).toBe(0) // among the messages there is no command
  })

  test('under another type is another channel: nothing reaches the group', async () => {
    const { engine, connect, clock } = await stage()
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    for (let channelType = 0; channelType < 256; channelType++) {
      if (channelType !== ChannelType.Group) await ann.send({ channelID: 'team', channelType, payload: `as type ${channelType}`, clientMsgNo: 'one' })
    }
    await clock.settle()
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    expect(bob.messages).toEqual([])
  })
})
