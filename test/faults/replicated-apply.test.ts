import { describe, expect, it, vi } from 'vitest'
import { levelStorage, type LevelStorage } from '../../src/adapters/level/index.ts'
import { allowAnyToken, memoryStorage } from '../../src/adapters/memory/index.ts'
import { IMEngine } from '../../src/engine.ts'
import type { CursorStore, CursorUpdate } from '../../src/contracts/cursor-store.ts'
import type { Replicator, ReplicatorHost } from '../../src/contracts/replicator.ts'
import type { LogPosition } from '../../src/contracts/message-store.ts'
import type { Storage } from '../../src/contracts/storage.ts'
import { FakeClock } from '../../src/testing/index.ts'
import { ReplicatedStorage, type ReplicatedStorageOptions } from '../../src/services/replicated-storage.ts'
import { diskFull, group, message, WatchedLevel } from '../adapters/level/watched-level.ts'
import { deferred } from '../support.ts'

const ROOM = group('room')
const at = (index: number): LogPosition => ({ log: 'log', index })
const EDIT = { kind: 'edited', byUID: 'ann', timestampMs: 5, payload: Buffer.from('new') } as const

/** Writes as the log brings them. */
async function written(write: (storage: Storage) => unknown, prepare: (own: Storage) => unknown = () => undefined): Promise<Uint8Array[]> {
  const operations: Uint8Array[] = []
  const own = memoryStorage()
  await prepare(own)
  const propose = async (_lane: string, operation: Uint8Array): Promise<void> => void operations.push(operation)
  await write(new ReplicatedStorage({ storage: own, clock: new FakeClock(), propose, applying: () => undefined, ending: () => 0 }))
  return operations
}

interface Node {
  readonly db: WatchedLevel
  readonly clock: FakeClock
  /** its own, without a log in front */
  readonly own: LevelStorage
  readonly storage: ReplicatedStorage
}

async function node(
  applying: ReplicatedStorageOptions['applying'] = () => undefined,
  db = new WatchedLevel(),
  ending: ReplicatedStorageOptions['ending'] = () => 0,
): Promise<Node> {
  const clock = new FakeClock()
  const own = levelStorage({ db, nowMs: () => clock.nowMs() })
  await own.open()
  const propose = (): Promise<never> => Promise.reject(new Error('this node proposes nothing'))
  return { db, clock, own, storage: new ReplicatedStorage({ storage: own, clock, propose, applying, ending }) }
}

async function* each<T>(all: readonly T[]): AsyncIterable<T> {
  yield* all
}

/** The write happens, and its answer is a failure: as a log file has the bytes that could not be synced. Then the disk is well again. */
async function failing({ db, clock }: Node, write: () => unknown): Promise<void> {
  db.lateFailure = diskFull()
  await expect((async () => write())()).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
  db.lateFailure = undefined
  await clock.advance(1_001)
}

