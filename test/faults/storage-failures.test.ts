import { MemoryLevel } from 'memory-level'
import { describe, expect, it } from 'vitest'
import { ChannelType, ReasonCode } from 'imengine'
import { levelStorage, type LevelStorage, type LevelStorageOptions } from 'imengine/level'
import { diskFull, group, message, WatchedLevel } from '../adapters/level/watched-level.ts'
import { deferred, stage, TEAM, type Stage } from '../support.ts'

interface Set extends Stage {
  readonly level: WatchedLevel
  readonly storage: LevelStorage
}

/** A running engine whose storage is a database that can fail, in the engine's time. */
async function staged(): Promise<Set> {
  const level = new WatchedLevel()
  let nowMs = (): number => 0
  const storage = levelStorage({ db: level, nowMs: () => nowMs() })
  const made = await stage({ storage })
  nowMs = () => made.clock.nowMs()
  await storage.ready()
  return { ...made, level, storage }
}

async function textsOf({ engine }: Stage): Promise<string[]> {
  const texts: string[] = []
  for await (const { messageSeq, payload } of engine.messages.range(TEAM)) texts.push(`${messageSeq} ${Buffer.from(payload).toString()}`)
  return texts
}

describe('a full disk', () => {
  // P2
  it('refuses what waits with SystemError, uses up no seq, answers every read, and tells the host what to do', async () => {
    const made = await staged()
    const { engine, level, clock, errors } = made
    const [{ client: ann }, { client: bob }] = [await made.connect('ann'), await made.connect('bob')]
    const { messageID } = await ann.send({ ...TEAM, payload: 'one' })
    await clock.settle()
    level.failure = diskFull()
    const gate = level.holdWrites()
    const refused = [ann.send({ ...TEAM, payload: 'two' })]
    await gate.arrived
    refused.push(ann.send({ ...TEAM, payload: 'three' }), bob.send({ channelID: 'ann', channelType: ChannelType.Person, payload: 'four' }))
    await clock.settle()
    gate.release()
    const answers = await Promise.all(refused)
    expect(answers.map(({ reasonCode, messageSeq }) => [reasonCode, messageSeq])).toEqual(Array(3).fill([ReasonCode.SystemError, 0]))
    await clock.settle()
    expect([...new Set(errors.map(({ code }) => code))]).toEqual(['IM_STORE_FULL'])
    expect(errors[0]).toMatchObject({ retryable: true, cause: { code: 'LEVEL_IO_ERROR' } })
    expect(errors[0]!.message).toMatch(/make room on the disk/)

    expect(await textsOf(made)).toEqual(['1 one'])
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
    expect((await engine.messages.get([String(messageID)]))[0]?.messageSeq).toBe(1)
    expect((await engine.conversations.list('bob')).items).toMatchObject([{ channelID: 'team', lastSeq: 1 }])
    expect((await engine.conversations.list('ann')).items).toHaveLength(1) // the person channel was not made
    expect([bob.messages.map(({ text }) => text), ann.messages]).toEqual([['one'], []])
  })

  it('goes on by itself a second after there is room: the next SEND gets the next seq, and a resend is stored once', async () => {
    const made = await staged()
    const { level, clock } = made
    const { client: ann } = await made.connect('ann')
    const { client: bob } = await made.connect('bob')
    await ann.send({ ...TEAM, payload: 'one' })
    const lost = { ...TEAM, payload: 'two', clientMsgNo: 'again' }
    level.failure = diskFull()
    expect((await ann.send(lost)).reasonCode).toBe(ReasonCode.SystemError)
    level.failure = undefined
    const writeCount = level.writeCount
    expect((await ann.send(lost)).reasonCode).toBe(ReasonCode.SystemError)
    expect(level.writeCount).toBe(writeCount) // the disk is not tried with every SEND
    await clock.advance(1_000)
    expect(await bob.send({ ...TEAM, payload: 'next' })).toMatchObject({ reasonCode: 1, messageSeq: 2 })
    expect(await ann.send(lost)).toMatchObject({ reasonCode: 1, messageSeq: 3 })
    expect((await ann.send(lost)).messageSeq).toBe(3)
    expect(await textsOf(made)).toEqual(['1 one', '2 next', '3 two'])
  })

  it('lets a recall, an edit and a truncation through with the first try after there is room', async () => {
    const { level, storage } = await staged()
    const { messages } = storage
    await messages.append([{ key: TEAM, messages: ['1', '2', '3'].map((no) => ({ ...message('', no), ...TEAM })) }])
    const change = { kind: 'recalled', byUID: 'ann', timestampMs: 0 } as const
    let nowMs = 0
    const other = levelStorage({ db: level, nowMs: () => nowMs })
    await other.open()
    const actions = [
      () => other.messages.revise(TEAM, 3, change),
      () => other.messages.revise(TEAM, 2, { ...change, kind: 'edited', payload: Buffer.from('new') }),
      () => other.messages.truncate(TEAM, 2),
      () => other.messages.sweep!(0),
      () => other.channels.putMembers(TEAM, [{ uid: 'dan', role: 0 }]),
      () => other.cursors.put([{ uid: 'dan', key: TEAM, readSeq: 1 }]),
    ]
    for (const action of actions) {
      level.failure = diskFull()
      await expect(Promise.resolve(other.channels.putChannel({ ...group('x'), ban: false, disband: false }))).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
      level.failure = undefined
      nowMs += 1_000
      await action()
    }
    expect((await other.messages.range(TEAM)).map(({ messageSeq, payload }) => [messageSeq, Buffer.from(payload).toString()])).toEqual([[2, 'new'], [3, '']])
    await other.close()
  })
})

