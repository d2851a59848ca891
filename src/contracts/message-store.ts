import type { ChannelKey, Page } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'
import type { Message } from '../model/message.ts'
import type { PageQuery } from './channel-directory.ts'
import type { MessageRecords } from './message-records.ts'

/** Messages of one channel, in the order their numbers are to have. Several batches of a call may be for one channel. */
export interface AppendBatch {
  readonly key: ChannelKey
  /** 1 or more, all of `key`, `messageSeq` 0; the store keeps neither the array nor the objects in it */
  readonly messages: readonly Message[]
  /**
   * The same messages as bytes, when they have come through a log that has them so: only for stores that say `keepsRecords`. They
   * need not look at `messages`, which are only made when somebody does.
   */
  readonly records?: MessageRecords
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

/** How far a node has come in a log that decides the order of messages. */
export interface LogPosition {
  /** which log; up to 100 characters */
  readonly log: string
  /** the number of the last entry that has been applied: 1 or more */
  readonly index: number
}

/** Bounds are integers from 0; bounds that lie the wrong way round for the direction find nothing. */
export interface RangeQuery {
  /** first seq wanted, inclusive; default 1 forwards, the channel's last backwards */
  readonly startSeq?: number
  /** last seq wanted, inclusive: the highest forwards, the lowest backwards; default none */
  readonly endSeq?: number
  /** 1 .. 10000, default 100 */
  readonly limit?: number
  /** 'forward' (default) counts up from startSeq, 'backward' down; the result is in that order */
  readonly direction?: 'forward' | 'backward'
}

/** Where a channel stands, and one user in it. All numbers are 0 in a channel that nobody has written to. */
export interface ChannelSummary {
  /** the highest number ever given */
  readonly lastSeq: number
  /** everything up to here has been removed, by `truncate` or by the store's own bounds */
  readonly floorSeq: number
  /** `timestampMs` of the message that got `lastSeq` */
  readonly lastTimestampMs: number
  /** the highest number a message of the user asked about has got */
  readonly sentSeq: number
}

/** What is to become of a stored message. */
export type MessageChange =
  /** it leaves an empty payload behind, and nothing changes it any more */
  | { readonly kind: 'recalled'; readonly byUID: string; readonly timestampMs: number }
  | { readonly kind: 'edited'; readonly byUID: string; readonly timestampMs: number; readonly payload: Uint8Array }

export interface SweepResult {
  readonly removedCount: number
  /** false when there is more to remove than one call takes on */
  readonly isDone: boolean
}

/**
 * What of a channel nobody is to read any more. It says what is not there afterwards, so that doing it twice is doing it once, and nodes
 * that do it at the same place of a log know the same repeats behind it.
 */
export interface Removal {
  readonly key: ChannelKey
  /** everything up to here */
  readonly throughSeq?: number
  /** messages that have expired, with when they did */
  readonly expired?: readonly { readonly messageSeq: number; readonly expiresAtMs: number }[]
  /** a repeat of what has a number up to here is not recognised any more */
  readonly forgottenThroughSeq?: number
}

export interface DueRemovals {
  readonly removals: readonly Removal[]
  /** false when there is more than was asked for */
  readonly isDone: boolean
}

/**
 * The messages of all channels. A message whose `expireSec` has passed is absent from every answer, but its number stays
 * used. Messages that are handed out are the reader's: nothing that is done to them reaches the store.
 */
export interface MessageStore {
  /**
   * Recognising a repeat costs this store little more than storing a message: then the engine keeps no answers in front of it,
   * which it does for other stores whose answers take their time.
   */
  readonly knowsRepeats?: boolean
  /**
   * What comes from a log as bytes it wants as bytes (`AppendBatch.records`). Other stores are given messages, in plain objects. Of
   * such a call batches and results may be views, whose fields are lost when they are spread or cloned: who wraps a store and
   * looks into either, or changes messages, has this false.
   */
  readonly keepsRecords?: boolean

