/**
 * Buffer's string methods without the argument handling of `toString` and `write`, which costs as much as the work itself
 * on strings of a few bytes. Node has them on every Buffer and its own library is built on them; only the types are missing.
 */
export interface NativeBuffer extends Buffer {
  utf8Slice(start: number, end: number): string
  latin1Slice(start: number, end: number): string
  base64Slice(start: number, end: number): string
  utf8Write(text: string, offset: number, byteLength: number): number
  latin1Write(text: string, offset: number, byteLength: number): number
}

/** The same bytes as a Buffer; no copy. */
export function asNativeBuffer(bytes: Uint8Array): NativeBuffer {
  const buffer = bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return buffer as NativeBuffer
}

/** Room for `byteCount` bytes with arbitrary content: the caller writes every one of them. */
export function allocateNative(byteCount: number): NativeBuffer {
  return Buffer.allocUnsafe(byteCount) as NativeBuffer
}
