import { describe, expect, test } from 'vitest'
import {
  allOf,
  ChannelType,
  DeviceFlag,
  FrameFlag,
  MemberRole,
  memoryStorage,
  ReasonCode,
  reasonName,
  refuse,
  sendPolicy,
  type ChannelDirectory,
  type ChannelFlags,
  type ChannelKey,
  type IMEngine,
  type IMEngineOptions,
  type Member,
} from 'imengine'
import { deferred, stage, TEAM } from '../support.ts'

const { Success } = ReasonCode

/** What is true before somebody sends, and what they are told. */
interface Row {
  readonly what: string
  readonly to: ChannelKey
  readonly reasonCode: ReasonCode
  /** default 'ann' */
  readonly from?: string
  readonly deviceFlag?: number
  readonly given?: (engine: IMEngine, directory: ChannelDirectory) => unknown
  readonly options?: Partial<IMEngineOptions>
}

const person = (channelID: string): ChannelKey => ({ channelID, channelType: ChannelType.Person })
const of = (channelType: number, channelID = 'c'): ChannelKey => ({ channelID, channelType })
const GROUP = of(ChannelType.Group, 'g')
const TOWN = of(ChannelType.Community, 'town')
const TOPIC = of(ChannelType.CommunityTopic, 'town@news')
const CLOCK_START_MS = 1_700_000_000_000

/** A group "g" of ann (member), adam (admin), olga (owner) with these flags; people get these mutes. */
function group(flags: ChannelFlags = {}, more: (engine: IMEngine, directory: ChannelDirectory) => unknown = () => undefined, key = GROUP): NonNullable<Row['given']> {
  return async (engine, directory) => {
    await engine.channels.create({ ...key, ...flags })
    const members: Member[] = [
      { uid: 'ann', role: MemberRole.Member },
      { uid: 'adam', role: MemberRole.Admin },
      { uid: 'olga', role: MemberRole.Owner },
    ]
    await directory.putMembers(key, members)
    await more(engine, directory)
  }
}

const sendBanned = (uid: string) => (engine: IMEngine): Promise<void> => engine.users.setFlags(uid, { sendBanned: true })
const denied = (key: ChannelKey, uid: string) => (engine: IMEngine): Promise<void> => engine.channels.denylist.add(key, [uid])
const allowed = (key: ChannelKey, uid: string) => (engine: IMEngine): Promise<void> => engine.channels.allowlist.add(key, [uid])
const muted = (uid: string, mutedUntilMs: number, role: MemberRole = MemberRole.Member, key = GROUP) => (_: IMEngine, directory: ChannelDirectory) =>
  directory.putMembers(key, [{ uid, role, mutedUntilMs }])
const both = (...steps: NonNullable<Row['given']>[]): NonNullable<Row['given']> => async (engine, directory) => {
  for (const step of steps) await step(engine, directory)
}
const ALLOWLISTED: Partial<IMEngineOptions> = { authorizeSend: sendPolicy({ personAllowlist: true }) }
const BOTH_WAYS: Partial<IMEngineOptions> = { authorizeSend: sendPolicy({ blockBothWays: true }) }
const SYS: Partial<IMEngineOptions> = { systemUIDs: ['sys'] }

