/**
 * An entry of the log as bytes. Numbers big-endian, texts UTF-8 behind their length in two bytes:
 *
 *   u8 version · u8 kind · u32 CRC-32 of all other bytes · u16 nodeID · u64 boot · u48 entry number · u16 0 · body
 *   body of kind 1, messages: u16 batches · each: u8 channelType · text channelID · u16 messages · each message:
 *     u8 flags · u8 setting · u64 messageID · u32 messageSeq · u48 timestampMs · u32 expireSec · text fromUID ·
 *     text clientMsgNo · [text topic] · [u8 revision kind · u32 version · u48 timestampMs · text byUID] · u32 length · payload
 *   body of kind 2, an operation: its bytes
 *
 * All nodes must read the same out of an entry, so what is not understood is never passed over: an unknown version or kind is
 * IM_LOG_FORMAT, and bytes that are not what somebody wrote are IM_LOG_CORRUPT.
 */
import { crc32 } from 'node:zlib'
import type { AppendBatch } from '../../contracts/message-store.ts'
import { badOption, IMError } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { decimalFromHalves, writeUint64Decimal } from '../../model/int64.ts'
import type { Message, Revision } from '../../model/message.ts'
import { MessageFlag, messageFlags, REVISION_KINDS } from '../../model/message-flags.ts'
import { utf8Length, writeText } from '../../model/short-text.ts'

const VERSION = 1

/** What an entry asks the nodes to do. New kinds get new numbers: a node that does not know one stops there. */
const Kind = { Messages: 1, Operation: 2 } as const

const HEAD_BYTES = 24
const CRC_OFFSET = 2
const BATCHES_OFFSET = HEAD_BYTES
const MAX_TEXT_BYTES = 0xffff
const MAX_TIME_MS = 2 ** 48 - 1
const MESSAGE_BYTES = 32
const REVISION_BYTES = 13
/** Who wrote an entry, and which of theirs it is. */
export interface EntryID {
  readonly nodeID: number
  /** drawn anew by every start of a node, 16 hex digits: entry numbers begin again with it */
  readonly boot: string
  /** 1, 2, 3 … within the boot */
  readonly number: number
}

export interface DecodedEntry extends EntryID {
  /** CRC-32 of all its other bytes, as it stands in the entry and was found right */
  readonly checksum: number
  /** none in an operation */
  readonly batches: readonly AppendBatch[]
  readonly operation?: Uint8Array
}

/** What comes before the batches, in bytes. */
export const ENTRY_HEAD_BYTES = HEAD_BYTES + 2

/** How many bytes a batch's own head takes, without its messages. @throws TypeError for a channel that does not fit */
export function batchHeadBytes({ channelID }: ChannelKey): number {
  return 5 + textBytes('channelID', channelID)
}

/** @throws TypeError for a message that does not fit */
export function messageBytes(message: Message): number {
  const { fromUID, clientMsgNo, topic, payload, revision, timestampMs } = message
  if (!(payload instanceof Uint8Array)) badOption('message payload', 'a Uint8Array', payload)
  if (!(timestampMs >= 0 && timestampMs <= MAX_TIME_MS)) badOption('timestampMs', `from 0 to ${MAX_TIME_MS}`, timestampMs)
  let bytes = MESSAGE_BYTES + payload.length + textBytes('fromUID', fromUID) + textBytes('clientMsgNo', clientMsgNo)
  if (topic !== '') bytes += 2 + textBytes('topic', topic)
  if (revision !== undefined) bytes += REVISION_BYTES + textBytes('byUID', revision.byUID)
  return bytes
}

/** One channel's messages as part of an entry. `bytes`: the head and all messages. @throws TypeError for what does not fit */
export function encodeBatch({ channelID, channelType }: ChannelKey, messages: readonly Message[], bytes: number): Buffer {
  const target = Buffer.allocUnsafe(bytes)
  target[0] = channelType
  let offset = writeText(target, 1, channelID)
  offset = target.writeUInt16BE(messages.length, offset)
  for (const message of messages) offset = writeMessage(target, offset, message)
  return target
}

