import type { AppendResult, Message, MessageStore } from 'imengine'
import { levelStorage, type AnyLevel, type LevelStorage, type LevelStorageOptions } from 'imengine/level'
import { MemoryLevel } from 'memory-level'
import { describe, expect, it, vi } from 'vitest'
import { Tag } from '../../../src/adapters/level/keys.ts'
import { Gate } from '../../../src/testing/suites/recorder.ts'
import { FaultyLevel } from './open.ts'
import { group, message } from './watched-level.ts'

const ENCODINGS = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
const NOW_MS = 1_700_000_000_000
const key = group('a')

type Entries = [key: Buffer, value: Buffer][]
type Draft = Partial<Pick<Message, 'fromUID' | 'messageID' | 'expireSec' | 'timestampMs' | 'payload'>>

interface Opened {
  readonly storage: LevelStorage
  readonly messages: MessageStore
  readonly entries: (...tags: number[]) => Promise<Entries>
  /** the numbers as one call */
  append(numbers: readonly string[], draft?: Draft): Promise<readonly AppendResult[]>
}

async function open(db: AnyLevel = new MemoryLevel<Buffer, Buffer>(ENCODINGS), options: Partial<LevelStorageOptions> = {}): Promise<Opened> {
  const storage = levelStorage({ db, dedupeFilterBytes: 65_536, maxCachedChannels: 10, maxCachedValues: 10, nowMs: () => NOW_MS, ...options })
  await storage.open()
  await storage.ready()
  return {
    storage,
    messages: storage.messages,
    append: async (numbers, draft = {}) => (await storage.messages.append([{ key, messages: numbers.map((no) => ({ ...message('a', no), ...draft })) }]))[0]!,
    entries: async (...tags) => {
      const found = await db.iterator({ gte: Buffer.alloc(0), lt: Buffer.from([0xff]), ...ENCODINGS }).nextv(100_000)
      return tags.length === 0 ? found : found.filter(([at]) => tags.includes(at[0]!))
    },
  }
}

const names = (count: number, from = 1): string[] => Array.from({ length: count }, (_, index) => `n${from + index}`)
const seqsOf = (found: readonly Message[]): number[] => found.map(({ messageSeq }) => messageSeq)
const statusesOf = (results: readonly AppendResult[]): string[] => results.map(({ status, messageSeq }) => `${status} ${messageSeq}`)

describe('messages that are appended together', () => {
  it('are one row, with one entry for their ids and one for their numbers, and each is found by all of them', async () => {
    const { messages, append, entries } = await open()
    const results = await append(names(64))
    expect((await entries()).map(([at]) => String.fromCharCode(at[0]!)).join('')).toBe('!!CDINm')
    for (const [index, { messageID }] of results.entries()) {
      const found = [(await messages.get([messageID]))[0], await messages.findByClientMsgNo(key, 'ann', `n${index + 1}`)]
      expect(found).toMatchObject([{ messageID, messageSeq: index + 1 }, { messageID, messageSeq: index + 1 }])
    }
    expect(await messages.findByClientMsgNo(key, 'bob', 'n1')).toBeUndefined()
    const all = await messages.get(results.map(({ messageID }) => messageID).toReversed())
    expect(all.map((found) => found?.messageSeq)).toEqual(names(64).map((_, index) => 64 - index))
  })

  it('are read from any number to any other, in both directions, in rows of whatever length', async () => {
    const { messages, append } = await open()
    let from = 1
    for (const count of [1, 5, 64, 1, 1, 20]) {
      await append(names(count, from))
      from += count
    }
    for (const [first, last] of [[1, 92], [2, 5], [6, 6], [7, 70], [40, 41], [70, 73], [71, 72], [60, 92], [92, 92]] as const) {
      const seqs = Array.from({ length: last - first + 1 }, (_, index) => first + index)
      expect(seqsOf(await messages.range(key, { startSeq: first, endSeq: last }))).toEqual(seqs)
      expect(seqsOf(await messages.range(key, { startSeq: last, endSeq: first, direction: 'backward' }))).toEqual(seqs.toReversed())
      expect(seqsOf(await messages.range(key, { startSeq: last, direction: 'backward', limit: 3 }))).toEqual([last, last - 1, last - 2].filter((seq) => seq > 0))
    }
  })

  it('are found when their ids fall, repeat nothing, or lie far apart', async () => {
    const { messages } = await open()
    const ids = ['500', '400', '401', '9000000000000000000', '9000000000000000007', '18446744073709551615', '402', '1']
    await messages.append([{ key, messages: ids.map((messageID, index) => ({ ...message('a', `n${index}`), messageID })) }])
    expect((await messages.get(['2', ...ids, '403', '0'])).map((found) => found?.messageID)).toEqual([undefined, ...ids, undefined, undefined])
  })

  it('leave those that expire rows of their own, in the order of their numbers', async () => {
    const { messages, entries } = await open()
    const drafts = names(12).map((no, index) => ({ ...message('a', no), expireSec: index === 4 || index === 5 ? 60 : 0 }))
    await messages.append([{ key, messages: drafts }])
    expect((await entries(Tag.Message)).map(([at]) => at.readUInt32BE(5))).toEqual([4, 5, 6, 12])
    await messages.sweep!(NOW_MS + 60_000)
    expect(seqsOf(await messages.range(key))).toEqual([1, 2, 3, 4, 7, 8, 9, 10, 11, 12])
    expect(await messages.countAfter(key, 0)).toBe(10)
  })

  it('are several rows when they are many or large', async () => {
    const { messages, append, entries } = await open()
    await append(names(200))
    await append(names(3, 201), { payload: Buffer.alloc(20_000, 7) })
    expect((await entries(Tag.Message)).map(([at]) => at.readUInt32BE(5))).toEqual([128, 200, 201, 202, 203])
    expect(statusesOf(await append(['n1', 'n129', 'n200'], { payload: Buffer.from('other') }))).toEqual(['conflict 1', 'conflict 129', 'conflict 200'])
    expect(seqsOf(await messages.range(key, { startSeq: 120, endSeq: 140 }))).toHaveLength(21)
  })

  it('are stored without those that repeat another one, of a call before or of the same', async () => {
    const { messages, append } = await open()
    await append(['n2'])
    const results = await append(['n1', 'n2', 'n3', 'n1', ...names(10, 4)])
    expect(statusesOf(results).slice(0, 5)).toEqual(['stored 2', 'duplicate 1', 'stored 3', 'duplicate 2', 'stored 4'])
    expect((await messages.range(key)).map(({ clientMsgNo }) => clientMsgNo)).toEqual(['n2', 'n1', 'n3', ...names(10, 4)])
    expect((await messages.get([results[2]!.messageID]))[0]).toMatchObject({ clientMsgNo: 'n3', messageSeq: 3 })
  })
})

