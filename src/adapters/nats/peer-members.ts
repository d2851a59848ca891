import type { Speaker } from './peer-wire.ts'

/** A node that has not been heard for so many beats is taken for gone. */
const MISSED_BEATS = 3

interface Member {
  boot: string
  heardMs: number
}

/** The other nodes that can be called, as far as they have been heard; by this node's own clock, never by theirs. */
export class PeerMembers {
  readonly #beatMs: number
  readonly #members = new Map<number, Member>()
  #lastLookMs = performance.now()

  constructor(beatMs: number) {
    this.#beatMs = beatMs
  }

  /** ascending */
  get nodeIDs(): number[] {
    return [...this.#members.keys()].sort((a, b) => a - b)
  }

  heard({ nodeID, boot }: Speaker): void {
    const member = this.#members.get(nodeID)
    if (member === undefined) {
      this.#members.set(nodeID, { boot, heardMs: performance.now() })
      return
    }
    member.boot = boot
    member.heardMs = performance.now()
  }

  has(nodeID: number): boolean {
    return this.#members.has(nodeID)
  }

  /** It has said that it ends. A later life of the same node stays. */
  left({ nodeID, boot }: Speaker): void {
    if (this.#members.get(nodeID)?.boot === boot) this.#members.delete(nodeID)
  }

  /** Nobody could be heard until now: what is known holds until it should have been heard again. */
  listenAnew(): void {
    const nowMs = performance.now()
    for (const member of this.#members.values()) member.heardMs = nowMs
  }

  /**
   * Called with every beat. A look that comes late is none: this process itself has stood still, and what it has been sent
   * meanwhile is read after it.
   * @returns those that are gone
   */
  dropSilent(): number[] {
    const nowMs = performance.now()
    const isLate = nowMs - this.#lastLookMs > 2 * this.#beatMs
    this.#lastLookMs = nowMs
    if (isLate) return []
    const gone = [...this.#members].filter(([, { heardMs }]) => nowMs - heardMs >= MISSED_BEATS * this.#beatMs).map(([nodeID]) => nodeID)
    for (const nodeID of gone) this.#members.delete(nodeID)
    return gone
  }
}
