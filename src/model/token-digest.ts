import { createHash } from 'node:crypto'

/** What is kept of a token: SHA-256 of its UTF-8 bytes. */
export function tokenDigest(token: string): Buffer {
  return createHash('sha256').update(token, 'utf8').digest()
}