const rows: readonly Row[] = [
  // command channels
  { what: 'a command channel asks about the group it belongs to: no such group', to: of(ChannelType.Group, 'g____cmd'), reasonCode: ReasonCode.ChannelNotExist },
  { what: 'a command channel asks about the group it belongs to: a member may', to: of(ChannelType.Group, 'g____cmd'), reasonCode: Success, given: group() },
  { what: 'a command channel asks about the group it belongs to: denied', to: of(ChannelType.Group, 'g____cmd'), reasonCode: ReasonCode.InBlacklist, given: group({}, denied(GROUP, 'ann')) },
  { what: 'a command channel of a person asks about that person', to: person('bob____cmd'), reasonCode: ReasonCode.InBlacklist, given: denied(person('bob'), 'ann') },
  { what: 'a command channel of a person is open to whom the person is', to: person('bob____cmd'), reasonCode: Success },
  { what: 'a command channel of nobody is no channel', to: person('____cmd'), reasonCode: ReasonCode.ChannelIDError },
  { what: 'a command channel of a command channel of a person is no channel', to: person('bob____cmd____cmd'), reasonCode: ReasonCode.ChannelIDError },

  // system users
  { what: 'a system user may send to a group that is not there', from: 'sys', to: GROUP, reasonCode: Success, options: SYS },
  { what: 'a system user may send to a banned group', from: 'sys', to: GROUP, reasonCode: Success, options: SYS, given: group({ ban: true }) },
  { what: 'a system user may send to a group that is read only', from: 'sys', to: GROUP, reasonCode: Success, options: SYS, given: group({ sendBan: true, mode: 'announcement' }) },
  { what: 'a system user may send though denied', from: 'sys', to: GROUP, reasonCode: Success, options: SYS, given: group({}, denied(GROUP, 'sys')) },
  { what: 'a system user may send though banned from sending', from: 'sys', to: GROUP, reasonCode: Success, options: SYS, given: group({}, sendBanned('sys')) },
  { what: 'a system user is stopped by a disbanded group', from: 'sys', to: GROUP, reasonCode: ReasonCode.Disband, options: SYS, given: group({ disband: true }) },
  { what: 'a user with the flag system is one', from: 'zoe', to: GROUP, reasonCode: Success, given: group({ ban: true }, (engine) => engine.users.setFlags('zoe', { system: true })) },

  // the sender's send ban comes before anything about the channel
  { what: 'a send ban of the sender wins over a group that is not there', to: GROUP, reasonCode: ReasonCode.SendBan, given: sendBanned('ann') },
  { what: 'a send ban of the sender wins over a banned group', to: GROUP, reasonCode: ReasonCode.SendBan, given: group({ ban: true, disband: true }, sendBanned('ann')) },
  { what: 'a send ban of the sender holds towards a person', to: person('bob'), reasonCode: ReasonCode.SendBan, given: sendBanned('ann') },
  { what: 'a send ban of the sender holds towards a system user', to: person('sys'), reasonCode: ReasonCode.SendBan, options: SYS, given: sendBanned('ann') },
  { what: 'a send ban of the sender holds in a service channel', to: of(ChannelType.Info), reasonCode: ReasonCode.SendBan, given: sendBanned('ann') },
  { what: 'a send ban of the receiver is not the sender’s', to: person('bob'), reasonCode: Success, given: sendBanned('bob') },
  { what: 'a client that calls itself a system device is none', deviceFlag: DeviceFlag.System, to: GROUP, reasonCode: ReasonCode.SubscriberNotExist, from: 'eve', given: group() },

  // person
  { what: 'anybody may write to a person', to: person('bob'), reasonCode: Success },
  { what: 'one may write to oneself', to: person('ann'), reasonCode: Success },
  { what: 'a disbanded pair may not write', to: person('bob'), reasonCode: ReasonCode.Disband, given: (engine) => engine.channels.create({ ...person('bob@ann'), disband: true }).then(() => engine.channels.create({ ...person('ann@bob'), disband: true })) },
  { what: 'a disbanded pair wins over a system user as receiver', to: person('sys'), reasonCode: ReasonCode.Disband, options: SYS, given: (engine) => engine.channels.create({ ...person('sys@ann'), disband: true }).then(() => engine.channels.create({ ...person('ann@sys'), disband: true })) },
  { what: 'a system user may be written to though it denies the sender', to: person('sys'), reasonCode: Success, options: SYS, given: denied(person('sys'), 'ann') },
  { what: 'whom the receiver denies may not write', to: person('bob'), reasonCode: ReasonCode.InBlacklist, given: denied(person('bob'), 'ann') },
  { what: 'who denies the receiver may still write', to: person('bob'), reasonCode: Success, given: denied(person('ann'), 'bob') },
  { what: 'who denies the receiver may not write where a block holds both ways', to: person('bob'), reasonCode: ReasonCode.InBlacklist, options: BOTH_WAYS, given: denied(person('ann'), 'bob') },
  { what: 'a block both ways stops nobody else', to: person('bob'), reasonCode: Success, options: BOTH_WAYS, given: denied(person('ann'), 'cat') },
  { what: 'an allow list of a person is not asked unless it is told to', to: person('bob'), reasonCode: Success, given: allowed(person('bob'), 'cat') },
  { what: 'a stranger may not write where allow lists count', to: person('bob'), reasonCode: ReasonCode.NotInWhitelist, options: ALLOWLISTED },
  { what: 'who is on the allow list may write where it counts', to: person('bob'), reasonCode: Success, options: ALLOWLISTED, given: allowed(person('bob'), 'ann') },
  { what: 'a receiver may allow strangers', to: person('bob'), reasonCode: Success, options: ALLOWLISTED, given: (engine) => engine.channels.create({ ...person('bob'), allowStranger: true }) },
  { what: 'the deny list wins over the allow list', to: person('bob'), reasonCode: ReasonCode.InBlacklist, options: ALLOWLISTED, given: both(allowed(person('bob'), 'ann'), denied(person('bob'), 'ann')) },
  { what: 'a system user needs no allow list to be written to', to: person('sys'), reasonCode: Success, options: { ...ALLOWLISTED, ...SYS } },
  { what: 'one is no stranger to oneself', to: person('ann'), reasonCode: Success, options: ALLOWLISTED },

  // group
  { what: 'a group that is not there', to: GROUP, reasonCode: ReasonCode.ChannelNotExist },
  { what: 'members without a group do not make one', to: GROUP, reasonCode: ReasonCode.ChannelNotExist, given: (_, directory) => directory.putMembers(GROUP, [{ uid: 'ann', role: MemberRole.Owner }]) },
  { what: 'a banned group', to: GROUP, reasonCode: ReasonCode.Ban, given: group({ ban: true }) },
  { what: 'banned wins over disbanded', to: GROUP, reasonCode: ReasonCode.Ban, given: group({ ban: true, disband: true }) },
  { what: 'a disbanded group', to: GROUP, reasonCode: ReasonCode.Disband, given: group({ disband: true }) },
  { what: 'disbanded wins over read only', to: GROUP, reasonCode: ReasonCode.Disband, given: group({ disband: true, sendBan: true }) },
  { what: 'a group that is read only', from: 'olga', to: GROUP, reasonCode: ReasonCode.SendBan, given: group({ sendBan: true }) },
  { what: 'read only wins over the deny list', to: GROUP, reasonCode: ReasonCode.SendBan, given: group({ sendBan: true }, denied(GROUP, 'ann')) },
  { what: 'a member on the deny list', to: GROUP, reasonCode: ReasonCode.InBlacklist, given: group({}, denied(GROUP, 'ann')) },
  { what: 'the deny list wins over not being a member', from: 'eve', to: GROUP, reasonCode: ReasonCode.InBlacklist, given: group({}, denied(GROUP, 'eve')) },
  { what: 'who is no member', from: 'eve', to: GROUP, reasonCode: ReasonCode.SubscriberNotExist, given: group() },
  { what: 'not being a member wins over the allow list', from: 'eve', to: GROUP, reasonCode: ReasonCode.SubscriberNotExist, given: group({}, allowed(GROUP, 'adam')) },
  { what: 'being on the allow list does not make a member', from: 'eve', to: GROUP, reasonCode: ReasonCode.SubscriberNotExist, given: group({}, allowed(GROUP, 'eve')) },
  { what: 'an allow list without the member', to: GROUP, reasonCode: ReasonCode.NotInWhitelist, given: group({}, allowed(GROUP, 'adam')) },
  { what: 'an allow list with the member', to: GROUP, reasonCode: Success, given: group({}, allowed(GROUP, 'ann')) },
  { what: 'an empty allow list', to: GROUP, reasonCode: Success, given: group() },
  { what: 'a group of another type is another channel', to: GROUP, reasonCode: ReasonCode.ChannelNotExist, given: group({}, undefined, of(ChannelType.Community, 'g')) },

  // mutes and modes
  { what: 'a muted member', to: GROUP, reasonCode: ReasonCode.SendBan, given: group({}, muted('ann', CLOCK_START_MS * 2)) },
  { what: 'a mute that has ended', to: GROUP, reasonCode: Success, given: group({}, muted('ann', 1)) },
  { what: 'a muted owner', from: 'olga', to: GROUP, reasonCode: ReasonCode.SendBan, given: group({}, muted('olga', CLOCK_START_MS * 2, MemberRole.Owner)) },
  { what: 'a mute wins over the allow list', to: GROUP, reasonCode: ReasonCode.SendBan, given: group({}, both(muted('ann', CLOCK_START_MS * 2), allowed(GROUP, 'adam'))) },
  { what: 'a muted group: a member', to: GROUP, reasonCode: ReasonCode.SendBan, given: group({ mode: 'muted' }) },
  { what: 'a muted group: an admin', from: 'adam', to: GROUP, reasonCode: Success, given: group({ mode: 'muted' }) },
  { what: 'a muted group: the owner', from: 'olga', to: GROUP, reasonCode: Success, given: group({ mode: 'muted' }) },
  { what: 'announcements: a member', to: GROUP, reasonCode: ReasonCode.NotAllowSend, given: group({ mode: 'announcement' }) },
  { what: 'announcements: an admin', from: 'adam', to: GROUP, reasonCode: ReasonCode.NotAllowSend, given: group({ mode: 'announcement' }) },
  { what: 'announcements: the owner', from: 'olga', to: GROUP, reasonCode: Success, given: group({ mode: 'announcement' }) },
  { what: 'the allow list wins over the mode', from: 'adam', to: GROUP, reasonCode: ReasonCode.NotInWhitelist, given: group({ mode: 'announcement' }, allowed(GROUP, 'olga')) },
  { what: 'the mode normal: a member', to: GROUP, reasonCode: Success, given: group({ mode: 'normal' }) },

  // info and customer service: only "disbanded" counts
  ...[ChannelType.Info, ChannelType.CustomerService].flatMap((channelType): Row[] => [
    { what: `type ${channelType} need not exist`, to: of(channelType), reasonCode: Success },
    { what: `type ${channelType} when it is disbanded`, to: of(channelType), reasonCode: ReasonCode.Disband, given: (engine) => engine.channels.create({ ...of(channelType), disband: true }) },
    { what: `type ${channelType} asks about nothing else`, to: of(channelType), reasonCode: Success, given: group({ ban: true, sendBan: true, mode: 'announcement' }, denied(of(channelType), 'ann'), of(channelType)) },
  ]),

  // agent
  { what: 'an agent’s channel: the user', to: of(ChannelType.Agent, 'ann@helper'), reasonCode: Success },
  { what: 'an agent’s channel: the agent', from: 'helper', to: of(ChannelType.Agent, 'ann@helper'), reasonCode: Success },
  { what: 'an agent’s channel: somebody else', from: 'eve', to: of(ChannelType.Agent, 'ann@helper'), reasonCode: ReasonCode.NotAllowSend },
  { what: 'an agent’s channel: somebody whose uid is part of one', from: 'an', to: of(ChannelType.Agent, 'ann@helper'), reasonCode: ReasonCode.NotAllowSend },
  { what: 'an agent’s channel whose id names nobody', to: of(ChannelType.Agent, 'ann'), reasonCode: ReasonCode.NotAllowSend },
  { what: 'an agent’s channel made up by whom the other one denies', to: of(ChannelType.Agent, 'ann@bob'), reasonCode: ReasonCode.InBlacklist, given: denied(person('bob'), 'ann') },
  { what: 'an agent’s channel made up by whom the other one denies, the other way round', to: of(ChannelType.Agent, 'bob@ann'), reasonCode: ReasonCode.InBlacklist, given: denied(person('bob'), 'ann') },
  { what: 'an agent’s channel of whom the sender denies', to: of(ChannelType.Agent, 'ann@bob'), reasonCode: Success, given: denied(person('ann'), 'bob') },
  { what: 'an agent’s channel made up by a stranger where allow lists count', to: of(ChannelType.Agent, 'ann@bob'), reasonCode: ReasonCode.NotInWhitelist, options: ALLOWLISTED },
  { what: 'an agent that is a system user may be written to though it denies the sender', to: of(ChannelType.Agent, 'ann@sys'), reasonCode: Success, options: { ...SYS, ...ALLOWLISTED }, given: denied(person('sys'), 'ann') },
  { what: 'an agent’s channel that is disbanded', to: of(ChannelType.Agent, 'ann@helper'), reasonCode: ReasonCode.Disband, given: (engine) => engine.channels.create({ ...of(ChannelType.Agent, 'ann@helper'), disband: true }) },

  // visitors
  { what: 'a visitor in their own channel', to: of(ChannelType.Visitors, 'ann'), reasonCode: Success },
  { what: 'a visitor in somebody else’s', from: 'eve', to: of(ChannelType.Visitors, 'ann'), reasonCode: ReasonCode.SubscriberNotExist },
  { what: 'staff in a visitor’s channel', from: 'adam', to: of(ChannelType.Visitors, 'ann'), reasonCode: Success, given: (_, directory) => directory.putMembers(of(ChannelType.CustomerService, 'ann'), [{ uid: 'adam', role: MemberRole.Member }]) },
  { what: 'a member of the visitors channel itself is no staff', from: 'adam', to: of(ChannelType.Visitors, 'ann'), reasonCode: ReasonCode.SubscriberNotExist, given: (_, directory) => directory.putMembers(of(ChannelType.Visitors, 'ann'), [{ uid: 'adam', role: MemberRole.Member }]) },
  { what: 'a visitors channel that is disbanded', to: of(ChannelType.Visitors, 'ann'), reasonCode: ReasonCode.Disband, given: (engine) => engine.channels.create({ ...of(ChannelType.Visitors, 'ann'), disband: true }) },

  // the open types: what a host has said holds, and nothing has to be said
  ...[ChannelType.Community, ChannelType.CommunityTopic, ChannelType.Data, ChannelType.Temp, ChannelType.Live, ChannelType.AgentGroup].flatMap((channelType): Row[] => [
    { what: `type ${channelType} need not exist`, to: of(channelType), reasonCode: Success },
    { what: `type ${channelType} needs no membership`, from: 'eve', to: of(channelType), reasonCode: Success, given: group({}, undefined, of(channelType)) },
    { what: `type ${channelType} when it is disbanded`, to: of(channelType), reasonCode: ReasonCode.Disband, given: (engine) => engine.channels.create({ ...of(channelType), disband: true }) },
    { what: `type ${channelType} when it is banned`, to: of(channelType), reasonCode: ReasonCode.Ban, given: (engine) => engine.channels.create({ ...of(channelType), ban: true }) },
    { what: `type ${channelType} when the sender is denied`, to: of(channelType), reasonCode: ReasonCode.InBlacklist, given: denied(of(channelType), 'ann') },
  ]),
  { what: 'a muted live channel: who is no member', from: 'eve', to: of(ChannelType.Live), reasonCode: ReasonCode.SendBan, given: group({ mode: 'muted' }, undefined, of(ChannelType.Live)) },
  { what: 'a muted live channel: the owner', from: 'olga', to: of(ChannelType.Live), reasonCode: Success, given: group({ mode: 'muted' }, undefined, of(ChannelType.Live)) },
  { what: 'a muted member of a live channel', to: of(ChannelType.Live), reasonCode: ReasonCode.SendBan, given: (_, directory) => directory.putMembers(of(ChannelType.Live), [{ uid: 'ann', role: MemberRole.Member, mutedUntilMs: CLOCK_START_MS * 2 }]) },

  // a topic nobody has created reaches the community, so the community's word counts
  ...([
    ['is disbanded', ReasonCode.Disband, (engine) => engine.channels.create({ ...TOWN, disband: true })],
    ['is banned', ReasonCode.Ban, (engine) => engine.channels.create({ ...TOWN, ban: true })],
    ['denies the sender', ReasonCode.InBlacklist, denied(TOWN, 'ann')],
    ['has an allow list without the sender', ReasonCode.NotInWhitelist, allowed(TOWN, 'adam')],
    ['has muted the sender', ReasonCode.SendBan, group({}, muted('ann', CLOCK_START_MS * 2, MemberRole.Member, TOWN), TOWN)],
    ['is for announcements', ReasonCode.NotAllowSend, group({ mode: 'announcement' }, undefined, TOWN)],
  ] satisfies [string, ReasonCode, Row['given']][]).map(([what, reasonCode, given]): Row => ({ what: `a topic nobody has created, whose community ${what}`, to: TOPIC, reasonCode, given })),
  { what: 'a topic nobody has created, in a community for announcements: the owner', from: 'olga', to: TOPIC, reasonCode: Success, given: group({ mode: 'announcement' }, undefined, TOWN) },
  { what: 'commands of a topic nobody has created, whose community denies the sender', to: of(ChannelType.CommunityTopic, 'town@news____cmd'), reasonCode: ReasonCode.InBlacklist, given: denied(TOWN, 'ann') },
  { what: 'a topic nobody has created, whose community must exist', to: TOPIC, reasonCode: ReasonCode.ChannelNotExist, options: { authorizeSend: sendPolicy({ rules: { [ChannelType.Community]: 'members' } }) } },
  { what: 'a topic that exists has its own word, whatever the mode of its community', to: TOPIC, reasonCode: Success, given: both(group({ mode: 'announcement' }, undefined, TOWN), (engine) => engine.channels.create(TOPIC)) },
  { what: 'a topic nobody has created that denies the sender by itself', to: TOPIC, reasonCode: ReasonCode.InBlacklist, given: denied(TOPIC, 'ann') },

  // types the protocol does not know
  { what: 'a type the protocol does not know must exist', to: of(77), reasonCode: ReasonCode.ChannelNotExist },
  { what: 'a type the protocol does not know is for its members', from: 'eve', to: of(77), reasonCode: ReasonCode.SubscriberNotExist, given: group({}, undefined, of(77)) },
  { what: 'a type the protocol does not know may be given a rule', to: of(77), reasonCode: Success, options: { authorizeSend: sendPolicy({ rules: { 77: 'open' } }) } },
  { what: 'a type the protocol knows may be given another rule', to: of(ChannelType.Live), reasonCode: ReasonCode.ChannelNotExist, options: { authorizeSend: sendPolicy({ rules: { [ChannelType.Live]: 'members' } }) } },
  { what: 'the type 0 is a channel that is not there', to: of(0), reasonCode: ReasonCode.ChannelNotExist },
]

