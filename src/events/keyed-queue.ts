import { isPromise } from '../model/maybe-promise.ts'

export interface KeyedQueueOptions<E> {
  /**
   * Handle one key's batch, in order. While a returned promise is pending, the key's next batch gathers. What an event
   * does wrong is that event's business: a throw or a rejection here is a defect, told to `report`, and stops no other key.
   */
  readonly run: (key: string, batch: readonly E[]) => void | Promise<void>
  readonly report: (defect: unknown) => void
  /** Asked when a key is ready: until it resolves, its batch is not taken, and more of its events gather. Must not throw or reject. */
  readonly gather?: ((key: string, waiting: readonly E[]) => Promise<void> | undefined) | undefined
  /** Called when keys have become ready: somebody must call `drain` soon. */
  readonly schedule: () => void
  /** What the event counts towards the byte bounds; always the same for one event. */
  readonly bytesOf: (event: E) => number
  readonly maxEventsPerKey: number
  readonly maxBytesPerKey: number
  readonly maxEvents: number
  readonly maxBytes: number
  /** events handed to `run` at once, at most */
  readonly maxBatchCount: number
  /** to tell how long the oldest event has been here; without it nobody is going to ask */
  readonly time?: QueueTime
}

/** Whole milliseconds, monotonic. */
export interface QueueTime {
  /** the time when `schedule` was called last, or later */
  readonly nowMs: number
  read(): number
}

const NO_TIME: QueueTime = { nowMs: 0, read: () => 0 }

/** The events of one key. Exists only while it has any. */
interface Lane<E> {
  readonly key: string
  waiting: E[]
  /** when the first of `waiting` came, and the first of what runs; -1 for nothing. What a full batch has left keeps its time */
  waitingSinceMs: number
  runningSinceMs: number
  /** waiting and running */
  count: number
  bytes: number
  /** told once when the lane has fallen to half of its bound */
  reliefs: (() => void)[] | undefined
  /** told once when the lane has no more events than they name */
  lows: { readonly count: number; readonly reached: () => void }[] | undefined
}

/**
 * A queue per key: strictly first in, first out within a key and never two batches of one key at a time; different keys
 * do not wait for each other. An event counts until its batch has been handled, so the bounds hold for work under way.
 *
 * Invariant: a lane is in `lanes` from the submit that made it until a batch ends with nothing waiting, and during all
 * that time it is in `ready`, gathering or running, in one of them: `submit` puts it in `ready` only when it makes it.
 */
export class KeyedQueue<E> {
  readonly #options: KeyedQueueOptions<E>
  readonly #time: QueueTime
  readonly #lanes = new Map<string, Lane<E>>()
  #ready: Lane<E>[] = []
  #count = 0
  #bytes = 0
  #rejectedCount = 0
  #reliefs: (() => void)[] = []
  #idleWaiters: (() => void)[] = []

  constructor(options: KeyedQueueOptions<E>) {
    this.#options = options
    this.#time = options.time ?? NO_TIME
  }

  /** Events waiting or being handled. */
  get depth(): number {
    return this.#count
  }

  /** Submits that were turned away at a bound, since the start, and what `turnsAway` was true for. */
  get rejectedCount(): number {
    return this.#rejectedCount
  }

