import type { ChannelKey } from '../../model/channel.ts'
import type { Database, KeyRange } from './database.ts'
import { seqRange, Tag } from './keys.ts'
import { MAX_ROW_COUNT, Row } from './row.ts'

const MAX_SEQ = 0xffff_ffff

/** A channel in this database. */
export interface Place {
  readonly key: ChannelKey
  readonly no: number
}

export interface Walk {
  readonly first: number
  readonly last: number
  /** down from the last; default: up from the first */
  readonly isDown?: boolean
  /** messages that are likely to be enough */
  readonly likelyCount?: number
}

/** The rows of messages, found by the numbers in them. All of them may throw IM_STORE_CORRUPT and IM_STORE_FORMAT. */
export class Rows {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  /** The row that has the number in it, if there is one. */
  async at(place: Place, seq: number): Promise<Row | undefined> {
    const row = await this.next(place, seq, seq)
    return row === undefined || row.firstSeq > seq ? undefined : row
  }

  /** The first row that ends at `seq` or behind it, and may begin behind `last` by less than the length of a row. */
  async next({ key, no }: Place, seq: number, last: number): Promise<Row | undefined> {
    const end = Math.min(MAX_SEQ, last + MAX_ROW_COUNT - 1)
    const [found] = await this.#database.entries({ ...seqRange(Tag.Message, no, seq, end), limit: 1 })
    return found && new Row(...found, key)
  }

  /** All rows that have any of the numbers in them. */
  async *walk(place: Place, { first, last, isDown = false, likelyCount = 1_000 }: Walk): AsyncGenerator<Row, void, undefined> {
    const stride = Math.min(likelyCount, last - first + 1, 1_000)
    if (!isDown) {
      let next = first
      for await (const row of this.#rows(place, seqRange(Tag.Message, place.no, first, last), stride)) {
        yield row
        next = row.lastSeq + 1
      }
      const rest = next > last ? undefined : await this.next(place, next, last) // it ends behind `last`
      if (rest !== undefined && rest.firstSeq <= last) yield rest
      return
    }
    const top = await this.next(place, last, last)
    if (top !== undefined && top.firstSeq <= last) yield top
    const below = Math.min(last, top?.firstSeq ?? last + 1) - 1
    if (below >= first) yield* this.#rows(place, { ...seqRange(Tag.Message, place.no, first, below), reverse: true }, stride)
  }

  async *#rows({ key }: Place, range: KeyRange, stride: number): AsyncGenerator<Row, void, undefined> {
    for await (const entries of this.#database.strides(range, stride)) for (const [at, bytes] of entries) yield new Row(at, bytes, key)
  }
}


