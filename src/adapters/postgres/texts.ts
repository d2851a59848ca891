/**
 * Texts as keys of an index, which takes 2,700 bytes at most and must hold two or three of them. Up to 500 bytes of UTF-8 a
 * text is its own key. Of a longer one the key is 470 bytes of it, the byte 0xff, which UTF-8 does not have, and SHA-256 of
 * the whole; the text itself is in a table of its own, written before the first row that names the key and never removed.
 */
import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { IMError } from '../../errors.ts'
import type { Database } from './database.ts'

const MAX_PLAIN_BYTES = 500
const PREFIX_BYTES = 470
const LONG_MARK = 0xff

/** Long texts that need not be looked up again; each is up to 32 KiB. */
const MAX_KNOWN_COUNT = 200

export class Texts {
  readonly #database: Database
  /** by key, latin1 */
  readonly #known = new LRUCache<string, string>({ max: MAX_KNOWN_COUNT })

  constructor(database: Database) {
    this.#database = database
  }

  /** The database may be another one than before. */
  forget(): void {
    this.#known.clear()
  }

  /** Have those of the texts that are longer than their keys found by `textsOf` from now on. Nothing to wait for without one. */
  async keep(texts: Iterable<string>): Promise<void> {
    let kept: Map<string, readonly [key: Buffer, bytes: Buffer, text: string]> | undefined
    for (const text of texts) {
      if (text.length * 3 <= MAX_PLAIN_BYTES) continue
      const key = textKey(text)
      const name = key.toString('latin1')
      if (isLong(key) && !this.#known.has(name)) (kept ??= new Map()).set(name, [key, Buffer.from(text), text])
    }
    if (kept === undefined) return
    const rows = [...kept.values()].sort(([a], [b]) => Buffer.compare(a, b))
    const { s } = this.#database
    await this.#database.query(
      `INSERT INTO ${s}.long_texts SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING`,
      [rows.map(([key]) => key), rows.map(([, bytes]) => bytes)],
    )
    for (const [key, , text] of rows) this.#known.set(key.toString('latin1'), text)
  }

  /** The texts of keys, in their order. */
  async textsOf(keys: readonly Buffer[]): Promise<string[]> {
    const long = new Map<string, string | undefined>()
    for (const key of keys) if (isLong(key)) long.set(key.toString('latin1'), this.#known.get(key.toString('latin1')))
    const unknown = [...long].filter(([, text]) => text === undefined).map(([name]) => Buffer.from(name, 'latin1'))
    if (unknown.length > 0) {
      const { s } = this.#database
      const rows = await this.#database.query<{ text_key: Buffer; text: Buffer }>(
        `SELECT text_key, text FROM ${s}.long_texts WHERE text_key = ANY ($1::bytea[])`,
        [unknown],
      )
      for (const { text_key, text } of rows) {
        const name = text_key.toString('latin1')
        long.set(name, text.toString())
        this.#known.set(name, text.toString())
      }
    }
    return keys.map((key) => {
      if (!isLong(key)) return key.toString()
      const text = long.get(key.toString('latin1'))
      if (text === undefined) throw new IMError('IM_STORE_CORRUPT', { detail: 'a row of long_texts is missing' })
      return text
    })
  }
}

export function textKey(text: string): Buffer {
  const bytes = Buffer.from(text)
  if (bytes.length <= MAX_PLAIN_BYTES) return bytes
  return Buffer.concat([bytes.subarray(0, PREFIX_BYTES), Buffer.of(LONG_MARK), createHash('sha256').update(bytes).digest()])
}

export function isLong(key: Buffer): boolean {
  return key.length > PREFIX_BYTES && key[PREFIX_BYTES] === LONG_MARK
}
