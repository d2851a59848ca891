import { ChecksumRing } from './checksum-ring.ts'
import { blockOf, DigestPeer } from './digest-peer.ts'
import { Kind, MAX_ENTRIES_COUNT, type Testimony, type Witness } from './digest-wire.ts'

/** What has come of comparing. `nodeIDs` ascending: those that have read something else somewhere from `from` to `to`. */
export interface DigestVerdict {
  /** 'stop': not more nodes have read what this one has; 'goOn': more have; 'returned': one of them has started again as it was */
  readonly kind: 'stop' | 'goOn' | 'returned'
  readonly from: number
  readonly to: number
  readonly nodeIDs: readonly number[]
  /** those that have read the same as this node */
  readonly agreeingNodeIDs: readonly number[]
}

interface Doubt {
  from: number
  to: number
  beatCount: number
  /** the nodes that have read something else, and in which life */
  readonly against: Map<number, string>
  /** how often each peer had been heard before */
  readonly heardBefore: ReadonlyMap<number, number>
}

/** What was held against a node, and of which life. */
interface Conviction {
  readonly boot: string
  readonly verdict: DigestVerdict
}

/** The last range is told so often again when nothing comes any more. */
const REPEAT_COUNT = 3
/** So many beats the others have to say what they have read … */
const DOUBT_BEATS = 5
/** … and so many when one is there that has not come so far. */
const LONG_DOUBT_BEATS = 20
/** More than a cluster has. */
const MAX_PEER_COUNT = 64

/**
 * Whether the nodes have read the same in one stream. With every beat a node tells a digest of what it has applied since; whoever
 * has applied all of that, too, compares, and whoever has not come so far does so later. When there is a difference all of them
 * tell, entry by entry, what they hold, for some beats; then each judges for itself: those that are not more stop.
 *
 * Nothing goes by clocks: it counts the beats of its own node. It knows what has been read in this life only.
 */
export class LogDigest {
  readonly #nodeID: number
  readonly #told: (verdict: DigestVerdict) => void
  readonly #ring = new ChecksumRing()
  /** by node, the one that was heard last at the end */
  readonly #peers = new Map<number, DigestPeer>()
  readonly #convicted = new Map<number, Conviction>()
  #doubt: Doubt | undefined
  #range: { readonly from: number; readonly to: number } | undefined
  #repeatsLeft = 0
  /** the least position at which something that was heard can be compared */
  #dueSeq = Infinity
  #hasAsked = false
  #isAsked = false
  #beatCount = 0
  #isOver = false

  constructor(nodeID: number, told: (verdict: DigestVerdict) => void) {
    this.#nodeID = nodeID
    this.#told = told
  }

  /** There is a difference, and nobody has judged yet. */
  get isInDoubt(): boolean {
    return this.#doubt !== undefined
  }

