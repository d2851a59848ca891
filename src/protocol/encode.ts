import {
  FrameType,
  type ConnackPacket,
  type ConnectPacket,
  type DisconnectPacket,
  type EventPacket,
  type Frame,
  type RecvackPacket,
  type RecvPacket,
  type SendackPacket,
  type SendPacket,
  type SubackPacket,
  type SubPacket,
} from '../model/frames.ts'
import { Setting } from '../model/message.ts'
import { hasStream } from './decode.ts'
import { lengthByteCount, textByteLength, Writer } from './writer.ts'

/**
 * Encodes one frame.
 * @param version  the connection's, as for `decode`: it decides which fields go on the wire, whatever the packet holds
 * @returns the whole frame with the shortest remaining length, in memory of its own that the caller may keep
 * @throws RangeError  a string above 32767 bytes, a body above 268435455, or a number that does not fit its field
 * @throws TypeError   not a packet
 * A lone surrogate in a string is sent as U+FFFD. Source: wkproto 2 to 5.
 */
export function encode(frame: Frame, version: number): Uint8Array {
  switch (frame.type) {
    case FrameType.SENDACK:
      return encodeSendack(frame, version)
    case FrameType.RECV:
      return encodeRecv(frame, version)
    case FrameType.PING:
    case FrameType.PONG:
      return encodeSingleByte(frame.type)
    case FrameType.SEND:
      return encodeSend(frame, version)
    case FrameType.RECVACK:
      return encodeRecvack(frame, version)
    case FrameType.CONNECT:
      return encodeConnect(frame)
    case FrameType.CONNACK:
      return encodeConnack(frame, version)
    case FrameType.DISCONNECT:
      return encodeDisconnect(frame)
    case FrameType.SUB:
      return encodeSub(frame)
    case FrameType.SUBACK:
      return encodeSuback(frame)
    case FrameType.EVENT:
      return encodeEvent(frame)
    default:
      throw new TypeError(`imengine: encode takes a packet of a known type, got ${String((frame as { type: unknown }).type)}`)
  }
}

/** A writer for the frame, with its header written. */
function startFrame(type: number, flags: number, bodyBytes: number): Writer {
  const writer = new Writer(1 + lengthByteCount(bodyBytes) + bodyBytes)
  writer.header(type, flags, bodyBytes)
  return writer
}

function writeSeq(writer: Writer, messageSeq: number, version: number): void {
  if (version >= 6) writer.seq64(messageSeq)
  else writer.u32(messageSeq)
}

function seqByteCount(version: number): number {
  return version >= 6 ? 8 : 4
}

function encodeSingleByte(type: number): Uint8Array {
  const writer = new Writer(1)
  writer.u8(type << 4)
  return writer.bytes
}

function encodeConnect(packet: ConnectPacket): Uint8Array {
  const deviceIDBytes = textByteLength(packet.deviceID)
  const uidBytes = textByteLength(packet.uid)
  const tokenBytes = textByteLength(packet.token)
  const clientKeyBytes = textByteLength(packet.clientKey)
  const bodyBytes = 2 + 2 + deviceIDBytes + 2 + uidBytes + 2 + tokenBytes + 8 + 2 + clientKeyBytes
  const writer = startFrame(packet.type, packet.flags, bodyBytes)
  writer.u8(packet.version)
  writer.u8(packet.deviceFlag)
  writer.string(packet.deviceID, deviceIDBytes)
  writer.string(packet.uid, uidBytes)
  writer.string(packet.token, tokenBytes)
  writer.i64(packet.clientTimestampMs)
  writer.string(packet.clientKey, clientKeyBytes)
  return writer.bytes
}

function encodeConnack(packet: ConnackPacket, version: number): Uint8Array {
  const serverKeyBytes = textByteLength(packet.serverKey)
  const saltBytes = textByteLength(packet.salt)
  const hasServerVersion = packet.serverVersion !== undefined
  const hasNodeID = version >= 4
  const bodyBytes = (hasServerVersion ? 1 : 0) + 9 + 2 + serverKeyBytes + 2 + saltBytes + (hasNodeID ? 8 : 0)
  const writer = startFrame(packet.type, hasServerVersion ? 1 : 0, bodyBytes)
  if (packet.serverVersion !== undefined) writer.u8(packet.serverVersion)
  writer.i64(packet.timeDiffMs)
  writer.u8(packet.reasonCode)
  writer.string(packet.serverKey, serverKeyBytes)
  writer.string(packet.salt, saltBytes)
  if (hasNodeID) writer.u64(packet.nodeID)
  return writer.bytes
}

function encodeSend(packet: SendPacket, version: number): Uint8Array {
  const stream = hasStream(packet.setting, version)
  const hasTopic = (packet.setting & Setting.Topic) !== 0
  const clientMsgNoBytes = textByteLength(packet.clientMsgNo)
  const streamNoBytes = stream ? textByteLength(packet.streamNo) : 0
  const channelIDBytes = textByteLength(packet.channelID)
  const msgKeyBytes = textByteLength(packet.msgKey)
  const topicBytes = hasTopic ? textByteLength(packet.topic) : 0
  const bodyBytes =
    5 +
    2 +
    clientMsgNoBytes +
    (stream ? 2 + streamNoBytes : 0) +
    2 +
    channelIDBytes +
    1 +
    (version >= 3 ? 4 : 0) +
    2 +
    msgKeyBytes +
    (hasTopic ? 2 + topicBytes : 0) +
    packet.payload.length
  const writer = startFrame(packet.type, packet.flags, bodyBytes)
  writer.u8(packet.setting)
  writer.u32(packet.clientSeq)
  writer.string(packet.clientMsgNo, clientMsgNoBytes)
  if (stream) writer.string(packet.streamNo, streamNoBytes)
  writer.string(packet.channelID, channelIDBytes)
  writer.u8(packet.channelType)
  if (version >= 3) writer.u32(packet.expireSec)
  writer.string(packet.msgKey, msgKeyBytes)
  if (hasTopic) writer.string(packet.topic, topicBytes)
  writer.raw(packet.payload)
  return writer.bytes
}

