import { describe, expect, it } from 'vitest'
import { levelStorage, type LevelStorage } from '../../src/adapters/level/index.ts'
import { memoryStorage } from '../../src/adapters/memory/index.ts'
import type { LogPosition } from '../../src/contracts/message-store.ts'
import type { Storage } from '../../src/contracts/storage.ts'
import { ReplicatedStorage, type ReplicatedStorageOptions } from '../../src/services/replicated-storage.ts'
import { diskFull, group, message, WatchedLevel } from '../adapters/level/watched-level.ts'

const ROOM = group('room')
const at = (index: number): LogPosition => ({ log: 'log', index })
const EDIT = { kind: 'edited', byUID: 'ann', timestampMs: 5, payload: Buffer.from('new') } as const

/** Writes as the log brings them. */
async function written(write: (storage: Storage) => unknown): Promise<Uint8Array[]> {
  const operations: Uint8Array[] = []
  const propose = async (_lane: string, operation: Uint8Array): Promise<void> => void operations.push(operation)
  await write(new ReplicatedStorage({ storage: memoryStorage(), propose, applying: () => undefined, ending: () => 0 }))
  return operations
}

interface Node {
  readonly db: WatchedLevel
  readonly clock: { nowMs: number }
  /** its own, without a log in front */
  readonly own: LevelStorage
  readonly storage: ReplicatedStorage
}

async function node(
  applying: ReplicatedStorageOptions['applying'] = () => undefined,
  db = new WatchedLevel(),
  ending: ReplicatedStorageOptions['ending'] = () => 0,
): Promise<Node> {
  const clock = { nowMs: 1_700_000_000_000 }
  const own = levelStorage({ db, nowMs: () => clock.nowMs })
  await own.open()
  const propose = (): Promise<never> => Promise.reject(new Error('this node proposes nothing'))
  return { db, clock, own, storage: new ReplicatedStorage({ storage: own, propose, applying, ending }) }
}

/** The write happens, and its answer is a failure: as a log file has the bytes that could not be synced. Then the disk is well again. */
async function failing({ db, clock }: Node, write: () => unknown): Promise<void> {
  db.lateFailure = diskFull()
  await expect((async () => write())()).rejects.toMatchObject({ code: 'IM_STORE_FULL' })
  db.lateFailure = undefined
  clock.nowMs += 1_001
}

describe('a write that has come through the log', () => {
  it('of a position that only moves forward: is not lost with a crash, as the log will not bring it again', async () => {
    const { db, storage } = await node()
    const [advance] = await written(({ cursors }) => cursors.advance([{ uid: 'ann', key: ROOM, readSeq: 9 }]))
    await storage.apply(advance!, at(4))
    const { own: again } = await node(undefined, db) // nothing of the first one has been closed
    expect(await again.messages.logPosition!('log')).toBe(4)
    expect((await again.cursors.cursor('ann', ROOM)).readSeq).toBe(9)
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
    clock.nowMs += 1_001
    expect(await storage.messages.append(batches, at(1))).toMatchObject([[{ status: 'stored', messageSeq: 1 }]])
  })

  it('that takes a token back, and whose position could not be kept at first: ends connections once, and not those that came with the new token', async () => {
    let endedCount = 0
    const { own, storage } = await node(undefined, undefined, () => ++endedCount)
    const operations: Uint8Array[] = []
    const proposing = new ReplicatedStorage({
      storage: memoryStorage(),
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