  /** This node has applied the entry at `seq`, which carries this checksum. */
  applied(seq: number, checksum: number): void {
    if (this.#isOver) return // what the store had been given already
    this.#ring.add(seq, checksum)
    if (seq >= this.#dueSeq) this.#settle()
  }

  heard(witness: Witness, testimony: Testimony): void {
    const { nodeID, boot } = witness
    if (this.#isOver || nodeID === this.#nodeID) return
    const peer = this.#peers.get(nodeID) ?? new DigestPeer(boot, this.#beatCount)
    if (!peer.heard(boot, testimony, this.#beatCount)) return
    this.#peers.delete(nodeID)
    this.#peers.set(nodeID, peer)
    forgetBeyond(this.#peers, MAX_PEER_COUNT)
    this.#recall(witness)
    if (testimony.kind === Kind.Entries && testimony.isAsking) this.#isAsked = true
    this.#compare(nodeID, peer, testimony)
    if (testimony.to <= this.#ring.last) return
    peer.keep(testimony)
    this.#dueSeq = Math.min(this.#dueSeq, testimony.to)
  }

  /** @returns what the other nodes are to be told now */
  beat(): Testimony[] {
    this.#beatCount++
    if (this.#doubt !== undefined) this.#consider(this.#doubt)
    if (this.#isOver) return []
    const said: Testimony[] = []
    const { first, last } = this.#ring
    let isAsking = this.#doubt !== undefined
    const toldSeq = this.#range?.to ?? 0
    if (last > toldSeq) {
      this.#range = { from: Math.max(first, toldSeq + 1), to: last }
      this.#repeatsLeft = REPEAT_COUNT
      said.push(this.#digestOf(this.#range))
    } else if (last > 0) {
      if (this.#range !== undefined && this.#repeatsLeft > 0) {
        this.#repeatsLeft--
        said.push(this.#digestOf(this.#range))
      }
      // What the others told while this node was not there, or far behind, it has not heard.
      if (!this.#hasAsked) this.#hasAsked = isAsking = true
    }
    if (isAsking || this.#isAsked) said.push(...this.#entries(isAsking))
    this.#isAsked = false
    return said
  }

  #digestOf({ from, to }: { readonly from: number; readonly to: number }): Testimony {
    return { kind: Kind.Range, from, to, digest: this.#ring.digest(from, to) }
  }

  /** All that this node holds. */
  #entries(isAsking: boolean): Testimony[] {
    const { first, last } = this.#ring
    const blocks: Testimony[] = []
    for (let from = first; from <= last; ) {
      const start = from
      const to = Math.min(last, (blockOf(start) + 1) * MAX_ENTRIES_COUNT - 1)
      const checksums = Uint32Array.from({ length: to - start + 1 }, (_, i) => this.#ring.at(start + i))
      blocks.push({ kind: Kind.Entries, from: start, to, checksums, isAsking })
      from = to + 1
    }
    return blocks
  }

  /** What this node had not come to when it was told. */
  #settle(): void {
    this.#dueSeq = Infinity
    for (const [nodeID, peer] of this.#peers) {
      for (const testimony of peer.take(this.#ring.last)) this.#compare(nodeID, peer, testimony)
      this.#dueSeq = Math.min(this.#dueSeq, peer.dueSeq)
    }
  }

  /** As far as this node has come, and still knows what it read. */
  #compare(nodeID: number, peer: DigestPeer, testimony: Testimony): void {
    const from = Math.max(testimony.from, this.#ring.first)
    const to = Math.min(testimony.to, this.#ring.last)
    if (testimony.kind === Kind.Range) {
      if (from !== testimony.from || to !== testimony.to) return // a digest is of all of it
      if (this.#ring.digest(from, to) === testimony.digest) peer.isEqual(from, to)
      else this.#differs(nodeID, peer, from, to)
      return
    }
    for (let seq = from; seq <= to; seq++) {
      if (this.#ring.at(seq) === testimony.checksums[seq - testimony.from]) continue
      if (seq > from) peer.isEqual(from, seq - 1)
      return this.#differs(nodeID, peer, seq, seq)
    }
    if (from <= to) peer.isEqual(from, to)
  }

  #differs(nodeID: number, peer: DigestPeer, from: number, to: number): void {
    const conviction = this.#convicted.get(nodeID)
    if (this.#doubt === undefined && conviction !== undefined) return this.#told(conviction.verdict) // it has not stopped
    this.#doubt ??= { from, to, beatCount: 0, against: new Map(), heardBefore: new Map([...this.#peers].map(([id, { heardCount }]) => [id, heardCount])) }
    if (!this.#doubt.against.has(nodeID)) this.#doubt.against.set(nodeID, peer.boot)
    if (from < this.#doubt.from || to > this.#doubt.to) return
    this.#doubt.from = from // closer to where it is
    this.#doubt.to = to
  }

  /** A difference, one beat later: judge, unless there is somebody to wait for. */
  #consider(doubt: Doubt): void {
    doubt.beatCount++
    const { from, to, beatCount, against, heardBefore } = doubt
    const others = [...this.#peers].filter(([nodeID]) => !against.has(nodeID))
    const agreeing = others.filter(([, peer]) => peer.hasEqual(from, to)).map(([nodeID]) => nodeID)
    const isAwaited = others.some(([nodeID, { heardCount, lastSeq }]) => lastSeq < to && heardCount > (heardBefore.get(nodeID) ?? 0))
    if (beatCount <= (isAwaited ? LONG_DOUBT_BEATS : DOUBT_BEATS)) return
    this.#doubt = undefined
    // As many on both sides: nobody knows which, and silence is better than two truths.
    this.#isOver = 1 + agreeing.length <= against.size
    const kind = this.#isOver ? 'stop' : 'goOn'
    const verdict: DigestVerdict = { kind, from, to, nodeIDs: ascending(against.keys()), agreeingNodeIDs: ascending(agreeing) }
    if (!this.#isOver) {
      for (const [nodeID, boot] of against) this.#convicted.set(nodeID, { boot, verdict })
      forgetBeyond(this.#convicted, MAX_PEER_COUNT)
    }
    this.#told(verdict)
  }

  /** What was held against a node holds for its next lives, until one has begun with a storage that is not its own. */
  #recall({ nodeID, boot, isFresh }: Witness): void {
    const conviction = this.#convicted.get(nodeID)
    if (conviction === undefined || conviction.boot === boot) return
    if (isFresh) this.#convicted.delete(nodeID)
    else this.#told({ ...conviction.verdict, kind: 'returned', nodeIDs: [nodeID] })
  }
}

function ascending(nodeIDs: Iterable<number>): number[] {
  return [...nodeIDs].sort((a, b) => a - b)
}

function forgetBeyond(map: Map<number, unknown>, maxCount: number): void {
  const [oldest] = map.keys()
  if (map.size > maxCount && oldest !== undefined) map.delete(oldest)
}
