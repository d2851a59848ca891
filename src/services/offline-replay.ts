import PQueue from 'p-queue'
import type { ChannelDirectory } from '../contracts/channel-directory.ts'
import type { ReplayPort } from '../contracts/connection-view.ts'
import type { CursorStore } from '../contracts/cursor-store.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import { asIMError, type IMError } from '../errors.ts'
import { channelKeyOf, channelKeyString, type ChannelKey } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'
import { startOf, type Deliveries } from './deliveries.ts'
import { conversationKeys } from './conversation-keys.ts'

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
  /** logins that are replayed to at the same time */
  readonly maxConcurrent: number
  /** ask an adapter, but not for ever */
  readonly limited: <T>(ask: () => MaybePromise<T>) => Promise<T>
  readonly report: (error: IMError) => void
}

/** A channel that has something for the user, behind `afterSeq`. */
interface Missed {
  readonly key: ChannelKey
  readonly afterSeq: number
  readonly lastTimestampMs: number
}

/** Channels asked about at once. */
const KEY_PAGE_COUNT = 500

/**
 * Sends a user who has logged in what nobody of their devices has acknowledged: channel by channel, the ones with the latest
 * message first, and in each channel the oldest message first. Live messages of a channel are held back until it has caught
 * up or reached its bound; what is beyond the bound is sent at the next login, from where this one stopped.
 */
export class OfflineReplay {
  readonly #options: OfflineReplayOptions
  readonly #queue: PQueue

  constructor(options: OfflineReplayOptions) {
    this.#options = options
    this.#queue = new PQueue({ concurrency: options.maxConcurrent })
  }

  /** The connection is open and nothing has been pushed to it. */
  start(conn: ReplayPort): void {
    conn.holdBack()
    void this.#queue.add(async () => {
      try {
        await this.#run(conn)
      } catch (error) {
        // What was held back stays unacknowledged, so the next login gets it.
        if (!conn.closed) this.#options.report(asIMError(error, 'IM_STORE_UNAVAILABLE', { uid: conn.uid, connectionID: conn.connectionID }))
      } finally {
        conn.goLive()
      }
    })
  }

  /** Messages the user has not acknowledged, in all channels; recalled ones do not count. */
  async missedCount(uid: string): Promise<number> {
    const { messages, limited } = this.#options
    let count = 0
    for (const { key, afterSeq } of await this.#missed(uid)) count += await limited(() => messages.countAfter(key, afterSeq))
    return count
  }

  /** Resolves when no replay is under way. */
  idle(): Promise<void> {
    return this.#queue.onIdle()
  }

  async #run(conn: ReplayPort): Promise<void> {
    let left = this.#options.maxInAll
    for (const missed of conn.closed ? [] : await this.#missed(conn.uid)) {
      if (conn.closed || left === 0) return
      left -= await this.#replayChannel(conn, missed, left)
    }
    // Channels that have got their first message since, or another one.
    for (let channel = conn.unsettledChannel; channel !== undefined && !conn.closed; channel = conn.unsettledChannel) {
      const [missed] = await this.#missedOf(conn.uid, [channelKeyOf(channel)])
      if (missed === undefined) conn.settle(channel, 0)
      else left -= await this.#replayChannel(conn, missed, left)
    }
  }

  /** @returns how many messages were sent */
  async #replayChannel(conn: ReplayPort, { key, afterSeq }: Missed, left: number): Promise<number> {
    const { messages, cursors, deliveries, maxPerChannel, pageCount, limited } = this.#options
    const channel = channelKeyString(key)
    const most = Math.min(maxPerChannel, left)
    let sentCount = 0
    let seq = afterSeq
    while (sentCount < most) {
      const room = conn.room()
      if (room !== undefined) await limited(() => room)
      const limit = Math.min(pageCount, most - sentCount)
      const page = await limited(() => messages.range(key, { startSeq: seq + 1, limit }))
      const lastSeq = page.at(-1)?.messageSeq ?? seq
      const hidden = new Set(page.length === 0 ? [] : await limited(() => cursors.hidden(conn.uid, key, seq, lastSeq)))
      if (conn.closed) return sentCount
      for (const message of page) {
        const { messageSeq } = message
        // Numbers in between are of messages that are gone.
        if (messageSeq > seq + 1) deliveries.acknowledge(conn.uid, key, seq + 1, messageSeq - 1)
        seq = messageSeq
        const concerns = message.fromUID !== conn.uid && message.revision?.kind !== 'recalled' && !hidden.has(messageSeq)
        if (!concerns) deliveries.acknowledge(conn.uid, key, messageSeq)
        else if (conn.replay(message)) sentCount++
        else return sentCount // it does not read: `slowConsumer` has been carried out
      }
      // Nothing more in the store. Asked in the same breath as the channel goes live: what is stored from now on is pushed.
      if (page.length < limit && conn.heldBackTo(channel) <= seq) break
      if (page.length === 0) break // what was held back has gone from the store meanwhile
    }
    conn.settle(channel, Math.max(sentCount > 0 ? seq : 0, conn.heldBackTo(channel)))
    return sentCount
  }

  async #missed(uid: string): Promise<Missed[]> {
    const { channels, messages, limited } = this.#options
    const found: Missed[] = []
    for await (const keys of conversationKeys({ uid, channels, messages, pageCount: KEY_PAGE_COUNT, limited })) {
      found.push(...(await this.#missedOf(uid, keys)))
    }
    return found.sort((a, b) => b.lastTimestampMs - a.lastTimestampMs)
  }

  async #missedOf(uid: string, keys: readonly ChannelKey[]): Promise<Missed[]> {
    const { messages, cursors, deliveries, limited } = this.#options
    const [summaries, stored] = await Promise.all([
      limited(() => messages.summaries(uid, keys)),
      limited(() => cursors.cursors(uid, keys)),
    ])
    return keys.flatMap((key, index) => {
      const { lastSeq, floorSeq, lastTimestampMs } = summaries[index]!
      const start = Math.max(startOf(stored[index]!), deliveries.deliveredSeq(uid, key))
      if (floorSeq > start) deliveries.acknowledge(uid, key, 1, floorSeq) // removed, so it cannot be missed any more
      const afterSeq = Math.max(start, floorSeq)
      return lastSeq > afterSeq ? [{ key, afterSeq, lastTimestampMs }] : []
    })
  }
}
