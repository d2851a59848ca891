import type { AbortGroup } from '../contracts/abort-group.ts'
import type { Timers } from '../contracts/clock.ts'
import { IMError } from '../errors.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'

/** Everything that waits on behalf of one engine. */
export class Waits implements AbortGroup {
  readonly #controllers = new Set<AbortController>()
  #reason: IMError | undefined

  get isAborted(): boolean {
    return this.#reason !== undefined
  }

  add(controller: AbortController): void {
    if (this.#reason !== undefined) controller.abort(this.#reason)
    else this.#controllers.add(controller)
  }

  remove(controller: AbortController): void {
    this.#controllers.delete(controller)
  }

  /** Nobody waits any longer, now and later. */
  abort(reason: IMError): void {
    this.#reason = reason
    for (const controller of this.#controllers) controller.abort(reason)
    this.#controllers.clear()
  }
}

export interface TimeLimit {
  readonly timers: Timers
  readonly timeoutMs: number
  readonly waits: AbortGroup
}

/**
 * Run `action` with a signal that is aborted after `timeoutMs`, or when the engine will wait no longer. Rejects then, also
 * when the action ignores its signal.
 * @throws what the action throws, or IM_ABORTED
 */
export async function withTimeLimit<T>({ timers, timeoutMs, waits }: TimeLimit, action: (signal: AbortSignal) => MaybePromise<T>): Promise<T> {
  const controller = new AbortController()
  const aborted = new Promise<never>((_resolve, reject) => {
    controller.signal.addEventListener('abort', () => reject(controller.signal.reason as IMError), { once: true })
  })
  aborted.catch(() => undefined) // nobody may be listening any more
  const timer = timers.after(timeoutMs, () => controller.abort(new IMError('IM_ABORTED', { detail: `no answer after ${timeoutMs} ms` })))
  waits.add(controller)
  try {
    controller.signal.throwIfAborted()
    return await Promise.race([action(controller.signal), aborted])
  } finally {
    timers.cancel(timer)
    waits.remove(controller)
  }
}
