/** What the fuzz feeds: cases as data, and chance that makes them. */
import { readFileSync } from 'node:fs'
import { seededRandom, type SeededRandom } from 'imengine/testing'
import { CLIENT_KEY } from './reference/payload.ts'
import { Type } from './reference/wire.ts'

/** A stream for a decoder that is told its version. */
export interface DecoderCase {
  readonly version: number
  readonly maxFrameBytes: number
  /** hex */
  readonly chunks: readonly string[]
}

/** A SEND that is encrypted when it is fed: nobody can know the key before. */
export interface SealedSend {
  readonly clientSeq: number
  readonly clientMsgNo: string
  readonly channelID: string
  readonly channelType: number
  readonly text: string
  /** the bit of the finished frame that is turned over, counted from its end */
  readonly flippedBit?: number
}

/** Bytes as hex; a text message of a WebSocket; or an encrypted SEND. */
export type Part = string | { readonly text: string } | { readonly sealed: SealedSend }

/** What one client does, from its first byte on. */
export interface ConnectionCase {
  readonly transport: 'tcp' | 'ws'
  readonly plaintext: 'allow' | 'refuse'
  /** the verifier answers behind this chunk, or at once for a CONNECT that comes later */
  readonly verifiedAfter: number
  readonly isKnown: boolean
  readonly chunks: readonly Part[]
}

export type { SeededRandom }
export { seededRandom }

interface Vectors {
  readonly vectors: readonly { readonly hex?: string; readonly json?: string; readonly direction?: string }[]
}

function vectors(name: string): Vectors['vectors'] {
  return (JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), 'utf8')) as Vectors).vectors
}

const bytesOf = (name: string): Buffer[] => vectors(name).flatMap(({ hex }) => (hex === undefined ? [] : [Buffer.from(hex, 'hex')]))
const SEEDS = [...bytesOf('frames-c2s'), ...bytesOf('frames-s2c'), ...bytesOf('malformed')].filter(({ length }) => length > 0 && length <= 2_048)
const JSON_SEEDS = vectors('jsonrpc').flatMap(({ json }) => (json === undefined ? [] : [json]))

const UIDS = ['ann', 'bob', 'mallory', 'eve', '', ' ', 'a@b', 'a#', '&', 'x____cmd', '____cmd', '\u0000', '\ufeffann', 'x'.repeat(300), '😀']
const CHANNELS = ['team', 'team', 'team', 'ann', 'bob', 'mallory', 'nowhere', '', ' ', 'a@b', 'mallory@bob', 'team____cmd', '____cmd', 'a#b', 'a&b', '\u0007', 'c@d@e', 'y'.repeat(300)]
const TYPES = [1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 13, 255]
const SETTINGS = [0, 0, 0, 0, 0x80, 0x08, 0x10, 0x02, 0x0a, 0xff]
const PAYLOADS = ['', 'x', '{"type":1,"content":"hi"}', 'A'.repeat(24), 'A'.repeat(64), 'p'.repeat(520), 'q'.repeat(513), 'r'.repeat(512)]
const NUMBERS = ['', 'n1', 'n1', 'n2', 'n3', '\u0000', 'z'.repeat(200)]
const KEYS = ['', '', '', CLIENT_KEY, CLIENT_KEY, 'AAAA', 'not base64', Buffer.alloc(32).toString('base64'), `${CLIENT_KEY}=`, CLIENT_KEY.slice(0, -1), Buffer.alloc(32, 0xff).toString('base64')]

const u8 = (value: number): Buffer => Buffer.of(value & 0xff)
const u32 = (value: number): Buffer => Buffer.of(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff)
const u64 = (random: SeededRandom): Buffer => Buffer.concat([u32(random.pick([0, 0, 1, 0x1f_ffff, 0x20_0000, 0x7fff_ffff, 0xffff_ffff])), u32(random.pick([0, 1, 2, 0xffff_ffff, random.below(0xffff_ffff)]))])

