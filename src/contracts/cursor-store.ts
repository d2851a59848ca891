import type { ChannelKey } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'

/** How far a user has come in a channel. Both run from 0 (nothing). */
export interface Cursor {
  /** everything up to this seq has been acknowledged by a device of the user */
  readonly deliveredSeq: number
  /** everything up to this seq has been read */
  readonly readSeq: number
}

export interface CursorUpdate {
  readonly uid: string
  readonly key: ChannelKey
  readonly deliveredSeq?: number
  readonly readSeq?: number
}

/**
 * Positions per (uid, channel). They only move forwards: an update below what is stored changes nothing. May be written
 * behind; `flush` resolves when everything accepted before it is durable.
 */
export interface CursorStore {
  cursor(uid: string, key: ChannelKey): MaybePromise<Cursor>
  advance(updates: readonly CursorUpdate[]): MaybePromise<void>
  flush(): MaybePromise<void>
}
