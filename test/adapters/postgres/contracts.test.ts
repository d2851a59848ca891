import type { ChannelDirectory, ChannelKey, CursorStore, MessageStore, Outbox, TokenStore } from 'imengine'
import { postgresStorage, type PostgresStorage, type PostgresStorageOptions } from 'imengine/postgres'
import { channelDirectoryContract, cursorStoreContract, messageStoreContract, outboxContract, sampleMessage, tokenStoreContract } from 'imengine/testing'
import { Pool } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkCursorsAgainstModel } from '../cursor-model.ts'
import { checkOutboxAgainstModel } from '../outbox-model.ts'
import { checkStoreAgainstModel, checkUnreadAgainstModel, type StoreCheck } from '../store-model.ts'
import { binaries, TestServer } from './server.ts'

/** One seed, so that a run can be repeated; `FUZZ_SEED=7 npx vitest run test/adapters/postgres` looks elsewhere. */
const seed = Number(process.env['FUZZ_SEED'] ?? 20_260_101)
/** `FUZZ_RUNS=10` walks ten times as many ways. */
const runs = (count: number): number => count * Number(process.env['FUZZ_RUNS'] ?? 1)

/** Emptied between the cases: to make the tables takes longer than most of them. */
const TABLES = ['long_texts', 'channels', 'messages', 'holes', 'senders', 'person_channels', 'channel_infos', 'members', 'listed', 'users', 'cursors', 'hidden', 'tokens', 'outbox']

