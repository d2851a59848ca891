import { describe, expect, it } from 'vitest'
import type { AppendResult } from 'imengine'
import { levelStorage, type LevelStorage, type LevelStorageOptions } from 'imengine/level'
import { decodeStanding } from '../../../src/adapters/level/channel-states.ts'
import type { Operations } from '../../../src/adapters/level/database.ts'
import { Tag } from '../../../src/adapters/level/keys.ts'
import { diskFull, group, message, WatchedLevel, type WrittenBatch } from './watched-level.ts'

interface Opened {
  readonly level: WatchedLevel
  readonly storage: LevelStorage
  readonly clock: { nowMs: number }
  /** one message to one channel */
  append(channelID: string, clientMsgNo: string, payload?: string | Uint8Array): Promise<AppendResult>
  seqs(channelID: string): Promise<number[]>
}

/** Storage in memory; the channels named are known, so that appends to them are planned inside of the call. */
async function open(options: Partial<LevelStorageOptions> = {}, channelIDs: readonly string[] = []): Promise<Opened> {
  const level = new WatchedLevel()
  const clock = { nowMs: 0 }
  const storage = levelStorage({ db: level, nowMs: () => clock.nowMs, ...options })
  await storage.open()
  await storage.ready()
  const append: Opened['append'] = async (channelID, clientMsgNo, payload) => {
    const [[result] = []] = await storage.messages.append([{ key: group(channelID), messages: [message(channelID, clientMsgNo, payload)] }])
    return result!
  }
  const seqs: Opened['seqs'] = async (channelID) => (await storage.messages.range(group(channelID))).map(({ messageSeq }) => messageSeq)
  for (const channelID of channelIDs) await append(channelID, 'first')
  level.batches.length = 0
  return { level, storage, clock, append, seqs }
}

/** The keys a batch writes, by their tag, in the order of the batch. */
function keysOf({ operations }: { operations: Operations }, tag: number): Buffer[] {
  return operations.filter((part, index): part is Buffer => index % 2 === 0 && part![0] === tag)
}

/** The channels that a batch says the standing of, and what their last seq is from then on. */
function standingsOf({ operations }: WrittenBatch): Record<string, number> {
  const standings: Record<string, number> = {}
  for (let index = 0; index < operations.length; index += 2) {
    const [key, value] = [operations[index]!, operations[index + 1]!]
    if (key[0] === Tag.Channel) standings[key.toString('utf8', 2)] = decodeStanding(value, group('')).standing.lastSeq
  }
  return standings
}

const codeOf = (error: { code: string }): string => error.code
const names = Array.from({ length: 50 }, (_, index) => `room${index}`)

describe('what comes while a batch is on its way to the disk', () => {
  it('goes into one next batch, whatever the channels', async () => {
    const { level, append, storage } = await open({}, ['first', ...names])
    const gate = level.holdWrites()
    const first = append('first', '1')
    await gate.arrived
    const others = names.map((channelID) => append(channelID, '1'))
    void storage.channels.putMembers(group('first'), [{ uid: 'bob', role: 0 }])
    gate.release()
    const results = await Promise.all([first, ...others])
    expect(results.every(({ status, messageSeq }) => status === 'stored' && messageSeq === 2)).toBe(true)
    expect(level.batches).toHaveLength(2)
    expect(keysOf(level.batches[0]!, Tag.Message)).toHaveLength(1)
    expect(keysOf(level.batches[1]!, Tag.Message)).toHaveLength(names.length)
    expect(keysOf(level.batches[1]!, Tag.Member)).toHaveLength(1)
  })

  it('resolves for nobody before its own batch is written', async () => {
    const { level, append } = await open({}, ['a', 'b'])
    const settled: string[] = []
    const one = level.holdWrites()
    const first = append('a', '1').then(() => settled.push('a'))
    await one.arrived
    const second = append('b', '1').then(() => settled.push('b'))
    one.release()
    const two = level.holdWrites() // the first is past it; this one is for the second
    await Promise.all([first, two.arrived])
    expect(settled).toEqual(['a'])
    two.release()
    await second
    expect(settled).toEqual(['a', 'b'])
  })

  it('is planned on what is on its way: one channel’s seqs go on without a gap over three batches', async () => {
    const { level, append, seqs } = await open({}, ['a'])
    const gate = level.holdWrites()
    const results = [append('a', '1')]
    await gate.arrived
    results.push(append('a', '2'), append('a', '3'))
    gate.release()
    await results[0]
    results.push(append('a', '4'))
    expect((await Promise.all(results)).map(({ messageSeq }) => messageSeq)).toEqual([2, 3, 4, 5])
    expect(level.batches.map(standingsOf)).toEqual([{ a: 2 }, { a: 4 }, { a: 5 }])
    expect(await seqs('a')).toEqual([1, 2, 3, 4, 5])
  })
})

