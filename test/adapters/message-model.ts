import type { AppendResult, ChannelSummary, MessageChange, RangeQuery } from '../../src/contracts/message-store.ts'
import { ChannelType, channelKeyString, personChannelUIDs, type ChannelKey } from '../../src/model/channel.ts'
import type { Message } from '../../src/model/message.ts'

/** What removes messages besides `truncate`. Only a store that has the bound may be compared with a model that has it. */
export interface ModelBounds {
  readonly maxMessagesPerChannel?: number
  readonly maxAgeMs?: number
}

interface ModelEntry {
  readonly key: string
  readonly original: Uint8Array
  message: Message
  isRemoved: boolean
}

/**
 * The store as one would explain it: one list of everything there ever was, searched from the front for every question.
 * Where the contract leaves an answer open (whether a repeat of what is no longer there is new), it goes by the store's.
 */
export class ModelMessageStore {
  readonly #nowMs: () => number
  readonly #bounds: Required<ModelBounds>
  readonly #entries: ModelEntry[] = []
  readonly #floors = new Map<string, number>()

  constructor(nowMs: () => number, bounds: ModelBounds = {}) {
    this.#nowMs = nowMs
    this.#bounds = { maxMessagesPerChannel: Infinity, maxAgeMs: Infinity, ...bounds }
  }

