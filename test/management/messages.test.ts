import { describe, expect, test } from 'vitest'
import {
  channelInfo, ChannelType, IMEngine, allowAnyToken, memoryStorage, personChannelID, ReasonCode, type IMEngineOptions, type Message, type HistoryQuery, type SendRequest,
} from 'imengine'
import { settled } from '../events/workload.ts'
import { deferred, stage, storageWith, TEAM } from '../support.ts'

const hi: SendRequest = { ...TEAM, fromUID: 'ann', payload: Buffer.from('hi') }

/** A storage whose directory answers `channel` as given once the stage has made its team. */
function withChannel(channel: () => never): Partial<IMEngineOptions> {
  const storage = memoryStorage()
  const directory = storage.channels
  const ask = directory.channel.bind(directory)
  const put = directory.putMembers.bind(directory)
  directory.putMembers = (key, members) => {
    directory.channel = channel
    return put(key, members)
  }
  directory.channel = ask
  return { storage }
}

async function collect(messages: AsyncIterable<Message>): Promise<Message[]> {
  const all: Message[] = []
  for await (const message of messages) all.push(message)
  return all
}

describe('send', () => {
  test('resolves with the ids under which it is stored, and the members get it', async () => {
    const { engine, clock, connect } = await stage()
    const bob = await connect('bob')
    const receipt = await engine.messages.send({ ...hi, clientMsgNo: 'no-1', expireSec: 60, topic: 'lunch' })
    expect(receipt).toEqual({ messageID: expect.stringMatching(/^[1-9]\d*$/) as string, messageSeq: 1, clientMsgNo: 'no-1' })
    expect(await bob.client.nextRecv()).toMatchObject({ ...TEAM, messageID: receipt.messageID, messageSeq: 1, fromUID: 'ann', text: 'hi', topic: 'lunch', expireSec: 60 })
    const [stored] = await engine.messages.get([receipt.messageID])
    expect(stored).toMatchObject({
      ...TEAM, messageID: receipt.messageID, messageSeq: 1, clientMsgNo: 'no-1', fromUID: 'ann', timestampMs: clock.nowMs(), redDot: true, noPersist: false,
    })
  })

  test('with the same clientMsgNo gives the same answer, and stores and delivers once', async () => {
    const { engine, clock, connect } = await stage()
    const bob = await connect('bob')
    const first = await engine.messages.send({ ...hi, clientMsgNo: 'no-1' })
    expect(await engine.messages.send({ ...hi, clientMsgNo: 'no-1' })).toEqual(first)
    const both = await Promise.all([engine.messages.send({ ...hi, clientMsgNo: 'no-2' }), engine.messages.send({ ...hi, clientMsgNo: 'no-2' })])
    expect(both[0]).toEqual(both[1])
    await clock.settle()
    expect(bob.client.messages.map(({ messageSeq }) => messageSeq)).toEqual([1, 2])
    expect(await engine.messages.lastSeq(TEAM)).toBe(2)
  })

  test('with the same clientMsgNo and another payload is refused and stored nowhere', async () => {
    const { engine } = await stage()
    await engine.messages.send({ ...hi, clientMsgNo: 'no-1' })
    await expect(engine.messages.send({ ...hi, clientMsgNo: 'no-1', payload: Buffer.from('ho') })).rejects.toMatchObject({
      code: 'IM_REFUSED', context: { reasonCode: ReasonCode.IdempotencyConflict },
    })
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
  })

  test('a group that another node creates, or opens again, is there for the next call, though this node remembers that it was not', async () => {
    const storage = memoryStorage()
    const ask = storage.channels.channel.bind(storage.channels)
    storage.channels.channel = (key) => Promise.resolve(ask(key)) // what comes as a promise is remembered
    const { engine } = await stage({ storage })
    const late = { channelID: 'late', channelType: ChannelType.Group }
    const send = (): Promise<unknown> => engine.messages.send({ ...late, fromUID: 'ann', payload: Buffer.from('hi') })
    await expect(send()).rejects.toMatchObject({ context: { reasonCode: ReasonCode.ChannelNotExist } })
    await storage.channels.putChannel(channelInfo(late, { disband: true }))
    await expect(send()).rejects.toMatchObject({ context: { reasonCode: ReasonCode.Disband } })
    await storage.channels.putChannel(channelInfo(late))
    expect(await send()).toMatchObject({ messageSeq: 1 })
  })

  test('without a clientMsgNo is new every time', async () => {
    const { engine } = await stage()
    const receipts = [await engine.messages.send(hi), await engine.messages.send(hi)]
    expect(receipts.map(({ messageSeq }) => messageSeq)).toEqual([1, 2])
    expect(new Set(receipts.map(({ clientMsgNo }) => clientMsgNo)).size).toBe(2)
  })

  test('calls are stored in the order in which they were made, with and without a clientMsgNo', async () => {
    const { engine } = await stage()
    const receipts = await Promise.all(
      ['1', '2', '3', '4'].map((text) => {
        return engine.messages.send({ ...hi, payload: Buffer.from(text), ...(text === '2' || text === '4' ? { clientMsgNo: `no-${text}` } : {}) })
      }),
    )
    expect(receipts.map(({ messageSeq }) => messageSeq)).toEqual([1, 2, 3, 4])
  })

  test('copies the payload: the caller may reuse its buffer at once', async () => {
    const { engine } = await stage()
    const payload = Buffer.from('mine')
    const sending = engine.messages.send({ ...hi, payload })
    payload.fill(0)
    const { messageID } = await sending
    const [stored] = await engine.messages.get([messageID])
    expect(Buffer.from(stored!.payload).toString()).toBe('mine')
  })

  test('to a person needs no channel and reaches both ends, each under the name of the other', async () => {
    const { engine, connect } = await stage()
    const ann = await connect('ann')
    const bob = await connect('bob')
    const { messageID } = await engine.messages.send({ ...hi, channelID: 'bob', channelType: ChannelType.Person })
    expect(await ann.client.nextRecv()).toMatchObject({ messageID, channelID: 'bob', channelType: 1 })
    expect(await bob.client.nextRecv()).toMatchObject({ messageID, channelID: 'ann', channelType: 1 })
    const key = { channelID: personChannelID('ann', 'bob'), channelType: ChannelType.Person }
    expect(await engine.messages.lastSeq(key)).toBe(1)
  })

  test('asks neither lists nor bans nor membership: the host is trusted', async () => {
    const { engine } = await stage()
    await engine.channels.create({ ...TEAM, ban: true })
    await engine.channels.denylist.add(TEAM, ['stranger'])
    await engine.users.setFlags('stranger', { sendBanned: true })
    expect(await engine.messages.send({ ...hi, fromUID: 'stranger' })).toMatchObject({ messageSeq: 1 })
  })

  test('to a group that does not exist is refused', async () => {
    const { engine } = await stage()
    await expect(engine.messages.send({ ...hi, channelID: 'nowhere' })).rejects.toMatchObject({
      name: 'IMError', code: 'IM_REFUSED', retryable: false, context: { channelID: 'nowhere', reasonCode: ReasonCode.ChannelNotExist },
    })
  })

  test('of what is stored nowhere has seq 0, uses up no number, and reaches who is online', async () => {
    const { engine, connect } = await stage()
    const bob = await connect('bob')
    expect(await engine.messages.send({ ...hi, noPersist: true })).toMatchObject({ messageSeq: 0 })
    expect((await bob.client.nextRecv()).text).toBe('hi')
    expect(await engine.messages.send(hi)).toMatchObject({ messageSeq: 1 })
  })

  test('when the store fails rejects with IM_SEND_FAILED, which may be tried again', async () => {
    let fails = true
    const storage = memoryStorage()
    const { engine } = await stage({
      storage: storageWith(storage, {
        append: (batches) => {
          if (fails) throw new Error('disk full')
          return storage.messages.append(batches)
        },
      }),
    })
    await expect(engine.messages.send({ ...hi, clientMsgNo: 'no-1' })).rejects.toMatchObject({
      code: 'IM_SEND_FAILED', retryable: true, context: { reasonCode: ReasonCode.SystemError },
    })
    fails = false
    expect(await engine.messages.send({ ...hi, clientMsgNo: 'no-1' })).toMatchObject({ messageSeq: 1 })
  })

  test("at the bound of the channel's queue rejects with IM_QUEUE_FULL, and the ones before it are stored", async () => {
    const answer = deferred()
    const storage = memoryStorage()
    const { engine } = await stage({
      limits: { maxQueuedPerChannel: 2 },
      storage: storageWith(storage, { append: (batches) => answer.promise.then(() => storage.messages.append(batches)) }),
    })
    const accepted = [engine.messages.send(hi), engine.messages.send(hi)]
    await settled()
    await expect(engine.messages.send(hi)).rejects.toMatchObject({ code: 'IM_QUEUE_FULL', retryable: true })
    answer.resolve()
    expect((await Promise.all(accepted)).map(({ messageSeq }) => messageSeq)).toEqual([1, 2])
  })

  test('to a directory that fails rejects with IM_DIRECTORY_UNAVAILABLE', async () => {
    const { engine } = await stage(withChannel(() => Promise.reject(new Error('down')) as never))
    await expect(engine.messages.send(hi)).rejects.toMatchObject({ code: 'IM_DIRECTORY_UNAVAILABLE', cause: { message: 'down' } })
  })

  test.each(['before start', 'after close'])('%s rejects with IM_NOT_RUNNING', async (when) => {
    const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
    if (when === 'after close') {
      await engine.start()
      await engine.close()
    }
    await expect(engine.messages.send(hi)).rejects.toMatchObject({ code: 'IM_NOT_RUNNING' })
  })
})