function encodeSendack({ flags, messageID, clientSeq, messageSeq, reasonCode }: SendackPacket, version: number): Uint8Array {
  const writer = new Writer(sendackByteCount(version))
  writeSendack(writer, version, flags, clientSeq, reasonCode, messageID, messageSeq)
  return writer.bytes
}

/** Of a whole SENDACK. */
export function sendackByteCount(version: number): number {
  return 2 + 13 + seqByteCount(version)
}

/** What a server writes most, to where the writer stands: `sendackByteCount` bytes. */
export function writeSendack(
  writer: Writer,
  version: number,
  flags: number,
  clientSeq: number,
  reasonCode: number,
  messageID: string,
  messageSeq: number,
): void {
  writer.header(FrameType.SENDACK, flags, 13 + seqByteCount(version))
  writer.u64(messageID)
  writer.u32(clientSeq)
  writeSeq(writer, messageSeq, version)
  writer.u8(reasonCode)
}

function encodeRecv(packet: RecvPacket, version: number): Uint8Array {
  const stream = hasStream(packet.setting, version)
  const hasTopic = (packet.setting & Setting.Topic) !== 0
  const msgKeyBytes = textByteLength(packet.msgKey)
  const fromUIDBytes = textByteLength(packet.fromUID)
  const channelIDBytes = textByteLength(packet.channelID)
  const clientMsgNoBytes = textByteLength(packet.clientMsgNo)
  const streamNoBytes = stream ? textByteLength(packet.streamNo) : 0
  const topicBytes = hasTopic ? textByteLength(packet.topic) : 0
  const bodyBytes =
    1 +
    2 +
    msgKeyBytes +
    2 +
    fromUIDBytes +
    2 +
    channelIDBytes +
    1 +
    (version >= 3 ? 4 : 0) +
    2 +
    clientMsgNoBytes +
    (stream ? 1 + 2 + streamNoBytes + 8 : 0) +
    8 +
    seqByteCount(version) +
    4 +
    (hasTopic ? 2 + topicBytes : 0) +
    packet.payload.length
  const writer = startFrame(packet.type, packet.flags, bodyBytes)
  writer.u8(packet.setting)
  writer.string(packet.msgKey, msgKeyBytes)
  writer.string(packet.fromUID, fromUIDBytes)
  writer.string(packet.channelID, channelIDBytes)
  writer.u8(packet.channelType)
  if (version >= 3) writer.u32(packet.expireSec)
  writer.string(packet.clientMsgNo, clientMsgNoBytes)
  if (stream) {
    writer.u8(packet.streamFlag)
    writer.string(packet.streamNo, streamNoBytes)
    writer.u64(packet.streamID)
  }
  writer.u64(packet.messageID)
  writeSeq(writer, packet.messageSeq, version)
  writer.i32(packet.timestampSec)
  if (hasTopic) writer.string(packet.topic, topicBytes)
  writer.raw(packet.payload)
  return writer.bytes
}

function encodeRecvack(packet: RecvackPacket, version: number): Uint8Array {
  const writer = startFrame(packet.type, packet.flags, 8 + seqByteCount(version))
  writer.u64(packet.messageID)
  writeSeq(writer, packet.messageSeq, version)
  return writer.bytes
}

function encodeDisconnect(packet: DisconnectPacket): Uint8Array {
  const reasonBytes = textByteLength(packet.reason)
  const writer = startFrame(packet.type, packet.flags, 1 + 2 + reasonBytes)
  writer.u8(packet.reasonCode)
  writer.string(packet.reason, reasonBytes)
  return writer.bytes
}

function encodeSub(packet: SubPacket): Uint8Array {
  const subNoBytes = textByteLength(packet.subNo)
  const channelIDBytes = textByteLength(packet.channelID)
  const paramBytes = textByteLength(packet.param)
  const writer = startFrame(packet.type, packet.flags, 1 + 2 + subNoBytes + 2 + channelIDBytes + 2 + 2 + paramBytes)
  writer.u8(packet.setting)
  writer.string(packet.subNo, subNoBytes)
  writer.string(packet.channelID, channelIDBytes)
  writer.u8(packet.channelType)
  writer.u8(packet.action)
  writer.string(packet.param, paramBytes)
  return writer.bytes
}

function encodeSuback(packet: SubackPacket): Uint8Array {
  const subNoBytes = textByteLength(packet.subNo)
  const channelIDBytes = textByteLength(packet.channelID)
  const writer = startFrame(packet.type, packet.flags, 2 + subNoBytes + 2 + channelIDBytes + 3)
  writer.string(packet.subNo, subNoBytes)
  writer.string(packet.channelID, channelIDBytes)
  writer.u8(packet.channelType)
  writer.u8(packet.action)
  writer.u8(packet.reasonCode)
  return writer.bytes
}

function encodeEvent(packet: EventPacket): Uint8Array {
  const idBytes = textByteLength(packet.id)
  const eventTypeBytes = textByteLength(packet.eventType)
  const writer = startFrame(packet.type, packet.flags, 2 + idBytes + 2 + eventTypeBytes + 8 + packet.data.length)
  writer.string(packet.id, idBytes)
  writer.string(packet.eventType, eventTypeBytes)
  writer.i64(packet.timestampMs)
  writer.raw(packet.data)
  return writer.bytes
}
