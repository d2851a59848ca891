/**
 * Positions and hidden messages in the database. Power loss, or the end of the process, loses what has been advanced since
 * the last flush, and nothing else that has resolved. While there is no server, positions go on in memory, up to a bound.
 * Another engine sees a position once it has been flushed. Close: flush first.
 */
import type { Cursor, CursorStore, CursorUpdate } from '../../contracts/cursor-store.ts'
import { checkSeq } from '../../contracts/range-bounds.ts'
import { IMError, integerBetween } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import { CursorBatch, POSITIONS, type CursorChange } from './cursor-batch.ts'
import type { Database } from './database.ts'
import { textKey, type Texts } from './texts.ts'

const MAX_SEQ = 0xffff_ffff
/** So many rows are flushed without being asked to, and whoever advances waits for it. */
const FLUSH_COUNT = 10_000
/** Beyond this, which only a server that cannot be written to leads to, nothing is accepted. */
const MAX_DIRTY_COUNT = 100_000

const COLUMNS = ['delivered_seq', 'read_seq', 'join_seq', 'deleted_to_seq', 'unread_mark_seq'] as const
const SELECTED = COLUMNS.map((column) => `coalesce(c.${column}, 0) AS ${column}`).join(', ')

type CursorRow = Readonly<Record<(typeof COLUMNS)[number], string>>

export class PostgresCursorStore implements CursorStore {
  readonly #database: Database
  readonly #texts: Texts
  #pending = new CursorBatch()
  /** the batch that is being written, and how that ends */
  #underWay: { readonly batch: CursorBatch; readonly written: Promise<void> } | undefined
  /** the end of the batch that is pending, once somebody waits for it */
  #next: Promise<void> | undefined
  #flushCount = FLUSH_COUNT

  constructor(database: Database, texts: Texts) {
    this.#database = database
    this.#texts = texts
  }

  async cursor(uid: string, key: ChannelKey): Promise<Cursor> {
    const [cursor] = await this.cursors(uid, [key])
    return cursor!
  }

  async cursors(uid: string, keys: readonly ChannelKey[]): Promise<readonly Cursor[]> {
    if (keys.length === 0) return []
    // As of now: by the time the rows have been read, what is advanced now may be there, or set back.
    const advanced = keys.map((key) => this.#advancedOver(uid, key))
    const rows = await this.#database.query<CursorRow>(
      `SELECT ${SELECTED} FROM unnest($2::smallint[], $3::bytea[]) WITH ORDINALITY g (t, k, ord)
        LEFT JOIN ${this.#database.s}.cursors c ON c.uid_key = $1 AND c.channel_type = g.t AND c.channel_key = g.k ORDER BY g.ord`,
      [textKey(uid), keys.map(({ channelType }) => channelType), keys.map(({ channelID }) => textKey(channelID))],
    )
    return rows.map((row, index) => advanced[index]!(cursorOf(row)))
  }

