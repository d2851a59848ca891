import type * as ClassicLevelDriver from 'classic-level'
import { constants } from 'node:fs'
import { access, open, readdir, rm, stat } from 'node:fs/promises'
import { randomBytes } from 'node:crypto'
import { join, resolve } from 'node:path'
import type { ChannelDirectory } from '../../contracts/channel-directory.ts'
import type { CursorStore } from '../../contracts/cursor-store.ts'
import type { MessageStore } from '../../contracts/message-store.ts'
import type { Outbox } from '../../contracts/outbox.ts'
import type { Storage } from '../../contracts/storage.ts'
import type { TokenStore } from '../../contracts/token-store.ts'
import { badOption, IMError, integerBetween, onlyKnown } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { LevelChannelDirectory } from './channel-directory.ts'
import { LevelCursorStore } from './cursor-store.ts'
import { Database, type AnyLevel } from './database.ts'
import { storageFailure } from './failures.ts'
import { SEED_KEY, Tag, textKey } from './keys.ts'
import { LevelMessageStore } from './message-store.ts'
import { LevelOutbox } from './outbox.ts'
import { finishRestore, restoreInto, snapshotOf } from './snapshot.ts'
import { checkRetention, type Retention } from './sweeper.ts'
import { LevelTokenStore } from './token-store.ts'
import { Writer } from './writer.ts'

/**
 * The layout of keys and values. A database of an earlier one is read as it is and called one of this from then on: what is
 * in it stays, beside what is written now. One of a later layout is not touched.
 */
const FORMAT = 2
const FIRST_FORMAT = 1

const MEBIBYTE = 1 << 20

const KNOWN: readonly (keyof LevelStorageOptions)[] = [
  'path', 'db', 'durability', 'retention', 'dedupeKeepMs', 'dedupeFilterBytes', 'cacheBytes', 'writeBufferBytes', 'maxCachedChannels',
  'maxCachedValues', 'maxPendingBytes', 'nowMs',
]

export interface LevelStorageOptions {
  /** a folder for `classic-level`, made when it is not there. This or `db` */
  readonly path?: string
  /** a database of the abstract-level family, which the host closes at the end and shares with nobody */
  readonly db?: AnyLevel
  /** 'sync' (default): on the disk, also after power loss. 'os': handed to the operating system, so that only its crash loses it */
  readonly durability?: 'sync' | 'os'
  /** how much a channel keeps; the same for all, or a function of the channel. Default: everything */
  readonly retention?: Retention | ((key: ChannelKey) => Retention | undefined)
  /** how long a clientMsgNo is recognised; default 0: for as long as its message is there */
  readonly dedupeKeepMs?: number
  /** memory for knowing which clientMsgNos are new, default 16 MiB: enough for 13 million */
  readonly dedupeFilterBytes?: number
  /** memory of classic-level for blocks it has read, default 64 MiB */
  readonly cacheBytes?: number
  /**
   * memory of classic-level for what is written, before it goes into a sorted file; default 48 MiB, and up to twice that. Each
   * opening draws between half of it and all of it, so that nodes that write the same do not sort at the same moment
   */
  readonly writeBufferBytes?: number
  /** channels whose standing is kept in memory, default 100 000 */
  readonly maxCachedChannels?: number
  /** members, list entries, tokens, positions and the like that are kept in memory, default 100 000 */
  readonly maxCachedValues?: number
  /** what may wait for the disk, default 256 MiB; beyond it: IM_QUEUE_FULL */
  readonly maxPendingBytes?: number
  /** decides what has expired; default Date.now */
  readonly nowMs?: () => number
}

/** `Storage`, with what only this one can do. */
export interface LevelStorage extends Storage {
  readonly messages: MessageStore
  readonly channels: Required<ChannelDirectory>
  readonly cursors: CursorStore
  readonly tokens: TokenStore
  readonly outbox: Outbox
  open(): Promise<void>
  close(): Promise<void>
  /**
   * Resolves when it is known which clientMsgNos are in use. Until then, for some seconds per million messages after a start,
   * everything works as well, but appends cost more.
   */
  ready(): Promise<void>
  snapshot(): AsyncIterable<Uint8Array>
  restore(chunks: AsyncIterable<Uint8Array>): Promise<void>
}

