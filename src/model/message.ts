/** SEND.setting and RECV.setting bits that mean something to the engine (wkproto 5, section Setting). */
export const Setting = {
  Receipt: 0x80,
  NoEncrypt: 0x10,
  Topic: 0x08,
  Stream: 0x02,
} as const

/** The bits of SEND.setting that reach the receiver: the others change the layout or the meaning of the payload. */
export const RECV_SETTING_MASK = Setting.Receipt | Setting.Topic

/** What has become of a message since it was sent. */
export interface Revision {
  /** a recalled message has an empty payload and stays so */
  readonly kind: 'edited' | 'recalled'
  /** 1 for the first change, and one more for each */
  readonly version: number
  /** who changed it; '' for the host itself */
  readonly byUID: string
  /** when it was changed last */
  readonly timestampMs: number
}

/** One chat message as it is stored and handed to handlers. Times in milliseconds since 1970, ids as decimal strings. */
export interface Message {
  /** unique in the cluster (Snowflake), decimal */
  readonly messageID: string
  /** 1, 2, 3 … within the channel; 0 until it is stored, and for ever when `noPersist` */
  readonly messageSeq: number
  /** the sender's own id for it; the de-duplication key together with channel and sender; empty = never de-duplicated */
  readonly clientMsgNo: string
  readonly fromUID: string
  /** canonical: a person channel's shared id */
  readonly channelID: string
  readonly channelType: number
  /** plaintext; never changed in place after the message exists */
  readonly payload: Uint8Array
  /** when the engine accepted it */
  readonly timestampMs: number
  /** seconds it stays readable, 0 = for ever */
  readonly expireSec: number
  readonly topic: string
  /** SEND.setting & 0x88 */
  readonly setting: number
  /** deliver to who is online, store nowhere */
  readonly noPersist: boolean
  /** counts as unread for its receivers */
  readonly redDot: boolean
  /** a command: consumed once by the client, not shown */
  readonly syncOnce: boolean
  /** absent while the message is as it was sent */
  readonly revision?: Revision
}

/** Nobody is shown what it was. */
export function isRecalled({ revision }: Message): boolean {
  return revision?.kind === 'recalled'
}
