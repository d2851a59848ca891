import type { PageQuery } from '../../contracts/channel-directory.ts'
import { badOption, integerBetween } from '../../errors.ts'
import type { Page } from '../../model/channel.ts'

const DEFAULT_LIMIT = 1000
const MAX_LIMIT = 10_000

/** Where a page begins, in the order of keys. */
export interface PageStart {
  readonly limit: number
  /** the last key of the page before */
  readonly last: Buffer | undefined
}

/** @throws TypeError for a limit out of bounds, and for what is no cursor */
export function pageStart({ limit = DEFAULT_LIMIT, cursor }: PageQuery): PageStart {
  integerBetween('page limit', limit, 1, MAX_LIMIT)
  if (cursor === undefined) return { limit, last: undefined }
  const last = typeof cursor === 'string' ? Buffer.from(cursor, 'base64url') : undefined
  if (last === undefined || last.toString('base64url') !== cursor) badOption('page cursor', 'the cursor of the page before', cursor)
  return { limit, last }
}

/** `rows` are up to `limit` + 1, of which the last only tells that there is more. Whoever stays is on exactly one page. */
export async function pageOf<R, T>(
  rows: readonly R[],
  { limit }: PageStart,
  keyOf: (row: R) => Buffer,
  items: (rows: readonly R[]) => Promise<T[]>,
): Promise<Page<T>> {
  const shown = await items(rows.slice(0, limit))
  return rows.length <= limit ? { items: shown } : { items: shown, cursor: keyOf(rows[limit - 1]!).toString('base64url') }
}
