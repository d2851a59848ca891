import type { ChannelKey } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'
import type { Message } from '../model/message.ts'

/** Messages of one channel, in the order their numbers are to have. */
export interface AppendBatch {
  readonly key: ChannelKey
  /** 1 or more, all of `key`, `messageSeq` 0; the store keeps neither the array nor the objects in it */
  readonly messages: readonly Message[]
}

/**
 * What became of one appended message.
 * - `stored`: new, at `messageSeq`, under the `messageID` it came with.
 * - `duplicate`: the channel already has a message of this sender with this clientMsgNo and the same payload; the ids are
 *   the original's. Nothing was written.
 * - `conflict`: the same, but with another payload; the ids are the original's. Nothing was written.
 */
export interface AppendResult {
  readonly status: 'stored' | 'duplicate' | 'conflict'
  readonly messageID: string
  readonly messageSeq: number
}

export interface RangeQuery {
  /** first seq wanted, inclusive; default 1 forwards, the channel's last backwards */
  readonly startSeq?: number
  /** last seq wanted, inclusive; default none */
  readonly endSeq?: number
  /** 1 .. 10000, default 100 */
  readonly limit?: number
  /** 'forward' (default) counts up from startSeq, 'backward' down; the result is in that order */
  readonly direction?: 'forward' | 'backward'
}

export interface MessageStore {
  /**
   * Append to one or more channels and give each new message the next sequence number of its channel.
   *
   * Numbers run 1, 2, 3 … per channel without gap or repeat, also after `truncate`, also after a crash. A message whose
   * (channel, fromUID, clientMsgNo) is already there, or earlier in the same batch, is not stored again (see
   * AppendResult); an empty clientMsgNo never counts as a repeat. Each channel's batch is atomic: all of it or nothing.
   *
   * The engine calls it again for a channel only when the call before has settled or has outlived the step's time-out, so
   * a store keeps calls of one channel in order itself. Concurrent calls for other channels are usual: a store that has a
   * cost per transaction gathers what waits into one.
   * @returns per batch, per message, what became of it, in the order given
   * @throws (or rejects with) anything: nothing of that call was written and no number is used up
   * Durable once resolved, at the level the store promises. Source: EventChannelDistribute, step store.
   */
  append(batches: readonly AppendBatch[]): MaybePromise<readonly (readonly AppendResult[])[]>

  /** Messages of one channel by seq. Unknown channels are empty. Removed numbers are skipped. */
  range(key: ChannelKey, query?: RangeQuery): MaybePromise<readonly Message[]>

  /** The highest number ever given in the channel, 0 for none. Never goes down. */
  lastSeq(key: ChannelKey): MaybePromise<number>

  /** The message a sender stored under this clientMsgNo, while the store still has it. */
  findByClientMsgNo(key: ChannelKey, fromUID: string, clientMsgNo: string): MaybePromise<Message | undefined>

  /** Messages by id, in the order asked; undefined where there is none. */
  get(messageIDs: readonly string[]): MaybePromise<readonly (Message | undefined)[]>

  /** Remove everything below `beforeSeq`. Numbers are never given again. */
  truncate(key: ChannelKey, beforeSeq: number): MaybePromise<{ readonly removedCount: number }>
}
