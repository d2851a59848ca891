import { isUtf8 } from 'node:buffer'
import type { MalformedCode } from '../model/frames.ts'
import { decimalFromHalves } from '../model/int64.ts'
import { MAX_STRING_BYTES } from './limits.ts'
import { asNativeBuffer, type NativeBuffer } from './native-buffer.ts'

const TWO_32 = 0x1_0000_0000
const EMPTY = new Uint8Array(0)

/**
 * Reads the fields of one frame body, big-endian. Nothing throws: the first field that does not fit sets `error`, and it
 * and every later field read as zero or empty, so a decoder asks once at the end instead of after each field.
 */
export class Reader {
  error: MalformedCode | undefined = undefined
  /** `rest` answers with memory of its own */
  copiesRest = false
  #lastChannelID = ''
  #bytes: NativeBuffer
  #position = 0
  #end = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = asNativeBuffer(bytes)
  }

  /** Starts over on other bytes; views handed out before keep pointing at the former ones. */
  setBytes(bytes: Uint8Array): void {
    this.#bytes = asNativeBuffer(bytes)
  }

  /** Starts over on the body in [start, end), which lies inside the bytes. */
  setBody(start: number, end: number): void {
    this.error = undefined
    this.#position = start
    this.#end = end
  }

  u8(): number {
    const at = this.#position
    if (at >= this.#end) return this.#truncated()
    this.#position = at + 1
    return this.#bytes[at]!
  }

  u32(): number {
    const at = this.#position
    if (at + 4 > this.#end) return this.#truncated()
    this.#position = at + 4
    const bytes = this.#bytes
    return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
  }

  i32(): number {
    return this.u32() | 0
  }

  /** A 64-bit id as an unsigned decimal string. */
  u64(): string {
    const high = this.u32()
    const low = this.u32()
    return decimalFromHalves(high, low)
  }

  /** A 64-bit sequence number as a number; above 2^53 - 1 it is an error, because a number would name another message. */
  seq64(): number {
    const high = this.u32()
    const low = this.u32()
    if (high < 0x20_0000) return high * TWO_32 + low
    return this.#fail('seq-out-of-range')
  }

  i64(): bigint {
    const high = this.i32()
    const low = this.u32()
    return (BigInt(high) << 32n) | BigInt(low)
  }

  string(): string {
    const at = this.#position
    const bytes = this.#bytes
    if (at + 2 > this.#end) {
      this.#truncated()
      return ''
    }
    const byteLength = (bytes[at]! << 8) | bytes[at + 1]!
    const start = at + 2
    const end = start + byteLength
    if (byteLength > MAX_STRING_BYTES) {
      this.#fail('string-too-long')
      return ''
    }
    if (end > this.#end) {
      this.#truncated()
      return ''
    }
    this.#position = end
    if (byteLength === 0) return ''
    const text = bytes.utf8Slice(start, end)
    // Every invalid sequence became U+FFFD, which may also be what was sent. On ASCII the search ends at once.
    if (text.includes('\ufffd') && !isUtf8(bytes.subarray(start, end))) {
      this.#fail('bad-utf8')
      return ''
    }
    return text
  }

  /** `string` for a channel id, which most often is the one of the frame before: then it is that string, and nothing is made. */
  channelID(): string {
    return (this.#lastChannelID = this.#repeats(this.#lastChannelID) ? this.#lastChannelID : this.string())
  }

  /** All that is left of the body, as a view; a plain Uint8Array, so that `slice()` copies as its type promises. Or as a copy. */
  rest(): Uint8Array {
    const start = this.#position
    const byteLength = this.#end - start
    if (byteLength === 0) return EMPTY
    this.#position = this.#end
    const view = new Uint8Array(this.#bytes.buffer, this.#bytes.byteOffset + start, byteLength)
    // From the pool of small buffers: a Uint8Array of more than 64 bytes costs five times as much to make.
    return this.copiesRest ? Buffer.from(view) : view
  }

  /** Is the next field this text? Then it has been read. */
  #repeats(text: string): boolean {
    const { length } = text
    const at = this.#position
    const start = at + 2
    const bytes = this.#bytes
    if (length === 0 || start + length > this.#end || ((bytes[at]! << 8) | bytes[at + 1]!) !== length) return false
    for (let index = 0; index < length; index++) {
      const code = text.charCodeAt(index)
      if (code > 0x7f || bytes[start + index] !== code) return false
    }
    this.#position = start + length
    return true
  }

  #truncated(): number {
    return this.#fail('truncated-body')
  }

  #fail(code: MalformedCode): number {
    this.error ??= code
    this.#position = this.#end
    return 0
  }
}
