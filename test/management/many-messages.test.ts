import { expect, test } from 'vitest'
import { ChannelType, personChannelID, type SendRequest } from 'imengine'
import { stage, TEAM } from '../support.ts'

const hi = (text: string): SendRequest => ({ ...TEAM, fromUID: 'ann', payload: Buffer.from(text) })

test('sendMany settles each in its place, and keeps the order of every channel', async () => {
  const { engine, connect } = await stage()
  const bob = await connect('bob')
  const requests = Array.from({ length: 250 }, (_, index) => (index % 50 === 7 ? { ...hi('x'), channelID: 'nowhere' } : hi(String(index))))
  const results = await engine.messages.sendMany(requests)
  const sent = results.flatMap((result) => (result.status === 'sent' ? [result.receipt.messageSeq] : []))
  expect(sent).toEqual(Array.from({ length: 245 }, (_, index) => index + 1))
  expect(results.flatMap((result, index) => (result.status === 'failed' ? [[index, result.error.code]] : []))).toEqual([7, 57, 107, 157, 207].map((index) => [index, 'IM_REFUSED']))
  await bob.client.nextRecv()
  expect(bob.client.messages.map(({ text }) => Number(text))).toEqual(bob.client.messages.map(({ text }) => Number(text)).toSorted((a, b) => a - b))
})

test('a mistake in one request of many sends none of them', async () => {
  const { engine } = await stage()
  await expect(engine.messages.sendMany([hi('a'), { ...hi('b'), fromUID: '' }])).rejects.toThrow(/requests\[1\]\.fromUID must be a uid/)
  await expect(engine.messages.sendMany(Array<SendRequest>(1_001).fill(hi('a')))).rejects.toThrow(/requests must be an array of at most 1000/)
  expect(await engine.messages.lastSeq(TEAM)).toBe(0)
})

test('sendToUsers writes to each once, and names those it could not reach', async () => {
  const { engine } = await stage()
  await engine.channels.create({ channelID: personChannelID('ann', 'cat'), channelType: ChannelType.Person, disband: true })
  const { sent, failed } = await engine.messages.sendToUsers(['bob', 'cat', 'bob'], { fromUID: 'ann', payload: Buffer.from('hi') })
  expect([sent, failed.map(({ uid, error }) => [uid, error.code])]).toEqual([1, [['cat', 'IM_REFUSED']]])
  await expect(engine.messages.sendToUsers([], { fromUID: 'ann', payload: 'hi' as never })).rejects.toThrow(/payload must be/)
})

test('receivers of one message get it and the members do not; nothing is stored', async () => {
  const { engine, clock, connect } = await stage()
  const [bob, dan] = [await connect('bob'), await connect('dan')]
  await engine.messages.sendMany([hi('1'), { ...hi('2'), subscribers: ['dan', 'bob'], noPersist: true }, hi('3')])
  await clock.settle()
  expect(dan.client.messages.map(({ text }) => text)).toEqual(['2'])
  expect(bob.client.messages.map(({ text }) => text)).toEqual(['1', '2', '3'])
  expect(await engine.messages.lastSeq(TEAM)).toBe(2)
  await expect(engine.messages.send({ ...hi('x'), subscribers: ['dan'] })).rejects.toThrow(/noPersist must be true with subscribers/)
})

test('get by numbers answers in the order asked, and a temporary channel need not exist', async () => {
  const { engine } = await stage()
  for (const text of ['a', 'b', 'c']) await engine.messages.send(hi(text))
  const found = await engine.messages.get({ ...TEAM, seqs: [3, 9, 1, 3] })
  expect(found.map((message) => message?.messageSeq)).toEqual([3, undefined, 1, 3])
  await expect(engine.messages.get({ ...TEAM, seqs: [0] })).rejects.toThrow(/seqs\[0\] must be an integer/)
  expect(await engine.messages.send({ ...hi('t'), channelID: 't', channelType: ChannelType.Temp })).toMatchObject({ messageSeq: 1 })
})

test('connections are paged in the order they came, found by address, and closed without a word', async () => {
  const { engine, connect } = await stage()
  for (let index = 0; index < 12; index++) await connect(`u${index}`, { remoteAddress: index < 2 ? '10.0.0.1' : '10.0.0.2' })
  const first = engine.connections.list({}, { limit: 10 })
  const second = engine.connections.list({}, { cursor: first.cursor! })
  expect([...first.items, ...second.items].map(({ uid }) => uid)).toEqual(Array.from({ length: 12 }, (_, index) => `u${index}`))
  expect(second.cursor).toBeUndefined()
  expect(engine.connections.get('1')).toMatchObject({ uid: 'u0' })
  expect(engine.connections.close({ remoteAddress: '10.0.0.1' })).toEqual({ closedCount: 2 })
  expect(engine.connections.count()).toBe(10)
  expect(() => engine.connections.close({})).toThrow(/filter must be/)
  expect(() => engine.connections.list({}, { cursor: 'x' })).toThrow(/cursor must be/)
  expect(() => engine.connections.list({ deviceFlag: -1 })).toThrow(/deviceFlag must be/)
})
