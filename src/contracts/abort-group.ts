/** What can be told that nobody waits for it any longer: an AbortController, or something cheaper where no signal is needed. */
export interface Abortable {
  abort(reason: unknown): void
}

/**
 * Everything that waits, so that the end of the engine reaches all of it. Whoever adds something takes it out when the wait
 * is over. (Not `AbortSignal.any` on one long-lived signal: that signal would remember every wait.)
 */
export interface AbortGroup {
  readonly isAborted: boolean
  /** Aborts at once when the group has been aborted. */
  add(wait: Abortable): void
  remove(wait: Abortable): void
}
