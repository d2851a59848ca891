import PQueue from 'p-queue'
import type { AbortGroup } from '../contracts/abort-group.ts'
import type { Timers } from '../contracts/clock.ts'
import type { FactSink } from '../contracts/facts.ts'
import type { Counts } from '../contracts/metrics.ts'
import type { PeerKickRequest, PeerPush, PeerPushRequest } from '../contracts/peer-push.ts'
import { IMError } from '../errors.ts'
import { withTimeLimit } from './time-limit.ts'

export interface PeerPushesOptions {
  readonly peerPush: PeerPush
  readonly timers: Timers
  /** from the first try of a push to giving it up */
  readonly timeoutMs: number
  /** for telling the others of a login */
  readonly kickTimeoutMs: number
  /** messages waiting per node, at most; a single push may be larger */
  readonly maxCount: number
  readonly waits: AbortGroup
  readonly facts: FactSink
  readonly counts: Counts
  readonly report: (error: IMError) => void
}

const RETRY_PAUSE_MS = 200

/**
 * Messages on their way to other nodes: one push at a time per node, so that order is kept, repeated until it is confirmed
 * or `timeoutMs` have passed. What is given up, or does not fit, is told as `undelivered`: the history still has it.
 */
export class PeerPushes {
  readonly #options: PeerPushesOptions
  readonly #queues = new Map<number, PQueue>()
  readonly #waitingCounts = new Map<number, number>()
  /** messages of the push under way */
  readonly #underWay = new Map<number, number>()

  constructor(options: PeerPushesOptions) {
    this.#options = options
  }

  add(nodeID: number, request: PeerPushRequest): void {
    let queue = this.#queues.get(nodeID)
    if (queue === undefined) this.#queues.set(nodeID, (queue = new PQueue({ concurrency: 1 })))
    const count = request.messages.length
    const waitingCount = this.#waitingCounts.get(nodeID) ?? 0
    if (waitingCount > 0 && waitingCount + count > this.#options.maxCount) {
      this.#options.counts.peerRejectedCount += count
      return this.#giveUp(nodeID, request, new IMError('IM_QUEUE_FULL', { context: { nodeID } }))
    }
    this.#waitingCounts.set(nodeID, waitingCount + count)
    void queue.add(() => {
      this.#waitingCounts.set(nodeID, this.#waitingCounts.get(nodeID)! - count)
      this.#underWay.set(nodeID, count)
      return this.#push(nodeID, request) // never rejects
    })
  }

  /** Let the other nodes apply a login's kick rules, as far as they can be reached in time. Never rejects. */
  async kick(request: PeerKickRequest): Promise<void> {
    const { peerPush, kickTimeoutMs, report, counts } = this.#options
    counts.peerKickCount++
    try {
      await withTimeLimit({ ...this.#options, timeoutMs: kickTimeoutMs }, (signal) => peerPush.kick(request, signal))
    } catch (reason) {
      counts.peerKickFailedCount++
      report(new IMError('IM_PEER_UNREACHABLE', { cause: reason, context: { uid: request.uid } }))
    }
  }

  /** Messages that wait or are under way, to all nodes. */
  get depth(): number {
    let depth = 0
    for (const counts of [this.#waitingCounts, this.#underWay]) for (const count of counts.values()) depth += count
    return depth
  }

  get isIdle(): boolean {
    return [...this.#queues.values()].every((queue) => queue.size === 0 && queue.pending === 0)
  }

  async idle(): Promise<void> {
    await Promise.all([...this.#queues.values()].map((queue) => queue.onIdle()))
  }

  async #push(nodeID: number, request: PeerPushRequest): Promise<void> {
    let failure: unknown
    const pushUntilConfirmed = async (signal: AbortSignal): Promise<void> => {
      while (!signal.aborted) {
        try {
          await this.#options.peerPush.push(nodeID, request, signal)
          this.#options.counts.peerPushedCount += request.messages.length
          return
        } catch (reason) {
          this.#options.counts.peerFailedCount++
          failure = reason
        }
        await new Promise<void>((resolve) => void this.#options.timers.after(RETRY_PAUSE_MS, resolve))
      }
      throw signal.reason
    }
    try {
      await withTimeLimit(this.#options, pushUntilConfirmed)
    } catch (reason) {
      this.#giveUp(nodeID, request, new IMError('IM_PEER_UNREACHABLE', { cause: failure ?? reason, context: { nodeID } }))
    } finally {
      this.#underWay.delete(nodeID)
    }
  }

  #giveUp(nodeID: number, request: PeerPushRequest, error: IMError): void {
    const { key, messages } = request
    this.#options.counts.peerGivenUpCount += messages.length
    this.#options.counts.undeliveredCount += messages.length
    this.#options.report(error)
    this.#options.facts.emit('undelivered', { key, messages, nodeID, uid: undefined })
  }
}
