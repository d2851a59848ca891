import { allocateNative, type NativeBuffer } from './native-buffer.ts'

/** What is signed ahead of the payload, in this order: texts as UTF-8, numbers in decimal, no separators (wkproto 10). */
export type SignedFields = readonly (string | number)[]

const MAX_BYTES_PER_UNIT = 3

/**
 * Writes the fields at `at`, using no byte from `limit` on.
 * @returns the end of what it wrote, or -1 when they might not fit
 */
export function writeFields(bytes: NativeBuffer, at: number, limit: number, fields: SignedFields): number {
  for (let index = 0; index < fields.length; index++) {
    const field = fields[index]!
    const text = typeof field === 'string' ? field : `${field}`
    if (at + text.length * MAX_BYTES_PER_UNIT > limit) return -1
    at = writeText(bytes, at, text)
  }
  return at
}

/** The fields, then the payload as it travels, in memory of their own. */
export function signBytes(fields: SignedFields, payload: Uint8Array): NativeBuffer {
  const head = fields.join('')
  const headBytes = Buffer.byteLength(head)
  const bytes = allocateNative(headBytes + payload.length)
  bytes.utf8Write(head, 0, headBytes)
  bytes.set(payload, headBytes)
  return bytes
}

function writeText(bytes: NativeBuffer, at: number, text: string): number {
  const { length } = text
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i)
    if (code > 0x7f) return at + bytes.utf8Write(text, at, length * MAX_BYTES_PER_UNIT)
    bytes[at + i] = code
  }
  return at + length
}
