import { badOption } from '../../errors.ts'
import type { Message } from '../../model/message.ts'
import { setChannelNo } from './keys.ts'
import type { NumberFilter } from './number-filter.ts'
import { encodeRecord, expiryOf, idKeyOf, numberKeyOf } from './record.ts'

/** The message that a repeat repeats. */
export interface Original {
  readonly messageID: string
  readonly messageSeq: number
  hasPayload(payload: Uint8Array): boolean
}

/** A message on its way in, as bytes: nothing of it is the caller's. One object for everything, because there are many. */
export class Entry implements Original {
  readonly messageID: string
  readonly fromUID: string
  readonly timestampMs: number
  readonly expiresAtMs: number
  readonly record: Buffer
  readonly idKey: Buffer
  /** undefined for a message that is never a repeat */
  readonly numberKey: Buffer | undefined
  readonly #payloadBytes: number
  /** of `numberKey`, once the channel's number is in it */
  numberHash = 0
  /** what the database has under that number, once it has been asked */
  found: Original | undefined = undefined
  /** of `RecentNumbers` */
  sameHash: Entry | undefined = undefined
  messageSeq = 0

  constructor(message: Message) {
    const { messageID, fromUID, payload, timestampMs } = message
    if (!(payload instanceof Uint8Array)) badOption('message payload', 'a Uint8Array', payload)
    this.messageID = messageID
    this.fromUID = fromUID
    this.timestampMs = timestampMs
    this.expiresAtMs = expiryOf(message)
    this.record = encodeRecord(message)
    this.#payloadBytes = payload.length
    this.idKey = idKeyOf(this.record)
    this.numberKey = numberKeyOf(this.record)
  }

  /** the end of `record` */
  get payload(): Buffer {
    return this.record.subarray(this.record.length - this.#payloadBytes)
  }

  hasPayload(payload: Uint8Array): boolean {
    return this.payload.equals(payload)
  }

  /** What is known of the channel and its numbers may be wrong. */
  forget(): void {
    this.numberHash = 0
    this.found = undefined
  }

  /** Put the channel's number where it belongs. @returns false for a message that is never a repeat */
  takeChannelNo(channelNo: number, filter: NumberFilter): boolean {
    if (this.numberKey === undefined) return false
    if (this.numberHash !== 0) return true
    this.numberHash = filter.hash(setChannelNo(this.numberKey, channelNo))
    return true
  }
}