describe('the signal of a send', () => {
  test('aborted before the call: IM_ABORTED, and nothing is stored', async () => {
    const { engine, clock } = await stage()
    await expect(engine.messages.send({ ...hi, signal: AbortSignal.abort(new Error('no time')) })).rejects.toMatchObject({ code: 'IM_ABORTED' })
    await clock.settle()
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
  })

  test('aborted while the store works: IM_ABORTED at once; the message is stored all the same', async () => {
    const answer = deferred()
    const storage = memoryStorage()
    const { engine, clock } = await stage({
      storage: storageWith(storage, { append: (batches) => answer.promise.then(() => storage.messages.append(batches)) }),
    })
    const controller = new AbortController()
    const sending = engine.messages.send({ ...hi, signal: controller.signal })
    await clock.settle()
    controller.abort(new Error('no time'))
    await expect(sending).rejects.toMatchObject({ code: 'IM_ABORTED', cause: { message: 'no time' } })
    answer.resolve()
    await clock.settle()
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
  })

  test('aborted while the directory hangs: IM_ABORTED at once', async () => {
    const { engine, clock } = await stage(withChannel(() => deferred().promise as never))
    const controller = new AbortController()
    let outcome: unknown
    engine.messages.send({ ...hi, signal: controller.signal }).catch((reason: unknown) => (outcome = reason))
    await clock.settle()
    controller.abort()
    await clock.settle()
    expect(outcome).toMatchObject({ code: 'IM_ABORTED' })
  })

  test('aborted while the directory is asked: nothing is stored', async () => {
    const answer = deferred<unknown>()
    const { engine, clock } = await stage(withChannel(() => answer.promise as never))
    const controller = new AbortController()
    const sending = engine.messages.send({ ...hi, signal: controller.signal })
    const rejected = expect(sending).rejects.toMatchObject({ code: 'IM_ABORTED' })
    await clock.settle()
    controller.abort()
    answer.resolve({ ...TEAM, ban: false, disband: false })
    await rejected
    await clock.settle()
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
  })

  test('aborted afterwards changes nothing, and is not listened to any more', async () => {
    const { engine } = await stage()
    const controller = new AbortController()
    const receipt = await engine.messages.send({ ...hi, signal: controller.signal })
    controller.abort()
    expect(receipt.messageSeq).toBe(1)
  })
})

