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
}

/** All lists together hold as many members as this many lists of the largest size kept. */
const LARGE_LIST_COUNT = 100

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

  /** Hand all uids of the channel to `take`, in pages. A promise only when the directory answers with one. */
  each(key: ChannelKey, take: (uids: readonly string[]) => void): MaybePromise<void> {
    if (key.channelType === ChannelType.Person) {
      const pair = personChannelUIDs(key.channelID)
      if (pair !== undefined) take(pair[0] === pair[1] ? [pair[0]] : pair)
      return
    }
    const name = channelKeyString(key)
    const cached = this.#lists.get(name)
    if (cached !== undefined && cached.expiresAtMs > this.#options.clock.monotonicMs()) {
      this.#inPages(cached.uids, take)
      return
    }
    const reading: Reading = { key, name, take, changes: this.#changes, uids: [], cursor: undefined }
    return this.#read(reading)
  }

  forget(key: ChannelKey): void {
    this.#changes++
    this.#lists.delete(channelKeyString(key))
  }

  #read(reading: Reading): MaybePromise<void> {
    for (;;) {
      const query = { limit: this.#options.pageCount, ...(reading.cursor === undefined ? {} : { cursor: reading.cursor }) }
      const page = this.#options.directory.members(reading.key, query)
      if (isPromise(page)) return page.then((arrived) => (this.#takePage(reading, arrived) ? undefined : this.#read(reading)))
      if (this.#takePage(reading, page)) return
    }
  }

  /** @returns true after the last page */
  #takePage(reading: Reading, page: Page<Member>): boolean {
    const uids = page.items.map((member) => member.uid)
    if (uids.length > 0) reading.take(uids)
    if (reading.uids !== undefined) {
      reading.uids = reading.uids.length + uids.length > this.#options.maxCachedMembers ? undefined : reading.uids.concat(uids)
    }
    reading.cursor = page.cursor
    if (page.cursor !== undefined) return false
    if (reading.uids !== undefined && this.#options.cacheMs > 0 && reading.changes === this.#changes) {
      const expiresAtMs = this.#options.clock.monotonicMs() + this.#options.cacheMs
      this.#lists.set(reading.name, { uids: reading.uids, expiresAtMs })
    }
    return true
  }

  #inPages(uids: readonly string[], take: (uids: readonly string[]) => void): void {
    const { pageCount } = this.#options
    if (uids.length === 0) return
    if (uids.length <= pageCount) return take(uids)
    for (let first = 0; first < uids.length; first += pageCount) take(uids.slice(first, first + pageCount))
  }
}

interface Reading {
  readonly key: ChannelKey
  readonly name: string
  readonly take: (uids: readonly string[]) => void
  readonly changes: number
  /** what has been read so far; undefined once it is too much to keep */
  uids: readonly string[] | undefined
  cursor: string | undefined
}
