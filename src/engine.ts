import { memoryOutbox, memoryStorage } from './adapters/memory/index.ts'
import { checkOptions, type IMEngineOptions, type Limits } from './config.ts'
import { Connection } from './connection/connection.ts'
import type { Clock } from './contracts/clock.ts'
import type { Facts } from './contracts/facts.ts'
import type { EventContexts, EventName, Handler } from './contracts/handler.ts'
import type { EngineMetrics } from './contracts/metrics.ts'
import type { MessageTrace } from './contracts/trace.ts'
import type { AcceptInfo, Socket, SocketAcceptor, SocketEvents } from './contracts/socket.ts'
import type { Storage } from './contracts/storage.ts'
import { asIMError, badOption, IMError, integerBetween, onlyKnown, type IMErrorCode, type IMErrorContext } from './errors.ts'
import type { UseOptions, WatchOptions } from './events/chain-registry.ts'
import { DistributeItem } from './handlers/channel/distribute-item.ts'
import { ChannelsAPI } from './management/channels.ts'
import { CommandsAPI } from './management/commands.ts'
import { ConnectionsAPI } from './management/connections.ts'
import { ConversationsAPI } from './management/conversations.ts'
import { Explain, type ChannelExplanation } from './management/explain.ts'
import { History } from './management/history.ts'
import { MessagesAPI, type MessagesAPIOptions } from './management/messages.ts'
import { PresenceAPI } from './management/presence.ts'
import { ReadinessCheck, type Readiness } from './management/readiness.ts'
import { Revisions } from './management/revisions.ts'
import { UsersAPI } from './management/users.ts'
import type { ChannelKey } from './model/channel.ts'
import type { MaybePromise } from './model/maybe-promise.ts'
import { Parts } from './parts.ts'
import { Pipeline } from './pipeline.ts'
import { Causes } from './plugins/causes.ts'
import type { Plugin, PluginsAPI } from './plugins/plugin.ts'
import { Plugins } from './plugins/plugins.ts'
import { BoundedLog, REFUSED } from './services/bounded-log.ts'
import { conversationKeys } from './services/conversation-keys.ts'
import { Counters } from './services/counters.ts'
import { startOf } from './services/deliveries.ts'
import { FactEmitter } from './services/fact-emitter.ts'
import { Patience } from './services/patience.ts'
import { ReplicatedStorage } from './services/replicated-storage.ts'
import type { StorageWrite } from './services/storage-write.ts'
import { Sweeps } from './services/sweeps.ts'
import { safeLogger, systemClock, systemRandom } from './services/system.ts'
import { effectiveReadSeq } from './services/unread.ts'
import { ThisNode } from './this-node.ts'

export interface CloseOptions {
  /** how long to wait for what is under way, in milliseconds; default 10 000 */
  readonly drainMs?: number
  /**
   * From its abort on, before or during the call, nothing is waited for but the storage, for `closeTimeoutMs` at most: what is
   * under way gets no answer, sockets are destroyed, and every adapter is still told to close
   */
  readonly signal?: AbortSignal
}

const NOT_STARTED = 'the engine is not running: start() has not been called'

/** One step of `start`; `close` is for what it opens, should that come too late. */
interface Opening {
  open(): MaybePromise<void> | undefined
  close?(): Promise<unknown>
}

type State = 'new' | 'starting' | 'running' | 'closing' | 'closed'

/**
 * An instant-messaging engine inside your own process. Give it sockets (`accept`, or the helpers of `imengine/ws` and
 * `imengine/net`) and clients of the WuKongIM family chat through it. It opens no port, handles no signal and writes no
 * output of its own; several engines in one process never meet.
 */
export class IMEngine implements SocketAcceptor, AsyncDisposable {
  readonly nodeID: number
  /** every bound in force, with the defaults filled in */
  readonly limits: Limits
  readonly channels: ChannelsAPI
  readonly messages: MessagesAPI
  readonly conversations: ConversationsAPI
  readonly connections: ConnectionsAPI
  readonly presence: PresenceAPI
  readonly users: UsersAPI
  readonly plugins: PluginsAPI

