import { ChannelType, memoryReplicatorHub, memoryStorage, personChannelID, ReasonCode, type Message, type Replicator } from 'imengine'
import type { TestClient } from 'imengine/testing'
import { describe, expect, test } from 'vitest'
import { FrameType, type EventPacket } from '../../src/model/frames.ts'
import { heard } from '../connection/raw.ts'
import { deferred, stage, storageWith, TEAM, type Stage } from '../support.ts'

const bytes = (text: string): Uint8Array => Buffer.from(text)

async function send(made: Stage, text = 'hello', fromUID = 'ann'): Promise<string> {
  return (await made.engine.messages.send({ ...TEAM, fromUID, payload: bytes(text) })).messageID
}

async function history({ engine }: Stage, forUID?: string): Promise<string[]> {
  const shown: string[] = []
  for await (const message of engine.messages.range(TEAM, forUID === undefined ? {} : { forUID })) shown.push(shownAs(message))
  return shown
}

function shownAs({ payload, revision }: Message): string {
  return `${Buffer.from(payload).toString()}${revision === undefined ? '' : ` (${revision.kind} ${revision.version})`}`
}

function eventsOf(client: TestClient): { type: string; data: Record<string, unknown> }[] {
  const events = client.received.filter((frame): frame is EventPacket => frame.type === FrameType.EVENT)
  return events.map(({ eventType, data }) => ({ type: eventType, data: JSON.parse(Buffer.from(data).toString()) as Record<string, unknown> }))
}

describe('recall', () => {
  test('leaves a tombstone in the history under the same number, and says who and when', async () => {
    const made = await stage()
    await send(made, 'one')
    const messageID = await send(made, 'two')
    const recalled = await made.engine.messages.recall(messageID, { byUID: 'ann' })
    expect(recalled.revision).toEqual({ kind: 'recalled', version: 1, byUID: 'ann', timestampMs: made.clock.nowMs() })
    expect(await history(made)).toEqual(['one', ' (recalled 1)'])
    expect((await made.engine.messages.get([messageID]))[0]).toMatchObject({ messageSeq: 2, fromUID: 'ann' })
  })

  test('is told by EVENT to every connection of the members, of version 5 and above only', async () => {
    const made = await stage()
    const [bob, old] = [await made.connect('bob'), await made.connect('cat', { version: 4 })]
    const messageID = await send(made)
    await made.clock.settle()
    await made.engine.messages.recall(messageID, { byUID: 'ann' })
    await made.clock.settle()
    expect(eventsOf(bob.client)).toEqual([
      {
        type: 'message.recalled',
        data: { ...TEAM, messageID, messageSeq: 1, clientMsgNo: bob.client.messages[0]!.clientMsgNo, fromUID: 'ann', version: 1, byUID: 'ann' },
      },
    ])
    expect(eventsOf(old.client)).toEqual([])
  })

  test("names a person's channel as each of the two sees it", async () => {
    const made = await stage()
    const [ann, bob] = [await made.connect('ann'), await made.connect('bob')]
    const { messageID } = await ann.client.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'psst' })
    await made.engine.messages.recall(messageID)
    await made.clock.settle()
    expect(eventsOf(ann.client)[0]?.data).toMatchObject({ channelID: 'bob' })
    expect(eventsOf(bob.client)[0]?.data).toMatchObject({ channelID: 'ann' })
  })

  test('again changes nothing and tells nobody; editing it afterwards is refused', async () => {
    const made = await stage()
    const bob = await made.connect('bob')
    const revised = heard(made.engine, 'messageRevised')
    const messageID = await send(made)
    await made.engine.messages.recall(messageID)
    const again = await made.engine.messages.recall(messageID, { byUID: 'cat' })
    await expect(made.engine.messages.edit(messageID, bytes('other'))).rejects.toMatchObject({ code: 'IM_MESSAGE_NOT_FOUND' })
    await made.clock.settle()
    expect(again.revision).toMatchObject({ byUID: '', version: 1 })
    expect(eventsOf(bob.client)).toHaveLength(1)
    expect(revised).toHaveLength(1)
    expect(await history(made)).toEqual([' (recalled 1)'])
  })

  test('twice at once is told once', async () => {
    const made = await stage()
    const bob = await made.connect('bob')
    const messageID = await send(made)
    await Promise.all([made.engine.messages.recall(messageID), made.engine.messages.recall(messageID)])
    await made.clock.settle()
    expect(eventsOf(bob.client)).toHaveLength(1)
  })

  test('of a message that was pushed and not acknowledged: it is not sent again, and not replayed', async () => {
    const made = await stage({ limits: { redeliverAfterMs: 5_000 } })
    const bob = await made.connect('bob', { autoAck: false })
    const messageID = await send(made)
    await made.clock.settle()
    await made.engine.messages.recall(messageID)
    await made.clock.advance(20_000)
    expect(bob.client.messages).toHaveLength(1)
    bob.client.end()
    const again = await made.connect('bob')
    await made.clock.settle()
    expect(again.client.messages).toEqual([])
  })

  test('is not sent again to who has left the channel meanwhile, and is not told that it was recalled', async () => {
    const made = await stage({ limits: { redeliverAfterMs: 5_000 } })
    const bob = await made.connect('bob', { autoAck: false })
    const [recalled, left] = [await send(made, 'recalled'), await send(made, 'left')]
    await made.clock.settle()
    await made.engine.channels.subscribers.remove(TEAM, ['bob'])
    await made.engine.messages.recall(recalled)
    await made.clock.advance(6_000)
    expect(bob.client.messages.map(({ messageID }) => messageID)).toEqual([recalled, left, left])
    expect(eventsOf(bob.client)).toEqual([])
    await made.clock.advance(60_000)
    expect(bob.client.messages.filter(({ messageID }) => messageID === recalled)).toHaveLength(1)
  })

  test('before its push has gone out keeps it from ever being seen', async () => {
    const storage = memoryStorage()
    const { promise, resolve } = deferred()
    let isHeld = false
    const members = storage.channels.members.bind(storage.channels)
    storage.channels.members = async (key, query) => {
      if (isHeld) await promise
      return members(key, query)
    }
    const made = await stage({ storage, limits: { subscriberCacheMs: 0 } })
    const bob = await made.connect('bob')
    isHeld = true
    const messageID = await send(made, 'too hasty')
    const recalled = made.engine.messages.recall(messageID)
    resolve()
    await recalled
    await made.clock.settle()
    expect(bob.client.messages).toEqual([])
    expect(eventsOf(bob.client)).toHaveLength(1)
  })
})

