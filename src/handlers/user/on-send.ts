import type { AbortGroup } from '../../contracts/abort-group.ts'
import type { AuthorizeSend, AuthorizeSendRequest } from '../../contracts/authorize-send.ts'
import type { ChannelDirectory } from '../../contracts/channel-directory.ts'
import type { Clock } from '../../contracts/clock.ts'
import type { ChannelRef, ConnectionPort } from '../../contracts/connection-view.ts'
import type { Diagnostics } from '../../contracts/diagnostics.ts'
import type { FactSink } from '../../contracts/facts.ts'
import type { Steps, OnSendContext } from '../../contracts/handler.ts'
import type { IDSource } from '../../contracts/id-source.ts'
import type { Counts } from '../../contracts/metrics.ts'
import type { BeforeSendAnswer, Webhook } from '../../contracts/webhook.ts'
import { IMError, type IMErrorContext } from '../../errors.ts'
import { channelKeyString, commandKey, type ChannelKey } from '../../model/channel.ts'
import { FrameFlag, type SendPacket } from '../../model/frames.ts'
import { isPromise, type MaybePromise } from '../../model/maybe-promise.ts'
import { RECV_SETTING_MASK, Setting } from '../../model/message.ts'
import { refuse, type Closing, type Outcome, type Refusal } from '../../model/outcome.ts'
import { ReasonCode, reasonName } from '../../model/reason-code.ts'
import { openSend } from '../../protocol/seal.ts'
import { DistributeItem } from '../channel/distribute-item.ts'
import { EngineEvent } from '../engine-event.ts'
import { reasonOf, type Origin } from '../origin.ts'

export interface OnSendServices {
  readonly channels: ChannelDirectory
  readonly webhook: Webhook | undefined
  readonly authorizeSend: AuthorizeSend
  /** it is the engine's, and not one that a host has chosen */
  readonly isOwnPolicy: boolean
  readonly ids: IDSource
  readonly clock: Clock
  readonly facts: FactSink
  readonly counts: Counts
  readonly diagnostics: Diagnostics
  readonly ack: 'committed' | 'accepted'
  readonly plaintext: 'refuse' | 'allow'
  readonly maxPayloadBytes: number
  readonly waits: AbortGroup
  readonly report: (error: IMError) => void
  /** the user's queue: at its bound a SEND is turned away */
  readonly userTurnsAway: (uid: string, bytes: number) => boolean
  readonly onceUserRelieved: (uid: string, relieved: () => void) => void
  readonly submit: (uid: string, event: SendEvent) => boolean
  /** the channel's queue: EventChannelDistribute; false at its bound */
  readonly distribute: (channel: string, item: DistributeItem) => boolean
  readonly onceChannelRelieved: (channel: string, relieved: () => void) => void
}

/** EventOnSend: may they, does the host object, then number it and hand it on. One at a time per user. */
export const onSendSteps: Steps<SendEvent> = { checkPermission, callWebhook, acceptSend }

/** A SEND has come in, and with what it is answered. */
interface Arrival {
  readonly services: OnSendServices
  readonly receivedAtMs: number
}

/** What an event weighs in a queue besides its payload. */
const EVENT_BYTES = 512

/** A SEND that may wait for many things and gets exactly one SENDACK. */
export class SendEvent extends EngineEvent implements OnSendContext, AuthorizeSendRequest, Origin {
  readonly event = 'EventOnSend'
  readonly conn: ConnectionPort
  readonly frame: SendPacket
  readonly channel: ChannelRef
  readonly services: OnSendServices
  readonly queueBytes: number
  readonly receivedAtMs: number
  payload: Uint8Array
  extra: Readonly<Record<string, unknown>> | undefined
  /** the channel pool has it: the answer comes from there */
  handedOver = false
  private settled = false

  constructor(conn: ConnectionPort, frame: SendPacket, services: OnSendServices) {
    super()
    this.conn = conn
    this.frame = frame
    this.channel = channelOf(conn, frame)
    this.services = services
    this.queueBytes = weightOf(frame)
    this.receivedAtMs = conn.receivedAtMs
    this.payload = frame.payload
  }

  protected get waits(): AbortGroup {
    return this.services.waits
  }

  get key(): ChannelKey {
    return this.channel.key
  }

  get channels(): ChannelDirectory {
    return this.services.channels
  }

  get webhook(): Webhook | undefined {
    return this.services.webhook
  }

  get connectionID(): string {
    return this.conn.connectionID
  }

  get uid(): string {
    return this.conn.uid
  }

  get deviceFlag(): number {
    return this.conn.deviceFlag
  }

  get channelID(): string {
    return this.frame.channelID
  }

  get nowMs(): number {
    return this.services.clock.nowMs()
  }

  describe(): IMErrorContext {
    const { channelID, channelType } = this.channel.key
    return { uid: this.conn.uid, connectionID: this.conn.connectionID, channelID, channelType }
  }

