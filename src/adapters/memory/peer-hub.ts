/**
 * Calls between engines of one process: tests, simulations, examples of a cluster. Power loss ends callers and called
 * together. A slow peer holds up the pushes to itself from the same node, up to `maxWaitingPushes`, and nobody else.
 * `close` ends what waits with IM_PEER_UNREACHABLE.
 */
import type { PeerKickRequest, PeerPush, PeerPushHost, PeerPushRequest } from '../../contracts/peer-push.ts'
import { badOption, IMError } from '../../errors.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'

export interface MemoryPeerHubOptions {
  /** default 10 000: pushes from one node to another that wait for the one before; beyond it `push` rejects */
  readonly maxWaitingPushes?: number
}

/** Hands out the peers that reach each other: one for each engine. */
export interface MemoryPeerHub {
  peer(): PeerPush
}

/**
 * Pushes from one node to another are made one after the other, in the order of the calls; the next begins when the other
 * node has taken the one before, also when the caller of that one has stopped waiting. A push that is given up before its
 * turn is never made. Nothing happens within the caller's own call.
 */
export function memoryPeerHub(options: MemoryPeerHubOptions = {}): MemoryPeerHub {
  const maxWaitingPushes = options.maxWaitingPushes ?? 10_000
  if (!Number.isSafeInteger(maxWaitingPushes) || maxWaitingPushes < 1) {
    badOption('maxWaitingPushes', 'a positive integer', maxWaitingPushes)
  }
  const hosts = new Map<number, PeerPushHost>()
  return { peer: () => new MemoryPeer(hosts, maxWaitingPushes) }
}

/** What is under way to one node. */
interface Lane {
  waitingCount: number
  last: Promise<void>
}

class MemoryPeer implements PeerPush {
  /** the started hosts of all peers, by node */
  readonly #hosts: Map<number, PeerPushHost>
  readonly #maxWaitingPushes: number
  readonly #lanes = new Map<number, Lane>()
  /** of every call that is waited for */
  readonly #giveUps = new Set<(reason: unknown) => void>()
  #host: PeerPushHost | undefined

  constructor(hosts: Map<number, PeerPushHost>, maxWaitingPushes: number) {
    this.#hosts = hosts
    this.#maxWaitingPushes = maxWaitingPushes
  }

  start(host: PeerPushHost): void {
    if (this.#host !== undefined) throw new TypeError('imengine: this peer has been started already')
    if (this.#hosts.has(host.nodeID)) badOption('nodeID', 'one that no other started peer has', host.nodeID)
    this.#hosts.set(host.nodeID, host)
    this.#host = host
  }

  async push(nodeID: number, request: PeerPushRequest, signal: AbortSignal): Promise<void> {
    const lane = this.#laneTo(nodeID)
    if (lane.waitingCount >= this.#maxWaitingPushes) {
      throw unreachable(nodeID, new Error('too many pushes wait for it'))
    }
    const { channelID, channelType } = request.key
    // The messages themselves never change; the arrays are the caller's.
    const copy = { key: { channelID, channelType }, messages: [...request.messages], uids: [...request.uids] }
    lane.waitingCount++
    const made = lane.last.then(() => this.#call(nodeID, signal, (host) => host.pushed(copy)))
    lane.last = made
      .catch(() => undefined) // told to the caller below; the next push does not depend on it
      .finally(() => {
        if (--lane.waitingCount === 0) this.#lanes.delete(nodeID)
      })
    await this.#untilGivenUp(nodeID, made, signal)
  }

  async kick(request: PeerKickRequest, signal: AbortSignal): Promise<void> {
    if (this.#host === undefined) throw new IMError('IM_PEER_UNREACHABLE', { detail: 'the peer is not started' })
    const others = [...this.#hosts.keys()].filter((nodeID) => nodeID !== this.#host?.nodeID)
    const made = others.map((nodeID) => {
      const kicked = Promise.resolve().then(() => this.#call(nodeID, signal, (host) => host.kicked({ ...request })))
      return this.#untilGivenUp(nodeID, kicked, signal)
    })
    // Every node is asked, also when one of them fails.
    for (const outcome of await Promise.allSettled(made)) {
      if (outcome.status === 'rejected') throw outcome.reason
    }
  }

  close(): void {
    if (this.#host !== undefined) this.#hosts.delete(this.#host.nodeID)
    this.#host = undefined
    for (const giveUp of this.#giveUps) giveUp('the peer is closed')
  }

  #laneTo(nodeID: number): Lane {
    let lane = this.#lanes.get(nodeID)
    if (lane === undefined) this.#lanes.set(nodeID, (lane = { waitingCount: 0, last: Promise.resolve() }))
    return lane
  }

  /** Make one call unless it is too late for it; whatever goes wrong is a peer that cannot be reached. */
  async #call(nodeID: number, signal: AbortSignal, run: (host: PeerPushHost) => MaybePromise<void>): Promise<void> {
    const host = this.#host === undefined ? undefined : this.#hosts.get(nodeID)
    try {
      signal.throwIfAborted()
      if (host === undefined) throw new Error('no such node')
      await run(host)
    } catch (cause) {
      throw unreachable(nodeID, cause)
    }
  }

  /** As `made`, but no longer than `signal` and `close` allow. */
  #untilGivenUp(nodeID: number, made: Promise<void>, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const giveUp = (reason: unknown): void => reject(unreachable(nodeID, reason))
      const onAbort = (): void => giveUp(signal.reason)
      if (signal.aborted) onAbort()
      signal.addEventListener('abort', onAbort, { once: true })
      this.#giveUps.add(giveUp)
      void made.then(resolve, reject).finally(() => {
        signal.removeEventListener('abort', onAbort)
        this.#giveUps.delete(giveUp)
      })
    })
  }
}

function unreachable(nodeID: number, cause: unknown): IMError {
  return new IMError('IM_PEER_UNREACHABLE', { cause, context: { nodeID } })
}
