/** Upper bounds of the buckets, in milliseconds: from what nobody notices to what everybody does. A last bucket has the rest. */
export const LATENCY_BOUNDS_MS: readonly number[] = Object.freeze([0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000])

/** How long something took, over all times it was measured. */
export interface LatencyHistogram {
  readonly count: number
  readonly sumMs: number
  /** per bound of `LATENCY_BOUNDS_MS` how often it took longer than the bound before and no longer than this one; one more for the rest */
  readonly counts: readonly number[]
}

/** A histogram that is being filled. Its counts are of one kind from the start, so that counting allocates nothing. */
export class Latencies {
  readonly #counts = new Float64Array(LATENCY_BOUNDS_MS.length + 1)
  #sumMs = 0

  observe(durationMs: number): void {
    let bucket = 0
    while (bucket < LATENCY_BOUNDS_MS.length && durationMs > LATENCY_BOUNDS_MS[bucket]!) bucket++
    this.#counts[bucket]!++
    this.#sumMs += durationMs
  }

  snapshot(): LatencyHistogram {
    const counts = Object.freeze([...this.#counts])
    return Object.freeze({ count: counts.reduce((sum, count) => sum + count, 0), sumMs: this.#sumMs, counts })
  }
}
