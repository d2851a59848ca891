/**
 * What nodes tell each other about what they have read of the log, as bytes. Numbers big-endian:
 *
 *   u8 version · u8 kind · u8 flags · u16 nodeID · u64 boot · u16 partition · u48 from · u16 count · checksums, u32 each
 *   kind 1, a range: one checksum, the CRC-32 of those of all its entries; kind 2, entries: the checksum of each
 */
import { RING_COUNT } from './checksum-ring.ts'

const VERSION = 1
export const Kind = { Range: 1, Entries: 2 } as const
const Flag = { Fresh: 1, Asking: 2 } as const
const HEAD_BYTES = 23
const MAX_RANGE_COUNT = RING_COUNT
/** 1 KiB: it fits into the least `max_payload` that the log takes. */
export const MAX_ENTRIES_COUNT = 256

/** A node, and which of its lives. */
export interface Witness {
  readonly nodeID: number
  /** drawn anew by every start of a node, 16 hex digits */
  readonly boot: string
  /** its store began in this life with the storage of another node, or with nothing */
  readonly isFresh: boolean
}

/** What one has read from `from` to `to`. */
export type Testimony =
  | { readonly kind: typeof Kind.Range; readonly from: number; readonly to: number; readonly digest: number }
  /** `isAsking`: the others are to say what they have read in the same way */
  | { readonly kind: typeof Kind.Entries; readonly from: number; readonly to: number; readonly checksums: Uint32Array; readonly isAsking: boolean }

export interface DigestFrame {
  readonly witness: Witness
  readonly partition: number
  readonly testimony: Testimony
}

export function encodeDigest({ witness, partition, testimony }: DigestFrame): Buffer {
  const { kind, from, to } = testimony
  const checksums = kind === Kind.Range ? [testimony.digest] : testimony.checksums
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + 4 * checksums.length)
  bytes[0] = VERSION
  bytes[1] = kind
  bytes[2] = (witness.isFresh ? Flag.Fresh : 0) | (kind === Kind.Entries && testimony.isAsking ? Flag.Asking : 0)
  bytes.writeUInt16BE(witness.nodeID, 3)
  bytes.write(witness.boot, 5, 'hex')
  bytes.writeUInt16BE(partition, 13)
  bytes.writeUIntBE(from, 15, 6)
  bytes.writeUInt16BE(to - from + 1, 21)
  let offset = HEAD_BYTES
  for (const checksum of checksums) offset = bytes.writeUInt32BE(checksum, offset)
  return bytes
}

/** Nothing of it is a view of `data`. @throws RangeError  these bytes are none, or of another version */
export function decodeDigest(data: Uint8Array): DigestFrame {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  if (bytes[0] !== VERSION) throw new RangeError('another version')
  if (bytes.length < HEAD_BYTES) throw new RangeError('cut short')
  const kind = bytes[1]
  const flags = bytes[2]!
  const from = bytes.readUIntBE(15, 6)
  const count = bytes.readUInt16BE(21)
  if (kind !== Kind.Range && kind !== Kind.Entries) throw new RangeError('another kind')
  if (flags > (kind === Kind.Range ? Flag.Fresh : Flag.Fresh | Flag.Asking)) throw new RangeError('another flag')
  if (from < 1 || count < 1 || count > (kind === Kind.Range ? MAX_RANGE_COUNT : MAX_ENTRIES_COUNT)) throw new RangeError('no range')
  if (bytes.length !== HEAD_BYTES + 4 * (kind === Kind.Range ? 1 : count)) throw new RangeError('another length')
  const witness = { nodeID: bytes.readUInt16BE(3), boot: bytes.toString('hex', 5, 13), isFresh: (flags & Flag.Fresh) !== 0 }
  const range = { from, to: from + count - 1 }
  const testimony: Testimony =
    kind === Kind.Range
      ? { kind, ...range, digest: bytes.readUInt32BE(HEAD_BYTES) }
      : {
          kind,
          ...range,
          checksums: Uint32Array.from({ length: count }, (_, i) => bytes.readUInt32BE(HEAD_BYTES + 4 * i)),
          isAsking: (flags & Flag.Asking) !== 0,
        }
  return { witness, partition: bytes.readUInt16BE(13), testimony }
}
