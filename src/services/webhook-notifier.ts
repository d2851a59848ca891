import { crc32 } from 'node:zlib'
import type { WebhookEvent } from '../contracts/webhook.ts'
import { asIMError, IMError } from '../errors.ts'
import { channelKeyString } from '../model/channel.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import type { Message } from '../model/message.ts'
import { encodeEntry, sizeOf, type WebhookEntry } from './webhook-entries.ts'
import { WebhookLane, type LaneHost, type WebhookLaneOptions } from './webhook-lane.ts'

/** Fixed: an entry is looked for where the life before has put it. */
const LANE_COUNT = 8

export interface WebhookNotifierOptions extends WebhookLaneOptions {
  /** the outbox outlives this engine: what is left at the end is for the next one */
  readonly isDurable: boolean
  /** entries in the outbox, at most; beyond it the newest are given up */
  readonly maxCount: number
}

/** Messages on their way to the store, written down to be told before they are there. Exactly one of the ends is called. */
export interface Announcement {
  /** rejects when it could not be written down */
  readonly written: MaybePromise<void>
  /**
   * Some of them may have been stored: tell those that have. `stored` are those that certainly have; they are given up when
   * the announcement could not be kept.
   */
  release(stored: readonly Message[]): void
  /** None has been stored, and none will be. */
  drop(): void
}

/**
 * Tells the webhook what has happened: at least once, in order per channel and per user, through the outbox. Eight lanes work
 * at the same time; a channel, and a user, has its place in one of them. Never holds up a message, but for the entry that is
 * written before it is stored.
 */
export class WebhookNotifier {
  readonly #options: WebhookNotifierOptions
  readonly #lanes: readonly WebhookLane[]
  readonly #wanted: ReadonlySet<WebhookEvent['event']> | undefined
  /** entries that are being added and that no message waits for */
  readonly #adding = new Set<Promise<void>>()
  #entryCount = 0
  #state: 'open' | 'closing' | 'closed' = 'open'
  #isFull = false
  #isFailing = false

