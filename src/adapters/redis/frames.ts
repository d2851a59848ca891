/**
 * What nodes publish to each other. Every frame begins with a head of 18 bytes that is the same in every version, so that a
 * node of another version can at least be told that it has not been understood:
 *
 *   u8 version · u8 kind · u16 node · 8 bytes life · u48 call
 *
 * Node, life and call are of the node that asks, in its answer, too. A life is drawn by chance when a node starts: an answer to
 * an earlier one is nobody's. Behind the head:
 *
 *   part     u32 bytes of the whole push · u32 where this part begins · bytes
 *   kick     n deviceFlag · n deviceLevel · text uid · text deviceID   (numbers and texts as in `bytes.ts`)
 *   answer   u16 node that answers · 8 bytes its life · u8 outcome
 */
import type { PeerKickRequest } from '../../contracts/peer-push.ts'
import { ByteReader, ByteWriter, readable, UnreadableBytes } from './bytes.ts'

export const VERSION = 1

export const Kind = { Part: 1, Kick: 2, Answer: 3 } as const

export const Outcome = { Taken: 0, Failed: 1, NotUnderstood: 2, TooMuch: 3 } as const
export type Outcome = (typeof Outcome)[keyof typeof Outcome]

export const HEAD_BYTES = 18
export const PART_HEAD_BYTES = HEAD_BYTES + 8
export const LIFE_BYTES = 8
const ANSWER_BYTES = HEAD_BYTES + 2 + LIFE_BYTES + 1

/** Which call of which node: what an answer needs to find its way. */
export interface CallName {
  readonly nodeID: number
  /** hex */
  readonly life: string
  readonly callID: number
}

export interface FrameHead extends CallName {
  readonly version: number
  readonly kind: number
}

export interface PushPart {
  readonly totalBytes: number
  readonly start: number
  readonly bytes: Buffer
}

export interface Answer {
  readonly nodeID: number
  readonly life: string
  readonly outcome: number
}

/** Undefined for what is too short for a head. */
export function readHead(frame: Buffer): FrameHead | undefined {
  if (frame.length < HEAD_BYTES) return undefined
  return {
    version: frame[0]!,
    kind: frame[1]!,
    nodeID: frame.readUInt16BE(2),
    life: frame.toString('hex', 4, 12),
    callID: frame.readUIntBE(12, 6),
  }
}

/** The push in pieces of at most `maxBytes`, in their order; at least one. */
export function encodeParts(call: CallName, push: Buffer, maxBytes: number): Buffer[] {
  const parts: Buffer[] = []
  const room = maxBytes - PART_HEAD_BYTES
  let start = 0
  do {
    const piece = push.subarray(start, start + room)
    const frame = Buffer.allocUnsafe(PART_HEAD_BYTES + piece.length)
    writeHead(frame, Kind.Part, call)
    frame.writeUInt32BE(push.length, HEAD_BYTES)
    frame.writeUInt32BE(start, HEAD_BYTES + 4)
    piece.copy(frame, PART_HEAD_BYTES)
    parts.push(frame)
    start += room
  } while (start < push.length)
  return parts
}

export function decodePart(frame: Buffer): PushPart | undefined {
  if (frame.length < PART_HEAD_BYTES) return undefined
  const totalBytes = frame.readUInt32BE(HEAD_BYTES)
  const start = frame.readUInt32BE(HEAD_BYTES + 4)
  const bytes = frame.subarray(PART_HEAD_BYTES)
  return bytes.length === 0 || start + bytes.length > totalBytes ? undefined : { totalBytes, start, bytes }
}

export function encodeKick(call: CallName, { uid, deviceFlag, deviceID, deviceLevel, out }: PeerKickRequest): Buffer {
  const writer = new ByteWriter()
  const head = Buffer.allocUnsafe(HEAD_BYTES)
  writeHead(head, Kind.Kick, call)
  writer.raw(head)
  writer.number(deviceFlag)
  writer.number(deviceLevel)
  writer.text(uid)
  writer.text(deviceID)
  if (out !== undefined) {
    writer.number(out.allDevices ? 1 : 0)
    writer.text(out.reason)
  }
  return writer.end()
}

export function decodeKick(frame: Buffer): PeerKickRequest | undefined {
  return readable(() => {
    const reader = new ByteReader(frame, HEAD_BYTES)
    const deviceFlag = reader.number()
    const deviceLevel = reader.number()
    const login = { uid: reader.text(), deviceFlag, deviceID: reader.text(), deviceLevel }
    const kick = reader.isAtEnd ? login : { ...login, out: { allDevices: reader.number() === 1, reason: reader.text() } }
    if (!reader.isAtEnd) throw new UnreadableBytes('something follows')
    return kick
  })
}

/** `call` is the asking node's, `answer` says who answers. */
export function encodeAnswer(call: CallName, { nodeID, life, outcome }: Answer): Buffer {
  const frame = Buffer.allocUnsafe(ANSWER_BYTES)
  writeHead(frame, Kind.Answer, call)
  frame.writeUInt16BE(nodeID, HEAD_BYTES)
  frame.write(life, HEAD_BYTES + 2, 'hex')
  frame[ANSWER_BYTES - 1] = outcome
  return frame
}

export function decodeAnswer(frame: Buffer): Answer | undefined {
  if (frame.length < ANSWER_BYTES) return undefined
  return {
    nodeID: frame.readUInt16BE(HEAD_BYTES),
    life: frame.toString('hex', HEAD_BYTES + 2, HEAD_BYTES + 2 + LIFE_BYTES),
    outcome: frame[ANSWER_BYTES - 1]!,
  }
}

function writeHead(target: Buffer, kind: number, { nodeID, life, callID }: CallName): void {
  target[0] = VERSION
  target[1] = kind
  target.writeUInt16BE(nodeID, 2)
  target.write(life, 4, 'hex')
  target.writeUIntBE(callID, 12, 6)
}
