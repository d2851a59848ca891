import type { ChannelDirectory, PageQuery } from '../contracts/channel-directory.ts'
import type { Cursor, CursorStore } from '../contracts/cursor-store.ts'
import type { ChannelSummary, MessageStore } from '../contracts/message-store.ts'
import { badOption, integerBetween, onlyKnown } from '../errors.ts'
import { canonicalKey, channelIDSeenBy, channelKeyString, ChannelType, keepsConversations, personChannelUIDs, type ChannelKey, type Page } from '../model/channel.ts'
import { isRecalled, type Message } from '../model/message.ts'
import { checkKey, checkUID } from './check.ts'

/** One line of a user's list of conversations. */
export interface Conversation extends ChannelKey {
  /** as the user names it: in a person channel the other one's uid */
  readonly channelID: string
  /** the channel inside the engine, for `messages.range` and the like */
  readonly key: ChannelKey
  readonly lastSeq: number
  /** everything up to here counts as read */
  readonly readSeq: number
  readonly unread: number
  /** when the last message was sent, milliseconds since 1970 */
  readonly lastTimestampMs: number
  /** the newest message the user may see, a recalled one included; undefined when they have deleted the last ones */
  readonly lastMessage: Message | undefined
}

export interface ConversationsAPIOptions {
  readonly messages: MessageStore
  readonly cursors: CursorStore
  readonly channels: ChannelDirectory
  /** every channel that may be a conversation of the user, in pages */
  readonly keysOf: (uid: string) => AsyncIterable<readonly ChannelKey[]>
  /** how far the user has read, of what is stored about them and the channel */
  readonly effectiveReadSeq: (summary: ChannelSummary, cursor: Cursor) => number
  /** the user does not want what is there up to `seq` */
  readonly settled: (uid: string, key: ChannelKey, seq: number) => void
}

interface Row {
  readonly key: ChannelKey
  readonly summary: ChannelSummary
  readonly cursor: Cursor
}

const DEFAULT_LIMIT = 50
const MAX_LIMIT = 500
/** How far `lastMessage` is looked for, behind messages the user has deleted. */
const LAST_MESSAGE_COUNT = 10
const MAX_UNREAD = 10_000
/** Messages read at once while `setUnread` counts. */
const STRIDE = 500

/**
 * `engine.conversations`: what a user sees in a list of chats. Channels are named as the user names them, or by the key
 * inside the engine. Own messages never count as unread; recalled ones and those a user has deleted count no more.
 */
export class ConversationsAPI {
  readonly #options: ConversationsAPIOptions

  constructor(options: ConversationsAPIOptions) {
    this.#options = options
  }

