/** Does something grow? */

/** A straight line through points, by least squares: how steep it is, and how sure that is. */
export interface Trend {
  /** of y for one of x */
  readonly slope: number
  readonly standardError: number
}

/** @param points  three at least: two always lie on a line */
export function trendOf(points: readonly (readonly [x: number, y: number])[]): Trend {
  const count = points.length
  if (count < 3) return { slope: Number.NaN, standardError: Number.NaN }
  const meanX = points.reduce((total, [x]) => total + x, 0) / count
  const meanY = points.reduce((total, [, y]) => total + y, 0) / count
  const spreadX = points.reduce((total, [x]) => total + (x - meanX) ** 2, 0)
  const slope = points.reduce((total, [x, y]) => total + (x - meanX) * (y - meanY), 0) / spreadX
  const unexplained = points.reduce((total, [x, y]) => total + (y - meanY - slope * (x - meanX)) ** 2, 0)
  return { slope, standardError: Math.sqrt(unexplained / (count - 2) / spreadX) }
}

/** Is it steeper than `bound`, and not by chance? Two standard errors are left for that. */
export function isAbove({ slope, standardError }: Trend, bound: number): boolean {
  return slope - 2 * standardError > bound
}

/** Counts that go up and down grow when the least of the last quarter is more than the most of the second one. */
export function grows(counts: readonly number[]): boolean {
  const quarter = Math.floor(counts.length / 4)
  if (quarter === 0) return false
  return Math.min(...counts.slice(-quarter)) > Math.max(...counts.slice(quarter, 2 * quarter))
}
