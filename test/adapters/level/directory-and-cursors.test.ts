import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import fc from 'fast-check'
import { MemoryLevel } from 'memory-level'
import { describe, expect, it, vi } from 'vitest'
import { LevelChannelDirectory } from '../../../src/adapters/level/channel-directory.ts'
import { LevelCursorStore } from '../../../src/adapters/level/cursor-store.ts'
import type { AnyLevel } from '../../../src/adapters/level/database.ts'
import { Tag } from '../../../src/adapters/level/keys.ts'
import { KnownValues } from '../../../src/adapters/level/known-values.ts'
import { memoryMessageStore } from '../../../src/adapters/memory/index.ts'
import type { ChannelDirectory } from '../../../src/contracts/channel-directory.ts'
import { channelInfo, type ChannelKey } from '../../../src/model/channel.ts'
import { isPromise, type MaybePromise } from '../../../src/model/maybe-promise.ts'
import { channelDirectoryContract, cursorStoreContract, type ContractCase } from '../../../src/testing/index.ts'
import { checkCursorsAgainstModel, cursorSteps, ModelCursorStore, UIDS, type CursorStep } from '../cursor-model.ts'
import { FaultyLevel, openLevel, type OpenedLevel, type OpenLevelOptions } from './open.ts'

/** One seed, so that a run can be repeated; `FUZZ_SEED=7 npx vitest run test/adapters/level` looks elsewhere. */
const seed = Number(process.env['FUZZ_SEED'] ?? 20_260_101)

const ROOM: ChannelKey = { channelID: 'room', channelType: 2 }
const OTHER: ChannelKey = { channelID: 'room', channelType: 4 }
const AT_0 = { deliveredSeq: 0, readSeq: 0, joinSeq: 0, deletedToSeq: 0, unreadMarkSeq: 0 }
const DISK_FULL = new Error('IO error: No space left on device')

interface Part<T> extends OpenedLevel {
  readonly subject: T
}

type Make<T> = (opened: OpenedLevel, maxCachedValues: number) => T & { forget(): void }

const directoryOn: Make<LevelChannelDirectory> = ({ database, writer }, maxCachedValues) =>
  new LevelChannelDirectory({ database, writer, maxCachedValues })
const cursorsOn: Make<LevelCursorStore> = ({ database, writer }, maxCachedValues) =>
  new LevelCursorStore({ database, writer, maxCachedValues, precedes: memoryMessageStore() })

type PartOptions = OpenLevelOptions & { readonly maxCachedValues?: number }

async function partOn<T>(make: Make<T>, level: AnyLevel, options: PartOptions = {}): Promise<Part<T>> {
  const opened = await openLevel(level, options)
  const subject = make(opened, options.maxCachedValues ?? 1000)
  opened.onForget(() => subject.forget())
  return { ...opened, subject }
}

function memory(): AnyLevel {
  return new MemoryLevel<Buffer, Buffer>({ keyEncoding: 'buffer', valueEncoding: 'buffer' })
}

async function onMemory<T>(make: Make<T>, maxCachedValues?: number): Promise<Part<T> & { readonly level: FaultyLevel }> {
  const level = new FaultyLevel(memory())
  const part = await partOn(make, level, maxCachedValues === undefined ? {} : { maxCachedValues })
  return { ...part, level }
}

function run(name: string, cases: readonly ContractCase[]): void {
  describe(name, () => {
    for (const contractCase of cases) it(contractCase.name, contractCase.run)
  })
}

/** A memory level forgets nothing while it is open, and is handed over from one life to the next. */
function inMemory<T>(make: Make<T>, maxCachedValues: number) {
  const open = (level: AnyLevel): Promise<Part<T>> => partOn(make, level, { isForeign: true, maxCachedValues })
  return {
    open: () => open(memory()),
    reopen: async (part: Part<T>): Promise<Part<T>> => {
      await part.close()
      return open(part.level)
    },
  }
}

interface OnDisk<T> extends Part<T> {
  readonly path: string
  end(): Promise<void>
}

function inFolder<T>(make: Make<T>) {
  const open = async (path: string): Promise<OnDisk<T>> => {
    const level = new ClassicLevel<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
    const part = await partOn(make, level)
    const close = async (): Promise<void> => {
      await part.close()
      await rm(path, { recursive: true })
    }
    return { ...part, path, end: part.close, close }
  }
  return {
    open: async () => open(await mkdtemp(join(tmpdir(), 'imengine-level-'))),
    reopen: async ({ end, path }: OnDisk<T>): Promise<OnDisk<T>> => {
      await end()
      return open(path)
    },
  }
}

