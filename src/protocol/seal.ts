import type { RecvPacket, SendPacket } from '../model/frames.ts'
import type { PayloadCipher } from './session-cipher.ts'

const MSG_KEY_LENGTH = 32

/** A SEND as a client writes it: `packet` holds the plaintext payload; the result the base64 text and its msgKey. */
export function sealSend(packet: SendPacket, cipher: PayloadCipher): SendPacket {
  return { ...packet, ...cipher.seal(sendSignHead(packet), packet.payload) }
}

/**
 * The plaintext payload of a SEND, in memory of its own; undefined when the msgKey is not the one for these fields or the
 * payload is not what the key made. Nothing is decrypted before the msgKey, compared in constant time, has proved right.
 */
export function openSend(packet: SendPacket, cipher: PayloadCipher): Uint8Array | undefined {
  return packet.msgKey.length !== MSG_KEY_LENGTH ? undefined : cipher.open(sendSignHead(packet), packet.payload, packet.msgKey)
}

/** A RECV as a server writes it to one connection; `channelID` is already the one this receiver sees. */
export function sealRecv(packet: RecvPacket, cipher: PayloadCipher): RecvPacket {
  return { ...packet, ...cipher.seal(recvSignHead(packet), packet.payload) }
}

/** The plaintext payload of a RECV, in memory of its own; undefined as for `openSend`. */
export function openRecv(packet: RecvPacket, cipher: PayloadCipher): Uint8Array | undefined {
  return packet.msgKey.length !== MSG_KEY_LENGTH ? undefined : cipher.open(recvSignHead(packet), packet.payload, packet.msgKey)
}

/** The signed fields of a RECV: numbers in decimal, no separators (wkproto 10). */
export function recvSignHead(
  packet: Pick<
    RecvPacket,
    'messageID' | 'messageSeq' | 'clientMsgNo' | 'timestampSec' | 'fromUID' | 'channelID' | 'channelType'
  >,
): string {
  return `${packet.messageID}${packet.messageSeq}${packet.clientMsgNo}${packet.timestampSec}${packet.fromUID}${packet.channelID}${packet.channelType}`
}

function sendSignHead(packet: SendPacket): string {
  return `${packet.clientSeq}${packet.clientMsgNo}${packet.channelID}${packet.channelType}`
}
