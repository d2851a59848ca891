/** What was measured, as a table to read and as a file to compute with. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { machine, median, spread } from './sample.ts'

/** Writes `artifacts/bench/NAME.json`, in the folder of the package. */
export function writeJSON(name: string, content: object): void {
  const folder = join('artifacts', 'bench')
  mkdirSync(folder, { recursive: true })
  const head = { name, date: new Date().toISOString(), machine: machine(), loadAverageAtTheEnd: loadavg()[0] }
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify({ ...head, ...content }, undefined, 2)}\n`)
}

export function printHead(what: string): void {
  const [load] = loadavg() as [number]
  console.log(`${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC, ${machine()}, load average ${load.toFixed(1)} at the start: ${what}, median (least – most)\n`)
}

export function printTable(columns: readonly string[], rows: readonly (readonly string[])[]): void {
  console.log(`| ${columns.join(' | ')} |`)
  console.log(`|${' --- |'.repeat(columns.length)}`)
  for (const row of rows) console.log(`| ${row.join(' | ')} |`)
  console.log('')
}

/** Median of one figure of the runs, with so many digits behind the point; a dash where there is none. */
export function mid(values: readonly number[], digits = 1): string {
  const middle = median(values)
  return Number.isFinite(middle) ? middle.toFixed(digits) : '–'
}

/** Median, least and most. */
export function range(values: readonly number[], digits = 0): string {
  if (digits === 0) return spread(values)
  return `${mid(values, digits)} (${Math.min(...values).toFixed(digits)} – ${Math.max(...values).toFixed(digits)})`
}

export function percent(values: readonly number[]): string {
  return `${Math.round(median(values) * 100)} %`
}