describe('a write that has come through the log', () => {
  const read = (readSeq: number) => written(({ cursors }) => cursors.advance([{ uid: 'ann', key: ROOM, readSeq }]))
  /** What a crash leaves: nothing of the first node has been closed. */
  const left = async (db: WatchedLevel) => {
    const { own } = await node(undefined, db)
    return [await own.messages.logPosition!('log'), (await own.cursors.cursor('ann', ROOM)).readSeq]
  }

  it('of a position that only moves forward: is seen at once, waits for no disk, and is there with the next message, in one batch', async () => {
    const { db, clock, own, storage } = await node()
    await storage.apply((await read(8))[0]!, at(2))
    await storage.messages.append([{ key: ROOM, messages: [message('room', 'a')] }], at(3))
    await own.ready() // what is known need not be asked for
    await storage.apply((await read(9))[0]!, at(4))
    expect(await storage.cursors.cursor('ann', ROOM)).toMatchObject({ readSeq: 9 })
    expect(await left(db)).toEqual([3, 8]) // the log brings it again
    const writtenCount = db.batches.length
    await storage.messages.append([{ key: ROOM, messages: [message('room', 'b')] }], at(5))
    expect(db.batches).toHaveLength(writtenCount + 1)
    expect(await left(db)).toEqual([5, 9])
    expect(await own.messages.range(ROOM)).toHaveLength(2)
    await clock.advance(1_000)
    expect(await left(db)).toEqual([5, 9])
  })

  it('of a position that only moves forward, with nothing behind it: is on the disk a little later, with how far the log has come', async () => {
    const { db, clock, storage } = await node()
    for (const [index, advance] of [...(await read(8)), ...(await read(9))].entries()) await storage.apply(advance, at(4 + index))
    await clock.advance(249)
    expect(await left(db)).toEqual([0, 0])
    await clock.advance(1)
    await vi.waitFor(async () => expect(await left(db)).toEqual([5, 9]))
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('of a position that only moves forward, while the disk is full: is on the disk when there is room again', async () => {
    const { db, clock, storage } = await node()
    db.failure = diskFull()
    await storage.apply((await read(9))[0]!, at(4))
    for (let i = 0; i < 10; i++) await clock.advance(250)
    expect(await left(db)).toEqual([0, 0])
    db.failure = undefined
    for (let i = 0; i < 10; i++) await clock.advance(250)
    await vi.waitFor(async () => expect(await left(db)).toEqual([4, 9]))
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('of a position that only moves forward, whose write has failed: never stands behind what the log has come to', async () => {
    const made = await node()
    const { db, clock, storage } = made
    const batches = [{ key: ROOM, messages: [message('room', 'a')] }]
    await storage.apply((await read(9))[0]!, at(4))
    db.failure = diskFull()
    await expect((async () => storage.messages.append(batches, at(5)))()).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    db.failure = undefined
    await clock.advance(1_001)
    await storage.messages.append(batches, at(5))
    expect(await left(db)).toEqual([5, 9])
  })

  it('of a position that only moves forward, before one that keeps its position itself: does not come behind that', async () => {
    const { db, clock, own, storage } = await node()
    await own.messages.append([{ key: ROOM, messages: [message('room', 'a')] }], at(1))
    await storage.apply((await read(9))[0]!, at(2))
    await clock.advance(250) // it is on its way
    await storage.apply((await read(10))[0]!, at(3))
    await storage.apply((await written(({ messages }) => messages.revise(ROOM, 1, EDIT)))[0]!, at(4))
    await clock.advance(1_000)
    expect(await left(db)).toEqual([4, 10])
  })

  it('of a position that only moves forward: is on the disk before a copy is made, and before the end', async () => {
    const copied = await node()
    await copied.storage.apply((await read(9))[0]!, at(4))
    await copied.storage.settle()
    expect(await left(copied.db)).toEqual([4, 9])
    const closed = await node()
    await closed.storage.apply((await read(9))[0]!, at(4))
    closed.db.close = async () => undefined // it is in memory, and has to be looked at
    await closed.storage.close()
    expect(await left(closed.db)).toEqual([4, 9])
    expect([copied.clock.pendingTimerCount, closed.clock.pendingTimerCount]).toEqual([0, 0])
  })

  it('that has failed and is not made again yet: is missing in a copy, which is refused meanwhile', async () => {
    const made = await node()
    const { clock, storage } = made
    const batches = [{ key: ROOM, messages: [message('room', 'a')] }]
    await storage.apply((await read(9))[0]!, at(4))
    made.db.failure = diskFull()
    await expect((async () => storage.messages.append(batches, at(5)))()).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    made.db.failure = undefined
    await clock.advance(1_001)
    await expect(storage.settle()).rejects.toMatchObject({ code: 'IM_STORE_UNAVAILABLE' })
    await storage.messages.append(batches, at(5))
    await storage.settle()
    expect(await left(made.db)).toEqual([5, 9])
  })

  it('that is under way and has not failed: does not keep a copy from being made', async () => {
    const [begun, held] = [deferred(), deferred<undefined>()]
    const { storage } = await node(() => {
      begun.resolve()
      return held.promise
    })
    const applied = storage.apply((await written(({ messages }) => messages.truncate(ROOM, 1)))[0]!, at(1))
    await begun.promise
    await storage.settle()
    held.resolve(undefined)
    await applied
  })

  it('of a position that only moves forward: is not kept in a store that has taken the place of the one it was for', async () => {
    const { clock, own, storage } = await node()
    await storage.apply((await read(9))[0]!, at(4))
    await storage.leave()
    await own.messages.append([], at(1_000)) // as a copy of another node's brings it
    await clock.advance(1_000)
    expect(await own.messages.logPosition!('log')).toBe(1_000)
  })

  it('of a position that only moves forward: is in the copy that another node is given, and a copy taken in keeps its own', async () => {
    const { db, own, clock } = await node()
    let host: ReplicatorHost | undefined
    const replicator: Replicator = { start: (given) => void (host = given), propose: () => [], operate: () => undefined, close: () => undefined }
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), storage: own, replicator, clock })
    await engine.start()
    await host!.operate((await read(9))[0]!, at(4))
    const chunks: Uint8Array[] = []
    for await (const chunk of host!.snapshot!()) chunks.push(chunk)
    expect(await left(db)).toEqual([4, 9])
    const other = await node()
    await other.own.restore(each(chunks))
    expect(await left(other.db)).toEqual([4, 9])
    await host!.operate((await read(10))[0]!, at(3))
    await host!.restore!(each(chunks))
    await clock.advance(1_000)
    expect(await own.messages.logPosition!('log')).toBe(4)
    await engine.close()
  })

  it('of a position that only moves forward, to a store that promises nothing of the kind: is on the disk when it is applied', async () => {
    const { db, clock, own } = await node()
    const { cursors } = own
    const plain = { ...own, cursors: { advance: (updates: readonly CursorUpdate[]) => cursors.advance(updates), flush: () => cursors.flush() } as CursorStore }
    const storage = new ReplicatedStorage({ storage: plain, clock, propose: async () => undefined, applying: () => undefined, ending: () => 0 })
    await storage.apply((await read(9))[0]!, at(4))
    expect(await left(db)).toEqual([4, 9])
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('an edit, made though its answer was a failure: is one version when it is given again, and told', async () => {
    const told: unknown[] = []
    let askedCount = 0
    const made = await node(() => (askedCount++, (result) => told.push(result)))
    const { own, storage } = made
    await own.messages.append([{ key: ROOM, messages: [message('room', 'a')] }], at(1))
    const [edit] = await written(({ messages }) => messages.revise(ROOM, 1, EDIT))
    await failing(made, () => storage.apply(edit!, at(2)))
    expect(told).toEqual([])
    expect(await storage.apply(edit!, at(2))).toMatchObject({ revision: { version: 1 } })
    expect(told).toMatchObject([{ revision: { version: 1 } }])
    expect(askedCount).toBe(1) // a second look would see the change itself
    await storage.apply(edit!, at(3))
    expect(await own.messages.range(ROOM)).toMatchObject([{ revision: { version: 2 } }])
  })

  it('an edit, whose position could be kept and nothing behind it: is one version', async () => {
    const { own, storage } = await node()
    await own.messages.append([{ key: ROOM, messages: [message('room', 'a')] }], at(1))
    const [edit] = await written(({ messages }) => messages.revise(ROOM, 1, EDIT))
    const { append } = own.messages
    own.messages.append = () => Promise.reject(new Error('no room for more'))
    await storage.apply(edit!, at(2))
    own.messages.append = append
    expect(await own.messages.range(ROOM)).toMatchObject([{ revision: { version: 1 } }])
    expect(await own.messages.logPosition!('log')).toBe(2)
  })

  it('messages, stored though the answer was a failure: are there once when they are given again, with their numbers', async () => {
    const made = await node()
    const { own, storage } = made
    await storage.messages.append([{ key: ROOM, messages: [message('room', 'a', 'old')] }], at(1))
    const batches = [{ key: ROOM, messages: [message('room', '', 'hello'), message('room', 'a', 'old'), message('room', 'a', 'other'), message('room', '', 'hello')] }]
    await failing(made, () => storage.messages.append(batches, at(2)))
    const [results] = await storage.messages.append(batches, at(2))
    expect(results).toMatchObject([
      { status: 'stored', messageSeq: 2 },
      { status: 'duplicate', messageSeq: 1 },
      { status: 'conflict', messageSeq: 1 },
      { status: 'stored', messageSeq: 3 },
    ])
    expect(await own.messages.range(ROOM)).toHaveLength(3)
    const [next] = await storage.messages.append([{ key: ROOM, messages: [message('room', '', 'hello')] }], at(3))
    expect(next).toMatchObject([{ status: 'stored', messageSeq: 4 }])
  })

  it('messages that have not been stored: are stored when they are given again', async () => {
    const { db, clock, storage } = await node()
    const batches = [{ key: ROOM, messages: [message('room', '')] }]
    db.failure = diskFull()
    await expect((async () => storage.messages.append(batches, at(1)))()).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    await expect((async () => storage.messages.append(batches, at(1)))()).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
    db.failure = undefined
    await clock.advance(1_001)
    expect(await storage.messages.append(batches, at(1))).toMatchObject([[{ status: 'stored', messageSeq: 1 }]])
  })

  it('that takes a token back, and whose position could not be kept at first: ends connections once, and not those that came with the new token', async () => {
    let endedCount = 0
    const { own, storage } = await node(undefined, undefined, () => ++endedCount)
    const operations: Uint8Array[] = []
    const proposing = new ReplicatedStorage({
      storage: memoryStorage(),
      clock: new FakeClock(),
      propose: async (_lane, operation) => void operations.push(operation),
      applying: () => undefined,
      ending: () => 0,
    })
    await proposing.takeBack({ part: 'tokens', call: 'putToken', args: ['ann', { deviceFlag: 0, deviceLevel: 1, digest: new Uint8Array(32) }] }, 'a new token was set')
    const { append } = own.messages
    own.messages.append = () => Promise.reject(new Error('no room for more'))
    await expect(storage.apply(operations[0]!, at(1))).rejects.toThrow('no room for more')
    own.messages.append = append
    expect(await storage.apply(operations[0]!, at(1))).toBe(1)
    expect(endedCount).toBe(1)
    expect(await storage.apply(operations[0]!, at(2))).toBe(2)
  })

  it('that the store of this node cannot carry out, and another one can: stops the log here, because the nodes would differ', async () => {
    const [discard] = await written(({ messages }) => messages.sweep!(Date.now() + 10_000), async ({ messages }) => {
      await messages.append([{ key: ROOM, messages: [{ ...message('room', 'a'), expireSec: 1 }] }])
    })
    const { own, clock } = await node()
    const { discard: _discard, ...messages } = { ...own.messages, append: own.messages.append.bind(own.messages), logPosition: own.messages.logPosition!.bind(own.messages) }
    const storage = new ReplicatedStorage({ storage: { ...own, messages: messages }, clock, propose: async () => undefined, applying: () => undefined, ending: () => 0 })
    await expect(storage.apply(discard!, at(1))).rejects.toMatchObject({ code: 'IM_LOG_FORMAT' })
    expect(await own.messages.logPosition!('log')).toBe(0)
  })

  it('that nobody can make sense of: is refused on every node, and the log goes on', async () => {
    const { own, storage } = await node(async (write) => {
      if (write.part === 'messages' && write.call === 'revise') await own.messages.range(write.args[0], { startSeq: write.args[1] })
      return undefined
    })
    const [edit] = await written(({ messages }) => messages.revise(ROOM, -1, EDIT))
    await storage.apply(edit!, at(1))
    expect(await own.messages.logPosition!('log')).toBe(1)
  })

  it.each<[string, (nowMs: () => number) => Promise<Storage>]>([
    ['memory', async (nowMs) => memoryStorage({ nowMs })],
    ['level', async (nowMs) => {
      const storage = levelStorage({ db: new WatchedLevel(), nowMs })
      await storage.open()
      return storage
    }],
  ])('a recall of a message that is about to expire: means the same to a node that comes to it later (%s)', async (_name, make) => {
    const sentMs = 1_700_000_000_000
    const counts: number[] = []
    for (const lateMs of [0, 60_000]) {
      let nowMs = sentMs
      const { messages } = await make(() => nowMs)
      await messages.append([{ key: ROOM, messages: [{ ...message('room', 'a'), timestampMs: sentMs, expireSec: 10 }] }], at(1))
      nowMs += lateMs
      await messages.revise(ROOM, 1, { kind: 'recalled', byUID: '', timestampMs: sentMs + 5_000 }, at(2))
      counts.push(await messages.countAfter(ROOM, 0))
    }
    expect(counts).toEqual([0, 0])
  })
})
