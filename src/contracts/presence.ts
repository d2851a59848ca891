import type { MaybePromise } from '../model/maybe-promise.ts'

/** One live connection of a user, as other nodes need to know it. */
export interface PresenceEntry {
  readonly uid: string
  readonly nodeID: number
  /** unique on its node */
  readonly connectionID: string
  readonly deviceFlag: number
  readonly deviceLevel: number
}

/** The node that is going to announce its connections. */
export interface PresenceNode {
  readonly nodeID: number
  /** of its heartbeats, in milliseconds */
  readonly intervalMs: number
}

/**
 * Which nodes hold connections of a user. A user's phone and browser may sit on two nodes, so the answer is a set.
 * `online` and `offline` of one connection may be repeated; `offline` of an unknown one does nothing.
 */
export interface Presence {
  /** Called by the engine once, before everything else: connect, and learn who is online. May be left out. */
  start?(node: PresenceNode): MaybePromise<void>
  online(entry: PresenceEntry): MaybePromise<void>
  offline(entry: PresenceEntry): MaybePromise<void>
  /** Node ids per uid, ascending, each once; uids with no live connection are absent from the map. */
  locate(uids: readonly string[]): MaybePromise<ReadonlyMap<string, readonly number[]>>
  /** The live connections of one user, over all nodes. */
  devices(uid: string): MaybePromise<readonly PresenceEntry[]>
  /**
   * This node lives. Called every `presenceHeartbeatMs`; the entries of a node that has been silent for three of them are
   * gone from every answer, and come back with its next heartbeat only if they are announced again. What is announced
   * before a node's first heartbeat is shown at once.
   */
  heartbeat(nodeID: number, intervalMs: number): MaybePromise<void>
  /** Forget every entry of a node: on its orderly end, and on its start before the first `online`. */
  leave(nodeID: number): MaybePromise<void>
  /** Called by the engine last, also when `start` has failed; again when `start` comes back after that. May be left out. */
  close?(): MaybePromise<void>
}