describe('a batch that failed and is on the disk nevertheless', () => {
  // P4
  it('is found when it is tried again: the resend gets its ids as a duplicate, there is no gap and no second copy', async () => {
    const made = await staged()
    const { level, clock, engine } = made
    const { client: ann } = await made.connect('ann')
    const lost = { ...TEAM, payload: 'one', clientMsgNo: 'again' }
    level.lateFailure = diskFull()
    expect((await ann.send(lost)).reasonCode).toBe(ReasonCode.SystemError)
    level.lateFailure = undefined
    await clock.advance(1_000)
    const next = ann.send({ ...TEAM, payload: 'two' })
    const resent = await ann.send(lost)
    expect((await next).messageSeq).toBe(2)
    expect(resent).toMatchObject({ reasonCode: 1, messageSeq: 1 })
    expect((await engine.messages.get([String(resent.messageID)]))[0]?.clientMsgNo).toBe('again')
    expect(await textsOf(made)).toEqual(['1 one', '2 two'])
  })

  it('of a channel that is new: it keeps its number, and no other channel gets it', async () => {
    const made = await staged()
    const { level, clock, storage } = made
    const append = async (channelID: string, no: string): Promise<number> => {
      const [[result] = []] = await storage.messages.append([{ key: group(channelID), messages: [message(channelID, no)] }])
      return result!.messageSeq
    }
    level.lateFailure = diskFull()
    await expect(append('new', '1')).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    level.lateFailure = undefined
    await clock.advance(1_000)
    expect(await Promise.all([append('other', '1'), append('new', '1'), append('new', '2')])).toEqual([1, 1, 2])
    for (const [channelID, nos] of [['other', ['1']], ['new', ['1', '2']]] as const) {
      expect((await storage.messages.range(group(channelID))).map(({ clientMsgNo }) => clientMsgNo)).toEqual(nos)
    }
  })
})

