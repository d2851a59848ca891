import PQueue from 'p-queue'
import type { ChannelDirectory } from '../contracts/channel-directory.ts'
import type { ReplayPort } from '../contracts/connection-view.ts'
import type { CursorStore } from '../contracts/cursor-store.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import { asIMError, type IMError } from '../errors.ts'
import { channelKeyOf, channelKeyString, sourceKey, type ChannelKey, type Page } from '../model/channel.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import { isRecalled, type Message } from '../model/message.ts'
import { conversationKeys } from './conversation-keys.ts'
import { startOf, type Deliveries } from './deliveries.ts'

export interface OfflineReplayOptions {
  readonly messages: MessageStore
  readonly channels: ChannelDirectory
  readonly cursors: CursorStore
  readonly deliveries: Deliveries
  /** messages sent to one login, in one channel and in all */
  readonly maxPerChannel: number
  readonly maxInAll: number
  /** messages read at once */
  readonly pageCount: number
  /** questions to the adapters that are under way at the same time */
  readonly maxConcurrent: number
  /** ask an adapter, but not for ever */
  readonly limited: <T>(ask: () => MaybePromise<T>) => Promise<T>
  /** the message as it is now: it may have been edited or recalled since it was read */
  readonly current: (message: Message) => Message
  /** resolves after so many milliseconds */
  readonly pause: (delayMs: number) => Promise<void>
  readonly report: (error: IMError) => void
}

/** A channel that has something for the user, behind `afterSeq`. */
interface Missed {
  readonly key: ChannelKey
  readonly afterSeq: number
  /** the channel's last seq when it was asked for; 0 when the user has left */
  readonly lastSeq: number
  /** Up to here the user was a member for certain: `lastSeq`, or 0 when they had moved by then. */
  readonly certainSeq: number
  readonly lastTimestampMs: number
}

/** How far the replay of one channel has come. */
interface Progress {
  seq: number
  /** the last one that was sent, 0 for none */
  sentSeq: number
  sentCount: number
}

/** Channels asked about at once. */
const KEY_PAGE_COUNT = 500
const ONE_KEY = { limit: 1 } as const
/** An adapter that fails is asked again so often, with a pause, before the login goes on without. */
const TRY_COUNT = 3
const PAUSE_MS = 1_000

/**
 * Sends a user who has logged in what nobody of their devices has acknowledged: channel by channel, the ones with the latest
 * message first, and in each channel the oldest message first. Live messages of a channel are held back until it has caught
 * up or reached its bound; what is beyond the bound is sent at the next login, from where this one stopped.
 */
export class OfflineReplay {
  readonly #options: OfflineReplayOptions
  /** held while an adapter is asked, never while a client reads: who does not read keeps nobody waiting */
  readonly #asking: PQueue
  readonly #running = new Set<Promise<void>>()
  /** by user, of each replay under way: the channels that the user has joined or left since it began */
  readonly #moves = new Map<string, Map<ReplayPort, Set<string>>>()
  /** an adapter has answered by a promise: asking it beforehand would be a question more */
  #answersLater = false

  constructor(options: OfflineReplayOptions) {
    this.#options = options
    this.#asking = new PQueue({ concurrency: options.maxConcurrent })
  }

  /** Questions to the adapters that wait or are under way. */
  get depth(): number {
    return this.#asking.size + this.#asking.pending
  }