  readonly #options: IMEngineOptions
  readonly #storage: Storage
  readonly #clock: Clock
  readonly #log: BoundedLog
  readonly #counters = new Counters()
  readonly #facts: FactEmitter
  readonly #parts: Parts
  readonly #pipeline: Pipeline
  readonly #plugins: Plugins
  /** of whoever has called `close` */
  readonly #patience: Patience
  readonly #readiness: ReadinessCheck
  readonly #explain: Explain
  readonly #node: ThisNode
  readonly #sweeps: Sweeps
  #state: State = 'new'
  #started: Promise<void> | undefined
  #closed: Promise<void> | undefined
  #connectionCount = 0
  /** presence knows this node as this engine; before that, what it says of the id may be of another one that runs */
  #isKnown = false
  #adaptersClosed: Promise<void> | undefined
  /** by adapter: the call of its `close` that was made last */
  readonly #adapterEnds = new Map<string, Promise<void>>()

  /** @throws TypeError naming the option, what was expected and what came */
  constructor(options: IMEngineOptions) {
    this.limits = checkOptions(options)
    this.#options = options
    this.nodeID = options.nodeID ?? 1
    const causes = new Causes()
    this.#clock = causes.outside(options.clock ?? systemClock())
    this.#patience = new Patience(this.#clock)
    const own = options.storage ?? memoryStorage({ nowMs: () => this.#clock.nowMs() })
    const replicated: ReplicatedStorage | undefined =
      options.replicator?.operate &&
      new ReplicatedStorage({
        storage: own,
        clock: this.#clock,
        propose: (lane, operation) => this.#pipeline.operate(lane, operation),
        applying: (write) => this.#applying(write, revisions),
        ending: (write, reason) => this.#pipeline.takenBack(write, reason),
        logOf: options.replicator.logOf && ((key) => options.replicator!.logOf!(key)),
      })
    this.#storage = replicated ?? own
    this.#log = new BoundedLog(safeLogger(options.logger), this.#clock, this.limits.maxLogLinesPerSecond)
    this.#facts = new FactEmitter(this.#log, (error) => {
      this.#counters.failed(error.code)
      this.#readiness.failed(error.code)
    })
    const random = options.random ?? systemRandom()
    const parts = (this.#parts = new Parts({
      options,
      limits: this.limits,
      nodeID: this.nodeID,
      storage: this.#storage,
      replicated,
      snapshots: own,
      outbox: { outbox: this.#storage.outbox ?? memoryOutbox(), isDurable: options.storage?.outbox !== undefined },
      clock: this.#clock,
      random,
      logger: this.#log,
      facts: this.#facts,
      counters: this.#counters,
      presenceChanged: (change) => this.presence.tell(change),
    }))
    const pipeline = (this.#pipeline = new Pipeline(parts))
    const { registry, notifier } = parts
    const { presence, replicator, whenIsolated = 'close' } = options
    this.#node = new ThisNode({
      nodeID: this.nodeID,
      limits: this.limits,
      clock: this.#clock,
      logger: this.#log,
      facts: this.#facts,
      parts,
      settlePresence: (told) => pipeline.settlePresence(told),
      presence,
      whenIsolated,
    })
    this.#sweeps = new Sweeps({
      clock: this.#clock,
      messages: this.#storage.messages,
      intervalMs: this.limits.sweepIntervalMs,
      nodeID: this.nodeID,
      isReplicated: replicated !== undefined,
      report: (error) => this.#facts.report(asIMError(error, 'IM_STORE_UNAVAILABLE', { nodeID: this.nodeID })),
    })
    const { maxConnections, maxUnauthenticated, maxWebhookNotifications, maxLogLag, storageFailureMs, presenceHeartbeatMs } = this.limits
    this.#readiness = new ReadinessCheck({
      state: () => this.#state,
      isIsolated: () => this.#node.isIsolated,
      monotonicMs: () => this.#clock.monotonicMs(),
      storedCount: () => this.#counters.storedCount,
      storageFailureMs,
      queues: () => pipeline.queues,
      sockets: () => ({ count: registry.sockets.size, unauthenticatedCount: registry.unauthenticatedCount }),
      maxConnections,
      maxUnauthenticated,
      outboxCount: () => notifier?.entryCount ?? 0,
      maxOutboxCount: maxWebhookNotifications,
      log: replicator?.status && (() => replicator.status!()),
      maxLogLag,
      lastBeatMs: () => (presence === undefined ? undefined : this.#node.presenceBeatMs),
      presenceHeartbeatMs,
    })
    const { messages, cursors } = this.#storage
    const directory = parts.directory.fresh
    const keysOf = (uid: string): AsyncGenerator<readonly ChannelKey[]> =>
      conversationKeys({ uid, channels: directory, messages, pageCount: 500, limited: async (ask) => ask() })
    const { maxMembersPerCall } = this.limits
    this.#explain = new Explain({
      directory,
      messages,
      nowMs: () => this.#clock.nowMs(),
      maxMembersPerCall,
      isOnlineHere: (uid) => registry.of(uid).length > 0,
      waiting: (name) => {
        const { channel, handOver, pusher } = pipeline.queues
        return { channel: channel.countOf(name), handOver: handOver.countOf(name), pusher: pusher.countOf(name) }
      },
      recentCount: (name) => parts.recent.countOf(name),
      logOf: replicator?.logOf && ((key) => replicator.logOf!(key)),
      limited: (ask) => parts.limited(ask),
    })
    const pause = (): Promise<void> => new Promise((resolve) => this.#clock.defer(resolve))
    this.channels = new ChannelsAPI({
      directory,
      cursors,
      messages,
      clock: this.#clock,
      maxMembersPerCall,
      pause,
      changed: (key) => pipeline.channelChanged(key),
      moved: (key, uids) => uids.forEach((uid) => pipeline.moved(uid, key)),
      settled: (uid, key, seq) => parts.deliveries.acknowledge(uid, key, 1, seq),
    })
    this.users = new UsersAPI({
      directory,
      tokens: this.#storage.tokens,
      maxMembersPerCall,
      pause,
      kick: async (uid, deviceFlag, reason) => {
        const kickedCount = pipeline.sendAway(uid, deviceFlag, reason)
        await pipeline.sendAwayElsewhere(uid, deviceFlag, reason)
        return { kickedCount }
      },
      takeBack: async (write, reason) => {
        if (replicated !== undefined) return replicated.takeBack(write, reason)
        if (write.part === 'channels') await directory.setUserFlags(...write.args)
        else if (write.call === 'putToken') await this.#storage.tokens!.putToken(...write.args)
        else await this.#storage.tokens!.removeToken(...write.args)
        return pipeline.takenBack(write, reason)
      },
      kickElsewhere: (uid, deviceFlag, reason) => pipeline.sendAwayElsewhere(uid, deviceFlag, reason),
    })
    this.presence = new PresenceAPI({
      nodeID: this.nodeID,
      of: (uid) => parts.registry.of(uid),
      presence,
      limited: (ask) => parts.limited(ask, this.limits.presenceTimeoutMs),
      maxMembersPerCall,
      pause,
      report: this.#facts.report,
    })
    this.conversations = new ConversationsAPI({
      messages,
      cursors,
      channels: directory,
      keysOf,
      effectiveReadSeq,
      settled: (uid, key, seq) => parts.deliveries.acknowledge(uid, key, 1, seq),
    })
    const hasPeers = options.replicator !== undefined || options.peerPush !== undefined
    const revisions = new Revisions({
      messages,
      cursors,
      clock: this.#clock,
      facts: this.#facts,
      maxPayloadBytes: this.limits.maxPayloadBytes,
      others: replicated !== undefined ? 'log' : hasPeers ? 'unheard' : 'alone',
      tell: (key, notice, uids) => this.#attempt('IM_DIRECTORY_UNAVAILABLE', () => pipeline.tell(key, notice, uids)),
    })
    const messagesOptions: MessagesAPIOptions = {
      store: messages,
      history: new History({ messages, cursors }),
      commands: new CommandsAPI({
        messages,
        cursors,
        keysOf,
        startOf: async (uid, key) => Math.max(startOf(await cursors.cursor(uid, key)), parts.deliveries.deliveredSeq(uid, key)),
        isAcknowledged: (uid, key, messageSeq) => parts.deliveries.isAcknowledged(uid, key, messageSeq),
        acknowledge: (uid, key, first, last) => parts.deliveries.acknowledge(uid, key, first, last),
      }),
      revisions,
      channel: (key, isFresh) => parts.limited(() => (isFresh ? directory : parts.directory).channel(key)),
      ids: parts.ids,
      clock: this.#clock,
      random,
      maxPayloadBytes: this.limits.maxPayloadBytes,
      maxMembersPerCall,
      isRunning: () => this.#state === 'running',
      distribute: (channel, key, message, waiter, receivers) =>
        pipeline.distribute(channel, new DistributeItem(message, key, { connectionID: undefined, ...waiter }, receivers)),
    }
    this.messages = new MessagesAPI(messagesOptions)
    this.connections = new ConnectionsAPI({
      count: () => parts.registry.count,
      all: () => parts.registry.all(),
      of: (uid) => parts.registry.of(uid),
      byID: (connectionID) => parts.registry.byID(connectionID),
    })
    this.plugins = this.#plugins = new Plugins({
      nodeID: this.nodeID,
      limits: this.limits,
      clock: this.#clock,
      logger: this.#log,
      facts: this.#facts,
      chains: parts.chains,
      causes,
      messages: messagesOptions,
      channels: this.channels,
      connections: this.connections,
      presence: this.presence,
      conversations: this.conversations,
      users: this.users,
      limited: (ending, pluginName) => this.#limited(ending, { step: pluginName }),
    })
  }

  /** 'running' between `start` and `close`: only then sockets are served. */
  get state(): State {
    return this.#state
  }

  /**
   * Open storage and join the other nodes. Repeated calls return the same promise.
   * @throws what an adapter throws while opening, or IM_HANDLER_FAILED for `onStart` of a plugin: whatever was opened before is
   *   closed again; IM_NOT_RUNNING when `close` has come before or in between
   */
  start(): Promise<void> {
    if (this.#closed !== undefined) return Promise.reject(new IMError('IM_NOT_RUNNING', { detail: 'it has been closed' }))
    return (this.#started ??= this.#start())
  }

  /**
   * What the engine has done and what waits in it: a plain, frozen snapshot. Takes a look at every socket, so ask for it every
   * few seconds and not for every message. `imengine/metrics` gives it to Prometheus. See `docs/observability.md`.
   */
  metrics(): EngineMetrics {
    return this.#pipeline.metrics()
  }

  /**
   * Should clients come to this node, and if not, why? At once and from memory, for the load balancer's question every second.
   * A node that is not ready goes on serving whom it has. See `docs/observability.md`.
   */
  ready(): Readiness {
    return this.#readiness.check()
  }

  /**
   * What this node knows of a channel, for whoever has to find out why something did not arrive. A person channel by
   * `personChannelID`. Every question has `stepTimeoutMs`; what is not answered is undefined, and named in `failed`.
   * @throws TypeError unless `key` names a channel
   */
  explain(key: ChannelKey): Promise<ChannelExplanation> {
    return this.#explain.of(key)
  }

  /** What became of a message, if it is one of the last `tracedMessages` (by default none) that this node has accepted. */
  trace(messageID: string): MessageTrace | undefined {
    return this.#parts.traces?.of(messageID)
  }

  /** Take over one socket; see `SocketAcceptor`. A socket that comes while the engine is not running is closed. */
  accept(socket: Socket, info: AcceptInfo = {}): SocketEvents {
    const { registry } = this.#parts
    const { remoteAddress } = info
    const obstacle = this.#obstacle(remoteAddress)
    if (obstacle !== undefined) return this.#turnAway(socket, remoteAddress, obstacle)
    const connection = new Connection(socket, this.#pipeline, String(++this.#connectionCount), remoteAddress)
    registry.addSocket(connection)
    return new EventsOf(connection)
  }

  /**
   * Add a handler to an event's chain, or a plugin. A handler goes where `options` say, otherwise before the step that
   * makes the event happen (`docs/handlers.md`). Events that are under way keep the chain they started with. A plugin's
   * `setup` is called with its options.
   * @returns a function that takes the handler out again; a plugin goes by `engine.plugins.remove`
   * @throws TypeError for an unknown event or step, a name that is taken, or no name at all; what `setup` throws;
   *   IM_NOT_RUNNING for a plugin that comes after `close`
   */
  use<E extends EventName>(event: E, handler: Handler<EventContexts[E]>, options?: UseOptions): () => void
  use<O = void>(plugin: Plugin<O>, ...options: undefined extends O ? [options?: O] : [options: O]): void
  use(eventOrPlugin: EventName | Plugin<unknown>, ...rest: unknown[]): (() => void) | void {
    if (typeof eventOrPlugin !== 'string') return this.#plugins.use(eventOrPlugin, rest[0])
    return this.#parts.chains.use(eventOrPlugin, rest[0] as Handler<unknown>, rest[1] as UseOptions | undefined)
  }

  /**
   * Put a handler in the place of a step, under its name, and with its time-out and policy unless `options` say otherwise.
   * @returns a function that takes it back; of several, one on the other, in any order
   */
  replace<E extends EventName>(event: E, stepName: string, handler: Handler<EventContexts[E]>, options?: WatchOptions): () => void {
    return this.#parts.chains.replace(event, stepName, handler, options)
  }

  /** The names of an event's steps, in order. */
  steps(event: EventName): string[] {
    return this.#parts.chains.names(event)
  }

  /** Hear of a fact; see `Facts`. A listener cannot veto, and one that throws is reported as IM_LISTENER_FAILED. */
  on<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => void): this {
    this.#facts.on(name, listener)
    return this
  }

  /** As `on`, for the next time only. */
  once<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => void): this {
    this.#facts.once(name, listener)
    return this
  }

  off<K extends keyof Facts>(name: K, listener: (...args: Facts[K]) => void): this {
    this.#facts.off(name, listener)
    return this
  }

  /**
   * Close what has not logged in, take no more SENDs, let what was accepted come to its end, close every connection without a
   * word (so that SDKs reconnect elsewhere), write what is written behind, then close the adapters. Afterwards no timer and no
   * socket of this engine is left. Never rejects. Repeated calls return the same promise; the shortest `drainMs` from now on
   * counts, and every `signal`.
   * @throws TypeError for a `drainMs` that is no integer from 0 to 86 400 000, or a `signal` that is none
   */
  close(options: CloseOptions = {}): Promise<void> {
    onlyKnown('options', options, ['drainMs', 'signal'])
    const drainMs = integerBetween('drainMs', options.drainMs ?? 10_000, 0, 86_400_000)
    const { signal } = options
    if (signal !== undefined && typeof signal?.addEventListener !== 'function') badOption('signal', 'an AbortSignal', signal)
    this.#patience.heed({ drainMs, signal })
    if (this.#closed === undefined) {
      let ended = (): void => undefined
      this.#closed = new Promise((resolve) => (ended = resolve)) // first: whoever hears of what follows may call again
      void this.#close().then(ended, ended)
    }
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #start(): Promise<void> {
    this.#state = 'starting'
    const { presence, replicator, peerPush } = this.#options
    const [parts, pipeline] = [this.#parts, this.#pipeline]
    const nodeID = this.nodeID
    const openings: Opening[] = [
      { open: () => this.#storage.open?.(), close: () => this.#closeStorage() },
      { open: () => presence?.start?.({ nodeID, intervalMs: this.limits.presenceHeartbeatMs }), close: () => this.#closePresence() },
      {
        // Before anything is done in the name of this node: it is refused when another one that runs has its id.
        open: () =>
          peerPush?.start({
            nodeID,
            pushed: (request) => {
              // Nobody is connected here yet: the peer tries again, or tells that it was in vain.
              if (this.#state === 'starting') throw new IMError('IM_NOT_RUNNING', { detail: 'the engine is starting' })
              pipeline.pushed(request)
            },
            kicked: (request) => pipeline.kicked(request), // at once: no login should wait for a node that has nobody
          }),
        close: () => this.#closePeerPush(),
      },
      {
        open: () => {
          this.#isKnown = true
          return presence?.leave(nodeID) // what an earlier life of this node has left behind
        },
      },
      {
        open: () => replicator && pipeline.follow(replicator, (isIsolated) => this.#node.setIsolated(isIsolated)),
        close: () => this.#closeReplicator(),
      },
      { open: () => this.#plugins.start() },
      { open: () => parts.notifier?.start() }, // last: once it runs it uses the storage
    ]
    try {
      for (const opening of openings) if (this.state === 'starting') await this.#open(opening)
    } catch (error) {
      await this.#plugins.close()
      if (parts.notifier !== undefined) await this.#limited(parts.notifier.close())
      await this.#closeAdapters()
      if (this.state === 'starting') this.#state = 'closed'
      throw error
    }
    // `close` closes what is open; who goes on as if it ran would listen for ever.
    if (this.state !== 'starting') throw new IMError('IM_NOT_RUNNING', { detail: 'it was closed while it was starting' })
    this.#state = 'running'
    this.#node.start()
    this.#sweeps.start()
    const storage = this.#storage.description ?? 'the host’s own'
    this.#log.info({ nodeID, storage, ack: this.#options.ack ?? 'committed' }, 'engine started')
  }

  async #close(): Promise<void> {
    const before = this.#state
    const patience = this.#patience
    this.#state = 'closing'
    if (before === 'starting') {
      const hasEnded = await this.#limited(this.#started!)
      if (!hasEnded && this.#plugins.isStarting) {
        await this.#plugins.close() // then `start` comes back from one that hangs
        await this.#limited(this.#started!)
      }
    }
    const [parts, pipeline] = [this.#parts, this.#pipeline]
    const swept = this.#sweeps.stop()
    for (const connection of [...parts.registry.sockets]) {
      // Who is not in yet would be let in only to be sent away: at once their SDK finds another node the sooner.
      if (connection.isOpen || connection.closed) connection.quiesce()
      else connection.end('shutdown')
    }
    parts.notifier?.quiesce()
    await this.#drain()
    for (const connection of [...parts.registry.sockets]) connection.end('shutdown')
    await Promise.race([pipeline.allReleased(), patience.hurried()]) // each is destroyed after closeTimeoutMs
    for (const connection of [...parts.registry.sockets]) connection.destroy('shutdown')
    // EventConnClose of each. Nobody is left whom a heartbeat could show, and the last one must be over before presence is left.
    await this.#limited(Promise.all([pipeline.idle(), this.#node.stop()]))
    await this.#limited(parts.offlineReplay.idle()) // each ends with its connection
    if (parts.notifier !== undefined) await this.#limited(parts.notifier.close())
    await this.#limited(swept)
    await this.#plugins.close()
    if (before !== 'new' && before !== 'closed') await this.#closeAdapters() // also when `start` has not come back
    pipeline.abandon(new IMError('IM_ABORTED', { detail: 'the engine has closed' })) // callers that still wait for an adapter
    parts.timers.stop()
    patience.end()
    this.#log.close()
    this.#state = 'closed'
    this.#log.info({ nodeID: this.nodeID }, 'engine closed')
  }

  /** Wait for everything under way, as long as there is patience. */
  async #drain(): Promise<void> {
    const ended = await Promise.race([this.#pipeline.idle(), this.#patience.drained().then(() => 'late' as const)])
    if (ended !== 'late' || this.#pipeline.isIdle) return
    this.#facts.report(new IMError('IM_CLOSE_TIMEOUT', { detail: `${this.#pipeline.depth} events under way` }))
    this.#pipeline.abandon(new IMError('IM_ABORTED', { detail: 'the engine is closing' }))
  }

  /**
   * Wait for something that somebody else has to bring to its end, but not for ever, and `patiently` also when nobody wants to
   * wait any longer. Never rejects. @returns did it end?
   */
  async #limited(ending: Promise<unknown>, context: IMErrorContext = {}, patiently = false): Promise<boolean> {
    const { closeTimeoutMs } = this.limits
    let timer: unknown
    const late = new Promise<string>((resolve) => {
      timer = this.#clock.setTimer(closeTimeoutMs, () => resolve(`after ${closeTimeoutMs} ms`))
    })
    const ended = ending.then(() => undefined, () => undefined)
    const waits: Promise<string | undefined>[] = [ended, late]
    let calm = (): void => undefined
    // Also before anybody closes: who is in a hurry then does not wait for what a start that has failed waits for.
    if (!patiently) waits.push(new Promise((resolve) => (calm = this.#patience.whenHurried(() => resolve('the caller waits no longer')))))
    const why = await Promise.race(waits)
    this.#clock.clearTimer(timer)
    calm()
    if (why === undefined) return true
    this.#facts.report(new IMError('IM_CLOSE_TIMEOUT', { detail: why, context }))
    return false
  }

  /** What `close` has not waited for any longer, and has closed before it was open, is closed again. */
  async #open({ open, close }: Opening): Promise<void> {
    try {
      await open()
    } finally {
      if (this.#adaptersClosed !== undefined) {
        await this.#adaptersClosed
        await close?.()
      }
    }
  }

  /** Whoever calls it, `close` or a `start` that has failed: they are closed once, and the others wait for it. */
  #closeAdapters(): Promise<void> {
    return (this.#adaptersClosed ??= this.#closeAllAdapters())
  }

  async #closeAllAdapters(): Promise<void> {
    const { presence } = this.#options
    const { deliveries } = this.#parts
    deliveries.close()
    await this.#limited(deliveries.settled()) // what moves positions still, and what writes them already
    await this.#limited(deliveries.flush())
    await this.#limited(this.#attempt('IM_STORE_UNAVAILABLE', () => this.#storage.cursors.flush()))
    if (this.#isKnown) await this.#limited(this.#attempt('IM_PRESENCE_UNAVAILABLE', () => presence?.leave(this.nodeID)))
    await this.#closePresence()
    await this.#closePeerPush()
    await this.#closeReplicator()
    await this.#closeStorage()
  }

  #closePresence(): Promise<unknown> {
    return this.#closeAdapter('presence', 'IM_PRESENCE_UNAVAILABLE', () => this.#options.presence?.close?.())
  }

  #closePeerPush(): Promise<unknown> {
    return this.#closeAdapter('peerPush', 'IM_PEER_UNREACHABLE', () => this.#options.peerPush?.close())
  }

  #closeReplicator(): Promise<unknown> {
    return this.#closeAdapter('replicator', 'IM_REPLICATION_TIMEOUT', () => this.#options.replicator?.close())
  }

  /** Also in a hurry: whoever opens it next, this process or another one, must not find it locked or half written. */
  #closeStorage(): Promise<unknown> {
    return this.#closeAdapter('storage', 'IM_STORE_UNAVAILABLE', () => this.#storage.close?.(), true)
  }

  /** One call at a time: a second one is made when the first has come back, though nobody waited for it. */
  #closeAdapter(name: string, code: IMErrorCode, close: () => MaybePromise<void>, patiently = false): Promise<boolean> {
    const before = this.#adapterEnds.get(name)
    const end = before === undefined ? this.#attempt(code, close) : before.then(() => this.#attempt(code, close))
    this.#adapterEnds.set(name, end)
    return this.#limited(end, {}, patiently)
  }

  /** A write of the storage comes through the log. @returns what to do when it has been carried out */
  async #applying(write: StorageWrite, revisions: Revisions): Promise<(result: unknown) => void> {
    if (write.part === 'messages' && write.call === 'revise') {
      const [key, messageSeq, change] = write.args
      return revisions.applying(key, messageSeq, change)
    }
    return () => {
      this.#pipeline.written(write)
      if (write.part === 'cursors' && write.call === 'hide') {
        void this.#attempt('IM_STORE_UNAVAILABLE', () => revisions.hidden(...write.args))
      }
    }
  }

  async #attempt(code: IMErrorCode, action: () => MaybePromise<void>): Promise<void> {
    try {
      await action()
    } catch (error) {
      this.#facts.report(asIMError(error, code, { nodeID: this.nodeID }))
    }
  }

  /** Why no further socket can be served. */
  #obstacle(remoteAddress: string | undefined): string | undefined {
    const { registry } = this.#parts
    const { maxConnections, maxUnauthenticated, maxConnectionsPerAddress } = this.limits
    if (this.#state === 'new') return NOT_STARTED
    if (this.#state !== 'running') return 'the engine is not running'
    if (this.#node.keepsClientsAway) return 'this node has lost the others'
    if (registry.sockets.size >= maxConnections) return 'too many connections'
    if (registry.unauthenticatedCount >= maxUnauthenticated) {
      this.#counters.unauthenticatedRejectedCount++
      return 'too many connections that have not logged in'
    }
    if (remoteAddress === undefined || maxConnectionsPerAddress === 0) return undefined
    return registry.socketCountOf(remoteAddress) >= maxConnectionsPerAddress ? 'too many connections of this address' : undefined
  }

  #turnAway(socket: Socket, remoteAddress: string | undefined, detail: string): SocketEvents {
    try {
      // A message transport can say that it may be tried again; a byte stream can only end, at once, because a peer that
      // does not end its half would otherwise hold the socket without being counted.
      if (socket.framing !== 'message' && socket.destroy !== undefined) socket.destroy()
      else socket.close(1013, 'try again later')
    } catch {
      // It is gone already.
    }
    const refused = { connectionID: '', remoteAddress, uid: '', cause: 'limit', reasonCode: undefined, detail } as const
    this.#counters.refused.add('limit', detail)
    if (detail === NOT_STARTED) this.#log.warn(refused, REFUSED) // forgotten, as a rule
    else this.#log.info(refused, REFUSED)
    this.#facts.emit('connectionRefused', refused)
    return IGNORES_EVERYTHING
  }
}

/** Methods and not closures: three of those are an eighth of what an idle connection weighs. */
class EventsOf implements SocketEvents {
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  receive(chunk: Uint8Array): void {
    this.#connection.receive(chunk)
  }

  drained(): void {
    this.#connection.drained()
  }

  closed(): void {
    this.#connection.closedByPeer()
  }
}

const IGNORES_EVERYTHING: SocketEvents = Object.freeze({
  receive: () => undefined,
  drained: () => undefined,
  closed: () => undefined,
})
