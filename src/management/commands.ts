import type { CursorStore } from '../contracts/cursor-store.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import { integerBetween } from '../errors.ts'
import { commandKey, type ChannelKey } from '../model/channel.ts'
import type { Message } from '../model/message.ts'
import { checkMessageIDs, checkUID } from './check.ts'

export interface CommandsAPIOptions {
  readonly messages: MessageStore
  readonly cursors: CursorStore
  /** the channels that may have commands for the user, page by page; not those of the commands */
  readonly keysOf: (uid: string) => AsyncIterable<readonly ChannelKey[]>
  /** before this nothing of the channel is missed by the user */
  readonly startOf: (uid: string, key: ChannelKey) => Promise<number>
  readonly isAcknowledged: (uid: string, key: ChannelKey, messageSeq: number) => boolean
  readonly acknowledge: (uid: string, key: ChannelKey, first: number, last: number) => void
}

const DEFAULT_LIMIT = 100
const MAX_LIMIT = 1_000

/**
 * `engine.messages.commands`: messages that were sent with `syncOnce`. A command is kept beside its channel, in
 * `<channel id>____cmd`, is neither unread nor in anybody's history, and is for every user once: pushed, replayed at login
 * until a device acknowledges it, or fetched from here.
 */
export class CommandsAPI {
  readonly #options: CommandsAPIOptions

  constructor(options: CommandsAPIOptions) {
    this.#options = options
  }

  /**
   * What no device of the user has acknowledged, oldest first; `limit` 1 .. 1000, default 100. Acknowledge it with `ack`, and
   * ask again until nothing comes.
   */
  async sync(uid: string, { limit = DEFAULT_LIMIT }: { readonly limit?: number } = {}): Promise<readonly Message[]> {
    checkUID('uid', uid)
    integerBetween('limit', limit, 1, MAX_LIMIT)
    let oldest: Placed[] = []
    for await (const keys of this.#options.keysOf(uid)) {
      const commands = keys.map(commandKey)
      const summaries = await this.#options.messages.summaries(uid, commands)
      for (const [index, key] of commands.entries()) {
        if (summaries[index]!.lastSeq > 0) oldest.push(...placed(await this.#missed(uid, key, limit)))
      }
      oldest = oldest.sort((a, b) => a.atMs - b.atMs).slice(0, limit)
    }
    return oldest.map(({ message }) => message)
  }

  /**
   * These have arrived: they are neither pushed at login nor returned by `sync` any more. Ids of what is no command, or is not
   * there, are passed over. Written behind within `cursorFlushMs`, as a RECVACK is.
   */
  async ack(uid: string, messageIDs: readonly string[]): Promise<void> {
    checkUID('uid', uid)
    for (const message of await this.#options.messages.get(checkMessageIDs(messageIDs))) {
      if (message === undefined) continue
      const key: ChannelKey = { channelID: message.channelID, channelType: message.channelType }
      if (commandKey(key) === key) this.#options.acknowledge(uid, key, message.messageSeq, message.messageSeq)
    }
  }

  /**
   * What is in front of the first one and not for the user, and numbers of what is gone, is acknowledged from here: nobody else
   * would, the position could not move over it, and what is acknowledged behind too many gaps is forgotten and comes again.
   */
  async #missed(uid: string, key: ChannelKey, limit: number): Promise<Message[]> {
    const { messages, cursors, startOf, isAcknowledged, acknowledge } = this.#options
    const missed: Message[] = []
    let seq = await startOf(uid, key)
    for (;;) {
      const page = await messages.range(key, { startSeq: seq + 1, limit })
      const last = page.at(-1)
      if (last === undefined) return missed
      const hidden = new Set(await cursors.hidden(uid, key, seq, last.messageSeq))
      for (const message of page) {
        const { messageSeq } = message
        const isWanted = message.fromUID !== uid && message.revision?.kind !== 'recalled' && !hidden.has(messageSeq)
        const settledTo = isWanted ? messageSeq - 1 : messageSeq
        if (missed.length === 0 && settledTo > seq) acknowledge(uid, key, seq + 1, settledTo)
        seq = messageSeq
        if (isWanted && !isAcknowledged(uid, key, messageSeq)) missed.push(message)
        if (missed.length === limit) return missed
      }
    }
  }
}

/** A command, and when it is taken to have been sent: never before the one in front of it in its channel. */
interface Placed {
  readonly message: Message
  readonly atMs: number
}

/** Clocks go back at times; numbers do not. */
function placed(messages: readonly Message[]): Placed[] {
  let atMs = 0
  return messages.map((message) => ({ message, atMs: (atMs = Math.max(atMs, message.timestampMs)) }))
}
