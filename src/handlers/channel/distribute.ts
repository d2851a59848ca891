import type { AbortGroup } from '../../contracts/abort-group.ts'
import type { Diagnostics } from '../../contracts/diagnostics.ts'
import type { FactSink } from '../../contracts/facts.ts'
import type { DistributeContext, Steps } from '../../contracts/handler.ts'
import type { AppendResult, MessageStore } from '../../contracts/message-store.ts'
import type { Counts } from '../../contracts/metrics.ts'
import type { Replicator } from '../../contracts/replicator.ts'
import { badOption, IMError, type IMErrorContext } from '../../errors.ts'
import { channelIDSeenBy, type ChannelKey } from '../../model/channel.ts'
import { isUint64Decimal } from '../../model/int64.ts'
import { isPromise, type MaybePromise } from '../../model/maybe-promise.ts'
import type { Message } from '../../model/message.ts'
import type { Closing, Outcome, Refusal } from '../../model/outcome.ts'
import { isRefusalReason, ReasonCode, reasonName } from '../../model/reason-code.ts'
import { EngineEvent } from '../engine-event.ts'
import { reasonOf } from '../origin.ts'
import type { PushSource } from '../pusher/push-online.ts'
import type { DistributeItem } from './distribute-item.ts'

interface Original {
  readonly messageID: string
  readonly messageSeq: number
  readonly payload: Uint8Array
}

/** Messages that were answered lately. */
export interface RecentMessagesPort {
  find(channel: string, message: Message): Original | undefined
  /** one that `find` does not know */
  remember(channel: string, message: Message): void
}

/** Messages that are to be told to the webhook, written down before they are stored. Exactly one of the ends is called. */
export interface AnnouncementPort {
  /** rejects when it could not be written down */
  readonly written: MaybePromise<void>
  /** Some may have been stored; those of `stored` certainly have. */
  release(stored: readonly Message[]): void
  /** None has been stored, and none will be. */
  drop(): void
}

/** What the wire has room for. */
const MAX_SEQ = 0xffff_ffff

export interface DistributeServices {
  readonly store: MessageStore
  readonly replicator: Replicator | undefined
  readonly recent: RecentMessagesPort
  readonly facts: FactSink
  readonly counts: Counts
  readonly diagnostics: Diagnostics
  /** milliseconds since 1970; asked for what is traced, and when somebody listens to diagnostics */
  readonly nowMs: () => number
  readonly waits: AbortGroup
  readonly report: (error: IMError) => void
  /** with a replicator, by channel: what is being agreed upon; the delivery, when the log is applied, asks whence it came */
  readonly proposed: Map<string, readonly DistributeItem[]>
  /** a client has sent it, so that client's user need not get it again */
  readonly delivered: (uid: string, message: Message) => void
  /**
   * Write down, ahead of the store, that these are to be told to the webhook; undefined when it does not want to know, and
   * with a replicator, where they are told when they are applied. Throws when it cannot be written down
   */
  readonly announce: ((channel: string, messageIDs: readonly string[]) => AnnouncementPort) | undefined
  /** nothing that is appended to the store is durable before what was announced earlier */
  readonly announcesFirst: boolean
  /** on to the members, or to `receivers`: behind what the channel has still to hand over */
  readonly handOver: (channel: string, key: ChannelKey, sources: readonly PushSource[], receivers: readonly string[] | undefined) => void
}

/** EventChannelDistribute: what waits for one channel, as one batch. One batch at a time per channel. */
export const distributeSteps: Steps<DistributeEvent> = { preCheck, store, replicate, acknowledge, postProcess }

export class DistributeEvent extends EngineEvent implements DistributeContext {
  readonly event = 'EventChannelDistribute'
  /** `channelKeyString(key)` */
  readonly channel: string
  readonly key: ChannelKey
  readonly items: readonly DistributeItem[]
  readonly services: DistributeServices
  /** from here on a failure must not run the batch again */
  storing = false
  /** the store (or the log) had to be waited for: what it answered is worth remembering */
  waited = false
  /** 0 when nobody asks */
  readonly startedAtMs: number

  constructor(channel: string, items: readonly DistributeItem[], services: DistributeServices) {
    super()
    this.channel = channel
    this.key = items[0]!.key
    this.items = items
    this.services = services
    this.startedAtMs = services.diagnostics.commit.hasSubscribers ? services.nowMs() : 0
  }

  protected get waits(): AbortGroup {
    return this.services.waits
  }

