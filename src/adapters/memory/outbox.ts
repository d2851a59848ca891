/** What is to be told, in this process's memory. Power loss loses it. Every answer is synchronous. Nothing has to be closed. */
import type { MessageStore } from '../../contracts/message-store.ts'
import type { Outbox, OutboxEntry } from '../../contracts/outbox.ts'
import { badOption } from '../../errors.ts'

const MAX_LIMIT = 10_000

/**
 * An Outbox for tests, for development, and for an engine whose storage has none. It holds what it is given; whoever adds
 * bounds it by `count`.
 * @param options.precedes  a store of the same process, whose appends are lost together with what is in here
 */
export function memoryOutbox(options: { readonly precedes?: MessageStore } = {}): Outbox {
  return new MemoryOutbox(options.precedes)
}

class MemoryOutbox implements Outbox {
  declare readonly precedes?: MessageStore
  /** in the order of their ids, which is the order in which a Map keeps them */
  readonly #lanes = new Map<number, Map<number, OutboxEntry>>()
  #lastID = 0

  constructor(precedes: MessageStore | undefined) {
    if (precedes !== undefined) this.precedes = precedes
  }

  add(lane: number, entries: readonly Uint8Array[]): readonly number[] {
    const held = this.#lane(lane)
    return entries.map((bytes) => {
      const entryID = ++this.#lastID
      held.set(entryID, Object.freeze({ entryID, bytes: new Uint8Array(bytes) }))
      return entryID
    })
  }

  list(lane: number, { afterID = 0, limit }: { readonly afterID?: number; readonly limit: number }): readonly OutboxEntry[] {
    if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT) badOption('limit', `an integer from 1 to ${MAX_LIMIT}`, limit)
    const listed: OutboxEntry[] = []
    for (const entry of this.#lane(lane).values()) {
      if (entry.entryID > afterID) listed.push(entry)
      if (listed.length === limit) break
    }
    return listed
  }

  remove(lane: number, entryIDs: readonly number[]): void {
    const held = this.#lane(lane)
    for (const entryID of entryIDs) held.delete(entryID)
  }

  count(): number {
    let count = 0
    for (const held of this.#lanes.values()) count += held.size
    return count
  }

  #lane(lane: number): Map<number, OutboxEntry> {
    if (!Number.isInteger(lane) || lane < 0 || lane > 255) badOption('lane', 'an integer from 0 to 255', lane)
    let held = this.#lanes.get(lane)
    if (held === undefined) this.#lanes.set(lane, (held = new Map<number, OutboxEntry>()))
    return held
  }
}
