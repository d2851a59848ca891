import type { HeldMessage } from './held-message.ts'

// Below this many dropped entries the log does not bother to close the gap at its front.
const MIN_COMPACT_COUNT = 64

/**
 * What a channel has under one clientMsgNo. Nearly every number is unique, so it is the message itself; a map by sender
 * exists only where senders of one channel chose the same.
 */
type ByNumber = HeldMessage | Map<string, HeldMessage>

/**
 * The messages one channel still has, in seq order, and who has used which clientMsgNo for them.
 *
 * Invariant: entry `i` of `#entries` has seq `#baseSeq + i`; entries before `#headIndex` are dropped and undefined. Only the
 * front is ever removed, so seq to index is one subtraction and dropping costs O(1) amortised.
 */
export class ChannelLog {
  #entries: (HeldMessage | undefined)[] = []
  #headIndex = 0
  #baseSeq = 1
  readonly #byClientMsgNo = new Map<string, ByNumber>()

  get count(): number {
    return this.#entries.length - this.#headIndex
  }

  /** the lowest seq still held; lastSeq + 1 when there is none */
  get firstSeq(): number {
    return this.#baseSeq + this.#headIndex
  }

  /** the highest seq ever given; never goes down */
  get lastSeq(): number {
    return this.#baseSeq + this.#entries.length - 1
  }

  at(seq: number): HeldMessage | undefined {
    return seq < this.firstSeq ? undefined : this.#entries[seq - this.#baseSeq]
  }

  find(fromUID: string, clientMsgNo: string): HeldMessage | undefined {
    return ofSender(this.#byClientMsgNo.get(clientMsgNo), fromUID)
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
    message.messageSeq = this.lastSeq + 1
    this.#entries.push(message)
    return undefined
  }

  /** Remove the oldest message; its number is not given again. */
  dropFirst(): HeldMessage | undefined {
    const first = this.#entries[this.#headIndex]
    if (first === undefined) return undefined
    this.#entries[this.#headIndex++] = undefined
    if (first.clientMsgNo !== '') this.#forget(first)
    if (this.#headIndex >= MIN_COMPACT_COUNT && this.#headIndex * 2 >= this.#entries.length) this.#compact()
    return first
  }

  #compact(): void {
    this.#entries = this.#entries.slice(this.#headIndex)
    this.#baseSeq += this.#headIndex
    this.#headIndex = 0
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
    const found = this.#byClientMsgNo.get(message.clientMsgNo)
    if (found instanceof Map && found.size > 1) found.delete(message.fromUID)
    else this.#byClientMsgNo.delete(message.clientMsgNo)
  }
}

function ofSender(found: ByNumber | undefined, fromUID: string): HeldMessage | undefined {
  if (found instanceof Map) return found.get(fromUID)
  return found?.fromUID === fromUID ? found : undefined
}