export function encodeEntry(id: EntryID, batches: readonly Uint8Array[]): Buffer {
  let length = ENTRY_HEAD_BYTES
  for (const batch of batches) length += batch.length
  const bytes = Buffer.allocUnsafe(length)
  writeHead(bytes, Kind.Messages, id)
  bytes.writeUInt16BE(batches.length, BATCHES_OFFSET)
  let offset = ENTRY_HEAD_BYTES
  for (const batch of batches) {
    bytes.set(batch, offset)
    offset += batch.length
  }
  bytes.writeUInt32BE(checksum(bytes), CRC_OFFSET)
  return bytes
}

export function encodeOperation(id: EntryID, operation: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + operation.length)
  writeHead(bytes, Kind.Operation, id)
  bytes.set(operation, HEAD_BYTES)
  bytes.writeUInt32BE(checksum(bytes), CRC_OFFSET)
  return bytes
}

function writeHead(bytes: Buffer, kind: number, { nodeID, boot, number }: EntryID): void {
  bytes[0] = VERSION
  bytes[1] = kind
  bytes.writeUInt16BE(nodeID, 6)
  bytes.write(boot, 8, 'hex')
  bytes.writeUIntBE(number, 16, 6)
  bytes.writeUInt16BE(0, 22) // room to grow; zero in this version
}

/**
 * The payloads are views of `data`.
 * @throws IM_LOG_FORMAT for a version or a kind that this node does not know
 * @throws IM_LOG_CORRUPT for bytes that nobody has written
 */
export function decodeEntry(data: Uint8Array): DecodedEntry {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  if (bytes.length < 2) throw corrupt('it is too short')
  if (bytes[0] !== VERSION) throw new IMError('IM_LOG_FORMAT', { detail: `version ${bytes[0]} of its entries` })
  if (bytes.length < HEAD_BYTES) throw corrupt('it is too short')
  const crc = bytes.readUInt32BE(CRC_OFFSET)
  if (crc !== checksum(bytes)) throw corrupt('its checksum is another one')
  // Only now: a kind that is not known must be one that somebody has written.
  if (bytes[1] !== Kind.Messages && bytes[1] !== Kind.Operation) throw new IMError('IM_LOG_FORMAT', { detail: `entries of kind ${bytes[1]}` })
  const id = { checksum: crc, nodeID: bytes.readUInt16BE(6), boot: bytes.toString('hex', 8, 16), number: bytes.readUIntBE(16, 6) }
  if (bytes[1] === Kind.Operation) return { ...id, batches: [], operation: bytes.subarray(HEAD_BYTES) }
  const reader = new Reader(bytes, BATCHES_OFFSET)
  const batches = Array.from({ length: reader.uint(2) }, () => readBatch(reader))
  if (!reader.isAtEnd) throw corrupt('there is more than was announced')
  return { ...id, batches }
}

function writeMessage(target: Buffer, start: number, message: Message): number {
  const { topic, payload, revision } = message
  target[start] = messageFlags(message)
  target[start + 1] = message.setting
  if (!writeUint64Decimal(target, start + 2, message.messageID)) badOption('messageID', 'an unsigned 64-bit decimal', message.messageID)
  target.writeUInt32BE(message.messageSeq, start + 10)
  target.writeUIntBE(Math.trunc(message.timestampMs), start + 14, 6)
  target.writeUInt32BE(message.expireSec, start + 20)
  let offset = writeText(target, start + 24, message.fromUID)
  offset = writeText(target, offset, message.clientMsgNo)
  if (topic !== '') offset = writeText(target, offset, topic)
  if (revision !== undefined) {
    offset = target.writeUInt8(REVISION_KINDS.indexOf(revision.kind), offset)
    offset = target.writeUInt32BE(revision.version, offset)
    offset = target.writeUIntBE(Math.trunc(revision.timestampMs), offset, 6)
    offset = writeText(target, offset, revision.byUID)
  }
  offset = target.writeUInt32BE(payload.length, offset)
  target.set(payload, offset)
  return offset + payload.length
}

function readBatch(reader: Reader): AppendBatch {
  const channelType = reader.uint(1)
  const key = { channelID: reader.text(), channelType }
  const count = reader.uint(2)
  if (count === 0) throw corrupt('a batch without messages') // which no store appends
  return { key, messages: Array.from({ length: count }, () => readMessage(reader, key)) }
}

