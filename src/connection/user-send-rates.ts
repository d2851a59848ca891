import { TokenBucket } from './token-bucket.ts'

/** A bucket that nobody has asked for so long is full again: a new one says the same. */
const FULL_AFTER_MS = 1_000

/**
 * One bucket per user, whatever their number of connections, and whether these last or not: logging in again earns
 * nothing. Kept are the users who have tried to send within the last two seconds.
 */
export class UserSendRates {
  readonly #perSecond: number
  /**
   * Buckets asked for since the last turn, and those asked for only before it. At a turn, a second after the last one at
   * the earliest, what is still among the older ones has not been asked for all that time, and is forgotten in one go.
   */
  #recent = new Map<string, TokenBucket>()
  #older = new Map<string, TokenBucket>()
  #turnedAtMs: number

  constructor(perSecond: number, nowMs: number) {
    this.#perSecond = perSecond
    this.#turnedAtMs = nowMs
  }

  /** Buckets that are kept. */
  get count(): number {
    return this.#recent.size + this.#older.size
  }

  /** @returns false when the user has sent as much as allowed */
  take(uid: string, nowMs: number): boolean {
    if (nowMs - this.#turnedAtMs >= FULL_AFTER_MS) this.#turn(nowMs)
    let bucket = this.#recent.get(uid)
    if (bucket === undefined) {
      bucket = this.#older.get(uid) ?? new TokenBucket(this.#perSecond, nowMs)
      this.#older.delete(uid)
      this.#recent.set(uid, bucket)
    }
    return bucket.take(nowMs)
  }

  #turn(nowMs: number): void {
    this.#older = this.#recent
    this.#recent = new Map()
    this.#turnedAtMs = nowMs
  }
}
