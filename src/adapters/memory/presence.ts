/**
 * Who is connected where, in this process's memory; engines of one process share it by being given the same object. Power
 * loss ends the connections together with what is known of them. There is no peer to be slow: every answer is synchronous.
 * Nothing has to be closed.
 */
import type { Presence, PresenceEntry } from '../../contracts/presence.ts'

/** An interval is missed when it has passed without a heartbeat; a node that missed this many is taken for dead. */
const MISSED_HEARTBEATS = 3

export interface MemoryPresenceOptions {
  /** a clock that does not jump; default performance.now */
  readonly nowMs?: () => number
}

/**
 * A Presence for one engine, or for several in one process. A node that never sends a heartbeat never expires. It holds one
 * record per live connection, so its bound is that of the engines' connections.
 */
export function memoryPresence(options: MemoryPresenceOptions = {}): Presence {
  return new MemoryPresence(options.nowMs ?? (() => performance.now()))
}

interface NodeRecord {
  readonly byConnectionID: Map<string, PresenceEntry>
  /** Infinity until the first heartbeat */
  deadlineMs: number
  /** the deadline has been noticed: what is announced from here on waits for the next heartbeat to be shown */
  expired: boolean
}

class MemoryPresence implements Presence {
  readonly #nodes = new Map<number, NodeRecord>()
  readonly #byUID = new Map<string, Set<PresenceEntry>>()
  readonly #nowMs: () => number

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
  }

  online(entry: PresenceEntry): void {
    const { uid, nodeID, connectionID, deviceFlag, deviceLevel } = entry
    const node = this.#nodeFor(nodeID)
    this.#isLive(node, this.#nowMs())
    const earlier = node.byConnectionID.get(connectionID)
    if (earlier !== undefined) this.#remove(node, earlier)
    const held = Object.freeze({ uid, nodeID, connectionID, deviceFlag, deviceLevel })
    node.byConnectionID.set(connectionID, held)
    const entries = this.#byUID.get(uid)
    if (entries === undefined) this.#byUID.set(uid, new Set([held]))
    else entries.add(held)
  }

  offline({ nodeID, connectionID }: PresenceEntry): void {
    const node = this.#nodes.get(nodeID)
    const held = node?.byConnectionID.get(connectionID)
    if (node !== undefined && held !== undefined) this.#remove(node, held)
  }

  locate(uids: readonly string[]): Map<string, number[]> {
    const nowMs = this.#nowMs()
    const located = new Map<string, number[]>()
    for (const uid of uids) {
      const nodeIDs = new Set<number>()
      for (const entry of this.#liveEntries(uid, nowMs)) nodeIDs.add(entry.nodeID)
      if (nodeIDs.size > 0) located.set(uid, [...nodeIDs].sort((a, b) => a - b))
    }
    return located
  }

  devices(uid: string): PresenceEntry[] {
    return this.#liveEntries(uid, this.#nowMs())
  }

  heartbeat(nodeID: number, intervalMs: number): void {
    const node = this.#nodeFor(nodeID)
    const nowMs = this.#nowMs()
    this.#isLive(node, nowMs)
    node.expired = false
    node.deadlineMs = nowMs + MISSED_HEARTBEATS * intervalMs
  }

  leave(nodeID: number): void {
    const node = this.#nodes.get(nodeID)
    if (node === undefined) return
    this.#forgetEntries(node)
    this.#nodes.delete(nodeID)
  }

  #nodeFor(nodeID: number): NodeRecord {
    let node = this.#nodes.get(nodeID)
    if (node === undefined) {
      node = { byConnectionID: new Map(), deadlineMs: Infinity, expired: false }
      this.#nodes.set(nodeID, node)
    }
    return node
  }

  /** Notices that a node has fallen silent, and then forgets what it had announced until now. */
  #isLive(node: NodeRecord, nowMs: number): boolean {
    if (nowMs < node.deadlineMs) return true
    if (!node.expired) this.#forgetEntries(node)
    node.expired = true
    return false
  }

  #liveEntries(uid: string, nowMs: number): PresenceEntry[] {
    const live: PresenceEntry[] = []
    for (const entry of this.#byUID.get(uid) ?? []) {
      const node = this.#nodes.get(entry.nodeID)
      if (node !== undefined && this.#isLive(node, nowMs)) live.push(entry)
    }
    return live
  }

  #forgetEntries(node: NodeRecord): void {
    for (const entry of node.byConnectionID.values()) this.#remove(node, entry)
  }

  #remove(node: NodeRecord, entry: PresenceEntry): void {
    node.byConnectionID.delete(entry.connectionID)
    const entries = this.#byUID.get(entry.uid)
    entries?.delete(entry)
    if (entries?.size === 0) this.#byUID.delete(entry.uid)
  }
}
