import { describe, expect, test } from 'vitest'
import { ChannelType, FrameFlag, memoryStorage, type Message } from 'imengine'
import { stage, TEAM } from '../support.ts'

const COMMAND = { ...TEAM, payload: 'refresh', flags: FrameFlag.SyncOnce }
const toBob = { channelID: 'bob', channelType: ChannelType.Person, payload: 'typing', flags: FrameFlag.SyncOnce }
const texts = (messages: readonly (Message | undefined)[]): string[] => messages.map((message) => Buffer.from(message!.payload).toString())

describe('M23 CMD / syncOnce and NoPersist semantics', () => {
  test('NoPersist: who is online gets it with seq 0, and nothing is stored, a command or not', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    for (const flags of [FrameFlag.NoPersist, FrameFlag.NoPersist | FrameFlag.SyncOnce]) {
      expect(await ann.send({ ...TEAM, payload: 'x', flags })).toMatchObject({ reasonCode: 1, messageSeq: 0 })
      expect(await bob.nextRecv()).toMatchObject({ messageSeq: 0, flags, channelID: 'team' })
    }
    for (const channelID of ['team', 'team____cmd']) expect(await engine.messages.lastSeq({ ...TEAM, channelID })).toBe(0)
    expect(await engine.messages.commands.sync('bob')).toEqual([])
  })

  test('a command uses no number of its channel, counts as unread for nobody and is in nobody’s history', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    expect(await ann.send(COMMAND)).toMatchObject({ reasonCode: 1, messageSeq: 1 })
    expect(await bob.nextRecv()).toMatchObject({ channelID: 'team', flags: FrameFlag.SyncOnce, text: 'refresh' })
    expect(await ann.send({ ...TEAM, payload: 'first' })).toMatchObject({ messageSeq: 1 })
    expect((await engine.messages.sync(TEAM)).messages.map((message) => message.messageSeq)).toEqual([1])
    const [conversation] = (await engine.conversations.list('cat')).items
    expect(conversation).toMatchObject({ channelID: 'team', lastSeq: 1, unread: 1 })
  })

  test('a command is delivered once per user after they come back, and never again', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    await ann.send(COMMAND)
    await ann.send(toBob) // of two people who have never talked
    await ann.send({ ...TEAM, payload: 'said' })
    const phone = await connect('bob', { deviceID: 'phone' })
    const got = [await phone.client.nextRecv(), await phone.client.nextRecv(), await phone.client.nextRecv()]
    expect(got.map(({ channelID, text }) => `${channelID} ${text}`).sort()).toEqual(['ann typing', 'team refresh', 'team said'])
    await phone.client.ping() // behind the acknowledgements
    expect(await engine.messages.commands.sync('bob')).toEqual([])
    const again = await connect('bob', { deviceID: 'tablet' })
    await ann.send({ ...TEAM, payload: 'end' })
    expect((await again.client.nextRecv()).text).toBe('end')
  })

  test('sync gives what nobody of the user’s devices has, oldest first, until it is acknowledged; login does not push it then', async () => {
    const { engine, clock, connect } = await stage()
    const { client: ann } = await connect('ann')
    await ann.send({ ...COMMAND, payload: '1' })
    await clock.advance(5)
    await ann.send({ ...toBob, payload: '2' })
    await clock.advance(5)
    await engine.messages.send({ ...TEAM, fromUID: 'host', payload: Buffer.from('3'), syncOnce: true })
    const missed = await engine.messages.commands.sync('bob')
    expect(texts(missed)).toEqual(['1', '2', '3'])
    expect(texts(await engine.messages.commands.sync('bob', { limit: 2 }))).toEqual(['1', '2'])
    await engine.messages.commands.ack('bob', [missed[0]!.messageID, missed[2]!.messageID])
    expect(texts(await engine.messages.commands.sync('bob'))).toEqual(['2'])
    const { client: bob } = await connect('bob')
    expect(await bob.nextRecv()).toMatchObject({ text: '2', channelID: 'ann' })
    await bob.ping() // behind the acknowledgement
    expect(await engine.messages.commands.sync('bob')).toEqual([])
    expect(texts(await engine.messages.commands.sync('cat'))).toEqual(['1', '3'])
    await ann.ping()
    expect(await engine.messages.commands.sync('ann')).toEqual([]) // one came while they were here, and their own are not news to them
  })

  test('asking and acknowledging comes to an end, however many of the user’s own and recalled commands are between the others', async () => {
    const { engine } = await stage()
    const command = (fromUID: string): Promise<{ messageID: string }> =>
      engine.messages.send({ ...TEAM, fromUID, payload: Buffer.from(fromUID), syncOnce: true })
    for (let count = 0; count < 40; count++) {
      await command('ann')
      await command('bob')
      await command('ann')
      await engine.messages.recall((await command('ann')).messageID)
    }
    const { commands } = engine.messages
    const got = new Set<string>()
    let pageCount = 0
    for (let page = await commands.sync('bob'); page.length > 0 && pageCount < 10; page = await commands.sync('bob'), pageCount++) {
      for (const { messageID } of page) got.add(messageID)
      await commands.ack('bob', page.map(({ messageID }) => messageID))
    }
    expect([got.size, pageCount < 10]).toEqual([80, true])
  })

  test('what was acknowledged survives a restart', async () => {
    const storage = memoryStorage()
    const before = await stage({ storage })
    const { client: ann } = await before.connect('ann')
    await ann.send({ ...COMMAND, payload: '1' })
    await ann.send({ ...COMMAND, payload: '2' })
    await before.engine.messages.commands.ack('bob', [(await before.engine.messages.commands.sync('bob'))[0]!.messageID])
    await before.engine.close()
    const after = await stage({ storage })
    expect(texts(await after.engine.messages.commands.sync('bob'))).toEqual(['2'])
    expect(texts(await after.engine.messages.commands.sync('cat'))).toEqual(['1', '2'])
  })

  test('who joins a group gets no commands of before, and who leaves gets none at all', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    await ann.send({ ...COMMAND, payload: 'before' })
    await engine.channels.subscribers.add(TEAM, ['dan'])
    await ann.send({ ...COMMAND, payload: 'after' })
    expect(texts(await engine.messages.commands.sync('dan'))).toEqual(['after'])
    await engine.channels.subscribers.remove(TEAM, ['dan'])
    expect(await engine.messages.commands.sync('dan')).toEqual([])
  })

  test('what is sent to the channel of the commands by its name is a command, whatever its flags say', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const named = { ...TEAM, channelID: 'team____cmd' }
    await ann.send({ ...TEAM, payload: 'said' })
    await ann.send({ ...named, payload: 'by a client' })
    await engine.messages.send({ ...named, fromUID: 'ann', payload: Buffer.from('by the host') })
    await engine.messages.send({ ...named, fromUID: 'ann', payload: Buffer.from('denied'), syncOnce: false, redDot: false })
    expect(await bob.nextRecv()).toMatchObject({ channelID: 'team', messageSeq: 1, flags: 0, text: 'said' })
    for (const [index, text] of ['by a client', 'by the host', 'denied'].entries()) {
      expect(await bob.nextRecv()).toMatchObject({ channelID: 'team', messageSeq: index + 1, flags: FrameFlag.SyncOnce, text })
    }
    expect(await engine.messages.commands.sync('cat')).toMatchObject([{ syncOnce: true }, { syncOnce: true }, { syncOnce: true }])
  })

  test('a repeat of a command is the same command', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    const first = await ann.send({ ...COMMAND, clientMsgNo: 'no' })
    expect(await ann.send({ ...COMMAND, clientMsgNo: 'no' })).toMatchObject({ messageID: first.messageID, messageSeq: 1 })
    expect(await engine.messages.commands.sync('bob')).toHaveLength(1)
  })

  test('wrong arguments are TypeErrors, and what is no command is passed over', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    const said = await ann.send({ ...TEAM, payload: 'said' })
    await ann.send(COMMAND)
    const { commands } = engine.messages
    await commands.ack('bob', [said.messageID, '1'])
    expect(await commands.sync('bob')).toHaveLength(1)
    await expect(commands.sync('a@b')).rejects.toThrow(TypeError)
    await expect(commands.sync('bob', { limit: 0 })).rejects.toThrow(/limit/)
    await expect(commands.sync('bob', { limit: 1_001 })).rejects.toThrow(/limit/)
    await expect(commands.ack('bob', 'all' as never)).rejects.toThrow(/messageIDs/)
    await expect(commands.ack('', [])).rejects.toThrow(/uid/)
  })
})
