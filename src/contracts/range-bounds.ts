import type { RangeQuery } from './message-store.ts'
import { badOption } from '../errors.ts'

const DEFAULT_LIMIT = 100
const MAX_LIMIT = 10_000

/** A RangeQuery with nothing left to default: visit `startSeq`, `startSeq + step` … while inside the bounds. */
export interface ResolvedRange {
  readonly startSeq: number
  readonly endSeq: number
  readonly step: 1 | -1
  readonly limit: number
}

/**
 * Fill in the defaults of a query and cut it to the numbers a channel still has.
 * @returns undefined when no number can match
 * @throws TypeError naming what is out of bounds
 */
export function resolveRange(query: RangeQuery, held: { firstSeq: number; lastSeq: number }): ResolvedRange | undefined {
  const direction = query.direction ?? 'forward'
  if (direction !== 'forward' && direction !== 'backward') badOption('range direction', "'forward' or 'backward'", direction)
  const limit = query.limit ?? DEFAULT_LIMIT
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT) {
    badOption('range limit', `an integer from 1 to ${MAX_LIMIT}`, limit)
  }
  const first = checkSeq('range startSeq', query.startSeq)
  const last = checkSeq('range endSeq', query.endSeq)
  const lowest = Math.max(direction === 'forward' ? (first ?? 0) : (last ?? 0), held.firstSeq)
  const highest = Math.min((direction === 'forward' ? last : first) ?? held.lastSeq, held.lastSeq)
  if (lowest > highest) return undefined
  return direction === 'forward'
    ? { startSeq: lowest, endSeq: highest, step: 1, limit }
    : { startSeq: highest, endSeq: lowest, step: -1, limit }
}

/** A number that may be compared with a seq: an integer from 0. @throws TypeError naming `option` */
export function checkSeq(option: string, seq: number | undefined): number | undefined {
  if (seq !== undefined && (!Number.isSafeInteger(seq) || seq < 0)) badOption(option, 'an integer from 0', seq)
  return seq
}
