import { isAbove } from '../../model/int64.ts'
import type { HeldMessage } from './held-message.ts'

/** Places of messages that have left are not closed before there are so many. */
const MIN_COMPACT_COUNT = 1024

/** `HeldMessage.place` of one that has none. */
const NO_PLACE = -1

/** Messages in the order that they came in, linked to each other: any may leave, and nothing is left of it. */
class Order {
  #oldest: HeldMessage | undefined
  #newest: HeldMessage | undefined

  get oldest(): HeldMessage | undefined {
    return this.#oldest
  }

  has(message: HeldMessage): boolean {
    return message.earlier !== undefined || message === this.#oldest
  }

  add(message: HeldMessage): void {
    message.earlier = this.#newest
    if (this.#newest === undefined) this.#oldest = message
    else this.#newest.later = message
    this.#newest = message
  }

  remove(message: HeldMessage): void {
    const { earlier, later } = message
    if (earlier === undefined) this.#oldest = later
    else earlier.later = later
    if (later === undefined) this.#newest = earlier
    else later.earlier = earlier
    message.earlier = message.later = undefined
  }
}

/**
 * Messages whose ids ascend, found by their id. Of one that has left only the id stays in its place, which the search goes by;
 * and such places never make up more than half.
 */
class Ascending {
  /** undefined before `#first`; from there on messages, and ids of some that are gone, but neither as the first nor as the last */
  #places: (HeldMessage | string | undefined)[] = []
  #first = 0
  /** places of messages that are gone */
  #goneCount = 0

  /** The highest id there is. */
  get lastID(): string | undefined {
    const last = this.#places[this.#places.length - 1]
    return last === undefined ? undefined : idOf(last)
  }

  add(message: HeldMessage): void {
    message.place = this.#places.length
    this.#places.push(message)
  }

  remove(message: HeldMessage): void {
    const places = this.#places
    places[message.place] = message.messageID
    message.place = NO_PLACE
    this.#goneCount++
    while (typeof places[places.length - 1] === 'string') {
      places.pop()
      this.#goneCount--
    }
    while (typeof places[this.#first] === 'string') places[this.#first++] = undefined
    if (this.#first >= places.length) {
      this.#places = []
      this.#first = this.#goneCount = 0
    } else if (this.#goneCount >= MIN_COMPACT_COUNT && this.#goneCount * 2 >= places.length) {
      this.#compact()
    }
  }

  find(messageID: string): HeldMessage | undefined {
    const places = this.#places
    let low = this.#first
    let high = places.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (isAbove(messageID, idOf(places[middle]!))) low = middle + 1
      else high = middle
    }
    const found = places[low]
    return typeof found === 'object' && found.messageID === messageID ? found : undefined
  }

  #compact(): void {
    const messages: HeldMessage[] = []
    for (const place of this.#places) {
      if (typeof place !== 'object') continue
      place.place = messages.length
      messages.push(place)
    }
    this.#places = messages
    this.#first = this.#goneCount = 0
  }
}

/**
 * Everything a store holds, in the order of storing, and by id. Ids of one node ascend, so as good as all messages are found by
 * their place; a map, which would cost as much as all the rest of storing a message, has only those that came behind a higher id.
 * A message that has left is held by nothing here.
 */
export class Arrivals {
  readonly #all = new Order()
  readonly #ascending = new Ascending()
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
    const { lastID } = this.#ascending
    if (lastID === undefined || isAbove(message.messageID, lastID)) {
      if (this.#others.size > 0) this.#others.delete(message.messageID) // it would be found instead
      this.#ascending.add(message)
    } else {
      this.#others.set(message.messageID, message)
    }
  }

  find(messageID: string): HeldMessage | undefined {
    return this.#others.get(messageID) ?? this.#ascending.find(messageID)
  }

  /** One that has left already, or was never here, changes nothing: without neighbours it would pass for the only one there is. */
  remove(message: HeldMessage): void {
    if (!this.#all.has(message)) return
    this.#count--
    this.#all.remove(message)
    if (message.place !== NO_PLACE) this.#ascending.remove(message)
    else if (this.#others.get(message.messageID) === message) this.#others.delete(message.messageID)
  }
}

function idOf(place: HeldMessage | string): string {
  return typeof place === 'string' ? place : place.messageID
}
