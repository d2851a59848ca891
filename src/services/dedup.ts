import type { Message } from '../model/message.ts'

/** what an entry weighs besides its texts and payload, about */
const ENTRY_BYTES = 256

/** Nearly every number is unique, so it is the message itself; a list only where several senders or channels have one of it. */
type ByNumber = Message | Message[]

/**
 * The last messages by (channel, sender, clientMsgNo), in front of the store's own index: a repeat that comes soon, as
 * most do, is answered without asking the store, and messages that are stored nowhere are recognised here only. Beyond
 * either bound those are forgotten that have not been seen for longest; stored ones are then still found by the store.
 *
 * Two generations of at most half of the bounds each: a message enters the young one, and once more when it is seen in the old
 * one; when the young one is full, the old one is forgotten as a whole. An LRU cache, which moves every single entry, took ten
 * times as long, for every message.
 */
export class RecentMessages {
  readonly #maxCount: number
  readonly #maxBytes: number
  #young = new Map<string, ByNumber>()
  #old = new Map<string, ByNumber>()
  #youngCount = 0
  #youngBytes = 0

  constructor({ maxCount, maxBytes }: { readonly maxCount: number; readonly maxBytes: number }) {
    this.#maxCount = maxCount / 2
    this.#maxBytes = maxBytes / 2
  }

  /** The message that this one repeats. */
  find(message: Message): Message | undefined {
    if (this.#youngCount === 0 && this.#old.size === 0) return undefined
    const young = matching(this.#young.get(message.clientMsgNo), message)
    if (young !== undefined || this.#old.size === 0) return young
    const old = matching(this.#old.get(message.clientMsgNo), message)
    if (old !== undefined) this.#add(old)
    return old
  }

  remember(message: Message): void {
    if (message.clientMsgNo !== '' && this.find(message) === undefined) this.#add(message)
  }

  #add(message: Message): void {
    const { clientMsgNo, channelID, fromUID, payload } = message
    const bytes = ENTRY_BYTES + payload.length + 2 * (clientMsgNo.length + channelID.length + fromUID.length)
    if (bytes > this.#maxBytes) return
    if (this.#youngCount + 1 > this.#maxCount || this.#youngBytes + bytes > this.#maxBytes) {
      this.#old = this.#maxCount < 1 ? new Map() : this.#young // with room for one, there is no old generation
      this.#young = new Map()
      this.#youngCount = this.#youngBytes = 0
    }
    const others = this.#young.get(clientMsgNo)
    if (others === undefined) this.#young.set(clientMsgNo, message)
    else if (Array.isArray(others)) others.push(message)
    else this.#young.set(clientMsgNo, [others, message])
    this.#youngCount++
    this.#youngBytes += bytes
  }
}

function matching(found: ByNumber | undefined, message: Message): Message | undefined {
  if (found === undefined) return undefined
  if (Array.isArray(found)) return found.find((each) => isSame(each, message))
  return isSame(found, message) ? found : undefined
}

function isSame(a: Message, b: Message): boolean {
  return a.fromUID === b.fromUID && a.channelID === b.channelID && a.channelType === b.channelType
}
