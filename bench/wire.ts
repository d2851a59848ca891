/** What the processes of a benchmark agree on: what is served, what load is made, and what they tell each other. */
import type { Limits } from 'imengine'

export type ServerKind = 'engine' | 'relay' | 'codec' | 'aedes' | 'mosquitto' | 'socket.io'
export type Transport = 'tcp' | 'ws'

/** One measured server. */
export interface ServerSpec {
  readonly kind: ServerKind
  readonly transport: Transport
  /** engine: whether the clients agree on a payload key */
  readonly encryption: 'on' | 'off'
  /** engine: `memoryStorage()`, or `levelStorage` with `durability: 'sync'` */
  readonly storage: 'memory' | 'level'
  /** engine: one node of a cluster over NATS */
  readonly cluster?: { readonly nodeID: number; readonly servers: readonly string[]; readonly replicas: number; readonly partitions: number }
  /** engine, in memory: so many messages of a channel are kept; default as the store's own */
  readonly maxMessagesPerChannel?: number
  /** engine: bounds other than the default ones */
  readonly limits?: Partial<Limits>
  /** engine: groups that exist from the start */
  readonly groups?: readonly { readonly channelID: string; readonly subscribers: readonly string[] }[]
}

/**
 * Who sends to whom. 'pairs': sender i to receiver i. 'matrix': each sender to any receiver, so that S senders and R
 * receivers make S × R person channels. 'group': everybody is a member of one group, the first connections send.
 */
export type Topology = 'pairs' | 'matrix' | 'group'

/** Messages from a number of senders for a while. */
export interface Job {
  readonly kind: ServerKind
  readonly transport: Transport
  readonly encryption: 'on' | 'off'
  readonly port: number
  /** of all nodes of a cluster: sender i is on one of them, receiver i on the next */
  readonly ports?: readonly number[]
  readonly topology: Topology
  readonly senderCount: number
  /** connections that only receive */
  readonly receiverCount: number
  /** 'matrix': how receivers are chosen */
  readonly spread?: 'own' | 'uniform' | 'zipf'
  readonly payloadBytes: number
  /** messages a sender may have under way; 0 for an open loop */
  readonly window: number
  /** open loop: messages a second over all senders, at fixed times, in runs of `batchCount` from one sender */
  readonly ratePerSecond?: number
  readonly batchCount?: number
  /** The warm-up lasts so long, and until so many messages have been acknowledged; default 1 */
  readonly warmUpMs: number
  readonly warmUpCount?: number
  readonly measureMs: number
  /** for what is under way at the end; what has not come by then is lost */
  readonly drainMs: number
}

/** What a load generator has seen between the end of the warm-up and the end of the measurement. */
export interface Result {
  /** open loop: what was to be sent */
  readonly offeredPerSecond: number
  /** acknowledged to the sender and delivered to every receiver: the slower of both */
  readonly messagesPerSecond: number
  readonly deliveriesPerSecond: number
  /** SENDs that the server has refused for their rate; never in a closed loop, where a refusal is an error */
  readonly refusedCount: number
  readonly seconds: number
  /** share of one core the load generator used: near 1 it is itself the bottleneck */
  readonly loadCPU: number
  /** from the time a message was sent, or, in an open loop, from the time it should have been */
  readonly ackMs: Quantiles
  readonly deliveryMs: Quantiles
  /** the longest that a sender has gone without an acknowledgement */
  readonly longestPauseMs: number
  /** open loop: how late the generator itself was */
  readonly lateMs: Quantiles
  /** everything sent, acknowledged and delivered from the first message to the last, equal to what was expected */
  readonly checkedMessageCount: number
  readonly checkedDeliveryCount: number
}

export interface Quantiles {
  readonly p50: number
  readonly p99: number
  readonly p999: number
  readonly max: number
}

/** CONNECTs at fixed times. */
export interface StormJob {
  readonly transport: Transport
  readonly encryption: 'on' | 'off'
  readonly port: number
  readonly connectCount: number
  readonly connectsPerSecond: number
}

export interface StormResult {
  readonly connectsPerSecond: number
  readonly loadCPU: number
  /** from the time the connection was due to be opened to its CONNACK */
  readonly connackMs: Quantiles
}

