import { AppliedLog } from './applied-log.ts'
import type { Limits } from './config.ts'
import type { Connection, ConnectionHost } from './connection/connection.ts'
import type { Clock, Timers } from './contracts/clock.ts'
import type { CloseCause, EventName } from './contracts/handler.ts'
import type { PeerKickRequest, PeerPushRequest } from './contracts/peer-push.ts'
import type { EngineMetrics } from './contracts/metrics.ts'
import type { Presence, PresenceEntry } from './contracts/presence.ts'
import type { Replicator } from './contracts/replicator.ts'
import type { UserWrite } from './contracts/user-write.ts'
import { asIMError, IMError } from './errors.ts'
import { ChannelPool } from './events/channel-pool.ts'
import { HandOverPool } from './events/hand-over-pool.ts'
import { PusherPool } from './events/pusher-pool.ts'
import { ChainRunner, type ChainResult, type Runnable } from './events/run-chain.ts'
import { Turn } from './events/turn.ts'
import { runInOrder, UserPool, type QueueGauge } from './events/user-pool.ts'
import type { DistributeItem } from './handlers/channel/distribute-item.ts'
import { DistributeEvent, type DistributeServices } from './handlers/channel/distribute.ts'
import { PushOnlineEvent, type PushOnlineServices, type PushSource } from './handlers/pusher/push-online.ts'
import { NoticeEvent, type NoticeServices } from './handlers/pusher/notice.ts'
import { ConnCloseEvent } from './handlers/user/conn-close.ts'
import { ConnectEvent, type ConnectServices } from './handlers/user/connect.ts'
import { receiveSend, type OnSendServices, type SendEvent } from './handlers/user/on-send.ts'
import { PingEvent } from './handlers/user/ping.ts'
import { RecvAckEvent, type RecvAckServices } from './handlers/user/recv-ack.ts'
import { sendPolicy } from './handlers/send-policy.ts'
import { channelKeyOf, channelKeyString, keepsConversations, type ChannelKey } from './model/channel.ts'
import type { ConnectPacket, SendPacket } from './model/frames.ts'
import { isPromise, type MaybePromise } from './model/maybe-promise.ts'
import type { Message } from './model/message.ts'
import type { Notice } from './model/notice.ts'
import type { Reach } from './model/reach.ts'
import { ReasonCode, reasonName } from './model/reason-code.ts'
import type { Parts } from './parts.ts'
import { DecoderScratch } from './protocol/frame-decoder.ts'
import { sealModuleFor } from './protocol/payload-crypto.ts'
import { Writer } from './protocol/writer.ts'
import { REFUSED } from './services/bounded-log.ts'
import type { Counters } from './services/counters.ts'
import { Metrics } from './services/metrics.ts'
import type { StorageWrite } from './services/storage-write.ts'
import { Waits, withTimeLimit } from './services/time-limit.ts'

type UserEvent = ConnectEvent | SendEvent | RecvAckEvent | PingEvent | ConnCloseEvent

/** Any event on its way: a chain to run, and what to do with how it ended. */
interface PipelineEvent extends Runnable {
  readonly event: EventName
  finish(result: ChainResult): void
  release(): void
}

const SMALL_EVENT_BYTES = 256
const HAND_OVER_BYTES = 512

/** Pages of one channel that wait to be pushed: from `high` on the next one is read when no more than `low` are left. */
const WAITING_PAGES = { high: 8, low: 4 }

/**
 * The way of everything through one engine: frames of connections become events, events wait in the three pools, run
 * through their chains, and lead to later events and to frames. Nothing here decides; handlers and connections do.
 */
export class Pipeline implements ConnectionHost {
  readonly clock: Clock
  readonly limits: Limits
  readonly timers: Timers
  readonly slowConsumer: 'disconnect' | 'skip'
  readonly writer = new Writer(0)
  readonly scratch = new DecoderScratch()
  readonly counts: Counters
  readonly queues: Readonly<Record<'user' | 'sign' | 'channel' | 'handOver' | 'pusher', QueueGauge>>

