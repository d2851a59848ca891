import type { Clock } from '../contracts/clock.ts'
import type { CloseCause, EventName } from '../contracts/handler.ts'
import type { ConnectionSums, EngineMetrics, InboundFrame, QueueMetrics, QueueName, StepLatency } from '../contracts/metrics.ts'
import type { IMErrorCode } from '../errors.ts'
import { FrameType } from '../model/frames.ts'
import { LATENCY_BOUNDS_MS, type LatencyHistogram } from '../model/latency.ts'
import { reasonName } from '../model/reason-code.ts'
import type { Counters } from './counters.ts'

/** A queue of events, as the pools show theirs. */
interface EventQueue {
  readonly depth: number
  readonly rejectedCount: number
  oldestMs(nowMs: number): number
}

type EventQueueName = 'user' | 'sign' | 'channel' | 'handOver' | 'pusher'

export interface MetricsOptions {
  readonly nodeID: number
  readonly clock: Clock
  readonly counters: Counters
  readonly limits: {
    readonly maxQueued: number
    readonly maxUnauthenticated: number
    readonly maxUnackedRecvs: number
    readonly maxPeerPushes: number
    readonly maxWebhookNotifications: number
  }
  readonly events: Readonly<Record<EventQueueName, EventQueue>>
  readonly connections: () => Iterable<{ measure(sums: ConnectionSums): void }>
  readonly unauthenticated: () => { readonly count: number; readonly oldest: { readonly connectedAtMs: number } | undefined }
  readonly replays: { readonly depth: number }
  readonly peers: { readonly depth: number } | undefined
  readonly notifier: { readonly entryCount: number; readonly depth: number; readonly oldestSinceMs: number } | undefined
  readonly steps: () => readonly { readonly event: EventName; readonly step: string; readonly latency: LatencyHistogram }[]
}

const FRAME_NAMES: readonly Exclude<InboundFrame, 'other'>[] = ['CONNECT', 'SEND', 'RECVACK', 'PING', 'DISCONNECT', 'SUB', 'EVENT']

const CLOSE_CAUSES: Readonly<Record<CloseCause, true>> = {
  peer: true, client: true, 'connect-timeout': true, 'auth-timeout': true, idle: true, malformed: true, protocol: true, refused: true,
  kicked: true, 'slow-consumer': true, handler: true, limit: true, isolated: true, shutdown: true,
}

/** Takes snapshots of what one engine has counted, and of what waits in it. */
export class Metrics {
  readonly #options: MetricsOptions

  constructor(options: MetricsOptions) {
    this.#options = options
  }

  /** Looks once at every socket and at every key that has something waiting, and at nothing else. */
  snapshot(): EngineMetrics {
    const { nodeID, clock, counters, steps } = this.#options
    const sums = this.#sums()
    return Object.freeze({
      nodeID,
      atMs: clock.nowMs(),
      connections: Object.freeze({
        states: Object.freeze({ ...sums.states }),
        openedCount: counters.openedCount,
        refused: Object.freeze([...counters.refused.entries()].map(([cause, reason, count]) => Object.freeze({ cause, reason, count }))),
        closed: frozen<CloseCause>(Object.keys(CLOSE_CAUSES) as CloseCause[], (cause) => counters.closed.get(cause) ?? 0),
        slow: Object.freeze({ disconnected: counters.slowDisconnectedCount, skipped: counters.slowSkippedCount }),
      }),
      framesIn: this.#framesIn(),
      sendacks: this.#sendacks(),
      messages: Object.freeze({
        storedCount: counters.storedCount,
        repeatedCount: counters.repeatedCount,
        pushedCount: counters.pushedCount,
        redeliveredCount: counters.redeliveredCount,
        replayedCount: counters.replayedCount,
        undeliveredCount: counters.undeliveredCount,
      }),
      replayCount: counters.replayCount,
      webhook: Object.freeze({
        beforeSendCount: counters.beforeSendCount,
        deliveredCount: counters.notifiedCount,
        failedCallCount: counters.failedNotifyCount,
        givenUpCount: counters.givenUpCount,
      }),
      peers: Object.freeze({
        pushedCount: counters.peerPushedCount,
        failedPushCount: counters.peerFailedCount,
        givenUpCount: counters.peerGivenUpCount,
        receivedCount: counters.peerReceivedCount,
        kickCount: counters.peerKickCount,
        failedKickCount: counters.peerKickFailedCount,
      }),
      errors: Object.freeze(Object.fromEntries(counters.errors) as Partial<Record<IMErrorCode, number>>),
      queues: this.#queues(sums),
      latency: Object.freeze({
        boundsMs: LATENCY_BOUNDS_MS,
        sendToSendack: counters.sendToSendack.snapshot(),
        sendToRecv: counters.sendToRecv.snapshot(),
        steps: Object.freeze(steps().map((step): StepLatency => Object.freeze(step))),
      }),
    })
  }