describe('one message of a row', () => {
  it('is edited and recalled without a change to the others, and repeats are judged by what it came with', async () => {
    const { messages, append, entries } = await open()
    await append(names(20))
    const by = { byUID: 'bob', timestampMs: NOW_MS + 1 }
    await messages.revise(key, 7, { kind: 'edited', ...by, payload: Buffer.from('a longer text than before') })
    await messages.revise(key, 20, { kind: 'recalled', ...by })
    const found = await messages.range(key)
    const texts = names(20).map((no, index) => (index === 6 ? 'a longer text than before' : index === 19 ? '' : no))
    expect(found.map(({ payload }) => Buffer.from(payload).toString())).toEqual(texts)
    expect(found.filter(({ revision }) => revision !== undefined).map(({ messageSeq }) => messageSeq)).toEqual([7, 20])
    expect(statusesOf(await append(names(20)))).toEqual(names(20).map((_, index) => `duplicate ${index + 1}`))
    expect(await messages.countAfter(key, 0)).toBe(19)
    await messages.truncate(key, 21)
    expect(await entries(Tag.Message, Tag.Number, Tag.Numbers, Tag.ID, Tag.IDs)).toEqual([])
  })

  it('is removed with all that leads to it, and the rest stays', async () => {
    const { messages, append, entries } = await open()
    const results = await append(names(30))
    await messages.truncate(key, 18)
    expect(seqsOf(await messages.range(key))).toEqual(names(13).map((_, index) => 18 + index))
    expect((await messages.get(results.map(({ messageID }) => messageID))).map((found) => found?.messageSeq)).toEqual(results.map((_, index) => (index < 17 ? undefined : index + 1)))
    const [[, row], [, list], [, ids]] = [...(await entries(Tag.Message)), ...(await entries(Tag.Numbers)), ...(await entries(Tag.IDs))] as [Entries[0], Entries[0], Entries[0]]
    expect([row.includes('n17'), row.includes('n18'), list.length, ids.length]).toEqual([false, true, 13 * 4, 13 * 8])
    expect(statusesOf(await append(['n17', 'n18']))).toEqual(['stored 31', 'duplicate 18'])
    await messages.truncate(key, 30) // one is left of the row
    expect(statusesOf(await append(['n30', 'n29']))).toEqual(['duplicate 30', 'stored 32'])
    await messages.truncate(key, 33)
    expect((await entries()).map(([at]) => String.fromCharCode(at[0]!)).join('')).toBe('!!CN')
  })

  it.each([7, 10])('of %i is forgotten as an original when its time has come, and those behind it are not', async (count) => {
    let nowMs = NOW_MS
    const { messages, entries } = await open(undefined, { dedupeKeepMs: 1_000, nowMs: () => nowMs })
    const say = async (numbers: readonly string[], ages: readonly number[]): Promise<string[]> => {
      const drafts = numbers.map((no, index) => ({ ...message('a', no), timestampMs: NOW_MS + ages[index]! }))
      return statusesOf((await messages.append([{ key, messages: drafts }]))[0]!)
    }
    await say(names(count), names(count).map((_, index) => 100 * index))
    nowMs = NOW_MS + 1_450
    await messages.sweep!(nowMs)
    expect(await messages.findByClientMsgNo(key, 'ann', 'n5')).toBeUndefined()
    expect(await messages.findByClientMsgNo(key, 'ann', 'n6')).toMatchObject({ messageSeq: 6 })
    expect(await say(['n5', 'n6'], [1_450, 1_450])).toEqual([`stored ${count + 1}`, 'duplicate 6'])
    for (const beforeSeq of [3, 7]) {
      await messages.truncate(key, beforeSeq) // what is forgotten already takes nothing of 'n5' with it, and does not come back
      expect(await messages.findByClientMsgNo(key, 'ann', 'n4')).toBeUndefined()
      expect(await say(['n5', 'n7'], [1_450, 1_450])).toEqual([`duplicate ${count + 1}`, 'duplicate 7'])
    }
    nowMs = NOW_MS + 5_000
    await messages.sweep!(nowMs)
    expect(await entries(Tag.Number, Tag.Numbers)).toEqual([])
  })
})