  settle(reasonCode: ReasonCode, messageID: string, messageSeq: number): void {
    if (this.settled) return
    this.settled = true
    sendSendack(this.conn, this.frame, this, reasonCode, messageID, messageSeq)
  }

  abandon(): void {
    this.settled = true
  }

  finish(result: undefined | Refusal | Closing | IMError): void {
    if (result instanceof IMError && this.services.waits.isAborted) return this.abandon()
    if (result === undefined) {
      // A host may have put something else in the place of acceptSend: the client is answered all the same.
      if (!this.handedOver) this.settle(ReasonCode.SystemError, '0', 0)
      return
    }
    if (result instanceof IMError) {
      this.services.report(result)
      this.settle(reasonOf(result), '0', 0)
      return
    }
    this.settle(result.reasonCode, '0', 0)
    tellRefused(this.services.facts, this.conn.uid, this.frame, result.reasonCode, result.message)
    if (result.kind === 'close') this.conn.end('handler')
  }
}

/** A command that is kept goes to a log of its own, so that it is neither unread nor in anybody's history. */
function channelOf(conn: ConnectionPort, { channelID, channelType, flags }: SendPacket): ChannelRef {
  const channel = conn.channel(channelID, channelType)
  if ((flags & (FrameFlag.SyncOnce | FrameFlag.NoPersist)) !== FrameFlag.SyncOnce) return channel
  const key = commandKey(channel.key)
  return { ...channel, key, name: channelKeyString(key), isCommand: true }
}

/** What a SEND holds in memory, about: the client chooses how long its texts are, too. */
function weightOf({ payload, channelID, clientMsgNo, topic, msgKey, streamNo }: SendPacket): number {
  const charCount = channelID.length + clientMsgNo.length + topic.length + msgKey.length + streamNo.length
  return EVENT_BYTES + payload.length + 2 * charCount
}

/** A SEND has arrived: refuse what needs no queue, decrypt, and queue it. */
export function receiveSend(conn: ConnectionPort, frame: SendPacket, services: OnSendServices): void {
  if (!conn.takeSendToken()) return turnAway(conn, frame, services, ReasonCode.RateLimit)
  if (services.userTurnsAway(conn.uid, weightOf(frame))) {
    conn.pauseUntil((resume) => services.onceUserRelieved(conn.uid, resume))
    return turnAway(conn, frame, services, ReasonCode.RateLimit)
  }
  // Base64 of whole blocks is longer by a third and a little: what is beyond that is not worth decrypting.
  const isTooLong = frame.payload.length > 4 * Math.ceil((services.maxPayloadBytes + 16) / 3)
  const payload = isTooLong ? undefined : openPayload(conn, frame, services)
  if (payload === undefined || payload.length > services.maxPayloadBytes) {
    return turnAway(conn, frame, services, ReasonCode.PayloadDecodeError)
  }
  // The frame was made for us alone, and from here on its payload is the plaintext.
  ;(frame as { payload: Uint8Array }).payload = payload
  const event = new SendEvent(conn, frame, services)
  if (!services.submit(conn.uid, event)) event.settle(ReasonCode.RateLimit, '0', 0)
}

/** The plaintext, in memory of its own: a frame's payload is a copy. */
function openPayload(conn: ConnectionPort, frame: SendPacket, services: OnSendServices): Uint8Array | undefined {
  const { cipher } = conn
  const isPlain = cipher === undefined || (services.plaintext === 'allow' && (frame.setting & Setting.NoEncrypt) !== 0)
  return isPlain ? frame.payload : openSend(frame, cipher)
}

function turnAway(conn: ConnectionPort, frame: SendPacket, services: OnSendServices, reasonCode: ReasonCode): void {
  sendSendack(conn, frame, { services, receivedAtMs: conn.receivedAtMs }, reasonCode, '0', 0)
  tellRefused(services.facts, conn.uid, frame, reasonCode, undefined)
}

function sendSendack(conn: ConnectionPort, frame: SendPacket, arrival: Arrival, reasonCode: ReasonCode, messageID: string, messageSeq: number): void {
  const { flags, clientSeq } = frame
  const { counts, diagnostics } = arrival.services
  counts.sendacks[reasonCode]!++
  if (!conn.closed) counts.answering(arrival.receivedAtMs)
  if (diagnostics.send.hasSubscribers) tellSend(conn, frame, arrival, reasonName(reasonCode), messageID, messageSeq)
  // Clients of these versions do not know the code; 15 tells them the same: it is not going to be stored.
  if (reasonCode === ReasonCode.IdempotencyConflict) reasonCode = ReasonCode.SystemError
  conn.acknowledge(flags, clientSeq, reasonCode, messageID, messageSeq)
}

