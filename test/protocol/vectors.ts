import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { FrameFlag, FrameType, type Frame } from '../../src/model/frames.ts'

/** A field of a vector's frame; byte fields are hex, flags a set of names. */
type VectorField = string | number | boolean | Record<string, boolean>

export type VectorFrame = Readonly<Record<string, VectorField>> & { readonly type: keyof typeof FrameType }

interface HexFields {
  readonly hex?: string
  readonly hexBuild?: [hex: string, count: number][]
  readonly hexSha256?: string
}

export interface FrameVector extends HexFields {
  readonly name: string
  readonly version: number
  readonly use: ('decode' | 'encode')[]
  readonly consumed: number
  readonly frame: VectorFrame
  readonly crypto?: { readonly aesKey: string; readonly aesIv: string; readonly plaintextHex: string; readonly verifyString: string }
}

export interface MalformedVector extends HexFields {
  readonly name: string
  readonly version: number
  readonly expect: { readonly verdict: string; readonly code?: string; readonly consumed?: number; readonly frame?: VectorFrame }
}

export interface StreamVector {
  readonly name: string
  readonly version: number
  readonly chunks: string[]
  readonly expect: { readonly frames: VectorFrame[]; readonly rest?: number; readonly error?: string }
}

/** The vectors of one file of `test/vectors/`, as its README describes them, with long texts written out. */
export function loadVectors<T>(file: string): T[] {
  const url = new URL(`../vectors/${file}`, import.meta.url)
  const parsed = JSON.parse(readFileSync(url, 'utf8'), expandRepeat) as { count: number; vectors: T[] }
  if (parsed.vectors.length !== parsed.count) throw new Error(`${file} says ${parsed.count} vectors and has another number`)
  return parsed.vectors
}

/** `{"$repeat":[text,n]}` and `{"$repeatHex":[hex,n]}` stand for n copies. */
function expandRepeat(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  const { $repeat, $repeatHex } = value as Record<string, [text: string, count: number] | undefined>
  const repeated = $repeat ?? $repeatHex
  return repeated === undefined ? value : repeated[0].repeat(repeated[1])
}

/** The bytes of a vector, checked against its digest when they are given in the short form. */
export function vectorBytes(vector: HexFields): Buffer {
  if (vector.hex !== undefined) return Buffer.from(vector.hex, 'hex')
  const bytes = Buffer.concat((vector.hexBuild ?? []).map(([hex, count]) => Buffer.from(hex.repeat(count), 'hex')))
  const digest = createHash('sha256').update(bytes).digest('hex')
  if (digest !== vector.hexSha256) throw new Error('a vector in hexBuild form does not have its digest')
  return bytes
}

/** Where the vectors name a field otherwise than the packets do. */
const FIELD_NAMES: Readonly<Record<string, string>> = {
  deviceId: 'deviceID',
  channelId: 'channelID',
  messageId: 'messageID',
  nodeId: 'nodeID',
  streamId: 'streamID',
  fromUid: 'fromUID',
  expire: 'expireSec',
  timeDiff: 'timeDiffMs',
  clientTimestamp: 'clientTimestampMs',
}

/** What a decoded packet holds for a field its version or setting leaves out. */
const ABSENT: Readonly<Partial<Record<keyof typeof FrameType, Record<string, unknown>>>> = {
  CONNACK: { nodeID: '0' },
  SEND: { streamNo: '', expireSec: 0, topic: '' },
  RECV: { expireSec: 0, streamFlag: 0, streamNo: '', streamID: '0', topic: '' },
}

/** A vector's frame as the packet `decode` gives for it. */
export function vectorFrame(frame: VectorFrame): Frame {
  const packet: Record<string, unknown> = { ...ABSENT[frame.type], type: FrameType[frame.type] }
  for (const [name, field] of Object.entries(frame)) {
    if (name === 'type' || name === 'trailing' || name === 'hasServerVersion') continue
    if (name === 'flags') {
      if (frame.type !== 'PING' && frame.type !== 'PONG') packet.flags = flagBits(field as Record<string, boolean>)
    } else if (name === 'timestamp') {
      if (frame.type === 'RECV') packet.timestampSec = field
      else packet.timestampMs = BigInt(field as string)
    } else {
      packet[FIELD_NAMES[name] ?? name] = fieldValue(name, field)
    }
  }
  return packet as unknown as Frame
}

function fieldValue(name: string, field: VectorField): unknown {
  if (name === 'payload' || name === 'data') return new Uint8Array(Buffer.from(field as string, 'hex'))
  if (name === 'clientTimestamp' || name === 'timeDiff') return BigInt(field as string)
  if (name === 'messageSeq') return Number(field)
  // The vectors call message ids signed; the packets give their bits as one unsigned number.
  if (name === 'messageId') return BigInt.asUintN(64, BigInt(field as string)).toString()
  return field
}

function flagBits(flags: Record<string, boolean>): number {
  return (
    (flags.noPersist === true ? FrameFlag.NoPersist : 0) |
    (flags.redDot === true ? FrameFlag.RedDot : 0) |
    (flags.syncOnce === true ? FrameFlag.SyncOnce : 0) |
    (flags.dup === true ? FrameFlag.Dup : 0)
  )
}
