import type { ChannelKey } from '../model/channel.ts'
import type { Message } from '../model/message.ts'
import { decodeRecord, isRecord, recordBytes, writeRecord } from './message-record.ts'

/** Before each message: `u8 1 · u32 length`. A store writes the head of a row there, so it may keep a message as it came. */
export const RECORD_PREFIX_BYTES = 5

/** Messages of one channel as bytes, one behind the other (`message-record.ts`). */
export class MessageRecords {
  readonly key: ChannelKey
  /** what they are a part of; nobody writes into it */
  readonly bytes: Buffer
  /** where the prefix of the first begins */
  readonly start: number
  /** where each message ends, and the prefix of the next begins */
  readonly ends: readonly number[]

  constructor(key: ChannelKey, bytes: Buffer, start: number, ends: readonly number[]) {
    this.key = key
    this.bytes = bytes
    this.start = start
    this.ends = ends
  }

  /** One of them, made anew. The payload is a view of `bytes`. */
  message(index: number, messageSeq: number): Message {
    const start = (index === 0 ? this.start : this.ends[index - 1]!) + RECORD_PREFIX_BYTES
    return decodeRecord(this.bytes, start, this.ends[index]!, this.key, messageSeq).message
  }

  /** All of them, without numbers. */
  messages(): Message[] {
    return this.ends.map((_end, index) => this.message(index, 0))
  }
}

/** How long the message is with its prefix. @throws TypeError for a message that does not fit */
export function prefixedBytes(message: Message): number {
  return RECORD_PREFIX_BYTES + recordBytes(message)
}

/** Write the message, which `prefixedBytes` has found so long, behind its prefix. @returns the end */
export function writePrefixed(target: Buffer, start: number, message: Message, length: number): number {
  return writeRecord(target, beginRecord(target, start, length - RECORD_PREFIX_BYTES), message)
}

/** Write the prefix of a message that is so long. @returns where the message begins */
export function beginRecord(bytes: Buffer, offset: number, length: number): number {
  bytes[offset] = 1
  return bytes.writeUInt32BE(length, offset + 1)
}

/** Where each of `count` messages ends that make up the bytes from `start` to `end`; undefined when these are no such thing. */
export function endsOfRecords(bytes: Buffer, start: number, end: number, count: number): number[] | undefined {
  if (count * RECORD_PREFIX_BYTES > end - start) return undefined
  const ends = new Array<number>(count)
  let offset = start
  for (let index = 0; index < count; index++) {
    const recordStart = offset + RECORD_PREFIX_BYTES
    if (recordStart > end || bytes[offset] !== 1) return undefined
    offset = recordStart + bytes.readUInt32BE(offset + 1)
    if (offset > end || !isRecord(bytes, recordStart, offset)) return undefined
    ends[index] = offset
  }
  return count > 0 && offset === end ? ends : undefined
}
