import { decimalFromHalves, isAbove, isUint64 } from '../model/int64.ts'
import type { Message } from '../model/message.ts'

interface Entry {
  message: Message
  dueMs: number
  redeliveryCount: number
  /** the client has acknowledged it, and what that means is still being decided */
  isAcknowledged: boolean
  /** settled, forgotten or given up; it stays in its place until it is the first */
  isOver: boolean
}

/** Places of entries that are over, at the front or in between, are not closed before there are so many. */
const MIN_COMPACT_COUNT = 64

/** A table of so many is searched faster than an index of it is made. */
const MAX_SEARCHED_COUNT = 8

/**
 * Messages pushed to one connection that it has not acknowledged, oldest first. RECVACK names no channel, so this table is
 * where it is found. At `maxCount` the oldest is forgotten: it is not delivered again on this connection, and its RECVACK
 * means nothing any more.
 *
 * Clients acknowledge in the order in which they are sent to, so the first entry is as good as always the one that is asked
 * for. Only for a client that does otherwise is there an index, until nothing waits for it.
 */
export class UnackedRecvs {
  readonly #maxCount: number
  /** from `#first` on, in order of their due time: one that is due moves to the end with the latest one */
  #entries: Entry[] = []
  #first = 0
  #count = 0
  #index: Map<string, Entry> | undefined
  /** of all that has ever been added: what is above it is not here yet */
  #highestID = '0'

  constructor(maxCount: number) {
    this.#maxCount = maxCount
  }

  get count(): number {
    return this.#count
  }

  /** When the oldest is due again. */
  get nextDueMs(): number | undefined {
    return this.#entries[this.#first]?.dueMs
  }

  /**
   * One that is here already, as when another node has handed it over twice, takes the place of the former.
   * @returns what had to be forgotten for it
   */
  add(message: Message, dueMs: number): Message | undefined {
    // Ids ascend as a rule, so that few are looked for.
    if (isAbove(message.messageID, this.#highestID)) this.#highestID = message.messageID
    else this.remove(message.messageID)
    const forgotten = this.#count >= this.#maxCount ? this.#entries[this.#first] : undefined
    if (forgotten !== undefined) this.#remove(forgotten)
    this.#append({ message, dueMs, redeliveryCount: 0, isAcknowledged: false, isOver: false })
    return forgotten?.message
  }

  find(messageID: string): Message | undefined {
    return this.#entryOf(messageID)?.message
  }

  /** The client has acknowledged it, and it stays until that is decided on. @returns has it not said so before? */
  noteAcknowledged(messageID: string): boolean {
    const entry = this.#entryOf(messageID)
    if (entry === undefined || entry.isAcknowledged) return false
    entry.isAcknowledged = true
    return true
  }

  /** The message has changed: from now on this is what is sent again. */
  revise(message: Message): void {
    const entry = this.#entryOf(message.messageID)
    if (entry !== undefined) entry.message = message
  }

  remove(messageID: string): void {
    const entry = this.#entryOf(messageID)
    if (entry !== undefined) this.#remove(entry)
  }

  /** Find the one whose id is `high * 2^32 + low`, and remove it. */
  take(high: number, low: number): Message | undefined {
    const first = this.#entries[this.#first]
    const isFirst = first !== undefined && isUint64(first.message.messageID, high, low)
    const entry = isFirst ? first : this.#entryOf(decimalFromHalves(high, low))
    if (entry === undefined) return undefined
    this.#remove(entry)
    return entry.message
  }

  clear(): void {
    this.#entries = []
    this.#first = this.#count = 0
    this.#index = undefined
  }

  /**
   * What is due at `nowMs`: to be sent again, and due once more `afterMs` later; and what has been sent again
   * `maxRedeliveries` times and is given up.
   */
  takeDue(nowMs: number, afterMs: number, maxRedeliveries: number): { again: Message[]; givenUp: Message[] } {
    const again: Message[] = []
    const givenUp: Message[] = []
    for (;;) {
      const entry = this.#entries[this.#first]
      if (entry === undefined || entry.dueMs > nowMs) return { again, givenUp }
      this.#remove(entry)
      if (entry.redeliveryCount >= maxRedeliveries) {
        givenUp.push(entry.message)
        continue
      }
      again.push(entry.message)
      this.#append({ ...entry, dueMs: nowMs + afterMs, redeliveryCount: entry.redeliveryCount + 1, isOver: false })
    }
  }

  #append(entry: Entry): void {
    this.#entries.push(entry)
    this.#count++
    this.#index?.set(entry.message.messageID, entry)
  }

  #entryOf(messageID: string): Entry | undefined {
    const entries = this.#entries
    const first = entries[this.#first]
    if (first === undefined || first.message.messageID === messageID) return first
    if (this.#index !== undefined) return this.#index.get(messageID)
    if (entries.length - this.#first <= MAX_SEARCHED_COUNT) {
      return entries.find((entry, index) => index > this.#first && !entry.isOver && entry.message.messageID === messageID)
    }
    this.#index = new Map()
    for (let index = this.#first; index < entries.length; index++) {
      const entry = entries[index]!
      if (!entry.isOver) this.#index.set(entry.message.messageID, entry)
    }
    return this.#index.get(messageID)
  }

  #remove(entry: Entry): void {
    entry.isOver = true
    this.#count--
    if (this.#count === 0) return this.clear()
    if (this.#index?.get(entry.message.messageID) === entry) this.#index.delete(entry.message.messageID)
    // The first one is never over, so that whoever looks for it need not search.
    while (this.#entries[this.#first]!.isOver) this.#first++
    // Also when the first one stays for ever: at most half of the places are of entries that are over.
    if (this.#entries.length - this.#count < Math.max(MIN_COMPACT_COUNT, this.#count)) return
    this.#entries = this.#entries.filter((each) => !each.isOver)
    this.#first = 0
  }
}
