import type { MessageStore } from '../contracts/message-store.ts'
import { asIMError, badOption, IMError, integerBetween } from '../errors.ts'
import { channelKeyString, ChannelType, sourceKey, type ChannelInfo, type ChannelKey } from '../model/channel.ts'
import type { Message } from '../model/message.ts'
import { ReasonCode, reasonName } from '../model/reason-code.ts'
import { checkLogKey, checkMessageIDs, checkText, checkUID, checkUIDs } from './check.ts'
import type { CommandsAPI } from './commands.ts'
import type { History, HistoryPage, HistoryQuery } from './history.ts'
import type { ReviseOptions, Revisions } from './revisions.ts'
import { sendingOf, type Sending, type SendingOptions, type SendRequest, type UserSendRequest } from './send-request.ts'

/** What became of it: stored under these, or what an earlier call with the same clientMsgNo got. */
export interface SendReceipt {
  readonly messageID: string
  /** 0 when `noPersist` */
  readonly messageSeq: number
  readonly clientMsgNo: string
}

/** What became of one request of several. */
export type SendResult =
  | { readonly status: 'sent'; readonly receipt: SendReceipt }
  | { readonly status: 'failed'; readonly error: IMError }

/** Messages by their numbers in the channel. A person channel goes by its canonical id. */
export interface SeqQuery extends ChannelKey {
  /** at most 1000 */
  readonly seqs: readonly number[]
}

/** Messages by the numbers their sender gave them. A person channel goes by its canonical id. */
export interface ClientMsgNoQuery extends ChannelKey {
  readonly fromUID: string
  readonly clientMsgNos: readonly string[]
}

export interface MessagesAPIOptions extends SendingOptions {
  readonly store: MessageStore
  readonly history: History
  readonly revisions: Revisions
  readonly commands: CommandsAPI
  /** what is known of a channel, from memory or, `isFresh`, from the directory; ends in time */
  readonly channel: (key: ChannelKey, isFresh: boolean) => Promise<ChannelInfo | undefined>
  readonly isRunning: () => boolean
  /** EventChannelDistribute; false at the bound of the channel's queue */
  readonly distribute: (channel: string, key: ChannelKey, message: Message, waiter: Waiter, receivers: readonly string[] | undefined) => boolean
}

interface Waiter {
  settle(reasonCode: ReasonCode, messageID: string, messageSeq: number): void
  /** the engine has closed before the message's fate was known */
  abandon(): void
}

