import { FrameType } from '../model/frames.ts'
import { RECV_SETTING_MASK, type Message } from '../model/message.ts'
import { receivedChannelID, receivedRedDot } from '../model/receiver-view.ts'
import { recvFieldsByteCount, recvFlags, recvLayoutOf, writeRecvFields } from './recv-fields.ts'
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
    const layout = recvLayoutOf(version)
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
  const ends = new Array<number>(messages.length)
  let byteCount = 0
  for (let index = 0; index < messages.length; index++) {
    const bodyBytes = bodyByteCount(messages[index]!, layout, channelIDBytes)
    byteCount += 1 + lengthByteCount(bodyBytes) + bodyBytes
    ends[index] = byteCount
  }
  const writer = new Writer(byteCount)
  for (const message of messages) {
    writer.header(FrameType.RECV, recvFlags(message, receivedRedDot(message, uid)), bodyByteCount(message, layout, channelIDBytes))
    writer.u8(message.setting & RECV_SETTING_MASK)
    writer.string('', 0) // msgKey
    writeRecvFields(writer, message, layout, channelID, channelIDBytes)
    writer.raw(message.payload)
  }
  return { frames: writer.bytes, ends }
}

/** The setting, an empty msgKey, the fields and the payload. */
function bodyByteCount(message: Message, layout: number, channelIDBytes: number): number {
  return 1 + 2 + recvFieldsByteCount(message, layout, channelIDBytes) + message.payload.length
}
