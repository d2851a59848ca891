interface HeldBack {
  /** exactly which, because the connection's own messages are among the channel's, too, and are not pushed to it */
  readonly seqs: Set<number>
  first: number
  last: number
}

/** So many are told apart per channel; of own messages beyond them nothing is replayed. */
const MAX_SEQS = 10_000

/**
 * Keeps live messages of a connection in their place while older ones are replayed to it. A message of a channel that has
 * not been settled is held back: the replay will find it in the store. A channel is settled when the replay has caught up;
 * from then on it is live, but for messages that the replay has sent and whose live push is still on its way.
 */
export class ReplayGate {
  readonly #settled = new Set<string>()
  /** settled, and sent up to here by the replay */
  readonly #replayedTo = new Map<string, number>()
  /** by channel, of those that are not settled */
  readonly #heldBack = new Map<string, HeldBack>()
  #isOpen = false

  /** Nothing is held back any more, now and later. */
  get isTransparent(): boolean {
    return this.#isOpen && this.#replayedTo.size === 0
  }

  /** May this live message go out? */
  admits(channel: string, messageSeq: number): boolean {
    const replayedTo = this.#replayedTo.get(channel)
    if (replayedTo !== undefined) {
      if (messageSeq <= replayedTo) return false
      this.#replayedTo.delete(channel) // pushes come in order: what comes now is new, too
      return true
    }
    if (this.#isOpen || this.#settled.has(channel)) return true
    this.#holdBack(channel, messageSeq)
    return false
  }

  /** The lowest and the highest seq of the channel that were held back, 0 for none. */
  heldBackFrom(channel: string): number {
    return this.#heldBack.get(channel)?.first ?? 0
  }

  heldBackTo(channel: string): number {
    return this.#heldBack.get(channel)?.last ?? 0
  }

  isHeldBack(channel: string, messageSeq: number): boolean {
    return this.#heldBack.get(channel)?.seqs.has(messageSeq) === true
  }

  /** A channel something was held back of, that is not settled. */
  get unsettled(): string | undefined {
    for (const channel of this.#heldBack.keys()) return channel
    return undefined
  }

  /** The channel is live from now on, behind `replayedTo`; 0 when nothing was replayed. */
  settle(channel: string, replayedTo: number): void {
    this.#heldBack.delete(channel)
    if (!this.#isOpen) this.#settled.add(channel)
    if (replayedTo > 0) this.#replayedTo.set(channel, replayedTo)
  }

  /** Every channel is live from now on. */
  open(): void {
    this.#isOpen = true
    this.#settled.clear()
    this.#heldBack.clear()
  }

  #holdBack(channel: string, messageSeq: number): void {
    const held = this.#heldBack.get(channel)
    if (held === undefined) {
      this.#heldBack.set(channel, { seqs: new Set([messageSeq]), first: messageSeq, last: messageSeq })
      return
    }
    if (held.seqs.size < MAX_SEQS) held.seqs.add(messageSeq)
    held.first = Math.min(held.first, messageSeq)
    held.last = Math.max(held.last, messageSeq)
  }
}
