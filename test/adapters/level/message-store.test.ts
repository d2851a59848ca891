import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MessageStore } from 'imengine'
import { levelStorage, type AnyLevel, type LevelStorage, type LevelStorageOptions } from 'imengine/level'
import { messageStoreContract } from 'imengine/testing'
import { MemoryLevel } from 'memory-level'
import { afterAll, describe, it } from 'vitest'
import { checkStoreAgainstModel, checkUnreadAgainstModel, type StoreCheck } from '../store-model.ts'
import { asRecords } from './as-records.ts'

/** One seed, so that a run can be repeated; `FUZZ_SEED=7 npx vitest run test/adapters/level` looks elsewhere. */
const seed = Number(process.env['FUZZ_SEED'] ?? 20_260_101)
/** `FUZZ_RUNS=10` walks ten times as many ways. */
const runs = (count: number): number => count * Number(process.env['FUZZ_RUNS'] ?? 1)
const folder = mkdtempSync(join(tmpdir(), 'imengine-level-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Opened {
  readonly subject: MessageStore
  readonly storage: LevelStorage
  readonly options: LevelStorageOptions
  close(): Promise<void>
}

async function open(options: LevelStorageOptions): Promise<Opened> {
  const storage = levelStorage(options)
  await storage.open()
  await storage.ready()
  return { subject: storage.messages, storage, options, close: () => storage.close() }
}

async function reopen({ storage, options }: Opened): Promise<Opened> {
  await storage.close()
  return open(options)
}

/** Made for a test's few messages: the room of the defaults takes time to make, every time. */
const SMALL = { maxCachedChannels: 1_000, maxCachedValues: 1_000, dedupeFilterBytes: 65_536 }
const inMemory = (): LevelStorageOptions => ({ ...SMALL, db: new MemoryLevel<string, string>() as AnyLevel })
const inFolder = (): LevelStorageOptions => ({ ...SMALL, path: mkdtempSync(join(folder, 'db-')), durability: 'os' })

describe.each<[string, () => LevelStorageOptions]>([
  ['memory-level', inMemory],
  ['memory-level, where nearly nothing is kept in memory', () => ({ ...inMemory(), maxCachedChannels: 1, maxCachedValues: 1, dedupeFilterBytes: 64 })],
  ['classic-level', inFolder],
])('the message store on %s', (_name, options) => {
  for (const { name, run } of messageStoreContract({ open: () => open(options()), reopen })) it(name, run)
})

describe('the message store on memory-level, given messages as bytes', () => {
  const given = (opened: Opened): Opened => ({ ...opened, subject: asRecords(opened.subject) })
  const contract = messageStoreContract({ open: async () => given(await open(inMemory())), reopen: async (opened) => given(await reopen(opened)) })
  for (const { name, run } of contract) it(name, run)
})

/** A walk over a store: its storage is found again by the store, so that it can be closed and opened anew. */
function walks(make: () => LevelStorageOptions, given: (store: MessageStore) => MessageStore = (store) => store): Pick<StoreCheck<MessageStore>, 'open' | 'reopen' | 'close'> {
  const opened = new Map<MessageStore, Opened>()
  const keep = (made: Opened): MessageStore => {
    const store = given(made.subject)
    opened.set(store, made)
    return store
  }
  return {
    open: async ({ nowMs }) => keep(await open({ ...make(), nowMs })),
    reopen: async (store) => {
      const made = opened.get(store)!
      opened.delete(store)
      return keep(await reopen(made))
    },
    close: async (store) => {
      await opened.get(store)?.close()
      opened.delete(store)
    },
  }
}

describe('the level store answers as a plain list would, whatever is done to it in whatever order', () => {
  it('on memory-level', async () => {
    await checkStoreAgainstModel({ ...walks(inMemory), numRuns: runs(30), seed })
  })

  it('on memory-level, given messages as bytes', async () => {
    await checkStoreAgainstModel({ ...walks(inMemory, asRecords), numRuns: runs(30), seed })
  })

  it('on memory-level, with one channel in memory and a filter that mostly says yes', async () => {
    const make = (): LevelStorageOptions => ({ ...inMemory(), maxCachedChannels: 1, dedupeFilterBytes: 64 })
    await checkStoreAgainstModel({ ...walks(make), numRuns: runs(20), seed })
  })

  it('on classic-level', async () => {
    await checkStoreAgainstModel({ ...walks(inFolder), numRuns: runs(8), seed })
  })

  it('with a retention', async () => {
    const bounds = { maxAgeMs: 4000 }
    await checkStoreAgainstModel({ ...walks(() => ({ ...inMemory(), retention: bounds })), bounds, numRuns: runs(30), seed })
  })

  it('and what is unread follows from its answers and those of its cursors', async () => {
    await checkUnreadAgainstModel({
      open: async ({ nowMs }) => (await open({ ...inMemory(), nowMs })).storage,
      close: (storage) => storage.close(),
      numRuns: runs(20),
      seed,
    })
  })
})
