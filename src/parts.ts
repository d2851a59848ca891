import type { IMEngineOptions, Limits } from './config.ts'
import { ConnectionRegistry } from './connection/connection-registry.ts'
import { LoginContests } from './connection/login-contests.ts'
import { Logins } from './connection/logins.ts'
import { UserSendRates } from './connection/user-send-rates.ts'
import type { Clock } from './contracts/clock.ts'
import type { Diagnostics } from './contracts/diagnostics.ts'
import type { PresenceChange } from './contracts/facts.ts'
import type { Logger } from './contracts/logger.ts'
import type { Outbox } from './contracts/outbox.ts'
import type { Random } from './contracts/random.ts'
import type { Storage } from './contracts/storage.ts'
import { IMError } from './errors.ts'
import { ChainRegistry } from './events/chain-registry.ts'
import { builtInChains } from './handlers/chains.ts'
import { keepsConversations } from './model/channel.ts'
import type { MaybePromise } from './model/maybe-promise.ts'
import type { Message } from './model/message.ts'
import { CachedDirectory } from './services/cached-directory.ts'
import type { Counters } from './services/counters.ts'
import { RecentMessages } from './services/dedup.ts'
import { Deliveries } from './services/deliveries.ts'
import { diagnosticsOf } from './services/diagnostics.ts'
import type { FactEmitter } from './services/fact-emitter.ts'
import { snowflake } from './services/message-id.ts'
import { OfflineReplay } from './services/offline-replay.ts'
import { OnlineUsers } from './services/online-users.ts'
import { PeerPushes } from './services/peer-pushes.ts'
import { Receivers } from './services/receivers.ts'
import type { ReplicatedStorage } from './services/replicated-storage.ts'
import { RecentRevisions } from './services/recent-revisions.ts'
import { Subscribers } from './services/subscribers.ts'
import { inTime, Waits } from './services/time-limit.ts'
import { TimerWheel } from './services/timer-wheel.ts'
import { Traces } from './services/traces.ts'
import { WebhookNotifier } from './services/webhook-notifier.ts'

export interface PartsOptions {
  readonly options: IMEngineOptions
  readonly limits: Limits
  readonly nodeID: number
  readonly storage: Storage
  /** the same storage, when its writes go through the log */
  readonly replicated: ReplicatedStorage | undefined
  /** this node's own, of which other nodes may want a copy */
  readonly snapshots: Pick<Storage, 'snapshot' | 'restore'>
  /** where notifications wait, and whether they are still there after this engine's end */
  readonly outbox: { readonly outbox: Outbox; readonly isDurable: boolean }
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly facts: FactEmitter
  readonly counters: Counters
  /** must not throw */
  readonly presenceChanged: (change: PresenceChange) => void
}

/** With payloads of the usual bound a page is about half of what may wait for a client to read. */
const REPLAY_PAGE_COUNT = 50

/**
 * What the events of one engine have in common: caches, positions, who is connected, the chains, and what waits for the webhook and
 * for other nodes. None of it knows where an event goes next.
 */
export class Parts {
  /** what it was made of */
  readonly given: PartsOptions
  readonly clock: Clock
  readonly limits: Limits
  readonly timers: TimerWheel
  readonly registry = new ConnectionRegistry()
  readonly diagnostics: Diagnostics
  /** undefined: nobody wants to know what became of single messages */
  readonly traces: Traces | undefined
  readonly recent: RecentMessages
  /** aborted when the engine will wait no longer */
  readonly waits = new Waits()
  readonly chains: ChainRegistry
  readonly directory: CachedDirectory
  readonly subscribers: Subscribers
  readonly receivers: Receivers
  readonly ids: ReturnType<typeof snowflake>
  readonly deliveries: Deliveries
  readonly revisions = new RecentRevisions()
  readonly offlineReplay: OfflineReplay
  /** is there a replay at all? */
  readonly replays: boolean
  readonly online: OnlineUsers
  readonly logins: Logins
  /** undefined: users may send as much as their connections may */
  readonly userSendRates: UserSendRates | undefined
  /** undefined on a node that hands nothing to others */
  readonly peers: PeerPushes | undefined
  readonly contests: LoginContests | undefined
  readonly notifier: WebhookNotifier | undefined

