import type { RecvPacket, SendPacket } from '../model/frames.ts'
import { allocateNative, type NativeBuffer } from './native-buffer.ts'
import type { PayloadCipher } from './session-cipher.ts'

const MSG_KEY_LENGTH = 32

/** A SEND as a client writes it: `packet` holds the plaintext payload; the result the base64 text and its msgKey. */
export function sealSend(packet: SendPacket, cipher: PayloadCipher): SendPacket {
  const payload = cipher.sealPayload(packet.payload)
  return { ...packet, msgKey: cipher.sign(signBytes(sendSignHead(packet), payload)), payload }
}

/**
 * The plaintext payload of a SEND, in memory of its own; undefined when the msgKey is not the one for these fields or the
 * payload is not what the key made. Nothing is decrypted before the msgKey, compared in constant time, has proved right.
 */
export function openSend(packet: SendPacket, cipher: PayloadCipher): Uint8Array | undefined {
  if (packet.msgKey.length !== MSG_KEY_LENGTH) return undefined
  const msgKey = cipher.sign(signBytes(sendSignHead(packet), packet.payload))
  return isSameMsgKey(msgKey, packet.msgKey) ? cipher.openPayload(packet.payload) : undefined
}

/** A RECV as a server writes it to one connection; `channelID` is already the one this receiver sees. */
export function sealRecv(packet: RecvPacket, cipher: PayloadCipher): RecvPacket {
  const payload = cipher.sealPayload(packet.payload)
  return { ...packet, msgKey: cipher.sign(signBytes(recvSignHead(packet), payload)), payload }
}

/** The plaintext payload of a RECV, in memory of its own; undefined as for `openSend`. */
export function openRecv(packet: RecvPacket, cipher: PayloadCipher): Uint8Array | undefined {
  if (packet.msgKey.length !== MSG_KEY_LENGTH) return undefined
  const msgKey = cipher.sign(signBytes(recvSignHead(packet), packet.payload))
  return isSameMsgKey(msgKey, packet.msgKey) ? cipher.openPayload(packet.payload) : undefined
}

/** What is signed: the fields' text, then the payload as it travels. */
export function signBytes(head: string, payload: Uint8Array): NativeBuffer {
  const headBytes = Buffer.byteLength(head)
  const bytes = allocateNative(headBytes + payload.length)
  bytes.utf8Write(head, 0, headBytes)
  bytes.set(payload, headBytes)
  return bytes
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

/** Of two msgKeys: takes as long for one that is wrong in its first character as for one that is wrong in its last. */
function isSameMsgKey(expected: string, given: string): boolean {
  let difference = 0
  for (let i = 0; i < MSG_KEY_LENGTH; i++) difference |= expected.charCodeAt(i) ^ given.charCodeAt(i)
  return difference === 0
}