describe('close', () => {
  it('waits for what is under way, writes the positions, and turns away what comes later; a new life finds everything', async () => {
    const level = new WatchedLevel()
    const storage = levelStorage({ db: level })
    await storage.open()
    const append = (no: string): Promise<unknown> => Promise.resolve(storage.messages.append([{ key: group('a'), messages: [message('a', no)] }]))
    const gate = level.holdWrites()
    const appends = [append('1')]
    await gate.arrived
    appends.push(append('2'))
    await storage.cursors.advance([{ uid: 'ann', key: group('a'), deliveredSeq: 1 }])
    let isClosed = false
    const closing = Promise.resolve(storage.close()).then(() => (isClosed = true))
    await new Promise((resolve) => setImmediate(resolve))
    expect(isClosed).toBe(false)
    gate.release()
    await closing
    await Promise.all(appends)
    await expect(append('3')).rejects.toMatchObject({ code: 'IM_STORE_UNAVAILABLE', retryable: true })
    await expect(storage.messages.range(group('a'))).rejects.toMatchObject({ code: 'IM_STORE_UNAVAILABLE' })
    await storage.close() // again: nothing happens

    const again = levelStorage({ db: level })
    await again.open()
    expect((await again.messages.range(group('a'))).map(({ clientMsgNo }) => clientMsgNo)).toEqual(['1', '2'])
    expect(await again.cursors.cursor('ann', group('a'))).toMatchObject({ deliveredSeq: 1 })
    await again.close()
  })

  it('while the database is being opened anew waits for that, so that nothing is left open', async () => {
    const level = new WatchedLevel()
    let nowMs = 0
    const storage = levelStorage({ db: level, nowMs: () => nowMs })
    await storage.open()
    const append = (): Promise<unknown> => Promise.resolve(storage.messages.append([{ key: group('a'), messages: [message('a', 'x')] }]))
    level.failure = diskFull()
    await expect(append()).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    level.failure = undefined
    nowMs = 1_000
    const opening = deferred()
    const asked = deferred()
    const open = level.open.bind(level)
    level.open = async () => {
      asked.resolve()
      await opening.promise
      await open()
    }
    const appended = append()
    await asked.promise
    const closing = storage.close()
    opening.resolve()
    await closing
    expect(await appended).toMatchObject([[{ status: 'stored', messageSeq: 1 }]])
    await expect(storage.messages.range(group('a'))).rejects.toMatchObject({ code: 'IM_STORE_UNAVAILABLE' })
  })
})

describe('a database that is not ours', () => {
  const metaKey = Buffer.from('!format')
  it.each([
    ['of a later format', metaKey, '3', /has format 3, this version knows 2/],
    ['of no format at all', metaKey, '0', /has format 0/],
    ['of somebody else', Buffer.from('user:1'), 'x', /has not written/],
  ] as const)('%s is not touched', async (_name, key, value, detail) => {
    const level = new WatchedLevel()
    await level.open()
    const batch = level.batch()
    batch.put(key, Buffer.from(value), { keyEncoding: 'buffer', valueEncoding: 'buffer' })
    await batch.write()
    level.batches.length = 0
    await expect(levelStorage({ db: level }).open()).rejects.toMatchObject({ code: 'IM_STORE_FORMAT', retryable: false, message: detail })
    expect(level.batches).toEqual([])
  })
})

describe('levelStorage', () => {
  const db = new MemoryLevel<Buffer, Buffer>()
  const path = 'never-opened'
  it.each<[string, unknown, RegExp]>([
    ['nothing', undefined, /options/],
    ['neither path nor db', {}, /path.*db/],
    ['path and db', { path, db }, /not both/],
    ['an empty path', { path: '' }, /path/],
    ['a path that is no text', { path: 7 }, /path/],
    ['a db that is none', { db: {} }, /db/],
    ['another durability', { path, durability: 'fsync' }, /durability.*"fsync"/],
    ['a retention of 0', { path, retention: { maxCount: 0 } }, /retention\.maxCount/],
    ['a retention of half a millisecond', { path, retention: { maxAgeMs: 0.5 } }, /retention\.maxAgeMs/],
    ['a retention that is a text', { path, retention: '7d' }, /retention/],
    ['a time that goes back', { path, dedupeKeepMs: -1 }, /dedupeKeepMs/],
    ['no room for a filter', { path, dedupeFilterBytes: 0 }, /dedupeFilterBytes/],
    ['a cache of half a byte', { path, cacheBytes: 0.5 }, /cacheBytes/],
    ['a buffer below 64 KiB', { path, writeBufferBytes: 1_024 }, /writeBufferBytes/],
    ['no channels', { path, maxCachedChannels: 0 }, /maxCachedChannels/],
    ['values as text', { path, maxCachedValues: '9' }, /maxCachedValues/],
    ['nothing may wait', { path, maxPendingBytes: 0 }, /maxPendingBytes/],
    ['a time that is no function', { path, nowMs: 0 }, /nowMs/],
  ])('refuses %s as a mistake that it names', (_name, options, text) => {
    expect(() => levelStorage(options as LevelStorageOptions)).toThrow(TypeError)
    expect(() => levelStorage(options as LevelStorageOptions)).toThrow(text)
  })
})