/** A text, or now and then something that is none. */
function text(random: SeededRandom, value: string): Buffer {
  const bytes = Buffer.from(value)
  switch (random.below(60)) {
    case 0:
      return Buffer.concat([Buffer.of(0, 2, 0xc3, 0x28)]) // no UTF-8
    case 1:
      return Buffer.concat([Buffer.of(0, 3, 0xed, 0xa0, 0x80)]) // half a surrogate pair
    case 2:
      return Buffer.concat([Buffer.of(0x80, 0), bytes]) // longer than any text may be
    case 3:
      return Buffer.concat([Buffer.of(0x7f, 0xff), bytes]) // as long as a text may be, and not there
    default:
      return Buffer.concat([Buffer.of(bytes.length >> 8, bytes.length & 0xff), bytes])
  }
}

/** A whole frame, its length written as it should be or, now and then, in some other way. */
function framed(random: SeededRandom, type: number, flags: number, body: Buffer): Buffer {
  const length: number[] = []
  for (let left = body.length; ; left = Math.floor(left / 128)) {
    length.push((left % 128) | (left >= 128 ? 0x80 : 0))
    if (left < 128) break
  }
  switch (random.below(80)) {
    case 0:
      if (length.length < 4) length.push(((length[length.length - 1]! |= 0x80), 0)) // not the shortest way to write it
      break
    case 1:
      length.splice(0, length.length, 0xff, 0xff, 0xff, 0xff, 0x01) // five bytes
      break
    case 2:
      length.splice(0, length.length, 0xff, 0xff, 0x7f) // far more than may be
      break
    case 3:
      length[0] = random.below(256) // something else
      break
  }
  return Buffer.concat([Buffer.of((type << 4) | flags, ...length), body])
}

function body(random: SeededRandom, type: number, version: number): Buffer {
  const word = (choices: readonly string[]): Buffer => text(random, random.pick(choices))
  const seq = (): Buffer => (version >= 6 ? u64(random) : u32(random.pick([0, 1, 2, 0xffff_ffff])))
  const setting = random.pick(SETTINGS)
  const stream = version >= 2 && version < 5 && (setting & 2) !== 0
  const none = Buffer.alloc(0)
  switch (type) {
    case Type.SEND:
      return Buffer.concat([
        u8(setting), u32(random.pick([0, 1, 2, 3, 0xffff_ffff])), word(NUMBERS), stream ? word(NUMBERS) : none, word(CHANNELS), u8(random.pick(TYPES)),
        version >= 3 ? u32(random.pick([0, 0, 1, 0xffff_ffff])) : none, word(['', '0'.repeat(32), 'short']), (setting & 8) === 0 ? none : word(NUMBERS), Buffer.from(random.pick(PAYLOADS)),
      ])
    case Type.SENDACK:
      return Buffer.concat([u64(random), u32(1), seq(), u8(1)])
    case Type.RECV:
      return Buffer.concat([
        u8(setting), word(NUMBERS), word(UIDS), word(CHANNELS), u8(random.pick(TYPES)), version >= 3 ? u32(0) : none, word(NUMBERS),
        stream ? Buffer.concat([u8(1), word(NUMBERS), u64(random)]) : none, u64(random), seq(), u32(0xffff_fffe), (setting & 8) === 0 ? none : word(NUMBERS), Buffer.from(random.pick(PAYLOADS)),
      ])
    case Type.RECVACK:
      return Buffer.concat([u64(random), seq()])
    case Type.DISCONNECT:
      return Buffer.concat([u8(random.below(256)), word(NUMBERS)])
    case Type.SUB:
      return Buffer.concat([u8(setting), word(NUMBERS), word(CHANNELS), u8(random.pick(TYPES)), u8(random.below(3)), word(['', '{}'])])
    case Type.SUBACK:
      return Buffer.concat([word(NUMBERS), word(CHANNELS), u8(random.pick(TYPES)), u8(0), u8(1)])
    case Type.EVENT:
      return Buffer.concat([word(NUMBERS), word(NUMBERS), u64(random), Buffer.from(random.pick(PAYLOADS))])
    case Type.CONNACK:
      return Buffer.concat([random.below(2) === 0 ? u8(5) : none, u64(random), u8(1), word(KEYS), word(['0123456789abcdef']), version >= 4 ? u64(random) : none])
    default:
      return none
  }
}

