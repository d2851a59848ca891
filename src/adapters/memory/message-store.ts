/**
 * Messages in this process's memory. Power loss, and the end of the process, lose everything. There is no peer to be slow:
 * every answer is synchronous. Nothing has to be closed.
 */
import type { AppendBatch, AppendResult, MessageStore, RangeQuery } from '../../contracts/message-store.ts'
import { badOption } from '../../errors.ts'
import { channelKeyString, type ChannelKey } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'
import { ChannelLog } from './channel-log.ts'
import { HeldMessage, HeldMessageList } from './held-message.ts'
import { checkSeq, resolveRange } from './range-query.ts'

export interface MemoryMessageStoreOptions {
  /** default 10 000; beyond it the oldest message of the channel goes, with what recognises its repeats */
  readonly maxMessagesPerChannel?: number
  /** over all channels, default 1 000 000; beyond it the message stored longest ago goes, in the same way */
  readonly maxMessages?: number
  /** decides which messages have outlived their `expireSec`; default Date.now */
  readonly nowMs?: () => number
}

/**
 * A MessageStore for tests, for development and for chats that nobody misses after a restart.
 *
 * Answers are plain values, never promises. What has been removed, by `truncate` or at a bound, is forgotten altogether,
 * except that its number is never given again: a repeat of it is stored as new. A message whose `expireSec` has passed is
 * absent from every answer, but until it is removed its repeats are recognised. One small record per channel (its last
 * seq) stays for ever.
 * @throws TypeError for an option that is not a positive integer
 */
export function memoryMessageStore(options: MemoryMessageStoreOptions = {}): MessageStore {
  return new MemoryMessageStore(options)
}

class MemoryMessageStore implements MessageStore {
  readonly #logs = new Map<string, ChannelLog>()
  readonly #byID = new Map<string, HeldMessage>()
  readonly #all = new HeldMessageList()
  readonly #maxPerChannel: number
  readonly #maxMessages: number
  readonly #nowMs: () => number

  constructor(options: MemoryMessageStoreOptions) {
    this.#maxPerChannel = checkCount('maxMessagesPerChannel', options.maxMessagesPerChannel ?? 10_000)
    this.#maxMessages = checkCount('maxMessages', options.maxMessages ?? 1_000_000)
    this.#nowMs = options.nowMs ?? Date.now
  }

  append(batches: readonly AppendBatch[]): AppendResult[][] {
    // All that can throw happens before the first change: a failed call leaves nothing behind.
    const held = batches.map((batch) => ({ log: this.#logFor(batch.key), messages: batch.messages.map(hold) }))
    return held.map(({ log, messages }) => messages.map((message) => this.#appendOne(log, message)))
  }

  range(key: ChannelKey, query: RangeQuery = {}): Message[] {
    const log = this.#logs.get(channelKeyString(key))
    const range = resolveRange(query, { firstSeq: log?.firstSeq ?? 1, lastSeq: log?.lastSeq ?? 0 })
    if (log === undefined || range === undefined) return []
    const nowMs = this.#nowMs()
    const found: Message[] = []
    for (let seq = range.startSeq; found.length < range.limit; seq += range.step) {
      const message = log.at(seq)
      if (message !== undefined && !message.isExpiredAt(nowMs)) found.push(message.toMessage())
      if (seq === range.endSeq) break
    }
    return found
  }

  lastSeq(key: ChannelKey): number {
    return this.#logs.get(channelKeyString(key))?.lastSeq ?? 0
  }

  findByClientMsgNo(key: ChannelKey, fromUID: string, clientMsgNo: string): Message | undefined {
    return this.#readable(this.#logs.get(channelKeyString(key))?.find(fromUID, clientMsgNo))
  }

  get(messageIDs: readonly string[]): (Message | undefined)[] {
    return messageIDs.map((messageID) => this.#readable(this.#byID.get(messageID)))
  }

  truncate(key: ChannelKey, beforeSeq: number): { removedCount: number } {
    checkSeq('beforeSeq', beforeSeq)
    const log = this.#logs.get(channelKeyString(key))
    let removedCount = 0
    while (log !== undefined && log.count > 0 && log.firstSeq < beforeSeq) {
      this.#dropFirst(log)
      removedCount++
    }
    return { removedCount }
  }

  #logFor(key: ChannelKey): ChannelLog {
    const name = channelKeyString(key)
    let log = this.#logs.get(name)
    if (log === undefined) this.#logs.set(name, (log = new ChannelLog()))
    return log
  }

  #appendOne(log: ChannelLog, message: HeldMessage): AppendResult {
    const earlier = log.add(message)
    if (earlier !== undefined) {
      const status = earlier.payload.equals(message.payload) ? 'duplicate' : 'conflict'
      return { status, messageID: earlier.messageID, messageSeq: earlier.messageSeq }
    }
    this.#byID.set(message.messageID, message)
    this.#all.add(message)
    if (log.count > this.#maxPerChannel) this.#dropFirst(log)
    // What was stored first of all is also the first that its own channel still has.
    if (this.#all.count > this.#maxMessages && this.#all.oldest !== undefined) this.#dropFirst(this.#logFor(this.#all.oldest))
    return { status: 'stored', messageID: message.messageID, messageSeq: message.messageSeq }
  }

  #dropFirst(log: ChannelLog): void {
    const dropped = log.dropFirst()
    if (dropped === undefined) return
    this.#all.remove(dropped)
    if (this.#byID.get(dropped.messageID) === dropped) this.#byID.delete(dropped.messageID)
  }

  #readable(message: HeldMessage | undefined): Message | undefined {
    return message === undefined || message.isExpiredAt(this.#nowMs()) ? undefined : message.toMessage()
  }
}

/** The store's own copy; the caller may reuse the bytes as soon as `append` has returned. */
function hold(message: Message): HeldMessage {
  if (!(message.payload instanceof Uint8Array)) badOption('message payload', 'a Uint8Array', message.payload)
  return new HeldMessage(message)
}

function checkCount(option: string, count: number): number {
  if (!Number.isSafeInteger(count) || count < 1) badOption(option, 'a positive integer', count)
  return count
}
