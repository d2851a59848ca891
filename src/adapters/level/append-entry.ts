import { decodeRecord, expiryOfRecord, idOf, timestampOf } from '../../contracts/message-record.ts'
import { RECORD_PREFIX_BYTES, prefixedBytes, writePrefixed, type MessageRecords } from '../../contracts/message-records.ts'
import type { AppendBatch, AppendResult } from '../../contracts/message-store.ts'
import type { Message } from '../../model/message.ts'
import { readText } from '../../model/short-text.ts'
import { kept, type NumberText } from './keys.ts'
import type { NumberFilter } from './number-filter.ts'
import { NUMBER_OFFSET, numberEndOf } from './record.ts'
import { SEVERAL_HEAD_BYTES } from './row.ts'

/** The message that a repeat repeats. */
export interface Original {
  readonly messageID: string
  readonly messageSeq: number
  hasPayload(payload: Uint8Array): boolean
}

/** Messages on their way in, as bytes: nothing of them is the caller's. */
export interface Encoded {
  readonly entries: readonly Entry[]
  /** a row of all of them, but for its head (`sealSeveral`) */
  readonly bytes: Buffer
}

/** One of them. One object, and few fields, because there are many. */
export class Entry implements AppendResult, Original, NumberText {
  /** made when somebody asks, of what has come as bytes: nodes that only keep what others have sent do not */
  #messageID: string | undefined
  /** of all */
  readonly bytes: Buffer
  /** where this one is in them */
  readonly recordStart: number
  readonly recordEnd: number
  /** where its number is; the end is 0 for a message that is never a repeat */
  readonly start: number
  readonly end: number
  /** of its number in its channel, once that is known; 0 before and when there is none */
  numberHash = 0
  /** what the database has under that number, once it has been asked */
  found: Original | undefined = undefined
  /** of `RecentNumbers` */
  sameHash: Entry | undefined = undefined
  messageSeq = 0

  constructor(messageID: string | undefined, bytes: Buffer, start: number, end: number) {
    this.#messageID = messageID
    this.bytes = bytes
    this.recordStart = start
    this.recordEnd = end
    this.start = start + NUMBER_OFFSET
    this.end = numberEndOf(bytes, start)
  }

  get status(): 'stored' {
    return 'stored'
  }

  get messageID(): string {
    return (this.#messageID ??= idOf(this.bytes, this.recordStart))
  }

  /** What is told about it once it has its number. */
  get result(): AppendResult {
    const { messageSeq } = this
    return this.#messageID === undefined ? this : { status: 'stored', messageID: this.#messageID, messageSeq }
  }

  get timestampMs(): number {
    return timestampOf(this.bytes, this.recordStart)
  }

  get expiresAtMs(): number {
    return expiryOfRecord(this.bytes, this.recordStart)
  }

  get fromUID(): string {
    return readText(this.bytes, this.start)
  }

  get record(): Buffer {
    return this.bytes.subarray(this.recordStart, this.recordEnd)
  }

  hasSenderOf({ bytes, start }: Entry): boolean {
    for (let at = 0, end = this.#uidEnd - this.start; at < end; at++) if (this.bytes[this.start + at] !== bytes[start + at]) return false
    return true
  }

  isFrom(uid: Buffer): boolean {
    const from = this.start + 2
    return this.#uidEnd - from === uid.length && this.bytes.compare(uid, 0, uid.length, from, this.#uidEnd) === 0
  }

  get sender(): Buffer {
    return kept(this.bytes.subarray(this.start + 2, this.#uidEnd))
  }

  /** Seldom asked for. */
  get payload(): Uint8Array {
    return decodeRecord(this.bytes, this.recordStart, this.recordEnd, NO_CHANNEL, 0).message.payload
  }

  hasPayload(payload: Uint8Array): boolean {
    return Buffer.compare(this.payload, payload) === 0
  }

  /** What is known of the channel and its numbers may be wrong. */
  forget(): void {
    this.numberHash = 0
    this.found = undefined
  }

  /** @returns false for a message that is never a repeat */
  takeHash(channelNo: number, filter: NumberFilter): boolean {
    if (this.end === 0) return false
    if (this.numberHash === 0) this.numberHash = filter.hashOf(channelNo, this)
    return true
  }

  get #uidEnd(): number {
    return this.start + 2 + ((this.bytes[this.start]! << 8) | this.bytes[this.start + 1]!)
  }
}

const NO_CHANNEL = Object.freeze({ channelID: '', channelType: 0 })

/** @throws TypeError for a message that cannot be stored */
export function encodeBatch(batch: AppendBatch): Encoded {
  return batch.records === undefined ? encodeMessages(batch.messages) : copyRecords(batch.records)
}

function encodeMessages(messages: readonly Message[]): Encoded {
  const lengths = messages.map(prefixedBytes)
  let length = SEVERAL_HEAD_BYTES
  for (const each of lengths) length += each
  const bytes = Buffer.allocUnsafe(length)
  let offset = SEVERAL_HEAD_BYTES
  const entries = messages.map((message, index) => {
    const start = offset + RECORD_PREFIX_BYTES
    offset = writePrefixed(bytes, offset, message, lengths[index]!)
    return new Entry(message.messageID, bytes, start, offset)
  })
  return { entries, bytes }
}

/** Copied, because heads of rows are written before them. */
function copyRecords({ bytes: given, start: givenStart, ends }: MessageRecords): Encoded {
  const shift = SEVERAL_HEAD_BYTES - givenStart
  const bytes = Buffer.allocUnsafe(ends.at(-1)! + shift)
  given.copy(bytes, SEVERAL_HEAD_BYTES, givenStart, ends.at(-1))
  let offset = SEVERAL_HEAD_BYTES
  const entries = ends.map((end) => {
    const start = offset + RECORD_PREFIX_BYTES
    offset = end + shift
    return new Entry(undefined, bytes, start, offset)
  })
  return { entries, bytes }
}