describe('a repeat is recognised', () => {
  it('after a restart, before and after it is known which numbers are in use, in a young channel and in an old one', async () => {
    const db: AnyLevel = new MemoryLevel<Buffer, Buffer>(ENCODINGS)
    const first = await open(db)
    for (let from = 1; from <= 16_600; from += 100) await first.append(names(100, from))
    expect((await first.entries(Tag.Numbers)).length).toBe(163)
    expect((await first.entries(Tag.Number)).length).toBe(300)
    await first.storage.close()
    const repeated = ['n1', 'n16300', 'n16301', 'n16384', 'n16600']
    for (const dedupeFilterBytes of [65_536, 64]) {
      const { storage, append } = await open(db, { dedupeFilterBytes })
      expect(statusesOf(await append(repeated))).toEqual(repeated.map((no) => `duplicate ${no.slice(1)}`))
      await storage.close()
    }
    const unready = levelStorage({ db, dedupeFilterBytes: 65_536, maxCachedChannels: 10, maxCachedValues: 10 })
    await unready.open()
    const results = await unready.messages.append([{ key, messages: repeated.map((no) => message('a', no)) }])
    expect(statusesOf(results[0]!)).toEqual(repeated.map((no) => `duplicate ${no.slice(1)}`))
    await unready.close()
  })
})

it('reads a row once, however many of its messages are sent again', async () => {
  const db = new FaultyLevel(new MemoryLevel<Buffer, Buffer>(ENCODINGS))
  const { append } = await open(db)
  await append(names(100))
  const read: Buffer[] = []
  const { getMany } = db
  db.getMany = (keys, options) => {
    read.push(...keys.filter((at) => at[0] === Tag.Message))
    return getMany.call(db, keys, options)
  }
  const again = [...names(100), ...names(100)]
  expect(statusesOf(await append(again))).toEqual(again.map((no) => `duplicate ${no.slice(1)}`))
  expect(read).toHaveLength(1)
})

it('compares an id that is not there only with the ids of rows that it lies among', async () => {
  const { messages } = await open()
  const rowCount = 200
  for (let row = 0; row < rowCount; row++) {
    const ids = Array.from({ length: 8 }, (_, index) => 1_000_000 + 100 * row + 2 * index)
    await messages.append([{ key, messages: ids.map((messageID) => ({ ...message('a', `n${messageID}`), messageID: String(messageID) })) }])
  }
  const unknown = Array.from({ length: rowCount }, (_, row) => String(1_000_000 + 100 * row + 1))
  const known = unknown.map((messageID) => String(Number(messageID) + 1))
  const compare = vi.spyOn(Buffer.prototype, 'compare')
  try {
    expect((await messages.get([...unknown, ...known])).map((found) => found?.messageID)).toEqual([...unknown.map(() => undefined), ...known])
    expect(compare.mock.calls.length).toBeLessThan(100 * rowCount) // each with each would be more than 400 * rowCount
  } finally {
    compare.mockRestore()
  }
})

