import type { DueRemovals, Removal, SweepResult } from '../../contracts/message-store.ts'
import { timestampOf } from '../../contracts/message-record.ts'
import { badOption, IMError, integerBetween, onlyKnown } from '../../errors.ts'
import { channelKeyString, type ChannelKey } from '../../model/channel.ts'
import { decodeStanding, type ChannelState, type ChannelStates, type Standing } from './channel-states.ts'
import type { Database } from './database.ts'
import { channelNoOfExpiry, channelOfName, expiresAtOf, expiryKey, seqOfKey, Tag } from './keys.ts'
import type { Removals } from './removals.ts'
import type { Rows } from './rows.ts'
import type { Turns } from '../../model/turns.ts'

/** How long and how many messages a channel keeps; what is left out has no bound. */
export interface Retention {
  readonly maxAgeMs?: number
  readonly maxCount?: number
}

/** @throws TypeError naming what no retention has */
export function checkRetention(retention: Retention): void {
  if (typeof retention !== 'object' || retention === null) badOption('retention', '{ maxAgeMs, maxCount } or a function', retention)
  onlyKnown('retention', retention, ['maxAgeMs', 'maxCount'])
  const { maxAgeMs, maxCount } = retention
  if (maxAgeMs !== undefined) integerBetween('retention.maxAgeMs', maxAgeMs, 1, Number.MAX_SAFE_INTEGER)
  if (maxCount !== undefined) integerBetween('retention.maxCount', maxCount, 1, Number.MAX_SAFE_INTEGER)
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

/** What becomes of damage: told at once, or passed over for now, with `undefined`. */
type Guard = <T>(finding: Promise<T>) => Promise<T | undefined>

/** What one call takes on, so that it ends soon: messages that have expired, channels looked at, and messages removed in all. */
const MAX_EXPIRED = 2_000
const MAX_CHANNELS = 2_000
const MAX_REMOVED = 10_000
/** Channels, and expired messages of one, that are looked at together. */
const MAX_AT_ONCE = 100

/**
 * Finds what nobody is to read any more, first what has expired, then channel by channel what is too old or too many; and removes it.
 * What is damaged is passed over, and told when the round is over.
 */
export class Sweeper {
  readonly #options: SweeperOptions
  /** the last channel that is finished, while a round over all of them is under way */
  #position: Buffer | undefined
  /** the channel that the last call stopped at, and how much of it was done by then */
  #again: { readonly at: Buffer; readonly doneCount: number | undefined } | undefined
  /** the first failure of this round: damage, or what the host's function threw */
  #failure: { readonly error: unknown } | undefined

  constructor(options: SweeperOptions) {
    this.#options = options
  }

  async sweep(nowMs: number): Promise<SweepResult> {
    const { removals, isDone } = await this.#find(nowMs, MAX_REMOVED)
    const removedCount = await this.#discardAll(removals, (action) => this.#orDamaged(action))
    if (isDone) this.#tellFailure()
    return { removedCount, isDone }
  }

  async due(nowMs: number, maxCount: number): Promise<DueRemovals> {
    if (this.#position === undefined) this.#tellFailure() // of the round before: it was not over when this last answered
    return this.#find(nowMs, Math.min(maxCount, MAX_REMOVED))
  }

  /**
   * For nodes that all remove the same: what is damaged is not passed over, because a node that kept a number which the others have
   * forgotten would number a repeat of it otherwise than they do.
   * @throws IM_STORE_CORRUPT
   */
  discard(removals: readonly Removal[]): Promise<number> {
    return this.#discardAll(removals, (action) => action)
  }

  async #discardAll(removals: readonly Removal[], guard: Guard): Promise<number> {
    const { states, turns } = this.#options
    return sumOf(removals, (removal) => {
      const { key } = removal
      return guard(turns.take(channelKeyString(key), () => states.with(key, (state) => this.#discard(state, removal, guard))))
    })
  }

  #tellFailure(): void {
    const failure = this.#failure
    this.#failure = undefined
    if (failure !== undefined) throw failure.error
  }

  async #find(nowMs: number, maxCount: number): Promise<DueRemovals> {
    const expired = await this.#expired(nowMs, Math.min(maxCount, MAX_EXPIRED))
    if (!expired.isDone || !this.#hasRules) return expired
    const retained = await this.#retained(nowMs, maxCount)
    return { removals: [...expired.removals, ...retained.removals], isDone: retained.isDone }
  }

  get #hasRules(): boolean {
    return this.#options.retention !== undefined || this.#options.dedupeKeepMs > 0
  }

  async #expired(nowMs: number, maxCount: number): Promise<DueRemovals> {
    const { database, states, removals } = this.#options
    const due = await database.entries({ gte: expiryKey(0, 0, 0), lt: expiryKey(nowMs + 1, 0, 0), limit: maxCount })
    const found = new Map<string, { readonly key: ChannelKey; readonly expired: { messageSeq: number; expiresAtMs: number }[] }>()
    for (const [at] of due) {
      const key = await this.#orDamaged(states.keyOf(channelNoOfExpiry(at)))
      if (key === undefined) {
        await removals.drop(at) // it would come up first every time
        continue
      }
      const name = channelKeyString(key)
      let ofChannel = found.get(name)
      if (ofChannel === undefined) found.set(name, (ofChannel = { key, expired: [] }))
      ofChannel.expired.push({ messageSeq: seqOfKey(at), expiresAtMs: expiresAtOf(at) })
    }
    return { removals: [...found.values()], isDone: due.length < maxCount }
  }

  async #retained(nowMs: number, maxCount: number): Promise<DueRemovals> {
    const { database, states, turns } = this.#options
    const gte = this.#position === undefined ? Buffer.from([Tag.Channel]) : Buffer.concat([this.#position, Buffer.alloc(1)])
    const channels = await database.entries({ gte, lt: Buffer.from([Tag.Channel + 1]), limit: MAX_CHANNELS })
    const removals: Removal[] = []
    let count = 0
    for (const [at, record] of channels) {
      const key = channelOfName(at.subarray(1))
      if (this.#mayHaveToGo(key, record, nowMs)) {
        const found = await this.#orDamaged(turns.take(channelKeyString(key), () => states.with(key, (state) => this.#ofChannel(state, nowMs, maxCount))))
        if (found !== undefined) removals.push(found.removal)
        count += found?.count ?? 0
        if (count >= maxCount) {
          this.#goOnWith(at, found?.doneCount)
          return { removals, isDone: false }
        }
      }
      this.#position = at
    }
    const isDone = channels.length < MAX_CHANNELS
    if (isDone) this.#position = undefined
    return { removals, isDone }
  }

  /** By what the channel's record says, without a look at its messages. */
  #mayHaveToGo(key: ChannelKey, record: Buffer, nowMs: number): boolean {
    const { maxAgeMs = Infinity, maxCount = Infinity } = this.#retentionOf(key)
    let standing: Standing
    try {
      standing = decodeStanding(record, key).standing
    } catch (error) {
      if (!isDamage(error)) throw error
      this.#failure ??= { error }
      return false
    }
    const { lastSeq, floorSeq, oldestTimestampMs, numberFloorSeq, oldestNumberMs } = standing
    if (lastSeq - floorSeq > maxCount) return true
    if (lastSeq > floorSeq && oldestTimestampMs < nowMs - maxAgeMs) return true
    return this.#options.dedupeKeepMs > 0 && lastSeq > numberFloorSeq && oldestNumberMs < nowMs - this.#options.dedupeKeepMs
  }

  /** The host's function may throw, or answer nonsense, for one channel: that one keeps everything, and the others get what is theirs. */
  #retentionOf(key: ChannelKey): Retention {
    try {
      const retention = this.#options.retention?.(key)
      if (retention === undefined) return {}
      checkRetention(retention)
      return retention
    } catch (error) {
      this.#failure ??= { error }
      return {}
    }
  }

  /** Begin with this channel next time, because there may be more: but for one of which nothing has been removed since last time. */
  #goOnWith(at: Buffer, doneCount: number | undefined): void {
    const isStuck = this.#again?.doneCount === doneCount && this.#again?.at.equals(at) === true
    if (isStuck) this.#position = at
    this.#again = isStuck ? undefined : { at, doneCount }
  }

  async #ofChannel(state: ChannelState, nowMs: number, maxCount: number): Promise<{ readonly removal: Removal; readonly count: number; readonly doneCount: number } | undefined> {
    const { dedupeKeepMs } = this.#options
    const { key } = state
    const { maxAgeMs = Infinity, maxCount: maxKept = Infinity } = this.#retentionOf(key)
    const { lastSeq, floorSeq, numberFloorSeq } = state.committed
    const tooMany = lastSeq - maxKept
    const tooOld = maxAgeMs === Infinity ? floorSeq : await this.#lastOlderThan(state, floorSeq, nowMs - maxAgeMs, maxCount)
    const throughSeq = Math.min(Math.max(tooMany, tooOld, floorSeq), floorSeq + maxCount)
    const forgottenSeq = Math.max(numberFloorSeq, throughSeq)
    const forgottenThroughSeq = dedupeKeepMs > 0 ? await this.#lastOlderThan(state, forgottenSeq, nowMs - dedupeKeepMs, maxCount) : forgottenSeq
    const count = throughSeq - floorSeq + forgottenThroughSeq - forgottenSeq
    if (count === 0) return undefined
    const removal = { key, ...(throughSeq > floorSeq && { throughSeq }), ...(forgottenThroughSeq > forgottenSeq && { forgottenThroughSeq }) }
    return { removal, count, doneCount: floorSeq + numberFloorSeq }
  }

  async #discard(state: ChannelState, { expired = [], throughSeq = 0, forgottenThroughSeq = 0 }: Removal, guard: Guard): Promise<number> {
    const { removals } = this.#options
    const { lastSeq } = state.committed
    if (state.no === 0) return 0 // nobody has ever written there
    const once = new Map(expired.map((each) => [each.messageSeq, each]))
    let removedCount = await sumOf([...once.values()], async ({ messageSeq, expiresAtMs }) => {
      const isRemoved = await guard(removals.expired(state, messageSeq, expiresAtMs))
      if (isRemoved === undefined) await removals.drop(expiryKey(expiresAtMs, state.no, messageSeq)) // it would come up first every time
      return isRemoved === true ? 1 : 0
    })
    removedCount += await removals.upTo(state, Math.min(throughSeq, lastSeq))
    await removals.forgetNumbers(state, Math.min(forgottenThroughSeq, lastSeq))
    return removedCount
  }

  /** @returns undefined for what is damaged, which is told at the end of the round */
  async #orDamaged<T>(finding: Promise<T>): Promise<T | undefined> {
    try {
      return await finding
    } catch (error) {
      if (!isDamage(error)) throw error
      this.#failure ??= { error }
      return undefined
    }
  }

  /** The last of the messages behind `afterSeq`, of about `maxCount`, that are older without a younger one before them. */
  async #lastOlderThan(state: ChannelState, afterSeq: number, cutoffMs: number, maxCount: number): Promise<number> {
    let last = afterSeq
    const { lastSeq } = state.committed
    if (afterSeq >= lastSeq) return last
    for await (const row of this.#options.rows.walk(state, { first: afterSeq + 1, last: lastSeq })) {
      for (const { seq, record } of row.between(afterSeq + 1, lastSeq)) {
        if (timestampOf(record) >= cutoffMs) return last
        last = seq
      }
      if (last - afterSeq >= maxCount) return last
    }
    return last
  }
}

/** Many at once, so that a sync of the disk serves them all. Each has come to its end before the first failure is told. */
async function sumOf<T>(all: readonly T[], countOf: (each: T) => Promise<number | undefined>): Promise<number> {
  let sum = 0
  for (let first = 0; first < all.length; first += MAX_AT_ONCE) {
    const outcomes = await Promise.allSettled(all.slice(first, first + MAX_AT_ONCE).map(countOf))
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') throw outcome.reason
      sum += outcome.value ?? 0
    }
  }
  return sum
}

function isDamage(error: unknown): error is IMError {
  return error instanceof IMError && (error.code === 'IM_STORE_CORRUPT' || error.code === 'IM_STORE_FORMAT')
}
