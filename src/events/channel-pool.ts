import { KeyedQueue } from './keyed-queue.ts'
import type { PoolBounds, QueueGauge } from './user-pool.ts'

export interface ChannelPoolOptions<E> extends PoolBounds {
  /** Run one channel's waiting messages as one batch; must not throw or reject. */
  readonly run: (channel: string, batch: readonly E[]) => void | Promise<void>
  /** As of `KeyedQueue`. */
  readonly gather?: ((channel: string, waiting: readonly E[]) => Promise<void> | undefined) | undefined
  readonly schedule: () => void
  readonly report: (defect: unknown) => void
  readonly bytesOf: (event: E) => number
}

/**
 * ChannelEventPool: EventChannelDistribute by channel. All that waits for a channel runs as one batch, and while a batch
 * waits for the disk the next one gathers: that is the group commit. With a log it gathers until that has room for it.
 */
export class ChannelPool<E> {
  readonly #queue: KeyedQueue<E>

  constructor(options: ChannelPoolOptions<E>) {
    this.#queue = new KeyedQueue(options)
  }

  get depth(): number {
    return this.#queue.depth
  }

  get gauge(): QueueGauge {
    return this.#queue
  }

  submit(channel: string, event: E): boolean {
    return this.#queue.submit(channel, event)
  }

  onceRelieved(channel: string, relieved: () => void): void {
    this.#queue.onceRelieved(channel, relieved)
  }

  drain(): void {
    this.#queue.drain()
  }

  idle(): Promise<void> {
    return this.#queue.idle()
  }
}