  readonly #parts: Parts
  readonly #runner: ChainRunner
  readonly #turn: Turn
  readonly #metrics: Metrics
  readonly #users: UserPool<UserEvent>
  readonly #channels: ChannelPool<DistributeItem>
  /** what the replicator has answered when a channel's messages were to be taken, with a limit: mostly the same for many channels */
  readonly #gatherings = new WeakMap<Promise<void>, Promise<void>>()
  readonly #pushers: PusherPool<PushOnlineEvent | NoticeEvent>
  readonly #handOvers: HandOverPool<PushSource>
  readonly #appliedLog: AppliedLog
  readonly #noticeServices: NoticeServices
  readonly #connectServices: ConnectServices
  readonly #sendServices: OnSendServices
  readonly #recvAckServices: RecvAckServices
  readonly #distributeServices: DistributeServices
  readonly #pushServices: PushOnlineServices
  /** CONNECTs under way, so that a client that leaves ends its own authentication */
  readonly #connecting = new Map<Connection, ConnectEvent>()
  /** by channel: what of this node is being agreed upon */
  readonly #proposed = new Map<string, readonly DistributeItem[]>()
  /** connections that have gone and that presence has not been told of */
  readonly #owedToPresence = new Map<string, PresenceEntry>()
  /** writes that begin when nothing else is waited for any more */
  readonly #lastWrites = new Waits()
  #unflushed: Connection[] = []
  #releasedWaiters: (() => void)[] = []

