interface Waiter<T> {
  resolve(item: T): void
  reject(error: Error): void
}

/** Things that arrive under a number, and who waits for the next of them: first come, first served, each given once. */
export class Inbox<T> {
  readonly #waiting = new Map<number, Waiter<T>[]>()
  readonly #items = new Map<number, T[]>()
  #error: Error | undefined

  put(number: number, item: T): void {
    const waiter = this.#waiting.get(number)?.shift()
    if (waiter !== undefined) waiter.resolve(item)
    else pushTo(this.#items, number, item)
  }

  /** Rejects when nothing more can come; what has come before that is still given. */
  next(number: number): Promise<T> {
    const items = this.#items.get(number)
    if (items !== undefined && items.length > 0) return Promise.resolve(items.shift() as T)
    const arrives = new Promise<T>((resolve, reject) => {
      if (this.#error !== undefined) reject(this.#error)
      else pushTo(this.#waiting, number, { resolve, reject })
    })
    // A test may ask and not wait; that the connection ends then is not an error of its own.
    arrives.catch(() => {})
    return arrives
  }

  /** Nothing more will come. */
  fail(error: Error): void {
    this.#error ??= error
    for (const waiters of this.#waiting.values()) for (const waiter of waiters) waiter.reject(this.#error)
    this.#waiting.clear()
  }
}

function pushTo<T>(lists: Map<number, T[]>, number: number, item: T): void {
  const list = lists.get(number)
  if (list === undefined) lists.set(number, [item])
  else list.push(item)
}