  append(key: ChannelKey, messages: readonly Message[], answers: readonly AppendResult[] = []): AppendResult[] {
    return messages.map((message, i) => {
      const earlier = this.#repeated(key, message, answers[i])
      if (earlier !== undefined) {
        const status = Buffer.compare(earlier.original, message.payload) === 0 ? 'duplicate' : 'conflict'
        return { status, messageID: earlier.message.messageID, messageSeq: earlier.message.messageSeq }
      }
      const messageSeq = this.lastSeq(key) + 1
      const stored = { ...message, messageSeq }
      this.#entries.push({ key: channelKeyString(key), original: message.payload, message: stored, isRemoved: false })
      const held = this.#held(key)
      if (held.length > this.#bounds.maxMessagesPerChannel) this.#removeFront(key, held[0])
      return { status: 'stored', messageID: message.messageID, messageSeq }
    })
  }

  /** what can be read, in seq order */
  messages(key: ChannelKey): Message[] {
    return this.#held(key)
      .map((entry) => entry.message)
      .filter((message) => !isExpired(message, this.#nowMs()))
  }

  range(key: ChannelKey, { startSeq, endSeq, limit = 100, direction }: RangeQuery): Message[] {
    const [low, high] = direction === 'backward' ? [endSeq ?? 0, startSeq ?? Infinity] : [startSeq ?? 0, endSeq ?? Infinity]
    const inside = this.messages(key).filter(({ messageSeq }) => messageSeq >= low && messageSeq <= high)
    return (direction === 'backward' ? inside.reverse() : inside).slice(0, limit)
  }

  lastSeq(key: ChannelKey): number {
    return this.#ever(key).length
  }

  find(key: ChannelKey, fromUID: string, clientMsgNo: string): Message | undefined {
    if (clientMsgNo === '') return undefined
    return this.messages(key).find((message) => message.fromUID === fromUID && message.clientMsgNo === clientMsgNo)
  }

  get(messageID: string): Message | undefined {
    const found = this.#entries.find((entry) => !entry.isRemoved && entry.message.messageID === messageID)
    return found === undefined || isExpired(found.message, this.#nowMs()) ? undefined : found.message
  }

  /** @returns the least and the most it may say it removed: what has expired may count until it is swept away */
  truncate(key: ChannelKey, beforeSeq: number): readonly [least: number, most: number] {
    const below = this.#held(key).filter(({ message }) => message.messageSeq < beforeSeq)
    const least = below.filter(({ message }) => !isExpired(message, this.#nowMs())).length
    for (const entry of below) entry.isRemoved = true
    this.#raiseFloor(key, Math.min(beforeSeq - 1, this.lastSeq(key)))
    return [least, below.length]
  }

  revise(key: ChannelKey, messageSeq: number, change: MessageChange): Message | undefined {
    const entry = this.#held(key).find(({ message }) => message.messageSeq === messageSeq)
    if (entry === undefined || isExpired(entry.message, this.#nowMs())) return undefined
    if (entry.message.revision?.kind === 'recalled') return entry.message
    const { kind, byUID, timestampMs } = change
    const revision = { kind, version: (entry.message.revision?.version ?? 0) + 1, byUID, timestampMs }
    entry.message = { ...entry.message, payload: change.kind === 'edited' ? change.payload : new Uint8Array(0), revision }
    return entry.message
  }

  /** @returns how many it removed */
  sweep(nowMs: number): number {
    let removedCount = 0
    for (const entry of this.#entries.filter(({ message, isRemoved }) => !isRemoved && isExpired(message, nowMs))) {
      entry.isRemoved = true
      removedCount++
    }
    // Time only goes forwards in a walk, so that what is too old is at the front.
    for (const entry of this.#entries) {
      if (entry.isRemoved || entry.message.timestampMs + this.#bounds.maxAgeMs >= nowMs) continue
      this.#removeFront(entry.message, entry)
      removedCount++
    }
    return removedCount
  }

  /** `floorSeq` is the least it may be: numbers at the front that are no longer there may or may not raise it. */
  summary(uid: string, key: ChannelKey): ChannelSummary {
    const ever = this.#ever(key)
    const sentSeq = ever.findLast((entry) => entry.message.fromUID === uid)?.message.messageSeq ?? 0
    const lastTimestampMs = ever.at(-1)?.message.timestampMs ?? 0
    return { lastSeq: ever.length, floorSeq: this.#floors.get(channelKeyString(key)) ?? 0, lastTimestampMs, sentSeq }
  }

  /** the most `floorSeq` may be: there is a message above it, or nothing */
  highestFloor(key: ChannelKey): number {
    return (this.#held(key)[0]?.message.messageSeq ?? this.lastSeq(key) + 1) - 1
  }

  /** with what has expired and has not been swept away */
  countAfter(key: ChannelKey, afterSeq: number): number {
    return this.#held(key).filter(({ message }) => isUnreadAfter(message, afterSeq)).length
  }

  /** without it */
  readableCountAfter(key: ChannelKey, afterSeq: number): number {
    return this.messages(key).filter((message) => isUnreadAfter(message, afterSeq)).length
  }

  personChannelsOf(uid: string): string[] {
    const ids = this.#entries
      .map((entry) => entry.message)
      .filter((message) => message.channelType === ChannelType.Person)
      .filter((message) => personChannelUIDs(message.channelID)?.includes(uid))
      .map((message) => message.channelID)
    return [...new Set(ids)]
  }

  #ever(key: ChannelKey): ModelEntry[] {
    return this.#entries.filter((entry) => entry.key === channelKeyString(key))
  }

  #held(key: ChannelKey): ModelEntry[] {
    return this.#ever(key).filter((entry) => !entry.isRemoved)
  }

  /** What a new message repeats. What has expired or was removed may be recognised, and may be forgotten. */
  #repeated(key: ChannelKey, { fromUID, clientMsgNo }: Message, answer: AppendResult | undefined): ModelEntry | undefined {
    if (clientMsgNo === '') return undefined
    const same = this.#ever(key).filter(({ message }) => message.fromUID === fromUID && message.clientMsgNo === clientMsgNo)
    const readable = same.find((entry) => !entry.isRemoved && !isExpired(entry.message, this.#nowMs()))
    if (readable !== undefined) return readable
    if (answer === undefined) return same.find((entry) => !entry.isRemoved)
    return answer.status === 'stored' ? undefined : same.find(({ message }) => message.messageSeq === answer.messageSeq)
  }

  #removeFront(key: ChannelKey, entry: ModelEntry | undefined): void {
    if (entry === undefined) return
    entry.isRemoved = true
    this.#raiseFloor(key, entry.message.messageSeq)
  }

  #raiseFloor(key: ChannelKey, seq: number): void {
    const name = channelKeyString(key)
    this.#floors.set(name, Math.max(this.#floors.get(name) ?? 0, seq))
  }
}

function isExpired({ expireSec, timestampMs }: Message, nowMs: number): boolean {
  return expireSec > 0 && timestampMs + expireSec * 1000 <= nowMs
}

function isUnreadAfter({ messageSeq, revision }: Message, afterSeq: number): boolean {
  return messageSeq > afterSeq && revision?.kind !== 'recalled'
}