function tellSend(conn: ConnectionPort, frame: SendPacket, { services, receivedAtMs }: Arrival, reason: string, messageID: string, messageSeq: number): void {
  const { clock, diagnostics: { nodeID, send } } = services
  const { connectionID, uid } = conn
  const { channelID, channelType, clientMsgNo, payload } = frame
  const endedAtMs = clock.nowMs()
  const startedAtMs = endedAtMs - (clock.monotonicMs() - receivedAtMs)
  send.publish({ nodeID, connectionID, uid, channelID, channelType, clientMsgNo, messageID, messageSeq, reason, payloadBytes: payload.length, startedAtMs, endedAtMs })
}

function tellRefused(facts: FactSink, fromUID: string, frame: SendPacket, reasonCode: ReasonCode, message: string | undefined): void {
  if (!facts.has('messageRefused')) return
  const { channelID, channelType, clientMsgNo } = frame
  facts.emit('messageRefused', { fromUID, channelID, channelType, clientMsgNo, reasonCode, message })
}

/** What no policy may waive comes first: who has been kicked sends nothing, and an id that is none is no channel. */
function checkPermission(ctx: SendEvent): MaybePromise<Outcome> {
  if (ctx.conn.kicked) return refuse(ReasonCode.ConnectKick)
  if (!ctx.channel.isValid) return refuse(ReasonCode.ChannelIDError)
  const { services, channel } = ctx
  if (!services.isOwnPolicy) return services.authorizeSend(ctx)
  // What the engine's own policy has allowed it allows again, until the directory has changed; time alone forbids nothing.
  const changeCount = services.channels.changeCount?.() ?? Number.NaN
  if (channel.allowedAt === changeCount) return
  const outcome = services.authorizeSend(ctx)
  if (isPromise(outcome)) return outcome.then((late) => allow(channel, changeCount, late))
  return allow(channel, changeCount, outcome)
}

function allow(channel: ChannelRef, changeCount: number, outcome: Outcome): Outcome {
  if (outcome === undefined) channel.allowedAt = changeCount
  return outcome
}

function callWebhook(ctx: SendEvent): Outcome | Promise<Outcome> {
  const { webhook } = ctx
  if (webhook?.beforeSend === undefined) return
  const { channelID, channelType, clientMsgNo } = ctx.frame
  const { uid: fromUID, deviceFlag } = ctx.conn
  ctx.services.counts.beforeSendCount++
  const request = { fromUID, deviceFlag, channelID, channelType, clientMsgNo, payload: ctx.payload }
  const answer = webhook.beforeSend(request, ctx.signal)
  return isPromise(answer) ? answer.then((arrived) => obeyWebhook(ctx, arrived)) : obeyWebhook(ctx, answer)
}

function obeyWebhook(ctx: SendEvent, answer: BeforeSendAnswer): Outcome {
  if (typeof answer?.code !== 'number') {
    throw new IMError('IM_WEBHOOK_FAILED', { detail: 'the answer has no code', context: ctx.describe() })
  }
  if (answer.code !== 0) return refuse(ReasonCode.NotAllowSend, answer.message)
  if (answer.newPayload !== undefined) ctx.payload = answer.newPayload
  if (answer.extra !== undefined) ctx.extra = { ...ctx.extra, ...answer.extra }
}

function acceptSend(ctx: SendEvent): Outcome {
  // Asked again: another login may have ended this one while we waited.
  if (ctx.conn.kicked) return refuse(ReasonCode.ConnectKick)
  const { frame, services, channel } = ctx
  if (!(ctx.payload instanceof Uint8Array) || ctx.payload.length > services.maxPayloadBytes) {
    // Stopped here, where it can hurt only its own sender.
    const detail = `a handler or the webhook left a payload that is no Uint8Array of at most ${services.maxPayloadBytes} bytes`
    throw new IMError('IM_HANDLER_FAILED', { detail, context: ctx.describe() })
  }
  const item = new DistributeItem(
    {
      messageID: services.ids.next(),
      messageSeq: 0,
      clientMsgNo: frame.clientMsgNo,
      fromUID: ctx.conn.uid,
      channelID: channel.key.channelID,
      channelType: channel.key.channelType,
      payload: ctx.payload,
      timestampMs: services.clock.nowMs(),
      expireSec: frame.expireSec,
      topic: frame.topic,
      setting: frame.setting & RECV_SETTING_MASK,
      noPersist: (frame.flags & FrameFlag.NoPersist) !== 0,
      redDot: (frame.flags & FrameFlag.RedDot) !== 0,
      // Whoever names the channel of commands sends one: among the messages its number would be somebody else's.
      syncOnce: (frame.flags & FrameFlag.SyncOnce) !== 0 || channel.isCommand,
    },
    channel.key,
    ctx,
  )
  if (!services.distribute(channel.name, item)) {
    ctx.conn.pauseUntil((resume) => services.onceChannelRelieved(channel.name, resume))
    return refuse(ReasonCode.RateLimit)
  }
  ctx.handedOver = true
  if (services.ack === 'accepted') ctx.settle(ReasonCode.Success, item.message.messageID, 0)
}
