import type { Limits } from '../config.ts'
import type { Facts } from '../contracts/facts.ts'
import type { EventContexts, EventName, Handler } from '../contracts/handler.ts'
import type { Logger } from '../contracts/logger.ts'
import type { UseOptions, WatchOptions } from '../events/chain-registry.ts'
import type { ChannelsAPI } from '../management/channels.ts'
import type { ConnectionsAPI } from '../management/connections.ts'
import type { ConversationsAPI } from '../management/conversations.ts'
import type { MessagesAPI, SendReceipt } from '../management/messages.ts'
import type { PresenceAPI } from '../management/presence.ts'
import type { SendRequest } from '../management/send-request.ts'
import type { UsersAPI } from '../management/users.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'
import type { Message } from '../model/message.ts'

/**
 * Handlers, listeners, timers and resources under one name. `setup` is called once, by `engine.use(plugin, options)`, and must
 * be synchronous: what has to be waited for goes into `host.onStart`. When it throws, all it had registered is taken out
 * again.
 */
export interface Plugin<O = void> {
  readonly name: string
  setup(host: PluginHost, options: O): void
  /** new options while it runs: `engine.plugins.configure(name, options)` calls it, and passes its throw on */
  configure?(options: O): MaybePromise<void>
}

/**
 * What a plugin has of its engine. Everything registered here ends with the plugin: when the engine closes, or with
 * `engine.plugins.remove`. Afterwards `use`, `replace`, `on`, `once` and the hooks throw IM_NOT_RUNNING, and timers do nothing.
 */
export interface PluginHost {
  /** the plugin's own name */
  readonly name: string
  readonly nodeID: number
  readonly limits: Limits
  readonly channels: ChannelsAPI
  readonly connections: ConnectionsAPI
  readonly presence: PresenceAPI
  readonly conversations: ConversationsAPI
  readonly messages: PluginMessagesAPI
  readonly users: UsersAPI
  /** the engine's; every line has the field `plugin` */
  readonly logger: Logger
  readonly timers: PluginTimers
  /** aborted when the plugin has ended, after its `onClose` functions */
  readonly signal: AbortSignal
  /** As `engine.use`; the step is called `<plugin>:<name>`. Places are named as `engine.steps` names them. */
  use<E extends EventName>(event: E, handler: Handler<EventContexts[E]>, options?: UseOptions): () => void
  /** As `engine.replace`; the step keeps its name, and errors call it `<plugin>:<step>`. */
  replace<E extends EventName>(event: E, stepName: string, handler: Handler<EventContexts[E]>, options?: WatchOptions): () => void
  steps(event: EventName): string[]
  /** Hear of a fact. A listener that throws or rejects is reported as IM_LISTENER_FAILED, with the plugin as `context.step`. */
  on<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => unknown): this
  once<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => unknown): this
  off<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => unknown): this
  /**
   * Before the first socket is served, when storage is open: `engine.start` waits for it, and fails with IM_HANDLER_FAILED when
   * it does. Messages cannot be sent yet. In an engine that has started it is called at once, and a failure is reported.
   */
  onStart(action: () => MaybePromise<void>): void
  /**
   * When the plugin ends, last registered first: handlers and listeners are out by then, timers still run. Each is waited for,
   * at most `closeTimeoutMs` (IM_CLOSE_TIMEOUT); a failure is reported. In a closing engine nothing can be sent any more.
   */
  onClose(action: () => MaybePromise<void>): void
}

/** A message that a plugin sends. */
export interface PluginSendRequest extends SendRequest {
  /**
   * The message that this one answers. Name it whenever there is one: of a batch its depth counts alone, and from a queue or
   * another `every` the engine does not know it otherwise. Of a message that is not what the code runs because of, the
   * larger depth of both counts.
   */
  readonly replyTo?: Message
}

/** `engine.messages`, with a bound to how deep answers go. */
export interface PluginMessagesAPI extends Omit<MessagesAPI, 'send'> {
  /**
   * As `engine.messages.send`.
   * @throws also IM_SEND_DEPTH: in one line, each because of the one before, plugins have sent `maxPluginSendDepth` messages
   *   already. Nothing was sent
   */
  send(request: PluginSendRequest): Promise<SendReceipt>
}

/** Timers of the engine's clock. What a function throws, or rejects with, is reported as IM_HANDLER_FAILED. */
export interface PluginTimers {
  /** Once, not before `delayMs` (0 .. 2147483647) have passed. @returns a function that cancels it */
  after(delayMs: number, action: () => unknown): () => void
  /**
   * Again and again, `intervalMs` (1 .. 2147483647) from the end of one run to the next: a run that returns a promise is never
   * overlapped. Keeps no process alive. @returns a function that cancels it
   */
  every(intervalMs: number, action: () => unknown): () => void
}

/** A step that a plugin has added, or put in the place of another one. */
export interface PluginStep {
  readonly event: EventName
  /** as `engine.steps` shows it */
  readonly name: string
  readonly isReplacement: boolean
}

export interface PluginInfo {
  readonly name: string
  readonly steps: readonly PluginStep[]
}

/** `engine.plugins`: what is plugged in. */
export interface PluginsAPI {
  /** In the order they were added. */
  list(): PluginInfo[]
  /**
   * Take a plugin out: its handlers and listeners at once, then its `onClose` functions are called, then its timers end.
   * Resolves when all that is done, and never rejects but with a TypeError for a name that no plugin has.
   */
  remove(name: string): Promise<void>
  /** Give a plugin new options. @throws TypeError when it takes none, or for an unknown name; what its `configure` throws */
  configure(name: string, options: unknown): Promise<void>
}
