import type { PeerKickRequest } from '../../contracts/peer-push.ts'
import { OwedKicks } from './owed-kicks.ts'
import type { Speaker } from './peer-wire.ts'

/** A node that has not been heard for so many beats is lost: it is not called any more. */
const MISSED_BEATS = 3

/** A node that has been lost for so long is taken for dead, and nothing is owed to it any more: by then the clients of one that stands still have given it up. */
const FORGOTTEN_MS = 600_000

interface Member {
  boot: string
  heardMs: number
  isLost: boolean
  /** what it could not be told since it was heard last */
  owed: OwedKicks | undefined
}

/**
 * The other nodes, as far as they have been heard; by this node's own clock, never by theirs. One that falls silent may be dead, and
 * may as well stand still with all its connections: it is lost until it is heard again, says that it ends, or begins another life.
 */
export class PeerMembers {
  readonly #beatMs: number
  readonly #members = new Map<number, Member>()
  #lastLookMs = performance.now()

  constructor(beatMs: number) {
    this.#beatMs = beatMs
  }

  /** those that can be called, ascending */
  get nodeIDs(): number[] {
    return this.#nodeIDs(false)
  }

  get lostNodeIDs(): number[] {
    return this.#nodeIDs(true)
  }

  /** @returns what a node that was lost, and is there again with its connections, is owed */
  heard({ nodeID, boot }: Speaker): OwedKicks | undefined {
    const member = this.#members.get(nodeID)
    const heardMs = performance.now()
    this.#members.set(nodeID, { boot, heardMs, isLost: false, owed: undefined })
    // One that has not been lost has what was sent to it; of another life nothing is left that could be kicked.
    return member?.isLost === true && member.boot === boot ? member.owed : undefined
  }

  /** It is there, or lost: nobody has said that it holds no connections any more. */
  has(nodeID: number): boolean {
    return this.#members.has(nodeID)
  }

  isLost(nodeID: number): boolean {
    return this.#members.get(nodeID)?.isLost === true
  }

  /** It could not be told of it. */
  owe(nodeID: number, request: PeerKickRequest): void {
    const member = this.#members.get(nodeID)
    if (member !== undefined) (member.owed ??= new OwedKicks()).add(request, performance.now())
  }

  /** What was to be told to it again could not be, either; it is told when it is there the next time. */
  oweAgain(nodeID: number, owed: OwedKicks): void {
    const member = this.#members.get(nodeID)
    if (member === undefined) return
    if (member.owed !== undefined) owed.addAll(member.owed)
    member.owed = owed
  }

  /** It has said that it ends. A later life of the same node stays. */
  left({ nodeID, boot }: Speaker): void {
    if (this.#members.get(nodeID)?.boot === boot) this.#members.delete(nodeID)
  }

  /** Nobody could be heard until now: what is known holds until it should have been heard again. */
  listenAnew(): void {
    const nowMs = performance.now()
    for (const member of this.#members.values()) if (!member.isLost) member.heardMs = nowMs
  }

  /**
   * Called with every beat. A look that comes late is none: this process itself has stood still, and what it has been sent
   * meanwhile is read after it.
   * @returns those that are lost now, and were not
   */
  loseSilent(): number[] {
    const nowMs = performance.now()
    const isLate = nowMs - this.#lastLookMs > 2 * this.#beatMs
    this.#lastLookMs = nowMs
    if (isLate) return []
    const lost: number[] = []
    for (const [nodeID, member] of this.#members) {
      const silentMs = nowMs - member.heardMs
      if (member.isLost && silentMs >= FORGOTTEN_MS) this.#members.delete(nodeID)
      if (member.isLost || silentMs < MISSED_BEATS * this.#beatMs) continue
      member.isLost = true
      lost.push(nodeID)
    }
    return lost
  }

  #nodeIDs(isLost: boolean): number[] {
    return [...this.#members].flatMap(([nodeID, member]) => (member.isLost === isLost ? [nodeID] : [])).sort((a, b) => a - b)
  }
}
