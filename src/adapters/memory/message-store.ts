/**
 * Messages in this process's memory. Power loss, and the end of the process, lose everything. There is no peer to be slow:
 * every answer is synchronous. Nothing has to be closed.
 */
import type { PageQuery } from '../../contracts/channel-directory.ts'
import type {
  AppendBatch,
  AppendResult,
  ChannelSummary,
  DueRemovals,
  LogPosition,
  MessageChange,
  MessageStore,
  RangeQuery,
  Removal,
  SweepResult,
} from '../../contracts/message-store.ts'
import { checkLogPosition } from '../../contracts/log-position.ts'
import { expiryOf, MAX_TIME_MS } from '../../contracts/message-record.ts'
import { checkSeq, resolveRange } from '../../contracts/range-bounds.ts'
import { checkRemoval } from '../../contracts/removal.ts'
import { badOption } from '../../errors.ts'
import { ChannelType, personChannelUIDs, sourceKey, type ChannelKey, type Page } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'
import { Arrivals } from './arrivals.ts'
import { ChannelLog } from './channel-log.ts'
import { ChannelMap } from './channel-map.ts'
import { EndingHeap } from './ending-heap.ts'
import { HeldMessage } from './held-message.ts'
import { checkPageQuery, PagedMap } from './paged-map.ts'

// What one sweep takes on: some milliseconds, in which nothing else happens.
const MAX_SWEEP_COUNT = 10_000

export interface MemoryMessageStoreOptions {
  /** default 10 000; beyond it the oldest message of the channel goes, with what recognises its repeats */
  readonly maxMessagesPerChannel?: number
  /** over all channels, default 1 000 000; beyond it the message stored longest ago goes, in the same way */
  readonly maxMessages?: number
  /** what is older by its `timestampMs` goes at the next `sweep`, in the same way; default none */
  readonly maxAgeMs?: number
  /** decides which messages have outlived their `expireSec`; default Date.now */
  readonly nowMs?: () => number
}

/**
 * A MessageStore for tests, for development and for chats that nobody misses after a restart.
 *
 * Answers are plain values, never promises. What has been removed, by `truncate`, by `sweep` or at a bound, is forgotten
 * altogether, except that its number is never given again: a repeat of it is stored as new. A message whose `expireSec` has
 * passed is absent from every answer, but until it is removed its repeats are recognised. A small record per channel (where
 * it stands, and how far each of its senders has written) stays for ever. One sweep removes at most 10 000 messages.
 * @throws TypeError for an option that is not a positive integer
 */
export function memoryMessageStore(options: MemoryMessageStoreOptions = {}): MessageStore {
  return new MemoryMessageStore(options)
}

class MemoryMessageStore implements MessageStore {
  readonly #logs = new ChannelMap<ChannelLog>()
  readonly #all = new Arrivals()
  readonly #ending = new EndingHeap()
  readonly #personChannels = new Map<string, PagedMap<ChannelKey>>()
  readonly #positions = new Map<string, number>()
  #lastNumber = 0
  readonly #nextNumber = (): number => ++this.#lastNumber
  readonly #maxPerChannel: number
  readonly #maxMessages: number
  readonly #maxAgeMs: number
  readonly #nowMs: () => number

  constructor(options: MemoryMessageStoreOptions) {
    this.#maxPerChannel = checkCount('maxMessagesPerChannel', options.maxMessagesPerChannel ?? 10_000)
    this.#maxMessages = checkCount('maxMessages', options.maxMessages ?? 1_000_000)
    this.#maxAgeMs = options.maxAgeMs === undefined ? Infinity : checkCount('maxAgeMs', options.maxAgeMs)
    this.#nowMs = options.nowMs ?? Date.now
  }

