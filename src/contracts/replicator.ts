import type { IMError } from '../errors.ts'
import type { ChannelKey } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'
import type { Message } from '../model/message.ts'
import type { WaitSignal } from './abort-group.ts'
import type { AppendBatch, AppendResult, LogPosition } from './message-store.ts'

/** One committed entry of the log, the same on every node. */
export interface LogEntry extends AppendBatch {
  /** the node that proposed it */
  readonly nodeID: number
}

/** What a node does with a committed entry: the engine gives it to `Replicator.start`. */
export interface ReplicatorHost {
  readonly nodeID: number
  /** How far this node has come in a log, as its store knows. Absent when the store cannot keep that: then `apply` takes no position. */
  logPosition?(log: string): MaybePromise<number>
  /**
   * Append to this node's own store, in one call, and deliver to its own connections. Entries of one channel one after the
   * other, in the same order on every node, whether in one call or in several. A throw means that none has been applied: they
   * are given again, before any later entry of their channels, because a node that skipped them would number differently from
   * then on. `position` is kept with them, atomically.
   * @returns per entry, per message, what became of it
   */
  apply(entries: readonly LogEntry[], position?: LogPosition): MaybePromise<readonly (readonly AppendResult[])[]>
  /**
   * Carry out an operation on what else the nodes keep alike, as `Replicator.operate` was given it. `position` is kept with it,
   * or behind it where doing it once more after a crash changes nothing. A throw means what it means for `apply`.
   * @returns what came of it, for whoever has proposed it
   */
  operate(operation: Uint8Array, position?: LogPosition): MaybePromise<unknown>
  /**
   * Resolves when the store has the position of everything that `apply` and `operate` have resolved for, which may come a little later
   * than they. To be called before the store is brought to another position by other means.
   */
  settle?(): MaybePromise<void>
  /** `Storage.snapshot` of this node, for another one that the log can no longer help; absent when its storage has none. */
  snapshot?(): AsyncIterable<Uint8Array>
  /** `Storage.restore` of this node. Only while it starts: nothing has been asked of its storage, and nothing applied. */
  restore?(chunks: AsyncIterable<Uint8Array>): Promise<void>
  /**
   * This node has lost the others, or a part of the log for good, or has them again: it does not hear of everything, and can not
   * acknowledge everything. Said once for each change, when it has lasted for a while.
   */
  isolated(isIsolated: boolean): void
}

/** How the log stands on one node. */
export interface ReplicatorStatus {
  /** is there a way to those who keep the log? Absent when that is no question */
  readonly isConnected?: boolean
  readonly partitions: readonly {
    readonly log: string
    /** the last entry that is in this node's store, and the last that this node knows to be there, which may be some seconds ago */
    readonly appliedIndex: number
    readonly lastIndex: number
    /** why it will not go on by itself */
    readonly stopped: IMError | undefined
  }[]
}

/**
 * Agreement between nodes. With a replicator the log decides order and the numbers follow from it: the `store` step
 * does nothing, `replicate` proposes, and every node applies what is committed to its own store, in log order.
 */
export interface Replicator {
  /**
   * Join the log. One that keeps it elsewhere than in this process asks `logPosition` of every log before it gives the host
   * anything, and resolves when the host has what was in them by then: what it is given of its own before that was proposed by an
   * earlier life of it, and when its storage is new none of that is announced once more.
   */
  start(host: ReplicatorHost): MaybePromise<void>
  /**
   * Propose one channel's messages as one entry.
   * @returns what `apply` gave on this node, once it has been applied here
   * @throws IM_REPLICATION_TIMEOUT  `signal` was aborted before that; its fate may be unknown, and a repeat under the same
   *                                 clientMsgNo gets the original answer either way
   * @throws (or rejects with) anything else: it was not committed, or its fate is unknown in the same way
   */
  propose(key: ChannelKey, messages: readonly Message[], signal: WaitSignal): MaybePromise<readonly AppendResult[]>
  /**
   * Asked before a channel's messages that wait are taken, to be proposed: until it resolves, those that come are for the same
   * call. May be left out.
   * @param count  how many of them wait by now; 1 or more
   * @param bytes  about how many bytes those are
   * @returns undefined to have them at once. What takes as long as a proposal may is waited for no longer, and the time that a
   *   proposal may take begins behind it
   */
  gather?(key: ChannelKey, count: number, bytes: number): Promise<void> | undefined
  /**
   * Propose a change of what else the nodes keep alike: channels, members, users, tokens, positions, and messages that are
   * there already. `lane` says what it is in order with: the other operations of that lane, and when it is the
   * `channelKeyString` of a channel, the messages of it. Without this method every node keeps all that for itself.
   * @param operation  the engine's own; every node gives it to `ReplicatorHost.operate`. Up to 128 KiB, or four thirds of the largest
   *   payload and a little more, which a message that is edited may have
   * @returns what `operate` gave on this node
   * @throws as `propose`
   */
  operate?(lane: string, operation: Uint8Array, signal: WaitSignal): MaybePromise<unknown>
  /** How the log stands on this node, at once and from memory, for `engine.ready`. May be left out. */
  status?(): ReplicatorStatus
  /** Which log, of those in `status`, a channel's messages go through; for `engine.explain`. May be left out. */
  logOf?(key: ChannelKey): string
  /** Called by the engine at its end, also when `start` has failed or hangs; again when it comes back after that. */
  close(): MaybePromise<void>
}