describe('range', () => {
  async function filled(count: number) {
    const made = await stage()
    await Promise.all(Array.from({ length: count }, (_, index) => made.engine.messages.send({ ...hi, payload: Buffer.from(String(index + 1)) })))
    const seqs = async (query?: HistoryQuery): Promise<number[]> => {
      return (await collect(made.engine.messages.range(TEAM, query))).map(({ messageSeq }) => messageSeq)
    }
    return { ...made, seqs }
  }
  const upTo = (first: number, last: number): number[] => {
    const step = first <= last ? 1 : -1
    return Array.from({ length: Math.abs(last - first) + 1 }, (_, index) => first + index * step)
  }

  test('goes over every message, page by page, in both directions', async () => {
    const { seqs } = await filled(450)
    expect(await seqs()).toEqual(upTo(1, 450))
    expect(await seqs({ direction: 'backward' })).toEqual(upTo(450, 1))
  })

  test.each<[HistoryQuery, number[]]>([
    [{ startSeq: 3 }, upTo(3, 10)],
    [{ startSeq: 3, endSeq: 5 }, [3, 4]],
    [{ startSeq: 3, endSeq: 4 }, [3]],
    [{ startSeq: 3, endSeq: 3 }, []],
    [{ startSeq: 3, endSeq: 0 }, upTo(3, 10)],
    [{ startSeq: 3, endSeq: 99 }, upTo(3, 10)],
    [{ endSeq: 3 }, [1, 2]],
    [{ endSeq: 1 }, []],
    [{ startSeq: 1, limit: 4 }, [1, 2, 3, 4]],
    [{ limit: 4 }, [7, 8, 9, 10]],
    [{ startSeq: 0, endSeq: 0, limit: 4 }, [7, 8, 9, 10]],
    [{ startSeq: 0, endSeq: 0 }, upTo(1, 10)],
    [{ startSeq: 9, limit: 4 }, [9, 10]],
    [{ startSeq: 11 }, []],
    [{ startSeq: 5, endSeq: 3 }, []],
    [{ limit: 0 }, []],
    [{ direction: 'backward', limit: 3 }, [10, 9, 8]],
    [{ direction: 'backward', startSeq: 4 }, [4, 3, 2, 1]],
    [{ direction: 'backward', startSeq: 6, endSeq: 4 }, [6, 5]],
    [{ direction: 'backward', startSeq: 6, endSeq: 6 }, []],
    [{ direction: 'backward', startSeq: 4, endSeq: 6 }, []],
    [{ direction: 'backward', startSeq: 0, endSeq: 8 }, [10, 9]],
    [{ direction: 'backward', startSeq: 6, endSeq: 0, limit: 2 }, [6, 5]],
    [{ direction: 'backward', endSeq: 10 }, []],
    [{ direction: 'backward', startSeq: 99, limit: 2 }, [10, 9]],
  ])('%j of ten messages gives %j', async (query, expected) => {
    const { seqs } = await filled(10)
    expect(await seqs(query)).toEqual(expected)
  })

  test.each<[HistoryQuery, number[], boolean]>([
    [{}, upTo(1, 10), false],
    [{ limit: 3 }, [8, 9, 10], true],
    [{ startSeq: 0, endSeq: 0, limit: 10 }, upTo(1, 10), false],
    [{ startSeq: 2, endSeq: 9, limit: 3 }, [2, 3, 4], true],
    [{ startSeq: 2, endSeq: 5, limit: 3 }, [2, 3, 4], false],
    [{ startSeq: 9, endSeq: 2, limit: 3, direction: 'backward' }, [7, 8, 9], true],
    [{ startSeq: 9, endSeq: 6, limit: 3, direction: 'backward' }, [7, 8, 9], false],
    [{ startSeq: 2, endSeq: 9, direction: 'backward' }, [], false],
    [{ startSeq: 9, limit: 0 }, [], true],
  ])('as one page: %j of ten messages gives %j, and whether there is more: %j', async (query, expected, more) => {
    const { engine } = await filled(10)
    const page = await engine.messages.sync(TEAM, query)
    expect(page.messages.map(({ messageSeq }) => messageSeq)).toEqual(expected)
    expect(page.more).toBe(more)
  })

  test.each([199, 200, 201, 400])('of %d messages, as many as a page or about, ends', async (count) => {
    const { seqs } = await filled(count)
    expect(await seqs()).toEqual(upTo(1, count))
    expect(await seqs({ direction: 'backward' })).toEqual(upTo(count, 1))
    expect(await seqs({ limit: count })).toHaveLength(count)
  })

  test('reads pages as they are consumed: who stops early does not pay for the rest', async () => {
    let readCount = 0
    const storage = memoryStorage()
    const { engine } = await stage({ storage: storageWith(storage, { range: (key, query) => (readCount++, storage.messages.range(key, query)) }) })
    for (let index = 0; index < 450; index++) void engine.messages.send(hi)
    await engine.messages.send(hi)
    for await (const message of engine.messages.range(TEAM)) {
      if (message.messageSeq === 10) break
    }
    expect(readCount).toBe(1)
  })

  test('skips what has been removed and goes on behind it', async () => {
    const storage = memoryStorage()
    const { engine } = await stage({ storage })
    for (let index = 0; index < 5; index++) await engine.messages.send(hi)
    await storage.messages.truncate(TEAM, 3)
    expect((await collect(engine.messages.range(TEAM))).map(({ messageSeq }) => messageSeq)).toEqual([3, 4, 5])
  })

  test('of an unknown channel is empty', async () => {
    const { engine } = await stage()
    expect(await collect(engine.messages.range({ channelID: 'nowhere', channelType: 2 }))).toEqual([])
    expect(await engine.messages.lastSeq({ channelID: 'nowhere', channelType: 2 })).toBe(0)
  })

  test('of a person channel goes by the id of the pair', async () => {
    const { engine } = await stage()
    await engine.messages.send({ ...hi, channelID: 'bob', channelType: 1 })
    const pair = { channelID: personChannelID('bob', 'ann'), channelType: 1 }
    expect((await collect(engine.messages.range(pair))).map(({ fromUID }) => fromUID)).toEqual(['ann'])
  })
})

