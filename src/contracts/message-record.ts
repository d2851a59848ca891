/**
 * A message as bytes, as a log carries it and a store may keep it, so that what comes from the one goes into the other as it is.
 * Written down by both: it does not change without the versions of their formats. Numbers big-endian, texts UTF-8 behind their length:
 *
 *   u8 flags · u8 setting · u64 messageID · u48 timestampMs · u32 expireSec · u16+text fromUID · u16+text clientMsgNo ·
 *   [u16+text topic] · [revision] · payload to the end
 *   revision: u8 kind · u32 version · u48 timestampMs · u16+text byUID · u32 length and 32 bytes of SHA-256 of the first payload
 *
 * Channel and seq are not in it, and whoever keeps it has a checksum over all of it.
 */
import { createHash } from 'node:crypto'
import { badOption } from '../errors.ts'
import type { ChannelKey } from '../model/channel.ts'
import { decimalFromHalves, writeUint64Decimal } from '../model/int64.ts'
import { flagFields, MessageFlag, messageFlags, REVISION_KINDS } from '../model/message-flags.ts'
import type { Message, Revision } from '../model/message.ts'
import { isText, readText, utf8Length, writeText } from '../model/short-text.ts'

/** What comes before the first text. */
export const RECORD_HEAD_BYTES = 20
/** What its length is written down in. */
export const MAX_TEXT_BYTES = 0xffff
/** What fits six bytes: the year 10889. */
export const MAX_TIME_MS = 0xffff_ffff_ffff

const REVISION_HEAD_BYTES = 11
const HASH_BYTES = 32

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
  return RECORD_HEAD_BYTES + texts + topicBytes + revisionBytes + payload.length
}

/** Write the message, which `recordBytes` has accepted. `first`: of a revised message whose first payload is another one. @returns the end */
export function writeRecord(target: Buffer, start: number, message: Message, first?: FirstPayload): number {
  const { topic, payload, revision, timestampMs, expireSec } = message
  target[start] = messageFlags(message)
  target[start + 1] = message.setting
  if (!writeUint64Decimal(target, start + 2, message.messageID)) badOption('messageID', 'an unsigned 64-bit decimal', message.messageID)
  target.writeUIntBE(Math.trunc(timestampMs), start + 10, 6)
  target.writeUInt32BE(expireSec, start + 16)
  let offset = writeText(target, start + RECORD_HEAD_BYTES, message.fromUID)
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

/**
 * Do the bytes between `start` and `end` hold a message, as far as its lengths and its texts go? What has passed can be decoded, and
 * is the same for who compares its bytes and for who compares its texts. For what somebody else has written: a checksum says that it
 * has come whole, and not that it was right.
 */
export function isRecord(bytes: Buffer, start: number, end: number): boolean {
  let offset = behindText(bytes, behindText(bytes, start + RECORD_HEAD_BYTES, end), end)
  const flags = bytes[start]!
  if ((flags & MessageFlag.Topic) !== 0) offset = behindText(bytes, offset, end)
  if ((flags & MessageFlag.Revised) === 0) return offset <= end
  if (offset + REVISION_HEAD_BYTES > end || REVISION_KINDS[bytes[offset]!] === undefined) return false
  return behindText(bytes, offset + REVISION_HEAD_BYTES, end) + 4 + HASH_BYTES <= end
}

/** Behind the text at `offset`; behind `end` when it is not all there, or none. */
function behindText(bytes: Buffer, offset: number, end: number): number {
  const after = offset + 2 > end ? end + 1 : afterText(bytes, offset)
  return after <= end && isText(bytes, offset + 2, after) ? after : end + 1
}

function afterText(bytes: Buffer, offset: number): number {
  return offset + 2 + ((bytes[offset]! << 8) | bytes[offset + 1]!)
}

/** Bytes that `writeRecord` has written, or that `isRecord` has accepted. The payload is a view of them. */
export function decodeRecord(bytes: Buffer, start: number, end: number, key: ChannelKey, messageSeq: number): MessageRecord {
  const flags = bytes[start]!
  const uidStart = start + RECORD_HEAD_BYTES
  const numberStart = afterText(bytes, uidStart)
  let offset = afterText(bytes, numberStart)
  let topic = ''
  if ((flags & MessageFlag.Topic) !== 0) {
    topic = readText(bytes, offset)
    offset = afterText(bytes, offset)
  }
  let revision: Revision | undefined
  let first: FirstPayload | undefined
  if ((flags & MessageFlag.Revised) !== 0) {
    const byUID = readText(bytes, offset + REVISION_HEAD_BYTES)
    const kind = REVISION_KINDS[bytes[offset]!]!
    revision = { kind, version: bytes.readUInt32BE(offset + 1), byUID, timestampMs: bytes.readUIntBE(offset + 5, 6) }
    offset = afterText(bytes, offset + REVISION_HEAD_BYTES)
    first = { byteCount: bytes.readUInt32BE(offset), hash: bytes.subarray(offset + 4, offset + 4 + HASH_BYTES) }
    offset += 4 + HASH_BYTES
  }
  const message: Message = {
    messageID: idOf(bytes, start),
    messageSeq,
    clientMsgNo: readText(bytes, numberStart),
    fromUID: readText(bytes, uidStart),
    channelID: key.channelID,
    channelType: key.channelType,
    payload: bytes.subarray(offset, end),
    timestampMs: timestampOf(bytes, start),
    expireSec: expireSecOf(bytes, start),
    topic,
    setting: bytes[start + 1]!,
    ...flagFields(flags),
  }
  return { message: revision === undefined ? message : { ...message, revision }, first }
}

/** Of the message that begins at `start`, decimal. */
export function idOf(bytes: Buffer, start = 0): string {
  return decimalFromHalves(bytes.readUInt32BE(start + 2), bytes.readUInt32BE(start + 6))
}

export function timestampOf(bytes: Buffer, start = 0): number {
  return bytes.readUIntBE(start + 10, 6)
}

function expireSecOf(bytes: Buffer, start: number): number {
  return bytes.readUInt32BE(start + 16)
}

/** When the message that begins at `start` is to be gone, 0 for never. */
export function expiryOfRecord(bytes: Buffer, start = 0): number {
  const expireSec = expireSecOf(bytes, start)
  return expireSec === 0 ? 0 : expiryOf({ timestampMs: timestampOf(bytes, start), expireSec })
}

/** When the message is to be gone, 0 for never. */
export function expiryOf({ timestampMs, expireSec }: Pick<Message, 'timestampMs' | 'expireSec'>): number {
  return expireSec === 0 ? 0 : timestampMs + expireSec * 1000
}

/** How long the text is as bytes, without its length. @throws TypeError when that does not fit two bytes */
export function textBytes(name: string, text: string): number {
  const bytes = utf8Length(text)
  if (bytes > MAX_TEXT_BYTES) badOption(name, `text of at most ${MAX_TEXT_BYTES} bytes`, text)
  return bytes
}
