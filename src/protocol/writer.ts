import { writeUint64Decimal } from '../model/int64.ts'
import { MAX_BODY_BYTES, MAX_STRING_BYTES } from './limits.ts'
import { allocateNative, asNativeBuffer, type NativeBuffer } from './native-buffer.ts'

const TWO_32 = 0x1_0000_0000

/** Up to this many characters a loop in JavaScript beats the call into the runtime (about 50 ns on Node 20). */
const SHORT_TEXT = 16

/** UTF-8 bytes of a string field without its length; a lone surrogate counts, and is written, as U+FFFD. */
export function textByteLength(text: string): number {
  const byteLength = text.length <= SHORT_TEXT && isShortAscii(text) ? text.length : Buffer.byteLength(text)
  if (byteLength > MAX_STRING_BYTES) {
    throw new RangeError(`imengine: a string of ${byteLength} bytes does not fit the wire, which takes ${MAX_STRING_BYTES}`)
  }
  return byteLength
}

function isShortAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7f) return false
  return true
}

/** How many bytes the remaining length itself takes, at its shortest. Mobile clients rely on the shortest form. */
export function lengthByteCount(bodyBytes: number): number {
  if (bodyBytes < 0x80) return 1
  if (bodyBytes < 0x4000) return 2
  if (bodyBytes < 0x20_0000) return 3
  if (bodyBytes <= MAX_BODY_BYTES) return 4
  throw new RangeError(`imengine: a frame body of ${bodyBytes} bytes does not fit the wire, which takes ${MAX_BODY_BYTES}`)
}

/**
 * Writes fields big-endian into memory of exactly the size asked for, or into memory that is there; who asks has added the sizes
 * up before. A number that
 * does not fit its field is a RangeError, so that no wrapped value ever reaches a client.
 */
export class Writer {
  #bytes: NativeBuffer
  #position = 0

  constructor(byteCount: number) {
    this.#bytes = allocateNative(byteCount)
  }

  get bytes(): NativeBuffer {
    return this.#bytes
  }

  /** Goes on at `position` of other memory. */
  moveTo(bytes: Uint8Array, position: number): void {
    this.#bytes = asNativeBuffer(bytes)
    this.#position = position
  }

  u8(value: number): void {
    if ((value & 0xff) !== value) throw notAnInteger(value, 8)
    this.#bytes[this.#position++] = value
  }

  u32(value: number): void {
    if (value >>> 0 !== value) throw notAnInteger(value, 32)
    this.#word(value)
  }

  i32(value: number): void {
    if ((value | 0) !== value) throw notAnInteger(value, 32)
    this.#word(value)
  }

  /** A 64-bit id from its unsigned decimal digits. */
  u64(decimal: string): void {
    if (!writeUint64Decimal(this.#bytes, this.#position, decimal)) {
      throw new RangeError('imengine: an id must be the decimal digits of an unsigned 64-bit number')
    }
    this.#position += 8
  }

  seq64(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) throw notAnInteger(value, 53)
    const high = Math.floor(value / TWO_32)
    this.#word(high)
    this.#word(value - high * TWO_32)
  }

  i64(value: bigint): void {
    this.#position = this.#bytes.writeBigInt64BE(value, this.#position)
  }

  /** `byteLength` is what `textByteLength` said. */
  string(text: string, byteLength: number): void {
    const bytes = this.#bytes
    let at = this.#position
    bytes[at++] = byteLength >>> 8
    bytes[at++] = byteLength & 0xff
    // As many bytes as UTF-16 units: every one of them is ASCII.
    if (byteLength !== text.length) bytes.utf8Write(text, at, byteLength)
    else if (byteLength > SHORT_TEXT) bytes.latin1Write(text, at, byteLength)
    else for (let i = 0; i < byteLength; i++) bytes[at + i] = text.charCodeAt(i)
    this.#position = at + byteLength
  }

  raw(source: Uint8Array): void {
    // `set` would take a string and write zeros.
    if (!ArrayBuffer.isView(source)) throw new TypeError('imengine: a payload must be a Uint8Array')
    this.#bytes.set(source, this.#position)
    this.#position += source.length
  }

  /** Leaves out bytes that somebody else writes. @returns where they begin */
  skip(byteCount: number): number {
    const at = this.#position
    this.#position = at + byteCount
    return at
  }

  /** First byte and remaining length. */
  header(type: number, flags: number, bodyBytes: number): void {
    if ((flags & 0x0f) !== flags) throw notAnInteger(flags, 4)
    const bytes = this.#bytes
    let at = this.#position
    bytes[at++] = (type << 4) | flags
    let rest = bodyBytes
    while (rest > 0x7f) {
      bytes[at++] = (rest & 0x7f) | 0x80
      rest >>>= 7
    }
    bytes[at++] = rest
    this.#position = at
  }

  #word(value: number): void {
    const bytes = this.#bytes
    const at = this.#position
    bytes[at] = value >>> 24
    bytes[at + 1] = value >>> 16
    bytes[at + 2] = value >>> 8
    bytes[at + 3] = value
    this.#position = at + 4
  }
}

function notAnInteger(value: number, bits: number): RangeError {
  return new RangeError(`imengine: ${value} does not fit a field of ${bits} bits`)
}