describe('one batch', () => {
  it('has a message with its id, its number, and its channel’s standing, which knows the sender', async () => {
    const { level, storage } = await open()
    const pair = { channelID: 'ann@bob', channelType: 1 }
    const messages = ['1', '2'].map((clientMsgNo) => ({ ...message('', clientMsgNo), ...pair, expireSec: 9 }))
    await storage.messages.append([{ key: pair, messages }, { key: group('a'), messages: [message('a', '')] }])
    expect(level.batches).toHaveLength(1)
    const [batch] = level.batches as [WrittenBatch]
    const counts = Object.entries(Tag).map(([name, tag]) => [name, keysOf(batch, tag).length] as const)
    expect(Object.fromEntries(counts.filter(([, count]) => count > 0))).toEqual({
      Message: 3, ID: 3, Number: 2, Channel: 2, Name: 2, Person: 2, Expiry: 2,
    })
    expect(standingsOf(batch)).toEqual({ 'ann@bob': 2, a: 1 })
    const places = keysOf(batch, Tag.Message).map((key) => key.toString('hex'))
    const found = (tag: number): string[] =>
      batch.operations.flatMap((part, index) => (index % 2 === 1 && batch.operations[index - 1]![0] === tag ? [part!.toString('hex')] : []))
    expect(found(Tag.ID)).toEqual(places)
    expect(found(Tag.Number)).toEqual(places.slice(0, 2))
  })

  it('gives two new channels different numbers, in one call and in two', async () => {
    const { level, storage, append } = await open()
    const both = ['a', 'b'].map((channelID) => ({ key: group(channelID), messages: [message(channelID, '1')] }))
    await Promise.all([storage.messages.append(both), append('c', '1'), append('d', '1')])
    const numbers = level.batches.flatMap((batch) => keysOf(batch, Tag.Name)).map((key) => key.readUInt32BE(1))
    expect(level.batches).toHaveLength(1)
    expect(new Set(numbers).size).toBe(4)
    for (const channelID of ['a', 'b', 'c', 'd']) {
      expect((await storage.messages.range(group(channelID))).map((found) => found.channelID)).toEqual([channelID])
    }
  })

  it.each([['sync', true], ['os', false]] as const)("is written with durability '%s' as sync: %s", async (durability, sync) => {
    const { level, append, storage } = await open({ durability })
    await append('a', '1')
    await storage.channels.putChannel({ ...group('a'), ban: false, disband: false })
    await storage.cursors.put([{ uid: 'ann', key: group('a'), readSeq: 1 }])
    const written = level.batches.filter(({ operations }) => operations.length > 0)
    expect(written.map((batch) => batch.sync)).toEqual([sync, sync, sync])
  })
})

describe('a repeat', () => {
  it('is recognised while its original is on its way, gathers, and is durable', async () => {
    const { level, append, seqs } = await open({}, ['a'])
    const writes = level.holdWrites()
    const originals = [append('a', '1')]
    await writes.arrived
    originals.push(append('a', '2'))
    const reads = level.holdReads()
    const repeats = [append('a', '1'), append('a', '2'), append('a', '2', 'something else')]
    await reads.arrived // the database has been asked, and knows nothing of either
    writes.release()
    const [first, second] = await Promise.all(originals) // both are durable, and the answer is old
    reads.release()
    repeats.push(...(await Promise.all(repeats), [append('a', '1'), append('a', '2')]))
    const ids = (from: AppendResult | undefined, status: string): object => ({ status, messageID: from?.messageID, messageSeq: from?.messageSeq })
    expect([first, second]).toMatchObject([{ status: 'stored', messageSeq: 2 }, { status: 'stored', messageSeq: 3 }])
    expect(await Promise.all(repeats)).toEqual([
      ids(first, 'duplicate'), ids(second, 'duplicate'), ids(second, 'conflict'), ids(first, 'duplicate'), ids(second, 'duplicate'),
    ])
    expect(await seqs('a')).toEqual([1, 2, 3])
  })

  it('is recognised right behind a start, before all numbers have been read', async () => {
    const { level, append } = await open()
    const original = await append('a', '1')
    const again = levelStorage({ db: level })
    await again.open()
    const repeats = ['a', 'a'].map(async (channelID) => again.messages.append([{ key: group(channelID), messages: [message(channelID, '1')] }]))
    expect(await Promise.all(repeats)).toEqual(Array(2).fill([[{ ...original, status: 'duplicate' }]]))
  })

  it('that comes with its original in one turn is not stored, in a channel that nobody has written to either', async () => {
    const { append, seqs } = await open({}, ['known'])
    for (const channelID of ['known', 'new']) {
      const [original, repeat] = await Promise.all([append(channelID, 'x'), append(channelID, 'x')])
      expect([original.status, repeat.status], channelID).toEqual(['stored', 'duplicate'])
      expect(repeat.messageID).toBe(original.messageID)
    }
    expect([await seqs('known'), await seqs('new')]).toEqual([[1, 2], [1]])
  })
})

