/**
 * All rows of a database but the outbox, as bytes, and back: how a node that the log can no longer help gets what the others
 * have. Power loss in the middle of a restore leaves an empty database. A slow reader holds up nobody.
 */
import { IMError } from '../../errors.ts'
import type { Database, KeyRange, Operations } from './database.ts'
import { Tag, textKey } from './keys.ts'

const CHUNK_BYTES = 256 * 1024
const BATCH_BYTES = 1024 * 1024

/** In front of the rows: what it is, and the layout of what follows. */
const HEADER = Buffer.from('imengine level snapshot 1\n')
/** No key is that long: it stands where the length of the next key would, with the number of rows behind it. */
const END = 0xffff_ffff

/** There while a restore is under way: what is in the database besides is worth nothing. */
const RESTORING_KEY = textKey(Tag.Meta, Buffer.from('restoring'))

/** What a restore replaces: everything but what is still to be told by this node, and how the database is laid out. */
const SHARED: readonly KeyRange[] = [
  { gte: Buffer.of(Tag.Meta + 1), lt: Buffer.of(Tag.Outbox) },
  { gte: Buffer.of(Tag.Outbox + 1), lt: Buffer.of(0xff) },
]

/** The rows as they are when the first one is asked for, in chunks. */
export async function* snapshotOf(database: Database, seedKey: Buffer): AsyncGenerator<Uint8Array, void, undefined> {
  const pieces = new Pieces()
  pieces.add(HEADER)
  let rowCount = 0
  // Rows that are hashed are hashed with the seed of the database they come from.
  const seed = await database.get(seedKey)
  const rows = database.strides({ gte: Buffer.of(Tag.Meta + 1), lt: Buffer.of(0xff) })
  if (seed !== undefined) rowCount += addRow(pieces, seedKey, seed)
  for await (const stride of rows) {
    for (const [key, value] of stride) {
      if (key[0] === Tag.Outbox) continue
      rowCount += addRow(pieces, key, value)
      yield* pieces.full()
    }
  }
  const end = Buffer.alloc(8)
  end.writeUInt32BE(END)
  end.writeUInt32BE(rowCount % 2 ** 32, 4)
  pieces.add(end)
  yield* pieces.full()
  yield pieces.rest()
}

function addRow(pieces: Pieces, key: Buffer, value: Buffer): 1 {
  const lengths = Buffer.alloc(8)
  lengths.writeUInt32BE(key.length)
  lengths.writeUInt32BE(value.length, 4)
  pieces.add(lengths)
  pieces.add(key)
  pieces.add(value)
  return 1
}

/** Bytes that are cut into chunks of one size, wherever that is. */
class Pieces {
  #waiting: Buffer[] = []
  #bytes = 0

  add(piece: Buffer): void {
    this.#waiting.push(piece)
    this.#bytes += piece.length
  }

  *full(): Generator<Uint8Array, void, undefined> {
    if (this.#bytes < CHUNK_BYTES) return
    const all = Buffer.concat(this.#waiting)
    let start = 0
    for (; all.length - start >= CHUNK_BYTES; start += CHUNK_BYTES) yield all.subarray(start, start + CHUNK_BYTES)
    this.#waiting = [all.subarray(start)]
    this.#bytes = all.length - start
  }

  rest(): Uint8Array {
    return Buffer.concat(this.#waiting)
  }
}

/**
 * Put the rows of a snapshot in the place of what is there.
 * @throws IM_STORE_CORRUPT  it is none: nothing has changed; or not all of it has come, IM_STORE_*: the database is empty then
 */
export async function restoreInto(database: Database, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const reader = new Reader(chunks)
  try {
    await restoreFrom(reader, database)
  } finally {
    await reader.end()
  }
}

async function restoreFrom(reader: Reader, database: Database): Promise<void> {
  // Before anything is given up for it: whoever was to give it may have nothing to give.
  if (!HEADER.equals(await reader.take(HEADER.length))) throw damaged('it is no snapshot of this storage')
  await database.write([RESTORING_KEY, Buffer.of(1)])
  try {
    await clear(database)
    await writeRows(database, reader)
  } catch (error) {
    await finishRestore(database).catch(() => undefined) // or with the next start
    throw error
  }
  await database.write([RESTORING_KEY, undefined])
}

/** A restore that has not come to its end leaves nothing. Before anything is read of the database. */
export async function finishRestore(database: Database): Promise<void> {
  if ((await database.get(RESTORING_KEY)) === undefined) return
  await clear(database)
  await database.write([RESTORING_KEY, undefined])
}

async function clear(database: Database): Promise<void> {
  for (const range of SHARED) {
    for await (const keys of database.keyStrides(range)) {
      await database.write(keys.flatMap((key): Operations => [key, undefined]))
    }
  }
}

async function writeRows(database: Database, reader: Reader): Promise<void> {
  let operations: Operations = []
  let bytes = 0
  let rowCount = 0
  for (;;) {
    const lengths = await reader.take(8)
    const keyLength = lengths.readUInt32BE()
    const valueLength = lengths.readUInt32BE(4)
    if (keyLength === END) {
      if (valueLength !== rowCount % 2 ** 32) throw damaged('rows are missing')
      await reader.finish()
      break
    }
    const key = await reader.take(keyLength)
    operations.push(key, await reader.take(valueLength))
    rowCount++
    bytes += keyLength + valueLength
    if (bytes < BATCH_BYTES) continue
    await database.write(operations)
    operations = []
    bytes = 0
  }
  await database.write(operations)
}

/** So many bytes at a time, whatever the chunks are. */
class Reader {
  readonly #chunks: AsyncIterator<Uint8Array>
  #rest: Buffer = Buffer.alloc(0)

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]()
  }

  async take(count: number): Promise<Buffer> {
    if (this.#rest.length < count) await this.#gather(count)
    const taken = Buffer.from(this.#rest.subarray(0, count))
    this.#rest = this.#rest.subarray(count)
    return taken
  }

  /** Up to their end, so that whoever gives them knows that all have been taken. */
  async finish(): Promise<void> {
    if (this.#rest.length > 0 || (await this.#chunks.next()).done !== true) throw damaged('it does not end where it should')
  }

  /** No more is wanted: whoever gives them is told so, also after a failure of the one who takes. */
  async end(): Promise<void> {
    await this.#chunks.return?.()
  }

  async #gather(count: number): Promise<void> {
    const pieces: Uint8Array[] = [this.#rest]
    for (let have = this.#rest.length; have < count; ) {
      const next = await this.#chunks.next()
      if (next.done === true) throw damaged('it ends too soon')
      pieces.push(next.value)
      have += next.value.length
    }
    this.#rest = Buffer.concat(pieces)
  }
}

function damaged(detail: string): IMError {
  return new IMError('IM_STORE_CORRUPT', { detail: `snapshot: ${detail}` })
}