  #sums(): ConnectionSums {
    const states = { new: 0, authenticating: 0, open: 0, closing: 0 }
    const sums: ConnectionSums = { states, sendFrameCount: 0, blockedSinceMs: Infinity, unackedCount: 0, unackedSinceMs: Infinity }
    for (const connection of this.#options.connections()) connection.measure(sums)
    return sums
  }

  #framesIn(): Readonly<Record<InboundFrame, number>> {
    const { framesIn } = this.#options.counters
    const byName = frozen(FRAME_NAMES, (name) => framesIn[FrameType[name]]!)
    const known = Object.values(byName).reduce((sum, count) => sum + count, 0)
    return Object.freeze({ ...byName, other: framesIn.reduce((sum, count) => sum + count, 0) - known })
  }

  #sendacks(): Readonly<Record<string, number>> {
    const told: Record<string, number> = {}
    for (const [reasonCode, count] of this.#options.counters.sendacks.entries()) if (count > 0) told[reasonName(reasonCode)] = count
    return Object.freeze(told)
  }

  #queues(sums: ConnectionSums): Readonly<Record<QueueName, QueueMetrics>> {
    const { clock, counters, limits, events, unauthenticated, replays, peers, notifier } = this.#options
    const nowMs = clock.monotonicMs()
    const age = (sinceMs: number): number => (sinceMs === Infinity ? 0 : Math.max(0, nowMs - sinceMs))
    const pool = (name: EventQueueName): QueueMetrics => {
      const queue = events[name]
      return queueOf(queue.depth, limits.maxQueued, queue.rejectedCount, queue.depth === 0 ? 0 : Math.max(0, queue.oldestMs(nowMs)))
    }
    const strangers = unauthenticated()
    const strangerMs = strangers.oldest === undefined ? 0 : Math.max(0, clock.nowMs() - strangers.oldest.connectedAtMs)
    const webhookMs = age(notifier?.oldestSinceMs ?? Infinity)
    return Object.freeze({
      user: pool('user'),
      sign: pool('sign'),
      channel: pool('channel'),
      handOver: pool('handOver'),
      pusher: pool('pusher'),
      send: queueOf(sums.sendFrameCount, undefined, counters.leftOutCount, age(sums.blockedSinceMs)),
      unacked: queueOf(sums.unackedCount, limits.maxUnackedRecvs, counters.forgottenCount, age(sums.unackedSinceMs)),
      unauthenticated: queueOf(strangers.count, limits.maxUnauthenticated, counters.unauthenticatedRejectedCount, strangerMs),
      replay: queueOf(replays.depth, undefined, 0, 0),
      peer: queueOf(peers?.depth ?? 0, limits.maxPeerPushes, counters.peerRejectedCount, 0),
      webhook: queueOf(notifier?.depth ?? 0, undefined, 0, webhookMs),
      outbox: queueOf(notifier?.entryCount ?? 0, limits.maxWebhookNotifications, counters.outboxRejectedCount, webhookMs),
    })
  }
}

function queueOf(depth: number, capacity: number | undefined, rejectedCount: number, oldestMs: number): QueueMetrics {
  return Object.freeze({ depth, capacity, rejectedCount, oldestMs })
}

function frozen<K extends string>(names: readonly K[], count: (name: K) => number): Readonly<Record<K, number>> {
  return Object.freeze(Object.fromEntries(names.map((name) => [name, count(name)])) as Record<K, number>)
}
