import type { PageQuery } from '../../contracts/channel-directory.ts'
import { badOption } from '../../errors.ts'
import type { Page } from '../../model/channel.ts'
import type { Database } from './database.ts'
import { within } from './keys.ts'

const DEFAULT_LIMIT = 1000
const MAX_LIMIT = 10_000

/**
 * One page of the keys that begin with `prefix`, in their order; `item` makes of the rest of a key, and its value, what is
 * listed. The cursor is the rest of the last key shown: whoever stays is on exactly one page, whatever else changes.
 * @throws TypeError for a limit out of bounds, and for what is no cursor
 */
export async function pageOfKeys<T>(
  database: Database,
  prefix: Buffer,
  { limit = DEFAULT_LIMIT, cursor }: PageQuery,
  item: (rest: Buffer, value: Buffer) => T,
): Promise<Page<T>> {
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT) badOption('page limit', `an integer from 1 to ${MAX_LIMIT}`, limit)
  const range = within(prefix)
  if (cursor !== undefined) {
    const last = typeof cursor === 'string' ? Buffer.from(cursor, 'base64url') : undefined
    if (last === undefined || last.toString('base64url') !== cursor) badOption('page cursor', 'the cursor of the page before', cursor)
    range.gte = Buffer.concat([prefix, last, Buffer.alloc(1)]) // the first key behind it
  }
  const entries = await database.entries({ ...range, limit: limit + 1 })
  const shown = entries.slice(0, limit)
  const items = shown.map(([key, value]) => item(key.subarray(prefix.length), value))
  if (entries.length <= limit) return { items }
  return { items, cursor: shown.at(-1)![0].subarray(prefix.length).toString('base64url') }
}
