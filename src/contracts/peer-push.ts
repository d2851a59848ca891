import type { ChannelKey } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'
import type { Message } from '../model/message.ts'

/** Messages of one channel for users whose connections another node holds. */
export interface PeerPushRequest {
  readonly key: ChannelKey
  /** in seq order */
  readonly messages: readonly Message[]
  readonly uids: readonly string[]
}

/** A login that ends others of the same user and kind of device, wherever they are; or, with `out`, the host's own word. */
export interface PeerKickRequest {
  readonly uid: string
  readonly deviceFlag: number
  readonly deviceID: string
  readonly deviceLevel: number
  /**
   * Of a login: the node that it is on. Of two that come at the same moment, the one on the higher node stays. An adapter that does
   * not carry it keeps working, and lets both of such two in.
   */
  readonly nodeID?: number
  /**
   * How long ago that was, in milliseconds, where an adapter tells a node of it late, which has been away: who has come to that node
   * since then is newer, and stays. Absent: it is now.
   */
  readonly agoMs?: number
  /** the user has been banned or signed out: all connections of the kind of device end, or all whatsoever. Nobody has logged in */
  readonly out?: { readonly allDevices: boolean; readonly reason: string }
}

/** What a node does with what its peers send: the engine gives it to `PeerPush.start`. */
export interface PeerPushHost {
  readonly nodeID: number
  /** Deliver to this node's own connections. */
  pushed(request: PeerPushRequest): MaybePromise<void>
  /** May take as long as a call of this node to another: do not let one wait for the other, nor pushes for it. */
  kicked(request: PeerKickRequest): MaybePromise<void>
}

/** Calls from node to node. Pushes from one node to another for one channel arrive in the order they were made. */
export interface PeerPush {
  /**
   * Called by the engine before anything is done in the name of the node: calls may come from then on, and are turned down or have
   * nothing to do until the engine runs.
   * @throws TypeError  another node that runs has this `nodeID`, as far as that can be known. That node notices nothing
   */
  start(host: PeerPushHost): MaybePromise<void>
  /**
   * Resolves when the other node has taken the push over.
   * @throws IM_PEER_UNREACHABLE  it cannot be reached, its host failed, or `signal` is aborted: whether it was taken over is
   *                              unknown then
   */
  push(nodeID: number, request: PeerPushRequest, signal: AbortSignal): MaybePromise<void>
  /**
   * Ask every other node to end its own connections as the request says: by a login's kick rules, or `out`.
   * @throws IM_PEER_UNREACHABLE  one of them did not confirm, or has fallen silent without an end that it told; all have been asked
   */
  kick(request: PeerKickRequest, signal: AbortSignal): MaybePromise<void>
  /** Called by the engine at its end, also when `start` has failed or hangs; again when it comes back after that. */
  close(): MaybePromise<void>
}
