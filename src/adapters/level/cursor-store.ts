/**
 * Positions and hidden messages in the database. Power loss loses what has been advanced since the last flush, or the last
 * append with a log position, and nothing else that has resolved. On a slow disk flushes take in more at once; while there is
 * none to write to, positions go on in memory, up to a bound. Close: flush first.
 */
import type { Cursor, CursorStore, CursorUpdate } from '../../contracts/cursor-store.ts'
import type { MessageStore } from '../../contracts/message-store.ts'
import { checkSeq } from '../../contracts/range-bounds.ts'
import { IMError, integerBetween } from '../../errors.ts'
import { channelKeyString, type ChannelKey } from '../../model/channel.ts'
import { isPromise, type MaybePromise } from '../../model/maybe-promise.ts'
import { CursorCall } from './cursor-call.ts'
import { CursorRow, decodeCursor, hiddenPrefix, highest, NOWHERE, POSITIONS, type RowChange } from './cursor-row.ts'
import type { Database } from './database.ts'
import { after, channelName, seqOfKey, Tag, textKey, uint32, within } from './keys.ts'
import { KnownValues } from './known-values.ts'
import type { Writer } from './writer.ts'

export interface LevelCursorStoreOptions {
  readonly database: Database
  readonly writer: Writer
  /** rows that are kept in memory, besides those that wait to be written */
  readonly maxCachedValues: number
  /** asks `ahead` before it appends with a position */
  readonly precedes: MessageStore
}

/** What has to be in the writer's hands before something else is. */
export interface Ahead {
  /** resolves when nothing of it has to be asked for any more; undefined: it has been handed over */
  readonly submitted: Promise<unknown> | undefined
  /** Throws when some of it has failed, and so may not be behind what it was to be ahead of. */
  readonly check: () => void
}

const MAX_SEQ = 0xffff_ffff
/** So many rows are flushed without being asked to, and whoever advances waits for it. */
const FLUSH_COUNT = 10_000
/** Beyond this, which only a disk that cannot be written leads to, nothing is accepted. */
const MAX_DIRTY_COUNT = 100_000
/** Ranges that are walked at the same time. */
const WALK_COUNT = 64

export class LevelCursorStore implements CursorStore {
  readonly precedes: MessageStore
  readonly #database: Database
  readonly #writer: Writer
  readonly #known: KnownValues
  /** those about which something is not durable */
  readonly #rows = new Map<string, CursorRow>()
  /** those of them that have been advanced since their last change */
  readonly #dirty = new Set<CursorRow>()
  #flushCount = FLUSH_COUNT
  /** calls that must know more before they can be written, and those behind them */
  #waiting: CursorCall[] = []
  #preparing: Promise<void> | undefined
  readonly #underWay = new Set<CursorCall>()
  #epoch = 0
  /** a write has failed, and none has succeeded since: what is read before the database is mended might be wrong after it */
  #isDoubtful = false

  constructor({ database, writer, maxCachedValues, precedes }: LevelCursorStoreOptions) {
    this.precedes = precedes
    this.#database = database
    this.#writer = writer
    this.#known = new KnownValues({ read: (keys) => database.getMany(keys), maxCount: maxCachedValues })
  }

