import { describe, expect, test } from 'vitest'
import { ChannelType, type ChannelKey, type IMEngine } from 'imengine'
import { stage } from '../support.ts'

const of = (channelType: number, channelID: string): ChannelKey => ({ channelID, channelType })

interface Row {
  readonly what: string
  readonly from: string
  readonly to: ChannelKey
  readonly given?: (engine: IMEngine) => Promise<unknown>
  /** of ann, bob, cat and dan, whoever is not the sender: who gets it, and as which channel they see it */
  readonly receivers: Readonly<Record<string, string>>
}

const members = (key: ChannelKey, ...uids: string[]) => (engine: IMEngine): Promise<unknown> => engine.channels.create(key, { subscribers: uids })
const all = (...steps: ((engine: IMEngine) => Promise<unknown>)[]) => async (engine: IMEngine): Promise<void> => {
  for (const step of steps) await step(engine)
}

const rows: readonly Row[] = [
  { what: 'a person: the other one', from: 'ann', to: of(ChannelType.Person, 'bob'), receivers: { bob: 'ann' } },
  { what: 'a person’s commands: the other one, who sees the person', from: 'ann', to: of(ChannelType.Person, 'bob____cmd'), receivers: { bob: 'ann' } },
  { what: 'a group: its members', from: 'ann', to: of(ChannelType.Group, 'g'), given: members(of(ChannelType.Group, 'g'), 'ann', 'bob', 'cat'), receivers: { bob: 'g', cat: 'g' } },
  { what: 'a group’s commands: its members, who see the group', from: 'ann', to: of(ChannelType.Group, 'g____cmd'), given: members(of(ChannelType.Group, 'g'), 'ann', 'bob'), receivers: { bob: 'g' } },
  { what: 'an agent’s channel: the other one of the two in its id', from: 'ann', to: of(ChannelType.Agent, 'ann@bob'), receivers: { bob: 'ann@bob' } },
  { what: 'a visitor’s channel, from the visitor: the desk', from: 'ann', to: of(ChannelType.Visitors, 'ann'), given: members(of(ChannelType.CustomerService, 'ann'), 'bob', 'cat'), receivers: { bob: 'ann', cat: 'ann' } },
  { what: 'a visitor’s channel, from the desk: the visitor and the rest of the desk', from: 'bob', to: of(ChannelType.Visitors, 'ann'), given: members(of(ChannelType.CustomerService, 'ann'), 'ann', 'bob', 'cat'), receivers: { ann: 'ann', cat: 'ann' } },
  { what: 'a topic with members of its own: they', from: 'ann', to: of(ChannelType.CommunityTopic, 'town@news'), given: all(members(of(ChannelType.Community, 'town'), 'bob', 'cat'), members(of(ChannelType.CommunityTopic, 'town@news'), 'dan')), receivers: { dan: 'town@news' } },
  { what: 'a topic without: the members of its community', from: 'ann', to: of(ChannelType.CommunityTopic, 'town@news'), given: members(of(ChannelType.Community, 'town'), 'bob', 'cat'), receivers: { bob: 'town@news', cat: 'town@news' } },
  { what: 'a topic that names no community: nobody', from: 'ann', to: of(ChannelType.CommunityTopic, 'news'), given: members(of(ChannelType.Community, 'town'), 'bob'), receivers: {} },
  { what: 'a live channel: its members', from: 'ann', to: of(ChannelType.Live, 'show'), given: members(of(ChannelType.Live, 'show'), 'bob'), receivers: { bob: 'show' } },
  { what: 'an info channel: its members', from: 'ann', to: of(ChannelType.Info, 'info'), given: members(of(ChannelType.Info, 'info'), 'cat', 'dan'), receivers: { cat: 'info', dan: 'info' } },
  { what: 'a customer service channel: its members', from: 'ann', to: of(ChannelType.CustomerService, 'desk'), given: members(of(ChannelType.CustomerService, 'desk'), 'bob'), receivers: { bob: 'desk' } },
  { what: 'a temporary channel without members: nobody', from: 'ann', to: of(ChannelType.Temp, 'x'), receivers: {} },
]

describe('who gets a message, by the type of its channel', () => {
  test.each(rows.map((row) => [row.what, row] as const))('%s', async (_what, { from, to, given, receivers }) => {
    const { engine, connect } = await stage()
    await given?.(engine)
    const people = ['ann', 'bob', 'cat', 'dan'].filter((uid) => uid !== from)
    const clients = await Promise.all(people.map(async (uid) => [uid, (await connect(uid)).client] as const))
    const { client: sender } = await connect(from)
    expect(await sender.send({ ...to, payload: 'x' })).toMatchObject({ reasonCode: 1, messageSeq: 1 })
    // Behind what was sent in the same lane: whoever has got this has got everything.
    for (const uid of people) await engine.messages.send({ ...of(ChannelType.Person, uid), fromUID: 'last', payload: Buffer.from('end') })
    const got: Record<string, string> = {}
    for (const [uid, client] of clients) {
      for (let recv = await client.nextRecv(); recv.text !== 'end'; recv = await client.nextRecv()) got[uid] = recv.channelID
    }
    expect(got).toEqual(receivers)
  })

  test('what is said in a command channel is no conversation, and not in the history of the channel it belongs to', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    await ann.send({ ...of(ChannelType.Person, 'bob____cmd'), payload: 'typing' })
    expect((await engine.conversations.list('bob')).items).toEqual([])
    expect(await engine.messages.lastSeq(of(ChannelType.Person, 'ann@bob'))).toBe(0)
    expect(await engine.messages.lastSeq(of(ChannelType.Person, 'bob@ann'))).toBe(0)
    const commands = (await Promise.all(['ann@bob____cmd', 'bob@ann____cmd'].map((id) => engine.messages.lastSeq(of(ChannelType.Person, id))))).sort()
    expect(commands).toEqual([0, 1])
  })

  test('an agent’s channel that was created is a conversation of both, with what was missed', async () => {
    const { engine, connect } = await stage()
    const key = of(ChannelType.Agent, 'ann@helper')
    await engine.channels.create(key)
    const { client: ann } = await connect('ann')
    await ann.send({ ...key, payload: 'a question' })
    expect((await engine.conversations.list('helper')).items).toMatchObject([{ channelID: 'ann@helper', unread: 1 }])
    const { client: helper } = await connect('helper')
    expect((await helper.nextRecv()).text).toBe('a question')
  })

  test('deleting a channel with its messages takes its commands along, and their numbers go on', async () => {
    const { engine } = await stage()
    const key = of(ChannelType.Group, 'g')
    const command = { ...key, fromUID: 'host', payload: Buffer.from('x'), syncOnce: true }
    await engine.channels.create(key, { subscribers: ['ann'] })
    await engine.messages.send(command)
    await engine.channels.delete(key, { messages: true })
    await engine.channels.create(key, { subscribers: ['ann'] })
    expect(await engine.messages.commands.sync('ann')).toEqual([])
    expect(await engine.messages.send(command)).toMatchObject({ messageSeq: 2 })
    expect(await engine.messages.commands.sync('ann')).toHaveLength(1)
  })

  test('nobody can be called like a command channel', async () => {
    const { connect } = await stage()
    await expect(connect('bob____cmd')).rejects.toThrow()
  })
})
