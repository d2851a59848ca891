import { KeyedQueue } from './keyed-queue.ts'
import { runInOrder, type EventPoolOptions, type QueueGauge } from './user-pool.ts'

/**
 * PusherEventPool: EventPushOnline by channel, one at a time, so that every receiver sees a channel in seq order. The
 * messages are stored by now and may not be turned away: whoever produces them asks `isFull` first and holds back.
 */
export class PusherPool<E> {
  readonly #queue: KeyedQueue<E>

  constructor(options: EventPoolOptions<E>) {
    this.#queue = new KeyedQueue({ ...options, run: (_key, batch) => runInOrder(batch, options.run, options.report) })
  }

  get depth(): number {
    return this.#queue.depth
  }

  get gauge(): QueueGauge {
    return this.#queue
  }

  submit(channel: string, event: E): void {
    this.#queue.submitAlways(channel, event)
  }

  /** Has the channel more pushes waiting than it may? Then no more SENDs for it are accepted. */
  isFull(channel: string): boolean {
    return this.#queue.isFull(channel, 0)
  }

  /** `isFull`, from somebody who turns a message away if so. */
  turnsAway(channel: string): boolean {
    return this.#queue.turnsAway(channel, 0)
  }

  onceRelieved(channel: string, relieved: () => void): void {
    this.#queue.onceRelieved(channel, relieved)
  }

  /** A promise while the channel has `high` pushes or more; resolves when no more than `low` are left. */
  room(channel: string, { high, low }: { readonly high: number; readonly low: number }): Promise<undefined> | undefined {
    if (this.#queue.countOf(channel) < high) return undefined
    return new Promise((resolve) => this.#queue.onceAtMost(channel, low, () => resolve(undefined)))
  }

  drain(): void {
    this.#queue.drain()
  }

  idle(): Promise<void> {
    return this.#queue.idle()
  }
}
