import type { Database, Operations } from './database.ts'
import { after, idKey, Tag } from './keys.ts'

/**
 * Ids that lie within so much of each other share an entry: a quarter of a second of the engine's own. A look-up reads all
 * entries whose last id is at most so far behind the one it looks for, so a larger span would make it read more.
 */
const SPAN = 2 ** 30

const ID_BYTES = 8

/**
 * Where messages are by their id. The ids of a row that rise and lie close together, as those of an engine do, are one entry
 * under the last of them; one that stands alone has an entry of its own. Both follow from the row, so who takes the row away
 * or changes it knows what to take away.
 */
export class MessageIDs {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  /** The keys of the rows, in the order asked; undefined where there is none. A row may be gone when it is read. */
  async find(messageIDs: readonly string[]): Promise<(Buffer | undefined)[]> {
    const keys = messageIDs.map(idKey)
    const found = await this.#database.getMany(keys)
    const missing = keys.flatMap((key, index) => (found[index] === undefined ? [{ index, id: key.subarray(1) }] : []))
    missing.sort((a, b) => a.id.compare(b.id))
    for (let first = 0; first < missing.length; ) {
      let end = first + 1
      while (end < missing.length && distance(missing[end - 1]!.id, missing[end]!.id) <= SPAN) end++
      await this.#scan(missing.slice(first, end), found)
      first = end
    }
    return found
  }

  /** Look for ids, in rising order, that are close together. */
  async #scan(wanted: readonly WantedID[], found: (Buffer | undefined)[]): Promise<void> {
    let leftCount = wanted.length
    const range = { gte: entryKey(wanted[0]!.id), lt: behind(wanted.at(-1)!.id) }
    for await (const stride of this.#database.strides(range)) {
      for (const [key, ids] of stride) {
        for (let next = firstFrom(wanted, ids); next < wanted.length; next++) {
          const { index, id } = wanted[next]!
          if (id.compare(ids, ids.length - ID_BYTES) > 0) break // and so are those behind it
          if (found[index] !== undefined || !includes(ids, id)) continue
          found[index] = rowKeyOf(key)
          if (--leftCount === 0) return
        }
      }
    }
  }
}

interface WantedID {
  /** into what was asked for */
  readonly index: number
  readonly id: Buffer
}

/** The place of the first id, of those that rise, that is not below the entry: those before it would be compared with every entry there is. */
function firstFrom(wanted: readonly WantedID[], ids: Buffer): number {
  let low = 0
  let high = wanted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (wanted[middle]!.id.compare(ids, 0, ID_BYTES) < 0) low = middle + 1
    else high = middle
  }
  return low
}

/** Write the entry of the only message of the row at `at`, whose id begins at `start`. */
export function putID(operations: Operations, at: Buffer, bytes: Buffer, start: number): void {
  operations.push(idKeyOf(bytes, start), at)
}

/** Write the entries of the row at `at`, whose messages have these ids, eight bytes each; or delete them. */
export function putIDs(operations: Operations, at: Buffer, ids: Buffer, isDeleted = false): void {
  for (let first = 0; first < ids.length; ) {
    let last = first
    while (last + ID_BYTES < ids.length && follows(ids, first, last)) last += ID_BYTES
    if (last === first) operations.push(idKeyOf(ids, first), isDeleted ? undefined : at)
    else operations.push(entryKey(ids.subarray(last, last + ID_BYTES), at), isDeleted ? undefined : ids.subarray(first, last + ID_BYTES))
    first = last + ID_BYTES
  }
}

/** Is the id behind the one at `last` higher than that, and close to the one at `first`? */
function follows(ids: Buffer, first: number, last: number): boolean {
  const next = last + ID_BYTES
  return difference(ids, next, ids, last) > 0 && difference(ids, next, ids, first) <= SPAN
}

/** Exact where it matters: close to 0. Byte by byte, because it is asked for twice for each message. */
function difference(a: Buffer, at: number, b: Buffer, bt: number): number {
  let sum = 0
  for (let index = 0; index < ID_BYTES; index++) sum = sum * 256 + (a[at + index]! - b[bt + index]!)
  return sum
}

function distance(lower: Buffer, higher: Buffer): number {
  return difference(higher, 0, lower, 0)
}

function idKeyOf(ids: Buffer, start: number): Buffer {
  const key = Buffer.allocUnsafe(1 + ID_BYTES)
  key[0] = Tag.ID
  ids.copy(key, 1, start, start + ID_BYTES)
  return key
}

/** `Tag.IDs`, id, and the row's channel number and seq if it is given. */
function entryKey(id: Buffer, at?: Buffer): Buffer {
  const key = Buffer.allocUnsafe(1 + ID_BYTES + (at === undefined ? 0 : at.length - 1))
  key[0] = Tag.IDs
  id.copy(key, 1)
  at?.copy(key, 1 + ID_BYTES, 1)
  return key
}

function rowKeyOf(key: Buffer): Buffer {
  const at = Buffer.allocUnsafe(key.length - ID_BYTES)
  at[0] = Tag.Message
  key.copy(at, 1, 1 + ID_BYTES)
  return at
}

/** Behind all entries that can have this id. */
function behind(id: Buffer): Buffer {
  const last = Buffer.allocUnsafe(ID_BYTES)
  const sum = id.readBigUInt64BE() + BigInt(SPAN)
  last.writeBigUInt64BE(sum > 0xffff_ffff_ffff_ffffn ? 0xffff_ffff_ffff_ffffn : sum)
  return after(entryKey(last))
}

function includes(ids: Buffer, id: Buffer): boolean {
  for (let start = 0; start < ids.length; start += ID_BYTES) if (ids.compare(id, 0, ID_BYTES, start, start + ID_BYTES) === 0) return true
  return false
}