  append(batches: readonly AppendBatch[], position?: LogPosition): AppendResult[][] {
    // All that can throw happens before the first change: a failed call leaves nothing behind.
    if (position !== undefined) checkLogPosition(position)
    const held = batches.map(({ key, messages }) => ({ key, messages: messages.map((message) => hold(message, this.#maxAgeMs)) }))
    if (position !== undefined) this.#positions.set(position.log, position.index)
    return held.map(({ key, messages }) => {
      const log = this.#logFor(key)
      return messages.map((message) => this.#appendOne(log, message))
    })
  }

  logPosition(log: string): number {
    return this.#positions.get(log) ?? 0
  }

  range(key: ChannelKey, query: RangeQuery = {}): Message[] {
    const log = this.#logs.get(key)
    const range = resolveRange(query, { firstSeq: log?.firstSeq ?? 1, lastSeq: log?.lastSeq ?? 0 })
    return log === undefined || range === undefined ? [] : log.read(range, this.#nowMs())
  }

  lastSeq(key: ChannelKey): number {
    return this.#logs.get(key)?.lastSeq ?? 0
  }

  findByClientMsgNo(key: ChannelKey, fromUID: string, clientMsgNo: string): Message | undefined {
    return this.#readable(this.#logs.get(key)?.find(fromUID, clientMsgNo))
  }

  get(messageIDs: readonly string[]): (Message | undefined)[] {
    return messageIDs.map((messageID) => this.#readable(this.#all.find(messageID)))
  }

  truncate(key: ChannelKey, beforeSeq: number): { removedCount: number } {
    checkSeq('beforeSeq', beforeSeq)
    const log = this.#logs.get(key)
    let removedCount = 0
    while (log !== undefined && log.count > 0 && log.firstSeq < beforeSeq) {
      this.#dropFirst(log)
      removedCount++
    }
    return { removedCount }
  }

  summaries(uid: string, keys: readonly ChannelKey[]): ChannelSummary[] {
    return keys.map((key) => {
      const log = this.#logs.get(key)
      return log?.summary(uid) ?? { lastSeq: 0, floorSeq: 0, lastTimestampMs: 0, sentSeq: 0 }
    })
  }

  countAfter(key: ChannelKey, afterSeq: number): number {
    checkSeq('afterSeq', afterSeq)
    return this.#logs.get(key)?.countAfter(afterSeq) ?? 0
  }

  personChannelsOf(uid: string, query: PageQuery = {}): Page<ChannelKey> {
    const channels = this.#personChannels.get(uid)
    if (channels !== undefined) return channels.page(query)
    checkPageQuery(query)
    return { items: [] }
  }

  revise(key: ChannelKey, messageSeq: number, change: MessageChange, position?: LogPosition): Message | undefined {
    checkSeq('messageSeq', messageSeq)
    checkChange(change)
    if (position !== undefined) checkLogPosition(position)
    const log = this.#logs.get(key)
    const message = log?.at(messageSeq)
    // What comes through a log is judged by a time that is the same on every node.
    const nowMs = position === undefined ? this.#nowMs() : change.timestampMs
    if (log === undefined || message === undefined || message.isExpiredAt(nowMs)) return undefined
    log.revise(message, change)
    if (position !== undefined) this.#positions.set(position.log, position.index)
    return message.toMessage()
  }

  sweep(nowMs: number): SweepResult {
    if (!Number.isFinite(nowMs)) badOption('sweep nowMs', 'a time in milliseconds', nowMs)
    const ended = new Map<ChannelLog, Set<HeldMessage>>()
    let removedCount = 0
    let next = this.#ending.next
    for (; next !== undefined && next.endsAtMs <= nowMs && removedCount < MAX_SWEEP_COUNT; removedCount++) {
      const log = this.#logFor(next)
      const ofLog = ended.get(log)
      if (ofLog === undefined) ended.set(log, new Set([next]))
      else ofLog.add(next)
      this.#release(next)
      next = this.#ending.next
    }
    for (const [log, messages] of ended) log.remove(messages)
    return { removedCount, isDone: next === undefined || next.endsAtMs > nowMs }
  }

  /** Without what is older than `maxAgeMs`: other nodes may keep that, and they keep messages in the order of their numbers. */
  due(nowMs: number, maxCount: number): DueRemovals {
    if (!Number.isFinite(nowMs)) badOption('due nowMs', 'a time in milliseconds', nowMs)
    checkCount('maxCount', maxCount)
    const expired = this.#ending.expired(nowMs, maxCount)
    const found = new ChannelMap<{ readonly key: ChannelKey; readonly expired: { messageSeq: number; expiresAtMs: number }[] }>()
    const removals: Removal[] = []
    for (const message of expired) {
      const { channelID, channelType, messageSeq } = message
      let ofChannel = found.get(message)
      if (ofChannel === undefined) {
        found.set(message, (ofChannel = { key: { channelID, channelType }, expired: [] }))
        removals.push(ofChannel)
      }
      ofChannel.expired.push({ messageSeq, expiresAtMs: expiryOf(message) })
    }
    return { removals, isDone: expired.length < maxCount }
  }

  discard(removals: readonly Removal[]): number {
    removals.forEach(checkRemoval)
    let removedCount = 0
    for (const { key, expired = [], throughSeq = 0, forgottenThroughSeq = 0 } of removals) {
      const log = this.#logs.get(key)
      if (log === undefined) continue
      const found = new Set(expired.flatMap(({ messageSeq, expiresAtMs }) => expiresAt(log.at(messageSeq), expiresAtMs) ?? []))
      for (const message of found) this.#release(message)
      log.remove(found)
      removedCount += found.size + this.truncate(key, throughSeq + 1).removedCount
      log.forgetNumbers(Math.min(forgottenThroughSeq, log.lastSeq))
    }
    return removedCount
  }

  #logFor(key: ChannelKey): ChannelLog {
    let log = this.#logs.get(key)
    if (log === undefined) this.#logs.set(key, (log = new ChannelLog()))
    return log
  }

  #appendOne(log: ChannelLog, message: HeldMessage): AppendResult {
    const earlier = log.add(message)
    if (earlier !== undefined) {
      const status = earlier.cameWith(message.payload) ? 'duplicate' : 'conflict'
      return { status, messageID: earlier.messageID, messageSeq: earlier.messageSeq }
    }
    this.#all.add(message)
    if (message.endsAtMs < Infinity) this.#ending.add(message)
    if (message.messageSeq === 1 && message.channelType === ChannelType.Person) this.#listPersonChannel(message)
    if (log.count > this.#maxPerChannel) this.#dropFirst(log)
    // What was stored first of all is also the first that its own channel still has.
    if (this.#all.count > this.#maxMessages && this.#all.oldest !== undefined) this.#dropFirst(this.#logFor(this.#all.oldest))
    return { status: 'stored', messageID: message.messageID, messageSeq: message.messageSeq }
  }

  #dropFirst(log: ChannelLog): void {
    const dropped = log.dropFirst()
    if (dropped !== undefined) this.#release(dropped)
  }

  /** The message leaves everything but its log. */
  #release(message: HeldMessage): void {
    this.#all.remove(message)
    this.#ending.remove(message)
  }

  #listPersonChannel(message: ChannelKey): void {
    const { channelID, channelType } = sourceKey(message) // two people who have only sent each other commands have a channel, too
    for (const uid of personChannelUIDs(channelID) ?? []) {
      let channels = this.#personChannels.get(uid)
      if (channels === undefined) this.#personChannels.set(uid, (channels = new PagedMap<ChannelKey>(this.#nextNumber)))
      channels.set(channelID, Object.freeze({ channelID, channelType })) // once, also for the two ends of `u@u`
    }
  }

  #readable(message: HeldMessage | undefined): Message | undefined {
    return message === undefined || message.isExpiredAt(this.#nowMs()) ? undefined : message.toMessage()
  }
}

/** The store's own copy; the caller may reuse the bytes as soon as `append` has returned. */
function hold(message: Message, maxAgeMs: number): HeldMessage {
  if (!(message.payload instanceof Uint8Array)) badOption('message payload', 'a Uint8Array', message.payload)
  return new HeldMessage(message, maxAgeMs)
}

function expiresAt(message: HeldMessage | undefined, expiresAtMs: number): HeldMessage | undefined {
  return message === undefined || Math.min(expiryOf(message), MAX_TIME_MS) !== Math.min(expiresAtMs, MAX_TIME_MS) ? undefined : message
}

function checkChange(change: MessageChange): void {
  if (change.kind === 'recalled') return
  if (change.kind !== 'edited') badOption('change kind', "'edited' or 'recalled'", (change as { kind?: unknown }).kind)
  if (!(change.payload instanceof Uint8Array)) badOption('change payload', 'a Uint8Array', change.payload)
}

function checkCount(option: string, count: number): number {
  if (!Number.isSafeInteger(count) || count < 1) badOption(option, 'a positive integer', count)
  return count
}
