import type { Abortable, WaitSignal } from '../contracts/abort-group.ts'

/** A wait that can be ended, and the signal of it in one: an AbortController with its signal costs some twenty times as much. */
export class Wait implements Abortable, WaitSignal {
  aborted = false
  reason: unknown = undefined
  /** most waits have one listener */
  #listeners: (() => void)[] | undefined

  addEventListener(_type: 'abort', listener: () => void): void {
    if (this.aborted) return
    if (this.#listeners === undefined) this.#listeners = [listener]
    else if (!this.#listeners.includes(listener)) this.#listeners.push(listener)
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    const index = this.#listeners?.indexOf(listener) ?? -1
    if (index >= 0) this.#listeners!.splice(index, 1)
  }

  /** Each listener is called once, also when it asked for more. What one of them throws nobody can catch, and keeps no other from hearing. */
  abort(reason: unknown): void {
    if (this.aborted) return
    this.aborted = true
    this.reason = reason
    for (const listener of [...(this.#listeners ?? [])]) {
      if (this.#listeners?.includes(listener) !== true) continue // one before it has taken it out
      try {
        listener()
      } catch (error) {
        queueMicrotask(() => {
          throw error
        })
      }
    }
    this.#listeners = undefined
  }
}
