import { isUtf8 } from 'node:buffer'

/** Ids are short and ASCII as a rule: for those a loop is faster than asking the runtime. */
const SHORT_TEXT = 64

/** In UTF-8. */
export function utf8Length(text: string): number {
  if (text.length > SHORT_TEXT) return Buffer.byteLength(text)
  for (let index = 0; index < text.length; index++) if (text.charCodeAt(index) > 0x7f) return Buffer.byteLength(text)
  return text.length
}

/** Behind its length in two bytes, big-endian, which it fits. @returns the end */
export function writeText(target: Buffer, offset: number, text: string): number {
  const start = offset + 2
  let end = start
  if (text.length <= SHORT_TEXT) {
    for (let index = 0; index < text.length; index++) {
      const unit = text.charCodeAt(index)
      if (unit > 0x7f) break
      target[end++] = unit
    }
  }
  if (end - start < text.length) end = start + target.write(text, start)
  target[offset] = (end - start) >>> 8
  target[offset + 1] = end - start
  return end
}

/** What `writeText` has written at `offset`. */
export function readText(bytes: Buffer, offset: number): string {
  const start = offset + 2
  const end = start + ((bytes[offset]! << 8) | bytes[offset + 1]!)
  if (end - start > SHORT_TEXT) return bytes.toString('utf8', start, end)
  for (let index = start; index < end; index++) if (bytes[index]! > 0x7f) return bytes.toString('utf8', start, end)
  return bytes.toString('latin1', start, end)
}

/** Are the bytes text, so that everybody reads the same out of them, and writes the same again? */
export function isText(bytes: Buffer, start: number, end: number): boolean {
  for (let index = start; index < end; index++) if (bytes[index]! > 0x7f) return isUtf8(bytes.subarray(index, end))
  return true
}
