import {
  FrameType,
  type ConnackPacket,
  type ConnectPacket,
  type DisconnectPacket,
  type EventPacket,
  type Frame,
  type MalformedCode,
  type PingPacket,
  type PongPacket,
  type RecvackPacket,
  type RecvPacket,
  type SendackPacket,
  type SendPacket,
  type SubackPacket,
  type SubPacket,
} from '../model/frames.ts'
import { Setting } from '../model/message.ts'
import { findFrame } from './frame-splitter.ts'
import { DEFAULT_MAX_FRAME_BYTES } from './limits.ts'
import { Reader } from './reader.ts'

/** The answer of `decode`. `consumed` counts the bytes of the frame from the offset that was asked for. */
export type DecodeResult =
  | { readonly status: 'frame'; readonly frame: Frame; readonly consumed: number }
  | { readonly status: 'need-more' }
  | { readonly status: 'malformed'; readonly code: MalformedCode }

const PING: PingPacket = Object.freeze({ type: FrameType.PING })
const PONG: PongPacket = Object.freeze({ type: FrameType.PONG })

/**
 * Decodes the one frame that starts at `offset`.
 * @param version  the connection's, 1 to 6: it governs every frame but CONNECT; 0 reads like 1, above 6 like 6
 * @param options  `offset` 0 by default; `maxFrameBytes` bounds the remaining length, inclusive, 1 MiB by default
 * Never throws, whatever the bytes. Byte fields are views on `bytes`: copy what you keep. 64-bit ids are unsigned decimal,
 * also where the protocol calls them signed, so that every id a client can send has exactly one text and encodes back to
 * its bytes. Bytes behind the last field of a frame are ignored.
 * Source: wkproto 2 to 5.
 */
export function decode(
  bytes: Uint8Array,
  version: number,
  options?: { readonly maxFrameBytes?: number; readonly offset?: number },
): DecodeResult {
  const offset = options?.offset ?? 0
  const bounds = { bodyStart: 0, end: 0 }
  const found = findFrame(bytes, offset, bytes.length, options?.maxFrameBytes ?? DEFAULT_MAX_FRAME_BYTES, bounds)
  if (found === 'need-more') return { status: 'need-more' }
  if (found !== 'whole') return { status: 'malformed', code: found }
  const reader = new Reader(bytes)
  reader.setBody(bounds.bodyStart, bounds.end)
  const frame = decodeBody(bytes[offset]!, reader, version)
  if (reader.error !== undefined) return { status: 'malformed', code: reader.error }
  return { status: 'frame', frame, consumed: bounds.end - offset }
}

/**
 * The packet in the body `reader` stands on. `firstByte` has a known type, which `findFrame` saw to. The packet means
 * something only when `reader.error` is undefined afterwards.
 */
export function decodeBody(firstByte: number, reader: Reader, version: number): Frame {
  const flags = firstByte & 0x0f
  switch (firstByte >>> 4) {
    case FrameType.SEND:
      return decodeSend(flags, reader, version)
    case FrameType.RECVACK:
      return decodeRecvack(flags, reader, version)
    case FrameType.PING:
      return PING
    case FrameType.PONG:
      return PONG
    case FrameType.RECV:
      return decodeRecv(flags, reader, version)
    case FrameType.SENDACK:
      return decodeSendack(flags, reader, version)
    case FrameType.CONNECT:
      return decodeConnect(flags, reader)
    case FrameType.CONNACK:
      return decodeConnack(flags, reader, version)
    case FrameType.DISCONNECT:
      return decodeDisconnect(flags, reader)
    case FrameType.SUB:
      return decodeSub(flags, reader)
    case FrameType.SUBACK:
      return decodeSuback(flags, reader)
    default:
      return decodeEvent(flags, reader)
  }
}

/** Versions 2 to 4 carry stream fields when the stream bit is set; before and after, the bit means nothing. */
export function hasStream(setting: number, version: number): boolean {
  return (setting & Setting.Stream) !== 0 && version >= 2 && version < 5
}