  /** The database may hold something else than was known. What has been advanced stays. */
  forget(): void {
    this.#epoch++
    this.#isDoubtful = true
    this.#known.forget()
    for (const row of this.#rows.values()) row.forget()
  }

  /** What has been advanced is of a database that is to be another one. */
  drop(): void {
    for (const row of this.#dirty) {
      row.raise = NOWHERE
      if (row.isIdle) this.#rows.delete(row.name)
    }
    this.#dirty.clear()
  }

  cursor(uid: string, key: ChannelKey): MaybePromise<Cursor> {
    const row = this.#rows.get(rowName(uid, key))
    // As of now: by the time the row has been read, what is advanced now may be durable, or set back.
    const advanced = row?.advanced ?? NOWHERE
    if (row?.durable !== undefined) return highest(row.durable, advanced)
    const found = this.#known.get(row?.key ?? textKey(Tag.Cursor, Buffer.from(uid), channelName(key)))
    if (!isPromise(found)) return highest(decodeCursor(found), advanced)
    return (found).then((bytes) => highest(decodeCursor(bytes), advanced))
  }

  cursors(uid: string, keys: readonly ChannelKey[]): MaybePromise<readonly Cursor[]> {
    const cursors = keys.map((key) => this.cursor(uid, key))
    return cursors.some(isPromise) ? Promise.all(cursors.map((cursor) => Promise.resolve(cursor))) : (cursors as Cursor[])
  }

  /**
   * Rejects when too many rows wait for a flush and that flush fails; the positions have moved nevertheless, and wait on.
   * @throws IM_QUEUE_FULL far beyond that: nothing has moved
   */
  advance(updates: readonly CursorUpdate[]): MaybePromise<void> {
    updates.forEach(checkUpdate)
    if (this.#dirty.size >= MAX_DIRTY_COUNT) throw new IMError('IM_QUEUE_FULL', { detail: 'too many positions wait to be written' })
    for (const update of updates) {
      if (!POSITIONS.some((name) => (update[name] ?? 0) > 0)) continue
      const row = this.#rowFor(update.uid, update.key)
      row.raise = highest(row.raise, update)
      this.#dirty.add(row)
    }
    if (this.#dirty.size <= this.#flushCount) return
    this.#flushCount = this.#dirty.size + FLUSH_COUNT // a disk that fails is not tried again with every update
    return this.flush()
  }

  put(updates: readonly CursorUpdate[]): MaybePromise<void> {
    updates.forEach(checkUpdate)
    if (updates.length === 0) return
    const call = this.#call()
    for (const update of updates) {
      const change = this.#changeOf(call, this.#rowFor(update.uid, update.key))
      for (const name of POSITIONS) if (update[name] !== undefined) change.sets = { ...change.sets, [name]: update[name] }
    }
    return this.#start(call)
  }

  remove(key: ChannelKey, uids: readonly string[]): MaybePromise<void> {
    if (uids.length === 0) return
    const call = this.#call({ showsAll: true })
    for (const uid of uids) this.#changeOf(call, this.#rowFor(uid, key)).sets = NOWHERE
    return this.#start(call)
  }

  flush(): MaybePromise<void> {
    const calls = this.#flushed()
    return calls.length === 0 ? undefined : this.#endOf(calls)
  }

  /**
   * Everything that has been advanced, for a task that is to be durable no earlier: submitted behind it and checked when it is
   * planned, it is in the same batch, in a later one, or fails. undefined: there is nothing.
   */
  ahead(): Ahead | undefined {
    const calls = this.#flushed().filter(({ raisesAny }) => raisesAny)
    if (calls.length === 0) return undefined
    const waiting = calls.flatMap(({ submitted }) => submitted ?? [])
    const check = (): void => {
      for (const { failure } of calls) if (failure !== undefined) throw failure
    }
    return { submitted: waiting.length === 0 ? undefined : Promise.all(waiting), check }
  }

  /**
   * Begin to write what has been advanced. @returns all that is under way: a call before this one that fails gives back what it
   * would have raised, which is not durable then
   */
  #flushed(): readonly CursorCall[] {
    if (this.#dirty.size > 0) {
      const call = this.#call()
      for (const row of this.#dirty) this.#changeOf(call, row)
      void this.#start(call).catch(() => undefined) // whoever asks for it is told
    }
    return [...this.#underWay]
  }

  async #endOf(calls: readonly CursorCall[]): Promise<void> {
    const outcomes = await Promise.allSettled(calls.map(({ written }) => written))
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  }

  hide(uid: string, key: ChannelKey, seqs: readonly number[]): MaybePromise<void> {
    for (const seq of seqs) integerBetween('hidden seq', seq, 0, MAX_SEQ)
    if (seqs.length === 0) return
    const row = this.#rowFor(uid, key)
    const prefix = hiddenPrefix(row.uid, row.channel)
    const call = this.#call()
    call.hide(row, seqs.map((seq) => Buffer.concat([prefix, uint32(seq)])))
    return this.#start(call)
  }

  async hidden(uid: string, key: ChannelKey, afterSeq: number, throughSeq: number): Promise<readonly number[]> {
    checkSeq('afterSeq', afterSeq)
    checkSeq('throughSeq', throughSeq)
    const lastSeq = Math.min(throughSeq, MAX_SEQ)
    if (afterSeq >= lastSeq) return []
    const prefix = hiddenPrefix(Buffer.from(uid), channelName(key))
    const range = { gte: Buffer.concat([prefix, uint32(afterSeq + 1)]), lt: after(Buffer.concat([prefix, uint32(lastSeq)])) }
    const seqs: number[] = []
    for await (const stride of this.#database.keyStrides(range)) for (const found of stride) seqs.push(seqOfKey(found))
    return seqs
  }

  #rowFor(uid: string, key: ChannelKey): CursorRow {
    const name = rowName(uid, key)
    let row = this.#rows.get(name)
    if (row === undefined) this.#rows.set(name, (row = new CursorRow(name, uid, key)))
    return row
  }

  #call({ showsAll = false } = {}): CursorCall {
    return new CursorCall({
      showsAll,
      wrote: (key, value) => this.#known.wrote(key, value),
      settled: (row) => {
        if (row.raise !== NOWHERE) this.#dirty.add(row)
        else if (row.isIdle) this.#rows.delete(row.name)
      },
    })
  }

  /** The call takes over what has been advanced up to now. */
  #changeOf(call: CursorCall, row: CursorRow): RowChange {
    this.#dirty.delete(row)
    return call.changeOf(row)
  }

  /** Have the call written behind all calls before it. */
  #start(call: CursorCall): Promise<void> {
    const ended = (): void => void this.#underWay.delete(call)
    this.#underWay.add(call)
    call.written.then(() => {
      ended()
      this.#flushCount = FLUSH_COUNT
    }, ended)
    if (this.#isReady(call)) {
      this.#writer.submit(call)
    } else {
      call.wait()
      this.#waiting.push(call)
      this.#preparing ??= this.#prepare()
    }
    return call.written
  }

