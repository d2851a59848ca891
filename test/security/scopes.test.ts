import { describe, expect, test } from 'vitest'
import { ChannelType, ReasonCode } from 'imengine'
import { FrameType } from 'imengine/protocol'
import { deferred, stage, TEAM } from '../support.ts'

describe('a clientMsgNo', () => {
  // P4
  test('of one user says nothing about the messages of another, also with the same payload or another', async () => {
    const { engine, connect } = await stage()
    const [{ client: ann }, { client: bob }, { client: cat }] = [await connect('ann'), await connect('bob'), await connect('cat')]
    const first = await ann.send({ ...TEAM, payload: 'mine', clientMsgNo: 'no-1' })
    const same = await bob.send({ ...TEAM, payload: 'mine', clientMsgNo: 'no-1' })
    const other = await cat.send({ ...TEAM, payload: 'not yours', clientMsgNo: 'no-1' })
    expect([first, same, other].map(({ reasonCode, messageSeq }) => [reasonCode, messageSeq])).toEqual([[1, 1], [1, 2], [1, 3]])
    const [stored] = await engine.messages.get([String(first.messageID)])
    expect(stored).toMatchObject({ fromUID: 'ann', messageSeq: 1 })
    expect(Buffer.from(stored!.payload).toString()).toBe('mine')
  })

  test('of one channel says nothing about another, and one that looks like sender and number together is its own', async () => {
    const { engine, connect } = await stage()
    await engine.channels.create({ channelID: 'tea', channelType: ChannelType.Group }, { subscribers: ['ann', 'annm'] })
    const [{ client: ann }, { client: annm }] = [await connect('ann'), await connect('annm')]
    const sent = [
      await ann.send({ ...TEAM, payload: 'x', clientMsgNo: 'm1' }),
      await ann.send({ channelID: 'tea', channelType: ChannelType.Group, payload: 'x', clientMsgNo: 'm1' }),
      await ann.send({ channelID: 'tea', channelType: ChannelType.Group, payload: 'x', clientMsgNo: 'mm1' }),
      await annm.send({ channelID: 'tea', channelType: ChannelType.Group, payload: 'x', clientMsgNo: 'm1' }),
      await annm.send({ channelID: 'tea', channelType: ChannelType.Group, payload: 'x', clientMsgNo: '\u0000m1' }),
    ]
    expect(sent.map(({ reasonCode, messageSeq }) => [reasonCode, messageSeq])).toEqual([[1, 1], [1, 1], [1, 2], [1, 3], [1, 4]])
    expect(new Set(sent.map(({ messageID }) => messageID)).size).toBe(sent.length)
  })
})

describe('a RECVACK', () => {
  test('for a messageID that was guessed moves nobody’s position, and takes nothing from whom it was sent to', async () => {
    const { connect, clock } = await stage()
    const { client: ann } = await connect('ann')
    const silent = await connect('cat', { autoAck: false })
    const { client: mallory } = await connect('mallory')
    const { messageID, messageSeq } = await ann.send({ ...TEAM, payload: 'for the team' })
    const secret = await ann.send({ channelID: 'cat', channelType: ChannelType.Person, payload: 'for cat' })
    for (const each of [{ messageID, messageSeq }, secret]) {
      mallory.ack({ flags: 0, messageID: String(each.messageID), messageSeq: each.messageSeq })
      mallory.ack({ flags: 0, messageID: String(each.messageID), messageSeq: 0xffff_ffff })
    }
    await clock.advance(2_000)
    silent.client.end()
    await clock.settle()
    const { client: cat } = await connect('cat')
    await clock.advance(1_000)
    expect(cat.messages.map(({ text }) => text).toSorted()).toEqual(['for cat', 'for the team'])
    expect(mallory.messages).toEqual([])
  })

  test('that names another seq than the message has moves the position by the message alone', async () => {
    const { engine, connect, clock } = await stage()
    const { client: bob } = await connect('bob', { autoAck: false })
    for (const text of ['1', '2', '3']) await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(text) })
    await clock.settle()
    const [first] = bob.messages
    bob.ack({ ...first!, messageSeq: 3 })
    await clock.advance(2_000)
    bob.end()
    const again = await connect('bob')
    await clock.advance(1_000)
    expect(again.client.messages.map(({ text }) => text)).toEqual(['2', '3'])
  })
})

describe('a user who is sent away', () => {
  test.each(['ban', 'quitDevice'] as const)('by %s: what waits for an answer is refused, what comes later is not heard, and nothing is stored', async (how) => {
    const answer = deferred<{ code: number }>()
    const { engine, connect, clock } = await stage({ webhook: { beforeSend: () => answer.promise } })
    const { client: ann, pair } = await connect('ann')
    const waiting = [ann.send({ ...TEAM, payload: 'asked about' }), ann.send({ ...TEAM, payload: 'behind it' })]
    await clock.settle()
    await (how === 'ban' ? engine.users.ban('ann') : engine.users.quitDevice('ann'))
    const late = ann.send({ ...TEAM, payload: 'late' }).catch(() => 'not heard')
    answer.resolve({ code: 0 })
    for (const ack of await Promise.all(waiting)) expect(ack).toMatchObject({ reasonCode: ReasonCode.ConnectKick, messageSeq: 0 })
    await clock.advance(3_000)
    expect(await late).toBe('not heard')
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    expect(ann.received.map(({ type }) => type)).toEqual([FrameType.CONNACK, FrameType.DISCONNECT, FrameType.SENDACK, FrameType.SENDACK])
  })

  test('while their login is under way is not let in', async () => {
    const verdict = deferred<{ ok: true }>()
    const { engine, connect, clock } = await stage({ tokenVerifier: () => verdict.promise })
    const login = connect('ann').then(() => 'let in', () => 'sent away')
    await clock.settle()
    await engine.users.ban('ann')
    verdict.resolve({ ok: true })
    await clock.advance(1_000)
    expect(await login).toBe('sent away')
    expect(engine.connections.list()).toEqual([])
  })
})
