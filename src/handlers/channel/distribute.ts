import type { AbortGroup } from '../../contracts/abort-group.ts'
import type { FactSink } from '../../contracts/facts.ts'
import type { DistributeContext, Steps } from '../../contracts/handler.ts'
import type { AppendResult, MessageStore } from '../../contracts/message-store.ts'
import type { Replicator } from '../../contracts/replicator.ts'
import { asIMError, IMError, type IMErrorContext } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { isPromise, type MaybePromise } from '../../model/maybe-promise.ts'
import type { Message } from '../../model/message.ts'
import type { Closing, Outcome, Refusal } from '../../model/outcome.ts'
import { ReasonCode } from '../../model/reason-code.ts'
import { EngineEvent } from '../engine-event.ts'
import { reasonOf } from '../origin.ts'
import type { PushSource } from '../pusher/push-online.ts'
import type { DistributeItem } from './distribute-item.ts'

/** Messages that were answered lately. Source: services/dedup. */
export interface RecentMessagesPort {
  find(channel: string, message: Message): { readonly messageID: string; readonly messageSeq: number; readonly payload: Uint8Array } | undefined
  remember(channel: string, message: Message): void
}

export interface DistributeServices {
  readonly store: MessageStore
  readonly replicator: Replicator | undefined
  readonly recent: RecentMessagesPort
  readonly facts: FactSink
  readonly waits: AbortGroup
  readonly report: (error: IMError) => void
  /** with a replicator: which connection a message came in on, for the delivery that happens when the log is applied */
  readonly proposed: Map<string, string>
  /** tell the webhook, some time */
  readonly notify: (messages: readonly Message[]) => void
  /** whom the channel is for, in pages */
  readonly eachSubscriberPage: (key: ChannelKey, take: (uids: readonly string[]) => void) => MaybePromise<void>
  /** EventPushOnline */
  readonly push: (channel: string, key: ChannelKey, sources: readonly PushSource[], uids: readonly string[]) => void
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

  constructor(channel: string, items: readonly DistributeItem[], services: DistributeServices) {
    super()
    this.channel = channel
    this.key = items[0]!.key
    this.items = items
    this.services = services
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
    const item = this.items.find((candidate) => candidate.message === message)
    if (item?.stage === 'waiting') this.refuseItem(item, reasonCode, undefined)
  }

  describe(): IMErrorContext {
    return { channelID: this.key.channelID, channelType: this.key.channelType }
  }

  rememberOrigins(items: readonly DistributeItem[]): void {
    for (const { message, origin } of items) {
      if (origin.connectionID !== undefined) this.services.proposed.set(message.messageID, origin.connectionID)
    }
  }

  finish(result: undefined | Refusal | Closing | IMError): void {
    if (this.services.replicator !== undefined) {
      for (const { message } of this.items) this.services.proposed.delete(message.messageID)
    }
    if (result instanceof IMError) this.services.report(result)
    // With no result nobody is left waiting, unless a host has replaced `store` or `acknowledge` and forgot them.
    const reasonCode = result === undefined ? ReasonCode.SystemError : result instanceof IMError ? reasonOf(result) : result.reasonCode
    const why = result === undefined || result instanceof IMError ? undefined : result.message
    for (const item of this.items) {
      if (item.stage === 'waiting') this.refuseItem(item, reasonCode, why)
    }
  }

  private refuseItem(item: DistributeItem, reasonCode: ReasonCode, message: string | undefined): void {
    item.refuse(reasonCode)
    const { fromUID, channelID, channelType, clientMsgNo } = item.message
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
    if (original === undefined) {
      // Stored nowhere, so this table is all there is to tell a repeat by, also within one batch.
      if (message.noPersist) recent.remember(ctx.channel, message)
    } else if (Buffer.compare(original.payload, message.payload) === 0) {
      item.repeat(original)
    } else {
      item.refuse(ReasonCode.IdempotencyConflict)
    }
  }
}