/** The same directory, behind promises: what it answers is kept for a while. */
function slowly(directory: ChannelDirectory): ChannelDirectory {
  return new Proxy(directory, {
    get: (target, name) => {
      const member: unknown = Reflect.get(target, name, target)
      return typeof member === 'function' ? async (...args: unknown[]) => (await Promise.resolve(), Reflect.apply(member, target, args) as unknown) : member
    },
  })
}

describe.each([
  ['that answers at once', (directory: ChannelDirectory) => directory],
  ['that answers by promises', slowly],
])('M6 Full permission matrix: a directory %s', (_name, dress) => {
  test.each(rows.map((row) => [row.what, reasonName(row.reasonCode), row] as const))('%s: %s', async (_what, _reason, row) => {
    const { to, reasonCode, from = 'ann', deviceFlag, given, options } = row
    const storage = memoryStorage()
    const { engine, connect } = await stage({ storage: { ...storage, channels: dress(storage.channels) }, ...options })
    const facts: ReasonCode[] = []
    engine.on('messageRefused', (fact) => facts.push(fact.reasonCode))
    const { client } = await connect(from, deviceFlag === undefined ? {} : { deviceFlag })
    // Asked once before anything is said: what was kept of the answers must not outlive the change.
    const before = (await client.send({ ...to, payload: 'before', flags: FrameFlag.NoPersist })).reasonCode
    facts.length = 0
    await given?.(engine, dress === slowly ? ({ putMembers: (key, members) => (storage.channels.putMembers(key, members), engine.channels.invalidate(key)) } as ChannelDirectory) : storage.channels)
    const answer = await client.send({ ...to, payload: 'x' })
    if (given === undefined) expect(before).toBe(reasonCode)
    if (reasonCode === Success) {
      expect(answer).toMatchObject({ reasonCode, messageSeq: 1 })
      expect(facts).toEqual([])
    } else {
      expect(answer).toMatchObject({ reasonCode, messageID: '0', messageSeq: 0 })
      expect(facts).toEqual([reasonCode])
    }
  })
})

