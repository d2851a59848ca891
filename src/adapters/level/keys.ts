/**
 * The keys of the database. The first byte says what it is, numbers are big-endian so that they sort, and texts that are
 * followed by another one carry their length. `docs/storage.md` has the table for readers; a test holds the two equal.
 */
import { createHash } from 'node:crypto'
import { MAX_TEXT_BYTES, MAX_TIME_MS } from '../../contracts/message-record.ts'
import type { LogPosition } from '../../contracts/message-store.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { writeUint64Decimal } from '../../model/int64.ts'
import { badOption } from '../../errors.ts'

export const Tag = {
  /** meta: name → what is known of the database itself */
  Meta: 0x21, // !
  /** channel name → channel number, and where the channel stands */
  Channel: 0x43, // C
  /** channel number → channel name */
  Name: 0x4e, // N
  /** channel number, seq → message, or several of which that is the last one */
  Message: 0x6d, // m
  /** message id → key of the row with the message */
  ID: 0x69, // i
  /** last of some message ids that rise, channel number, seq of the row with those messages → the ids */
  IDs: 0x49, // I
  /** channel number, sender, clientMsgNo → key of the row with the message */
  Number: 0x64, // d
  /** channel number, seq of a row → hashes of the keys of Tag.Number that its messages would have */
  Numbers: 0x44, // D
  /** channel number, sender → seq of the sender's last message, unless it is the channel's last */
  Sent: 0x73, // s
  /** channel number, seq → nothing: recalled, or removed from the middle */
  Hole: 0x68, // h
  /** expiry time, channel number, seq → nothing */
  Expiry: 0x78, // x
  /** uid, channel id → nothing: a person channel of that user */
  Person: 0x70, // p
  /** channel name → info */
  Info: 0x67, // g
  /** channel name, uid → role, and until when they are muted */
  Member: 0x62, // b
  /** uid, channel name → nothing: a channel that user is a member of */
  Membership: 0x42, // B
  /** list, channel name, uid → nothing */
  Listed: 0x6c, // l
  /** uid → flags */
  User: 0x75, // u
  /** uid → nothing: a user whose flag `system` is set */
  System: 0x53, // S
  /** uid, kind of device → digest of the token, and what it is worth */
  Token: 0x74, // t
  /** uid, channel name → positions */
  Cursor: 0x72, // r
  /** uid, channel name, seq → nothing: hidden from that user */
  Hidden: 0x76, // v
  /** lane, entry id → what is to be told */
  Outbox: 0x6f, // o
  /** log → the number of its last entry that has been applied here */
  Log: 0x4c, // L
} as const

/** Longer pairs of sender and clientMsgNo go by their hash: keys are kept short. */
const MAX_PLAIN_NUMBER_BYTES = 120

/** A channel's name in bytes: type, then id. Two channels never share one. */
export function channelName({ channelID, channelType }: ChannelKey): Buffer {
  const idBytes = Buffer.byteLength(channelID)
  if (idBytes > MAX_TEXT_BYTES) badOption('channelID', `text of at most ${MAX_TEXT_BYTES} bytes`, channelID)
  const name = Buffer.allocUnsafe(1 + idBytes)
  name[0] = channelType
  name.write(channelID, 1)
  return name
}

export function channelOfName(name: Buffer): ChannelKey {
  return { channelID: name.toString('utf8', 1), channelType: name[0]! }
}

/** `tag` and parts; every part but the last carries its length. */
export function textKey(tag: number, ...parts: readonly Buffer[]): Buffer {
  let bytes = 1
  for (const part of parts) bytes += 2 + part.length
  const key = Buffer.allocUnsafe(bytes - (parts.length === 0 ? 0 : 2))
  key[0] = tag
  let offset = 1
  for (const [index, part] of parts.entries()) {
    if (part.length > MAX_TEXT_BYTES) badOption('text', `at most ${MAX_TEXT_BYTES} bytes`, part)
    if (index < parts.length - 1) offset = key.writeUInt16BE(part.length, offset)
    offset += part.copy(key, offset)
  }
  return key
}

/** `textKey` of all parts with their length, as the beginning of keys that go on. */
export function textPrefix(tag: number, ...parts: readonly Buffer[]): Buffer {
  return textKey(tag, ...parts, EMPTY)
}

export const EMPTY = Buffer.alloc(0)

/** A copy of few bytes that stays for long: in memory of its own, and not in a piece of what is shared with others. */
export function kept(bytes: Uint8Array): Buffer {
  const copy = Buffer.alloc(bytes.length)
  copy.set(bytes)
  return copy
}

/** The keys that begin with `prefix`. */
export function within(prefix: Buffer): { gte: Buffer; lt: Buffer } {
  return { gte: prefix, lt: after(prefix) }
}

/** The first key behind all that begin with `prefix`. No tag is 0xff, so there always is one. */
export function after(prefix: Buffer): Buffer {
  let length = prefix.length
  while (prefix[length - 1] === 0xff) length--
  const next = Buffer.from(prefix.subarray(0, length))
  next[length - 1]!++
  return next
}

/** meta row → what numbers are hashed with, 4 bytes */
export const SEED_KEY = textKey(Tag.Meta, Buffer.from('seed'))

/** `tag`, channel number. */
export function channelNoKey(tag: number, channelNo: number): Buffer {
  const key = Buffer.allocUnsafe(5)
  key[0] = tag
  key.writeUInt32BE(channelNo, 1)
  return key
}

