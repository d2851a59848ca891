import type { ChannelKey } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'
import type { MessageStore } from './message-store.ts'

/** Where a user stands in a channel. All positions are seqs and start at 0 (nothing). */
export interface Cursor {
  /** everything up to this seq has been acknowledged by a device of the user */
  readonly deliveredSeq: number
  /** everything up to this seq has been read */
  readonly readSeq: number
  /** the first seq that concerns the user, as a member; 0 for a member from the beginning, and for a person channel */
  readonly joinSeq: number
  /** the user has deleted the conversation as it was up to this seq */
  readonly deletedToSeq: number
  /** the user has marked the conversation as unread: own messages up to this seq do not count as having read it */
  readonly unreadMarkSeq: number
}

/** The positions that are named; the others stay as they are. */
export type CursorUpdate = { readonly uid: string; readonly key: ChannelKey } & Partial<Cursor>

/** Positions per (uid, channel), and the messages that a user has deleted for themselves only. */
export interface CursorStore {
  /**
   * The message store whose appends with a log position are never durable before what was advanced earlier: the engine need not
   * flush before it keeps a position there. Absent: it does.
   */
  readonly precedes?: MessageStore
  cursor(uid: string, key: ChannelKey): MaybePromise<Cursor>
  /** As `cursor`, for many channels of one user, in the order asked. */
  cursors(uid: string, keys: readonly ChannelKey[]): MaybePromise<readonly Cursor[]>
  /**
   * Move positions forwards: one below what is stored changes nothing. Seen by the next question; may be written behind,
   * and is durable once `flush` has resolved.
   */
  advance(updates: readonly CursorUpdate[]): MaybePromise<void>
  /** Set positions, backwards too. Durable once resolved. */
  put(updates: readonly CursorUpdate[]): MaybePromise<void>
  /** Forget the user's positions and deleted messages in the channel. Durable once resolved. */
  remove(key: ChannelKey, uids: readonly string[]): MaybePromise<void>
  /** Resolves when everything accepted before it is durable. */
  flush(): MaybePromise<void>

  /** The user does not want to see these messages of the channel any more. Durable once resolved. */
  hide(uid: string, key: ChannelKey, seqs: readonly number[]): MaybePromise<void>
  /** The seqs hidden from the user with `afterSeq` < seq <= `throughSeq`, ascending. */
  hidden(uid: string, key: ChannelKey, afterSeq: number, throughSeq: number): MaybePromise<readonly number[]>
}
