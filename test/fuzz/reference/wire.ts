/**
 * What the protocol says about a stream of bytes: the frame header, the tables of fields and the table of malformed input,
 * written down a second time. Nothing here comes from `src`, and nothing is fast: it is what the codec is compared with.
 * Source: wkproto 2 to 5.
 */
export type Malformed = 'unknown-type' | 'bad-length' | 'too-large' | 'truncated-body' | 'string-too-long' | 'bad-utf8' | 'seq-out-of-range'

/** A frame as the protocol has it: numbers, texts, and what is left of the body as hex. */
export type ReferenceFrame = { readonly type: number; readonly flags: number } & Readonly<Record<string, number | bigint | string>>

export const Type = {
  CONNECT: 1, CONNACK: 2, SEND: 3, SENDACK: 4, RECV: 5, RECVACK: 6, PING: 7, PONG: 8, DISCONNECT: 9, SUB: 10, SUBACK: 11, EVENT: 12,
} as const

type Kind = 'u8' | 'u32' | 'i32' | 'i64' | 'id' | 'seq' | 'string' | 'rest'
interface Circumstances {
  readonly flags: number
  readonly setting: number
  readonly version: number
}
type Field = readonly [name: string, kind: Kind, isPresent?: (given: Circumstances) => boolean]

const hasStream = ({ setting, version }: Circumstances): boolean => version >= 2 && version < 5 && (setting & 0x02) !== 0
const hasTopic = ({ setting }: Circumstances): boolean => (setting & 0x08) !== 0
const hasExpiry = ({ version }: Circumstances): boolean => version >= 3

const FIELDS: Readonly<Record<number, readonly Field[]>> = {
  [Type.CONNECT]: [['version', 'u8'], ['deviceFlag', 'u8'], ['deviceID', 'string'], ['uid', 'string'], ['token', 'string'], ['clientTimestampMs', 'i64'], ['clientKey', 'string']],
  [Type.CONNACK]: [['serverVersion', 'u8', ({ flags }) => (flags & 1) !== 0], ['timeDiffMs', 'i64'], ['reasonCode', 'u8'], ['serverKey', 'string'], ['salt', 'string'], ['nodeID', 'id', ({ version }) => version >= 4]],
  [Type.SEND]: [
    ['setting', 'u8'], ['clientSeq', 'u32'], ['clientMsgNo', 'string'], ['streamNo', 'string', hasStream], ['channelID', 'string'], ['channelType', 'u8'], ['expireSec', 'u32', hasExpiry],
    ['msgKey', 'string'], ['topic', 'string', hasTopic], ['payload', 'rest'],
  ],
  [Type.SENDACK]: [['messageID', 'id'], ['clientSeq', 'u32'], ['messageSeq', 'seq'], ['reasonCode', 'u8']],
  [Type.RECV]: [
    ['setting', 'u8'], ['msgKey', 'string'], ['fromUID', 'string'], ['channelID', 'string'], ['channelType', 'u8'], ['expireSec', 'u32', hasExpiry], ['clientMsgNo', 'string'],
    ['streamFlag', 'u8', hasStream], ['streamNo', 'string', hasStream], ['streamID', 'id', hasStream], ['messageID', 'id'], ['messageSeq', 'seq'], ['timestampSec', 'i32'],
    ['topic', 'string', hasTopic], ['payload', 'rest'],
  ],
  [Type.RECVACK]: [['messageID', 'id'], ['messageSeq', 'seq']],
  [Type.DISCONNECT]: [['reasonCode', 'u8'], ['reason', 'string']],
  [Type.SUB]: [['setting', 'u8'], ['subNo', 'string'], ['channelID', 'string'], ['channelType', 'u8'], ['action', 'u8'], ['param', 'string']],
  [Type.SUBACK]: [['subNo', 'string'], ['channelID', 'string'], ['channelType', 'u8'], ['action', 'u8'], ['reasonCode', 'u8']],
  [Type.EVENT]: [['id', 'string'], ['eventType', 'string'], ['timestampMs', 'i64'], ['data', 'rest']],
}

const ABSENT: Readonly<Record<Kind, number | bigint | string>> = { u8: 0, u32: 0, i32: 0, i64: 0n, id: '0', seq: 0, string: '', rest: '' }
const WIDTHS = { u8: 1, u32: 4, i32: 4, i64: 8, id: 8 } as const

/** One direction of a connection. The version may change between two frames. */
export class ReferenceStream {
  version: number
  malformed: Malformed | undefined = undefined
  readonly #maxFrameBytes: number
  #bytes = Buffer.alloc(0)

  constructor(version: number, maxFrameBytes = 1_048_576) {
    this.version = version
    this.#maxFrameBytes = maxFrameBytes
  }

