import type { AbortGroup } from '../contracts/abort-group.ts'
import type { Clock, Timers } from '../contracts/clock.ts'
import type { FactSink } from '../contracts/facts.ts'
import type { Logger } from '../contracts/logger.ts'
import type { Counts } from '../contracts/metrics.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import type { Outbox } from '../contracts/outbox.ts'
import type { Random } from '../contracts/random.ts'
import type { Webhook, WebhookEvent } from '../contracts/webhook.ts'
import { asIMError, IMError, type IMErrorCode } from '../errors.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import type { Message } from '../model/message.ts'
import { OutboxLane, type Ask, type ReadyEntry } from './outbox-lane.ts'
import { withTimeLimit } from './time-limit.ts'
import { EVENT_OF_KIND } from './webhook-entries.ts'

const MAX_PAUSE_MS = 60_000

export interface WebhookLaneOptions {
  readonly webhook: Webhook
  readonly outbox: Outbox
  readonly messages: Pick<MessageStore, 'get'>
  readonly timers: Timers
  readonly clock: Pick<Clock, 'monotonicMs'>
  readonly random: Random
  readonly logger: Logger
  readonly facts: FactSink
  readonly counts: Counts
  readonly waits: AbortGroup
  readonly report: (error: IMError) => void
  /** ask an adapter for as long as a step would wait */
  readonly limited: <T>(ask: () => MaybePromise<T>) => Promise<T>
  readonly timeoutMs: number
  /** events of one call, at most, and how long the first of them waits for more */
  readonly batchCount: number
  readonly batchMs: number
  /** the first pause, which doubles; and how long a batch is tried */
  readonly retryMs: number
  readonly retryForMs: number
}

/** What a lane needs to know of the whole. */
export interface LaneHost {
  readonly number: number
  readonly wants: (event: WebhookEvent['event']) => boolean
  /** 'hurrying': nothing waits for more to come; 'ending': no other call is begun, and what is left stays */
  readonly mood: () => 'calm' | 'hurrying' | 'ending'
  readonly removed: (count: number) => void
}

interface Batch {
  readonly entryIDs: readonly number[]
  readonly events: readonly WebhookEvent[]
  tryCount: number
}

/** Tells the webhook what is in one lane of the outbox: one call at a time, in order, each until it succeeds or is given up. */
export class WebhookLane {
  readonly entries: OutboxLane
  readonly #options: WebhookLaneOptions
  readonly #host: LaneHost
  #running: Promise<void> | undefined
  #isWanted = false
  #isGathering = false
  /** what has come since entries were taken last, and when the first of it came */
  #newCount = 0
  #newSinceMs = -Infinity
  #underWay: Batch | undefined
  #underWaySinceMs = -Infinity
  #endPause: (() => void) | undefined
  /** calls have failed since the last one that did not */
  #isFailing = false

  constructor(options: WebhookLaneOptions, host: LaneHost) {
    this.#options = options
    this.#host = host
    this.entries = new OutboxLane({ outbox: options.outbox, number: host.number, wake: () => this.wake(0) })
  }

  /** Events that are known to wait or are being told. */
  get depth(): number {
    return this.#newCount + (this.#underWay?.events.length ?? 0)
  }

