import type { Message } from '../../model/message.ts'
import type { NumberText } from './keys.ts'
import type { NumberFilter } from './number-filter.ts'
import { expiryOf, NUMBER_OFFSET, numberEndOf, recordBytes, writeRecord } from './record.ts'
import { beginRecord, HEAD_BYTES, SEVERAL_HEAD_BYTES } from './row.ts'

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

/** One of them. One object for everything, because there are many. */
export class Entry implements Original, NumberText {
  readonly messageID: string
  readonly fromUID: string
  readonly timestampMs: number
  readonly expiresAtMs: number
  /** of all */
  readonly bytes: Buffer
  /** where this one is in them */
  readonly recordStart: number
  readonly recordEnd: number
  /** where its number is; the end is 0 for a message that is never a repeat */
  readonly start: number
  readonly end: number
  readonly #payloadBytes: number
  /** of its number in its channel, once that is known; 0 before and when there is none */
  numberHash = 0
  /** what the database has under that number, once it has been asked */
  found: Original | undefined = undefined
  /** of `RecentNumbers` */
  sameHash: Entry | undefined = undefined
  messageSeq = 0

  constructor(message: Message, bytes: Buffer, start: number, end: number) {
    this.messageID = message.messageID
    this.fromUID = message.fromUID
    this.timestampMs = message.timestampMs
    this.expiresAtMs = expiryOf(message)
    this.bytes = bytes
    this.recordStart = start
    this.recordEnd = end
    this.start = start + NUMBER_OFFSET
    this.end = numberEndOf(bytes, start)
    this.#payloadBytes = message.payload.length
  }

  get record(): Buffer {
    return this.bytes.subarray(this.recordStart, this.recordEnd)
  }

  /** the end of the record */
  get payload(): Buffer {
    return this.bytes.subarray(this.recordEnd - this.#payloadBytes, this.recordEnd)
  }

  hasPayload(payload: Uint8Array): boolean {
    return this.payload.equals(payload)
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
}

/** @throws TypeError for a message that cannot be stored */
export function encodeMessages(messages: readonly Message[]): Encoded {
  const lengths = messages.map(recordBytes)
  let length = SEVERAL_HEAD_BYTES
  for (const each of lengths) length += HEAD_BYTES + each
  const bytes = Buffer.allocUnsafe(length)
  let offset = SEVERAL_HEAD_BYTES
  const entries = messages.map((message, index) => {
    const start = beginRecord(bytes, offset, lengths[index]!)
    offset = writeRecord(bytes, start, message)
    return new Entry(message, bytes, start, offset)
  })
  return { entries, bytes }
}