function connectBody(random: SeededRandom, version: number, isSane: boolean): Buffer {
  const uid = isSane ? random.pick(['ann', 'bob', 'mallory', 'eve']) : random.pick(UIDS)
  const key = isSane ? random.pick(['', CLIENT_KEY]) : random.pick(KEYS)
  const word = (value: string): Buffer => (isSane ? Buffer.concat([Buffer.of(0, Buffer.byteLength(value)), Buffer.from(value)]) : text(random, value))
  return Buffer.concat([u8(version), u8(random.pick([0, 1, 2, 99])), word('d'), word(uid), word(''), u64(random), word(key)])
}

const FROM_CLIENTS = [Type.SEND, Type.SEND, Type.SEND, Type.SEND, Type.RECVACK, Type.PING, Type.SUB, Type.EVENT]
const ANY_TYPE = [...Object.values(Type), 0, 13, 14, 15]

function frame(random: SeededRandom, version: number): Buffer {
  if (random.below(30) === 0) return random.pick(SEEDS)
  const type = random.below(14) === 0 ? random.pick(ANY_TYPE) : random.below(40) === 0 ? Type.DISCONNECT : random.pick(FROM_CLIENTS)
  const flags = random.pick([0, 0, 2, random.below(16)])
  if (type === Type.PING || type === Type.PONG) return Buffer.of((type << 4) | flags)
  if (type === Type.CONNECT) return framed(random, type, flags, connectBody(random, version, false))
  const whole = body(random, type, version)
  switch (random.below(25)) {
    case 0:
      return framed(random, type, flags, whole.subarray(0, random.below(whole.length + 1))) // a body that is cut
    case 1:
      return framed(random, type, flags, Buffer.concat([whole, Buffer.from(random.bytes(random.below(9)))])) // something behind the last field
    default:
      return framed(random, type, flags, whole)
  }
}

/** Changes that know nothing of frames. */
function mutate(random: SeededRandom, bytes: Buffer): Buffer {
  const at = random.below(bytes.length + 1)
  const to = Math.min(bytes.length, at + random.below(12))
  switch (random.below(6)) {
    case 0: {
      const changed = Buffer.from(bytes)
      if (changed.length > 0) changed[at % changed.length]! ^= 1 << random.below(8)
      return changed
    }
    case 1:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)])
    case 2:
      return Buffer.concat([bytes.subarray(0, at), Buffer.from(random.bytes(random.below(12))), bytes.subarray(at)])
    case 3:
      return Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)])
    case 4:
      return bytes.subarray(0, at)
    default: {
      const changed = Buffer.from(bytes)
      if (changed.length > 0) changed[at % changed.length] = random.pick([0, 0x7f, 0x80, 0xff, random.below(256)])
      return changed
    }
  }
}

/** The same bytes in other pieces. */
function cut(random: SeededRandom, bytes: Buffer): string[] {
  const style = random.below(4)
  if (style === 0 || bytes.length === 0) return [bytes.toString('hex')]
  const longest = style === 1 ? 1 : style === 2 ? 7 : 200
  const chunks: string[] = []
  for (let at = 0; at < bytes.length; ) {
    // A connection comes to rest behind every chunk, which costs more than the chunk: not all of a long one is cut to bytes.
    const to = chunks.length >= 60 ? bytes.length : Math.min(bytes.length, at + 1 + random.below(longest))
    chunks.push(bytes.toString('hex', at, to))
    at = to
  }
  return chunks
}

function join(parts: readonly Buffer[]): Buffer {
  return Buffer.concat(parts)
}

