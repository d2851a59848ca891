/**
 * Delivered and read positions in this process's memory. Power loss, and the end of the process, lose everything. There is
 * no peer to be slow: every answer is synchronous. Nothing has to be flushed or closed.
 */
import type { Cursor, CursorStore, CursorUpdate } from '../../contracts/cursor-store.ts'
import { channelKeyString, type ChannelKey } from '../../model/channel.ts'

/**
 * A CursorStore for tests and development. Answers are plain values, never promises. It holds one small record per user
 * and channel that the user has acknowledged something in, without a bound.
 */
export function memoryCursorStore(): CursorStore {
  return new MemoryCursorStore()
}

interface CursorRecord {
  deliveredSeq: number
  readSeq: number
}

class MemoryCursorStore implements CursorStore {
  readonly #byUID = new Map<string, Map<string, CursorRecord>>()

  cursor(uid: string, key: ChannelKey): Cursor {
    const found = this.#byUID.get(uid)?.get(channelKeyString(key))
    return { deliveredSeq: found?.deliveredSeq ?? 0, readSeq: found?.readSeq ?? 0 }
  }

  advance(updates: readonly CursorUpdate[]): void {
    for (const { uid, key, deliveredSeq = 0, readSeq = 0 } of updates) {
      const cursor = this.#cursorFor(uid, key)
      if (deliveredSeq > cursor.deliveredSeq) cursor.deliveredSeq = deliveredSeq
      if (readSeq > cursor.readSeq) cursor.readSeq = readSeq
    }
  }

  flush(): void {}

  #cursorFor(uid: string, key: ChannelKey): CursorRecord {
    let channels = this.#byUID.get(uid)
    if (channels === undefined) this.#byUID.set(uid, (channels = new Map<string, CursorRecord>()))
    const name = channelKeyString(key)
    let cursor = channels.get(name)
    if (cursor === undefined) channels.set(name, (cursor = { deliveredSeq: 0, readSeq: 0 }))
    return cursor
  }
}