run('LevelChannelDirectory on memory-level', channelDirectoryContract(inMemory(directoryOn, 1000)))
run('LevelChannelDirectory on memory-level that knows one value', channelDirectoryContract(inMemory(directoryOn, 1)))
run('LevelChannelDirectory on classic-level', channelDirectoryContract(inFolder(directoryOn)))
run('LevelCursorStore on memory-level', cursorStoreContract(inMemory(cursorsOn, 1000)))
run('LevelCursorStore on memory-level that knows one row', cursorStoreContract(inMemory(cursorsOn, 1)))
run('LevelCursorStore on classic-level', cursorStoreContract(inFolder(cursorsOn)))

/** Every key the database has, by its tag. */
async function keysOf({ database }: OpenedLevel, tag: number): Promise<Buffer[]> {
  const found: Buffer[] = []
  for await (const stride of database.keyStrides({ gte: Buffer.from([tag]), lt: Buffer.from([tag + 1]) })) found.push(...stride)
  return found
}

describe('KnownValues', () => {
  const key = Buffer.from('a')
  const one = Buffer.from('1')
  const two = Buffer.from('2')

  function heldValues(maxCount = 10) {
    const asked: { keys: string[]; answer: (values: (Buffer | undefined)[]) => void; fail: (error: Error) => void }[] = []
    const known = new KnownValues({
      read: (keys) => new Promise((answer, fail) => asked.push({ keys: keys.map(String), answer, fail })),
      maxCount,
    })
    return { known, asked }
  }

  it('answers at once what it has read or been told, that there is nothing included', async () => {
    const { known, asked } = heldValues()
    const reads = [known.get(key), known.get(Buffer.from('b'))]
    await Promise.resolve()
    expect(asked.map(({ keys }) => keys)).toEqual([['a', 'b']])
    asked[0]?.answer([one, undefined])
    expect([await reads[0], await reads[1]]).toEqual([one, undefined])
    known.wrote(Buffer.from('c'), two)
    expect([known.get(key), known.get(Buffer.from('b')), known.get(Buffer.from('c'))]).toEqual([one, undefined, two])
    expect(asked).toHaveLength(1)
  })

  it('reads a key once for all who ask for it meanwhile', async () => {
    const { known, asked } = heldValues()
    const first = known.get(key)
    await Promise.resolve()
    const second = known.get(key)
    asked[0]?.answer([one])
    expect(await Promise.all([first, second])).toEqual([one, one])
    expect(asked).toHaveLength(1)
  })

  it.each([
    ['a write', (known: KnownValues) => known.wrote(key, two), two],
    ['a deletion', (known: KnownValues) => known.wrote(key, undefined), undefined],
    ['a change of what it stands for', (known: KnownValues) => known.changed(key), two],
    ['a failure that makes everything doubtful', (known: KnownValues) => known.forget(), two],
  ])('does not keep what was read before %s', async (_, overtake, now) => {
    const { known, asked } = heldValues()
    const before = known.get(key)
    await Promise.resolve()
    overtake(known)
    const after = known.get(key)
    asked[0]?.answer([one])
    expect(await before).toEqual(one)
    asked[1]?.answer([now])
    expect(await after).toEqual(now)
    expect(known.get(key)).toEqual(now)
  })

  it('keeps nothing of a read that has failed, and asks again', async () => {
    const { known, asked } = heldValues()
    const failing = known.get(key)
    await Promise.resolve()
    asked[0]?.fail(new Error('no'))
    await expect(failing).rejects.toThrow('no')
    const again = known.get(key)
    await Promise.resolve()
    asked[1]?.answer([two])
    expect(await again).toEqual(two)
  })

  it('keeps no more than it may, and no values of long keys', () => {
    const { known } = heldValues(2)
    const long = Buffer.alloc(1000)
    for (const each of [key, Buffer.from('b'), Buffer.from('c'), long]) known.wrote(each, one)
    expect(isPromise(known.get(Buffer.from('c')))).toBe(false)
    expect(isPromise(known.get(key))).toBe(true)
    expect(isPromise(known.get(long))).toBe(true)
  })
})