  /**
   * Append to one or more channels and give each new message the next sequence number of its channel.
   *
   * Numbers run 1, 2, 3 … per channel without gap or repeat, also after `truncate`, also after a crash. A message whose
   * (channel, fromUID, clientMsgNo) is already there, or earlier in the same batch, is not stored again (see
   * AppendResult); an empty clientMsgNo never counts as a repeat. A repeat is judged by the payload the original came with,
   * whatever has become of it since. Once a message has been removed, a repeat of it may be stored as new. Each channel's
   * batch is atomic: all of it or nothing.
   *
   * The engine calls it again for a channel only when the call before has settled or has outlived the step's time-out, so
   * a store keeps calls of one channel in order itself. Concurrent calls for other channels are usual: a store that has a
   * cost per transaction gathers what waits into one.
   * With a `position` the whole call is one atomic write: all batches and the position, or nothing. Then there may be no batch
   * at all. Only stores that have `logPosition` are given one.
   * @returns per batch, per message, what became of it, in the order given
   * @throws (or rejects with) anything: nothing of that call was written and no number is used up
   * Durable once resolved, at the level the store promises. Source: EventChannelDistribute, step store.
   */
  append(batches: readonly AppendBatch[], position?: LogPosition): MaybePromise<readonly (readonly AppendResult[])[]>

  /**
   * The `index` last given to `append` for this log, 0 for none. A store that has it can stand under a log that several nodes
   * apply: after a crash it tells from where to go on, and nothing is applied twice.
   */
  logPosition?(log: string): MaybePromise<number>

  /**
   * Messages of one channel by seq. Unknown channels are empty. Removed numbers are skipped and do not count in `limit`.
   * @throws (or rejects with) TypeError for a query out of its bounds
   */
  range(key: ChannelKey, query?: RangeQuery): MaybePromise<readonly Message[]>

  /** The highest number ever given in the channel, 0 for none. Never goes down. */
  lastSeq(key: ChannelKey): MaybePromise<number>

  /** The message a sender stored under this clientMsgNo, while the store still has it; an empty one finds nothing. */
  findByClientMsgNo(key: ChannelKey, fromUID: string, clientMsgNo: string): MaybePromise<Message | undefined>

  /** Messages by id, in the order asked; undefined where there is none. */
  get(messageIDs: readonly string[]): MaybePromise<readonly (Message | undefined)[]>

  /** Remove everything below `beforeSeq`. Numbers are never given again. Durable once resolved. */
  truncate(key: ChannelKey, beforeSeq: number): MaybePromise<{ readonly removedCount: number }>

  /** Where channels stand, in the order asked, with how far `uid` has written in each. Person channels by their canonical id. */
  summaries(uid: string, keys: readonly ChannelKey[]): MaybePromise<readonly ChannelSummary[]>

  /**
   * How many messages above `afterSeq` there are to be read: neither removed nor recalled. A message that has expired may
   * count until it is swept away.
   */
  countAfter(key: ChannelKey, afterSeq: number): MaybePromise<number>

  /**
   * The person channels that have, or have ever had, messages and `uid` as one of the pair. A channel that stays is on
   * exactly one page. It appears with its first message, or the first of its command channel (`sourceKey`), atomically.
   */
  personChannelsOf(uid: string, query?: PageQuery): MaybePromise<Page<ChannelKey>>

  /**
   * Edit or recall one stored message. Its ids, place and time stay; `revision` says what has become of it.
   * @returns the message as it is from now on, also when it had been recalled before and so does not change; undefined
   *   when there is none. Durable once resolved, and with it the `position`, if there is one and a message. With a `position`
   *   `timestampMs` decides whether the message has expired: nodes that apply the log at other times must come to the same
   */
  revise(key: ChannelKey, messageSeq: number, change: MessageChange, position?: LogPosition): MaybePromise<Message | undefined>

  /**
   * Remove what has expired by `nowMs`, and what has outlived the store's own retention. The engine calls it every
   * `sweepIntervalMs`, and again soon while the answer says that more is left.
   */
  sweep?(nowMs: number): MaybePromise<SweepResult>
  /**
   * What `sweep` would remove, of about `maxCount` messages; nothing is removed yet. With `discard` it is for nodes that keep the same
   * messages by a log: one of them finds what is due, and all of them remove it.
   */
  due?(nowMs: number, maxCount: number): MaybePromise<DueRemovals>
  /**
   * Remove these. What is not there any more is passed over, and so is who is said to have expired then and has not.
   * @returns how many messages were there. Durable once resolved
   * @throws (or rejects with) anything when not all could be: by a log it is asked again, before whatever comes behind
   */
  discard?(removals: readonly Removal[]): MaybePromise<number>
}