describe('edit', () => {
  test('shows the new payload and the version in the history, and is told by EVENT without the content', async () => {
    const made = await stage()
    const bob = await made.connect('bob')
    const messageID = await send(made, 'helo')
    await made.clock.settle()
    await made.engine.messages.edit(messageID, bytes('hello'), { byUID: 'ann' })
    const twice = await made.engine.messages.edit(messageID, bytes('hello!'))
    await made.clock.settle()
    expect(shownAs(twice)).toBe('hello! (edited 2)')
    expect(await history(made)).toEqual(['hello! (edited 2)'])
    expect(eventsOf(bob.client).map(({ type, data }) => [type, data['version']])).toEqual([['message.edited', 1], ['message.edited', 2]])
    expect(JSON.stringify(eventsOf(bob.client))).not.toContain('hello!')
  })

  test('of a message that is not acknowledged: what is sent again is the new one', async () => {
    const made = await stage({ limits: { redeliverAfterMs: 5_000 } })
    const bob = await made.connect('bob', { autoAck: false })
    const messageID = await send(made, 'helo')
    await made.clock.settle()
    await made.engine.messages.edit(messageID, bytes('hello'))
    await made.clock.advance(6_000)
    expect(bob.client.messages.map(({ text }) => text)).toEqual(['helo', 'hello'])
  })

  test('of a message that who has left the channel has not acknowledged: what is sent again is the new one', async () => {
    const made = await stage({ limits: { redeliverAfterMs: 5_000 } })
    const bob = await made.connect('bob', { autoAck: false })
    const messageID = await send(made, 'helo')
    await made.clock.settle()
    await made.engine.channels.subscribers.remove(TEAM, ['bob'])
    await made.engine.messages.edit(messageID, bytes('hello'))
    await made.clock.advance(6_000)
    expect(bob.client.messages.map(({ text }) => text)).toEqual(['helo', 'hello'])
  })

  test('does not make the sender’s repeat another message', async () => {
    const made = await stage()
    const ann = await made.connect('ann')
    const packet = { ...TEAM, payload: 'helo', clientMsgNo: 'no-1' }
    const first = await ann.client.send(packet)
    await made.engine.messages.edit(first.messageID, bytes('hello'))
    expect(await ann.client.send(packet)).toMatchObject({ messageID: first.messageID, messageSeq: 1, reasonCode: ReasonCode.Success })
    expect((await ann.client.send({ ...packet, payload: 'hello' })).reasonCode).toBe(ReasonCode.SystemError)
    expect(await history(made)).toEqual(['hello (edited 1)'])
  })
})

