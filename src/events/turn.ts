import type { Clock } from '../contracts/clock.ts'

/**
 * The engine's turn: what has become ready while input was read runs once, phase after phase (user events, channel events,
 * push events, writes), so that a message which waits for nothing goes from socket to sockets in one turn, and frames for
 * one connection leave in one write.
 */
export class Turn {
  readonly #clock: Clock
  readonly #phases: readonly (() => void)[]
  #requested = false
  #nowMs = 0

  constructor(clock: Clock, phases: readonly (() => void)[]) {
    this.#clock = clock
    this.#phases = phases
  }

  /** The time when the last turn was asked for, in whole milliseconds: as good as now for what becomes ready, and costs nothing. */
  get nowMs(): number {
    return this.#nowMs
  }

  /** The time now, for what is not going to ask for a turn. */
  read(): number {
    return (this.#nowMs = Math.trunc(this.#clock.monotonicMs()))
  }

  readonly request = (): void => {
    if (this.#requested) return
    this.#requested = true
    this.read()
    this.#clock.defer(this.#run)
  }

  readonly #run = (): void => {
    // Reset first: what a phase makes ready for an earlier one asks for the next turn.
    this.#requested = false
    for (const phase of this.#phases) phase()
  }
}
