import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import type { Reach } from '../model/reach.ts'
import { KeyedQueue } from './keyed-queue.ts'
import { runInOrder, type PoolBounds, type QueueGauge } from './user-pool.ts'

/** Messages that are to reach a channel's members. */
export interface HandOver<S> {
  readonly sources: readonly S[]
  /** whom they are for instead of the members */
  readonly receivers: readonly string[] | undefined
  readonly reach: Reach
  readonly queueBytes: number
  /** not all of the members could be found out */
  failed(reason: unknown): void
}

export interface HandOverPoolOptions<S> extends PoolBounds {
  /** Give them to all they are for, page by page; a promise while that takes time. */
  readonly deliver: (channel: string, handOver: Pick<HandOver<S>, 'sources' | 'receivers' | 'reach'>) => MaybePromise<void>
  readonly schedule: () => void
  readonly report: (defect: unknown) => void
}

interface Waiting<S> {
  readonly handOver: HandOver<S>
  /** it has begun before it was queued */
  readonly running: Promise<void> | undefined
  /** to be called in its place: there is nothing to hand over */
  readonly action?: () => void
}

/**
 * From the channels to the pushers: who is to get a channel's messages is read page by page, and a large channel takes as long
 * as its receivers' pushes do. Its store goes on meanwhile, and what gathers is handed over together, in order. A channel
 * whose members are at hand never waits here.
 */
export class HandOverPool<S> {
  readonly #queue: KeyedQueue<Waiting<S>>
  readonly #options: HandOverPoolOptions<S>

  constructor(options: HandOverPoolOptions<S>) {
    this.#options = options
    this.#queue = new KeyedQueue({
      ...options,
      run: (channel, batch) => this.#run(channel, batch),
      bytesOf: ({ handOver }) => handOver.queueBytes,
    })
  }

  get depth(): number {
    return this.#queue.depth
  }

  get gauge(): QueueGauge {
    return this.#queue
  }

  /** At once when nothing of the channel is under way. What is stored may not be turned away: ask `isFull` before storing. */
  submit(channel: string, handOver: HandOver<S>): void {
    const isFirst = this.#queue.countOf(channel) === 0
    const running = isFirst ? this.#deliver(channel, [handOver]) : undefined
    if (!isFirst || isPromise(running)) this.#queue.submitAlways(channel, { handOver, running: running as Promise<void> | undefined })
  }

  /** Call `action` when everything that the channel has to hand over by now has been handed over; at once if it has. */
  behind(channel: string, action: () => void): void {
    if (this.#queue.countOf(channel) === 0) return action()
    this.#queue.submitAlways(channel, { handOver: NOTHING, running: undefined, action })
  }

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

  drain(): void {
    this.#queue.drain()
  }

  idle(): Promise<void> {
    return this.#queue.idle()
  }

  #run(channel: string, batch: readonly Waiting<S>[]): void | Promise<void> {
    const [first] = batch
    if (first?.running !== undefined) return first.running.then(() => this.#run(channel, batch.slice(1)))
    const run = (group: readonly Waiting<S>[]): void | Promise<void> => {
      const { action } = group[0]!
      return action === undefined ? this.#deliver(channel, group.map(({ handOver }) => handOver)) : action()
    }
    return runInOrder(this.#together(batch), run, this.#options.report)
  }

  /** Those that follow each other and are for the same receivers, as many messages as make up one batch. */
  #together(batch: readonly Waiting<S>[]): Waiting<S>[][] {
    const groups: Waiting<S>[][] = []
    let count = 0
    for (const waiting of batch) {
      const { handOver, action } = waiting
      const group = groups.at(-1)
      const last = group?.at(-1)
      const isAlike = last?.handOver.receivers === handOver.receivers && last?.handOver.reach === handOver.reach
      const isDelivery = action === undefined && last?.action === undefined
      if (group !== undefined && isDelivery && isAlike && count + handOver.sources.length <= this.#options.maxBatchCount) {
        group.push(waiting)
        count += handOver.sources.length
      } else {
        groups.push([waiting])
        count = handOver.sources.length
      }
    }
    return groups
  }

  /** Never throws or rejects. */
  #deliver(channel: string, group: readonly HandOver<S>[]): void | Promise<void> {
    const { receivers, reach } = group[0]!
    const sources = group.length === 1 ? group[0]!.sources : group.flatMap((handOver) => handOver.sources)
    const failed = (reason: unknown): void => group.forEach((handOver) => handOver.failed(reason))
    try {
      const delivering = this.#options.deliver(channel, { sources, receivers, reach })
      if (isPromise(delivering)) return delivering.then(undefined, failed)
    } catch (reason) {
      failed(reason)
    }
  }
}

const NOTHING: HandOver<never> = { sources: [], receivers: undefined, reach: 'all', queueBytes: 0, failed: () => undefined }
