import type { Clock } from '../contracts/clock.ts'
import { Latencies } from '../model/latency.ts'

/** What runs under one name in a chain, and how long it took, of one run in `every`: the first one, and then each `every`th. */
export class StepTimes {
  readonly latencies = new Latencies()
  readonly #clock: Pick<Clock, 'monotonicMs'>
  readonly #every: number
  #untilTimed: number

  /** @param every  0 for never */
  constructor(every: number, clock: Pick<Clock, 'monotonicMs'>) {
    this.#every = every
    this.#clock = clock
    this.#untilTimed = every === 0 ? Infinity : 1
  }

  /** The chain that begins with this step starts. @returns what to time it with, when it is one of those that are timed */
  begin(): Lap | undefined {
    if (--this.#untilTimed > 0) return undefined
    this.#untilTimed = this.#every
    return new Lap(this.#clock)
  }
}

/** One run of a chain, as its steps end one after the other. */
export class Lap {
  readonly #clock: Pick<Clock, 'monotonicMs'>
  #sinceMs: number

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock
    this.#sinceMs = clock.monotonicMs()
  }

  /** A step has ended, however it did. */
  end(times: StepTimes | undefined): void {
    const nowMs = this.#clock.monotonicMs()
    times?.latencies.observe(nowMs - this.#sinceMs)
    this.#sinceMs = nowMs
  }
}