describe('get', () => {
  test('gives messages in the order asked, and undefined where there is none', async () => {
    const { engine } = await stage()
    const first = await engine.messages.send(hi)
    const second = await engine.messages.send(hi)
    const found = await engine.messages.get([second.messageID, '12345', first.messageID])
    expect(found.map((message) => message?.messageSeq)).toEqual([2, undefined, 1])
    expect(await engine.messages.get([])).toEqual([])
  })
})

describe("a host's mistake is a TypeError that names the argument, and stores nothing", () => {
  type Call = (messages: IMEngine['messages']) => unknown
  const send = (overrides: Record<string, unknown>): Call => (messages) => messages.send({ ...hi, ...overrides })
  const range = (query: unknown, key: unknown = TEAM): Call => (messages) => messages.range(key as typeof TEAM, query as HistoryQuery).next()

  test.each<[string, Call, RegExp]>([
    ['no message', (messages) => messages.send(undefined as never), /the message must be an object, got undefined/],
    ['a channel type as text', send({ channelType: '2' }), /channelType must be .*got "2"/],
    ['no channel', send({ channelID: '' }), /channelID must be/],
    ['a person channel by the id of the pair', send({ channelID: 'ann@bob', channelType: 1 }), /channelID must be a uid/],
    ['no sender', send({ fromUID: undefined }), /fromUID must be a uid.*got undefined/],
    ['a sender that forges a person channel', send({ fromUID: 'a@b' }), /fromUID must be a uid.*got "a@b"/],
    ['a payload as text', send({ payload: 'hi' }), /payload must be a Uint8Array of at most 32767 bytes, got a string/],
    ['a payload that is too large', send({ payload: Buffer.alloc(32_768) }), /payload must be of at most 32767 bytes, got 32768$/],
    ['a negative lifetime', send({ expireSec: -1 }), /expireSec must be an integer from 0 to 4294967295, got -1/],
    ['half a second of life', send({ expireSec: 0.5 }), /expireSec .*got 0.5/],
    ['a topic that is no text', send({ topic: 7 }), /topic must be well-formed text.*got 7/],
    ['a clientMsgNo that is too long', send({ clientMsgNo: 'x'.repeat(32_768) }), /clientMsgNo must be well-formed text of at most 32767 bytes/],
    ['a clientMsgNo that is not well formed', send({ clientMsgNo: '\ud800' }), /clientMsgNo must be well-formed text/],
    ['a range of no channel', range({}, null), /channelType must be/],
    ['a range of one person, where the channel has two', range({}, { channelID: 'bob', channelType: 1 }), /channelID must be the id of two people: personChannelID\(a, b\), got "bob"/],
    ['the last seq of one person', (messages) => messages.lastSeq({ channelID: 'bob', channelType: 1 }), /personChannelID/],
    ['removing from one person', (messages) => messages.truncate({ channelID: 'bob', channelType: 1 }, 2), /personChannelID/],
    ['a negative limit', range({ limit: -1 }), /limit must be an integer/],
    ['half a limit', range({ limit: 1.5 }), /limit must be an integer/],
    ['a start that is no number', range({ startSeq: 'a' }), /startSeq/],
    ['an end that is no number', range({ endSeq: Number.NaN }), /endSeq/],
    ['a direction that is none', range({ direction: 'sideways' }), /direction/],
    ['the last seq of nothing', (messages) => messages.lastSeq({} as never), /channelType must be/],
    ['ids that are no list', (messages) => messages.get('12' as never), /messageIDs must be/],
    ['an id that is no decimal', (messages) => messages.get(['1', 'abc']), /messageIDs\[1\] must be/],
    ['an id as a number', (messages) => messages.get([12 as never]), /messageIDs\[0\] must be/],
  ])('%s', async (_what, call, message) => {
    const { engine } = await stage()
    const result = (async () => call(engine.messages))()
    await expect(result).rejects.toThrow(TypeError)
    await expect(result).rejects.toThrow(message)
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
  })
})
