import { FrameType } from '../../model/frames.ts'
import type { Message } from '../../model/message.ts'
import type { Notice } from '../../model/notice.ts'
import { receivedChannelID } from '../../model/receiver-view.ts'
import { encode } from '../../protocol/encode.ts'

/** A connection as a notice needs it. */
export interface NoticeTarget {
  readonly uid: string
  readonly version: number
  send(bytes: Uint8Array): void
  revised(message: Message): void
  settleRecv(messageID: string): void
}

export interface NoticeServices {
  readonly connectionsOf: (uid: string) => readonly NoticeTarget[]
  /** `uid` has nothing more to get of the message */
  readonly delivered: (uid: string, message: Message) => void
}

/** EVENT came with this version; to an older client it is not a frame. Source: wkproto, EVENT. */
const FIRST_VERSION = 5

/**
 * A notice on its way to the connections of some users. It waits in the channel's push lane, so that it comes behind the
 * message it is about.
 */
export class NoticeEvent {
  readonly queueBytes = 512
  readonly #notice: Notice
  readonly #uids: readonly string[]
  readonly #services: NoticeServices
  /** frames by channel id: in a person channel there are two of them */
  readonly #frames = new Map<string, Uint8Array>()

  constructor(notice: Notice, uids: readonly string[], services: NoticeServices) {
    this.#notice = notice
    this.#uids = uids
    this.#services = services
  }

  write(): void {
    const { type, message } = this.#notice
    for (const uid of this.#uids) {
      const targets = this.#services.connectionsOf(uid)
      // Its RECVACK will name nothing that is known any more, and must not be missed in the user's position.
      if (targets.length > 0 && type !== 'message.edited') this.#services.delivered(uid, message)
      for (const target of targets) {
        if (type === 'message.edited') target.revised(message)
        else target.settleRecv(message.messageID) // what it was is not sent again
        if (target.version >= FIRST_VERSION) target.send(this.#frameFor(receivedChannelID(message, uid)))
      }
    }
  }

  /**
   * Which message, not what is in it: EVENT is not encrypted, and the history has the content.
   * SDKs parse the data as JSON and want an id that is not empty.
   */
  #frameFor(channelID: string): Uint8Array {
    let frame = this.#frames.get(channelID)
    if (frame === undefined) {
      const { type, message, timestampMs } = this.#notice
      const { messageID, messageSeq, clientMsgNo, channelType, fromUID, revision } = message
      const version = revision?.version ?? 0
      const byUID = revision?.byUID ?? ''
      const data = Buffer.from(JSON.stringify({ channelID, channelType, messageID, messageSeq, clientMsgNo, fromUID, version, byUID }))
      const id = `${messageID}-${type}-${version}`
      frame = encode({ type: FrameType.EVENT, flags: 0, id, eventType: type, timestampMs: BigInt(timestampMs), data }, FIRST_VERSION)
      this.#frames.set(channelID, frame)
    }
    return frame
  }
}
