import { allocateNative, asNativeBuffer, type NativeBuffer } from './native-buffer.ts'

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
const INVALID = 0x80
const PADDING = 0x3d

/** The six bits a character stands for, INVALID for those that stand for none. */
const SIX_BITS = new Uint8Array(256).fill(INVALID)
for (let i = 0; i < ALPHABET.length; i++) SIX_BITS[ALPHABET.charCodeAt(i)] = i

/** Base64 text of `bytes` (standard alphabet, padded), as the bytes that travel. */
export function encodeBase64(bytes: Uint8Array): NativeBuffer {
  const text = asNativeBuffer(bytes).base64Slice(0, bytes.length)
  const encoded = allocateNative(text.length)
  encoded.latin1Write(text, 0, text.length)
  return encoded
}

/**
 * The bytes behind base64 text, or undefined unless it is exactly the text `encodeBase64` gives for them: standard
 * alphabet, padded, unused bits zero, nothing before, between or after. Node's own decoder skips what it does not know.
 */
export function decodeBase64(text: Uint8Array): NativeBuffer | undefined {
  const length = text.length
  if (length === 0) return allocateNative(0)
  if ((length & 3) !== 0) return undefined
  const paddingCount = text[length - 1] !== PADDING ? 0 : text[length - 2] !== PADDING ? 1 : 2
  const byteCount = (length >>> 2) * 3 - paddingCount
  const bytes = allocateNative(byteCount)
  const wholeEnd = paddingCount === 0 ? length : length - 4
  let seen = 0
  let at = 0
  for (let i = 0; i < wholeEnd; i += 4) {
    const a = SIX_BITS[text[i]!]!
    const b = SIX_BITS[text[i + 1]!]!
    const c = SIX_BITS[text[i + 2]!]!
    const d = SIX_BITS[text[i + 3]!]!
    seen |= a | b | c | d
    bytes[at] = (a << 2) | (b >>> 4)
    bytes[at + 1] = (b << 4) | (c >>> 2)
    bytes[at + 2] = (c << 6) | d
    at += 3
  }
  if (paddingCount !== 0) {
    const a = SIX_BITS[text[wholeEnd]!]!
    const b = SIX_BITS[text[wholeEnd + 1]!]!
    const c = paddingCount === 1 ? SIX_BITS[text[wholeEnd + 2]!]! : 0
    seen |= a | b | c
    const unusedBits = paddingCount === 1 ? c & 0x03 : b & 0x0f
    if (unusedBits !== 0) return undefined
    bytes[at] = (a << 2) | (b >>> 4)
    if (paddingCount === 1) bytes[at + 1] = (b << 4) | (c >>> 2)
  }
  return (seen & INVALID) === 0 ? bytes : undefined
}
