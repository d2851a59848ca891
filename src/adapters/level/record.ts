/**
 * A message as bytes. Version 1, numbers big-endian, texts UTF-8 behind their length:
 *
 *   u8 version · u32 CRC-32 of all that follows · u8 flags · u8 setting · u64 messageID · u48 timestampMs · u32 expireSec ·
 *   u16+text fromUID · u16+text clientMsgNo · [u16+text topic] · [revision] · payload to the end
 *   revision: u8 kind · u32 version · u48 timestampMs · u16+text byUID · u32 length and 32 bytes of SHA-256 of the first payload
 *
 * Channel and seq are in the key.
 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { badOption, IMError } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { decimalFromHalves, writeUint64Decimal } from '../../model/int64.ts'
import type { Message, Revision } from '../../model/message.ts'
import { MAX_TEXT_BYTES, MAX_TIME_MS, numberKeyOfTexts, Tag } from './keys.ts'

const VERSION = 1
const HEAD_BYTES = 25

const Flag = { NoPersist: 1, RedDot: 2, SyncOnce: 4, Topic: 8, Revised: 16 } as const

const KINDS: readonly Revision['kind'][] = ['edited', 'recalled']

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

/** @throws TypeError for a message that does not fit */
export function encodeRecord(message: Message, first?: FirstPayload): Buffer {
  const { fromUID, clientMsgNo, topic, payload, revision, timestampMs } = message
  const uidBytes = textBytes('fromUID', fromUID)
  const noBytes = textBytes('clientMsgNo', clientMsgNo)
  const topicBytes = topic === '' ? 0 : textBytes('topic', topic)
  const byBytes = revision === undefined ? 0 : textBytes('byUID', revision.byUID)
  if (!(timestampMs >= 0 && timestampMs <= MAX_TIME_MS)) badOption('timestampMs', `from 0 to ${MAX_TIME_MS}`, timestampMs)
  const bytes = HEAD_BYTES + 4 + uidBytes + noBytes + (topicBytes === 0 ? 0 : 2 + topicBytes) + (revision === undefined ? 0 : 49 + byBytes)
  const record = Buffer.allocUnsafe(bytes + payload.length)
  record[0] = VERSION
  record[5] =
    (message.noPersist ? Flag.NoPersist : 0) |
    (message.redDot ? Flag.RedDot : 0) |
    (message.syncOnce ? Flag.SyncOnce : 0) |
    (topicBytes > 0 ? Flag.Topic : 0) |
    (revision === undefined ? 0 : Flag.Revised)
  record[6] = message.setting
  if (!writeUint64Decimal(record, 7, message.messageID)) badOption('messageID', 'an unsigned 64-bit decimal', message.messageID)
  record.writeUIntBE(Math.trunc(timestampMs), 15, 6)
  record.writeUInt32BE(message.expireSec, 21)
  let offset = writeText(record, HEAD_BYTES, fromUID, uidBytes)
  offset = writeText(record, offset, clientMsgNo, noBytes)
  if (topicBytes > 0) offset = writeText(record, offset, topic, topicBytes)
  if (revision !== undefined) {
    offset = record.writeUInt8(KINDS.indexOf(revision.kind), offset)
    offset = record.writeUInt32BE(revision.version, offset)
    offset = record.writeUIntBE(Math.trunc(revision.timestampMs), offset, 6)
    offset = writeText(record, offset, revision.byUID, byBytes)
    const { byteCount, hash } = first ?? firstPayload(payload)
    offset = record.writeUInt32BE(byteCount, offset)
    offset += hash.copy(record, offset)
  }
  record.set(payload, offset)
  record.writeUInt32BE(crc32(record.subarray(5)), 1)
  return record
}

