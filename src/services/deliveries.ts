import { LRUCache } from 'lru-cache'
import type { Timers } from '../contracts/clock.ts'
import type { Cursor, CursorStore, CursorUpdate } from '../contracts/cursor-store.ts'
import { asIMError, type IMError } from '../errors.ts'
import { channelKeyString, type ChannelKey } from '../model/channel.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'

export interface DeliveriesOptions {
  readonly cursors: CursorStore
  readonly timers: Timers
  /** how old what is stored may be */
  readonly flushMs: number
  /** users in channels that are kept track of at once */
  readonly maxCount: number
  readonly report: (error: IMError) => void
}

/** Acknowledged runs beyond a gap are remembered up to so many; what is forgotten is sent once more at the next login. */
const MAX_RUNS = 32

/** A name of more than that counts as several: who invents channels with long names pushes out others the sooner. */
const NAME_LENGTH = 512

/** How far one user has come in one channel. */
class Delivery {
  readonly uid: string
  readonly key: ChannelKey
  /** everything up to here is acknowledged */
  deliveredSeq = 0
  /** what the store says has arrived, so that the next seq is known */
  isLoaded = false
  /** it is among those that have moved since the last flush */
  hasMoved = false
  /** it is no longer the one that counts */
  isDropped = false
  /** acknowledged beyond a gap: [first, last] pairs, ascending, never touching each other */
  readonly #runs: [first: number, last: number][] = []

  constructor(uid: string, key: ChannelKey) {
    this.uid = uid
    this.key = { channelID: key.channelID, channelType: key.channelType }
  }

  isOf(uid: string, { channelID, channelType }: ChannelKey): boolean {
    return !this.isDropped && this.uid === uid && this.key.channelID === channelID && this.key.channelType === channelType
  }

  /** @returns true when `deliveredSeq` has moved */
  acknowledge(first: number, last: number): boolean {
    const before = this.deliveredSeq
    if (last > before) {
      if (this.isLoaded && first <= before + 1) this.deliveredSeq = last
      else this.#remember(first, last)
    }
    // Also when nothing was added: the position has just been loaded, and the runs wait for it.
    while (this.isLoaded && this.#runs.length > 0 && this.#runs[0]![0] <= this.deliveredSeq + 1) {
      this.deliveredSeq = Math.max(this.deliveredSeq, this.#runs.shift()![1])
    }
    return this.deliveredSeq !== before
  }

  has(seq: number): boolean {
    return seq <= this.deliveredSeq || this.#runs.some(([first, last]) => seq >= first && seq <= last)
  }

  #remember(first: number, last: number): void {
    const runs = this.#runs
    const newest = runs.at(-1)
    // As good as always the next one, or a new one behind all others.
    if (newest !== undefined && first === newest[1] + 1) {
      newest[1] = last
      return
    }
    let index = runs.findIndex(([, end]) => end + 1 >= first)
    if (index === -1) index = runs.length
    let [start, end] = [first, last]
    let count = 0
    while (index + count < runs.length && runs[index + count]![0] <= end + 1) {
      start = Math.min(start, runs[index + count]![0])
      end = Math.max(end, runs[index + count]![1])
      count++
    }
    runs.splice(index, count, [start, end])
    if (runs.length > MAX_RUNS) runs.pop()
  }
}

/** Remembers for its owner what was counted last: most often it is the next one's, too. */
export interface DeliveryHolder {
  deliveryHint: object | undefined
}

/**
 * What users have acknowledged, channel by channel: RECVACKs name single messages, in any order and from any device, and the
 * stored position moves over what is acknowledged without a gap. Written behind, in one call for everybody.
 */
export class Deliveries {
  readonly #options: DeliveriesOptions
  readonly #deliveries: LRUCache<string, Delivery>
  /** moved since the last flush; also what has fallen out of the cache meanwhile */
  #moved = new Map<string, Delivery>()
  /** for those who keep no hint of their own */
  readonly #anybody: DeliveryHolder = { deliveryHint: undefined }
  /** positions that are being asked for, and writes */
  readonly #underWay = new Set<Promise<void>>()
  /** what is being written */
  #flushing: ReadonlyMap<string, Delivery> | undefined
  #isArmed = false
  #isClosing = false

