import type { Message } from '../model/message.ts'

/** what an entry weighs besides its texts and payload, about */
const ENTRY_BYTES = 256

/**
 * The last messages by (channel, sender, clientMsgNo), in front of the store's own index: a repeat that comes soon, as
 * most do, is answered without asking the store, and messages that are stored nowhere are recognised here only. Beyond
 * either bound those are forgotten that have not been seen for longest; stored ones are then still found by the store.
 *
 * Two generations of at most half of the bounds each: a message enters the young one, and once more when it is seen in the old
 * one; when the young one is full, the old one is forgotten as a whole. An LRU cache, which moves every single entry, took
 * several times as long, for every message.
 */
export class RecentMessages {
  readonly #maxCount: number
  readonly #maxBytes: number
  #young = new Map<string, Message>()
  #old = new Map<string, Message>()
  #youngBytes = 0

  constructor({ maxCount, maxBytes }: { readonly maxCount: number; readonly maxBytes: number }) {
    this.#maxCount = maxCount / 2
    this.#maxBytes = maxBytes / 2
  }

  /** The message that this one repeats. */
  find(channel: string, message: Message): Message | undefined {
    if (this.#young.size === 0 && this.#old.size === 0) return undefined
    const key = keyOf(channel, message)
    const young = this.#young.get(key)
    if (young !== undefined) return young
    const old = this.#old.get(key)
    if (old !== undefined) this.#add(key, old)
    return old
  }

  /** One that `find` does not know. */
  remember(channel: string, message: Message): void {
    if (message.clientMsgNo !== '') this.#add(keyOf(channel, message), message)
  }

  /** How many of one channel are known. Looks at all there are. */
  countOf(channel: string): number {
    const prefix = `${channel.length}:${channel}`
    let count = 0
    for (const key of this.#young.keys()) if (key.startsWith(prefix)) count++
    for (const key of this.#old.keys()) if (key.startsWith(prefix) && !this.#young.has(key)) count++
    return count
  }

  #add(key: string, message: Message): void {
    const bytes = ENTRY_BYTES + message.payload.length + 2 * key.length
    if (bytes > this.#maxBytes) return
    if (this.#young.size + 1 > this.#maxCount || this.#youngBytes + bytes > this.#maxBytes) {
      this.#old = this.#maxCount < 1 ? new Map<string, Message>() : this.#young // with room for one, there is no old generation
      this.#young = new Map()
      this.#youngBytes = 0
    }
    this.#young.set(key, message)
    this.#youngBytes += bytes
  }
}

/** Unambiguous: a uid holds no control character, and the channel's length says where it ends. */
function keyOf(channel: string, message: Message): string {
  return `${channel.length}:${channel}${message.fromUID}\u0000${message.clientMsgNo}`
}
