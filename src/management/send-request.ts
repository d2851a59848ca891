import type { Clock } from '../contracts/clock.ts'
import type { IDSource } from '../contracts/id-source.ts'
import type { Random } from '../contracts/random.ts'
import { badOption, integerBetween } from '../errors.ts'
import { canonicalKey, ChannelType, commandKey, isCommandKey, type ChannelKey } from '../model/channel.ts'
import { Setting, type Message } from '../model/message.ts'
import { checkKey, checkPayload, checkText, checkUID, checkUIDs } from './check.ts'

/** A message from the host. Times in seconds and milliseconds as named. */
export interface SendRequest {
  /** in a person channel the receiver's uid */
  readonly channelID: string
  readonly channelType: number
  readonly fromUID: string
  /** at most `maxPayloadBytes`; client SDKs expect UTF-8 JSON with a numeric `type` */
  readonly payload: Uint8Array
  /** the de-duplication key; default: a new one for every call */
  readonly clientMsgNo?: string
  readonly expireSec?: number
  readonly topic?: string
  /** counts as unread; default true, but for a command */
  readonly redDot?: boolean
  readonly noPersist?: boolean
  /** a command, kept beside the channel: see `messages.commands`; default false, but for a channel id that ends with `____cmd` */
  readonly syncOnce?: boolean
  /**
   * Whom it is for, instead of the channel's members: those of them who are online, at most `maxMembersPerCall`. Only with
   * `noPersist`, and not in a person channel (`sendToUsers`). Nobody asks whether they are members. The
   * same `clientMsgNo` is a repeat, whoever it is for
   */
  readonly subscribers?: readonly string[]
  /** stop waiting; the message may be stored all the same */
  readonly signal?: AbortSignal
}

/** A message for single users: everything but the channel. */
export type UserSendRequest = Omit<SendRequest, 'channelID' | 'channelType' | 'subscribers'>

/** A request that has been checked. */
export interface Sending {
  readonly message: Message
  readonly key: ChannelKey
  readonly receivers: readonly string[] | undefined
  readonly signal: AbortSignal | undefined
}

export interface SendingOptions {
  readonly ids: IDSource
  readonly clock: Clock
  readonly random: Random
  readonly maxPayloadBytes: number
  readonly maxMembersPerCall: number
}

/** What is to be sent. `at` goes before the names in a TypeError. @throws TypeError for wrong arguments */
export function sendingOf(options: SendingOptions, request: SendRequest, at = ''): Sending {
  const { clock, ids, random, maxPayloadBytes } = options
  if (typeof request !== 'object' || request === null) badOption(at === '' ? 'the message' : at.slice(0, -1), 'an object', request)
  const { channelID, channelType } = checkKey(request, at)
  const fromUID = checkUID(`${at}fromUID`, request.fromUID)
  if (channelType === ChannelType.Person) checkUID(`${at}channelID`, channelID)
  const payload = checkPayload(`${at}payload`, request.payload, maxPayloadBytes)
  const expireSec = integerBetween(`${at}expireSec`, request.expireSec ?? 0, 0, 0xffff_ffff)
  const topic = checkText(`${at}topic`, request.topic ?? '')
  const clientMsgNo = checkText(`${at}clientMsgNo`, request.clientMsgNo ?? Buffer.from(random.bytes(16)).toString('hex'))
  const { noPersist = false, syncOnce = isCommandKey(request), redDot = !syncOnce, signal } = request
  checkFlag(at, 'noPersist', noPersist)
  checkFlag(at, 'redDot', redDot)
  checkFlag(at, 'syncOnce', syncOnce)
  if (signal !== undefined && !(signal instanceof AbortSignal)) badOption(`${at}signal`, 'an AbortSignal', signal)
  const receivers = receiversOf(options, request, at)
  const source = canonicalKey(fromUID, channelID, channelType)
  const key = syncOnce && !noPersist ? commandKey(source) : source
  const message: Message = {
    channelID: key.channelID,
    channelType: key.channelType,
    messageID: ids.next(),
    messageSeq: 0,
    clientMsgNo,
    fromUID,
    payload: Buffer.from(payload), // a copy: the caller may reuse its buffer
    timestampMs: clock.nowMs(),
    expireSec,
    topic,
    setting: topic === '' ? 0 : Setting.Topic,
    noPersist,
    redDot,
    syncOnce: syncOnce || isCommandKey(key),
  }
  return { message, key, receivers, signal }
}

function checkFlag(at: string, name: string, flag: unknown): void {
  if (typeof flag !== 'boolean') badOption(`${at}${name}`, 'true or false', flag)
}

function receiversOf({ maxMembersPerCall }: SendingOptions, { subscribers, noPersist, channelType }: SendRequest, at: string): readonly string[] | undefined {
  if (subscribers === undefined) return undefined
  if (noPersist !== true) badOption(`${at}noPersist`, 'true with subscribers: such a message has no place in the channel', noPersist)
  if (channelType === ChannelType.Person) badOption(`${at}channelType`, 'not that of a person with subscribers', channelType)
  return [...new Set(checkUIDs(`${at}subscribers`, subscribers, maxMembersPerCall))]
}
