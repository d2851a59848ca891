import type { Outbox, OutboxEntry } from '../contracts/outbox.ts'
import { IMError } from '../errors.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import { decodeEntry, sizeOf, type WebhookEntry } from './webhook-entries.ts'

const PAGE_COUNT = 256

export interface ReadyEntry {
  readonly entryID: number
  /** undefined when its bytes are not an entry */
  readonly content: WebhookEntry | undefined
}

/** A call of `add`, in the order of the calls. */
interface Adding {
  isSettled: boolean
  /** of what it has added; undefined when that failed */
  lastID: number | undefined
}

export interface OutboxLaneOptions {
  readonly outbox: Outbox
  readonly number: number
  /** something that `take` has passed over may be there now */
  readonly wake: () => void
}

/**
 * One lane of the outbox as this process knows it: what is being added, what is held back because its messages are still on
 * their way to the store, and, page by page, what may be told.
 *
 * Invariant: everything at or below `#cursor` has been removed, or is never looked at again in this life.
 */
export class OutboxLane {
  readonly #options: OutboxLaneOptions
  /** the first one has not settled */
  #adding: Adding[] = []
  /** calls of `add` */
  #addCount = 0
  /**
   * While something is being added, up to here every entry can be seen by `list`. An outbox may show an entry before its `add`
   * has resolved, or a later one before an earlier one: whoever took that would tell too early, or pass something over for good.
   */
  #addedUpTo = -Infinity
  /** `take` has stopped at `#addedUpTo` */
  #wasCut = false
  readonly #held = new Set<number>()
  #cursor: number | undefined

  constructor(options: OutboxLaneOptions) {
    this.#options = options
  }

  /** @param isHeld  asked once they are there: must they wait for `letGo`? */
  add(entries: readonly Uint8Array[], isHeld: () => boolean): MaybePromise<readonly number[]> {
    const { outbox, number } = this.#options
    const adding: Adding = { isSettled: false, lastID: undefined }
    this.#addCount++
    this.#adding.push(adding)
    const taken = (ids: readonly number[]): readonly number[] => {
      if (ids.length !== entries.length) throw new IMError('IM_STORE_CONTRACT', { detail: `${entries.length} entries, ${ids.length} ids` })
      if (isHeld()) for (const entryID of ids) this.#held.add(entryID)
      adding.lastID = ids.at(-1)
      return ids
    }
    try {
      const added = outbox.add(number, entries)
      if (isPromise(added)) return added.then(taken).finally(() => this.#settled(adding))
      const ids = taken(added)
      this.#settled(adding)
      return ids
    } catch (thrown) {
      this.#settled(adding)
      throw thrown
    }
  }

  /** They need wait no longer. */
  letGo(entryIDs: readonly number[]): void {
    for (const entryID of entryIDs) this.#held.delete(entryID)
  }

  /** Entries that are not there are passed over. */
  remove(entryIDs: readonly number[]): MaybePromise<void> {
    return this.#options.outbox.remove(this.#options.number, entryIDs)
  }

  /**
   * The next entries that may be told, oldest first: without those that are held, and without what comes behind them in
   * their channels. What it gives must be removed before the next call, or it comes again.
   * @param maxSize  messages and single events; one entry alone may be larger
   */
  async take(maxSize: number, ask: Ask): Promise<{ readonly entries: readonly ReadyEntry[]; readonly hasMore: boolean }> {
    const { outbox, number } = this.#options
    const entries: ReadyEntry[] = []
    const waiting = new Set<string>()
    let size = 0
    let afterID = this.#cursor
    let firstPassed: number | undefined
    let hasMore = false
    scan: for (;;) {
      const addedUpTo = this.#addedUpTo
      const addCount = this.#addCount
      const wasQuiet = this.#adding.length === 0
      const from = afterID
      const page: readonly OutboxEntry[] = await ask(() => outbox.list(number, { ...(from !== undefined && { afterID: from }), limit: PAGE_COUNT }))
      // With no `add` under way there is nothing to wait for: what else is there comes from an earlier life, or from one that failed.
      const upTo = wasQuiet && addCount === this.#addCount ? Infinity : addedUpTo
      for (const { entryID, bytes } of page) {
        if (entryID > upTo) {
          this.#wasCut = true
          if (this.#adding.length === 0) hasMore = true // they have settled while the page was read
          break scan
        }
        const content = decodeEntry(bytes)
        const channel = content === undefined || content.kind === 'status' ? undefined : content.channel
        const isHeld = this.#held.has(entryID)
        if (isHeld || (channel !== undefined && waiting.has(channel))) {
          if (channel !== undefined) waiting.add(channel)
          firstPassed ??= entryID
          afterID = entryID
          continue
        }
        const added = content === undefined ? 0 : sizeOf(content)
        if (size > 0 && size + added > maxSize) {
          hasMore = true
          break scan
        }
        size += added
        entries.push({ entryID, content })
        afterID = entryID
      }
      if (page.length < PAGE_COUNT) break
    }
    const firstLeft = Math.min(firstPassed ?? Infinity, entries[0]?.entryID ?? Infinity)
    this.#cursor = firstLeft === Infinity ? afterID : firstLeft - 1
    return { entries, hasMore }
  }

  #settled(adding: Adding): void {
    adding.isSettled = true
    while (this.#adding[0]?.isSettled === true) {
      const { lastID } = this.#adding.shift()!
      if (lastID !== undefined) this.#addedUpTo = lastID
    }
    if (!this.#wasCut) return
    this.#wasCut = false
    this.#options.wake()
  }
}

/** How an adapter is asked: with a time limit, when it does not answer at once. */
export type Ask = <T>(question: () => MaybePromise<T>) => MaybePromise<T>
