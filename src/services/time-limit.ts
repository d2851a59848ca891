import type { Abortable, AbortGroup } from '../contracts/abort-group.ts'
import type { Timers } from '../contracts/clock.ts'
import { IMError } from '../errors.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'

/** Everything that waits on behalf of one engine. */
export class Waits implements AbortGroup {
  readonly #waits = new Set<Abortable>()
  #reason: IMError | undefined

  get isAborted(): boolean {
    return this.#reason !== undefined
  }

  add(wait: Abortable): void {
    if (this.#reason !== undefined) wait.abort(this.#reason)
    else this.#waits.add(wait)
  }

  remove(wait: Abortable): void {
    this.#waits.delete(wait)
  }

  /** Nobody waits any longer, now and later. */
  abort(reason: IMError): void {
    this.#reason = reason
    for (const wait of this.#waits) wait.abort(reason)
    this.#waits.clear()
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

/**
 * The same for what takes no signal: an AbortController costs several times what a question to an adapter does. What is
 * answered at once arms nothing.
 * @throws what `ask` throws, or IM_ABORTED
 */
export async function inTime<T>({ timers, timeoutMs, waits }: TimeLimit, ask: () => MaybePromise<T>): Promise<T> {
  if (waits.isAborted) return withTimeLimit({ timers, timeoutMs, waits }, ask) // which knows the reason
  const answer = ask()
  if (!isPromise(answer)) return answer
  return new Promise<T>((resolve, reject) => {
    const end = (): void => {
      timers.cancel(timer)
      waits.remove(wait)
    }
    const wait: Abortable = {
      abort: (reason: Error) => {
        end()
        reject(reason)
      },
    }
    const timer = timers.after(timeoutMs, () => wait.abort(new IMError('IM_ABORTED', { detail: `no answer after ${timeoutMs} ms` })))
    waits.add(wait) // aborted at once when `ask` has ended the engine
    // After an abort both do nothing: the promise is settled, the entry gone and the wait out of its group.
    answer.then(
      (value) => {
        end()
        resolve(value)
      },
      (reason: Error) => {
        end()
        reject(reason)
      },
    )
  })
}
