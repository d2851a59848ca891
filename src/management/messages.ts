import type { Clock } from '../contracts/clock.ts'
import type { IDSource } from '../contracts/id-source.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import type { Random } from '../contracts/random.ts'
import { badOption, IMError, integerBetween } from '../errors.ts'
import { canonicalKey, channelKeyString, ChannelType, commandKey, sourceKey, type ChannelInfo, type ChannelKey } from '../model/channel.ts'
import { Setting, type Message } from '../model/message.ts'
import { ReasonCode, reasonName } from '../model/reason-code.ts'
import { checkKey, checkMessageIDs, checkUID } from './check.ts'
import type { CommandsAPI } from './commands.ts'
import type { History, HistoryPage, HistoryQuery } from './history.ts'
import type { ReviseOptions, Revisions } from './revisions.ts'

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
  /** a command, kept beside the channel: see `messages.commands` */
  readonly syncOnce?: boolean
  /** stop waiting; the message may be stored all the same */
  readonly signal?: AbortSignal
}

/** What became of it: stored under these, or what an earlier call with the same clientMsgNo got. */
export interface SendReceipt {
  readonly messageID: string
  /** 0 when `noPersist` */
  readonly messageSeq: number
  readonly clientMsgNo: string
}

/** Messages by the numbers their sender gave them. A person channel goes by its canonical id. */
export interface ClientMsgNoQuery extends ChannelKey {
  readonly fromUID: string
  readonly clientMsgNos: readonly string[]
}

export interface MessagesAPIOptions {
  readonly store: MessageStore
  readonly history: History
  readonly revisions: Revisions
  readonly commands: CommandsAPI
  /** what is known of a channel; ends in time */
  readonly channel: (key: ChannelKey) => Promise<ChannelInfo | undefined>
  readonly ids: IDSource
  readonly clock: Clock
  readonly random: Random
  readonly maxPayloadBytes: number
  readonly isRunning: () => boolean
  /** EventChannelDistribute; false at the bound of the channel's queue */
  readonly distribute: (channel: string, key: ChannelKey, message: Message, waiter: Waiter) => boolean
}

interface Waiter {
  settle(reasonCode: ReasonCode, messageID: string, messageSeq: number): void
  /** the engine has closed before the message's fate was known */
  abandon(): void
}

const MAX_TEXT_BYTES = 32_767

/** `engine.messages`: messages from the host, and what the channels hold. */
export class MessagesAPI {
  /** messages that were sent with `syncOnce` */
  readonly commands: CommandsAPI
  readonly #options: MessagesAPIOptions

  constructor(options: MessagesAPIOptions) {
    this.#options = options
    this.commands = options.commands
  }