  /** Bytes of a frame whose rest has not come. */
  get restBytes(): number {
    return this.#bytes.length
  }

  add(chunk: Uint8Array): void {
    if (this.malformed === undefined) this.#bytes = Buffer.concat([this.#bytes, chunk])
  }

  /** The next frame; undefined when there is none, and for ever once the stream is malformed. */
  next(): ReferenceFrame | undefined {
    const bytes = this.#bytes
    const [first] = bytes
    if (this.malformed !== undefined || first === undefined) return undefined
    const type = first >> 4
    const flags = first & 0x0f
    if (type === Type.PING || type === Type.PONG) {
      this.#bytes = bytes.subarray(1)
      return { type, flags }
    }
    const fields = FIELDS[type]
    if (fields === undefined) return this.#end('unknown-type')
    // The four length bytes: the least significant seven bits first; the top bit says that another one follows.
    const length = bytes.subarray(1, 5)
    const last = length.findIndex((byte) => byte < 0x80)
    if (last === -1) return length.length === 4 ? this.#end('bad-length') : undefined
    const bodyBytes = length.subarray(0, last + 1).reduce((sum, byte, index) => sum + (byte & 0x7f) * 128 ** index, 0)
    if (bodyBytes > this.#maxFrameBytes) return this.#end('too-large')
    const start = last + 2
    if (bytes.length < start + bodyBytes) return undefined
    const frame = readFields(fields, bytes.subarray(start, start + bodyBytes), { flags, version: this.version, setting: 0 }, type)
    if (typeof frame === 'string') return this.#end(frame)
    this.#bytes = bytes.subarray(start + bodyBytes)
    return frame
  }

  #end(malformed: Malformed): undefined {
    this.malformed = malformed
    this.#bytes = Buffer.alloc(0)
  }
}

function readFields(fields: readonly Field[], body: Buffer, given: Circumstances, type: number): ReferenceFrame | Malformed {
  const frame: Record<string, number | bigint | string> = {}
  let at = 0
  for (const [name, kind, isPresent] of fields) {
    const setting = typeof frame['setting'] === 'number' ? frame['setting'] : 0
    if (isPresent?.({ ...given, setting }) === false) {
      if (name !== 'serverVersion') frame[name] = ABSENT[kind] // a CONNACK of an old version has none at all
      continue
    }
    const left = body.length - at
    if (kind === 'rest') {
      frame[name] = body.toString('hex', at)
      at = body.length
    } else if (kind === 'string') {
      if (left < 2) return 'truncated-body'
      const byteCount = body.readUInt16BE(at)
      if (byteCount > 32_767) return 'string-too-long'
      if (left < 2 + byteCount) return 'truncated-body'
      const text = textOf(body.subarray(at + 2, at + 2 + byteCount))
      if (text === undefined) return 'bad-utf8'
      frame[name] = text
      at += 2 + byteCount
    } else if (kind === 'seq') {
      const byteCount = given.version >= 6 ? 8 : 4
      if (left < byteCount) return 'truncated-body'
      const seq = byteCount === 8 ? body.readBigUInt64BE(at) : BigInt(body.readUInt32BE(at))
      if (seq > BigInt(Number.MAX_SAFE_INTEGER)) return 'seq-out-of-range'
      frame[name] = Number(seq)
      at += byteCount
    } else {
      if (left < WIDTHS[kind]) return 'truncated-body'
      frame[name] = readNumber(kind, body, at)
      at += WIDTHS[kind]
    }
  }
  return { ...frame, type, flags: given.flags } // what is left over is ignored
}

function readNumber(kind: keyof typeof WIDTHS, body: Buffer, at: number): number | bigint | string {
  switch (kind) {
    case 'u8':
      return body.readUInt8(at)
    case 'u32':
      return body.readUInt32BE(at)
    case 'i32':
      return body.readInt32BE(at)
    case 'i64':
      return body.readBigInt64BE(at)
    case 'id':
      return body.readBigUInt64BE(at).toString()
  }
}

function textOf(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}

/** A frame of either kind as a text that is equal for equal frames. CONNACK, PING and PONG have no flags to speak of. */
export function show(frame: object): string {
  const entries = Object.entries(frame).toSorted(([a], [b]) => (a < b ? -1 : 1))
  const { type } = frame as { readonly type: number }
  const isFlagless = type === Type.CONNACK || type === Type.PING || type === Type.PONG
  return entries
    .filter(([name]) => name !== 'flags' || !isFlagless)
    .map(([name, value]) => `${name}=${value instanceof Uint8Array ? Buffer.from(value).toString('hex') : String(value)}`)
    .join(' ')
}
