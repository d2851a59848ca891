import { EventEmitter } from 'eventemitter3'
import type { Facts, FactSink } from '../contracts/facts.ts'
import type { Logger } from '../contracts/logger.ts'
import { asIMError, badOption, describeCause, type IMError } from '../errors.ts'
import { isPromise } from '../model/maybe-promise.ts'

/** Every fact there is: a listener for a name that is misspelt would wait for ever. */
const FACT_NAMES: Readonly<Record<keyof Facts, true>> = {
  connected: true,
  disconnected: true,
  connectionRefused: true,
  messageStored: true,
  messageRefused: true,
  offlineMessage: true,
  messageRevised: true,
  slowConsumer: true,
  undelivered: true,
  presenceChanged: true,
  isolated: true,
  webhookGivenUp: true,
  error: true,
}

type Listener = (...args: unknown[]) => unknown

/**
 * Facts and failures on their way to the host: to its listeners, and to its log. A listener that throws, or returns a
 * promise that rejects, is reported and changes nothing: neither for the engine nor for the next listener.
 */
export class FactEmitter implements FactSink {
  readonly #emitter = new EventEmitter<keyof Facts>()
  /** each listener as it is registered: inside a guard, one per fact, so that `off` finds it */
  readonly #guards = new WeakMap<Listener, Map<keyof Facts, Listener>>()
  readonly #logger: Logger
  readonly #reported: (error: IMError) => void

  /** @param reported  is told of every failure, before anybody else; must not throw */
  constructor(logger: Logger, reported: (error: IMError) => void = () => undefined) {
    this.#logger = logger
    this.#reported = reported
  }

  on<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => unknown): void {
    this.#emitter.on(name, this.#guarded(name, listener as Listener))
  }

  once<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => unknown): void {
    this.#emitter.once(name, this.#guarded(name, listener as Listener))
  }

  off<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => unknown): void {
    const guard = this.#guards.get(listener as Listener)?.get(name)
    if (guard !== undefined) this.#emitter.off(name, guard)
  }

  has(name: keyof Facts): boolean {
    return this.#emitter.listenerCount(name) > 0
  }

  emit<K extends keyof Facts>(name: K, ...args: Facts[K]): void {
    this.#emitter.emit(name, ...args)
  }

  /**
   * A failure: one log line, one `'error'` fact. Of a cause the line says what it is and not its message: that is the text of
   * a host or an adapter, who were given tokens and payloads and may quote them. Whoever listens to `'error'` has the cause.
   */
  readonly report = (error: IMError): void => {
    this.#reported(error)
    this.#logger.error(
      { code: error.code, ...error.context, cause: error.cause === undefined ? undefined : describeCause(error.cause) },
      error.message,
    )
    this.emit('error', error)
  }

  #guarded(name: keyof Facts, listener: Listener): Listener {
    if (!Object.hasOwn(FACT_NAMES, name)) badOption('the name of a fact', Object.keys(FACT_NAMES).join(', '), name)
    if (typeof listener !== 'function') badOption('the listener', 'a function', listener)
    let byName = this.#guards.get(listener)
    if (byName === undefined) this.#guards.set(listener, (byName = new Map<keyof Facts, Listener>()))
    let guard = byName.get(name)
    if (guard === undefined) byName.set(name, (guard = (...args) => this.#call(name, listener, args)))
    return guard
  }

  #call(name: keyof Facts, listener: Listener, args: unknown[]): void {
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
