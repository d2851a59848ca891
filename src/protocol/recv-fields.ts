import { FrameFlag } from '../model/frames.ts'
import { Setting, type Message } from '../model/message.ts'
import { textByteLength, type Writer } from './writer.ts'

/**
 * Which of three layouts a receiver's version reads: version 3 brought expireSec, version 6 widened messageSeq. The stream
 * fields of 2 to 4 are never sent.
 */
export function recvLayoutOf(version: number): number {
  return version >= 6 ? 6 : version >= 3 ? 3 : 1
}

/** Flags of a RECV that is sent for the first time. */
export function recvFlags({ noPersist, syncOnce }: Message, redDot: boolean): number {
  return (noPersist ? FrameFlag.NoPersist : 0) | (syncOnce ? FrameFlag.SyncOnce : 0) | (redDot ? FrameFlag.RedDot : 0)
}

/** Whole seconds, as the wire has them. */
export function recvTimestampSec({ timestampMs }: Message): number {
  return Math.floor(timestampMs / 1000) | 0
}

/** Bytes of every field between msgKey and payload. `channelIDBytes` is what `textByteLength` says. */
export function recvFieldsByteCount(message: Message, layout: number, channelIDBytes: number): number {
  const fixedBytes = 2 + 2 + 2 + 1 + 8 + (layout >= 6 ? 8 : 4) + 4 + (layout >= 3 ? 4 : 0)
  const topicBytes = (message.setting & Setting.Topic) === 0 ? 0 : 2 + textByteLength(message.topic)
  return fixedBytes + textByteLength(message.fromUID) + channelIDBytes + textByteLength(message.clientMsgNo) + topicBytes
}

/** Those fields, to where the writer stands. */
export function writeRecvFields(writer: Writer, message: Message, layout: number, channelID: string, channelIDBytes: number): void {
  writer.string(message.fromUID, textByteLength(message.fromUID))
  writer.string(channelID, channelIDBytes)
  writer.u8(message.channelType)
  if (layout >= 3) writer.u32(message.expireSec)
  writer.string(message.clientMsgNo, textByteLength(message.clientMsgNo))
  writer.u64(message.messageID)
  if (layout >= 6) writer.seq64(message.messageSeq)
  else writer.u32(message.messageSeq)
  writer.i32(recvTimestampSec(message))
  if ((message.setting & Setting.Topic) !== 0) writer.string(message.topic, textByteLength(message.topic))
}
