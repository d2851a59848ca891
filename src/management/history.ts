import type { CursorStore } from '../contracts/cursor-store.ts'
import type { MessageStore, RangeQuery } from '../contracts/message-store.ts'
import { badOption, integerBetween } from '../errors.ts'
import type { ChannelKey } from '../model/channel.ts'
import type { Message } from '../model/message.ts'
import { checkUID } from './check.ts'

/**
 * Which messages of a channel. The bounds are those of the reference server's message sync: `startSeq` belongs to the range
 * and `endSeq` does not, in both directions, and 0 is the same as left out. Bounds that lie the wrong way round for the
 * direction find nothing; with neither of them the newest `limit` messages are meant.
 */
export interface HistoryQuery {
  /** where to begin, inclusive; left out: at the first message forwards, at the newest backwards */
  readonly startSeq?: number
  /** where to end, exclusive; left out: nowhere */
  readonly endSeq?: number
  readonly limit?: number
  /** 'forward' (default) goes up from `startSeq`, 'backward' down */
  readonly direction?: 'forward' | 'backward'
  /** as this user may see it: without messages they have deleted for themselves, one by one or with the conversation */
  readonly forUID?: string
}

/** One page of history. */
export interface HistoryPage {
  /** ascending, in both directions */
  readonly messages: readonly Message[]
  /** there are more in the direction asked for */
  readonly more: boolean
}

/** Messages read from the store at once. */
const PAGE_COUNT = 200
const MAX_SYNC_LIMIT = 10_000
const DEFAULT_SYNC_LIMIT = 100

export interface HistoryOptions {
  readonly messages: MessageStore
  readonly cursors: CursorStore
}

/** Reads channels for hosts, page by page as the messages are consumed. */
export class History {
  readonly #options: HistoryOptions

  constructor(options: HistoryOptions) {
    this.#options = options
  }

  /** In the order of the direction. @throws TypeError for a query out of bounds */
  async *range(key: ChannelKey, query: HistoryQuery): AsyncGenerator<Message, void, undefined> {
    const checked = checkQuery(query, Number.MAX_SAFE_INTEGER)
    const { startSeq, endSeq, direction, limit = Number.POSITIVE_INFINITY } = checked
    const meansNewest = direction === 'forward' && startSeq === 0 && endSeq === 0 && limit !== Number.POSITIVE_INFINITY
    if (!meansNewest) return yield* this.#walk(key, checked)
    const newest: Message[] = []
    for await (const message of this.#walk(key, { ...checked, direction: 'backward' })) newest.push(message)
    yield* newest.reverse()
  }

  /** One page, ascending, and whether there is more. @throws TypeError for a query out of bounds */
  async page(key: ChannelKey, query: HistoryQuery): Promise<HistoryPage> {
    const checked = checkQuery(query, MAX_SYNC_LIMIT)
    const limit = checked.limit ?? DEFAULT_SYNC_LIMIT
    const isNewest = checked.startSeq === 0 && checked.endSeq === 0
    const direction = isNewest ? 'backward' : checked.direction
    const messages: Message[] = []
    for await (const message of this.#walk(key, { ...checked, direction, limit: limit + 1 })) messages.push(message)
    const more = messages.length > limit
    if (more) messages.pop()
    if (direction === 'backward') messages.reverse()
    return { messages, more }
  }

  async *#walk(key: ChannelKey, query: CheckedQuery): AsyncGenerator<Message, void, undefined> {
    const { forUID, direction } = query
    const step = direction === 'forward' ? 1 : -1
    const deletedToSeq = forUID === undefined ? 0 : (await this.#options.cursors.cursor(forUID, key)).deletedToSeq
    // The store counts both bounds in.
    let end = query.endSeq === 0 ? undefined : Math.min(query.endSeq - step, Number.MAX_SAFE_INTEGER)
    let start = query.startSeq === 0 ? undefined : query.startSeq
    if (deletedToSeq > 0 && step === 1) start = Math.max(start ?? 0, deletedToSeq + 1)
    if (deletedToSeq > 0 && step === -1) end = Math.max(end ?? 0, deletedToSeq + 1)
    let left = query.limit ?? Number.POSITIVE_INFINITY
    while (left > 0) {
      const limit = Math.min(left, PAGE_COUNT)
      const bounds: RangeQuery = { direction, limit, ...(start === undefined ? {} : { startSeq: start }), ...(end === undefined ? {} : { endSeq: end }) }
      const page = await this.#options.messages.range(key, bounds)
      for (const message of await this.#visible(key, page, forUID)) {
        yield message
        left--
      }
      const last = page.at(-1)
      if (last === undefined || page.length < limit) return
      start = last.messageSeq + step
      if (start < 1) return
    }
  }

  async #visible(key: ChannelKey, page: readonly Message[], uid: string | undefined): Promise<readonly Message[]> {
    const first = page[0]
    const last = page.at(-1)
    if (uid === undefined || first === undefined || last === undefined) return page
    const [low, high] = [Math.min(first.messageSeq, last.messageSeq), Math.max(first.messageSeq, last.messageSeq)]
    const hidden = new Set(await this.#options.cursors.hidden(uid, key, low - 1, high))
    return page.filter(({ messageSeq }) => !hidden.has(messageSeq))
  }
}

interface CheckedQuery {
  readonly startSeq: number
  readonly endSeq: number
  readonly direction: 'forward' | 'backward'
  readonly limit: number | undefined
  readonly forUID: string | undefined
}

function checkQuery(query: HistoryQuery, maxLimit: number): CheckedQuery {
  if (typeof query !== 'object' || query === null) badOption('the query', 'an object', query)
  const { startSeq = 0, endSeq = 0, limit, direction = 'forward', forUID } = query
  integerBetween('startSeq', startSeq, 0, Number.MAX_SAFE_INTEGER)
  integerBetween('endSeq', endSeq, 0, Number.MAX_SAFE_INTEGER)
  if (limit !== undefined) integerBetween('limit', limit, 0, maxLimit)
  if (direction !== 'forward' && direction !== 'backward') badOption('direction', "'forward' or 'backward'", direction)
  if (forUID !== undefined) checkUID('forUID', forUID)
  return { startSeq, endSeq, direction, limit, forUID }
}
