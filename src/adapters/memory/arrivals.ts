import { isAbove } from '../../model/int64.ts'
import type { HeldMessage } from './held-message.ts'

/** Places of messages that have left are not closed before there are so many. */
const MIN_COMPACT_COUNT = 1024

const NOTHING = Buffer.alloc(0)

/**
 * Messages in an order that they came in, of which any may leave. The oldest is at hand, and the places of those that left never
 * make up more than half.
 */
class Line {
  /** undefined before `#first`; from there on, some may be gone, but neither the first nor the last */
  #messages: (HeldMessage | undefined)[] = []
  #first = 0
  /** places of messages that are gone */
  #goneCount = 0

  get oldest(): HeldMessage | undefined {
    return this.#messages[this.#first]
  }

  get newest(): HeldMessage | undefined {
    return this.#messages[this.#messages.length - 1]
  }

  add(message: HeldMessage): void {
    this.#messages.push(message)
  }

  /** One of its messages has been marked as gone. */
  hasLost(): void {
    const messages = this.#messages
    this.#goneCount++
    while (messages[messages.length - 1]?.isGone === true) {
      messages.pop()
      this.#goneCount--
    }
    while (messages[this.#first]?.isGone === true) messages[this.#first++] = undefined
    if (this.#first >= messages.length) {
      this.#messages = []
      this.#first = this.#goneCount = 0
    } else if (this.#goneCount >= MIN_COMPACT_COUNT && this.#goneCount * 2 >= messages.length) {
      this.#messages = messages.filter((message) => message?.isGone === false)
      this.#first = this.#goneCount = 0
    }
  }

  /** In a line whose ids ascend. */
  find(messageID: string): HeldMessage | undefined {
    const messages = this.#messages
    let low = this.#first
    let high = messages.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (isAbove(messageID, messages[middle]!.messageID)) low = middle + 1
      else high = middle
    }
    const found = messages[low]
    return found?.messageID === messageID && !found.isGone ? found : undefined
  }
}

/**
 * Everything a store holds, in the order of storing, and by id. Ids of one node ascend, so as good as all messages are found by
 * their place; a map, which would cost as much as all the rest of storing a message, has only those that came behind a higher id.
 */
export class Arrivals {
  readonly #all = new Line()
  readonly #ascending = new Line()
  readonly #others = new Map<string, HeldMessage>()
  #count = 0

  get count(): number {
    return this.#count
  }

  get oldest(): HeldMessage | undefined {
    return this.#all.oldest
  }

  /** With an id that is there already, the message takes the place of the other one under it. */
  add(message: HeldMessage): void {
    this.#count++
    this.#all.add(message)
    const { newest } = this.#ascending
    message.isAscending = newest === undefined || isAbove(message.messageID, newest.messageID)
    if (message.isAscending) this.#ascending.add(message)
    else this.#others.set(message.messageID, message)
  }

  find(messageID: string): HeldMessage | undefined {
    return this.#others.get(messageID) ?? this.#ascending.find(messageID)
  }

  remove(message: HeldMessage): void {
    message.isGone = true
    message.payload = NOTHING // its place may outlast it
    this.#count--
    this.#all.hasLost()
    if (message.isAscending) this.#ascending.hasLost()
    else if (this.#others.get(message.messageID) === message) this.#others.delete(message.messageID)
  }
}
