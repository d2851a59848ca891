import { KeyedQueue, type KeyedQueueOptions } from './keyed-queue.ts'

export type PoolBounds = Pick<
  KeyedQueueOptions<unknown>,
  'maxEventsPerKey' | 'maxBytesPerKey' | 'maxEvents' | 'maxBytes' | 'maxBatchCount' | 'time'
>

/** How full a queue is. */
export type QueueGauge = Pick<KeyedQueue<unknown>, 'depth' | 'rejectedCount' | 'fullness' | 'oldestMs' | 'countOf'>

/** What a pool that runs one event after the other is made of. */
export interface EventPoolOptions<E> extends PoolBounds {
  /** Run one event to its end; must not throw or reject. */
  readonly run: (event: E) => void | Promise<void>
  readonly schedule: () => void
  readonly report: (defect: unknown) => void
  readonly bytesOf: (event: E) => number
}

/**
 * UserEventPool: what clients ask, one event at a time per key. SENDs queue by uid, CONNECT and the end of a connection by
 * connection. PING and RECVACK have a lane per connection of their own. So a SEND which waits for a slow webhook holds up none
 * of them, nor the user's other devices, and other nodes hear at once who has gone.
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

  /** EventConnect. */
  submitConnect(connectionID: string, event: E): boolean {
    return this.#requests.submit(laneOf(connectionID), event)
  }

  /** SENDs, CONNECTs and ends of connections. */
  get requests(): QueueGauge {
    return this.#requests
  }

  /** PINGs and RECVACKs. */
  get signs(): QueueGauge {
    return this.#signs
  }

  /** Has the user as much waiting as they may, so that a SEND of theirs is turned away? */
  turnsAway(uid: string, bytes: number): boolean {
    return this.#requests.turnsAway(uid, bytes)
  }

  /** EventOnSend. */
  submitSend(uid: string, event: E): boolean {
    return this.#requests.submit(uid, event)
  }

  /** EventConnClose, behind the connection's EventConnect: must not be lost, and there is one per connection at most. */
  submitClose(connectionID: string, event: E): void {
    this.#requests.submitAlways(laneOf(connectionID), event)
  }

  /** Has the connection as many signs waiting as it may, so that another one is left out? */
  turnsSignAway(connectionID: string): boolean {
    return this.#signs.turnsAway(connectionID, 0)
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

/** No uid: uids hold no control character. */
function laneOf(connectionID: string): string {
  return `\u0000${connectionID}`
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