  constructor(options: WebhookNotifierOptions) {
    this.#options = options
    const { webhook } = options
    if (webhook.notify !== undefined) this.#wanted = new Set(webhook.events ?? ['msg.notify', 'msg.offline', 'user.onlinestatus'])
    const host: Omit<LaneHost, 'number'> = {
      wants: (event) => this.wants(event),
      mood: () => (this.#state === 'open' ? 'calm' : this.#state === 'closing' && !options.isDurable ? 'hurrying' : 'ending'),
      removed: (count) => this.#removed(count),
    }
    this.#lanes = Array.from({ length: LANE_COUNT }, (_, number) => new WebhookLane(options, { ...host, number }))
  }

  /** Entries in the outbox. */
  get entryCount(): number {
    return this.#entryCount
  }

  /** Events that the lanes know to wait, or are telling. */
  get depth(): number {
    return this.#lanes.reduce((depth, lane) => depth + lane.depth, 0)
  }

  /** Since when (monotonic) the oldest of them has been known; Infinity when there is none. */
  get oldestSinceMs(): number {
    return Math.min(...this.#lanes.map((lane) => lane.oldestSinceMs))
  }

  wants(event: WebhookEvent['event']): boolean {
    return this.#wanted?.has(event) === true
  }

  /** Go on with what an earlier life has left. @throws what the outbox throws */
  async start(): Promise<void> {
    if (this.#wanted === undefined || this.#wanted.size === 0) return
    const addedCount = this.#entryCount // other nodes may have handed something over already
    this.#entryCount += Math.max(0, (await this.#options.outbox.count()) - addedCount)
    if (this.#entryCount > 0) for (const lane of this.#lanes) lane.wake(0)
  }

  /**
   * Write down that these messages of one channel are to be told once they are stored.
   * @throws what the outbox throws: nothing was written down
   */
  announce(channel: string, messageIDs: readonly string[]): Announcement {
    const lane = this.#laneOf(channel)
    const { batchCount, maxCount } = this.#options
    const entries: Uint8Array[] = []
    for (let first = 0; first < messageIDs.length; first += batchCount) {
      entries.push(encodeEntry({ kind: 'notify', channel, messageIDs: messageIDs.slice(first, first + batchCount) }))
    }
    if (this.#entryCount + entries.length > maxCount) return this.#unannounced()
    this.#entryCount += entries.length
    let ids: readonly number[] | undefined
    let failure: IMError | undefined
    let end: (() => void) | undefined
    const added = (given: readonly number[]): void => {
      ids = given
      this.#isFailing = false
      end?.()
    }
    const failed = (reason: unknown): never => {
      this.#entryCount -= entries.length
      failure = asIMError(reason, 'IM_STORE_UNAVAILABLE', {})
      end?.()
      throw reason
    }
    const finish = (action: () => void): void => {
      end = action
      if (ids !== undefined || failure !== undefined) action()
    }
    let adding: MaybePromise<readonly number[]>
    try {
      adding = lane.entries.add(entries, () => end === undefined)
    } catch (thrown) {
      return failed(thrown)
    }
    const written = isPromise(adding) ? adding.then(added, failed) : added(adding)
    if (isPromise(written)) written.catch(() => undefined) // whoever has no message to store does not listen
    return {
      written,
      release: (stored) =>
        finish(() => {
          if (failure !== undefined) return this.#leaveOut(notified(stored), failure)
          if (this.#hasEnded) return this.#leaveOut(notified(stored), notTaken()) // held to the end, so not given up with the others
          lane.entries.letGo(ids!)
          lane.wake(messageIDs.length)
        }),
      drop: () =>
        finish(() => {
          if (failure === undefined) this.#await(this.#takeBack(lane, ids!))
        }),
    }
  }

  /** Something that has happened already. `message` of an offline event may be one that no store has. */
  tell(event: WebhookEvent): void {
    if (!this.wants(event.event)) return
    const events = this.#inPieces(event)
    if (this.#state === 'closed') return this.#leaveOut(events, new IMError('IM_NOT_RUNNING'))
    if (this.#entryCount + events.length > this.#options.maxCount) return this.#leaveOutFull(events)
    const entries = events.map(entryOf)
    const lane = this.#laneOf(event.event === 'user.onlinestatus' ? event.uid : channelOf(event))
    const added = (): void => {
      this.#isFailing = false
      lane.wake(entries.reduce((count, entry) => count + sizeOf(entry), 0))
    }
    const failed = (reason: unknown): void => {
      this.#entryCount -= events.length
      const error = asIMError(reason, 'IM_STORE_UNAVAILABLE', {})
      if (!this.#isFailing) this.#options.report(error)
      this.#isFailing = true
      this.#leaveOut(events, error)
    }
    this.#entryCount += events.length
    try {
      const adding = lane.entries.add(entries.map(encodeEntry), () => false)
      if (isPromise(adding)) this.#await(adding.then(added, failed))
      else added()
    } catch (thrown) {
      failed(thrown)
    }
  }

  get isIdle(): boolean {
    return this.#adding.size === 0 && this.#lanes.every((lane) => lane.running === undefined)
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (!this.isIdle) await Promise.all([...this.#adding, ...this.#lanes.map((lane) => lane.running)])
  }

  /** The end comes near. With an outbox that lasts no further call is made; otherwise nothing waits for more to come. */
  quiesce(): void {
    if (this.#state === 'open') this.#state = 'closing'
    for (const lane of this.#lanes) lane.moodChanged()
  }

  /** No call is made any more. What is left in an outbox that ends with the engine is given up. Never rejects. */
  async close(): Promise<void> {
    const { isDurable, report } = this.#options
    this.#state = 'closed'
    for (const lane of this.#lanes) lane.moodChanged()
    if (this.#wanted === undefined || isDurable) return
    const error = notTaken()
    for (const lane of this.#lanes) {
      try {
        await lane.giveUp(error)
      } catch (reason) {
        report(asIMError(reason, 'IM_STORE_UNAVAILABLE', { step: 'notify' }))
      }
    }
  }

  /** Nobody will ever tell what is in the outbox now. */
  get #hasEnded(): boolean {
    return this.#state === 'closed' && !this.#options.isDurable
  }

  /** At the bound: what is stored of them is given up. */
  #unannounced(): Announcement {
    return { written: undefined, release: (stored) => this.#leaveOutFull(notified(stored)), drop: () => undefined }
  }

  /** They are held until they are gone, so that the lane does not remove them as well. */
  async #takeBack(lane: WebhookLane, entryIDs: readonly number[]): Promise<void> {
    try {
      await this.#options.limited(() => lane.entries.remove(entryIDs))
      this.#removed(entryIDs.length)
    } catch {
      // They are still there, and the lane finds that they stand for nothing.
    }
    lane.entries.letGo(entryIDs)
    lane.wake(0) // what stood behind them
  }

  #removed(count: number): void {
    this.#entryCount -= count
    if (this.#entryCount <= this.#options.maxCount / 2) this.#isFull = false
  }

  /** Nothing to be told is ever left out without a word, but the log hears of it once, not for every message. */
  #leaveOutFull(events: readonly WebhookEvent[]): void {
    if (events.length === 0) return
    this.#options.counts.outboxRejectedCount += events.length
    const error = new IMError('IM_QUEUE_FULL', { detail: 'webhook notifications are given up' })
    if (!this.#isFull) this.#options.report(error)
    this.#isFull = true
    this.#leaveOut(events, error)
  }

  #leaveOut(events: readonly WebhookEvent[], error: IMError): void {
    this.#options.counts.givenUpCount += events.length
    if (events.length > 0) this.#options.facts.emit('webhookGivenUp', { events, tryCount: 0, error })
  }

  #await(adding: Promise<void>): void {
    const tracked = adding.finally(() => this.#adding.delete(tracked))
    this.#adding.add(tracked)
  }

  /** No entry is larger than a call. */
  #inPieces(event: WebhookEvent): readonly WebhookEvent[] {
    const { batchCount } = this.#options
    if (event.event !== 'msg.notify' || event.messages.length <= batchCount) return [event]
    const pieces: WebhookEvent[] = []
    for (let first = 0; first < event.messages.length; first += batchCount) {
      pieces.push({ event: 'msg.notify', messages: event.messages.slice(first, first + batchCount) })
    }
    return pieces
  }

  #laneOf(key: string): WebhookLane {
    return this.#lanes[crc32(key) % LANE_COUNT]!
  }
}

function notTaken(): IMError {
  return new IMError('IM_WEBHOOK_FAILED', { detail: 'it had not taken this when the engine closed' })
}

function notified(messages: readonly Message[]): readonly WebhookEvent[] {
  return messages.length === 0 ? [] : [{ event: 'msg.notify', messages }]
}

function channelOf(event: Exclude<WebhookEvent, { event: 'user.onlinestatus' }>): string {
  return channelKeyString(event.event === 'msg.notify' ? event.messages[0]! : event.message)
}

function entryOf(event: WebhookEvent): WebhookEntry {
  if (event.event === 'user.onlinestatus') return { kind: 'status', event }
  const channel = channelOf(event)
  if (event.event === 'msg.notify') return { kind: 'notify', channel, messageIDs: event.messages.map((message) => message.messageID) }
  const { message, uids } = event
  return { kind: 'offline', channel, messageID: message.messageID, message: message.noPersist ? message : undefined, uids }
}