  /** The connection is open and nothing has been pushed to it. */
  start(conn: ReplayPort): void {
    if (this.#hasNothing(conn.uid)) return
    conn.holdBack()
    const moves = this.#moves.get(conn.uid) ?? new Map<ReplayPort, Set<string>>()
    this.#moves.set(conn.uid, moves.set(conn, new Set()))
    const running = this.#run(conn).finally(() => {
      conn.goLive() // also should it have failed
      this.#running.delete(running)
      moves.delete(conn)
      if (moves.size === 0) this.#moves.delete(conn.uid)
    })
    this.#running.add(running)
  }

  /**
   * The user has joined or left, or it was tried and may have failed. What a replay under way has found already was said while
   * they were a member, and is sent; of what it has not, what is pushed to them, and what is theirs as they stand when it is read.
   */
  moved(uid: string, key: ChannelKey): void {
    for (const channels of this.#moves.get(uid)?.values() ?? []) channels.add(channelKeyString(sourceKey(key)))
  }

  /** Messages the user has not acknowledged, in all channels; recalled ones do not count. */
  async missedCount(uid: string): Promise<number> {
    const { messages } = this.#options
    let count = 0
    for (const { key, afterSeq } of await this.#missed(uid, undefined)) count += await this.#ask(() => messages.countAfter(key, afterSeq))
    return count
  }

  /** Resolves when no replay is under way; each ends with its connection. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
  }

  /**
   * Does the user have no conversation at all, as far as can be said at once? What is stored from now on finds the connection
   * in the registry, so there is nothing to hold back. Most logins of a storm are such ones, or cost more than this anyway.
   */
  #hasNothing(uid: string): boolean {
    if (this.#answersLater) return false
    const { channels, messages } = this.#options
    return this.#isEmptyNow(() => channels.channelsOf(uid, ONE_KEY)) && this.#isEmptyNow(() => messages.personChannelsOf(uid, ONE_KEY))
  }

  #isEmptyNow(ask: () => MaybePromise<Page<ChannelKey>>): boolean {
    try {
      const page = ask()
      if (!isPromise(page)) return page.items.length === 0 && page.cursor === undefined
      this.#answersLater = true
      page.then(undefined, () => undefined) // whatever is wrong is found, and reported, by the replay
    } catch {
      // The same.
    }
    return false
  }

  async #run(conn: ReplayPort): Promise<void> {
    let left = this.#options.maxInAll
    for (const missed of (await this.#persevere(conn, {}, () => this.#missed(conn.uid, conn))) ?? []) {
      if (conn.closed || left <= 0) break
      left -= await this.#replayChannel(conn, missed, left)
    }
    // Channels that have got their first message since, or another one, or were beyond the bound.
    for (let channel = conn.unsettledChannel; channel !== undefined && !conn.closed; channel = conn.unsettledChannel) {
      const key = channelKeyOf(channel)
      const [missed] = (await this.#persevere(conn, key, () => this.#missedOf(conn.uid, [key], conn))) ?? []
      if (missed === undefined) conn.settle(channel, 0)
      else left -= await this.#replayChannel(conn, missed, left)
    }
    conn.goLive() // in the same breath: for what is held back from here on nobody would look
  }

  /** @returns how many messages were sent */
  async #replayChannel(conn: ReplayPort, missed: Missed, left: number): Promise<number> {
    const channel = channelKeyString(missed.key)
    // What was held back before anybody looked is for this connection, whoever has acknowledged it elsewhere.
    const heldBackFrom = conn.heldBackFrom(channel)
    const progress: Progress = { seq: heldBackFrom > 0 ? Math.min(missed.afterSeq, heldBackFrom - 1) : missed.afterSeq, sentSeq: 0, sentCount: 0 }
    const isSettled = await this.#persevere(conn, missed.key, () => this.#catchUp(conn, missed, progress, Math.min(left, this.#options.maxPerChannel)))
    if (isSettled !== true) this.#settle(conn, channel, progress)
    return progress.sentCount
  }

  /**
   * Behind the last that was sent, and not the last that was read: what the user's other devices have sent since this login was passed
   * over as their own, and its push may be on its way.
   */
  #settle(conn: ReplayPort, channel: string, { sentSeq }: Progress): true {
    conn.settle(channel, Math.max(sentSeq, conn.heldBackTo(channel)))
    return true
  }

  /** Settles the channel in the same breath as nothing is left: what is pushed a moment later goes out by itself. */
  async #catchUp(conn: ReplayPort, { key, lastSeq, certainSeq }: Missed, progress: Progress, most: number): Promise<true> {
    const { messages, cursors, deliveries, pageCount } = this.#options
    const channel = channelKeyString(key)
    // No further than what was there at login and what is pushed to this very connection: membership may have ended.
    const goal = (): number => Math.max(lastSeq, conn.heldBackTo(channel))
    while (!conn.closed && progress.seq < goal()) {
      // Beyond the bound what was pushed meanwhile goes out all the same, as what is pushed a moment later does.
      const isBeyond = progress.sentCount >= most
      if (isBeyond) {
        if (conn.heldBackTo(channel) <= progress.seq) break
        progress.seq = Math.max(progress.seq, conn.heldBackFrom(channel) - 1)
      }
      await conn.room()
      const before = progress.seq
      const query = { startSeq: before + 1, endSeq: goal(), limit: isBeyond ? pageCount : Math.min(pageCount, most - progress.sentCount) }
      const page = await this.#ask(() => messages.range(key, query))
      const hidden = new Set(page.length === 0 ? [] : await this.#ask(() => cursors.hidden(conn.uid, key, before, query.endSeq)))
      const isDoubtful = ({ messageSeq }: Message): boolean => messageSeq > certainSeq && !conn.isHeldBack(channel, messageSeq)
      const theirsFrom = this.#hasMoved(conn, key) && page.some(isDoubtful) ? await this.#theirsFrom(conn.uid, key) : 0
      let isRead = true
      for (const read of page) {
        if (conn.closed || conn.room() !== undefined) {
          isRead = false // on from here once there is room
          break
        }
        const { messageSeq } = read
        // Numbers in between are of messages that are gone.
        if (messageSeq > progress.seq + 1) deliveries.acknowledge(conn.uid, key, progress.seq + 1, messageSeq - 1)
        progress.seq = messageSeq
        // Between two memberships, or after the last one. Not acknowledged, because it is not for us to say that it was not theirs.
        if (messageSeq < theirsFrom && isDoubtful(read)) continue
        const message = this.#options.current(read)
        // What was pushed to this very connection is for it, whatever another device has sent or acknowledged.
        const isKnown = message.fromUID === conn.uid || deliveries.isAcknowledged(conn.uid, key, messageSeq)
        const isUnwanted = isRecalled(message) || hidden.has(messageSeq)
        if (isUnwanted || (isKnown && !conn.isHeldBack(channel, messageSeq))) deliveries.acknowledge(conn.uid, key, messageSeq)
        else if (isBeyond && !conn.isHeldBack(channel, messageSeq)) continue
        else if (conn.replay(message)) {
          progress.sentSeq = messageSeq
          if (!isBeyond) progress.sentCount++ // what is live takes nothing from other channels
        } else return this.#settle(conn, channel, progress) // closed, or left out because it does not read
      }
      if (isRead && page.length < query.limit && progress.seq < query.endSeq) {
        deliveries.acknowledge(conn.uid, key, progress.seq + 1, query.endSeq) // these are gone as well
        progress.seq = query.endSeq
      }
    }
    return this.#settle(conn, channel, progress)
  }

  /** @param conn  whom it is to be replayed to, undefined for a question */
  async #missed(uid: string, conn: ReplayPort | undefined): Promise<Missed[]> {
    const { channels, messages } = this.#options
    const found: Missed[] = []
    const ask = <T>(question: () => MaybePromise<T>): Promise<T> => this.#ask(question)
    for await (const keys of conversationKeys({ uid, channels, messages, pageCount: KEY_PAGE_COUNT, withCommands: true, limited: ask })) {
      found.push(...(await this.#missedOf(uid, keys, conn)))
    }
    return found.sort((a, b) => b.lastTimestampMs - a.lastTimestampMs)
  }

  async #missedOf(uid: string, keys: readonly ChannelKey[], conn: ReplayPort | undefined): Promise<Missed[]> {
    const { messages, cursors, deliveries } = this.#options
    const [summaries, stored] = await Promise.all([
      this.#ask(() => messages.summaries(uid, keys)),
      this.#ask(() => cursors.cursors(uid, keys)),
    ])
    const found: Missed[] = []
    for (const [index, key] of keys.entries()) {
      const { floorSeq, lastTimestampMs, ...summary } = summaries[index]!
      const hasMoved = conn !== undefined && this.#hasMoved(conn, key)
      const theirsFrom = hasMoved ? await this.#theirsFrom(uid, key) : 0
      const lastSeq = theirsFrom <= summary.lastSeq ? summary.lastSeq : 0
      if (conn !== undefined && !hasMoved) deliveries.stored(uid, key, startOf(stored[index]!)) // not of a membership that has ended
      const start = Math.max(startOf(stored[index]!), deliveries.deliveredSeq(uid, key), lastSeq > 0 ? theirsFrom - 1 : 0)
      if (floorSeq > start) deliveries.acknowledge(uid, key, 1, floorSeq) // removed, so it cannot be missed any more
      const afterSeq = Math.max(start, floorSeq)
      const isHeldBack = (conn?.heldBackTo(channelKeyString(key)) ?? 0) > 0
      if (lastSeq > afterSeq || isHeldBack) found.push({ key, afterSeq, lastSeq, certainSeq: hasMoved ? 0 : lastSeq, lastTimestampMs })
    }
    return found
  }

  /**
   * The first seq that concerns the user as they stand now, Infinity when they are no member. Asked about those who have moved:
   * that a message is not held back does not say that it was not theirs, because its push may be on its way from another node.
   * The membership first: where a member stands was written before they were one.
   */
  async #theirsFrom(uid: string, key: ChannelKey): Promise<number> {
    const { channels, cursors } = this.#options
    if ((await this.#ask(() => channels.member(sourceKey(key), uid))) === undefined) return Number.POSITIVE_INFINITY
    return (await this.#ask(() => cursors.cursor(uid, key))).joinSeq
  }

  /** Has the user joined the channel or left it since the replay began? */
  #hasMoved(conn: ReplayPort, key: ChannelKey): boolean {
    return this.#moves.get(conn.uid)?.get(conn)?.has(channelKeyString(sourceKey(key))) === true
  }

  #ask<T>(question: () => MaybePromise<T>): Promise<T> {
    return this.#asking.add(() => this.#options.limited(question))
  }

  /**
   * Try some times. When an adapter goes on failing that is reported, and the login goes on without: what was to be sent stays
   * unacknowledged, so the next login gets it.
   */
  async #persevere<T>(conn: ReplayPort, context: Partial<ChannelKey>, action: () => Promise<T>): Promise<T | undefined> {
    for (let tryCount = 1; !conn.closed; tryCount++) {
      try {
        return await action()
      } catch (error) {
        if (conn.closed) return undefined
        const failure = asIMError(error, 'IM_STORE_UNAVAILABLE', { uid: conn.uid, connectionID: conn.connectionID, ...context })
        if (tryCount < TRY_COUNT && failure.retryable) {
          await this.#options.pause(PAUSE_MS)
          continue
        }
        this.#options.report(failure)
        return undefined
      }
    }
    return undefined
  }
}