describe('a policy', () => {
  test('may be the host’s own, alone', async () => {
    const { connect } = await stage({ authorizeSend: ({ uid }) => (uid === 'ann' ? undefined : refuse(ReasonCode.NotAllowSend)) })
    const { client: ann } = await connect('ann')
    const { client: eve } = await connect('eve')
    const nowhere = { ...of(ChannelType.Group, 'nowhere'), payload: 'x' }
    expect((await ann.send(nowhere)).reasonCode).toBe(Success)
    expect((await eve.send(nowhere)).reasonCode).toBe(ReasonCode.NotAllowSend)
  })

  test('may be the engine’s with the host’s behind it: the first no counts', async () => {
    const asked: string[] = []
    const noLinks = allOf(sendPolicy(), async ({ uid, channelID }) => {
      asked.push(`${uid} ${channelID}`)
      await Promise.resolve()
      return channelID === 'bob' ? refuse(ReasonCode.RateLimit, 'later') : undefined
    })
    const { engine, connect } = await stage({ authorizeSend: noLinks })
    const why: (string | undefined)[] = []
    engine.on('messageRefused', ({ message }) => why.push(message))
    const { client: ann } = await connect('ann')
    expect((await ann.send({ ...GROUP, payload: 'x' })).reasonCode).toBe(ReasonCode.ChannelNotExist)
    expect((await ann.send({ ...person('bob'), payload: 'x' })).reasonCode).toBe(ReasonCode.RateLimit)
    expect((await ann.send({ ...person('cat'), payload: 'x' })).reasonCode).toBe(Success)
    expect(asked).toEqual(['ann bob', 'ann cat'])
    expect(why).toEqual([undefined, 'later'])
  })

  test('that throws, rejects or answers rubbish refuses with SystemError and is reported', async () => {
    const answers: (() => unknown)[] = [() => { throw new Error('down') }, () => Promise.reject(new Error('down')), () => true] // prettier-ignore
    for (const answer of answers) {
      const { connect, errors } = await stage({ authorizeSend: answer as never })
      const { client } = await connect('ann')
      expect((await client.send({ ...person('bob'), payload: 'x' })).reasonCode).toBe(ReasonCode.SystemError)
      expect(errors).toHaveLength(1)
      expect(errors[0]!.context).toMatchObject({ step: 'checkPermission', uid: 'ann' })
    }
  })

  test('cannot let through what is no channel, nor who has been kicked', async () => {
    const { connect } = await stage({ authorizeSend: () => undefined })
    const { client } = await connect('ann')
    expect((await client.send({ ...person('a@b'), payload: 'x' })).reasonCode).toBe(ReasonCode.ChannelIDError)
  })

  test('of a wrong kind is a TypeError', () => {
    expect(() => sendPolicy({ rules: { 9: 'closed' as never } })).toThrow(/rules\[9\] must be person or members/)
    expect(() => allOf(sendPolicy(), 'no' as never)).toThrow(/policies\[1\] must be a function/)
  })
})

