/**
 * A message as bytes: the part of a row (`row.ts`) that is about one message. Numbers big-endian, texts UTF-8 behind their length:
 *
 *   u8 flags · u8 setting · u64 messageID · u48 timestampMs · u32 expireSec · u16+text fromUID · u16+text clientMsgNo ·
 *   [u16+text topic] · [revision] · payload to the end
 *   revision: u8 kind · u32 version · u48 timestampMs · u16+text byUID · u32 length and 32 bytes of SHA-256 of the first payload
 *
 * Channel and seq are in the row's key; the row has a checksum over all of it.
 */
import { createHash } from 'node:crypto'
import { badOption } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { decimalFromHalves, writeUint64Decimal } from '../../model/int64.ts'
import type { Message, Revision } from '../../model/message.ts'
import { MessageFlag, messageFlags, REVISION_KINDS } from '../../model/message-flags.ts'
import { utf8Length, writeText } from '../../model/short-text.ts'
import { MAX_TEXT_BYTES, MAX_TIME_MS, type NumberText } from './keys.ts'

const HEAD_BYTES = 20

/** What a repeat of a revised message is judged by: the payload it first came with. */
export interface FirstPayload {
  readonly byteCount: number
  readonly hash: Buffer
}

export interface MessageRecord {
  readonly message: Message
  /** of a revised message only */
  readonly first: FirstPayload | undefined
}

export function firstPayload(payload: Uint8Array): FirstPayload {
  return { byteCount: payload.length, hash: createHash('sha256').update(payload).digest() }
}

/** Did the message first come with this payload? */
export function isFirstPayload({ message, first }: MessageRecord, payload: Uint8Array): boolean {
  if (first === undefined) return Buffer.compare(message.payload, payload) === 0
  return first.byteCount === payload.length && first.hash.equals(firstPayload(payload).hash)
}

/** How long the message is as bytes. @throws TypeError for a message that does not fit */
export function recordBytes({ fromUID, clientMsgNo, topic, payload, revision, timestampMs }: Message): number {
  if (!(timestampMs >= 0 && timestampMs <= MAX_TIME_MS)) badOption('timestampMs', `from 0 to ${MAX_TIME_MS}`, timestampMs)
  if (!(payload instanceof Uint8Array)) badOption('message payload', 'a Uint8Array', payload)
  const texts = 4 + textBytes('fromUID', fromUID) + textBytes('clientMsgNo', clientMsgNo)
  const topicBytes = topic === '' ? 0 : 2 + textBytes('topic', topic)
  const revisionBytes = revision === undefined ? 0 : 49 + textBytes('byUID', revision.byUID)
  return HEAD_BYTES + texts + topicBytes + revisionBytes + payload.length
}

/** Write the message, which `recordBytes` has accepted. `first`: of a revised message whose first payload is another one. @returns the end */
export function writeRecord(target: Buffer, start: number, message: Message, first?: FirstPayload): number {
  const { topic, payload, revision, timestampMs, expireSec } = message
  target[start] = messageFlags(message)
  target[start + 1] = message.setting
  if (!writeUint64Decimal(target, start + 2, message.messageID)) badOption('messageID', 'an unsigned 64-bit decimal', message.messageID)
  target.writeUIntBE(Math.trunc(timestampMs), start + 10, 6)
  target.writeUInt32BE(expireSec, start + 16)
  let offset = writeText(target, start + HEAD_BYTES, message.fromUID)
  offset = writeText(target, offset, message.clientMsgNo)
  if (topic !== '') offset = writeText(target, offset, topic)
  if (revision !== undefined) {
    offset = target.writeUInt8(REVISION_KINDS.indexOf(revision.kind), offset)
    offset = target.writeUInt32BE(revision.version, offset)
    offset = target.writeUIntBE(Math.trunc(revision.timestampMs), offset, 6)
    offset = writeText(target, offset, revision.byUID)
    const { byteCount, hash } = first ?? firstPayload(payload)
    offset = target.writeUInt32BE(byteCount, offset)
    offset += hash.copy(target, offset)
  }
  target.set(payload, offset)
  return offset + payload.length
}

/** As bytes of its own. */
export function encodeRecord(message: Message, first?: FirstPayload): Buffer {
  const record = Buffer.allocUnsafe(recordBytes(message))
  writeRecord(record, 0, message, first)
  return record
}