  /** How full it is, of events or of bytes: 1 is the bound, and what is submitted past it makes it more. */
  get fullness(): number {
    return Math.max(this.#count / this.#options.maxEvents, this.#bytes / this.#options.maxBytes)
  }

  /** How long the oldest event has been waiting or running; 0 when there is none. Looks at every lane. */
  oldestMs(nowMs: number): number {
    let sinceMs = nowMs
    for (const { waitingSinceMs, runningSinceMs } of this.#lanes.values()) {
      const laneSinceMs = runningSinceMs >= 0 ? runningSinceMs : waitingSinceMs
      if (laneSinceMs >= 0 && laneSinceMs < sinceMs) sinceMs = laneSinceMs
    }
    return nowMs - sinceMs
  }

  /** `isFull`, from somebody who turns the event away if so. */
  turnsAway(key: string, bytes: number): boolean {
    const isFull = this.isFull(key, bytes)
    if (isFull) this.#rejectedCount++
    return isFull
  }

  /** Would `submit` of an event of this size be turned away? */
  isFull(key: string, bytes: number): boolean {
    const options = this.#options
    if (this.#count >= options.maxEvents || this.#bytes + bytes > options.maxBytes) return true
    const lane = this.#lanes.get(key)
    return lane !== undefined && (lane.count >= options.maxEventsPerKey || lane.bytes + bytes > options.maxBytesPerKey)
  }

  /** @returns false at a bound: the event was not taken, and the caller must tell whoever sent it */
  submit(key: string, event: E): boolean {
    const options = this.#options
    const bytes = options.bytesOf(event)
    const lane = this.#lanes.get(key)
    if (
      this.#count >= options.maxEvents ||
      this.#bytes + bytes > options.maxBytes ||
      (lane !== undefined && (lane.count >= options.maxEventsPerKey || lane.bytes + bytes > options.maxBytesPerKey))
    ) {
      this.#rejectedCount++
      return false
    }
    this.#enter(key, lane, event, bytes)
    return true
  }

  /**
   * Submit what must not be lost, past the bounds: a connection's end, pushes of messages that are stored. What feeds it is
   * bounded elsewhere (connections; accepted messages).
   */
  submitAlways(key: string, event: E): void {
    this.#enter(key, this.#lanes.get(key), event, this.#options.bytesOf(event))
  }

  /** Call `relieved` once, when the key (and the queue as a whole) has fallen to half of its bound; at once if it has. */
  onceRelieved(key: string, relieved: () => void): void {
    const lane = this.#lanes.get(key)
    if (lane !== undefined && !this.#isLaneRelieved(lane)) (lane.reliefs ??= []).push(() => this.onceRelieved(key, relieved))
    else if (!this.#isRelieved()) this.#reliefs.push(() => this.onceRelieved(key, relieved))
    else relieved()
  }

  /** The key's events waiting or being handled. */
  countOf(key: string): number {
    return this.#lanes.get(key)?.count ?? 0
  }

  /** Call `reached` once, when the key has at most `count` events; at once if it has. */
  onceAtMost(key: string, count: number, reached: () => void): void {
    const lane = this.#lanes.get(key)
    if (lane === undefined || lane.count <= count) reached()
    else (lane.lows ??= []).push({ count, reached })
  }

  /** Run every key that is ready now; keys that become ready meanwhile wait for the next call. */
  drain(): void {
    const ready = this.#ready
    if (ready.length === 0) return
    this.#ready = []
    for (const lane of ready) this.#gather(lane)
  }

  /** Resolves when nothing is waiting or being handled. */
  idle(): Promise<void> {
    if (this.#count === 0) return Promise.resolve()
    return new Promise((resolve) => this.#idleWaiters.push(resolve))
  }

  #enter(key: string, lane: Lane<E> | undefined, event: E, bytes: number): void {
    this.#count++
    this.#bytes += bytes
    if (lane === undefined) {
      // The first event makes the array: pushed to an empty one, it would make room for 17, and most lanes have one.
      const opened: Lane<E> = { key, waiting: [event], waitingSinceMs: -1, runningSinceMs: -1, count: 1, bytes, reliefs: undefined, lows: undefined }
      this.#lanes.set(key, opened)
      this.#makeReady(opened)
      opened.waitingSinceMs = this.#time.nowMs // looked at by now: a turn has been asked for
      return
    }
    if (lane.waiting.length === 0) lane.waitingSinceMs = this.#time.read() // once while a batch runs
    lane.waiting.push(event)
    lane.count++
    lane.bytes += bytes
  }

  #makeReady(lane: Lane<E>): void {
    this.#ready.push(lane)
    if (this.#ready.length === 1) this.#options.schedule()
  }

  #gather(lane: Lane<E>): void {
    const gathering = this.#options.gather?.(lane.key, lane.waiting)
    if (gathering === undefined) this.#run(lane)
    else void gathering.then(() => this.#run(lane))
  }

  #run(lane: Lane<E>): void {
    const batch = this.#take(lane)
    try {
      const running = this.#options.run(lane.key, batch)
      if (isPromise(running)) {
        running.then(
          () => this.#finish(lane, batch),
          (defect: unknown) => {
            this.#options.report(defect)
            this.#finish(lane, batch)
          },
        )
        return
      }
    } catch (defect) {
      this.#options.report(defect)
    }
    this.#finish(lane, batch)
  }

  #take(lane: Lane<E>): readonly E[] {
    const { maxBatchCount } = this.#options
    lane.runningSinceMs = lane.waitingSinceMs
    if (lane.waiting.length > maxBatchCount) return lane.waiting.splice(0, maxBatchCount)
    const batch = lane.waiting
    lane.waiting = []
    lane.waitingSinceMs = -1
    return batch
  }

  #finish(lane: Lane<E>, batch: readonly E[]): void {
    let bytes = 0
    for (const event of batch) bytes += this.#options.bytesOf(event)
    lane.runningSinceMs = -1
    lane.count -= batch.length
    lane.bytes -= bytes
    this.#count -= batch.length
    this.#bytes -= bytes
    if (lane.waiting.length > 0) this.#makeReady(lane)
    else this.#lanes.delete(lane.key)
    if (lane.lows !== undefined) this.#tellLows(lane, lane.lows)
    if (lane.reliefs !== undefined && this.#isLaneRelieved(lane)) {
      const reliefs = lane.reliefs
      lane.reliefs = undefined
      for (const relieved of reliefs) relieved()
    }
    if (this.#reliefs.length > 0 && this.#isRelieved()) {
      const reliefs = this.#reliefs
      this.#reliefs = []
      for (const relieved of reliefs) relieved()
    }
    if (this.#count === 0 && this.#idleWaiters.length > 0) {
      const waiters = this.#idleWaiters
      this.#idleWaiters = []
      for (const resolve of waiters) resolve()
    }
  }

  #tellLows(lane: Lane<E>, lows: NonNullable<Lane<E>['lows']>): void {
    const { count } = lane
    const left = lows.filter((low) => low.count < count)
    lane.lows = left.length > 0 ? left : undefined
    for (const low of lows) if (low.count >= count) low.reached()
  }

  #isLaneRelieved(lane: Lane<E>): boolean {
    return lane.count <= this.#options.maxEventsPerKey / 2 && lane.bytes <= this.#options.maxBytesPerKey / 2
  }

  #isRelieved(): boolean {
    return this.#count <= this.#options.maxEvents / 2 && this.#bytes <= this.#options.maxBytes / 2
  }
}
