import { LRUCache } from 'lru-cache'
import type { Message } from '../model/message.ts'

/** What was answered to a message, so that its repeat gets the same. */
export interface Original {
  readonly messageID: string
  readonly messageSeq: number
  readonly payload: Uint8Array
}

/** what an entry weighs besides its payload and key, about */
const ENTRY_BYTES = 256

/**
 * The last messages by (channel, sender, clientMsgNo), in front of the store's own index: a repeat that comes soon, as
 * most do, is answered without asking the store, and messages that are stored nowhere are recognised here only. Beyond
 * either bound the least recently seen is forgotten; stored ones are then still found by the store.
 */
export class RecentMessages {
  readonly #recent: LRUCache<string, Original>

  constructor({ maxCount, maxBytes }: { readonly maxCount: number; readonly maxBytes: number }) {
    const sizeCalculation = ({ payload }: Original, key: string): number => ENTRY_BYTES + payload.length + 2 * key.length
    this.#recent = new LRUCache({ max: maxCount, maxSize: maxBytes, sizeCalculation })
  }

  find(channel: string, message: Message): Original | undefined {
    if (this.#recent.size === 0) return undefined
    return this.#recent.get(keyOf(channel, message))
  }

  remember(channel: string, message: Message): void {
    if (message.clientMsgNo === '') return
    const { messageID, messageSeq, payload } = message
    this.#recent.set(keyOf(channel, message), { messageID, messageSeq, payload })
  }
}

/** Unambiguous: a uid holds no control character, and the channel's length says where it ends. */
function keyOf(channel: string, message: Message): string {
  return `${channel.length}:${channel}${message.fromUID}\u0000${message.clientMsgNo}`
}