  constructor(given: PartsOptions) {
    this.given = given
    const { options, limits, nodeID, storage, replicated, outbox, clock, random, logger, facts, counters, presenceChanged } = given
    const { report } = facts
    const { replicator, peerPush, webhook } = options
    this.diagnostics = diagnosticsOf(nodeID)
    this.traces = limits.tracedMessages > 0 ? new Traces(limits.tracedMessages, clock) : undefined
    this.recent = new RecentMessages({ maxCount: limits.maxRecentMessages, maxBytes: limits.maxRecentBytes })
    this.clock = clock
    this.limits = limits
    this.timers = new TimerWheel(clock, limits.timerTickMs)
    this.ids = snowflake(nodeID, clock)
    this.chains = new ChainRegistry(builtInChains(limits), limits.stepTimeoutMs, { every: limits.stepTimesEvery, clock })
    this.directory = new CachedDirectory({
      directory: storage.channels,
      clock,
      cacheMs: limits.permissionCacheMs,
      maxCount: limits.maxCachedPermissions,
      systemUIDs: new Set(options.systemUIDs),
    })
    this.subscribers = new Subscribers({
      directory: storage.channels,
      clock,
      pageCount: limits.subscriberPageCount,
      maxCachedMembers: limits.maxCachedMembers,
      maxCachedChannels: limits.maxCachedChannels,
      cacheMs: limits.subscriberCacheMs,
      limited: (page) => this.#membersInTime(page),
    })
    this.receivers = new Receivers({ members: (key, take) => this.subscribers.each(key, take) })
    this.deliveries = new Deliveries({
      cursors: storage.cursors,
      timers: this.timers,
      flushMs: limits.cursorFlushMs,
      maxCount: limits.maxTrackedDeliveries,
      report,
    })
    this.offlineReplay = new OfflineReplay({
      ...storage,
      deliveries: this.deliveries,
      maxPerChannel: limits.maxReplayPerChannel,
      maxInAll: Math.min(limits.maxReplay, limits.maxUnackedRecvs), // what a connection cannot keep track of is not sent
      pageCount: REPLAY_PAGE_COUNT,
      maxConcurrent: limits.maxConcurrentReplays,
      limited: (ask) => this.limited(ask),
      current: (message) => this.revisions.current(message),
      pause: (delayMs) => new Promise((resolve) => this.timers.after(delayMs, resolve)),
      report,
    })
    const sharesPositions = replicator === undefined || replicated !== undefined
    this.replays = (options.offline ?? (sharesPositions ? 'push' : 'none')) === 'push'
    this.online = new OnlineUsers({
      of: (uid) => this.registry.of(uid),
      tell: (change) => {
        facts.emit('presenceChanged', change)
        presenceChanged(change)
      },
    })
    this.logins = new Logins({
      registry: this.registry,
      kickPolicy: options.kickPolicy,
      maxConnectionsPerUID: limits.maxConnectionsPerUID,
      went: (uid) => this.online.went(uid),
    })
    const { maxSendsPerSecondPerUID } = limits
    this.userSendRates = maxSendsPerSecondPerUID > 0 ? new UserSendRates(maxSendsPerSecondPerUID, clock.monotonicMs()) : undefined
    this.peers =
      peerPush &&
      new PeerPushes({
        peerPush,
        timers: this.timers,
        timeoutMs: limits.peerPushTimeoutMs,
        kickTimeoutMs: limits.peerKickTimeoutMs,
        maxCount: limits.maxPeerPushes,
        waits: this.waits,
        facts,
        counts: counters,
        report,
      })
    this.contests =
      this.peers &&
      new LoginContests({
        nodeID,
        verdict: (login, existing) => this.logins.verdict(login, existing),
        askPeers: (login) => this.peers!.kick(login),
      })
    this.notifier =
      webhook &&
      new WebhookNotifier({
        ...outbox,
        webhook,
        messages: storage.messages,
        timers: this.timers,
        clock,
        random,
        logger,
        facts,
        counts: counters,
        timeoutMs: limits.webhookTimeoutMs,
        batchCount: limits.webhookBatchCount,
        batchMs: limits.webhookBatchMs,
        retryMs: limits.webhookRetryMs,
        retryForMs: limits.webhookRetryForMs,
        maxCount: limits.maxWebhookNotifications,
        limited: (ask) => this.limited(ask),
        waits: this.waits,
        report,
      })
  }

  /** `uid` has nothing more to get of the message. */
  readonly delivered = (uid: string, message: Message): void => {
    if (message.messageSeq > 0 && keepsConversations(message.channelType)) this.deliveries.acknowledge(uid, message, message.messageSeq)
  }

  /** Ask an adapter outside of any chain, for as long as a step would wait. */
  limited<T>(ask: () => MaybePromise<T>, timeoutMs: number = this.limits.stepTimeoutMs): Promise<T> {
    return inTime({ timers: this.timers, timeoutMs, waits: this.waits }, ask)
  }

  /** The same for an answer that is on its way. At the end of the engine nobody may wait for it, and it may be a rejection. */
  inTime<T>(answer: Promise<T>, timeoutMs?: number): Promise<T> {
    answer.then(undefined, () => undefined)
    return this.limited(() => answer, timeoutMs)
  }

  async #membersInTime<T>(page: Promise<T>): Promise<T> {
    try {
      return await this.inTime(page)
    } catch (reason) {
      const isLate = reason instanceof IMError && reason.code === 'IM_ABORTED'
      if (!isLate || this.waits.isAborted) throw reason
      throw new IMError('IM_DIRECTORY_UNAVAILABLE', { cause: reason, detail: `${this.limits.stepTimeoutMs} ms` })
    }
  }
}
