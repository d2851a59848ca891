/**
 * An entry of the log as bytes. Numbers big-endian, texts UTF-8 behind their length in two bytes:
 *
 *   u8 version · u8 kind · u32 CRC-32 of all other bytes · u16 nodeID · u64 boot · u48 entry number · u16 0 · body
 *   body of kind 1, messages: u16 batches · each: u8 channelType · text channelID · u16 messages · u32 length of all of them ·
 *     each message: u8 1 · u32 length · message (`message-record.ts`)
 *   body of kind 2, an operation: its bytes
 *
 * All nodes must read the same out of an entry, so what is not understood is never passed over: an unknown version or kind is
 * IM_LOG_FORMAT, and bytes that are not what somebody wrote are IM_LOG_CORRUPT.
 */
import { crc32 } from 'node:zlib'
import { textBytes } from '../../contracts/message-record.ts'
import { endsOfRecords, MessageRecords, writePrefixed } from '../../contracts/message-records.ts'
import type { LogEntry } from '../../contracts/replicator.ts'
import { IMError } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'
import { isText, readText, writeText } from '../../model/short-text.ts'

const VERSION = 2

/** What an entry asks the nodes to do. New kinds get new numbers: a node that does not know one stops there. */
const Kind = { Messages: 1, Operation: 2 } as const

const HEAD_BYTES = 24
const CRC_OFFSET = 2
const BATCHES_OFFSET = HEAD_BYTES
/** Of a batch, without the text of its channel: type, length of that text, count, and length of the messages. */
const BATCH_HEAD_BYTES = 9

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
  readonly batches: readonly LogEntry[]
  readonly operation?: Uint8Array
}

/** What comes before the batches, in bytes. */
export const ENTRY_HEAD_BYTES = HEAD_BYTES + 2

/** How many bytes a batch's own head takes, without its messages. @throws TypeError for a channel that does not fit */
export function batchHeadBytes({ channelID }: ChannelKey): number {
  return BATCH_HEAD_BYTES + textBytes('channelID', channelID)
}

/** One channel's messages as part of an entry: their head, and then they. `lengths`: the `prefixedBytes` of each. @throws TypeError for what does not fit */
export function encodeBatch({ channelID, channelType }: ChannelKey, messages: readonly Message[], lengths: readonly number[]): Buffer {
  let recordsBytes = 0
  for (const length of lengths) recordsBytes += length
  const target = Buffer.allocUnsafe(batchHeadBytes({ channelID, channelType }) + recordsBytes)
  target[0] = channelType
  let offset = writeText(target, 1, channelID)
  offset = target.writeUInt16BE(messages.length, offset)
  offset = target.writeUInt32BE(recordsBytes, offset)
  for (let index = 0; index < messages.length; index++) offset = writePrefixed(target, offset, messages[index]!, lengths[index]!)
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
 * Messages are made when somebody asks for them, and their payloads are views of `data`.
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
  return { ...id, batches: readBatches(bytes, id.nodeID) }
}

/** Messages of one channel, and their objects when somebody wants them. */
class LoggedBatch implements LogEntry {
  readonly nodeID: number
  readonly records: MessageRecords
  #messages: readonly Message[] | undefined

  constructor(nodeID: number, records: MessageRecords) {
    this.nodeID = nodeID
    this.records = records
  }

  get key(): ChannelKey {
    return this.records.key
  }

  get messages(): readonly Message[] {
    return (this.#messages ??= this.records.messages())
  }
}

/** Everything that is there is looked at now: an entry is applied as a whole, or not at all. */
function readBatches(bytes: Buffer, nodeID: number): LoggedBatch[] {
  if (bytes.length < ENTRY_HEAD_BYTES) throw corrupt('it ends too early')
  const batches: LoggedBatch[] = []
  let offset = ENTRY_HEAD_BYTES
  for (let left = bytes.readUInt16BE(BATCHES_OFFSET); left > 0; left--) {
    if (offset + BATCH_HEAD_BYTES > bytes.length) throw corrupt('it ends too early')
    const countAt = offset + 3 + bytes.readUInt16BE(offset + 1)
    const start = countAt + 6
    if (start > bytes.length) throw corrupt('it ends too early')
    if (!isText(bytes, offset + 3, countAt)) throw corrupt('the id of a channel is no text')
    const end = start + bytes.readUInt32BE(countAt + 2)
    if (end > bytes.length) throw corrupt('it ends too early')
    const ends = endsOfRecords(bytes, start, end, bytes.readUInt16BE(countAt))
    if (ends === undefined) throw corrupt('a batch whose messages are none') // no store appends a batch without any, too
    const key = { channelID: readText(bytes, offset + 1), channelType: bytes[offset]! }
    batches.push(new LoggedBatch(nodeID, new MessageRecords(key, bytes, start, ends)))
    offset = end
  }
  if (offset !== bytes.length) throw corrupt('there is more than was announced')
  return batches
}

/** Of everything but the checksum itself. */
function checksum(bytes: Buffer): number {
  return crc32(bytes.subarray(CRC_OFFSET + 4), crc32(bytes.subarray(0, CRC_OFFSET)))
}

function corrupt(detail: string): IMError {
  return new IMError('IM_LOG_CORRUPT', { detail })
}
