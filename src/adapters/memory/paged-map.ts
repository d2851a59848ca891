import type { PageQuery } from '../../contracts/channel-directory.ts'
import { badOption } from '../../errors.ts'
import type { Page } from '../../model/channel.ts'

const DEFAULT_LIMIT = 1000
const MAX_LIMIT = 10_000
// Below this many removed slots the map does not bother to close the gaps.
const MIN_COMPACT_COUNT = 32

interface Slot<V> {
  /** place in the listing; a cursor is the number of the last slot shown */
  readonly number: number
  readonly key: string
  value: V
  removed: boolean
}

/**
 * A map that lists its values in pages while it changes. Every key gets a number when it is added and keeps it until it is
 * removed, and pages run in that order: whoever stays is on exactly one page, whoever is added meanwhile comes last. A page
 * costs the page, not the map: removed slots are skipped, and never make up more than half.
 */
export class PagedMap<V> {
  readonly #byKey = new Map<string, Slot<V>>()
  readonly #nextNumber: () => number
  #slots: Slot<V>[] = []

  /** `nextNumber` counts up and is never reset, so that a cursor stays good when its map is thrown away and made anew. */
  constructor(nextNumber: () => number) {
    this.#nextNumber = nextNumber
  }

  get size(): number {
    return this.#byKey.size
  }

  has(key: string): boolean {
    return this.#byKey.has(key)
  }

  get(key: string): V | undefined {
    return this.#byKey.get(key)?.value
  }

  set(key: string, value: V): void {
    const slot = this.#byKey.get(key)
    if (slot !== undefined) {
      slot.value = value
      return
    }
    const added = { number: this.#nextNumber(), key, value, removed: false }
    this.#byKey.set(key, added)
    this.#slots.push(added)
  }

  delete(key: string): void {
    const slot = this.#byKey.get(key)
    if (slot === undefined) return
    this.#byKey.delete(key)
    slot.removed = true
    const removedCount = this.#slots.length - this.#byKey.size
    if (removedCount >= MIN_COMPACT_COUNT && removedCount * 2 > this.#slots.length) {
      this.#slots = this.#slots.filter((kept) => !kept.removed)
    }
  }

  keys(): Iterable<string> {
    return this.#byKey.keys()
  }

  page(query: PageQuery): Page<V> {
    const { limit, afterNumber } = checkPageQuery(query)
    const items: V[] = []
    let lastNumber = 0
    for (let i = this.#indexAfter(afterNumber); i < this.#slots.length; i++) {
      const slot = this.#slots[i]
      if (slot === undefined || slot.removed) continue
      if (items.length === limit) return { items, cursor: String(lastNumber) }
      items.push(slot.value)
      lastNumber = slot.number
    }
    return { items }
  }

  /** The index of the first slot whose number is above `number`; slots are in the order of their numbers. */
  #indexAfter(number: number): number {
    let low = 0
    let high = this.#slots.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#slots[middle]?.number ?? Infinity) > number) high = middle
      else low = middle + 1
    }
    return low
  }
}

/** @throws TypeError for a limit out of bounds, and for a cursor that no listing has given */
export function checkPageQuery(query: PageQuery): { limit: number; afterNumber: number } {
  const limit = query.limit ?? DEFAULT_LIMIT
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT) {
    badOption('page limit', `an integer from 1 to ${MAX_LIMIT}`, limit)
  }
  if (query.cursor !== undefined && !/^\d{1,15}$/.test(query.cursor)) {
    badOption('page cursor', 'the cursor of the page before', query.cursor)
  }
  return { limit, afterNumber: Number(query.cursor ?? 0) }
}