describe.skipIf(binaries === undefined)('on PostgreSQL', () => {
  let server: TestServer
  let owner: Pool

  beforeAll(async () => {
    server = await TestServer.start()
    const storage = postgresStorage({ connectionString: server.url() })
    await storage.open()
    await storage.close()
    owner = new Pool({ connectionString: server.url() })
    owner.on('error', () => undefined) // the server ends before it does
  })
  afterAll(async () => {
    await owner.end()
    await server.close()
  })

  /** Connections that stay are faster; the suites whose storages make their own show that those work. */
  const onPool = (): Partial<PostgresStorageOptions> => ({ pool: owner })
  const onItsOwn = (): Partial<PostgresStorageOptions> => ({ connectionString: server.url() })

  interface Part<T> {
    readonly subject: T
    readonly storage: PostgresStorage
    readonly options: PostgresStorageOptions
    close(): Promise<void>
  }

  /** One part of a storage, for its suite. */
  function suiteOf<T>(partOf: (storage: PostgresStorage) => T, place = onPool) {
    const reopened = async (options: PostgresStorageOptions): Promise<Part<T>> => {
      const storage = postgresStorage(options)
      await storage.open()
      return { subject: partOf(storage), storage, options, close: () => storage.close() }
    }
    return {
      open: async (options: Partial<PostgresStorageOptions> = {}): Promise<Part<T>> => {
        await owner.query(TABLES.map((table) => `DELETE FROM imengine.${table}`).join('; '))
        return reopened({ ...place(), ...options })
      },
      reopen: async ({ storage, options }: Part<T>): Promise<Part<T>> => {
        await storage.close()
        return reopened(options)
      },
    }
  }

  const messages = suiteOf<MessageStore>((storage) => storage.messages)
  const channels = suiteOf<ChannelDirectory>((storage) => storage.channels)
  const cursors = suiteOf<CursorStore>((storage) => storage.cursors, onItsOwn)
  const tokens = suiteOf<TokenStore>((storage) => storage.tokens, onItsOwn)
  const outbox = suiteOf<Outbox>((storage) => storage.outbox, onItsOwn)

  describe.each([
    ['the message store', messageStoreContract({ open: () => messages.open(), reopen: messages.reopen })],
    [
      'the message store, a statement for every call',
      messageStoreContract({ open: () => messages.open({ maxBatchCount: 1, maxAppendStatements: 8, maxCachedChannels: 1 }) }).filter(({ name }) => /append|repeat|overlap|batch/.test(name)),
    ],
    ['the channel directory', channelDirectoryContract({ open: () => channels.open(), reopen: channels.reopen })],
    ['the cursor store', cursorStoreContract({ open: () => cursors.open(), reopen: cursors.reopen })],
    ['the token store', tokenStoreContract({ open: () => tokens.open(), reopen: tokens.reopen })],
    ['the outbox', outboxContract({ open: () => outbox.open(), reopen: outbox.reopen })],
  ])('%s', (_name, cases) => {
    for (const { name, run } of cases) it(name, run)
  })

  /** A walk over a part: what was opened is found again by it, so that it can be closed and opened anew. */
  function walks<T extends object>({ open, reopen }: ReturnType<typeof suiteOf<T>>, options: Partial<PostgresStorageOptions> = {}) {
    const opened = new Map<T, Part<T>>()
    const keep = (part: Part<T>): T => {
      opened.set(part.subject, part)
      return part.subject
    }
    return {
      open: async (environment: { readonly nowMs?: () => number } = {}) => keep(await open({ ...options, ...environment })),
      reopen: async (subject: T) => {
        const part = opened.get(subject)!
        opened.delete(subject)
        return keep(await reopen(part))
      },
      close: async (subject: T) => {
        await opened.get(subject)?.close()
        opened.delete(subject)
      },
    }
  }

  describe('a sweep', () => {
    const room = (channelID: string): ChannelKey => ({ channelID, channelType: 2 })

    async function swept(options: Partial<PostgresStorageOptions>) {
      const clock = { nowMs: 1_700_000_000_000 }
      const { subject: store, close } = await messages.open({ ...options, nowMs: () => clock.nowMs })
      let n = 0
      const say = async (key: ChannelKey, ...numbers: string[]) => {
        const sent = numbers.map((clientMsgNo) => sampleMessage(++n, { ...key, clientMsgNo, payload: Buffer.from('same'), timestampMs: clock.nowMs }))
        return (await store.append([{ key, messages: sent }]))[0]!
      }
      const sweep = async () => {
        let removedCount = 0
        for (let callCount = 1; ; callCount++) {
          const result = await store.sweep!(clock.nowMs)
          removedCount += result.removedCount
          if (result.isDone) return { removedCount, callCount }
        }
      }
      const seqs = async (key: ChannelKey) => (await store.range(key, { limit: 10_000 })).map(({ messageSeq }) => messageSeq)
      return { clock, store, say, sweep, seqs, close }
    }

    it('keeps the newest of each channel, as many as its retention says, and forgets the numbers of the others', async () => {
      const retention = ({ channelID }: ChannelKey) => (channelID === 'a' ? { maxCount: 3 } : undefined)
      const { store, say, sweep, seqs, close } = await swept({ retention })
      await say(room('a'), '1', '2', '3', '4', '5')
      await say(room('b'), '1', '2', '3', '4')
      await store.revise(room('a'), 4, { kind: 'recalled', byUID: '', timestampMs: 1 })
      expect(await sweep()).toMatchObject({ removedCount: 2 })
      expect([await seqs(room('a')), await seqs(room('b'))]).toEqual([[3, 4, 5], [1, 2, 3, 4]])
      expect((await store.summaries('ann', [room('a')]))[0]).toMatchObject({ lastSeq: 5, floorSeq: 2 })
      expect(await store.countAfter(room('a'), 0)).toBe(2)
      expect((await say(room('a'), '1'))[0]).toMatchObject({ status: 'stored', messageSeq: 6 })
      expect((await say(room('a'), '5'))[0]).toMatchObject({ status: 'duplicate', messageSeq: 5 })
      await close()
    })

    it('removes what is too old, also all of a channel, and its numbers are never given again', async () => {
      const { clock, say, sweep, seqs, close } = await swept({ retention: { maxAgeMs: 1_000 } })
      await say(room('a'), '1', '2')
      clock.nowMs += 600
      await say(room('a'), '3')
      clock.nowMs += 500
      expect(await sweep()).toMatchObject({ removedCount: 2 })
      expect(await seqs(room('a'))).toEqual([3])
      clock.nowMs += 10_000
      expect(await sweep()).toMatchObject({ removedCount: 1 })
      expect((await say(room('a'), '4'))[0]).toMatchObject({ messageSeq: 4 })
      await close()
    })

    it('goes piece by piece over many messages and many channels', async () => {
      const { store, say, sweep, seqs, close } = await swept({ retention: { maxCount: 1 } })
      const numbers = Array.from({ length: 12_500 }, (_, index) => `n${index}`)
      await say(room('large'), ...numbers)
      const small = Array.from({ length: 600 }, (_, index) => room(`small-${index}`))
      await store.append(small.map((key, index) => ({ key, messages: [1, 2].map((k) => sampleMessage(100_000 + 2 * index + k, key)) })))
      const { removedCount, callCount } = await sweep()
      expect(removedCount).toBe(12_499 + 600)
      expect(callCount).toBeGreaterThan(1)
      expect([await seqs(room('large')), await seqs(small[599]!)]).toEqual([[12_500], [2]])
      await close()
    })

    it('forgets client numbers after dedupeKeepMs, and no message', async () => {
      const { clock, store, say, sweep, seqs, close } = await swept({ dedupeKeepMs: 1_000 })
      await say(room('a'), 'n', 'm')
      clock.nowMs += 900
      await sweep()
      expect((await say(room('a'), 'n'))[0]).toMatchObject({ status: 'duplicate', messageSeq: 1 })
      clock.nowMs += 200
      expect(await sweep()).toEqual({ removedCount: 0, callCount: 1 })
      expect((await say(room('a'), 'n'))[0]).toMatchObject({ status: 'stored', messageSeq: 3 })
      expect(await seqs(room('a'))).toEqual([1, 2, 3])
      await store.truncate(room('a'), 3)
      expect((await say(room('a'), 'n', 'm')).map(({ status, messageSeq }) => [status, messageSeq])).toEqual([['duplicate', 3], ['stored', 4]])
      await close()
    })
  })

  describe('whatever is done to it in whatever order', () => {
    it('the message store answers as a plain list would', async () => {
      const check: Pick<StoreCheck<MessageStore>, 'open' | 'reopen' | 'close'> = walks(messages)
      await checkStoreAgainstModel({ ...check, numRuns: runs(8), seed })
    })

    it('the message store with a retention answers as a plain list would', async () => {
      const bounds = { maxAgeMs: 4000 }
      await checkStoreAgainstModel({ ...walks(messages, { retention: bounds }), bounds, numRuns: runs(8), seed })
    })

    it('what is unread follows from its answers and those of its cursors', async () => {
      await checkUnreadAgainstModel({ ...walks(suiteOf((storage) => storage)), numRuns: runs(5), seed })
    })

    it('the cursor store answers as plain objects would', async () => {
      await checkCursorsAgainstModel({ ...walks(cursors), numRuns: runs(10), seed })
    })

    it('the outbox answers as an array would', async () => {
      await checkOutboxAgainstModel({ ...walks(outbox), numRuns: runs(4), seed })
    })
  })
})
