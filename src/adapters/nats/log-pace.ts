import { placeOf } from '../../model/node-place.ts'

/**
 * When a node's next entry may leave, if several messages wait for it.
 *
 * An entry wakes every server and every node, whatever is in it, and what it brings they have to do at once. Where most entries take
 * long, nobody has time to spare, and fewer and larger ones are what gives some: then one leaves in every period. A node has a place of
 * its own in it, by the clock on the wall, so that the entries of all come spread over it. Where clocks differ the places do, and may meet.
 */
/** The median of so many says how long an entry takes: one that was held up for long says nothing. */
const MEDIAN_OF = 15
const SLOW_MS = 10
/** So long entries are held, before it is tried whether they take long without that; longer each time that they do at once. */
const MIN_HOLD_MS = 2_000
const MAX_HOLD_MS = 64_000
const WALL_CLOCK_STEP_MS = 1

export class LogPace {
  readonly #periodMs: number
  readonly #placeMs: number
  #flightsMs: number[] = []
  #isHeld = false
  /** when that was said */
  #sinceMs = -Infinity
  #holdMs = MIN_HOLD_MS
  #launchedMs = -Infinity

  /** @param periodMs  0: entries are never held */
  constructor(nodeID: number, periodMs: number) {
    this.#periodMs = periodMs
    this.#placeMs = placeOf(nodeID) * periodMs
  }

  /** Does one leave in every period? Else whenever there is something to send. */
  get isHeld(): boolean {
    return this.#isHeld
  }

  launched(): void {
    this.#launchedMs = performance.now()
  }

  /** An entry has been applied here so long after it was launched. */
  landed(flightMs: number): void {
    if (this.#periodMs === 0) return
    const forMs = performance.now() - this.#sinceMs
    if (this.#isHeld) {
      if (forMs >= this.#holdMs) this.#hold(false)
      return
    }
    this.#flightsMs.push(flightMs)
    if (this.#flightsMs.length < MEDIAN_OF) return
    const medianMs = this.#flightsMs.toSorted((a, b) => a - b)[MEDIAN_OF >> 1]!
    this.#flightsMs.shift()
    if (medianMs < SLOW_MS) return
    this.#holdMs = forMs < this.#holdMs ? Math.min(MAX_HOLD_MS, 2 * this.#holdMs) : MIN_HOLD_MS
    this.#hold(true)
  }

  #hold(isHeld: boolean): void {
    this.#isHeld = isHeld
    this.#sinceMs = performance.now()
    this.#flightsMs = []
  }

  /** until the next may leave; 0 for now */
  get leftMs(): number {
    if (!this.#isHeld) return 0
    const sincePlaceMs = (Date.now() + this.#placeMs) % this.#periodMs
    return performance.now() - this.#launchedMs > sincePlaceMs + WALL_CLOCK_STEP_MS ? 0 : this.#periodMs - sincePlaceMs
  }
}