/** @throws IM_STORE_CORRUPT when the bytes are not what was written; IM_STORE_FORMAT for a version of later days */
export function decodeRecord(record: Buffer, key: ChannelKey, messageSeq: number): MessageRecord {
  // First, because every version begins with itself and the sum: a damaged record is none of later days.
  if (record.length < HEAD_BYTES + 4 || record.readUInt32BE(1) !== crc32(record.subarray(5))) {
    throw new IMError('IM_STORE_CORRUPT', { detail: `message ${messageSeq} is not what was written`, context: key })
  }
  if (record[0] !== VERSION) throw new IMError('IM_STORE_FORMAT', { detail: `a message of version ${record[0]}`, context: key })
  // From here on every byte is one that `encodeRecord` has written.
  const flags = record[5]!
  const [fromUID, afterUID] = readText(record, HEAD_BYTES)
  const [clientMsgNo, afterNo] = readText(record, afterUID)
  const [topic, afterTopic] = (flags & Flag.Topic) === 0 ? ['', afterNo] : readText(record, afterNo)
  let offset = afterTopic
  let revision: Revision | undefined
  let first: FirstPayload | undefined
  if ((flags & Flag.Revised) !== 0) {
    const [byUID, afterBy] = readText(record, offset + 11)
    const kind = KINDS[record[offset]!]!
    revision = { kind, version: record.readUInt32BE(offset + 1), byUID, timestampMs: record.readUIntBE(offset + 5, 6) }
    first = { byteCount: record.readUInt32BE(afterBy), hash: record.subarray(afterBy + 4, afterBy + 36) }
    offset = afterBy + 36
  }
  const message: Message = {
    messageID: decimalFromHalves(record.readUInt32BE(7), record.readUInt32BE(11)),
    messageSeq,
    clientMsgNo,
    fromUID,
    channelID: key.channelID,
    channelType: key.channelType,
    payload: Buffer.from(record.subarray(offset)), // a database in memory hands out what it holds
    timestampMs: record.readUIntBE(15, 6),
    expireSec: record.readUInt32BE(21),
    topic,
    setting: record[6]!,
    noPersist: (flags & Flag.NoPersist) !== 0,
    redDot: (flags & Flag.RedDot) !== 0,
    syncOnce: (flags & Flag.SyncOnce) !== 0,
  }
  return { message: revision === undefined ? message : { ...message, revision }, first }
}

/** The key under which the record's message is found by its id. */
export function idKeyOf(record: Buffer): Buffer {
  const key = Buffer.allocUnsafe(9)
  key[0] = Tag.ID
  for (let index = 0; index < 8; index++) key[index + 1] = record[index + 7]!
  return key
}

/** The key that recognises repeats of the record's message, without its channel number; undefined when there can be none. */
export function numberKeyOf(record: Buffer): Buffer | undefined {
  const uidEnd = HEAD_BYTES + 2 + ((record[HEAD_BYTES]! << 8) | record[HEAD_BYTES + 1]!)
  const numberEnd = uidEnd + 2 + ((record[uidEnd]! << 8) | record[uidEnd + 1]!)
  if (numberEnd === uidEnd + 2) return undefined
  return numberKeyOfTexts(record, { uidStart: HEAD_BYTES + 2, uidEnd, numberStart: uidEnd + 2, numberEnd })
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

/** Ids are short and ASCII as a rule: for those a loop is faster than asking the runtime. */
const SHORT_TEXT = 64

function utf8Length(text: string): number {
  if (text.length > SHORT_TEXT) return Buffer.byteLength(text)
  for (let index = 0; index < text.length; index++) if (text.charCodeAt(index) > 0x7f) return Buffer.byteLength(text)
  return text.length
}

function writeText(record: Buffer, offset: number, text: string, bytes: number): number {
  record[offset] = bytes >>> 8
  record[offset + 1] = bytes
  if (bytes === text.length && bytes <= SHORT_TEXT) for (let index = 0; index < bytes; index++) record[offset + 2 + index] = text.charCodeAt(index)
  else record.write(text, offset + 2, bytes)
  return offset + 2 + bytes
}

function readText(record: Buffer, offset: number): [text: string, end: number] {
  const end = offset + 2 + record.readUInt16BE(offset)
  return [record.toString('utf8', offset + 2, end), end]
}