/** Requests of one `sendMany`, and numbers of one `get`. */
const MAX_REQUESTS = 1_000
/** Of several messages so many are under way at the same time. */
const CONCURRENT_COUNT = 100

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
   * "a group exists" and "not disbanded" hold, and no webhook is asked. Channels of other types need not exist.
   * @throws TypeError for wrong arguments; IM_NOT_RUNNING; IM_REFUSED and IM_SEND_FAILED with `context.reasonCode`;
   *   IM_QUEUE_FULL; IM_ABORTED
   */
  async send(request: SendRequest): Promise<SendReceipt> {
    const sending = sendingOf(this.#options, request)
    return this.#send(sending, () => this.#channel(sending.key))
  }

  /**
   * Send up to 1000 messages. Those of one channel are stored in the order given; one that fails keeps none from going on.
   * @returns what became of each, in the order given
   * @throws TypeError for wrong arguments, before anything has been sent; all else is in the results
   */
  async sendMany(requests: readonly SendRequest[]): Promise<readonly SendResult[]> {
    if (!Array.isArray(requests) || requests.length > MAX_REQUESTS) badOption('requests', `an array of at most ${MAX_REQUESTS}`, requests)
    return this.#sendAll((requests as readonly SendRequest[]).map((request, index) => sendingOf(this.#options, request, `requests[${index}].`)))
  }

  /**
   * Send each of these users a message of their own, in the person channel with `fromUID`; at most `maxMembersPerCall` of
   * them, each once.
   * @throws TypeError for wrong arguments, before anything has been sent; all else is in `failed`
   */
  async sendToUsers(uids: readonly string[], request: UserSendRequest): Promise<{ readonly sent: number; readonly failed: readonly { readonly uid: string; readonly error: IMError }[] }> {
    const receivers = [...new Set(checkUIDs('uids', uids, this.#options.maxMembersPerCall))]
    const failed: { uid: string; error: IMError }[] = []
    const toUser = (uid: string): Sending => sendingOf(this.#options, { ...request, channelID: uid, channelType: ChannelType.Person })
    if (receivers.length === 0) sendingOf(this.#options, { ...request, channelID: 'nobody', channelType: ChannelType.Person }) // a mistake is one also then
    for (let first = 0; first < receivers.length; first += CONCURRENT_COUNT) {
      const page = receivers.slice(first, first + CONCURRENT_COUNT)
      const results = await this.#sendAll(page.map(toUser))
      for (const [index, result] of results.entries()) if (result.status === 'failed') failed.push({ uid: page[index]!, error: result.error })
    }
    return { sent: receivers.length - failed.length, failed }
  }

  /**
   * Messages of a channel, read page by page as they are consumed, in the order of the direction. A person channel goes by
   * its canonical id (`personChannelID`). The bounds are those of `HistoryQuery`: `startSeq` counts, `endSeq` does not.
   */
  range(key: ChannelKey, query: HistoryQuery = {}): AsyncGenerator<Message, void, undefined> {
    return this.#options.history.range(checkLogKey(key), query)
  }

  /** One page of a channel, oldest first in both directions, as a client asks for it. `limit` 0 .. 10000, default 100. */
  async sync(key: ChannelKey, query: HistoryQuery = {}): Promise<HistoryPage> {
    return this.#options.history.page(checkLogKey(key), query)
  }

  /** The highest number given in a channel, 0 for none. */
  async lastSeq(key: ChannelKey): Promise<number> {
    return this.#options.store.lastSeq(checkLogKey(key))
  }

  /** Messages by id, by a sender's own numbers, or by their numbers in the channel, in the order asked; undefined where there is none. */
  async get(query: readonly string[] | ClientMsgNoQuery | SeqQuery): Promise<readonly (Message | undefined)[]> {
    if (typeof query !== 'object' || query === null || Array.isArray(query)) return this.#options.store.get(checkMessageIDs(query as readonly string[]))
    if ('seqs' in query) return this.#bySeqs(query)
    const { fromUID, clientMsgNos, ...channel } = query as ClientMsgNoQuery
    const key = checkLogKey(channel)
    checkUID('fromUID', fromUID)
    if (!Array.isArray(clientMsgNos)) badOption('clientMsgNos', 'an array of texts', clientMsgNos)
    clientMsgNos.forEach((clientMsgNo: string, index) => checkText(`clientMsgNos[${index}]`, clientMsgNo))
    return Promise.all(clientMsgNos.map(async (clientMsgNo: string) => this.#options.store.findByClientMsgNo(key, fromUID, clientMsgNo)))
  }

  /** Remove everything below `beforeSeq` for everybody. The numbers are never given again. */
  async truncate(key: ChannelKey, beforeSeq: number): Promise<{ readonly removedCount: number }> {
    return this.#options.store.truncate(checkLogKey(key), integerBetween('beforeSeq', beforeSeq, 0, Number.MAX_SAFE_INTEGER))
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

  async #bySeqs({ seqs, ...channel }: SeqQuery): Promise<readonly (Message | undefined)[]> {
    const key = checkLogKey(channel)
    if (!Array.isArray(seqs) || seqs.length > MAX_REQUESTS) badOption('seqs', `an array of at most ${MAX_REQUESTS} numbers`, seqs)
    const wanted = seqs as readonly number[]
    wanted.forEach((seq, index) => integerBetween(`seqs[${index}]`, seq, 1, Number.MAX_SAFE_INTEGER))
    const found = new Map<number, Message>()
    const sorted = [...new Set(wanted)].sort((a, b) => a - b)
    // Numbers that follow each other are read at once.
    for (let first = 0, end = 1; first < sorted.length; first = end++) {
      while (end < sorted.length && sorted[end] === sorted[end - 1]! + 1) end++
      const bounds = { startSeq: sorted[first]!, endSeq: sorted[end - 1]!, limit: end - first }
      for (const message of await this.#options.store.range(key, bounds)) found.set(message.messageSeq, message)
    }
    return wanted.map((seq) => found.get(seq))
  }

  /** Never rejects. A piece after the other; within one, what is known of a channel is asked once, so that order is kept. */
  async #sendAll(sendings: readonly Sending[]): Promise<SendResult[]> {
    const results: SendResult[] = []
    for (let first = 0; first < sendings.length; first += CONCURRENT_COUNT) {
      const channels = new Map<string, Promise<ChannelInfo | undefined>>()
      const channelOf = (key: ChannelKey): Promise<ChannelInfo | undefined> => {
        const name = channelKeyString(key)
        const asked = channels.get(name) ?? this.#channel(key)
        channels.set(name, asked)
        return asked
      }
      const settle = async (sending: Sending): Promise<SendResult> => {
        const send = (): Promise<SendReceipt> => this.#send(sending, () => channelOf(sending.key))
        try {
          // Those that ask nobody wait for the same answer as those before them.
          return { status: 'sent', receipt: await (sending.receivers === undefined ? send() : channelOf(sending.key).then(send, send)) }
        } catch (thrown) {
          return { status: 'failed', error: asIMError(thrown, 'IM_SEND_FAILED', { ...sending.key }) }
        }
      }
      results.push(...(await Promise.all(sendings.slice(first, first + CONCURRENT_COUNT).map(settle))))
    }
    return results
  }

  #send(sending: Sending, channel: () => Promise<ChannelInfo | undefined>): Promise<SendReceipt> {
    const { key, receivers, signal } = sending
    return untilAborted(signal, key, async () => {
      if (!this.#options.isRunning()) throw new IMError('IM_NOT_RUNNING')
      if (receivers !== undefined) return this.#distribute(sending)
      const info = await channel()
      if (info === undefined && key.channelType === ChannelType.Group) throw refused(ReasonCode.ChannelNotExist, key)
      if (info?.disband === true) throw refused(ReasonCode.Disband, key)
      if (signal?.aborted !== true) return this.#distribute(sending)
      throw new IMError('IM_ABORTED', { context: key }) // the directory took its time
    })
  }

  /** As a SEND asks it, which may be from memory; what would refuse the message is asked again, because another node may have changed it. */
  async #channel(key: ChannelKey): Promise<ChannelInfo | undefined> {
    const source = sourceKey(key)
    try {
      const info = await this.#options.channel(source, false)
      const isRefusal = info === undefined ? key.channelType === ChannelType.Group : info.disband
      return isRefusal ? await this.#options.channel(source, true) : info
    } catch (cause) {
      throw new IMError('IM_DIRECTORY_UNAVAILABLE', { cause, context: key })
    }
  }

  #distribute({ key, message, receivers }: Sending): Promise<SendReceipt> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        settle: (reasonCode, messageID, messageSeq) => {
          if (reasonCode === ReasonCode.Success) resolve({ messageID, messageSeq, clientMsgNo: message.clientMsgNo })
          else reject(refused(reasonCode, key))
        },
        abandon: () => reject(new IMError('IM_ABORTED', { detail: 'the engine has closed', context: key })),
      }
      if (!this.#options.isRunning()) reject(new IMError('IM_NOT_RUNNING'))
      else if (!this.#options.distribute(channelKeyString(key), key, message, waiter, receivers)) reject(new IMError('IM_QUEUE_FULL', { context: key }))
    })
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