describe('answers that are kept', () => {
  const asking = async (limits: IMEngineOptions['limits'] = {}) => {
    const storage = memoryStorage()
    const asked: string[] = []
    const channels = new Proxy(slowly(storage.channels), {
      get: (target, name) => {
        asked.push(String(name))
        return Reflect.get(target, name) as unknown
      },
    })
    const made = await stage({ storage: { ...storage, channels }, limits: { permissionCacheMs: 1_000, ...limits } })
    const { client } = await made.connect('ann')
    const send = async (): Promise<ReasonCode> => {
      asked.length = 0
      return (await client.send({ channelID: 'team', channelType: ChannelType.Group, payload: 'x', flags: FrameFlag.NoPersist })).reasonCode as ReasonCode
    }
    const checks = (): string[] => asked.filter((name) => ['channel', 'member', 'isListed', 'isListEmpty', 'userFlags'].includes(name))
    return { ...made, storage, send, checks }
  }

  test('are not asked for again within their time, and are behind it', async () => {
    const { clock, send, checks } = await asking()
    expect(await send()).toBe(Success)
    expect(checks()).toEqual(['channel', 'isListed', 'member', 'isListEmpty']) // the flags were asked for at login
    await send()
    expect(checks()).toEqual([])
    await clock.advance(1_000)
    await send()
    expect(checks()).toEqual(['userFlags', 'channel', 'isListed', 'member', 'isListEmpty'])
  })

  test.each(['memory', 'memory behind promises'])('that allowed a SEND hold no longer than the directory is as it was (%s)', async (kind) => {
    const storage = memoryStorage()
    const channels = kind === 'memory' ? storage.channels : slowly(storage.channels)
    const made = await stage({ storage: { ...storage, channels }, limits: { permissionCacheMs: 0 } })
    const { client } = await made.connect('ann')
    const send = async (): Promise<number> => (await client.send({ channelID: 'team', channelType: ChannelType.Group, payload: 'x' })).reasonCode
    expect(await send()).toBe(Success)
    // Not through the engine: the host changes what it owns.
    await storage.channels.addToList(TEAM, 'deny', ['ann'])
    expect(await send()).toBe(ReasonCode.InBlacklist)
    await storage.channels.removeFromList(TEAM, 'deny', ['ann'])
    expect(await send()).toBe(Success)
    await storage.channels.setUserFlags('ann', { sendBanned: true })
    expect(await send()).toBe(ReasonCode.SendBan)
    await storage.channels.setUserFlags('ann', { sendBanned: false })
    await storage.channels.removeMembers(TEAM, ['ann'])
    expect(await send()).toBe(ReasonCode.SubscriberNotExist)
  })

  test('are asked for anew when the number of changes has become a promise, and one that rejects is nobody’s trouble', async () => {
    const storage = memoryStorage()
    const unhandled: unknown[] = []
    const note = (reason: unknown): void => void unhandled.push(reason)
    process.on('unhandledRejection', note)
    try {
      const channels: ChannelDirectory = new Proxy(slowly(storage.channels), {
        get: (target, name) => (name === 'changeCount' ? () => Promise.reject(new Error('lost')) : (Reflect.get(target, name) as unknown)),
      })
      const { connect } = await stage({ storage: { ...storage, channels } })
      const { client } = await connect('ann')
      expect((await client.send({ ...TEAM, payload: 'x' })).reasonCode).toBe(Success)
      await new Promise((resolve) => setImmediate(resolve)) // after Node has looked for rejections
      expect(unhandled).toEqual([])
    } finally {
      process.off('unhandledRejection', note)
    }
  })

  test('are not kept about long names, which would fill the memory of whoever lets clients invent them', async () => {
    const { connect, checks } = await asking()
    const { client } = await connect('bob')
    const send = (channelID: string): Promise<unknown> => client.send({ ...of(ChannelType.Live, channelID), payload: 'x', flags: FrameFlag.NoPersist })
    for (const channelID of ['short', 'x'.repeat(32_000)]) await send(channelID)
    const before = checks().length
    await send('short')
    expect(checks()).toHaveLength(before)
    await send('x'.repeat(32_000))
    expect(checks().slice(before)).toEqual(['channel', 'isListed', 'member', 'isListEmpty'])
  })

  test('are asked for every time when nothing is to be kept', async () => {
    const { send, checks } = await asking({ permissionCacheMs: 0 })
    await send()
    await send()
    expect(checks()).toHaveLength(5)
  })

  test('of what the host changes behind the engine’s back hold until then, or until it says so', async () => {
    const { engine, storage, clock, send } = await asking()
    await send()
    await storage.channels.addToList({ channelID: 'team', channelType: ChannelType.Group }, 'deny', ['ann'])
    expect(await send()).toBe(Success)
    engine.channels.invalidate({ channelID: 'team', channelType: ChannelType.Group })
    expect(await send()).toBe(ReasonCode.InBlacklist)
    await storage.channels.removeFromList({ channelID: 'team', channelType: ChannelType.Group }, 'deny', ['ann'])
    expect(await send()).toBe(ReasonCode.InBlacklist)
    await clock.advance(1_000)
    expect(await send()).toBe(Success)
  })

  test('are forgotten when management calls, or a handler, change what they are about', async () => {
    const { engine, clock, send } = await asking()
    const team = { channelID: 'team', channelType: ChannelType.Group }
    await send()
    await engine.channels.denylist.add(team, ['ann'])
    expect(await send()).toBe(ReasonCode.InBlacklist)
    await engine.channels.denylist.remove(team, ['ann'])
    expect(await send()).toBe(Success)
    await engine.users.setFlags('ann', { sendBanned: true })
    expect(await send()).toBe(ReasonCode.SendBan)
    await engine.users.setFlags('ann', { sendBanned: false })
    engine.use('EventOnSend', async function denyNextTime(ctx) {
      await ctx.channels.addToList(ctx.key, 'deny', [ctx.conn.uid])
    })
    expect(await send()).toBe(Success)
    expect(await send()).toBe(ReasonCode.InBlacklist)
    await clock.advance(0)
  })

  test('do not outlive a change that ends while the question is under way', async () => {
    const storage = memoryStorage()
    const gate = deferred<boolean>()
    const asked = deferred()
    let isHeld = false
    const held = (): Promise<boolean> => {
      asked.resolve()
      return gate.promise
    }
    const channels: ChannelDirectory = new Proxy(slowly(storage.channels), {
      get: (target, name) => (name === 'isListed' && isHeld ? held : (Reflect.get(target, name) as unknown)),
    })
    const { engine, connect } = await stage({ storage: { ...storage, channels } })
    const { client } = await connect('ann')
    isHeld = true
    const early = client.send({ ...TEAM, payload: 'early' })
    await asked.promise
    isHeld = false
    await engine.channels.denylist.add(TEAM, ['ann'])
    gate.resolve(false) // the answer of before the change
    expect((await early).reasonCode).toBe(Success)
    expect((await client.send({ ...TEAM, payload: 'late' })).reasonCode).toBe(ReasonCode.InBlacklist)
  })

  test('are bounded: with room for one, one is kept', async () => {
    const { send, checks } = await asking({ maxCachedPermissions: 1 })
    await send()
    await send()
    expect(checks().length).toBeGreaterThanOrEqual(4)
  })
})
