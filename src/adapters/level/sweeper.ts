import type { SweepResult } from '../../contracts/message-store.ts'
import { timestampOf } from '../../contracts/message-record.ts'
import { IMError } from '../../errors.ts'
import { channelKeyString, type ChannelKey } from '../../model/channel.ts'
import { decodeStanding, type ChannelState, type ChannelStates, type Standing } from './channel-states.ts'
import type { Database } from './database.ts'
import { channelOfName, expiryKey, seqOfKey, Tag } from './keys.ts'
import type { Removals } from './removals.ts'
import type { Rows } from './rows.ts'
import type { Turns } from '../../model/turns.ts'

/** How long and how many messages a channel keeps; what is left out has no bound. */
export interface Retention {
  readonly maxAgeMs?: number
  readonly maxCount?: number
}

export interface SweeperOptions {
  readonly database: Database
  readonly states: ChannelStates
  readonly rows: Rows
  readonly turns: Turns
  readonly removals: Removals
  readonly retention: ((key: ChannelKey) => Retention | undefined) | undefined
  /** 0: for as long as the message is there */
  readonly dedupeKeepMs: number
}

/** What one call takes on, so that it ends soon: messages removed, and channels looked at. */
const MAX_EXPIRED = 2_000
const MAX_CHANNELS = 2_000
const MAX_REMOVED = 10_000

/**
 * Removes what nobody is to read any more: first what has expired, then channel by channel what is too old or too many. What
 * is damaged is passed over, and told when the round is over.
 */
export class Sweeper {
  readonly #options: SweeperOptions
  /** the last channel that is finished, while a round over all of them is under way */
  #position: Buffer | undefined
  /** the first failure of this round */
  #failure: IMError | undefined

  constructor(options: SweeperOptions) {
    this.#options = options
  }

  async sweep(nowMs: number): Promise<SweepResult> {
    const expired = await this.#sweepExpired(nowMs)
    const isChannelsTurn = expired.isDone && this.#hasRules
    const retained = isChannelsTurn ? await this.#sweepChannels(nowMs) : { removedCount: 0, isDone: expired.isDone }
    const failure = this.#failure
    if (retained.isDone && failure !== undefined) {
      this.#failure = undefined
      throw failure
    }
    return { removedCount: expired.removedCount + retained.removedCount, isDone: retained.isDone }
  }

  get #hasRules(): boolean {
    return this.#options.retention !== undefined || this.#options.dedupeKeepMs > 0
  }

  async #sweepExpired(nowMs: number): Promise<SweepResult> {
    const { database, states, turns, removals } = this.#options
    const range = { gte: expiryKey(0, 0, 0), lt: expiryKey(nowMs + 1, 0, 0), limit: MAX_EXPIRED }
    let removedCount = 0
    const due = await database.entries(range)
    for (const [at] of due) {
      try {
        const key = await states.keyOf(at.readUInt32BE(7))
        const remove = (): Promise<boolean> => states.with(key!, (state) => removals.one(state, seqOfKey(at), at))
        if (key === undefined) await removals.drop(at)
        else if (await turns.take(channelKeyString(key), remove)) removedCount++
      } catch (error) {
        if (!isDamage(error)) throw error
        this.#failure ??= error
        await removals.drop(at) // it would come up first every time
      }
    }
    return { removedCount, isDone: due.length < MAX_EXPIRED }
  }

  async #sweepChannels(nowMs: number): Promise<SweepResult> {
    const { database, states, turns } = this.#options
    const gte = this.#position === undefined ? Buffer.from([Tag.Channel]) : Buffer.concat([this.#position, Buffer.alloc(1)])
    const channels = await database.entries({ gte, lt: Buffer.from([Tag.Channel + 1]), limit: MAX_CHANNELS })
    let removedCount = 0
    for (const [at, record] of channels) {
      const key = channelOfName(at.subarray(1))
      if (!this.#mayHaveToGo(key, record, nowMs)) {
        this.#position = at
        continue
      }
      try {
        removedCount += await turns.take(channelKeyString(key), () => states.with(key, (state) => this.#sweepChannel(state, nowMs)))
      } catch (error) {
        if (!isDamage(error)) throw error
        this.#failure ??= error
      }
      if (removedCount >= MAX_REMOVED) return { removedCount, isDone: false } // and begin with this channel: there may be more
      this.#position = at
    }
    const isDone = channels.length < MAX_CHANNELS
    if (isDone) this.#position = undefined
    return { removedCount, isDone }
  }

  /** By what the channel's record says, without a look at its messages. */
  #mayHaveToGo(key: ChannelKey, record: Buffer, nowMs: number): boolean {
    const { maxAgeMs = Infinity, maxCount = Infinity } = this.#options.retention?.(key) ?? {}
    let standing: Standing
    try {
      standing = decodeStanding(record, key).standing
    } catch (error) {
      if (!isDamage(error)) throw error
      this.#failure ??= error
      return false
    }
    const { lastSeq, floorSeq, oldestTimestampMs, numberFloorSeq, oldestNumberMs } = standing
    if (lastSeq - floorSeq > maxCount) return true
    if (lastSeq > floorSeq && oldestTimestampMs < nowMs - maxAgeMs) return true
    return this.#options.dedupeKeepMs > 0 && lastSeq > numberFloorSeq && oldestNumberMs < nowMs - this.#options.dedupeKeepMs
  }

  async #sweepChannel(state: ChannelState, nowMs: number): Promise<number> {
    const { removals, retention, dedupeKeepMs } = this.#options
    const { maxAgeMs = Infinity, maxCount = Infinity } = retention?.(state.key) ?? {}
    const { lastSeq, floorSeq, numberFloorSeq } = state.committed
    const tooMany = lastSeq - maxCount
    const tooOld = maxAgeMs === Infinity ? floorSeq : await this.#lastOlderThan(state, floorSeq, nowMs - maxAgeMs)
    const removedCount = await removals.upTo(state, Math.min(Math.max(tooMany, tooOld, floorSeq), floorSeq + MAX_REMOVED))
    if (dedupeKeepMs > 0) await removals.forgetNumbers(state, await this.#lastOlderThan(state, numberFloorSeq, nowMs - dedupeKeepMs))
    return removedCount
  }

  /** The last of the messages behind `afterSeq` that are older without a younger one before them. */
  async #lastOlderThan(state: ChannelState, afterSeq: number, cutoffMs: number): Promise<number> {
    let last = afterSeq
    const { lastSeq } = state.committed
    if (afterSeq >= lastSeq) return last
    for await (const row of this.#options.rows.walk(state, { first: afterSeq + 1, last: lastSeq })) {
      for (const { seq, record } of row.between(afterSeq + 1, lastSeq)) {
        if (timestampOf(record) >= cutoffMs) return last
        last = seq
      }
      if (last - afterSeq >= MAX_REMOVED) return last
    }
    return last
  }
}

function isDamage(error: unknown): error is IMError {
  return error instanceof IMError && (error.code === 'IM_STORE_CORRUPT' || error.code === 'IM_STORE_FORMAT')
}
