/**
 * What is still to be told, in the database. Power loss loses nothing that has resolved. A slow disk makes batches larger,
 * and more than `maxPendingBytes` waiting is turned away. Nothing has to be closed.
 */
import type { MessageStore } from '../../contracts/message-store.ts'
import type { Outbox, OutboxEntry } from '../../contracts/outbox.ts'
import { badOption, integerBetween } from '../../errors.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import type { Database, Operations } from './database.ts'
import { after, MAX_ENTRY_ID, outboxKey, placeOfOutboxKey, Tag, textKey, within } from './keys.ts'
import { OutboxIDs, type EntryPlace } from './outbox-ids.ts'
import type { Writer } from './writer.ts'

export interface LevelOutboxOptions {
  readonly database: Database
  readonly writer: Writer
  readonly precedes: MessageStore
}

const MAX_LIMIT = 10_000

/** Some bytes per entry besides its own: its key, and what it is in memory. */
const ENTRY_BYTES = 100

/** Ids that are taken from the database at once. A restart skips those that are left of them. */
const RESERVE_COUNT = 1_000

/** meta row → no id above it has been given, 6 bytes */
const RESERVED_KEY = textKey(Tag.Meta, Buffer.from('outbox'))

/**
 * Ids come from one row that goes ahead of them, written in the batch of the first entry that needs it: so no id comes again
 * after a restart, whatever has been removed.
 *
 * An entry goes to the writer inside of `add`, and is written as it is, so whatever is submitted after it is in the same
 * batch, in a later one, or fails with it. That is what `precedes` says. An `add` that is turned away because too much waits
 * has added nothing, and precedes nothing.
 */
export class LevelOutbox implements Outbox {
  readonly precedes: MessageStore
  readonly #database: Database
  readonly #writer: Writer
  readonly #ids: OutboxIDs
  #lastID = 0
  /** what the row says, as far as it is known or planned; 0: nothing is known */
  #reservedID = 0

  constructor({ database, writer, precedes }: LevelOutboxOptions) {
    this.precedes = precedes
    this.#database = database
    this.#writer = writer
    this.#ids = new OutboxIDs(() => this.#walk())
  }

  async open(): Promise<void> {
    const reserved = await this.#database.get(RESERVED_KEY)
    this.#lastID = Math.max(this.#lastID, reserved?.readUIntBE(0, 6) ?? 0)
    await this.#ids.count()
  }

  /** The database may hold something else than was known. Ids go on: those of a failed write may be there after all. */
  forget(): void {
    this.#reservedID = 0
    this.#ids.forget()
  }

  add(lane: number, entries: readonly Uint8Array[]): MaybePromise<readonly number[]> {
    checkLane(lane)
    const copies = entries.map(copyOf)
    if (copies.length === 0) return []
    const entryIDs: number[] = []
    return new Promise((resolve, reject) => {
      this.#writer.submit({
        bytes: copies.reduce((bytes, copy) => bytes + copy.length + ENTRY_BYTES, 0),
        plan: (operations) => {
          for (const copy of copies) {
            const entryID = this.#nextID(operations)
            entryIDs.push(entryID)
            operations.push(outboxKey(lane, entryID), copy)
          }
        },
        done: () => {
          this.#ids.added(lane, entryIDs)
          resolve(entryIDs)
        },
        failed: reject,
      })
    })
  }

  async list(lane: number, { afterID = 0, limit }: { readonly afterID?: number; readonly limit: number }): Promise<readonly OutboxEntry[]> {
    checkLane(lane)
    integerBetween('limit', limit, 1, MAX_LIMIT)
    if (integerBetween('afterID', afterID, 0, Number.MAX_SAFE_INTEGER) >= MAX_ENTRY_ID) return []
    const firstID = this.#ids.first(lane)
    if (firstID === undefined) return []
    const range = { gte: outboxKey(lane, Math.max(firstID, afterID + 1)), lt: after(outboxKey(lane, MAX_ENTRY_ID)) }
    const found = await this.#database.entries({ ...range, limit })
    return found.map(([key, bytes]) => ({ entryID: placeOfOutboxKey(key).entryID, bytes }))
  }

  remove(lane: number, entryIDs: readonly number[]): MaybePromise<void> {
    checkLane(lane)
    const given = entryIDs.filter((entryID) => Number.isInteger(entryID) && entryID > 0 && entryID <= MAX_ENTRY_ID)
    if (given.length === 0) return
    return this.#writer.write(
      given.flatMap((entryID) => [outboxKey(lane, entryID), undefined]),
      () => this.#ids.removed(lane, given),
    )
  }

  count(): MaybePromise<number> {
    return this.#ids.count()
  }

  /** While it is planned: the next id, and, in front of the first that is not covered, the row that covers it. */
  #nextID(operations: Operations): number {
    const entryID = ++this.#lastID
    if (entryID > this.#reservedID) {
      this.#reservedID = entryID + RESERVE_COUNT - 1
      const reserved = Buffer.allocUnsafe(6)
      reserved.writeUIntBE(this.#reservedID, 0, 6)
      operations.push(RESERVED_KEY, reserved)
    }
    return entryID
  }

  async *#walk(): AsyncGenerator<EntryPlace[], void, undefined> {
    for await (const stride of this.#database.keyStrides(within(Buffer.from([Tag.Outbox])))) yield stride.map(placeOfOutboxKey)
  }
}

function checkLane(lane: number): void {
  integerBetween('lane', lane, 0, 255)
}

/** @throws TypeError that does not show what came */
function copyOf(entry: Uint8Array): Buffer {
  if (!(entry instanceof Uint8Array)) badOption('entry', 'a Uint8Array', typeof entry)
  return Buffer.from(entry)
}
