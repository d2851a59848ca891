import type { PresenceEntry } from '../../contracts/presence.ts'
import { unpack, type Announcement, type Beat } from './presence-wire.ts'

/** An interval is missed when it has passed without a beat; a node that missed this many is in no answer. */
export const MISSED_BEATS = 3

/** For a node that has not said yet how often it beats. */
const UNKNOWN_INTERVAL_MS = 5_000

interface SeenNode {
  readonly nodeID: number
  /** '': it has left, was declared dead, or has not been heard of */
  generation: string
  /** or has left; until then what it has announced is neither shown nor void */
  hasBeaten: boolean
  intervalMs: number
  deadlineMs: number
  beatRevision: number
  /** by the servers' clock; only compared with other times of theirs */
  beatCreatedMs: number
}

interface Held {
  readonly node: SeenNode
  /** what another generation of its node has announced is void */
  readonly generation: string
  readonly packed: string
  readonly revision: number
}

/** A node that has been silent for long enough to be cleared away. */
export interface SilentNode {
  readonly nodeID: number
  readonly beatRevision: number
}

/**
 * What other nodes have announced, from one run through the bucket and what followed it, in the order of the bucket. A node that
 * cannot be heard is hidden and not forgotten: it may be this node that hears nobody, and then nothing is announced again. One that
 * was silent itself comes back as another generation.
 */
export class PresenceView {
  readonly #nodes = new Map<number, SeenNode>()
  /** most users are on one node */
  readonly #byUID = new Map<string, Held | readonly Held[]>()
  /** users that go by their hash, by node and key */
  readonly #hashed = new Map<string, string>()
  readonly #nowMs: () => number
  /** Until everything that was there at the beginning has come, entries may come before the beat that says whose they are. */
  #isSettled = false

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
  }

  get uidCount(): number {
    return this.#byUID.size
  }

  beat(nodeID: number, { generation, intervalMs }: Beat, revision: number, createdMs: number): void {
    const node = this.#node(nodeID)
    node.beatRevision = revision
    node.beatCreatedMs = createdMs
    node.intervalMs = intervalMs === 0 ? UNKNOWN_INTERVAL_MS : intervalMs
    node.deadlineMs = this.#nowMs() + MISSED_BEATS * node.intervalMs
    node.hasBeaten = true
    if (node.generation !== generation) node.generation = generation
  }

  /** What it has announced is void. */
  forgetNode(nodeID: number): void {
    const node = this.#nodes.get(nodeID)
    if (node !== undefined) {
      node.generation = ''
      node.hasBeaten = true
    }
    this.#nodes.delete(nodeID)
  }

  put(nodeID: number, suffix: string, uid: string, { generation, packed }: Announcement, revision: number): void {
    const node = this.#node(nodeID)
    const isCurrent = generation === node.generation
    if (this.#isSettled && node.hasBeaten && !isCurrent) return this.#drop(nodeID, uid) // of an earlier life that has not heard of its end
    if (suffix.startsWith('=')) this.#hashed.set(`${nodeID}.${suffix}`, uid)
    const others = this.#others(nodeID, uid)
    const held = { node, generation: isCurrent ? node.generation : generation, packed, revision } // one string for all of a node
    this.#byUID.set(uid, others.length === 0 ? held : [...others, held])
  }

  remove(nodeID: number, suffix: string, uid: string | undefined): void {
    const key = `${nodeID}.${suffix}`
    const known = uid ?? this.#hashed.get(key)
    this.#hashed.delete(key)
    if (known !== undefined) this.#drop(nodeID, known)
  }

  /**
   * Everything that was there at the beginning has come. How old the beats among it are is told by the servers' clock alone: a
   * node that died an hour ago must not be shown for three intervals.
   */
  settle(serverNowMs: number): void {
    this.#isSettled = true
    const nowMs = this.#nowMs()
    for (const node of this.#nodes.values()) {
      const ageMs = Math.max(0, serverNowMs - node.beatCreatedMs)
      node.deadlineMs = nowMs + MISSED_BEATS * node.intervalMs - ageMs
    }
  }

  /** Add the nodes that hold connections of a user. */
  nodeIDsOf(uid: string, nowMs: number, nodeIDs: number[]): void {
    const held = this.#byUID.get(uid)
    if (held === undefined) return
    if (!isSeveral(held)) {
      if (isLive(held, nowMs)) nodeIDs.push(held.node.nodeID)
      return
    }
    for (const one of held) if (isLive(one, nowMs)) nodeIDs.push(one.node.nodeID)
  }

  devicesOf(uid: string, nowMs: number): PresenceEntry[] {
    const held = this.#byUID.get(uid)
    const all = held === undefined ? [] : isSeveral(held) ? held : [held]
    return all
      .filter((one) => isLive(one, nowMs))
      .flatMap(({ node, packed }) => (unpack(packed) ?? []).map((connection) => ({ uid, nodeID: node.nodeID, ...connection })))
  }

  /** Nodes that have been silent for twice as long as it takes to be hidden. */
  silentNodes(): SilentNode[] {
    const nowMs = this.#nowMs()
    return [...this.#nodes.values()].filter(({ generation, deadlineMs, intervalMs }) => generation !== '' && nowMs >= deadlineMs + MISSED_BEATS * intervalMs)
  }

  /** The nodes that can be heard. */
  liveNodeIDs(): number[] {
    const nowMs = this.#nowMs()
    return [...this.#nodes.values()].filter(({ generation, deadlineMs }) => generation !== '' && nowMs < deadlineMs).map(({ nodeID }) => nodeID)
  }

  /** Forget what is void, a part at a time. @returns the revisions of what has been forgotten, at most `maxCount` */
  async sweep(maxCount: number, pause: () => Promise<void>): Promise<number[]> {
    const revisions: number[] = []
    let lookedAt = 0
    for (const [uid, held] of this.#byUID) {
      const all = isSeveral(held) ? held : [held]
      const valid = all.filter(({ node, generation }) => !node.hasBeaten || node.generation === generation)
      if (valid.length < all.length) {
        revisions.push(...all.filter((one) => !valid.includes(one)).map(({ revision }) => revision))
        if (valid.length === 0) this.#byUID.delete(uid)
        else this.#byUID.set(uid, valid.length === 1 ? valid[0]! : valid)
        if (revisions.length >= maxCount) break
      }
      if (++lookedAt % 5_000 === 0) await pause()
    }
    for (const [key, uid] of this.#hashed) if (!this.#byUID.has(uid)) this.#hashed.delete(key)
    return revisions
  }

  #node(nodeID: number): SeenNode {
    let node = this.#nodes.get(nodeID)
    if (node === undefined) {
      node = { nodeID, generation: '', hasBeaten: false, intervalMs: UNKNOWN_INTERVAL_MS, deadlineMs: 0, beatRevision: 0, beatCreatedMs: 0 }
      this.#nodes.set(nodeID, node)
    }
    return node
  }

  #others(nodeID: number, uid: string): readonly Held[] {
    const held = this.#byUID.get(uid)
    if (held === undefined) return []
    return (isSeveral(held) ? held : [held]).filter(({ node }) => node.nodeID !== nodeID)
  }

  #drop(nodeID: number, uid: string): void {
    const others = this.#others(nodeID, uid)
    if (others.length === 0) this.#byUID.delete(uid)
    else this.#byUID.set(uid, others.length === 1 ? others[0]! : others)
  }
}

function isSeveral(held: Held | readonly Held[]): held is readonly Held[] {
  return Array.isArray(held)
}

function isLive({ node, generation }: Held, nowMs: number): boolean {
  return node.generation === generation && nowMs < node.deadlineMs
}