/** Messages at one rate for a long time, while some of the clients come and go. */
export interface SoakJob {
  readonly transport: Transport
  readonly encryption: 'on' | 'off'
  readonly port: number
  /** pairs of connections that stay */
  readonly pairCount: number
  /** pairs whose two ends log in and leave all the time */
  readonly churnCount: number
  /** users who come for the first time, write one message that is not stored, and never come again; 0 for none */
  readonly newcomersPerSecond: number
  /** of the pairs that stay, all together, in runs of `batchCount` */
  readonly ratePerSecond: number
  readonly batchCount: number
  readonly payloadBytes: number
  readonly lastsMs: number
  /** on average: at moments that keep no time with anything that goes up and down in the server */
  readonly tellEveryMs: number
  readonly drainMs: number
}

/** How far a soak has come. */
export interface SoakProgress {
  readonly atSeconds: number
  readonly sentCount: number
  readonly refusedCount: number
  readonly deliveredCount: number
  /** delivered once more after a login, because the acknowledgement had not arrived */
  readonly repeatedCount: number
  /** of all, newcomers too */
  readonly loginCount: number
  readonly newcomerCount: number
  readonly underWayCount: number
}

export interface SoakResult extends SoakProgress {
  readonly ackMs: Quantiles
  readonly deliveryMs: Quantiles
}

/** Connections that are opened and stay, doing nothing. */
export interface IdleJob {
  readonly transport: Transport
  readonly encryption: 'on' | 'off'
  readonly port: number
  readonly connectionCount: number
  /** false for a server that speaks no protocol: the connection is opened, and that is all */
  readonly logsIn: boolean
}

/** One process's resources. */
export interface Sample {
  /** since the start of the process */
  readonly cpuMs: number
  readonly rssBytes: number
  readonly heapUsedBytes: number
  readonly externalBytes: number
}

/** What a process holds, after collections of garbage. */
export interface Inspection {
  readonly heapUsedBytes: number
  readonly rssBytes: number
  readonly externalBytes: number
  /** what keeps the event loop going, by kind */
  readonly handles: Readonly<Record<string, number>>
  readonly connectionCount: number
}

export type ToServer = { readonly type: 'inspect' } | { readonly type: 'sample'; readonly collectGarbage?: boolean } | { readonly type: 'close' }
export type FromServer = { readonly type: 'listening'; readonly port: number } | ({ readonly type: 'sample' } & Sample) | ({ readonly type: 'inspection' } & Inspection)

export type LoadTask =
  | { readonly task: 'traffic'; readonly job: Job }
  | { readonly task: 'storm'; readonly job: StormJob }
  | { readonly task: 'idle'; readonly job: IdleJob }
  | { readonly task: 'soak'; readonly job: SoakJob }
export type FromLoad =
  /** the span that counts begins and ends: the server's CPU time is read at both */
  | { readonly type: 'begin' }
  | { readonly type: 'end' }
  | ({ readonly type: 'progress' } & SoakProgress)
  | { readonly type: 'result'; readonly result: unknown }

/** A node of a cluster whose messages come from its own process. */
export interface MachineSpec {
  readonly nodeID: number
  readonly servers: readonly string[]
  readonly replicas: number
  readonly partitions: number
  /** who sends to whom, each pair a channel */
  readonly pairCount: number
  /** messages under way; without meaning at a rate */
  readonly window: number
  /** of this node, at fixed times; 0: as many as `window` lets through */
  readonly ratePerSecond: number
}

export type ToMachine =
  | { readonly type: 'begin' | 'measure' | 'end' | 'close' }
  /** which numbers its store has come to */
  | { readonly type: 'look'; readonly channelIDs: readonly string[] }
export type FromMachine =
  | { readonly type: 'ready' }
  | { readonly type: 'measuring'; readonly cpuMs: number; readonly entryCount: number }
  | { readonly type: 'measured'; readonly cpuMs: number; readonly entryCount: number; readonly count: number; readonly latencyMs: Quantiles }
  /** everything has been acknowledged: by channel the last number */
  | { readonly type: 'idle'; readonly acked: readonly (readonly [channelID: string, messageSeq: number])[] }
  | { readonly type: 'stored'; readonly lastSeqs: readonly number[] }

/** one message of the raw relay: as long as a SEND of the engine with 100 bytes of payload */
export const RELAY_MESSAGE_BYTES = 157
/** its acknowledgement, as long as a SENDACK */
export const RELAY_ACK_BYTES = 19
/** Where a message of the relay says what it is: the number of its sender, and of the message in 8 digits. */
export const RELAY_HEAD_BYTES = 12

/** Names of equal length, so that frames are made once and only their digits change. */
export const senderUID = (index: number): string => `s${String(index).padStart(5, '0')}`
export const receiverUID = (index: number): string => `r${String(index).padStart(5, '0')}`
export const GROUP_ID = 'group0'
