import type { HeldMessage } from './held-message.ts'

/**
 * The messages that will not be kept for ever, the one that ends first on top. A message knows its place, so that one which
 * leaves the store before its end leaves the heap as well: it never holds more than the store does.
 *
 * Invariant: nobody ends before the one at `(index - 1) >> 1`, and `message.heapIndex` is where the message is.
 */
export class EndingHeap {
  readonly #heap: HeldMessage[] = []

  get next(): HeldMessage | undefined {
    return this.#heap[0]
  }

  /** Up to `maxCount` of those that have expired, and not only become too old. They stay. */
  expired(nowMs: number, maxCount: number): HeldMessage[] {
    const expired: HeldMessage[] = []
    const indexes = [0]
    for (let index = indexes.pop(); index !== undefined && expired.length < maxCount; index = indexes.pop()) {
      const message = this.#heap[index]
      if (message === undefined || message.endsAtMs > nowMs) continue // and nobody below ends before
      if (message.isExpiredAt(nowMs)) expired.push(message)
      indexes.push(2 * index + 2, 2 * index + 1)
    }
    return expired
  }

  add(message: HeldMessage): void {
    this.#heap.push(message)
    this.#rise(message, this.#heap.length - 1)
  }

  remove(message: HeldMessage): void {
    const index = message.heapIndex
    if (index < 0) return
    message.heapIndex = -1
    const last = this.#heap.pop()
    if (last === undefined || last === message) return
    this.#rise(last, index)
    this.#sink(last, last.heapIndex)
  }

  #rise(message: HeldMessage, from: number): void {
    let index = from
    while (index > 0) {
      const above = this.#heap[(index - 1) >> 1]
      if (above === undefined || above.endsAtMs <= message.endsAtMs) break
      this.#put(above, index)
      index = (index - 1) >> 1
    }
    this.#put(message, index)
  }

  #sink(message: HeldMessage, from: number): void {
    let index = from
    for (;;) {
      const left = 2 * index + 1
      const isRightFirst = (this.#heap[left + 1]?.endsAtMs ?? Infinity) < (this.#heap[left]?.endsAtMs ?? Infinity)
      const belowIndex = isRightFirst ? left + 1 : left
      const below = this.#heap[belowIndex]
      if (below === undefined || below.endsAtMs >= message.endsAtMs) break
      this.#put(below, index)
      index = belowIndex
    }
    this.#put(message, index)
  }

  #put(message: HeldMessage, index: number): void {
    this.#heap[index] = message
    message.heapIndex = index
  }
}