it('who was followed as the last sender while a summary is read is told their own number all the same', async () => {
  const db = new MemoryLevel<Buffer, Buffer>(ENCODINGS)
  const { messages, append } = await open(db)
  await append(['a1'], { fromUID: 'ann' })
  await append(['b1'], { fromUID: 'bob' })
  await append(['a2'], { fromUID: 'ann' })
  const gate = new Gate()
  const getMany = db.getMany.bind(db) as (...given: unknown[]) => Promise<never>
  vi.spyOn(db, 'getMany').mockImplementationOnce(async (...given: unknown[]) => {
    const found = await getMany(...given) // as it is now
    await gate.opened
    return found
  })
  const asked = messages.summaries('ann', [key])
  await append(['b2'], { fromUID: 'bob' })
  gate.open()
  expect((await asked)[0]!.sentSeq).toBe(3)
})

/** What the first format has written: three messages in one call, of which the first was edited later and the last expires. */
const FIRST_FORMAT = [
  ['21666f726d6174', '31'],
  ['430261', '01000000010000000300000000018bcfe56800018bcfe568000000000000000000018bcfe5680044aeebec'],
  ['4e00000001', '0261'],
  ['640000000103616e6e6f6e65', '6d0000000100000001'],
  ['640000000103616e6e7468726565', '6d0000000100000003'],
  ['6400000001ff386b6a1c46ac151ab2a3ab839ec12458fad0b2b193877e7dae957ec85e4e2774', '6d0000000100000002'],
  ['690000000000002329', '6d0000000100000001'],
  ['69000000000000232a', '6d0000000100000002'],
  ['69000000000000232b', '6d0000000100000003'],
  ['6d0000000100000001', '019ede451512000000000000002329018bcfe56800000000000003616e6e00036f6e650000000001018bcfe568010003626f6200000002f64551fcd6f07823cb87971cfb91446425da18286b3ab1ef935e0cbd7a69f68a6e6577'],
  ['6d0000000100000002', `013cda21ee0200000000000000232a018bcfe56800000000000003616e6e0082${'78'.repeat(130)}7032`],
  ['6d0000000100000003', '01b817e49c0200000000000000232b018bcfe568000000003c0003616e6e000574687265657033'],
  ['7300000001616e6e', '00000003'],
  ['78018bcfe652600000000100000003', ''],
].map((pair) => pair.map((hex) => Buffer.from(hex, 'hex')) as [Buffer, Buffer])

describe('a database of the first format', () => {
  const inFirstFormat = async (): Promise<AnyLevel> => {
    const db: AnyLevel = new MemoryLevel<Buffer, Buffer>(ENCODINGS)
    await db.open()
    const batch = db.batch()
    for (const [at, value] of FIRST_FORMAT) batch.put(at, value, ENCODINGS)
    await batch.write()
    return db
  }

  it('is read, goes on in the same channels, and is one of this format from then on', async () => {
    const { messages, append, entries } = await open(await inFirstFormat())
    expect((await messages.range(key)).map(({ payload, messageID }) => `${messageID} ${Buffer.from(payload).toString()}`)).toEqual(['9001 new', '9002 p2', '9003 p3'])
    expect((await messages.get(['9002', '9003'])).map((found) => found?.messageSeq)).toEqual([2, 3])
    expect(await messages.findByClientMsgNo(key, 'ann', 'x'.repeat(130))).toMatchObject({ messageSeq: 2 })
    expect(statusesOf(await append(['one'], { payload: Buffer.from('p1') }))).toEqual(['duplicate 1'])
    expect(statusesOf(await append(['three', ...names(10)]))).toEqual(['conflict 3', ...names(10).map((_, index) => `stored ${index + 4}`)])
    expect(seqsOf(await messages.range(key, { direction: 'backward', startSeq: 5 }))).toEqual([5, 4, 3, 2, 1])
    expect((await entries(Tag.Meta)).map(([, value]) => value.toString('latin1'))[0]).toBe('2')
  })

  it('has rows of where everybody stands, and one of who is followed as the last sender from then on', async () => {
    const { messages, append, entries } = await open(await inFirstFormat())
    const sentSeqs = async (): Promise<number[]> => Promise.all(['ann', 'bob'].map(async (uid) => (await messages.summaries(uid, [key]))[0]!.sentSeq))
    expect(await sentSeqs()).toEqual([3, 0])
    await append(['b1'], { fromUID: 'bob' })
    expect([await sentSeqs(), (await entries(Tag.Sent)).length]).toEqual([[3, 4], 1])
    await append(['a1'], { fromUID: 'ann' })
    await append(['a2'], { fromUID: 'ann' })
    expect([await sentSeqs(), (await entries(Tag.Sent)).length]).toEqual([[6, 4], 2])
  })

  it('loses what is removed from it without a trace', async () => {
    const { messages, entries } = await open(await inFirstFormat())
    expect(await messages.sweep!(NOW_MS + 60_000)).toMatchObject({ removedCount: 1 })
    expect(await messages.truncate(key, 4)).toEqual({ removedCount: 2 })
    expect((await entries()).map(([at]) => String.fromCharCode(at[0]!)).join('')).toBe('!!CNs')
  })
})
