import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import type { Outbox } from 'imengine'
import { levelStorage, type AnyLevel, type LevelStorage, type LevelStorageOptions } from 'imengine/level'
import { outboxContract, tokenStoreContract } from 'imengine/testing'
import { MemoryLevel } from 'memory-level'
import { afterAll, describe, expect, it } from 'vitest'
import type { Operations } from '../../../src/adapters/level/database.ts'
import { Tag } from '../../../src/adapters/level/keys.ts'
import { decodeRecord } from '../../../src/adapters/level/record.ts'
import { Row } from '../../../src/adapters/level/row.ts'
import { isPromise } from '../../../src/model/maybe-promise.ts'
import { anyOutboxStep, assertSameOutbox, checkOutboxAgainstModel, LANES, ModelOutbox } from '../outbox-model.ts'
import { diskFull, group, message, WatchedLevel } from './watched-level.ts'

/** One seed, so that a run can be repeated; `FUZZ_SEED=7 npx vitest run test/adapters/level` looks elsewhere. */
const seed = Number(process.env['FUZZ_SEED'] ?? 20_260_101)
const folder = mkdtempSync(join(tmpdir(), 'imengine-level-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Made for a test's few values: the room of the defaults takes time to make, every time. */
const SMALL = { maxCachedChannels: 1_000, maxCachedValues: 1_000, dedupeFilterBytes: 65_536 }
const inMemory = (): LevelStorageOptions => ({ ...SMALL, db: new MemoryLevel<string, string>() as AnyLevel })
const inFolder = (): LevelStorageOptions => ({ ...SMALL, path: mkdtempSync(join(folder, 'db-')), durability: 'os' })

interface Part<T> {
  readonly subject: T
  readonly storage: LevelStorage
  readonly options: LevelStorageOptions
  close(): Promise<void>
}

/** One part of a storage, for its suite. */
function suiteOf<T>(partOf: (storage: LevelStorage) => T, make: () => LevelStorageOptions) {
  const open = async (options: LevelStorageOptions): Promise<Part<T>> => {
    const storage = levelStorage(options)
    await storage.open()
    return { subject: partOf(storage), storage, options, close: () => storage.close() }
  }
  return {
    open: () => open(make()),
    reopen: async ({ storage, options }: Part<T>): Promise<Part<T>> => {
      await storage.close()
      return open(options)
    },
  }
}

describe.each<[string, () => LevelStorageOptions]>([
  ['memory-level', inMemory],
  ['memory-level, where nearly nothing is kept in memory', () => ({ ...inMemory(), maxCachedChannels: 1, maxCachedValues: 1 })],
  ['classic-level', inFolder],
])('on %s the outbox', (_name, make) => {
  for (const { name, run } of outboxContract<Part<Outbox>>(suiteOf((storage) => storage.outbox, make))) it(name, run)
})

describe.each<[string, () => LevelStorageOptions]>([
  ['memory-level', inMemory],
  ['memory-level, where one token is kept in memory', () => ({ ...inMemory(), maxCachedValues: 1 })],
  ['classic-level', inFolder],
])('on %s the token store', (_name, make) => {
  for (const { name, run } of tokenStoreContract<Part<LevelStorage['tokens']>>(suiteOf((storage) => storage.tokens, make))) it(name, run)
})

/** A walk over an outbox: its storage is found again by the outbox, so that it can be closed and opened anew. */
function walks(make: () => LevelStorageOptions) {
  const opened = new Map<Outbox, Part<Outbox>>()
  const { open, reopen } = suiteOf((storage) => storage.outbox, make)
  const keep = (part: Part<Outbox>): Outbox => {
    opened.set(part.subject, part)
    return part.subject
  }
  return {
    open: async () => keep(await open()),
    reopen: async (outbox: Outbox) => {
      const part = opened.get(outbox)!
      opened.delete(outbox)
      return keep(await reopen(part))
    },
    close: async (outbox: Outbox) => {
      await opened.get(outbox)?.close()
      opened.delete(outbox)
    },
  }
}

describe('the level outbox answers as an array would, whatever is done to it in whatever order', () => {
  it('on memory-level', async () => {
    await checkOutboxAgainstModel({ ...walks(inMemory), numRuns: 100, seed })
  })

  it('on classic-level', async () => {
    await checkOutboxAgainstModel({ ...walks(inFolder), numRuns: 8, seed })
  })
})

interface Opened {
  readonly level: WatchedLevel
  readonly storage: LevelStorage
  readonly outbox: Outbox
  readonly clock: { nowMs: number; tickMs: number }
}

/** A storage that can fail, in a time of its own, with channel `a` known: appends to it are planned inside of the call. */
async function opened(options: Partial<LevelStorageOptions> = {}): Promise<Opened> {
  const level = new WatchedLevel()
  const clock = { nowMs: 0, tickMs: 0 }
  const storage = levelStorage({ ...SMALL, db: level, nowMs: () => (clock.nowMs += clock.tickMs), ...options })
  await storage.open()
  await storage.ready()
  await append(storage, 'a', 'first')
  level.batches.length = 0
  return { level, storage, outbox: storage.outbox, clock }
}

async function append(storage: LevelStorage, channelID: string, clientMsgNo: string): Promise<void> {
  await storage.messages.append([{ key: group(channelID), messages: [message(channelID, clientMsgNo)] }])
}

async function reopened({ level }: Opened): Promise<Outbox> {
  const storage = levelStorage({ ...SMALL, db: level })
  await storage.open()
  return storage.outbox
}

const bytesOf = (...texts: readonly string[]): Buffer[] => texts.map((text) => Buffer.from(text))
const codeOf = (error: { code: string }): string => error.code

async function textsIn(outbox: Outbox, lane = 0): Promise<string[]> {
  return (await outbox.list(lane, { limit: 10_000 })).map(({ bytes }) => Buffer.from(bytes).toString())
}

describe('LevelOutbox', () => {
  it('counts at once from the start on, what an earlier life has left as well', async () => {
    const made = await opened()
    const { outbox } = made
    const entryIDs = await outbox.add(0, bytesOf('one', 'two', 'three'))
    await outbox.remove(0, entryIDs.slice(1, 2))
    await outbox.add(255, bytesOf('four'))
    expect(outbox.count()).toBe(3)
    const next = await reopened(made)
    made.level.readCount = 0
    expect(next.count()).toBe(3)
    expect(made.level.readCount).toBe(0)
  })

  it('shows and counts nothing before it is durable', async () => {
    const { outbox, level } = await opened()
    const gate = level.holdWrites()
    const added = outbox.add(0, bytesOf('one'))
    await gate.arrived
    expect([outbox.count(), await textsIn(outbox)]).toEqual([0, []])
    gate.release()
    const entryIDs = await added
    const again = level.holdWrites()
    const removed = outbox.remove(0, entryIDs)
    await again.arrived
    expect([outbox.count(), await textsIn(outbox)]).toEqual([1, ['one']])
    again.release()
    await removed
    expect([outbox.count(), await textsIn(outbox)]).toEqual([0, []])
  })

  it('gives no id twice over many lives in which everything is removed, and none that a crash has cut short', async () => {
    const made = await opened()
    const given: number[] = []
    let outbox = made.outbox
    for (let life = 0; life < 5; life++) {
      for (let i = 0; i < 700; i++) given.push(...(await outbox.add(i % 3, bytesOf('x', 'y'))))
      for (const lane of [0, 1, 2]) await outbox.remove(lane, given)
      expect(outbox.count()).toBe(0)
      outbox = await reopened(made) // without a close of the life before
    }
    expect(given).toEqual([...new Set(given)].toSorted((a, b) => a - b))
    expect(given).toHaveLength(7_000)
  })

  it('writes the row that its ids come from once in a thousand of them', async () => {
    const { outbox, level } = await opened()
    for (let i = 0; i < 300; i++) await outbox.add(0, bytesOf('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'))
    const rows = level.batches.flatMap(({ operations }) => operations.filter((part, index) => index % 2 === 0 && part![0] === Tag.Meta))
    expect(rows).toHaveLength(3)
  })

  it('begins a listing at the first entry there is, not with those that were removed before it', async () => {
    const { outbox, level } = await opened()
    const entryIDs = await outbox.add(0, Array.from({ length: 100 }, () => Buffer.from('x')))
    await outbox.remove(0, entryIDs.slice(0, 99))
    const ranges: Buffer[] = []
    const iterator = level.iterator.bind(level)
    level.iterator = (options) => {
      ranges.push(options.gte)
      return iterator(options)
    }
    expect(await outbox.list(0, { limit: 10 })).toHaveLength(1)
    expect(ranges.map((gte) => gte.readUIntBE(2, 6))).toEqual([entryIDs[99]])
    expect(await outbox.list(1, { limit: 10 })).toEqual([])
    expect(ranges).toHaveLength(1)
  })

  it('turns away what would be too much, adds nothing of it, and takes one call of any size when nothing waits', async () => {
    const { outbox, level } = await opened({ maxPendingBytes: 2_000 })
    const gate = level.holdWrites()
    const first = outbox.add(0, [Buffer.alloc(5_000)])
    await gate.arrived
    await expect(outbox.add(0, bytesOf('one', 'two'))).rejects.toMatchObject({ code: 'IM_QUEUE_FULL', retryable: true })
    gate.release()
    await first
    expect(outbox.count()).toBe(1)
    await outbox.add(0, bytesOf('three'))
    expect((await textsIn(outbox)).slice(1)).toEqual(['three'])
  })

  it('names a lane, a limit and an entry that are none, and shows nothing of the entry', async () => {
    const { outbox } = await opened()
    expect(() => outbox.add(256, [])).toThrow(/lane must be an integer from 0 to 255, got 256/)
    expect(() => outbox.remove(-1, [])).toThrow(/lane must be/)
    await expect(outbox.list(0, { limit: 0 })).rejects.toThrow(/limit must be an integer from 1 to 10000, got 0/)
    await expect(outbox.list(0, { limit: 1, afterID: -1 })).rejects.toThrow(/afterID must be an integer/)
    expect(() => outbox.add(0, ['secret' as unknown as Uint8Array])).toThrow(new TypeError('imengine: entry must be a Uint8Array, got "string"'))
    expect(await outbox.count()).toBe(0)
  })

  it('counts what was thought to have failed and is there after all, and gives its ids to nobody else', async () => {
    const made = await opened()
    const { outbox, level, clock } = made
    const [one = 0] = await outbox.add(0, bytesOf('one'))
    level.lateFailure = diskFull()
    const failed = [outbox.add(0, bytesOf('two')), outbox.remove(0, [one])]
    for (const call of failed) await expect(call).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    level.lateFailure = undefined
    clock.nowMs += 1_000
    const [three = 0] = await outbox.add(0, bytesOf('three'))
    expect(await textsIn(outbox)).toEqual(['two', 'three'])
    expect(await outbox.count()).toBe(2)
    expect((await outbox.list(0, { limit: 1 }))[0]!.entryID).toBe(three - 1)
    await outbox.remove(0, [three - 1])
    expect(outbox.count()).toBe(1)
    expect(await textsIn(await reopened(made))).toEqual(['three'])
  })

  it('counts rightly what becomes durable while the entries are being counted', async () => {
    const { outbox, level, clock } = await opened()
    const old = await outbox.add(0, bytesOf('one', 'two', 'three'))
    level.failure = diskFull()
    await expect(outbox.add(0, bytesOf('lost'))).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    level.failure = undefined
    clock.nowMs += 1_000
    const [four = 0] = await outbox.add(0, bytesOf('four'))
    const gate = level.holdReads()
    const count = outbox.count()
    expect(isPromise(count)).toBe(true)
    await gate.arrived
    await outbox.remove(0, [old[0]!, four])
    await outbox.add(1, bytesOf('five'))
    gate.release()
    expect(await count).toBe(3)
    expect(outbox.count()).toBe(3)
    expect([await textsIn(outbox, 0), await textsIn(outbox, 1)]).toEqual([['two', 'three'], ['five']])
  })

  it('ends up as an array would when nobody waits for anything and some writes fail', async () => {
    const anyWalk = fc.array(fc.tuple(anyOutboxStep, fc.nat({ max: 12 })), { maxLength: 60, size: 'max' })
    let refusedCount = 0
    const property = fc.asyncProperty(anyWalk, fc.array(fc.boolean(), { maxLength: 20 }), async (walk, failing) => {
      const made = await opened()
      const { outbox, level, clock } = made
      clock.tickMs = 600
      level.failure = diskFull()
      level.failsFor = () => failing.pop() ?? false
      const model = new ModelOutbox()
      const ends: Promise<unknown>[] = []
      for (const [step, turnCount] of walk) {
        // The model follows in the order in which calls end, which is that in which they became durable.
        if (step.do === 'add') {
          const added = Promise.resolve(outbox.add(step.lane, step.texts.map((text) => Buffer.from(text))))
          ends.push(added.then((entryIDs) => model.add(step.lane, entryIDs, step.texts)))
        } else if (step.do === 'remove') {
          const entryIDs = step.picks.flatMap((pick) => model.given[pick]?.entryID ?? [])
          ends.push(Promise.resolve(outbox.remove(step.lane, entryIDs)).then(() => model.remove(step.lane, entryIDs)))
        } else if (step.do === 'list') {
          ends.push(Promise.resolve(outbox.count())) // it may have to count anew meanwhile
        }
        ends.at(-1)?.catch(() => undefined)
        for (let turn = 0; turn < turnCount; turn++) await Promise.resolve()
      }
      const outcomes = await Promise.allSettled(ends)
      for (const outcome of outcomes) {
        if (outcome.status === 'fulfilled') continue
        refusedCount++
        expect(codeOf(outcome.reason as { code: string })).toMatch(/^IM_STORE_(FULL|UNAVAILABLE)$/)
      }
      level.failure = undefined
      clock.nowMs += 1_000
      await assertSameOutbox(outbox, model)
      model.add(LANES[0], await outbox.add(LANES[0], bytesOf('last')), ['last'])
      await assertSameOutbox(outbox, model)
      const next = await reopened(made)
      await assertSameOutbox(next, model)
      model.add(LANES[0], await next.add(LANES[0], bytesOf('next life')), ['next life'])
    })
    await fc.assert(property, { numRuns: 150, seed })
    expect(refusedCount).toBeGreaterThan(100)
  })
})

describe('what is added to the outbox precedes what is appended after it', () => {
  /** In the order in which batches were tried: what each has of entries and messages, in its own order. */
  const writtenBy = ({ level }: Opened): string[] =>
    level.batches.map(({ operations }) =>
      operations.flatMap((part, index) => (index % 2 === 0 && (part![0] === Tag.Outbox || part![0] === Tag.Message) ? [String.fromCharCode(part![0])] : [])).join(''),
    )

  it('as it says, by its own message store', async () => {
    const { outbox, storage } = await opened()
    expect(outbox.precedes).toBe(storage.messages)
  })

  it('in one batch, when both come in one turn', async () => {
    const made = await opened()
    await Promise.all([made.outbox.add(0, bytesOf('told')), append(made.storage, 'a', '1'), append(made.storage, 'new', '1')])
    expect(writtenBy(made)).toEqual(['om', 'm']) // a new channel is looked up first
  })

  it('in a batch before it, when its own is closed by its size', async () => {
    const made = await opened()
    const gate = made.level.holdWrites()
    const first = append(made.storage, 'a', '1')
    await gate.arrived
    const rest = [made.outbox.add(0, [Buffer.alloc(17 << 20)]), append(made.storage, 'a', '2')]
    gate.release()
    await Promise.all([first, ...rest])
    expect(writtenBy(made)).toEqual(['m', 'o', 'm'])
  })

  it.each([
    ['is in the same batch', 0],
    ['is in a batch behind it', 17 << 20],
  ])('and fails with it, when the append %s', async (_where, byteCount) => {
    const made = await opened()
    const { outbox, storage, level } = made
    level.failure = diskFull()
    const calls = [outbox.add(0, [Buffer.alloc(byteCount)]), append(storage, 'a', '1')]
    expect(await Promise.all(calls.map((call) => Promise.resolve(call).then(String, codeOf)))).toEqual(['IM_STORE_FULL', 'IM_STORE_FULL'])
    expect(level.batches).toHaveLength(1)
    expect([outbox.count() instanceof Promise, await outbox.count(), await storage.messages.lastSeq(group('a'))]).toEqual([true, 0, 1])
  })

  it('and when the entry cannot be put into its batch, the append in it fails as well', async () => {
    const { outbox, storage, level } = await opened()
    level.refuses = (key) => key[0] === Tag.Outbox
    const calls = [outbox.add(0, bytesOf('told')), append(storage, 'a', '1')]
    expect(await Promise.all(calls.map((call) => Promise.resolve(call).then(String, codeOf)))).toEqual(['IM_STORE_UNAVAILABLE', 'IM_STORE_UNAVAILABLE'])
    expect(await storage.messages.lastSeq(group('a'))).toBe(1)
  })

  it('and fails with it, when the append is still being looked up, however long that takes', async () => {
    const { outbox, storage, level, clock } = await opened()
    level.failure = diskFull()
    const reads = level.holdReads()
    const added = Promise.resolve(outbox.add(0, bytesOf('told'))).catch(codeOf)
    const appended = append(storage, 'new', '1').catch(codeOf)
    await reads.arrived
    expect(await added).toBe('IM_STORE_FULL')
    level.failure = undefined
    clock.nowMs += 1_000
    reads.release()
    expect(await appended).toBe('IM_STORE_UNAVAILABLE')
    expect([await storage.messages.lastSeq(group('new')), await outbox.count()]).toEqual([0, 0])
  })

  it.each(['a', 'new'])('also when both come while the database is opened anew after a failed write, to channel %s', async (channelID) => {
    const made = await opened()
    const { outbox, storage, level, clock } = made
    level.failure = diskFull()
    await expect(append(storage, 'a', '1')).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    level.failure = undefined
    clock.nowMs += 1_000
    level.batches.length = 0
    const mending = storage.channels.putMembers(group('a'), [{ uid: 'bob', role: 0 }])
    const calls = [outbox.add(0, bytesOf('told')), append(storage, channelID, '2')]
    await Promise.all([mending, ...calls])
    expect(writtenBy(made).join('')).toBe('om')
  })

  it('never has a message without the entry that was added before it, whatever fails and is opened anew', async () => {
    const anyTurn = fc.record({ byteCount: fc.constantFrom(0, 0, 0, 0, 0, 6 << 20), channelID: fc.constantFrom('a', 'b', 'c'), turnCount: fc.nat({ max: 12 }) })
    const seen = { durable: 0, failed: 0, refused: 0 }
    const property = fc.asyncProperty(fc.array(anyTurn, { maxLength: 40, size: 'max' }), fc.array(fc.boolean(), { maxLength: 20 }), async (walk, failing) => {
      const { outbox, storage, level, clock } = await opened()
      clock.tickMs = 400
      const hasFailed: boolean[] = []
      level.failure = diskFull()
      level.failsFor = () => {
        hasFailed.push(failing.pop() ?? false)
        return hasFailed.at(-1)!
      }
      const isAdded = walk.map(() => false)
      const calls: Promise<unknown>[] = []
      for (const [number, { byteCount, channelID, turnCount }] of walk.entries()) {
        calls.push(Promise.resolve(outbox.add(number % 3, bytesOf(`${number}`.padEnd(byteCount)))).then(() => (isAdded[number] = true)))
        calls.push(append(storage, channelID, `${number}`)) // without waiting
        for (const call of calls.slice(-2)) call.catch(() => undefined)
        for (let turn = 0; turn < turnCount; turn++) await Promise.resolve()
      }
      await Promise.allSettled(calls)
      const [durable, failed] = [new Set<number>(), new Set<number>()]
      const { batches } = level
      for (const [index, { operations }] of batches.entries()) {
        for (const number of entriesOf(operations)) (hasFailed[index]! ? failed : durable).add(number)
      }
      const told = new Set<number>()
      for (const [index, { operations }] of batches.entries()) {
        if (hasFailed[index]!) continue
        for (const number of entriesOf(operations)) told.add(number)
        for (const number of messagesOf(operations)) {
          // An add that was turned away was never in a batch: its caller has been told at once.
          expect(told.has(number) || (!isAdded[number]! && !failed.has(number)), `message ${number}`).toBe(true)
        }
      }
      expect([...durable].toSorted()).toEqual([...isAdded.keys()].filter((number) => isAdded[number]!).toSorted())
      seen.durable += durable.size
      seen.failed += failed.size
      seen.refused += walk.length - durable.size - failed.size
    })
    await fc.assert(property, { numRuns: 40, seed })
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(20)
  })
})

/** The numbers that entries in a batch begin with. */
function entriesOf(operations: Operations): number[] {
  return valuesOf(operations, Tag.Outbox).map(([, value]) => Number(value.toString('utf8', 0, 10)))
}

/** The client numbers of messages in a batch. */
function messagesOf(operations: Operations): number[] {
  return valuesOf(operations, Tag.Message).flatMap(([key, value]) =>
    new Row(key, value, group('')).records.map((record) => Number(decodeRecord(record, group(''), 0).message.clientMsgNo)),
  )
}

function valuesOf(operations: Operations, tag: number): [key: Buffer, value: Buffer][] {
  return operations.flatMap((part, index): [Buffer, Buffer][] => {
    const value = operations[index + 1]
    return index % 2 === 0 && part![0] === tag && value !== undefined ? [[part!, value]] : []
  })
}