describe('deleteFor', () => {
  test('hides messages from one user’s history only, and tells that user’s devices only', async () => {
    const made = await stage()
    const [bob, cat] = [await made.connect('bob'), await made.connect('cat')]
    const ids = [await send(made, 'one'), await send(made, 'two'), await send(made, 'three')]
    await made.clock.settle()
    expect(await made.engine.messages.deleteFor('bob', [ids[1]!, '12345'])).toEqual({ deletedCount: 1 })
    await made.clock.settle()
    expect(await history(made, 'bob')).toEqual(['one', 'three'])
    expect(await history(made, 'cat')).toEqual(['one', 'two', 'three'])
    expect(await history(made)).toEqual(['one', 'two', 'three'])
    expect(eventsOf(bob.client)).toMatchObject([{ type: 'message.deleted', data: { messageID: ids[1], messageSeq: 2 } }])
    expect(eventsOf(cat.client)).toEqual([])
  })

  test('keeps the pages of a history full', async () => {
    const made = await stage()
    const ids: string[] = []
    for (let index = 1; index <= 10; index++) ids.push(await send(made, String(index)))
    await made.engine.messages.deleteFor('bob', [ids[1]!, ids[2]!, ids[8]!])
    const page = await made.engine.messages.sync(TEAM, { startSeq: 1, limit: 5, forUID: 'bob' })
    expect(page.messages.map(shownAs)).toEqual(['1', '4', '5', '6', '7'])
    expect(page.more).toBe(true)
  })
})

describe('what cannot be done', () => {
  test.each<[string, (made: Stage) => Promise<unknown>]>([
    ['recalling', (made) => made.engine.messages.recall('77')],
    ['editing', (made) => made.engine.messages.edit('77', bytes('x'))],
  ])('%s a message that is not there is IM_MESSAGE_NOT_FOUND', async (_name, call) => {
    await expect(call(await stage())).rejects.toMatchObject({ code: 'IM_MESSAGE_NOT_FOUND', retryable: false })
  })

  test.each<[string, (made: Stage) => Promise<unknown>, RegExp]>([
    ['an id that is none', (made) => made.engine.messages.recall('x'), /messageIDs\[0\] must be/],
    ['a payload that is none', (made) => made.engine.messages.edit('77', 'x' as never), /payload must be/],
    ['a payload that is too long', (made) => made.engine.messages.edit('77', new Uint8Array(40_000)), /payload must be/],
    ['somebody who is nobody', (made) => made.engine.messages.recall('77', { byUID: 'a@b' }), /byUID must be/],
    ['too many at once', (made) => made.engine.messages.deleteFor('bob', Array<string>(1_001).fill('7')), /at most 1000/],
    ['a user who is none', (made) => made.engine.messages.deleteFor('', ['7']), /uid must be/],
  ])('%s is a TypeError', async (_name, call, message) => {
    const made = await stage()
    await expect(call(made)).rejects.toThrow(TypeError)
    await expect(call(made)).rejects.toThrow(message)
  })

  test('a change with a replicator that takes messages only is IM_NOT_SUPPORTED', async () => {
    const log = memoryReplicatorHub().replicator()
    const replicator: Replicator = {
      start: (host) => log.start(host),
      propose: (key, messages, signal) => log.propose(key, messages, signal),
      close: () => log.close(),
    }
    const made = await stage({ replicator })
    await expect(made.engine.messages.recall('77')).rejects.toMatchObject({ code: 'IM_NOT_SUPPORTED' })
  })

  test('a store that fails is the caller’s to hear, and nobody is told of a change', async () => {
    const storage = memoryStorage()
    const revise = (): never => {
      throw new Error('disk')
    }
    const made = await stage({ storage: storageWith(storage, { revise }) })
    const bob = await made.connect('bob')
    const messageID = await send(made)
    await expect(made.engine.messages.recall(messageID)).rejects.toThrow('disk')
    await made.clock.settle()
    expect(eventsOf(bob.client)).toEqual([])
  })
})

test('messages are found by the numbers their sender gave them', async () => {
  const made = await stage()
  const ann = await made.connect('ann')
  await ann.client.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'psst', clientMsgNo: 'n-1' })
  const key = { channelID: personChannelID('ann', 'bob'), channelType: ChannelType.Person }
  const found = await made.engine.messages.get({ ...key, fromUID: 'ann', clientMsgNos: ['n-2', 'n-1'] })
  expect(found.map((message) => message?.messageSeq)).toEqual([undefined, 1])
})
