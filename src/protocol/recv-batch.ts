import { FrameFlag, FrameType } from '../model/frames.ts'
import { RECV_SETTING_MASK, Setting, type Message } from '../model/message.ts'
import { receivedChannelID, receivedRedDot } from '../model/receiver-view.ts'
import { lengthByteCount, textByteLength, Writer } from './writer.ts'

/** RECVs one behind the other, which nobody may change. */
export interface EncodedRecvs {
  readonly frames: Uint8Array
  /** where each of them ends */
  readonly ends: readonly number[]
}

/** What the frames of a receiver depend on, besides the messages. */
interface View extends EncodedRecvs {
  readonly layout: number
  readonly channelID: string
}

/** Three layouts and, in a person channel, two channel ids: what comes beyond is not kept. */
const MAX_OTHER_VIEWS = 5

const NO_VIEWS: readonly View[] = []

/**
 * Encodes messages of one channel as RECVs for any number of receivers whose payloads travel plain, all of them in one piece of
 * memory. Receivers who see the same get the very same bytes.
 */
export class RecvBatch {
  /** at least one, all of one channel */
  readonly messages: readonly Message[]
  /** what all get who have sent none of the messages; as a rule they see the same */
  #view: View | undefined
  #otherViews: View[] | undefined

  constructor(messages: readonly Message[]) {
    this.messages = messages
  }

  /**
   * @throws RangeError  a field of a message does not fit the wire: a string above 32767 bytes, a messageSeq above 2^32 - 1 for
   *                     a receiver below version 6
   */
  encode(version: number, uid: string): EncodedRecvs {
    // Version 3 brought expireSec, version 6 widened messageSeq; the stream fields of 2 to 4 are never sent.
    const layout = version >= 6 ? 6 : version >= 3 ? 3 : 1
    const channelID = receivedChannelID(this.messages[0]!, uid)
    // A sender's own other devices see the messages without the red dot.
    const isSender = this.messages.some((message) => message.fromUID === uid)
    if (isSender) return encodeAll(this.messages, layout, channelID, uid)
    if (this.#view?.layout === layout && this.#view.channelID === channelID) return this.#view
    for (const view of this.#otherViews ?? NO_VIEWS) if (view.layout === layout && view.channelID === channelID) return view
    const { frames, ends } = encodeAll(this.messages, layout, channelID, uid)
    const view: View = { layout, channelID, frames, ends }
    if (this.#view === undefined) this.#view = view
    else if ((this.#otherViews ??= []).length < MAX_OTHER_VIEWS) this.#otherViews.push(view)
    return view
  }
}

function encodeAll(messages: readonly Message[], layout: number, channelID: string, uid: string): EncodedRecvs {
  const channelIDBytes = textByteLength(channelID)
  // setting, empty msgKey, lengths of fromUID, channelID and clientMsgNo, channelType, messageID, messageSeq, timestamp
  const fixedBytes = 1 + 2 + 2 + 2 + 2 + 1 + 8 + (layout >= 6 ? 8 : 4) + 4 + (layout >= 3 ? 4 : 0) + channelIDBytes
  const ends = new Array<number>(messages.length)
  let byteCount = 0
  for (let index = 0; index < messages.length; index++) {
    const message = messages[index]!
    const bodyBytes = fixedBytes + textByteLength(message.fromUID) + textByteLength(message.clientMsgNo) + topicBytes(message) + message.payload.length
    byteCount += 1 + lengthByteCount(bodyBytes) + bodyBytes
    ends[index] = byteCount
  }
  const writer = new Writer(byteCount)
  for (let index = 0; index < messages.length; index++) {
    const message = messages[index]!
    const fromUIDBytes = textByteLength(message.fromUID)
    const clientMsgNoBytes = textByteLength(message.clientMsgNo)
    writer.header(FrameType.RECV, flagsOf(message, uid), fixedBytes + fromUIDBytes + clientMsgNoBytes + topicBytes(message) + message.payload.length)
    writer.u8(message.setting & RECV_SETTING_MASK)
    writer.string('', 0) // msgKey
    writer.string(message.fromUID, fromUIDBytes)
    writer.string(channelID, channelIDBytes)
    writer.u8(message.channelType)
    if (layout >= 3) writer.u32(message.expireSec)
    writer.string(message.clientMsgNo, clientMsgNoBytes)
    writer.u64(message.messageID)
    if (layout >= 6) writer.seq64(message.messageSeq)
    else writer.u32(message.messageSeq)
    writer.i32(Math.floor(message.timestampMs / 1000) | 0)
    if ((message.setting & Setting.Topic) !== 0) writer.string(message.topic, textByteLength(message.topic))
    writer.raw(message.payload)
  }
  return { frames: writer.bytes, ends }
}

function topicBytes({ setting, topic }: Message): number {
  return (setting & Setting.Topic) === 0 ? 0 : 2 + textByteLength(topic)
}

function flagsOf(message: Message, uid: string): number {
  return (
    (message.noPersist ? FrameFlag.NoPersist : 0) |
    (message.syncOnce ? FrameFlag.SyncOnce : 0) |
    (receivedRedDot(message, uid) ? FrameFlag.RedDot : 0)
  )
}
