import { LRUCache } from 'lru-cache'
import type { Message } from '../model/message.ts'

/** Longer than any push waits in its queue, as a rule; what falls out is told by its event alone. */
const MAX_COUNT = 1_000

/** Messages that were edited or recalled lately: a push of one of them that is still on its way must not show what it was. */
export class RecentRevisions {
  readonly #messages = new LRUCache<string, Message>({ max: MAX_COUNT })

  add(message: Message): void {
    this.#messages.set(message.messageID, message)
  }

  /** The message as it is now. */
  current(message: Message): Message {
    return this.#messages.size === 0 ? message : (this.#messages.get(message.messageID) ?? message)
  }
}
