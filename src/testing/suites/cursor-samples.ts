import type { Cursor, CursorStore } from '../../contracts/cursor-store.ts'
import { ROOM } from './samples.ts'

export const KEY = ROOM

/** A cursor with these positions, and the others at 0. */
export function at(positions: Partial<Cursor> = {}): Cursor {
  return { deliveredSeq: 0, readSeq: 0, joinSeq: 0, deletedToSeq: 0, unreadMarkSeq: 0, ...positions }
}

export async function cursorOf(store: CursorStore, uid = 'ann', key = KEY): Promise<Cursor> {
  return { ...(await store.cursor(uid, key)) }
}
