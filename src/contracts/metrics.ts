import type { IMErrorCode } from '../errors.ts'
import type { LatencyHistogram } from '../model/latency.ts'
import type { CloseCause, EventName } from './handler.ts'

/** Where a socket stands: it is 'new' until its CONNECT is there, and 'closing' until it is gone. */
export type ConnectionState = 'new' | 'authenticating' | 'open' | 'closing'

/** Frames that clients send. */
export type InboundFrame = 'CONNECT' | 'SEND' | 'RECVACK' | 'PING' | 'DISCONNECT' | 'SUB' | 'EVENT' | 'other'

/**
 * Everything that waits in an engine.
 * - `user`, `sign`, `channel`, `handOver`, `pusher`: events by user (SENDs, CONNECTs and ends), signs of life (PING, RECVACK where
 *   a handler wants it), batches by channel, messages on their way to their channel's members, pushes.
 * - `send`: frames that transports have not taken, of all connections together. `unacked`: messages that clients have not
 *   acknowledged, of all connections; `capacity` is that of one.
 * - `unauthenticated`: sockets that nobody has logged in on.
 * - `replay`: questions of logins that are replayed to. `peer`: messages on their way to other nodes; `capacity` is that of one.
 * - `webhook`: events that the webhook's lanes have been told of and have not delivered. `outbox`: entries in the outbox.
 */
export type QueueName = 'user' | 'sign' | 'channel' | 'handOver' | 'pusher' | 'send' | 'unacked' | 'unauthenticated' | 'replay' | 'peer' | 'webhook' | 'outbox'

export interface QueueMetrics {
  /** what waits, or is being handled */
  readonly depth: number
  /** `depth` at which more is turned away; undefined for a queue that is bounded otherwise: by bytes, or by what feeds it */
  readonly capacity: number | undefined
  /** what was turned away, left out or forgotten at the bound, since the start */
  readonly rejectedCount: number
  /** how long the oldest has been there, in milliseconds; 0 when there is nothing, or nothing is known of it */
  readonly oldestMs: number
}

export interface RefusedConnections {
  readonly cause: CloseCause
  /** the reason code that CONNACK told, by name; otherwise what was wrong, or '' */
  readonly reason: string
  readonly count: number
}

export interface StepLatency {
  readonly event: EventName
  readonly step: string
  readonly latency: LatencyHistogram
}

/** What one engine has done since it was made, and what it is doing. Plain, frozen, and nothing changes in it later. */
export interface EngineMetrics {
  readonly nodeID: number
  /** when it was taken, in milliseconds since 1970 */
  readonly atMs: number
  readonly connections: {
    /** sockets by state */
    readonly states: Readonly<Record<ConnectionState, number>>
    readonly openedCount: number
    /** sockets that never became a connection: only what has happened is listed */
    readonly refused: readonly RefusedConnections[]
    /** connections that had been opened */
    readonly closed: Readonly<Record<CloseCause, number>>
    /** clients that did not read: cut, and begun to be left out */
    readonly slow: { readonly disconnected: number; readonly skipped: number }
  }
  readonly framesIn: Readonly<Record<InboundFrame, number>>
  /** SENDs that were answered, by the name of the reason code that the engine decided on: only what has happened is listed */
  readonly sendacks: Readonly<Record<string, number>>
  readonly messages: {
    /** on this node; with a replicator what other nodes proposed, too */
    readonly storedCount: number
    /** recognised as a repeat of what was there */
    readonly repeatedCount: number
    /** RECVs to connections of this node, replayed ones included */
    readonly pushedCount: number
    readonly redeliveredCount: number
    readonly replayedCount: number
    /** not delivered to somebody who should have got it: the fact `undelivered` */
    readonly undeliveredCount: number
  }
  /** logins that something was looked up for, to be replayed */
  readonly replayCount: number
  readonly webhook: {
    /** calls of `beforeSend` */
    readonly beforeSendCount: number
    /** events that `notify` has taken */
    readonly deliveredCount: number
    /** calls of `notify` that failed; the events are told again */
    readonly failedCallCount: number
    /** events that are not told again */
    readonly givenUpCount: number
  }
  readonly peers: {
    /** messages that other nodes have confirmed */
    readonly pushedCount: number
    /** tries that failed */
    readonly failedPushCount: number
    /** messages that were given up */
    readonly givenUpCount: number
    /** messages that other nodes have pushed here */
    readonly receivedCount: number
    readonly kickCount: number
    readonly failedKickCount: number
  }
  /** failures told by the fact `error`, by code: only what has happened is listed */
  readonly errors: Readonly<Partial<Record<IMErrorCode, number>>>
  readonly queues: Readonly<Record<QueueName, QueueMetrics>>
  readonly latency: {
    /** upper bounds of the buckets of every histogram here, in milliseconds */
    readonly boundsMs: readonly number[]
    /** from the arrival of a SEND until its SENDACK is given to the socket */
    readonly sendToSendack: LatencyHistogram
    /** from the arrival of a SEND until its RECVs are given to the sockets of this node; once for each page of receivers */
    readonly sendToRecv: LatencyHistogram
    /** of one in `stepTimesEvery` events */
    readonly steps: readonly StepLatency[]
  }
}

/** What parts of the engine count as they work: they add, and nobody else does. */
export interface Counts {
  /** by the number of the frame type */
  readonly framesIn: Float64Array
  /** by reason code */
  readonly sendacks: Float64Array
  openedCount: number
  slowDisconnectedCount: number
  slowSkippedCount: number
  /** pushes left out because the client does not read */
  leftOutCount: number
  /** messages whose RECVACK is not waited for any more */
  forgottenCount: number
  storedCount: number
  repeatedCount: number
  pushedCount: number
  redeliveredCount: number
  replayedCount: number
  undeliveredCount: number
  replayCount: number
  beforeSendCount: number
  notifiedCount: number
  failedNotifyCount: number
  givenUpCount: number
  /** entries that the outbox had no room for */
  outboxRejectedCount: number
  peerPushedCount: number
  peerFailedCount: number
  peerGivenUpCount: number
  peerRejectedCount: number
  peerReceivedCount: number
  peerKickCount: number
  peerKickFailedCount: number
  /** A SEND that arrived at `receivedAtMs` (monotonic) has its SENDACK, or its RECVs, among what is written next. */
  answering(receivedAtMs: number): void
  pushing(receivedAtMs: number): void
}

/** What connections add up to, filled by one after the other. Times are monotonic; Infinity for none. */
export interface ConnectionSums {
  readonly states: Record<ConnectionState, number>
  sendFrameCount: number
  blockedSinceMs: number
  unackedCount: number
  unackedSinceMs: number
}
