import fc from 'fast-check'
import { levelStorage } from 'imengine/level'
import { describe, expect, it } from 'vitest'
import type { Operations } from '../../../src/adapters/level/database.ts'
import { logKey, Tag } from '../../../src/adapters/level/keys.ts'
import { diskFull, group, message, WatchedLevel } from './watched-level.ts'

/** One seed, so that a run can be repeated; `FUZZ_SEED=7 npx vitest run test/adapters/level` looks elsewhere. */
const seed = Number(process.env['FUZZ_SEED'] ?? 20_260_101)

const LOG = 'log'
const UIDS = ['ann', 'bob', 'cat']

describe('what has been advanced', () => {
  it('goes ahead of positions in the message store beside it, and says so', () => {
    const { messages, cursors } = levelStorage({ db: new WatchedLevel() })
    expect(cursors.precedes).toBe(messages)
  })

  async function opened() {
    const db = new WatchedLevel()
    const storage = levelStorage({ db, dedupeFilterBytes: 65_536 })
    await storage.open()
    await storage.messages.append([{ key: group('a'), messages: [message('a', '1')] }], { log: LOG, index: 1 })
    await storage.ready()
    await storage.cursors.put([{ uid: 'dan', key: group('room'), joinSeq: 1 }]) // and the rows of nobody else are known
    const append = (index: number) => storage.messages.append([{ key: group('a'), messages: [message('a', `${index}`)] }], { log: LOG, index })
    return { db, storage, append }
  }

  it('waits for no write that it is not in', async () => {
    const { db, storage, append } = await opened()
    const reads = db.holdReads()
    const removing = storage.cursors.remove(group('room'), UIDS) as Promise<void>
    await append(2)
    reads.release()
    await removing
  })

  it('waits for no write that begins after it', async () => {
    const { db, storage, append } = await opened()
    const first = db.holdReads()
    void storage.cursors.advance([{ uid: 'ann', key: group('room'), readSeq: 5 }])
    const appended = append(2)
    const second = storage.cursors.put([{ uid: 'bob', key: group('room'), joinSeq: 5 }]) as Promise<void>
    await first.arrived
    first.release()
    const later = db.holdReads()
    await appended
    later.release()
    await second
    expect(await storage.cursors.cursor('ann', group('room'))).toMatchObject({ readSeq: 5 })
  })

  it.each([1, 1_000])('is never behind a position that was kept after it, whatever fails and is opened anew (%i rows kept in memory)', async (maxCachedValues) => {
    const anyStep = fc.record({
      what: fc.constantFrom('advance', 'advance', 'append', 'position', 'put', 'member', 'flush'),
      uid: fc.constantFrom(...UIDS),
      turnCount: fc.nat({ max: 12 }),
    })
    const seen = { kept: 0, refused: 0, read: 0 }
    const property = fc.asyncProperty(fc.array(anyStep, { maxLength: 60, size: 'max' }), fc.array(fc.boolean(), { maxLength: 20 }), async (walk, failing) => {
      let nowMs = 1_700_000_000_000
      const db = new WatchedLevel()
      const storage = levelStorage({ db, maxCachedChannels: 1_000, maxCachedValues, dedupeFilterBytes: 65_536, nowMs: () => (nowMs += 400) })
      await storage.open()
      db.batches.length = 0
      const hasFailed: boolean[] = []
      db.failure = diskFull()
      db.failsFor = () => {
        hasFailed.push(failing.pop() ?? false)
        return hasFailed.at(-1)!
      }
      const calls: Promise<unknown>[] = []
      const begin = (call: () => unknown): void => {
        const called = (async () => call())()
        called.catch(() => undefined)
        calls.push(called)
      }
      for (const [index, { what, uid, turnCount }] of walk.entries()) {
        const key = group(uid)
        const position = { log: LOG, index: index + 1 }
        if (what === 'advance') begin(() => storage.cursors.advance([{ uid, key: group('room'), readSeq: index + 1 }]))
        else if (what === 'append') begin(() => storage.messages.append([{ key, messages: [message(uid, `${index}`)] }], position))
        else if (what === 'position') begin(() => storage.messages.append([], position))
        else if (what === 'put') begin(() => storage.cursors.put([{ uid, key, joinSeq: index }]))
        else if (what === 'member') begin(() => storage.channels.putMembers(key, [{ uid: 'dan', role: 0 }]))
        else begin(() => storage.cursors.flush())
        for (let turn = 0; turn < turnCount; turn++) await Promise.resolve()
      }
      const outcomes = await Promise.allSettled(calls)
      const durable = new Map<string, number>()
      for (const [batch, { operations }] of db.batches.entries()) {
        if (hasFailed[batch]!) continue
        for (const [uid, readSeq] of readsOf(operations)) durable.set(uid, readSeq)
        for (const position of positionsOf(operations)) {
          for (const uid of UIDS) {
            const advanced = walk.findLastIndex((step, index) => step.what === 'advance' && step.uid === uid && index < position - 1) + 1
            expect(durable.get(uid) ?? 0, `of ${uid}, at ${position}`).toBeGreaterThanOrEqual(advanced)
            if (advanced > 0) seen.read++
          }
          seen.kept++
        }
      }
      seen.refused += outcomes.filter(({ status }) => status === 'rejected').length
    })
    await fc.assert(property, { numRuns: 60, seed })
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(100)
  })
})

/** Where users stand, in a batch. */
function readsOf(operations: Operations): [uid: string, readSeq: number][] {
  return entriesOf(operations).flatMap(([key, value]) => {
    const uid = UIDS.find((each) => key.includes(`${each}\u0002room`))
    return key[0] === Tag.Cursor && uid !== undefined ? [[uid, value.readUInt32BE(5)]] : []
  })
}

function positionsOf(operations: Operations): number[] {
  return entriesOf(operations).flatMap(([key, value]) => (key.equals(logKey(LOG)) ? [value.readUIntBE(0, 6)] : []))
}

function entriesOf(operations: Operations): [key: Buffer, value: Buffer][] {
  return operations.flatMap((part, index): [Buffer, Buffer][] => {
    const value = operations[index + 1]
    return index % 2 === 0 && value !== undefined ? [[part!, value]] : []
  })
}
