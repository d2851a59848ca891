import { FrameFlag, FrameType } from '../model/frames.ts'
import { RECV_SETTING_MASK, type Message } from '../model/message.ts'
import { recvFieldsByteCount, recvFlags, recvLayoutOf, recvTimestampSec, writeRecvFields } from './recv-fields.ts'
import { recvSignHead } from './seal.ts'
import { sealedByteCount, type PayloadCipher } from './session-cipher.ts'
import { lengthByteCount, textByteLength, Writer } from './writer.ts'

/** A message has at most three layouts and, in a person channel, two channel ids; what comes beyond is not kept. */
const MAX_CACHED_VIEWS = 16

const MSG_KEY_LENGTH = 32

/** How one receiver sees a message. */
export interface RecvView {
  /** of the receiver's connection */
  readonly version: number
  /** as this receiver sees it: the peer's uid in a person channel */
  readonly channelID: string
  /** false takes the flag away, as for the sender's own other devices; true keeps the message's own */
  readonly redDot: boolean
  /** a resend, false by default */
  readonly dup?: boolean | undefined
  /** absent when the payload travels plain */
  readonly cipher?: PayloadCipher | undefined
}

/** The parts of a frame that depend on the layout and the channel id alone. */
interface Layout {
  readonly key: number
  readonly channelID: string
  /** every field between msgKey and payload, as on the wire */
  readonly fields: Uint8Array
  /** made at the first encrypted receiver */
  signHead: string | undefined
  /** whole frames of plain receivers, by their flags */
  readonly plain: (Uint8Array | undefined)[]
}

/**
 * Encodes one message as RECV for any number of receivers. What does not depend on the receiver is done once; receivers
 * without a cipher who see the same get the very same bytes, which nobody may change.
 */
export class RecvEncoder {
  readonly #message: Message
  readonly #setting: number
  readonly #layouts: Layout[] = []

  constructor(message: Message) {
    this.#message = message
    this.#setting = message.setting & RECV_SETTING_MASK
  }

  /**
   * The whole frame as it goes on the wire.
   * @throws RangeError  a field of the message does not fit the wire: a string above 32767 bytes, a messageSeq above
   *                     2^32 - 1 for a receiver below version 6
   */
  encode(view: RecvView): Uint8Array {
    const layout = this.#layoutFor(view)
    const flags = recvFlags(this.#message, view.redDot && this.#message.redDot) | (view.dup === true ? FrameFlag.Dup : 0)
    if (view.cipher !== undefined) return this.#seal(layout, flags, view.cipher)
    let frame = layout.plain[flags]
    if (frame === undefined) {
      frame = this.#assemble(layout, flags, '', this.#message.payload)
      layout.plain[flags] = frame
    }
    return frame
  }

  /** Payload and msgKey are written where they belong in the frame: their lengths are known before they are. */
  #seal(layout: Layout, flags: number, cipher: PayloadCipher): Uint8Array {
    const { payload } = this.#message
    const payloadBytes = sealedByteCount(payload.length)
    const bodyBytes = 1 + 2 + MSG_KEY_LENGTH + layout.fields.length + payloadBytes
    const writer = new Writer(1 + lengthByteCount(bodyBytes) + bodyBytes)
    writer.header(FrameType.RECV, flags, bodyBytes)
    writer.u8(this.#setting)
    writer.u8(0)
    writer.u8(MSG_KEY_LENGTH)
    const msgKeyAt = writer.skip(MSG_KEY_LENGTH)
    writer.raw(layout.fields)
    layout.signHead ??= this.#signHead(layout.channelID)
    cipher.sealInto(layout.signHead, payload, { bytes: writer.bytes, msgKeyAt, payloadAt: writer.skip(payloadBytes) })
    return writer.bytes
  }

  #assemble(layout: Layout, flags: number, msgKey: string, payload: Uint8Array): Uint8Array {
    const bodyBytes = 1 + 2 + msgKey.length + layout.fields.length + payload.length
    const writer = new Writer(1 + lengthByteCount(bodyBytes) + bodyBytes)
    writer.header(FrameType.RECV, flags, bodyBytes)
    writer.u8(this.#setting)
    writer.string(msgKey, msgKey.length)
    writer.raw(layout.fields)
    writer.raw(payload)
    return writer.bytes
  }

  #layoutFor(view: RecvView): Layout {
    const key = recvLayoutOf(view.version)
    const layouts = this.#layouts
    for (let i = 0; i < layouts.length; i++) {
      const layout = layouts[i]!
      if (layout.key === key && layout.channelID === view.channelID) return layout
    }
    const layout: Layout = {
      key,
      channelID: view.channelID,
      fields: this.#fields(key, view.channelID),
      signHead: undefined,
      plain: [],
    }
    if (layouts.length < MAX_CACHED_VIEWS) layouts.push(layout)
    return layout
  }

  #fields(layout: number, channelID: string): Uint8Array {
    const channelIDBytes = textByteLength(channelID)
    const writer = new Writer(recvFieldsByteCount(this.#message, layout, channelIDBytes))
    writeRecvFields(writer, this.#message, layout, channelID, channelIDBytes)
    return writer.bytes
  }

  #signHead(channelID: string): string {
    const { messageID, messageSeq, clientMsgNo, fromUID, channelType } = this.#message
    return recvSignHead({ messageID, messageSeq, clientMsgNo, timestampSec: recvTimestampSec(this.#message), fromUID, channelID, channelType })
  }
}
