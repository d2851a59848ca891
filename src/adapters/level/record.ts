/** What the indexes of the database take out of a message's bytes (`message-record.ts`), and how rows are read. */
import { decodeRecord as decodeView, idOf, RECORD_HEAD_BYTES, type MessageRecord } from '../../contracts/message-record.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { NumberText } from './keys.ts'

/** Bytes that have been written here: the row's checksum has been looked at. Copied, because a database in memory hands out what it holds. */
export function decodeRecord(record: Buffer, key: ChannelKey, messageSeq: number): MessageRecord {
  return decodeView(Buffer.from(record), 0, record.length, key, messageSeq)
}

/** Where the eight bytes of its id begin, of the message that begins at `start`. */
export function idStart(start: number): number {
  return start + 2
}

export function copyID(bytes: Buffer, start: number, target: Buffer, offset: number): void {
  for (let index = 0; index < 8; index++) target[offset + index] = bytes[idStart(start) + index]!
}

export function isID(record: Buffer, messageID: string): boolean {
  return idOf(record) === messageID
}

/** The ids of messages, eight bytes each. */
export function idsOf(records: readonly Buffer[]): Buffer {
  const ids = Buffer.allocUnsafe(8 * records.length)
  for (const [index, record] of records.entries()) copyID(record, 0, ids, 8 * index)
  return ids
}

/** Where the text of its number begins, behind the message's `start`. */
export const NUMBER_OFFSET = RECORD_HEAD_BYTES

/** The end of what recognises repeats of the message that begins at `start`; 0 when it never has any. */
export function numberEndOf(bytes: Buffer, start: number): number {
  const uidEnd = start + NUMBER_OFFSET + 2 + ((bytes[start + NUMBER_OFFSET]! << 8) | bytes[start + NUMBER_OFFSET + 1]!)
  const numberBytes = (bytes[uidEnd]! << 8) | bytes[uidEnd + 1]!
  return numberBytes === 0 ? 0 : uidEnd + 2 + numberBytes
}

/** What recognises repeats of the message; undefined when it never has any. */
export function numberOf(record: Buffer): NumberText | undefined {
  const end = numberEndOf(record, 0)
  return end === 0 ? undefined : { bytes: record, start: NUMBER_OFFSET, end }
}