  /**
   * The user's conversations, the one with the latest message first: channels they are a member of, and people they have
   * exchanged messages with, as far as there is a message since they deleted it. `limit` 1 .. 500, default 50.
   * A page says how things stand when it is read: a conversation with a message since the page before has moved to the
   * front, and is not on a later page.
   */
  async list(uid: string, query: PageQuery = {}): Promise<Page<Conversation>> {
    checkUID('uid', uid)
    const limit = integerBetween('limit', query.limit ?? DEFAULT_LIMIT, 1, MAX_LIMIT)
    const after = query.cursor === undefined ? undefined : parseCursor(query.cursor)
    const rows: Row[] = []
    for await (const row of this.#rows(uid)) if (after === undefined || comesAfter(row, after)) rows.push(row)
    rows.sort((a, b) => (comesAfter(a, placeOf(b)) ? 1 : -1))
    const shown = rows.slice(0, limit)
    const items = await Promise.all(shown.map((row) => this.#conversation(uid, row)))
    return rows.length > limit ? { items, cursor: cursorOf(shown.at(-1)!) } : { items }
  }

  /**
   * One line of the list; undefined when it has none: nothing was said since they deleted it, or they are no member.
   */
  async get(uid: string, channel: ChannelKey): Promise<Conversation | undefined> {
    checkUID('uid', uid)
    const key = keyFor(uid, channel)
    if (!keepsConversations(key.channelType)) return undefined
    if (key.channelType !== ChannelType.Person && (await this.#options.channels.member(key, uid)) === undefined) return undefined
    const row = await this.#row(uid, key)
    return row.summary.lastSeq > row.cursor.deletedToSeq ? this.#conversation(uid, row) : undefined
  }

  /** Unread messages: in one channel, or in all of the user's conversations together. */
  async unread(uid: string, channel?: ChannelKey): Promise<number> {
    checkUID('uid', uid)
    if (channel !== undefined) return this.#unread(uid, await this.#row(uid, keyFor(uid, channel)))
    let count = 0
    for await (const row of this.#rows(uid)) count += await this.#unread(uid, row)
    return count
  }

  /** Everything up to `seq` is read; default: everything. Never backwards, and never beyond the last message. Durable once resolved. */
  async markRead(uid: string, channel: ChannelKey, options: { readonly seq?: number } = {}): Promise<void> {
    checkUID('uid', uid)
    onlyKnown('options', options, ['seq']) // a number in its place would mark everything
    const { seq } = options
    const key = keyFor(uid, channel)
    if (seq !== undefined) integerBetween('seq', seq, 0, Number.MAX_SAFE_INTEGER)
    const lastSeq = await this.#options.messages.lastSeq(key)
    await this.#options.cursors.advance([{ uid, key, readSeq: Math.min(seq ?? lastSeq, lastSeq) }])
    await this.#options.cursors.flush()
  }

  /** Exactly the newest `count` messages are unread from now on, or as many as there are: forwards or backwards. Durable once resolved. */
  async setUnread(uid: string, channel: ChannelKey, count: number): Promise<void> {
    checkUID('uid', uid)
    integerBetween('count', count, 0, MAX_UNREAD)
    const key = keyFor(uid, channel)
    const { summary, cursor } = await this.#row(uid, key)
    const lowest = Math.max(cursor.joinSeq - 1, cursor.deletedToSeq, summary.floorSeq)
    const readSeq = count === 0 ? summary.lastSeq : await this.#seqBefore({ uid, key, count, lowest })
    await this.#options.cursors.put([{ uid, key, readSeq, unreadMarkSeq: summary.sentSeq }])
  }

  /** The conversation, as it is now, is gone for this user: from the list, from their history, and read. A new message brings it back. */
  async delete(uid: string, channel: ChannelKey): Promise<void> {
    checkUID('uid', uid)
    const key = keyFor(uid, channel)
    const lastSeq = await this.#options.messages.lastSeq(key)
    await this.#options.cursors.put([{ uid, key, readSeq: lastSeq, deletedToSeq: lastSeq }])
    this.#options.settled(uid, key, lastSeq)
  }

  /** Every conversation that has something to show. */
  async *#rows(uid: string): AsyncGenerator<Row, void, undefined> {
    const { messages, cursors, keysOf } = this.#options
    for await (const keys of keysOf(uid)) {
      const [summaries, positions] = await Promise.all([messages.summaries(uid, keys), cursors.cursors(uid, keys)])
      for (const [index, key] of keys.entries()) {
        const row = { key, summary: summaries[index]!, cursor: positions[index]! }
        if (row.summary.lastSeq > row.cursor.deletedToSeq) yield row
      }
    }
  }

  async #row(uid: string, key: ChannelKey): Promise<Row> {
    const { messages, cursors } = this.#options
    const [[summary], cursor] = await Promise.all([messages.summaries(uid, [key]), cursors.cursor(uid, key)])
    return { key, summary: summary!, cursor }
  }

  async #conversation(uid: string, row: Row): Promise<Conversation> {
    const { key, summary, cursor } = row
    const [unread, lastMessage] = await Promise.all([this.#unread(uid, row), this.#lastMessage(uid, row)])
    return {
      channelID: channelIDSeenBy(uid, key),
      channelType: key.channelType,
      key,
      lastSeq: summary.lastSeq,
      readSeq: this.#options.effectiveReadSeq(summary, cursor),
      unread,
      lastTimestampMs: summary.lastTimestampMs,
      lastMessage,
    }
  }

  async #unread(uid: string, { key, summary, cursor }: Row): Promise<number> {
    const { messages, effectiveReadSeq } = this.#options
    const readSeq = effectiveReadSeq(summary, cursor)
    if (summary.lastSeq <= readSeq) return 0
    const count = await messages.countAfter(key, readSeq)
    return count === 0 ? 0 : Math.max(0, count - (await this.#hiddenCount(uid, key, readSeq, summary.lastSeq)))
  }

  /** Of the hidden messages those that would count: not what has been recalled as well. */
  async #hiddenCount(uid: string, key: ChannelKey, afterSeq: number, throughSeq: number): Promise<number> {
    const { messages, cursors } = this.#options
    const hidden = await cursors.hidden(uid, key, afterSeq, throughSeq)
    let count = 0
    for (const seq of hidden) {
      const [message] = await messages.range(key, { startSeq: seq, endSeq: seq })
      if (message !== undefined && message.revision?.kind !== 'recalled') count++
    }
    return count
  }

  async #lastMessage(uid: string, { key, cursor }: Row): Promise<Message | undefined> {
    const newest = await this.#options.messages.range(key, { direction: 'backward', limit: LAST_MESSAGE_COUNT })
    const last = newest[0]
    const first = newest.at(-1)
    if (last === undefined || first === undefined) return undefined
    const hidden = new Set(await this.#options.cursors.hidden(uid, key, first.messageSeq - 1, last.messageSeq))
    return newest.find(({ messageSeq }) => messageSeq > cursor.deletedToSeq && !hidden.has(messageSeq))
  }

  /** The seq before the newest `count` messages that can be unread; not below `lowest`. */
  async #seqBefore({ uid, key, count, lowest }: { uid: string; key: ChannelKey; count: number; lowest: number }): Promise<number> {
    let left = count
    let startSeq: number | undefined
    for (;;) {
      const page = await this.#options.messages.range(key, {
        direction: 'backward',
        endSeq: lowest + 1,
        limit: STRIDE,
        ...(startSeq === undefined ? {} : { startSeq }),
      })
      const oldest = page.at(-1)
      if (oldest === undefined) return lowest
      const hidden = new Set(await this.#options.cursors.hidden(uid, key, oldest.messageSeq - 1, page[0]!.messageSeq))
      for (const message of page) {
        const { messageSeq } = message
        if (isRecalled(message) || hidden.has(messageSeq)) continue
        if (--left === 0) return messageSeq - 1
      }
      startSeq = oldest.messageSeq - 1
      if (startSeq <= lowest) return lowest
    }
  }
}

/** Where a conversation is in the list: the latest first, equal times by name. */
interface Place {
  readonly timestampMs: number
  readonly name: string
}

function placeOf({ key, summary }: Row): Place {
  return { timestampMs: summary.lastTimestampMs, name: channelKeyString(key) }
}

function comesAfter(row: Row, { timestampMs, name }: Place): boolean {
  const place = placeOf(row)
  return place.timestampMs < timestampMs || (place.timestampMs === timestampMs && place.name > name)
}

function cursorOf(row: Row): string {
  const { timestampMs, name } = placeOf(row)
  return Buffer.from(`${timestampMs} ${name}`).toString('base64url')
}

function parseCursor(cursor: string): Place {
  const match = typeof cursor === 'string' ? /^(\d{1,16}) (\d+:[^]*)$/.exec(Buffer.from(cursor, 'base64url').toString()) : null
  if (match === null) badOption('cursor', 'the cursor of the page before', cursor)
  return { timestampMs: Number(match[1]), name: match[2]! }
}

/** The channel a host means: by the key inside the engine, or as the user names it. */
function keyFor(uid: string, channel: ChannelKey): ChannelKey {
  const key = checkKey(channel)
  const isInside = key.channelType !== ChannelType.Person || personChannelUIDs(key.channelID)?.includes(uid) === true
  return isInside ? key : canonicalKey(uid, checkUID('channelID', key.channelID), key.channelType)
}

