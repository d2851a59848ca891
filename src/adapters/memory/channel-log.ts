import type { ChannelSummary, MessageChange } from '../../contracts/message-store.ts'
import type { Message } from '../../model/message.ts'
import type { HeldMessage } from './held-message.ts'
import type { ResolvedRange } from '../../contracts/range-bounds.ts'
import { SortedSeqs } from './sorted-seqs.ts'

// Below this many dropped entries the log does not bother to close the gap at its front.
const MIN_COMPACT_COUNT = 64

/**
 * What a channel has under one clientMsgNo. Nearly every number is unique, so it is the message itself; a map by sender
 * exists only where senders of one channel chose the same.
 */
type ByNumber = HeldMessage | Map<string, HeldMessage>

/**
 * The messages one channel still has, in seq order, who has used which clientMsgNo for them, and what outlasts them: the
 * numbers that have been given, and to whom.
 *
 * Invariant: entries before `#headIndex` are dropped and undefined; from there on there is no gap, and seqs ascend. So what
 * the log holds, and what a question costs, depends on the messages that are there and not on those that were removed.
 */
export class ChannelLog {
  #entries: (HeldMessage | undefined)[] = []
  #headIndex = 0
  #lastSeq = 0
  #lastTimestampMs = 0
  /** numbers of messages up to here are forgotten */
  #numberFloorSeq = 0
  readonly #byClientMsgNo = new Map<string, ByNumber>()
  readonly #recalledSeqs = new SortedSeqs()
  readonly #sentSeqs = new Map<string, number>()

  get count(): number {
    return this.#entries.length - this.#headIndex
  }

  /** the lowest seq still held; lastSeq + 1 when there is none */
  get firstSeq(): number {
    return this.#entries[this.#headIndex]?.messageSeq ?? this.#lastSeq + 1
  }

  /** the highest seq ever given; never goes down */
  get lastSeq(): number {
    return this.#lastSeq
  }

  summary(uid: string): ChannelSummary {
    return {
      lastSeq: this.#lastSeq,
      floorSeq: this.firstSeq - 1,
      lastTimestampMs: this.#lastTimestampMs,
      sentSeq: this.#sentSeqs.get(uid) ?? 0,
    }
  }

  at(seq: number): HeldMessage | undefined {
    const found = this.#entries[this.#indexFrom(seq)]
    return found?.messageSeq === seq ? found : undefined
  }

  read({ startSeq, endSeq, step, limit }: ResolvedRange, nowMs: number): Message[] {
    const found: Message[] = []
    let index = step === 1 ? this.#indexFrom(startSeq) : this.#indexFrom(startSeq + 1) - 1
    for (; found.length < limit; index += step) {
      const message = this.#entries[index]
      if (message === undefined || (message.messageSeq - endSeq) * step > 0) break
      if (!message.isExpiredAt(nowMs)) found.push(message.toMessage())
    }
    return found
  }

  find(fromUID: string, clientMsgNo: string): HeldMessage | undefined {
    return ofSender(this.#byClientMsgNo.get(clientMsgNo), fromUID)
  }

  /** How many there are above `seq`, without those that have been recalled. */
  countAfter(seq: number): number {
    return this.#entries.length - this.#indexFrom(seq + 1) - this.#recalledSeqs.countAbove(seq)
  }

  /**
   * Give the message the next number and keep it, unless its sender has used its clientMsgNo here before.
   * @returns the earlier message then; undefined when this one is kept
   */
  add(message: HeldMessage): HeldMessage | undefined {
    if (message.clientMsgNo !== '') {
      const found = this.#byClientMsgNo.get(message.clientMsgNo)
      const earlier = ofSender(found, message.fromUID)
      if (earlier !== undefined) return earlier
      this.#remember(message, found)
    }
    message.messageSeq = ++this.#lastSeq
    this.#lastTimestampMs = message.timestampMs
    this.#sentSeqs.set(message.fromUID, message.messageSeq)
    this.#entries.push(message)
    return undefined
  }

  revise(message: HeldMessage, change: MessageChange): void {
    message.revise(change)
    if (message.isRecalled) this.#recalledSeqs.add(message.messageSeq)
  }

  /** Remove the oldest message; its number is not given again. */
  dropFirst(): HeldMessage | undefined {
    const first = this.#entries[this.#headIndex]
    if (first === undefined) return undefined
    this.#entries[this.#headIndex++] = undefined
    this.#forget(first)
    if (this.#headIndex >= MIN_COMPACT_COUNT && this.#headIndex * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#headIndex)
      this.#headIndex = 0
    }
    return first
  }

  /** Remove messages of this log, wherever they are: at the front for the price of themselves, in one pass otherwise. */
  remove(messages: ReadonlySet<HeldMessage>): void {
    let leftCount = messages.size
    for (let first = this.#entries[this.#headIndex]; first !== undefined && messages.has(first); leftCount--) {
      this.dropFirst()
      first = this.#entries[this.#headIndex]
    }
    if (leftCount === 0) return
    const kept: HeldMessage[] = []
    for (const entry of this.#entries) {
      if (entry === undefined) continue
      if (messages.has(entry)) this.#forget(entry)
      else kept.push(entry)
    }
    this.#entries = kept
    this.#headIndex = 0
  }

  /** Repeats of messages up to `seq` are not recognised any more. The messages stay. */
  forgetNumbers(seq: number): void {
    const end = this.#indexFrom(seq + 1)
    for (let index = this.#indexFrom(this.#numberFloorSeq + 1); index < end; index++) this.#forgetNumber(this.#entries[index]!)
    this.#numberFloorSeq = Math.max(this.#numberFloorSeq, seq)
  }

  /** The index of the first entry whose seq is not below `seq`. */
  #indexFrom(seq: number): number {
    let low = this.#headIndex
    let high = this.#entries.length
    if (seq > this.#lastSeq) return high
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#entries[middle]?.messageSeq ?? 0) >= seq) high = middle
      else low = middle + 1
    }
    return low
  }

  #remember(message: HeldMessage, found: ByNumber | undefined): void {
    if (found === undefined) {
      this.#byClientMsgNo.set(message.clientMsgNo, message)
    } else if (found instanceof Map) {
      found.set(message.fromUID, message)
    } else {
      const bySender = new Map([[found.fromUID, found]])
      bySender.set(message.fromUID, message)
      this.#byClientMsgNo.set(message.clientMsgNo, bySender)
    }
  }

  #forget(message: HeldMessage): void {
    if (message.isRecalled) this.#recalledSeqs.delete(message.messageSeq)
    this.#forgetNumber(message)
  }

  #forgetNumber(message: HeldMessage): void {
    if (message.clientMsgNo === '') return
    const found = this.#byClientMsgNo.get(message.clientMsgNo)
    if (ofSender(found, message.fromUID) !== message) return // it is forgotten already, and a later one may have the number since
    if (found instanceof Map && found.size > 1) found.delete(message.fromUID)
    else this.#byClientMsgNo.delete(message.clientMsgNo)
  }
}

function ofSender(found: ByNumber | undefined, fromUID: string): HeldMessage | undefined {
  if (found instanceof Map) return found.get(fromUID)
  return found?.fromUID === fromUID ? found : undefined
}
