import type { ChannelKey } from '../model/channel.ts'
import type { DeviceLevel } from '../model/device.ts'
import type { ConnectPacket, SendPacket } from '../model/frames.ts'
import type { Message } from '../model/message.ts'
import type { Outcome } from '../model/outcome.ts'
import type { ReasonCode } from '../model/reason-code.ts'
import type { ChannelDirectory } from './channel-directory.ts'
import type { ConnectionView } from './connection-view.ts'
import type { TokenVerifier } from './token-verifier.ts'
import type { Webhook } from './webhook.ts'

/**
 * One step of an event's chain. Nothing returned means go on; `refuse(...)` and `close(...)` end the chain; a throw is a
 * failure (the client gets SystemError, the engine emits `'error'`). Stay synchronous unless you do I/O: only promises
 * are awaited, and a promise delays what waits behind it under the same key.
 */
export type Handler<C> = (ctx: C) => Outcome | Promise<Outcome>

/** An event's steps in order, by name. Written as an object, so that the names survive a minifier. */
export type Steps<C> = Readonly<Record<string, Handler<C>>>

/**
 * Notes that handlers of one event leave each other. A plugin that writes some declares them, and readers have their types:
 * `declare module 'imengine' { interface EventState { spamScore?: number } }`.
 */
export interface EventState {
  [note: string]: unknown
}

/** What every context has. */
export interface EventContext {
  /** for handlers of one event to leave each other notes; empty at first, gone with the event */
  readonly state: EventState
  /**
   * Aborted when the step has outlived its time-out or the engine closes: pass it on to whatever you wait for. Take it before you
   * wait: behind a fail-open step that was late the chain goes on with another one. What such a step assigns then still counts.
   */
  readonly signal: AbortSignal
}

/** A client asks to come in. Keyed by connection: two logins of one user may be under way at once. */
export interface ConnectContext extends EventContext {
  readonly event: 'EventConnect'
  readonly conn: ConnectionView
  readonly frame: ConnectPacket
  /** slave until `authenticate` has asked the token verifier */
  deviceLevel: DeviceLevel
  readonly verifyToken: TokenVerifier
  readonly channels: ChannelDirectory
  /** what the client can work out from CONNACK: server time in milliseconds since 1970 */
  readonly serverTimeMs: number
  /**
   * How many stored messages wait for this user: not acknowledged by any device. Counted when asked for, which costs a look
   * at every conversation of the user.
   */
  offlineMessageCount(): Promise<number>
}

/** A client sends a message. Keyed by uid: one at a time per user, in arrival order. */
export interface OnSendContext extends EventContext {
  readonly event: 'EventOnSend'
  readonly conn: ConnectionView
  /** as it came, but for the payload, which is plaintext; `channelID` is what the client wrote */
  readonly frame: SendPacket
  /** the channel inside the engine: a person channel's canonical id */
  readonly key: ChannelKey
  /** what will be stored and delivered; assign to replace it */
  payload: Uint8Array
  /** what the webhook answered, for later handlers */
  readonly extra: Readonly<Record<string, unknown>> | undefined
  readonly channels: ChannelDirectory
  readonly webhook: Webhook | undefined
}

/** A client has received a message. Keyed by connection, never behind SENDs. */
export interface RecvAckContext extends EventContext {
  readonly event: 'EventRecvAck'
  readonly conn: ConnectionView
  /** RECVACK carries no channel; the message is found by its id among those this connection has not acknowledged */
  readonly message: Message
}

/** A client is alive. Keyed by connection, never behind SENDs. */
export interface PingContext extends EventContext {
  readonly event: 'EventPing'
  readonly conn: ConnectionView
}

/** A connection that had been accepted is gone. Keyed by connection: SENDs of its that wait are still handled. */
export interface ConnCloseContext extends EventContext {
  readonly event: 'EventConnClose'
  readonly conn: ConnectionView
  readonly cause: CloseCause
}

/** Accepted messages of one channel. Keyed by channel: one batch at a time, in the order they were accepted. */
export interface DistributeContext extends EventContext {
  readonly event: 'EventChannelDistribute'
  readonly key: ChannelKey
  /** what is still going on, in order; `messageSeq` is 0 before the `store` step */
  readonly messages: readonly Message[]
  /** Take one message out of the batch and tell its sender why. Only before it is stored. */
  refuse(message: Message, reasonCode: ReasonCode): void
  /** What the webhook answered to the SEND of this message; undefined for the host's own, and for one that is not in `messages`. */
  extraOf(message: Message): Readonly<Record<string, unknown>> | undefined
}

/** Stored (or unpersisted) messages on their way to some of the channel's members. Keyed by channel. */
export interface PushOnlineContext extends EventContext {
  readonly event: 'EventPushOnline'
  readonly key: ChannelKey
  /** in seq order */
  readonly messages: readonly Message[]
  /** whom it is for, connected or not; a large channel comes as several events */
  readonly uids: readonly string[]
}

/** Every event and what its handlers are given. */
export interface EventContexts {
  EventConnect: ConnectContext
  EventOnSend: OnSendContext
  EventRecvAck: RecvAckContext
  EventPing: PingContext
  EventConnClose: ConnCloseContext
  EventChannelDistribute: DistributeContext
  EventPushOnline: PushOnlineContext
}

export type EventName = keyof EventContexts

/** Why a connection ended. */
export type CloseCause =
  /** the socket closed or failed */
  | 'peer'
  /** the client said DISCONNECT */
  | 'client'
  | 'connect-timeout'
  | 'auth-timeout'
  | 'idle'
  /** bytes that are not the protocol */
  | 'malformed'
  /** well-formed bytes in the wrong place: a first frame that is not CONNECT, a second CONNECT, a server's packet */
  | 'protocol'
  | 'refused'
  /** a newer login of the same user, or the host's `connections.kick` */
  | 'kicked'
  | 'slow-consumer'
  /** a handler answered `close(...)`; or the host's `connections.close` */
  | 'handler'
  | 'limit'
  /** this node has lost the others of its cluster (`whenIsolated`) */
  | 'isolated'
  | 'shutdown'
