import { LRUCache } from 'lru-cache'
import type { ChannelDirectory } from '../contracts/channel-directory.ts'
import type { Clock } from '../contracts/clock.ts'
import { channelKeyString, ChannelType, personChannelUIDs, type ChannelKey, type Member, type Page } from '../model/channel.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'

export interface SubscribersOptions {
  readonly directory: ChannelDirectory
  readonly clock: Clock
  /** uids handed over at once */
  readonly pageCount: number
  /** a list of more members is read page by page every time */
  readonly maxCachedMembers: number
  readonly maxCachedChannels: number
  /** how long a list may be used without asking again; 0 never */
  readonly cacheMs: number
  /** wait for one page; ends in time */
  readonly limited: <T>(page: Promise<T>) => Promise<T>
}

/** Is given one page of uids; false, now or later, when no more are wanted. The next page is read when its promise has resolved. */
export type TakePage = (uids: readonly string[]) => MaybePromise<false | undefined>

/** All lists together hold as many members as this many lists of the largest size kept. */
const LARGE_LIST_COUNT = 100

/** Lists of channels with longer names are not kept: who invents long names must not fill the memory with them. */
const MAX_NAME_LENGTH = 512

interface CachedList {
  readonly uids: readonly string[]
  readonly expiresAtMs: number
}

/**
 * Whom a channel's messages are for. Member lists are kept for `cacheMs`, so that a busy group does not read its members
 * for every message; changes made through the engine are seen at once (`forget`).
 */
export class Subscribers {
  readonly #options: SubscribersOptions
  readonly #lists: LRUCache<string, CachedList>
  /** counts `forget` calls: a list whose reading began before one must not be kept */
  #changes = 0

  constructor(options: SubscribersOptions) {
    this.#options = options
    this.#lists = new LRUCache({
      max: options.maxCachedChannels,
      maxSize: LARGE_LIST_COUNT * (options.maxCachedMembers + 1),
      sizeCalculation: ({ uids }) => uids.length + 1,
    })
  }

  /**
   * Hand all uids of the channel to `take`, in pages. A promise only when the directory or `take` answers with one. Each page
   * of the directory has a time limit of its own, so however many there are, those that come are handed over.
   */
  each(key: ChannelKey, take: TakePage): MaybePromise<void> {
    if (key.channelType === ChannelType.Person) {
      const pair = personChannelUIDs(key.channelID)
      const taken = pair === undefined ? undefined : take(pair[0] === pair[1] ? [pair[0]] : pair)
      return isPromise(taken) ? taken.then(() => undefined) : undefined
    }
    const name = channelKeyString(key)
    const cached = this.#lists.get(name)
    if (cached !== undefined && cached.expiresAtMs > this.#options.clock.monotonicMs()) {
      return this.#inPages(cached.uids, take)
    }
    const expiresAtMs = this.#options.clock.monotonicMs() + this.#options.cacheMs
    const uids = name.length > MAX_NAME_LENGTH ? undefined : []
    return this.#read({ key, name, take, changes: this.#changes, expiresAtMs, uids, cursor: undefined })
  }

  /** The same for a list that is at hand. */
  eachOf(uids: readonly string[], take: TakePage): MaybePromise<void> {
    return this.#inPages(uids, take)
  }

  forget(key: ChannelKey): void {
    this.#changes++
    this.#lists.delete(channelKeyString(key))
  }

  /** At once, as long as directory and receiver answer at once. */
  #read(reading: Reading): MaybePromise<void> {
    for (;;) {
      const page = this.#ask(reading)
      if (isPromise(page)) return this.#readOn(reading, this.#options.limited(page).then((arrived) => this.#takePage(reading, arrived)))
      const taken = this.#takePage(reading, page)
      if (isPromise(taken)) return this.#readOn(reading, taken)
      if (taken === false || reading.cursor === undefined) return
    }
  }

  async #readOn(reading: Reading, first: Promise<false | undefined>): Promise<void> {
    let taken = await first
    while (taken !== false && reading.cursor !== undefined) {
      const page = this.#ask(reading)
      taken = await this.#takePage(reading, isPromise(page) ? await this.#options.limited(page) : page)
    }
  }

  #ask({ key, cursor }: Reading): MaybePromise<Page<Member>> {
    return this.#options.directory.members(key, { limit: this.#options.pageCount, ...(cursor === undefined ? {} : { cursor }) })
  }

  /** Hand it over, and keep the list when this was its last page. */
  #takePage(reading: Reading, page: Page<Member>): MaybePromise<false | undefined> {
    const uids = page.items.map((member) => member.uid)
    if (reading.uids !== undefined) {
      reading.uids = reading.uids.length + uids.length > this.#options.maxCachedMembers ? undefined : reading.uids.concat(uids)
    }
    reading.cursor = page.cursor
    if (page.cursor === undefined && reading.uids !== undefined && this.#options.cacheMs > 0 && reading.changes === this.#changes) {
      this.#lists.set(reading.name, { uids: reading.uids, expiresAtMs: reading.expiresAtMs })
    }
    return uids.length === 0 ? undefined : reading.take(uids)
  }

  #inPages(uids: readonly string[], take: TakePage, first = 0): MaybePromise<void> {
    const { pageCount } = this.#options
    for (let start = first; start < uids.length; start += pageCount) {
      const taken = take(uids.length <= pageCount ? uids : uids.slice(start, start + pageCount))
      if (isPromise(taken)) return taken.then((answer) => (answer === false ? undefined : this.#inPages(uids, take, start + pageCount)))
      if (taken === false) return
    }
  }
}

interface Reading {
  readonly key: ChannelKey
  readonly name: string
  readonly take: TakePage
  readonly changes: number
  /** from when it was begun: its first page may be old by the time the last one has come */
  readonly expiresAtMs: number
  /** what has been read so far; undefined when it is not to be kept, or too much */
  uids: readonly string[] | undefined
  cursor: string | undefined
}