export function randomDecoderCase(random: SeededRandom): DecoderCase {
  const version = random.pick([0, 1, 2, 3, 4, 5, 5, 5, 6, 7])
  const maxFrameBytes = random.pick([256, 1_024, 1_048_576])
  if (random.below(4) === 0) return { version, maxFrameBytes, chunks: cut(random, Buffer.from(random.bytes(random.below(60)))) }
  const parts = Array.from({ length: 1 + random.below(5) }, () => {
    if (random.below(3) === 0) return random.pick(SEEDS)
    const type = random.pick(ANY_TYPE)
    const flags = random.below(16)
    if (type === Type.PING || type === Type.PONG) return Buffer.of((type << 4) | flags)
    return framed(random, type, flags, type === Type.CONNECT ? connectBody(random, version, false) : body(random, type, version))
  })
  let bytes = join(parts)
  for (let count = random.below(3); count > 0; count--) bytes = mutate(random, bytes)
  return { version, maxFrameBytes, chunks: cut(random, bytes) }
}

export function randomConnectionCase(random: SeededRandom): ConnectionCase {
  const version = random.pick([0, 1, 2, 3, 4, 5, 5, 5, 6, 255])
  const spoken = Math.min(Math.max(version, 1), 5)
  const head = { plaintext: random.below(4) === 0 ? 'refuse' : 'allow', isKnown: random.below(12) !== 0 } as const
  const transport = random.below(3) === 0 ? 'ws' : 'tcp'
  if (random.below(12) === 0) return { ...head, transport, verifiedAfter: random.below(4), chunks: jsonChunks(random, transport) }

  const frames = Array.from({ length: random.below(8) }, () => frame(random, spoken))
  const connect = framed(random, Type.CONNECT, random.pick([0, 15]), connectBody(random, version, random.below(5) !== 0))
  if (random.below(12) !== 0) frames.unshift(connect)
  if (random.below(8) === 0) frames.splice(random.below(frames.length + 1), 0, ...frames.slice(0, 3)) // some of them again
  if (random.below(25) === 0) frames.push(Buffer.alloc(random.pick([200, 10_050]), random.pick([0x70, 0x7f]))) // many PINGs
  if (random.below(40) === 0) frames.push(Buffer.alloc(9_000)) // more than a stranger may send
  let bytes = join(frames)
  if (random.below(3) === 0) bytes = mutate(random, bytes)
  let chunks: Part[] = random.below(2) === 0 ? cut(random, bytes) : frames.map((each) => each.toString('hex'))
  if (random.below(3) === 0) chunks = chunks.flatMap((part) => [part, { sealed: randomSealed(random) }])
  if (transport === 'ws' && random.below(6) === 0) chunks.splice(random.below(chunks.length + 1), 0, { text: random.pick(['{"method":"ping","id":"1"}', 'hello', '', ' {', '[]']) })
  return { ...head, transport, verifiedAfter: random.below(3), chunks }
}

function randomSealed(random: SeededRandom): SealedSend {
  const sealed = {
    clientSeq: random.below(5), clientMsgNo: random.pick(NUMBERS), channelID: random.pick(CHANNELS), channelType: random.pick(TYPES), text: random.pick(PAYLOADS),
  }
  return random.below(3) === 0 ? { ...sealed, flippedBit: random.below(400) } : sealed
}

/** A client of the other framing, or something near it. */
function jsonChunks(random: SeededRandom, transport: 'tcp' | 'ws'): Part[] {
  let text = random.pick(JSON_SEEDS)
  if (random.below(3) === 0) text = random.pick([' ', '\r\n\t', '\ufeff', '[', '"', '\u0000', '  \n']) + text
  if (random.below(3) === 0) text = text.slice(0, random.below(text.length))
  if (random.below(4) === 0) text += random.pick(JSON_SEEDS)
  if (transport === 'ws' && random.below(2) === 0) return [{ text }, { text: random.pick(JSON_SEEDS) }]
  let bytes: Buffer = Buffer.from(text)
  if (random.below(3) === 0) bytes = mutate(random, bytes)
  return cut(random, bytes)
}
