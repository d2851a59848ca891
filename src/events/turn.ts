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

  constructor(clock: Clock, phases: readonly (() => void)[]) {
    this.#clock = clock
    this.#phases = phases
  }

  readonly request = (): void => {
    if (this.#requested) return
    this.#requested = true
    this.#clock.defer(this.#run)
  }

  readonly #run = (): void => {
    // Reset first: what a phase makes ready for an earlier one asks for the next turn.
    this.#requested = false
    for (const phase of this.#phases) phase()
  }
}