  constructor(options: DeliveriesOptions) {
    this.#options = options
    this.#deliveries = new LRUCache({
      // Which bounds their number, too; `max` would make room for all of them now.
      maxSize: options.maxCount * NAME_LENGTH,
      sizeCalculation: (_delivery, name) => Math.max(name.length, NAME_LENGTH),
      dispose: (delivery) => {
        delivery.isDropped = true
      },
    })
  }

  /** `uid` has got everything from `first` to `last`, or there is nothing of it to be got. */
  acknowledge(uid: string, key: ChannelKey, first: number, last = first, holder: DeliveryHolder = this.#anybody): void {
    const { deliveryHint } = holder
    if (deliveryHint instanceof Delivery && deliveryHint.isOf(uid, key)) {
      if (deliveryHint.acknowledge(first, last) && !deliveryHint.hasMoved) this.#hasMoved(nameOf(uid, key), deliveryHint)
    } else {
      holder.deliveryHint = this.#lookUp(uid, key, first, last)
    }
  }

  #lookUp(uid: string, key: ChannelKey, first: number, last: number): Delivery {
    const name = nameOf(uid, key)
    let delivery = this.#deliveries.get(name)
    if (delivery === undefined) {
      // One that has fallen out of the cache counts on until it is written: the store does not know better before.
      const moved = this.#moved.get(name) ?? this.#flushing?.get(name)
      delivery = moved ?? new Delivery(uid, key)
      this.#deliveries.set(name, delivery)
      delivery.isDropped = !this.#deliveries.has(name) // its name alone may be more than there is room for
      if (moved === undefined) this.#load(name, delivery)
    }
    if (delivery.acknowledge(first, last)) this.#hasMoved(name, delivery)
    return delivery
  }

  /** What the store says has arrived, on another node perhaps: what has arrived here lies behind that, and not behind a gap. */
  stored(uid: string, key: ChannelKey, seq: number): void {
    const name = nameOf(uid, key)
    const delivery = this.#deliveries.get(name)
    if (delivery?.isLoaded === true && delivery.acknowledge(1, seq) && delivery.deliveredSeq > seq) this.#hasMoved(name, delivery)
  }

  /** How far the user has come, of what is kept in memory; the store has the rest. */
  deliveredSeq(uid: string, key: ChannelKey): number {
    const name = nameOf(uid, key)
    const delivery = this.#deliveries.get(name) ?? this.#moved.get(name)
    return delivery?.isLoaded === true ? delivery.deliveredSeq : 0
  }

  /** Has this one been acknowledged, behind a gap too, as far as is known in memory? */
  isAcknowledged(uid: string, key: ChannelKey, seq: number): boolean {
    return this.#deliveries.get(nameOf(uid, key))?.has(seq) === true
  }

  /** The user has left the channel: what they acknowledged there says nothing any more. */
  forget(uid: string, key: ChannelKey): void {
    const name = nameOf(uid, key)
    this.#deliveries.delete(name)
    const moved = this.#moved.get(name)
    if (moved !== undefined) moved.hasMoved = false
    this.#moved.delete(name)
  }

  /** Everything that has moved is durable once resolved. Failures are reported, and tried again with the next flush. */
  flush(): Promise<void> {
    return this.#moved.size === 0 ? Promise.resolve() : this.#tracked(this.#write())
  }

  /** Resolves when no position is being asked for, which acknowledgements wait for, and none is being written. */
  async settled(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay)
  }

  async #write(): Promise<void> {
    const moved = this.#moved
    this.#moved = new Map()
    this.#flushing = moved
    for (const delivery of moved.values()) delivery.hasMoved = false
    const updates = Array.from(moved.values(), ({ uid, key, deliveredSeq }): CursorUpdate => ({ uid, key, deliveredSeq }))
    try {
      await this.#options.cursors.advance(updates)
      await this.#options.cursors.flush()
    } catch (error) {
      for (const [name, delivery] of moved) this.#hasMoved(name, delivery)
      this.#options.report(asIMError(error, 'IM_STORE_UNAVAILABLE', {}))
      this.#arm()
    } finally {
      if (this.#flushing === moved) this.#flushing = undefined
    }
  }

  /** No more timers: the last flush is the caller's. */
  close(): void {
    this.#isClosing = true
  }

  #load(name: string, delivery: Delivery): void {
    const { uid, key } = delivery
    const loaded = (cursor: Cursor): void => {
      delivery.isLoaded = true
      delivery.acknowledge(1, startOf(cursor))
      // It fell out of the cache while it waited, and another one has come in its place: there may be only one that counts.
      const successor = delivery.isDropped ? (this.#deliveries.get(name) ?? this.#moved.get(name)) : undefined
      if (successor !== undefined) {
        if (successor.acknowledge(1, delivery.deliveredSeq)) this.#hasMoved(name, successor)
        return
      }
      if (delivery.deliveredSeq > cursor.deliveredSeq) this.#hasMoved(name, delivery)
    }
    const failed = (reason: unknown): void => {
      if (this.#deliveries.peek(name) === delivery) this.#deliveries.delete(name) // whatever it says next is asked for again
      this.#options.report(asIMError(reason, 'IM_STORE_UNAVAILABLE', { uid, ...key }))
    }
    try {
      const cursor: MaybePromise<Cursor> = this.#options.cursors.cursor(uid, key)
      if (isPromise(cursor)) void this.#tracked(cursor.then(loaded, failed))
      else loaded(cursor)
    } catch (reason) {
      failed(reason)
    }
  }

  /** @param ending  never rejects */
  #tracked(ending: Promise<void>): Promise<void> {
    const tracked = ending.finally(() => this.#underWay.delete(tracked))
    this.#underWay.add(tracked)
    return tracked
  }

  #hasMoved(name: string, delivery: Delivery): void {
    if (this.#moved.size >= this.#options.maxCount && !this.#moved.has(name)) {
      for (const [oldest, dropped] of this.#moved) {
        dropped.hasMoved = false
        this.#moved.delete(oldest) // the store cannot be written for long: those messages are sent once more
        break
      }
    }
    delivery.hasMoved = true
    this.#moved.set(name, delivery)
    this.#arm()
  }

  #arm(): void {
    if (this.#isArmed || this.#isClosing) return
    this.#isArmed = true
    this.#options.timers.after(this.#options.flushMs, () => {
      this.#isArmed = false
      void this.flush()
    })
  }
}

/** Before this nothing concerns the user. */
export function startOf({ deliveredSeq, joinSeq, deletedToSeq }: Cursor): number {
  return Math.max(deliveredSeq, joinSeq - 1, deletedToSeq)
}

function nameOf(uid: string, key: ChannelKey): string {
  return `${uid}\u0000${channelKeyString(key)}`
}
