import PQueue from 'p-queue'
import type { Clock, Timers } from '../contracts/clock.ts'
import type { FactSink } from '../contracts/facts.ts'
import type { PeerPush, PeerPushRequest } from '../contracts/peer-push.ts'
import { asIMError, IMError } from '../errors.ts'

export interface PeerPushesOptions {
  readonly peerPush: PeerPush
  readonly clock: Clock
  readonly timers: Timers
  /** from the first try of a push to giving it up */
  readonly timeoutMs: number
  /** pushes waiting per node, at most */
  readonly maxCount: number
  readonly closing: AbortSignal
  readonly facts: FactSink
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

  constructor(options: PeerPushesOptions) {
    this.#options = options
  }

  add(nodeID: number, request: PeerPushRequest): void {
    let queue = this.#queues.get(nodeID)
    if (queue === undefined) this.#queues.set(nodeID, (queue = new PQueue({ concurrency: 1 })))
    if (queue.size >= this.#options.maxCount) return this.#giveUp(nodeID, request, new IMError('IM_QUEUE_FULL', { context: { nodeID } }))
    void queue.add(() => this.#push(nodeID, request)) // #push never rejects
  }

  async idle(): Promise<void> {
    await Promise.all([...this.#queues.values()].map((queue) => queue.onIdle()))
  }

  async #push(nodeID: number, request: PeerPushRequest): Promise<void> {
    const { peerPush, clock, timers, timeoutMs, closing } = this.#options
    const timeout = new AbortController()
    const signal = AbortSignal.any([timeout.signal, closing])
    const startedAtMs = clock.monotonicMs()
    const entry = timers.after(timeoutMs, () => timeout.abort())
    let failure: unknown
    while (!signal.aborted) {
      try {
        await Promise.race([peerPush.push(nodeID, request, signal), rejected(signal)])
        timers.cancel(entry)
        return
      } catch (reason) {
        failure = reason
      }
      if (clock.monotonicMs() - startedAtMs + RETRY_PAUSE_MS >= timeoutMs) break
      await new Promise<void>((resolve) => {
        const pause = timers.after(RETRY_PAUSE_MS, resolve)
        signal.addEventListener('abort', () => { timers.cancel(pause); resolve() }, { once: true })
      })
    }
    timers.cancel(entry)
    this.#giveUp(nodeID, request, asIMError(failure, 'IM_PEER_UNREACHABLE', { nodeID }))
  }

  #giveUp(nodeID: number, request: PeerPushRequest, error: IMError): void {
    const { key, messages } = request
    this.#options.report(error)
    this.#options.facts.emit('undelivered', { key, messages, nodeID, uid: undefined })
  }
}

function rejected(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const abort = (): void => reject(new IMError('IM_ABORTED'))
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort, { once: true })
  })
}