function store(ctx: DistributeEvent): Outcome | Promise<Outcome> {
  ctx.storing = true
  for (const item of ctx.inStage('waiting')) {
    if (item.message.noPersist) item.keep(0)
  }
  if (ctx.services.replicator !== undefined) return // numbered by the log, when it is applied
  const items = ctx.inStage('waiting')
  if (items.length === 0) return
  const messages = items.map((item) => item.message)
  const failed = (reason: unknown): never => {
    throw asIMError(reason, 'IM_STORE_UNAVAILABLE', { ...ctx.describe(), event: ctx.event, step: 'store' })
  }
  try {
    const appended = ctx.services.store.append([{ key: ctx.key, messages }])
    if (isPromise(appended)) return appended.then((results) => takeResults(ctx, items, results[0]), failed)
    takeResults(ctx, items, appended[0])
  } catch (reason) {
    failed(reason)
  }
}

function replicate(ctx: DistributeEvent): Outcome | Promise<Outcome> {
  const { replicator } = ctx.services
  if (replicator === undefined) return
  const items = ctx.inStage('waiting')
  if (items.length === 0) return
  const messages = items.map((item) => item.message)
  ctx.rememberOrigins(items)
  const failed = (reason: unknown): never => {
    throw asIMError(reason, 'IM_REPLICATION_TIMEOUT', { ...ctx.describe(), event: ctx.event, step: 'replicate' })
  }
  try {
    const committed = replicator.propose(ctx.key, messages, ctx.signal)
    if (isPromise(committed)) return committed.then((results) => takeResults(ctx, items, results), failed)
    takeResults(ctx, items, committed)
  } catch (reason) {
    failed(reason)
  }
}

/** Number the messages by the store's answer, which is checked: a store that miscounts would break every client's history. */
function takeResults(ctx: DistributeEvent, items: readonly DistributeItem[], results: readonly AppendResult[] | undefined): void {
  if (results?.length !== items.length) brokenContract(ctx, `${items.length} messages, ${results?.length ?? 'no'} results`)
  let last = 0
  for (const result of results) {
    if (result.status !== 'stored') continue
    const { messageSeq } = result
    if (!Number.isSafeInteger(messageSeq) || messageSeq < 1 || (last !== 0 && messageSeq !== last + 1)) {
      brokenContract(ctx, `seq ${messageSeq} after ${last}`)
    }
    last = messageSeq
  }
  for (let index = 0; index < items.length; index++) {
    const item = items[index]!
    const result = results[index]!
    if (result.status === 'stored') item.keep(result.messageSeq)
    else if (result.status === 'duplicate') item.repeat(result)
    else item.refuse(ReasonCode.IdempotencyConflict)
  }
}

function brokenContract(ctx: DistributeEvent, detail: string): never {
  throw new IMError('IM_STORE_CONTRACT', { detail, context: { ...ctx.describe(), event: ctx.event, step: 'store' } })
}

/** Durable, and committed where there is a log: now the senders may know. */
function acknowledge(ctx: DistributeEvent): Outcome {
  for (const item of ctx.items) {
    if (item.stage === 'kept') ctx.services.recent.remember(ctx.channel, item.message)
    else if (item.stage !== 'repeat') continue
    item.acknowledge()
  }
}

/** Tell the host, then the members. Repeats concern nobody. */
function postProcess(ctx: DistributeEvent): Outcome | Promise<Outcome> {
  const { services, channel, key } = ctx
  const kept = ctx.inStage('kept')
  // What went through the log has been told and delivered when it was applied, in log order.
  const items = services.replicator === undefined ? kept : kept.filter((item) => item.message.noPersist)
  if (items.length === 0) return
  const stored = items.filter((item) => !item.message.noPersist).map((item) => item.message)
  if (stored.length > 0) {
    services.facts.emit('messageStored', { key, messages: stored })
    services.notify(stored)
  }
  const sources = items.map((item): PushSource => ({ message: item.message, connectionID: item.origin.connectionID }))
  const failed = (reason: unknown): never => {
    throw asIMError(reason, 'IM_DIRECTORY_UNAVAILABLE', { ...ctx.describe(), event: ctx.event, step: 'postProcess' })
  }
  try {
    const done = services.eachSubscriberPage(key, (uids) => services.push(channel, key, sources, uids))
    if (isPromise(done)) return done.then(undefined, failed)
  } catch (reason) {
    failed(reason)
  }
}