/** `tag`, channel number, seq: messages and holes. */
export function seqKey(tag: number, channelNo: number, seq: number): Buffer {
  const key = Buffer.allocUnsafe(9)
  key[0] = tag
  key.writeUInt32BE(channelNo, 1)
  key.writeUInt32BE(seq, 5)
  return key
}

/** The channel number in a key of a message or a hole. */
export function channelNoOfKey(key: Buffer): number {
  return key.readUInt32BE(1)
}

export function seqOfKey(key: Buffer): number {
  return key.readUInt32BE(key.length - 4)
}

/** The keys of seqs `first` .. `last`, both included. */
export function seqRange(tag: number, channelNo: number, first: number, last: number): { gte: Buffer; lt: Buffer } {
  return { gte: seqKey(tag, channelNo, first), lt: after(seqKey(tag, channelNo, last)) }
}

/** @throws TypeError when the text is no unsigned 64-bit decimal */
export function idKey(messageID: string): Buffer {
  const key = Buffer.allocUnsafe(9)
  key[0] = Tag.ID
  if (!writeUint64Decimal(key, 1, messageID)) badOption('messageID', 'an unsigned 64-bit decimal', messageID)
  return key
}

/** Where a sender and a clientMsgNo are, each behind its length in two bytes, as in a message's record. */
export interface NumberText {
  readonly bytes: Buffer
  readonly start: number
  readonly end: number
}

export function numberText(fromUID: string, clientMsgNo: string): NumberText {
  const bytes = Buffer.concat([Buffer.alloc(2), Buffer.from(fromUID), Buffer.alloc(2), Buffer.from(clientMsgNo)])
  const uidBytes = Buffer.byteLength(fromUID)
  const numberBytes = bytes.length - uidBytes - 4
  if (Math.max(uidBytes, numberBytes) > MAX_TEXT_BYTES) badOption('text', `at most ${MAX_TEXT_BYTES} bytes`, fromUID)
  bytes.writeUInt16BE(uidBytes)
  bytes.writeUInt16BE(numberBytes, 2 + uidBytes)
  return { bytes, start: 0, end: bytes.length }
}

/** Room for `writeNumberKey`. */
export const MAX_NUMBER_KEY_BYTES = 6 + MAX_PLAIN_NUMBER_BYTES

/** The text in a channel as a key of Tag.Number. @returns how long it is */
export function writeNumberKey(key: Buffer, channelNo: number, { bytes, start, end }: NumberText): number {
  key[0] = Tag.Number
  key[1] = channelNo >>> 24
  key[2] = channelNo >>> 16
  key[3] = channelNo >>> 8
  key[4] = channelNo
  const uidEnd = start + 2 + ((bytes[start]! << 8) | bytes[start + 1]!)
  if (end - start - 4 > MAX_PLAIN_NUMBER_BYTES) {
    key[5] = 0xff
    const parts = textKey(0, bytes.subarray(start + 2, uidEnd), bytes.subarray(uidEnd + 2, end))
    return 6 + createHash('sha256').update(parts).digest().copy(key, 6) // nobody can find two that fall together
  }
  key[5] = uidEnd - start - 2
  let at = 6
  for (let index = start + 2; index < uidEnd; index++) key[at++] = bytes[index]!
  for (let index = uidEnd + 2; index < end; index++) key[at++] = bytes[index]!
  return at
}

/** `Tag.Sent`, channel number, sender. */
export function sentKey(channelNo: number, uid: string): Buffer {
  const key = Buffer.allocUnsafe(5 + Buffer.byteLength(uid))
  key[0] = Tag.Sent
  key.writeUInt32BE(channelNo, 1)
  key.write(uid, 5)
  return key
}

/** `Tag.Expiry`, time, channel number, seq. */
export function expiryKey(expiresAtMs: number, channelNo: number, seq: number): Buffer {
  const key = Buffer.allocUnsafe(15)
  key[0] = Tag.Expiry
  key.writeUIntBE(Math.min(expiresAtMs, MAX_TIME_MS), 1, 6)
  key.writeUInt32BE(channelNo, 7)
  key.writeUInt32BE(seq, 11)
  return key
}

export function expiresAtOf(expiry: Buffer): number {
  return expiry.readUIntBE(1, 6)
}

export function channelNoOfExpiry(expiry: Buffer): number {
  return expiry.readUInt32BE(7)
}

/** `Tag.Log`, name. */
export function logKey(log: string): Buffer {
  return textKey(Tag.Log, Buffer.from(log))
}

/** `Tag.Outbox`, lane, entry id. */
export function outboxKey(lane: number, entryID: number): Buffer {
  const key = Buffer.allocUnsafe(8)
  key[0] = Tag.Outbox
  key[1] = lane
  key.writeUIntBE(entryID, 2, 6)
  return key
}

export function placeOfOutboxKey(key: Buffer): { lane: number; entryID: number } {
  return { lane: key[1]!, entryID: key.readUIntBE(2, 6) }
}

/** What fits 6 bytes. */
export const MAX_ENTRY_ID = 0xffff_ffff_ffff

export function uint48(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(6)
  bytes.writeUIntBE(value, 0, 6)
  return bytes
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** Where a log stands, as a row. */
export function positionRow({ log, index }: LogPosition): readonly [key: Buffer, index: Buffer] {
  return [logKey(log), uint48(index)]
}
