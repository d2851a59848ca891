/**
 * The packets of wkproto as plain objects, named as the protocol names them. 64-bit ids are decimal strings, 64-bit times
 * are bigint (exact over the whole range), everything else is a number or a string; byte fields are views that the
 * receiver of a frame copies when it keeps them.
 */
export const FrameType = {
  CONNECT: 1,
  CONNACK: 2,
  SEND: 3,
  SENDACK: 4,
  RECV: 5,
  RECVACK: 6,
  PING: 7,
  PONG: 8,
  DISCONNECT: 9,
  SUB: 10,
  SUBACK: 11,
  EVENT: 12,
} as const
export type FrameType = (typeof FrameType)[keyof typeof FrameType]

/** Low nibble of the first byte. CONNACK uses bit 0 for "a server version follows" instead. */
export const FrameFlag = { NoPersist: 1, RedDot: 2, SyncOnce: 4, Dup: 8 } as const

/** Highest version the codec lays out, and the highest the server answers. Version 6 only widens messageSeq. */
export const LATEST_VERSION = 5

export interface ConnectPacket {
  readonly type: typeof FrameType.CONNECT
  readonly flags: number
  readonly version: number
  readonly deviceFlag: number
  readonly deviceID: string
  readonly uid: string
  readonly token: string
  readonly clientTimestampMs: bigint
  /** base64 of the client's X25519 public key, empty for none */
  readonly clientKey: string
}

export interface ConnackPacket {
  readonly type: typeof FrameType.CONNACK
  /** set only from version 4 up; its presence is the HasServerVersion flag */
  readonly serverVersion?: number
  /** server clock minus client clock */
  readonly timeDiffMs: bigint
  readonly reasonCode: number
  readonly serverKey: string
  readonly salt: string
  /** unsigned 64-bit decimal; on the wire from version 4 up, '0' when decoded below */
  readonly nodeID: string
}

export interface SendPacket {
  readonly type: typeof FrameType.SEND
  readonly flags: number
  readonly setting: number
  readonly clientSeq: number
  readonly clientMsgNo: string
  /** on the wire for versions 2 to 4 when the stream bit of `setting` is set, otherwise '' */
  readonly streamNo: string
  /** as the client names it: the peer's uid in a person channel */
  readonly channelID: string
  readonly channelType: number
  /** seconds, from version 3 up, otherwise 0 */
  readonly expireSec: number
  readonly msgKey: string
  /** on the wire when the topic bit of `setting` is set, otherwise '' */
  readonly topic: string
  /** as on the wire: base64 text when encrypted */
  readonly payload: Uint8Array
}

export interface SendackPacket {
  readonly type: typeof FrameType.SENDACK
  readonly flags: number
  readonly messageID: string
  readonly clientSeq: number
  readonly messageSeq: number
  readonly reasonCode: number
}

export interface RecvPacket {
  readonly type: typeof FrameType.RECV
  readonly flags: number
  readonly setting: number
  readonly msgKey: string
  readonly fromUID: string
  /** as this receiver sees it */
  readonly channelID: string
  readonly channelType: number
  readonly expireSec: number
  readonly clientMsgNo: string
  /** the three stream fields are on the wire for versions 2 to 4 when the stream bit of `setting` is set */
  readonly streamFlag: number
  readonly streamNo: string
  readonly streamID: string
  readonly messageID: string
  readonly messageSeq: number
  /** seconds since 1970, int32 */
  readonly timestampSec: number
  readonly topic: string
  readonly payload: Uint8Array
}

export interface RecvackPacket {
  readonly type: typeof FrameType.RECVACK
  readonly flags: number
  readonly messageID: string
  readonly messageSeq: number
}

export interface PingPacket {
  readonly type: typeof FrameType.PING
}

export interface PongPacket {
  readonly type: typeof FrameType.PONG
}

export interface DisconnectPacket {
  readonly type: typeof FrameType.DISCONNECT
  readonly flags: number
  readonly reasonCode: number
  readonly reason: string
}

export interface SubPacket {
  readonly type: typeof FrameType.SUB
  readonly flags: number
  readonly setting: number
  readonly subNo: string
  readonly channelID: string
  readonly channelType: number
  /** 0 subscribe, 1 unsubscribe */
  readonly action: number
  readonly param: string
}

export interface SubackPacket {
  readonly type: typeof FrameType.SUBACK
  readonly flags: number
  readonly subNo: string
  readonly channelID: string
  readonly channelType: number
  readonly action: number
  readonly reasonCode: number
}

export interface EventPacket {
  readonly type: typeof FrameType.EVENT
  readonly flags: number
  readonly id: string
  readonly eventType: string
  readonly timestampMs: bigint
  readonly data: Uint8Array
}

/** One decoded wkproto unit, told apart by `type`. */
export type Frame =
  | ConnectPacket
  | ConnackPacket
  | SendPacket
  | SendackPacket
  | RecvPacket
  | RecvackPacket
  | PingPacket
  | PongPacket
  | DisconnectPacket
  | SubPacket
  | SubackPacket
  | EventPacket

/** Why a byte string is not wkproto. After any of these the connection closes; nothing behind it is read. */
export type MalformedCode =
  | 'unknown-type'
  | 'bad-length'
  | 'too-large'
  | 'truncated-body'
  | 'string-too-long'
  | 'bad-utf8'
  /** a 64-bit messageSeq (version 6 only) above 2^53 - 1 */
  | 'seq-out-of-range'