  /** Nothing has to be waited for, nor for a call before it. What has to be is being asked for then, and `#load` takes it up. */
  #isReady(call: CursorCall): boolean {
    if (this.#preparing !== undefined || this.#isDoubtful || call.showsAll) return false
    return this.#askFor(call.rows).length === 0
  }

  async #prepare(): Promise<void> {
    while (this.#waiting.length > 0) {
      const calls = this.#waiting
      this.#waiting = []
      try {
        await this.#load(calls)
      } catch (error) {
        for (const call of calls) call.failed(error as IMError)
        continue
      }
      for (const call of calls) {
        try {
          if (call.showsAll) await this.#findHidden(call)
          this.#writer.submit(call)
          call.handOver()
        } catch (error) {
          call.failed(error as IMError)
        }
      }
    }
    this.#preparing = undefined
  }

  async #load(calls: readonly CursorCall[]): Promise<void> {
    // The first write after a failure opens the database anew, or tells at once that it is too early for that.
    if (this.#isDoubtful) await this.#writer.write([], () => (this.#isDoubtful = false))
    const epoch = this.#epoch
    const asked = calls.flatMap((call) => this.#askFor(call.rows))
    const found = await Promise.all(asked.map(([, value]) => value))
    if (epoch !== this.#epoch) throw new IMError('IM_STORE_UNAVAILABLE', { detail: 'a write before this one has failed' })
    for (const [index, [row]] of asked.entries()) row.load(found[index])
  }

  /** Load what is known of the rows. @returns the others, with what they will be */
  #askFor(rows: Iterable<CursorRow>): (readonly [row: CursorRow, value: Promise<Buffer | undefined>])[] {
    const asked: (readonly [CursorRow, Promise<Buffer | undefined>])[] = []
    for (const row of rows) {
      if (row.durable !== undefined) continue
      const found = this.#known.get(row.key)
      if (isPromise(found)) asked.push([row, found])
      else row.load(found)
    }
    return asked
  }

  /**
   * What the call's users have hidden before it. Calls behind it wait, so nothing that is hidden later is found; what is on
   * its way to the disk is in `hiding`.
   */
  async #findHidden(call: CursorCall): Promise<void> {
    const rows = [...call.rows]
    for (const row of rows) for (const keys of row.hiding) call.show(keys)
    const walk = async (): Promise<void> => {
      for (let row = rows.pop(); row !== undefined; row = rows.pop()) {
        const range = within(hiddenPrefix(row.uid, row.channel))
        for await (const stride of this.#database.keyStrides(range)) call.show(stride)
      }
    }
    await Promise.all(Array.from({ length: WALK_COUNT }, walk))
  }
}

/** Unambiguous: the uid's length says where it ends. */
function rowName(uid: string, key: ChannelKey): string {
  return `${uid.length}:${uid}${channelKeyString(key)}`
}

/** All is looked at before the first change: a call that throws leaves nothing behind. */
function checkUpdate(update: CursorUpdate): void {
  for (const name of POSITIONS) if (update[name] !== undefined) integerBetween(name, update[name], 0, MAX_SEQ)
}