describe('LevelChannelDirectory', () => {
  const questions = (directory: ChannelDirectory): unknown[] => [
    directory.channel(ROOM),
    directory.member(ROOM, 'ann'),
    directory.isListed(ROOM, 'deny', 'ann'),
    directory.isListEmpty(ROOM, 'allow'),
    directory.userFlags('ann'),
  ]

  it('answers the questions of a SEND at once when they have been asked before', async () => {
    const { subject: directory, level } = await onMemory(directoryOn)
    const first = questions(directory)
    expect(first.every(isPromise)).toBe(true)
    const answers = await Promise.all(first)
    expect(answers).toEqual([undefined, undefined, false, true, { banned: false, sendBanned: false }])
    level.readCount = 0
    expect(questions(directory)).toEqual(answers)
    expect(level.readCount).toBe(0)
  })

  it('answers at once what has been written, with what was written', async () => {
    const { subject: directory } = await onMemory(directoryOn)
    await directory.putChannel({ ...ROOM, ban: true, disband: true })
    await directory.putMembers(ROOM, [{ uid: 'ann', role: 2 }])
    await directory.addToList(ROOM, 'deny', ['ann'])
    await directory.setUserFlags('ann', { sendBanned: true })
    expect(directory.channel(ROOM)).toEqual(channelInfo(ROOM, { ban: true, disband: true }))
    expect(directory.member(ROOM, 'ann')).toEqual({ uid: 'ann', role: 2 })
    expect(directory.isListed(ROOM, 'deny', 'ann')).toBe(true)
    expect(directory.userFlags('ann')).toEqual({ banned: false, sendBanned: true })
  })

  it('is not misled by a read that a write has overtaken', async () => {
    const { subject: directory, level } = await onMemory(directoryOn)
    const gate = level.holdReads()
    const before = questions(directory)
    await gate.arrived
    await directory.putChannel({ ...ROOM, ban: true, disband: false })
    await directory.putMembers(ROOM, [{ uid: 'ann', role: 1 }])
    await directory.addToList(ROOM, 'deny', ['ann'])
    await directory.addToList(ROOM, 'allow', ['bob'])
    gate.release()
    await Promise.all(before)
    expect(await Promise.all(questions(directory))).toEqual([
      channelInfo(ROOM, { ban: true }),
      { uid: 'ann', role: 1 },
      true,
      false,
      { banned: false, sendBanned: false },
    ])
    await directory.removeFromList(ROOM, 'allow', ['bob'])
    expect(await directory.isListEmpty(ROOM, 'allow')).toBe(true)
  })

  it('loses no flag when calls for one user overlap', async () => {
    const { subject: directory } = await onMemory(directoryOn)
    await Promise.all([
      directory.setUserFlags('ann', { banned: true }),
      directory.setUserFlags('ann', { sendBanned: true }),
      directory.setUserFlags('bob', { sendBanned: true }),
      directory.setUserFlags('bob', { sendBanned: false }),
    ])
    expect(await directory.userFlags('ann')).toEqual({ banned: true, sendBanned: true })
    expect(await directory.userFlags('bob')).toEqual({ banned: false, sendBanned: false })
  })

  it('shows nothing of a write that has failed, not even of its half', async () => {
    const { subject: directory, level, clock } = await onMemory(directoryOn)
    await directory.putMembers(ROOM, [{ uid: 'ann', role: 1 }])
    level.failure = DISK_FULL
    const writes = [
      directory.putChannel({ ...ROOM, ban: true, disband: false }),
      directory.putMembers(ROOM, [{ uid: 'ann', role: 2 }, { uid: 'bob', role: 0 }]),
      directory.addToList(ROOM, 'deny', ['ann']),
      directory.setUserFlags('ann', { banned: true }),
      directory.removeChannel(ROOM),
    ]
    for (const write of writes) await expect(write).rejects.toMatchObject({ code: 'IM_STORE_FULL', retryable: true })
    const expected = [undefined, { uid: 'ann', role: 1 }, false, true, { banned: false, sendBanned: false }]
    expect(await Promise.all(questions(directory))).toEqual(expected)
    expect((await directory.members(ROOM)).items).toHaveLength(1)
    expect((await directory.channelsOf('bob')).items).toEqual([])
    level.failure = undefined
    clock.nowMs += 1000
    await directory.putMembers(ROOM, [{ uid: 'bob', role: 0 }])
    expect((await directory.members(ROOM)).items).toHaveLength(2)
    expect((await Promise.all(questions(directory)))).toEqual(expected)
  })

  it('names what is wrong with a cursor, a limit, a list or a text', async () => {
    const { subject: directory } = await onMemory(directoryOn)
    await expect(directory.members(ROOM, { cursor: '!' })).rejects.toThrow(/page cursor must be the cursor of the page before, got "!"/)
    await expect(directory.channelsOf('ann', { limit: 0 })).rejects.toThrow(/page limit must be an integer from 1 to 10000, got 0/)
    expect(() => directory.addToList(ROOM, 'grey' as 'deny', ['ann'])).toThrow(/list must be 'deny' or 'allow', got "grey"/)
    const long = 'x'.repeat(65_536)
    expect(() => directory.putMembers(ROOM, [{ uid: long, role: 0 }])).toThrow(TypeError)
    expect(() => directory.channel({ channelID: long, channelType: 2 })).toThrow(TypeError)
  })

  it('reads what was written before channels had modes, members mutes and users the flag system', async () => {
    const level = memory()
    const name = Buffer.from('\x02room')
    const length = Buffer.from([0, name.length])
    const rows: [tag: number, rest: Buffer, row: string][] = [
      [Tag.Info, name, '0103'],
      [Tag.Info, Buffer.from('\x02open'), '0100'],
      [Tag.Member, Buffer.concat([length, name, Buffer.from('ann')]), '02'],
      [Tag.Member, Buffer.concat([length, name, Buffer.from('bob')]), '00'],
      [Tag.User, Buffer.from('eve'), '03'],
    ]
    await level.open()
    const batch = level.batch()
    const encodings = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
    for (const [tag, rest, row] of rows) batch.put(Buffer.concat([Buffer.from([tag]), rest]), Buffer.from(row, 'hex'), encodings)
    await batch.write()
    const { subject: directory } = await partOn(directoryOn, level)
    expect(await directory.channel(ROOM)).toEqual(channelInfo(ROOM, { ban: true, disband: true }))
    expect(await directory.channel({ channelID: 'open', channelType: 2 })).toEqual(channelInfo({ channelID: 'open', channelType: 2 }))
    expect(await directory.member(ROOM, 'ann')).toStrictEqual({ uid: 'ann', role: 2 })
    expect((await directory.members(ROOM)).items).toStrictEqual([{ uid: 'ann', role: 2 }, { uid: 'bob', role: 0 }])
    expect(await directory.userFlags('eve')).toStrictEqual({ banned: true, sendBanned: true })
    await directory.putChannel({ ...ROOM, mode: 'muted' })
    await directory.putMembers(ROOM, [{ uid: 'ann', role: 2, mutedUntilMs: 5 }])
    await directory.setUserFlags('eve', { banned: false, system: true })
    directory.forget()
    expect(await directory.channel(ROOM)).toEqual(channelInfo(ROOM, { mode: 'muted' }))
    expect(await directory.member(ROOM, 'ann')).toEqual({ uid: 'ann', role: 2, mutedUntilMs: 5 })
    expect(await directory.userFlags('eve')).toEqual({ banned: false, sendBanned: true, system: true })
    expect(await directory.systemUIDs()).toEqual({ items: ['eve'] })
  })

  it.each([
    ['of a version', '0300'],
    ['with a mode', '020003'],
  ])('leaves an info %s that it does not know alone', async (_what, row) => {
    const part = await onMemory(directoryOn)
    await part.writer.write([Buffer.from('g\x02room'), Buffer.from(row, 'hex')])
    await expect(part.subject.channel(ROOM)).rejects.toMatchObject({ code: 'IM_STORE_FORMAT', context: ROOM })
  })

  it('writes the flag system and the listing at once, and neither when that fails', async () => {
    const part = await onMemory(directoryOn)
    const { subject: directory, level, clock } = part
    await Promise.all([directory.setUserFlags('bot', { system: true }), directory.setUserFlags('bot', { banned: true })])
    expect([await directory.userFlags('bot'), (await directory.systemUIDs()).items]).toEqual([{ banned: true, sendBanned: false, system: true }, ['bot']])
    level.failure = DISK_FULL
    for (const [uid, system] of [['bot', false], ['clock', true]] as const) {
      await expect(directory.setUserFlags(uid, { system })).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    }
    expect([await directory.userFlags('bot'), await directory.userFlags('clock')]).toMatchObject([{ system: true }, { banned: false }])
    expect((await directory.systemUIDs()).items).toEqual(['bot'])
    level.failure = undefined
    clock.nowMs += 1000
    level.writeCount = 0
    await directory.setUserFlags('bot', { system: false })
    expect(level.writeCount).toBe(1)
    expect(await keysOf(part, Tag.System)).toEqual([])
  })

  it('ends a mute that is beyond what a time can be with the last time, and names one that is none', async () => {
    const { subject: directory } = await onMemory(directoryOn)
    for (const mutedUntilMs of [Number.MAX_SAFE_INTEGER, Number.POSITIVE_INFINITY]) {
      await directory.putMembers(ROOM, [{ uid: 'ann', role: 0, mutedUntilMs }])
      directory.forget()
      expect(await directory.member(ROOM, 'ann')).toEqual({ uid: 'ann', role: 0, mutedUntilMs: 281_474_976_710_655 })
    }
    for (const mutedUntilMs of [-1, 1.5, Number.NaN, '5' as unknown as number]) {
      expect(() => directory.putMembers(ROOM, [{ uid: 'ann', role: 0, mutedUntilMs }])).toThrow(/mutedUntilMs must be an integer from 0 to 281474976710655/)
    }
    expect(() => directory.putChannel({ ...ROOM, mode: 'quiet' as 'muted' })).toThrow(/mode must be 'normal' or 'muted' or 'announcement', got "quiet"/)
    expect(() => directory.putMembers(ROOM, [{ uid: 'ann', role: 3 as 2 }])).toThrow(/role must be a member role, got 3/)
  })

  const MEMBERS = Array.from({ length: 25_000 }, (_, i) => ({ uid: `u${i}`, role: 0 as const }))

  async function withLargeRoom() {
    const part = await onMemory(directoryOn)
    await part.subject.putChannel({ ...ROOM, ban: false, disband: false })
    await part.subject.putMembers(ROOM, MEMBERS)
    await part.subject.putMembers(OTHER, [{ uid: 'u7', role: 1 }])
    await part.subject.addToList(ROOM, 'deny', MEMBERS.slice(0, 12_000).map(({ uid }) => uid))
    part.level.writeCount = 0
    return part
  }

  it('removes a channel of 25 000 members in pieces, from all listings, and nothing else', async () => {
    const part = await withLargeRoom()
    const { subject: directory, level } = part
    expect(await directory.isListEmpty(ROOM, 'deny')).toBe(false)
    await directory.removeChannel(ROOM)
    expect(level.writeCount).toBeGreaterThan(3)
    expect(level.writeCount).toBeLessThan(30)
    expect(await directory.channel(ROOM)).toBeUndefined()
    expect(await directory.member(ROOM, 'u7')).toBeUndefined()
    expect(await directory.isListed(ROOM, 'deny', 'u7')).toBe(false)
    expect(await directory.isListEmpty(ROOM, 'deny')).toBe(true)
    expect((await directory.channelsOf('u7')).items).toEqual([OTHER])
    const left = await Promise.all([Tag.Member, Tag.Membership, Tag.Listed, Tag.Info].map((tag) => keysOf(part, tag)))
    expect(left.map((keys) => keys.length)).toEqual([1, 1, 0, 0])
  })

  it('keeps both listings equal, and the channel there to be removed again, when a removal breaks off', async () => {
    const part = await withLargeRoom()
    const { subject: directory, level, clock } = part
    level.failsFor = () => level.writeCount > 3
    level.failure = DISK_FULL
    await expect(directory.removeChannel(ROOM)).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    const memberCount = (await keysOf(part, Tag.Member)).length
    expect(memberCount).toBeGreaterThan(1)
    expect(memberCount).toBeLessThan(25_001)
    expect(await keysOf(part, Tag.Membership)).toHaveLength(memberCount)
    expect(await directory.channel(ROOM)).toBeDefined()
    level.failure = undefined
    clock.nowMs += 1000
    await directory.removeChannel(ROOM)
    expect(await keysOf(part, Tag.Member)).toHaveLength(1)
    expect(await keysOf(part, Tag.Info)).toHaveLength(0)
  })

  it('removes what was put before the removal was asked for, and keeps what is put after it', async () => {
    const { subject: directory } = await withLargeRoom()
    await Promise.all([
      directory.putMembers(ROOM, [{ uid: 'before', role: 0 }]),
      directory.removeChannel(ROOM),
      directory.putMembers(ROOM, [{ uid: 'u1', role: 2 }, { uid: 'between', role: 0 }]),
      directory.putChannel({ ...ROOM, ban: false, disband: true }),
      directory.removeMembers(ROOM, ['between']),
      directory.addToList(ROOM, 'deny', ['u2']),
    ])
    expect((await directory.members(ROOM)).items).toEqual([{ uid: 'u1', role: 2 }])
    expect(await directory.channel(ROOM)).toEqual(channelInfo(ROOM, { disband: true }))
    expect((await directory.listed(ROOM, 'deny')).items).toEqual(['u2'])
    expect(await directory.isListEmpty(ROOM, 'deny')).toBe(false)
    await Promise.all([
      directory.removeChannel(ROOM),
      directory.putMembers(ROOM, [{ uid: 'again', role: 0 }]),
      directory.removeChannel(ROOM),
      directory.addToList(ROOM, 'allow', ['last']),
    ])
    expect((await directory.members(ROOM)).items).toEqual([])
    expect((await directory.listed(ROOM, 'allow')).items).toEqual(['last'])
  })
})