/**
 * Messages, channels, positions, tokens and what is still to be told in a folder, by classic-level, or in any database of the abstract-level family.
 *
 * One process at a time. What a call has resolved for survives a crash of the process, and with `durability: 'sync'` one of
 * the machine. After a failed write the database is opened anew before the next one, so that a full disk needs nothing but
 * room. The layout is in `docs/storage.md`.
 * @throws TypeError for wrong options. `open` rejects with IM_DRIVER_MISSING, IM_STORE_LOCKED, IM_STORE_DENIED,
 *   IM_STORE_CORRUPT, IM_STORE_FORMAT, IM_STORE_FULL or IM_STORE_UNAVAILABLE
 */
export function levelStorage(options: LevelStorageOptions): LevelStorage {
  const { path, db, durability, dedupeKeepMs, maxCachedChannels, maxCachedValues, maxPendingBytes, dedupeFilterBytes, nowMs } = check(options)
  const place = path === undefined ? 'the database' : resolve(path)
  const database = new Database({
    make: async () => {
      if (db !== undefined) return db
      await checkFolder(place)
      return classicLevel(place, options)
    },
    place,
    isForeign: db !== undefined,
    sync: durability === 'sync',
    ...(db === undefined ? { probe: () => probe(place) } : {}),
  })
  const forget = (): void => {
    messages.forget()
    channels.forget()
    cursors.forget()
    tokens.forget()
    outbox.forget()
  }
  const writer = new Writer({ database, maxPendingBytes, forget, nowMs })
  const { retention } = options
  const messages: LevelMessageStore = new LevelMessageStore({
    database,
    writer,
    maxCachedChannels,
    maxPendingBytes,
    dedupeFilterBytes,
    retention: retention === undefined || typeof retention === 'function' ? retention : () => retention,
    dedupeKeepMs,
    nowMs,
    ahead: () => cursors.ahead(),
  })
  const channels = new LevelChannelDirectory({ database, writer, maxCachedValues })
  const cursors: LevelCursorStore = new LevelCursorStore({ database, writer, maxCachedValues, precedes: messages })
  const tokens = new LevelTokenStore({ database, writer, maxCachedValues })
  const outbox = new LevelOutbox({ database, writer, precedes: messages })
  return {
    messages,
    channels,
    cursors,
    tokens,
    outbox,
    description: `level (${place}${durability === 'sync' ? '' : ', not synced'})`,
    open: async () => {
      await database.open()
      writer.begin()
      forget() // of an earlier life
      try {
        await checkFormat(database)
        await finishRestore(database)
        await messages.open()
        await outbox.open()
      } catch (error) {
        await database.close().catch(() => undefined)
        throw error
      }
    },
    close: async () => {
      await writer.idle() // it may be opening the database anew, and must not come back to an end
      if (!database.isOpen) return
      try {
        await cursors.flush()
      } finally {
        await writer.idle() // what had to ask again asks now
        await messages.settle()
        await writer.idle()
        await database.close()
      }
    },
    ready: () => messages.ready(),
    snapshot: async function* () {
      await cursors.flush() // positions that wait would be missing
      yield* snapshotOf(database, SEED_KEY)
    },
    restore: async (chunks) => {
      await writer.idle()
      await messages.settle()
      try {
        await restoreInto(database, chunks)
        cursors.drop()
      } finally {
        forget()
        await messages.open()
      }
    },
  }
}

type Checked = Required<Omit<LevelStorageOptions, 'path' | 'db' | 'retention' | 'cacheBytes' | 'writeBufferBytes'>> &
  Pick<LevelStorageOptions, 'path' | 'db'>