describe('a batch that fails', () => {
  it('takes with it the one that gathers and one that is closed behind it; none has used up a seq', async () => {
    const { level, append, seqs, storage, clock } = await open({}, ['a', 'b'])
    const gate = level.holdWrites()
    const large = Buffer.alloc(9 << 20)
    const waiting = [append('a', '1')]
    await gate.arrived
    for (const clientMsgNo of ['2', '3', '4']) waiting.push(append('b', clientMsgNo, large)) // 16 MiB close a batch
    waiting.push(append('new', '1'))
    level.failure = diskFull()
    gate.release()
    expect(await Promise.all(waiting.map((each) => each.then(String, codeOf)))).toEqual(Array(5).fill('IM_STORE_FULL'))
    expect(level.writeCount).toBe(1 + 2 + 1) // the format, 'a', 'b', and the one that failed: no other was tried
    expect([await seqs('a'), await seqs('b'), await seqs('new'), await storage.messages.lastSeq(group('a'))]).toEqual([[1], [1], [], 1])
    level.failure = undefined
    expect(await append('a', '1').catch(codeOf)).toBe('IM_STORE_FULL') // not before a second has passed
    clock.nowMs = 1_000
    expect((await Promise.all([append('a', '1'), append('b', '2'), append('new', '1')])).map(({ messageSeq }) => messageSeq)).toEqual([2, 2, 1])
    expect([await seqs('a'), await seqs('b'), await seqs('new')]).toEqual([[1, 2], [1, 2], [1]])
  })

  it('because something could not be put into it takes nothing with it that is on its way already', async () => {
    const { level, append, seqs, clock } = await open({}, ['a', 'b', 'c'])
    const gate = level.holdWrites()
    const onItsWay = append('a', '1')
    await gate.arrived
    level.refuses = (key) => key.includes('bad')
    const waiting = [append('b', 'bad'), append('b', '2'), append('c', '1')]
    const outcomes = Promise.all(waiting.map((each) => each.then(String, codeOf)))
    level.refuses = () => false
    gate.release()
    expect((await onItsWay).messageSeq).toBe(2)
    expect(await outcomes).toEqual(Array(3).fill('IM_STORE_UNAVAILABLE'))
    clock.nowMs = 1_000
    expect((await Promise.all([append('a', '2'), append('b', '2'), append('c', '1')])).map(({ messageSeq }) => messageSeq)).toEqual([3, 2, 2])
    expect([await seqs('a'), await seqs('b'), await seqs('c')]).toEqual([[1, 2, 3], [1, 2], [1, 2]])
  })

  it('does not come again when time goes back', async () => {
    const { level, append, clock } = await open({}, ['a'])
    clock.nowMs = 5_000
    level.failure = diskFull()
    await expect(append('a', '1')).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    level.failure = undefined
    clock.nowMs = 4_000
    expect(await append('a', '1')).toMatchObject({ status: 'stored', messageSeq: 2 })
  })
})

describe('maxPendingBytes', () => {
  it('turns away what would be too much, stores nothing of it, and takes one call of any size when nothing waits', async () => {
    const { level, append, seqs } = await open({ maxPendingBytes: 2_000 }, ['a', 'b'])
    const gate = level.holdWrites()
    const first = append('a', '1', 'x'.repeat(5_000))
    await gate.arrived
    expect(await append('b', '1').catch(codeOf)).toBe('IM_QUEUE_FULL')
    gate.release()
    expect((await first).messageSeq).toBe(2)
    expect(await append('b', '1')).toMatchObject({ status: 'stored', messageSeq: 2 })
    expect([await seqs('a'), await seqs('b')]).toEqual([[1, 2], [1, 2]])
  })
})