  /** Since when (monotonic) the oldest of them has been known; Infinity when there is none. */
  get oldestSinceMs(): number {
    if (this.#underWay !== undefined) return this.#underWaySinceMs
    return this.#newCount > 0 ? this.#newSinceMs : Infinity
  }

  /** `count` events more may be told. */
  wake(count: number): void {
    if (this.#newCount === 0) this.#newSinceMs = this.#options.clock.monotonicMs()
    this.#newCount += count
    this.#isWanted = true
    if (this.#running === undefined) {
      if (this.#mayGoOn) this.#running = this.#run()
    } else if (this.#isGathering && this.#newCount >= this.#options.batchCount) {
      this.#endPause?.()
    }
  }

  get running(): Promise<void> | undefined {
    return this.#running
  }

  /** The mood of the whole has changed: whatever pauses looks again. */
  moodChanged(): void {
    this.#endPause?.()
  }

  /** Tell the host of everything that is left, and forget it. For an outbox that ends with the engine. */
  async giveUp(error: IMError): Promise<void> {
    const { facts } = this.#options
    const begun = this.#underWay
    this.#underWay = undefined
    if (begun !== undefined) {
      this.#options.counts.givenUpCount += begun.events.length
      if (begun.events.length > 0) facts.emit('webhookGivenUp', { events: begun.events, tryCount: begun.tryCount, error })
      await this.#remove(begun.entryIDs)
    }
    for (;;) {
      const { entryIDs, events } = await this.#takeBatch()
      if (entryIDs.length === 0) return
      this.#options.counts.givenUpCount += events.length
      if (events.length > 0) facts.emit('webhookGivenUp', { events, tryCount: 0, error })
      await this.#remove(entryIDs)
    }
  }

  get #mayGoOn(): boolean {
    return this.#host.mood() !== 'ending' && !this.#options.waits.isAborted
  }

  async #run(): Promise<void> {
    await Promise.resolve() // what comes in the same turn goes in the same call
    while (this.#isWanted && this.#mayGoOn) {
      await this.#gather()
      if (!this.#mayGoOn) break
      this.#isWanted = false
      this.#newCount = 0
      const sinceMs = this.#newSinceMs
      const batch = await this.#insist('IM_STORE_UNAVAILABLE', () => this.#takeBatch())
      if (batch === undefined || batch.entryIDs.length === 0) continue
      if (!this.#mayGoOn) break // it may have been given up while it was read
      this.#underWay = batch
      this.#underWaySinceMs = sinceMs
      if (batch.events.length > 0 && !(await this.#tell(batch))) break
      if (this.#underWay !== batch) break // given up meanwhile
      await this.#insist('IM_STORE_UNAVAILABLE', () => this.#remove(batch.entryIDs))
      this.#underWay = undefined
    }
    this.#running = undefined
  }

  /** Wait for more, unless there is enough, or the first has waited long enough. */
  async #gather(): Promise<void> {
    const { batchMs, batchCount, clock } = this.#options
    const restMs = this.#newSinceMs + batchMs - clock.monotonicMs()
    if (this.#newCount === 0 || this.#newCount >= batchCount || restMs <= 0 || this.#host.mood() !== 'calm') return
    this.#isGathering = true
    await this.#pause(restMs)
    this.#isGathering = false
  }

  async #takeBatch(): Promise<Batch> {
    const { entries, hasMore } = await this.entries.take(this.#options.batchCount, this.#ask)
    if (hasMore) {
      this.#isWanted = true
      this.#newCount = this.#options.batchCount // enough for a call: nothing has to be waited for
    }
    return { entryIDs: entries.map(({ entryID }) => entryID), events: await this.#eventsOf(entries), tryCount: 0 }
  }

  /** Entries as events. What is stored nowhere, or not any longer, is left out. */
  async #eventsOf(entries: readonly ReadyEntry[]): Promise<WebhookEvent[]> {
    const wanted = entries.flatMap(({ content }) => {
      if (content !== undefined) return this.#host.wants(EVENT_OF_KIND[content.kind]) ? [content] : []
      this.#options.report(new IMError('IM_STORE_CORRUPT', { detail: 'an entry of the outbox cannot be read' }))
      return []
    })
    const ids = new Set<string>()
    for (const content of wanted) {
      if (content.kind === 'notify') for (const messageID of content.messageIDs) ids.add(messageID)
      else if (content.kind === 'offline' && content.message === undefined) ids.add(content.messageID)
    }
    const stored = new Map<string, Message>()
    if (ids.size > 0) {
      for (const message of await this.#ask(() => this.#options.messages.get([...ids]))) {
        if (message !== undefined) stored.set(message.messageID, message)
      }
    }
    return wanted.flatMap((content): WebhookEvent[] => {
      if (content.kind === 'status') return [content.event]
      if (content.kind === 'offline') {
        const message = content.message ?? stored.get(content.messageID)
        return message === undefined ? [] : [{ event: 'msg.offline', message, uids: content.uids }]
      }
      const messages = content.messageIDs.flatMap((messageID) => stored.get(messageID) ?? [])
      return messages.length === 0 ? [] : [{ event: 'msg.notify', messages }]
    })
  }

  /** @returns false when the engine ends before the webhook has taken them: they stay */
  async #tell(batch: Batch): Promise<boolean> {
    const { webhook, clock, waits, retryForMs } = this.#options
    const startMs = clock.monotonicMs()
    for (;;) {
      batch.tryCount++
      try {
        await withTimeLimit(this.#options, (signal) => webhook.notify?.(batch.events, signal))
        this.#options.counts.notifiedCount += batch.events.length
        this.#succeeded()
        return true
      } catch (reason) {
        if (waits.isAborted) return false
        this.#options.counts.failedNotifyCount++
        const restMs = startMs + retryForMs - clock.monotonicMs()
        if (restMs <= 0) {
          if (this.#underWay === batch) this.#giveUp(batch, reason)
          return true
        }
        this.#failed(reason)
        if (this.#mayGoOn) await this.#pause(Math.min(this.#pauseMs(batch.tryCount), restMs))
      }
      if (!this.#mayGoOn) return false
    }
  }

  #giveUp({ events, tryCount }: Batch, reason: unknown): void {
    this.#isFailing = true
    const error = new IMError('IM_WEBHOOK_FAILED', { cause: reason, detail: `given up after ${tryCount} ${tryCount === 1 ? 'try' : 'tries'}` })
    this.#options.counts.givenUpCount += events.length
    this.#options.report(error)
    this.#options.facts.emit('webhookGivenUp', { events, tryCount, error })
  }

  #failed(reason: unknown): void {
    if (this.#isFailing) return
    this.#isFailing = true
    this.#options.report(new IMError('IM_WEBHOOK_FAILED', { cause: reason, detail: 'it is told again until it answers' }))
  }

  #succeeded(): void {
    if (!this.#isFailing) return
    this.#isFailing = false
    this.#options.logger.info({ lane: this.#host.number }, 'the webhook answers again')
  }

  /** Half of it is chance, so that what has failed together does not come back together. */
  #pauseMs(tryCount: number): number {
    const fullMs = Math.min(MAX_PAUSE_MS, this.#options.retryMs * 2 ** Math.min(tryCount - 1, 16))
    const [high = 0, low = 0] = this.#options.random.bytes(2)
    return fullMs / 2 + (fullMs / 2) * ((high * 256 + low) / 65_536)
  }

  #pause(delayMs: number): Promise<void> {
    const { timers } = this.#options
    return new Promise((resolve) => {
      const timer = timers.after(delayMs, () => end())
      const end = (): void => {
        this.#endPause = undefined
        timers.cancel(timer)
        resolve()
      }
      this.#endPause = end
    })
  }

  /** Try until it works; what the storage cannot do now it may do later. @returns undefined when the engine ends first */
  async #insist<T>(code: IMErrorCode, action: () => MaybePromise<T>): Promise<T | undefined> {
    for (let tryCount = 1; ; tryCount++) {
      try {
        return await action()
      } catch (reason) {
        if (this.#options.waits.isAborted) return undefined
        if (tryCount === 1) this.#options.report(asIMError(reason, code, { step: 'notify' }))
      }
      if (this.#mayGoOn) await this.#pause(this.#pauseMs(tryCount))
      if (!this.#mayGoOn) return undefined
    }
  }

  async #remove(entryIDs: readonly number[]): Promise<void> {
    await this.#ask(() => this.entries.remove(entryIDs))
    this.#host.removed(entryIDs.length)
  }

  /** At the very end nobody limits anything any more but whoever waits for the end. */
  readonly #ask: Ask = (question) => {
    const answer = question()
    return isPromise(answer) && !this.#options.waits.isAborted ? this.#options.limited(() => answer) : answer
  }
}
