/**
 * What is under one key of `Tag.Message`: one message, or several of a channel that were appended together, whose numbers
 * follow each other. The key has the number of the last one.
 *
 *   u8 version 1 · u32 CRC-32 of all that follows · message (`record.ts`)
 *   u8 version 2 · u32 CRC-32 of all that follows, begun with 2 · u8 flags · u16 count · count times: u8 1 · u32 length · message
 *   flags: 1: its numbers are in one entry (`number-index.ts`)
 *
 * Both so that a message in a row of version 2 can be made a row of version 1 where it is: the five bytes before it are enough.
 */
import { crc32 } from 'node:zlib'
import { beginRecord, RECORD_PREFIX_BYTES } from '../../contracts/message-records.ts'
import { IMError } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { seqOfKey } from './keys.ts'

const Version = { One: 1, Several: 2 } as const
const HAS_LIST = 1

/** version and sum, where there is the prefix of a message before */
const HEAD_BYTES = RECORD_PREFIX_BYTES
/** the head of a row of several: with flags and their count */
export const SEVERAL_HEAD_BYTES = HEAD_BYTES + 3

/** A row is read as a whole, for one of its messages, too, so it stays small. A larger message is alone in its row. */
export const MAX_ROW_BYTES = 32_768
export const MAX_ROW_COUNT = 128

/** One row, whole: its sum has been looked at. */
export class Row {
  readonly at: Buffer
  readonly lastSeq: number
  /** its numbers are in one entry, and not each in its own */
  readonly hasList: boolean
  readonly #records: readonly Buffer[]

  /** @throws IM_STORE_CORRUPT when the bytes are not what was written; IM_STORE_FORMAT for a version of later days */
  constructor(at: Buffer, bytes: Buffer, key: ChannelKey) {
    this.at = at
    this.lastSeq = seqOfKey(at)
    // First, because every version begins with itself and the sum: a damaged row is none of later days.
    if (bytes.length <= SEVERAL_HEAD_BYTES || bytes.readUInt32BE(1) !== sumOf(bytes)) {
      throw new IMError('IM_STORE_CORRUPT', { detail: `message ${this.lastSeq} is not what was written`, context: key })
    }
    const version = bytes[0]!
    this.hasList = version === Version.Several && bytes[HEAD_BYTES] === HAS_LIST
    if (version === Version.One) this.#records = [bytes.subarray(HEAD_BYTES)]
    else if (version === Version.Several) this.#records = recordsOf(bytes)
    else throw new IMError('IM_STORE_FORMAT', { detail: `a message of version ${version}`, context: key })
  }

  get firstSeq(): number {
    return this.lastSeq - this.#records.length + 1
  }

  /** The messages `first` .. `last` that are in this row, in the order of their numbers. */
  between(first: number, last: number): { readonly seq: number; readonly record: Buffer }[] {
    const { firstSeq } = this
    const skipped = Math.max(0, first - firstSeq)
    return this.#records.slice(skipped, Math.max(0, last - firstSeq + 1)).map((record, index) => ({ seq: firstSeq + skipped + index, record }))
  }

  /** undefined when the message is not in this row, or not any longer */
  recordAt(seq: number): Buffer | undefined {
    return this.#records[seq - this.firstSeq]
  }

  /** The first message that `matches`. */
  find(matches: (record: Buffer) => boolean): { readonly seq: number; readonly record: Buffer } | undefined {
    const index = this.#records.findIndex(matches)
    return index === -1 ? undefined : { seq: this.firstSeq + index, record: this.#records[index]! }
  }

  /** The row with another message at `seq`. */
  with(seq: number, record: Buffer): Buffer {
    return encodeRow(this.#records.with(seq - this.firstSeq, record), this.hasList)
  }

  /** The row without the messages before `seq`; undefined when nothing is left of it. */
  from(seq: number): { readonly bytes: Buffer; readonly records: readonly Buffer[] } | undefined {
    if (seq > this.lastSeq) return undefined
    const records = this.#records.slice(Math.max(0, seq - this.firstSeq))
    return { bytes: encodeRow(records, this.hasList), records }
  }

  get records(): readonly Buffer[] {
    return this.#records
  }
}

/** A row of these messages, which are copied. */
export function encodeRow(records: readonly Buffer[], hasList: boolean): Buffer {
  let length = SEVERAL_HEAD_BYTES
  for (const record of records) length += HEAD_BYTES + record.length
  const bytes = Buffer.allocUnsafe(length)
  let offset = SEVERAL_HEAD_BYTES
  for (const record of records) {
    offset = beginRecord(bytes, offset, record.length)
    offset += record.copy(bytes, offset)
  }
  const isOne = records.length === 1 && !hasList
  return isOne ? sealOne(bytes, SEVERAL_HEAD_BYTES + HEAD_BYTES, length) : sealSeveral(bytes, records.length, hasList)
}

/** The message between `start` and `end`, and what is before it, as a row of its own. */
export function sealOne(bytes: Buffer, start: number, end: number): Buffer {
  const row = bytes.subarray(start - HEAD_BYTES, end)
  row[0] = Version.One
  row.writeUInt32BE(sumOf(row), 1)
  return row
}

/** Bytes whose head is still to be written, as a row. */
export function sealSeveral(bytes: Buffer, count: number, hasList: boolean): Buffer {
  bytes[0] = Version.Several
  bytes[HEAD_BYTES] = hasList ? HAS_LIST : 0
  bytes.writeUInt16BE(count, HEAD_BYTES + 1)
  bytes.writeUInt32BE(sumOf(bytes), 1)
  return bytes
}

/** Begun with the version, so that a damaged one is noticed; only version 1 does without. */
function sumOf(row: Buffer): number {
  return crc32(row.subarray(HEAD_BYTES), row[0] === Version.One ? 0 : row[0])
}

function recordsOf(bytes: Buffer): Buffer[] {
  const records: Buffer[] = []
  for (let offset = SEVERAL_HEAD_BYTES; offset + HEAD_BYTES <= bytes.length; ) {
    const start = offset + HEAD_BYTES
    offset = start + bytes.readUInt32BE(offset + 1)
    records.push(bytes.subarray(start, offset))
  }
  return records
}