  get messages(): readonly Message[] {
    return this.inStage('waiting', 'kept').map((item) => item.message)
  }

  inStage(...stages: DistributeItem['stage'][]): DistributeItem[] {
    return this.items.filter((item) => stages.includes(item.stage))
  }

  refuse(message: Message, reasonCode: ReasonCode): void {
    if (!isRefusalReason(reasonCode)) badOption('reasonCode', 'a reason code from 2 to 255', reasonCode)
    if (this.storing) throw new TypeError('imengine: a message can be refused only before the store step')
    const item = this.items.find((candidate) => candidate.message === message)
    if (item?.stage === 'waiting') this.refuseItem(item, reasonCode, undefined)
  }

  extraOf(message: Message): Readonly<Record<string, unknown>> | undefined {
    return this.items.find((item) => item.message === message)?.origin.extra
  }

  describe(): IMErrorContext {
    return { channelID: this.key.channelID, channelType: this.key.channelType }
  }

  /** What is to be stored: an unpersisted message passes by, and is kept only when the rest of its batch has been. */
  toPersist(): readonly DistributeItem[] {
    return this.allOr((item) => item.stage === 'waiting' && !item.message.noPersist)
  }

  /** As good as always it is all of them. */
  allOr(isMeant: (item: DistributeItem) => boolean): readonly DistributeItem[] {
    return this.items.every(isMeant) ? this.items : this.items.filter(isMeant)
  }

  finish(result: undefined | Refusal | Closing | IMError): void {
    this.services.proposed.delete(this.channel)
    const isAbandoned = result instanceof IMError && this.services.waits.isAborted
    if (result instanceof IMError && !isAbandoned) this.services.report(result)
    const reasonCode = result === undefined ? ReasonCode.SystemError : result instanceof IMError ? reasonOf(result) : result.reasonCode
    const why = result === undefined || result instanceof IMError ? undefined : result.message
    for (const item of this.items) {
      if (item.stage === 'waiting' && isAbandoned) item.abandon()
      else if (item.stage === 'waiting') this.refuseItem(item, reasonCode, why)
      // What the channel has, it has, however the rest of the batch has ended.
      else if (item.stage !== 'done') item.acknowledge()
    }
  }

  private refuseItem(item: DistributeItem, reasonCode: ReasonCode, message: string | undefined): void {
    item.refuse(reasonCode)
    item.trace?.refused(reasonName(reasonCode), this.services.nowMs())
    const { fromUID, channelType, clientMsgNo } = item.message
    const channelID = channelIDSeenBy(fromUID, this.key)
    this.services.facts.emit('messageRefused', { fromUID, channelID, channelType, clientMsgNo, reasonCode, message })
  }
}

/** A repeat that comes soon is answered without asking the store; the store recognises the others. */
function preCheck(ctx: DistributeEvent): Outcome {
  const { recent } = ctx.services
  for (const item of ctx.items) {
    const { message } = item
    if (item.stage !== 'waiting' || message.clientMsgNo === '') continue
    const original = recent.find(ctx.channel, message)
    if (original !== undefined) answerRepeat(ctx, item, original)
  }
}

function answerRepeat(ctx: DistributeEvent, item: DistributeItem, original: Original): void {
  ctx.services.counts.repeatedCount++
  if (Buffer.compare(original.payload, item.message.payload) === 0) item.repeat(original)
  else refuseConflict(ctx, item)
}

function refuseConflict(ctx: DistributeEvent, item: DistributeItem): void {
  item.refuse(ReasonCode.IdempotencyConflict)
  item.trace?.refused('IdempotencyConflict', ctx.services.nowMs())
}

function store(ctx: DistributeEvent): Outcome | Promise<Outcome> {
  ctx.storing = true
  if (ctx.services.replicator !== undefined) return // numbered by the log, when it is applied
  const items = ctx.toPersist()
  if (items.length === 0) return
  const announcement = ctx.services.announce?.(ctx.channel, items.map((item) => item.message.messageID))
  if (announcement !== undefined) return storeAnnounced(ctx, items, announcement)
  const appended = append(ctx, items)
  if (!isPromise(appended)) return takeResults(ctx, items, appended[0])
  ctx.waited = true
  return appended.then((results) => {
    if (ctx.isOver) tellLate(ctx, items, results[0])
    else takeResults(ctx, items, results[0])
  })
}

