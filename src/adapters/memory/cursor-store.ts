/**
 * Positions and hidden messages in this process's memory. Power loss, and the end of the process, lose everything. There is
 * no peer to be slow: every answer is synchronous. Nothing has to be flushed or closed.
 */
import type { Cursor, CursorStore, CursorUpdate } from '../../contracts/cursor-store.ts'
import { channelKeyString, type ChannelKey } from '../../model/channel.ts'
import { checkSeq } from '../../contracts/range-bounds.ts'
import { SortedSeqs } from './sorted-seqs.ts'

/**
 * A CursorStore for tests and development. Answers are plain values, never promises. It holds one small record per user
 * and channel that the user has a position or a hidden message in, without a bound.
 */
export function memoryCursorStore(): CursorStore {
  return new MemoryCursorStore()
}

interface CursorRecord {
  deliveredSeq: number
  readSeq: number
  joinSeq: number
  deletedToSeq: number
  unreadMarkSeq: number
  hiddenSeqs: SortedSeqs | undefined
}

const POSITIONS: readonly (keyof Cursor)[] = ['deliveredSeq', 'readSeq', 'joinSeq', 'deletedToSeq', 'unreadMarkSeq']

class MemoryCursorStore implements CursorStore {
  readonly #byUID = new Map<string, Map<string, CursorRecord>>()

  cursor(uid: string, key: ChannelKey): Cursor {
    const found = this.#recordOf(uid, key)
    return {
      deliveredSeq: found?.deliveredSeq ?? 0,
      readSeq: found?.readSeq ?? 0,
      joinSeq: found?.joinSeq ?? 0,
      deletedToSeq: found?.deletedToSeq ?? 0,
      unreadMarkSeq: found?.unreadMarkSeq ?? 0,
    }
  }

  cursors(uid: string, keys: readonly ChannelKey[]): Cursor[] {
    return keys.map((key) => this.cursor(uid, key))
  }

  advance(updates: readonly CursorUpdate[]): void {
    updates.forEach(checkUpdate)
    for (const update of updates) {
      const record = this.#recordFor(update.uid, update.key)
      for (const name of POSITIONS) record[name] = Math.max(record[name], update[name] ?? 0)
    }
  }

  put(updates: readonly CursorUpdate[]): void {
    updates.forEach(checkUpdate)
    for (const update of updates) {
      const record = this.#recordFor(update.uid, update.key)
      for (const name of POSITIONS) record[name] = update[name] ?? record[name]
    }
  }

  remove(key: ChannelKey, uids: readonly string[]): void {
    const name = channelKeyString(key)
    for (const uid of uids) {
      const channels = this.#byUID.get(uid)
      channels?.delete(name)
      if (channels?.size === 0) this.#byUID.delete(uid)
    }
  }

  flush(): void {}

  hide(uid: string, key: ChannelKey, seqs: readonly number[]): void {
    for (const seq of seqs) checkSeq('hidden seq', seq)
    if (seqs.length === 0) return
    const record = this.#recordFor(uid, key)
    record.hiddenSeqs ??= new SortedSeqs()
    for (const seq of seqs) record.hiddenSeqs.add(seq)
  }

  hidden(uid: string, key: ChannelKey, afterSeq: number, throughSeq: number): number[] {
    checkSeq('afterSeq', afterSeq)
    checkSeq('throughSeq', throughSeq)
    return this.#recordOf(uid, key)?.hiddenSeqs?.between(afterSeq, throughSeq) ?? []
  }

  #recordOf(uid: string, key: ChannelKey): CursorRecord | undefined {
    return this.#byUID.get(uid)?.get(channelKeyString(key))
  }

  #recordFor(uid: string, key: ChannelKey): CursorRecord {
    let channels = this.#byUID.get(uid)
    if (channels === undefined) this.#byUID.set(uid, (channels = new Map<string, CursorRecord>()))
    const name = channelKeyString(key)
    let record = channels.get(name)
    if (record === undefined) {
      record = { deliveredSeq: 0, readSeq: 0, joinSeq: 0, deletedToSeq: 0, unreadMarkSeq: 0, hiddenSeqs: undefined }
      channels.set(name, record)
    }
    return record
  }
}

/** All is looked at before the first change: a call that throws leaves nothing behind. */
function checkUpdate(update: CursorUpdate): void {
  for (const name of POSITIONS) checkSeq(name, update[name])
}
