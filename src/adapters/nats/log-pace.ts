/**
 * When a node's next entry may leave, if several messages wait for it.
 *
 * An entry wakes every server and every node, whatever is in it, and what it brings they have to do at once. So one leaves in every
 * period of several times what an entry takes lately: where there is time to spare that is a few milliseconds, and where there is none,
 * fewer and larger entries are what gives some. A node has a place of its own in the period, by the clock on the wall, so that the
 * entries of all come spread over it. Where clocks differ the places do, and may meet.
 */
const FLIGHTS = 4
const MIN_PERIOD_MS = 3
const SMOOTHING = 1 / 8
const WALL_CLOCK_STEP_MS = 1
/** Multiples of it, modulo 1, are far from one another, however many there are. */
const GOLDEN_RATIO = (Math.sqrt(5) - 1) / 2

export class LogPace {
  readonly #maxPeriodMs: number
  readonly #place: number
  #flightMs = 0
  #launchedMs = -Infinity

  /** @param maxPeriodMs  0: whenever it likes */
  constructor(nodeID: number, maxPeriodMs: number) {
    this.#maxPeriodMs = maxPeriodMs
    this.#place = (nodeID * GOLDEN_RATIO) % 1
  }

  launched(): void {
    this.#launchedMs = performance.now()
  }

  /** An entry has been applied here so long after it was launched. */
  landed(flightMs: number): void {
    this.#flightMs += (Math.min(flightMs, this.#maxPeriodMs) - this.#flightMs) * SMOOTHING
  }

  /** until the next may leave; 0 for now */
  get leftMs(): number {
    const periodMs = this.#periodMs
    if (periodMs === 0) return 0
    const sincePlaceMs = (Date.now() + this.#place * periodMs) % periodMs
    return performance.now() - this.#launchedMs > sincePlaceMs + WALL_CLOCK_STEP_MS ? 0 : periodMs - sincePlaceMs
  }

  /** One of few, for places keep apart only nodes whose periods are the same. */
  get #periodMs(): number {
    let periodMs = MIN_PERIOD_MS
    while (periodMs < FLIGHTS * this.#flightMs) periodMs *= 2
    return Math.min(periodMs, this.#maxPeriodMs)
  }
}
