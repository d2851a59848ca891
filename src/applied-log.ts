import type { AppendResult, LogPosition, MessageStore } from './contracts/message-store.ts'
import type { LogEntry, Replicator, ReplicatorHost } from './contracts/replicator.ts'
import type { Storage } from './contracts/storage.ts'
import { IMError } from './errors.ts'
import type { HandOverPool } from './events/hand-over-pool.ts'
import type { PusherPool } from './events/pusher-pool.ts'
import type { DistributeItem } from './handlers/channel/distribute-item.ts'
import type { AnnouncementPort } from './handlers/channel/distribute.ts'
import type { PushSource } from './handlers/pusher/push-online.ts'
import { channelKeyString, ChannelType, personChannelUIDs, sourceKey, type ChannelKey } from './model/channel.ts'
import { isPromise, type MaybePromise } from './model/maybe-promise.ts'
import type { Message } from './model/message.ts'
import type { Reach } from './model/reach.ts'
import type { Counters } from './services/counters.ts'
import type { FactEmitter } from './services/fact-emitter.ts'
import type { ReplicatedStorage } from './services/replicated-storage.ts'
import type { WebhookNotifier } from './services/webhook-notifier.ts'

export interface AppliedLogOptions {
  readonly nodeID: number
  readonly store: MessageStore
  readonly snapshots: Pick<Storage, 'snapshot' | 'restore'>
  /** undefined when the log has messages only */
  readonly replicated: ReplicatedStorage | undefined
  readonly handOvers: Pick<HandOverPool<PushSource>, 'depth' | 'isFull' | 'onceRelieved'>
  readonly pushers: Pick<PusherPool<never>, 'depth' | 'isFull' | 'onceRelieved'>
  readonly notifier: Pick<WebhookNotifier, 'wants' | 'announce'> | undefined
  readonly facts: FactEmitter
  readonly counts: Counters
  /** by channel: what of this node is being agreed upon */
  readonly proposed: ReadonlyMap<string, readonly DistributeItem[]>
  readonly isHere: (uid: string) => boolean
  readonly handOver: (channel: string, key: ChannelKey, sources: readonly PushSource[], reach: Reach) => void
}

/** What comes back from the log of all nodes: kept in this node's store, and delivered to its connections. */
export class AppliedLog {
  readonly #options: AppliedLogOptions
  /** the replicator's `start` has not resolved: nothing of this life has been proposed yet */
  #isStarting = false
  /** before anything was applied the storage stood at the beginning of every log that was asked about; undefined: of none */
  #isEmpty: boolean | undefined
  #hasApplied = false
  /** the storage has been another node's until now */
  #isCopy = false

  constructor(options: AppliedLogOptions) {
    this.#options = options
  }

