import type { MessageRecord } from '../../contracts/message-record.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { Standing } from './channel-states.ts'
import type { Database, Operations } from './database.ts'
import { MAX_NUMBER_KEY_BYTES, seqKey, seqOfKey, seqRange, Tag, writeNumberKey, type NumberText } from './keys.ts'
import type { NumberFilter } from './number-filter.ts'
import { decodeRecord, numberOf } from './record.ts'
import { Row } from './row.ts'

/**
 * A row of at least so many messages has one entry with the hashes of their numbers, while its channel is young: who looks
 * for a number reads all these entries of the channel, so they must not become many. Behind that each number has its own.
 */
const LEAST_LISTED = 8
const LAST_LISTED_SEQ = 16_384

const HASH_BYTES = 4

/** A number that may have been used in a channel. */
export interface Wanted {
  readonly channel: { readonly key: ChannelKey; readonly no: number; readonly committed: Standing }
  readonly number: NumberText
}

/** Which message of a channel has the clientMsgNo of a sender. */
export class NumberIndex {
  readonly #database: Database
  readonly #filter: NumberFilter

  constructor({ database, filter }: { readonly database: Database; readonly filter: NumberFilter }) {
    this.#database = database
    this.#filter = filter
  }

  /** Should a row that is new have a list? */
  isListed(messageCount: number, lastSeq: number): boolean {
    return messageCount >= LEAST_LISTED && lastSeq <= LAST_LISTED_SEQ
  }

  /** Of all messages of the row; the hash is 0 for one without a number. */
  putList(operations: Operations, at: Buffer, messages: readonly { readonly numberHash: number }[]): void {
    const list = Buffer.allocUnsafe(HASH_BYTES * messages.length)
    for (let index = 0; index < messages.length; index++) list.writeInt32BE(messages[index]!.numberHash, HASH_BYTES * index)
    operations.push(listKey(at), list)
  }

  putOne(operations: Operations, at: Buffer, no: number, number: NumberText): void {
    operations.push(numberKey(no, number), at)
  }

  /** Forget the numbers of the row's messages `first` .. `last`; those before `first` are forgotten already. */
  remove(operations: Operations, no: number, row: Row, first: number, last: number): void {
    if (row.hasList) {
      const left = row.from(last + 1)?.records ?? []
      if (left.length === 0) operations.push(listKey(row.at), undefined)
      else this.putList(operations, row.at, left.map((record) => ({ numberHash: this.#hash(no, record) })))
      return
    }
    for (const { record } of row.between(first, last)) {
      const number = numberOf(record)
      if (number !== undefined) operations.push(numberKey(no, number), undefined)
    }
  }

  /** The messages with these numbers, in the order asked. @throws IM_STORE_CORRUPT, IM_STORE_FORMAT */
  async find(wanted: readonly Wanted[]): Promise<(MessageRecord | undefined)[]> {
    const places = await this.#database.getMany(wanted.map(({ channel, number }) => numberKey(channel.no, number)))
    const hits: Hit[] = places.flatMap((at, index) => (at === undefined ? [] : [{ index, at }]))
    const byChannel = new Map<number, number[]>()
    for (const [index, { channel }] of wanted.entries()) {
      if (places[index] !== undefined || channel.committed.lastSeq < LEAST_LISTED) continue
      const indexes = byChannel.get(channel.no)
      if (indexes === undefined) byChannel.set(channel.no, [index])
      else indexes.push(index)
    }
    const scanned = await Promise.all([...byChannel.values()].map((indexes) => this.#scan(wanted, indexes)))
    return this.#read(wanted, hits.concat(...scanned))
  }

  /** What the lists of one channel say. */
  async #scan(wanted: readonly Wanted[], indexes: readonly number[]): Promise<Hit[]> {
    const { no, committed } = wanted[indexes[0]!]!.channel
    const first = Math.max(committed.floorSeq, committed.numberFloorSeq) + 1
    const hits: Hit[] = []
    if (first > LAST_LISTED_SEQ) return hits
    const byHash = new Map<number, number[]>()
    for (const index of indexes) {
      const hash = this.#filter.hashOf(no, wanted[index]!.number)
      byHash.set(hash, [...(byHash.get(hash) ?? []), index])
    }
    for await (const stride of this.#database.strides(seqRange(Tag.Numbers, no, first, LAST_LISTED_SEQ))) {
      for (const [key, list] of stride) {
        for (let offset = 0; offset + HASH_BYTES <= list.length; offset += HASH_BYTES) {
          const found = byHash.get(list.readInt32BE(offset))
          if (found !== undefined) for (const index of found) hits.push({ index, at: seqKey(Tag.Message, no, seqOfKey(key)) })
        }
      }
    }
    return hits
  }

  /** A hash may be another number's. Each row is read once, because all messages of one that are sent again lead to it. */
  async #read(wanted: readonly Wanted[], hits: readonly Hit[]): Promise<(MessageRecord | undefined)[]> {
    const found: (MessageRecord | undefined)[] = wanted.map(() => undefined)
    if (hits.length === 0) return found
    const byRow = new Map<string, { readonly at: Buffer; readonly indexes: Set<number> }>()
    for (const { index, at } of hits) {
      const name = at.toString('latin1')
      const same = byRow.get(name)
      if (same === undefined) byRow.set(name, { at, indexes: new Set([index]) })
      else same.indexes.add(index)
    }
    const rows = await this.#database.getMany(Array.from(byRow.values(), ({ at }) => at))
    let place = 0
    for (const { at, indexes } of byRow.values()) {
      const bytes = rows[place++]
      if (bytes === undefined) continue
      let row: Row | undefined
      for (const index of indexes) {
        const { channel, number } = wanted[index]!
        row ??= new Row(at, bytes, channel.key)
        const match = row.find((record) => isSameNumber(number, numberOf(record)))
        if (match !== undefined) found[index] = decodeRecord(match.record, channel.key, match.seq)
      }
    }
    return found
  }

  #hash(no: number, record: Buffer): number {
    const number = numberOf(record)
    return number === undefined ? 0 : this.#filter.hashOf(no, number)
  }
}

interface Hit {
  /** into what is wanted */
  readonly index: number
  /** key of a row */
  readonly at: Buffer
}

export function isSameNumber(a: NumberText, b: NumberText | undefined): boolean {
  return b !== undefined && a.bytes.compare(b.bytes, b.start, b.end, a.start, a.end) === 0
}

function numberKey(no: number, number: NumberText): Buffer {
  const key = Buffer.allocUnsafe(MAX_NUMBER_KEY_BYTES)
  return key.subarray(0, writeNumberKey(key, no, number))
}

function listKey(at: Buffer): Buffer {
  const key = Buffer.from(at)
  key[0] = Tag.Numbers
  return key
}