describe('LevelCursorStore', () => {
  const read = (uid: string, readSeq: number) => ({ uid, key: ROOM, readSeq })

  it('answers as plain objects would, whatever is done to it in whatever order', async () => {
    await checkCursorsAgainstModel({
      open: async () => openStore(memory()),
      reopen: async ({ part }) => {
        await part.close()
        return openStore(part.level)
      },
      numRuns: 300,
      seed,
    })
    async function openStore(level: AnyLevel): Promise<LevelCursorStore & { part: OpenedLevel }> {
      const part = await partOn(cursorsOn, level, { isForeign: true, maxCachedValues: 2 })
      return Object.assign(part.subject, { part })
    }
  })

  it('ends up as plain objects would when nobody waits for anything and some writes fail', async () => {
    const channels = [ROOM, OTHER]
    const anyStep = cursorSteps(channels).filter((step) => step.do !== 'hidden' && step.do !== 'cursors')
    const anyWalk = fc.array(fc.tuple(anyStep, fc.nat({ max: 12 })), { maxLength: 60 })
    let refusedCount = 0
    const property = fc.asyncProperty(anyWalk, fc.array(fc.boolean(), { maxLength: 20 }), async (walk, failing) => {
      const { subject: store, level, clock } = await onMemory(cursorsOn, 1)
      clock.tickMs = 600
      level.failure = DISK_FULL
      level.failsFor = () => failing.pop() ?? false
      const started: Promise<void>[] = []
      for (const [step, turnCount] of walk) {
        started.push(Promise.resolve(change(store, step)))
        started.at(-1)?.catch(() => undefined)
        for (let turn = 0; turn < turnCount; turn++) await Promise.resolve()
      }
      const outcomes = await Promise.allSettled(started)
      const model = new ModelCursorStore()
      // What is refused changes nothing, and takes nothing back that was advanced before it.
      for (const [index, [step]] of walk.entries()) {
        if (outcomes[index]?.status === 'fulfilled') await change(model, step)
        else refusedCount++
      }
      level.failure = undefined
      clock.nowMs += 1000
      await store.flush()
      store.forget()
      for (const uid of UIDS) {
        for (const key of channels) {
          expect({ ...(await store.cursor(uid, key)) }).toEqual(model.cursor(uid, key))
          expect([...(await store.hidden(uid, key, 0, 4_294_967_295))]).toEqual(model.hidden(uid, key, 0, 4_294_967_295))
        }
      }
    })
    await fc.assert(property, { numRuns: 300, seed })
    expect(refusedCount).toBeGreaterThan(100)
  })

  it('writes nothing before it is flushed, and then all at once', async () => {
    const { subject: store, level } = await onMemory(cursorsOn)
    for (let i = 1; i <= 1000; i++) expect(isPromise(store.advance([read(`u${i}`, i), read('ann', i)]))).toBe(false)
    expect(level.writeCount).toBe(0)
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 1000 })
    await store.flush()
    expect(level.writeCount).toBe(1)
    expect(store.flush()).toBeUndefined()
  })

  it('does not let an advance go below what is on the disk and not known', async () => {
    const { subject: store, level } = await onMemory(cursorsOn)
    await store.put([read('ann', 10), read('bob', 10)])
    store.forget()
    await store.advance([{ ...read('ann', 5), deliveredSeq: 7 }, read('bob', 12)])
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 10, deliveredSeq: 7 })
    store.forget()
    await store.flush()
    const again = await partOn(cursorsOn, level)
    expect(await again.subject.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 10, deliveredSeq: 7 })
    expect(await again.subject.cursor('bob', ROOM)).toEqual({ ...AT_0, readSeq: 12 })
  })

  it('answers at once what it knows, advanced or durable', async () => {
    const { subject: store, level } = await onMemory(cursorsOn)
    await store.put([read('ann', 3)])
    expect(store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 3 })
    await store.advance([read('ann', 4)])
    expect(store.cursors('ann', [ROOM, ROOM])).toEqual([{ ...AT_0, readSeq: 4 }, { ...AT_0, readSeq: 4 }])
    level.readCount = 0
    const unknown = Array.from({ length: 100 }, (_, i) => ({ channelID: `c${i}`, channelType: 2 }))
    expect(await store.cursors('ann', unknown)).toEqual(unknown.map(() => AT_0))
    expect(level.readCount).toBe(1)
  })

  it('shows an advance to a read that a flush overtakes', async () => {
    const { subject: store, level } = await onMemory(cursorsOn)
    await store.advance([read('ann', 7)])
    const gate = level.holdReads()
    const before = store.cursor('ann', ROOM)
    await gate.arrived
    const flushed = store.flush()
    gate.release()
    await flushed
    expect(await before).toEqual({ ...AT_0, readSeq: 7 })
    expect(store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 7 })
  })

  it('does not keep what was read before a put', async () => {
    const { subject: store, level } = await onMemory(cursorsOn)
    await store.put([read('ann', 9)])
    store.forget()
    await store.put([]) // nothing
    await store.hide('bob', ROOM, [1]) // the database is mended, and nothing is known of ann
    const gate = level.holdReads()
    const before = store.cursor('ann', ROOM)
    await gate.arrived
    const put = store.put([read('ann', 2)])
    gate.release()
    await put
    await before
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 2 })
  })

  it('keeps what a failed flush has not written, shows it, and writes it with the next', async () => {
    const { subject: store, level, clock } = await onMemory(cursorsOn)
    await store.put([read('ann', 5)])
    await store.advance([read('ann', 8), read('bob', 3)])
    level.failure = DISK_FULL
    await expect(store.flush()).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    await expect(store.flush()).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    await store.advance([read('bob', 2), { ...read('bob', 1), joinSeq: 4 }])
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 8 })
    expect(await store.cursor('bob', ROOM)).toEqual({ ...AT_0, readSeq: 3, joinSeq: 4 })
    level.failure = undefined
    clock.nowMs += 1000
    await store.flush()
    store.forget()
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 8 })
    expect(await store.cursor('bob', ROOM)).toEqual({ ...AT_0, readSeq: 3, joinSeq: 4 })
  })

  it('shows nothing of a put, a remove or a hide that has failed, and the first one after it succeeds', async () => {
    const { subject: store, level, clock } = await onMemory(cursorsOn)
    await store.put([read('ann', 5)])
    await store.hide('ann', ROOM, [1])
    await store.advance([read('ann', 8)])
    level.failure = DISK_FULL
    const calls = [store.put([{ ...read('ann', 2), joinSeq: 9 }]), store.remove(ROOM, ['ann']), store.hide('ann', ROOM, [2])]
    for (const call of calls) await expect(call).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 8 })
    expect(await store.hidden('ann', ROOM, 0, 10)).toEqual([1])
    level.failure = undefined
    clock.nowMs += 1000
    await store.put([{ ...read('ann', 6), unreadMarkSeq: 3 }])
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 6, unreadMarkSeq: 3 })
  })

  it('does not show what is put before it is durable', async () => {
    const { subject: store, level } = await onMemory(cursorsOn)
    await store.advance([read('ann', 8)])
    const gate = level.holdWrites()
    const put = store.put([{ ...read('ann', 2), joinSeq: 9 }])
    await gate.arrived
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 8 })
    await store.advance([read('ann', 4)])
    gate.release()
    await put
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 4, joinSeq: 9 })
    await store.flush()
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 4, joinSeq: 9 })
  })

  it('waits in flush for a flush that is under way, and fails with it', async () => {
    const { subject: store, level } = await onMemory(cursorsOn)
    await store.advance([read('ann', 8)])
    const gate = level.holdWrites()
    level.failure = DISK_FULL
    const flushes = [store.flush()]
    await gate.arrived
    flushes.push(store.flush())
    gate.release()
    for (const flush of flushes) await expect(flush).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
  })

  it('does not let what a refused flush was to write come back over a put after it', async () => {
    const level = new FaultyLevel(memory())
    const { subject: store, writer } = await partOn(cursorsOn, level, { maxPendingBytes: 200 })
    await store.advance(['ann', 'b', 'c', 'd', 'e', 'f', 'g', 'h'].map((uid) => ({ ...read(uid, 10), deliveredSeq: 10 })))
    const gate = level.holdWrites()
    const hidden = store.hide('ann', ROOM, [1])
    await gate.arrived
    const submit = writer.submit.bind(writer)
    let submitCount = 0
    vi.spyOn(writer, 'submit').mockImplementation((task) => {
      submit(task)
      if (++submitCount === 2) gate.release()
    })
    const flush = store.flush() // too much to wait together with what is hidden
    const put = store.put([read('ann', 3)])
    await expect(flush).rejects.toMatchObject({ code: 'IM_QUEUE_FULL' })
    await hidden
    await put
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 3, deliveredSeq: 10 })
    await store.flush()
    expect(await store.cursor('ann', ROOM)).toEqual({ ...AT_0, readSeq: 3, deliveredSeq: 10 })
    expect(await store.cursor('b', ROOM)).toEqual({ ...AT_0, readSeq: 10, deliveredSeq: 10 })
  })

  it('builds nothing on a row that was read before a failure', async () => {
    const inner = memory()
    const level = new FaultyLevel(inner)
    const { subject: store } = await partOn(cursorsOn, level)
    const gate = level.holdReads()
    const put = store.put([read('ann', 5)])
    await gate.arrived
    // What was thought to have failed is found once the database is open again.
    const other = await partOn(cursorsOn, inner)
    await other.subject.put([{ ...read('ann', 1), deliveredSeq: 9 }])
    store.forget()
    gate.release()
    await expect(put).rejects.toMatchObject({ code: 'IM_STORE_UNAVAILABLE' })
    await store.put([{ uid: 'ann', key: ROOM, joinSeq: 2 }])
    expect((await store.cursor('ann', ROOM)).deliveredSeq).toBe(9)
  })

  it('removes what is hidden before the call, on its way or durable, and not what is hidden after it', async () => {
    const { subject: store, level } = await onMemory(cursorsOn)
    await store.hide('ann', ROOM, [1])
    await Promise.all([
      store.hide('ann', ROOM, [2]),
      store.remove(ROOM, ['ann']),
      store.hide('ann', ROOM, [3]),
      store.hide('bob', ROOM, [4]),
    ])
    expect(await store.hidden('ann', ROOM, 0, 10)).toEqual([3])
    expect(await store.hidden('bob', ROOM, 0, 10)).toEqual([4])
    const gate = level.holdWrites()
    const put = store.put([read('bob', 1)])
    await gate.arrived
    const removed = store.remove(ROOM, ['bob'])
    gate.release()
    await put
    await removed
    expect(await store.hidden('bob', ROOM, 0, 10)).toEqual([])
  })

  it('flushes by itself when too many rows wait, makes those who advance wait for it, and bounds what a broken disk leaves', async () => {
    const { subject: store, level } = await onMemory(cursorsOn)
    const uids = Array.from({ length: 10_001 }, (_, i) => `u${i}`)
    const advanced = store.advance(uids.map((uid) => read(uid, 1)))
    expect(isPromise(advanced)).toBe(true)
    await advanced
    expect(level.writeCount).toBe(1)
    level.failure = DISK_FULL
    let accepted = 0
    const more = async (): Promise<void> => {
      for (;;) {
        await Promise.resolve(store.advance(uids.map((uid) => ({ uid, key: { channelID: `c${accepted}`, channelType: 2 }, readSeq: 1 })))).catch(
          (error: unknown) => expect(error).toMatchObject({ code: 'IM_STORE_FULL' }),
        )
        accepted++
      }
    }
    await expect(more()).rejects.toMatchObject({ code: 'IM_QUEUE_FULL' })
    expect(accepted).toBe(10)
    expect(level.writeCount).toBeLessThan(10)
  })

  it('keeps no row in memory that is durable', async () => {
    const { subject: store, level } = await onMemory(cursorsOn, 1)
    await store.advance(['a', 'b', 'c'].map((uid) => read(uid, 1)))
    await store.flush()
    await store.put([read('a', 2)])
    await store.remove(ROOM, ['b'])
    level.readCount = 0
    for (const uid of ['a', 'b', 'c']) await store.cursor(uid, ROOM)
    expect(level.readCount).toBeGreaterThanOrEqual(2)
  })

  it('names a position that is none', async () => {
    const { subject: store } = await onMemory(cursorsOn)
    for (const seq of [-1, 1.5, 4_294_967_296, Number.NaN]) {
      expect(() => store.advance([read('ann', 1), read('bob', seq)])).toThrow(/readSeq must be an integer from 0 to 4294967295/)
      expect(() => store.put([read('ann', 1), read('bob', seq)])).toThrow(TypeError)
      expect(() => store.hide('ann', ROOM, [1, seq])).toThrow(TypeError)
    }
    expect(await store.cursor('ann', ROOM)).toEqual(AT_0)
    expect(await store.hidden('ann', ROOM, 0, 10)).toEqual([])
  })
})

/** Do what the step says, and ask nothing. */
function change(store: ModelCursorStore | LevelCursorStore, step: CursorStep): MaybePromise<void> {
  switch (step.do) {
    case 'advance':
    case 'put':
      return store[step.do](step.updates)
    case 'remove':
      return store.remove(step.key, step.uids)
    case 'hide':
      return store.hide(step.uid, step.key, step.seqs)
    case 'flush':
    case 'restart':
      return store instanceof LevelCursorStore ? store.flush() : undefined
    case 'hidden':
    case 'cursors':
      return undefined
  }
}
