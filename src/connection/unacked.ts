import type { Message } from '../model/message.ts'

interface Entry {
  message: Message
  dueMs: number
  redeliveryCount: number
}

/**
 * Messages pushed to one connection that it has not acknowledged, oldest first. RECVACK names no channel, so this table is
 * where it is found. At `maxCount` the oldest is forgotten: it is not delivered again on this connection, and its RECVACK
 * means nothing any more.
 */
export class UnackedRecvs {
  readonly #maxCount: number
  readonly #entries = new Map<string, Entry>()

  constructor(maxCount: number) {
    this.#maxCount = maxCount
  }

  get count(): number {
    return this.#entries.size
  }

  /** When the oldest is due again. */
  get nextDueMs(): number | undefined {
    for (const entry of this.#entries.values()) return entry.dueMs
    return undefined
  }

  /** @returns what had to be forgotten for it */
  add(message: Message, dueMs: number): Message | undefined {
    const forgotten = this.#entries.size >= this.#maxCount ? this.#takeOldest() : undefined
    this.#entries.set(message.messageID, { message, dueMs, redeliveryCount: 0 })
    return forgotten
  }

  find(messageID: string): Message | undefined {
    return this.#entries.get(messageID)?.message
  }

  /** The message has changed: from now on this is what is sent again. */
  revise(message: Message): void {
    const entry = this.#entries.get(message.messageID)
    if (entry !== undefined) entry.message = message
  }

  remove(messageID: string): void {
    this.#entries.delete(messageID)
  }

  #takeOldest(): Message | undefined {
    for (const [messageID, { message }] of this.#entries) {
      this.#entries.delete(messageID)
      return message
    }
    return undefined
  }

  clear(): void {
    this.#entries.clear()
  }

  /**
   * What is due at `nowMs`: to be sent again, and due once more `afterMs` later; and what has been sent again
   * `maxRedeliveries` times and is given up.
   */
  takeDue(nowMs: number, afterMs: number, maxRedeliveries: number): { again: Message[]; givenUp: Message[] } {
    const again: Message[] = []
    const givenUp: Message[] = []
    // Entries are in order of their due time, because each one that is due moves to the end with the latest one.
    for (const [messageID, entry] of this.#entries) {
      if (entry.dueMs > nowMs) break
      this.#entries.delete(messageID)
      if (entry.redeliveryCount >= maxRedeliveries) {
        givenUp.push(entry.message)
        continue
      }
      again.push(entry.message)
      entry.redeliveryCount++
      entry.dueMs = nowMs + afterMs
      this.#entries.set(messageID, entry)
    }
    return { again, givenUp }
  }
}