function append(ctx: DistributeEvent, items: readonly DistributeItem[]): ReturnType<MessageStore['append']> {
  return ctx.services.store.append([{ key: ctx.key, messages: items.map((item) => item.message) }])
}

/** Nothing is stored that would not be told after a crash; nothing is acknowledged before both are durable. */
function storeAnnounced(ctx: DistributeEvent, items: readonly DistributeItem[], announcement: AnnouncementPort): Outcome | Promise<Outcome> {
  const { written } = announcement
  if (!isPromise(written) || ctx.services.announcesFirst) return appendAnnounced(ctx, items, announcement)
  ctx.waited = true
  return written.then(
    () => {
      if (!ctx.isOver) return appendAnnounced(ctx, items, announcement)
      announcement.drop() // too late: their senders have been told to try again
    },
    (reason: unknown) => {
      announcement.drop()
      throw reason
    },
  )
}

function appendAnnounced(ctx: DistributeEvent, items: readonly DistributeItem[], announcement: AnnouncementPort): Outcome | Promise<Outcome> {
  const { written } = announcement
  let appended: ReturnType<typeof append>
  try {
    appended = append(ctx, items)
  } catch (thrown) {
    announcement.release([]) // not dropped: whoever failed may have stored them all the same
    throw thrown
  }
  if (!isPromise(appended) && !isPromise(written)) return takeAnnounced(ctx, items, appended[0], announcement)
  ctx.waited = true
  return Promise.allSettled([appended, written]).then(([stored, wrote]) => {
    if (stored.status === 'rejected') {
      announcement.release([])
      throw stored.reason
    }
    const results = stored.value[0]
    if (wrote.status === 'rejected') {
      tellLate(ctx, items, results, announcement)
      throw wrote.reason
    }
    if (ctx.isOver) tellLate(ctx, items, results, announcement)
    else takeAnnounced(ctx, items, results, announcement)
  })
}

function takeAnnounced(ctx: DistributeEvent, items: readonly DistributeItem[], results: readonly AppendResult[] | undefined, announcement: AnnouncementPort): void {
  try {
    takeResults(ctx, items, results)
  } catch (thrown) {
    announcement.release([])
    throw thrown
  }
  const stored = items.filter((item) => item.stage === 'kept').map((item) => item.message)
  if (stored.length > 0) announcement.release(stored)
  else announcement.drop()
}

/**
 * The store has kept messages after all, but after the step's time-out: their senders were told to try again, and later
 * messages may have been pushed, so these are not. The host hears of both.
 */
function tellLate(
  ctx: DistributeEvent,
  items: readonly DistributeItem[],
  results: readonly AppendResult[] | undefined,
  announcement?: AnnouncementPort,
): void {
  const stored: Message[] = []
  results?.forEach(({ status, messageSeq }, index) => {
    const message = items[index]?.message
    if (status === 'stored' && message !== undefined) stored.push({ ...message, messageSeq })
  })
  if (stored.length === 0) return announcement?.drop()
  const { facts, counts } = ctx.services
  counts.storedCount += stored.length
  counts.undeliveredCount += stored.length
  facts.emit('messageStored', { key: ctx.key, messages: stored })
  announcement?.release(stored)
  facts.emit('undelivered', { key: ctx.key, messages: stored, nodeID: undefined, uid: undefined })
}

function replicate(ctx: DistributeEvent): Outcome | Promise<Outcome> {
  const { replicator } = ctx.services
  if (replicator === undefined) return
  const items = ctx.toPersist()
  if (items.length === 0) return
  ctx.services.proposed.set(ctx.channel, items) // there is one batch of a channel at a time
  const committed = replicator.propose(ctx.key, items.map((item) => item.message), ctx.waitSignal)
  if (!isPromise(committed)) return takeResults(ctx, items, committed)
  ctx.waited = true
  return committed.then((results) => {
    if (!ctx.isOver) takeResults(ctx, items, results) // else: applied after all, and told and delivered from there
  })
}

