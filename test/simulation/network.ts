import { IMError, memoryPresence, type MaybePromise, type PeerKickRequest, type PeerPush, type PeerPushHost, type PeerPushRequest, type Presence } from 'imengine'
import type { Chance } from './chance.ts'
import type { SimTime } from './time.ts'

/** How what a node says to others, and hears from them, gets through at the moment. */
export interface NetWeather {
  /** of the datagrams, each way */
  readonly losing: number
  readonly repeating: number
  readonly mostMs: number
}

export const FAIR: NetWeather = { losing: 0, repeating: 0, mostMs: 5 }

/** A call without an answer is made again by whoever made it. */
const ANSWER_MS = 300

/** Datagrams between nodes: lost, repeated, late, and in any order. */
export class Network {
  readonly time: SimTime
  readonly weather = new Map<number, NetWeather>()
  readonly #chance: Chance

  constructor(time: SimTime, chance: Chance) {
    this.time = time
    this.#chance = chance
  }

  carry(fromID: number, toID: number, arrive: () => void): void {
    const [from, to] = [this.weather.get(fromID) ?? FAIR, this.weather.get(toID) ?? FAIR]
    const count = this.#chance.happens(Math.max(from.repeating, to.repeating)) ? 2 : 1
    for (let copy = 0; copy < count; copy++) {
      const isLost = this.#chance.happens(Math.max(from.losing, to.losing))
      const delayMs = this.#chance.between(0, Math.max(from.mostMs, to.mostMs))
      if (!isLost) this.time.after(delayMs, arrive)
    }
  }
}

/** Whom calls reach: the last life of each node that has started. */
export class Peers {
  readonly network: Network
  readonly hosts = new Map<number, SimPeer>()

  constructor(network: Network) {
    this.network = network
  }

  peer(): SimPeer {
    return new SimPeer(this)
  }
}

interface Lane {
  /** the request that the number is of */
  request: PeerPushRequest | undefined
  number: number
}

/**
 * The peer of one life of a node. Calls of one node to another have numbers, so that one which is late is not taken for new:
 * what arrives is in order, and may arrive more than once.
 */
export class SimPeer implements PeerPush {
  readonly #peers: Peers
  readonly #lanes = new Map<number, Lane>()
  /** by life of another node: the last number taken over from it */
  readonly #taken = new WeakMap<SimPeer, number>()
  #host: PeerPushHost | undefined
  #isDead = false

  constructor(peers: Peers) {
    this.#peers = peers
  }

  start(host: PeerPushHost): void {
    this.#host = host
    this.#peers.hosts.set(host.nodeID, this)
  }

  push(nodeID: number, request: PeerPushRequest, signal: AbortSignal): Promise<void> {
    let lane = this.#lanes.get(nodeID)
    if (lane === undefined) this.#lanes.set(nodeID, (lane = { request: undefined, number: 0 }))
    if (lane.request !== request) Object.assign(lane, { request, number: lane.number + 1 })
    const { number } = lane
    const copy = { key: { ...request.key }, messages: [...request.messages], uids: [...request.uids] }
    return this.#call(nodeID, signal, (other) => other.#take(this, number, copy))
  }

  async kick(request: PeerKickRequest, signal: AbortSignal): Promise<void> {
    const others = [...this.#peers.hosts.keys()].filter((nodeID) => nodeID !== this.#host?.nodeID)
    const asked = await Promise.allSettled(others.map((nodeID) => this.#call(nodeID, signal, (other) => other.#host!.kicked(request))))
    for (const outcome of asked) if (outcome.status === 'rejected') throw outcome.reason
  }

  close(): void {
    const nodeID = this.#host?.nodeID
    if (nodeID !== undefined && this.#peers.hosts.get(nodeID) === this) this.#peers.hosts.delete(nodeID)
    this.#host = undefined
  }

  crash(): void {
    this.#isDead = true
  }

  #take(from: SimPeer, number: number, request: PeerPushRequest): MaybePromise<void> {
    if (number < (this.#taken.get(from) ?? 0)) return // too late: its caller has given it up
    this.#taken.set(from, number)
    return this.#host!.pushed(request)
  }

  #call(nodeID: number, signal: AbortSignal, run: (other: SimPeer) => MaybePromise<void>): Promise<void> {
    const { network, hosts } = this.#peers
    const ownID = this.#host?.nodeID ?? 0
    return new Promise((resolve, reject) => {
      const fail = (cause: unknown): void => {
        if (!this.#isDead) reject(new IMError('IM_PEER_UNREACHABLE', { cause, context: { nodeID } }))
      }
      const late = network.time.after(ANSWER_MS, () => fail(new Error('no answer')))
      const onAbort = (): void => {
        network.time.cancel(late)
        fail(signal.reason)
      }
      if (signal.aborted) return onAbort()
      signal.addEventListener('abort', onAbort, { once: true })
      const answer = (settle: () => void): void =>
        network.carry(nodeID, ownID, () => {
          if (this.#isDead) return
          network.time.cancel(late)
          signal.removeEventListener('abort', onAbort)
          settle()
        })
      network.carry(ownID, nodeID, () => {
        const other = hosts.get(nodeID)
        if (other === undefined || other.#isDead || other.#host === undefined) return
        void (async () => run(other))().then(() => answer(resolve), (cause: unknown) => answer(() => fail(cause)))
      })
    })
  }
}

/** What all nodes know of one another, told and asked over the same network. */
export class PresenceHub {
  readonly #presence: Presence
  readonly #network: Network
  readonly #chance: Chance

  constructor(network: Network, chance: Chance) {
    this.#network = network
    this.#chance = chance
    this.#presence = memoryPresence({ nowMs: () => network.time.nowMs })
  }

  /** @param isDead  the node is not there any more: what it has asked is never answered */
  of(nodeID: number, isDead: () => boolean): Presence {
    // What one node says arrives in the order in which it was said.
    let lastMs = 0
    const ask = <T>(run: () => MaybePromise<T>): Promise<T> =>
      new Promise((resolve, reject) => {
        const { losing, mostMs } = this.#network.weather.get(nodeID) ?? FAIR
        const fails = this.#chance.happens(losing)
        const { time } = this.#network
        lastMs = Math.max(lastMs, time.nowMs + this.#chance.between(0, mostMs))
        time.after(lastMs - time.nowMs, () => {
          if (isDead()) return
          if (fails) reject(new IMError('IM_PRESENCE_UNAVAILABLE', { detail: 'bad weather' }))
          else resolve(run())
        })
      })
    const { online, offline, locate, devices, heartbeat, leave } = bound(this.#presence)
    return {
      online: (entry) => ask(() => online(entry)),
      offline: (entry) => ask(() => offline(entry)),
      locate: (uids) => ask(() => locate(uids)),
      devices: (uid) => ask(() => devices(uid)),
      heartbeat: (id, intervalMs) => ask(() => heartbeat(id, intervalMs)),
      leave: (id) => ask(() => leave(id)),
    }
  }
}

function bound(presence: Presence): Omit<Presence, 'start' | 'close'> {
  return {
    online: (entry) => presence.online(entry),
    offline: (entry) => presence.offline(entry),
    locate: (uids) => presence.locate(uids),
    devices: (uid) => presence.devices(uid),
    heartbeat: (nodeID, intervalMs) => presence.heartbeat(nodeID, intervalMs),
    leave: (nodeID) => presence.leave(nodeID),
  }
}
