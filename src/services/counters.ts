import type { Counts } from '../contracts/metrics.ts'
import type { CloseCause } from '../contracts/handler.ts'
import type { IMErrorCode } from '../errors.ts'
import { Latencies } from '../model/latency.ts'

/** What happens seldom, counted by two words. */
export class Tally<A extends string, B extends string> {
  readonly #counts = new Map<A, Map<B, number>>()

  add(first: A, second: B): void {
    let inner = this.#counts.get(first)
    if (inner === undefined) this.#counts.set(first, (inner = new Map<B, number>()))
    inner.set(second, (inner.get(second) ?? 0) + 1)
  }

  *entries(): Generator<readonly [A, B, number]> {
    for (const [first, inner] of this.#counts) for (const [second, count] of inner) yield [first, second, count]
  }
}

/** Times that gather during a turn, in memory that is kept for the next one: an array that is emptied gives its memory back. */
class Times {
  count = 0
  #values = new Float64Array(256)

  add(atMs: number): void {
    if (this.count === this.#values.length) {
      const larger = new Float64Array(2 * this.count)
      larger.set(this.#values)
      this.#values = larger
    }
    this.#values[this.count++] = atMs
  }

  tell(nowMs: number, latencies: Latencies): void {
    for (let index = 0; index < this.count; index++) latencies.observe(nowMs - this.#values[index]!)
    this.count = 0
  }
}

/**
 * What one engine counts while it works. One object with all its fields from the start, because they are added to for every
 * frame: an addition is all that a frame pays.
 */
export class Counters implements Counts {
  readonly framesIn = new Float64Array(16)
  readonly sendacks = new Float64Array(256)
  readonly sendToSendack = new Latencies()
  readonly sendToRecv = new Latencies()
  readonly refused = new Tally<CloseCause, string>()
  readonly closed = new Map<CloseCause, number>()
  readonly errors = new Map<IMErrorCode, number>()
  openedCount = 0
  slowDisconnectedCount = 0
  slowSkippedCount = 0
  leftOutCount = 0
  forgottenCount = 0
  unauthenticatedRejectedCount = 0
  storedCount = 0
  repeatedCount = 0
  pushedCount = 0
  redeliveredCount = 0
  replayedCount = 0
  undeliveredCount = 0
  replayCount = 0
  beforeSendCount = 0
  notifiedCount = 0
  failedNotifyCount = 0
  givenUpCount = 0
  outboxRejectedCount = 0
  peerPushedCount = 0
  peerFailedCount = 0
  peerGivenUpCount = 0
  peerRejectedCount = 0
  peerReceivedCount = 0
  peerKickCount = 0
  peerKickFailedCount = 0
  /** arrival times of what leaves with the next write */
  readonly #answering = new Times()
  readonly #pushing = new Times()

  answering(receivedAtMs: number): void {
    this.#answering.add(receivedAtMs)
  }

  pushing(receivedAtMs: number): void {
    this.#pushing.add(receivedAtMs)
  }

  /** Is anything to be told to `written`? */
  get isTiming(): boolean {
    return this.#answering.count > 0 || this.#pushing.count > 0
  }

  /** Everything that has gathered has been written: one look at the clock for all of it. */
  written(nowMs: number): void {
    this.#answering.tell(nowMs, this.sendToSendack)
    this.#pushing.tell(nowMs, this.sendToRecv)
  }

  ended(cause: CloseCause): void {
    this.closed.set(cause, (this.closed.get(cause) ?? 0) + 1)
  }

  failed(code: IMErrorCode): void {
    this.errors.set(code, (this.errors.get(code) ?? 0) + 1)
  }
}