/** Bytes that `writeRecord` has written: the row's checksum has been looked at. */
export function decodeRecord(record: Buffer, key: ChannelKey, messageSeq: number): MessageRecord {
  const flags = record[0]!
  const [fromUID, afterUID] = readText(record, HEAD_BYTES)
  const [clientMsgNo, afterNo] = readText(record, afterUID)
  const [topic, afterTopic] = (flags & MessageFlag.Topic) === 0 ? ['', afterNo] : readText(record, afterNo)
  let offset = afterTopic
  let revision: Revision | undefined
  let first: FirstPayload | undefined
  if ((flags & MessageFlag.Revised) !== 0) {
    const [byUID, afterBy] = readText(record, offset + 11)
    const kind = REVISION_KINDS[record[offset]!]!
    revision = { kind, version: record.readUInt32BE(offset + 1), byUID, timestampMs: record.readUIntBE(offset + 5, 6) }
    first = { byteCount: record.readUInt32BE(afterBy), hash: record.subarray(afterBy + 4, afterBy + 36) }
    offset = afterBy + 36
  }
  const message: Message = {
    messageID: decimalFromHalves(record.readUInt32BE(2), record.readUInt32BE(6)),
    messageSeq,
    clientMsgNo,
    fromUID,
    channelID: key.channelID,
    channelType: key.channelType,
    payload: Buffer.from(record.subarray(offset)), // a database in memory hands out what it holds
    timestampMs: timestampOf(record),
    expireSec: record.readUInt32BE(16),
    topic,
    setting: record[1]!,
    noPersist: (flags & MessageFlag.NoPersist) !== 0,
    redDot: (flags & MessageFlag.RedDot) !== 0,
    syncOnce: (flags & MessageFlag.SyncOnce) !== 0,
  }
  return { message: revision === undefined ? message : { ...message, revision }, first }
}

export function timestampOf(record: Buffer): number {
  return record.readUIntBE(10, 6)
}

/** When the message is to be gone, 0 for never. */
export function expiryOfRecord(record: Buffer): number {
  return expiryOf({ timestampMs: timestampOf(record), expireSec: record.readUInt32BE(16) })
}

/** The eight bytes of the id of the message that begins at `start`. */
export function copyID(bytes: Buffer, start: number, target: Buffer, offset: number): void {
  for (let index = 0; index < 8; index++) target[offset + index] = bytes[start + 2 + index]!
}

export function isID(record: Buffer, messageID: string): boolean {
  return decimalFromHalves(record.readUInt32BE(2), record.readUInt32BE(6)) === messageID
}

/** The ids of messages, eight bytes each. */
export function idsOf(records: readonly Buffer[]): Buffer {
  const ids = Buffer.allocUnsafe(8 * records.length)
  for (const [index, record] of records.entries()) copyID(record, 0, ids, 8 * index)
  return ids
}

/** Where the text of its number begins, behind the message's `start`. */
export const NUMBER_OFFSET = HEAD_BYTES

/** The end of what recognises repeats of the message that begins at `start`; 0 when it never has any. */
export function numberEndOf(bytes: Buffer, start: number): number {
  const uidEnd = start + HEAD_BYTES + 2 + ((bytes[start + HEAD_BYTES]! << 8) | bytes[start + HEAD_BYTES + 1]!)
  const numberBytes = (bytes[uidEnd]! << 8) | bytes[uidEnd + 1]!
  return numberBytes === 0 ? 0 : uidEnd + 2 + numberBytes
}

/** What recognises repeats of the message; undefined when it never has any. */
export function numberOf(record: Buffer): NumberText | undefined {
  const end = numberEndOf(record, 0)
  return end === 0 ? undefined : { bytes: record, start: NUMBER_OFFSET, end }
}

/** When the message is to be gone, 0 for never. */
export function expiryOf({ timestampMs, expireSec }: Pick<Message, 'timestampMs' | 'expireSec'>): number {
  return expireSec === 0 ? 0 : timestampMs + expireSec * 1000
}

function textBytes(name: string, text: string): number {
  const bytes = utf8Length(text)
  if (bytes > MAX_TEXT_BYTES) badOption(name, `text of at most ${MAX_TEXT_BYTES} bytes`, text)
  return bytes
}

function readText(record: Buffer, offset: number): [text: string, end: number] {
  const end = offset + 2 + record.readUInt16BE(offset)
  return [record.toString('utf8', offset + 2, end), end]
}