/** Number the messages by the store's answer, which is checked: a store that miscounts would break every client's history. */
function takeResults(ctx: DistributeEvent, items: readonly DistributeItem[], results: readonly AppendResult[] | undefined): void {
  if (results?.length !== items.length) brokenContract(ctx, `${items.length} messages, ${results?.length ?? 'no'} results`)
  let last = 0
  for (let index = 0; index < items.length; index++) {
    const { status, messageID, messageSeq } = results[index]!
    const isStored = status === 'stored'
    if (!isStored && status !== 'duplicate' && status !== 'conflict') brokenContract(ctx, 'a status that is none')
    if (!Number.isInteger(messageSeq) || messageSeq < 1 || messageSeq > MAX_SEQ) brokenContract(ctx, `seq ${Number(messageSeq)}`)
    if (isStored && last !== 0 && messageSeq !== last + 1) brokenContract(ctx, `seq ${Number(messageSeq)} after ${last}`)
    const isKnownID = isStored ? messageID === items[index]!.message.messageID : typeof messageID === 'string' && isUint64Decimal(messageID)
    if (!isKnownID) brokenContract(ctx, 'a messageID that is not the message’s')
    if (isStored) last = messageSeq
  }
  let storedCount = 0
  for (let index = 0; index < items.length; index++) {
    const item = items[index]!
    const result = results[index]!
    if (result.status === 'stored') storedCount++
    if (result.status === 'stored') item.keep(result.messageSeq)
    else if (result.status === 'duplicate') item.repeat(result)
    else refuseConflict(ctx, item)
  }
  const { counts, replicator } = ctx.services
  counts.repeatedCount += items.length - storedCount
  if (replicator === undefined) counts.storedCount += storedCount // else counted by whoever applies the log
}

function brokenContract(ctx: DistributeEvent, detail: string): never {
  throw new IMError('IM_STORE_CONTRACT', { detail, context: { ...ctx.describe(), event: ctx.event, step: 'store' } })
}

/** Durable, and committed where there is a log: now the senders may know. */
function acknowledge(ctx: DistributeEvent): Outcome {
  const { recent, store } = ctx.services
  const remembers = ctx.waited && store.knowsRepeats !== true
  const nowMs = ctx.items[0]!.trace === undefined ? 0 : ctx.services.nowMs() // all of them are traced, or none
  for (const item of ctx.items) {
    const { message } = item
    if (item.stage === 'waiting' && message.noPersist) {
      // Stored nowhere: this table is all there is to tell a repeat by, also within one batch.
      const original = recent.find(ctx.channel, message)
      if (original !== undefined) answerRepeat(ctx, item, original)
      else item.keep(0)
    }
    // A store that answers at once has its index at hand, and others say so: remembering for them would only be work done twice.
    if (item.stage === 'kept' && (remembers || message.noPersist)) recent.remember(ctx.channel, message)
    if (item.stage === 'kept' || item.stage === 'repeat') {
      item.acknowledge()
      item.trace?.stored((item.original ?? message).messageSeq, item.original?.messageID, nowMs)
    }
    if (item.stage === 'kept' && item.origin.connectionID !== undefined) ctx.services.delivered(message.fromUID, message)
  }
  if (ctx.services.diagnostics.commit.hasSubscribers) tellCommit(ctx)
}

function tellCommit({ services, key: { channelID, channelType }, items, startedAtMs }: DistributeEvent): void {
  const { diagnostics: { nodeID, commit }, nowMs } = services
  const messages = items.flatMap(({ stage, message: { messageID, messageSeq, fromUID, clientMsgNo } }) =>
    stage === 'kept' ? [{ messageID, messageSeq, fromUID, clientMsgNo }] : [],
  )
  const endedAtMs = nowMs()
  if (messages.length > 0) commit.publish({ nodeID, channelID, channelType, messages, startedAtMs: startedAtMs || endedAtMs, endedAtMs })
}

/** Tell the host, then the members. Repeats concern nobody. */
function postProcess(ctx: DistributeEvent): Outcome {
  const { services, channel, key } = ctx
  const kept = ctx.allOr((item) => item.stage === 'kept')
  // What went through the log has been told and delivered when it was applied, in log order.
  const items = services.replicator === undefined ? kept : kept.filter((item) => item.message.noPersist)
  if (items.length === 0) return
  if (services.facts.has('messageStored')) {
    const stored = items.filter((item) => !item.message.noPersist).map((item) => item.message)
    if (stored.length > 0) services.facts.emit('messageStored', { key, messages: stored })
  }
  // Runs of messages for the same receivers, so that whoever gets several of them gets them in order.
  for (let first = 0, end = 1; first < items.length; first = end++) {
    const { receivers } = items[first]!
    while (end < items.length && items[end]!.receivers === receivers) end++
    services.handOver(channel, key, first === 0 && end === items.length ? items : items.slice(first, end), receivers)
  }
}
