/**
 * What is still to be told, in the database. Power loss loses nothing that has resolved. A slow server makes statements
 * larger, and more than `maxPendingBytes` waiting is turned away. Close lets go of the lock of this instance.
 */
import type { Outbox, OutboxEntry } from '../../contracts/outbox.ts'
import { badOption, IMError, integerBetween } from '../../errors.ts'
import type { Database } from './database.ts'
import type { InstanceLock } from './instance-lock.ts'

const MAX_LIMIT = 10_000
const MAX_LANE = 255

/** Entries, and bytes, of one statement; a call alone may be larger. */
const MAX_BATCH_COUNT = 1_000
const MAX_BATCH_BYTES = 4 << 20

/** Some bytes per entry besides its own. */
const ENTRY_BYTES = 100

export interface PostgresOutboxOptions {
  readonly database: Database
  readonly lock: InstanceLock
  /** whose queues these are: every engine sees its own alone */
  readonly instance: string
  readonly maxPendingBytes: number
}

interface AddCall {
  readonly lane: number
  readonly entries: readonly Buffer[]
  readonly bytes: number
  readonly resolve: (entryIDs: number[]) => void
  readonly reject: (error: unknown) => void
}

/**
 * Ids come from a sequence of the server, which never gives one twice. One statement is under way at a time, so that ids ascend
 * in the order of the calls; what comes meanwhile goes together in the next one.
 */
export class PostgresOutbox implements Outbox {
  readonly #options: PostgresOutboxOptions
  readonly #instance: Buffer
  #queue: AddCall[] = []
  #pendingBytes = 0
  #isWriting = false
  #onIdle: (() => void)[] = []

  constructor(options: PostgresOutboxOptions) {
    this.#options = options
    this.#instance = Buffer.from(options.instance)
  }

  /** Resolves when nothing that was added is under way. */
  async idle(): Promise<void> {
    if (this.#isWriting) await new Promise<void>((resolve) => this.#onIdle.push(resolve))
  }

  add(lane: number, entries: readonly Uint8Array[]): Promise<readonly number[]> {
    return new Promise((resolve, reject) => {
      checkLane(lane)
      const copies = entries.map(copyOf)
      if (copies.length === 0) return resolve([])
      const bytes = copies.reduce((sum, copy) => sum + copy.length + ENTRY_BYTES, 0)
      if (this.#pendingBytes > 0 && this.#pendingBytes + bytes > this.#options.maxPendingBytes) {
        throw new IMError('IM_QUEUE_FULL', { detail: 'too much waits for PostgreSQL' })
      }
      this.#pendingBytes += bytes
      this.#queue.push({ lane, entries: copies, bytes, resolve, reject })
      if (!this.#isWriting) void this.#write()
    })
  }

  async list(lane: number, { afterID = 0, limit }: { readonly afterID?: number; readonly limit: number }): Promise<readonly OutboxEntry[]> {
    checkLane(lane)
    integerBetween('limit', limit, 1, MAX_LIMIT)
    integerBetween('afterID', afterID, 0, Number.MAX_SAFE_INTEGER)
    await this.#options.lock.take()
    const rows = await this.#options.database.query<{ entry_id: string; bytes: Buffer }>(
      `SELECT entry_id, bytes FROM ${this.#options.database.s}.outbox WHERE instance = $1 AND lane = $2 AND entry_id > $3 ORDER BY entry_id LIMIT $4`,
      [this.#instance, lane, afterID, limit],
    )
    return rows.map(({ entry_id, bytes }) => ({ entryID: Number(entry_id), bytes }))
  }

  async remove(lane: number, entryIDs: readonly number[]): Promise<void> {
    checkLane(lane)
    const given = entryIDs.filter((entryID) => Number.isSafeInteger(entryID) && entryID > 0)
    if (given.length === 0) return
    await this.#options.lock.take()
    await this.#options.database.query(
      `DELETE FROM ${this.#options.database.s}.outbox WHERE instance = $1 AND lane = $2 AND entry_id = ANY ($3::bigint[])`,
      [this.#instance, lane, given],
    )
  }

  async count(): Promise<number> {
    await this.#options.lock.take()
    const [row] = await this.#options.database.query<{ count: string }>(
      `SELECT count(*) AS count FROM ${this.#options.database.s}.outbox WHERE instance = $1`,
      [this.#instance],
    )
    return Number(row!.count)
  }

  async #write(): Promise<void> {
    this.#isWriting = true
    await Promise.resolve() // what comes in the same turn goes in the same statement
    while (this.#queue.length > 0) {
      const calls = this.#take()
      try {
        await this.#options.lock.take()
        const entryIDs = await this.#insert(calls)
        for (const { entries, resolve } of calls) resolve(entryIDs.splice(0, entries.length))
      } catch (error) {
        for (const { reject } of calls) reject(error)
      }
      for (const { bytes } of calls) this.#pendingBytes -= bytes
    }
    this.#isWriting = false
    for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  #take(): AddCall[] {
    let count = 0
    let bytes = 0
    const end = this.#queue.findIndex((call, index) => {
      count += call.entries.length
      bytes += call.bytes
      return index > 0 && (count > MAX_BATCH_COUNT || bytes > MAX_BATCH_BYTES)
    })
    return this.#queue.splice(0, end < 0 ? this.#queue.length : end)
  }

  async #insert(calls: readonly AddCall[]): Promise<number[]> {
    const { s } = this.#options.database
    const entries = calls.flatMap((call) => call.entries)
    const rows = await this.#options.database.query<{ entry_id: string }>(
      `WITH ids AS MATERIALIZED (SELECT nextval('${s}.outbox_ids') AS id FROM generate_series(1, cardinality($2::smallint[]))),
          placed AS (SELECT id, row_number() OVER (ORDER BY id) AS ord FROM ids)
        INSERT INTO ${s}.outbox (instance, lane, entry_id, bytes)
          SELECT $1, g.lane, p.id, g.bytes FROM unnest($2::smallint[], $3::bytea[]) WITH ORDINALITY g (lane, bytes, ord) JOIN placed p USING (ord)
          RETURNING entry_id`,
      [this.#instance, calls.flatMap(({ lane, entries: ofCall }) => ofCall.map(() => lane)), entries],
    )
    return rows.map(({ entry_id }) => Number(entry_id)).sort((a, b) => a - b)
  }
}

function checkLane(lane: number): void {
  integerBetween('lane', lane, 0, MAX_LANE)
}

/** @throws TypeError that does not show what came */
function copyOf(entry: Uint8Array): Buffer {
  if (!(entry instanceof Uint8Array)) badOption('entry', 'a Uint8Array', typeof entry)
  return Buffer.from(entry)
}
