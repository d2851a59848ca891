import type { MaybePromise } from '../model/maybe-promise.ts'
import type { MessageStore } from './message-store.ts'

export interface OutboxEntry {
  readonly entryID: number
  readonly bytes: Uint8Array
}

/**
 * What is still to be told to somebody outside, across restarts. Lanes are independent queues, numbered 0 .. 255; within one,
 * entry ids ascend in the order of the `add` calls, and are never given again. A lane or a limit out of its bounds is a
 * TypeError, thrown or as a rejection.
 */
export interface Outbox {
  /**
   * The message store whose appends are never durable before what was added earlier: the engine need not wait for `add`
   * before it appends there. Absent: it waits.
   */
  readonly precedes?: MessageStore
  /** Durable once resolved; all or nothing. @returns the ids, in order */
  add(lane: number, entries: readonly Uint8Array[]): MaybePromise<readonly number[]>
  /** Oldest first, behind `afterID`; `limit` 1 .. 10000. */
  list(lane: number, query: { readonly afterID?: number; readonly limit: number }): MaybePromise<readonly OutboxEntry[]>
  /** Entries that are not there are passed over. */
  remove(lane: number, entryIDs: readonly number[]): MaybePromise<void>
  /** Entries in all lanes. */
  count(): MaybePromise<number>
}