  /** @param isolated  is told when this node loses the others, and has them again */
  async start(replicator: Replicator, isolated: (isIsolated: boolean) => void): Promise<void> {
    this.#isStarting = true
    try {
      await replicator.start(this.#host(isolated))
    } finally {
      this.#isStarting = false
    }
  }

  /** What a replicator needs of this node. */
  #host(isolated: (isIsolated: boolean) => void): ReplicatorHost {
    const { nodeID, store, snapshots, replicated } = this.#options
    return {
      nodeID,
      ...(replicated !== undefined && { settle: () => replicated.settle() }),
      ...(snapshots.snapshot !== undefined && { snapshot: () => this.#snapshot() }),
      ...(snapshots.restore !== undefined && { restore: (chunks) => this.#restore(chunks) }),
      isolated,
      ...(store.logPosition !== undefined && { logPosition: (log) => this.#logPosition(log) }),
      apply: (entries, position) => {
        this.#hasApplied = true
        return this.#appliedInTurn(entries, position)
      },
      operate: (operation, position) => {
        this.#hasApplied = true
        if (replicated === undefined) throw new IMError('IM_LOG_FORMAT', { detail: 'an operation that nobody can have proposed here' })
        return replicated.apply(operation, position)
      },
    }
  }

  async *#snapshot(): AsyncIterable<Uint8Array> {
    await this.#options.replicated?.settle()
    yield* this.#options.snapshots.snapshot!()
  }

  async #restore(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    await this.#options.replicated?.leave()
    await this.#options.snapshots.restore!(chunks)
    this.#isCopy = true
  }

  #logPosition(log: string): MaybePromise<number> {
    const looked = (position: number): number => {
      if (!this.#hasApplied) this.#isEmpty = this.#isEmpty !== false && position === 0
      return position
    }
    const position = this.#options.store.logPosition!(log)
    return isPromise(position) ? position.then(looked) : looked(position)
  }

  /**
   * What is stored may not be turned away from the pushers. A node that does not get rid of it, because its directory takes its
   * time, waits before it applies more: it falls behind the log, and holds no more than it may.
   */
  #appliedInTurn(entries: readonly LogEntry[], position: LogPosition | undefined): ReturnType<ReplicatorHost['apply']> {
    const { handOvers, pushers } = this.#options
    const isQuiet = handOvers.depth === 0 && pushers.depth === 0
    const full = isQuiet ? undefined : entries.find(({ key }) => this.#isFull(channelKeyString(key)))
    if (full === undefined) return this.#applied(entries, position)
    const channel = channelKeyString(full.key)
    const relieved = new Promise<void>((resolve) => {
      handOvers.onceRelieved(channel, () => pushers.onceRelieved(channel, resolve))
    })
    return relieved.then(() => this.#appliedInTurn(entries, position))
  }

  #isFull(channel: string): boolean {
    return this.#options.pushers.isFull(channel) || this.#options.handOvers.isFull(channel)
  }

  /**
   * Committed entries of the log: number and keep them, and deliver them to the connections of this node. What this node has
   * proposed is delivered from here, too, so that receivers see everything in log order.
   */
  #applied(entries: readonly LogEntry[], position: LogPosition | undefined): MaybePromise<readonly (readonly AppendResult[])[]> {
    const { notifier } = this.#options
    const ownID = this.#ownID
    const isAnnounced = notifier?.wants('msg.notify') === true && entries.some(({ nodeID }) => nodeID === ownID)
    if (isAnnounced) return this.#appliedAnnounced(notifier, entries, position)
    const appended = this.#append(entries, position)
    const deliver = (results: readonly (readonly AppendResult[])[]): readonly (readonly AppendResult[])[] => {
      entries.forEach((entry, index) => this.#deliverApplied(entry, entry.nodeID === ownID, results[index]!))
      return results
    }
    return isPromise(appended) ? appended.then(deliver) : deliver(appended)
  }

  /** Who does not keep messages as bytes may write a batch down as it is, with whatever is in it. */
  #append(entries: readonly LogEntry[], position: LogPosition | undefined): ReturnType<MessageStore['append']> {
    const { store } = this.#options
    return store.append(store.keepsRecords === true ? entries : entries.map(({ key, messages }) => ({ key, messages })), position)
  }

  /** The webhook is told by the node that has proposed a message, once, and after a crash of it when it is back. */
  async #appliedAnnounced(
    notifier: Pick<WebhookNotifier, 'announce'>,
    entries: readonly LogEntry[],
    position: LogPosition | undefined,
  ): Promise<readonly (readonly AppendResult[])[]> {
    const { nodeID } = this.#options
    const announcements = new Map<LogEntry, AnnouncementPort>()
    try {
      for (const entry of entries) {
        if (entry.nodeID !== nodeID) continue
        const messageIDs = entry.messages.map((message) => message.messageID)
        announcements.set(entry, notifier.announce(channelKeyString(entry.key), messageIDs))
      }
      for (const { written } of announcements.values()) await written
    } catch (reason) {
      for (const announcement of announcements.values()) announcement.drop()
      throw reason
    }
    let results: readonly (readonly AppendResult[])[]
    try {
      results = await this.#append(entries, position)
    } catch (reason) {
      for (const announcement of announcements.values()) announcement.release([]) // whoever failed may have stored them all the same
      throw reason
    }
    entries.forEach((entry, index) => {
      const stored = this.#deliverApplied(entry, entry.nodeID === nodeID, results[index]!)
      if (stored.length > 0) announcements.get(entry)?.release(stored)
      else announcements.get(entry)?.drop()
    })
    return results
  }

  /**
   * Whose entries are for this node to announce: its own, and nobody's while the log is played to a storage that is new here under
   * the nodeID of an earlier life, in an empty folder or as another node's copy. That life has told of them, most of them long ago.
   * In its own folder a node that has crashed is behind the log by what it had proposed and could not announce. A life that had come
   * to nothing at all, in no log, looks like an empty folder; where nobody asks how far the store has come, all of it is announced.
   */
  get #ownID(): number | undefined {
    const isOfEarlierLife = this.#isStarting && (this.#isCopy || this.#isEmpty === true)
    return isOfEarlierLife ? undefined : this.#options.nodeID
  }

  /** @returns what is new of it, for the node that has proposed it */
  #deliverApplied(entry: LogEntry, isOwn: boolean, results: readonly AppendResult[]): readonly Message[] {
    const { key } = entry
    const { counts, facts, proposed, handOver } = this.#options
    for (const { status } of results) if (status === 'stored') counts.storedCount++
    // Every node applies everything, and most conversations of two concern nobody on most nodes.
    if (!isOwn && !facts.has('messageStored') && !this.#mayConcernUsersHere(key)) return []
    const channel = channelKeyString(key)
    // Asked now: whoever has proposed them forgets soon which connections they came in on.
    const items = isOwn ? proposed.get(channel) : undefined
    const sources: PushSource[] = []
    let at = 0
    results.forEach((result, index) => {
      if (result.status !== 'stored') return
      // In the order in which they were proposed; none of them is there when their senders have been told to try again. The id of
      // what others have proposed nobody asks for: a store may have to make it.
      while (items !== undefined && at < items.length && items[at]!.message.messageID !== result.messageID) at++
      const item = items?.[at]
      const { messageSeq } = result
      const message = item === undefined ? numbered(entry, index, messageSeq) : { ...item.message, messageSeq }
      sources.push({ message, connectionID: item?.connectionID, receivedAtMs: item?.receivedAtMs, trace: item?.trace })
    })
    if (sources.length === 0) return []
    const stored = sources.map(({ message }) => message)
    facts.emit('messageStored', { key, messages: stored })
    handOver(channel, key, sources, isOwn ? 'logged' : 'here')
    return stored
  }

  #mayConcernUsersHere(key: ChannelKey): boolean {
    const { channelID, channelType } = sourceKey(key)
    const pair = channelType === ChannelType.Person ? personChannelUIDs(channelID) : undefined
    return pair === undefined || pair.some((uid) => this.#options.isHere(uid))
  }
}

/** A message of an entry with its number. Most entries are bytes, and few of their messages are for anybody here. */
function numbered(entry: LogEntry, index: number, messageSeq: number): Message {
  return entry.records?.message(index, messageSeq) ?? { ...entry.messages[index]!, messageSeq }
}
