/** Time as the engine sees it. Replace it to run in virtual time (`FakeClock` in `imengine/testing`). */
export interface Clock {
  /** milliseconds since 1970; may jump */
  nowMs(): number
  /** milliseconds of a clock that never goes back; for time-outs and durations */
  monotonicMs(): number
  /** Call `fire` once, not before `delayMs` have passed. */
  setTimer(delayMs: number, fire: () => void): unknown
  clearTimer(timer: unknown): void
  /** Call `run` once, after the input that is being handled now: the engine's turn. */
  defer(run: () => void): void
}

/** Many time-outs behind one timer of the clock. Coarse: a time-out fires up to one tick late, never early. */
export interface Timers {
  /** @returns an entry for `cancel`; `fire` must not throw */
  after(delayMs: number, fire: () => void): TimerEntry
  cancel(entry: TimerEntry): void
}

/** Opaque to everyone but its wheel. */
export interface TimerEntry {
  readonly dueMs: number
}