function readMessage(reader: Reader, { channelID, channelType }: ChannelKey): Message {
  const flags = reader.uint(1)
  const setting = reader.uint(1)
  const messageID = decimalFromHalves(reader.uint(4), reader.uint(4))
  const messageSeq = reader.uint(4)
  const timestampMs = reader.uint(6)
  const expireSec = reader.uint(4)
  const fromUID = reader.repeatedText()
  const clientMsgNo = reader.text()
  const topic = (flags & MessageFlag.Topic) === 0 ? '' : reader.text()
  const revision = (flags & MessageFlag.Revised) === 0 ? undefined : readRevision(reader)
  const message: Message = {
    messageID,
    messageSeq,
    clientMsgNo,
    fromUID,
    channelID,
    channelType,
    payload: reader.bytes(reader.uint(4)),
    timestampMs,
    expireSec,
    topic,
    setting,
    noPersist: (flags & MessageFlag.NoPersist) !== 0,
    redDot: (flags & MessageFlag.RedDot) !== 0,
    syncOnce: (flags & MessageFlag.SyncOnce) !== 0,
  }
  return revision === undefined ? message : { ...message, revision }
}

function readRevision(reader: Reader): Revision {
  const kind = REVISION_KINDS[reader.uint(1)]
  if (kind === undefined) throw new IMError('IM_LOG_FORMAT', { detail: 'a kind of revision' })
  return { kind, version: reader.uint(4), timestampMs: reader.uint(6), byUID: reader.text() }
}

class Reader {
  readonly #bytes: Buffer
  #offset: number
  /** of `repeatedText`, and where it was read */
  #last = ''
  #lastStart = 0
  #lastEnd = 0

  constructor(bytes: Buffer, offset: number) {
    this.#bytes = bytes
    this.#offset = offset
  }

  get isAtEnd(): boolean {
    return this.#offset === this.#bytes.length
  }

  uint(byteCount: 1 | 2 | 4 | 6): number {
    const start = this.#skip(byteCount)
    let value = 0
    for (let index = start; index < start + byteCount; index++) value = value * 256 + this.#bytes[index]!
    return value
  }

  text(): string {
    const length = this.uint(2)
    const start = this.#skip(length)
    return this.#textAt(start, start + length)
  }

  /** What is most often the same as the last time it was asked for: then it is the same string. */
  repeatedText(): string {
    const length = this.uint(2)
    const start = this.#skip(length)
    if (!this.#isLast(start, length)) {
      this.#last = this.#textAt(start, start + length)
      this.#lastStart = start
      this.#lastEnd = start + length
    }
    return this.#last
  }

  #isLast(start: number, length: number): boolean {
    if (this.#lastEnd - this.#lastStart !== length) return false
    for (let index = 0; index < length; index++) if (this.#bytes[this.#lastStart + index] !== this.#bytes[start + index]) return false
    return true
  }

  /** Most texts are ASCII, which is read faster as what it is. */
  #textAt(start: number, end: number): string {
    for (let index = start; index < end; index++) if (this.#bytes[index]! > 0x7f) return this.#bytes.toString('utf8', start, end)
    return this.#bytes.toString('latin1', start, end)
  }

  bytes(length: number): Buffer {
    const start = this.#skip(length)
    return this.#bytes.subarray(start, start + length)
  }

  #skip(byteCount: number): number {
    const start = this.#offset
    if (start + byteCount > this.#bytes.length) throw corrupt('it ends too early')
    this.#offset = start + byteCount
    return start
  }
}

/** Of everything but the checksum itself. */
function checksum(bytes: Buffer): number {
  return crc32(bytes.subarray(CRC_OFFSET + 4), crc32(bytes.subarray(0, CRC_OFFSET)))
}

function corrupt(detail: string): IMError {
  return new IMError('IM_LOG_CORRUPT', { detail })
}

function textBytes(name: string, text: string): number {
  const bytes = utf8Length(text)
  if (bytes > MAX_TEXT_BYTES) badOption(name, `text of at most ${MAX_TEXT_BYTES} bytes`, text)
  return bytes
}
