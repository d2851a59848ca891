import type { Cursor } from '../../contracts/cursor-store.ts'
import { IMError } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { channelName, Tag, textKey, textPrefix } from './keys.ts'

const VERSION = 1
export const ROW_BYTES = 21

/** In the order in which they are stored. */
export const POSITIONS: readonly (keyof Cursor)[] = ['deliveredSeq', 'readSeq', 'joinSeq', 'deletedToSeq', 'unreadMarkSeq']

export const NOWHERE: Cursor = Object.freeze({ deliveredSeq: 0, readSeq: 0, joinSeq: 0, deletedToSeq: 0, unreadMarkSeq: 0 })

/** What one call does to a row: raise its positions, then set some. */
export interface RowChange {
  readonly row: CursorRow
  /** what had been advanced before the call and was not written yet */
  raise: Cursor
  sets: Partial<Cursor>
  /** what the row will be, once planned; undefined while it stays as it is */
  result: { readonly cursor: Cursor; readonly bytes: Buffer | undefined } | undefined
}

/** One user in one channel, in memory while anything about it is not durable. */
export class CursorRow {
  readonly name: string
  readonly uid: Buffer
  readonly channel: Buffer
  readonly key: Buffer
  /** undefined: to be asked */
  durable: Cursor | undefined
  /** with what the batch that is being written will have done */
  planned: Cursor | undefined
  /** what has been advanced since the last change */
  raise: Cursor = NOWHERE
  /** under way, in the order of the calls */
  readonly changes: RowChange[] = []
  /** keys of hidden messages that are under way */
  readonly hiding = new Set<readonly Buffer[]>()

  constructor(name: string, uid: string, key: ChannelKey) {
    this.name = name
    this.uid = Buffer.from(uid)
    this.channel = channelName(key)
    this.key = textKey(Tag.Cursor, this.uid, this.channel)
  }

  get isIdle(): boolean {
    return this.raise === NOWHERE && this.changes.length === 0 && this.hiding.size === 0
  }

  /** Everything that has been advanced and is not durable. Readers see it, while what is set they see once it is durable. */
  get advanced(): Cursor {
    let advanced = this.raise
    for (const { raise } of this.changes) advanced = highest(advanced, raise)
    return advanced
  }

  load(found: Buffer | undefined): void {
    this.durable ??= this.planned = decodeCursor(found)
  }

  forget(): void {
    this.durable = this.planned = undefined
  }

  /** The row must have been loaded. */
  plan(change: RowChange): void {
    const planned = this.planned!
    const next = cursorOf({ ...highest(planned, change.raise), ...change.sets })
    if (POSITIONS.every((name) => next[name] === planned[name])) return
    this.planned = next
    change.result = { cursor: next, bytes: encodeCursor(next) }
  }

  commit(change: RowChange): void {
    if (change.result !== undefined) this.durable = change.result.cursor
    this.#drop(change)
  }

  /** It was not written: what it would have raised is raised by the next change, or by one to come. */
  giveBack(change: RowChange): void {
    const index = this.#drop(change)
    const next = this.changes[index] ?? this
    next.raise = highest(next.raise, change.raise)
  }

  #drop(change: RowChange): number {
    const index = this.changes.indexOf(change)
    this.changes.splice(index, 1)
    return index
  }
}

/** The beginning of the keys of what is hidden from a user in a channel; a seq follows. */
export function hiddenPrefix(uid: Buffer, channel: Buffer): Buffer {
  return textPrefix(Tag.Hidden, uid, channel)
}

/** The higher of each position; `a` itself when nothing is higher. */
export function highest(a: Cursor, b: Partial<Cursor>): Cursor {
  if (!POSITIONS.some((name) => (b[name] ?? 0) > a[name])) return a
  return cursorOf({
    deliveredSeq: Math.max(a.deliveredSeq, b.deliveredSeq ?? 0),
    readSeq: Math.max(a.readSeq, b.readSeq ?? 0),
    joinSeq: Math.max(a.joinSeq, b.joinSeq ?? 0),
    deletedToSeq: Math.max(a.deletedToSeq, b.deletedToSeq ?? 0),
    unreadMarkSeq: Math.max(a.unreadMarkSeq, b.unreadMarkSeq ?? 0),
  })
}

/** Nowhere is no row. */
function encodeCursor(cursor: Cursor): Buffer | undefined {
  if (cursor === NOWHERE) return undefined
  const row = Buffer.alloc(ROW_BYTES) // kept in memory: no slice of a pool
  row[0] = VERSION
  for (const [index, name] of POSITIONS.entries()) row.writeUInt32BE(cursor[name], 1 + 4 * index)
  return row
}

export function decodeCursor(row: Buffer | undefined): Cursor {
  if (row === undefined) return NOWHERE
  if (row[0] !== VERSION) throw new IMError('IM_STORE_FORMAT', { detail: `positions of version ${row[0]}` })
  if (row.length !== ROW_BYTES) throw new IMError('IM_STORE_CORRUPT', { detail: 'positions are not what was written' })
  return cursorOf({
    deliveredSeq: row.readUInt32BE(1),
    readSeq: row.readUInt32BE(5),
    joinSeq: row.readUInt32BE(9),
    deletedToSeq: row.readUInt32BE(13),
    unreadMarkSeq: row.readUInt32BE(17),
  })
}

/** Cursors are shared and handed out, so nobody may change them. All at 0 is always NOWHERE. */
function cursorOf(cursor: Cursor): Cursor {
  return POSITIONS.every((name) => cursor[name] === 0) ? NOWHERE : Object.freeze(cursor)
}
