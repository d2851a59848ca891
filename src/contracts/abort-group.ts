/**
 * The abort controllers of everything that waits, so that the end of the engine reaches all of it. Whoever adds one takes
 * it out when the wait is over. (Not `AbortSignal.any` on one long-lived signal: that signal would remember every wait.)
 */
export interface AbortGroup {
  readonly isAborted: boolean
  /** Aborts at once when the group has been aborted. */
  add(controller: AbortController): void
  remove(controller: AbortController): void
}