  constructor(parts: Parts) {
    this.#parts = parts
    const { clock, limits, waits, registry, directory, diagnostics, revisions, peers, contests, notifier, delivered } = parts
    const { options, nodeID, storage, replicated, snapshots, outbox, random, logger, facts, counters } = parts.given
    const { report } = facts
    const { presence, replicator, webhook } = options
    this.clock = clock
    this.limits = limits
    this.timers = parts.timers
    this.slowConsumer = options.slowConsumer ?? 'disconnect'
    this.counts = counters
    this.#runner = new ChainRunner({ timers: this.timers, report })
    this.#turn = new Turn(clock, [
      () => this.#users.drain(),
      () => this.#channels.drain(),
      () => this.#handOvers.drain(),
      () => this.#pushers.drain(),
      () => this.#flush(),
    ])

    const pool = {
      schedule: this.#turn.request,
      report: this.#defect,
      maxEvents: limits.maxQueued,
      maxBytes: limits.maxQueuedBytes,
      maxBytesPerKey: limits.maxQueuedBytesPerKey,
      maxBatchCount: limits.maxBatchCount,
      time: this.#turn,
    }
    this.#users = new UserPool({
      ...pool,
      maxEventsPerKey: limits.maxQueuedPerUser,
      run: (event) => this.#run(event),
      bytesOf: (event) => (event.event === 'EventOnSend' ? event.queueBytes : SMALL_EVENT_BYTES),
    })
    this.#channels = new ChannelPool({
      ...pool,
      maxEventsPerKey: limits.maxQueuedPerChannel,
      run: (channel, items) => this.#runDistribute(channel, items),
      gather: replicator?.gather && ((_channel, waiting) => this.#gather(replicator, waiting)),
      bytesOf: (item) => item.queueBytes,
    })
    this.#pushers = new PusherPool({
      ...pool,
      maxEventsPerKey: limits.maxQueuedPerChannel,
      run: (event) => (event instanceof NoticeEvent ? event.write() : this.#run(event)),
      bytesOf: (event) => event.queueBytes,
    })
    this.#handOvers = new HandOverPool({
      ...pool,
      maxEventsPerKey: limits.maxQueuedPerChannel,
      deliver: (channel, { sources, receivers, reach }) => {
        const key = channelKeyOf(channel)
        const take = (uids: readonly string[]): MaybePromise<undefined> => {
          this.#push(channel, key, sources, uids, reach)
          return this.#pushers.room(channel, WAITING_PAGES)
        }
        return receivers === undefined ? parts.receivers.each(key, take) : parts.subscribers.eachOf(receivers, take)
      },
    })
    this.#connectServices = {
      sealModule: sealModuleFor(options.payloadCrypto ?? 'auto', () => {
        logger.warn({}, 'WebAssembly with SIMD is not to be had here: payloads are encrypted by node:crypto, which is slower')
      }),
      verifyToken: options.tokenVerifier,
      // Not from memory: whoever was just banned on another node comes back before that forgets, and nobody would ask about them again.
      channels: directory.fresh,
      presence,
      kickOnPeers: contests && ((contender) => contests.ask(contender)),
      nodeID,
      plaintext: options.plaintext ?? 'refuse',
      clock,
      random,
      waits,
      report,
      owe: (entry) => this.#owedToPresence.set(entry.connectionID, entry),
      makeRoom: (conn, login) => parts.logins.makeRoom(conn as Connection, login),
      opened: (conn) => this.#opened(conn as Connection),
      offlineMessageCount: (uid) => parts.offlineReplay.missedCount(uid),
    }
    this.#noticeServices = { connectionsOf: (uid) => registry.of(uid), delivered }
    this.#recvAckServices = { waits, report, delivered }
    this.#sendServices = {
      channels: directory,
      authorizeSend: options.authorizeSend ?? sendPolicy(),
      isOwnPolicy: options.authorizeSend === undefined,
      webhook,
      ids: parts.ids,
      clock,
      facts,
      counts: counters,
      diagnostics,
      ack: options.ack ?? 'committed',
      plaintext: options.plaintext ?? 'refuse',
      maxPayloadBytes: limits.maxPayloadBytes,
      waits,
      report,
      userTurnsAway: (uid, bytes) => this.#users.turnsAway(uid, bytes),
      onceUserRelieved: (uid, relieved) => this.#users.onceRelieved(uid, relieved),
      submit: (uid, event) => this.#users.submitSend(uid, event),
      distribute: (channel, item) => this.distribute(channel, item),
      onceChannelRelieved: (channel, relieved) =>
        this.#channels.onceRelieved(channel, () =>
          this.#handOvers.onceRelieved(channel, () => this.#pushers.onceRelieved(channel, relieved)),
        ),
    }
    this.#distributeServices = {
      store: storage.messages,
      replicator,
      recent: parts.recent,
      facts,
      counts: counters,
      diagnostics,
      nowMs: () => clock.nowMs(),
      waits,
      report,
      proposed: this.#proposed,
      delivered,
      announce:
        notifier?.wants('msg.notify') === true && replicator === undefined
          ? (channel, messageIDs) => notifier.announce(channel, messageIDs)
          : undefined,
      announcesFirst: outbox.outbox.precedes === storage.messages,
      handOver: (channel, key, sources, receivers) => this.#handOver(channel, key, sources, receivers, 'all'),
    }
    this.#pushServices = {
      connectionsOf: (uid) => registry.of(uid),
      locate: presence && ((uids) => this.#locate(presence, uids)),
      devices: presence && ((uid) => parts.limited(() => presence.devices(uid), limits.presenceTimeoutMs)),
      isOffline: options.isOffline,
      current: (message) => revisions.current(message),
      delivered,
      notifyOffline:
        notifier?.wants('msg.offline') === true ? (message, uids) => notifier.tell({ event: 'msg.offline', message, uids }) : undefined,
      nodeID,
      facts,
      counts: counters,
      diagnostics,
      nowMs: () => clock.nowMs(),
      waits,
      report,
      pushToPeer: (peerID, key, messages, uids) => {
        if (peers !== undefined) return peers.add(peerID, { key, messages, uids })
        counters.undeliveredCount += messages.length
        facts.emit('undelivered', { key, messages, nodeID: peerID, uid: undefined })
      },
    }
    this.#appliedLog = new AppliedLog({
      nodeID,
      store: this.#distributeServices.store,
      snapshots,
      replicated,
      handOvers: this.#handOvers,
      pushers: this.#pushers,
      notifier,
      facts,
      counts: counters,
      proposed: this.#proposed,
      isHere: (uid) => registry.of(uid).length > 0,
      handOver: (channel, key, sources, reach) => this.#handOver(channel, key, sources, undefined, reach),
    })
    this.queues = {
      user: this.#users.requests,
      sign: this.#users.signs,
      channel: this.#channels.gauge,
      handOver: this.#handOvers.gauge,
      pusher: this.#pushers.gauge,
    }
    this.#metrics = new Metrics({
      nodeID,
      clock,
      counters,
      limits,
      events: this.queues,
      connections: () => registry.sockets,
      unauthenticated: () => ({ count: registry.unauthenticatedCount, oldest: registry.oldestUnauthenticated }),
      replays: parts.offlineReplay,
      peers,
      notifier,
      steps: () => parts.chains.latencies(),
    })
  }

  metrics(): EngineMetrics {
    return this.#metrics.snapshot()
  }

  /**
   * A message has been edited or recalled, or one user has deleted it: tell the connections of `uids`, or of all members,
   * and let nothing that is on its way show what it was.
   */
  async tell(key: ChannelKey, notice: Notice, uids?: readonly string[]): Promise<void> {
    const { type, message } = notice
    if (type !== 'message.deleted') this.#parts.revisions.add(message)
    const channel = channelKeyString(key)
    // Behind the message it is about, which may still be on its way to the pushers.
    const submit = (page: readonly string[]): undefined =>
      void this.#handOvers.behind(channel, () => this.#pushers.submit(channel, new NoticeEvent(notice, page, this.#noticeServices)))
    if (uids === undefined) await this.#parts.limited(() => this.#parts.receivers.each(key, submit))
    else submit(uids)
  }

  /** The host has changed a channel in the directory by itself. */
  channelChanged(key: ChannelKey): void {
    this.#parts.directory.forgetChannel(key)
    this.#parts.subscribers.forget(key)
  }

  /** A user has joined the channel or left it: where they stood says nothing any more. */
  moved(uid: string, key: ChannelKey): void {
    this.#parts.deliveries.forget(uid, key)
    this.#parts.offlineReplay.moved(uid, key)
  }

  /** Events that wait or run. */
  get depth(): number {
    return this.#users.depth + this.#channels.depth + this.#handOvers.depth + this.#pushers.depth
  }

  /** EventChannelDistribute. @returns false when the channel, or what it pushes, is at its bound */
  distribute(channel: string, item: DistributeItem): boolean {
    if (this.#pushers.turnsAway(channel) || this.#handOvers.turnsAway(channel) || !this.#channels.submit(channel, item)) return false
    if (this.#parts.traces !== undefined) item.trace = this.#parts.traces.begin(item.message, item.key, item.connectionID)
    return true
  }

  /** Another node hands over messages for users who are connected here. */
  pushed({ key, messages, uids }: PeerPushRequest): void {
    if (this.#pushers.turnsAway(channelKeyString(key))) throw new IMError('IM_QUEUE_FULL', { context: key }) // the peer tries again
    this.counts.peerReceivedCount += messages.length
    const sources = messages.map((message): PushSource => ({ message, connectionID: undefined }))
    this.#push(channelKeyString(key), key, sources, uids, 'here')
  }

  /** A login on another node: its kick rules hold here, too. Or somebody was sent away there. */
  kicked(request: PeerKickRequest): MaybePromise<void> {
    const { uid, deviceFlag, out, agoMs } = request
    const beforeMs = agoMs === undefined ? Infinity : this.clock.nowMs() - agoMs
    if (out === undefined) {
      this.#parts.logins.endOthers(request, beforeMs)
      return agoMs === undefined ? this.#parts.contests?.met(request) : undefined
    }
    this.sendAway(uid, out.allDevices ? undefined : deviceFlag, out.reason, beforeMs)
  }

  /** End the connections of a user, or of one kind of device, on this node, that came before `beforeMs`. @returns how many there were */
  sendAway(uid: string, deviceFlag: number | undefined, reason: string, beforeMs = Infinity): number {
    const isMeant = (connection: Connection): boolean =>
      (deviceFlag === undefined || connection.deviceFlag === deviceFlag) && connection.connectedAtMs < beforeMs
    // Who is being let in at this moment was judged by what holds no more, and is judged anew when they come back.
    for (const connection of this.connecting(uid)) if (isMeant(connection)) connection.end('handler')
    const meant = this.#parts.registry.of(uid).filter(isMeant)
    for (const connection of meant) connection.kick('kick', reason)
    return meant.length
  }

  /** What let a user in here holds no more, for one kind of device when it was a token. @returns how many connections that ended */
  takenBack(write: UserWrite, reason: string): number {
    let deviceFlag: number | undefined
    if (write.call === 'putToken') deviceFlag = write.args[1].deviceFlag
    else if (write.call === 'removeToken') deviceFlag = write.args[1]
    return this.sendAway(write.args[0], deviceFlag, reason)
  }

  /** `sendAway` on all other nodes, as far as they can be reached in time. Never rejects. */
  async sendAwayElsewhere(uid: string, deviceFlag: number | undefined, reason: string): Promise<void> {
    const out = { allDevices: deviceFlag === undefined, reason }
    await this.#parts.peers?.kick({ uid, deviceFlag: deviceFlag ?? 0, deviceID: '', deviceLevel: 0, out })
  }

  /** Join the log of all nodes. @param isolated  is told when this node loses the others, and has them again */
  follow(replicator: Replicator, isolated: (isIsolated: boolean) => void): Promise<void> {
    return this.#appliedLog.start(replicator, isolated)
  }

  /**
   * Propose a write of the storage. @returns what this node's storage has answered
   * @throws IM_REPLICATION_TIMEOUT  not carried out here in time; its fate may be unknown
   */
  async operate(lane: string, operation: Uint8Array): Promise<unknown> {
    // At the end, when nothing else is waited for, positions are still to be written: then the replicator's close is the limit.
    const waits = this.#parts.waits.isAborted ? this.#lastWrites : this.#parts.waits
    const limit = { timers: this.timers, timeoutMs: this.limits.replicateTimeoutMs, waits }
    try {
      return await withTimeLimit(limit, (signal) => this.#parts.given.options.replicator!.operate!(lane, operation, signal))
    } catch (reason) {
      if (!isFailureOf(reason, 'IM_ABORTED') || this.#parts.waits.isAborted) throw reason
      throw new IMError('IM_REPLICATION_TIMEOUT', { cause: reason })
    }
  }

  /** A write of the storage has come through the log and been carried out here: nothing that is remembered may say otherwise. */
  written(write: StorageWrite): void {
    if (write.part === 'channels') {
      if (write.call === 'setUserFlags') this.#parts.directory.forgetUser(write.args[0])
      else this.channelChanged(write.args[0])
      // Now, and not when the positions are gone, which is another entry of the log: messages may come in between.
      if (write.call === 'removeMembers') for (const uid of write.args[1]) this.moved(uid, write.args[0])
    } else if (write.part === 'cursors' && write.call === 'remove') {
      const [key, uids] = write.args
      for (const uid of uids) this.moved(uid, key)
    } else if (write.part === 'cursors' && write.call === 'put') {
      for (const { uid, key, joinSeq = 0, deletedToSeq = 0 } of write.args[0]) {
        const startSeq = Math.max(joinSeq - 1, deletedToSeq)
        if (startSeq > 0) this.#parts.deliveries.acknowledge(uid, key, 1, startSeq)
      }
    }
  }

  get isIdle(): boolean {
    return this.depth === 0 && this.#parts.peers?.isIdle !== false && this.#parts.notifier?.isIdle !== false
  }

  /** Nobody waits any longer: what was accepted and has not come to its end is abandoned. */
  abandon(reason: IMError): void {
    this.#runner.stop(reason)
    if (this.#parts.waits.isAborted) this.#lastWrites.abort(reason) // the adapters are closed by now
    this.#parts.waits.abort(reason)
    this.#parts.notifier?.quiesce()
  }

  /** Resolves when no event waits or runs and nothing is on its way to the webhook or to other nodes. */
  async idle(): Promise<void> {
    do {
      await this.#users.idle()
      await this.#channels.idle()
      await this.#handOvers.idle()
      await this.#pushers.idle()
      await this.#parts.peers?.idle()
      await this.#parts.notifier?.idle()
    } while (this.depth > 0)
  }

  /** Resolves when every socket is gone. */
  allReleased(): Promise<void> {
    if (this.#parts.registry.sockets.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#releasedWaiters.push(resolve))
  }

  // ---- ConnectionHost

  connectArrived(connection: Connection, frame: ConnectPacket): void {
    const event = new ConnectEvent(connection, frame, this.#connectServices)
    const reasonCode = event.unacceptable
    if (reasonCode !== undefined) return connection.refuse(reasonCode, event.connack(reasonCode))
    this.#connecting.set(connection, event)
    if (!this.#users.submitConnect(connection.connectionID, event)) {
      connection.refuse(ReasonCode.RateLimit, event.connack(ReasonCode.RateLimit), 'limit')
    }
  }

  current(message: Message): Message {
    return this.#parts.revisions.current(message)
  }

  connectTimedOut(connection: Connection): void {
    const event = this.#connecting.get(connection)
    if (event === undefined) return connection.destroy('auth-timeout')
    connection.refuse(ReasonCode.SystemError, event.connack(ReasonCode.SystemError), 'auth-timeout')
  }

  sendArrived(connection: Connection, frame: SendPacket): void {
    receiveSend(connection, frame, this.#sendServices)
  }

  takeUserSendToken(uid: string): boolean {
    return this.#parts.userSendRates === undefined || this.#parts.userSendRates.take(uid, this.clock.monotonicMs())
  }

  get settlesRecvAcks(): boolean {
    return this.#parts.chains.isAsShipped('EventRecvAck')
  }

  acknowledged(connection: Connection, message: Message): void {
    this.#parts.traces?.acknowledged(message.messageID)
    if (message.messageSeq > 0 && keepsConversations(message.channelType)) {
      this.#parts.deliveries.acknowledge(connection.uid, message, message.messageSeq, message.messageSeq, connection)
    }
  }

  recvAckArrived(connection: Connection, message: Message, isFirst: boolean): void {
    if (isFirst) this.#parts.traces?.acknowledged(message.messageID)
    // At the bound the acknowledgement is lost, and the message is sent once more.
    if (this.#users.turnsSignAway(connection.connectionID)) return
    this.#users.submitSign(connection.connectionID, new RecvAckEvent(connection, message, this.#recvAckServices))
  }

  pingArrived(connection: Connection): void {
    // At the bound there is no PONG: a client with that many PINGs under way is not waiting for it.
    if (this.#users.turnsSignAway(connection.connectionID)) return
    this.#users.submitSign(connection.connectionID, new PingEvent(connection, this.#sendServices))
  }

  flushWanted(connection: Connection): void {
    this.#unflushed.push(connection)
    this.#turn.request()
  }

  left(connection: Connection, cause: CloseCause): void {
    this.#parts.registry.unregister(connection)
    this.counts.ended(cause)
    this.#users.submitClose(connection.connectionID, new ConnCloseEvent(connection, cause, this.#connectServices))
    this.#parts.given.facts.emit('disconnected', { ...connection.info, cause })
    this.#notifyOnline(connection, false)
    this.#parts.logins.left(connection)
  }

  refused(connection: Connection, cause: CloseCause, reasonCode: ReasonCode | undefined, detail: string | undefined): void {
    this.#connecting.get(connection)?.abort(true)
    this.#connecting.delete(connection)
    const { connectionID, remoteAddress, uid } = connection
    const reason = reasonCode === undefined ? detail : reasonName(reasonCode)
    this.counts.refused.add(cause, reason ?? '')
    if (this.#parts.diagnostics.connect.hasSubscribers) this.#tellConnect(connection, 'refused', cause, reason)
    this.#parts.given.logger.info({ connectionID, remoteAddress, uid, cause, reasonCode, detail }, REFUSED)
    this.#parts.given.facts.emit('connectionRefused', { connectionID, remoteAddress, uid, cause, reasonCode, detail })
  }

  released(connection: Connection): void {
    this.#parts.registry.removeSocket(connection)
    if (this.#parts.registry.sockets.size > 0) return
    for (const resolve of this.#releasedWaiters.splice(0)) resolve()
  }

  slow(connection: Connection, action: 'disconnected' | 'skipped'): void {
    if (action === 'skipped') this.counts.slowSkippedCount++
    else this.counts.slowDisconnectedCount++
    this.#parts.given.facts.emit('slowConsumer', { connection: connection.info, action })
  }

  undelivered(connection: Connection, messages: readonly Message[]): void {
    this.counts.undeliveredCount += messages.length
    for (const message of messages) {
      const key = { channelID: message.channelID, channelType: message.channelType }
      this.#parts.given.facts.emit('undelivered', { key, messages: [message], nodeID: undefined, uid: connection.uid })
    }
  }

  defect(connection: Connection, error: unknown): void {
    this.#parts.given.facts.report(asIMError(error, 'IM_HANDLER_FAILED', { connectionID: connection.connectionID, uid: connection.uid }))
  }

  // ---- inside

  /** Tell presence of connections that have gone, as far as it could not be told before. */
  async settlePresence(presence: Presence): Promise<void> {
    for (const [connectionID, entry] of this.#owedToPresence) {
      await presence.offline(entry)
      this.#owedToPresence.delete(connectionID)
    }
  }

  /** CONNECTs of the user that have not been answered yet. */
  connecting(uid: string): Connection[] {
    return [...this.#connecting.keys()].filter((connection) => connection.uid === uid)
  }

  /** A presence that hangs must not keep messages from those who are connected here. */
  #locate(presence: Presence, uids: readonly string[]): ReturnType<Presence['locate']> {
    const located = presence.locate(uids)
    return isPromise(located) ? this.#parts.inTime(located, this.limits.presenceTimeoutMs) : located
  }

  /** One event through its chain. Never throws or rejects. */
  #run(event: PipelineEvent): void | Promise<void> {
    const result = this.#runner.run(this.#parts.chains.current<PipelineEvent>(event.event), event)
    if (isPromise(result)) return result.then((late) => this.#finish(event, late))
    this.#finish(event, result)
  }

  #finish(event: PipelineEvent, result: ChainResult): void {
    if (event instanceof ConnectEvent) this.#connecting.delete(event.conn as Connection)
    event.release()
    event.finish(result)
    if (event instanceof ConnectEvent) this.#parts.contests?.settled(event)
  }

  /**
   * One channel's batch. When a handler has failed on it before anything was stored, its messages run one by one, so that
   * only the one that the handler cannot bear is refused. Handlers before `store` may see a message twice for that reason.
   */
  #runDistribute(channel: string, items: readonly DistributeItem[]): void | Promise<void> {
    const event = new DistributeEvent(channel, items, this.#distributeServices)
    const settle = (result: ChainResult): void | Promise<void> => {
      const failed = isFailureOf(result, 'IM_HANDLER_FAILED')
      if (!failed || event.storing || items.length === 1) return this.#finish(event, result)
      event.release()
      return runInOrder(items, (item) => this.#runDistribute(channel, [item]), this.#defect)
    }
    const result = this.#runner.run(this.#parts.chains.current<DistributeEvent>('EventChannelDistribute'), event)
    return isPromise(result) ? result.then((late) => settle(late)) : settle(result)
  }

  /** Never throws or rejects: what is wrong with it is told, and the messages go. */
  #gather(replicator: Replicator, waiting: readonly DistributeItem[]): Promise<void> | undefined {
    const isOver = (reason: unknown): void => {
      if (!this.#parts.waits.isAborted) this.#defect(reason)
    }
    let count = 0
    let bytes = 0
    for (const { message, queueBytes } of waiting) {
      if (message.noPersist) continue // it does not go through the log
      count++
      bytes += queueBytes
    }
    if (count === 0) return undefined
    try {
      const asked = replicator.gather!(waiting[0]!.key, count, bytes)
      if (asked === undefined) return undefined
      let limited = this.#gatherings.get(asked)
      if (limited === undefined) this.#gatherings.set(asked, (limited = this.#parts.inTime(asked, this.limits.replicateTimeoutMs).catch(isOver)))
      return limited
    } catch (defect) {
      isOver(defect)
      return undefined
    }
  }

  /** An error of ours, not of a handler: told, and nothing else stops for it. */
  readonly #defect = (defect: unknown): void => this.#parts.given.facts.report(asIMError(defect, 'IM_HANDLER_FAILED', {}))

  #push(channel: string, key: ChannelKey, sources: readonly PushSource[], uids: readonly string[], reach: Reach): void {
    this.#pushers.submit(channel, new PushOnlineEvent(key, sources, uids, this.#pushServices, reach))
  }

  /** Messages to the members of their channel, or to `receivers`. */
  #handOver(channel: string, key: ChannelKey, sources: readonly PushSource[], receivers: readonly string[] | undefined, reach: Reach): void {
    const queueBytes = sources.reduce((bytes, { message }) => bytes + message.payload.length, HAND_OVER_BYTES)
    const failed = (reason: unknown): void => {
      const { channelID, channelType } = key
      const context = { channelID, channelType, event: 'EventChannelDistribute', step: 'postProcess' }
      if (!this.#parts.waits.isAborted) this.#parts.given.facts.report(asIMError(reason, 'IM_DIRECTORY_UNAVAILABLE', context))
      this.counts.undeliveredCount += sources.length
      this.#parts.given.facts.emit('undelivered', { key, messages: sources.map(({ message }) => message), nodeID: undefined, uid: undefined })
    }
    this.#handOvers.submit(channel, { sources, receivers, reach, queueBytes, failed })
  }

  #opened(connection: Connection): void {
    if (!connection.isOpen) return
    this.counts.openedCount++
    if (this.#parts.diagnostics.connect.hasSubscribers) this.#tellConnect(connection, 'opened', undefined, undefined)
    if (this.#parts.replays) this.#parts.offlineReplay.start(connection)
    this.#notifyOnline(connection, true) // first: a listener may end the connection, and that is told then
    this.#parts.given.facts.emit('connected', connection.info)
    this.#parts.online.came(connection.uid)
  }

  #tellConnect({ connectionID, uid, deviceFlag, remoteAddress, connectedAtMs }: Connection, outcome: 'opened' | 'refused', cause: CloseCause | undefined, reason: string | undefined): void {
    const { nodeID, connect } = this.#parts.diagnostics
    const times = { startedAtMs: connectedAtMs, endedAtMs: this.clock.nowMs() }
    connect.publish({ nodeID, connectionID, uid, deviceFlag, remoteAddress, outcome, cause, reason, ...times })
  }

  #notifyOnline({ uid, deviceFlag, connectionID }: Connection, online: boolean): void {
    if (this.#parts.notifier?.wants('user.onlinestatus') !== true) return
    const left = this.#parts.registry.of(uid)
    const deviceOnlineCount = left.filter((other) => other.deviceFlag === deviceFlag).length
    this.#parts.notifier.tell({ event: 'user.onlinestatus', uid, deviceFlag, online, connectionID, deviceOnlineCount, onlineCount: left.length })
  }

  #flush(): void {
    const connections = this.#unflushed
    if (connections.length > 0) {
      this.#unflushed = []
      for (const connection of connections) connection.flush()
    }
    if (this.counts.isTiming) this.counts.written(this.clock.monotonicMs())
  }
}

function isFailureOf(result: unknown, code: IMError['code']): boolean {
  return result instanceof IMError && result.code === code
}