  /**
   * Rejects when too many rows wait for a flush and that flush fails; the positions have moved nevertheless, and wait on.
   * @throws IM_QUEUE_FULL far beyond that: nothing has moved
   */
  advance(updates: readonly CursorUpdate[]): MaybePromise<void> {
    updates.forEach(checkUpdate)
    if (this.#pending.changes.size >= MAX_DIRTY_COUNT) throw new IMError('IM_QUEUE_FULL', { detail: 'too many positions wait to be written' })
    for (const update of updates) if (POSITIONS.some((name) => (update[name] ?? 0) > 0)) this.#pending.advance(update)
    if (this.#pending.changes.size <= this.#flushCount) return
    this.#flushCount = this.#pending.changes.size + FLUSH_COUNT // a server that fails is not tried again with every update
    return this.flush()
  }

  put(updates: readonly CursorUpdate[]): MaybePromise<void> {
    updates.forEach(checkUpdate)
    if (updates.length === 0) return
    for (const update of updates) this.#pending.changeOf(update.uid, update.key).put(update)
    return this.#write()
  }

  remove(key: ChannelKey, uids: readonly string[]): MaybePromise<void> {
    if (uids.length === 0) return
    for (const uid of uids) this.#pending.changeOf(uid, key).remove()
    return this.#write()
  }

  flush(): MaybePromise<void> {
    return this.#pending.changes.size > 0 ? this.#write() : this.#underWay?.written
  }

  hide(uid: string, key: ChannelKey, seqs: readonly number[]): MaybePromise<void> {
    for (const seq of seqs) integerBetween('hidden seq', seq, 0, MAX_SEQ)
    if (seqs.length === 0) return
    const { hides } = this.#pending.changeOf(uid, key)
    for (const seq of seqs) hides.add(seq)
    return this.#write()
  }

  async hidden(uid: string, key: ChannelKey, afterSeq: number, throughSeq: number): Promise<readonly number[]> {
    checkSeq('afterSeq', afterSeq)
    checkSeq('throughSeq', throughSeq)
    const rows = await this.#database.query<{ seq: string }>(
      `SELECT seq FROM ${this.#database.s}.hidden
        WHERE uid_key = $1 AND channel_type = $2 AND channel_key = $3 AND seq > $4 AND seq <= $5 ORDER BY seq`,
      [textKey(uid), key.channelType, textKey(key.channelID), afterSeq, throughSeq],
    )
    return rows.map(({ seq }) => Number(seq))
  }

  /** What is pending becomes durable, together with what comes until that begins: one batch after the other. */
  #write(): Promise<void> {
    if (this.#next !== undefined) return this.#next
    const before = this.#underWay?.written.catch(() => undefined) ?? Promise.resolve()
    const written = before.then(() => this.#begin())
    written.catch(() => undefined) // whoever waits for it is told
    return (this.#next = written)
  }

  async #begin(): Promise<void> {
    const batch = this.#pending
    const written = this.#next!
    this.#pending = new CursorBatch()
    this.#next = undefined
    this.#underWay = { batch, written }
    try {
      await this.#writeBatch([...batch.changes.values()])
      this.#flushCount = FLUSH_COUNT
    } catch (error) {
      // What was advanced has been accepted, and waits for the next flush. What was to be set is told to have failed.
      for (const change of batch.changes.values()) {
        if (change.raised.some((seq) => seq > 0)) this.#pending.changeOf(change.uid, change.key).giveBack(change)
      }
      throw error
    } finally {
      if (this.#underWay.batch === batch) this.#underWay = undefined
    }
  }

  /**
   * One statement, which sets what is set, and raises the rest to what is not below what is there: another engine may have
   * been there. In the order of the keys, so that engines do not wait for each other in a circle.
   */
  async #writeBatch(changes: readonly CursorChange[]): Promise<void> {
    if (changes.length === 0) return
    const rows = changes
      .map((change) => ({ change, uidKey: textKey(change.uid), channelKey: textKey(change.key.channelID) }))
      .sort((a, b) => Buffer.compare(a.uidKey, b.uidKey) || a.change.key.channelType - b.change.key.channelType || Buffer.compare(a.channelKey, b.channelKey))
    await this.#texts.keep(changes.flatMap(({ uid, key }) => [uid, key.channelID]))
    const { s } = this.#database
    const moved = rows.filter(({ change }) => change.movesPositions)
    const removed = rows.filter(({ change }) => change.isRemoved)
    const shown = rows.filter(({ change }) => change.showsAll)
    const hidden = rows.flatMap((row) => [...row.change.hides].map((seq) => ({ ...row, seq })))
    const next = COLUMNS.map((column, bit) => `${column} = CASE WHEN EXCLUDED.set_mask & ${1 << bit} > 0 THEN EXCLUDED.${column} ELSE greatest(c.${column}, EXCLUDED.${column}) END`)
    await this.#database.query(
      `WITH shown AS (
          DELETE FROM ${s}.hidden h USING unnest($10::bytea[], $11::smallint[], $12::bytea[], $13::text[]) g (u, t, k, kept)
            WHERE h.uid_key = g.u AND h.channel_type = g.t AND h.channel_key = g.k AND h.seq <> ALL (g.kept::bigint[])
        ), hid AS (
          INSERT INTO ${s}.hidden SELECT * FROM unnest($14::bytea[], $15::smallint[], $16::bytea[], $17::bigint[]) ON CONFLICT DO NOTHING
        ), removed AS (
          DELETE FROM ${s}.cursors r USING unnest($18::bytea[], $19::smallint[], $20::bytea[]) g (u, t, k)
            WHERE r.uid_key = g.u AND r.channel_type = g.t AND r.channel_key = g.k
        )
        INSERT INTO ${s}.cursors AS c SELECT * FROM unnest($1::bytea[], $2::smallint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::smallint[])
          ON CONFLICT (uid_key, channel_type, channel_key) DO UPDATE SET ${next.join(', ')}, set_mask = EXCLUDED.set_mask`,
      [
        ...columnsOf(moved),
        ...POSITIONS.map((_, index) => moved.map(({ change }) => change.set[index] ?? change.raised[index]!)),
        moved.map(({ change }) => change.setMask),
        ...columnsOf(shown),
        shown.map(({ change }) => `{${[...change.hides].join(',')}}`),
        ...columnsOf(hidden),
        hidden.map(({ seq }) => seq),
        ...columnsOf(removed),
      ],
    )
  }

  /** What the user has advanced in the channel and is not durable, to be laid over a cursor from the database. */
  #advancedOver(uid: string, key: ChannelKey): (cursor: Cursor) => Cursor {
    const changes = [this.#underWay?.batch, this.#pending].flatMap((batch) => batch?.find(uid, key) ?? [])
    const raises = changes.map(({ raised }) => [...raised])
    if (raises.length === 0) return (cursor) => cursor
    const [deliveredSeq, readSeq, joinSeq, deletedToSeq, unreadMarkSeq] = POSITIONS.map((_, index) => Math.max(...raises.map((raised) => raised[index]!)))
    return (cursor) => ({
      deliveredSeq: Math.max(cursor.deliveredSeq, deliveredSeq!),
      readSeq: Math.max(cursor.readSeq, readSeq!),
      joinSeq: Math.max(cursor.joinSeq, joinSeq!),
      deletedToSeq: Math.max(cursor.deletedToSeq, deletedToSeq!),
      unreadMarkSeq: Math.max(cursor.unreadMarkSeq, unreadMarkSeq!),
    })
  }
}

function columnsOf(rows: readonly { readonly change: CursorChange; readonly uidKey: Buffer; readonly channelKey: Buffer }[]): unknown[] {
  return [rows.map(({ uidKey }) => uidKey), rows.map(({ change }) => change.key.channelType), rows.map(({ channelKey }) => channelKey)]
}

function cursorOf(row: CursorRow): Cursor {
  return {
    deliveredSeq: Number(row.delivered_seq),
    readSeq: Number(row.read_seq),
    joinSeq: Number(row.join_seq),
    deletedToSeq: Number(row.deleted_to_seq),
    unreadMarkSeq: Number(row.unread_mark_seq),
  }
}

/** All is looked at before the first change: a call that throws leaves nothing behind. */
function checkUpdate(update: CursorUpdate): void {
  for (const name of POSITIONS) if (update[name] !== undefined) integerBetween(name, update[name], 0, MAX_SEQ)
}
