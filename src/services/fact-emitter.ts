import { EventEmitter } from 'eventemitter3'
import type { Facts, FactSink } from '../contracts/facts.ts'
import type { Logger } from '../contracts/logger.ts'
import type { IMError } from '../errors.ts';
import { asIMError } from '../errors.ts'
import { isPromise } from '../model/maybe-promise.ts'

type Listener = (...args: unknown[]) => unknown

/**
 * Facts and failures on their way to the host: to its listeners, and to its log. A listener that throws, or returns a
 * promise that rejects, is reported and changes nothing: neither for the engine nor for the next listener.
 */
export class FactEmitter implements FactSink {
  readonly emitter = new EventEmitter<Facts>()
  readonly #logger: Logger

  constructor(logger: Logger) {
    this.#logger = logger
  }

  has(name: keyof Facts): boolean {
    return this.emitter.listenerCount(name) > 0
  }

  emit<K extends keyof Facts>(name: K, ...args: Facts[K]): void {
    if (this.emitter.listenerCount(name) === 0) return
    for (const listener of this.emitter.listeners(name) as unknown as Listener[]) this.#call(name, listener, args)
  }

  /** A failure: one log line, one `'error'` fact. */
  readonly report = (error: IMError): void => {
    this.#logger.error(
      { code: error.code, ...error.context, cause: error.cause instanceof Error ? error.cause.message : undefined },
      error.message,
    )
    this.emit('error', error)
  }

  #call<K extends keyof Facts>(name: K, listener: Listener, args: Facts[K]): void {
    try {
      const result = listener(...args)
      if (isPromise(result)) result.then(undefined, (reason: unknown) => this.#listenerFailed(name, reason))
    } catch (reason) {
      this.#listenerFailed(name, reason)
    }
  }

  #listenerFailed(name: keyof Facts, reason: unknown): void {
    const error = asIMError(reason, 'IM_LISTENER_FAILED', { event: name })
    if (name === 'error') this.#logger.error({ code: error.code, event: name }, error.message)
    else this.report(error)
  }
}
