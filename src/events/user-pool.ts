import { KeyedQueue, type KeyedQueueOptions } from './keyed-queue.ts'

export type PoolBounds = Pick<
  KeyedQueueOptions<unknown>,
  'maxEventsPerKey' | 'maxBytesPerKey' | 'maxEvents' | 'maxBytes' | 'maxBatchCount'
>

/** What a pool that runs one event after the other is made of. */
export interface EventPoolOptions<E> extends PoolBounds {
  /** Run one event to its end; must not throw or reject. */
  readonly run: (event: E) => void | Promise<void>
  readonly schedule: () => void
  readonly report: (defect: unknown) => void
  readonly bytesOf: (event: E) => number
}

/**
 * UserEventPool: what clients ask, one event at a time per key. SENDs and the end of a connection queue by uid, CONNECT by
 * connection. PING and RECVACK have a lane per connection of their own, so that a SEND which waits for a slow webhook holds
 * up neither them nor the user's other devices.
 */
export class UserPool<E> {
  readonly #requests: KeyedQueue<E>
  readonly #signs: KeyedQueue<E>

  constructor(options: EventPoolOptions<E>) {
    const queueOptions: KeyedQueueOptions<E> = {
      ...options,
      run: (_key, batch) => runInOrder(batch, options.run, options.report),
    }
    this.#requests = new KeyedQueue(queueOptions)
    this.#signs = new KeyedQueue(queueOptions)
  }

  get depth(): number {
    return this.#requests.depth + this.#signs.depth
  }

  /** EventConnect. The key cannot be a uid: uids hold no control character. */
  submitConnect(connectionID: string, event: E): boolean {
    return this.#requests.submit(`\u0000${connectionID}`, event)
  }

  isFull(uid: string, bytes: number): boolean {
    return this.#requests.isFull(uid, bytes)
  }

  /** EventOnSend. */
  submitSend(uid: string, event: E): boolean {
    return this.#requests.submit(uid, event)
  }

  /** EventConnClose: must not be lost, and there is one per connection at most. */
  submitClose(uid: string, event: E): void {
    this.#requests.submitAlways(uid, event)
  }

  /** Has the connection as many signs waiting as it may? */
  isSignFull(connectionID: string): boolean {
    return this.#signs.isFull(connectionID, 0)
  }

  /** EventPing, EventRecvAck. */
  submitSign(connectionID: string, event: E): boolean {
    return this.#signs.submit(connectionID, event)
  }

  onceRelieved(uid: string, relieved: () => void): void {
    this.#requests.onceRelieved(uid, relieved)
  }

  drain(): void {
    this.#signs.drain()
    this.#requests.drain()
  }

  async idle(): Promise<void> {
    await this.#signs.idle()
    await this.#requests.idle()
  }
}

/**
 * One event after the other; a promise only from the first event that returned one. `run` is not expected to throw or
 * reject: should it, that is told to `report`, and the events behind it run all the same.
 */
export function runInOrder<E>(
  batch: readonly E[],
  run: (event: E) => void | Promise<void>,
  report: (defect: unknown) => void,
  first = 0,
): void | Promise<void> {
  for (let index = first; index < batch.length; index++) {
    try {
      const running = run(batch[index]!)
      if (running !== undefined) return running.then(undefined, report).then(() => runInOrder(batch, run, report, index + 1))
    } catch (defect) {
      report(defect)
    }
  }
}
