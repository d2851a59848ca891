/**
 * Keeps live messages of a connection in their place while older ones are replayed to it. A message of a channel that has
 * not been settled is held back: the replay will find it in the store. A channel is settled when the replay has caught up;
 * from then on it is live, but for messages that the replay has sent and whose live push is still on its way.
 */
export class ReplayGate {
  readonly #settled = new Set<string>()
  /** settled, and sent up to here by the replay */
  readonly #replayedTo = new Map<string, number>()
  /** not settled: the highest seq that was held back */
  readonly #heldBackTo = new Map<string, number>()
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
    this.#heldBackTo.set(channel, Math.max(messageSeq, this.heldBackTo(channel)))
    return false
  }

  /** The highest seq of the channel that was held back, 0 for none. */
  heldBackTo(channel: string): number {
    return this.#heldBackTo.get(channel) ?? 0
  }

  /** A channel something was held back of, that is not settled. */
  get unsettled(): string | undefined {
    for (const channel of this.#heldBackTo.keys()) return channel
    return undefined
  }

  /** The channel is live from now on, behind `replayedTo`; 0 when nothing was replayed. */
  settle(channel: string, replayedTo: number): void {
    this.#heldBackTo.delete(channel)
    if (!this.#isOpen) this.#settled.add(channel)
    if (replayedTo > 0) this.#replayedTo.set(channel, replayedTo)
  }

  /** Every channel is live from now on. */
  open(): void {
    this.#isOpen = true
    this.#settled.clear()
    this.#heldBackTo.clear()
  }
}