  /**
   * Send as any user, and wait until it is stored (and committed). The host is trusted: of all permission checks only
   * "a group exists" and "not disbanded" hold, and no webhook is asked.
   * @throws TypeError for wrong arguments; IM_NOT_RUNNING; IM_REFUSED and IM_SEND_FAILED with `context.reasonCode`;
   *   IM_QUEUE_FULL; IM_ABORTED
   */
  async send(request: SendRequest): Promise<SendReceipt> {
    const message = this.#messageOf(request)
    const key = { channelID: message.channelID, channelType: message.channelType }
    return untilAborted(request.signal, key, async () => {
      if (!this.#options.isRunning()) throw new IMError('IM_NOT_RUNNING')
      const info = await this.#channel(sourceKey(key))
      if (info === undefined && key.channelType !== ChannelType.Person) throw refused(ReasonCode.ChannelNotExist, key)
      if (info?.disband === true) throw refused(ReasonCode.Disband, key)
      if (request.signal?.aborted !== true) return this.#distribute(key, message)
      throw new IMError('IM_ABORTED', { context: key }) // the directory took its time
    })
  }

  /**
   * Messages of a channel, read page by page as they are consumed, in the order of the direction. A person channel goes by
   * its canonical id (`personChannelID`). The bounds are those of `HistoryQuery`: `startSeq` counts, `endSeq` does not.
   */
  range(key: ChannelKey, query: HistoryQuery = {}): AsyncGenerator<Message, void, undefined> {
    return this.#options.history.range(checkKey(key), query)
  }

  /** One page of a channel, oldest first in both directions, as a client asks for it. `limit` 0 .. 10000, default 100. */
  async sync(key: ChannelKey, query: HistoryQuery = {}): Promise<HistoryPage> {
    return this.#options.history.page(checkKey(key), query)
  }

  /** The highest number given in a channel, 0 for none. */
  async lastSeq(key: ChannelKey): Promise<number> {
    return this.#options.store.lastSeq(checkKey(key))
  }

  /** Messages by id, or by a sender's own numbers, in the order asked; undefined where there is none. */
  async get(query: readonly string[] | ClientMsgNoQuery): Promise<readonly (Message | undefined)[]> {
    if (typeof query !== 'object' || query === null || Array.isArray(query)) return this.#options.store.get(checkMessageIDs(query as readonly string[]))
    const { fromUID, clientMsgNos, ...channel } = query as ClientMsgNoQuery
    const key = checkKey(channel)
    checkUID('fromUID', fromUID)
    if (!Array.isArray(clientMsgNos)) badOption('clientMsgNos', 'an array of texts', clientMsgNos)
    clientMsgNos.forEach((clientMsgNo: string, index) => checkText(`clientMsgNos[${index}]`, clientMsgNo))
    return Promise.all(clientMsgNos.map(async (clientMsgNo: string) => this.#options.store.findByClientMsgNo(key, fromUID, clientMsgNo)))
  }

  /** Remove everything below `beforeSeq` for everybody. The numbers are never given again. */
  async truncate(key: ChannelKey, beforeSeq: number): Promise<{ readonly removedCount: number }> {
    return this.#options.store.truncate(checkKey(key), integerBetween('beforeSeq', beforeSeq, 0, Number.MAX_SAFE_INTEGER))
  }

  /**
   * Take a message back for everybody: an empty payload and `revision.kind` 'recalled' are what the history has from now on,
   * it counts as unread no more, and connections of version 5 and above get the EVENT 'message.recalled'. Doing it again
   * changes nothing.
   * @returns the message as it is now
   * @throws TypeError for wrong arguments; IM_MESSAGE_NOT_FOUND; IM_NOT_SUPPORTED with other nodes; what the store throws
   */
  recall(messageID: string, options: ReviseOptions = {}): Promise<Message> {
    return this.#options.revisions.recall(messageID, options)
  }

  /**
   * Give a message another payload. Ids, place and time stay; `revision` says which version it is, and the EVENT is
   * 'message.edited'. Repeats of the SEND are still recognised by what it came with.
   * @returns the message as it is now
   * @throws as `recall`; IM_MESSAGE_NOT_FOUND also for one that has been recalled
   */
  edit(messageID: string, payload: Uint8Array, options: ReviseOptions = {}): Promise<Message> {
    return this.#options.revisions.edit(messageID, payload, options)
  }

  /**
   * Delete messages for one user only: not in their history (`forUID`), not replayed and not counted as unread any more. The
   * user's connections get the EVENT 'message.deleted'. Ids that are not there are passed over; at most 1000 at once.
   */
  deleteFor(uid: string, messageIDs: readonly string[]): Promise<{ readonly deletedCount: number }> {
    return this.#options.revisions.deleteFor(uid, messageIDs)
  }

  async #channel(key: ChannelKey): Promise<ChannelInfo | undefined> {
    try {
      return await this.#options.channel(key)
    } catch (cause) {
      throw new IMError('IM_DIRECTORY_UNAVAILABLE', { cause, context: key })
    }
  }

  #distribute(key: ChannelKey, message: Message): Promise<SendReceipt> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        settle: (reasonCode, messageID, messageSeq) => {
          if (reasonCode === ReasonCode.Success) resolve({ messageID, messageSeq, clientMsgNo: message.clientMsgNo })
          else reject(refused(reasonCode, key))
        },
        abandon: () => reject(new IMError('IM_ABORTED', { detail: 'the engine has closed', context: key })),
      }
      if (!this.#options.isRunning()) reject(new IMError('IM_NOT_RUNNING'))
      else if (!this.#options.distribute(channelKeyString(key), key, message, waiter)) reject(new IMError('IM_QUEUE_FULL', { context: key }))
    })
  }

  #messageOf(request: SendRequest): Message {
    const { clock, ids, random, maxPayloadBytes } = this.#options
    if (typeof request !== 'object' || request === null) badOption('the message', 'an object', request)
    const { channelID, channelType } = checkKey(request)
    const fromUID = checkUID('fromUID', request.fromUID)
    if (channelType === ChannelType.Person) checkUID('channelID', channelID)
    const { payload } = request
    if (!(payload instanceof Uint8Array) || payload.length > maxPayloadBytes) {
      badOption('payload', `a Uint8Array of at most ${maxPayloadBytes} bytes`, payload)
    }
    const expireSec = integerBetween('expireSec', request.expireSec ?? 0, 0, 0xffff_ffff)
    const topic = checkText('topic', request.topic ?? '')
    const clientMsgNo = checkText('clientMsgNo', request.clientMsgNo ?? Buffer.from(random.bytes(16)).toString('hex'))
    const key = canonicalKey(fromUID, channelID, channelType)
    const isKeptCommand = request.syncOnce === true && request.noPersist !== true
    return {
      ...(isKeptCommand ? commandKey(key) : key),
      messageID: ids.next(),
      messageSeq: 0,
      clientMsgNo,
      fromUID,
      payload: new Uint8Array(payload), // a copy: the caller may reuse its buffer
      timestampMs: clock.nowMs(),
      expireSec,
      topic,
      setting: topic === '' ? 0 : Setting.Topic,
      noPersist: request.noPersist ?? false,
      redDot: request.redDot ?? request.syncOnce !== true,
      syncOnce: request.syncOnce ?? false,
    }
  }
}

/** Run `action`, but wait for it no longer than the signal allows. @throws IM_ABORTED */
async function untilAborted<T>(signal: AbortSignal | undefined, context: ChannelKey, action: () => Promise<T>): Promise<T> {
  if (signal === undefined) return action()
  let abort = (): void => undefined
  const aborted = new Promise<never>((_resolve, reject) => {
    abort = () => reject(new IMError('IM_ABORTED', { cause: signal.reason, context }))
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort, { once: true })
  })
  try {
    return await (signal.aborted ? aborted : Promise.race([action(), aborted]))
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** Final for the caller, or worth another try? The reasons that stand for our own failures and for load are. */
function refused(reasonCode: ReasonCode, key: ChannelKey): IMError {
  const mayPass =
    reasonCode === ReasonCode.SystemError || reasonCode === ReasonCode.NodeNotMatch || reasonCode === ReasonCode.RateLimit
  const context = { channelID: key.channelID, channelType: key.channelType, reasonCode }
  return new IMError(mayPass ? 'IM_SEND_FAILED' : 'IM_REFUSED', { detail: reasonName(reasonCode), context })
}

function checkText(name: string, text: unknown): string {
  if (typeof text !== 'string' || !text.isWellFormed() || Buffer.byteLength(text) > MAX_TEXT_BYTES) {
    badOption(name, `well-formed text of at most ${MAX_TEXT_BYTES} bytes`, text)
  }
  return text
}
