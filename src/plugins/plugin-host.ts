import type { Limits } from '../config.ts'
import type { Clock } from '../contracts/clock.ts'
import type { Facts } from '../contracts/facts.ts'
import type { EventContexts, EventName, Handler } from '../contracts/handler.ts'
import type { Logger } from '../contracts/logger.ts'
import { asIMError, badOption, IMError, integerBetween } from '../errors.ts'
import type { ChainRegistry, UseOptions, WatchOptions } from '../events/chain-registry.ts'
import type { ChannelsAPI } from '../management/channels.ts'
import type { ConnectionsAPI } from '../management/connections.ts'
import type { PresenceAPI } from '../management/presence.ts'
import type { ConversationsAPI } from '../management/conversations.ts'
import type { MessagesAPIOptions } from '../management/messages.ts'
import type { UsersAPI } from '../management/users.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import type { FactEmitter } from '../services/fact-emitter.ts'
import type { Causes } from './causes.ts'
import type { PluginHost, PluginInfo, PluginMessagesAPI, PluginStep, PluginTimers } from './plugin.ts'
import { PluginMessages } from './plugin-messages.ts'

/** What plugins are given a view of. */
export interface PluginPorts {
  readonly nodeID: number
  readonly limits: Limits
  readonly clock: Clock
  readonly logger: Logger
  readonly facts: FactEmitter
  readonly chains: ChainRegistry
  readonly causes: Causes
  readonly messages: MessagesAPIOptions
  readonly channels: ChannelsAPI
  readonly connections: ConnectionsAPI
  readonly presence: PresenceAPI
  readonly conversations: ConversationsAPI
  readonly users: UsersAPI
  /** wait, at most `closeTimeoutMs`; beyond it IM_CLOSE_TIMEOUT is reported under the name */
  readonly limited: (ending: Promise<unknown>, pluginName: string) => Promise<unknown>
}

interface Registration {
  readonly step: PluginStep
  readonly undo: () => void
}

interface Ear {
  readonly name: keyof Facts
  readonly listener: unknown
  readonly undo: () => void
}

/** What the clocks of Node can wait for. */
const MAX_DELAY_MS = 0x7fff_ffff

/** One plugin's share of the engine, and the list of what has to be taken out again. */
export class HostOfPlugin implements PluginHost {
  readonly name: string
  readonly nodeID: number
  readonly limits: Limits
  readonly channels: ChannelsAPI
  readonly connections: ConnectionsAPI
  readonly presence: PresenceAPI
  readonly conversations: ConversationsAPI
  readonly messages: PluginMessagesAPI
  readonly users: UsersAPI
  readonly logger: Logger
  readonly timers: PluginTimers
  readonly #ports: PluginPorts
  readonly #controller = new AbortController()
  readonly #registrations = new Set<Registration>()
  readonly #ears = new Set<Ear>()
  readonly #cancels = new Set<() => void>()
  readonly #startActions: (() => MaybePromise<void>)[] = []
  readonly #closeActions: (() => MaybePromise<void>)[] = []
  #hasStarted: boolean
  #ending: Promise<void> | undefined
  /** `start` waits no longer */
  #endStart: (() => void) | undefined