function check(options: LevelStorageOptions): Checked {
  if (typeof options !== 'object' || options === null) badOption('options', '{ path } or { db }', options)
  onlyKnown('levelStorage', options, KNOWN)
  const { path, db, durability = 'sync', retention, nowMs = Date.now } = options
  if ((path === undefined) === (db === undefined)) badOption('options', '{ path } or { db }, and not both', options)
  if (path !== undefined && (typeof path !== 'string' || path === '')) badOption('path', 'the path of a folder', path)
  if (db !== undefined && (typeof db !== 'object' || db === null || typeof db.batch !== 'function')) badOption('db', 'an abstract-level database', db)
  if (durability !== 'sync' && durability !== 'os') badOption('durability', "'sync' or 'os'", durability)
  if (typeof nowMs !== 'function') badOption('nowMs', 'a function', nowMs)
  if (retention !== undefined && typeof retention !== 'function') checkRetention(retention)
  const count = (name: keyof LevelStorageOptions, fallback: number, least: number): number =>
    integerBetween(name, options[name] ?? fallback, least, Number.MAX_SAFE_INTEGER)
  count('cacheBytes', MEBIBYTE, 0)
  count('writeBufferBytes', MEBIBYTE, 65_536)
  return {
    ...(path === undefined ? {} : { path }),
    ...(db === undefined ? {} : { db }),
    durability,
    nowMs,
    dedupeKeepMs: count('dedupeKeepMs', 0, 0),
    dedupeFilterBytes: count('dedupeFilterBytes', 16 * MEBIBYTE, 4),
    maxCachedChannels: count('maxCachedChannels', 100_000, 1),
    maxCachedValues: count('maxCachedValues', 100_000, 1),
    maxPendingBytes: count('maxPendingBytes', 256 * MEBIBYTE, 1),
  }
}

/**
 * Without its file CURRENT the driver would take the folder for a new one, and delete what is in it.
 * @throws IM_STORE_CORRUPT
 */
async function checkFolder(path: string): Promise<void> {
  const names = await readdir(path).catch((): string[] => []) // not there, or the driver says why it cannot be read
  if (!names.includes('CURRENT') && names.some((name) => /\.(ldb|sst|log)$/.test(name))) {
    throw storageFailure(new Error(`Corruption: ${join(path, 'CURRENT')} is missing`), path)
  }
}

async function classicLevel(path: string, { cacheBytes, writeBufferBytes }: LevelStorageOptions): Promise<AnyLevel> {
  let driver: typeof ClassicLevelDriver
  try {
    driver = await import('classic-level')
  } catch (cause) {
    throw new IMError('IM_DRIVER_MISSING', { detail: 'npm install classic-level', cause })
  }
  return new driver.ClassicLevel<Buffer, Buffer>(path, {
    keyEncoding: 'buffer',
    valueEncoding: 'buffer',
    cacheSize: cacheBytes ?? 64 * MEBIBYTE,
    // sorting takes a core for some tenths of a second, once per full buffer: on all nodes of a log together, were theirs equal
    writeBufferSize: Math.round((writeBufferBytes ?? 48 * MEBIBYTE) * (0.5 + Math.random() / 2)),
  })
}

/** @throws IM_STORE_FORMAT for a database of later days, or of somebody else */
async function checkFormat(database: Database): Promise<void> {
  const key = textKey(Tag.Meta, Buffer.from('format'))
  const begin = [key, Buffer.from(String(FORMAT)), SEED_KEY, randomBytes(4)]
  const found = await database.get(key)
  if (found?.toString() === String(FORMAT)) return
  if (found !== undefined) {
    const format = Number(found.toString())
    if (format >= FIRST_FORMAT && format < FORMAT) return database.write(begin)
    throw new IMError('IM_STORE_FORMAT', { detail: `${database.place} has format ${found.toString()}, this version knows ${FORMAT}` })
  }
  const [anything] = await database.entries({ gte: Buffer.alloc(0), lt: Buffer.from([0xff]), limit: 1 })
  if (anything !== undefined) throw new IMError('IM_STORE_FORMAT', { detail: `${database.place} holds something that imengine has not written` })
  await database.write(begin)
}

/**
 * Is there room to open the database again, and the right to? Opening writes what its logs hold into new files, so as much
 * is written here for a try, and a little more. Rejects with the system's error when it cannot.
 */
async function probe(path: string): Promise<void> {
  await access(path, constants.W_OK)
  let logBytes = 0
  for (const name of await readdir(path)) if (name.endsWith('.log')) logBytes += (await stat(join(path, name))).size
  const files = [join(path, 'imengine.probe'), join(path, 'imengine.probe2')] as const
  try {
    await fill(files[0], logBytes)
    await fill(files[1], MEBIBYTE)
  } finally {
    for (const file of files) await rm(file, { force: true }).catch(() => undefined)
  }
}

async function fill(path: string, byteCount: number): Promise<void> {
  const piece = randomBytes(MEBIBYTE) // a file system may give zeros no room
  const file = await open(path, 'w')
  try {
    for (let left = byteCount; left > 0; left -= MEBIBYTE) await file.writeFile(piece.subarray(0, Math.min(left, MEBIBYTE)))
  } finally {
    await file.close()
  }
}