/** The sequence number of a frame. */
export function readSeq(reader: Reader, version: number): number {
  return version >= 6 ? reader.seq64() : reader.u32()
}

function decodeConnect(flags: number, reader: Reader): ConnectPacket {
  return {
    type: FrameType.CONNECT,
    flags,
    version: reader.u8(),
    deviceFlag: reader.u8(),
    deviceID: reader.string(),
    uid: reader.string(),
    token: reader.string(),
    clientTimestampMs: reader.i64(),
    clientKey: reader.string(),
  }
}

function decodeConnack(flags: number, reader: Reader, version: number): ConnackPacket {
  const serverVersion = (flags & 1) === 0 ? undefined : reader.u8()
  const packet = {
    type: FrameType.CONNACK,
    timeDiffMs: reader.i64(),
    reasonCode: reader.u8(),
    serverKey: reader.string(),
    salt: reader.string(),
    nodeID: version >= 4 ? reader.u64() : '0',
  }
  return serverVersion === undefined ? packet : { ...packet, serverVersion }
}

function decodeSend(flags: number, reader: Reader, version: number): SendPacket {
  const setting = reader.u8()
  return {
    type: FrameType.SEND,
    flags,
    setting,
    clientSeq: reader.u32(),
    clientMsgNo: reader.string(),
    streamNo: hasStream(setting, version) ? reader.string() : '',
    channelID: reader.channelID(),
    channelType: reader.u8(),
    expireSec: version >= 3 ? reader.u32() : 0,
    msgKey: reader.string(),
    topic: (setting & Setting.Topic) === 0 ? '' : reader.string(),
    payload: reader.rest(),
  }
}

function decodeSendack(flags: number, reader: Reader, version: number): SendackPacket {
  return {
    type: FrameType.SENDACK,
    flags,
    messageID: reader.u64(),
    clientSeq: reader.u32(),
    messageSeq: readSeq(reader, version),
    reasonCode: reader.u8(),
  }
}

function decodeRecv(flags: number, reader: Reader, version: number): RecvPacket {
  const setting = reader.u8()
  const stream = hasStream(setting, version)
  return {
    type: FrameType.RECV,
    flags,
    setting,
    msgKey: reader.string(),
    fromUID: reader.string(),
    channelID: reader.string(),
    channelType: reader.u8(),
    expireSec: version >= 3 ? reader.u32() : 0,
    clientMsgNo: reader.string(),
    streamFlag: stream ? reader.u8() : 0,
    streamNo: stream ? reader.string() : '',
    streamID: stream ? reader.u64() : '0',
    messageID: reader.u64(),
    messageSeq: readSeq(reader, version),
    timestampSec: reader.i32(),
    topic: (setting & Setting.Topic) === 0 ? '' : reader.string(),
    payload: reader.rest(),
  }
}

function decodeRecvack(flags: number, reader: Reader, version: number): RecvackPacket {
  return { type: FrameType.RECVACK, flags, messageID: reader.u64(), messageSeq: readSeq(reader, version) }
}

function decodeDisconnect(flags: number, reader: Reader): DisconnectPacket {
  return { type: FrameType.DISCONNECT, flags, reasonCode: reader.u8(), reason: reader.string() }
}

function decodeSub(flags: number, reader: Reader): SubPacket {
  return {
    type: FrameType.SUB,
    flags,
    setting: reader.u8(),
    subNo: reader.string(),
    channelID: reader.string(),
    channelType: reader.u8(),
    action: reader.u8(),
    param: reader.string(),
  }
}

function decodeSuback(flags: number, reader: Reader): SubackPacket {
  return {
    type: FrameType.SUBACK,
    flags,
    subNo: reader.string(),
    channelID: reader.string(),
    channelType: reader.u8(),
    action: reader.u8(),
    reasonCode: reader.u8(),
  }
}

function decodeEvent(flags: number, reader: Reader): EventPacket {
  return {
    type: FrameType.EVENT,
    flags,
    id: reader.string(),
    eventType: reader.string(),
    timestampMs: reader.i64(),
    data: reader.rest(),
  }
}
