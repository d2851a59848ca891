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

/**
 * What of an `AbortSignal` it takes to give up a wait. Every `AbortSignal` is one. Where there is one for each message the engine
 * hands out lighter ones, which `fetch` and `AbortSignal.any` do not take.
 */
export interface WaitSignal {
  readonly aborted: boolean
  /** undefined until then */
  readonly reason: unknown
  addEventListener(type: 'abort', listener: () => void, options?: { readonly once?: boolean }): void
  removeEventListener(type: 'abort', listener: () => void): void
}