  constructor(name: string, ports: PluginPorts, hasStarted: boolean) {
    const { nodeID, limits, channels, connections, conversations, presence, users, causes, logger } = ports
    this.name = name
    this.nodeID = nodeID
    this.limits = limits
    this.channels = channels
    this.connections = connections
    this.presence = presence
    this.conversations = conversations
    this.users = users
    const hasEnded = (): boolean => this.signal.aborted
    this.messages = new PluginMessages(ports.messages, { pluginName: name, causes, maxDepth: limits.maxPluginSendDepth, hasEnded })
    this.logger = named(logger, name)
    this.timers = { after: (delayMs, action) => this.#after(delayMs, action), every: (intervalMs, action) => this.#every(intervalMs, action) }
    this.#ports = ports
    this.#hasStarted = hasStarted
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get isEnding(): boolean {
    return this.#ending !== undefined
  }

  get info(): PluginInfo {
    return { name: this.name, steps: [...this.#registrations].map(({ step }) => step) }
  }

  use<E extends EventName>(event: E, handler: Handler<EventContexts[E]>, options: UseOptions = {}): () => void {
    this.#mustLive()
    if (typeof handler !== 'function') badOption('the handler', 'a function', handler)
    const own = options.name ?? handler.name
    const name = own === '' ? '' : `${this.name}:${own}` // without a name it is refused
    const undo = this.#ports.chains.use(event, this.#followed(handler), { ...options, name })
    return this.#registered({ event, name, isReplacement: false }, undo)
  }

  replace<E extends EventName>(event: E, stepName: string, handler: Handler<EventContexts[E]>, options: WatchOptions = {}): () => void {
    this.#mustLive()
    if (typeof handler !== 'function') badOption('the handler', 'a function', handler)
    const undo = this.#ports.chains.replace(event, stepName, this.#followed(handler), options, `${this.name}:${stepName}`)
    return this.#registered({ event, name: stepName, isReplacement: true }, undo)
  }

  steps(event: EventName): string[] {
    return this.#ports.chains.names(event)
  }

  on<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => unknown): this {
    return this.#listen(name, listener, false)
  }

  once<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => unknown): this {
    return this.#listen(name, listener, true)
  }

  off<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => unknown): this {
    for (const ear of [...this.#ears]) if (ear.name === name && ear.listener === listener) this.#deafen(ear)
    return this
  }

  onStart(action: () => MaybePromise<void>): void {
    this.#mustLive()
    if (typeof action !== 'function') badOption('the function for onStart', 'a function', action)
    if (this.#hasStarted) void this.#attempt(action)
    else this.#startActions.push(action)
  }

  onClose(action: () => MaybePromise<void>): void {
    if (this.signal.aborted) this.#mustLive() // one that is registered by another one is called, too
    if (typeof action !== 'function') badOption('the function for onClose', 'a function', action)
    this.#closeActions.push(action)
  }

  /**
   * Waits for no function of a plugin that ends meanwhile.
   * @throws IM_HANDLER_FAILED with what an `onStart` function has thrown as its cause
   */
  async start(): Promise<void> {
    const ended = new Promise<void>((resolve) => (this.#endStart = resolve))
    for (const action of this.#startActions) {
      if (this.isEnding) return
      try {
        await Promise.race([action(), ended])
      } catch (cause) {
        throw this.#failure(cause)
      }
    }
    this.#hasStarted = true
  }

  /** `setup` has thrown: nothing it has left may run any more. */
  abandon(): void {
    for (const cancel of this.#cancels) cancel()
    void this.end()
  }

  /** Never rejects. */
  end(): Promise<void> {
    return (this.#ending ??= this.#end())
  }

  async #end(): Promise<void> {
    this.#endStart?.()
    for (const { undo } of [...this.#registrations].reverse()) undo()
    this.#registrations.clear()
    for (const ear of [...this.#ears]) this.#deafen(ear)
    for (let action = this.#closeActions.pop(); action !== undefined; action = this.#closeActions.pop()) {
      await this.#ports.limited(this.#attempt(action), this.name)
    }
    for (const cancel of this.#cancels) cancel()
    this.#controller.abort(new IMError('IM_ABORTED', { detail: `the plugin ${this.name} has ended` }))
  }

  #mustLive(): void {
    if (this.isEnding) throw new IMError('IM_NOT_RUNNING', { detail: `the plugin ${this.name} has ended` })
  }

  #followed<C extends EventContexts[EventName]>(handler: Handler<C>): Handler<C> {
    const { causes } = this.#ports
    return (ctx) => causes.because(causes.ofEvent(ctx), handler, ctx)
  }

  #registered(step: PluginStep, undo: () => void): () => void {
    const registration = { step, undo }
    this.#registrations.add(registration)
    return () => {
      undo()
      this.#registrations.delete(registration)
    }
  }

  #listen<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => unknown, isOnce: boolean): this {
    this.#mustLive()
    if (typeof listener !== 'function') badOption('the listener', 'a function', listener)
    const { causes, facts } = this.#ports
    const failed = (reason: unknown): never => {
      throw asIMError(reason, 'IM_LISTENER_FAILED', { event: name, step: this.name })
    }
    const heard = (...args: Facts[K]): unknown => {
      if (!this.#ears.has(ear)) return // taken out by a listener before it, for a fact that is still being told
      if (isOnce) this.#deafen(ear)
      try {
        const result = causes.because(causes.ofFact(name, args[0]), listener, ...args)
        return isPromise(result) ? result.then(undefined, failed) : result
      } catch (reason) {
        return failed(reason)
      }
    }
    const ear: Ear = { name, listener, undo: () => facts.off(name, heard) }
    facts.on(name, heard)
    this.#ears.add(ear)
    return this
  }

  #deafen(ear: Ear): void {
    ear.undo()
    this.#ears.delete(ear)
  }

  #after(delayMs: number, action: () => unknown): () => void {
    return this.#timer({ delayMs: integerBetween('delayMs', delayMs, 0, MAX_DELAY_MS), isRepeated: false }, action)
  }

  #every(intervalMs: number, action: () => unknown): () => void {
    return this.#timer({ delayMs: integerBetween('intervalMs', intervalMs, 1, MAX_DELAY_MS), isRepeated: true }, action)
  }

  #timer({ delayMs, isRepeated }: { readonly delayMs: number; readonly isRepeated: boolean }, action: () => unknown): () => void {
    if (typeof action !== 'function') badOption('the function of a timer', 'a function', action)
    const { clock, causes } = this.#ports
    const cause = causes.current // the clock's timers belong to nobody
    let timer: unknown
    const cancel = (): void => {
      clock.clearTimer(timer)
      this.#cancels.delete(cancel)
    }
    const fire = async (): Promise<void> => {
      if (!isRepeated) this.#cancels.delete(cancel)
      await this.#attempt(() => causes.because(cause, action))
      if (this.#cancels.has(cancel)) arm()
    }
    const arm = (): void => {
      timer = clock.setTimer(delayMs, () => void fire())
      if (isRepeated) (timer as { unref?(): void } | undefined)?.unref?.()
    }
    if (this.signal.aborted) return cancel
    this.#cancels.add(cancel)
    arm()
    return cancel
  }

  /** Never rejects. */
  async #attempt(action: () => unknown): Promise<void> {
    try {
      await action()
    } catch (cause) {
      this.#ports.facts.report(this.#failure(cause))
    }
  }

  #failure(cause: unknown): IMError {
    return new IMError('IM_HANDLER_FAILED', { cause, context: { step: this.name } })
  }
}

function named(logger: Logger, plugin: string): Logger {
  const level = (name: keyof Logger): Logger['info'] => (fields, message) => logger[name]({ ...fields, plugin }, message)
  return { debug: level('debug'), info: level('info'), warn: level('warn'), error: level('error') }
}
